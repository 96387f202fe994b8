/*
 * cuda_skinny_stream.cu
 *	  Products with few rows of x on Hopper: weights as one stream.
 *
 * One block for each multiprocessor stays for the whole product.  One of its
 * warps does nothing but order pieces of weights (16 rows, 512 columns) into a
 * ring of buffers with the bulk copy engine, eight of them ahead, across the
 * borders of tiles; eight warps multiply what has arrived, each its 64
 * columns, as cuda_skinny.cu does.  So memory is never idle, neither at the
 * start nor at the end of a tile of 16 outputs.
 *
 * Rows in a buffer are 64 bytes longer than they need be: reading fragments
 * then meets no bank twice.
 *
 * cuda/cuda_skinny_stream.cu
 */
#include "cuda/cuda_hopper.cuh"

#define STREAM_WARPS 8
#define STREAM_THREADS ((STREAM_WARPS + 1) * WARP)
#define STAGES 8
#define TILE_ROWS 16
#define SEGMENT (STREAM_WARPS * 64) /* columns of a stage */
#define ROW_STRIDE (SEGMENT + 32)
#define STAGE_ELEMENTS (TILE_ROWS * ROW_STRIDE)
#define STAGES_BYTES (STAGES * STAGE_ELEMENTS * (int) sizeof(bf16))

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900

/* ------------------------------------------------------------------------
 * The kernel
 * ------------------------------------------------------------------------
 */
typedef struct Ring
{
	uint64_t full[STAGES];
	uint64_t empty[STAGES];
} Ring;

/* Order all pieces of this block's tiles, one after the other. */
static __device__ void
order_weights(const SkinnyArgs &p, Ring &ring, bf16 *stages)
{
	const int lane = (int) threadIdx.x % WARP;
	const int32_t n_tiles = (p.n_out + TILE_ROWS - 1) / TILE_ROWS;
	uint32_t count = 0;

	for (int32_t tile = (int32_t) blockIdx.x; tile < n_tiles;
		 tile += (int32_t) gridDim.x)
	{
		int32_t n_rows = min(p.n_out - tile * TILE_ROWS, TILE_ROWS);

		for (int32_t first = 0; first < p.n_cols; first += SEGMENT, count++)
		{
			int stage = (int) (count % STAGES);
			int n_bytes = min(p.n_cols - first, SEGMENT) * (int) sizeof(bf16);

			barrier_wait(&ring.empty[stage], (int) (count / STAGES + 1) % 2);
			if (lane == 0)
				barrier_expect(&ring.full[stage], n_rows * n_bytes);
			__syncwarp();
			if (lane < n_rows)
				copy_bulk(stages + stage * STAGE_ELEMENTS + lane * ROW_STRIDE,
						  p.weight +
							  (int64_t) (tile * TILE_ROWS + lane) * p.n_cols +
							  first,
						  n_bytes, &ring.full[stage]);
		}
	}
}

/* One warp's 64 columns of a piece; x is read while the piece may still come. */
template <int N_TILES>
static __device__ __forceinline__ void
multiply_piece(const SkinnyArgs &p, float sums[N_TILES][4], const bf16 *stage,
			   int32_t first, uint64_t *full, int parity)
{
	const int lane = (int) threadIdx.x % WARP;
	const int column = (int) (threadIdx.x / WARP) * 64 + lane % 4 * 8;
	const bf16 *row = stage + lane / 4 * ROW_STRIDE + column;
	uint4 x[2][N_TILES];

#pragma unroll
	for (int i = 0; i < 2; i++)
#pragma unroll
		for (int n = 0; n < N_TILES; n++)
		{
			x[i][n] = make_uint4(0, 0, 0, 0);
			if (first + column + 32 * i < p.n_cols &&
				lane / 4 + 8 * n < p.n_rows)
				x[i][n] =
					*(const uint4 *) (p.x +
									  (int64_t) (lane / 4 + 8 * n) * p.n_cols +
									  first + column + 32 * i);
		}
	barrier_wait(full, parity);
#pragma unroll
	for (int i = 0; i < 2; i++)
	{
		uint4 upper = *(const uint4 *) (row + 32 * i);
		uint4 lower = *(const uint4 *) (row + 8 * ROW_STRIDE + 32 * i);
		uint32_t a[4] = { upper.x, lower.x, upper.y, lower.y };
		uint32_t b[4] = { upper.z, lower.z, upper.w, lower.w };

		/* beyond the last column lies what a piece before has left */
		if (first + column - lane % 4 * 8 + 32 * i >= p.n_cols)
			break;
#pragma unroll
		for (int n = 0; n < N_TILES; n++)
		{
			mma_16x8x16(sums[n], a, x[i][n].x, x[i][n].y);
			mma_16x8x16(sums[n], b, x[i][n].z, x[i][n].w);
		}
	}
}

/* All multiplying warps, and they alone. */
static __device__ __forceinline__ void
workers_sync(void)
{
	asm volatile("bar.sync 1, %0;" : : "n"(STREAM_WARPS * WARP) : "memory");
}

template <int N_TILES>
static __device__ __forceinline__ void
store_tile(const SkinnyArgs &p, const float sums[N_TILES][4],
		   float (*parts)[N_TILES * 8][TILE_ROWS], int32_t tile)
{
	const int lane = (int) threadIdx.x % WARP;
	const int warp = (int) threadIdx.x / WARP;

#pragma unroll
	for (int n = 0; n < N_TILES; n++)
#pragma unroll
		for (int i = 0; i < 4; i++)
			parts[warp][8 * n + lane % 4 * 2 + i % 2][lane / 4 + i / 2 * 8] =
				sums[n][i];
	workers_sync();
	for (int i = (int) threadIdx.x; i < p.n_rows * TILE_ROWS;
		 i += STREAM_WARPS * WARP)
	{
		int row = i / TILE_ROWS;
		int32_t out = tile * TILE_ROWS + i % TILE_ROWS;
		float sum = 0;

#pragma unroll
		for (int w = 0; w < STREAM_WARPS; w++)
			sum += parts[w][row][i % TILE_ROWS];
		if (out >= p.n_out)
			continue;
		if (p.out_is_f32)
			((float *) p.out)[row * p.out_stride + out] = sum;
		else
			((bf16 *) p.out)[row * p.out_stride + out] = __float2bfloat16(sum);
	}
}

#endif

template <int N_TILES>
static __global__ void
__launch_bounds__(STREAM_THREADS, 1)
	skinny_stream(const __grid_constant__ SkinnyArgs p)
{
/* on an older GPU it is never started */
#if __CUDA_ARCH__ >= 900
	extern __shared__ __align__(128) unsigned char shared[];
	__shared__ Ring ring;
	/* two, so that a tile's results can be read while the next one's come */
	__shared__ float parts[2][STREAM_WARPS][N_TILES * 8][TILE_ROWS];
	const int32_t n_tiles = (p.n_out + TILE_ROWS - 1) / TILE_ROWS;
	bf16 *stages = (bf16 *) shared;
	uint32_t count = 0;
	int turn = 0;

	pass_release();
	if (threadIdx.x == 0)
	{
		for (int i = 0; i < STAGES; i++)
		{
			barrier_init(&ring.full[i], 1);
			barrier_init(&ring.empty[i], STREAM_WARPS);
		}
		asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
	}
	__syncthreads();
	if (threadIdx.x >= STREAM_WARPS * WARP)
	{
		/* weights do not change: they come while the kernel in front ends */
		order_weights(p, ring, stages);
		return;
	}
	pass_wait();
	for (int32_t tile = (int32_t) blockIdx.x; tile < n_tiles;
		 tile += (int32_t) gridDim.x)
	{
		float sums[N_TILES][4] = {};

		for (int32_t first = 0; first < p.n_cols; first += SEGMENT, count++)
		{
			int stage = (int) (count % STAGES);

			multiply_piece<N_TILES>(p, sums, stages + stage * STAGE_ELEMENTS,
									first, &ring.full[stage],
									(int) (count / STAGES) % 2);
			__syncwarp();
			if (threadIdx.x % WARP == 0)
				barrier_arrive(&ring.empty[stage]);
		}
		store_tile<N_TILES>(p, sums, parts[turn], tile);
		turn = 1 - turn;
	}
#endif
}

template <int N_TILES>
static bool
launch(LlmCuda *cuda, const SkinnyArgs *args, LlmError *err)
{
	int64_t n_tiles = ceil_div(args->n_out, TILE_ROWS);

	CUDA_TRY(cudaFuncSetAttribute(skinny_stream<N_TILES>,
								  cudaFuncAttributeMaxDynamicSharedMemorySize,
								  STAGES_BYTES));
	CUDA_TRY(launch_early(
		cuda,
		{ dim3((unsigned) (n_tiles < cuda->n_sms ? n_tiles : cuda->n_sms)),
		  STREAM_THREADS, STAGES_BYTES },
		skinny_stream<N_TILES>, *args));
	return true;
}

bool
cuda_skinny_stream(LlmCuda *cuda, const SkinnyArgs *args, LlmError *err)
{
	assert(cuda->capability >= 90);
	return args->n_rows <= 8 ? launch<1>(cuda, args, err)
							 : launch<2>(cuda, args, err);
}

/*
 * cuda_skinny_stream.cu
 *	  Products with few rows of x on Hopper: weights as one stream.
 *
 * One block for each multiprocessor stays for the whole product.  One of its
 * warps does nothing but order pieces of weights (16 rows, 512 columns) into a
 * ring of buffers, each by one instruction of the tensor copy engine (which
 * spends as long on 1 KB as on 16), across the borders of tiles; eight warps
 * multiply what has arrived, each its 64 columns, as cuda_skinny.cu does.  So
 * memory is never idle, neither at the start nor at the end of a tile of 16
 * outputs.  The ring leaves no room for a second such block: with blocks of two
 * products on a multiprocessor whole steps were slower.
 *
 * x comes to registers some pieces ahead: under the stream's load a read takes
 * as long as several pieces.
 *
 * In a buffer lie, for each 64 columns, 16 rows of 128 bytes whose units of 16
 * bytes are exchanged as the engine does it (unit ^ row % 8): eight threads
 * that read meet no bank twice.
 *
 * cuda/cuda_skinny_stream.cu
 */
#include "cuda/cuda_hopper.cuh"

#include <cuda.h>

#define STREAM_WARPS 8
#define STREAM_THREADS ((STREAM_WARPS + 1) * WARP)
#define STAGES 7
#define TILE_ROWS 16
#define CHUNK 64					   /* columns of a row of 128 bytes */
#define SEGMENT (STREAM_WARPS * CHUNK) /* columns of a stage */
#define STAGE_BYTES (TILE_ROWS * SEGMENT * (int) sizeof(bf16))
#define SWIZZLE_BYTES 1024 /* what buffers have to be aligned to */
#define X_AHEAD 4		   /* pieces */

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

/* A box of a tensor of three dimensions, from these coordinates on. */
static __device__ __forceinline__ void
copy_tensor(void *dest, const CUtensorMap *tensor, int32_t x, int32_t y,
			int32_t z, uint64_t *barrier)
{
	asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::"
				 "complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];"
				 :
				 : "r"(address_of(dest)), "l"(tensor), "r"(address_of(barrier)),
				   "r"(x), "r"(y), "r"(z)
				 : "memory");
}

/* A block's tiles are blockIdx.x, + gridDim.x, ...; a tile's pieces its columns. */
typedef struct StreamShape
{
	int32_t n_tiles;  /* of this block */
	int32_t n_pieces; /* of a tile */
} StreamShape;

static __device__ __forceinline__ StreamShape
stream_shape(const SkinnyArgs &p)
{
	const int32_t n_tiles = (p.n_out + TILE_ROWS - 1) / TILE_ROWS;
	StreamShape shape;

	shape.n_tiles = (n_tiles - (int32_t) blockIdx.x + (int32_t) gridDim.x - 1) /
					(int32_t) gridDim.x;
	shape.n_pieces = (p.n_cols + SEGMENT - 1) / SEGMENT;
	return shape;
}

/* Order all pieces of this block's tiles, one after the other. */
static __device__ void
order_weights(const CUtensorMap *weights, const StreamShape &shape, Ring &ring,
			  unsigned char *stages)
{
	uint32_t count = 0;

	for (int32_t t = 0; t < shape.n_tiles; t++)
	{
		int32_t row =
			((int32_t) blockIdx.x + t * (int32_t) gridDim.x) * TILE_ROWS;

		for (int32_t piece = 0; piece < shape.n_pieces; piece++, count++)
		{
			int stage = (int) (count % STAGES);

			barrier_wait(&ring.empty[stage], (int) (count / STAGES + 1) % 2);
			/* what lies outside of the matrix arrives as zeros, and counts */
			barrier_expect(&ring.full[stage], STAGE_BYTES);
			copy_tensor(stages + stage * STAGE_BYTES, weights, 0, row,
						piece * (SEGMENT / CHUNK), &ring.full[stage]);
		}
	}
}

/* A thread's columns of a piece: 16, of each of its rows of x. */
template <int N_TILES> struct XPiece
{
	uint4 values[N_TILES][2];
};

template <int N_TILES>
static __device__ __forceinline__ void
read_x(const SkinnyArgs &p, int32_t piece, XPiece<N_TILES> *x)
{
	const int lane = (int) threadIdx.x % WARP;
	const int32_t col =
		piece * SEGMENT + (int) (threadIdx.x / WARP) * CHUNK + lane % 4 * 16;

#pragma unroll
	for (int n = 0; n < N_TILES; n++)
	{
		const int row = lane / 4 + 8 * n;
		const uint4 *from =
			(const uint4 *) (p.x + (int64_t) row * p.n_cols + col);
		const bool is_there = row < p.n_rows && col < p.n_cols;

#pragma unroll
		for (int i = 0; i < 2; i++)
			x->values[n][i] = is_there ? from[i] : make_uint4(0, 0, 0, 0);
	}
}

/* One warp's 64 columns of a piece. */
template <int N_TILES>
static __device__ __forceinline__ void
multiply_piece(const unsigned char *stage, const XPiece<N_TILES> &x,
			   float sums[N_TILES][4])
{
	const int row = (int) threadIdx.x % WARP / 4;
	const int unit = (int) threadIdx.x % 4 * 2;
	const unsigned char *upper =
		stage + (int) (threadIdx.x / WARP) * TILE_ROWS * 128 + row * 128;

#pragma unroll
	for (int i = 0; i < 2; i++)
	{
		const int at = ((unit + i) ^ row) * 16;
		uint4 u = *(const uint4 *) (upper + at);
		uint4 l = *(const uint4 *) (upper + 8 * 128 + at);
		uint32_t a[4] = { u.x, l.x, u.y, l.y };
		uint32_t b[4] = { u.z, l.z, u.w, l.w };

#pragma unroll
		for (int n = 0; n < N_TILES; n++)
		{
			const uint4 &v = x.values[n][i];

			mma_16x8x16(sums[n], a, v.x, v.y);
			mma_16x8x16(sums[n], b, v.z, v.w);
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

/*
 * All pieces of this block's tiles.  Where a thread has read x of piece i, it
 * waits in x[i % X_AHEAD] until piece i has come.
 */
template <int N_TILES>
static __device__ __forceinline__ void
multiply_all(const SkinnyArgs &p, const StreamShape &shape, Ring &ring,
			 const unsigned char *stages,
			 float (*parts)[STREAM_WARPS][N_TILES * 8][TILE_ROWS])
{
	const int32_t n_all = shape.n_tiles * shape.n_pieces;
	XPiece<N_TILES> x[X_AHEAD];
	float sums[N_TILES][4] = {};
	int32_t piece = 0;
	int32_t next = 0; /* piece whose x is read next */
	int32_t tile = 0;

#pragma unroll
	for (int i = 0; i < X_AHEAD; i++)
	{
		read_x<N_TILES>(p, next, &x[i]);
		next = next + 1 < shape.n_pieces ? next + 1 : 0;
	}
	for (int32_t count = 0; count < n_all; count += X_AHEAD)
	{
#pragma unroll
		for (int i = 0; i < X_AHEAD; i++)
		{
			const int32_t now = count + i;
			const int stage = now % STAGES;

			if (now >= n_all)
				break;
			barrier_wait(&ring.full[stage], now / STAGES % 2);
			multiply_piece<N_TILES>(stages + stage * STAGE_BYTES, x[i], sums);
			__syncwarp();
			if (threadIdx.x % WARP == 0)
				barrier_arrive(&ring.empty[stage]);
			read_x<N_TILES>(p, next, &x[i]);
			next = next + 1 < shape.n_pieces ? next + 1 : 0;
			if (++piece < shape.n_pieces)
				continue;
			store_tile<N_TILES>(p, sums, parts[tile % 2],
								(int32_t) blockIdx.x +
									tile * (int32_t) gridDim.x);
#pragma unroll
			for (int n = 0; n < N_TILES; n++)
#pragma unroll
				for (int k = 0; k < 4; k++)
					sums[n][k] = 0;
			piece = 0;
			tile++;
		}
	}
}

#endif

template <int N_TILES>
static __global__ void
__launch_bounds__(STREAM_THREADS, 1)
	skinny_stream(const __grid_constant__ SkinnyArgs p,
				  const __grid_constant__ CUtensorMap weights)
{
/* on an older GPU it is never started */
#if __CUDA_ARCH__ >= 900
	extern __shared__ unsigned char shared[];
	__shared__ Ring ring;
	/* two, so that a tile's results can be read while the next one's come */
	__shared__ float parts[2][STREAM_WARPS][N_TILES * 8][TILE_ROWS];
	const StreamShape shape = stream_shape(p);
	unsigned char *stages =
		shared +
		(SWIZZLE_BYTES - address_of(shared) % SWIZZLE_BYTES) % SWIZZLE_BYTES;

	if (threadIdx.x == 0)
	{
		for (int i = 0; i < STAGES; i++)
		{
			barrier_init(&ring.full[i], 1);
			barrier_init(&ring.empty[i], STREAM_WARPS);
		}
		fence_async_proxy();
	}
	__syncthreads();
	if (threadIdx.x >= STREAM_WARPS * WARP)
	{
		/* weights do not change: they come while the kernel in front ends */
		if (threadIdx.x == STREAM_WARPS * WARP)
		{
			order_weights(&weights, shape, ring, stages);
			pass_release();
		}
		return;
	}
	pass_wait();
	multiply_all<N_TILES>(p, shape, ring, stages, parts);
#endif
}

/* ------------------------------------------------------------------------
 * Launching it
 * ------------------------------------------------------------------------
 */
typedef CUresult (*EncodeTensor)(
	CUtensorMap *map, CUtensorMapDataType type, cuuint32_t n_dims,
	void *address, const cuuint64_t *dims, const cuuint64_t *strides,
	const cuuint32_t *box, const cuuint32_t *steps,
	CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
	CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill);

/* Linking with the driver would ask for it where there is no GPU. */
static bool
find_encode_tensor(EncodeTensor *encode, LlmError *err)
{
	static EncodeTensor found;
	cudaDriverEntryPointQueryResult result;
	void *function = NULL;

	if (found == NULL)
	{
		CUDA_TRY(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled",
												  &function, 12000,
												  cudaEnableDefault, &result));
		if (result != cudaDriverEntryPointSuccess)
			return llm_error_set(err, LLM_ERROR_UNSUPPORTED,
								 "the GPU driver has no "
								 "cuTensorMapEncodeTiled");
		found = (EncodeTensor) function;
	}
	*encode = found;
	return true;
}

/* The weights as [n_cols / 64, n_out, 64], of which a piece is a box. */
static bool
describe_weights(const SkinnyArgs *args, CUtensorMap *map, LlmError *err)
{
	const cuuint64_t dims[3] = { CHUNK, (cuuint64_t) args->n_out,
								 (cuuint64_t) (args->n_cols / CHUNK) };
	const cuuint64_t strides[2] = { (cuuint64_t) args->n_cols * sizeof(bf16),
									CHUNK * sizeof(bf16) };
	const cuuint32_t box[3] = { CHUNK, TILE_ROWS, SEGMENT / CHUNK };
	const cuuint32_t steps[3] = { 1, 1, 1 };
	EncodeTensor encode = NULL;
	CUresult code;

	if (!find_encode_tensor(&encode, err))
		return false;
	code =
		encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, (void *) args->weight,
			   dims, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
			   CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_NONE,
			   CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
	return code == CUDA_SUCCESS ||
		   llm_error_set(err, LLM_ERROR_INTERNAL,
						 "CUDA failed in cuTensorMapEncodeTiled: error %d",
						 (int) code);
}

template <int N_TILES>
static bool
launch(LlmCuda *cuda, const SkinnyArgs *args, LlmError *err)
{
	const int shared_bytes = STAGES * STAGE_BYTES + SWIZZLE_BYTES;
	int64_t n_tiles = ceil_div(args->n_out, TILE_ROWS);
	CUtensorMap weights;

	if (!describe_weights(args, &weights, err))
		return false;
	CUDA_TRY(cudaFuncSetAttribute(skinny_stream<N_TILES>,
								  cudaFuncAttributeMaxDynamicSharedMemorySize,
								  shared_bytes));
	CUDA_TRY(launch_early(
		cuda,
		{ dim3((unsigned) (n_tiles < cuda->n_sms ? n_tiles : cuda->n_sms)),
		  STREAM_THREADS, (size_t) shared_bytes },
		skinny_stream<N_TILES>, *args, weights));
	return true;
}

bool
cuda_skinny_stream(LlmCuda *cuda, const SkinnyArgs *args, LlmError *err)
{
	assert(cuda->capability >= 90 && args->n_cols % CHUNK == 0);
	return args->n_rows <= 8 ? launch<1>(cuda, args, err)
							 : launch<2>(cuda, args, err);
}

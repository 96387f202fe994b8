/*
 * cuda_linear_tile.cu
 *	  A matrix product whose sums run over the columns in their order, 16 at a
 *	  time, whatever the number of rows.
 *
 * A block computes a tile of rows by outputs; x and W come through stages in
 * shared memory by asynchronous copies, and are multiplied by the tensor
 * cores, each output in one accumulator.  So a row's bits depend neither on
 * its company nor on the size of tiles, of which there are two: for few rows,
 * where reading weights counts, and for many.
 *
 * In shared memory the 16-byte pieces of a row lie in an order that differs
 * from row to row, so that fragments are read without bank conflicts.
 *
 * cuda/cuda_linear_tile.cu
 */
#include "cuda/cuda_attention_tile.cuh"
#include "cuda/cuda_linear.cuh"

#define TILE_COLS 64 /* of a stage */
#define TILE_PIECES (TILE_COLS / 8)
#define TILE_STAGES 4
#define FEW_ROWS 64

/* ROWS x OUTS by WARPS_M x WARPS_N warps. */
template <int ROWS, int OUTS, int WARPS_M, int WARPS_N> struct Tile
{
	static const int threads = WARPS_M * WARPS_N * WARP;
	static const int m_tiles = ROWS / WARPS_M / 16;
	static const int n_tiles = OUTS / WARPS_N / 8;
	static const int stage_elements = (ROWS + OUTS) * TILE_COLS;
	static const int shared_bytes =
		TILE_STAGES * stage_elements * (int) sizeof(bf16);
	static_assert(n_tiles % 2 == 0, "outputs are read by 16");
};

/* Where piece so many of a row lies. */
static __device__ __forceinline__ int
piece_at(int row, int piece)
{
	return row * TILE_COLS + (piece ^ row % TILE_PIECES) * 8;
}

/* Columns first_col .. of N rows from first on; zeros where there are none. */
template <int N, int THREADS>
static __device__ __forceinline__ void
fetch_rows(const bf16 *matrix, int64_t n_cols, int64_t first, int64_t n_rows,
		   int64_t first_col, bf16 *dest)
{
#pragma unroll
	for (int i = (int) threadIdx.x; i < N * TILE_PIECES; i += THREADS)
	{
		int row = i / TILE_PIECES;
		int piece = i % TILE_PIECES;
		int64_t col = first_col + piece * 8;
		bool is_there = first + row < n_rows && col < n_cols;

		copy_async(dest + piece_at(row, piece),
				   is_there ? matrix + (first + row) * n_cols + col : matrix,
				   is_there);
	}
}

/* Four 8 x 8 matrices of 16 rows from row on, columns 16 k .. + 15. */
static __device__ __forceinline__ void
load_rows(uint32_t out[4], const bf16 *tile, int row, int k, bool by_columns)
{
	const int lane = (int) threadIdx.x % WARP;
	const int matrix = lane / 8;
	int down = by_columns ? matrix / 2 : matrix % 2;
	int right = by_columns ? matrix % 2 : matrix / 2;

	load_matrices(out,
				  tile + piece_at(row + down * 8 + lane % 8, 2 * k + right));
}

template <typename T>
static __device__ __forceinline__ void
multiply_stage(float sums[T::m_tiles][T::n_tiles][4], const bf16 *x,
			   const bf16 *weight, int first_row, int first_out)
{
#pragma unroll
	for (int k = 0; k < TILE_COLS / 16; k++)
	{
		uint32_t a[T::m_tiles][4];

#pragma unroll
		for (int m = 0; m < T::m_tiles; m++)
			load_rows(a[m], x, first_row + 16 * m, k, false);
#pragma unroll
		for (int n = 0; n < T::n_tiles; n += 2)
		{
			uint32_t b[4];

			load_rows(b, weight, first_out + 8 * n, k, true);
#pragma unroll
			for (int m = 0; m < T::m_tiles; m++)
			{
				mma_16x8x16(sums[m][n], a[m], b[0], b[1]);
				mma_16x8x16(sums[m][n + 1], a[m], b[2], b[3]);
			}
		}
	}
}

/* Two neighbouring outputs of a row. */
static __device__ __forceinline__ void
store_pair(const Product &p, int64_t row, int64_t out, float first,
		   float second)
{
	int64_t at = row * p.out_stride + out;

	if (row >= p.n_rows || out >= p.n_out)
		return;
	if (p.out_is_f32)
		*(float2 *) ((float *) p.out + at) = make_float2(first, second);
	else
		*(uint32_t *) ((bf16 *) p.out + at) = pack_bf16(first, second);
}

/* Grid: tiles of outputs, tiles of rows. */
template <int ROWS, int OUTS, int WARPS_M, int WARPS_N>
static __global__ void
__launch_bounds__(WARPS_M *WARPS_N *WARP)
	tile_product(const __grid_constant__ Product p)
{
	typedef Tile<ROWS, OUTS, WARPS_M, WARPS_N> T;
	extern __shared__ __align__(128) unsigned char shared[];
	const int lane = (int) threadIdx.x % WARP;
	const int warp = (int) threadIdx.x / WARP;
	const int64_t block_row = (int64_t) blockIdx.y * ROWS;
	const int64_t block_out = (int64_t) blockIdx.x * OUTS;
	const int first_row = warp / WARPS_N * T::m_tiles * 16;
	const int first_out = warp % WARPS_N * T::n_tiles * 8;
	const int n_steps = (int) ((p.n_cols + TILE_COLS - 1) / TILE_COLS);
	bf16 *stages = (bf16 *) shared;
	float sums[T::m_tiles][T::n_tiles][4] = {};

	pass_release();
	pass_wait();
	for (int t = 0; t < n_steps + TILE_STAGES - 1; t++)
	{
		bf16 *next = stages + t % TILE_STAGES * T::stage_elements;
		int done = t - (TILE_STAGES - 1);

		/* the stage that is filled next was multiplied in the last turn */
		if (done >= 0)
		{
			copies_wait<TILE_STAGES - 2>();
			__syncthreads();
		}
		if (t < n_steps)
		{
			int64_t col = (int64_t) t * TILE_COLS;

			fetch_rows<ROWS, T::threads>((const bf16 *) p.x, p.n_cols,
										 block_row, p.n_rows, col, next);
			fetch_rows<OUTS, T::threads>((const bf16 *) p.weight, p.n_cols,
										 block_out, p.n_out, col,
										 next + ROWS * TILE_COLS);
		}
		copies_commit();
		if (done >= 0)
		{
			const bf16 *now = stages + done % TILE_STAGES * T::stage_elements;

			multiply_stage<T>(sums, now, now + ROWS * TILE_COLS, first_row,
							  first_out);
		}
	}
#pragma unroll
	for (int m = 0; m < T::m_tiles; m++)
	{
#pragma unroll
		for (int n = 0; n < T::n_tiles; n++)
		{
			int64_t row = block_row + first_row + 16 * m + lane / 4;
			int64_t out = block_out + first_out + 8 * n + lane % 4 * 2;

			store_pair(p, row, out, sums[m][n][0], sums[m][n][1]);
			store_pair(p, row + 8, out, sums[m][n][2], sums[m][n][3]);
		}
	}
}

template <int ROWS, int OUTS, int WARPS_M, int WARPS_N>
static bool
launch(LlmCuda *cuda, const Product *product, LlmError *err)
{
	typedef Tile<ROWS, OUTS, WARPS_M, WARPS_N> T;
	dim3 grid((unsigned) ceil_div(product->n_out, OUTS),
			  (unsigned) ceil_div(product->n_rows, ROWS));

	CUDA_TRY(cudaFuncSetAttribute(tile_product<ROWS, OUTS, WARPS_M, WARPS_N>,
								  cudaFuncAttributeMaxDynamicSharedMemorySize,
								  T::shared_bytes));
	CUDA_TRY(launch_early(
		cuda, { grid, (unsigned) T::threads, (size_t) T::shared_bytes },
		tile_product<ROWS, OUTS, WARPS_M, WARPS_N>, *product));
	return true;
}

bool
cuda_tile_product(LlmCuda *cuda, const Product *product, LlmError *err)
{
	assert(product->n_cols % 8 == 0 && product->out_stride % 2 == 0);
	return product->n_rows <= FEW_ROWS
			   ? launch<64, 32, 4, 1>(cuda, product, err)
			   : launch<128, 128, 2, 4>(cuda, product, err);
}

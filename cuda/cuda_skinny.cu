/*
 * cuda_skinny.cu
 *	  Matrix products with few rows of x, where reading the weights is all
 *	  that counts; cuda_skinny_stream.cu does it on Hopper.
 *
 * A block computes 16 outputs for up to 8 (or 16) rows of x with the tensor
 * cores, its warps sharing the columns; their sums are added in a fixed order.
 * Weights go from memory to registers without a detour: the order of columns
 * inside a product does not matter as long as both factors have the same, so
 * a thread reads 16 contiguous bytes of a row of W and the same columns of x,
 * and uses them as the fragments of two products.
 *
 * cuda/cuda_skinny.cu
 */
#include "cuda/cuda_internal.cuh"

#define SKINNY_WARPS 8
#define CHUNK 32	 /* columns that a warp reads of its 16 rows at once */
#define CHUNKS 4	 /* chunks on their way at a time */
#define TILE_ROWS 16 /* outputs of a block */

/* Streamed once: keep it out of the way of what is used again. */
static __device__ __forceinline__ uint4
read_weight(const bf16 *address)
{
	uint4 v;

	asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
				 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
				 : "l"(address));
	return v;
}

template <int N_TILES>
static __device__ __forceinline__ void
multiply(float sums[N_TILES][4], const uint4 &upper, const uint4 &lower,
		 const uint4 x[N_TILES])
{
	uint32_t first[4] = { upper.x, lower.x, upper.y, lower.y };
	uint32_t second[4] = { upper.z, lower.z, upper.w, lower.w };

#pragma unroll
	for (int n = 0; n < N_TILES; n++)
	{
		mma_16x8x16(sums[n], first, x[n].x, x[n].y);
		mma_16x8x16(sums[n], second, x[n].z, x[n].w);
	}
}

/* What a thread reads: rows g and g + 8 of the tile, columns 8 t of a chunk. */
template <int N_TILES>
static __device__ void
sum_columns(const SkinnyArgs &p, float sums[N_TILES][4])
{
	const int lane = (int) threadIdx.x % WARP;
	const int warp = (int) threadIdx.x / WARP;
	const int32_t row = (int32_t) blockIdx.x * TILE_ROWS + lane / 4;
	const bf16 *upper = p.weight + (int64_t) min(row, p.n_out - 1) * p.n_cols;
	const bf16 *lower =
		p.weight + (int64_t) min(row + 8, p.n_out - 1) * p.n_cols;
	const bf16 *x[N_TILES];
	const int32_t n_chunks = p.n_cols / CHUNK;
	const int32_t column = lane % 4 * 8;

#pragma unroll
	for (int n = 0; n < N_TILES; n++)
		x[n] = p.x + (int64_t) min(lane / 4 + 8 * n, p.n_rows - 1) * p.n_cols;
	for (int32_t first = warp * CHUNKS; first < n_chunks;
		 first += SKINNY_WARPS * CHUNKS)
	{
		uint4 w[CHUNKS][2];

#pragma unroll
		for (int i = 0; i < CHUNKS; i++)
		{
			int32_t at = min(first + i, n_chunks - 1) * CHUNK + column;

			w[i][0] = read_weight(upper + at);
			w[i][1] = read_weight(lower + at);
		}
#pragma unroll
		for (int i = 0; i < CHUNKS; i++)
		{
			uint4 values[N_TILES];

			if (first + i >= n_chunks)
				break;
#pragma unroll
			for (int n = 0; n < N_TILES; n++)
				values[n] =
					*(const uint4 *) (x[n] + (first + i) * CHUNK + column);
			multiply<N_TILES>(sums, w[i][0], w[i][1], values);
		}
	}
}

template <int N_TILES>
static __global__ void
__launch_bounds__(SKINNY_WARPS *WARP)
	skinny_tile(const __grid_constant__ SkinnyArgs p)
{
	__shared__ float parts[SKINNY_WARPS][N_TILES * 8][TILE_ROWS];
	const int lane = (int) threadIdx.x % WARP;
	const int warp = (int) threadIdx.x / WARP;
	float sums[N_TILES][4] = {};

	sum_columns<N_TILES>(p, sums);
#pragma unroll
	for (int n = 0; n < N_TILES; n++)
	{
#pragma unroll
		for (int i = 0; i < 4; i++)
			parts[warp][8 * n + lane % 4 * 2 + i % 2][lane / 4 + i / 2 * 8] =
				sums[n][i];
	}
	__syncthreads();
	for (int i = (int) threadIdx.x; i < p.n_rows * TILE_ROWS;
		 i += SKINNY_WARPS * WARP)
	{
		int row = i / TILE_ROWS;
		int32_t out = (int32_t) blockIdx.x * TILE_ROWS + i % TILE_ROWS;
		float sum = 0;

#pragma unroll
		for (int w = 0; w < SKINNY_WARPS; w++)
			sum += parts[w][row][i % TILE_ROWS];
		if (out >= p.n_out)
			continue;
		if (p.out_is_f32)
			((float *) p.out)[row * p.out_stride + out] = sum;
		else
			((bf16 *) p.out)[row * p.out_stride + out] = __float2bfloat16(sum);
	}
}

bool
cuda_skinny(LlmCuda *cuda, const SkinnyArgs *args, LlmError *err)
{
	unsigned n_blocks = (unsigned) ceil_div(args->n_out, TILE_ROWS);

	assert(args->n_rows <= SKINNY_MAX_ROWS && args->n_cols % CHUNK == 0);
	if (cuda->capability >= 90 && args->n_cols % 64 == 0)
		return cuda_skinny_stream(cuda, args, err);
	if (args->n_rows <= 8)
		skinny_tile<1>
			<<<n_blocks, SKINNY_WARPS * WARP, 0, cuda->stream>>>(*args);
	else
		skinny_tile<2>
			<<<n_blocks, SKINNY_WARPS * WARP, 0, cuda->stream>>>(*args);
	return cuda_launched("skinny product", err);
}

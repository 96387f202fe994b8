/*
 * cuda_lora.cuh
 *	  What the kernels of adapters share: a step's rows as tiles, and the second
 *	  half of an adapter's product.
 *
 * As in cuda_skinny.cu, the order of columns inside a product is whatever lets
 * a thread read what it needs in one piece.
 *
 * cuda/cuda_lora.cuh
 */
#ifndef LLM_CUDA_LORA_CUH
#define LLM_CUDA_LORA_CUH

#include "cuda/cuda_internal.cuh"

#include <string.h>

#define TILE_ROWS MMA_ROWS
#define MAX_PIECES 8
#define SHRINK_CHUNK 32		/* columns that a warp multiplies at once */
#define SHRINK_MIN_COLS 512 /* of a piece */
#define EXPAND_WARPS 4
#define WARP_COLS 64 /* outputs of a warp of expand, two times 32 */
#define EXPAND_COLS (EXPAND_WARPS * WARP_COLS)

/* Rows of one adapter, which are the sorted rows first, first + 1, ... */
typedef struct LoraTile
{
	const char *image;
	int32_t first;
	int32_t n_rows;
	int32_t rows[TILE_ROWS]; /* the last one again behind n_rows */
} LoraTile;

/*
 * What is sorted: a step's tokens, or its logit rows.  Behind the tiles of
 * adapters are those of rows that have none.
 */
typedef struct LoraRows
{
	int32_t n_tiles; /* of adapters; an upper bound where the step may be
					  * recorded, as n_all */
	int32_t n_all;
	const int32_t *header; /* device [4]: the two numbers, and nothing */
	const LoraTile *tiles; /* device */
} LoraRows;

typedef struct LoraPart
{
	void *out;
	int64_t out_stride;
	int32_t n_out;
	int32_t first_block; /* of expand's columns */
} LoraPart;

typedef struct LoraParams
{
	LoraRows rows;
	const bf16 *x;
	float *inner; /* [n_pieces, rows, n_parts, max_rank] */
	int64_t piece_stride;
	int32_t row_stride;
	int32_t max_rank;
	int32_t n_in;
	int64_t down_stride;
	int32_t n_pieces;
	int32_t piece_cols;
	int32_t n_parts;
	int32_t first_module;
	bool x_is_aligned;
	bool fetches_ahead;
	bool out_is_aligned;
	bool out_is_f32;
	LoraPart part[LLM_LINEAR_MAX_PARTS];
} LoraParams;

static __device__ __forceinline__ LlmLoraModule
read_module(const LoraTile &tile, int32_t module_idx)
{
	int4 words = ((const int4 *) tile.image)[module_idx];
	LlmLoraModule module;

	module.rank = words.x;
	module.down = (uint32_t) words.y;
	module.up = (uint32_t) words.z;
	module.gain = (uint32_t) words.w;
	return module;
}

static __device__ __forceinline__ const char *
part_of(const LoraTile &tile, uint32_t offset)
{
	return tile.image + (size_t) offset * LLM_LORA_ALIGN_BYTES;
}

/* What a block of expand works on. */
typedef struct ExpandTile
{
	const LoraTile *tile;
	LlmLoraModule module;
	LoraPart part;
	int32_t part_idx;
	int32_t col; /* the warp's first */
} ExpandTile;

/* x A^T of the tile's rows, [TILE_ROWS, rank] as bf16; four ranks a thread. */
static __device__ __forceinline__ void
add_pieces(const LoraParams &p, const ExpandTile &e, bf16 *shared,
		   int32_t shared_stride)
{
	const float *inner = p.inner + (int64_t) e.tile->first * p.row_stride +
						 e.part_idx * p.max_rank;
	const int32_t n_fours = e.module.rank / 4;

	for (int32_t i = (int32_t) threadIdx.x; i < TILE_ROWS * n_fours;
		 i += EXPAND_WARPS * WARP)
	{
		int32_t row = i / n_fours;
		int32_t rank = i % n_fours * 4;
		float4 pieces[MAX_PIECES];
		float4 sum = make_float4(0, 0, 0, 0);
		uint2 packed;

#pragma unroll
		for (int32_t piece = 0; piece < MAX_PIECES; piece++)
			pieces[piece] =
				row < e.tile->n_rows && piece < p.n_pieces
					? *(const float4 *) (inner + piece * p.piece_stride +
										 (int64_t) row * p.row_stride + rank)
					: make_float4(0, 0, 0, 0);
#pragma unroll
		for (int32_t piece = 0; piece < MAX_PIECES; piece++)
		{
			sum.x += pieces[piece].x;
			sum.y += pieces[piece].y;
			sum.z += pieces[piece].z;
			sum.w += pieces[piece].w;
		}
		packed.x = pack_bf16(sum.x, sum.y);
		packed.y = pack_bf16(sum.z, sum.w);
		*(uint2 *) (shared + row * shared_stride + rank) = packed;
	}
}

/*
 * B of 16 ranks and half of a warp's outputs.  Column n of product j is output
 * 8 (n / 2) + 2 j + n % 2 of its 32, so that a thread ends up with 8
 * neighbours of rows g and g + 8; and its columns 2 t, 2 t + 1, 2 t + 8 and
 * 2 t + 9 are ranks 4 t .. 4 t + 3.
 */
static __device__ __forceinline__ void
read_up(const ExpandTile &e, int32_t rank, int half, uint2 up[4])
{
	const int g = (int) threadIdx.x % WARP / 4;
	const int t = (int) threadIdx.x % 4;
	const bf16 *matrix =
		(const bf16 *) part_of(*e.tile, e.module.up) + rank + 4 * t;

#pragma unroll
	for (int j = 0; j < 4; j++)
	{
		int32_t out = min(e.col + 32 * half + 8 * (g / 2) + 2 * j + g % 2,
						  e.part.n_out - 1);

		up[j] = *(const uint2 *) (matrix + (int64_t) out * e.module.rank);
	}
}

static __device__ __forceinline__ void
multiply_up(const bf16 *shared, int32_t shared_stride, int32_t rank,
			const uint2 up[4], float sums[4][4])
{
	const int g = (int) threadIdx.x % WARP / 4;
	const int t = (int) threadIdx.x % 4;
	uint2 upper = *(const uint2 *) (shared + g * shared_stride + rank + 4 * t);
	uint2 lower =
		*(const uint2 *) (shared + (g + 8) * shared_stride + rank + 4 * t);
	uint32_t a[4] = { upper.x, lower.x, upper.y, lower.y };

#pragma unroll
	for (int j = 0; j < 4; j++)
		mma_16x8x16(sums[j], a, up[j].x, up[j].y);
}

/* Eight outputs of row g + 8 of 32 columns, or of row g. */
static __device__ __forceinline__ int64_t
out_at(const ExpandTile &e, int half, int lower)
{
	const int g = (int) threadIdx.x % WARP / 4;
	const int t = (int) threadIdx.x % 4;

	return (int64_t) e.tile->rows[g + 8 * lower] * e.part.out_stride + e.col +
		   32 * half + 8 * t;
}

/* A warp's outputs that are all there, bf16 and aligned. */
static __device__ __forceinline__ void
read_outputs(const ExpandTile &e, uint4 old[2][2])
{
#pragma unroll
	for (int i = 0; i < 4; i++)
		old[i / 2][i % 2] = *(const uint4 *) ((const bf16 *) e.part.out +
											  out_at(e, i / 2, i % 2));
}

/* gain (out + sum) */
static __device__ __forceinline__ float
changed(const ExpandTile &e, float old, float sum, int32_t col)
{
	float value = old + sum;

	return e.module.gain == 0
			   ? value
			   : value * ((const float *) part_of(*e.tile, e.module.gain))[col];
}

/* cuda_lora_product.cu: both halves of a product */
extern bool
cuda_lora_launch_shrink(LlmCuda *cuda, const LoraParams *params, LlmError *err);
extern bool
cuda_lora_launch_expand(LlmCuda *cuda, const LoraParams *params, LlmError *err);

/* cuda_lora_act.cu: an activation that completes the products it reads. */
extern bool cuda_lora_act_launch(LlmCuda *cuda, const LoraParams *params,
								 const LlmGatedActArgs *args, LlmError *err);

#endif /* LLM_CUDA_LORA_CUH */

/*
 * cuda_lora_product.cu
 *	  The two kernels that add adapters to a matrix product.
 *
 * "shrink" multiplies a tile of rows with A, a piece of the columns in each
 * block.  "expand" adds up the pieces, multiplies with B, and adds the result
 * to what the base's product has left.  How columns are cut does not depend on
 * the rows, so neither does a row's result.
 *
 * As in cuda_skinny.cu, the order of columns inside a product is whatever lets
 * a thread read what it needs in one piece.
 *
 * cuda/cuda_lora_product.cu
 */
#include "cuda/cuda_lora.cuh"

#define SHRINK_WARPS 8
#define BATCH 2 /* chunks of a warp that are on their way together */

static_assert(SHRINK_MIN_COLS == BATCH * SHRINK_WARPS * SHRINK_CHUNK,
			  "the least piece keeps all warps busy");

/* ------------------------------------------------------------------------
 * Shrink
 * ------------------------------------------------------------------------
 */
/* Columns col .. col + 7 of a row of x, zeros behind its end. */
static __device__ __forceinline__ uint4
read_x(const LoraParams &p, const bf16 *row, int32_t col)
{
	bf16 values[8];
	uint4 v = make_uint4(0, 0, 0, 0);

	if (p.x_is_aligned)
		return col < p.n_in ? *(const uint4 *) (row + col) : v;
#pragma unroll
	for (int i = 0; i < 8; i++)
		values[i] = col + i < p.n_in ? row[col + i] : __float2bfloat16(0);
	memcpy(&v, values, sizeof(v));
	return v;
}

/* What a thread reads of BATCH chunks at once. */
typedef struct ShrinkBatch
{
	uint4 upper[BATCH];
	uint4 lower[BATCH];
	uint4 down[BATCH][2];
} ShrinkBatch;

static __device__ __forceinline__ int32_t
batch_col(int32_t at, int i)
{
	return at + i * SHRINK_WARPS * SHRINK_CHUNK + (int32_t) threadIdx.x % 4 * 8;
}

static __device__ __forceinline__ void
read_down(ShrinkBatch *batch, const bf16 *down, int64_t down_stride, int32_t at,
		  int32_t end)
{
	const uint4 none = make_uint4(0, 0, 0, 0);

#pragma unroll
	for (int i = 0; i < BATCH; i++)
	{
		int32_t col = batch_col(at, i);

		batch->down[i][0] = col < end ? *(const uint4 *) (down + col) : none;
		batch->down[i][1] =
			col < end ? *(const uint4 *) (down + 8 * down_stride + col) : none;
	}
}

static __device__ __forceinline__ void
read_rows(const LoraParams &p, ShrinkBatch *batch, const bf16 *upper,
		  const bf16 *lower, int32_t at, int32_t end)
{
	const uint4 none = make_uint4(0, 0, 0, 0);

#pragma unroll
	for (int i = 0; i < BATCH; i++)
	{
		int32_t col = batch_col(at, i);

		batch->upper[i] = col < end ? read_x(p, upper, col) : none;
		batch->lower[i] = col < end ? read_x(p, lower, col) : none;
	}
}

static __device__ __forceinline__ void
multiply_batch(const ShrinkBatch *batch, float sums[2][4])
{
#pragma unroll
	for (int i = 0; i < BATCH; i++)
	{
		const uint4 &u = batch->upper[i];
		const uint4 &l = batch->lower[i];
		uint32_t first[4] = { u.x, l.x, u.y, l.y };
		uint32_t second[4] = { u.z, l.z, u.w, l.w };

#pragma unroll
		for (int n = 0; n < 2; n++)
		{
			const uint4 &b = batch->down[i][n];

			mma_16x8x16(sums[n], first, b.x, b.y);
			mma_16x8x16(sums[n], second, b.z, b.w);
		}
	}
}

/* The warps' sums, in their order, to inner: of ranks rank .. rank + 15. */
static __device__ __forceinline__ void
store_sums(const LoraParams &p, const LoraTile &tile, int32_t rank,
		   const float sums[2][4])
{
	__shared__ float shared[SHRINK_WARPS][TILE_ROWS][16];
	const int lane = (int) threadIdx.x % WARP;
	const int warp = (int) threadIdx.x / WARP;
	const int row = (int) threadIdx.x / 16;
	const int column = (int) threadIdx.x % 16;
	float sum = 0;

#pragma unroll
	for (int n = 0; n < 2; n++)
	{
#pragma unroll
		for (int i = 0; i < 4; i++)
			shared[warp][lane / 4 + i / 2 * 8][8 * n + lane % 4 * 2 + i % 2] =
				sums[n][i];
	}
	__syncthreads();
#pragma unroll
	for (int w = 0; w < SHRINK_WARPS; w++)
		sum += shared[w][row][column];
	if (row < tile.n_rows)
		p.inner[blockIdx.y * p.piece_stride +
				(int64_t) (tile.first + row) * p.row_stride + rank + column] =
			sum;
}

/*
 * Have a share of B brought to the second-level cache, where it waits for
 * expand while the base's product reads its weights.  Once for an adapter: by
 * the first of its tiles.
 */
static __device__ __forceinline__ void
fetch_ahead(const LoraParams &p, const LoraTile &tile,
			const LlmLoraModule &module, int part)
{
	const char *up = part_of(tile, module.up);
	const int64_t n_lines =
		((int64_t) p.part[part].n_out * module.rank * (int) sizeof(bf16) +
		 127) /
		128;

	if (!p.fetches_ahead ||
		(blockIdx.x > 0 && p.rows.tiles[blockIdx.x - 1].image == tile.image))
		return;
	for (int64_t i = (int64_t) blockIdx.y * SHRINK_WARPS * WARP + threadIdx.x;
		 i < n_lines; i += (int64_t) gridDim.y * SHRINK_WARPS * WARP)
		asm volatile("prefetch.global.L2::evict_last [%0];"
					 :
					 : "l"(up + i * 128));
}

/*
 * 16 rows by 16 ranks over a piece of the columns.  Grid: tiles, pieces, parts
 * times ranks by 16.  Thread 4 g + t reads rows g and g + 8 of x and of A,
 * columns 8 t .. of a chunk; what does not depend on x, before x is there.
 */
static __global__ void
__launch_bounds__(SHRINK_WARPS *WARP)
	lora_shrink(const __grid_constant__ LoraParams p)
{
	const int g = (int) threadIdx.x % WARP / 4;
	const int32_t begin = (int32_t) blockIdx.y * p.piece_cols +
						  (int32_t) threadIdx.x / WARP * SHRINK_CHUNK;
	const int32_t end =
		min(((int32_t) blockIdx.y + 1) * p.piece_cols, (int32_t) p.down_stride);
	const int part = (int) blockIdx.z / (p.max_rank / 16);
	const int32_t rank = (int32_t) blockIdx.z % (p.max_rank / 16) * 16;
	const LoraTile &tile = p.rows.tiles[blockIdx.x];
	const bf16 *upper = p.x + (int64_t) tile.rows[g] * p.n_in;
	const bf16 *lower = p.x + (int64_t) tile.rows[g + 8] * p.n_in;
	LlmLoraModule module;
	const bf16 *down;
	ShrinkBatch batch;
	float sums[2][4] = {};

	pass_release();
	module.rank = 0;
	if ((int32_t) blockIdx.x < *p.rows.header)
		module = read_module(tile, p.first_module + part);
	if (rank >= module.rank)
	{
		/* who waits for us waits for those in front, too */
		pass_wait();
		return;
	}
	down =
		(const bf16 *) part_of(tile, module.down) + (rank + g) * p.down_stride;
	read_down(&batch, down, p.down_stride, begin, end);
	if (rank == 0)
		fetch_ahead(p, tile, module, part);
	pass_wait();
	for (int32_t at = begin;;)
	{
		read_rows(p, &batch, upper, lower, at, end);
		multiply_batch(&batch, sums);
		at += BATCH * SHRINK_WARPS * SHRINK_CHUNK;
		if (at >= end)
			break;
		read_down(&batch, down, p.down_stride, at, end);
	}
	store_sums(p, tile, part * p.max_rank + rank, sums);
}

/* ------------------------------------------------------------------------
 * Expand
 * ------------------------------------------------------------------------
 */
static __device__ __forceinline__ void
write_outputs(const ExpandTile &e, const uint4 old[2][2],
			  const float sums[2][4][4])
{
	const int g = (int) threadIdx.x % WARP / 4;
	const int t = (int) threadIdx.x % 4;

#pragma unroll
	for (int i = 0; i < 4; i++)
	{
		const int half = i / 2;
		const int lower = i % 2;
		uint4 packed = old[half][lower];
		bf16 *values = (bf16 *) &packed;

#pragma unroll
		for (int k = 0; k < 8; k++)
			values[k] =
				__float2bfloat16(changed(e, __bfloat162float(values[k]),
										 sums[half][k / 2][2 * lower + k % 2],
										 e.col + 32 * half + 8 * t + k));
		if (g + 8 * lower < e.tile->n_rows)
			*(uint4 *) ((bf16 *) e.part.out + out_at(e, half, lower)) = packed;
	}
}

/* The same for outputs of any kind, one by one. */
static __device__ __noinline__ void
change_outputs(const LoraParams &p, const ExpandTile &e,
			   const float sums[2][4][4])
{
	const int g = (int) threadIdx.x % WARP / 4;
	const int t = (int) threadIdx.x % 4;

	for (int i = 0; i < 32; i++)
	{
		const int half = i / 16;
		const int lower = i / 8 % 2;
		const int k = i % 8;
		int32_t col = e.col + 32 * half + 8 * t + k;
		int64_t at = out_at(e, half, lower) + k;
		float sum = sums[half][k / 2][2 * lower + k % 2];

		if (col >= e.part.n_out || g + 8 * lower >= e.tile->n_rows)
			continue;
		if (p.out_is_f32)
		{
			float *out = (float *) e.part.out + at;

			*out = changed(e, *out, sum, col);
		}
		else
		{
			bf16 *out = (bf16 *) e.part.out + at;

			*out =
				__float2bfloat16(changed(e, __bfloat162float(*out), sum, col));
		}
	}
}

/* The block's part of the operation. */
static __device__ __forceinline__ void
find_part(const LoraParams &p, ExpandTile *e)
{
	const int32_t block = (int32_t) blockIdx.y;

	e->part_idx = 0;
	e->part = p.part[0];
#pragma unroll
	for (int i = 1; i < LLM_LINEAR_MAX_PARTS; i++)
	{
		if (i < p.n_parts && block >= p.part[i].first_block)
		{
			e->part_idx = i;
			e->part = p.part[i];
		}
	}
	e->col = (block - e->part.first_block) * EXPAND_COLS +
			 (int32_t) threadIdx.x / WARP * WARP_COLS;
}

/* Grid: tiles, the parts' outputs by EXPAND_COLS. */
static __global__ void
__launch_bounds__(EXPAND_WARPS *WARP)
	lora_expand(const __grid_constant__ LoraParams p)
{
	extern __shared__ __align__(16) bf16 shared[];
	ExpandTile e;
	int32_t shared_stride;
	bool is_whole;
	uint2 up[2][4];
	uint4 old[2][2];
	float sums[2][4][4] = {};

	pass_release();
	e.tile = &p.rows.tiles[blockIdx.x];
	find_part(p, &e);
	e.module.rank = 0;
	if ((int32_t) blockIdx.x < *p.rows.header)
		e.module = read_module(*e.tile, p.first_module + e.part_idx);
	if (e.module.rank == 0)
	{
		/* who waits for us waits for those in front, too */
		pass_wait();
		return;
	}
	is_whole = p.out_is_aligned && e.col + WARP_COLS <= e.part.n_out;
	shared_stride = e.module.rank + 8;
	read_up(e, 0, 0, up[0]);
	read_up(e, 0, 1, up[1]);
	pass_wait();
	if (is_whole)
		read_outputs(e, old);
	add_pieces(p, e, shared, shared_stride);
	__syncthreads();
	for (int32_t rank = 0;;)
	{
		multiply_up(shared, shared_stride, rank, up[0], sums[0]);
		multiply_up(shared, shared_stride, rank, up[1], sums[1]);
		rank += 16;
		if (rank >= e.module.rank)
			break;
		read_up(e, rank, 0, up[0]);
		read_up(e, rank, 1, up[1]);
	}
	if (is_whole)
		write_outputs(e, old, sums);
	else
		change_outputs(p, e, sums);
}

/* ------------------------------------------------------------------------
 * Launching them
 * ------------------------------------------------------------------------
 */
bool
cuda_lora_launch_shrink(LlmCuda *cuda, const LoraParams *params, LlmError *err)
{
	unsigned n_ranks = (unsigned) (params->n_parts * params->max_rank / 16);
	LaunchShape shape = { dim3((unsigned) params->rows.n_tiles,
							   (unsigned) params->n_pieces, n_ranks),
						  SHRINK_WARPS * WARP, 0 };

	if (params->rows.n_tiles > 0)
		CUDA_TRY(launch_early(cuda, shape, lora_shrink, *params));
	return true;
}

bool
cuda_lora_launch_expand(LlmCuda *cuda, const LoraParams *params, LlmError *err)
{
	const LoraPart *last = &params->part[params->n_parts - 1];
	unsigned n_blocks =
		(unsigned) (last->first_block + ceil_div(last->n_out, EXPAND_COLS));
	LaunchShape shape = { dim3((unsigned) params->rows.n_tiles, n_blocks),
						  EXPAND_WARPS * WARP,
						  (size_t) TILE_ROWS * (size_t) (params->max_rank + 8) *
							  sizeof(bf16) };

	if (params->rows.n_tiles > 0)
		CUDA_TRY(launch_early(cuda, shape, lora_expand, *params));
	return true;
}

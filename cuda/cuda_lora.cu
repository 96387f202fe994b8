/*
 * cuda_lora.cu
 *	  What adapters add to the outputs of matrix products, and to embeddings.
 *
 * A step's rows are sorted by their adapters on the host, and cut into tiles
 * of up to 16 rows of one adapter: the height of the tensor cores' product.
 * Two kernels work on them.  "shrink" multiplies a tile with A, a piece of the
 * columns in each block, in front of the base's product (beside it, on a
 * stream of its own, was slower: forks and joins cost more than they hide).
 * "expand" adds up the pieces, multiplies with B, and adds the result to what
 * the base's product has left; for gate and up the activation does that while
 * it reads them (cuda_lora_act.cu).  How columns are cut does not depend on the
 * rows, so neither does a row's result.
 *
 * Tiles hold the adapters' addresses, and kernels find everything else in the
 * adapters' own tables, so that a recorded pass serves any adapters: what it
 * depends on is how many tiles there are at most.
 *
 * As in cuda_skinny.cu, the order of columns inside a product is whatever lets
 * a thread read what it needs in one piece.
 *
 * cuda/cuda_lora.cu
 */
#include "cuda/cuda_lora.cuh"

#include <stdlib.h>

#define SHRINK_WARPS 8
#define CHUNK 32 /* columns that a warp multiplies at once */
#define BATCH 2	 /* chunks of a warp that are on their way together */
#define MIN_PIECE_COLS (BATCH * SHRINK_WARPS * CHUNK)

/* Of the second-level cache, for what expand reads: about half. */
#define MAX_AHEAD_BYTES ((int64_t) 24 << 20)

typedef struct LoraStaging
{
	char *pinned;
	cudaEvent_t copied;
} LoraStaging;

struct LoraState
{
	int32_t max_rank;
	int32_t *counts; /* host [max_loras + 1] */
	int32_t *sorted; /* host [max_rows] */
	LoraStaging staging[2];
	int next_staging;
	size_t set_bytes; /* of one sorted set */
	char *sets;		  /* device: of tokens, of logit rows */
	LoraRows tokens;
	LoraRows logit_rows;
	bool is_pending; /* the second half of this product is not done yet */
	LlmLinearArgs pending;
	float *inner; /* [MAX_PIECES, max_rows, parts, max_rank] */
	cudaStream_t copy_stream;
	cudaEvent_t copy_from;
	cudaEvent_t copy_to;
};

/* ------------------------------------------------------------------------
 * Sizes, opening
 * ------------------------------------------------------------------------
 */
static size_t
header_bytes(void)
{
	return 4 * sizeof(int32_t);
}

/* Each adapter has one tile at most that is not full; so have other rows. */
static size_t
max_tiles(const LlmComputeOptions *options)
{
	return (size_t) options->max_rows / TILE_ROWS +
		   (size_t) options->max_loras + 1;
}

static size_t
set_bytes(const LlmComputeOptions *options)
{
	size_t n_bytes = header_bytes() + max_tiles(options) * sizeof(LoraTile);

	return (n_bytes + 255) / 256 * 256;
}

static size_t
inner_bytes(const LlmComputeOptions *options)
{
	return (size_t) MAX_PIECES * (size_t) options->max_rows *
		   LLM_LINEAR_MAX_PARTS *
		   (size_t) llm_lora_rank(options->max_lora_rank) * sizeof(float);
}

size_t
cuda_lora_bytes(const LlmComputeOptions *options)
{
	return options->max_loras == 0
			   ? 0
			   : 2 * set_bytes(options) + inner_bytes(options);
}

static bool
open_copies(LoraState *state, LlmError *err)
{
	CUDA_TRY(
		cudaStreamCreateWithFlags(&state->copy_stream, cudaStreamNonBlocking));
	CUDA_TRY(
		cudaEventCreateWithFlags(&state->copy_from, cudaEventDisableTiming));
	CUDA_TRY(cudaEventCreateWithFlags(&state->copy_to, cudaEventDisableTiming));
	return true;
}

bool
cuda_lora_open(LlmCuda *cuda, LlmError *err)
{
	const LlmComputeOptions *options = &cuda->options;
	LoraState *state;

	if (options->max_loras == 0)
		return true;
	state = (LoraState *) calloc(1, sizeof(*state));
	cuda->lora = state;
	if (state == NULL)
		return llm_error_no_memory(err, sizeof(*state), "adapters");
	state->counts = (int32_t *) calloc((size_t) options->max_loras + 1,
									   sizeof(*state->counts));
	state->sorted =
		(int32_t *) calloc((size_t) options->max_rows, sizeof(int32_t));
	if (state->counts == NULL || state->sorted == NULL)
		return llm_error_no_memory(err, sizeof(*state), "adapters");
	state->max_rank = llm_lora_rank(options->max_lora_rank);
	state->set_bytes = set_bytes(options);
	for (int i = 0; i < 2; i++)
	{
		CUDA_TRY(cudaMallocHost((void **) &state->staging[i].pinned,
								2 * state->set_bytes));
		CUDA_TRY(cudaEventCreateWithFlags(&state->staging[i].copied,
										  cudaEventDisableTiming));
	}
	state->sets = (char *) cuda_alloc(&cuda->base, 2 * state->set_bytes,
									  "adapters of a step", err);
	state->inner = (float *) cuda_alloc(&cuda->base, inner_bytes(options),
										"scratch of adapters", err);
	return state->sets != NULL && state->inner != NULL &&
		   open_copies(state, err);
}

void
cuda_lora_close(LlmCuda *cuda)
{
	LoraState *state = cuda->lora;

	if (state == NULL)
		return;
	if (state->copy_from != NULL)
		(void) cudaEventDestroy(state->copy_from);
	if (state->copy_to != NULL)
		(void) cudaEventDestroy(state->copy_to);
	for (int i = 0; i < 2; i++)
	{
		if (state->staging[i].pinned != NULL)
			(void) cudaFreeHost(state->staging[i].pinned);
		if (state->staging[i].copied != NULL)
			(void) cudaEventDestroy(state->staging[i].copied);
	}
	if (state->copy_stream != NULL)
		(void) cudaStreamDestroy(state->copy_stream);
	cuda_free(&cuda->base, state->sets);
	cuda_free(&cuda->base, state->inner);
	free(state->counts);
	free(state->sorted);
	free(state);
	cuda->lora = NULL;
}

/* ------------------------------------------------------------------------
 * Adapters' memory
 * ------------------------------------------------------------------------
 */
void *
cuda_host_alloc(LlmCompute *compute, size_t n_bytes, const char *name,
				LlmError *err)
{
	void *address = NULL;

	if (cudaSetDevice(llm_cuda(compute)->device) == cudaSuccess &&
		cudaHostAlloc(&address, n_bytes, cudaHostAllocPortable) == cudaSuccess)
		return address;
	(void) cudaGetLastError();
	llm_error_no_memory(err, n_bytes, name);
	return NULL;
}

void
cuda_host_free(LlmCompute *compute, void *address)
{
	(void) compute;
	(void) cudaFreeHost(address);
}

bool
cuda_copy_aside(LlmCompute *compute, void *dest, const void *src,
				size_t n_bytes, LlmError *err)
{
	LlmCuda *cuda = llm_cuda(compute);
	LoraState *state = cuda->lora;

	assert(!cuda->is_capturing);
	CUDA_TRY(cudaEventRecord(state->copy_from, cuda->stream));
	CUDA_TRY(cudaStreamWaitEvent(state->copy_stream, state->copy_from, 0));
	CUDA_TRY(cudaMemcpyAsync(dest, src, n_bytes, cudaMemcpyHostToDevice,
							 state->copy_stream));
	CUDA_TRY(cudaEventRecord(state->copy_to, state->copy_stream));
	return true;
}

bool
cuda_copy_aside_done(LlmCompute *compute, bool *is_done, LlmError *err)
{
	cudaError_t code = cudaEventQuery(llm_cuda(compute)->lora->copy_to);

	*is_done = code == cudaSuccess;
	if (code == cudaErrorNotReady)
		return true;
	CUDA_TRY(code);
	return true;
}

/* ------------------------------------------------------------------------
 * A step's rows
 * ------------------------------------------------------------------------
 */
static int32_t
row_lora(const LlmStepInputs *host, int32_t row, bool of_logit_rows)
{
	return host->token_lora[of_logit_rows ? host->logit_rows[row] : row];
}

/* Cut an adapter's sorted rows into tiles; returns their number. */
static int32_t
cut_tiles(LoraTile *tiles, const void *image, const int32_t *rows,
		  int32_t begin, int32_t end)
{
	int32_t n_tiles = 0;

	for (; begin < end; begin += TILE_ROWS)
	{
		LoraTile *tile = &tiles[n_tiles++];

		tile->image = (const char *) image;
		tile->first = begin;
		tile->n_rows = end - begin < TILE_ROWS ? end - begin : TILE_ROWS;
		for (int32_t i = 0; i < TILE_ROWS; i++)
			tile->rows[i] =
				rows[begin + (i < tile->n_rows ? i : tile->n_rows - 1)];
	}
	return n_tiles;
}

/* Sort rows into a set that begins at "at", and write its header there. */
static void
sort_rows(LoraState *state, const LlmStepInputs *host, bool of_logit_rows,
		  char *at)
{
	int32_t n_rows = of_logit_rows ? host->n_logit_rows : host->n_tokens;
	LoraTile *tiles = (LoraTile *) (at + header_bytes());
	int32_t *header = (int32_t *) at;
	int32_t *next = state->counts;
	int32_t n_tiles = 0;
	int32_t begin = 0;

	memset(next, 0, ((size_t) host->n_loras + 1) * sizeof(int32_t));
	/* those without an adapter come last */
	for (int32_t row = 0; row < n_rows; row++)
	{
		int32_t i = row_lora(host, row, of_logit_rows);

		if (i >= 0)
			next[i + 1]++;
	}
	for (int32_t i = 0; i < host->n_loras; i++)
		next[i + 1] += next[i];
	for (int32_t row = 0; row < n_rows; row++)
	{
		int32_t i = row_lora(host, row, of_logit_rows);

		state->sorted[next[i >= 0 ? i : host->n_loras]++] = row;
	}
	/* next[i] is where the rows of i end now */
	for (int32_t i = 0; i < host->n_loras; i++)
	{
		n_tiles += cut_tiles(tiles + n_tiles, host->loras[i], state->sorted,
							 begin, next[i]);
		begin = next[i];
	}
	header[0] = n_tiles;
	header[1] = n_tiles +
				cut_tiles(tiles + n_tiles, NULL, state->sorted, begin, n_rows);
}

/* Few sizes of grids, for few records. */
static int32_t
round_up_tiles(const LlmCuda *cuda, int32_t n_tiles)
{
	int32_t most = (int32_t) max_tiles(&cuda->options);
	int32_t n = 1;

	while (n < n_tiles)
		n *= 2;
	return n < most ? n : most;
}

static bool
send_set(LlmCuda *cuda, const LlmStepInputs *host, bool of_logit_rows,
		 char *pinned, LlmError *err)
{
	LoraState *state = cuda->lora;
	LoraRows *set = of_logit_rows ? &state->logit_rows : &state->tokens;
	size_t offset = of_logit_rows ? state->set_bytes : 0;
	const int32_t *header = (const int32_t *) (pinned + offset);

	sort_rows(state, host, of_logit_rows, pinned + offset);
	assert((size_t) header[1] <= max_tiles(&cuda->options));
	set->n_tiles = header[0];
	set->n_all = header[1];
	if (cuda->plan.is_recordable)
		set->n_tiles = set->n_all = round_up_tiles(cuda, header[1]);
	set->header = (const int32_t *) (state->sets + offset);
	set->tiles = (const LoraTile *) (state->sets + offset + header_bytes());
	CUDA_TRY(
		cudaMemcpyAsync(state->sets + offset, pinned + offset,
						header_bytes() + (size_t) header[1] * sizeof(LoraTile),
						cudaMemcpyHostToDevice, cuda->stream));
	return true;
}

bool
cuda_lora_upload(LlmCuda *cuda, const LlmStepInputs *host, LlmError *err)
{
	LoraState *state = cuda->lora;
	LoraStaging *staging;

	cuda->plan.n_lora_tiles = 0;
	if (state != NULL)
		state->is_pending = false; /* of a pass that failed */
	if (host->token_lora == NULL)
		return true;
	assert(state != NULL && host->n_loras <= cuda->options.max_loras);
	staging = &state->staging[state->next_staging];
	state->next_staging = 1 - state->next_staging;
	CUDA_TRY(cudaEventSynchronize(staging->copied));
	if (!send_set(cuda, host, false, staging->pinned, err))
		return false;
	/* all tokens have logits, in their order: one set is both */
	if (cuda->plan.is_recordable)
		state->logit_rows = state->tokens;
	else if (!send_set(cuda, host, true, staging->pinned, err))
		return false;
	CUDA_TRY(cudaEventRecord(staging->copied, cuda->stream));
	cuda->plan.n_lora_tiles = state->tokens.n_tiles;
	return true;
}

/* ------------------------------------------------------------------------
 * Kernels
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
	return at + i * SHRINK_WARPS * CHUNK + (int32_t) threadIdx.x % 4 * 8;
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
						  (int32_t) threadIdx.x / WARP * CHUNK;
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
		at += BATCH * SHRINK_WARPS * CHUNK;
		if (at >= end)
			break;
		read_down(&batch, down, p.down_stride, at, end);
	}
	store_sums(p, tile, part * p.max_rank + rank, sums);
}

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

/* What a token's embedding gets: B times its column of A. */
typedef struct LoraEmbedParams
{
	LoraRows rows;
	const int32_t *token_ids;
	bf16 *out; /* [rows, dim] */
	int64_t down_stride;
	int32_t dim;
	int32_t module_idx;
	float scale;
} LoraEmbedParams;

#define EMBED_THREADS 256

/* Grid: tiles, the outputs by EMBED_THREADS. */
static __global__ void
__launch_bounds__(EMBED_THREADS)
	lora_embed(const __grid_constant__ LoraEmbedParams p)
{
	const LoraTile &tile = p.rows.tiles[blockIdx.x];
	const int32_t col =
		(int32_t) blockIdx.y * EMBED_THREADS + (int32_t) threadIdx.x;
	LlmLoraModule module;

	if ((int32_t) blockIdx.x >= *p.rows.header)
		return;
	module = read_module(tile, p.module_idx);
	if (module.rank == 0 || col >= p.dim)
		return;
	for (int32_t i = 0; i < tile.n_rows; i++)
	{
		const int64_t row = tile.rows[i];
		const bf16 *down =
			(const bf16 *) part_of(tile, module.down) + p.token_ids[row];
		const bf16 *up = (const bf16 *) part_of(tile, module.up) +
						 (int64_t) col * module.rank;
		float sum = 0;

		for (int32_t rank = 0; rank < module.rank; rank++)
			sum += __bfloat162float(down[rank * p.down_stride]) *
				   __bfloat162float(up[rank]);
		p.out[row * p.dim + col] = __float2bfloat16(
			__bfloat162float(p.out[row * p.dim + col]) + p.scale * sum);
	}
}

bool
cuda_lora_embed(LlmCuda *cuda, const LlmEmbedArgs *args, LlmError *err)
{
	LoraEmbedParams params = {};

	if (args->lora.step == NULL || args->lora.step->token_lora == NULL ||
		cuda->plan.n_lora_tiles == 0)
		return true;
	params.rows = cuda->lora->tokens;
	params.token_ids = args->token_ids;
	params.out = (bf16 *) args->out;
	params.down_stride = llm_lora_cols(args->table.n_rows);
	params.dim = (int32_t) args->table.n_cols;
	params.module_idx = args->lora.first_module;
	params.scale = args->scale;
	lora_embed<<<dim3((unsigned) params.rows.n_tiles,
					  (unsigned) ceil_div(params.dim, EMBED_THREADS)),
				 EMBED_THREADS, 0, cuda->stream>>>(params);
	return cuda_launched("embed", err);
}

/* ------------------------------------------------------------------------
 * The operation's two halves
 * ------------------------------------------------------------------------
 */
bool
cuda_lora_applies(const LlmCuda *cuda, const LlmLinearArgs *args)
{
	return args->lora.step != NULL && args->lora.step->token_lora != NULL &&
		   cuda->plan.n_lora_tiles > 0;
}

static int32_t
round_up(int32_t n, int32_t unit)
{
	return (n + unit - 1) / unit * unit;
}

static LoraParams
params_of(const LlmCuda *cuda, const LlmLinearArgs *args)
{
	const LoraState *state = cuda->lora;
	LoraParams p = {};
	int32_t n_in = (int32_t) args->part[0].weight.n_cols;
	int32_t n_blocks = 0;
	int64_t up_bytes = 0;
	uintptr_t bits = 0;

	p.rows = args->lora.of_logit_rows ? state->logit_rows : state->tokens;
	p.x = (const bf16 *) args->x;
	p.inner = state->inner;
	p.max_rank = state->max_rank;
	p.row_stride = LLM_LINEAR_MAX_PARTS * state->max_rank;
	p.piece_stride = (int64_t) cuda->options.max_rows * p.row_stride;
	p.n_in = n_in;
	p.down_stride = llm_lora_cols(n_in);
	p.n_pieces = n_in / MIN_PIECE_COLS < 1			  ? 1
				 : n_in / MIN_PIECE_COLS > MAX_PIECES ? MAX_PIECES
													  : n_in / MIN_PIECE_COLS;
	p.piece_cols = round_up((n_in + p.n_pieces - 1) / p.n_pieces, CHUNK);
	p.n_parts = args->n_parts;
	p.first_module = args->lora.first_module;
	p.x_is_aligned = (uintptr_t) args->x % 16 == 0 && n_in % 8 == 0;
	p.out_is_f32 = args->out_is_f32;
	for (int i = 0; i < args->n_parts; i++)
	{
		p.part[i].out = args->part[i].out;
		p.part[i].out_stride = args->part[i].out_stride;
		p.part[i].n_out = (int32_t) args->part[i].weight.n_rows;
		p.part[i].first_block = n_blocks;
		n_blocks += (int32_t) ceil_div(p.part[i].n_out, EXPAND_COLS);
		bits |= (uintptr_t) p.part[i].out |
				(uintptr_t) (p.part[i].out_stride * (int64_t) sizeof(bf16));
	}
	p.out_is_aligned = !p.out_is_f32 && bits % 16 == 0;
	for (int i = 0; i < args->n_parts; i++)
		up_bytes += (int64_t) p.part[i].n_out * p.max_rank * (int) sizeof(bf16);
	p.fetches_ahead = p.rows.n_tiles * up_bytes <= MAX_AHEAD_BYTES;
	return p;
}

bool
cuda_lora_shrink(LlmCuda *cuda, const LlmLinearArgs *args, LlmError *err)
{
	LoraParams params = params_of(cuda, args);
	unsigned n_ranks = (unsigned) (params.n_parts * params.max_rank / 16);
	LaunchShape shape = { dim3((unsigned) params.rows.n_tiles,
							   (unsigned) params.n_pieces, n_ranks),
						  SHRINK_WARPS * WARP, 0 };

	if (params.rows.n_tiles > 0)
		CUDA_TRY(launch_early(cuda, shape, lora_shrink, params));
	return true;
}

static bool
expand(LlmCuda *cuda, const LlmLinearArgs *args, LlmError *err)
{
	LoraParams params = params_of(cuda, args);
	const LoraPart *last = &params.part[params.n_parts - 1];
	unsigned n_blocks =
		(unsigned) (last->first_block + ceil_div(last->n_out, EXPAND_COLS));
	LaunchShape shape = { dim3((unsigned) params.rows.n_tiles, n_blocks),
						  EXPAND_WARPS * WARP,
						  (size_t) TILE_ROWS * (size_t) (params.max_rank + 8) *
							  sizeof(bf16) };

	if (params.rows.n_tiles > 0)
		CUDA_TRY(launch_early(cuda, shape, lora_expand, params));
	return true;
}

/* Two equal parts, as of gate and up: an activation may come next. */
static bool
may_wait(const LlmLinearArgs *args)
{
	return args->n_parts == 2 && !args->out_is_f32 &&
		   args->part[0].weight.n_rows == args->part[1].weight.n_rows &&
		   args->part[0].weight.n_rows % WARP_COLS == 0 &&
		   args->part[0].out_stride == args->part[1].out_stride &&
		   args->part[0].bias.data == NULL && args->part[1].bias.data == NULL;
}

bool
cuda_lora_expand(LlmCuda *cuda, const LlmLinearArgs *args, LlmError *err)
{
	LoraState *state = cuda->lora;

	assert(!state->is_pending);
	if (!may_wait(args) || !params_of(cuda, args).out_is_aligned)
		return expand(cuda, args, err);
	state->pending = *args;
	state->is_pending = true;
	return true;
}

bool
cuda_lora_settle(LlmCuda *cuda, LlmError *err)
{
	LoraState *state = cuda->lora;

	if (state == NULL || !state->is_pending)
		return true;
	state->is_pending = false;
	return expand(cuda, &state->pending, err);
}

bool
cuda_lora_gated_act(LlmCuda *cuda, const LlmGatedActArgs *args, bool *is_done,
					LlmError *err)
{
	LoraState *state = cuda->lora;
	const LlmLinearArgs *pending;
	LoraParams params;

	*is_done = false;
	if (state == NULL || !state->is_pending)
		return true;
	pending = &state->pending;
	params = params_of(cuda, pending);
	if (pending->part[0].out != args->gate ||
		pending->part[1].out != args->up || pending->n_rows != args->n_rows ||
		pending->part[0].out_stride != args->in_stride ||
		pending->part[0].weight.n_rows != args->dim ||
		(uintptr_t) args->out % 16 != 0)
		return cuda_lora_settle(cuda, err);
	state->is_pending = false;
	*is_done = true;
	return cuda_lora_act_launch(cuda, &params, args, err);
}

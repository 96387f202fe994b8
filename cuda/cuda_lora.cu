/*
 * cuda_lora.cu
 *	  Adapters of a step's rows: their memory, which rows are whose, and what
 *	  is added to matrix products and embeddings.
 *
 * A step's rows are sorted by their adapters on the host, and cut into tiles
 * of up to 16 rows of one adapter: the height of the tensor cores' product.
 * Two kernels work on them (cuda_lora_product.cu): "shrink" in front of the
 * base's product (beside it, on a stream of its own, was slower: forks and
 * joins cost more than they hide), "expand" behind it; for gate and up the
 * activation does that while it reads them (cuda_lora_act.cu).
 *
 * Tiles hold the adapters' addresses, and kernels find everything else in the
 * adapters' own tables, so that a recorded pass serves any adapters: what it
 * depends on is how many tiles there are at most.
 *
 * cuda/cuda_lora.cu
 */
#include "cuda/cuda_lora.cuh"

#include <stdlib.h>

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
 * Embeddings
 * ------------------------------------------------------------------------
 */
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
	p.n_pieces = n_in / SHRINK_MIN_COLS < 1			   ? 1
				 : n_in / SHRINK_MIN_COLS > MAX_PIECES ? MAX_PIECES
													   : n_in / SHRINK_MIN_COLS;
	p.piece_cols = round_up((n_in + p.n_pieces - 1) / p.n_pieces, SHRINK_CHUNK);
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

	return cuda_lora_launch_shrink(cuda, &params, err);
}

static bool
expand(LlmCuda *cuda, const LlmLinearArgs *args, LlmError *err)
{
	LoraParams params = params_of(cuda, args);

	return cuda_lora_launch_expand(cuda, &params, err);
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

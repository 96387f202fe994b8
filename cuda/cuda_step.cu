/*
 * cuda_step.cu
 *	  A step's inputs on their way to the device, and the plan of its
 *	  attention.
 *
 * All arrays of a step are packed into one pinned buffer and travel in one
 * copy, on a stream of their own, while the step before is computed.  When
 * that is done, a kernel puts them where the operations read: ids of tokens
 * that were drawn meanwhile are filled in, and rows of block tables get a
 * fixed stride.  There are two buffers, one for the step that is computed and
 * one for the next.
 *
 * Sequences with one new token go to the decode kernel, which works on pieces
 * of contexts: all pieces have the same length, chosen so that the pieces of
 * the batch fill the device.  What neighbours share, the beginning of a prompt
 * that many rows of a statement have, is read once for as many of them as have
 * room in a tile of the tensor cores.  The others go to the prefill kernel.  Where
 * results must not depend on the batch (deterministic), each context is cut by
 * its own length, and all tokens of prompts go to the prefill kernel.
 *
 * A step of such sequences alone gets empty ones at its end, up to a size of
 * a ladder, and its number of pieces is rounded up likewise: cuda_graph.cu
 * replays what it has recorded for that size.  An empty sequence's token 0 is
 * computed, but neither cached (token_seq is -1) nor attended to.
 *
 * cuda/cuda_step.cu
 */
#include "cuda/cuda_internal.cuh"

#include <string.h>

/* Shorter pieces cost more to start and to combine than they gain. */
#define MIN_PIECE_KEYS (4 * KEY_TILE)
#define SMALLEST_BLOCK 16

/* deterministic: how a context is cut depends on its own length alone. */
#define FIXED_PIECE_KEYS (8 * KEY_TILE)
#define MAX_FIXED_PIECES 16

/* Keys that neighbours share are worth pieces of their own from here on. */
#define MIN_SHARED_KEYS (4 * KEY_TILE)

/*
 * Pieces that contexts are cut into where sequences alone do not suffice: one
 * for half of the multiprocessors, times the kv heads a few rounds.
 */
static int32_t
wanted_pieces(int n_sms)
{
	return n_sms / 2;
}

/* Of the sequences' own keys, and of those that at least two share. */
int32_t
cuda_max_pieces(const LlmComputeOptions *options, int n_sms)
{
	return options->deterministic
			   ? options->max_seqs * MAX_FIXED_PIECES
			   : 2 * (options->max_seqs + wanted_pieces(n_sms));
}

int32_t
cuda_max_slots(const LlmComputeOptions *options, int n_sms)
{
	return options->deterministic
			   ? cuda_max_pieces(options, n_sms)
			   : 2 * options->max_seqs + (1 + MMA_ROWS) * wanted_pieces(n_sms);
}

/* Places of the arrays, in int32s from the start; n_* as in LlmStepInputs. */
typedef struct StepLayout
{
	size_t token_ids;
	size_t positions;
	size_t rope_rows;
	size_t token_seq;
	size_t query_start;
	size_t context_len;
	size_t logit_rows;
	size_t decode_seqs;
	size_t prefill_seqs;
	size_t first_groups;
	size_t seq_slots;
	size_t n_pieces_now;
	size_t pieces;
	size_t end; /* tables follow */
} StepLayout;

static StepLayout
layout_of(size_t n_tokens, size_t n_seqs, size_t n_logit_rows, size_t n_pieces)
{
	StepLayout at;

	at.token_ids = 0;
	at.positions = at.token_ids + n_tokens;
	at.rope_rows = at.positions + n_tokens;
	at.token_seq = at.rope_rows + n_tokens;
	at.query_start = at.token_seq + n_tokens;
	at.context_len = at.query_start + n_seqs + 1;
	at.logit_rows = at.context_len + n_seqs;
	at.decode_seqs = at.logit_rows + n_logit_rows;
	at.prefill_seqs = at.decode_seqs + n_seqs;
	at.first_groups = at.prefill_seqs + n_seqs;
	at.seq_slots = at.first_groups + n_seqs;
	at.n_pieces_now = at.seq_slots + n_seqs + 1;
	/* pieces are read by 16 bytes */
	at.pieces = (at.n_pieces_now + 1 + 3) / 4 * 4;
	at.end = at.pieces + n_pieces * (sizeof(DecodePiece) / sizeof(int32_t));
	return at;
}

static size_t
array_bytes(const LlmComputeOptions *options, int n_sms)
{
	StepLayout at = layout_of(
		(size_t) options->max_rows, (size_t) options->max_seqs,
		(size_t) options->max_rows, (size_t) cuda_max_pieces(options, n_sms));

	return at.end * sizeof(int32_t);
}

static int32_t
table_stride(const LlmComputeOptions *options)
{
	return (int32_t) ceil_div(options->max_context_len, SMALLEST_BLOCK);
}

size_t
cuda_table_bytes(const LlmComputeOptions *options)
{
	return (size_t) options->max_seqs * (size_t) table_stride(options) *
		   sizeof(int32_t);
}

size_t
cuda_step_bytes(const LlmComputeOptions *options)
{
	return 3 * (array_bytes(options, 256) + cuda_table_bytes(options));
}

bool
cuda_step_open(LlmCuda *cuda, LlmError *err)
{
	const LlmComputeOptions *options = &cuda->options;

	size_t n_bytes;

	cuda->array_bytes = array_bytes(options, cuda->n_sms);
	n_bytes = cuda->array_bytes + cuda_table_bytes(options);
	cuda->table_stride = table_stride(options);
	cuda->max_pieces = cuda_max_pieces(options, cuda->n_sms);
	cuda->max_slots = cuda_max_slots(options, cuda->n_sms);
	for (int i = 0; i < 2; i++)
	{
		StepStaging *staging = &cuda->staging[i];

		CUDA_TRY(cudaMallocHost((void **) &staging->pinned, n_bytes));
		CUDA_TRY(cudaEventCreateWithFlags(&staging->uploaded,
										  cudaEventDisableTiming));
		CUDA_TRY(
			cudaEventCreateWithFlags(&staging->placed, cudaEventDisableTiming));
		staging->arrived = (char *) cuda_alloc(&cuda->base, n_bytes,
											   "the inputs of a step", err);
		if (staging->arrived == NULL)
			return false;
	}
	cuda->step_arrays = (char *) cuda_alloc(&cuda->base, cuda->array_bytes,
											"the inputs of a step", err);
	cuda->block_tables = (int32_t *) cuda_alloc(
		&cuda->base, cuda_table_bytes(options), "block tables", err);
	return cuda->step_arrays != NULL && cuda->block_tables != NULL;
}

void
cuda_step_close(LlmCuda *cuda)
{
	for (int i = 0; i < 2; i++)
	{
		if (cuda->staging[i].pinned != NULL)
			(void) cudaFreeHost(cuda->staging[i].pinned);
		if (cuda->staging[i].uploaded != NULL)
			(void) cudaEventDestroy(cuda->staging[i].uploaded);
		if (cuda->staging[i].placed != NULL)
			(void) cudaEventDestroy(cuda->staging[i].placed);
		cuda_free(&cuda->base, cuda->staging[i].arrived);
	}
	cuda_free(&cuda->base, cuda->step_arrays);
	cuda_free(&cuda->base, cuda->block_tables);
}

/* ------------------------------------------------------------------------
 * The plan
 * ------------------------------------------------------------------------
 */
static int32_t
query_len(const LlmStepInputs *host, int32_t seq)
{
	return host->query_start[seq + 1] - host->query_start[seq];
}

/* One new token; a prompt's is one of a prompt where bits are to be equal. */
static bool
is_decoding(const LlmCuda *cuda, const LlmStepInputs *host, int32_t seq)
{
	return query_len(host, seq) == 1 &&
		   !(cuda->options.deterministic && host->is_prompt);
}

static int32_t
fixed_piece_keys(int32_t context_len)
{
	int32_t length = FIXED_PIECE_KEYS;

	while (length < context_len / MAX_FIXED_PIECES + 1)
		length *= 2;
	return length;
}

/* Neighbouring sequences whose contexts begin with the same blocks. */
typedef struct SharedRun
{
	int32_t n_seqs;
	int32_t n_keys; /* that they share, whole tiles; 0 where it is one alone */
} SharedRun;

/* Blocks in front of a sequence's new token that are the same for both. */
static int32_t
n_same_blocks(const LlmStepInputs *host, int32_t a, int32_t b, int32_t most)
{
	const int32_t *tables = host->block_tables;
	int64_t stride = host->max_blocks_per_seq;
	int32_t n = 0;

	while (n < most && tables[a * stride + n] == tables[b * stride + n])
		n++;
	return n;
}

/* Of decoding sequences from the first on; rows of all fit one tile. */
static SharedRun
find_run(const LlmCuda *cuda, const LlmStepInputs *host,
		 const int32_t *decode_seqs, int32_t n_decode_seqs)
{
	SharedRun run = { 1, 0 };
	int32_t seq = decode_seqs[0];
	int32_t block_size = cuda->kv_block_size;
	int32_t n_blocks;

	if (cuda->options.deterministic || block_size == 0 ||
		host->block_tables == NULL)
		return run;
	n_blocks = (host->context_len[seq] - 1) / block_size;
	while (run.n_seqs < cuda->tile_seqs && run.n_seqs < n_decode_seqs &&
		   decode_seqs[run.n_seqs] == seq + run.n_seqs)
	{
		int32_t other = seq + run.n_seqs;
		int32_t most = (host->context_len[other] - 1) / block_size;
		int32_t n =
			n_same_blocks(host, seq, other, n_blocks < most ? n_blocks : most);

		if (n * block_size < MIN_SHARED_KEYS)
			break;
		n_blocks = n;
		run.n_seqs++;
	}
	if (run.n_seqs > 1)
		run.n_keys = n_blocks * block_size / KEY_TILE * KEY_TILE;
	return run;
}

/* Length of a piece: such that there are about wanted_pieces. */
static int32_t
choose_piece_keys(const LlmCuda *cuda, const LlmStepInputs *host,
				  const int32_t *decode_seqs, int32_t n_decode_seqs)
{
	int64_t n_keys = 0;
	int64_t wanted = wanted_pieces(cuda->n_sms);
	int64_t length;

	for (int32_t i = 0; i < n_decode_seqs;)
	{
		SharedRun run =
			find_run(cuda, host, decode_seqs + i, n_decode_seqs - i);

		n_keys += run.n_keys;
		for (int32_t k = 0; k < run.n_seqs; k++)
			n_keys += host->context_len[decode_seqs[i + k]] - run.n_keys;
		i += run.n_seqs;
	}
	length = ceil_div(ceil_div(n_keys, wanted > 0 ? wanted : 1), KEY_TILE) *
			 KEY_TILE;
	return (int32_t) (length > MIN_PIECE_KEYS ? length : MIN_PIECE_KEYS);
}

/* Cut keys first .. end - 1 of n_seqs sequences; returns how many pieces. */
static int16_t
cut_keys(DecodePiece *pieces, DecodePiece piece, int32_t end, int32_t length)
{
	int16_t n = 0;

	for (int32_t first = piece.first_key; first < end; first += length)
	{
		pieces[n] = piece;
		pieces[n].first_key = first;
		pieces[n].end_key = first + length < end ? first + length : end;
		pieces[n].ordinal = (int16_t) (piece.ordinal + n);
		n++;
	}
	return n;
}

/* The pieces of a run, and the slots of its sequences. */
static void
cut_run(LlmCuda *cuda, const LlmStepInputs *host, const StepLayout *at,
		int32_t *arrays, SharedRun run, int32_t first, int32_t piece_keys)
{
	StepPlan *plan = &cuda->plan;
	DecodePiece *pieces = (DecodePiece *) (arrays + at->pieces);
	int16_t n_shared =
		cut_keys(pieces + plan->n_pieces,
				 DecodePiece{ first, 0, 0, (int16_t) run.n_seqs, 0 },
				 run.n_keys, piece_keys);

	plan->n_pieces += n_shared;
	for (int32_t i = first; i < first + run.n_seqs; i++)
	{
		int32_t context_len = host->context_len[arrays[at->decode_seqs + i]];
		int32_t length = cuda->options.deterministic
							 ? fixed_piece_keys(context_len)
							 : piece_keys;
		DecodePiece *own = pieces + plan->n_pieces;
		int16_t n_own =
			cut_keys(own, DecodePiece{ i, run.n_keys, 0, 1, n_shared },
					 context_len, length);

		arrays[at->seq_slots + i] = plan->n_slots;
		plan->n_slots += n_shared + n_own;
		plan->n_pieces += n_own;
		if (n_shared + n_own == 1)
			own->ordinal = -1;
		else
			plan->are_whole = false;
	}
}

/* More sequences than there are get no pieces; fewer sizes, fewer records. */
static void
round_up_plan(LlmCuda *cuda, const StepLayout *at, int32_t *arrays,
			  int32_t n_seqs)
{
	StepPlan *plan = &cuda->plan;
	int32_t most = cuda->options.deterministic
					   ? n_seqs * MAX_FIXED_PIECES
					   : 2 * (n_seqs + wanted_pieces(cuda->n_sms));
	int32_t n_pieces = n_seqs;

	for (int32_t s = plan->n_decode_seqs; s < n_seqs; s++)
	{
		arrays[at->decode_seqs + s] = 0;
		arrays[at->seq_slots + s + 1] = plan->n_slots;
	}
	while (!plan->are_whole &&
		   (n_pieces == n_seqs || n_pieces < plan->n_pieces))
		n_pieces *= 2;
	plan->n_decode_seqs = n_seqs;
	plan->n_pieces = plan->are_whole || n_pieces < most ? n_pieces : most;
	plan->is_recordable = true;
}

static void
plan_prompt(StepPlan *plan, const LlmStepInputs *host, const StepLayout *at,
			int32_t *arrays, int32_t seq)
{
	int32_t n_new = query_len(host, seq);
	int32_t n_groups =
		(int32_t) ceil_div(host->context_len[seq], SMALLEST_BLOCK);

	arrays[at->first_groups + plan->n_prefill_seqs] = plan->n_prefill_groups;
	arrays[at->prefill_seqs + plan->n_prefill_seqs++] = seq;
	plan->n_prefill_groups += n_groups;
	if (n_groups > plan->max_prefill_groups)
		plan->max_prefill_groups = n_groups;
	if (n_new > plan->max_prefill_len)
		plan->max_prefill_len = n_new;
}

/* Returns the number of pieces. */
static int32_t
plan_attention(LlmCuda *cuda, const LlmStepInputs *host, const StepLayout *at,
			   int32_t *arrays)
{
	StepPlan *plan = &cuda->plan;
	const int32_t *decode_seqs = arrays + at->decode_seqs;
	int32_t piece_keys;

	*plan = StepPlan{};
	plan->is_prompt = host->is_prompt;
	plan->are_whole = true;
	for (int32_t s = 0; s < host->n_seqs; s++)
	{
		if (is_decoding(cuda, host, s))
			arrays[at->decode_seqs + plan->n_decode_seqs++] = s;
		else if (query_len(host, s) > 0)
			plan_prompt(plan, host, at, arrays, s);
	}
	piece_keys =
		choose_piece_keys(cuda, host, decode_seqs, plan->n_decode_seqs);
	for (int32_t i = 0; i < plan->n_decode_seqs;)
	{
		SharedRun run =
			find_run(cuda, host, decode_seqs + i, plan->n_decode_seqs - i);

		cut_run(cuda, host, at, arrays, run, i, piece_keys);
		i += run.n_seqs;
	}
	assert(plan->n_pieces <= cuda->max_pieces);
	assert(plan->n_slots <= cuda->max_slots);
	arrays[at->seq_slots + plan->n_decode_seqs] = plan->n_slots;
	arrays[at->n_pieces_now] = plan->n_pieces;
	return plan->n_pieces;
}

static void
point_plan(LlmCuda *cuda, const StepLayout *at)
{
	const int32_t *arrays = (const int32_t *) cuda->step_arrays;

	cuda->plan.decode_seqs = arrays + at->decode_seqs;
	cuda->plan.prefill_seqs = arrays + at->prefill_seqs;
	cuda->plan.first_groups = arrays + at->first_groups;
	cuda->plan.seq_slots = arrays + at->seq_slots;
	cuda->plan.n_pieces_now = arrays + at->n_pieces_now;
	cuda->plan.pieces = (const DecodePiece *) (arrays + at->pieces);
}

/* ------------------------------------------------------------------------
 * The copy
 * ------------------------------------------------------------------------
 */

/* Callers leave out what their operations do not read. */
static void
pack(int32_t *dest, const int32_t *src, size_t n)
{
	if (src != NULL)
		memcpy(dest, src, n * sizeof(int32_t));
}

static void
pack_step(const LlmStepInputs *host, const StepLayout *at, int32_t *arrays)
{
	size_t n_tokens = (size_t) host->n_tokens;
	size_t n_seqs = (size_t) host->n_seqs;

	pack(arrays + at->token_ids, host->token_ids, n_tokens);
	pack(arrays + at->positions, host->positions, n_tokens);
	pack(arrays + at->rope_rows, host->rope_rows, n_tokens);
	pack(arrays + at->token_seq, host->token_seq, n_tokens);
	pack(arrays + at->query_start, host->query_start, n_seqs + 1);
	pack(arrays + at->context_len, host->context_len, n_seqs);
	pack(arrays + at->logit_rows, host->logit_rows,
		 (size_t) host->n_logit_rows);
}

static void
point_device(LlmCuda *cuda, const StepLayout *at, LlmStepInputs *device)
{
	const int32_t *arrays = (const int32_t *) cuda->step_arrays;

	device->token_ids = arrays + at->token_ids;
	device->positions = arrays + at->positions;
	device->rope_rows = arrays + at->rope_rows;
	device->token_seq = arrays + at->token_seq;
	device->query_start = arrays + at->query_start;
	device->context_len = arrays + at->context_len;
	device->logit_rows = arrays + at->logit_rows;
	device->block_tables = cuda->block_tables;
	device->max_blocks_per_seq = cuda->table_stride;
}

typedef struct PlaceParams
{
	const int32_t *from; /* [n_words], then [n_seqs, table_row] */
	int32_t *arrays;
	int32_t *block_tables;
	const int32_t *drawn_ids;
	int32_t n_tokens; /* the first words are their ids */
	int32_t n_words;
	int32_t n_seqs;
	int32_t table_row;
	int32_t table_stride;
} PlaceParams;

#define PLACE_THREADS 256
#define PLACE_BLOCKS 128

static __global__ void
__launch_bounds__(PLACE_THREADS)
	place_step(const __grid_constant__ PlaceParams p)
{
	const int64_t first = blockIdx.x * PLACE_THREADS + threadIdx.x;
	const int64_t n_all = p.n_words + (int64_t) p.n_seqs * p.table_row;

	for (int64_t i = first; i < n_all; i += gridDim.x * PLACE_THREADS)
	{
		int32_t word = p.from[i];

		if (i >= p.n_words)
		{
			int64_t entry = i - p.n_words;

			p.block_tables[entry / p.table_row * p.table_stride +
						   entry % p.table_row] = word;
			continue;
		}
		/* where none could be drawn, the step's results are of no use */
		if (i < p.n_tokens && word < 0)
			word = max(p.drawn_ids[LLM_DRAWN_ROW(word)], 0);
		p.arrays[i] = word;
	}
}

/* n_words of arrays and the tables are packed: bring them in their places. */
static bool
send_step(LlmCuda *cuda, StepStaging *staging, const LlmStepInputs *host,
		  size_t n_words, LlmError *err)
{
	size_t n_entries =
		(size_t) host->n_seqs * (size_t) host->max_blocks_per_seq;
	PlaceParams params = { (const int32_t *) staging->arrived,
						   (int32_t *) cuda->step_arrays,
						   cuda->block_tables,
						   cuda_drawn_ids(cuda),
						   host->n_tokens,
						   (int32_t) n_words };
	int64_t n_blocks = ceil_div((int64_t) (n_words + n_entries), PLACE_THREADS);

	params.n_seqs = host->n_seqs;
	params.table_row = host->max_blocks_per_seq;
	params.table_stride = cuda->table_stride;
	CUDA_TRY(cudaMemcpyAsync(staging->arrived, staging->pinned,
							 (n_words + n_entries) * sizeof(int32_t),
							 cudaMemcpyHostToDevice, cuda->upload_stream));
	CUDA_TRY(cudaEventRecord(staging->uploaded, cuda->upload_stream));
	CUDA_TRY(cudaStreamWaitEvent(cuda->stream, staging->uploaded, 0));
	if (!cuda_idle_mark(cuda, IDLE_PLACED, err))
		return false;
	place_step<<<(unsigned) (n_blocks < PLACE_BLOCKS ? n_blocks : PLACE_BLOCKS),
				 PLACE_THREADS, 0, cuda->stream>>>(params);
	if (!cuda_launched("place_step", err))
		return false;
	CUDA_TRY(cudaEventRecord(staging->placed, cuda->stream));
	return true;
}

/* ------------------------------------------------------------------------
 * The ladder
 * ------------------------------------------------------------------------
 */
static bool
is_decode_only(const LlmCuda *cuda, const LlmStepInputs *host)
{
	if (host->n_tokens != host->n_seqs || host->n_logit_rows != host->n_seqs ||
		host->keeps_all_rows || host->skips_logits)
		return false;
	for (int32_t s = 0; s < host->n_seqs; s++)
	{
		if (!is_decoding(cuda, host, s))
			return false;
	}
	return host->n_seqs > 0;
}

/* Sizes that products cost little more for than for any below. */
static int32_t
ladder_size(const LlmCuda *cuda, int32_t n_seqs)
{
	const LlmComputeOptions *options = &cuda->options;
	int32_t most = options->max_seqs < options->max_rows ? options->max_seqs
														 : options->max_rows;
	int32_t size = 1;

	while (size < n_seqs && size < SKINNY_MAX_ROWS)
		size *= 2;
	if (size < n_seqs)
		size = cuda_row_class(n_seqs);
	return size < most ? size : most;
}

/* What the operations read of tokens that are not there. */
static void
pack_empty(const LlmStepInputs *host, const StepLayout *at, int32_t *arrays,
		   int32_t size)
{
	for (int32_t i = host->n_tokens; i < size; i++)
	{
		arrays[at->token_ids + i] = 0;
		arrays[at->positions + i] = 0;
		arrays[at->rope_rows + i] = 0;
		arrays[at->token_seq + i] = -1;
		arrays[at->query_start + i + 1] = i + 1;
		arrays[at->context_len + i] = 0;
		arrays[at->logit_rows + i] = i;
	}
}

bool
cuda_step_upload(LlmCompute *compute, const LlmStepInputs *host,
				 LlmStepInputs *device, LlmError *err)
{
	LlmCuda *cuda = llm_cuda(compute);
	StepStaging *staging = &cuda->staging[cuda->next_staging];
	int32_t *arrays = (int32_t *) staging->pinned;
	LlmStepInputs padded = *host;
	bool is_laddered =
		!cuda->options.enforce_eager && is_decode_only(cuda, host);
	StepLayout at;
	int32_t n_pieces;

	assert(host->n_tokens <= cuda->options.max_rows);
	assert(host->n_seqs <= cuda->options.max_seqs);
	cuda->next_staging = 1 - cuda->next_staging;
	CUDA_TRY(cudaEventSynchronize(staging->placed));
	if (is_laddered)
		padded.n_tokens = padded.n_seqs = padded.n_logit_rows =
			ladder_size(cuda, host->n_seqs);
	at = layout_of((size_t) padded.n_tokens, (size_t) padded.n_seqs,
				   (size_t) padded.n_logit_rows, (size_t) cuda->max_pieces);
	pack_step(host, &at, arrays);
	n_pieces = plan_attention(cuda, host, &at, arrays);
	if (is_laddered)
	{
		pack_empty(host, &at, arrays, padded.n_seqs);
		round_up_plan(cuda, &at, arrays, padded.n_seqs);
	}
	at.end =
		at.pieces + (size_t) n_pieces * (sizeof(DecodePiece) / sizeof(int32_t));
	point_plan(cuda, &at);
	*device = padded;
	point_device(cuda, &at, device);
	assert(host->max_blocks_per_seq <= cuda->table_stride);
	pack(arrays + at.end, host->block_tables,
		 (size_t) host->n_seqs * (size_t) host->max_blocks_per_seq);
	return send_step(cuda, staging, host, at.end, err) &&
		   cuda_lora_upload(cuda, host, err);
}

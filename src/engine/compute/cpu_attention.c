/*
 * cpu_attention.c
 *	  Causal grouped-query attention over the paged cache.
 *
 * The query rows of a kv head (its heads of each token, token by token) are
 * cut into tiles that read K and V together.  A tile goes over its context in
 * chunks of LLM_CPU_CHUNK_TOKENS positions with a running softmax; every
 * SPLIT_TOKENS positions the running result is closed and merged into the
 * tile's total.  Both borders are multiples of absolute positions, so a
 * row's result does not depend on how many queries came with it, on the tile
 * it fell into, or on who computed which split: decoding, prefill in chunks
 * and a prefix-cache hit agree to the last bit.
 *
 * Codes of 8 bits become bf16, chunk by chunk, which loses nothing.
 *
 * Where there are too few tiles for the threads, splits are computed apart
 * ("partials") and merged afterwards in the same order.
 *
 * src/engine/compute/cpu_attention.c
 */
#include <assert.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "src/common/util/unit_code.h"
#include "src/engine/compute/cpu_internal.h"

#define SPLIT_TOKENS 1024

/* Fewer tiles than this for each thread: compute splits apart. */
#define MIN_TILES_PER_THREAD 4

typedef struct AttentionJob
{
	const LlmCpu *cpu;
	const LlmAttentionArgs *args;
	int32_t group; /* heads that share a kv head */
	int64_t n_tiles;
	int32_t n_splits; /* > 1: items are (tile, split) */
	atomic_llong next_item;
} AttentionJob;

/* A tile of query rows of one sequence and kv head. */
typedef struct Tile
{
	int32_t seq;
	int32_t kv_head;
	int32_t first_row; /* of the sequence's query tokens x group */
	int32_t n_rows;
	int32_t first_token; /* of the step */
	int32_t first_pos;	 /* position of the sequence's first query */
} Tile;

/* A thread's scratch. */
typedef struct Scratch
{
	float q[LLM_CPU_TILE_ROWS * LLM_CPU_MAX_HEAD_DIM];
	float scores[LLM_CPU_TILE_ROWS * LLM_CPU_CHUNK_TOKENS];
	int32_t visible[2 * LLM_CPU_TILE_ROWS];
	/* a chunk's keys and values where the cache holds codes */
	uint16_t keys[LLM_CPU_MAX_HEAD_DIM * LLM_CPU_CHUNK_TOKENS];
	uint16_t values[LLM_CPU_CHUNK_TOKENS * LLM_CPU_MAX_HEAD_DIM];
} Scratch;

typedef struct StateStorage
{
	float output[LLM_CPU_TILE_ROWS * LLM_CPU_MAX_HEAD_DIM];
	float max[LLM_CPU_TILE_ROWS];
	float sum[LLM_CPU_TILE_ROWS * 16];
} StateStorage;

typedef struct ThreadScratch
{
	_Alignas(64) Scratch scratch;
	_Alignas(64) StateStorage split;
	_Alignas(64) StateStorage total;
} ThreadScratch;

size_t
llm_cpu_attention_thread_bytes(void)
{
	return sizeof(ThreadScratch);
}

size_t
llm_cpu_attention_partial_bytes(void)
{
	return (sizeof(StateStorage) + 63) & ~(size_t) 63;
}

static ThreadScratch *
thread_scratch(const LlmCpu *cpu, int thread_idx)
{
	return (ThreadScratch *) (cpu->attention_scratch +
							  (size_t) thread_idx *
								  cpu->attention_thread_bytes);
}

static StateStorage *
partial(const LlmCpu *cpu, int64_t idx)
{
	size_t threads = (size_t) llm_cpu_threads_count(cpu->threads) *
					 cpu->attention_thread_bytes;

	assert(idx < cpu->n_partial_tiles);
	return (StateStorage *) (cpu->attention_scratch + threads +
							 (size_t) idx * llm_cpu_attention_partial_bytes());
}

static LlmCpuAttentionState
state_of(StateStorage *storage)
{
	return (LlmCpuAttentionState){ .max = storage->max,
								   .sum = storage->sum,
								   .output = storage->output };
}

static void
reset_state(StateStorage *storage, int32_t n_rows, int32_t dim_padded)
{
	for (int32_t i = 0; i < n_rows; i++)
		storage->max[i] = -INFINITY;
	memset(storage->sum, 0, (size_t) n_rows * 16 * sizeof(float));
	memset(storage->output, 0,
		   (size_t) n_rows * (size_t) dim_padded * sizeof(float));
}

static int32_t
seq_tiles(const AttentionJob *job, int32_t seq)
{
	const int32_t *start = job->args->step->query_start;
	int32_t n_rows = (start[seq + 1] - start[seq]) * job->group;

	return (n_rows + LLM_CPU_TILE_ROWS - 1) / LLM_CPU_TILE_ROWS;
}

/*
 * Tile idx of the whole call; *seq and *seq_first are a cursor that a thread
 * keeps, because it asks for ascending tiles.  Late tiles of a prefill are
 * the long ones and come first.
 */
static Tile
find_tile(const AttentionJob *job, int64_t idx, int32_t *seq,
		  int64_t *seq_first)
{
	const LlmStepInputs *step = job->args->step;
	int32_t n_kv_heads = job->args->n_kv_heads;
	int32_t n_tiles = seq_tiles(job, *seq);
	int32_t n_query;
	int32_t tile_idx;
	Tile tile;

	while (idx - *seq_first >= (int64_t) n_tiles * n_kv_heads)
	{
		*seq_first += (int64_t) n_tiles * n_kv_heads;
		n_tiles = seq_tiles(job, ++*seq);
	}
	n_query = step->query_start[*seq + 1] - step->query_start[*seq];
	tile_idx = n_tiles - 1 - (int32_t) ((idx - *seq_first) / n_kv_heads);
	tile.seq = *seq;
	tile.kv_head = (int32_t) ((idx - *seq_first) % n_kv_heads);
	tile.first_row = tile_idx * LLM_CPU_TILE_ROWS;
	tile.n_rows = n_query * job->group - tile.first_row;
	if (tile.n_rows > LLM_CPU_TILE_ROWS)
		tile.n_rows = LLM_CPU_TILE_ROWS;
	tile.first_token = step->query_start[*seq];
	tile.first_pos = step->context_len[*seq] - n_query;
	assert(tile.first_pos >= 0);
	return tile;
}

/* Copy and scale the tile's queries, find what each row may see. */
static void
load_queries(const AttentionJob *job, const Tile *tile, Scratch *scratch)
{
	const LlmAttentionArgs *args = job->args;

	for (int32_t i = 0; i < tile->n_rows; i++)
	{
		int32_t row = tile->first_row + i;
		int32_t token = row / job->group;
		int32_t head = tile->kv_head * job->group + row % job->group;
		int32_t position = tile->first_pos + token;
		const float *q = (const float *) args->q +
						 (tile->first_token + token) * args->q_stride +
						 (int64_t) head * args->head_dim;
		int32_t first = 0;

		job->cpu->vector.convert(q, LLM_DTYPE_F32, args->scale, args->head_dim,
								 scratch->q + (int64_t) i * args->head_dim);
		if (args->sliding_window > 0 && position >= args->sliding_window)
			first = position - args->sliding_window + 1;
		scratch->visible[2 * i] = first;
		scratch->visible[2 * i + 1] = position + 1;
	}
}

/* Where the chunk's tokens lie, from position first. */
static LlmCpuAttentionChunk
find_chunk(const LlmAttentionArgs *args, const Tile *tile, int32_t first,
		   int32_t end)
{
	const LlmStepInputs *step = args->step;
	const LlmKvCache *kv = args->kv;
	const int32_t *table =
		step->block_tables + (int64_t) tile->seq * step->max_blocks_per_seq;
	int32_t block_size = kv->spec.block_size;
	size_t element = llm_dtype_bytes(kv->spec.dtype);
	LlmCpuAttentionChunk chunk = { .first_token = first,
								   .n_tokens = end - first };

	if (chunk.n_tokens > LLM_CPU_CHUNK_TOKENS)
		chunk.n_tokens = LLM_CPU_CHUNK_TOKENS;
	for (int32_t t = 0; t < chunk.n_tokens; t += 16)
	{
		int32_t block = table[(first + t) / block_size];
		size_t row = (size_t) ((first + t) % block_size);
		const char *k = llm_cpu_kv_k(kv, args->layer_idx, block, tile->kv_head);
		const char *v = llm_cpu_kv_v(kv, args->layer_idx, block, tile->kv_head);

		/* a token's word in K: one f32, or a pair of bf16 */
		chunk.k[t / 16] = k + row * 4;
		chunk.v[t / 16] = v + row * (size_t) kv->dim_padded * element;
	}
	return chunk;
}

/*
 * The same where the cache holds codes: as bf16, as if the chunk were a block
 * of LLM_CPU_CHUNK_TOKENS tokens.
 */
static LlmCpuAttentionChunk
expand_chunk(const AttentionJob *job, const Tile *tile, Scratch *scratch,
			 int32_t first, int32_t end)
{
	const LlmKvCache *kv = job->args->kv;
	const int64_t block_size = kv->spec.block_size;
	LlmCpuAttentionChunk chunk = find_chunk(job->args, tile, first, end);
	LlmCpuCodes codes = {
		.dtype = kv->spec.dtype,
		.head_dim = kv->spec.head_dim,
		.dim_padded = kv->dim_padded,
		.block_size = kv->spec.block_size,
	};

	for (int32_t t = 0; t < chunk.n_tokens; t += 16)
	{
		int64_t row = (first + t) % block_size;
		const uint8_t *k = (const uint8_t *) chunk.k[t / 16] - row * 4;
		const uint8_t *v = (const uint8_t *) chunk.v[t / 16];

		codes.keys = k + row * 2;
		codes.key_units = k + kv->spec.head_dim * block_size + row;
		codes.values = v;
		codes.value_units = v + (block_size - row) * kv->dim_padded + row;
		job->cpu->attention.expand(&codes, scratch->keys + 2 * t,
								   scratch->values +
									   (int64_t) t * kv->dim_padded);
		chunk.k[t / 16] = scratch->keys + 2 * t;
		chunk.v[t / 16] = scratch->values + (int64_t) t * kv->dim_padded;
	}
	return chunk;
}

/* One split of a tile into *storage. */
static void
compute_split(const AttentionJob *job, const Tile *tile, Scratch *scratch,
			  int32_t split, StateStorage *storage)
{
	const LlmAttentionArgs *args = job->args;
	bool is_f32 = args->kv->spec.dtype == LLM_DTYPE_F32;
	bool is_coded = llm_dtype_is_coded(args->kv->spec.dtype);
	int32_t begin = split * SPLIT_TOKENS;
	int32_t end = begin + SPLIT_TOKENS;
	int32_t last_seen = scratch->visible[2 * tile->n_rows - 1];
	LlmCpuAttentionTile work = {
		.q = scratch->q,
		.visible = scratch->visible,
		.scores = scratch->scores,
		.n_rows = tile->n_rows,
		.head_dim = args->head_dim,
		.dim_padded = args->kv->dim_padded,
		.block_size =
			is_coded ? LLM_CPU_CHUNK_TOKENS : args->kv->spec.block_size,
		.soft_cap = args->soft_cap,
		.state = state_of(storage),
	};

	reset_state(storage, tile->n_rows, work.dim_padded);
	if (end > last_seen)
		end = last_seen;
	if (begin < scratch->visible[0])
		begin =
			scratch->visible[0] / LLM_CPU_CHUNK_TOKENS * LLM_CPU_CHUNK_TOKENS;
	for (; begin < end; begin += LLM_CPU_CHUNK_TOKENS)
	{
		LlmCpuAttentionChunk chunk =
			is_coded ? expand_chunk(job, tile, scratch, begin, end)
					 : find_chunk(args, tile, begin, end);

		if (is_f32)
			job->cpu->attention.add_chunk_f32(&work, &chunk);
		else
			job->cpu->attention.add_chunk_bf16(&work, &chunk);
	}
}

static void
merge_rows(const AttentionJob *job, const Tile *tile, StateStorage *total,
		   StateStorage *split)
{
	LlmCpuAttentionState into = state_of(total);
	LlmCpuAttentionState from = state_of(split);

	for (int32_t i = 0; i < tile->n_rows; i++)
		job->cpu->attention.merge(&into, i, &from, i,
								  job->args->kv->dim_padded);
}

/* Divide by the sums; bf16 values have left even and odd dimensions apart. */
static void
write_output(const AttentionJob *job, const Tile *tile,
			 const StateStorage *total)
{
	const LlmAttentionArgs *args = job->args;
	int32_t head_dim = args->head_dim;
	bool is_f32 = args->kv->spec.dtype == LLM_DTYPE_F32;

	for (int32_t i = 0; i < tile->n_rows; i++)
	{
		int32_t row = tile->first_row + i;
		int64_t token = tile->first_token + row / job->group;
		int64_t head = tile->kv_head * job->group + row % job->group;
		const float *src = total->output + (int64_t) i * args->kv->dim_padded;
		float *out =
			(float *) args->out + (token * args->n_heads + head) * head_dim;
		float sum = 0;
		float factor;

		for (int lane = 0; lane < 16; lane++)
			sum += total->sum[i * 16 + lane];
		factor = 1.0f / sum;
		for (int32_t d = 0; d < head_dim; d++)
		{
			int32_t at = is_f32 ? d : d / 32 * 32 + d % 2 * 16 + d % 32 / 2;

			out[d] = src[at] * factor;
		}
	}
}

static void
whole_tiles_job(void *arg, int thread_idx, int n_threads)
{
	AttentionJob *job = arg;
	ThreadScratch *mine = thread_scratch(job->cpu, thread_idx);
	int32_t seq = 0;
	int64_t seq_first = 0;
	int64_t idx;

	(void) n_threads;
	while ((idx = atomic_fetch_add(&job->next_item, 1)) < job->n_tiles)
	{
		Tile tile = find_tile(job, idx, &seq, &seq_first);
		int32_t last;

		load_queries(job, &tile, &mine->scratch);
		reset_state(&mine->total, tile.n_rows, job->args->kv->dim_padded);
		last = (mine->scratch.visible[2 * tile.n_rows - 1] - 1) / SPLIT_TOKENS;
		for (int32_t split = mine->scratch.visible[0] / SPLIT_TOKENS;
			 split <= last; split++)
		{
			compute_split(job, &tile, &mine->scratch, split, &mine->split);
			merge_rows(job, &tile, &mine->total, &mine->split);
		}
		write_output(job, &tile, &mine->total);
	}
}

static void
partials_job(void *arg, int thread_idx, int n_threads)
{
	AttentionJob *job = arg;
	ThreadScratch *mine = thread_scratch(job->cpu, thread_idx);
	int32_t seq = 0;
	int64_t seq_first = 0;
	int64_t idx;

	(void) n_threads;
	while ((idx = atomic_fetch_add(&job->next_item, 1)) <
		   job->n_tiles * job->n_splits)
	{
		Tile tile = find_tile(job, idx / job->n_splits, &seq, &seq_first);

		load_queries(job, &tile, &mine->scratch);
		compute_split(job, &tile, &mine->scratch,
					  (int32_t) (idx % job->n_splits), partial(job->cpu, idx));
	}
}

static void
merge_partials_job(void *arg, int thread_idx, int n_threads)
{
	AttentionJob *job = arg;
	ThreadScratch *mine = thread_scratch(job->cpu, thread_idx);
	int32_t seq = 0;
	int64_t seq_first = 0;

	for (int64_t idx = thread_idx; idx < job->n_tiles; idx += n_threads)
	{
		Tile tile = find_tile(job, idx, &seq, &seq_first);

		reset_state(&mine->total, tile.n_rows, job->args->kv->dim_padded);
		for (int32_t split = 0; split < job->n_splits; split++)
			merge_rows(job, &tile, &mine->total,
					   partial(job->cpu, idx * job->n_splits + split));
		write_output(job, &tile, &mine->total);
	}
}

bool
llm_cpu_attention(LlmCompute *compute, const LlmAttentionArgs *args,
				  LlmError *err)
{
	LlmCpu *cpu = llm_cpu(compute);
	AttentionJob job = { .cpu = cpu, .args = args };
	int64_t n_threads = llm_cpu_threads_count(cpu->threads);
	int32_t longest = 0;

	(void) err;
	assert(args->n_heads % args->n_kv_heads == 0);
	assert(args->kv->spec.head_dim == args->head_dim);
	assert(args->kv->spec.n_kv_heads == args->n_kv_heads);
	job.group = args->n_heads / args->n_kv_heads;
	for (int32_t seq = 0; seq < args->step->n_seqs; seq++)
	{
		job.n_tiles += (int64_t) seq_tiles(&job, seq) * args->n_kv_heads;
		if (args->step->context_len[seq] > longest)
			longest = args->step->context_len[seq];
	}
	job.n_splits = (longest + SPLIT_TOKENS - 1) / SPLIT_TOKENS;
	if (job.n_splits > 1 && job.n_tiles < MIN_TILES_PER_THREAD * n_threads &&
		job.n_tiles * job.n_splits <= cpu->n_partial_tiles)
	{
		llm_cpu_threads_run(cpu->threads, partials_job, &job);
		llm_cpu_threads_run(cpu->threads, merge_partials_job, &job);
	}
	else
		llm_cpu_threads_run(cpu->threads, whole_tiles_job, &job);
	return true;
}

/*
 * cpu_train_attention.c
 *	  Attention among the tokens of segments, and its derivative.
 *
 * Scores exist in tiles of 64 queries and 64 keys only.  On the way back they
 * are computed again, and with the softmax's denominators from the way there
 * probabilities follow without a second running softmax (FlashAttention-2,
 * Dao 2023).  A head of a segment is one thread's work there, a kv head of a
 * segment with all its queries' heads back, so that the sums in d_k and d_v
 * have one writer and one order.
 *
 * src/engine/compute/cpu_train_attention.c
 */
#include <assert.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "src/engine/compute/cpu_train.h"

#define TILE LLM_CPU_TRAIN_TILE

/* Tiles in a thread's scratch, behind that of products. */
typedef struct TileScratch
{
	float scores[TILE * TILE];
	float raw[TILE * TILE];
	float slopes[TILE * TILE];
	float max[TILE];
	float sum[TILE];
} TileScratch;

size_t
llm_cpu_train_thread_bytes(void)
{
	return (LLM_CPU_PRODUCT_SCRATCH + sizeof(TileScratch) + 63) & ~(size_t) 63;
}

typedef struct AttentionJob
{
	const LlmCpu *cpu;
	const LlmSegmentAttentionArgs *args;
	const LlmSegmentAttentionBackArgs *back; /* NULL on the way there */
	int64_t n_items;
	atomic_llong next_item;
} AttentionJob;

/* A head of a segment in one thread's hands. */
typedef struct Head
{
	const AttentionJob *job;
	const LlmSegmentAttentionArgs *args;
	float *product_scratch;
	TileScratch *tiles;
	int32_t begin; /* the segment's tokens */
	int32_t end;
	int32_t head;
	int32_t kv_head;
} Head;

static int32_t
min_of(int32_t a, int32_t b)
{
	return a < b ? a : b;
}

/* Row "token", head "head" of an array [n_tokens, n_heads, head_dim]. */
static float *
row_of(const Head *h, const void *array, int32_t n_heads, int32_t head,
	   int32_t token)
{
	return (float *) array +
		   ((int64_t) token * n_heads + head) * h->args->head_dim;
}

static float *
q_row(const Head *h, const void *array, int32_t token)
{
	return row_of(h, array, h->args->n_heads, h->head, token);
}

static float *
kv_row(const Head *h, const void *array, int32_t token)
{
	return row_of(h, array, h->args->n_kv_heads, h->kv_head, token);
}

static int64_t
q_stride(const Head *h)
{
	return (int64_t) h->args->n_heads * h->args->head_dim;
}

static int64_t
kv_stride(const Head *h)
{
	return (int64_t) h->args->n_kv_heads * h->args->head_dim;
}

static LlmOperand
operand(const float *data, int64_t stride, bool is_transposed)
{
	return (LlmOperand){ data, LLM_DTYPE_F32, stride, is_transposed };
}

/* A product within this thread. */
static void
multiply(const Head *h, const LlmProductArgs *args)
{
	LlmCpuProductTask task = { .args = args,
							   .n_rows = args->m,
							   .n_cols = args->n,
							   .scratch = h->product_scratch };

	assert(args->m <= LLM_CPU_PRODUCT_ROWS);
	for (task.col = 0; task.col < args->n; task.col += LLM_CPU_PRODUCT_COLS)
	{
		task.n_cols = args->n - task.col < LLM_CPU_PRODUCT_COLS
						  ? args->n - task.col
						  : LLM_CPU_PRODUCT_COLS;
		h->job->cpu->train->product(&task);
	}
}

/* out [n_q, n_k] = scale * queries * keys, of rows of head_dim */
static void
multiply_rows(const Head *h, const LlmCpuScoreTile *tile, const float *queries,
			  const float *keys, float scale, float *out)
{
	LlmProductArgs args = {
		.a = operand(queries, q_stride(h), false),
		.b = operand(keys, kv_stride(h), true),
		.m = tile->n_q,
		.n = tile->n_k,
		.k = h->args->head_dim,
		.scale = scale,
		.out = out,
		.out_dtype = LLM_DTYPE_F32,
		.out_stride = TILE,
	};

	multiply(h, &args);
}

/* out [rows, head_dim] += scale * tile (or its transpose) * rows */
static void
add_weighted(const Head *h, LlmOperand weights, int32_t n_out, int32_t n_in,
			 LlmOperand rows, float scale, float *out, int64_t out_stride)
{
	LlmProductArgs args = {
		.a = weights,
		.b = rows,
		.m = n_out,
		.n = h->args->head_dim,
		.k = n_in,
		.scale = scale,
		.adds = true,
		.out = out,
		.out_dtype = LLM_DTYPE_F32,
		.out_stride = out_stride,
	};

	multiply(h, &args);
}

/* The first key tile that some query of the tile sees. */
static int32_t
first_key(const Head *h, int32_t first_q)
{
	int32_t window = h->args->sliding_window;
	int32_t first = h->begin;

	if (window > 0 && first_q - window + 1 > first)
		first = first_q - window + 1;
	return h->begin + (first - h->begin) / TILE * TILE;
}

static LlmCpuScoreTile
score_tile(const Head *h, int32_t first_q, int32_t first_k)
{
	return (LlmCpuScoreTile){
		.scores = h->tiles->scores,
		.n_q = min_of(TILE, h->end - first_q),
		.n_k = min_of(TILE, h->end - first_k),
		.first_q = first_q,
		.first_k = first_k,
		.sliding_window = h->args->sliding_window,
		.soft_cap = h->args->soft_cap,
	};
}

/* ------------------------------------------------------------------------
 * There
 * ------------------------------------------------------------------------
 */
static void
finish_rows(const Head *h, int32_t first_q, int32_t n_q)
{
	float *log_sums =
		h->args->log_sums + (int64_t) h->head * h->args->n_tokens + first_q;

	for (int32_t i = 0; i < n_q; i++)
	{
		float *out = q_row(h, h->args->out, first_q + i);

		log_sums[i] = h->tiles->max[i] + logf(h->tiles->sum[i]);
		for (int32_t d = 0; d < h->args->head_dim; d++)
			out[d] /= h->tiles->sum[i];
	}
}

static void
attend_tile(const Head *h, int32_t first_q)
{
	const LlmCpuTrainKernels *kernels = h->job->cpu->train;
	const LlmSegmentAttentionArgs *args = h->args;
	int32_t n_q = min_of(TILE, h->end - first_q);

	for (int32_t i = 0; i < n_q; i++)
	{
		h->tiles->max[i] = -INFINITY;
		h->tiles->sum[i] = 0;
		memset(q_row(h, args->out, first_q + i), 0,
			   (size_t) args->head_dim * sizeof(float));
	}
	for (int32_t first_k = first_key(h, first_q); first_k < first_q + n_q;
		 first_k += TILE)
	{
		LlmCpuScoreTile tile = score_tile(h, first_q, first_k);

		multiply_rows(h, &tile, q_row(h, args->q, first_q),
					  kv_row(h, args->k, first_k), args->scale, tile.scores);
		kernels->soft_max_step(&tile, h->tiles->max, h->tiles->sum,
							   q_row(h, args->out, first_q), q_stride(h),
							   args->head_dim);
		add_weighted(h, operand(tile.scores, TILE, false), n_q, tile.n_k,
					 operand(kv_row(h, args->v, first_k), kv_stride(h), false),
					 1, q_row(h, args->out, first_q), q_stride(h));
	}
	finish_rows(h, first_q, n_q);
}

/* ------------------------------------------------------------------------
 * Back
 * ------------------------------------------------------------------------
 */

/* The sums over a row of probability * slope, which are out . d_out. */
static void
fill_out_sums(const Head *h)
{
	const LlmSegmentAttentionBackArgs *back = h->job->back;
	float *sums = back->d_out_sums + (int64_t) h->head * h->args->n_tokens;

	for (int32_t t = h->begin; t < h->end; t++)
	{
		const float *out = q_row(h, h->args->out, t);
		const float *d_out = q_row(h, back->d_out, t);
		float sum = 0;

		for (int32_t d = 0; d < h->args->head_dim; d++)
			sum += out[d] * d_out[d];
		sums[t] = sum;
	}
}

static void
go_back_tile(const Head *h, int32_t first_q, int32_t first_k)
{
	const LlmSegmentAttentionBackArgs *back = h->job->back;
	const LlmCpuTrainKernels *kernels = h->job->cpu->train;
	const LlmSegmentAttentionArgs *args = h->args;
	LlmCpuScoreTile tile = score_tile(h, first_q, first_k);
	int64_t at = (int64_t) h->head * args->n_tokens + first_q;
	float *slopes = h->tiles->slopes;
	LlmOperand q = operand(q_row(h, args->q, first_q), q_stride(h), false);
	LlmOperand k = operand(kv_row(h, args->k, first_k), kv_stride(h), false);
	LlmOperand d_out =
		operand(q_row(h, back->d_out, first_q), q_stride(h), false);

	multiply_rows(h, &tile, q.data, k.data, args->scale, tile.scores);
	if (args->soft_cap > 0)
		memcpy(h->tiles->raw, tile.scores, sizeof(h->tiles->raw));
	kernels->probabilities(&tile, args->log_sums + at);
	add_weighted(h, operand(tile.scores, TILE, true), tile.n_k, tile.n_q, d_out,
				 1, kv_row(h, back->d_v, first_k), kv_stride(h));
	multiply_rows(h, &tile, d_out.data, kv_row(h, args->v, first_k), 1, slopes);
	kernels->score_slopes(&tile, h->tiles->raw, back->d_out_sums + at, slopes);
	add_weighted(h, operand(slopes, TILE, false), tile.n_q, tile.n_k, k,
				 args->scale, q_row(h, back->d_q, first_q), q_stride(h));
	add_weighted(h, operand(slopes, TILE, true), tile.n_k, tile.n_q, q,
				 args->scale, kv_row(h, back->d_k, first_k), kv_stride(h));
}

static void
go_back_head(const Head *h)
{
	fill_out_sums(h);
	for (int32_t t = h->begin; t < h->end; t++)
		memset(q_row(h, h->job->back->d_q, t), 0,
			   (size_t) h->args->head_dim * sizeof(float));
	for (int32_t first_q = h->begin; first_q < h->end; first_q += TILE)
	{
		for (int32_t first_k = first_key(h, first_q);
			 first_k < first_q + TILE && first_k < h->end; first_k += TILE)
			go_back_tile(h, first_q, first_k);
	}
}

static void
go_back_kv_head(Head *h)
{
	const int32_t group = h->args->n_heads / h->args->n_kv_heads;
	const size_t n_bytes = (size_t) h->args->head_dim * sizeof(float);

	for (int32_t t = h->begin; t < h->end; t++)
	{
		memset(kv_row(h, h->job->back->d_k, t), 0, n_bytes);
		memset(kv_row(h, h->job->back->d_v, t), 0, n_bytes);
	}
	for (int32_t i = 0; i < group; i++)
	{
		h->head = h->kv_head * group + i;
		go_back_head(h);
	}
}

/* ------------------------------------------------------------------------
 * Threads
 * ------------------------------------------------------------------------
 */

/* Items are segments' first tokens times heads: others have nothing to do. */
static void
attention_job(void *arg, int thread_idx, int n_threads)
{
	AttentionJob *job = arg;
	const LlmSegmentAttentionArgs *args = job->args;
	const int32_t n_heads =
		job->back != NULL ? args->n_kv_heads : args->n_heads;
	const int32_t group = args->n_heads / args->n_kv_heads;
	float *scratch = llm_cpu_train_scratch(job->cpu, thread_idx);
	int64_t item;

	(void) n_threads;
	while ((item = atomic_fetch_add(&job->next_item, 1)) < job->n_items)
	{
		int32_t token = (int32_t) (item / n_heads);
		Head h = {
			.job = job,
			.args = args,
			.product_scratch = scratch,
			.tiles =
				(TileScratch *) ((char *) scratch + LLM_CPU_PRODUCT_SCRATCH),
			.begin = token,
			.end = args->segment_end[token],
		};

		if (args->segment_start[token] != token)
			continue;
		h.head = (int32_t) (item % n_heads);
		h.kv_head = job->back != NULL ? h.head : h.head / group;
		if (job->back != NULL)
		{
			go_back_kv_head(&h);
			continue;
		}
		for (int32_t first_q = h.begin; first_q < h.end; first_q += TILE)
			attend_tile(&h, first_q);
	}
}

static void
run_attention(LlmCpu *cpu, const LlmSegmentAttentionArgs *args,
			  const LlmSegmentAttentionBackArgs *back)
{
	AttentionJob job = {
		.cpu = cpu,
		.args = args,
		.back = back,
		.n_items = (int64_t) args->n_tokens *
				   (back != NULL ? args->n_kv_heads : args->n_heads),
	};

	assert(args->n_heads % args->n_kv_heads == 0);
	llm_cpu_threads_run(cpu->threads, attention_job, &job);
}

bool
llm_cpu_segment_attention(LlmCompute *compute,
						  const LlmSegmentAttentionArgs *args, LlmError *err)
{
	(void) err;
	run_attention(llm_cpu(compute), args, NULL);
	return true;
}

bool
llm_cpu_segment_attention_back(LlmCompute *compute,
							   const LlmSegmentAttentionBackArgs *args,
							   LlmError *err)
{
	(void) err;
	run_attention(llm_cpu(compute), &args->forward, args);
	return true;
}

/*
 * cpu_train.h
 *	  What the files of training on the CPU share.
 *
 *	  cpu_product.c			products of any two matrices
 *	  cpu_train_attention.c	attention among segments, and back
 *	  cpu_train_rows.c		what goes over rows once
 *	  cpu_adamw.c			the optimizer
 *
 * Their kernels are in cpu_train_body.h, compiled for each instruction set.
 *
 * src/engine/compute/cpu_train.h
 */
#ifndef LLM_CPU_TRAIN_H
#define LLM_CPU_TRAIN_H

#include "src/engine/compute/compute_train.h"
#include "src/engine/compute/cpu_internal.h"

/*
 * A product is cut into tiles of so many rows and columns, and summed over
 * chunks of so many terms, whoever computes it.
 */
#define LLM_CPU_PRODUCT_ROWS 192
#define LLM_CPU_PRODUCT_COLS 256
#define LLM_CPU_PRODUCT_TERMS 256

/* Packed chunks of both sides; panels may be a little wider than a tile. */
#define LLM_CPU_PRODUCT_SCRATCH \
	(LLM_CPU_PRODUCT_TERMS *    \
	 (LLM_CPU_PRODUCT_ROWS + LLM_CPU_PRODUCT_COLS + 64) * sizeof(float))

/* Query and key rows of a tile of attention's scores. */
#define LLM_CPU_TRAIN_TILE 64

/* One tile, or a product small enough for one thread; out is f32. */
typedef struct LlmCpuProductTask
{
	const LlmProductArgs *args;
	int64_t row; /* of out */
	int64_t col;
	int64_t n_rows;
	int64_t n_cols;
	float *scratch; /* LLM_CPU_PRODUCT_SCRATCH bytes */
} LlmCpuProductTask;

/* Scores of some queries against some keys of one head; see kernels. */
typedef struct LlmCpuScoreTile
{
	float *scores; /* [n_q, LLM_CPU_TRAIN_TILE] */
	int32_t n_q;
	int32_t n_k;
	int32_t first_q; /* positions in the batch */
	int32_t first_k;
	int32_t sliding_window;
	float soft_cap;
} LlmCpuScoreTile;

typedef struct LlmCpuTrainKernels
{
	void (*product)(const LlmCpuProductTask *task);
	void (*rms_norm_back)(const LlmRmsNormBackArgs *args, const float *x,
						  const float *d_y, float *d_x);
	void (*gated_act_back)(const LlmGatedActBackArgs *args, int64_t first,
						   int64_t n);

	/*
	 * Scores become exp(score - log_sums[i]) where key j is visible to query
	 * i, else 0.
	 */
	void (*probabilities)(const LlmCpuScoreTile *tile, const float *log_sums);

	/*
	 * Cap and mask (-inf) the scores, then take them into a running softmax:
	 * max, sum and the rows of out [n_q, head_dim] so far are brought to the
	 * new maximum, and scores become exp(score - max).
	 */
	void (*soft_max_step)(const LlmCpuScoreTile *tile, float *max, float *sum,
						  float *out, int64_t out_stride, int32_t head_dim);

	/*
	 * slopes (d loss / d probability) become d loss / d score:
	 * p * (slope - out_sums[i]), times the cap's derivative where there is
	 * one: raw has the scores before it.
	 */
	void (*score_slopes)(const LlmCpuScoreTile *tile, const float *raw,
						 const float *out_sums, float *slopes);

	void (*adamw)(const LlmAdamwArgs *args, int64_t first, int64_t n);

	/* logits[i] = weight * exp(logits[i] - log_sum), less weight at label */
	float (*log_sum_exp)(const float *logits, int64_t n);
	void (*soft_max_slopes)(float *logits, int64_t n, float log_sum,
							float weight);
} LlmCpuTrainKernels;

extern const LlmCpuTrainKernels llm_cpu_train_portable;
extern const LlmCpuTrainKernels llm_cpu_train_avx2;
extern const LlmCpuTrainKernels llm_cpu_train_avx512;

/* Scratch of one thread, in bytes. */
extern size_t llm_cpu_train_thread_bytes(void);

static inline float *
llm_cpu_train_scratch(const LlmCpu *cpu, int thread_idx)
{
	return (float *) (cpu->train_scratch +
					  (size_t) thread_idx * llm_cpu_train_thread_bytes());
}

extern const LlmTrainOps llm_cpu_train_ops;

extern bool
llm_cpu_product(LlmCompute *compute, const LlmProductArgs *args, LlmError *err);
extern bool
llm_cpu_segment_attention(LlmCompute *compute,
						  const LlmSegmentAttentionArgs *args, LlmError *err);
extern bool
llm_cpu_segment_attention_back(LlmCompute *compute,
							   const LlmSegmentAttentionBackArgs *args,
							   LlmError *err);

#endif /* LLM_CPU_TRAIN_H */

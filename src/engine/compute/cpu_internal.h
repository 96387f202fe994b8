/*
 * cpu_internal.h
 *	  What the files of the CPU backend share.
 *
 * An operation's file (cpu_linear.c, cpu_norm.c, ...) cuts it into work for
 * threads and calls kernels through the tables below.  A table is filled once
 * for each instruction set by the files with its suffix.  Kernels hold no
 * state and see plain pointers only.
 *
 * src/engine/compute/cpu_internal.h
 */
#ifndef LLM_CPU_INTERNAL_H
#define LLM_CPU_INTERNAL_H

#include "src/engine/compute/compute.h"
#include "src/engine/compute/cpu_threads.h"

/* Most tokens of a K/V chunk that is scored at once; see cpu_attention.c. */
#define LLM_CPU_CHUNK_TOKENS 64

/* Query rows that share one pass over K and V. */
#define LLM_CPU_TILE_ROWS 32

#define LLM_CPU_MAX_HEAD_DIM 512

/* ------------------------------------------------------------------------
 * Linear: one weight format against prepared rows of x
 * ------------------------------------------------------------------------
 */

/* Rows of w whose results are gathered before they are written: a line. */
#define LLM_CPU_PANEL_ROWS 16

/*
 * Prepared rows lie so many bytes further apart than they are long, or rows
 * of 2^n bytes would compete for the same few places of the cache.
 */
#define LLM_CPU_ROW_PAD 64

/*
 * A product is a sum of sums over segments of so many columns: within one
 * every lane is added up for itself, and the lanes at its end.
 */
#define LLM_CPU_SEGMENT_COLS 1024

/* A block of x has at least so many, however wide, where x has them. */
#define LLM_CPU_MIN_BLOCK_ROWS 24

/* Most rows of x that a task has. */
#define LLM_CPU_MAX_X_ROWS 144

/* Some rows of x with all rows of w, over some or all of the columns. */
typedef struct LlmCpuLinearTask
{
	const void *w;	  /* row 0, the task's first column */
	int64_t w_stride; /* bytes */
	const void *x;	  /* [n_x, x_stride] prepared rows of these columns */
	int64_t x_stride; /* bytes */
	int64_t n_cols;	  /* whole segments, but for the last */
	bool is_first;	  /* of the columns; otherwise out holds sums to add to */
	bool is_last;	  /* and now the bias is added */
	int32_t n_x;
	LlmVector bias;
	float *out;			/* row 0 of the x rows, column of w's row 0 */
	int64_t out_stride; /* elements */
	float *scratch;		/* [2, n_x, LLM_CPU_PANEL_ROWS] sums, and a widened
						 * segment of a panel */
} LlmCpuLinearTask;

typedef struct LlmCpuLinearKernel
{
	/* Bytes of one prepared row. */
	int64_t (*row_bytes)(int64_t n_cols);

	/* Bring a row of x into the form that multiply reads. */
	void (*prepare)(const float *x, int64_t n_cols, void *out);

	/*
	 * The products of rows row_begin .. row_end - 1 of w with all of x.  A
	 * product's additions have one order, whatever n_x, the row range and
	 * where its columns are cut.
	 */
	void (*multiply)(const LlmCpuLinearTask *task, int64_t row_begin,
					 int64_t row_end);
} LlmCpuLinearKernel;

typedef struct LlmCpuLinearKernels
{
	LlmCpuLinearKernel f32;
	LlmCpuLinearKernel f16;
	LlmCpuLinearKernel bf16;		/* x stays f32 */
	LlmCpuLinearKernel bf16_inputs; /* x rounded to bf16; or empty */
} LlmCpuLinearKernels;

/* Quantized weights: the same with panels as cpu_quant.h describes them. */
typedef struct LlmCpuQuantKernels
{
	LlmCpuLinearKernel int8;
	LlmCpuLinearKernel int4;
	LlmCpuLinearKernel int4_k;
} LlmCpuQuantKernels;

/* ------------------------------------------------------------------------
 * Adapters: some rows with one module of one adapter
 * ------------------------------------------------------------------------
 */
typedef struct LlmCpuLoraTask
{
	LlmDtype dtype;	  /* of A and B */
	const void *down; /* A [rank, down_stride] */
	int64_t down_stride;
	const void *up; /* B by rank [rank, up_stride] */
	int64_t up_stride;
	const float *gain; /* [n_out] padded; NULL: none */
	LlmVector bias;	   /* what out holds of it already */
	int32_t rank;
	int64_t n_in;
	const float *x;
	float *out;
	int64_t out_stride;
	const int32_t *rows; /* [n_rows] of x and out */
	int32_t n_rows;
	float *inner;		  /* [n_rows, inner_stride] x A^T */
	int64_t inner_stride; /* elements */
} LlmCpuLoraTask;

typedef struct LlmCpuLoraKernels
{
	/* inner = x A^T for ranks begin .. end - 1, multiples of 4 */
	void (*shrink)(const LlmCpuLoraTask *task, int32_t begin, int32_t end);

	/* out += inner B^T for outputs begin .. end - 1 */
	void (*expand)(const LlmCpuLoraTask *task, int64_t begin, int64_t end);
} LlmCpuLoraKernels;

/* ------------------------------------------------------------------------
 * Everything that goes over a vector once
 * ------------------------------------------------------------------------
 */
typedef struct LlmCpuVectorKernels
{
	/* out = src * scale */
	void (*convert)(const void *src, LlmDtype dtype, float scale, int64_t n,
					float *out);

	/* One row of rms_norm; residual may be NULL, out may be x. */
	void (*rms_norm)(const LlmRmsNormArgs *args, const float *x,
					 float *residual, float *out);

	/* One head's rotation; cos_sin is the position's row. */
	void (*rope)(float *head, const float *cos_sin, int32_t rotary_dim,
				 bool interleaved);

	void (*gated_act)(LlmActivation activation, const float *gate,
					  const float *up, int64_t n, float *out);

	/* x = cap * tanh(x / cap), in place */
	void (*soft_cap)(float *x, int64_t n, float cap);

	/*
	 * The first largest value's index of those that are finite and allowed
	 * (bit i of mask; NULL: all are), -1 if there is none.
	 */
	int64_t (*argmax)(const float *x, const uint32_t *mask, int64_t n);

	/*
	 * out = x, -inf where not finite or not allowed; returns the largest; out
	 * may be x.
	 */
	float (*clean)(const float *x, const uint32_t *mask, int64_t n, float *out);

	/*
	 * The sum of exp((x - max) * scale), x finite or -inf, max the largest
	 * x or more; the terms go to out where that is not NULL.
	 */
	double (*exp_sum)(const float *x, int64_t n, float max, float scale,
					  float *out);

	/* Indexes of values >= bound, ascending; returns how many there are. */
	int64_t (*find_ge)(const float *x, int64_t n, float bound, int64_t capacity,
					   int32_t *out);
} LlmCpuVectorKernels;

/* ------------------------------------------------------------------------
 * Attention over chunks of the paged cache
 * ------------------------------------------------------------------------
 */

/* What a tile of query rows has gathered so far; f32, rows one by one. */
typedef struct LlmCpuAttentionState
{
	float *max;	   /* [n_rows] largest score, -inf before the first */
	float *sum;	   /* [n_rows, 16] of exp(score - max), lane by lane */
	float *output; /* [n_rows, dim_padded] V rows, weighted likewise */
} LlmCpuAttentionState;

/* One chunk: up to LLM_CPU_CHUNK_TOKENS tokens in groups of 16. */
typedef struct LlmCpuAttentionChunk
{
	const void *k[LLM_CPU_CHUNK_TOKENS / 16]; /* each group's first key */
	const void *v[LLM_CPU_CHUNK_TOKENS / 16];
	int32_t first_token; /* position */
	int32_t n_tokens;
} LlmCpuAttentionChunk;

/* 16 tokens of a head where the cache holds codes of 8 bits. */
typedef struct LlmCpuCodes
{
	LlmDtype dtype;
	int32_t head_dim;
	int32_t dim_padded;
	int32_t block_size;
	const uint8_t *keys;   /* [head_dim / 2, block_size, 2] the first one's */
	const uint8_t *values; /* [16, dim_padded] */
	const uint8_t *key_units; /* [16] */
	const uint8_t *value_units;
} LlmCpuCodes;

typedef struct LlmCpuAttentionTile
{
	const float *q;			/* [n_rows, head_dim], scaled */
	const int32_t *visible; /* [n_rows, 2] first position, last position + 1 */
	float *scores;			/* [n_rows, LLM_CPU_CHUNK_TOKENS] scratch */
	int32_t n_rows;
	int32_t head_dim;
	int32_t dim_padded;
	int32_t block_size;
	float soft_cap;
	LlmCpuAttentionState state;
} LlmCpuAttentionTile;

typedef struct LlmCpuAttentionKernels
{
	/* Add a chunk to the tile's state. */
	void (*add_chunk_f32)(const LlmCpuAttentionTile *tile,
						  const LlmCpuAttentionChunk *chunk);
	void (*add_chunk_bf16)(const LlmCpuAttentionTile *tile,
						   const LlmCpuAttentionChunk *chunk);

	/*
	 * As bf16: keys [head_dim / 2, LLM_CPU_CHUNK_TOKENS, 2] from the first
	 * token on, values [16, dim_padded].
	 */
	void (*expand)(const LlmCpuCodes *codes, uint16_t *keys, uint16_t *values);

	/* Add "from" to "into", one row. */
	void (*merge)(const LlmCpuAttentionState *into, int into_row,
				  const LlmCpuAttentionState *from, int from_row,
				  int32_t dim_padded);
} LlmCpuAttentionKernels;

extern const LlmCpuLinearKernels llm_cpu_linear_portable;
extern const LlmCpuLinearKernels llm_cpu_linear_avx2;
extern const LlmCpuLinearKernels llm_cpu_linear_avx512;
extern const LlmCpuLinearKernel llm_cpu_linear_avx512bf16;

extern const LlmCpuQuantKernels llm_cpu_quant_portable;
extern const LlmCpuQuantKernels llm_cpu_quant_avx2;
extern const LlmCpuQuantKernels llm_cpu_quant_avx2vnni;
extern const LlmCpuQuantKernels llm_cpu_quant_avx512vnni;

extern const LlmCpuLoraKernels llm_cpu_lora_portable;
extern const LlmCpuLoraKernels llm_cpu_lora_avx2;
extern const LlmCpuLoraKernels llm_cpu_lora_avx512;

extern const LlmCpuVectorKernels llm_cpu_vector_portable;
extern const LlmCpuVectorKernels llm_cpu_vector_avx2;
extern const LlmCpuVectorKernels llm_cpu_vector_avx512;

extern const LlmCpuAttentionKernels llm_cpu_attention_portable;
extern const LlmCpuAttentionKernels llm_cpu_attention_avx2;
extern const LlmCpuAttentionKernels llm_cpu_attention_avx512;

/* ------------------------------------------------------------------------
 * The backend
 * ------------------------------------------------------------------------
 */
struct LlmKvCache
{
	LlmKvCacheSpec spec;
	LlmCompute *compute;
	int32_t dim_padded;	 /* V's row */
	size_t k_head_bytes; /* one head of one block */
	size_t v_head_bytes;
	char *data; /* layers of [n_blocks, n_kv_heads] of K, then of V */
};

typedef struct LlmCpuMoe LlmCpuMoe;	  /* cpu_moe.c: its scratch */
typedef struct LlmCpuLora LlmCpuLora; /* cpu_lora.c: likewise */

struct LlmCpuTrainKernels; /* cpu_train.h */

typedef struct LlmCpu
{
	LlmCompute base; /* first */
	LlmComputeOptions options;
	const char *isa;
	LlmCpuThreads *threads;
	LlmCpuLinearKernels linear;
	LlmCpuQuantKernels quant;
	LlmCpuVectorKernels vector;
	LlmCpuAttentionKernels attention;
	const struct LlmCpuTrainKernels *train;
	LlmCpuLoraKernels lora_kernels;

	/* scratch, sized at open */
	char *linear_x; /* prepared rows of x */
	size_t linear_x_bytes;
	char *linear_scratch;	 /* thread by thread */
	char *attention_scratch; /* thread by thread, then partial results */
	size_t attention_thread_bytes;
	int32_t n_partial_tiles;
	char *sample_scratch; /* thread by thread */
	size_t sample_thread_bytes;
	int32_t *drawn_ids;	 /* [max_rows] of the last sample call */
	int32_t *token_ids;	 /* [max_rows] of the step, drawn ones filled in */
	LlmCpuMoe *moe;		 /* NULL: no mixture of experts */
	char *train_scratch; /* thread by thread */
	LlmCpuLora *lora;	 /* NULL: no adapters */
} LlmCpu;

static inline LlmCpu *
llm_cpu(LlmCompute *compute)
{
	return (LlmCpu *) compute;
}

/*
 * Zeroed, 64-byte aligned, backed by memory only where it is touched: by huge
 * pages if large, or by small ones where it will be touched here and there.
 */
extern void *llm_cpu_alloc(size_t n_bytes, const char *name, LlmError *err);
extern void *
llm_cpu_alloc_sparse(size_t n_bytes, const char *name, LlmError *err);
extern void llm_cpu_free(void *address);

/* cpu_kv_cache.c */
extern LlmKvCache *llm_cpu_kv_create(LlmCompute *compute,
									 const LlmKvCacheSpec *spec, LlmError *err);
extern void llm_cpu_kv_free(LlmKvCache *kv);
extern size_t llm_cpu_kv_bytes(const LlmKvCacheSpec *spec);
extern void *llm_cpu_kv_k(const LlmKvCache *kv, int32_t layer_idx,
						  int32_t block_idx, int32_t kv_head);
extern void *llm_cpu_kv_v(const LlmKvCache *kv, int32_t layer_idx,
						  int32_t block_idx, int32_t kv_head);
extern void llm_cpu_kv_write(const LlmKvCache *kv, void *k_head, void *v_head,
							 int32_t row, const float *k, const float *v);

/* ---- cpu_linear.c: what other operations that multiply need ---- */

extern const LlmCpuLinearKernel *
llm_cpu_linear_kernel(const LlmCpu *cpu, LlmDtype dtype);

/* Bytes of a prepared row, whatever the kernel: four a value. */
static inline int64_t
llm_cpu_linear_max_row_bytes(int64_t n_cols)
{
	return (n_cols + 31) / 32 * 128 + LLM_CPU_ROW_PAD;
}

/*
 * How many of n_rows prepared rows are taken together so that they stay in
 * the cache: blocks of about equal height.
 */
extern int64_t llm_cpu_linear_block_rows(int64_t row_bytes, int64_t n_rows);

/*
 * How many rows of weights a thread takes at a time, of n_rows like weight's
 * that are multiplied with n_x rows each; whole panels.
 */
extern int64_t
llm_cpu_linear_chunk_rows(const LlmCpu *cpu, const LlmMatrix *weight,
						  int64_t n_rows, int64_t n_x);

/* cpu_moe.c */
extern LlmCpuMoe *llm_cpu_moe_create(const LlmComputeOptions *options,
									 int n_threads, LlmError *err);
extern void llm_cpu_moe_free(LlmCpuMoe *moe);

/* cpu_lora.c: what adapters add to an operation's outputs */
extern LlmCpuLora *
llm_cpu_lora_create(const LlmComputeOptions *options, LlmError *err);
extern void llm_cpu_lora_free(LlmCpuLora *lora);
extern void llm_cpu_lora(LlmCpu *cpu, const LlmLinearArgs *args);
extern void llm_cpu_lora_embed(LlmCpu *cpu, const LlmEmbedArgs *args);

/* scratch that an operation wants from open, in bytes */
extern size_t llm_cpu_linear_x_bytes(void);
extern size_t llm_cpu_linear_thread_bytes(void);
extern size_t llm_cpu_attention_thread_bytes(void);
extern size_t llm_cpu_attention_partial_bytes(void);
extern size_t llm_cpu_sample_thread_bytes(const LlmComputeOptions *options);

/* the operations */
extern bool
llm_cpu_embed(LlmCompute *compute, const LlmEmbedArgs *args, LlmError *err);
extern bool
llm_cpu_gather(LlmCompute *compute, const LlmGatherArgs *args, LlmError *err);
extern bool llm_cpu_sum_rows(LlmCompute *compute, const LlmSumRowsArgs *args,
							 LlmError *err);
extern bool llm_cpu_rms_norm(LlmCompute *compute, const LlmRmsNormArgs *args,
							 LlmError *err);
extern bool
llm_cpu_linear(LlmCompute *compute, const LlmLinearArgs *args, LlmError *err);
extern bool
llm_cpu_rope_kv(LlmCompute *compute, const LlmRopeKvArgs *args, LlmError *err);
extern bool llm_cpu_attention(LlmCompute *compute, const LlmAttentionArgs *args,
							  LlmError *err);
extern bool llm_cpu_gated_act(LlmCompute *compute, const LlmGatedActArgs *args,
							  LlmError *err);
extern bool llm_cpu_soft_cap(LlmCompute *compute, const LlmSoftCapArgs *args,
							 LlmError *err);
extern bool
llm_cpu_moe(LlmCompute *compute, const LlmMoeArgs *args, LlmError *err);
extern bool
llm_cpu_sample(LlmCompute *compute, const LlmSampleArgs *args, LlmError *err);

#endif /* LLM_CPU_INTERNAL_H */

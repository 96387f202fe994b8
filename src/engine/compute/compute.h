/*
 * compute.h
 *	  The operations of a forward pass, as one table that every compute
 *	  backend fills: the CPU here, CUDA in cuda/.
 *
 * The callers (model, executor) hold device addresses without looking behind
 * them.  Operations are enqueued in order on the backend's one stream; on the
 * CPU they are done when they return.  An operation checks nothing about
 * shapes beyond asserts: the model has sized everything at load.  It returns
 * false only when the device failed, with *err set; results are valid after
 * sync.  No operation allocates.
 *
 * Shapes are written in brackets, slowest dimension first, always row-major:
 * [n_tokens, n_heads, head_dim].  Activations have the backend's own
 * activation dtype (activation_dtype): f32 on the CPU, bf16 on a GPU.  Logits
 * are always f32.
 *
 * src/engine/compute/compute.h
 */
#ifndef LLM_COMPUTE_H
#define LLM_COMPUTE_H

#include "src/common/util/dtype.h"
#include "src/common/util/error.h"
#include "src/common/util/sampling_params.h"
#include "src/engine/compute/lora.h"

typedef struct LlmCompute LlmCompute;
typedef struct LlmKvCache LlmKvCache;

/* A weight [n_rows, n_cols]: y = x W^T maps n_cols inputs to n_rows outputs. */
typedef struct LlmMatrix
{
	const void *data; /* device address */
	LlmDtype dtype;	  /* f32, f16 or bf16; int8, int4, int4_k: quant_write's */
	int64_t n_rows;
	int64_t n_cols;
} LlmMatrix;

/* Neighbouring columns of a row that share a scale; such groups of a unit. */
#define LLM_QUANT_GROUP 32
#define LLM_QUANT_UNIT_GROUPS 8

/*
 * Rows of a quantized weight in plain form, on the host:
 * w = scale * value + offset, group by group.
 *
 *	  int8	  value -128 .. 127 (int8_t), scale an f16 value, offset 0
 *	  int4	  value 0 .. 15, a byte each, scale an f16 value, offset
 *			  -8 * scale
 *	  int4_k  value 0 .. 15, a byte each; a row's groups 0 .. 7, 8 .. 15, ...
 *			  are units with two f16 values, and scales and offsets are 0 ..
 *			  255 times these
 */
typedef struct LlmQuantRows
{
	const uint8_t *values;	   /* [n_rows, n_cols] */
	const float *scales;	   /* [n_rows, n_cols / LLM_QUANT_GROUP] */
	const float *offsets;	   /* likewise; NULL for int8 */
	const float *scale_units;  /* [n_rows, units]; NULL but for int4_k */
	const float *offset_units; /* likewise */
	int64_t n_rows;
} LlmQuantRows;

/* A weight vector; dtype as stored. data NULL = absent. */
typedef struct LlmVector
{
	const void *data;
	LlmDtype dtype;
	int64_t n;
} LlmVector;

typedef enum LlmActivation
{
	LLM_ACTIVATION_SILU,
	LLM_ACTIVATION_GELU, /* exact, erf */
	LLM_ACTIVATION_GELU_TANH
} LlmActivation;

/*
 * One step's inputs, device addresses.  Sequence s owns the query tokens
 * query_start[s] .. query_start[s + 1] - 1, which are the last ones of its
 * context_len[s] tokens; its token at position p lives in the cache at block
 * block_tables[s * max_blocks_per_seq + p / block_size], row p % block_size.
 */
typedef struct LlmStepInputs
{
	int32_t n_tokens;
	int32_t n_seqs;
	int32_t n_logit_rows;
	int32_t max_blocks_per_seq;
	int32_t max_query_len;
	int32_t max_context_len;
	bool keeps_all_rows; /* the last layer's output is wanted of all tokens,
						  * not of logit_rows alone */
	bool skips_logits;	 /* nobody looks at logits */
	bool is_prompt;		 /* deterministic: all tokens are prompts'; else each
						  * sequence has one that was generated */
	const int32_t *token_ids;	 /* [n_tokens]; see step_upload */
	const int32_t *positions;	 /* [n_tokens] */
	const int32_t *rope_rows;	 /* [n_tokens] each token's in cos_sin */
	const int32_t *token_seq;	 /* [n_tokens] sequence of each token */
	const int32_t *query_start;	 /* [n_seqs + 1] */
	const int32_t *context_len;	 /* [n_seqs] this step's tokens included */
	const int32_t *block_tables; /* [n_seqs, max_blocks_per_seq] */
	const int32_t *logit_rows;	 /* [n_logit_rows] token indexes, ascending */

	/* adapters of this step: see lora.h */
	int32_t n_loras;
	const int32_t *token_lora; /* [n_tokens] index into loras, -1: none; NULL:
								* no token has one */
	const void *const *loras;  /* [n_loras] on the host: images on the device */
} LlmStepInputs;

/* Weights in an arena begin at multiples of it. */
#define LLM_ARENA_ALIGN_BYTES ((size_t) 256)

#define LLM_DRAWN_ROW(token_id) (-1 - (token_id))

typedef struct LlmKvCacheSpec
{
	int32_t n_layers;
	int32_t n_kv_heads;
	int32_t head_dim;
	int32_t block_size; /* tokens of a block: 16, 32 or 64 */
	int32_t n_blocks;
	LlmDtype dtype; /* bf16; f32 on the CPU alone; fp8_e4m3, int8: codes, a
					 * unit for each token's key and value of a head, see
					 * src/common/util/unit_code.h */
} LlmKvCacheSpec;

/*
 * The adapters of an operation's rows, which are the step's tokens or, with
 * of_logit_rows, its logit rows.  Part i of a linear operation is their module
 * first_module + i, an embedding their module first_module.
 */
typedef struct LlmLoraRows
{
	const LlmStepInputs *step; /* as uploaded; NULL: no adapters */
	int32_t first_module;
	bool of_logit_rows;
} LlmLoraRows;

/*
 * out[i] = table[token_ids[i]] * scale
 *
 * A row with an adapter gets (table[token_ids[i]] + B A[:, token_ids[i]]) *
 * scale, where A is [rank, n_vocab] and B [dim, rank]; no gains.
 */
typedef struct LlmEmbedArgs
{
	LlmMatrix table;		  /* [n_vocab, dim] */
	const int32_t *token_ids; /* [n_rows] */
	void *out;				  /* [n_rows, dim] */
	int32_t n_rows;
	float scale;
	LlmLoraRows lora;
} LlmEmbedArgs;

/*
 * RMSNorm (Zhang & Sennrich 2019), with the residual stream folded in:
 * where residual is set, residual += x first and its new value is normalized.
 * out = v / sqrt(mean(v^2) + eps) * (weight + weight_offset).
 */
typedef struct LlmRmsNormArgs
{
	const void *x;	  /* [n_rows, dim] */
	void *residual;	  /* [n_rows, dim] in and out, or NULL */
	LlmVector weight; /* [dim] */
	void *out;		  /* [n_rows, dim]; may be x */
	int32_t n_rows;
	int32_t dim;
	float eps;
	float weight_offset; /* 0, or 1 for families that store w - 1 */
} LlmRmsNormArgs;

#define LLM_LINEAR_MAX_PARTS 3

/*
 * out_i = x W_i^T + bias_i for up to three weights that share their input
 * (q/k/v, gate/up), so that x is read and converted once.  out_i is
 * [n_rows, W_i.n_rows] with out_stride elements from row to row.
 *
 * A row with an adapter gets gain_i (x W_i^T + (x A_i^T) B_i^T) + bias_i, where
 * A_i, B_i and gain_i are its adapter's (LoRA, Hu et al. 2021, with the scale
 * in B; gains as in DoRA, Liu et al. 2024).
 */
typedef struct LlmLinearArgs
{
	const void *x; /* [n_rows, n_cols] */
	int32_t n_rows;
	int32_t n_parts;
	bool out_is_f32; /* logits: f32 whatever the activations are */
	LlmLoraRows lora;
	struct
	{
		LlmMatrix weight;
		LlmVector bias; /* data NULL: none */
		void *out;
		int64_t out_stride; /* elements */
	} part[LLM_LINEAR_MAX_PARTS];
} LlmLinearArgs;

/*
 * Prepare q, k, v of a layer's new tokens: optional RMSNorm per head of q and
 * k, rotary embedding in place on the first rotary_dim dimensions of each
 * head (pairs (i, i + rotary_dim / 2); (2i, 2i + 1) where interleaved), then
 * write k and v to the cache.  Row step->rope_rows[t] of cos_sin
 * [any, rotary_dim] f32 holds rotary_dim / 2 cosines, then as many sines, of
 * token t, attention factors included; where rotary_dim is 0 neither is read.
 */
typedef struct LlmRopeKvArgs
{
	const LlmStepInputs *step;
	void *q;		  /* [n_tokens, n_heads, head_dim] in and out */
	void *k;		  /* [n_tokens, n_kv_heads, head_dim] */
	const void *v;	  /* [n_tokens, n_kv_heads, head_dim] */
	int64_t q_stride; /* elements from token to token */
	int64_t k_stride;
	int64_t v_stride;
	LlmVector q_norm; /* [head_dim] or absent */
	LlmVector k_norm;
	float norm_eps;
	float norm_weight_offset;
	const float *cos_sin;
	int32_t rotary_dim;
	bool interleaved;
	int32_t n_heads;
	int32_t n_kv_heads;
	int32_t head_dim;
	LlmKvCache *kv;
	int32_t layer_idx;
} LlmRopeKvArgs;

/*
 * Causal attention of the step's queries over the paged cache:
 * softmax(q k^T * scale) v, grouped-query (head h reads kv head
 * h * n_kv_heads / n_heads).  soft_cap > 0: scores become
 * soft_cap * tanh(score / soft_cap).  sliding_window > 0: a query at position
 * p sees positions p - sliding_window + 1 .. p only.
 */
typedef struct LlmAttentionArgs
{
	const LlmStepInputs *step;
	const void *q;	  /* [n_tokens, n_heads, head_dim] */
	int64_t q_stride; /* elements */
	void *out;		  /* [n_tokens, n_heads * head_dim] */
	int32_t n_heads;
	int32_t n_kv_heads;
	int32_t head_dim;
	float scale;
	float soft_cap;
	int32_t sliding_window;
	LlmKvCache *kv;
	int32_t layer_idx;
} LlmAttentionArgs;

/* out = activation(gate) * up */
typedef struct LlmGatedActArgs
{
	const void *gate;  /* [n_rows, dim] */
	const void *up;	   /* [n_rows, dim] */
	void *out;		   /* [n_rows, dim]; may be gate */
	int64_t in_stride; /* elements, of gate and up */
	int32_t n_rows;
	int32_t dim;
	LlmActivation activation;
} LlmGatedActArgs;

/* x = soft_cap * tanh(x / soft_cap), f32, in place */
typedef struct LlmSoftCapArgs
{
	float *x;
	int64_t n;
	float soft_cap;
} LlmSoftCapArgs;

/*
 * A mixture of experts' MLP (Shazeer et al. 2017): softmax over the router's
 * logits of a row in f32, the n_top most probable experts (of equal ones the
 * first), their probabilities divided by their sum where renormalize is set;
 * out = sum of probability * down(activation(gate(x)) * up(x)) over those
 * experts in ascending order.  No biases.
 */
typedef struct LlmMoeArgs
{
	const void *x;				/* [n_rows, dim] */
	const float *router_logits; /* [n_rows, n_experts] */
	void *out;					/* [n_rows, dim]; not x */
	int32_t n_rows;
	int32_t dim;
	int32_t inner_dim;
	int32_t n_experts;
	int32_t n_top;
	bool renormalize;
	LlmActivation activation;
	const LlmMatrix *gate; /* [n_experts] host; each [inner_dim, dim] */
	const LlmMatrix *up;
	const LlmMatrix *down; /* each [dim, inner_dim] */
} LlmMoeArgs;

/* out[i] = x[rows[i]] */
typedef struct LlmGatherArgs
{
	const void *x;		 /* [any, dim] */
	const int32_t *rows; /* [n_rows], device */
	void *out;			 /* [n_rows, dim] */
	int32_t n_rows;
	int32_t dim;
} LlmGatherArgs;

/*
 * Made-up weights, near normal: element i is unit times (the sum of the bytes
 * of word i % 4 of Philox(key seed, counter (i / 4, sequence)), minus 510).
 */
typedef struct LlmFillNormalArgs
{
	void *dest; /* [n] */
	LlmDtype dtype;
	int64_t n;
	float unit;
	uint64_t seed;
	uint64_t sequence;
} LlmFillNormalArgs;

/* Rows first_row .. first_row + n_rows - 1. */
typedef struct LlmRowRange
{
	int32_t first_row;
	int32_t n_rows; /* at least 1 */
} LlmRowRange;

/* out[i] = the sum of range i's rows of x, in f32 and by columns */
typedef struct LlmSumRowsArgs
{
	const void *x;			   /* [any, dim] */
	const LlmRowRange *ranges; /* [n_ranges] host */
	float *out;				   /* [n_ranges, dim] */
	int32_t n_ranges;
	int32_t dim;
} LlmSumRowsArgs;

typedef struct LlmLogitBias
{
	int32_t token_id;
	float bias;
} LlmLogitBias;

/*
 * How one row of logits becomes a token.  Host pointers, borrowed for the
 * call.  Order, as in vLLM: raw log-probabilities are taken first (from the
 * untouched logits); then allowed_mask, forbidden ids, logit_bias; then
 * repetition, frequency and presence penalties; temperature; min_p; top_k;
 * top_p; then the draw.  The draw uses Philox with key params.seed and
 * counter n_output, so it does not depend on what else is in the batch.
 * Where is_forced is set none of this happens behind the raw
 * log-probabilities: the token is forced_id.
 */
typedef struct LlmSampleRow
{
	LlmSamplingParams params;
	const int32_t *prompt_ids; /* for the repetition penalty */
	const int32_t *output_ids; /* generated so far */
	int32_t n_prompt;
	int32_t n_output;
	const LlmLogitBias *bias;
	int32_t n_bias;
	int32_t n_forbidden;
	const int32_t *forbidden_ids; /* impossible now: stop ids before
									 * min_tokens */
	const uint32_t *allowed_mask; /* bit per token id, or NULL */
	bool is_forced;
	int32_t forced_id;
} LlmSampleRow;

typedef struct LlmSampleResult
{
	int32_t token_id; /* -1: no token has a probability */
	float logprob;	  /* of the raw logits; 0 when not asked for */
	int32_t n_top;
	int32_t top_ids[LLM_MAX_LOGPROBS]; /* most probable first */
	float top_logprobs[LLM_MAX_LOGPROBS];
} LlmSampleResult;

typedef struct LlmSampleArgs
{
	float *logits; /* [n_rows, n_vocab] device; overwritten */
	int32_t n_rows;
	int32_t n_vocab;
	const LlmSampleRow *rows; /* [n_rows] host */
	LlmSampleResult *results; /* [n_rows] host, valid after sample_wait or
							   * sync */
} LlmSampleArgs;

struct LlmTrainOps; /* compute_train.h */

typedef struct LlmDeviceTimes
{
	int64_t n_steps;
	double step_us; /* in all, from draw to draw */
	double idle_us; /* of it, waiting for what the host had not enqueued */
} LlmDeviceTimes;

/*
 * Of the operations on weights, weight_alloc gives memory for one that is made
 * up or converted: it is not zeroed, and free takes it back.  What it and
 * weight return lies one behind the other in the arena, where there is one,
 * each rounded up to LLM_ARENA_ALIGN_BYTES, as long as it fits.
 *
 * arena_lend makes a descriptor by which another process can borrow the arena,
 * for the caller to close; -1: the device's driver does not do that.  The
 * memory lives as long as anybody has it.  NULL where there is no arena.
 */
typedef struct LlmComputeOps
{
	const char *name; /* "cpu", "cuda" */

	void (*close)(LlmCompute *compute);

	/* What runs where, for views: "cpu (avx512, 2 threads)". */
	void (*describe)(const LlmCompute *compute, char *dest, size_t size);

	/* device memory, 64-byte aligned, zeroed; "name" is for the message */
	void *(*alloc)(LlmCompute *compute, size_t n_bytes, const char *name,
				   LlmError *err);
	void (*free)(LlmCompute *compute, void *address);

	/* host to device and back, in stream order; read waits */
	bool (*write)(LlmCompute *compute, void *dest, const void *src,
				  size_t n_bytes, LlmError *err);
	bool (*read)(LlmCompute *compute, void *dest, const void *src,
				 size_t n_bytes, LlmError *err);

	/*
	 * Make a weight that lies in a mapped file available on the device.  The
	 * CPU returns the mapping itself; the mapping outlives the weight.
	 */
	const void *(*weight)(LlmCompute *compute, const void *mapped,
						  size_t n_bytes, const char *name, LlmError *err);
	void (*weight_free)(LlmCompute *compute, const void *address);
	void *(*weight_alloc)(LlmCompute *compute, size_t n_bytes, const char *name,
						  LlmError *err);
	int (*arena_lend)(LlmCompute *compute, LlmError *err);

	/* NULL where weights are better made up on the host. */
	bool (*fill_normal)(LlmCompute *compute, const LlmFillNormalArgs *args,
						LlmError *err);

	/*
	 * Memory that the device copies from fast; any thread may call these two.
	 * copy_aside starts to bring bytes from there to device memory that no
	 * operation uses which is enqueued from now on: beside the stream, but
	 * behind what is enqueued already.  One copy is under way at a time, until
	 * copy_aside_done says so.  Both NULL: the device computes with such memory
	 * as it is.
	 */
	void *(*host_alloc)(LlmCompute *compute, size_t n_bytes, const char *name,
						LlmError *err);
	void (*host_free)(LlmCompute *compute, void *address);
	bool (*copy_aside)(LlmCompute *compute, void *dest, const void *src,
					   size_t n_bytes, LlmError *err);
	bool (*copy_aside_done)(LlmCompute *compute, bool *is_done, LlmError *err);

	/*
	 * Quantized weights (int8, int4, int4_k; n_cols a multiple of LLM_QUANT_GROUP):
	 * memory for a matrix comes from alloc, quant_bytes of it; quant_write
	 * brings rows first_row .. first_row + rows->n_rows - 1 into the backend's
	 * layout and is done with *rows when it returns.  first_row and, but for
	 * the last rows, n_rows are multiples of 64.  NULL where the backend has
	 * none.
	 */
	size_t (*quant_bytes)(LlmDtype dtype, int64_t n_rows, int64_t n_cols);
	bool (*quant_write)(LlmCompute *compute, const LlmMatrix *matrix,
						int64_t first_row, const LlmQuantRows *rows,
						LlmError *err);

	LlmKvCache *(*kv_create)(LlmCompute *compute, const LlmKvCacheSpec *spec,
							 LlmError *err);
	void (*kv_free)(LlmKvCache *kv);
	size_t (*kv_bytes)(const LlmKvCacheSpec *spec);

	/*
	 * Bring host arrays of a step to the device: *device gets the addresses,
	 * which are good until the next upload.  A token id below 0 is that of the
	 * token which row LLM_DRAWN_ROW(id) of the last sample call draws.  *device
	 * may have more tokens, sequences and logit rows than *host, up to
	 * max_seqs: empty ones at the end, whose results mean nothing.
	 */
	bool (*step_upload)(LlmCompute *compute, const LlmStepInputs *host,
						LlmStepInputs *device, LlmError *err);

	/*
	 * Around the operations from embed to the logits that a model's pass over
	 * the uploaded step consists of: where pass_begin sets *is_replayed they
	 * were recorded by an earlier pass and are enqueued already, and neither
	 * they nor pass_end are to be called.  model and kv tell passes apart.
	 * pass_end comes after a failed operation, too (is_complete false).
	 * NULL where nothing is recorded.
	 */
	bool (*pass_begin)(LlmCompute *compute, const void *model,
					   const LlmKvCache *kv, bool *is_replayed, LlmError *err);
	bool (*pass_end)(LlmCompute *compute, bool is_complete, LlmError *err);

	bool (*embed)(LlmCompute *, const LlmEmbedArgs *, LlmError *);
	bool (*rms_norm)(LlmCompute *, const LlmRmsNormArgs *, LlmError *);
	bool (*linear)(LlmCompute *, const LlmLinearArgs *, LlmError *);
	bool (*rope_kv)(LlmCompute *, const LlmRopeKvArgs *, LlmError *);
	bool (*attention)(LlmCompute *, const LlmAttentionArgs *, LlmError *);
	bool (*gated_act)(LlmCompute *, const LlmGatedActArgs *, LlmError *);
	bool (*soft_cap)(LlmCompute *, const LlmSoftCapArgs *, LlmError *);
	bool (*moe)(LlmCompute *, const LlmMoeArgs *, LlmError *);
	bool (*gather)(LlmCompute *, const LlmGatherArgs *, LlmError *);
	bool (*sum_rows)(LlmCompute *, const LlmSumRowsArgs *, LlmError *);
	bool (*sample)(LlmCompute *, const LlmSampleArgs *, LlmError *);

	/*
	 * Wait until the last sample call's results are there, and no longer: what
	 * was enqueued after it goes on.  Comes before the next sample call.
	 */
	bool (*sample_wait)(LlmCompute *compute, LlmError *err);

	/* wait until everything enqueued is done; reports a device's late errors */
	bool (*sync)(LlmCompute *compute, LlmError *err);

	/*
	 * How the device's time went between the draws of neighbouring steps, since
	 * this was asked last.  False: it is not measured.  NULL where there is
	 * nothing to measure.
	 */
	bool (*device_times)(LlmCompute *compute, LlmDeviceTimes *times);

	/* what training needs besides; NULL where the backend has none */
	const struct LlmTrainOps *train;
} LlmComputeOps;

/* Every backend's own struct begins with this. */
struct LlmCompute
{
	const LlmComputeOps *ops;
	bool is_async;			   /* operations go on when they have returned */
	LlmDtype activation_dtype; /* of activation buffers */
	LlmDtype precision;		   /* bf16: matrix products may round their
								 * inputs to bf16; f32: they must not */
	LlmLoraFormat lora_format; /* of adapters' images */
	bool is_arena_guarded;	   /* borrowed, and the device refuses to write */
};

typedef struct LlmComputeOptions
{
	LlmDtype precision; /* f32 or bf16 */
	int32_t n_threads;	/* 0: what the process may use */
	int32_t max_rows;	/* most rows of any operation: scratch memory */
	int32_t max_cols;	/* widest input of any linear operation */
	int32_t max_seqs;
	int32_t max_context_len;
	int32_t max_heads; /* most query heads of an attention */
	int32_t max_vocab;
	int32_t max_experts; /* of a mixture: scratch memory; 0 = no mixture */
	int32_t max_experts_per_token;
	int32_t max_expert_dim; /* their inner dimension */
	int32_t max_loras;		/* of a step: scratch memory; 0 = no adapters */
	int32_t max_lora_rank;
	size_t arena_bytes;		/* device memory to take at once, for weights to lie
							 * side by side; 0: as they come */
	bool lends_arena;		/* another process may borrow it */
	int borrowed_arena;		/* descriptor of another process's arena of so many
							 * bytes, to be read alone, in place of an own one;
							 * stays the caller's.  0: none */
	bool is_background;		/* others on the same device come first */
	size_t kv_expand_bytes; /* device memory to expand prompts' keys and values
							 * of 8 bits in; 0: as they are read */
	size_t graph_bytes;		/* device memory that recorded passes may take */
	bool deterministic;		/* a token's results depend neither on the other
							 * tokens of its step nor on how many there are;
							 * those of prompts and generated ones may differ */
	bool enforce_eager;		/* record no passes, add nothing to steps */
	bool measure_idle;		/* for device_times */
	const char *cache_dir;	/* where choices made by timing are kept for other
							 * processes; NULL or "": nowhere */
	const char *isa;		/* NULL: best; or "portable", "avx2", "avx2vnni",
								 * "avx512", "avx512vnni", "avx512bf16" to
								 * force a path (tests); on a GPU "own": no
								 * products by a library where deterministic */
} LlmComputeOptions;

/* The CPU backend.  NULL: *err. */
extern LlmCompute *
llm_compute_cpu_open(const LlmComputeOptions *options, LlmError *err);

/* The instruction set in use, for views: "avx512bf16" ... */
extern const char *llm_compute_cpu_isa(const LlmCompute *compute);

/* Threads in use. */
extern int llm_compute_cpu_n_threads(const LlmCompute *compute);

/*
 * A GPU as it is before anything is opened on it.  scratch_bytes is what the
 * backend takes beside what it is asked for by alloc, weight and kv_create.
 */
typedef struct LlmDeviceInfo
{
	char name[128];
	size_t total_bytes;
	size_t free_bytes;
	size_t scratch_bytes;
} LlmDeviceInfo;

/*
 * The CUDA backend, from the library libllm_cuda.so beside the program.  It
 * computes in bf16.  LLM_ERROR_UNAVAILABLE: this machine has no GPU driver,
 * or this build no library; device_info then says why device = auto means the
 * CPU.
 */
extern bool llm_compute_cuda_info(const LlmComputeOptions *options,
								  LlmDeviceInfo *info, LlmError *err);
extern LlmCompute *
llm_compute_cuda_load(const LlmComputeOptions *options, LlmError *err);

#endif /* LLM_COMPUTE_H */

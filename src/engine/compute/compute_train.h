/*
 * compute_train.h
 *	  The operations that training needs beside those of a forward pass, as a
 *	  table of its own: compute->ops->train.
 *
 * The rules are compute.h's: device addresses, one stream, nothing checked
 * beyond asserts, no allocation.  "act" is the backend's activation dtype.
 * Every sum has one order that depends on shapes alone, and no two threads
 * ever add to the same number: the same job gives the same bits.
 *
 * Derivatives are named as in d_x: how much the loss grows with x.
 *
 * src/engine/compute/compute_train.h
 */
#ifndef LLM_COMPUTE_TRAIN_H
#define LLM_COMPUTE_TRAIN_H

#include "src/engine/compute/compute.h"

/*
 * One side of a product: rows of "stride" elements.  A transposed one is
 * stored with its two dimensions exchanged.
 */
typedef struct LlmOperand
{
	const void *data;
	LlmDtype dtype; /* f32, f16 or bf16 */
	int64_t stride; /* elements from stored row to stored row */
	bool is_transposed;
} LlmOperand;

/* out = scale * a b, or += where adds: a [m, k], b [k, n], out [m, n]. */
typedef struct LlmProductArgs
{
	LlmOperand a;
	LlmOperand b;
	int64_t m;
	int64_t n;
	int64_t k;
	float scale;
	bool adds;
	void *out;
	LlmDtype out_dtype; /* f32 or act */
	int64_t out_stride; /* elements */
} LlmProductArgs;

/* out = a + b, of act; out may be either */
typedef struct LlmAddArgs
{
	const void *a;
	const void *b;
	void *out;
	int64_t n;
} LlmAddArgs;

/*
 * Of y = rms_norm(x) (compute.h): with r = 1 / sqrt(mean(x^2) + eps) and
 * g = d_y * (weight + weight_offset),
 * d_x = r * (g - x * r^2 * mean(g * x)), or d_x += that where adds.
 */
typedef struct LlmRmsNormBackArgs
{
	const void *x;	  /* [n_rows, dim] as it went in */
	const void *d_y;  /* [n_rows, dim] */
	LlmVector weight; /* [dim] */
	void *d_x;		  /* [n_rows, dim]; may be d_y */
	int32_t n_rows;
	int32_t dim;
	float eps;
	float weight_offset;
	bool adds;
} LlmRmsNormBackArgs;

/*
 * Rotate heads in place, as rope_kv does (compute.h); backwards where
 * is_inverse, which is also the derivative.  Token t takes row rope_rows[t].
 */
typedef struct LlmRotateArgs
{
	void *x; /* [n_tokens, n_heads, head_dim] */
	const float *cos_sin;
	const int32_t *rope_rows; /* [n_tokens] */
	int32_t n_tokens;
	int32_t n_heads;
	int32_t head_dim;
	int32_t rotary_dim;
	bool interleaved;
	bool is_inverse;
} LlmRotateArgs;

/*
 * Causal attention among tokens that lie side by side: token t sees the
 * tokens segment_start[t] .. t, of which the last sliding_window ones where
 * that is set.  Scores, soft_cap and grouped queries are as in compute.h's
 * attention.  log_sums gets the logarithm of each softmax's denominator,
 * which the way back needs instead of probabilities (Dao 2023).
 */
typedef struct LlmSegmentAttentionArgs
{
	const void *q;				  /* [n_tokens, n_heads, head_dim] */
	const void *k;				  /* [n_tokens, n_kv_heads, head_dim] */
	const void *v;				  /* likewise */
	const int32_t *segment_start; /* [n_tokens], ascending */
	const int32_t *segment_end;	  /* [n_tokens] one behind the last */
	void *out;					  /* [n_tokens, n_heads, head_dim] */
	float *log_sums;			  /* [n_heads, n_tokens] */
	int32_t n_tokens;
	int32_t n_heads;
	int32_t n_kv_heads;
	int32_t head_dim;
	float scale;
	float soft_cap;
	int32_t sliding_window;
} LlmSegmentAttentionArgs;

/* forward's out and log_sums are read. */
typedef struct LlmSegmentAttentionBackArgs
{
	LlmSegmentAttentionArgs forward;
	const void *d_out; /* [n_tokens, n_heads, head_dim] */
	void *d_q;		   /* like q */
	void *d_k;		   /* like k */
	void *d_v;
	float *d_out_sums; /* [n_heads, n_tokens] scratch */
} LlmSegmentAttentionBackArgs;

/* Of out = activation(gate) * up. */
typedef struct LlmGatedActBackArgs
{
	const void *gate; /* [n] */
	const void *up;
	const void *d_out;
	void *d_gate; /* may be gate */
	void *d_up;	  /* may be up */
	int64_t n;
	LlmActivation activation;
} LlmGatedActBackArgs;

/*
 * Rows of logits against the tokens that should have come: log_probs[i] is
 * log softmax(logits[i])[labels[i]].  Where weights is set, d_logits becomes
 * the derivative of sum_i weights[i] * -log_probs[i] with respect to them.
 * soft_cap > 0: the softmax is of soft_cap * tanh(logit / soft_cap), and the
 * derivative passes through it.
 */
typedef struct LlmCrossEntropyArgs
{
	float *logits;		   /* [n_rows, n_vocab], overwritten */
	const int32_t *labels; /* [n_rows] */
	const float *weights;  /* [n_rows] or NULL */
	void *d_logits;		   /* [n_rows, n_vocab] of act: logits themselves where
							* act is f32, and nowhere else */
	float *log_probs;	   /* [n_rows] */
	int32_t n_rows;
	int32_t n_vocab;
	float soft_cap;
} LlmCrossEntropyArgs;

/* out[rows[i]] = x[i], all other rows 0; rows differ from each other. */
typedef struct LlmScatterArgs
{
	const void *x;		 /* [n_rows, dim] */
	const int32_t *rows; /* [n_rows], ascending */
	void *out;			 /* [n_out_rows, dim] */
	int32_t n_rows;
	int32_t n_out_rows;
	int32_t dim;
} LlmScatterArgs;

/*
 * out[i] = x[i] / (1 - probability) or 0: dropped where word i % 4 of
 * Philox(key seed, counter (i / 4, sequence)) is below probability * 2^32.
 */
typedef struct LlmDropoutArgs
{
	const void *x; /* [n] */
	void *out;	   /* may be x */
	int64_t n;
	float probability;
	uint64_t seed;
	uint64_t sequence;
	bool adds; /* out += instead */
} LlmDropoutArgs;

/* x[i] += scale * u, u in [-1, 1) from the word that dropout would take. */
typedef struct LlmNoiseArgs
{
	void *x; /* [n] */
	int64_t n;
	float scale;
	uint64_t seed;
	uint64_t sequence;
} LlmNoiseArgs;

/* out[i][j] = x[i][j] * scales[j] + bias[j] */
typedef struct LlmScaleColumnsArgs
{
	const void *x; /* [n_rows, dim] */
	const float *scales;
	LlmVector bias; /* data NULL: none */
	void *out;		/* may be x */
	int32_t n_rows;
	int32_t dim;
} LlmScaleColumnsArgs;

/* out[j] += (sum over rows of a[i][j] * b[i][j]) / divisors[j] */
typedef struct LlmColumnDotsArgs
{
	const void *a; /* [n_rows, dim] */
	const void *b;
	const float *divisors; /* [dim] */
	float *out;			   /* [dim] */
	int32_t n_rows;
	int32_t dim;
} LlmColumnDotsArgs;

/*
 * The lengths of an adapted weight's rows (DoRA: Liu et al. 2024):
 * out[i] = |W[i] + scale * (B A)[i]|, from wa = W A^T and aa = A A^T:
 * |W[i]|^2 + 2 scale B[i].wa[i] + scale^2 B[i] aa B[i]^T.
 */
typedef struct LlmAdaptedNormsArgs
{
	const float *weight_squares; /* [n_rows] |W[i]|^2 */
	const float *b;				 /* [n_rows, rank] */
	const float *wa;			 /* [n_rows, rank] */
	const float *aa;			 /* [rank, rank] */
	float *out;					 /* [n_rows] */
	float scale;
	int32_t n_rows;
	int32_t rank;
} LlmAdaptedNormsArgs;

/* out[i] = the sum of the squares of row i of a weight */
typedef struct LlmRowSquaresArgs
{
	LlmMatrix weight;
	float *out; /* [n_rows] */
} LlmRowSquaresArgs;

/*
 * An NF4 weight (src/common/quant/nf4.h) as floats: element i is
 * codes[value i] * the magnitude of block b = i / 64, which is scales[b], or
 * where scale_codes is set map[scale_codes[b]] * scales[b / 256] + offset.
 * Every operation is rounded to f32, the result once more to out_dtype.
 */
typedef struct LlmNf4Args
{
	const float *codes;	 /* [16] */
	const float *map;	 /* [256] */
	const float *offset; /* [1] */
	const float *scales;
	const uint8_t *scale_codes; /* or NULL */
	const uint8_t *values; /* [(n + 1) / 2] the first of two in the high half */
	void *out;			   /* [n] */
	LlmDtype out_dtype;
	int64_t n;
} LlmNf4Args;

/*
 * out[i] = the sum over k of factors[e] * x[e], e = entries[i][k], one after
 * the other.
 */
typedef struct LlmCombineArgs
{
	const void *x;			/* [any, dim] */
	const int32_t *entries; /* [n_rows, n_entries] */
	const float *factors;	/* [any] */
	void *out;				/* [n_rows, dim] */
	int32_t n_rows;
	int32_t n_entries;
	int32_t dim;
} LlmCombineArgs;

/* out[i] = the sum over j of a[i][j] * b[i][j] */
typedef struct LlmRowDotsArgs
{
	const void *a; /* [n_rows, dim] */
	const void *b;
	float *out; /* [n_rows] */
	int32_t n_rows;
	int32_t dim;
} LlmRowDotsArgs;

/* out[i] = a[i] / b[i] */
typedef struct LlmDivideArgs
{
	const float *a;
	const float *b;
	float *out;
	int64_t n;
} LlmDivideArgs;

/*
 * AdamW (Loshchilov & Hutter 2019) on f32, in torch's order of operations:
 * p *= 1 - rate * decay; m, v decay towards g and g^2, g = d_p * clip;
 * p -= rate / correction1 * m / (sqrt(v) / sqrt(correction2) + eps).
 */
typedef struct LlmAdamwArgs
{
	float *p; /* [n] */
	const float *d_p;
	float *m;
	float *v;
	int64_t n;
	float clip;
	double rate;
	double decay;
	double beta1;
	double beta2;
	double eps;
	double correction1; /* 1 - beta1^step */
	double correction2;
} LlmAdamwArgs;

/* out = x, rounded to act */
typedef struct LlmRoundArgs
{
	const float *x; /* [n] */
	void *out;		/* not x */
	int64_t n;
} LlmRoundArgs;

typedef struct LlmTrainOps
{
	/*
	 * compute.h's without adapters.  There, how long an algorithm took may
	 * decide about its use; here the shapes alone do.
	 */
	bool (*linear)(LlmCompute *, const LlmLinearArgs *, LlmError *);
	bool (*product)(LlmCompute *, const LlmProductArgs *, LlmError *);
	bool (*add)(LlmCompute *, const LlmAddArgs *, LlmError *);
	bool (*rms_norm_back)(LlmCompute *, const LlmRmsNormBackArgs *, LlmError *);
	bool (*rotate)(LlmCompute *, const LlmRotateArgs *, LlmError *);
	bool (*attention)(LlmCompute *, const LlmSegmentAttentionArgs *,
					  LlmError *);
	bool (*attention_back)(LlmCompute *, const LlmSegmentAttentionBackArgs *,
						   LlmError *);
	bool (*gated_act_back)(LlmCompute *, const LlmGatedActBackArgs *,
						   LlmError *);
	bool (*cross_entropy)(LlmCompute *, const LlmCrossEntropyArgs *,
						  LlmError *);
	bool (*scatter)(LlmCompute *, const LlmScatterArgs *, LlmError *);
	bool (*dropout)(LlmCompute *, const LlmDropoutArgs *, LlmError *);
	bool (*noise)(LlmCompute *, const LlmNoiseArgs *, LlmError *);
	bool (*scale_columns)(LlmCompute *, const LlmScaleColumnsArgs *,
						  LlmError *);
	bool (*column_dots)(LlmCompute *, const LlmColumnDotsArgs *, LlmError *);
	bool (*row_squares)(LlmCompute *, const LlmRowSquaresArgs *, LlmError *);
	bool (*adapted_norms)(LlmCompute *, const LlmAdaptedNormsArgs *,
						  LlmError *);
	bool (*decode_nf4)(LlmCompute *, const LlmNf4Args *, LlmError *);
	bool (*divide)(LlmCompute *, const LlmDivideArgs *, LlmError *);
	bool (*round)(LlmCompute *, const LlmRoundArgs *, LlmError *);

	/* of mixtures of experts */
	bool (*combine)(LlmCompute *, const LlmCombineArgs *, LlmError *);
	bool (*row_dots)(LlmCompute *, const LlmRowDotsArgs *, LlmError *);
	bool (*adamw)(LlmCompute *, const LlmAdamwArgs *, LlmError *);

	/* *sum of the squares of n floats, in double; waits for it */
	bool (*sum_squares)(LlmCompute *, const float *x, int64_t n, double *sum,
						LlmError *);

	/* on the device: x = 0, and dest = src, n_bytes of them */
	bool (*clear)(LlmCompute *, void *x, size_t n_bytes, LlmError *);
	bool (*copy)(LlmCompute *, void *dest, const void *src, size_t n_bytes,
				 LlmError *);
} LlmTrainOps;

#endif /* LLM_COMPUTE_TRAIN_H */

/*
 * train_internal.h
 *	  What the files of training share.
 *
 *	  trainer.c			making and freeing it, its memory
 *	  train_params.c	the matrices: their beginning, steps, states
 *	  train_forward.c	a micro-batch through the layers
 *	  train_module.c	a projection with its pair, there and back
 *	  train_backward.c	gradients through the layers
 *	  train_mixture.c	a mixture of experts, there and back
 *	  train_image.c		an adapter as it is now, to be kept
 *	  train_loss.c		from the last layer to labels, and back
 *
 * src/engine/train/train_internal.h
 */
#ifndef LLM_TRAIN_INTERNAL_H
#define LLM_TRAIN_INTERNAL_H

#include "src/engine/compute/compute_train.h"
#include "src/engine/train/train.h"

/* Whether weights are decoded before they are used. */
static inline bool
train_is_nf4(const LlmModelOptions *options)
{
	return options->quantization == LLM_QUANTIZATION_NF4 ||
		   options->quantization == LLM_QUANTIZATION_NF4_NESTED;
}

/* Of a layer, and of each of its experts. */
#define N_MODULES (LLM_ADAPTER_DOWN + 1)
#define N_EXPERT_MODULES 3

/* Where the numbers of a pair lie among all, in floats. */
typedef struct PairPlace
{
	int64_t a;
	int64_t b;
	int64_t magnitude;
} PairPlace;

/* A pair at work; arrays on the device. */
typedef struct TrainPair
{
	LlmTrainPair spec;
	int64_t n_in;
	int64_t n_out;
	PairPlace place;
	int64_t shrunk_first;  /* A x: its columns among those of the modules ... */
	int64_t shrunk_stride; /* ... with the same input, and how many these are */
	float *weight_squares; /* [n_out] |W[i]|^2, with a magnitude */
	float *norms;		   /* [n_out] |W + scale B A| of its rows */
	float *column_scales;  /* [n_out] magnitude / norms */
	float *wa;			   /* [n_out, rank] */
	float *aa;			   /* [rank, rank] */
} TrainPair;

/*
 * What the way back needs of a layer: one set each, or with full recomputing
 * one for all.  Of act, [max_tokens, ...].
 */
typedef struct SavedLayer
{
	void *q; /* rotated */
	void *k;
	void *v;
	void *q_raw; /* before the norm of heads, where there is one */
	void *k_raw;
	void *attention;
	float *log_sums; /* [n_heads, max_tokens] */
	void *o;		 /* before its norm, where there are post norms */
	void *middle;	 /* the stream between attention and MLP */
	void *gate;
	void *up;
	void *down;				   /* like o */
	void *shrunk[N_MODULES];   /* [max_tokens, shrunk_stride] A x; modules with
								* the same input share one */
	void *unscaled[N_MODULES]; /* [max_tokens, n_out], with a magnitude */
} SavedLayer;

/* Buffers that are used anew by every layer; of act. */
typedef struct TrainScratch
{
	void *normed;	/* [max_tokens, hidden] */
	void *inner;	/* [max_tokens, intermediate] */
	void *dropped;	/* [max_tokens, widest input] */
	void *shrunk;	/* likewise d(A x) */
	void *d_stream; /* [max_tokens, hidden] */
	void *d_block;	/* likewise, of a block's output or input */
	void *d_q;
	void *d_k;
	void *d_v;
	void *d_attention;
	void *d_gate;
	void *d_up;
	void *d_inner;
	float *d_out_sums; /* [n_heads, max_tokens] */
} TrainScratch;

/*
 * A mixture of experts at work: what is used anew by every layer.  An entry is
 * a token's visit to an expert; there are n_tokens * n_experts_per_token.
 */
typedef struct TrainMixture
{
	/* on the device */
	float *device_logits; /* [max_tokens, n_experts] */
	float *device_shares; /* [entries] */
	int32_t *device_entry_rows;
	int32_t *device_row_entries;
	void *x; /* [entries, hidden] */
	void *y;
	void *gate; /* [entries, expert_intermediate_size] */
	void *up;
	void *inner;
	void *d_inner;

	/* of experts' pairs, each [entries, max_rank]; NULL where max_rank is 0 */
	int32_t max_rank;
	void *shrunk[N_EXPERT_MODULES]; /* A x */
	void *d_shrunk[N_EXPERT_MODULES];
	void *weighed;		   /* one of these times the entries' shares */
	int32_t *device_order; /* [entries] 0, 1, 2 ... */

	/* on the host, where memory is one piece that begins with the first */
	float *probabilities; /* [max_tokens, n_experts] */
	float *shares;		  /* [entries] of the token's output */
	float *d_shares;	  /* [entries] */
	int32_t *chosen;	  /* [max_tokens, n_experts_per_token] ascending */
	int32_t *entry_rows;  /* [entries] tokens */
	int32_t *row_entries; /* like chosen: their entries */
	int32_t *order;		  /* [entries] 0, 1, 2 ... */
	int32_t *first_entry; /* [n_experts + 1] of each expert */

	/* of the batch passed last, host: what the routers' loss is made of */
	double *visits;			  /* [n_layers, n_experts] */
	double *probability_sums; /* likewise */
} TrainMixture;

/* The micro-batch on the device. */
typedef struct DeviceBatch
{
	int32_t *token_ids;
	int32_t *segment_start;
	int32_t *segment_end;
	int32_t *rope_rows;
	int32_t *label_rows;
	int32_t *label_ids;
	float *weights;
	float *log_probs;
} DeviceBatch;

struct LlmTrainer
{
	LlmModel *model;
	const LlmModelConfig *config;
	const LlmModelOptions *model_options;
	LlmCompute *compute;
	const LlmComputeOps *ops;
	const LlmTrainOps *train;
	LlmTrainOptions options; /* pairs and initial are not kept */
	TrainPair *pairs;
	int32_t n_pairs;
	TrainPair *(*layer_pairs)[N_MODULES]; /* [n_layers], NULL: not trained */
	TrainPair **expert_pairs; /* [n_layers, N_EXPERT_MODULES, n_experts]
							   * likewise */

	/* all device memory is one piece */
	char *memory;
	size_t memory_bytes;
	int64_t n_values;
	float *values; /* [n_values]: all A, then all B and magnitudes */
	void
		*copies; /* [n_values] of act, for products; values where that is f32 */
	float *gradients;
	float *moments1;
	float *moments2;
	int64_t n_a_values;
	void **inputs;	   /* [n_layers + 1] host: the stream before each layer, and
					* behind the last */
	SavedLayer *saved; /* [n_layers or 1] host */
	TrainScratch scratch;
	TrainMixture mixture;
	DeviceBatch device;
	void *rows; /* [max_tokens, hidden] the stream at labels */
	void *rows_normed;
	void *d_rows;
	float *logits;	/* [max_logit_rows, n_vocab] */
	void *d_logits; /* likewise of act; logits where that is f32 */
	void *decoded;	/* the weight at work, where weights are NF4 */

	/* host */
	int32_t *staging; /* [4, max_tokens] */
	int32_t *rope_len;
	const LlmTrainBatch *batch; /* NULL: none is passed */
	bool is_training;
	int64_t n_steps;
	int64_t n_passes; /* training ones; dropout is different in each */
};

/* A projection's weight with what is trained beside it. */
typedef struct Module
{
	LlmAdapterModule module;
	LlmMatrix weight;
	LlmVector bias;
	TrainPair *pair; /* or NULL */
	void *shrunk;	 /* saved A x, from the pair's own columns on */
	void *unscaled;	 /* saved, with a magnitude */
	void *y;		 /* [n_tokens, n_out], or its derivative */
} Module;

/* ---- train_params.c ---- */
extern bool train_params_init(LlmTrainer *trainer,
							  const LlmAdapterImage *initial, LlmError *err);

/* What follows from the values as they are now: copies and DoRA's norms. */
extern bool train_params_refresh(LlmTrainer *trainer, LlmError *err);

/* ---- train_module.c ---- */

/*
 * A weight as floats.  Where it is NF4 it is decoded, and lasts until the
 * next is asked for.
 */
extern bool train_weight(LlmTrainer *trainer, LlmMatrix stored,
						 LlmMatrix *weight, LlmError *err);

extern Module train_module(LlmTrainer *trainer, int32_t layer_idx,
						   LlmAdapterModule module, SavedLayer *saved, void *y);

/* Several projections of one x [n_tokens, n_in]. */
extern bool
train_project(LlmTrainer *trainer, int32_t layer_idx, const Module *modules,
			  int n_modules, const void *x, LlmError *err);

/*
 * Back through them: each module's y holds d_y, which is overwritten where the
 * module has a magnitude; x is what went in.  d_x NULL: not needed.
 */
extern bool train_project_back(LlmTrainer *trainer, int32_t layer_idx,
							   const Module *modules, int n_modules,
							   const void *x, void *d_x, LlmError *err);

/* ---- train_forward.c ---- */
extern SavedLayer *train_saved(const LlmTrainer *trainer, int32_t layer_idx);
extern bool
train_layer_forward(LlmTrainer *trainer, int32_t layer_idx, LlmError *err);
extern bool train_rms_norm(LlmTrainer *trainer, LlmVector weight, const void *x,
						   void *out, int32_t n_rows, LlmError *err);
extern bool train_rotate(LlmTrainer *trainer, int32_t layer_idx, void *q,
						 void *k, bool is_inverse, LlmError *err);
extern LlmSegmentAttentionArgs
train_attention_args(const LlmTrainer *trainer, int32_t layer_idx);

/* Before the work of a layer is enqueued. */
static inline bool
train_take_turn(const LlmTrainer *trainer, bool is_first, LlmError *err)
{
	return trainer->options.turn == NULL ||
		   trainer->options.turn(trainer->options.turn_arg, is_first, err);
}

/* ---- train_mixture.c ---- */
extern bool train_is_mixture(const LlmTrainer *trainer, int32_t layer_idx);

/* out = the mixture's output of x, both [n_tokens, hidden]; and back. */
extern bool train_mixture(LlmTrainer *trainer, int32_t layer_idx, const void *x,
						  void *out, LlmError *err);
extern bool
train_mixture_back(LlmTrainer *trainer, int32_t layer_idx, const void *x,
				   const void *d_out, void *d_x, LlmError *err);

/* ---- train_experts.c ---- */

/* Where the pair of a module's expert stands, if it is trained. */
extern TrainPair **
train_expert_pair(const LlmTrainer *trainer, int32_t layer_idx,
				  LlmAdapterModule module, int32_t expert_idx);

/*
 * Every expert's module over its entries: y = W x + s B (A x), and back:
 * d_x = d_y W + s (d_y B) A, or added.  Entries are not weighed with their
 * shares; the way there leaves A x, and train_experts_slopes d(A x), which the
 * way back takes.
 */
extern bool
train_experts(LlmTrainer *trainer, int32_t layer_idx, LlmAdapterModule module,
			  const void *x, void *y, LlmError *err);
extern bool train_experts_back(LlmTrainer *trainer, int32_t layer_idx,
							   LlmAdapterModule module, const void *d_y,
							   void *d_x, bool adds, LlmError *err);

/* A x alone. */
extern bool
train_experts_shrink(LlmTrainer *trainer, int32_t layer_idx,
					 LlmAdapterModule module, const void *x, LlmError *err);

/* The gradients of A and B, weighed; d_y is not. */
extern bool train_experts_slopes(LlmTrainer *trainer, int32_t layer_idx,
								 LlmAdapterModule module, const void *d_y,
								 const void *x, LlmError *err);

/* ---- train_backward.c ---- */

/* d_x = (or +=) the derivative of rms_norm(x) against d_y */
extern bool train_rms_norm_back(LlmTrainer *trainer, LlmVector weight,
								const void *x, const void *d_y, void *d_x,
								bool adds, int32_t n_rows, LlmError *err);
extern bool train_layers_back(LlmTrainer *trainer, LlmError *err);

/* Values of the activation dtype. */
static inline void *
train_act_at(const LlmTrainer *trainer, const void *base, int64_t i)
{
	return (char *) base +
		   i * (int64_t) llm_dtype_bytes(trainer->compute->activation_dtype);
}

/* What products take: values of the activation dtype, and a pair's A and B. */
static inline LlmOperand
train_act_operand(const LlmTrainer *t, const void *data, int64_t stride,
				  bool is_transposed)
{
	return (LlmOperand){ data, t->compute->activation_dtype, stride,
						 is_transposed };
}

static inline LlmOperand
train_a_operand(const LlmTrainer *t, const TrainPair *pair, bool is_transposed)
{
	return train_act_operand(t, train_act_at(t, t->copies, pair->place.a),
							 pair->n_in, is_transposed);
}

static inline LlmOperand
train_b_operand(const LlmTrainer *t, const TrainPair *pair, bool is_transposed)
{
	return train_act_operand(t, train_act_at(t, t->copies, pair->place.b),
							 pair->spec.rank, is_transposed);
}

#endif /* LLM_TRAIN_INTERNAL_H */

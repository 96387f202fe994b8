/*
 * train.h
 *	  Training of adapters on a loaded model.
 *
 * A trainer holds the matrices of one adapter in f32 and what AdamW knows of
 * them; the base model is read only.  A step of training is any number of
 *
 *	  forward, (log_probs,) backward		once for each micro-batch
 *
 * and one update.  A micro-batch is several segments (rows of a dataset,
 * chosen and rejected answers) side by side without padding: attention ends
 * at their borders and positions begin anew, so that what a segment
 * contributes does not depend on what it is packed with.
 *
 * The loss is the caller's: it says how much of each label's -log probability
 * counts, which is a constant for SFT and follows from the log-probabilities
 * for the preference losses (preference_loss.h).
 *
 * The same calls give the same bits.
 *
 * src/engine/train/train.h
 */
#ifndef LLM_TRAIN_H
#define LLM_TRAIN_H

#include "src/common/adapter/adapter.h"
#include "src/engine/model/model.h"

typedef struct LlmTrainer LlmTrainer;

/*
 * One module's pair of matrices to train: of q k v o gate up down, or of an
 * expert's gate up down.  Modules that a checkpoint, or PEFT for experts,
 * takes as one (q, k and v, or gate and up) have one A in PEFT's adapters: the
 * first one's, which the others share.
 */
typedef struct LlmTrainPair
{
	int32_t layer_idx;
	LlmAdapterModule module;
	int32_t expert_idx; /* of an expert's module, else 0 */
	int32_t rank;
	float scale;		/* of B A */
	bool has_magnitude; /* DoRA */
	bool shares_a;		/* of the pair before this one */
} LlmTrainPair;

typedef enum LlmRecompute
{
	LLM_RECOMPUTE_SELECTIVE, /* norms and the MLP's inner activations */
	LLM_RECOMPUTE_FULL		 /* whole layers, from their inputs */
} LlmRecompute;

/*
 * Called before a trainer enqueues the work of a layer, on the way there and
 * back; it may take its time.  is_first: of a micro-batch.
 */
typedef bool (*LlmTrainTurn)(void *arg, bool is_first, LlmError *err);

typedef struct LlmTrainOptions
{
	const LlmTrainPair *pairs; /* copied */
	int32_t n_pairs;
	const LlmAdapterImage *initial; /* values to go on from; it has the same
									 * pairs.  NULL: as PEFT begins */
	uint64_t seed;
	float dropout; /* of the input of A; not with magnitudes */
	float neftune_alpha;
	LlmRecompute recompute;
	int32_t max_tokens;		/* of a micro-batch */
	int32_t max_segment;	/* tokens of a segment */
	int32_t max_logit_rows; /* labels whose logits exist at a time */
	double beta1;
	double beta2;
	double eps;
	double weight_decay;
	double max_grad_norm; /* 0: no clipping */
	double b_rate_ratio;  /* LoRA+: rate of B over that of A; 1 */
	double router_coef;	  /* of the loss of a mixture's routers; 0: none */
	LlmTrainTurn turn;	  /* NULL: nobody is asked */
	void *turn_arg;
} LlmTrainOptions;

/* Host arrays; borrowed until the next forward. */
typedef struct LlmTrainBatch
{
	int32_t n_tokens;
	int32_t n_segments;
	int32_t n_labels;
	const int32_t *token_ids;	  /* [n_tokens] */
	const int32_t *segment_start; /* [n_segments + 1], from 0 to n_tokens */
	const int32_t *label_rows;	  /* [n_labels] tokens whose logits are to
								   * say the label; ascending */
	const int32_t *label_ids;	  /* [n_labels] */
	double router_weight;		  /* how much its routers' loss counts: its
								   * share of a step, 1 where it is one */
} LlmTrainBatch;

/*
 * Whether a model can be trained: false, and why, for int8 and int4 weights,
 * DoRA or dropout of experts, and compute backends without the operations.
 */
extern bool llm_train_check(const LlmModel *model,
							const LlmTrainOptions *options, LlmError *err);

/* What a trainer takes on the device beside the model, line by line. */
typedef struct LlmTrainMemory
{
	size_t states_bytes;	  /* values, gradients, moments */
	size_t activations_bytes; /* what the way back needs */
	size_t scratch_bytes;	  /* what layers use anew, and a decoded weight */
	size_t logits_bytes;	  /* and what else belongs to labels */
	size_t total_bytes;
} LlmTrainMemory;

/* Before anything is loaded; all 0 where the options are refused. */
extern LlmTrainMemory
llm_train_memory(const LlmModelConfig *config, const LlmModelOptions *model,
				 LlmDtype activation_dtype, const LlmTrainOptions *options);

/* The model is borrowed and outlives the trainer. */
extern LlmTrainer *
llm_trainer_create(LlmModel *model, const LlmTrainOptions *options,
				   LlmError *err);
extern void llm_trainer_free(LlmTrainer *trainer);

/*
 * Pass a micro-batch through the model.  is_training: dropout and noise, and
 * what backward needs is that pass's.
 */
extern bool llm_trainer_forward(LlmTrainer *trainer, const LlmTrainBatch *batch,
								bool is_training, LlmError *err);

/*
 * How unevenly the routers of a mixture share the batch passed last among
 * experts, as transformers' load_balancing_loss_func has it (Fedus et al.
 * 2021, eq. 4 to 6): over all mixtures of the model together, n_experts times
 * the sum of f_e P_e, f_e the visits to expert e per token, P_e its mean
 * probability.  Even is n_experts_per_token.  0 where there is no mixture.
 */
extern double llm_trainer_router_loss(const LlmTrainer *trainer);

/* log_probs [n_labels], host, of the batch passed last. */
extern bool
llm_trainer_log_probs(LlmTrainer *trainer, float *log_probs, LlmError *err);

/*
 * Add the gradients of sum_i weights[i] * -log_probs[i], where weights and
 * log_probs [n_labels] are host arrays, of the batch passed last, which is
 * used up; and of its routers' loss, times router_coef and router_weight.
 */
extern bool llm_trainer_backward(LlmTrainer *trainer, const float *weights,
								 float *log_probs, LlmError *err);

/*
 * Clip the gradients, step along them, and forget them.  *grad_norm is their
 * length before clipping; where it is not finite nothing is stepped and the
 * result is an error.
 */
extern bool llm_trainer_update(LlmTrainer *trainer, double rate,
							   double *grad_norm, LlmError *err);

/* Steps taken. */
extern int64_t llm_trainer_n_steps(const LlmTrainer *trainer);

/*
 * Everything that training goes on from: values, AdamW's moments, counters.
 * A trainer of the same model and options that loads it continues bit by bit.
 */
extern bool
llm_trainer_save(LlmTrainer *trainer, LlmStrbuf *state, LlmError *err);
extern bool llm_trainer_load(LlmTrainer *trainer, const void *state,
							 size_t n_bytes, LlmError *err);

/*
 * Append the adapter's image (adapter.h) for the base model of that
 * fingerprint; config_json is what an export repeats.
 */
extern bool llm_trainer_append_image(LlmTrainer *trainer,
									 const uint8_t base[LLM_FINGERPRINT_BYTES],
									 const char *config_json, LlmStrbuf *image,
									 LlmError *err);

typedef enum LlmTrainMatrix
{
	LLM_TRAIN_A,		/* [rank, n_in] */
	LLM_TRAIN_B,		/* [n_out, rank] */
	LLM_TRAIN_MAGNITUDE /* [n_out] */
} LlmTrainMatrix;

/* Numbers of one matrix, also a shared one; 0 for no magnitude. */
extern int64_t llm_trainer_matrix_size(const LlmTrainer *trainer,
									   int32_t pair_idx, LlmTrainMatrix which);

/* Copy a matrix's values, or its gradients so far, to the host. */
extern bool
llm_trainer_read_values(LlmTrainer *trainer, int32_t pair_idx,
						LlmTrainMatrix which, float *out, LlmError *err);
extern bool
llm_trainer_read_gradients(LlmTrainer *trainer, int32_t pair_idx,
						   LlmTrainMatrix which, float *out, LlmError *err);

#endif /* LLM_TRAIN_H */

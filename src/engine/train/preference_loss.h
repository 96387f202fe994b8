/*
 * preference_loss.h
 *	  Losses over pairs of answers, and over single ones that are desirable or
 *	  not, as functions of their log-probabilities.
 *
 * src/engine/train/preference_loss.h
 */
#ifndef LLM_PREFERENCE_LOSS_H
#define LLM_PREFERENCE_LOSS_H

#include <stdbool.h>
#include <stdint.h>

typedef enum LlmPreferenceKind
{
	LLM_PREFERENCE_SIGMOID, /* DPO, Rafailov et al. 2023 */
	LLM_PREFERENCE_HINGE,	/* Zhao et al. 2023 */
	LLM_PREFERENCE_IPO,		/* Azar et al. 2023 */
	LLM_PREFERENCE_ORPO,	/* Hong et al. 2024 */
	LLM_PREFERENCE_SIMPO	/* Meng et al. 2024 */
} LlmPreferenceKind;

typedef struct LlmPreferenceOptions
{
	LlmPreferenceKind kind;
	double beta;
	double label_smoothing; /* sigmoid: probability that a pair is the wrong
							 * way round */
	double simpo_gamma;
	double ftx;			/* adds ftx * the mean -log probability of a chosen, or
				 * desirable, answer */
	bool orpo_full_nll; /* orpo: its likelihood is of prompt and answer, which
						 * whoever knows all of a step adds */
	double desirable_weight; /* singles */
	double undesirable_weight;
} LlmPreferenceOptions;

/* Sums over an answer's labels; ref_* where the loss has a reference. */
typedef struct LlmPreferencePair
{
	double chosen;
	double rejected;
	double ref_chosen;
	double ref_rejected;
	int32_t n_chosen; /* labels */
	int32_t n_rejected;
} LlmPreferencePair;

typedef struct LlmPreferenceResult
{
	double loss;
	double d_chosen; /* of the loss, with respect to the sum "chosen" */
	double d_rejected;
	double reward_chosen; /* beta times the gain over the reference, or over
						   * nothing */
	double reward_rejected;
} LlmPreferenceResult;

/* "sigmoid" ...; false: not known. */
extern bool
llm_preference_kind_parse(const char *name, LlmPreferenceKind *kind);

/* Whether a loss compares with the model as it was before. */
extern bool llm_preference_needs_reference(LlmPreferenceKind kind);

/*
 * A pair's loss and its slopes.  With s(x) = log sigmoid(x), c and r the sums,
 * avg their means, and D = (c - ref_c) - (r - ref_r):
 *	  sigmoid	-(1 - e) s(beta D) - e s(-beta D), e = label_smoothing
 *	  hinge		max(0, 1 - beta D)
 *	  ipo		(D of means - 1 / (2 beta))^2
 *	  orpo		-avg_c - beta s(odds(avg_c) - odds(avg_r)),
 *				odds(x) = x - log(1 - exp(x)); without -avg_c where
 *				orpo_full_nll
 *	  simpo		-s(beta (avg_c - avg_r) - gamma)
 */
extern LlmPreferenceResult
llm_preference_loss(const LlmPreferenceOptions *options,
					const LlmPreferencePair *pair);

/* Sums over an answer's labels. */
typedef struct LlmPreferenceSingle
{
	double answer;
	double ref_answer;
	double kl;		  /* of its group, at least 0 */
	int32_t n_labels; /* of the answer */
	bool is_desirable;
} LlmPreferenceSingle;

typedef struct LlmSingleResult
{
	double loss;
	double d_answer; /* of the loss, with respect to the sum "answer" */
	double reward;	 /* beta times the gain */
	bool is_right;	 /* the gain is above kl, or below where undesirable */
} LlmSingleResult;

/*
 * KTO (Ethayarajh et al. 2024) of one answer, g its gain over the reference:
 *	  desirable		weight * (1 - sigmoid(beta (g - kl)))
 *	  undesirable	weight * (1 - sigmoid(beta (kl - g)))
 */
extern LlmSingleResult llm_single_loss(const LlmPreferenceOptions *options,
									   const LlmPreferenceSingle *single);

#endif /* LLM_PREFERENCE_LOSS_H */

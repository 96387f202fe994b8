/*
 * preference_loss.h
 *	  Losses over pairs of answers, as functions of their log-probabilities.
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
	double ftx; /* adds ftx * the chosen one's mean -log probability */
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
 *				odds(x) = x - log(1 - exp(x))
 *	  simpo		-s(beta (avg_c - avg_r) - gamma)
 */
extern LlmPreferenceResult
llm_preference_loss(const LlmPreferenceOptions *options,
					const LlmPreferencePair *pair);

#endif /* LLM_PREFERENCE_LOSS_H */

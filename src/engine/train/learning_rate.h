/*
 * learning_rate.h
 *	  Learning rates over a job's steps, as transformers defines them.
 *
 * src/engine/train/learning_rate.h
 */
#ifndef LLM_LEARNING_RATE_H
#define LLM_LEARNING_RATE_H

#include <stdbool.h>
#include <stdint.h>

typedef enum LlmRateKind
{
	LLM_RATE_LINEAR,
	LLM_RATE_COSINE,
	LLM_RATE_COSINE_WITH_RESTARTS,
	LLM_RATE_COSINE_WITH_MIN_LR,
	LLM_RATE_POLYNOMIAL,
	LLM_RATE_CONSTANT,
	LLM_RATE_CONSTANT_WITH_WARMUP,
	LLM_RATE_INVERSE_SQRT
} LlmRateKind;

typedef struct LlmRateOptions
{
	LlmRateKind kind;
	double learning_rate;
	int64_t n_steps;
	int64_t n_warmup_steps; /* ignored by constant */
	double n_cycles;		/* cosine: 0.5; with restarts: 1 */
	double min_rate;		/* cosine_with_min_lr: over learning_rate */
	double end_rate;		/* polynomial: 1e-7 */
	double power;			/* polynomial: 1 */
} LlmRateOptions;

/* "linear", "cosine" ...; false: not known. */
extern bool llm_rate_kind_parse(const char *name, LlmRateKind *kind);

/* The rate of step "step", 0 the first: with a warmup, the first rate is 0. */
extern double llm_learning_rate(const LlmRateOptions *options, int64_t step);

#endif /* LLM_LEARNING_RATE_H */

/*
 * learning_rate.c
 *	  Learning rates over a job's steps.
 *
 * src/engine/train/learning_rate.c
 */
#include <math.h>
#include <string.h>

#include "src/engine/train/learning_rate.h"

#define PI 3.14159265358979323846

static const char *const kind_names[] = {
	"linear",	  "cosine",	  "cosine_with_restarts", "cosine_with_min_lr",
	"polynomial", "constant", "constant_with_warmup", "inverse_sqrt",
};

bool
llm_rate_kind_parse(const char *name, LlmRateKind *kind)
{
	for (int i = 0; i <= LLM_RATE_INVERSE_SQRT; i++)
	{
		if (strcmp(name, kind_names[i]) != 0)
			continue;
		*kind = (LlmRateKind) i;
		return true;
	}
	return false;
}

static double
at_least_1(int64_t n)
{
	return n < 1 ? 1 : (double) n;
}

/* How far the steps behind the warmup have come, 0 .. 1. */
static double
progress(const LlmRateOptions *o, int64_t step)
{
	return (double) (step - o->n_warmup_steps) /
		   at_least_1(o->n_steps - o->n_warmup_steps);
}

static double
cosine(const LlmRateOptions *o, int64_t step)
{
	double factor = 0.5 * (1 + cos(PI * 2 * o->n_cycles * progress(o, step)));

	return factor < 0 ? 0 : factor;
}

static double
restarting_cosine(const LlmRateOptions *o, int64_t step)
{
	double p = progress(o, step);

	return p >= 1 ? 0 : 0.5 * (1 + cos(PI * fmod(o->n_cycles * p, 1)));
}

static double
polynomial(const LlmRateOptions *o, int64_t step)
{
	const double end = o->end_rate / o->learning_rate;
	double left = 1 - progress(o, step);

	return step > o->n_steps ? end : (1 - end) * pow(left, o->power) + end;
}

/* Without a warmup transformers takes 10,000 steps as one. */
static double
inverse_sqrt(const LlmRateOptions *o, int64_t step)
{
	double scale = o->n_warmup_steps > 0 ? (double) o->n_warmup_steps : 10000;
	double shift = scale - (double) o->n_warmup_steps;

	return 1 / sqrt(((double) step + shift) / scale);
}

/* Over learning_rate. */
static double
factor_of(const LlmRateOptions *o, int64_t step)
{
	double left;

	if (o->kind == LLM_RATE_CONSTANT)
		return 1;
	if (step < o->n_warmup_steps)
		return (double) step / at_least_1(o->n_warmup_steps);
	switch (o->kind)
	{
		case LLM_RATE_COSINE:
			return cosine(o, step);
		case LLM_RATE_COSINE_WITH_RESTARTS:
			return restarting_cosine(o, step);
		case LLM_RATE_COSINE_WITH_MIN_LR:
			return cosine(o, step) * (1 - o->min_rate) + o->min_rate;
		case LLM_RATE_POLYNOMIAL:
			return polynomial(o, step);
		case LLM_RATE_INVERSE_SQRT:
			return inverse_sqrt(o, step);
		case LLM_RATE_CONSTANT:
		case LLM_RATE_CONSTANT_WITH_WARMUP:
			return 1;
		case LLM_RATE_LINEAR:
			break;
	}
	left = (double) (o->n_steps - step) /
		   at_least_1(o->n_steps - o->n_warmup_steps);
	return left < 0 ? 0 : left;
}

double
llm_learning_rate(const LlmRateOptions *options, int64_t step)
{
	return options->learning_rate * factor_of(options, step);
}

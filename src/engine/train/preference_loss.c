/*
 * preference_loss.c
 *	  Losses over pairs of answers, and over single ones.
 *
 * src/engine/train/preference_loss.c
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "src/engine/train/preference_loss.h"

static const char *const kind_names[] = { "sigmoid", "hinge", "ipo", "orpo",
										  "simpo" };

bool
llm_preference_kind_parse(const char *name, LlmPreferenceKind *kind)
{
	for (int i = 0; i <= LLM_PREFERENCE_SIMPO; i++)
	{
		if (strcmp(name, kind_names[i]) != 0)
			continue;
		*kind = (LlmPreferenceKind) i;
		return true;
	}
	return false;
}

bool
llm_preference_needs_reference(LlmPreferenceKind kind)
{
	return kind == LLM_PREFERENCE_SIGMOID || kind == LLM_PREFERENCE_HINGE ||
		   kind == LLM_PREFERENCE_IPO;
}

/* log(1 / (1 + exp(-x))), without overflow */
static double
log_sigmoid(double x)
{
	return x >= 0 ? -log1p(exp(-x)) : x - log1p(exp(x));
}

static double
sigmoid(double x)
{
	return exp(log_sigmoid(x));
}

/* log(1 - exp(x)), x < 0; from whichever form keeps the digits */
static double
log_1m_exp(double x)
{
	return x >= -0.69314718055994531 ? log(-expm1(x)) : log1p(-exp(x));
}

/* Losses of the difference D between the gains of both sides. */
static void
gain_loss(const LlmPreferenceOptions *o, const LlmPreferencePair *pair,
		  LlmPreferenceResult *result)
{
	const double gain_chosen = pair->chosen - pair->ref_chosen;
	const double gain_rejected = pair->rejected - pair->ref_rejected;
	const double e = o->label_smoothing;
	double x = o->beta * (gain_chosen - gain_rejected);
	double slope;

	if (o->kind == LLM_PREFERENCE_IPO)
	{
		double off = gain_chosen / pair->n_chosen -
					 gain_rejected / pair->n_rejected - 1 / (2 * o->beta);

		result->loss = off * off;
		result->d_chosen = 2 * off / pair->n_chosen;
		result->d_rejected = -2 * off / pair->n_rejected;
	}
	else
	{
		if (o->kind == LLM_PREFERENCE_HINGE)
		{
			result->loss = x < 1 ? 1 - x : 0;
			slope = x < 1 ? -o->beta : 0;
		}
		else
		{
			result->loss = -(1 - e) * log_sigmoid(x) - e * log_sigmoid(-x);
			slope = o->beta * (-(1 - e) * sigmoid(-x) + e * sigmoid(x));
		}
		result->d_chosen = slope;
		result->d_rejected = -slope;
	}
	result->reward_chosen = o->beta * gain_chosen;
	result->reward_rejected = o->beta * gain_rejected;
}

/* Losses of the means, without a reference. */
static void
mean_loss(const LlmPreferenceOptions *o, const LlmPreferencePair *pair,
		  LlmPreferenceResult *result)
{
	const double c = pair->chosen / pair->n_chosen;
	const double r = pair->rejected / pair->n_rejected;
	double x;
	double slope; /* of the loss by x */
	double d_c;
	double d_r;

	if (o->kind == LLM_PREFERENCE_SIMPO)
	{
		x = o->beta * (c - r) - o->simpo_gamma;
		slope = -sigmoid(-x);
		result->loss = -log_sigmoid(x);
		d_c = slope * o->beta;
		d_r = -slope * o->beta;
	}
	else
	{
		const double nll = o->orpo_full_nll ? 0 : 1;

		x = (c - r) - (log_1m_exp(c) - log_1m_exp(r));
		slope = -o->beta * sigmoid(-x);
		result->loss = -nll * c - o->beta * log_sigmoid(x);
		/* the slope of odds is 1 / (1 - exp(x)) */
		d_c = -nll + slope / -expm1(c);
		d_r = -slope / -expm1(r);
	}
	result->d_chosen = d_c / pair->n_chosen;
	result->d_rejected = d_r / pair->n_rejected;
	result->reward_chosen = o->beta * c;
	result->reward_rejected = o->beta * r;
}

LlmPreferenceResult
llm_preference_loss(const LlmPreferenceOptions *options,
					const LlmPreferencePair *pair)
{
	LlmPreferenceResult result = { 0 };

	assert(pair->n_chosen > 0 && pair->n_rejected > 0);
	if (llm_preference_needs_reference(options->kind))
		gain_loss(options, pair, &result);
	else
		mean_loss(options, pair, &result);
	result.loss -= options->ftx * pair->chosen / pair->n_chosen;
	result.d_chosen -= options->ftx / pair->n_chosen;
	return result;
}

LlmSingleResult
llm_single_loss(const LlmPreferenceOptions *options,
				const LlmPreferenceSingle *single)
{
	const double gain = single->answer - single->ref_answer;
	const double sign = single->is_desirable ? 1 : -1;
	const double weight = single->is_desirable ? options->desirable_weight
											   : options->undesirable_weight;
	const double ftx = single->is_desirable ? options->ftx : 0;
	const double x = sign * options->beta * (gain - single->kl);

	assert(single->n_labels > 0 && single->kl >= 0);
	/* 1 - sigmoid(x) is sigmoid(-x), its slope -sigmoid(x) sigmoid(-x) */
	return (LlmSingleResult){
		.loss = weight * sigmoid(-x) - ftx * single->answer / single->n_labels,
		.d_answer = -weight * sign * options->beta * sigmoid(x) * sigmoid(-x) -
					ftx / single->n_labels,
		.reward = options->beta * gain,
		.is_right = x > 0,
	};
}

/*
 * rope_frequencies.c
 *	  The frequencies of all kinds of rotary embedding.
 *
 * The formulas are those of transformers/modeling_rope_utils.py, function by
 * function, and so is the precision: whatever is a float32 tensor there is a
 * float here.  At position 100,000 the seventh digit of a frequency is worth
 * a hundredth of a radian, so "more precise" would be "different".
 *
 *	  default	theta^(-2i / dim) (Su et al. 2021, RoFormer)
 *	  linear	position interpolation: frequencies / factor (Chen et al. 2023)
 *	  dynamic	NTK-aware: theta grows with the length beyond the trained one
 *	  yarn		interpolated by wavelength (Peng et al. 2023)
 *	  llama3	interpolated by wavelength, as Llama 3.1's reference code
 *	  longrope	one factor for each frequency (Ding et al. 2024)
 *
 * src/engine/model/rope_frequencies.c
 */
#include <assert.h>
#include <math.h>

#include "src/engine/model/model_internal.h"

/* theta^(2i / dim) */
static float
wave(float theta, int dim, int i)
{
	return powf(theta, (float) (2 * i) / (float) dim);
}

static void
default_frequencies(float theta, int dim, float *inv_freq)
{
	for (int i = 0; i < dim / 2; i++)
		inv_freq[i] = 1.0f / wave(theta, dim, i);
}

/* _compute_dynamic_ntk_parameters */
static float
dynamic_theta(const LlmRopeConfig *rope, int32_t len)
{
	float trained = (float) rope->original_max_position;
	double dim = rope->rotary_dim;
	float stretch;

	if (rope->rotary_dim <= 2 || len <= rope->original_max_position)
		return (float) rope->theta; /* of two dimensions the exponent has no
									 * value, and no effect */
	stretch = (float) rope->factor * (float) len / trained -
			  (float) (rope->factor - 1);
	return (float) rope->theta * powf(stretch, (float) (dim / (dim - 2)));
}

/* _compute_yarn_parameters.find_correction_dim */
static double
yarn_correction_dim(const LlmRopeConfig *rope, double n_rotations)
{
	return rope->rotary_dim *
		   log(rope->original_max_position / (n_rotations * 2 * M_PI)) /
		   (2 * log(rope->theta));
}

/* _compute_yarn_parameters.get_mscale */
static double
yarn_mscale(double scale, double mscale)
{
	return scale <= 1 ? 1.0 : 0.1 * mscale * log(scale) + 1.0;
}

static double
yarn_attention_factor(const LlmRopeConfig *rope)
{
	if (rope->attention_factor != 0)
		return rope->attention_factor;
	if (rope->mscale != 0 && rope->mscale_all_dim != 0)
		return yarn_mscale(rope->factor, rope->mscale) /
			   yarn_mscale(rope->factor, rope->mscale_all_dim);
	return yarn_mscale(rope->factor, 1);
}

/* _compute_yarn_parameters: high frequencies stay, low ones are divided. */
static void
yarn_frequencies(const LlmRopeConfig *rope, float *inv_freq)
{
	double low = yarn_correction_dim(rope, rope->beta_fast);
	double high = yarn_correction_dim(rope, rope->beta_slow);

	if (rope->truncate)
	{
		low = floor(low);
		high = ceil(high);
	}
	low = fmax(low, 0);
	high = fmin(high, rope->rotary_dim - 1);
	if (low == high)
		high += 0.001;
	for (int i = 0; i < rope->rotary_dim / 2; i++)
	{
		float ramp = ((float) i - (float) low) / (float) (high - low);
		float kept = 1 - fminf(fmaxf(ramp, 0), 1);
		float period = wave((float) rope->theta, rope->rotary_dim, i);

		inv_freq[i] = 1.0f / ((float) rope->factor * period) * (1 - kept) +
					  1.0f / period * kept;
	}
}

/* _compute_llama3_parameters */
static void
llama3_frequencies(const LlmRopeConfig *rope, float *inv_freq)
{
	double len = rope->original_max_position;
	double low_wavelen = len / rope->low_freq_factor;
	double high_wavelen = len / rope->high_freq_factor;
	float factor = (float) rope->factor;

	default_frequencies((float) rope->theta, rope->rotary_dim, inv_freq);
	for (int i = 0; i < rope->rotary_dim / 2; i++)
	{
		float wavelen = (float) (2 * M_PI) / inv_freq[i];
		float smooth;

		if (wavelen > low_wavelen)
			inv_freq[i] /= factor;
		else if (wavelen >= high_wavelen)
		{
			smooth = ((float) len / wavelen - (float) rope->low_freq_factor) /
					 (float) (rope->high_freq_factor - rope->low_freq_factor);
			inv_freq[i] =
				(1 - smooth) * inv_freq[i] / factor + smooth * inv_freq[i];
		}
	}
}

/* _compute_longrope_parameters */
static void
longrope_frequencies(const LlmRopeConfig *rope, int32_t len, float *inv_freq)
{
	const float *factors = len > rope->original_max_position
							   ? rope->long_factor
							   : rope->short_factor;

	assert(rope->n_factors == rope->rotary_dim / 2);
	for (int i = 0; i < rope->rotary_dim / 2; i++)
		inv_freq[i] = 1.0f / (factors[i] *
							  wave((float) rope->theta, rope->rotary_dim, i));
}

static double
longrope_attention_factor(const LlmRopeConfig *rope)
{
	if (rope->attention_factor != 0)
		return rope->attention_factor;
	if (rope->factor <= 1)
		return 1;
	return sqrt(1 + log(rope->factor) / log(rope->original_max_position));
}

void
model_rope_frequencies(const LlmRopeConfig *rope, int32_t len, float *inv_freq,
					   float *attention_factor)
{
	float theta = (float) rope->theta;

	*attention_factor = 1;
	switch (rope->kind)
	{
		case LLM_ROPE_DEFAULT:
			default_frequencies(theta, rope->rotary_dim, inv_freq);
			break;
		case LLM_ROPE_LINEAR:
			default_frequencies(theta, rope->rotary_dim, inv_freq);
			for (int i = 0; i < rope->rotary_dim / 2; i++)
				inv_freq[i] /= (float) rope->factor;
			break;
		case LLM_ROPE_DYNAMIC:
			default_frequencies(dynamic_theta(rope, len), rope->rotary_dim,
								inv_freq);
			break;
		case LLM_ROPE_YARN:
			yarn_frequencies(rope, inv_freq);
			*attention_factor = (float) yarn_attention_factor(rope);
			break;
		case LLM_ROPE_LLAMA3:
			llama3_frequencies(rope, inv_freq);
			break;
		case LLM_ROPE_LONGROPE:
			longrope_frequencies(rope, len, inv_freq);
			*attention_factor = (float) longrope_attention_factor(rope);
			break;
	}
}

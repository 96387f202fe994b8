/*
 * rope_table.c
 *	  Cosines and sines of every position, for all kinds of rotary embedding.
 *
 * The formulas are those of transformers/modeling_rope_utils.py, function by
 * function, computed in double precision and stored in single:
 *
 *	  default	theta^(-2i / dim) (Su et al. 2021, RoFormer)
 *	  linear	position interpolation: frequencies / factor (Chen et al. 2023)
 *	  dynamic	NTK-aware: theta grows with the length beyond the trained one
 *	  yarn		interpolated by wavelength (Peng et al. 2023)
 *	  llama3	interpolated by wavelength, as Llama 3.1's reference code
 *	  longrope	one factor for each frequency (Ding et al. 2024)
 *
 * transformers chooses dynamic's theta and longrope's factors anew whenever
 * a sequence outgrows the trained length, which changes the meaning of keys
 * already cached.  Here, as in vLLM, the loaded model's max_model_len
 * decides once.
 *
 * src/engine/model/rope_table.c
 */
#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "src/engine/model/model_internal.h"

/* theta^(-2i / dim) */
static void
default_frequencies(double theta, int dim, double *inv_freq)
{
	for (int i = 0; i < dim / 2; i++)
		inv_freq[i] = pow(theta, -2.0 * i / dim);
}

/* _compute_dynamic_ntk_parameters */
static double
dynamic_theta(const LlmModelConfig *config, int32_t max_len)
{
	const LlmRopeConfig *rope = &config->rope;
	double trained = config->max_position;
	double len = max_len > trained ? max_len : trained;
	double dim = rope->rotary_dim;

	if (rope->rotary_dim <= 2)
		return rope->theta; /* the exponent has no value, and no effect */
	return rope->theta * pow(rope->factor * len / trained - (rope->factor - 1),
							 dim / (dim - 2));
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
yarn_frequencies(const LlmRopeConfig *rope, double *inv_freq)
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
	default_frequencies(rope->theta, rope->rotary_dim, inv_freq);
	for (int i = 0; i < rope->rotary_dim / 2; i++)
	{
		double ramp = fmin(fmax((i - low) / (high - low), 0), 1);

		inv_freq[i] =
			inv_freq[i] / rope->factor * ramp + inv_freq[i] * (1 - ramp);
	}
}

/* _compute_llama3_parameters */
static void
llama3_frequencies(const LlmRopeConfig *rope, double *inv_freq)
{
	double len = rope->original_max_position;
	double low_wavelen = len / rope->low_freq_factor;
	double high_wavelen = len / rope->high_freq_factor;

	default_frequencies(rope->theta, rope->rotary_dim, inv_freq);
	for (int i = 0; i < rope->rotary_dim / 2; i++)
	{
		double wavelen = 2 * M_PI / inv_freq[i];
		double smooth;

		if (wavelen > low_wavelen)
			inv_freq[i] /= rope->factor;
		else if (wavelen >= high_wavelen)
		{
			smooth = (len / wavelen - rope->low_freq_factor) /
					 (rope->high_freq_factor - rope->low_freq_factor);
			inv_freq[i] = (1 - smooth) * inv_freq[i] / rope->factor +
						  smooth * inv_freq[i];
		}
	}
}

/* _compute_longrope_parameters */
static void
longrope_frequencies(const LlmRopeConfig *rope, int32_t max_len,
					 double *inv_freq)
{
	const float *factors = max_len > rope->original_max_position
							   ? rope->long_factor
							   : rope->short_factor;

	assert(rope->n_factors == rope->rotary_dim / 2);
	default_frequencies(rope->theta, rope->rotary_dim, inv_freq);
	for (int i = 0; i < rope->rotary_dim / 2; i++)
		inv_freq[i] /= factors[i];
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
model_rope_frequencies(const LlmModelConfig *config, int32_t max_len,
					   double *inv_freq, double *attention_factor)
{
	const LlmRopeConfig *rope = &config->rope;

	*attention_factor = 1;
	switch (rope->kind)
	{
		case LLM_ROPE_DEFAULT:
			default_frequencies(rope->theta, rope->rotary_dim, inv_freq);
			break;
		case LLM_ROPE_LINEAR:
			default_frequencies(rope->theta, rope->rotary_dim, inv_freq);
			for (int i = 0; i < rope->rotary_dim / 2; i++)
				inv_freq[i] /= rope->factor;
			break;
		case LLM_ROPE_DYNAMIC:
			default_frequencies(dynamic_theta(config, max_len),
								rope->rotary_dim, inv_freq);
			break;
		case LLM_ROPE_YARN:
			yarn_frequencies(rope, inv_freq);
			*attention_factor = yarn_attention_factor(rope);
			break;
		case LLM_ROPE_LLAMA3:
			llama3_frequencies(rope, inv_freq);
			break;
		case LLM_ROPE_LONGROPE:
			longrope_frequencies(rope, max_len, inv_freq);
			*attention_factor = longrope_attention_factor(rope);
			break;
	}
}

/* One row: rotary_dim / 2 cosines, then as many sines. */
static void
fill_row(float *row, int32_t position, const double *inv_freq, int n,
		 double attention_factor)
{
	for (int i = 0; i < n; i++)
	{
		double angle = position * inv_freq[i];

		row[i] = (float) (cos(angle) * attention_factor);
		row[n + i] = (float) (sin(angle) * attention_factor);
	}
}

bool
model_rope_table_create(LlmModel *model, LlmError *err)
{
	const LlmComputeOps *ops = model->compute->ops;
	int32_t dim = model->config.rope.rotary_dim;
	int32_t n_positions = model->options.max_model_len;
	size_t row_bytes = (size_t) dim * sizeof(float);
	int32_t n_staged = (int32_t) (STAGING_BYTES / row_bytes);
	float *staging = malloc((size_t) n_staged * row_bytes);
	double inv_freq[LLM_MAX_HEAD_DIM / 2];
	double attention_factor;
	bool ok = true;

	assert(dim > 0 && dim % 2 == 0 && dim <= LLM_MAX_HEAD_DIM);
	if (staging == NULL)
		return llm_error_no_memory(err, STAGING_BYTES, "the rotary table");
	model->cos_sin =
		ops->alloc(model->compute, (size_t) n_positions * row_bytes,
				   "the rotary table", err);
	ok = model->cos_sin != NULL;
	model_rope_frequencies(&model->config, n_positions, inv_freq,
						   &attention_factor);
	for (int32_t first = 0; ok && first < n_positions; first += n_staged)
	{
		int32_t n =
			n_positions - first < n_staged ? n_positions - first : n_staged;

		for (int32_t i = 0; i < n; i++)
			fill_row(staging + (size_t) i * dim, first + i, inv_freq, dim / 2,
					 attention_factor);
		ok = ops->write(model->compute, model->cos_sin + (size_t) first * dim,
						staging, (size_t) n * row_bytes, err) &&
			 ops->sync(model->compute, err);
	}
	free(staging);
	model->workspace_bytes += (size_t) n_positions * row_bytes;
	return ok;
}

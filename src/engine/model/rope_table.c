/*
 * rope_table.c
 *	  Cosines and sines, and which of them a token is rotated with.
 *
 * As in transformers, a token's rotation depends on its position and, for two
 * kinds, on how many tokens the forward pass that computes it has seen: all
 * of the prompt, or the generated tokens up to this one.  Up to the trained
 * length that makes no difference.  Beyond it, longrope has other factors, for
 * which there is a second set of rows; dynamic has another theta for each
 * length, whose rows are computed for the tokens of a step, behind the others.
 *
 *	  rows 0 .. n_short - 1		position of the row, trained length
 *	  rows n_short ..			longrope: position of the row - n_short
 *								dynamic: tokens of the step beyond it
 *
 * Keys that are cached keep the rotation they got.  That rotation follows from
 * the position and the prompt's length, so computing it again gives the same.
 *
 * Sliding layers may have a rotary embedding of their own: a second table with
 * the same rows.
 *
 * src/engine/model/rope_table.c
 */
#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "src/engine/model/model_internal.h"

/*
 * One row, of a position in a sequence of len tokens: rotary_dim / 2 cosines,
 * then as many sines.  Angles are products in single precision, as in
 * transformers.
 */
static void
fill_row(RopeTable *table, int32_t position, int32_t len, float *row)
{
	int32_t n = table->rope->rotary_dim / 2;

	if (table->len != len)
		model_rope_frequencies(table->rope, len, table->inv_freq,
							   &table->attention_factor);
	table->len = len;
	for (int32_t i = 0; i < n; i++)
	{
		double angle = (float) position * table->inv_freq[i];

		row[i] = (float) cos(angle) * table->attention_factor;
		row[n + i] = (float) sin(angle) * table->attention_factor;
	}
}

/* Rows first .. first + n - 1, of positions 0 .. n - 1. */
static bool
write_rows(LlmModel *model, RopeTable *table, int32_t first, int32_t n,
		   int32_t len, LlmError *err)
{
	const LlmComputeOps *ops = model->compute->ops;
	size_t dim = (size_t) table->rope->rotary_dim;

	for (int32_t at = 0; at < n;)
	{
		int32_t end =
			n - at < model->rope.n_staged ? n : at + model->rope.n_staged;
		size_t n_floats = (size_t) (end - at) * dim;
		float *to = table->cos_sin + (size_t) (first + at) * dim;

		for (float *row = table->staging; at < end; at++, row += dim)
			fill_row(table, at, len, row);
		if (!ops->write(model->compute, to, table->staging,
						n_floats * sizeof(float), err) ||
			!ops->sync(model->compute, err))
			return false;
	}
	return true;
}

static bool
create_table(LlmModel *model, RopeTable *table, const LlmRopeConfig *rope,
			 LlmError *err)
{
	const RopeRows *rows = &model->rope;
	int32_t n_rows =
		rows->n_short + (rows->n_long > 0 ? rows->n_long : rows->n_step);
	size_t row_bytes = (size_t) rope->rotary_dim * sizeof(float);

	assert(rope->rotary_dim > 0 && rope->rotary_dim % 2 == 0);
	assert(rope->rotary_dim <= LLM_MAX_HEAD_DIM);
	table->rope = rope;
	table->staging = malloc((size_t) rows->n_staged * row_bytes);
	if (table->staging == NULL)
		return llm_error_no_memory(err, (size_t) rows->n_staged * row_bytes,
								   "the rotary table");
	table->cos_sin = model->compute->ops->alloc(
		model->compute, (size_t) n_rows * row_bytes, "the rotary table", err);
	model->workspace_bytes += (size_t) n_rows * row_bytes;
	return table->cos_sin != NULL &&
		   write_rows(model, table, 0, rows->n_short, rows->n_short, err) &&
		   write_rows(model, table, rows->n_short, rows->n_long, INT32_MAX,
					  err);
}

bool
model_rope_create(LlmModel *model, LlmError *err)
{
	const LlmModelConfig *config = &model->config;
	const LlmModelOptions *options = &model->options;
	RopeRows *rows = &model->rope;

	if (config->has_sliding_rope &&
		llm_rope_depends_on_length(&config->sliding_rope))
		return llm_error_set(err, LLM_ERROR_UNSUPPORTED,
							 "rotary embedding \"%s\" in sliding layers alone "
							 "is not supported",
							 llm_rope_kind_name(config->sliding_rope.kind));
	rows->n_short = options->max_model_len;
	if (llm_rope_depends_on_length(&config->rope) &&
		config->rope.original_max_position < options->max_model_len)
	{
		rows->n_short = config->rope.original_max_position;
		if (config->rope.kind == LLM_ROPE_LONGROPE)
			rows->n_long = options->max_model_len;
		else
			rows->n_step = options->max_num_batched_tokens;
	}
	rows->n_staged = options->max_num_batched_tokens;
	rows->of_tokens =
		malloc((size_t) options->max_num_batched_tokens * sizeof(int32_t));
	if (rows->of_tokens == NULL)
		return llm_error_no_memory(
			err, (size_t) options->max_num_batched_tokens * sizeof(int32_t),
			"the rotary table");
	return create_table(model, &rows->table, &config->rope, err) &&
		   (!config->has_sliding_rope ||
			create_table(model, &rows->sliding_table, &config->sliding_rope,
						 err));
}

static void
free_table(LlmModel *model, RopeTable *table)
{
	if (table->cos_sin != NULL)
		model->compute->ops->free(model->compute, table->cos_sin);
	free(table->staging);
}

void
model_rope_free(LlmModel *model)
{
	free_table(model, &model->rope.table);
	free_table(model, &model->rope.sliding_table);
	free(model->rope.of_tokens);
}

/* The step's own rows, of n tokens, are complete on the host. */
static bool
write_step_rows(LlmModel *model, RopeTable *table, int32_t n, LlmError *err)
{
	size_t dim = (size_t) table->rope->rotary_dim;

	return model->compute->ops->write(
		model->compute, table->cos_sin + (size_t) model->rope.n_short * dim,
		table->staging, (size_t) n * dim * sizeof(float), err);
}

bool
llm_model_rotate_step(LlmModel *model, LlmStepInputs *step,
					  const int32_t *rope_len, LlmError *err)
{
	RopeRows *rows = &model->rope;
	RopeTable *tables[] = { &rows->table, &rows->sliding_table };
	int n_tables = model->config.has_sliding_rope ? 2 : 1;
	int32_t n_own = 0; /* rows computed for this step */

	assert(step->n_tokens <= model->options.max_num_batched_tokens);
	step->rope_rows = rows->of_tokens;
	for (int32_t t = 0; t < step->n_tokens; t++)
	{
		int32_t position = step->positions[t];
		int32_t len = rope_len[step->token_seq[t]];

		assert(position < model->options.max_model_len);
		if (len <= position)
			len = position + 1;
		rows->of_tokens[t] = position;
		if (len <= rows->n_short)
			continue;
		rows->of_tokens[t] = rows->n_short + position;
		if (rows->n_long > 0)
			continue;
		rows->of_tokens[t] = rows->n_short + n_own;
		for (int i = 0; i < n_tables; i++)
			fill_row(tables[i], position, len,
					 tables[i]->staging +
						 (size_t) n_own * (size_t) tables[i]->rope->rotary_dim);
		n_own++;
	}
	for (int i = 0; n_own > 0 && i < n_tables; i++)
	{
		if (!write_step_rows(model, tables[i], n_own, err))
			return false;
	}
	return true;
}

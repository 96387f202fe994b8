/*
 * train_experts.c
 *	  The projections of a mixture's experts with their pairs, there and back.
 *
 * An expert's entries lie side by side, so that each of its products takes a
 * few rows of the entries' arrays.  What an entry says counts by its share s_e
 * of the token's output: derivatives that go on to x are weighed when entries
 * are added up, but gradients of A and B need it here,
 *
 *	  d_B += s sum of s_e d_y^T u, d_A += sum of s_e d_u^T x, d_u = s d_y B
 *
 * and the factor is put where numbers are few, into u and d_u.
 *
 * src/engine/train/train_experts.c
 */
#include <assert.h>

#include "src/engine/train/train_internal.h"

/* An expert's module and its entries. */
typedef struct Expert
{
	int32_t idx;
	int64_t first;
	int32_t n;
	const LlmMatrix *stored;
	const TrainPair *pair; /* or NULL */
	void *shrunk;		   /* [n, rank] */
	void *d_shrunk;
} Expert;

TrainPair **
train_expert_pair(const LlmTrainer *t, int32_t layer_idx,
				  LlmAdapterModule module, int32_t expert_idx)
{
	int32_t which = (int32_t) module - LLM_ADAPTER_EXPERT_GATE;

	assert(llm_adapter_is_expert(module));
	assert(expert_idx >= 0 && expert_idx < t->config->n_experts);
	return &t->expert_pairs[((int64_t) layer_idx * N_EXPERT_MODULES + which) *
								t->config->n_experts +
							expert_idx];
}

static Expert
expert_at(const LlmTrainer *t, int32_t layer_idx, LlmAdapterModule module,
		  int32_t idx)
{
	const TrainMixture *m = &t->mixture;
	const int which = (int) module - LLM_ADAPTER_EXPERT_GATE;
	Expert expert = {
		.idx = idx,
		.first = m->first_entry[idx],
		.n = m->first_entry[idx + 1] - m->first_entry[idx],
		.stored = &llm_model_experts(
			t->model, llm_adapter_module_weight(module), layer_idx)[idx],
		.pair = *train_expert_pair(t, layer_idx, module, idx),
	};
	const int64_t at = expert.first * m->max_rank;

	if (expert.pair != NULL)
	{
		expert.shrunk = train_act_at(t, m->shrunk[which], at);
		expert.d_shrunk = train_act_at(t, m->d_shrunk[which], at);
	}
	return expert;
}

/* Of [entries, dim]: the expert's. */
static void *
rows_of(const LlmTrainer *t, const Expert *expert, const void *all, int64_t dim)
{
	return train_act_at(t, all, expert->first * dim);
}

/* out [expert's entries, n_cols] = scale * a b, or added */
static bool
entry_product(LlmTrainer *t, const Expert *expert, LlmOperand a, LlmOperand b,
			  LlmProductArgs args, LlmError *err)
{
	args.a = a;
	args.b = b;
	args.m = expert->n;
	args.out_dtype = t->compute->activation_dtype;
	args.out_stride = args.n;
	return t->train->product(t->compute, &args, err);
}

/* ------------------------------------------------------------------------
 * There
 * ------------------------------------------------------------------------
 */
static bool
shrink(LlmTrainer *t, const Expert *expert, const void *x, LlmError *err)
{
	const TrainPair *pair = expert->pair;

	return entry_product(t, expert,
						 train_act_operand(t, rows_of(t, expert, x, pair->n_in),
										   pair->n_in, false),
						 train_a_operand(t, pair, true),
						 (LlmProductArgs){ .n = pair->spec.rank,
										   .k = pair->n_in,
										   .scale = 1,
										   .out = expert->shrunk },
						 err);
}

static bool
expand(LlmTrainer *t, const Expert *expert, void *y, LlmError *err)
{
	const TrainPair *pair = expert->pair;

	return entry_product(
		t, expert, train_act_operand(t, expert->shrunk, pair->spec.rank, false),
		train_b_operand(t, pair, true),
		(LlmProductArgs){ .n = pair->n_out,
						  .k = pair->spec.rank,
						  .scale = pair->spec.scale,
						  .adds = true,
						  .out = rows_of(t, expert, y, pair->n_out) },
		err);
}

bool
train_experts_shrink(LlmTrainer *t, int32_t layer_idx, LlmAdapterModule module,
					 const void *x, LlmError *err)
{
	for (int32_t e = 0; e < t->config->n_experts; e++)
	{
		const Expert expert = expert_at(t, layer_idx, module, e);

		if (expert.n > 0 && expert.pair != NULL && !shrink(t, &expert, x, err))
			return false;
	}
	return true;
}

static bool
multiply(LlmTrainer *t, const Expert *expert, const void *x, void *y,
		 LlmError *err)
{
	const LlmMatrix *w = expert->stored;
	LlmLinearArgs args = {
		.x = rows_of(t, expert, x, w->n_cols),
		.n_rows = expert->n,
		.n_parts = 1,
	};

	args.part[0].out = rows_of(t, expert, y, w->n_rows);
	args.part[0].out_stride = w->n_rows;
	return train_weight(t, *w, &args.part[0].weight, err) &&
		   t->train->linear(t->compute, &args, err);
}

bool
train_experts(LlmTrainer *t, int32_t layer_idx, LlmAdapterModule module,
			  const void *x, void *y, LlmError *err)
{
	for (int32_t e = 0; e < t->config->n_experts; e++)
	{
		const Expert expert = expert_at(t, layer_idx, module, e);

		if (expert.n == 0)
			continue;
		if (!multiply(t, &expert, x, y, err) ||
			(expert.pair != NULL &&
			 (!shrink(t, &expert, x, err) || !expand(t, &expert, y, err))))
			return false;
	}
	return true;
}

/* ------------------------------------------------------------------------
 * Back
 * ------------------------------------------------------------------------
 */

/* t->mixture.weighed = rows [n, rank] of the expert by their shares */
static bool
weigh(LlmTrainer *t, const Expert *expert, const void *rows, LlmError *err)
{
	LlmCombineArgs args = {
		.x = rows,
		.entries = t->mixture.device_order,
		.factors = t->mixture.device_shares + expert->first,
		.out = t->mixture.weighed,
		.n_rows = expert->n,
		.n_entries = 1,
		.dim = expert->pair->spec.rank,
	};

	return t->train->combine(t->compute, &args, err);
}

/* A gradient [m, n] += scale a^T b, over the expert's entries. */
static bool
add_gradient(LlmTrainer *t, const Expert *expert, LlmOperand a, LlmOperand b,
			 LlmProductArgs args, LlmError *err)
{
	args.a = a;
	args.b = b;
	args.k = expert->n;
	args.adds = true;
	args.out_dtype = LLM_DTYPE_F32;
	args.out_stride = args.n;
	return t->train->product(t->compute, &args, err);
}

static bool
expert_slopes(LlmTrainer *t, const Expert *expert, const void *d_y,
			  const void *x, LlmError *err)
{
	const TrainPair *pair = expert->pair;
	const int32_t rank = pair->spec.rank;
	const LlmOperand weighed =
		train_act_operand(t, t->mixture.weighed, rank, false);
	const void *d_rows = rows_of(t, expert, d_y, pair->n_out);

	return weigh(t, expert, expert->shrunk, err) &&
		   add_gradient(t, expert,
						train_act_operand(t, d_rows, pair->n_out, true),
						weighed,
						(LlmProductArgs){ .m = pair->n_out,
										  .n = rank,
										  .scale = pair->spec.scale,
										  .out = t->gradients + pair->place.b },
						err) &&
		   entry_product(t, expert,
						 train_act_operand(t, d_rows, pair->n_out, false),
						 train_b_operand(t, pair, false),
						 (LlmProductArgs){ .n = rank,
										   .k = pair->n_out,
										   .scale = pair->spec.scale,
										   .out = expert->d_shrunk },
						 err) &&
		   weigh(t, expert, expert->d_shrunk, err) &&
		   add_gradient(t, expert,
						train_act_operand(t, t->mixture.weighed, rank, true),
						train_act_operand(t, rows_of(t, expert, x, pair->n_in),
										  pair->n_in, false),
						(LlmProductArgs){ .m = rank,
										  .n = pair->n_in,
										  .scale = 1,
										  .out = t->gradients + pair->place.a },
						err);
}

bool
train_experts_slopes(LlmTrainer *t, int32_t layer_idx, LlmAdapterModule module,
					 const void *d_y, const void *x, LlmError *err)
{
	for (int32_t e = 0; e < t->config->n_experts; e++)
	{
		const Expert expert = expert_at(t, layer_idx, module, e);

		if (expert.n > 0 && expert.pair != NULL &&
			!expert_slopes(t, &expert, d_y, x, err))
			return false;
	}
	return true;
}

/* d_x (+)= d_y W, and what reaches x through A */
static bool
expert_back(LlmTrainer *t, const Expert *expert, const void *d_y, void *d_x,
			bool adds, LlmError *err)
{
	const TrainPair *pair = expert->pair;
	LlmMatrix w;
	LlmProductArgs args = {
		.n = expert->stored->n_cols,
		.k = expert->stored->n_rows,
		.scale = 1,
		.adds = adds,
		.out = rows_of(t, expert, d_x, expert->stored->n_cols),
	};

	if (!train_weight(t, *expert->stored, &w, err) ||
		!entry_product(t, expert,
					   train_act_operand(t, rows_of(t, expert, d_y, w.n_rows),
										 w.n_rows, false),
					   (LlmOperand){ w.data, w.dtype, w.n_cols, false }, args,
					   err))
		return false;
	if (pair == NULL)
		return true;
	args.k = pair->spec.rank;
	args.adds = true;
	return entry_product(
		t, expert,
		train_act_operand(t, expert->d_shrunk, pair->spec.rank, false),
		train_a_operand(t, pair, false), args, err);
}

bool
train_experts_back(LlmTrainer *t, int32_t layer_idx, LlmAdapterModule module,
				   const void *d_y, void *d_x, bool adds, LlmError *err)
{
	for (int32_t e = 0; e < t->config->n_experts; e++)
	{
		const Expert expert = expert_at(t, layer_idx, module, e);

		if (expert.n > 0 && !expert_back(t, &expert, d_y, d_x, adds, err))
			return false;
	}
	return true;
}

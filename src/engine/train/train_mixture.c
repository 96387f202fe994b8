/*
 * train_mixture.c
 *	  The MLP of a mixture of experts, there and back.
 *
 * The router is not trained, and experts are where they have pairs
 * (train_experts.c).  A visit of a token to an expert is an entry; entries are
 * sorted by expert, so that each expert's are side by side.  Nothing is kept
 * for the way back: it routes the tokens once more and passes their entries up
 * to down's input.
 *
 * With y_e what expert e says of x, g its inputs of down, s_e the share:
 *
 *	  out = sum of s_e y_e,  d_s_e = d_out . y_e = (d_out W_down) . g
 *
 * (W_down with its pair, if it has one)
 * so that y_e itself is not needed again, and entries can be weighed with
 * their shares last, when they are added up to d_x.  Shares are a softmax,
 * over the chosen experts where these are renormalized (Jiang et al. 2024):
 *
 *	  d_logit_e = s_e (d_s_e - sum of s_k d_s_k)
 *
 * with, where they are not, all experts' probabilities before the bracket.
 * Routing is small and done on the host.
 *
 * src/engine/train/train_mixture.c
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "src/engine/train/train_internal.h"

bool
train_is_mixture(const LlmTrainer *t, int32_t layer_idx)
{
	return llm_layer_set_has(&t->config->expert_layers, layer_idx);
}

static int32_t
n_entries(const LlmTrainer *t)
{
	return t->batch->n_tokens * t->config->n_experts_per_token;
}

/* ------------------------------------------------------------------------
 * Routing
 * ------------------------------------------------------------------------
 */

/* Logits become probabilities. */
static void
soften(float *p, int32_t n)
{
	float most = p[0];
	double sum = 0;

	for (int32_t i = 1; i < n; i++)
		most = p[i] > most ? p[i] : most;
	for (int32_t i = 0; i < n; i++)
	{
		p[i] = expf(p[i] - most);
		sum += (double) p[i];
	}
	for (int32_t i = 0; i < n; i++)
		p[i] = (float) ((double) p[i] / sum);
}

/* Whether an expert is among the n_top most probable: of equals the first. */
static bool
is_chosen(const float *p, int32_t n_experts, int32_t expert, int32_t n_top)
{
	int32_t n_before = 0;

	for (int32_t i = 0; i < n_experts; i++)
		n_before += p[i] > p[expert] || (p[i] == p[expert] && i < expert);
	return n_before < n_top;
}

/* A token's experts, ascending. */
static void
choose_experts(LlmTrainer *t, int32_t token)
{
	TrainMixture *m = &t->mixture;
	const int32_t n_experts = t->config->n_experts;
	const int32_t n_top = t->config->n_experts_per_token;
	const float *p = m->probabilities + (int64_t) token * n_experts;
	int32_t *chosen = m->chosen + (int64_t) token * n_top;
	int32_t n = 0;

	for (int32_t e = 0; e < n_experts && n < n_top; e++)
	{
		/* numbers that are not finite leave nobody out for good */
		if (is_chosen(p, n_experts, e, n_top) || n_experts - e == n_top - n)
			chosen[n++] = e;
	}
	assert(n == n_top);
}

/* Entries by expert, those of an expert by token. */
static void
sort_entries(LlmTrainer *t)
{
	TrainMixture *m = &t->mixture;
	const int32_t n_top = t->config->n_experts_per_token;
	int32_t n = 0;

	for (int32_t e = 0; e < t->config->n_experts; e++)
	{
		m->first_entry[e] = n;
		for (int32_t i = 0; i < n_entries(t); i++)
		{
			if (m->chosen[i] != e)
				continue;
			m->entry_rows[n] = i / n_top;
			m->row_entries[i] = n++;
		}
	}
	m->first_entry[t->config->n_experts] = n;
	assert(n == n_entries(t));
}

static void
share_out(LlmTrainer *t, int32_t token)
{
	TrainMixture *m = &t->mixture;
	const int32_t n_top = t->config->n_experts_per_token;
	const float *p = m->probabilities + (int64_t) token * t->config->n_experts;
	const int32_t *chosen = m->chosen + (int64_t) token * n_top;
	double sum = 0;

	for (int32_t k = 0; k < n_top; k++)
		sum += (double) p[chosen[k]];
	if (!t->config->renormalizes_experts)
		sum = 1;
	for (int32_t k = 0; k < n_top; k++)
		m->shares[m->row_entries[token * n_top + k]] =
			(float) ((double) p[chosen[k]] / sum);
}

/* What a layer adds to the routers' loss; the same each time it is passed. */
static void
count_visits(LlmTrainer *t, int32_t layer_idx)
{
	TrainMixture *m = &t->mixture;
	const int32_t n_experts = t->config->n_experts;
	double *visits = m->visits + (int64_t) layer_idx * n_experts;
	double *sums = m->probability_sums + (int64_t) layer_idx * n_experts;

	for (int32_t e = 0; e < n_experts; e++)
	{
		visits[e] = m->first_entry[e + 1] - m->first_entry[e];
		sums[e] = 0;
		for (int32_t i = 0; i < t->batch->n_tokens; i++)
			sums[e] += (double) m->probabilities[(int64_t) i * n_experts + e];
	}
}

/* Of all mixtures together; a dense layer has counted none. */
static double
sum_of_layers(const LlmTrainer *t, const double *numbers, int32_t expert_idx)
{
	double sum = 0;

	for (int32_t i = 0; i < t->config->n_layers; i++)
		sum += numbers[(int64_t) i * t->config->n_experts + expert_idx];
	return sum;
}

/* Tokens, once for each mixture that they passed. */
static double
n_routed(const LlmTrainer *t)
{
	double n_visits = 0;

	for (int32_t e = 0; e < t->config->n_experts; e++)
		n_visits += sum_of_layers(t, t->mixture.visits, e);
	return n_visits / t->config->n_experts_per_token;
}

double
llm_trainer_router_loss(const LlmTrainer *t)
{
	const TrainMixture *m = &t->mixture;
	const double n = t->config->n_experts > 0 ? n_routed(t) : 0;
	double loss = 0;

	if (n == 0)
		return 0;
	for (int32_t e = 0; e < t->config->n_experts; e++)
		loss += sum_of_layers(t, m->visits, e) / n *
				(sum_of_layers(t, m->probability_sums, e) / n);
	return loss * t->config->n_experts;
}

/* Choose the experts of x [n_tokens, hidden]. */
static bool
route(LlmTrainer *t, int32_t layer_idx, const void *x, LlmError *err)
{
	TrainMixture *m = &t->mixture;
	const int32_t n = t->batch->n_tokens;
	const int32_t n_experts = t->config->n_experts;
	const size_t n_logits = (size_t) n * (size_t) n_experts;
	const size_t n_bytes = (size_t) n_entries(t) * sizeof(int32_t);
	LlmLinearArgs router = {
		.x = x, .n_rows = n, .n_parts = 1, .out_is_f32 = true
	};

	router.part[0].weight =
		llm_model_matrix(t->model, LLM_WEIGHT_ROUTER, layer_idx);
	router.part[0].out = m->device_logits;
	router.part[0].out_stride = n_experts;
	if (!t->train->linear(t->compute, &router, err) ||
		!t->ops->read(t->compute, m->probabilities, m->device_logits,
					  n_logits * sizeof(float), err))
		return false;
	for (int32_t i = 0; i < n; i++)
	{
		soften(m->probabilities + (int64_t) i * n_experts, n_experts);
		choose_experts(t, i);
	}
	sort_entries(t);
	for (int32_t i = 0; i < n; i++)
		share_out(t, i);
	count_visits(t, layer_idx);
	return t->ops->write(t->compute, m->device_entry_rows, m->entry_rows,
						 n_bytes, err) &&
		   t->ops->write(t->compute, m->device_row_entries, m->row_entries,
						 n_bytes, err) &&
		   t->ops->write(t->compute, m->device_shares, m->shares, n_bytes,
						 err) &&
		   (m->max_rank == 0 || t->ops->write(t->compute, m->device_order,
											  m->order, n_bytes, err)) &&
		   t->ops->sync(t->compute, err);
}

/* ------------------------------------------------------------------------
 * Experts
 * ------------------------------------------------------------------------
 */
static bool
gather_entries(LlmTrainer *t, const void *x, void *out, LlmError *err)
{
	LlmGatherArgs args = {
		.x = x,
		.rows = t->mixture.device_entry_rows,
		.out = out,
		.n_rows = n_entries(t),
		.dim = t->config->hidden_size,
	};

	return t->ops->gather(t->compute, &args, err);
}

/* out[token] = the sum of its entries, by their shares */
static bool
combine_entries(LlmTrainer *t, const void *x, void *out, LlmError *err)
{
	LlmCombineArgs args = {
		.x = x,
		.entries = t->mixture.device_row_entries,
		.factors = t->mixture.device_shares,
		.out = out,
		.n_rows = t->batch->n_tokens,
		.n_entries = t->config->n_experts_per_token,
		.dim = t->config->hidden_size,
	};

	return t->train->combine(t->compute, &args, err);
}

/* Route x, and pass its entries up to the input of down. */
static bool
pass_entries(LlmTrainer *t, int32_t layer_idx, const void *x, LlmError *err)
{
	TrainMixture *m = &t->mixture;
	LlmGatedActArgs act = {
		.gate = m->gate,
		.up = m->up,
		.out = m->inner,
		.in_stride = t->config->expert_intermediate_size,
		.n_rows = n_entries(t),
		.dim = t->config->expert_intermediate_size,
		.activation = llm_model_activation(t->model),
	};

	return route(t, layer_idx, x, err) && gather_entries(t, x, m->x, err) &&
		   train_experts(t, layer_idx, LLM_ADAPTER_EXPERT_GATE, m->x, m->gate,
						 err) &&
		   train_experts(t, layer_idx, LLM_ADAPTER_EXPERT_UP, m->x, m->up,
						 err) &&
		   t->ops->gated_act(t->compute, &act, err);
}

bool
train_mixture(LlmTrainer *t, int32_t layer_idx, const void *x, void *out,
			  LlmError *err)
{
	TrainMixture *m = &t->mixture;

	return pass_entries(t, layer_idx, x, err) &&
		   train_experts(t, layer_idx, LLM_ADAPTER_EXPERT_DOWN, m->inner, m->y,
						 err) &&
		   combine_entries(t, m->y, out, err);
}

/* ------------------------------------------------------------------------
 * Back
 * ------------------------------------------------------------------------
 */

/*
 * What the routers' loss adds to the derivatives d [n_experts] of a token's
 * logits; slopes are its derivatives by any token's probabilities p.
 */
static void
add_router_slopes(const LlmTrainer *t, const double *slopes, const float *p,
				  double *d)
{
	double mean = 0;

	for (int32_t e = 0; e < t->config->n_experts; e++)
		mean += slopes[e] * (double) p[e];
	for (int32_t e = 0; e < t->config->n_experts; e++)
		d[e] += (double) p[e] * (slopes[e] - mean);
}

/*
 * The logits' derivatives of a token, in the place of its probabilities;
 * slopes NULL: the routers have no loss.
 */
static void
token_back(LlmTrainer *t, int32_t token, const double *slopes)
{
	TrainMixture *m = &t->mixture;
	const int32_t n_experts = t->config->n_experts;
	const int32_t n_top = t->config->n_experts_per_token;
	const int32_t *chosen = m->chosen + (int64_t) token * n_top;
	const int32_t *entries = m->row_entries + (int64_t) token * n_top;
	float *p = m->probabilities + (int64_t) token * n_experts;
	double d[LLM_MAX_EXPERTS];
	double mean = 0;
	int32_t k = 0;

	for (int32_t i = 0; i < n_top; i++)
		mean +=
			(double) m->shares[entries[i]] * (double) m->d_shares[entries[i]];
	for (int32_t e = 0; e < n_experts; e++)
	{
		const bool is_top = k < n_top && chosen[k] == e;
		const int32_t entry = is_top ? entries[k++] : -1;
		const double d_share = is_top ? (double) m->d_shares[entry] : 0;

		if (t->config->renormalizes_experts)
			d[e] = is_top ? (double) m->shares[entry] * (d_share - mean) : 0;
		else
			d[e] = (double) p[e] * (d_share - mean);
	}
	if (slopes != NULL)
		add_router_slopes(t, slopes, p, d);
	for (int32_t e = 0; e < n_experts; e++)
		p[e] = (float) d[e];
}

/* The routers' loss by a probability of each expert; false: it has no part. */
static bool
router_slopes(const LlmTrainer *t, double *slopes)
{
	const double coef = t->options.router_coef * t->batch->router_weight;
	const double n = n_routed(t);

	if (coef == 0)
		return false;
	for (int32_t e = 0; e < t->config->n_experts; e++)
		slopes[e] = coef * t->config->n_experts *
					sum_of_layers(t, t->mixture.visits, e) / (n * n);
	return true;
}

/* d_x += what reaches x through the router. */
static bool
route_back(LlmTrainer *t, int32_t layer_idx, void *d_x, LlmError *err)
{
	TrainMixture *m = &t->mixture;
	double slopes[LLM_MAX_EXPERTS];
	const bool has_slopes = router_slopes(t, slopes);
	const LlmMatrix router =
		llm_model_matrix(t->model, LLM_WEIGHT_ROUTER, layer_idx);
	LlmRowDotsArgs dots = {
		.a = m->d_inner,
		.b = m->inner,
		.out = m->device_shares,
		.n_rows = n_entries(t),
		.dim = t->config->expert_intermediate_size,
	};
	LlmProductArgs args = {
		.a = { m->device_logits, LLM_DTYPE_F32, router.n_rows, false },
		.b = { router.data, router.dtype, router.n_cols, false },
		.m = t->batch->n_tokens,
		.n = router.n_cols,
		.k = router.n_rows,
		.scale = 1,
		.adds = true,
		.out = d_x,
		.out_dtype = t->compute->activation_dtype,
		.out_stride = router.n_cols,
	};

	if (!t->train->row_dots(t->compute, &dots, err) ||
		!t->ops->read(t->compute, m->d_shares, m->device_shares,
					  (size_t) n_entries(t) * sizeof(float), err))
		return false;
	for (int32_t i = 0; i < t->batch->n_tokens; i++)
		token_back(t, i, has_slopes ? slopes : NULL);
	return t->ops->write(t->compute, m->device_logits, m->probabilities,
						 (size_t) (args.m * args.k) * sizeof(float), err) &&
		   t->ops->sync(t->compute, err) &&
		   t->train->product(t->compute, &args, err);
}

bool
train_mixture_back(LlmTrainer *t, int32_t layer_idx, const void *x,
				   const void *d_out, void *d_x, LlmError *err)
{
	TrainMixture *m = &t->mixture;
	LlmGatedActBackArgs act = {
		.gate = m->gate,
		.up = m->up,
		.d_out = m->d_inner,
		.d_gate = m->gate,
		.d_up = m->up,
		.n = (int64_t) n_entries(t) * t->config->expert_intermediate_size,
		.activation = llm_model_activation(t->model),
	};

	return pass_entries(t, layer_idx, x, err) &&
		   gather_entries(t, d_out, m->y, err) &&
		   train_experts_shrink(t, layer_idx, LLM_ADAPTER_EXPERT_DOWN, m->inner,
								err) &&
		   train_experts_slopes(t, layer_idx, LLM_ADAPTER_EXPERT_DOWN, m->y,
								m->inner, err) &&
		   train_experts_back(t, layer_idx, LLM_ADAPTER_EXPERT_DOWN, m->y,
							  m->d_inner, false, err) &&
		   t->train->gated_act_back(t->compute, &act, err) &&
		   train_experts_slopes(t, layer_idx, LLM_ADAPTER_EXPERT_GATE, m->gate,
								m->x, err) &&
		   train_experts_slopes(t, layer_idx, LLM_ADAPTER_EXPERT_UP, m->up,
								m->x, err) &&
		   train_experts_back(t, layer_idx, LLM_ADAPTER_EXPERT_GATE, m->gate,
							  m->x, false, err) &&
		   train_experts_back(t, layer_idx, LLM_ADAPTER_EXPERT_UP, m->up, m->x,
							  true, err) &&
		   combine_entries(t, m->x, d_x, err) &&
		   route_back(t, layer_idx, d_x, err);
}

/*
 * model_dora.c
 *	  The gains of rows that DoRA's magnitudes stand for.
 *
 * The norm of a row of W + B A, where rows of W and A are vectors and b is the
 * row of B, follows from products that share their factors over all rows:
 *
 *	  |w + b A|^2 = |w|^2 + 2 b (A w) + b (A A^T) b
 *
 * A w, by far the most work, is a linear operation with the rows of A for x: a
 * CPU backend of our own does it, with one thread, since steps go on
 * meanwhile.  Weights come from where they were loaded from, some rows at a
 * time, as f32.
 *
 * src/engine/model/model_dora.c
 */
#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "src/engine/model/model_internal.h"

/* Elements of W that are looked at together, unless a row has more. */
#define STAGED_ELEMENTS ((int64_t) 1 << 18)

struct DoraWork
{
	const LlmModel *model;
	LlmCompute *compute;
};

/* The rows of a weight that are looked at together. */
typedef struct DoraRows
{
	const LlmAdapterPair *pair;
	const PairNumbers *numbers;
	WeightSource source;
	int64_t n_staged;
	float *weight;	  /* [n_staged, n_in] */
	float *projected; /* [rank, n_staged] A w */
	double *gram;	  /* [rank, rank] A A^T */
} DoraRows;

static int32_t
max_int32(int32_t a, int32_t b)
{
	return a > b ? a : b;
}

DoraWork *
model_dora_create(const LlmModel *model, LlmError *err)
{
	const LlmModelConfig *config = &model->config;
	LlmComputeOptions options = {
		.precision = LLM_DTYPE_F32,
		.n_threads = 1,
		.max_rows = LLM_ADAPTER_MAX_RANK,
		.max_cols =
			max_int32(max_int32(config->hidden_size, config->intermediate_size),
					  config->n_heads * config->head_dim),
		.max_seqs = 1,
		.max_context_len = 1,
		.max_heads = 1,
		.max_vocab = 1,
	};
	DoraWork *work = calloc(1, sizeof(*work));

	if (work == NULL)
	{
		llm_error_no_memory(err, sizeof(*work), "an adapter's magnitudes");
		return NULL;
	}
	work->model = model;
	work->compute = llm_compute_cpu_open(&options, err);
	if (work->compute != NULL)
		return work;
	free(work);
	return NULL;
}

void
model_dora_free(DoraWork *work)
{
	if (work == NULL)
		return;
	work->compute->ops->close(work->compute);
	free(work);
}

static LlmWeightRole
role_of(const LlmModelConfig *config, LlmAdapterModule module)
{
	if (module == LLM_ADAPTER_LM_HEAD && config->tie_word_embeddings)
		return LLM_WEIGHT_EMBED;
	return llm_adapter_module_weight(module);
}

static WeightSource
source_of(const LlmModel *model, const LlmAdapterPair *pair)
{
	LlmWeightRole role = role_of(&model->config, pair->module);
	WeightSource source = { 0 };
	LlmWeightSpec spec;
	bool found = false;

	for (int i = 0; !found && llm_model_weight_spec(&model->config, i, &spec);
		 i++)
	{
		found = spec.role == role && spec.layer_idx == pair->layer_idx;
		if (found)
			source = model_weight_source(model, &spec, i);
	}
	assert(found && spec.n_rows == pair->n_out && spec.n_cols == pair->n_in);
	source.dtype = LLM_DTYPE_F32;
	source.dummy.dtype = LLM_DTYPE_F32;
	return source;
}

static double
dot(const float *a, const float *b, int64_t n)
{
	/* sums of their own, so that they are done side by side */
	float sums[16] = { 0 };
	double total = 0;

	for (int64_t i = 0; i + 16 <= n; i += 16)
	{
		for (int k = 0; k < 16; k++)
			sums[k] += a[i + k] * b[i + k];
	}
	for (int64_t i = n / 16 * 16; i < n; i++)
		total += (double) a[i] * (double) b[i];
	for (int k = 0; k < 16; k++)
		total += (double) sums[k];
	return total;
}

static void
fill_gram(DoraRows *rows)
{
	const LlmAdapterPair *pair = rows->pair;

	for (int32_t i = 0; i < pair->rank; i++)
	{
		for (int32_t k = 0; k <= i; k++)
		{
			double value =
				dot(rows->numbers->down + i * pair->n_in,
					rows->numbers->down + k * pair->n_in, pair->n_in);

			rows->gram[i * pair->rank + k] = value;
			rows->gram[k * pair->rank + i] = value;
		}
	}
}

/* |w + b A| of the staged row, which is row "row" of the weight. */
static double
row_norm(const DoraRows *rows, int64_t staged, int64_t row)
{
	const LlmAdapterPair *pair = rows->pair;
	const float *w = rows->weight + staged * pair->n_in;
	const float *b = rows->numbers->up + row * pair->rank;
	double sum = dot(w, w, pair->n_in);

	for (int32_t i = 0; i < pair->rank; i++)
	{
		const double *gram = rows->gram + i * pair->rank;
		double inner =
			2 * (double) rows->projected[i * rows->n_staged + staged];

		for (int32_t k = 0; k < pair->rank; k++)
			inner += gram[k] * (double) b[k];
		sum += (double) b[i] * inner;
	}
	return sqrt(fmax(sum, 0));
}

static bool
gain_of_rows(DoraWork *work, DoraRows *rows, int64_t first, LlmError *err)
{
	const LlmAdapterPair *pair = rows->pair;
	int64_t n_left = pair->n_out - first;
	int64_t n = n_left < rows->n_staged ? n_left : rows->n_staged;
	LlmLinearArgs args = { .x = rows->numbers->down,
						   .n_rows = pair->rank,
						   .n_parts = 1 };

	weight_source_fill(&rows->source, first * pair->n_in, n * pair->n_in,
					   rows->weight);
	args.part[0].weight =
		(LlmMatrix){ rows->weight, LLM_DTYPE_F32, n, pair->n_in };
	args.part[0].out = rows->projected;
	args.part[0].out_stride = rows->n_staged;
	if (!work->compute->ops->linear(work->compute, &args, err))
		return false;
	for (int64_t i = 0; i < n; i++)
	{
		float *gain = &rows->numbers->gain[first + i];
		double norm = row_norm(rows, i, first + i);

		if (norm == 0)
			return llm_error_set(err, LLM_ERROR_FORMAT,
								 "row %lld of \"layers.%d.%s\" is zero with "
								 "this adapter, so that its magnitude means "
								 "nothing",
								 (long long) (first + i), pair->layer_idx,
								 llm_adapter_module_name(pair->module));
		*gain = (float) ((double) *gain / norm);
	}
	return true;
}

bool
model_dora_gain(DoraWork *work, const LlmAdapterPair *pair,
				const PairNumbers *numbers, LlmError *err)
{
	DoraRows rows = { .pair = pair, .numbers = numbers };
	size_t n_gram = (size_t) pair->rank * (size_t) pair->rank;
	size_t n_floats;
	bool ok = true;

	rows.source = source_of(work->model, pair);
	rows.n_staged = STAGED_ELEMENTS / pair->n_in;
	if (rows.n_staged < 1)
		rows.n_staged = 1;
	n_floats = (size_t) (rows.n_staged * (pair->n_in + pair->rank));
	rows.gram = malloc(n_gram * sizeof(double) + n_floats * sizeof(float));
	if (rows.gram == NULL)
		return llm_error_no_memory(err, n_floats * sizeof(float),
								   "an adapter's magnitudes");
	rows.weight = (float *) (rows.gram + n_gram);
	rows.projected = rows.weight + rows.n_staged * pair->n_in;
	fill_gram(&rows);
	for (int64_t first = 0; ok && first < pair->n_out; first += rows.n_staged)
		ok = gain_of_rows(work, &rows, first, err);
	free(rows.gram);
	return ok;
}

/*
 * test_sample.c
 *	  Sampling: against a naive implementation that sorts, draw by draw, and
 *	  the distribution of many draws.
 *
 * The naive implementation computes in double over the whole vocabulary.  Its
 * borders may differ from the tested ones by rounding alone; a draw is right
 * when the point that Philox gives lies in the drawn token's interval of the
 * naive distribution, widened by that rounding.
 *
 * test/ops/test_sample.c
 */
#include "src/common/util/philox.h"
#include "test/ops/ops_test.h"

#define F32 LLM_DTYPE_F32

/* Interval borders are sums of f32 exponentials: 1e-6 of the whole. */
#define BORDER 2e-6

typedef struct Naive
{
	const LlmSampleRow *row;
	int n_vocab;
	double *logits;	 /* edited, divided by the temperature */
	double *weights; /* 0: cut */
	int *order;		 /* ids, most probable first */
	double total;
	double log_sum; /* of the raw logits */
} Naive;

static const double *compared;

static int
compare_ids(const void *a, const void *b)
{
	int x = *(const int *) a;
	int y = *(const int *) b;

	if (compared[x] != compared[y])
		return compared[x] > compared[y] ? -1 : 1;
	return x < y ? -1 : 1;
}

static void
naive_sort(Naive *n, const double *values)
{
	for (int i = 0; i < n->n_vocab; i++)
		n->order[i] = i;
	compared = values;
	qsort(n->order, (size_t) n->n_vocab, sizeof(int), compare_ids);
}

static void
naive_penalize(Naive *n)
{
	const LlmSampleRow *row = n->row;
	int *in_prompt = need((size_t) n->n_vocab * sizeof(int));
	int *in_output = need((size_t) n->n_vocab * sizeof(int));

	for (int i = 0; i < row->n_prompt; i++)
		in_prompt[row->prompt_ids[i]]++;
	for (int i = 0; i < row->n_output; i++)
		in_output[row->output_ids[i]]++;
	for (int i = 0; i < n->n_vocab; i++)
	{
		double *x = &n->logits[i];
		double repetition = (double) row->params.repetition_penalty;

		if (in_prompt[i] || in_output[i])
			*x = *x > 0 ? *x / repetition : *x * repetition;
		*x -= (double) row->params.frequency_penalty * in_output[i];
		*x -= (double) row->params.presence_penalty * (in_output[i] > 0);
	}
	free(in_prompt);
	free(in_output);
}

static void
naive_edit(Naive *n, const float *raw)
{
	const LlmSampleRow *row = n->row;
	double max = -INFINITY;
	double sum = 0;

	for (int i = 0; i < n->n_vocab; i++)
	{
		n->logits[i] = isfinite(raw[i]) ? (double) raw[i] : -INFINITY;
		max = n->logits[i] > max ? n->logits[i] : max;
	}
	for (int i = 0; i < n->n_vocab; i++)
		sum += exp(n->logits[i] - max);
	n->log_sum = max + log(sum);
	for (int i = 0; i < n->n_vocab; i++)
	{
		if (row->allowed_mask != NULL &&
			(row->allowed_mask[i / 32] >> (i % 32) & 1) == 0)
			n->logits[i] = -INFINITY;
	}
	for (int i = 0; i < row->n_forbidden; i++)
		n->logits[row->forbidden_ids[i]] = -INFINITY;
	for (int i = 0; i < row->n_bias; i++)
		n->logits[row->bias[i].token_id] += (double) row->bias[i].bias;
	naive_penalize(n);
}

/*
 * Temperature, min_p, top_k, top_p.  The cuts compare edited logits as f32:
 * whether two of them are equal is a question of their format.
 */
static void
naive_cut(Naive *n)
{
	const LlmSamplingParams *p = &n->row->params;
	double max;
	double kth;
	double sum = 0;
	double kept = 0;

	for (int i = 0; i < n->n_vocab; i++)
		n->logits[i] = (double) (float) n->logits[i];
	naive_sort(n, n->logits);
	max = n->logits[n->order[0]];
	kth = p->top_k > 0 && p->top_k < n->n_vocab
			  ? n->logits[n->order[p->top_k - 1]]
			  : -INFINITY;
	for (int i = 0; i < n->n_vocab; i++)
	{
		double w = exp((n->logits[i] - max) / (double) p->temperature);

		if (n->logits[i] < kth ||
			(p->min_p > 0 && w < (double) p->min_p * (1 - 1e-6)))
			w = 0;
		n->weights[i] = w;
		sum += w;
	}
	for (int i = 0; i < n->n_vocab; i++)
	{
		if (i > 0 && kept >= (double) p->top_p * sum)
			n->weights[n->order[i]] = 0;
		kept += n->weights[n->order[i]];
	}
	n->total = 0;
	for (int i = 0; i < n->n_vocab; i++)
		n->total += n->weights[i];
}

static Naive
naive_create(const LlmSampleRow *row, const float *raw, int n_vocab)
{
	Naive n = { .row = row, .n_vocab = n_vocab };

	n.logits = need((size_t) n_vocab * sizeof(double));
	n.weights = need((size_t) n_vocab * sizeof(double));
	n.order = need((size_t) n_vocab * sizeof(int));
	naive_edit(&n, raw);
	if (row->params.temperature >= 1e-5f)
		naive_cut(&n);
	else
		naive_sort(&n, n.logits);
	return n;
}

static void
naive_free(Naive *n)
{
	free(n->logits);
	free(n->weights);
	free(n->order);
}

static double
uniform_of(const LlmSampleRow *row)
{
	LlmPhilox r = llm_philox(row->params.seed, (uint64_t) row->n_output, 0);
	uint64_t bits = (uint64_t) r.word[0] << 32 | r.word[1];

	return (double) (bits >> 11) / 9007199254740992.0;
}

/*
 * At a top_p border rounding may keep one token more or less, which shifts
 * all intervals by that token's share.
 */
static double
border_slack(const Naive *n)
{
	double smallest = INFINITY;

	if (n->row->params.top_p >= 1)
		return BORDER;
	for (int i = 0; i < n->n_vocab; i++)
	{
		if (n->weights[i] > 0 && n->weights[i] < smallest)
			smallest = n->weights[i];
	}
	return smallest / n->total < 1e-4 ? smallest / n->total + BORDER : BORDER;
}

static void
check_draw(const Naive *n, const LlmSampleResult *result, const char *what)
{
	double point = uniform_of(n->row);
	double slack = border_slack(n);
	double before = 0;
	int id = result->token_id;

	if (id < 0 || id >= n->n_vocab)
	{
		CHECK_FAIL("%s: token %d", what, id);
		return;
	}
	for (int i = 0; i < id; i++)
		before += n->weights[i] / n->total;
	if (point < before - slack ||
		point > before + n->weights[id] / n->total + slack)
		CHECK_FAIL("%s: token %d has %.9f + %.9f, the point is %.9f", what, id,
				   before, n->weights[id] / n->total, point);
}

/* The sum of f32 exponentials, and the result's own rounding. */
static bool
is_logprob(float actual, double expected)
{
	return fabs((double) actual - expected) < 2e-6 + 1e-7 * fabs(expected);
}

static void
check_logprobs(Naive *n, const float *raw, const LlmSampleResult *result,
			   const char *what)
{
	int wanted = n->row->params.n_logprobs;
	double *values;

	if (wanted < 0)
	{
		CHECK(result->n_top == 0 && result->logprob == 0);
		return;
	}
	if (isfinite(raw[result->token_id]))
		CHECK(is_logprob(result->logprob,
						 (double) raw[result->token_id] - n->log_sum));
	else
		CHECK(n->row->is_forced && result->logprob == -INFINITY);
	values = need((size_t) n->n_vocab * sizeof(double));
	for (int i = 0; i < n->n_vocab; i++)
		values[i] = isfinite(raw[i]) ? (double) raw[i] : -INFINITY;
	naive_sort(n, values);
	if (wanted > n->n_vocab)
		wanted = n->n_vocab;
	while (wanted > 0 && values[n->order[wanted - 1]] == -INFINITY)
		wanted--;
	if (result->n_top != wanted)
		CHECK_FAIL("%s: %d alternatives, not %d", what, result->n_top, wanted);
	for (int i = 0; i < result->n_top; i++)
	{
		CHECK_INT_EQ(result->top_ids[i], n->order[i]);
		CHECK(is_logprob(result->top_logprobs[i],
						 values[n->order[i]] - n->log_sum));
	}
	free(values);
}

/* ------------------------------------------------------------------------
 * Random rows
 * ------------------------------------------------------------------------
 */
typedef struct RandomRow
{
	LlmSampleRow row;
	float *logits;
	int32_t ids[64];
	LlmLogitBias bias[8];
	uint32_t *mask;
} RandomRow;

enum
{
	SHAPE_PLAIN,
	SHAPE_PEAKED,
	SHAPE_FLAT,
	SHAPE_EQUAL,
	SHAPE_TIES,
	SHAPE_WIDE,
	N_SHAPES
};

static void
fill_logits(float *logits, int n_vocab, int shape)
{
	for (int i = 0; i < n_vocab; i++)
	{
		float u = random_float();

		switch (shape)
		{
			case SHAPE_PLAIN:
				logits[i] = u * 8;
				break;
			case SHAPE_PEAKED:
				logits[i] = u * u * u * u * u * 25;
				break;
			case SHAPE_FLAT:
				logits[i] = u * 0.01f;
				break;
			case SHAPE_EQUAL:
				logits[i] = 1.5f;
				break;
			case SHAPE_TIES:
				logits[i] = (float) random_int(0, 12) * 0.5f;
				break;
			default:
				logits[i] = u * 3000;
				break;
		}
	}
	if (random_int(0, 3) == 0 && n_vocab > 3)
	{
		logits[random_int(0, n_vocab - 1)] = -INFINITY;
		logits[random_int(0, n_vocab - 1)] = NAN;
		logits[random_int(0, n_vocab - 1)] = INFINITY;
	}
}

static void
random_params(LlmSamplingParams *p, int n_vocab)
{
	static const float temperatures[] = { 1, 0.3f, 0.7f, 2, 10, 0 };
	static const float top_ps[] = { 1, 1, 0.9f, 0.5f, 0.05f, 0.999f };

	*p = llm_sampling_params_default();
	p->temperature = temperatures[random_int(0, 5)];
	p->top_p = top_ps[random_int(0, 5)];
	p->top_k = random_int(0, 2) == 0 ? random_int(1, n_vocab + 2) : 0;
	if (random_int(0, 3) == 0)
		p->top_k = random_int(1, 40);
	p->min_p = random_int(0, 2) == 0 ? 0.07f : 0;
	p->n_logprobs = random_int(-1, 20);
	p->seed = (uint64_t) random_u32() << 32 | random_u32();
}

static RandomRow *
random_row_create(int n_vocab)
{
	RandomRow *r = need(sizeof(*r));
	bool edits = random_int(0, 1) == 1;

	r->logits = need((size_t) n_vocab * sizeof(float));
	fill_logits(r->logits, n_vocab, random_int(0, N_SHAPES - 1));
	random_params(&r->row.params, n_vocab);
	for (int i = 0; i < 64; i++)
		r->ids[i] = random_int(0, n_vocab < 20 ? n_vocab - 1 : 19);
	r->row.prompt_ids = r->ids;
	r->row.n_prompt = random_int(0, 30);
	r->row.output_ids = r->ids + 30;
	r->row.n_output = random_int(0, 34);
	if (random_int(0, 7) == 0)
	{
		r->row.is_forced = true;
		r->row.forced_id = random_int(0, n_vocab - 1);
		return r;
	}
	if (!edits)
		return r;
	r->row.params.repetition_penalty = random_int(0, 1) ? 1.3f : 1;
	r->row.params.frequency_penalty = random_int(0, 1) ? 0.4f : 0;
	r->row.params.presence_penalty = random_int(0, 1) ? -0.7f : 0;
	r->row.n_bias = random_int(0, 3);
	r->row.bias = r->bias;
	for (int i = 0; i < 8; i++)
		r->bias[i] =
			(LlmLogitBias){ random_int(0, n_vocab - 1), random_float() * 5 };
	r->row.forbidden_ids = r->ids;
	r->row.n_forbidden = n_vocab > 40 ? random_int(0, 3) : 0;
	if (random_int(0, 1) == 1 && n_vocab > 40)
	{
		r->mask = need((size_t) (n_vocab / 32 + 1) * sizeof(uint32_t));
		for (int i = 0; i < n_vocab / 32 + 1; i++)
			r->mask[i] = random_u32();
		r->row.allowed_mask = r->mask;
	}
	return r;
}

static void
random_row_free(RandomRow *r)
{
	free(r->logits);
	free(r->mask);
	free(r);
}

static bool
run_rows(LlmCompute *compute, RandomRow *const *rows, int n_rows, int n_vocab,
		 LlmSampleResult *results)
{
	float *logits = need((size_t) (n_rows * n_vocab) * sizeof(float));
	LlmSampleRow *args_rows = need((size_t) n_rows * sizeof(LlmSampleRow));
	LlmError err = { 0 };
	LlmSampleArgs args = { .logits = logits,
						   .n_rows = n_rows,
						   .n_vocab = n_vocab,
						   .rows = args_rows,
						   .results = results };
	bool ok;

	for (int i = 0; i < n_rows; i++)
	{
		args_rows[i] = rows[i]->row;
		memcpy(logits + (int64_t) i * n_vocab, rows[i]->logits,
			   (size_t) n_vocab * sizeof(float));
	}
	ok = compute->ops->sample(compute, &args, &err) &&
		 compute->ops->sync(compute, &err);
	free(logits);
	free(args_rows);
	return ok;
}

static void
check_row(RandomRow *r, int n_vocab, const LlmSampleResult *result,
		  const char *what)
{
	Naive n = naive_create(&r->row, r->logits, n_vocab);

	if (n.logits[n.order[0]] == -INFINITY)
		CHECK_INT_EQ(result->token_id, -1);
	else if (r->row.is_forced)
		CHECK_INT_EQ(result->token_id, r->row.forced_id);
	else if (r->row.params.temperature < 1e-5f)
	{
		/* ties may come from f32 rounding of the edits */
		if (n.logits[n.order[0]] - n.logits[result->token_id] > 1e-5)
			CHECK_FAIL("%s: token %d of logit %g, not %d of %g", what,
					   result->token_id, n.logits[result->token_id], n.order[0],
					   n.logits[n.order[0]]);
	}
	else
		check_draw(&n, result, what);
	if (result->token_id >= 0)
		check_logprobs(&n, r->logits, result, what);
	naive_free(&n);
}

#define N_ROWS 16

static void
check_random_rows(LlmCompute *compute, const char *isa, int n_vocab, int n)
{
	for (int done = 0; done < n; done += N_ROWS)
	{
		RandomRow *rows[N_ROWS];
		LlmSampleResult results[N_ROWS];

		for (int i = 0; i < N_ROWS; i++)
			rows[i] = random_row_create(n_vocab);
		CHECK(run_rows(compute, rows, N_ROWS, n_vocab, results));
		for (int i = 0; i < N_ROWS; i++)
		{
			LlmSampleResult alone;
			char what[100];

			snprintf(what, sizeof(what), "%s, %d tokens, row %d", isa, n_vocab,
					 done + i);
			check_row(rows[i], n_vocab, &results[i], what);
			/* the same alone: nothing leaks from row to row */
			CHECK(run_rows(compute, rows + i, 1, n_vocab, &alone));
			CHECK(alone.token_id == results[i].token_id &&
				  alone.logprob == results[i].logprob);
			random_row_free(rows[i]);
		}
	}
}

static void
test_against_naive(void)
{
	FOR_EACH_PATH(F32, 2)
	{
		check_random_rows(compute, isa, 1, 16);
		check_random_rows(compute, isa, 7, 96);
		check_random_rows(compute, isa, 50, 320);
		check_random_rows(compute, isa, 1000, 160);
	}
	FOR_EACH_PATH(F32, 3)
	check_random_rows(compute, isa, 128256, isa_ == 2 ? 32 : 16);
}

/* ------------------------------------------------------------------------
 * Exact cases
 * ------------------------------------------------------------------------
 */

/* One row of the first path: values are few. */
static LlmSampleResult
sample_one(const float *logits, int n_vocab, const LlmSampleRow *row)
{
	LlmCompute *compute = test_open(NULL, F32, 1);
	float *copy = need((size_t) n_vocab * sizeof(float));
	LlmSampleResult result = { .token_id = -2 };
	LlmError err = { 0 };
	LlmSampleArgs args = { .logits = copy,
						   .n_rows = 1,
						   .n_vocab = n_vocab,
						   .rows = row,
						   .results = &result };

	memcpy(copy, logits, (size_t) n_vocab * sizeof(float));
	CHECK(compute->ops->sample(compute, &args, &err));
	compute->ops->close(compute);
	free(copy);
	return result;
}

static LlmSampleRow
plain_row(float temperature, uint64_t seed)
{
	LlmSampleRow row = { .params = llm_sampling_params_default() };

	row.params.temperature = temperature;
	row.params.seed = seed;
	return row;
}

static void
test_greedy_ties(void)
{
	float logits[100];
	LlmSampleRow row = plain_row(0, 1);

	for (int first = 0; first < 100; first++)
	{
		for (int i = 0; i < 100; i++)
			logits[i] = i >= first && i % 7 == first % 7 ? 3 : 1;
		CHECK_INT_EQ(sample_one(logits, 100, &row).token_id, first);
	}
	logits[99] = 4;
	logits[5] = INFINITY;
	logits[6] = NAN;
	CHECK_INT_EQ(sample_one(logits, 100, &row).token_id, 99);
}

static void
test_no_token(void)
{
	static const float bad[3] = { NAN, INFINITY, -INFINITY };
	static const uint32_t nothing = 0;
	static const float good[3] = { 1, 2, 3 };

	for (int i = 0; i < 4; i++)
	{
		LlmSampleRow row = plain_row(i % 2 == 0 ? 0 : 1, 1);

		row.params.n_logprobs = i < 2 ? -1 : 5;
		CHECK_INT_EQ(sample_one(bad, 3, &row).token_id, -1);
		row.params.top_k = 2;
		row.params.top_p = 0.5f;
		CHECK_INT_EQ(sample_one(bad, 3, &row).token_id, -1);
		row.allowed_mask = &nothing;
		CHECK_INT_EQ(sample_one(good, 3, &row).token_id, -1);
	}
}

/* Which of the tokens are ever drawn. */
static unsigned
support(const float *logits, int n_vocab, LlmSampleRow row)
{
	unsigned seen = 0;

	for (uint64_t seed = 0; seed < 300; seed++)
	{
		row.params.seed = seed;
		seen |= 1u << sample_one(logits, n_vocab, &row).token_id;
	}
	return seen;
}

static void
test_cuts(void)
{
	static const float ties[6] = { 1, 2, 2, 2, 0, 1 };
	/* probabilities 0.4 0.3 0.2 0.1 */
	const float p[4] = { logf(0.2f), logf(0.4f), logf(0.1f), logf(0.3f) };
	LlmSampleRow row = plain_row(1, 0);

	/* top_k keeps everything that equals the k-th */
	row.params.top_k = 1;
	CHECK_INT_EQ(support(ties, 6, row), 0x0E);
	row.params.top_k = 4;
	CHECK_INT_EQ(support(ties, 6, row), 0x2F);
	row = plain_row(1, 0);
	row.params.top_p = 0.39f;
	CHECK_INT_EQ(support(p, 4, row), 0x2);
	row.params.top_p = 0.41f;
	CHECK_INT_EQ(support(p, 4, row), 0xA);
	row.params.top_p = 0.69f;
	CHECK_INT_EQ(support(p, 4, row), 0xA);
	row.params.top_p = 0.71f;
	CHECK_INT_EQ(support(p, 4, row), 0xB);
	row.params.top_p = 0.0001f;
	CHECK_INT_EQ(support(p, 4, row), 0x2);
	/* of equal ones the lower ids: 3 of 4 */
	row.params.top_p = 0.7f;
	CHECK_INT_EQ(support((const float[4]){ 0, 0, 0, 0 }, 4, row), 0x7);
	row = plain_row(1, 0);
	row.params.min_p = 0.49f; /* of 0.4: 0.196 */
	CHECK_INT_EQ(support(p, 4, row), 0xB);
	row.params.min_p = 0.51f;
	CHECK_INT_EQ(support(p, 4, row), 0xA);
	row.params.min_p = 1.0f;
	CHECK_INT_EQ(support(p, 4, row), 0x2);
	/* top_p counts what top_k has left: 0.4 / 0.7 */
	row = plain_row(1, 0);
	row.params.top_k = 2;
	row.params.top_p = 0.56f;
	CHECK_INT_EQ(support(p, 4, row), 0x2);
	row.params.top_p = 0.59f;
	CHECK_INT_EQ(support(p, 4, row), 0xA);
}

/* ids outside the vocabulary are skipped, not written to. */
static void
test_foreign_ids(void)
{
	static const float logits[3] = { 1, 2, 3 };
	static const int32_t ids[] = { -1, 3, 1000000, INT32_MAX, 2 };
	static const LlmLogitBias bias[] = { { -5, 1 }, { 3, 1 }, { 0, 9 } };
	LlmSampleRow row = plain_row(0, 1);

	row.prompt_ids = row.output_ids = row.forbidden_ids = ids;
	row.n_prompt = row.n_output = row.n_forbidden = 5;
	row.bias = bias;
	row.n_bias = 3;
	row.params.repetition_penalty = 2;
	CHECK_INT_EQ(sample_one(logits, 3, &row).token_id, 0);
}

/* ------------------------------------------------------------------------
 * The distribution of many draws
 * ------------------------------------------------------------------------
 */
#define N_DRAWS 20000

/*
 * Chi-square over tokens, rare ones (fewer than 5 expected) together.  Its
 * mean is the number of classes less one, its variance twice that; 6 standard
 * deviations are passed by chance once in many millions (the tail is a little
 * heavier than a normal one's), and seeds are fixed: a failure is no chance.
 */
static void
check_distribution(LlmCompute *compute, RandomRow *r, int n_vocab,
				   const char *what)
{
	Naive n = naive_create(&r->row, r->logits, n_vocab);
	int *counts = need((size_t) n_vocab * sizeof(int));
	RandomRow *rows[N_ROWS];
	LlmSampleResult results[N_ROWS];
	double chi_square = 0;
	double rare_expected = 0;
	double rare_count = 0;
	int n_classes = 0;

	for (int i = 0; i < N_ROWS; i++)
	{
		rows[i] = need(sizeof(RandomRow));
		*rows[i] = *r;
	}
	for (int done = 0; done < N_DRAWS; done += N_ROWS)
	{
		for (int i = 0; i < N_ROWS; i++)
			rows[i]->row.params.seed = (uint64_t) (done + i);
		CHECK(run_rows(compute, rows, N_ROWS, n_vocab, results));
		for (int i = 0; i < N_ROWS; i++)
			counts[results[i].token_id]++;
	}
	for (int i = 0; i < n_vocab; i++)
	{
		double expected = n.weights[i] / n.total * N_DRAWS;

		if (n.weights[i] == 0)
			CHECK_INT_EQ(counts[i], 0);
		if (expected < 5)
		{
			rare_expected += expected;
			rare_count += counts[i];
			continue;
		}
		n_classes++;
		chi_square +=
			(counts[i] - expected) * (counts[i] - expected) / expected;
	}
	if (rare_expected >= 5)
	{
		n_classes++;
		chi_square += (rare_count - rare_expected) *
					  (rare_count - rare_expected) / rare_expected;
	}
	if (chi_square > n_classes - 1 + 6 * sqrt(2.0 * n_classes))
		CHECK_FAIL("%s: chi-square %.1f of %d classes", what, chi_square,
				   n_classes);
	for (int i = 0; i < N_ROWS; i++)
		free(rows[i]);
	free(counts);
	naive_free(&n);
}

static RandomRow
distribution_row(float *logits, int n_vocab)
{
	RandomRow r = { .row = plain_row(1, 0), .logits = logits };

	for (int i = 0; i < n_vocab; i++)
		logits[i] = random_float() * 3;
	return r;
}

static void
test_distribution(void)
{
	LlmCompute *compute = test_open(NULL, F32, 2);
	static const int32_t output[] = { 1, 1, 2, 3, 1 };
	static const int32_t prompt[] = { 2, 9, 9 };
	static const LlmLogitBias bias[] = { { 5, 2.5f }, { 7, -1.5f } };
	static const uint32_t mask[] = { 0x0FF7F7F7, 0xFFFFFFFF, 0x7 };
	float logits[60];

	for (int i = 0; i < 10; i++)
	{
		RandomRow r = distribution_row(logits, 60);
		LlmSamplingParams *p = &r.row.params;
		char what[40];

		p->temperature = i == 1 ? 0.5f : i == 2 ? 3.0f : 1.0f;
		p->top_k = i == 3 || i == 9 ? 10 : 0;
		p->top_p = i == 4 || i == 9 ? 0.8f : 1.0f;
		p->min_p = i == 5 || i == 9 ? 0.05f : 0;
		if (i == 6 || i == 9)
		{
			p->repetition_penalty = 1.5f;
			p->frequency_penalty = 0.3f;
			p->presence_penalty = 0.2f;
			r.row.prompt_ids = prompt;
			r.row.n_prompt = 3;
			r.row.output_ids = output;
			r.row.n_output = 5;
		}
		if (i == 7 || i == 9)
		{
			r.row.bias = bias;
			r.row.n_bias = 2;
		}
		if (i == 8)
			r.row.allowed_mask = mask;
		snprintf(what, sizeof(what), "distribution %d", i);
		check_distribution(compute, &r, 60, what);
	}
	compute->ops->close(compute);
}

/* Steps of one request are independent: n_output is the counter. */
static void
test_steps(void)
{
	static const float logits[2] = { 0, 0 };
	static const int32_t ids[1000] = { 0 };
	LlmSampleRow row = plain_row(1, 12345);
	int ones = 0;
	int changes = 0;
	int last = 0;

	row.output_ids = ids;
	for (row.n_output = 0; row.n_output < 1000; row.n_output++)
	{
		int id = sample_one(logits, 2, &row).token_id;

		ones += id;
		changes += id != last;
		last = id;
	}
	/* fair and without memory: 500 +- 6 times sqrt(250) */
	CHECK(ones > 405 && ones < 595);
	CHECK(changes > 405 && changes < 595);
}

/* A step may name tokens that the last call draws, before they are known. */
static void
test_drawn_tokens(void)
{
	static const int32_t ids[5] = { 4, -1 - 2, 9, -1 - 0, 0 };
	static const int32_t start[6] = { 0, 1, 2, 3, 4, 5 };
	static const int32_t len[5] = { 1, 1, 1, 1, 1 };
	static const int32_t none[5];
	LlmStepInputs step = {
		.n_tokens = 5,
		.n_seqs = 5,
		.max_blocks_per_seq = 1,
		.max_query_len = 1,
		.max_context_len = 1,
		.token_ids = ids,
		.query_start = start,
		.context_len = len,
		.block_tables = none,
	};

	FOR_EACH_PATH(F32, 2)
	{
		float logits[3][8] = { { 0 } };
		LlmSampleRow rows[3] = { plain_row(0, 1), plain_row(0, 1),
								 plain_row(0, 1) };
		LlmSampleResult results[3];
		LlmSampleArgs args = { &logits[0][0], 3, 8, rows, results };
		LlmCompute *device = isa_ == N_ISAS ? mirrored(compute) : compute;
		LlmStepInputs uploaded;
		int32_t placed[5] = { 0 };
		LlmError err = { 0 };

		logits[0][6] = logits[1][1] = logits[2][3] = 1;
		CHECK(compute->ops->sample(compute, &args, &err));
		CHECK(compute->ops->step_upload(compute, &step, &uploaded, &err));
		CHECK(compute->ops->sample_wait(compute, &err));
		CHECK(device->ops->read(device, placed, uploaded.token_ids,
								sizeof(placed), &err));
		CHECK_INT_EQ(results[2].token_id, 3);
		CHECK_INT_EQ(placed[0], 4);
		CHECK_INT_EQ(placed[1], 3);
		CHECK_INT_EQ(placed[2], 9);
		CHECK_INT_EQ(placed[3], 6);
		CHECK_INT_EQ(placed[4], 0);
	}
}

int
main(void)
{
	RUN_TEST(skip_missing_isas);
	RUN_TEST(test_against_naive);
	RUN_TEST(test_greedy_ties);
	RUN_TEST(test_no_token);
	RUN_TEST(test_cuts);
	RUN_TEST(test_foreign_ids);
	RUN_TEST(test_distribution);
	RUN_TEST(test_steps);
	RUN_TEST(test_drawn_tokens);
	return unit_test_finish();
}

/*
 * cpu_sample.c
 *	  From logits to tokens.
 *
 * A row is copied to scratch (the caller's logits stay raw), edited, and cut
 * down to the tokens that may be drawn.  Nothing is sorted: top_k and top_p
 * first collect candidates above a guessed bound, which is lowered until it
 * holds enough of them, and then find their exact threshold with a histogram
 * over the values' bits, 11 + 11 + 10 of them.  The draw inverts the
 * cumulated distribution in the order of token ids.
 *
 * Logits that are not finite are impossible tokens.
 *
 * src/engine/compute/cpu_sample.c
 */
#include <assert.h>
#include <float.h>
#include <math.h>
#include <string.h>

#include "src/common/util/philox.h"
#include "src/engine/compute/cpu_internal.h"

/* Below this temperature the most probable token is taken. */
#define GREEDY_TEMPERATURE 1e-5f

/* Weights below e^-EXP_RANGE of the largest are nothing in a double's sum. */
#define EXP_RANGE 100.0f

/* Tokens whose weights are summed together when drawing from all. */
#define STRETCH 1024

#define N_BINS 2048

/* Marks a token of the prompt in the counts of output tokens. */
#define IN_PROMPT (1 << 30)

/* A thread's scratch; every array has max_vocab elements unless noted. */
typedef struct SampleScratch
{
	float *logits;	   /* the edited row */
	int32_t *ids;	   /* candidates, ascending */
	float *values;	   /* their logits */
	float *weights;	   /* their exp((logit - max) / temperature) */
	int32_t *counts;   /* zero between calls */
	double *bins;	   /* [N_BINS] */
	double *stretches; /* [max_vocab / STRETCH + 1] */
} SampleScratch;

typedef struct Sampler
{
	const LlmCpuVectorKernels *kernels;
	const LlmSampleRow *row;
	const float *raw;
	int64_t n_vocab;
	SampleScratch scratch;
	float max;			  /* largest edited logit */
	float scale;		  /* 1 / temperature */
	int64_t n_candidates; /* in ids and values */
} Sampler;

size_t
llm_cpu_sample_thread_bytes(const LlmComputeOptions *options)
{
	size_t n_vocab = (size_t) options->max_vocab;

	return 5 * ((n_vocab * 4 + 63) & ~(size_t) 63) + N_BINS * sizeof(double) +
		   ((n_vocab / STRETCH + 8) / 8 * 8) * sizeof(double);
}

static SampleScratch
carve_scratch(const LlmCpu *cpu, int thread_idx)
{
	size_t array = ((size_t) cpu->options.max_vocab * 4 + 63) & ~(size_t) 63;
	char *base =
		cpu->sample_scratch + (size_t) thread_idx * cpu->sample_thread_bytes;
	SampleScratch scratch = {
		.logits = (float *) base,
		.ids = (int32_t *) (base + array),
		.values = (float *) (base + 2 * array),
		.weights = (float *) (base + 3 * array),
		.counts = (int32_t *) (base + 4 * array),
		.bins = (double *) (base + 5 * array),
		.stretches = (double *) (base + 5 * array) + N_BINS,
	};

	return scratch;
}

static bool
is_token(const Sampler *s, int32_t id)
{
	return id >= 0 && id < s->n_vocab;
}

/* ------------------------------------------------------------------------
 * Editing
 * ------------------------------------------------------------------------
 */
/* Penalize each token once, and leave its count zero for the next call. */
static void
penalize(Sampler *s, const int32_t *ids, int32_t n)
{
	const LlmSamplingParams *params = &s->row->params;

	for (int32_t i = 0; i < n; i++)
	{
		int32_t count;
		float *logit;

		if (!is_token(s, ids[i]) || s->scratch.counts[ids[i]] == 0)
			continue;
		count = s->scratch.counts[ids[i]] & ~IN_PROMPT;
		s->scratch.counts[ids[i]] = 0;
		logit = &s->scratch.logits[ids[i]];
		*logit = *logit > 0 ? *logit / params->repetition_penalty
							: *logit * params->repetition_penalty;
		*logit -= params->frequency_penalty * (float) count;
		if (count > 0)
			*logit -= params->presence_penalty;
	}
}

static void
apply_penalties(Sampler *s)
{
	const LlmSampleRow *row = s->row;
	bool repetition = row->params.repetition_penalty != 1.0f;

	if (!repetition && row->params.presence_penalty == 0 &&
		row->params.frequency_penalty == 0)
		return;
	for (int32_t i = 0; i < row->n_output; i++)
	{
		if (is_token(s, row->output_ids[i]))
			s->scratch.counts[row->output_ids[i]]++;
	}
	for (int32_t i = 0; repetition && i < row->n_prompt; i++)
	{
		if (is_token(s, row->prompt_ids[i]))
			s->scratch.counts[row->prompt_ids[i]] |= IN_PROMPT;
	}
	penalize(s, row->output_ids, row->n_output);
	if (repetition)
		penalize(s, row->prompt_ids, row->n_prompt);
}

static void
edit_logits(Sampler *s)
{
	const LlmSampleRow *row = s->row;

	for (int32_t i = 0; i < row->n_forbidden; i++)
	{
		if (is_token(s, row->forbidden_ids[i]))
			s->scratch.logits[row->forbidden_ids[i]] = -INFINITY;
	}
	for (int32_t i = 0; i < row->n_bias; i++)
	{
		if (is_token(s, row->bias[i].token_id))
			s->scratch.logits[row->bias[i].token_id] += row->bias[i].bias;
	}
	apply_penalties(s);
}

/* Masks do not count: they are applied where a row is read. */
static bool
row_is_edited(const LlmSampleRow *row)
{
	const LlmSamplingParams *params = &row->params;

	return row->n_forbidden > 0 || row->n_bias > 0 ||
		   params->repetition_penalty != 1.0f ||
		   params->presence_penalty != 0 || params->frequency_penalty != 0;
}

/* ------------------------------------------------------------------------
 * Thresholds without sorting
 * ------------------------------------------------------------------------
 */

/* Floats as unsigned integers of the same order. */
static uint32_t
ordered_bits(float value)
{
	uint32_t bits;

	memcpy(&bits, &value, sizeof(bits));
	return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

static float
from_ordered_bits(uint32_t ordered)
{
	uint32_t bits = ordered & 0x80000000u ? ordered & 0x7FFFFFFFu : ~ordered;
	float value;

	memcpy(&value, &bits, sizeof(value));
	return value;
}

/*
 * The largest candidate value v so that the amounts of all candidates >= v
 * add up to target or more; the smallest value if they do not.  An amount is
 * a weight, or 1 where weights is NULL.  *above: the amounts of those > v.
 */
static float
find_threshold(Sampler *s, const float *weights, double target, double *above)
{
	static const int shifts[3] = { 21, 10, 0 };
	static const int widths[3] = { 11, 11, 10 };
	double *bins = s->scratch.bins;
	uint32_t prefix = 0; /* bits above the level's, found so far */

	assert(s->n_candidates > 0);
	*above = 0;
	for (int level = 0; level < 3; level++)
	{
		int shift = shifts[level];
		int n_bins = 1 << widths[level];
		int bin;
		int lowest = n_bins;

		memset(bins, 0, (size_t) n_bins * sizeof(double));
		for (int64_t i = 0; i < s->n_candidates; i++)
		{
			uint32_t key = ordered_bits(s->scratch.values[i]);

			if (level > 0 && (key >> shift >> widths[level]) != prefix)
				continue;
			bin = (int) (key >> shift) & (n_bins - 1);
			bins[bin] += weights == NULL ? 1.0 : (double) weights[i];
			lowest = bin < lowest ? bin : lowest;
		}
		assert(lowest < n_bins);
		for (bin = n_bins - 1; bin > lowest; bin--)
		{
			if (bins[bin] > 0 && *above + bins[bin] >= target)
				break;
			*above += bins[bin];
		}
		prefix = prefix << widths[level] | (uint32_t) bin;
	}
	return from_ordered_bits(prefix);
}

/* Take the tokens with a logit >= bound as candidates. */
static void
collect(Sampler *s, float bound)
{
	s->n_candidates = s->kernels->find_ge(s->scratch.logits, s->n_vocab, bound,
										  s->n_vocab, s->scratch.ids);
	for (int64_t i = 0; i < s->n_candidates; i++)
		s->scratch.values[i] = s->scratch.logits[s->scratch.ids[i]];
}

/* Drop candidates below bound; they are not weighed yet. */
static void
keep_ge(Sampler *s, float bound)
{
	int64_t n = 0;

	for (int64_t i = 0; i < s->n_candidates; i++)
	{
		if (!(s->scratch.values[i] >= bound))
			continue;
		s->scratch.ids[n] = s->scratch.ids[i];
		s->scratch.values[n] = s->scratch.values[i];
		n++;
	}
	s->n_candidates = n;
}

static double
weigh(Sampler *s)
{
	return s->kernels->exp_sum(s->scratch.values, s->n_candidates, s->max,
							   s->scale, s->scratch.weights);
}

/* Candidates: the n largest logits >= lowest, and all that equal the last. */
static void
collect_largest(Sampler *s, int64_t n, float lowest)
{
	float span = 4.0f;
	double above;

	do
	{
		float bound = s->max - span;

		span *= 2;
		collect(s, bound > lowest ? bound : lowest);
		if (bound <= lowest)
			break;
	} while (s->n_candidates < n);
	if (s->n_candidates > n)
		keep_ge(s, find_threshold(s, NULL, (double) n, &above));
}

/* ------------------------------------------------------------------------
 * Cutting the distribution down
 * ------------------------------------------------------------------------
 */

/*
 * Keep the most probable candidates until they reach the share top_p of
 * total; of equal ones the lower ids.
 */
static void
cut_to_top_p(Sampler *s, double total)
{
	double target = (double) s->row->params.top_p * total;
	double sum;
	float threshold = find_threshold(s, s->scratch.weights, target, &sum);
	int64_t n = 0;

	for (int64_t i = 0; i < s->n_candidates; i++)
	{
		float value = s->scratch.values[i];

		if (value < threshold)
			continue;
		if (value == threshold)
		{
			/* the first one always: at least one token is kept */
			if (sum >= target && sum > 0)
				continue;
			sum += (double) s->scratch.weights[i];
		}
		s->scratch.ids[n] = s->scratch.ids[i];
		s->scratch.values[n] = value;
		s->scratch.weights[n] = s->scratch.weights[i];
		n++;
	}
	s->n_candidates = n;
}

/* Candidates that surely include the share top_p of all tokens >= lowest. */
static void
collect_share(Sampler *s, float lowest)
{
	double total;
	float span = 4.0f;

	if (lowest > -FLT_MAX)
	{
		collect(s, lowest);
		cut_to_top_p(s, weigh(s));
		return;
	}
	total = s->kernels->exp_sum(s->scratch.logits, s->n_vocab, s->max, s->scale,
								NULL);
	for (;;)
	{
		float bound = s->max - span / s->scale;

		collect(s, span < EXP_RANGE && bound > lowest ? bound : lowest);
		if (weigh(s) >= (double) s->row->params.top_p * total ||
			span >= EXP_RANGE)
			break;
		span *= 2;
	}
	cut_to_top_p(s, total);
}

/* ------------------------------------------------------------------------
 * The draw
 * ------------------------------------------------------------------------
 */

/* In [0, 1), 53 bits. */
static double
draw_uniform(const LlmSampleRow *row)
{
	LlmPhilox random =
		llm_philox(row->params.seed, (uint64_t) row->n_output, 0);
	uint64_t bits = (uint64_t) random.word[0] << 32 | random.word[1];

	return (double) (bits >> 11) * 0x1p-53;
}

/*
 * The index of the weight that point falls into, their order being that of
 * ids.  Rounding may leave point beyond the end: then the last positive one.
 */
static int64_t
find_weight(const float *weights, int64_t n, double point)
{
	int64_t last = 0;

	for (int64_t i = 0; i < n; i++)
	{
		if (weights[i] <= 0)
			continue;
		last = i;
		point -= (double) weights[i];
		if (point < 0)
			break;
	}
	return last;
}

static int32_t
draw_from_all(Sampler *s)
{
	double *stretches = s->scratch.stretches;
	int64_t n_stretches = (s->n_vocab + STRETCH - 1) / STRETCH;
	double total = 0;
	double point;
	int64_t chosen = 0;

	for (int64_t i = 0; i < n_stretches; i++)
	{
		int64_t first = i * STRETCH;
		int64_t n = s->n_vocab - first < STRETCH ? s->n_vocab - first : STRETCH;

		stretches[i] =
			s->kernels->exp_sum(s->scratch.logits + first, n, s->max, s->scale,
								s->scratch.weights + first);
		total += stretches[i];
	}
	point = draw_uniform(s->row) * total;
	for (int64_t i = 0; i < n_stretches; i++)
	{
		if (stretches[i] <= 0)
			continue;
		chosen = i;
		if (point < stretches[i])
			break;
		point -= stretches[i];
	}
	chosen *= STRETCH;
	return (int32_t) (chosen + find_weight(s->scratch.weights + chosen,
										   s->n_vocab - chosen < STRETCH
											   ? s->n_vocab - chosen
											   : STRETCH,
										   point));
}

static int32_t
draw_from_candidates(Sampler *s)
{
	double total = 0;

	assert(s->n_candidates > 0);
	for (int64_t i = 0; i < s->n_candidates; i++)
		total += (double) s->scratch.weights[i];
	return s->scratch.ids[find_weight(s->scratch.weights, s->n_candidates,
									  draw_uniform(s->row) * total)];
}

/* s->max is the largest edited logit and finite. */
static int32_t
draw(Sampler *s)
{
	const LlmSamplingParams *params = &s->row->params;
	bool has_top_k = params->top_k > 0 && params->top_k < s->n_vocab;
	bool has_top_p = params->top_p < 1.0f;
	float lowest = -FLT_MAX;

	s->scale = 1.0f / params->temperature;
	if (params->min_p > 0)
		lowest = s->max + logf(params->min_p) * params->temperature;
	if (lowest > s->max)
		lowest = s->max;
	if (has_top_k)
	{
		collect_largest(s, params->top_k, lowest);
		if (has_top_p)
			cut_to_top_p(s, weigh(s));
		else
			weigh(s);
	}
	else if (has_top_p)
		collect_share(s, lowest);
	else if (params->min_p > 0)
	{
		collect(s, lowest);
		weigh(s);
	}
	else
		return draw_from_all(s);
	return draw_from_candidates(s);
}

/* ------------------------------------------------------------------------
 * Rows
 * ------------------------------------------------------------------------
 */

/* The most probable tokens of the unedited row, which has n finite logits. */
static void
list_top(Sampler *s, double log_sum, LlmSampleResult *result)
{
	int32_t wanted = s->row->params.n_logprobs;

	if (wanted > LLM_MAX_LOGPROBS)
		wanted = LLM_MAX_LOGPROBS;
	collect_largest(s, wanted, -FLT_MAX);
	for (int64_t i = 0; i < s->n_candidates; i++)
	{
		float value = s->scratch.values[i];
		int32_t at = result->n_top;

		/* candidates come by id: an equal one goes behind */
		while (at > 0 && value > result->top_logprobs[at - 1])
			at--;
		if (at == wanted)
			continue;
		if (result->n_top < wanted)
			result->n_top++;
		for (int32_t j = result->n_top - 1; j > at; j--)
		{
			result->top_ids[j] = result->top_ids[j - 1];
			result->top_logprobs[j] = result->top_logprobs[j - 1];
		}
		result->top_ids[at] = s->scratch.ids[i];
		result->top_logprobs[at] = value;
	}
	for (int32_t i = 0; i < result->n_top; i++)
		result->top_logprobs[i] =
			(float) ((double) result->top_logprobs[i] - log_sum);
}

/* The log of the sum that makes logits log-probabilities; lists the top. */
static double
weigh_raw(Sampler *s, LlmSampleResult *result)
{
	double log_sum;

	s->max = s->kernels->clean(s->raw, NULL, s->n_vocab, s->scratch.logits);
	if (s->max == -INFINITY)
		return 0;
	log_sum =
		(double) s->max + log(s->kernels->exp_sum(s->scratch.logits, s->n_vocab,
												  s->max, 1.0f, NULL));
	if (s->row->params.n_logprobs > 0)
		list_top(s, log_sum, result);
	return log_sum;
}

/* The row as its token is drawn from it; false: there is none. */
static bool
edit_row(Sampler *s)
{
	s->max = s->kernels->clean(s->raw, s->row->allowed_mask, s->n_vocab,
							   s->scratch.logits);
	if (s->max == -INFINITY || !row_is_edited(s->row))
		return s->max > -INFINITY;
	edit_logits(s);
	s->max = s->kernels->clean(s->scratch.logits, NULL, s->n_vocab,
							   s->scratch.logits);
	return s->max > -INFINITY;
}

static int32_t
choose_token(Sampler *s)
{
	const LlmSampleRow *row = s->row;
	bool is_greedy = !(row->params.temperature >= GREEDY_TEMPERATURE);

	if (row->is_forced)
		return row->forced_id;
	if (is_greedy && !row_is_edited(row))
		return (int32_t) s->kernels->argmax(s->raw, row->allowed_mask,
											s->n_vocab);
	if (!edit_row(s))
		return -1;
	return is_greedy ? (int32_t) s->kernels->argmax(s->scratch.logits, NULL,
													s->n_vocab)
					 : draw(s);
}

static void
sample_row(Sampler *s, LlmSampleResult *result)
{
	bool has_logprobs = s->row->params.n_logprobs >= 0;
	double log_sum = 0;
	float logit;

	result->token_id = -1;
	result->logprob = 0;
	result->n_top = 0;
	if (has_logprobs)
	{
		log_sum = weigh_raw(s, result);
		if (s->max == -INFINITY)
			return;
	}
	result->token_id = choose_token(s);
	if (result->token_id < 0)
		return;
	assert(is_token(s, result->token_id));
	if (!has_logprobs)
		return;
	/* a forced one may be impossible */
	logit = s->raw[result->token_id];
	result->logprob =
		isfinite(logit) ? (float) ((double) logit - log_sum) : -INFINITY;
}

typedef struct SampleJob
{
	const LlmCpu *cpu;
	const LlmSampleArgs *args;
} SampleJob;

static void
sample_job(void *arg, int thread_idx, int n_threads)
{
	const SampleJob *job = arg;
	int64_t begin;
	int64_t end;

	llm_cpu_share(job->args->n_rows, 1, thread_idx, n_threads, &begin, &end);
	for (int64_t i = begin; i < end; i++)
	{
		Sampler sampler = {
			.kernels = &job->cpu->vector,
			.row = &job->args->rows[i],
			.raw = job->args->logits + i * job->args->n_vocab,
			.n_vocab = job->args->n_vocab,
			.scratch = carve_scratch(job->cpu, thread_idx),
		};

		sample_row(&sampler, &job->args->results[i]);
	}
}

bool
llm_cpu_sample(LlmCompute *compute, const LlmSampleArgs *args, LlmError *err)
{
	LlmCpu *cpu = llm_cpu(compute);
	SampleJob job = { .cpu = cpu, .args = args };

	(void) err;
	assert(args->n_vocab <= cpu->options.max_vocab);
	assert(args->n_rows <= cpu->options.max_rows);
	if (args->n_rows <= 1)
		sample_job(&job, 0, 1);
	else
		llm_cpu_threads_run(cpu->threads, sample_job, &job);
	for (int32_t r = 0; r < args->n_rows; r++)
		cpu->drawn_ids[r] = args->results[r].token_id;
	return true;
}

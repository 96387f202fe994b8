/*
 * cuda_sample.cu
 *	  From logits to tokens: a block of threads for each row.
 *
 * The steps are those of the CPU's (src/engine/compute/cpu_sample.c): raw
 * log-probabilities, edits, the cuts of min_p, top_k and top_p, the draw in
 * the order of ids.  Nothing is sorted: thresholds are found with histograms
 * over the values' bits, 11 + 11 + 10 of them.
 *
 * Weights exp((logit - max) / temperature) are summed as integers of 2^-44:
 * the order in which threads add them does not matter, so a row gives the
 * same token each time, and what a row of a quarter of a million tokens loses
 * by it is below 1e-8.
 *
 * Ids, biases and masks of the rows that have them travel in one copy with
 * the parameters, while the logits are computed.  Results are written to the
 * host's memory as they come.
 *
 * cuda/cuda_sample.cu
 */
#include "cuda/cuda_internal.cuh"

#include <float.h>
#include <stdlib.h>
#include <string.h>

#define SAMPLE_THREADS 1024
#define SAMPLE_WARPS (SAMPLE_THREADS / WARP)
#define N_BINS 2048
#define MAX_STRETCHES 2048
#define GREEDY_TEMPERATURE 1e-5f
#define IN_PROMPT (1 << 30)
#define WEIGHT_UNIT 17592186044416.0f /* 2^44 */

/* A row as the device sees it; offsets in words behind all rows. */
typedef struct DeviceRow
{
	LlmSamplingParams params;
	int32_t n_prompt; /* 0 unless penalized */
	int32_t n_output;
	int32_t n_listed; /* outputs listed: 0 unless penalized */
	int32_t n_bias;
	int32_t n_forbidden;
	int32_t has_mask;
	int32_t is_edited;
	int32_t forced_id; /* -1: none */
	uint32_t lists;	   /* forbidden, bias ids, outputs, prompt, bias values */
	uint32_t mask;
} DeviceRow;

struct SampleState
{
	char *pinned; /* rows and lists on their way */
	char *lists;  /* device, as many bytes */
	float *saved; /* device: raw logits of listed ids, one per word */
	int32_t
		*counts; /* device [rows at a time, max_vocab], zero between calls */
	size_t list_bytes;
	int32_t *drawn_ids;		  /* device [max_rows] */
	LlmSampleResult *arrived; /* pinned [max_rows]: the kernel writes it */
	LlmSampleResult *owner;	  /* where results go after the wait */
	int32_t n_results;
	cudaEvent_t uploaded; /* lists */
	cudaEvent_t sampled;
};

/* Rows whose edits count ids at the same time. */
#define COUNTED_ROWS 128

static size_t
least_list_bytes(const LlmComputeOptions *options)
{
	/* any one row: its context, a mask, biases for the whole vocabulary */
	size_t row =
		sizeof(DeviceRow) + 4 * ((size_t) options->max_context_len +
								 4 * (size_t) options->max_vocab + 8192);
	size_t all = (size_t) options->max_seqs * (sizeof(DeviceRow) + 4096);

	return row + all + ((size_t) 4 << 20);
}

size_t
cuda_sample_bytes(const LlmComputeOptions *options)
{
	return 2 * least_list_bytes(options) +
		   COUNTED_ROWS * (size_t) options->max_vocab * 4 +
		   (size_t) options->max_rows * 4;
}

bool
cuda_sample_open(LlmCuda *cuda, LlmError *err)
{
	SampleState *state = (SampleState *) calloc(1, sizeof(*state));
	size_t n_rows = (size_t) cuda->options.max_rows;

	cuda->sample = state;
	if (state == NULL)
		return llm_error_no_memory(err, sizeof(*state), "sampling");
	state->list_bytes = least_list_bytes(&cuda->options);
	CUDA_TRY(cudaMallocHost((void **) &state->pinned, state->list_bytes));
	CUDA_TRY(cudaMallocHost((void **) &state->arrived,
							n_rows * sizeof(LlmSampleResult)));
	CUDA_TRY(
		cudaEventCreateWithFlags(&state->uploaded, cudaEventDisableTiming));
	CUDA_TRY(cudaEventCreateWithFlags(&state->sampled, cudaEventDisableTiming));
	state->lists = (char *) cuda_alloc(&cuda->base, state->list_bytes,
									   "sampling parameters", err);
	state->saved = (float *) cuda_alloc(&cuda->base, state->list_bytes,
										"sampling parameters", err);
	state->counts = (int32_t *) cuda_alloc(
		&cuda->base, COUNTED_ROWS * (size_t) cuda->options.max_vocab * 4,
		"counts of tokens", err);
	state->drawn_ids =
		(int32_t *) cuda_alloc(&cuda->base, n_rows * 4, "sampled tokens", err);
	return state->lists != NULL && state->saved != NULL &&
		   state->counts != NULL && state->drawn_ids != NULL;
}

void
cuda_sample_close(LlmCuda *cuda)
{
	SampleState *state = cuda->sample;

	if (state == NULL)
		return;
	if (state->pinned != NULL)
		(void) cudaFreeHost(state->pinned);
	if (state->arrived != NULL)
		(void) cudaFreeHost(state->arrived);
	if (state->uploaded != NULL)
		(void) cudaEventDestroy(state->uploaded);
	if (state->sampled != NULL)
		(void) cudaEventDestroy(state->sampled);
	cuda_free(&cuda->base, state->lists);
	cuda_free(&cuda->base, state->saved);
	cuda_free(&cuda->base, state->counts);
	cuda_free(&cuda->base, state->drawn_ids);
	free(state);
}

/* ------------------------------------------------------------------------
 * Sums and maxima of a block
 * ------------------------------------------------------------------------
 */
typedef unsigned long long Weight; /* in units of 2^-44 */

typedef struct Shared
{
	Weight sums[MAX_STRETCHES]; /* bins, or stretches */
	Weight warp_sums[SAMPLE_WARPS];
	float warp_max[SAMPLE_WARPS];
	int32_t warp_id[SAMPLE_WARPS];
	Weight found_above;
	int32_t found;
	int32_t top_ids[LLM_MAX_LOGPROBS];
	float top_values[LLM_MAX_LOGPROBS];
	int32_t n_top;
} Shared;

static __device__ __forceinline__ Weight
warp_sum_weights(Weight x)
{
	for (int offset = WARP / 2; offset > 0; offset /= 2)
		x += __shfl_xor_sync(FULL_MASK, x, offset);
	return x;
}

/* All threads get the sum. */
static __device__ Weight
block_sum_weights(Shared &s, Weight x)
{
	x = warp_sum_weights(x);
	__syncthreads();
	if (threadIdx.x % WARP == 0)
		s.warp_sums[threadIdx.x / WARP] = x;
	__syncthreads();
	return warp_sum_weights(s.warp_sums[threadIdx.x % WARP]);
}

static __device__ __forceinline__ void
better(float &value, int32_t &id, float other, int32_t other_id)
{
	if (other > value || (other == value && other_id < id))
	{
		value = other;
		id = other_id;
	}
}

/* The largest finite value and its first id; -inf where there is none. */
static __device__ float
block_argmax(Shared &s, const float *logits, int32_t n, int32_t *best_id)
{
	float value = -INFINITY;
	int32_t id = INT32_MAX;

	for (int32_t i = (int32_t) threadIdx.x; i < n; i += SAMPLE_THREADS)
	{
		float x = logits[i];

		if (isfinite(x) && x > value)
		{
			value = x;
			id = i;
		}
	}
	for (int offset = WARP / 2; offset > 0; offset /= 2)
		better(value, id, __shfl_xor_sync(FULL_MASK, value, offset),
			   __shfl_xor_sync(FULL_MASK, id, offset));
	__syncthreads();
	if (threadIdx.x % WARP == 0)
	{
		s.warp_max[threadIdx.x / WARP] = value;
		s.warp_id[threadIdx.x / WARP] = id;
	}
	__syncthreads();
	value = s.warp_max[threadIdx.x % WARP];
	id = s.warp_id[threadIdx.x % WARP];
	for (int offset = WARP / 2; offset > 0; offset /= 2)
		better(value, id, __shfl_xor_sync(FULL_MASK, value, offset),
			   __shfl_xor_sync(FULL_MASK, id, offset));
	*best_id = id;
	return value;
}

/* ------------------------------------------------------------------------
 * Which tokens count, and how much
 * ------------------------------------------------------------------------
 */

/* Tokens with finite logits >= bound; those equal to it only below id_end. */
typedef struct Cut
{
	const float *logits;
	int32_t n_vocab;
	float bound;
	int32_t id_end;
	float max;
	float scale;	 /* 1 / temperature */
	bool is_counted; /* a token weighs 1 instead */
} Cut;

static __device__ __forceinline__ Weight
weight_of(const Cut &c, float x)
{
	if (c.is_counted)
		return 1;
	return (Weight) (expf((x - c.max) * c.scale) * WEIGHT_UNIT + 0.5f);
}

static __device__ __forceinline__ Weight
token_weight(const Cut &c, int32_t id)
{
	float x = c.logits[id];

	if (!isfinite(x) || x < c.bound || (x == c.bound && id >= c.id_end))
		return 0;
	return weight_of(c, x);
}

/*
 * The token that point falls into, tokens lying one behind the other in the
 * order of ids; point is below the total.  Stretches of ids are summed first.
 * only_equal: tokens equal to the bound alone.
 */
static __device__ int32_t
find_token(Shared &s, const Cut &c, Weight point, bool only_equal)
{
	const int lane = (int) threadIdx.x % WARP;
	const int warp = (int) threadIdx.x / WARP;
	int32_t stretch =
		max((c.n_vocab + MAX_STRETCHES * WARP - 1) / (MAX_STRETCHES * WARP),
			4) *
		WARP;
	int32_t n_stretches = (c.n_vocab + stretch - 1) / stretch;

	__syncthreads();
	for (int32_t i = warp; i < n_stretches; i += SAMPLE_WARPS)
	{
		Weight sum = 0;
		int32_t end = min((i + 1) * stretch, c.n_vocab);

		for (int32_t id = i * stretch + lane; id < end; id += WARP)
			if (!only_equal || c.logits[id] == c.bound)
				sum += token_weight(c, id);
		sum = warp_sum_weights(sum);
		if (lane == 0)
			s.sums[i] = sum;
	}
	__syncthreads();
	if (warp == 0)
	{
		int32_t i = 0;
		int32_t base;

		/* all lanes walk together, 32 stretches or tokens at a time */
		for (;; i += WARP)
		{
			Weight sum =
				warp_sum_weights(i + lane < n_stretches ? s.sums[i + lane] : 0);

			if (point < sum || i + WARP >= n_stretches)
				break;
			point -= sum;
		}
		while (i < n_stretches - 1 && point >= s.sums[i])
			point -= s.sums[i++];
		base = i * stretch;
		for (;; base += WARP)
		{
			int32_t id = base + lane;
			bool is_in =
				id < c.n_vocab && (!only_equal || c.logits[id] == c.bound);
			Weight own = is_in ? token_weight(c, id) : 0;
			Weight before = own;
			unsigned hit;

			for (int offset = 1; offset < WARP; offset *= 2)
			{
				Weight other = __shfl_up_sync(FULL_MASK, before, offset);

				if (lane >= offset)
					before += other;
			}
			hit = __ballot_sync(FULL_MASK, own > 0 && point < before);
			if (hit != 0 || base + WARP >= c.n_vocab)
			{
				if (lane == 0)
					s.found = hit != 0 ? base + __ffs((int) hit) - 1 : -1;
				break;
			}
			point -= __shfl_sync(FULL_MASK, before, WARP - 1);
		}
	}
	__syncthreads();
	return s.found;
}

static __device__ __forceinline__ uint32_t
ordered_bits(float value)
{
	uint32_t bits = __float_as_uint(value);

	return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

static __device__ __forceinline__ float
from_ordered_bits(uint32_t ordered)
{
	return __uint_as_float(ordered & 0x80000000u ? ordered & 0x7FFFFFFFu
												 : ~ordered);
}

/*
 * The highest bin so that it and those above it hold target or more, else the
 * lowest that is not empty; *above gets what those above it hold.
 */
static __device__ int32_t
find_bin(Shared &s, int32_t n_bins, Weight target, Weight *above)
{
	__syncthreads();
	if (threadIdx.x < WARP)
	{
		const int lane = (int) threadIdx.x;
		Weight sum = *above;
		int32_t top = n_bins;

		/* 32 bins at a time from the top, while they do not suffice */
		for (; top > WARP; top -= WARP)
		{
			Weight group = warp_sum_weights(s.sums[top - WARP + lane]);

			if (group > 0 && sum + group >= target)
				break;
			sum += group;
		}
		if (lane == 0)
		{
			int32_t bin = top - 1;

			for (; bin > 0; bin--)
			{
				if (s.sums[bin] > 0 && sum + s.sums[bin] >= target)
					break;
				sum += s.sums[bin];
			}
			/* target out of reach: step back up to the last filled one */
			if (s.sums[bin] == 0)
			{
				while (bin < n_bins - 1 && s.sums[bin] == 0)
					bin++;
				sum -= s.sums[bin];
			}
			s.found = bin;
			s.found_above = sum;
		}
	}
	__syncthreads();
	*above = s.found_above;
	return s.found;
}

/*
 * The largest value v so that tokens >= v of the cut hold target or more; the
 * smallest value if they do not.  *above: what those > v hold.
 */
static __device__ float
find_threshold(Shared &s, const Cut &c, Weight target, Weight *above)
{
	uint32_t prefix = 0;

	*above = 0;
	for (int level = 0; level < 3; level++)
	{
		const int shift = level == 0 ? 21 : level == 1 ? 10 : 0;
		const int width = level == 2 ? 10 : 11;

		__syncthreads();
		for (int i = (int) threadIdx.x; i < N_BINS; i += SAMPLE_THREADS)
			s.sums[i] = 0;
		__syncthreads();
		for (int32_t id = (int32_t) threadIdx.x; id < c.n_vocab;
			 id += SAMPLE_THREADS)
		{
			uint32_t key = ordered_bits(c.logits[id]);
			Weight weight;

			if (level > 0 && (key >> shift >> width) != prefix)
				continue;
			weight = token_weight(c, id);
			if (weight > 0)
				atomicAdd(&s.sums[key >> shift & ((1u << width) - 1)], weight);
		}
		prefix =
			prefix << width | (uint32_t) find_bin(s, 1 << width, target, above);
	}
	return from_ordered_bits(prefix);
}

/*
 * The cut with a higher bound that still holds target or more, where one of a
 * few guesses does: so that few tokens meet in the histogram's bins.
 */
static __device__ Cut
raise_bound(Shared &s, const Cut &c, Weight target)
{
	const float spans[3] = { 4.0f, 8.0f, 16.0f };
	Weight sums[3] = { 0, 0, 0 };
	Cut raised = c;

	for (int32_t id = (int32_t) threadIdx.x; id < c.n_vocab;
		 id += SAMPLE_THREADS)
	{
		float x = c.logits[id];
		Weight weight;

		if (!(x >= c.max - spans[2] / c.scale))
			continue;
		weight = token_weight(c, id);
#pragma unroll
		for (int i = 0; i < 3; i++)
			sums[i] += x >= c.max - spans[i] / c.scale ? weight : 0;
	}
	for (int i = 2; i >= 0; i--)
	{
		Weight sum = block_sum_weights(s, sums[i]);

		if (sum >= target)
			raised.bound = fmaxf(c.bound, c.max - spans[i] / c.scale);
	}
	return raised;
}

/* ------------------------------------------------------------------------
 * Edits
 * ------------------------------------------------------------------------
 */
static __device__ void
apply_mask(float *logits, int32_t n_vocab, const uint32_t *mask)
{
	for (int32_t id = (int32_t) threadIdx.x; id < n_vocab; id += SAMPLE_THREADS)
		if ((mask[id / 32] >> (id % 32) & 1) == 0)
			logits[id] = -INFINITY;
}

/* Each id once: who finds its count takes it, and leaves zero. */
static __device__ void
penalize(float *logits, int32_t n_vocab, const LlmSamplingParams &params,
		 const int32_t *ids, int32_t n, int32_t *counts)
{
	for (int32_t i = (int32_t) threadIdx.x; i < n; i += SAMPLE_THREADS)
	{
		int32_t id = ids[i];
		int32_t count;
		float x;

		if (id < 0 || id >= n_vocab)
			continue;
		count = atomicExch(&counts[id], 0);
		if (count == 0)
			continue;
		count &= ~IN_PROMPT;
		x = logits[id];
		x = x > 0 ? x / params.repetition_penalty
				  : x * params.repetition_penalty;
		x -= params.frequency_penalty * (float) count;
		if (count > 0)
			x -= params.presence_penalty;
		logits[id] = x;
	}
}

static __device__ void
apply_penalties(float *logits, int32_t n_vocab, const DeviceRow &row,
				const int32_t *outputs, const int32_t *prompt, int32_t *counts)
{
	for (int32_t i = (int32_t) threadIdx.x; i < row.n_listed;
		 i += SAMPLE_THREADS)
		if (outputs[i] >= 0 && outputs[i] < n_vocab)
			atomicAdd(&counts[outputs[i]], 1);
	for (int32_t i = (int32_t) threadIdx.x; i < row.n_prompt;
		 i += SAMPLE_THREADS)
		if (prompt[i] >= 0 && prompt[i] < n_vocab)
			atomicOr(&counts[prompt[i]], IN_PROMPT);
	__syncthreads();
	penalize(logits, n_vocab, row.params, outputs, row.n_listed, counts);
	__syncthreads();
	penalize(logits, n_vocab, row.params, prompt, row.n_prompt, counts);
	__syncthreads();
}

/* Lists of a row: ids of forbidden, bias, outputs, prompt; then the biases. */
static __device__ void
edit_row(float *logits, int32_t n_vocab, const DeviceRow &row,
		 const int32_t *lists, float *saved, int32_t *counts,
		 const uint32_t *mask)
{
	const int32_t *biased = lists + row.n_forbidden;
	const int32_t *outputs = biased + row.n_bias;
	const int32_t *prompt = outputs + row.n_listed;
	const float *biases = (const float *) (prompt + row.n_prompt);
	int32_t n_ids = row.n_forbidden + row.n_bias + row.n_listed + row.n_prompt;

	/* the drawn token's log-probability is that of its raw logit */
	for (int32_t i = (int32_t) threadIdx.x; i < n_ids; i += SAMPLE_THREADS)
		if (lists[i] >= 0 && lists[i] < n_vocab)
			saved[i] = logits[lists[i]];
	__syncthreads();
	if (row.has_mask)
		apply_mask(logits, n_vocab, mask);
	__syncthreads();
	for (int32_t i = (int32_t) threadIdx.x; i < row.n_forbidden;
		 i += SAMPLE_THREADS)
		if (lists[i] >= 0 && lists[i] < n_vocab)
			logits[lists[i]] = -INFINITY;
	__syncthreads();
	/* atomic: callers may name an id twice */
	for (int32_t i = (int32_t) threadIdx.x; i < row.n_bias; i += SAMPLE_THREADS)
		if (biased[i] >= 0 && biased[i] < n_vocab)
			atomicAdd(&logits[biased[i]], biases[i]);
	__syncthreads();
	if (row.n_listed + row.n_prompt > 0)
		apply_penalties(logits, n_vocab, row, outputs, prompt, counts);
}

static __device__ float
raw_logit(const float *logits, const DeviceRow &row, const int32_t *lists,
		  const float *saved, int32_t token_id)
{
	int32_t n_ids = row.n_forbidden + row.n_bias + row.n_listed + row.n_prompt;

	for (int32_t i = 0; row.is_edited && i < n_ids; i++)
		if (lists[i] == token_id)
			return saved[i];
	return logits[token_id];
}

/* ------------------------------------------------------------------------
 * Log-probabilities
 * ------------------------------------------------------------------------
 */

/* log of the sum of exponentials of a row, all threads */
static __device__ double
log_sum_exp(Shared &s, const float *logits, int32_t n_vocab, float max)
{
	Cut all = { logits, n_vocab, -FLT_MAX, INT32_MAX, max, 1.0f, false };
	Weight sum = 0;

	for (int32_t id = (int32_t) threadIdx.x; id < n_vocab; id += SAMPLE_THREADS)
		sum += token_weight(all, id);
	sum = block_sum_weights(s, sum);
	return (double) max + log((double) sum / (double) WEIGHT_UNIT);
}

/* Collect the most probable tokens, then place each by counting better ones. */
static __device__ void
list_top(Shared &s, const float *logits, int32_t n_vocab, float max,
		 int32_t wanted, double log_sum, LlmSampleResult *result)
{
	Cut cut = { logits, n_vocab, -FLT_MAX, INT32_MAX, max, 1.0f, true };
	Weight above;

	cut = raise_bound(s, cut, (Weight) wanted);
	cut.bound = find_threshold(s, cut, (Weight) wanted, &above);
	/* of those equal to the last one the first by id */
	cut.id_end = find_token(s, cut, (Weight) wanted - above - 1, true);
	cut.id_end = cut.id_end < 0 ? INT32_MAX : cut.id_end + 1;
	__syncthreads();
	if (threadIdx.x == 0)
		s.n_top = 0;
	__syncthreads();
	for (int32_t id = (int32_t) threadIdx.x; id < n_vocab; id += SAMPLE_THREADS)
	{
		if (token_weight(cut, id) > 0)
		{
			int32_t place = atomicAdd(&s.n_top, 1);

			s.top_ids[place] = id;
			s.top_values[place] = logits[id];
		}
	}
	__syncthreads();
	if ((int32_t) threadIdx.x < s.n_top)
	{
		float own = s.top_values[threadIdx.x];
		int32_t id = s.top_ids[threadIdx.x];
		int place = 0;

		for (int i = 0; i < s.n_top; i++)
			place += s.top_values[i] > own ||
					 (s.top_values[i] == own && s.top_ids[i] < id);
		result->top_ids[place] = id;
		result->top_logprobs[place] = (float) ((double) own - log_sum);
	}
	if (threadIdx.x == 0)
		result->n_top = s.n_top;
	__syncthreads();
}

/* ------------------------------------------------------------------------
 * Rows
 * ------------------------------------------------------------------------
 */

/* In [0, 1), 53 bits. */
static __device__ double
draw_uniform(const DeviceRow &row)
{
	uint4 random = philox(row.params.seed, (uint64_t) row.n_output, 0);
	uint64_t bits = (uint64_t) random.x << 32 | random.y;

	return (double) (bits >> 11) * 0x1p-53;
}

static __device__ Weight
total_weight(Shared &s, const Cut &cut)
{
	Weight sum = 0;

	for (int32_t id = (int32_t) threadIdx.x; id < cut.n_vocab;
		 id += SAMPLE_THREADS)
		sum += token_weight(cut, id);
	return block_sum_weights(s, sum);
}

/* Keep the most probable until they reach the share; of equal ones the first. */
static __device__ void
cut_to_top_p(Shared &s, Cut &cut, float top_p)
{
	Weight target =
		(Weight) ((double) top_p * (double) total_weight(s, cut) + 0.5);
	Weight above;
	Weight each;
	Weight n_equal;
	Cut equal = raise_bound(s, cut, target);
	int32_t last;

	equal.bound = find_threshold(s, equal, target, &above);
	each = weight_of(cut, equal.bound);
	/* one at least */
	n_equal =
		each > 0 && target > above ? (target - above + each - 1) / each : 1;
	equal.is_counted = true;
	last = find_token(s, equal, n_equal - 1, true);
	cut.id_end = last >= 0 ? last + 1 : INT32_MAX;
	cut.bound = equal.bound;
}

/* cut.max is the largest edited logit, finite. */
static __device__ int32_t
draw(Shared &s, Cut &cut, const DeviceRow &row)
{
	const LlmSamplingParams &params = row.params;
	Weight total;
	Weight point;

	cut.scale = 1.0f / params.temperature;
	cut.bound = -FLT_MAX;
	cut.id_end = INT32_MAX;
	if (params.min_p > 0)
		cut.bound =
			fminf(cut.max + logf(params.min_p) * params.temperature, cut.max);
	if (params.top_k > 0 && params.top_k < cut.n_vocab)
	{
		Cut counted = cut;
		Weight above;

		counted.is_counted = true;
		counted = raise_bound(s, counted, (Weight) params.top_k);
		cut.bound = find_threshold(s, counted, (Weight) params.top_k, &above);
	}
	if (params.top_p < 1.0f)
		cut_to_top_p(s, cut, params.top_p);
	total = total_weight(s, cut);
	point = (Weight) (draw_uniform(row) * (double) total);
	if (point >= total)
		point = total - 1;
	return find_token(s, cut, point, false);
}

typedef struct SampleParams
{
	float *logits;
	const char *lists; /* rows, then words */
	float *saved;
	int32_t *counts;
	LlmSampleResult *results;
	int32_t *drawn_ids;
	int32_t first_row; /* of this launch */
	int32_t n_rows;	   /* of the call */
	int32_t n_vocab;
	int32_t max_vocab;
} SampleParams;

static __device__ void
finish_row(const DeviceRow &row, const float *logits, const int32_t *lists,
		   const float *saved, int32_t token_id, double log_sum,
		   LlmSampleResult *result)
{
	if (threadIdx.x != 0)
		return;
	result->token_id = token_id;
	if (token_id >= 0 && row.params.n_logprobs >= 0)
	{
		float raw = raw_logit(logits, row, lists, saved, token_id);

		/* a forced token may have none */
		result->logprob =
			isfinite(raw) ? (float) ((double) raw - log_sum) : -INFINITY;
	}
}

static __global__ void
__launch_bounds__(SAMPLE_THREADS)
	sample_rows(const __grid_constant__ SampleParams p)
{
	__shared__ Shared s;
	const int32_t r = p.first_row + (int32_t) blockIdx.x;
	const DeviceRow &row = ((const DeviceRow *) p.lists)[r];
	const int32_t *words =
		(const int32_t *) (p.lists + (size_t) p.n_rows * sizeof(DeviceRow));
	const int32_t *lists = words + row.lists;
	float *saved = p.saved + row.lists;
	float *logits = p.logits + (int64_t) r * p.n_vocab;
	LlmSampleResult *result = &p.results[r];
	bool is_greedy = !(row.params.temperature >= GREEDY_TEMPERATURE);
	double log_sum = 0;
	int32_t token_id;
	float max;

	if (threadIdx.x == 0)
	{
		p.drawn_ids[r] = -1;
		result->token_id = -1;
		result->logprob = 0;
		result->n_top = 0;
	}
	__syncthreads();
	max = block_argmax(s, logits, p.n_vocab, &token_id);
	if (max == -INFINITY)
		return;
	if (row.params.n_logprobs >= 0)
	{
		log_sum = log_sum_exp(s, logits, p.n_vocab, max);
		if (row.params.n_logprobs > 0)
			list_top(s, logits, p.n_vocab, max,
					 min(row.params.n_logprobs, LLM_MAX_LOGPROBS), log_sum,
					 result);
	}
	if (row.forced_id >= 0)
	{
		finish_row(row, logits, lists, saved, row.forced_id, log_sum, result);
		return;
	}
	if (row.is_edited)
	{
		edit_row(logits, p.n_vocab, row, lists, saved,
				 p.counts + (int64_t) blockIdx.x * p.max_vocab,
				 (const uint32_t *) words + row.mask);
		max = block_argmax(s, logits, p.n_vocab, &token_id);
		if (max == -INFINITY)
			return;
	}
	if (!is_greedy)
	{
		Cut cut = { logits, p.n_vocab, -FLT_MAX, INT32_MAX, max, 1.0f, false };

		token_id = draw(s, cut, row);
	}
	if (threadIdx.x == 0)
		p.drawn_ids[r] = token_id;
	finish_row(row, logits, lists, saved, token_id, log_sum, result);
}

/* ------------------------------------------------------------------------
 * The operation
 * ------------------------------------------------------------------------
 */
static bool
is_penalized(const LlmSamplingParams *params)
{
	return params->repetition_penalty != 1.0f ||
		   params->presence_penalty != 0 || params->frequency_penalty != 0;
}

static uint32_t *
put_words(uint32_t *at, const void *src, int32_t n)
{
	if (n > 0)
		memcpy(at, src, (size_t) n * 4);
	return at + n;
}

/* Words of a row's lists. */
static size_t
row_words(const LlmSampleRow *row, int32_t n_vocab)
{
	size_t n = (size_t) row->n_forbidden + 2 * (size_t) row->n_bias;

	if (is_penalized(&row->params))
		n += (size_t) row->n_output + (size_t) row->n_prompt;
	return n + (row->allowed_mask != NULL ? (size_t) (n_vocab + 31) / 32 : 0);
}

static uint32_t *
pack_row(const LlmSampleRow *row, int32_t n_vocab, DeviceRow *dest,
		 uint32_t *first, uint32_t *at)
{
	bool penalized = is_penalized(&row->params);

	*dest = { row->params };
	dest->n_output = row->n_output;
	dest->n_listed = penalized ? row->n_output : 0;
	dest->n_prompt =
		penalized && row->params.repetition_penalty != 1.0f ? row->n_prompt : 0;
	dest->n_bias = row->n_bias;
	dest->n_forbidden = row->n_forbidden;
	dest->has_mask = row->allowed_mask != NULL;
	dest->is_edited =
		dest->has_mask || row->n_bias > 0 || row->n_forbidden > 0 || penalized;
	assert(!row->is_forced || !dest->is_edited);
	dest->forced_id = row->is_forced ? row->forced_id : -1;
	dest->lists = (uint32_t) (at - first);
	at = put_words(at, row->forbidden_ids, row->n_forbidden);
	for (int32_t i = 0; i < row->n_bias; i++)
		at = put_words(at, &row->bias[i].token_id, 1);
	at = put_words(at, row->output_ids, dest->n_listed);
	at = put_words(at, row->prompt_ids, dest->n_prompt);
	for (int32_t i = 0; i < row->n_bias; i++)
		at = put_words(at, &row->bias[i].bias, 1);
	dest->mask = (uint32_t) (at - first);
	return dest->has_mask
			   ? put_words(at, row->allowed_mask, (n_vocab + 31) / 32)
			   : at;
}

/*
 * Pack as many rows as fit, from first_row on; *n_words of lists.  Rows of
 * one launch that are edited share the counts, so these are limited, too.
 */
static int32_t
pack_rows(LlmCuda *cuda, const LlmSampleArgs *args, int32_t first_row,
		  size_t *n_bytes)
{
	SampleState *state = cuda->sample;
	DeviceRow *rows = (DeviceRow *) state->pinned;
	uint32_t *first = (uint32_t *) (rows + args->n_rows);
	uint32_t *at = first;
	const uint32_t *end = (uint32_t *) (state->pinned + state->list_bytes);
	bool is_any_penalized = false;
	int32_t r = first_row;

	for (; r < args->n_rows; r++)
	{
		is_any_penalized =
			is_any_penalized || is_penalized(&args->rows[r].params);
		if ((size_t) (end - at) < row_words(&args->rows[r], args->n_vocab) ||
			(is_any_penalized && r - first_row >= COUNTED_ROWS))
			break;
		at = pack_row(&args->rows[r], args->n_vocab, &rows[r], first, at);
	}
	*n_bytes = (size_t) ((char *) at - state->pinned);
	return r - first_row;
}

bool
cuda_sample(LlmCompute *compute, const LlmSampleArgs *args, LlmError *err)
{
	LlmCuda *cuda = llm_cuda(compute);
	SampleState *state = cuda->sample;
	SampleParams params = { args->logits,  state->lists,   state->saved,
							state->counts, state->arrived, state->drawn_ids };

	assert(args->n_vocab <= cuda->options.max_vocab);
	assert(args->n_rows <= cuda->options.max_rows);
	params.n_rows = args->n_rows;
	params.n_vocab = args->n_vocab;
	params.max_vocab = cuda->options.max_vocab;
	while (params.first_row < args->n_rows)
	{
		size_t n_bytes;
		int32_t n;

		CUDA_TRY(cudaEventSynchronize(state->sampled));
		n = pack_rows(cuda, args, params.first_row, &n_bytes);
		if (n == 0)
			return llm_error_set(err, LLM_ERROR_LIMIT,
								 "the ids and biases of a request take more "
								 "than %zu bytes",
								 state->list_bytes);
		CUDA_TRY(cudaMemcpyAsync(state->lists, state->pinned, n_bytes,
								 cudaMemcpyHostToDevice, cuda->upload_stream));
		CUDA_TRY(cudaEventRecord(state->uploaded, cuda->upload_stream));
		CUDA_TRY(cudaStreamWaitEvent(cuda->stream, state->uploaded, 0));
		if (params.first_row == 0 && !cuda_idle_mark(cuda, IDLE_DRAWING, err))
			return false;
		sample_rows<<<(unsigned) n, SAMPLE_THREADS, 0, cuda->stream>>>(params);
		if (!cuda_launched("sample", err))
			return false;
		if (!cuda_idle_mark(cuda, IDLE_DRAWN, err))
			return false;
		CUDA_TRY(cudaEventRecord(state->sampled, cuda->stream));
		params.first_row += n;
	}
	state->owner = args->results;
	state->n_results = args->n_rows;
	return true;
}

const int32_t *
cuda_drawn_ids(const LlmCuda *cuda)
{
	return cuda->sample->drawn_ids;
}

bool
cuda_sample_wait(LlmCompute *compute, LlmError *err)
{
	LlmCuda *cuda = llm_cuda(compute);

	CUDA_TRY(cudaEventSynchronize(cuda->sample->sampled));
	cuda_sample_deliver(cuda);
	return cuda_idle_count(cuda, err);
}

void
cuda_sample_deliver(LlmCuda *cuda)
{
	SampleState *state = cuda->sample;

	if (state->owner != NULL)
		memcpy(state->owner, state->arrived,
			   (size_t) state->n_results * sizeof(LlmSampleResult));
	state->owner = NULL;
}

/*
 * cpu_train_rows.c
 *	  The operations of training that go over rows or numbers once, and the
 *	  table.
 *
 * src/engine/compute/cpu_train_rows.c
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "src/common/util/half_float.h"
#include "src/common/util/philox.h"
#include "src/engine/compute/cpu_train.h"

/* Below so many values one thread is done before another has woken up. */
#define PARALLEL_VALUES 16384

/* Threads share values in units of so many. */
#define VALUE_GRANULE 64

/* Neighbouring values are added up one after the other, then these sums. */
#define SUM_VALUES 4096

/* Some of an operation's rows or values. */
typedef void (*RangeJob)(const LlmCpu *cpu, const void *args, int64_t begin,
						 int64_t end);

typedef struct Range
{
	const LlmCpu *cpu;
	const void *args;
	RangeJob job;
	int64_t n;
	int64_t granule;
} Range;

static void
range_job(void *arg, int thread_idx, int n_threads)
{
	const Range *range = arg;
	int64_t begin;
	int64_t end;

	llm_cpu_share(range->n, range->granule, thread_idx, n_threads, &begin,
				  &end);
	if (begin < end)
		range->job(range->cpu, range->args, begin, end);
}

/* Share n rows of so many values, or n values where row_values is 1. */
static bool
run_range(LlmCompute *compute, RangeJob job, const void *args, int64_t n,
		  int64_t row_values)
{
	LlmCpu *cpu = llm_cpu(compute);
	Range range = { cpu, args, job, n, row_values == 1 ? VALUE_GRANULE : 1 };

	if (n * row_values < PARALLEL_VALUES)
		range_job(&range, 0, 1);
	else
		llm_cpu_threads_run(cpu->threads, range_job, &range);
	return true;
}

static void
add_range(const LlmCpu *cpu, const void *arg, int64_t begin, int64_t end)
{
	const LlmAddArgs *args = arg;
	const float *a = args->a;
	const float *b = args->b;
	float *out = args->out;

	(void) cpu;
	for (int64_t i = begin; i < end; i++)
		out[i] = a[i] + b[i];
}

static bool
add(LlmCompute *compute, const LlmAddArgs *args, LlmError *err)
{
	(void) err;
	return run_range(compute, add_range, args, args->n, 1);
}

static void
rms_norm_back_range(const LlmCpu *cpu, const void *arg, int64_t begin,
					int64_t end)
{
	const LlmRmsNormBackArgs *args = arg;

	for (int64_t i = begin * args->dim; i < end * args->dim; i += args->dim)
		cpu->train->rms_norm_back(args, (const float *) args->x + i,
								  (const float *) args->d_y + i,
								  (float *) args->d_x + i);
}

static bool
rms_norm_back(LlmCompute *compute, const LlmRmsNormBackArgs *args,
			  LlmError *err)
{
	(void) err;
	assert(args->weight.n == args->dim);
	return run_range(compute, rms_norm_back_range, args, args->n_rows,
					 args->dim);
}

/* Backwards is the rotation by the opposite angle: cosine, -sine. */
static void
rotate_range(const LlmCpu *cpu, const void *arg, int64_t begin, int64_t end)
{
	const LlmRotateArgs *args = arg;
	const int32_t half = args->rotary_dim / 2;
	float angles[LLM_CPU_MAX_HEAD_DIM];

	for (int64_t t = begin; t < end; t++)
	{
		float *heads = (float *) args->x + t * args->n_heads * args->head_dim;

		memcpy(angles,
			   args->cos_sin + (int64_t) args->rope_rows[t] * args->rotary_dim,
			   (size_t) args->rotary_dim * sizeof(float));
		for (int32_t i = half; i < args->rotary_dim && args->is_inverse; i++)
			angles[i] = -angles[i];
		for (int32_t h = 0; h < args->n_heads; h++)
			cpu->vector.rope(heads + (int64_t) h * args->head_dim, angles,
							 args->rotary_dim, args->interleaved);
	}
}

static bool
rotate(LlmCompute *compute, const LlmRotateArgs *args, LlmError *err)
{
	(void) err;
	assert(args->rotary_dim <= LLM_CPU_MAX_HEAD_DIM);
	if (args->rotary_dim == 0)
		return true;
	return run_range(compute, rotate_range, args, args->n_tokens,
					 (int64_t) args->n_heads * args->head_dim);
}

static void
gated_act_back_range(const LlmCpu *cpu, const void *arg, int64_t begin,
					 int64_t end)
{
	cpu->train->gated_act_back(arg, begin, end - begin);
}

static bool
gated_act_back(LlmCompute *compute, const LlmGatedActBackArgs *args,
			   LlmError *err)
{
	(void) err;
	return run_range(compute, gated_act_back_range, args, args->n, 1);
}

static void
cross_entropy_range(const LlmCpu *cpu, const void *arg, int64_t begin,
					int64_t end)
{
	const LlmCrossEntropyArgs *args = arg;
	const int32_t n = args->n_vocab;

	for (int64_t i = begin; i < end; i++)
	{
		float *row = args->logits + i * n;
		float cap = args->soft_cap;
		float log_sum;

		if (cap > 0)
			cpu->vector.soft_cap(row, n, cap);
		log_sum = cpu->train->log_sum_exp(row, n);
		args->log_probs[i] = row[args->labels[i]] - log_sum;
		if (args->weights == NULL)
			continue;
		if (cap > 0)
		{
			/* the cap's derivative is 1 - tanh^2 */
			for (int32_t j = 0; j < n; j++)
			{
				float t = row[j] / cap;
				float p = expf(row[j] - log_sum) - (j == args->labels[i]);

				row[j] = args->weights[i] * p * (1 - t * t);
			}
			continue;
		}
		cpu->train->soft_max_slopes(row, n, log_sum, args->weights[i]);
		row[args->labels[i]] -= args->weights[i];
	}
}

static bool
cross_entropy(LlmCompute *compute, const LlmCrossEntropyArgs *args,
			  LlmError *err)
{
	(void) err;
	assert(args->weights == NULL || args->d_logits == args->logits);
	return run_range(compute, cross_entropy_range, args, args->n_rows,
					 args->n_vocab);
}

static bool
scatter(LlmCompute *compute, const LlmScatterArgs *args, LlmError *err)
{
	const size_t row_bytes = (size_t) args->dim * sizeof(float);

	(void) compute;
	(void) err;
	memset(args->out, 0, (size_t) args->n_out_rows * row_bytes);
	for (int32_t i = 0; i < args->n_rows; i++)
		memcpy((float *) args->out + (int64_t) args->rows[i] * args->dim,
			   (const float *) args->x + (int64_t) i * args->dim, row_bytes);
	return true;
}

/* Word i of a sequence of random ones. */
static uint32_t
random_word(uint64_t seed, uint64_t sequence, int64_t i)
{
	return llm_philox(seed, (uint64_t) i / 4, sequence).word[i % 4];
}

static void
dropout_range(const LlmCpu *cpu, const void *arg, int64_t begin, int64_t end)
{
	const LlmDropoutArgs *args = arg;
	const float *x = args->x;
	float *out = args->out;
	const float factor = 1 / (1 - args->probability);
	const double bound = (double) args->probability * 4294967296.0;

	(void) cpu;
	for (int64_t i = begin; i < end; i++)
	{
		bool is_dropped =
			(double) random_word(args->seed, args->sequence, i) < bound;
		float kept = is_dropped ? 0 : x[i] * factor;

		out[i] = args->adds ? out[i] + kept : kept;
	}
}

static bool
dropout(LlmCompute *compute, const LlmDropoutArgs *args, LlmError *err)
{
	(void) err;
	assert(args->probability >= 0 && args->probability < 1);
	return run_range(compute, dropout_range, args, args->n, 1);
}

static void
noise_range(const LlmCpu *cpu, const void *arg, int64_t begin, int64_t end)
{
	const LlmNoiseArgs *args = arg;
	float *x = args->x;

	(void) cpu;
	for (int64_t i = begin; i < end; i++)
		x[i] += args->scale * (2 * llm_philox_unit_float(random_word(
									   args->seed, args->sequence, i)) -
							   1);
}

static bool
noise(LlmCompute *compute, const LlmNoiseArgs *args, LlmError *err)
{
	(void) err;
	return run_range(compute, noise_range, args, args->n, 1);
}

static void
scale_columns_range(const LlmCpu *cpu, const void *arg, int64_t begin,
					int64_t end)
{
	const LlmScaleColumnsArgs *args = arg;
	const LlmVector *bias = &args->bias;
	float part[VALUE_GRANULE] = { 0 };

	for (int32_t first = 0; first < args->dim; first += VALUE_GRANULE)
	{
		int32_t n = args->dim - first < VALUE_GRANULE ? args->dim - first
													  : VALUE_GRANULE;

		if (bias->data != NULL)
			cpu->vector.convert((const char *) bias->data +
									first *
										(int64_t) llm_dtype_bytes(bias->dtype),
								bias->dtype, 1, n, part);
		for (int64_t i = begin; i < end; i++)
		{
			const float *x = (const float *) args->x + i * args->dim + first;
			float *out = (float *) args->out + i * args->dim + first;

			for (int32_t j = 0; j < n; j++)
				out[j] = x[j] * args->scales[first + j] + part[j];
		}
	}
}

static bool
scale_columns(LlmCompute *compute, const LlmScaleColumnsArgs *args,
			  LlmError *err)
{
	(void) err;
	return run_range(compute, scale_columns_range, args, args->n_rows,
					 args->dim);
}

static void
column_dots_range(const LlmCpu *cpu, const void *arg, int64_t begin,
				  int64_t end)
{
	const LlmColumnDotsArgs *args = arg;
	float sums[VALUE_GRANULE];

	(void) cpu;
	for (int64_t first = begin; first < end; first += VALUE_GRANULE)
	{
		int64_t n = end - first < VALUE_GRANULE ? end - first : VALUE_GRANULE;

		memset(sums, 0, sizeof(sums));
		for (int64_t i = 0; i < args->n_rows; i++)
		{
			const float *a = (const float *) args->a + i * args->dim + first;
			const float *b = (const float *) args->b + i * args->dim + first;

			for (int64_t j = 0; j < n; j++)
				sums[j] += a[j] * b[j];
		}
		for (int64_t j = 0; j < n; j++)
			args->out[first + j] += sums[j] / args->divisors[first + j];
	}
}

static bool
column_dots(LlmCompute *compute, const LlmColumnDotsArgs *args, LlmError *err)
{
	(void) err;
	return run_range(compute, column_dots_range, args, args->dim, 1);
}

/* ---- sums of squares ---- */

static double
squares_of(const float *x, int64_t n)
{
	double sum = 0;

	for (int64_t i = 0; i < n; i++)
		sum += (double) x[i] * (double) x[i];
	return sum;
}

static void
row_squares_range(const LlmCpu *cpu, const void *arg, int64_t begin,
				  int64_t end)
{
	const LlmRowSquaresArgs *args = arg;
	const LlmMatrix *w = &args->weight;
	const int64_t row_bytes = w->n_cols * (int64_t) llm_dtype_bytes(w->dtype);
	float part[VALUE_GRANULE];

	for (int64_t i = begin; i < end; i++)
	{
		const char *row = (const char *) w->data + i * row_bytes;
		double sum = 0;

		for (int64_t j = 0; j < w->n_cols; j += VALUE_GRANULE)
		{
			int64_t n =
				w->n_cols - j < VALUE_GRANULE ? w->n_cols - j : VALUE_GRANULE;

			cpu->vector.convert(row + j * (int64_t) llm_dtype_bytes(w->dtype),
								w->dtype, 1, n, part);
			sum += squares_of(part, n);
		}
		args->out[i] = (float) sum;
	}
}

static bool
row_squares(LlmCompute *compute, const LlmRowSquaresArgs *args, LlmError *err)
{
	(void) err;
	return run_range(compute, row_squares_range, args, args->weight.n_rows,
					 args->weight.n_cols);
}

static void
adapted_norms_range(const LlmCpu *cpu, const void *arg, int64_t begin,
					int64_t end)
{
	const LlmAdaptedNormsArgs *args = arg;
	const int32_t rank = args->rank;

	(void) cpu;
	for (int64_t i = begin; i < end; i++)
	{
		const float *b = args->b + i * rank;
		double cross = 0;
		double own = 0;

		for (int32_t r = 0; r < rank; r++)
		{
			double sum = 0;

			cross += (double) b[r] * (double) args->wa[i * rank + r];
			for (int32_t s = 0; s < rank; s++)
				sum += (double) args->aa[r * rank + s] * (double) b[s];
			own += (double) b[r] * sum;
		}
		args->out[i] =
			(float) sqrt((double) args->weight_squares[i] +
						 2 * (double) args->scale * cross +
						 (double) args->scale * (double) args->scale * own);
	}
}

static bool
adapted_norms(LlmCompute *compute, const LlmAdaptedNormsArgs *args,
			  LlmError *err)
{
	(void) err;
	return run_range(compute, adapted_norms_range, args, args->n_rows,
					 (int64_t) args->rank * args->rank);
}

/* Round so that no compiler makes one operation of two. */
static float
rounded_product(float a, float b)
{
	return (float) ((double) a * (double) b);
}

static float
nf4_magnitude(const LlmNf4Args *args, int64_t block)
{
	float product;

	if (args->scale_codes == NULL)
		return args->scales[block];
	product = rounded_product(args->map[args->scale_codes[block]],
							  args->scales[block / 256]);
	return (float) ((double) product + (double) *args->offset);
}

static void
decode_nf4_range(const LlmCpu *cpu, const void *arg, int64_t begin, int64_t end)
{
	const LlmNf4Args *args = arg;
	float floats[16];
	uint16_t halves[16];

	(void) cpu;
	for (int64_t i = begin; i < end; i++)
	{
		int value;

		if (i == begin || i % 64 == 0)
		{
			const float magnitude = nf4_magnitude(args, i / 64);

			for (int k = 0; k < 16; k++)
			{
				floats[k] = rounded_product(args->codes[k], magnitude);
				halves[k] = args->out_dtype == LLM_DTYPE_BF16
								? llm_float_to_bf16(floats[k])
								: llm_float_to_f16(floats[k]);
			}
		}
		value = args->values[i / 2] >> (i % 2 == 0 ? 4 : 0) & 15;
		if (args->out_dtype == LLM_DTYPE_F32)
			((float *) args->out)[i] = floats[value];
		else
			((uint16_t *) args->out)[i] = halves[value];
	}
}

static bool
decode_nf4(LlmCompute *compute, const LlmNf4Args *args, LlmError *err)
{
	(void) err;
	assert(llm_dtype_is_float(args->out_dtype));
	return run_range(compute, decode_nf4_range, args, args->n, 1);
}

static bool
divide(LlmCompute *compute, const LlmDivideArgs *args, LlmError *err)
{
	(void) compute;
	(void) err;
	for (int64_t i = 0; i < args->n; i++)
		args->out[i] = args->a[i] / args->b[i];
	return true;
}

/* Activations are f32 here. */
static bool
round_values(LlmCompute *compute, const LlmRoundArgs *args, LlmError *err)
{
	(void) compute;
	(void) err;
	memcpy(args->out, args->x, (size_t) args->n * sizeof(float));
	return true;
}

static void
combine_range(const LlmCpu *cpu, const void *arg, int64_t begin, int64_t end)
{
	const LlmCombineArgs *args = arg;
	const int64_t dim = args->dim;

	(void) cpu;
	for (int64_t i = begin; i < end; i++)
	{
		float *out = (float *) args->out + i * dim;

		memset(out, 0, (size_t) dim * sizeof(float));
		for (int32_t k = 0; k < args->n_entries; k++)
		{
			const int64_t entry = args->entries[i * args->n_entries + k];
			const float *x = (const float *) args->x + entry * dim;
			const float factor = args->factors[entry];

			for (int64_t j = 0; j < dim; j++)
				out[j] += factor * x[j];
		}
	}
}

static bool
combine(LlmCompute *compute, const LlmCombineArgs *args, LlmError *err)
{
	(void) err;
	return run_range(compute, combine_range, args, args->n_rows,
					 (int64_t) args->n_entries * args->dim);
}

static void
row_dots_range(const LlmCpu *cpu, const void *arg, int64_t begin, int64_t end)
{
	const LlmRowDotsArgs *args = arg;

	(void) cpu;
	for (int64_t i = begin; i < end; i++)
	{
		const float *a = (const float *) args->a + i * args->dim;
		const float *b = (const float *) args->b + i * args->dim;
		double sum = 0;

		for (int32_t j = 0; j < args->dim; j++)
			sum += (double) a[j] * (double) b[j];
		args->out[i] = (float) sum;
	}
}

static bool
row_dots(LlmCompute *compute, const LlmRowDotsArgs *args, LlmError *err)
{
	(void) err;
	return run_range(compute, row_dots_range, args, args->n_rows, args->dim);
}

static bool
sum_squares(LlmCompute *compute, const float *x, int64_t n, double *sum,
			LlmError *err)
{
	(void) compute;
	(void) err;
	*sum = 0;
	for (int64_t i = 0; i < n; i += SUM_VALUES)
		*sum += squares_of(x + i, n - i < SUM_VALUES ? n - i : SUM_VALUES);
	return true;
}

static void
adamw_range(const LlmCpu *cpu, const void *arg, int64_t begin, int64_t end)
{
	cpu->train->adamw(arg, begin, end - begin);
}

static bool
adamw(LlmCompute *compute, const LlmAdamwArgs *args, LlmError *err)
{
	(void) err;
	return run_range(compute, adamw_range, args, args->n, 1);
}

static bool
clear(LlmCompute *compute, void *x, size_t n_bytes, LlmError *err)
{
	(void) compute;
	(void) err;
	memset(x, 0, n_bytes);
	return true;
}

static bool
copy(LlmCompute *compute, void *dest, const void *src, size_t n_bytes,
	 LlmError *err)
{
	(void) compute;
	(void) err;
	memcpy(dest, src, n_bytes);
	return true;
}

const LlmTrainOps llm_cpu_train_ops = {
	.linear = llm_cpu_linear,
	.product = llm_cpu_product,
	.add = add,
	.rms_norm_back = rms_norm_back,
	.rotate = rotate,
	.attention = llm_cpu_segment_attention,
	.attention_back = llm_cpu_segment_attention_back,
	.gated_act_back = gated_act_back,
	.cross_entropy = cross_entropy,
	.scatter = scatter,
	.dropout = dropout,
	.noise = noise,
	.scale_columns = scale_columns,
	.column_dots = column_dots,
	.row_squares = row_squares,
	.adapted_norms = adapted_norms,
	.decode_nf4 = decode_nf4,
	.divide = divide,
	.round = round_values,
	.combine = combine,
	.row_dots = row_dots,
	.adamw = adamw,
	.sum_squares = sum_squares,
	.clear = clear,
	.copy = copy,
};

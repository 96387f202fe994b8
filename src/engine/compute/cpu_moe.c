/*
 * cpu_moe.c
 *	  The MLP of a mixture of experts.
 *
 * Every row of x visits its n_top experts: an entry is one such visit.  The
 * entries of a step are sorted by expert, so that an expert's weights are
 * multiplied with all of its rows at once, and read from memory once.  The
 * experts do not wait for each other: gate and up of all of them are one job
 * for the threads, down of all of them another.
 *
 * What an entry needs between the two (its prepared row, gate, up) is much
 * longer than what a row of a dense layer needs, n_top times.  So entries are
 * taken in waves that fit the scratch memory: decoding is one wave, a long
 * prompt several.
 *
 * A row adds up its experts in their order.  Neither that nor a product
 * depends on the other rows, on the waves or on the threads.
 *
 * src/engine/compute/cpu_moe.c
 */
#include <assert.h>
#include <stdatomic.h>
#include <string.h>

#include "src/engine/compute/cpu_internal.h"

/* What the entries of a wave may take, unless few entries take more. */
#define WAVE_BYTES ((int64_t) 32 << 20)

/* Below so many values one thread is done before another has woken up. */
#define PARALLEL_VALUES 16384

/* Entries first .. first + n - 1, all of them one expert's. */
typedef struct Group
{
	int32_t expert_idx;
	int32_t first;
	int32_t n;
} Group;

struct LlmCpuMoe
{
	/* set once: what the scratch is sized for */
	int32_t max_rows;
	int32_t max_experts;
	int32_t max_top;

	/* how a step's rows are routed */
	float *probability;	   /* [n_threads, max_experts] */
	int32_t *expert;	   /* [n_rows, n_top] ascending in a row */
	float *share;		   /* [n_rows, n_top] of the output */
	int32_t *entry;		   /* [n_rows, n_top] where it is sorted to */
	int32_t *entry_row;	   /* [n_rows * n_top] */
	int32_t *entry_expert; /* likewise */
	int32_t *expert_entry; /* [n_experts + 1] an expert's first */
	Group *groups;

	/* the entries of a wave */
	char *wave;
	int64_t wave_bytes;
};

/* A step on its way through the experts. */
typedef struct MoeStep
{
	LlmCpu *cpu;
	const LlmMoeArgs *args;
	int32_t begin; /* the wave: entries begin .. end - 1 */
	int32_t end;
	int64_t slot_bytes;		  /* of a prepared row */
	char *prepared;			  /* [entries of the wave, slot_bytes] */
	float *gate;			  /* [entries of the wave, inner_dim] */
	float *up;				  /* likewise; then down's [.., dim] */
	const LlmMatrix *weights; /* that rows are prepared for */
} MoeStep;

/* Which weights the entries are multiplied with. */
typedef struct Products
{
	const MoeStep *step;
	int n_parts; /* gate and up, or one */
	struct
	{
		const LlmMatrix *weights; /* [n_experts] */
		float *out;
	} part[2];
	int64_t chunk_rows;
	int64_t n_matrix_chunks;
	int64_t n_chunks; /* of all groups and parts */
	atomic_llong next_chunk;
} Products;

/* ------------------------------------------------------------------------
 * Scratch
 * ------------------------------------------------------------------------
 */
static int64_t
widest(int64_t dim, int64_t inner_dim)
{
	return dim > inner_dim ? dim : inner_dim;
}

static int64_t
padded(int64_t n)
{
	return (n + 15) / 16 * 16;
}

static int64_t
entry_bytes(int64_t dim, int64_t inner_dim)
{
	int64_t n = widest(dim, inner_dim);

	return llm_cpu_linear_max_row_bytes(n) +
		   (padded(inner_dim) + padded(n)) * (int64_t) sizeof(float);
}

/* The next n_bytes of a block, at a cache line's border. */
static void *
carve(char *block, size_t *used, size_t n_bytes)
{
	void *at = block == NULL ? NULL : block + *used;

	*used += (n_bytes + 63) / 64 * 64;
	return at;
}

/* Returns the bytes of everything; block may be NULL. */
static size_t
carve_all(LlmCpuMoe *moe, char *block, int n_threads)
{
	size_t n_entries = (size_t) moe->max_rows * (size_t) moe->max_top;
	size_t n_experts = (size_t) moe->max_experts;
	size_t n_groups = n_experts + n_entries / LLM_CPU_MIN_BLOCK_ROWS;
	size_t used = 0;

	moe->probability =
		carve(block, &used, (size_t) n_threads * n_experts * sizeof(float));
	moe->expert = carve(block, &used, n_entries * sizeof(int32_t));
	moe->share = carve(block, &used, n_entries * sizeof(float));
	moe->entry = carve(block, &used, n_entries * sizeof(int32_t));
	moe->entry_row = carve(block, &used, n_entries * sizeof(int32_t));
	moe->entry_expert = carve(block, &used, n_entries * sizeof(int32_t));
	moe->expert_entry = carve(block, &used, (n_experts + 1) * sizeof(int32_t));
	moe->groups = carve(block, &used, n_groups * sizeof(Group));
	moe->wave = carve(block, &used, (size_t) moe->wave_bytes);
	return used;
}

LlmCpuMoe *
llm_cpu_moe_create(const LlmComputeOptions *options, int n_threads,
				   LlmError *err)
{
	LlmCpuMoe sizes = {
		.max_rows = options->max_rows,
		.max_experts = options->max_experts,
		.max_top = options->max_experts_per_token,
	};
	int64_t one = entry_bytes(options->max_cols, options->max_expert_dim);
	int64_t all = one * options->max_rows * options->max_experts_per_token;
	LlmCpuMoe *moe;
	size_t n_bytes;
	char *block;

	assert(sizes.max_top > 0 && sizes.max_top <= sizes.max_experts);
	assert(options->max_expert_dim > 0);
	sizes.wave_bytes = WAVE_BYTES < all ? WAVE_BYTES : all;
	if (sizes.wave_bytes < LLM_CPU_MIN_BLOCK_ROWS * one)
		sizes.wave_bytes = LLM_CPU_MIN_BLOCK_ROWS * one;
	n_bytes = sizeof(LlmCpuMoe) + 64 + carve_all(&sizes, NULL, n_threads);
	moe = llm_cpu_alloc(n_bytes, "scratch of a mixture of experts", err);
	if (moe == NULL)
		return NULL;
	*moe = sizes;
	block = (char *) moe + (sizeof(LlmCpuMoe) + 63) / 64 * 64;
	carve_all(moe, block, n_threads);
	return moe;
}

void
llm_cpu_moe_free(LlmCpuMoe *moe)
{
	llm_cpu_free(moe);
}

/* ------------------------------------------------------------------------
 * Routing
 * ------------------------------------------------------------------------
 */

/* The first largest that is left; one that is taken is negative. */
static int32_t
next_most_probable(const float *p, int32_t n)
{
	int32_t best = -1;

	for (int32_t i = 0; i < n; i++)
	{
		/* the negation takes NaN where there is nothing else */
		if (best < 0 ? !(p[i] < 0) : p[i] > p[best])
			best = i;
	}
	return best;
}

/* Put an expert into a row's list of n, which is ascending. */
static void
insert_expert(int32_t *expert, float *share, int32_t n, int32_t idx, float p)
{
	for (; n > 0 && expert[n - 1] > idx; n--)
	{
		expert[n] = expert[n - 1];
		share[n] = share[n - 1];
	}
	expert[n] = idx;
	share[n] = p;
}

/* p: [n_experts] scratch */
static void
route_row(const MoeStep *step, int64_t row, float *p)
{
	const LlmMoeArgs *args = step->args;
	const LlmCpuMoe *moe = step->cpu->moe;
	const float *logits = args->router_logits + row * args->n_experts;
	int32_t *expert = moe->expert + row * args->n_top;
	float *share = moe->share + row * args->n_top;
	float max = logits[0];
	double chosen = 0;
	double sum;

	for (int32_t i = 1; i < args->n_experts; i++)
		max = logits[i] > max ? logits[i] : max;
	sum = step->cpu->vector.exp_sum(logits, args->n_experts, max, 1.0f, p);
	for (int32_t k = 0; k < args->n_top; k++)
	{
		int32_t idx = next_most_probable(p, args->n_experts);

		insert_expert(expert, share, k, idx, p[idx]);
		chosen += (double) p[idx];
		p[idx] = -1;
	}
	for (int32_t k = 0; k < args->n_top; k++)
		share[k] =
			(float) ((double) share[k] / (args->renormalize ? chosen : sum));
}

static void
route_job(void *arg, int thread_idx, int n_threads)
{
	const MoeStep *step = arg;
	const LlmCpuMoe *moe = step->cpu->moe;
	int64_t begin;
	int64_t end;

	llm_cpu_share(step->args->n_rows, 1, thread_idx, n_threads, &begin, &end);
	for (int64_t row = begin; row < end; row++)
		route_row(step, row,
				  moe->probability + (int64_t) thread_idx * moe->max_experts);
}

/* Sort the entries by expert, those of an expert by row. */
static void
sort_entries(const MoeStep *step)
{
	const LlmMoeArgs *args = step->args;
	const LlmCpuMoe *moe = step->cpu->moe;
	int32_t n_entries = args->n_rows * args->n_top;
	int32_t *next = moe->expert_entry;
	int32_t first = 0;

	memset(next, 0, (size_t) (args->n_experts + 1) * sizeof(*next));
	for (int32_t i = 0; i < n_entries; i++)
		next[moe->expert[i]]++;
	for (int32_t i = 0; i <= args->n_experts; i++)
	{
		int32_t n = next[i];

		next[i] = first;
		first += n;
	}
	for (int32_t i = 0; i < n_entries; i++)
	{
		moe->entry[i] = next[moe->expert[i]]++;
		moe->entry_row[moe->entry[i]] = i / args->n_top;
		moe->entry_expert[moe->entry[i]] = moe->expert[i];
	}
	/* each now stands where the next one begins */
	memmove(next + 1, next, (size_t) args->n_experts * sizeof(*next));
	next[0] = 0;
}

/* ------------------------------------------------------------------------
 * Products
 * ------------------------------------------------------------------------
 */

/* Run on all threads where there is enough to do. */
static void
run_sized(MoeStep *step, LlmCpuJob job, int64_t n_values)
{
	if (n_values < PARALLEL_VALUES)
		job(step, 0, 1);
	else
		llm_cpu_threads_run(step->cpu->threads, job, step);
}

/* The wave's entries in groups that are multiplied together. */
static int32_t
make_groups(const MoeStep *step, int64_t n_cols)
{
	const LlmCpuMoe *moe = step->cpu->moe;
	int32_t n_groups = 0;

	for (int32_t e = 0; e < step->args->n_experts; e++)
	{
		int32_t first = moe->expert_entry[e];
		int32_t end = moe->expert_entry[e + 1];
		int32_t n;

		if (first < step->begin)
			first = step->begin;
		if (end > step->end)
			end = step->end;
		if (first >= end)
			continue;
		n = (int32_t) llm_cpu_linear_block_rows(
			llm_cpu_linear_max_row_bytes(n_cols), end - first);
		for (; first < end; first += n)
			moe->groups[n_groups++] =
				(Group){ e, first, n < end - first ? n : end - first };
	}
	return n_groups;
}

/* Rows of one expert's weights with the rows of one of its groups. */
static void
multiply_chunk(const Products *products, int64_t chunk, float *scratch)
{
	const MoeStep *step = products->step;
	int64_t matrix_idx = chunk / products->n_matrix_chunks;
	const Group *group =
		&step->cpu->moe->groups[matrix_idx / products->n_parts];
	int part = (int) (matrix_idx % products->n_parts);
	const LlmMatrix *w = &products->part[part].weights[group->expert_idx];
	int64_t row = chunk % products->n_matrix_chunks * products->chunk_rows;
	int64_t slot = group->first - step->begin;
	LlmCpuLinearTask task = {
		.w = w->data,
		.w_stride = w->n_cols * (int64_t) llm_dtype_bytes(w->dtype),
		.x = step->prepared + slot * step->slot_bytes,
		.x_stride = step->slot_bytes,
		.n_cols = w->n_cols,
		.is_first = true,
		.is_last = true,
		.n_x = group->n,
		.out = products->part[part].out + slot * w->n_rows,
		.out_stride = w->n_rows,
		.scratch = scratch,
	};

	llm_cpu_linear_kernel(step->cpu, w->dtype)
		->multiply(&task, row,
				   row + products->chunk_rows < w->n_rows
					   ? row + products->chunk_rows
					   : w->n_rows);
}

static void
multiply_job(void *arg, int thread_idx, int n_threads)
{
	Products *products = arg;
	char *scratch = products->step->cpu->linear_scratch +
					(size_t) thread_idx * llm_cpu_linear_thread_bytes();
	int64_t chunk;

	(void) n_threads;
	while ((chunk = atomic_fetch_add(&products->next_chunk, 1)) <
		   products->n_chunks)
		multiply_chunk(products, chunk, (float *) scratch);
}

/* The products of the wave's entries, which are prepared. */
static void
multiply(Products *products)
{
	const MoeStep *step = products->step;
	const LlmMatrix *w = &products->part[0].weights[0];
	int32_t n_groups = make_groups(step, w->n_cols);
	int64_t n_matrices = (int64_t) n_groups * products->n_parts;
	int64_t n_x = 0;

	for (int32_t i = 0; i < n_groups; i++)
	{
		if (step->cpu->moe->groups[i].n > n_x)
			n_x = step->cpu->moe->groups[i].n;
	}
	assert(n_x <= LLM_CPU_MAX_X_ROWS);
	products->chunk_rows =
		llm_cpu_linear_chunk_rows(step->cpu, w, n_matrices * w->n_rows, n_x);
	products->n_matrix_chunks =
		(w->n_rows + products->chunk_rows - 1) / products->chunk_rows;
	products->n_chunks = n_matrices * products->n_matrix_chunks;
	atomic_init(&products->next_chunk, 0);
	llm_cpu_threads_run(step->cpu->threads, multiply_job, products);
}

/* ------------------------------------------------------------------------
 * A wave
 * ------------------------------------------------------------------------
 */

/* Into the form that the kernel of the entry's weights reads. */
static void
prepare_entry(const MoeStep *step, int64_t entry, const float *x)
{
	const LlmMatrix *w = &step->weights[step->cpu->moe->entry_expert[entry]];

	llm_cpu_linear_kernel(step->cpu, w->dtype)
		->prepare(x, w->n_cols,
				  step->prepared + (entry - step->begin) * step->slot_bytes);
}

static void
prepare_x_job(void *arg, int thread_idx, int n_threads)
{
	const MoeStep *step = arg;
	const float *x = step->args->x;
	int64_t begin;
	int64_t end;

	llm_cpu_share(step->end - step->begin, 1, thread_idx, n_threads, &begin,
				  &end);
	for (int64_t i = step->begin + begin; i < step->begin + end; i++)
		prepare_entry(step, i,
					  x + (int64_t) step->cpu->moe->entry_row[i] *
							  step->args->dim);
}

static void
prepare_inner_job(void *arg, int thread_idx, int n_threads)
{
	const MoeStep *step = arg;
	int64_t dim = step->args->inner_dim;
	int64_t begin;
	int64_t end;

	llm_cpu_share(step->end - step->begin, 1, thread_idx, n_threads, &begin,
				  &end);
	for (int64_t i = begin; i < end; i++)
	{
		float *gate = step->gate + i * dim;

		step->cpu->vector.gated_act(step->args->activation, gate,
									step->up + i * dim, dim, gate);
		prepare_entry(step, step->begin + i, gate);
	}
}

/* out += share * down(...), for the entries of the wave */
static void
add_job(void *arg, int thread_idx, int n_threads)
{
	const MoeStep *step = arg;
	const LlmMoeArgs *args = step->args;
	const LlmCpuMoe *moe = step->cpu->moe;
	int64_t begin;
	int64_t end;

	llm_cpu_share(args->n_rows, 1, thread_idx, n_threads, &begin, &end);
	for (int64_t row = begin; row < end; row++)
	{
		float *out = (float *) args->out + row * args->dim;

		if (step->begin == 0)
			memset(out, 0, (size_t) args->dim * sizeof(float));
		for (int64_t i = row * args->n_top; i < (row + 1) * args->n_top; i++)
		{
			const float *down =
				step->up + (int64_t) (moe->entry[i] - step->begin) * args->dim;

			if (moe->entry[i] < step->begin || moe->entry[i] >= step->end)
				continue;
			for (int32_t k = 0; k < args->dim; k++)
				out[k] += moe->share[i] * down[k];
		}
	}
}

/* Whether rows that are prepared for gate will do for up, too. */
static bool
has_common_kernel(const MoeStep *step)
{
	const LlmMoeArgs *args = step->args;

	for (int32_t i = 0; i < args->n_experts; i++)
	{
		if (llm_cpu_linear_kernel(step->cpu, args->gate[i].dtype) !=
			llm_cpu_linear_kernel(step->cpu, args->up[i].dtype))
			return false;
	}
	return true;
}

static void
run_products(MoeStep *step, Products *products, LlmCpuJob prepare)
{
	step->weights = products->part[0].weights;
	products->step = step;
	run_sized(step, prepare,
			  (step->end - step->begin) * step->weights[0].n_cols);
	multiply(products);
}

static void
run_wave(MoeStep *step)
{
	const LlmMoeArgs *args = step->args;
	Products gate_up = {
		.n_parts = 2,
		.part = { { args->gate, step->gate }, { args->up, step->up } },
	};
	Products gate = { .n_parts = 1, .part = { { args->gate, step->gate } } };
	Products up = { .n_parts = 1, .part = { { args->up, step->up } } };
	Products down = { .n_parts = 1, .part = { { args->down, step->up } } };

	if (has_common_kernel(step))
		run_products(step, &gate_up, prepare_x_job);
	else
	{
		run_products(step, &gate, prepare_x_job);
		run_products(step, &up, prepare_x_job);
	}
	run_products(step, &down, prepare_inner_job);
	run_sized(step, add_job, (int64_t) (step->end - step->begin) * args->dim);
}

/* The wave that begins at an entry; an expert is cut only where it must be. */
static int32_t
end_of_wave(const MoeStep *step, int64_t n_most)
{
	const LlmCpuMoe *moe = step->cpu->moe;
	int32_t n_entries = step->args->n_rows * step->args->n_top;
	int32_t first;

	if (n_entries - step->begin <= n_most)
		return n_entries;
	first = moe->expert_entry[moe->entry_expert[step->begin + n_most]];
	return first > step->begin ? first : step->begin + (int32_t) n_most;
}

bool
llm_cpu_moe(LlmCompute *compute, const LlmMoeArgs *args, LlmError *err)
{
	LlmCpu *cpu = llm_cpu(compute);
	LlmCpuMoe *moe = cpu->moe;
	int64_t dim = widest(args->dim, args->inner_dim);
	int64_t n_most = moe->wave_bytes / entry_bytes(args->dim, args->inner_dim);
	MoeStep step = {
		.cpu = cpu,
		.args = args,
		.slot_bytes = llm_cpu_linear_max_row_bytes(dim),
		.prepared = moe->wave,
	};

	(void) err;
	assert(args->n_rows <= moe->max_rows && args->out != args->x);
	assert(args->n_experts <= moe->max_experts);
	assert(args->n_top > 0 && args->n_top <= moe->max_top);
	assert(args->n_top <= args->n_experts && n_most > 0);
	step.gate = (float *) (moe->wave + n_most * step.slot_bytes);
	step.up = step.gate + n_most * padded(args->inner_dim);
	run_sized(&step, route_job, (int64_t) args->n_rows * args->n_experts);
	sort_entries(&step);
	for (; step.begin < args->n_rows * args->n_top; step.begin = step.end)
	{
		step.end = end_of_wave(&step, n_most);
		run_wave(&step);
	}
	return true;
}

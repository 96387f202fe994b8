/*
 * cpu_threads.c
 *	  A fixed team of threads that runs one function together.
 *
 * A job is published by raising "generation"; a worker that sees a new value
 * runs the job and lowers "n_running".  Both sides spin first and then sleep
 * on the word they wait for.  Whoever is about to sleep says so first
 * (n_sleeping, caller_sleeps) and the futex call rechecks the word; whoever
 * changes the word looks at that flag afterwards.  All these accesses are
 * sequentially consistent, so one of the two always sees the other and no
 * wakeup is lost.
 *
 * Worker i is bound to the i-th CPU of the process's mask.  The caller keeps
 * its own mask, because threads that it starts would inherit a narrower one;
 * it only steps aside to the first CPU when it finds itself on a worker's.
 *
 * src/engine/compute/cpu_threads.c
 */
#include "src/engine/compute/cpu_threads.h"

#include <assert.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "src/common/util/clock.h"

#define SPIN_US 50
#define PAUSES_PER_CLOCK_CHECK 32

struct LlmCpuThreads
{
	/* set once */
	int n_threads;
	int n_started; /* workers that exist: all but the caller */
	int first_cpu; /* where the caller belongs, -1 unknown */
	pthread_t *workers;
	struct Worker *worker_args;

	/* the job: written by the caller while no worker runs */
	LlmCpuJob job;
	void *arg;
	bool stop;

	/* atomic, one cache line each: the sides wait on different words */
	_Alignas(64) atomic_uint generation; /* raised by the caller */
	_Alignas(64) atomic_uint n_running;	 /* lowered by workers */
	_Alignas(64) atomic_int n_sleeping;	 /* workers asleep or nearly so */
	atomic_int caller_sleeps;
};

struct Worker
{
	LlmCpuThreads *threads;
	int idx;
	int cpu; /* -1: not bound */
};

static void
futex_wait(atomic_uint *word, unsigned expected)
{
	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
}

static void
futex_wake_all(atomic_uint *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

static inline void
pause_cpu(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#endif
}

/* Spin until *word is (until_equal) or is not value; false: time is up. */
static bool
spin_on(atomic_uint *word, unsigned value, bool until_equal)
{
	int64_t deadline_us = 0;

	for (;;)
	{
		for (int i = 0; i < PAUSES_PER_CLOCK_CHECK; i++)
		{
			if ((atomic_load(word) == value) == until_equal)
				return true;
			pause_cpu();
		}
		if (deadline_us == 0)
			deadline_us = llm_clock_us() + SPIN_US;
		else if (llm_clock_us() >= deadline_us)
			return false;
	}
}

static void
bind_to_cpu(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	/* a refusal costs speed only */
	(void) sched_setaffinity(0, sizeof(set), &set);
}

static unsigned
wait_for_job(LlmCpuThreads *threads, unsigned seen)
{
	if (!spin_on(&threads->generation, seen, false))
	{
		atomic_fetch_add(&threads->n_sleeping, 1);
		while (atomic_load(&threads->generation) == seen)
			futex_wait(&threads->generation, seen);
		atomic_fetch_sub(&threads->n_sleeping, 1);
	}
	return seen + 1;
}

static void *
worker_main(void *arg)
{
	struct Worker *self = arg;
	LlmCpuThreads *threads = self->threads;
	unsigned seen = 0;

	if (self->cpu >= 0)
		bind_to_cpu(self->cpu);
	for (;;)
	{
		seen = wait_for_job(threads, seen);
		if (threads->stop)
			return NULL;
		threads->job(threads->arg, self->idx, threads->n_threads);
		if (atomic_fetch_sub(&threads->n_running, 1) == 1 &&
			atomic_load(&threads->caller_sleeps))
			futex_wake_all(&threads->n_running);
	}
}

/* The caller's mask may be shared with a worker's CPU: step aside once. */
static void
leave_worker_cpu(const LlmCpuThreads *threads)
{
	cpu_set_t mask;
	int cpu = sched_getcpu();

	if (threads->first_cpu < 0 || cpu == threads->first_cpu)
		return;
	for (int i = 0; i < threads->n_started; i++)
	{
		if (threads->worker_args[i].cpu != cpu)
			continue;
		if (sched_getaffinity(0, sizeof(mask), &mask) == 0 &&
			CPU_ISSET(threads->first_cpu, &mask))
		{
			bind_to_cpu(threads->first_cpu);
			(void) sched_setaffinity(0, sizeof(mask), &mask);
		}
		return;
	}
}

static void
publish(LlmCpuThreads *threads)
{
	atomic_store(&threads->n_running, (unsigned) threads->n_started);
	atomic_fetch_add(&threads->generation, 1);
	if (atomic_load(&threads->n_sleeping) > 0)
	{
		futex_wake_all(&threads->generation);
		leave_worker_cpu(threads);
	}
}

void
llm_cpu_threads_run(LlmCpuThreads *threads, LlmCpuJob job, void *arg)
{
	unsigned n;

	if (threads->n_threads == 1)
	{
		job(arg, 0, 1);
		return;
	}
	assert(atomic_load(&threads->n_running) == 0);
	threads->job = job;
	threads->arg = arg;
	publish(threads);
	job(arg, 0, threads->n_threads);
	if (spin_on(&threads->n_running, 0, true))
		return;
	atomic_store(&threads->caller_sleeps, 1);
	while ((n = atomic_load(&threads->n_running)) != 0)
		futex_wait(&threads->n_running, n);
	atomic_store(&threads->caller_sleeps, 0);
}

int
llm_cpu_threads_count(const LlmCpuThreads *threads)
{
	return threads->n_threads;
}

/* The k-th CPU of the mask, -1 if there are fewer. */
static int
nth_cpu(const cpu_set_t *mask, int k)
{
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
	{
		if (CPU_ISSET(cpu, mask) && k-- == 0)
			return cpu;
	}
	return -1;
}

static bool
start_workers(LlmCpuThreads *threads, const cpu_set_t *mask, LlmError *err)
{
	bool bind = CPU_COUNT(mask) >= threads->n_threads;
	sigset_t all;
	sigset_t old;
	int rc = 0;

	/* signals are the caller's business */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	threads->first_cpu = bind ? nth_cpu(mask, 0) : -1;
	for (int i = 1; i < threads->n_threads && rc == 0; i++)
	{
		struct Worker *worker = &threads->worker_args[i - 1];

		worker->threads = threads;
		worker->idx = i;
		worker->cpu = bind ? nth_cpu(mask, i) : -1;
		rc =
			pthread_create(&threads->workers[i - 1], NULL, worker_main, worker);
		if (rc != 0)
			llm_error_set(err, LLM_ERROR_NO_MEMORY,
						  "could not start thread %d of %d: %s", i,
						  threads->n_threads, strerror(rc));
		else
			threads->n_started++;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return rc == 0;
}

LlmCpuThreads *
llm_cpu_threads_create(int n_threads, LlmError *err)
{
	LlmCpuThreads *threads;
	cpu_set_t mask;

	assert(n_threads >= 0);
	CPU_ZERO(&mask);
	if (sched_getaffinity(0, sizeof(mask), &mask) != 0)
		CPU_ZERO(&mask);
	if (n_threads == 0)
		n_threads = CPU_COUNT(&mask) > 0 ? CPU_COUNT(&mask) : 1;
	threads = aligned_alloc(_Alignof(LlmCpuThreads), sizeof(*threads));
	if (threads == NULL)
	{
		llm_error_no_memory(err, sizeof(*threads), "the thread pool");
		return NULL;
	}
	memset(threads, 0, sizeof(*threads));
	threads->n_threads = n_threads;
	threads->workers = calloc((size_t) n_threads, sizeof(pthread_t));
	threads->worker_args = calloc((size_t) n_threads, sizeof(struct Worker));
	if (threads->workers == NULL || threads->worker_args == NULL)
		llm_error_no_memory(err, (uint64_t) n_threads * 64, "the thread pool");
	else if (start_workers(threads, &mask, err))
		return threads;
	llm_cpu_threads_free(threads);
	return NULL;
}

void
llm_cpu_threads_free(LlmCpuThreads *threads)
{
	if (threads == NULL)
		return;
	threads->stop = true;
	if (threads->n_started > 0)
		publish(threads);
	for (int i = 0; i < threads->n_started; i++)
		pthread_join(threads->workers[i], NULL);
	free(threads->workers);
	free(threads->worker_args);
	free(threads);
}

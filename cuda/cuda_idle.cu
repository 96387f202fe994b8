/*
 * cuda_idle.cu
 *	  How long the device had nothing to do between and within steps.
 *
 * Events mark where a step's inputs are placed, where its pass is done, where
 * its draw begins and where it ends.  Between the end of a draw and the next
 * step's first mark, and between a pass and its draw, the device waits for
 * what the host has not enqueued yet.  Off unless asked for: each mark costs
 * the device about a microsecond.
 *
 * cuda/cuda_idle.cu
 */
#include "cuda/cuda_internal.cuh"

#include <stdlib.h>

struct IdleClock
{
	cudaEvent_t marks[2][IDLE_N_MARKS];
	int step;	  /* whose marks are being made */
	int n_placed; /* steps since the last draw */
	bool has_drawn;
	bool is_chained; /* the last two draws are of neighbouring steps */
	LlmDeviceTimes times;
};

bool
cuda_idle_open(LlmCuda *cuda, LlmError *err)
{
	if (!cuda->options.measure_idle)
		return true;
	cuda->idle = (IdleClock *) calloc(1, sizeof(IdleClock));
	if (cuda->idle == NULL)
		return llm_error_no_memory(err, sizeof(IdleClock), "a clock");
	for (int step = 0; step < 2; step++)
	{
		for (int i = 0; i < IDLE_N_MARKS; i++)
			CUDA_TRY(cudaEventCreate(&cuda->idle->marks[step][i]));
	}
	return true;
}

void
cuda_idle_close(LlmCuda *cuda)
{
	if (cuda->idle == NULL)
		return;
	for (int step = 0; step < 2; step++)
	{
		for (int i = 0; i < IDLE_N_MARKS; i++)
		{
			if (cuda->idle->marks[step][i] != NULL)
				(void) cudaEventDestroy(cuda->idle->marks[step][i]);
		}
	}
	free(cuda->idle);
	cuda->idle = NULL;
}

bool
cuda_idle_mark(LlmCuda *cuda, IdleMark mark, LlmError *err)
{
	IdleClock *idle = cuda->idle;

	if (idle == NULL)
		return true;
	if (mark == IDLE_PLACED)
	{
		idle->step = 1 - idle->step;
		idle->n_placed++;
	}
	if (mark == IDLE_DRAWN)
	{
		idle->is_chained = idle->n_placed == 1 && idle->has_drawn;
		idle->has_drawn = true;
		idle->n_placed = 0;
	}
	CUDA_TRY(cudaEventRecord(idle->marks[idle->step][mark], cuda->stream));
	return true;
}

static bool
elapsed_us(cudaEvent_t from, cudaEvent_t to, double *us, LlmError *err)
{
	float ms = 0;

	CUDA_TRY(cudaEventElapsedTime(&ms, from, to));
	*us = (double) ms * 1e3;
	return true;
}

/*
 * A draw was waited for.  Marks of the next step may have been made since, but
 * none of its draw, so what is read here is still there: this step's, and the
 * end of the draw before.
 */
bool
cuda_idle_count(LlmCuda *cuda, LlmError *err)
{
	IdleClock *idle = cuda->idle;
	cudaEvent_t *now;
	cudaEvent_t *before;
	double step_us = 0;
	double between_us = 0;
	double within_us = 0;

	if (idle == NULL || !idle->is_chained || idle->n_placed > 1)
		return true;
	now = idle->marks[idle->n_placed == 1 ? 1 - idle->step : idle->step];
	before = idle->marks[idle->n_placed == 1 ? idle->step : 1 - idle->step];
	if (!elapsed_us(before[IDLE_DRAWN], now[IDLE_DRAWN], &step_us, err) ||
		!elapsed_us(before[IDLE_DRAWN], now[IDLE_PLACED], &between_us, err) ||
		!elapsed_us(now[IDLE_PASSED], now[IDLE_DRAWING], &within_us, err))
		return false;
	idle->times.step_us += step_us;
	idle->times.idle_us += between_us + within_us;
	idle->times.n_steps++;
	return true;
}

bool
cuda_idle_times(LlmCompute *compute, LlmDeviceTimes *times)
{
	IdleClock *idle = llm_cuda(compute)->idle;

	if (idle == NULL)
		return false;
	*times = idle->times;
	idle->times = (LlmDeviceTimes){ 0 };
	idle->has_drawn = false;
	return true;
}

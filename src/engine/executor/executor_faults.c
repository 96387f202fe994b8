/*
 * executor_faults.c
 *	  Failures made to order, in builds with asserts.
 *
 * The environment variable LLM_DEBUG_FAULTS names a file.  When it appears,
 * the next step takes it away and does what its one line says:
 *
 *	OPERATION AFTER TIMES no_memory|internal
 *
 * So many calls of the operation succeed, and so many fail then, as on a
 * device that has no memory left, or that cannot be trusted any more.  Tests
 * write the file under another name and rename it.
 *
 * src/engine/executor/executor_faults.c
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/engine/executor/executor.h"

#ifdef NDEBUG

void
llm_executor_arm_faults(LlmExecutor *executor)
{
	(void) executor;
}

#else

static struct
{
	const LlmComputeOps *real;
	LlmComputeOps ops; /* the same, but for those that may fail */
	const char *path;
	char operation[32]; /* empty: none is to fail */
	int n_before;
	int n_failures;
	LlmErrorCode code;
} faults;

/* Is there a new order? */
static void
read_order(void)
{
	FILE *file = fopen(faults.path, "re");
	char code[16] = "";

	if (file == NULL)
		return;
	if (fscanf(file, "%31s %d %d %15s", faults.operation, &faults.n_before,
			   &faults.n_failures, code) != 4)
		faults.operation[0] = '\0';
	faults.code = strcmp(code, "no_memory") == 0 ? LLM_ERROR_NO_MEMORY
												 : LLM_ERROR_INTERNAL;
	fclose(file);
	(void) unlink(faults.path);
}

static bool
fails(const char *operation, LlmError *err)
{
	if (strcmp(operation, faults.operation) != 0 || faults.n_before-- > 0)
		return false;
	if (faults.n_failures-- <= 0)
	{
		faults.operation[0] = '\0';
		return false;
	}
	llm_error_set(err, faults.code, "%s fails as was ordered", operation);
	return true;
}

static bool
upload(LlmCompute *compute, const LlmStepInputs *host, LlmStepInputs *device,
	   LlmError *err)
{
	read_order();
	return !fails("step_upload", err) &&
		   faults.real->step_upload(compute, host, device, err);
}

static bool
multiply(LlmCompute *compute, const LlmLinearArgs *args, LlmError *err)
{
	return !fails("linear", err) && faults.real->linear(compute, args, err);
}

static bool
draw(LlmCompute *compute, const LlmSampleArgs *args, LlmError *err)
{
	return !fails("sample", err) && faults.real->sample(compute, args, err);
}

static bool
wait_for_draw(LlmCompute *compute, LlmError *err)
{
	return !fails("sample_wait", err) && faults.real->sample_wait(compute, err);
}

void
llm_executor_arm_faults(LlmExecutor *executor)
{
	faults.path = getenv("LLM_DEBUG_FAULTS");
	if (faults.path == NULL)
		return;
	faults.real = executor->compute->ops;
	faults.ops = *faults.real;
	faults.ops.step_upload = upload;
	faults.ops.linear = multiply;
	faults.ops.sample = draw;
	faults.ops.sample_wait = wait_for_draw;
	executor->compute->ops = &faults.ops;
}

#endif

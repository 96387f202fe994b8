/*
 * executor_share.c
 *	  One copy of the weights on a GPU for several executors.
 *
 * An executor that serves lends its weights; one that trains looks for them
 * before it loads its own.  On the CPU nobody has to: weights are used where
 * they lie in files that both have mapped.
 *
 * src/engine/executor/executor_share.c
 */
#include <string.h>
#include <unistd.h>

#include "src/engine/executor/executor.h"

/* Whether weights could be shared at all; their key. */
static bool
find_key(const LlmExecutor *executor, LlmWeightKey *key, LlmError *err)
{
	LlmModelOptions options = llm_executor_model_options(
		executor, llm_executor_weight_dtype(executor));

	options.weights_are_there = false;
	if (!llm_model_weight_key(executor->options.path, &executor->config,
							  &options, key, err))
		return false;
	return key->n_bytes <= (uint64_t) llm_executor_gpu_weight_bytes(executor) ||
		   llm_error_set(err, LLM_ERROR_UNSUPPORTED,
						 "they do not lie side by side");
}

static bool
lend(LlmExecutor *executor, LlmError *err)
{
	LlmWeightKey key;
	int fd;

	if (!find_key(executor, &key, err) ||
		!executor->compute->ops->sync(executor->compute, err))
		return false;
	fd = executor->compute->ops->arena_lend(executor->compute, err);
	if (fd < 0)
		return false;
	executor->lender =
		llm_weight_lender_open(executor->options.share_dir, &key, fd, err);
	if (executor->lender == NULL)
		(void) close(fd);
	return executor->lender != NULL;
}

void
llm_executor_lend_weights(LlmExecutor *executor)
{
	LlmError err = { 0 };

	if (executor->is_cuda && executor->options.share_dir[0] != '\0' &&
		!lend(executor, &err))
		llm_executor_log(executor, false,
						 "jobs of training have to load weights of their own: "
						 "%s",
						 err.message);
}

bool
llm_executor_borrow_weights(LlmExecutor *executor)
{
	LlmWeightKey key;
	LlmError err = { 0 };
	int fd;

	if (!executor->is_cuda || executor->options.share_dir[0] == '\0')
		return false;
	if (find_key(executor, &key, &err))
	{
		fd = llm_weight_borrow(executor->options.share_dir, &key, &err);
		if (fd >= 0)
		{
			executor->borrowed_arena = fd;
			return true;
		}
	}
	llm_executor_log(executor, false, "the job loads weights of its own: %s",
					 err.message);
	return false;
}

/* Who has mapped them keeps them without the descriptor. */
void
llm_executor_return_weights(LlmExecutor *executor)
{
	if (executor->borrowed_arena > 0)
		(void) close(executor->borrowed_arena);
	executor->borrowed_arena = 0;
}

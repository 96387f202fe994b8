/*
 * train_yield.c
 *	  A job's pauses while requests are served.
 *
 * A GPU takes turns among processes, so what is enqueued delays who comes
 * later.  A job that yields therefore waits for each layer's work before it
 * enqueues the next: some milliseconds, to which the few microseconds in which
 * the device has nothing to do hardly add.
 *
 * src/engine/executor/train_yield.c
 */
#include <poll.h>

#include "src/common/util/clock.h"
#include "src/engine/executor/train_session_internal.h"

/* How long a request's end may go unseen. */
#define LOOK_MS 1

bool
train_yield_open(TrainYield *yield, LlmExecutor *executor,
				 const LlmTrainRequest *request, LlmError *err)
{
	*yield = (TrainYield){ .executor = executor,
						   .max_pause_us = request->max_yield_ms * 1000 };
	return !request->yield_to_serving ||
		   llm_busy_sign_open(&yield->sign, request->busy_sign, err);
}

void
train_yield_close(TrainYield *yield)
{
	if (yield->n_pauses > 0)
		llm_executor_log(yield->executor, false,
						 "the job has paused %lld times, for %.1f s in all",
						 (long long) yield->n_pauses,
						 (double) yield->pause_us / 1e6);
	yield->n_pauses = 0;
	llm_busy_sign_close(&yield->sign);
}

/* True: it is over, because the other end has something to say, or is gone. */
static bool
wait_for_message(const TrainYield *yield)
{
	struct pollfd pfd = { .fd = llm_channel_fd(yield->executor->channel),
						  .events = POLLIN };

	return poll(&pfd, 1, LOOK_MS) > 0;
}

static void
pause_job(TrainYield *yield)
{
	const int64_t start_us = llm_clock_us();
	const int64_t before_us = yield->batch_pause_us;

	if (before_us >= yield->max_pause_us)
		return;
	if (yield->n_pauses++ == 0)
		llm_executor_log(yield->executor, false,
						 "the job pauses while requests are served");
	llm_executor_flush(yield->executor);
	while (llm_busy_sign_get(&yield->sign) > 0 &&
		   yield->batch_pause_us < yield->max_pause_us &&
		   !wait_for_message(yield))
		yield->batch_pause_us = before_us + llm_clock_us() - start_us;
	yield->pause_us += llm_clock_us() - start_us;
}

bool
train_yield_turn(void *arg, bool is_first, LlmError *err)
{
	TrainYield *yield = arg;
	LlmCompute *compute = yield->executor->compute;

	if (is_first)
		yield->batch_pause_us = 0;
	if (!compute->ops->sync(compute, err))
		return false;
	if (llm_busy_sign_get(&yield->sign) > 0)
		pause_job(yield);
	return true;
}

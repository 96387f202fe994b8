/*
 * step_loop.c
 *	  Receive, plan, compute, sample, send; forever.
 *
 * One thread does all of it: frames are taken between steps, so a request
 * joins the batch, and a cancelled one leaves it, within one step.  The loop
 * itself allocates nothing; requests bring their memory when they arrive and
 * take it along when they leave.
 *
 * Where the device computes while the host goes on, the loop runs one step
 * ahead: it plans a step and has its forward pass enqueued before it waits for
 * the tokens of the last one, which the device puts in their places by itself.
 * Then it delivers these, prepares the rows that the step draws (by then it
 * knows what they depend on: penalties, masks), and has them drawn.  So the
 * device has work at all times.  Who ends with the last step's tokens is part
 * of the new one in vain.
 *
 * src/engine/executor/step_loop.c
 */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/common/util/clock.h"
#include "src/engine/executor/adapter_slots.h"
#include "src/engine/executor/executor.h"

#define STATS_INTERVAL_US INT64_C(1000000)

void
llm_executor_log(LlmExecutor *executor, bool is_warning, const char *fmt, ...)
{
	char text[1024];
	LlmWireLog log = { .is_warning = is_warning };
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	log.n_bytes = (uint32_t) strlen(text);
	/* a log line that finds no memory is not worth a failure */
	(void) llm_channel_send(executor->channel, LLM_MESSAGE_LOG, 0, &log,
							sizeof(log), text, log.n_bytes, NULL);
}

void
llm_executor_flush(LlmExecutor *executor)
{
	LlmError err;
	struct pollfd pfd = {
		.fd = llm_channel_fd(executor->channel),
		.events = POLLOUT,
	};

	while (llm_channel_flush(executor->channel, &err) &&
		   llm_channel_pending_bytes(executor->channel) > 0)
		if (poll(&pfd, 1, 1000) < 0 && errno != EINTR)
			return;
}

void
llm_executor_give_up(LlmExecutor *executor, const LlmError *err)
{
	llm_executor_log(executor, true, "executor gives up: %s", err->message);
	llm_executor_flush(executor);
	_exit(1);
}

void
llm_executor_send(LlmExecutor *executor, LlmMessageType type,
				  uint64_t request_id, const void *payload, size_t n_bytes)
{
	LlmError err;

	if (!llm_channel_send(executor->channel, type, request_id, payload, n_bytes,
						  NULL, 0, &err))
		llm_executor_give_up(executor, &err);
}

/* -- requests come and go -- */

/*
 * It may wait for its adapter still.  Its rows of steps under way are
 * nobody's.
 */
static void
drop_request(LlmExecutor *executor, LlmExecRequest *request)
{
	for (int i = 0; i < 2; i++)
	{
		LlmDraw *draw = &executor->draws[i];

		for (int32_t row = 0; row < draw->n_rows; row++)
			if (draw->requests[row] == request)
				draw->requests[row] = NULL;
	}
	if (request->sequence != NULL)
		llm_planner_remove(executor->planner, request->sequence);
	llm_adapter_slots_leave(executor, request);
	llm_request_table_remove(&executor->requests, request);
}

static uint32_t
n_output(const LlmExecRequest *request)
{
	int32_t n_prompt;
	int32_t n_drawn;

	(void) llm_sequence_ids(request->sequence, &n_prompt, &n_drawn);
	return (uint32_t) (request->kind == LLM_REQUEST_SCORE ? request->n_scores
														  : n_drawn);
}

/*
 * A request ends: tell the scheduler, then forget it.  An error without a
 * record (the request was refused) is sent by refuse_request.
 */
static void
finish_request(LlmExecutor *executor, LlmExecRequest *request,
			   LlmFinishReason reason)
{
	LlmWireFinished finished = { .reason = reason };

	if (request->sequence != NULL)
	{
		finished.n_prompt =
			(uint32_t) llm_sequence_n_prompt_done(request->sequence);
		finished.n_cached = (uint32_t) llm_sequence_n_cached(request->sequence);
		finished.n_output = n_output(request);
	}

	/* the last token that is scored is never computed */
	if (request->kind == LLM_REQUEST_SCORE && reason == LLM_FINISH_STOP)
		finished.n_prompt = request->n_prompt;
	llm_executor_send(executor, LLM_MESSAGE_FINISHED, request->request_id,
					  &finished, sizeof(finished));
	drop_request(executor, request);
}

void
llm_executor_fail_request(LlmExecutor *executor, LlmExecRequest *request,
						  const LlmError *why)
{
	llm_executor_send(executor, LLM_MESSAGE_FAILED, request->request_id, why,
					  sizeof(*why));
	drop_request(executor, request);
}

/* The arrays behind an LlmWireRequest, checked against the frame's size. */
typedef struct RequestArrays
{
	const int32_t *prompt_ids;
	const int32_t *output_ids;
	const int32_t *stop_ids;
	const LlmLogitBias *bias;
	const uint32_t *grammar;
} RequestArrays;

_Static_assert(sizeof(LlmLogitBias) == sizeof(LlmWireBias),
			   "biases are used as they arrive");

static bool
locate_arrays(const LlmWireRequest *wire, size_t n_bytes, RequestArrays *arrays,
			  LlmError *err)
{
	uint64_t need =
		sizeof(*wire) +
		4 * ((uint64_t) wire->n_prompt + wire->n_output + wire->n_stop_ids +
			 2 * (uint64_t) wire->n_bias + wire->n_grammar_words);

	if (need != n_bytes)
		return llm_error_set(err, LLM_ERROR_INTERNAL,
							 "request message of %zu bytes should have %llu",
							 n_bytes, (unsigned long long) need);
	arrays->prompt_ids = (const int32_t *) (wire + 1);
	arrays->output_ids = arrays->prompt_ids + wire->n_prompt;
	arrays->stop_ids = arrays->output_ids + wire->n_output;
	arrays->bias = (const LlmLogitBias *) (arrays->stop_ids + wire->n_stop_ids);
	arrays->grammar = (const uint32_t *) (arrays->bias + wire->n_bias);
	return true;
}

static bool
check_ids(const LlmExecutor *executor, const LlmWireRequest *wire,
		  const RequestArrays *arrays, LlmError *err)
{
	uint64_t n_ids = (uint64_t) wire->n_prompt + wire->n_output;

	if (wire->n_prompt == 0)
		return llm_error_set(err, LLM_ERROR_INVALID, "the prompt is empty");
	if (wire->kind >= LLM_REQUEST_KIND_COUNT)
		return llm_error_set(err, LLM_ERROR_INTERNAL,
							 "unexpected request of kind %u", wire->kind);
	for (uint64_t i = 0; i < n_ids; i++)
	{
		int32_t id = arrays->prompt_ids[i];

		if (id < 0 || id >= executor->config.n_vocab)
			return llm_error_set(err, LLM_ERROR_INVALID,
								 "token id %d is outside the model's "
								 "vocabulary of %d",
								 id, executor->config.n_vocab);
		if (id == executor->options.debug_crash_token)
			abort();
	}
	return true;
}

static LlmSampler *
create_sampler(const LlmExecutor *executor, const LlmWireRequest *wire,
			   const RequestArrays *arrays, LlmError *err)
{
	LlmSamplerSpec spec = {
		.params = wire->params,
		.eos_ids = executor->config.stop_ids,
		.n_eos_ids = executor->config.n_stop_ids,
		.stop_ids = arrays->stop_ids,
		.n_stop_ids = (int32_t) wire->n_stop_ids,
		.bias = arrays->bias,
		.n_bias = (int32_t) wire->n_bias,
		.n_vocab = executor->config.n_vocab,
		.max_model_len = executor->max_model_len,
		.n_prompt = (int32_t) wire->n_prompt,
	};

	return llm_sampler_create(&spec, err);
}

static bool
open_constraint(LlmExecutor *executor, LlmExecRequest *request,
				const LlmWireRequest *wire, const RequestArrays *arrays,
				LlmError *err)
{
	if (wire->n_grammar_words == 0)
		return true;
	if (executor->constraints == NULL)
		return llm_error_set(err, LLM_ERROR_UNSUPPORTED,
							 "this executor has no tokenizer, which grammars "
							 "need");
	request->constraint = llm_constraint_open(
		executor->constraints, arrays->grammar, wire->n_grammar_words,
		arrays->output_ids, wire->n_output, err);
	return request->constraint != NULL;
}

static LlmSequence *
add_sequence(LlmExecutor *executor, LlmExecRequest *request,
			 const LlmWireRequest *wire, const RequestArrays *arrays,
			 LlmError *err)
{
	LlmPlannerRequest planned = {
		.request_id = request->request_id,
		.prompt_ids = arrays->prompt_ids,
		.n_prompt = (int32_t) wire->n_prompt,
		.output_ids = arrays->output_ids,
		.n_output = (int32_t) wire->n_output,
		.max_tokens = (int32_t) wire->params.max_tokens,
		.request_class =
			wire->request_class == 0 ? LLM_CLASS_INTERACTIVE : LLM_CLASS_BATCH,
		.tenant_id = wire->tenant_id,
		.adapter_id = wire->adapter_id,
		.cache_salt = wire->cache_salt,
		.arrival_us = llm_clock_us(),
		.owner = request,
	};

	if (request->kind != LLM_REQUEST_GENERATE &&
		!llm_executor_prepare_answer(executor, request, wire, &planned, err))
		return NULL;
	return llm_planner_add(executor->planner, &planned, err);
}

/*
 * An earlier executor may have died between the last token and its FINISHED.
 */
static LlmFinishReason
finished_before(const LlmExecRequest *request, const LlmWireRequest *wire,
				const RequestArrays *arrays)
{
	if (wire->n_output == 0)
		return LLM_FINISH_NONE;
	if (request->kind != LLM_REQUEST_GENERATE)
		return wire->n_output == wire->n_scored ? LLM_FINISH_STOP
												: LLM_FINISH_NONE;
	if (request->constraint != NULL &&
		llm_constraint_has_ended(request->constraint))
		return LLM_FINISH_STOP;
	return llm_sampler_finish_reason(request->sampler,
									 arrays->output_ids[wire->n_output - 1],
									 (int32_t) wire->n_output);
}

static void
answer_finished(LlmExecutor *executor, LlmExecRequest *request,
				const LlmWireRequest *wire, const RequestArrays *arrays)
{
	LlmWireFinished finished = {
		.reason = finished_before(request, wire, arrays),
		.n_prompt = wire->n_prompt,
		.n_output = wire->n_output,
	};

	llm_executor_send(executor, LLM_MESSAGE_FINISHED, request->request_id,
					  &finished, sizeof(finished));
	llm_request_table_remove(&executor->requests, request);
}

/* Sampler and grammar, where tokens are drawn. */
static bool
prepare_drawing(LlmExecutor *executor, LlmExecRequest *request,
				const LlmWireRequest *wire, const RequestArrays *arrays,
				LlmError *err)
{
	if (request->kind != LLM_REQUEST_GENERATE)
		return wire->n_grammar_words == 0 ||
			   llm_error_set(err, LLM_ERROR_INTERNAL,
							 "a request of kind %u has a grammar", wire->kind);
	request->sampler = create_sampler(executor, wire, arrays, err);
	return request->sampler != NULL &&
		   open_constraint(executor, request, wire, arrays, err);
}

static bool
try_add_request(LlmExecutor *executor, uint64_t request_id,
				const LlmWireRequest *wire, size_t n_bytes, LlmError *err)
{
	RequestArrays arrays = { 0 };
	LlmExecRequest *request;
	bool is_ready;

	if (n_bytes < sizeof(*wire))
		return llm_error_set(err, LLM_ERROR_INTERNAL,
							 "request message of %zu bytes is too short",
							 n_bytes);
	if (llm_request_table_find(&executor->requests, request_id) != NULL)
		return llm_error_set(err, LLM_ERROR_INTERNAL,
							 "request %llu exists already",
							 (unsigned long long) request_id);
	if (!locate_arrays(wire, n_bytes, &arrays, err) ||
		!check_ids(executor, wire, &arrays, err))
		return false;
	request = llm_request_table_add(&executor->requests, request_id, err);
	if (request == NULL)
		return false;
	request->kind = (LlmRequestKind) wire->kind;
	request->has_logprobs = wire->params.n_logprobs >= 0;
	request->n_prompt = wire->n_prompt;
	if (!prepare_drawing(executor, request, wire, &arrays, err))
	{
		llm_request_table_remove(&executor->requests, request);
		return false;
	}
	if (finished_before(request, wire, &arrays))
	{
		answer_finished(executor, request, wire, &arrays);
		return true;
	}
	if (!llm_adapter_slots_enter(executor, request, wire, n_bytes, &is_ready,
								 err))
	{
		llm_request_table_remove(&executor->requests, request);
		return false;
	}
	if (is_ready)
		llm_executor_start_request(executor, request, wire, n_bytes);
	return true;
}

void
llm_executor_start_request(LlmExecutor *executor, LlmExecRequest *request,
						   const LlmWireRequest *wire, size_t n_bytes)
{
	RequestArrays arrays = { 0 };
	LlmError err;

	if (locate_arrays(wire, n_bytes, &arrays, &err))
		request->sequence =
			add_sequence(executor, request, wire, &arrays, &err);
	if (request->sequence == NULL)
		llm_executor_fail_request(executor, request, &err);
}

static void
add_request(LlmExecutor *executor, uint64_t request_id,
			const LlmWireRequest *wire, size_t n_bytes)
{
	LlmError err;

	if (!try_add_request(executor, request_id, wire, n_bytes, &err))
		llm_executor_send(executor, LLM_MESSAGE_FAILED, request_id, &err,
						  sizeof(err));
}

/* -- frames -- */

typedef enum FrameOutcome
{
	FRAMES_DONE, /* nothing more to read now */
	FRAMES_STOP	 /* the scheduler is gone or said stop */
} FrameOutcome;

static FrameOutcome
receive_frames(LlmExecutor *executor)
{
	LlmFrameHeader header;
	const void *payload;
	LlmError err;
	LlmExecRequest *request;

	for (;;)
	{
		switch (llm_channel_receive(executor->channel, &header, &payload, &err))
		{
			case LLM_RECEIVE_NOTHING:
				return FRAMES_DONE;
			case LLM_RECEIVE_CLOSED:
				return FRAMES_STOP;
			case LLM_RECEIVE_FRAME:
				break;
		}
		switch (header.type)
		{
			case LLM_MESSAGE_REQUEST:
				add_request(executor, header.request_id, payload,
							header.n_bytes);
				break;
			case LLM_MESSAGE_CANCEL:
				request = llm_request_table_find(&executor->requests,
												 header.request_id);
				if (request != NULL)
					finish_request(executor, request, LLM_FINISH_CANCELLED);
				break;
			case LLM_MESSAGE_STOP:
				return FRAMES_STOP;
			case LLM_MESSAGE_ADAPTER:
				if (!llm_adapter_slots_announce(executor, payload,
												header.n_bytes, &err))
					llm_executor_give_up(executor, &err);
				break;
			case LLM_MESSAGE_ADAPTER_FORGET:
				if (!llm_adapter_slots_forget(executor, payload, header.n_bytes,
											  &err))
					llm_executor_give_up(executor, &err);
				break;
			default:
				llm_error_set(&err, LLM_ERROR_INTERNAL,
							  "unexpected message of type %u", header.type);
				llm_executor_give_up(executor, &err);
		}
	}
}

/* -- one step -- */

/* Have the planned step's logits computed. */
static bool
start_pass(LlmExecutor *executor, const LlmPlannedStep *step, LlmDraw *draw,
		   float **logits, LlmError *err)
{
	LlmCompute *compute = executor->compute;
	LlmStepInputs host = {
		.n_tokens = step->n_tokens,
		.n_seqs = step->n_seqs,
		.n_logit_rows = step->n_logit_rows,
		.max_blocks_per_seq = step->max_blocks_per_seq,
		.max_query_len = step->max_query_len,
		.max_context_len = step->max_context_len,
		.is_prompt = step->is_prompt,
		.token_ids = step->token_ids,
		.positions = step->positions,
		.token_seq = step->token_seq,
		.query_start = step->query_start,
		.context_len = step->context_len,
		.block_tables = step->block_tables,
		.logit_rows = step->logit_rows,
	};
	LlmStepInputs device;

	llm_executor_assign_rows(executor, step, &host, draw);
	llm_adapter_slots_fill_step(executor, step, &host);
	/* on the CPU masks are computed beside the pass */
	if (executor->drawing == NULL)
		llm_executor_fill_rows(executor, draw);
	return llm_model_rotate_step(executor->model, &host, step->rope_len, err) &&
		   compute->ops->step_upload(compute, &host, &device, err) &&
		   llm_model_forward(executor->model, &device, executor->kv, logits,
							 err);
}

/* Have the tokens of the filled rows drawn. */
static bool
start_draw(LlmExecutor *executor, LlmDraw *draw, float *logits, LlmError *err)
{
	LlmSampleArgs args = {
		.logits = logits,
		.n_rows = draw->n_rows,
		.n_vocab = executor->config.n_vocab,
		.rows = executor->rows,
		.results = executor->results,
	};

	assert(executor->drawing == NULL);
	if (executor->constraints != NULL)
		llm_constraints_wait(executor->constraints);
	if (draw->n_rows == 0)
		return true;
	if (!executor->compute->ops->sample(executor->compute, &args, err))
		return false;
	for (int32_t row = 0; row < draw->n_rows; row++)
	{
		const LlmExecRequest *request = draw->requests[row];

		if (request != NULL && request->kind == LLM_REQUEST_GENERATE)
			llm_planner_expect(executor->planner, request->sequence, row);
	}
	executor->drawing = draw;
	return true;
}

/* TOKENS with one token. */
static void
send_token(LlmExecutor *executor, const LlmExecRequest *request,
		   const LlmSampleResult *result)
{
	struct
	{
		LlmWireTokens tokens;
		int32_t token_id;
		float logprob;
		uint32_t n_top;
		struct
		{
			int32_t token_id;
			float logprob;
		} top[LLM_MAX_LOGPROBS];
	} message = { .tokens = { 1, request->has_logprobs } };
	size_t n_bytes = sizeof(LlmWireTokens) + sizeof(int32_t);

	message.token_id = result->token_id;
	if (request->has_logprobs)
	{
		message.logprob = result->logprob;
		message.n_top = (uint32_t) result->n_top;
		for (int32_t i = 0; i < result->n_top; i++)
		{
			message.top[i].token_id = result->top_ids[i];
			message.top[i].logprob = result->top_logprobs[i];
		}
		n_bytes += 8 + 8 * (size_t) result->n_top;
	}
	llm_executor_send(executor, LLM_MESSAGE_TOKENS, request->request_id,
					  &message, n_bytes);
}

/* After a preemption, rows come again that were delivered before. */
static void
deliver_score(LlmExecutor *executor, LlmExecRequest *request, int32_t row)
{
	if (executor->rows[row].n_output != request->n_scores)
		return;
	send_token(executor, request, &executor->results[row]);
	request->n_scores++;
	if (request->n_scores < request->n_scored)
		return;
	finish_request(executor, request, LLM_FINISH_STOP);
}

static void
deliver_embedding(LlmExecutor *executor, const LlmPlannedStep *step,
				  int32_t range_idx)
{
	const LlmPlannedSequence *planned =
		&step->sequences[executor->range_seqs[range_idx]];
	LlmExecRequest *request = llm_sequence_owner(planned->sequence);
	float *embedding;

	if (!llm_executor_take_sums(executor, step, range_idx, &embedding))
		return;
	llm_executor_send(executor, LLM_MESSAGE_EMBEDDING, request->request_id,
					  embedding,
					  (size_t) executor->config.hidden_size * sizeof(float));
	finish_request(executor, request, LLM_FINISH_STOP);
}

static void
deliver_row(LlmExecutor *executor, LlmExecRequest *request, int32_t row)
{
	const LlmSampleResult *result = &executor->results[row];
	LlmFinishReason reason;
	LlmError err;

	if (result->token_id < 0)
	{
		llm_error_set(&err, LLM_ERROR_INVALID,
					  "no token has a probability: the logits are not finite, "
					  "or the options exclude every token");
		llm_executor_fail_request(executor, request, &err);
		return;
	}
	if (request->kind == LLM_REQUEST_SCORE)
	{
		deliver_score(executor, request, row);
		return;
	}
	if (request->constraint != NULL &&
		!llm_constraint_accept(request->constraint, result->token_id, &err))
	{
		llm_executor_fail_request(executor, request, &err);
		return;
	}
	send_token(executor, request, result);
	llm_planner_settle(executor->planner, request->sequence, result->token_id);
	reason = llm_sampler_finish_reason(request->sampler, result->token_id,
									   (int32_t) n_output(request));
	if (request->constraint != NULL &&
		llm_constraint_has_ended(request->constraint))
		reason = LLM_FINISH_STOP;
	if (reason != LLM_FINISH_NONE)
		finish_request(executor, request, reason);
}

/* Wait for the tokens that are being drawn, if any, and send them. */
static void
collect_draw(LlmExecutor *executor)
{
	LlmDraw *draw = executor->drawing;
	LlmError err;

	if (draw == NULL)
		return;
	if (!executor->compute->ops->sample_wait(executor->compute, &err))
		llm_executor_give_up(executor, &err);
	executor->drawing = NULL;
	for (int32_t row = 0; row < draw->n_rows; row++)
	{
		if (draw->requests[row] != NULL)
			deliver_row(executor, draw->requests[row], row);
	}
	draw->n_rows = 0;
}

/* Hidden states are summed, and embeddings sent, within their step. */
static void
deliver_embeddings(LlmExecutor *executor, const LlmPlannedStep *step)
{
	LlmError err;

	if (executor->n_ranges == 0)
		return;
	if (!llm_model_sum_hidden(executor->model, executor->ranges,
							  executor->n_ranges, executor->sums, &err))
		llm_executor_give_up(executor, &err);
	for (int32_t i = 0; i < executor->n_ranges; i++)
		deliver_embedding(executor, step, i);
}

static uint64_t *
step_request_ids(const LlmPlannedStep *step)
{
	uint64_t *ids = malloc((size_t) step->n_seqs * sizeof(uint64_t));

	for (int32_t s = 0; ids != NULL && s < step->n_seqs; s++)
	{
		const LlmExecRequest *request =
			llm_sequence_owner(step->sequences[s].sequence);

		ids[s] = request->request_id;
	}
	return ids;
}

/*
 * The device has no memory for a step.  All requests start over; where it was
 * the same with the step before, this one's fail, each by itself.
 */
static void
withdraw_step(LlmExecutor *executor, const LlmPlannedStep *step,
			  const LlmError *why)
{
	bool was_short = executor->was_short;
	int32_t n_seqs = step->n_seqs;
	uint64_t *ids = step_request_ids(step);

	if (ids == NULL)
		llm_executor_give_up(executor, why);
	llm_executor_log(executor, true, "a step of %d requests is withdrawn: %s",
					 n_seqs, why->message);
	executor->was_short = !was_short;
	if (executor->constraints != NULL)
		llm_constraints_wait(executor->constraints);
	llm_planner_withdraw(executor->planner);
	/* some may end with the tokens that are on their way */
	collect_draw(executor);
	for (int32_t s = 0; was_short && s < n_seqs; s++)
	{
		LlmExecRequest *request =
			llm_request_table_find(&executor->requests, ids[s]);

		if (request != NULL)
			llm_executor_fail_request(executor, request, why);
	}
	free(ids);
}

static void
run_step(LlmExecutor *executor, const LlmPlannedStep *step)
{
	LlmDraw *draw = &executor->draws[executor->drawing == executor->draws];
	bool is_ahead = executor->drawing != NULL;
	float *logits = NULL;
	LlmError err;

	if (!start_pass(executor, step, draw, &logits, &err))
	{
		if (err.code != LLM_ERROR_NO_MEMORY)
			llm_executor_give_up(executor, &err);
		draw->n_rows = 0;
		withdraw_step(executor, step, &err);
		return;
	}
	executor->was_short = false;
	llm_planner_commit(executor->planner);
	collect_draw(executor);
	if (is_ahead)
		llm_executor_fill_rows(executor, draw);
	if (!start_draw(executor, draw, logits, &err))
		llm_executor_give_up(executor, &err);
	deliver_embeddings(executor, step);
	if (!executor->runs_ahead)
		collect_draw(executor);
}

/* One turn of the loop.  False: there is nothing to do. */
static bool
work(LlmExecutor *executor, int64_t now_us)
{
	const LlmPlannedStep *step = llm_planner_plan(executor->planner, now_us);
	int64_t end_us;

	if (step == NULL && executor->drawing == NULL)
		return false;
	/* a draw under way: busy since it was counted last */
	if (executor->drawing == NULL)
		executor->busy_from_us = now_us;
	if (step != NULL)
		run_step(executor, step);
	else
		collect_draw(executor);
	end_us = llm_clock_us();
	executor->busy_us += (uint64_t) (end_us - executor->busy_from_us);
	executor->busy_from_us = end_us;
	return true;
}

/* -- the loop -- */

static uint64_t
resident_bytes(void)
{
	unsigned long long pages = 0;
	FILE *file = fopen("/proc/self/statm", "re");

	if (file == NULL)
		return 0;
	if (fscanf(file, "%*s %llu", &pages) != 1)
		pages = 0;
	fclose(file);
	return pages * (uint64_t) sysconf(_SC_PAGESIZE);
}

static void
send_stats(LlmExecutor *executor)
{
	LlmPlannerStats planner;
	LlmWireStats stats;

	llm_planner_stats(executor->planner, &planner);
	stats = (LlmWireStats){
		.n_waiting = (uint32_t) planner.n_waiting,
		.n_running = (uint32_t) planner.n_running,
		.n_free_blocks = (uint32_t) planner.n_free_blocks,
		.n_blocks = (uint32_t) planner.n_blocks,
		.block_size = (uint32_t) executor->kv_spec.block_size,
		.n_steps = planner.n_steps,
		.n_prompt_tokens = planner.n_prompt_tokens,
		.n_cached_tokens = planner.n_cached_tokens,
		.n_generated_tokens = planner.n_generated_tokens,
		.n_preemptions = planner.n_preemptions,
		.busy_us = executor->busy_us,
		.memory_bytes = resident_bytes(),
	};
	llm_executor_send(executor, LLM_MESSAGE_STATS, 0, &stats, sizeof(stats));
}

/* Nothing to compute: sleep until the scheduler has something to say. */
static void
wait_for_frames(LlmExecutor *executor)
{
	struct pollfd fds[] = {
		{ .fd = llm_channel_fd(executor->channel), .events = POLLIN },
		/* a negative one is ignored */
		{ .fd = llm_adapter_slots_fd(executor), .events = POLLIN },
	};
	int64_t left_us = executor->next_stats_us - llm_clock_us();
	int left_ms = left_us <= 0 ? 0 : (int) (left_us / 1000) + 1;
	int adapter_ms = llm_adapter_slots_timeout(executor);

	if (llm_channel_pending_bytes(executor->channel) > 0)
		fds[0].events |= POLLOUT;
	/* an idle executor's numbers do not change: only the memory may */
	(void) poll(fds, 2,
				adapter_ms >= 0 && adapter_ms < left_ms ? adapter_ms : left_ms);
}

int
llm_executor_run(LlmExecutor *executor)
{
	LlmError err;

	executor->next_stats_us = llm_clock_us();
	for (;;)
	{
		int64_t now_us;
		bool is_busy;

		if (receive_frames(executor) == FRAMES_STOP)
			return 0;
		now_us = llm_clock_us();
		llm_adapter_slots_turn(executor, now_us);
		is_busy = work(executor, now_us);
		if (now_us >= executor->next_stats_us)
		{
			send_stats(executor);
			executor->next_stats_us = now_us + STATS_INTERVAL_US;
		}
		if (!llm_channel_flush(executor->channel, &err))
			return 0;
		if (!is_busy)
			wait_for_frames(executor);
	}
}

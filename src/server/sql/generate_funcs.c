/*
 * generate_funcs.c
 *	  llm_chat, llm_ask, llm_generate, llm_chat_stream.
 *
 * Each reads its arguments into a call (what to answer, how), makes the
 * prompt, and lets a generation answer it.  All but the stream are batchable.
 *
 * src/server/sql/generate_funcs.c
 */
#include "postgres.h"

#include "src/server/sql/batch_call.h"
#include "src/server/sql/generation.h"
#include "src/server/sql/text_convert.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

/* max_tokens of raw generation where the caller sets none, as in vLLM */
#define RAW_DEFAULT_MAX_TOKENS 16

/* Arguments of all functions here: input, adapter, options. */
enum
{
	ARG_INPUT = 0,
	ARG_ADAPTER,
	ARG_OPTIONS
};

typedef enum InputKind
{
	INPUT_MESSAGES, /* jsonb: messages, or a whole request */
	INPUT_QUESTION, /* text: one user message */
	INPUT_PROMPT	/* text: the prompt itself */
} InputKind;

typedef struct GenerateCall
{
	LlmBatchCall batch; /* must be first */
	InputKind kind;
	LlmTemplateText input; /* messages as JSON, or a text */
	LlmGenerateOptions options;
	LlmModelHandle *handle;
	LlmPrompt prompt;
	LlmGeneration *generation;
} GenerateCall;

PG_FUNCTION_INFO_V1(llm_chat);
PG_FUNCTION_INFO_V1(llm_ask);
PG_FUNCTION_INFO_V1(llm_generate);
PG_FUNCTION_INFO_V1(llm_chat_stream);

/* llm_chat also takes a whole request object: its options are inside. */
static void
open_request_object(GenerateCall *call, LlmTemplateText *options)
{
	LlmTemplateText request = call->input;

	if (options->data != NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("options must be inside the request object"),
						errhint("Pass an array of messages to give options "
								"separately.")));
	call->input = llm_json_member(request, "messages");
	if (call->input.data == NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("the request object has no \"messages\"")));
	if (llm_json_member(request, "prompt").data != NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("a chat takes \"messages\", not \"prompt\""),
						errhint("Use llm_generate or llm_completion.")));
	*options = request;
}

static void
read_adapter(FunctionCallInfo fcinfo, LlmGenerateOptions *options)
{
	if (PG_ARGISNULL(ARG_ADAPTER))
		return;
	if (options->adapter != NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("the adapter is named twice, in the request "
							   "object and as an argument")));
	options->adapter = text_to_cstring(PG_GETARG_TEXT_PP(ARG_ADAPTER));
}

/* Everything up to the prompt's text; raises on mistakes of the statement. */
static void
read_call(FunctionCallInfo fcinfo, InputKind kind, GenerateCall *call)
{
	LlmTemplateText options = { NULL, 0 };
	bool is_request = false;

	memset(call, 0, sizeof(*call));
	call->kind = kind;
	if (!PG_ARGISNULL(ARG_OPTIONS))
		options = llm_json_text(PG_GETARG_DATUM(ARG_OPTIONS), JSONBOID);
	if (kind == INPUT_MESSAGES)
	{
		call->input = llm_json_text(PG_GETARG_DATUM(ARG_INPUT), JSONBOID);
		is_request = llm_json_kind(call->input) == '{';
		if (is_request)
			open_request_object(call, &options);
	}
	else
		call->input = llm_text_argument(fcinfo, ARG_INPUT);
	llm_generate_options_parse(options, is_request, &call->options);
	read_adapter(fcinfo, &call->options);
	if (call->options.n_choices != 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("this function returns one answer, \"n\" must be 1"),
				 errhint("Use llm_completion for several choices.")));
}

/* The prompt's tokens; false: this row cannot be answered. */
static bool
make_prompt(GenerateCall *call, LlmError *err)
{
	bool raw = call->kind == INPUT_PROMPT;
	LlmGenerateOptions *options = &call->options;
	LlmPromptMessages messages = { .json = call->input };
	bool ok;

	if (raw)
		ok = llm_prompt_from_text(call->handle, call->input,
								  !options->has_add_special_tokens ||
									  options->add_special_tokens,
								  &call->prompt, err);
	else
	{
		if (call->kind == INPUT_QUESTION)
			messages.plain[messages.n_plain++] =
				llm_plain_message("user", call->input);
		ok = llm_prompt_from_messages(call->handle, options, &messages,
									  &call->prompt, err);
	}
	return ok && llm_generate_options_complete(
					 options, &call->handle->facts->defaults,
					 call->prompt.n_ids, call->handle->info.max_model_len,
					 raw ? RAW_DEFAULT_MAX_TOKENS : 0, err);
}

/*
 * Look the model up, make the prompt and submit; again where the model was
 * replaced in between.  False: this row cannot be answered.
 */
static bool
start_answer(GenerateCall *call, bool is_batch)
{
	LlmGenerateOptions as_written = call->options;

	call->batch.null_on_error = as_written.null_on_error;
	if (!as_written.has_class)
		as_written.is_batch = is_batch;
	do
	{
		call->options = as_written;
		call->handle = llm_model_handle_get(call->options.model);
		if (!make_prompt(call, &call->batch.err))
			return false;
		call->generation =
			llm_generation_start(call->handle, &call->options, &call->prompt,
								 call->options.params.seed);
	} while (call->generation == NULL);
	call->batch.n_requests = 1;
	call->batch.n_prompt_tokens = call->prompt.n_ids;
	call->batch.is_repeatable = llm_generate_options_repeatable(&call->options);
	pfree(call->prompt.ids);
	call->prompt.ids = NULL;
	return true;
}

static LlmBatchCall *
start_call(FunctionCallInfo fcinfo, InputKind kind, bool is_batch)
{
	GenerateCall *call;

	if (PG_ARGISNULL(ARG_INPUT))
		return NULL;
	call = palloc(sizeof(GenerateCall));
	read_call(fcinfo, kind, call);
	llm_generate_options_refuse_stream(&call->options);
	(void) start_answer(call, is_batch);
	return &call->batch;
}

static bool
advance_call(LlmBatchCall *batch)
{
	LlmGeneration *generation = ((GenerateCall *) batch)->generation;

	return !llm_generation_advance(generation, false, &batch->err) ||
		   generation->is_done;
}

static Datum
finish_call(LlmBatchCall *batch, bool *isnull)
{
	const LlmGeneration *generation = ((GenerateCall *) batch)->generation;

	batch->n_cached_tokens = generation->result->n_cached;
	batch->n_output_tokens = generation->n_tokens;
	*isnull = false;
	return PointerGetDatum(llm_text_try_from_utf8(
		llm_strbuf_str(&generation->text), generation->text.len, &batch->err));
}

static LlmBatchCall *
start_chat(FunctionCallInfo fcinfo, bool is_batch)
{
	return start_call(fcinfo, INPUT_MESSAGES, is_batch);
}

static LlmBatchCall *
start_ask(FunctionCallInfo fcinfo, bool is_batch)
{
	return start_call(fcinfo, INPUT_QUESTION, is_batch);
}

static LlmBatchCall *
start_generate(FunctionCallInfo fcinfo, bool is_batch)
{
	return start_call(fcinfo, INPUT_PROMPT, is_batch);
}

const LlmBatchOps llm_chat_ops = { "llm_chat", llm_chat, start_chat,
								   advance_call, finish_call };
const LlmBatchOps llm_ask_ops = { "llm_ask", llm_ask, start_ask, advance_call,
								  finish_call };
const LlmBatchOps llm_generate_ops = { "llm_generate", llm_generate,
									   start_generate, advance_call,
									   finish_call };

Datum
llm_chat(PG_FUNCTION_ARGS)
{
	return llm_batch_run(fcinfo, &llm_chat_ops);
}

Datum
llm_ask(PG_FUNCTION_ARGS)
{
	return llm_batch_run(fcinfo, &llm_ask_ops);
}

Datum
llm_generate(PG_FUNCTION_ARGS)
{
	return llm_batch_run(fcinfo, &llm_generate_ops);
}

/* -- streaming -- */

typedef struct StreamState
{
	GenerateCall call;
	size_t n_emitted; /* bytes */
} StreamState;

static StreamState *
start_stream(FunctionCallInfo fcinfo, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	StreamState *state = palloc0(sizeof(StreamState));

	read_call(fcinfo, INPUT_MESSAGES, &state->call);
	if (!start_answer(&state->call, false))
		llm_batch_report(&state->call.batch);
	MemoryContextSwitchTo(old);
	return state;
}

/* The next piece of text, or NULL at the end. */
static text *
next_piece(StreamState *state)
{
	LlmGeneration *generation = state->call.generation;
	LlmBatchCall *batch = &state->call.batch;
	text *piece;

	if (generation == NULL)
		return NULL;
	while (generation->n_final == state->n_emitted)
	{
		if (generation->is_done)
			return NULL;
		if (!llm_generation_advance(generation, true, &batch->err))
		{
			llm_batch_report(batch);
			return NULL;
		}
	}
	piece = llm_text_try_from_utf8(generation->text.data + state->n_emitted,
								   generation->n_final - state->n_emitted,
								   &batch->err);
	if (piece == NULL)
		llm_batch_report(batch);
	state->n_emitted = generation->n_final;
	return piece;
}

/*
 * Value per call, so that SELECT llm_chat_stream(...) hands each row on as
 * it comes; in FROM, PostgreSQL collects all rows first.
 */
Datum
llm_chat_stream(PG_FUNCTION_ARGS)
{
	FuncCallContext *funcctx;
	StreamState *state;
	text *piece;

	if (SRF_IS_FIRSTCALL())
	{
		funcctx = SRF_FIRSTCALL_INIT();
		if (!PG_ARGISNULL(ARG_INPUT))
			funcctx->user_fctx =
				start_stream(fcinfo, funcctx->multi_call_memory_ctx);
	}
	funcctx = SRF_PERCALL_SETUP();
	state = funcctx->user_fctx;
	piece = NULL;
	if (state != NULL)
	{
		MemoryContext old =
			MemoryContextSwitchTo(funcctx->multi_call_memory_ctx);
		LlmGeneration *generation = state->call.generation;

		piece = next_piece(state);
		if (piece == NULL && generation != NULL)
			llm_generation_end(generation);
		MemoryContextSwitchTo(old);
	}
	if (piece == NULL)
		SRF_RETURN_DONE(funcctx);
	SRF_RETURN_NEXT(funcctx, PointerGetDatum(piece));
}

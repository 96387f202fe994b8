/*
 * generate_funcs.c
 *	  llm_chat, llm_ask, llm_generate, llm_chat_stream.
 *
 * Each reads its arguments into a call (what to answer, how), makes the
 * prompt, and lets a generation answer it.
 *
 * src/server/sql/generate_funcs.c
 */
#include "postgres.h"

#include "src/server/report.h"
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
	InputKind kind;
	LlmTemplateText input; /* messages as JSON, or the prompt's text */
	LlmGenerateOptions options;
	LlmModelHandle *handle;
	LlmPrompt prompt;
} GenerateCall;

PG_FUNCTION_INFO_V1(llm_chat);
PG_FUNCTION_INFO_V1(llm_ask);
PG_FUNCTION_INFO_V1(llm_generate);
PG_FUNCTION_INFO_V1(llm_chat_stream);

static LlmTemplateText
question_as_messages(LlmTemplateText question)
{
	StringInfoData json;
	LlmTemplateText result;

	initStringInfo(&json);
	appendStringInfoString(&json, "[{\"role\": \"user\", \"content\": ");
	llm_append_json_string(&json, question.data, question.len);
	appendStringInfoString(&json, "}]");
	result.data = json.data;
	result.len = (size_t) json.len;
	return result;
}

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
refuse_adapter(FunctionCallInfo fcinfo)
{
	if (!PG_ARGISNULL(ARG_ADAPTER))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("adapters are not supported by this version"),
						errhint("Pass NULL as the adapter.")));
}

/* Everything up to the prompt's text; raises on mistakes of the statement. */
static void
read_call(FunctionCallInfo fcinfo, InputKind kind, GenerateCall *call)
{
	LlmTemplateText options = { NULL, 0 };
	bool is_request = false;

	memset(call, 0, sizeof(*call));
	call->kind = kind;
	refuse_adapter(fcinfo);
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
		call->input = llm_text_to_utf8(PG_GETARG_TEXT_PP(ARG_INPUT));
	llm_generate_options_parse(options, is_request, &call->options);
	if (call->options.n_choices != 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("this function returns one answer, \"n\" must be 1"),
				 errhint("Use llm_completion for several choices.")));
	if (kind == INPUT_QUESTION)
		call->input = question_as_messages(call->input);
}

/* The prompt's tokens; false: this row cannot be answered. */
static bool
make_prompt(GenerateCall *call, LlmError *err)
{
	bool raw = call->kind == INPUT_PROMPT;
	LlmGenerateOptions *options = &call->options;
	bool ok;

	if (raw)
		ok = llm_prompt_from_text(call->handle, call->input,
								  !options->has_add_special_tokens ||
									  options->add_special_tokens,
								  &call->prompt, err);
	else
		ok = llm_prompt_from_messages(call->handle, options, call->input,
									  &call->prompt, err);
	return ok && llm_generate_options_complete(
					 options, &call->handle->facts->defaults,
					 call->prompt.n_ids, call->handle->info.max_model_len,
					 raw ? RAW_DEFAULT_MAX_TOKENS : 0, err);
}

/*
 * Look the model up, make the prompt and submit; again where the model was
 * replaced in between.  NULL: this row cannot be answered.
 */
static LlmGeneration *
start_answer(GenerateCall *call, LlmError *err)
{
	LlmGeneration *generation = NULL;
	LlmGenerateOptions as_written = call->options;

	while (generation == NULL)
	{
		call->options = as_written;
		call->handle = llm_model_handle_get(call->options.model);
		if (!make_prompt(call, err))
			return NULL;
		generation =
			llm_generation_start(call->handle, &call->options, &call->prompt,
								 call->options.params.seed);
	}
	return generation;
}

/* on_error = 'null' turns a failed row into NULL and a warning. */
static void
report_row_failure(const LlmGenerateOptions *options, const LlmError *err)
{
	llm_report(options->null_on_error ? WARNING : ERROR, err);
}

static Datum
answer(FunctionCallInfo fcinfo, InputKind kind)
{
	GenerateCall call;
	LlmGeneration *generation = NULL;
	LlmError err;
	text *result = NULL;

	if (PG_ARGISNULL(ARG_INPUT))
		PG_RETURN_NULL();
	read_call(fcinfo, kind, &call);
	llm_generate_options_refuse_stream(&call.options);
	generation = start_answer(&call, &err);
	if (generation != NULL)
	{
		if (llm_generation_complete(generation, &err))
			result = llm_text_try_from_utf8(llm_strbuf_str(&generation->text),
											generation->text.len, &err);
		llm_generation_end(generation);
	}
	if (result == NULL)
	{
		report_row_failure(&call.options, &err);
		PG_RETURN_NULL();
	}
	PG_RETURN_TEXT_P(result);
}

Datum
llm_chat(PG_FUNCTION_ARGS)
{
	return answer(fcinfo, INPUT_MESSAGES);
}

Datum
llm_ask(PG_FUNCTION_ARGS)
{
	return answer(fcinfo, INPUT_QUESTION);
}

Datum
llm_generate(PG_FUNCTION_ARGS)
{
	return answer(fcinfo, INPUT_PROMPT);
}

/* -- streaming -- */

typedef struct StreamState
{
	GenerateCall call;
	LlmGeneration *generation;
	size_t n_emitted; /* bytes */
} StreamState;

static StreamState *
start_stream(FunctionCallInfo fcinfo, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	StreamState *state = palloc0(sizeof(StreamState));
	LlmError err;

	read_call(fcinfo, INPUT_MESSAGES, &state->call);
	state->generation = start_answer(&state->call, &err);
	if (state->generation == NULL)
		report_row_failure(&state->call.options, &err);
	MemoryContextSwitchTo(old);
	return state;
}

/* The next piece of text, or NULL at the end. */
static text *
next_piece(StreamState *state)
{
	LlmGeneration *generation = state->generation;
	LlmError err;
	text *piece;

	if (generation == NULL)
		return NULL;
	while (generation->n_final == state->n_emitted)
	{
		if (generation->is_done)
			return NULL;
		if (!llm_generation_advance(generation, true, &err))
		{
			report_row_failure(&state->call.options, &err);
			return NULL;
		}
	}
	piece =
		llm_text_try_from_utf8(generation->text.data + state->n_emitted,
							   generation->n_final - state->n_emitted, &err);
	if (piece == NULL)
		report_row_failure(&state->call.options, &err);
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
		LlmGeneration *generation = state->generation;

		piece = next_piece(state);
		if (piece == NULL && generation != NULL)
			llm_generation_end(generation);
		MemoryContextSwitchTo(old);
	}
	if (piece == NULL)
		SRF_RETURN_DONE(funcctx);
	SRF_RETURN_NEXT(funcctx, PointerGetDatum(piece));
}

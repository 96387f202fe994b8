/*
 * typed_call.c
 *	  What the typed functions have in common: one question whose answer's
 *	  form a grammar decides.
 *
 * src/server/sql/typed_call.c
 */
#include "postgres.h"

#include "src/server/sql/text_convert.h"
#include "src/server/sql/typed_call.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"

/* Templates that know no such thing never look at it. */
#define NO_THINKING "{\"enable_thinking\": false}"

void
llm_typed_answer_at_once(LlmGenerateOptions *options)
{
	if (options->chat_template_kwargs.data != NULL)
		return;
	options->chat_template_kwargs.data = NO_THINKING;
	options->chat_template_kwargs.len = strlen(NO_THINKING);
}

static void
set_defaults(LlmGenerateOptions *options)
{
	if (!options->has_temperature)
		options->params.temperature = 0;
	options->has_temperature = true;
	/* an answer copies from its text, and names its members again and again */
	options->has_repetition_penalty = true;
	llm_typed_answer_at_once(options);
}

void
llm_typed_call_read(LlmTypedCall *call, FunctionCallInfo fcinfo,
					int adapter_arg)
{
	LlmTemplateText json = { NULL, 0 };
	LlmGenerateOptions *options = &call->options;

	if (!PG_ARGISNULL(adapter_arg + 1))
		json = llm_json_text(PG_GETARG_DATUM(adapter_arg + 1), JSONBOID);
	llm_generate_options_parse(json, false, options);
	if (options->format.kind != LLM_GRAMMAR_NONE)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"%s\" does not go with this function, which "
						"decides itself what its answer looks like",
						options->format_key)));
	if (options->tools.data != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"%s\" does not go with this function, which "
						"decides itself what its answer looks like",
						"tools")));
	if (!PG_ARGISNULL(adapter_arg))
		options->adapter = text_to_cstring(PG_GETARG_TEXT_PP(adapter_arg));
	set_defaults(options);
	call->batch.null_on_error = options->null_on_error;
}

void
llm_labels_argument(FunctionCallInfo fcinfo, int arg, LlmLabels *labels)
{
	Datum *values;
	bool *nulls;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(arg), TEXTOID, -1, false,
					  TYPALIGN_INT, &values, &nulls, &labels->n_labels);
	if (labels->n_labels == 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("there must be at least one label")));
	labels->values = palloc(sizeof(text *) * labels->n_labels);
	labels->texts = palloc(sizeof(LlmTemplateText) * labels->n_labels);
	for (int i = 0; i < labels->n_labels; i++)
	{
		if (nulls[i])
			ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
							errmsg("a label must not be null")));
		labels->values[i] = DatumGetTextPP(values[i]);
		labels->texts[i] = llm_text_to_utf8(labels->values[i]);
	}
}

void
llm_typed_call_init(LlmTypedCall *call)
{
	LlmTemplateText none = { NULL, 0 };

	llm_generate_options_parse(none, false, &call->options);
	set_defaults(&call->options);
}

bool
llm_typed_call_prompt(const LlmTypedCall *call, LlmModelHandle *handle,
					  const LlmTypedPrompt *typed, LlmPrompt *prompt,
					  LlmError *err)
{
	LlmPromptMessages messages = llm_prompt_messages(typed, true);

	if (llm_prompt_from_messages(handle, &call->options, &messages, prompt,
								 err))
		return true;
	/* some templates refuse a system message */
	if (err->code != LLM_ERROR_TEMPLATE)
		return false;
	messages = llm_prompt_messages(typed, false);
	return llm_prompt_from_messages(handle, &call->options, &messages, prompt,
									err);
}

void
llm_typed_call_submit(LlmTypedCall *call, const LlmTypedPrompt *typed,
					  bool is_batch)
{
	LlmGenerateOptions as_written = call->options;
	LlmBatchCall *batch = &call->batch;
	LlmPrompt prompt;

	if (!as_written.has_class)
		as_written.is_batch = is_batch;
	do
	{
		LlmModelHandle *handle = llm_model_handle_get(as_written.model);

		call->options = as_written;
		if (!llm_typed_call_prompt(call, handle, typed, &prompt, &batch->err) ||
			!llm_generate_options_complete(
				&call->options, &handle->facts->defaults, prompt.n_ids,
				handle->info.max_model_len, 0, &batch->err))
			return;
		call->generation = llm_generation_start(handle, &call->options, &prompt,
												call->options.params.seed);
		pfree(prompt.ids);
	} while (call->generation == NULL);
	/* a template may have refused the system message */
	llm_error_clear(&batch->err);
	batch->n_requests++;
	batch->n_prompt_tokens += prompt.n_ids;
	batch->is_repeatable = llm_generate_options_repeatable(&call->options);
}

bool
llm_typed_call_advance(LlmBatchCall *batch)
{
	LlmGeneration *generation = ((LlmTypedCall *) batch)->generation;

	return !llm_generation_advance(generation, false, &batch->err) ||
		   generation->is_done;
}

bool
llm_typed_call_answer(LlmTypedCall *call, LlmTemplateText *answer)
{
	const LlmGeneration *generation = call->generation;
	LlmError *err = &call->batch.err;

	Assert(generation->is_done);
	call->batch.n_cached_tokens += generation->result->n_cached;
	call->batch.n_output_tokens += generation->n_tokens;
	answer->data = llm_strbuf_str(&generation->text);
	answer->len = generation->text.len;
	if (generation->reason == LLM_FINISH_LENGTH)
	{
		llm_error_set(err, LLM_ERROR_LIMIT,
					  "the answer was not complete after %u tokens",
					  generation->n_tokens);
		return llm_error_hint(err, "Raise the option max_tokens, or the "
								   "model's context.");
	}
	if (generation->stop_text != NULL)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "the answer was cut at the stop string \"%s\"",
							 generation->stop_text);
	return true;
}

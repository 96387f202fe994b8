/*
 * completion_funcs.c
 *	  llm_completion: an OpenAI request in, an OpenAI response out.
 *
 * A request with "messages" is a chat completion, one with "prompt" (text or
 * token ids) a text completion.  The argument is json, not jsonb: templates
 * print tools and messages, and jsonb loses their key order.
 *
 * src/server/sql/completion_funcs.c
 */
#include "postgres.h"

#include "src/common/util/json.h"
#include "src/server/settings.h"
#include "src/server/sql/completion.h"
#include "src/server/sql/text_convert.h"
#include "src/server/sql/tool_calls.h"

#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

/* max_tokens of a text completion where the request sets none, as in vLLM */
#define TEXT_DEFAULT_MAX_TOKENS 16

PG_FUNCTION_INFO_V1(llm_completion);

/* -- the request -- */

/* A prompt given as an array of token ids. */
static void
read_prompt_ids(LlmCompletion *completion, LlmTemplateText json)
{
	cJSON *array = llm_json_parse_value(json, "prompt");
	const cJSON *item;
	LlmPrompt *prompt = &completion->prompt;
	int n_wrong = 0;

	prompt->ids =
		palloc_extended(sizeof(int32) * Max(cJSON_GetArraySize(array), 1),
						MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);
	cJSON_ArrayForEach(item, array)
	{
		if (prompt->ids == NULL || !cJSON_IsNumber(item) ||
			item->valuedouble != item->valueint || item->valueint < 0)
			n_wrong++;
		else
			prompt->ids[prompt->n_ids++] = item->valueint;
	}
	cJSON_Delete(array);
	if (prompt->ids == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	if (n_wrong > 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("\"prompt\" must be a string or an array of token ids")));
}

/* The text to echo where the prompt was given as ids. */
static bool
decode_prompt(LlmCompletion *completion, LlmError *err)
{
	const LlmPrompt *prompt = &completion->prompt;
	LlmStrbuf text = { 0 };
	bool ok = llm_tokenizer_decode(
		completion->handle->tokenizer, prompt->ids, prompt->n_ids,
		completion->options.skip_special_tokens, &text, err);

	if (ok)
		completion->prompt_text.data =
			pnstrdup(llm_strbuf_str(&text), text.len);
	completion->prompt_text.len = text.len;
	llm_strbuf_free(&text);
	return ok;
}

static bool
read_text_prompt(LlmCompletion *completion, LlmTemplateText prompt,
				 LlmError *err)
{
	cJSON *json;
	bool ok;

	if (llm_json_kind(prompt) == '[')
	{
		read_prompt_ids(completion, prompt);
		return !completion->options.echo || decode_prompt(completion, err);
	}
	json = llm_json_parse_value(prompt, "prompt");
	PG_TRY();
	{
		LlmTemplateText text;

		if (!cJSON_IsString(json))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("\"prompt\" must be a string or an array of token "
							"ids")));
		text.data = json->valuestring;
		text.len = strlen(json->valuestring);
		completion->prompt_text.data = pstrdup(text.data);
		completion->prompt_text.len = text.len;
		ok = llm_prompt_from_text(completion->handle, text,
								  !completion->options.has_add_special_tokens ||
									  completion->options.add_special_tokens,
								  &completion->prompt, err);
	}
	PG_FINALLY();
	{
		cJSON_Delete(json);
	}
	PG_END_TRY();
	return ok;
}

static bool
make_prompt(LlmCompletion *completion, LlmError *err)
{
	LlmTemplateText messages = llm_json_member(completion->request, "messages");
	LlmTemplateText prompt = llm_json_member(completion->request, "prompt");
	LlmPromptMessages conversation = { .json = messages };
	bool ok;

	if ((messages.data == NULL) == (prompt.data == NULL))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a request needs either \"messages\" or \"prompt\"")));
	completion->is_chat = messages.data != NULL;
	if (completion->is_chat && completion->options.echo)
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("\"echo\" goes with \"prompt\", not with \"messages\"")));
	if (completion->is_chat)
		ok = llm_prompt_from_messages(completion->handle, &completion->options,
									  &conversation, &completion->prompt, err);
	else
		ok = read_text_prompt(completion, prompt, err);
	return ok &&
		   llm_generate_options_complete(
			   &completion->options, &completion->handle->facts->defaults,
			   completion->prompt.n_ids, completion->handle->info.max_model_len,
			   completion->is_chat ? 0 : TEXT_DEFAULT_MAX_TOKENS, err);
}

static void
end_choices(LlmCompletion *completion)
{
	for (int i = 0; i < LLM_MAX_CHOICES; i++)
	{
		if (completion->choices[i] != NULL)
			llm_generation_end(completion->choices[i]);
		completion->choices[i] = NULL;
	}
}

/*
 * Start all choices at once; the prompt is computed once and cached.  False:
 * the model was replaced meanwhile.
 */
static bool
start_choices(LlmCompletion *completion)
{
	LlmGenerateOptions *options = &completion->options;

	for (int i = 0; i < options->n_choices; i++)
	{
		completion->choices[i] = llm_generation_start(
			completion->handle, options, &completion->prompt,
			options->params.seed + (uint64) i);
		if (completion->choices[i] == NULL)
		{
			end_choices(completion);
			return false;
		}
	}
	return true;
}

/* Alternatives wanted beside the prompt's tokens; -1: they are not weighed. */
static int
n_prompt_logprobs(const LlmGenerateOptions *options)
{
	int n = options->has_prompt_logprobs ? options->n_prompt_logprobs : -1;

	return options->echo ? Max(n, options->params.n_logprobs) : n;
}

/*
 * Have the prompt's tokens weighed, but the first, before which there is
 * nothing.  False: the model was replaced meanwhile.
 */
static bool
start_scoring(LlmCompletion *completion)
{
	const LlmGenerateOptions *options = &completion->options;
	const LlmModelHandle *handle = completion->handle;
	const LlmPrompt *prompt = &completion->prompt;
	LlmRequestSpec spec = {
		.kind = LLM_REQUEST_SCORE,
		.model_idx = handle->info.model_idx,
		.model_generation = handle->info.generation,
		.prompt_ids = prompt->ids,
		.n_prompt = prompt->n_ids,
		.params = llm_sampling_params_default(),
		.is_batch = options->is_batch,
		.cache_salt = options->cache_salt,
		.timeout_ms = options->timeout_ms > 0 ? options->timeout_ms
											  : llm_setting_request_timeout_ms,
	};

	completion->scoring = NULL;
	if (n_prompt_logprobs(options) < 0 || prompt->n_ids < 2)
		return true;
	spec.n_scored = prompt->n_ids - 1;
	spec.params.n_logprobs = n_prompt_logprobs(options);
	spec.params.max_tokens = spec.n_scored;
	memcpy(spec.adapter, completion->choices[0]->adapter.version.digest,
		   sizeof(spec.adapter));
	completion->scoring = llm_request_submit(&spec);
	if (completion->scoring == NULL)
		end_choices(completion);
	return completion->scoring != NULL;
}

static bool
start_completion(LlmCompletion *completion, bool is_batch)
{
	LlmGenerateOptions as_written = completion->options;

	completion->batch.null_on_error = as_written.null_on_error;
	if (!as_written.has_class)
		as_written.is_batch = is_batch;
	do
	{
		completion->options = as_written;
		completion->prompt = (LlmPrompt){ 0 };
		completion->handle = llm_model_handle_get(completion->options.model);
		if (!make_prompt(completion, &completion->batch.err))
			return false;
	} while (!start_choices(completion) || !start_scoring(completion));
	completion->batch.n_requests =
		completion->options.n_choices + (completion->scoring != NULL);
	completion->batch.n_prompt_tokens =
		(uint64) completion->prompt.n_ids * completion->batch.n_requests;
	completion->batch.is_repeatable =
		llm_generate_options_repeatable(&completion->options);
	return true;
}

/* -- the response -- */

static void
append_token_ids(StringInfo json, const int32 *ids, uint32 n_ids)
{
	appendStringInfoChar(json, '[');
	for (uint32 i = 0; i < n_ids; i++)
		appendStringInfo(json, "%s%d", i > 0 ? ", " : "", ids[i]);
	appendStringInfoChar(json, ']');
}

/* An answer's text, behind its prompt's where that is asked for. */
static void
append_answer_text(StringInfo json, const LlmCompletion *completion,
				   const LlmStrbuf *text)
{
	StringInfoData whole;

	initStringInfo(&whole);
	if (completion->options.echo)
		appendBinaryStringInfo(&whole, completion->prompt_text.data,
							   (int) completion->prompt_text.len);
	appendBinaryStringInfo(&whole, llm_strbuf_str(text), (int) text->len);
	appendStringInfoString(json, "\"text\": ");
	llm_append_json_string(json, whole.data, whole.len);
	pfree(whole.data);
}

static void
append_finish(StringInfo json, const LlmGeneration *generation, bool has_calls)
{
	const char *reason = generation->reason == LLM_FINISH_LENGTH ? "length"
						 : has_calls							 ? "tool_calls"
																 : "stop";

	appendStringInfo(json,
					 ", \"finish_reason\": \"%s\", \"stop_reason\": ", reason);
	if (generation->stop_text != NULL)
		llm_append_json_string(json, generation->stop_text,
							   strlen(generation->stop_text));
	else if (generation->stop_id >= 0 && generation->options->n_stop_ids > 0)
	{
		for (uint32 i = 0; i < generation->options->n_stop_ids; i++)
			if (generation->options->stop_ids[i] == generation->stop_id)
			{
				appendStringInfo(json, "%d", generation->stop_id);
				return;
			}
		appendStringInfoString(json, "null");
	}
	else
		appendStringInfoString(json, "null");
}

/* A chat's answer; true: it calls tools. */
static bool
append_message(StringInfo json, const LlmCompletion *completion,
			   const LlmStrbuf *text)
{
	LlmTemplateText answer = { llm_strbuf_str(text), text->len };
	LlmToolCalls calls;

	llm_tool_calls_parse(answer, completion->options.tools,
						 completion->options.parallel_tool_calls, &calls);
	appendStringInfoString(
		json, "\"message\": {\"role\": \"assistant\", \"content\": ");
	if (calls.n_calls > 0 && calls.content.len == 0)
		appendStringInfoString(json, "null");
	else
		llm_append_json_string(json, calls.content.data, calls.content.len);
	if (calls.n_calls > 0)
		appendStringInfo(json, ", \"tool_calls\": [%s]", calls.json.data);
	appendStringInfoChar(json, '}');
	return calls.n_calls > 0;
}

static void
append_choice(StringInfo json, const LlmCompletion *completion, int index,
			  LlmStrbuf *buf)
{
	const LlmGeneration *generation = completion->choices[index];
	const LlmStrbuf *text = &generation->text;
	bool has_calls = false;

	appendStringInfo(json, "{\"index\": %d, ", index);
	if (completion->is_chat)
		has_calls = append_message(json, completion, text);
	else
		append_answer_text(json, completion, text);
	appendStringInfoString(json, ", \"logprobs\": ");
	if (!generation->result->has_logprobs)
		appendStringInfoString(json, "null");
	else if (completion->is_chat)
		llm_completion_chat_logprobs(json, completion, generation, buf);
	else
		llm_completion_text_logprobs(json, completion, generation, buf);
	append_finish(json, generation, has_calls);
	if (!completion->is_chat && completion->options.has_prompt_logprobs)
		llm_completion_prompt_logprobs(json, completion, buf);
	if (completion->options.return_token_ids)
	{
		appendStringInfoString(json, ", \"token_ids\": ");
		append_token_ids(json, generation->result->token_ids,
						 generation->n_tokens);
	}
	appendStringInfoChar(json, '}');
}

/* The sampling that was used, and which of it the model's own file set. */
static void
append_sampling(StringInfo json, const LlmCompletion *completion)
{
	const LlmSamplingParams *params = &completion->options.params;
	const LlmGenerationDefaults *defaults =
		&completion->handle->facts->defaults;

	appendStringInfo(json,
					 ", \"sampling\": {\"temperature\": %.9g, \"top_p\": %.9g, "
					 "\"top_k\": %d, \"min_p\": %.9g, "
					 "\"repetition_penalty\": %.9g, \"seed\": %lld, "
					 "\"defaults_from\": \"%s\"}",
					 params->temperature, params->top_p, params->top_k,
					 params->min_p, params->repetition_penalty,
					 (long long) params->seed,
					 defaults->present ? "generation_config.json" : "vllm");
}

static void
append_usage(StringInfo json, const LlmCompletion *completion)
{
	uint64 n_output = 0;
	uint32 n_prompt = completion->prompt.n_ids;
	uint32 n_cached = completion->choices[0]->result->n_cached;

	for (int i = 0; i < completion->options.n_choices; i++)
		n_output += completion->choices[i]->n_tokens;
	appendStringInfo(json,
					 ", \"usage\": {\"prompt_tokens\": %u, "
					 "\"completion_tokens\": %llu, \"total_tokens\": %llu, "
					 "\"prompt_tokens_details\": {\"cached_tokens\": %u}",
					 n_prompt, (unsigned long long) n_output,
					 (unsigned long long) (n_output + n_prompt), n_cached);
	append_sampling(json, completion);
	appendStringInfoChar(json, '}');
}

/* The version that answered, and the one that it shares the traffic with. */
static void
append_adapter(StringInfo json, const LlmAdapterChoice *adapter)
{
	const LlmAdapterVersion *version = &adapter->version;

	if (adapter->is_base)
		return;
	appendStringInfoString(json, ", \"adapter\": {\"name\": ");
	llm_append_json_string(json, version->name, strlen(version->name));
	appendStringInfo(json, ", \"version\": %d", version->version);
	if (version->other_version > 0)
		appendStringInfo(json, ", \"other_version\": %d",
						 version->other_version);
	appendStringInfoChar(json, '}');
}

static void
append_response(StringInfo json, const LlmCompletion *completion,
				LlmStrbuf *buf)
{
	appendStringInfo(json,
					 "{\"id\": \"%s-%016llx%016llx\", \"object\": \"%s\", "
					 "\"created\": %lld, \"model\": ",
					 completion->is_chat ? "chatcmpl" : "cmpl",
					 (unsigned long long) pg_prng_uint64(&pg_global_prng_state),
					 (unsigned long long) pg_prng_uint64(&pg_global_prng_state),
					 completion->is_chat ? "chat.completion"
										 : "text_completion",
					 (long long) time(NULL));
	llm_append_json_string(json, completion->handle->info.name,
						   strlen(completion->handle->info.name));
	append_adapter(json, &completion->choices[0]->adapter);
	appendStringInfoString(json, ", \"choices\": [");
	for (int i = 0; i < completion->options.n_choices; i++)
	{
		if (i > 0)
			appendStringInfoString(json, ", ");
		append_choice(json, completion, i, buf);
	}
	appendStringInfoChar(json, ']');
	append_usage(json, completion);
	if (completion->is_chat && completion->options.has_prompt_logprobs)
		llm_completion_prompt_logprobs(json, completion, buf);
	if (completion->options.return_token_ids)
	{
		appendStringInfoString(json, ", \"prompt_token_ids\": ");
		append_token_ids(json, completion->prompt.ids,
						 completion->prompt.n_ids);
	}
	appendStringInfoChar(json, '}');
}

/* NULL: the answer does not fit the database's encoding. */
static text *
build_response(const LlmCompletion *completion, LlmError *err)
{
	StringInfoData json;
	LlmStrbuf buf;
	text *response = NULL;

	initStringInfo(&json);
	llm_strbuf_init(&buf);
	PG_TRY();
	{
		append_response(&json, completion, &buf);
		response = llm_text_try_from_utf8(json.data, json.len, err);
	}
	PG_FINALLY();
	{
		llm_strbuf_free(&buf);
	}
	PG_END_TRY();
	return response;
}

static LlmBatchCall *
start_call(FunctionCallInfo fcinfo, bool is_batch)
{
	LlmCompletion *completion;

	if (PG_ARGISNULL(0))
		return NULL;
	completion = palloc0(sizeof(LlmCompletion));
	completion->request = llm_json_text(PG_GETARG_DATUM(0), JSONOID);
	if (llm_json_kind(completion->request) != '{')
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("a request must be a JSON object")));
	llm_generate_options_parse(completion->request, true, &completion->options);
	llm_generate_options_refuse_stream(&completion->options);
	(void) start_completion(completion, is_batch);
	return &completion->batch;
}

static bool
advance_call(LlmBatchCall *batch)
{
	LlmCompletion *completion = (LlmCompletion *) batch;
	bool is_done = true;

	if (completion->scoring != NULL)
	{
		completion->scores = llm_request_poll(completion->scoring);
		if (completion->scores->error != NULL)
		{
			batch->err = *completion->scores->error;
			return true;
		}
		is_done = completion->scores->is_finished;
	}
	for (int i = 0; i < completion->options.n_choices; i++)
	{
		LlmGeneration *choice = completion->choices[i];

		if (!llm_generation_advance(choice, false, &batch->err))
			return true;
		is_done &= choice->is_done;
	}
	return is_done;
}

static Datum
finish_call(LlmBatchCall *batch, bool *isnull)
{
	LlmCompletion *completion = (LlmCompletion *) batch;
	text *response = build_response(completion, &batch->err);

	*isnull = response == NULL;
	if (response == NULL)
		return (Datum) 0;
	for (int i = 0; i < completion->options.n_choices; i++)
	{
		batch->n_cached_tokens += completion->choices[i]->result->n_cached;
		batch->n_output_tokens += completion->choices[i]->n_tokens;
	}
	return DirectFunctionCall1(jsonb_in,
							   CStringGetDatum(text_to_cstring(response)));
}

const LlmBatchOps llm_completion_ops = { "llm_completion", llm_completion,
										 start_call, advance_call,
										 finish_call };

/* llm_completion(request json) → jsonb */
Datum
llm_completion(PG_FUNCTION_ARGS)
{
	return llm_batch_run(fcinfo, &llm_completion_ops);
}

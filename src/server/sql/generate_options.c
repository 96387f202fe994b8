/*
 * generate_options.c
 *	  The options of a generating call: OpenAI's and vLLM's names.
 *
 * A table maps each key to its reader, so that a key is either understood or
 * refused by name: an option that is silently ignored gives wrong answers
 * that nobody notices.
 *
 * src/server/sql/generate_options.c
 */
#include "postgres.h"

#include <math.h>

#include "src/common/util/json.h"
#include "src/common/util/sha256.h"
#include "src/server/report.h"
#include "src/server/settings.h"
#include "src/server/sql/generate_options.h"
#include "src/server/sql/text_convert.h"
#include "src/server/sql/tool_calls.h"

#include "common/pg_prng.h"
#include "utils/builtins.h"

/* A key's reader; the value is neither absent nor null. */
typedef void (*OptionReader)(LlmGenerateOptions *options, const char *key,
							 const cJSON *value);

static void
bad_value(const char *key, const char *expected)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("option \"%s\" must be %s", key, expected)));
	pg_unreachable();
}

static double
number_of(const char *key, const cJSON *value)
{
	if (!cJSON_IsNumber(value))
		bad_value(key, "a number");
	return value->valuedouble;
}

static int64
integer_of(const char *key, const cJSON *value, int64 min, int64 max)
{
	double number = number_of(key, value);

	if (number != floor(number) || number < (double) min ||
		number > (double) max)
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("option \"%s\" must be an integer between %lld and %lld",
					key, (long long) min, (long long) max)));
	return (int64) number;
}

static bool
bool_of(const char *key, const cJSON *value)
{
	if (!cJSON_IsBool(value))
		bad_value(key, "true or false");
	return cJSON_IsTrue(value);
}

static const char *
string_of(const char *key, const cJSON *value)
{
	if (!cJSON_IsString(value))
		bad_value(key, "a string");
	return value->valuestring;
}

/* -- sampling -- */

static void
read_temperature(LlmGenerateOptions *options, const char *key,
				 const cJSON *value)
{
	options->params.temperature = (float) number_of(key, value);
	options->has_temperature = true;
}

static void
read_top_p(LlmGenerateOptions *options, const char *key, const cJSON *value)
{
	options->params.top_p = (float) number_of(key, value);
	options->has_top_p = true;
}

static void
read_top_k(LlmGenerateOptions *options, const char *key, const cJSON *value)
{
	int64 top_k = integer_of(key, value, -1, PG_INT32_MAX);

	options->params.top_k = top_k < 0 ? 0 : (int32) top_k;
	options->has_top_k = true;
}

static void
read_min_p(LlmGenerateOptions *options, const char *key, const cJSON *value)
{
	options->params.min_p = (float) number_of(key, value);
	options->has_min_p = true;
}

static void
read_repetition_penalty(LlmGenerateOptions *options, const char *key,
						const cJSON *value)
{
	options->params.repetition_penalty = (float) number_of(key, value);
	options->has_repetition_penalty = true;
}

static void
read_presence_penalty(LlmGenerateOptions *options, const char *key,
					  const cJSON *value)
{
	options->params.presence_penalty = (float) number_of(key, value);
}

static void
read_frequency_penalty(LlmGenerateOptions *options, const char *key,
					   const cJSON *value)
{
	options->params.frequency_penalty = (float) number_of(key, value);
}

static void
read_seed(LlmGenerateOptions *options, const char *key, const cJSON *value)
{
	/* JSON numbers are exact up to 2^53 */
	options->params.seed = (uint64) integer_of(
		key, value, -(INT64CONST(1) << 53), INT64CONST(1) << 53);
	options->has_seed = true;
}

static void
read_max_tokens(LlmGenerateOptions *options, const char *key,
				const cJSON *value)
{
	options->params.max_tokens =
		(uint32) integer_of(key, value, 1, PG_INT32_MAX);
	options->has_max_tokens = true;
}

static void
read_min_tokens(LlmGenerateOptions *options, const char *key,
				const cJSON *value)
{
	options->params.min_tokens =
		(uint32) integer_of(key, value, 0, PG_INT32_MAX);
}

static void
read_ignore_eos(LlmGenerateOptions *options, const char *key,
				const cJSON *value)
{
	options->params.ignore_eos = bool_of(key, value);
}

static void
read_n(LlmGenerateOptions *options, const char *key, const cJSON *value)
{
	options->n_choices = (int) integer_of(key, value, 1, LLM_MAX_CHOICES);
}

static void
read_stop_token_ids(LlmGenerateOptions *options, const char *key,
					const cJSON *value)
{
	const cJSON *item;

	if (!cJSON_IsArray(value))
		bad_value(key, "an array of token ids");
	options->stop_ids =
		palloc(sizeof(int32) * Max(cJSON_GetArraySize(value), 1));
	cJSON_ArrayForEach(item, value) options->stop_ids[options->n_stop_ids++] =
		(int32) integer_of(key, item, 0, PG_INT32_MAX);
}

static void
read_logit_bias(LlmGenerateOptions *options, const char *key,
				const cJSON *value)
{
	const cJSON *item;

	if (!cJSON_IsObject(value))
		bad_value(key, "an object that maps token ids to numbers");
	options->bias =
		palloc(sizeof(LlmWireBias) * Max(cJSON_GetArraySize(value), 1));
	cJSON_ArrayForEach(item, value)
	{
		char *end;
		long token_id = strtol(item->string, &end, 10);
		double bias = number_of(key, item);

		if (*item->string == '\0' || *end != '\0' || token_id < 0 ||
			token_id > PG_INT32_MAX)
			bad_value(key, "an object whose keys are token ids");
		if (bias < -100 || bias > 100)
			bad_value(key, "an object of numbers between -100 and 100");
		options->bias[options->n_bias].token_id = (int32) token_id;
		options->bias[options->n_bias++].bias = (float) bias;
	}
}

/*
 * Chat requests write "logprobs": true with "top_logprobs": 5; completion
 * requests write "logprobs": 5.
 */
static void
read_logprobs(LlmGenerateOptions *options, const char *key, const cJSON *value)
{
	if (cJSON_IsBool(value))
	{
		if (cJSON_IsTrue(value))
			options->params.n_logprobs = Max(options->params.n_logprobs, 0);
	}
	else
		options->params.n_logprobs =
			(int32) integer_of(key, value, 0, LLM_MAX_LOGPROBS);
}

static void
read_top_logprobs(LlmGenerateOptions *options, const char *key,
				  const cJSON *value)
{
	options->params.n_logprobs =
		(int32) integer_of(key, value, 0, LLM_MAX_LOGPROBS);
}

static void
read_prompt_logprobs(LlmGenerateOptions *options, const char *key,
					 const cJSON *value)
{
	options->has_prompt_logprobs = true;
	options->n_prompt_logprobs =
		(int) integer_of(key, value, 0, LLM_MAX_LOGPROBS);
}

/* -- text -- */

static void
add_stop_string(LlmGenerateOptions *options, const char *key,
				const cJSON *value)
{
	const char *text = string_of(key, value);

	if (*text == '\0')
		bad_value(key, "a string or an array of strings, none of them empty");
	if (options->n_stop == LLM_MAX_STOP_STRINGS)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("option \"%s\" has more than %d strings", key,
							   LLM_MAX_STOP_STRINGS)));
	options->stop[options->n_stop].text = pstrdup(text);
	options->stop[options->n_stop++].len = strlen(text);
}

static void
read_stop(LlmGenerateOptions *options, const char *key, const cJSON *value)
{
	const cJSON *item;

	if (cJSON_IsString(value))
		add_stop_string(options, key, value);
	else if (cJSON_IsArray(value))
	{
		cJSON_ArrayForEach(item, value) add_stop_string(options, key, item);
	}
	else
		bad_value(key, "a string or an array of strings");
}

static void
read_include_stop(LlmGenerateOptions *options, const char *key,
				  const cJSON *value)
{
	options->include_stop_str_in_output = bool_of(key, value);
}

static void
read_skip_special_tokens(LlmGenerateOptions *options, const char *key,
						 const cJSON *value)
{
	options->skip_special_tokens = bool_of(key, value);
}

static void
read_add_special_tokens(LlmGenerateOptions *options, const char *key,
						const cJSON *value)
{
	options->add_special_tokens = bool_of(key, value);
	options->has_add_special_tokens = true;
}

static void
read_add_generation_prompt(LlmGenerateOptions *options, const char *key,
						   const cJSON *value)
{
	options->add_generation_prompt = bool_of(key, value);
}

static void
read_continue_final_message(LlmGenerateOptions *options, const char *key,
							const cJSON *value)
{
	options->continue_final_message = bool_of(key, value);
}

/* -- the call -- */

static void
read_model(LlmGenerateOptions *options, const char *key, const cJSON *value)
{
	options->model = pstrdup(string_of(key, value));
}

static void
read_cache_salt(LlmGenerateOptions *options, const char *key,
				const cJSON *value)
{
	const char *salt = string_of(key, value);
	LlmSha256 sha;
	uint8_t digest[LLM_SHA256_BYTES];

	llm_sha256_init(&sha);
	llm_sha256_update(&sha, salt, strlen(salt));
	llm_sha256_final(&sha, digest);
	memcpy(&options->cache_salt, digest, sizeof(options->cache_salt));
}

static void
read_priority(LlmGenerateOptions *options, const char *key, const cJSON *value)
{
	const char *name = string_of(key, value);

	if (strcmp(name, "interactive") != 0 && strcmp(name, "batch") != 0)
		bad_value(key, "\"interactive\" or \"batch\"");
	options->is_batch = strcmp(name, "batch") == 0;
	options->has_class = true;
}

static void
read_timeout(LlmGenerateOptions *options, const char *key, const cJSON *value)
{
	options->timeout_ms = (int) integer_of(key, value, 1, PG_INT32_MAX);
}

static void
read_return_token_ids(LlmGenerateOptions *options, const char *key,
					  const cJSON *value)
{
	options->return_token_ids = bool_of(key, value);
}

static void
read_on_error(LlmGenerateOptions *options, const char *key, const cJSON *value)
{
	const char *name = string_of(key, value);

	if (strcmp(name, "null") != 0 && strcmp(name, "error") != 0)
		bad_value(key, "\"null\" or \"error\"");
	options->null_on_error = strcmp(name, "null") == 0;
	options->has_on_error = true;
}

static void
read_parallel_tool_calls(LlmGenerateOptions *options, const char *key,
						 const cJSON *value)
{
	options->parallel_tool_calls = bool_of(key, value);
}

static void
set_format(LlmGenerateOptions *options, const char *key,
		   LlmGrammarSource format)
{
	if (format.kind == LLM_GRAMMAR_NONE)
		return;
	if (options->format.kind != LLM_GRAMMAR_NONE)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("options \"%s\" and \"%s\" exclude each other",
							   options->format_key, key)));
	options->format = format;
	options->format_key = key;
}

static void
read_tool_choice(LlmGenerateOptions *options, const char *key,
				 const cJSON *value)
{
	LlmGrammarSource format = { LLM_GRAMMAR_NONE };
	LlmToolChoice choice = llm_tool_choice_read(
		value, options->tools, options->parallel_tool_calls, &format);

	if (choice == LLM_TOOL_NONE)
		options->tools.data = NULL;
	set_format(options, "tool_choice", format);
}

static void
read_adapter(LlmGenerateOptions *options, const char *key, const cJSON *value)
{
	options->adapter = pstrdup(string_of(key, value));
}

static void
read_user(LlmGenerateOptions *options, const char *key, const cJSON *value)
{
	options->user = pstrdup(string_of(key, value));
}

static void
read_echo(LlmGenerateOptions *options, const char *key, const cJSON *value)
{
	options->echo = bool_of(key, value);
}

static void
read_stream(LlmGenerateOptions *options, const char *key, const cJSON *value)
{
	options->stream = bool_of(key, value);
}

typedef struct OptionKey
{
	const char *key;
	OptionReader read; /* NULL: taken as text, or changes nothing */
	bool request_only; /* a request's key, not an option */
	bool is_format;	   /* says what the answer has to look like */
	bool is_plain;	   /* also of calls that generate nothing */
} OptionKey;

/* tool_choice stands behind what it depends on, top_logprobs too */
static const OptionKey option_keys[] = {
	{ "model", read_model, false, .is_plain = true },
	{ "temperature", read_temperature, false },
	{ "top_p", read_top_p, false },
	{ "top_k", read_top_k, false },
	{ "min_p", read_min_p, false },
	{ "repetition_penalty", read_repetition_penalty, false },
	{ "presence_penalty", read_presence_penalty, false },
	{ "frequency_penalty", read_frequency_penalty, false },
	{ "seed", read_seed, false },
	{ "max_tokens", read_max_tokens, false },
	{ "max_completion_tokens", read_max_tokens, false },
	{ "min_tokens", read_min_tokens, false },
	{ "ignore_eos", read_ignore_eos, false },
	{ "n", read_n, true },
	{ "stop", read_stop, false },
	{ "stop_token_ids", read_stop_token_ids, false },
	{ "include_stop_str_in_output", read_include_stop, false },
	{ "logit_bias", read_logit_bias, false },
	{ "logprobs", read_logprobs, true },
	{ "top_logprobs", read_top_logprobs, true },
	{ "skip_special_tokens", read_skip_special_tokens, false },
	{ "add_special_tokens", read_add_special_tokens, false, .is_plain = true },
	{ "add_generation_prompt", read_add_generation_prompt, false },
	{ "continue_final_message", read_continue_final_message, false },
	{ "prompt_logprobs", read_prompt_logprobs, true },
	{ "echo", read_echo, true },
	{ "tools", NULL, false },
	{ "parallel_tool_calls", read_parallel_tool_calls, false },
	{ "tool_choice", read_tool_choice, false },
	{ "documents", NULL, false },
	{ "chat_template_kwargs", NULL, false, .is_plain = true },
	{ "cache_salt", read_cache_salt, false, .is_plain = true },
	{ "priority", read_priority, false, .is_plain = true },
	{ "timeout_ms", read_timeout, false, .is_plain = true },
	{ "return_token_ids", read_return_token_ids, true },
	{ "on_error", read_on_error, false, .is_plain = true },
	{ "response_format", NULL, false, true },
	{ "guided_json", NULL, false, true },
	{ "guided_regex", NULL, false, true },
	{ "guided_choice", NULL, false, true },
	{ "guided_grammar", NULL, false, true },
	{ "structured_outputs", NULL, false, true },
	{ "messages", NULL, true },
	{ "prompt", NULL, true },
	{ "adapter", read_adapter, true, .is_plain = true },
	{ "stream", read_stream, true },
	{ "user", read_user, false },
};

static const OptionKey *
find_key(const char *key, bool request_keys)
{
	LlmError err;

	for (int i = 0; i < (int) lengthof(option_keys); i++)
		if (strcmp(option_keys[i].key, key) == 0 &&
			(request_keys || !option_keys[i].request_only))
			return &option_keys[i];
	llm_error_set(&err, LLM_ERROR_INVALID, "unrecognized option \"%s\"", key);
	llm_report(ERROR, &err);
	return NULL;
}

static void
set_initial(LlmGenerateOptions *options)
{
	memset(options, 0, sizeof(*options));
	options->params = llm_sampling_params_default();
	options->n_choices = 1;
	options->null_on_error = llm_setting_on_error == LLM_ON_ERROR_NULL;
	options->skip_special_tokens = true;
	options->add_generation_prompt = true;
	options->parallel_tool_calls = true;
}

static void
read_option(const OptionKey *option, LlmTemplateText text,
			LlmGenerateOptions *options)
{
	cJSON *value = llm_json_parse_value(text, option->key);

	PG_TRY();
	{
		if (!cJSON_IsNull(value))
			option->read(options, option->key, value);
	}
	PG_FINALLY();
	{
		cJSON_Delete(value);
	}
	PG_END_TRY();
}

static void
read_format(const OptionKey *option, LlmTemplateText text,
			LlmGenerateOptions *options)
{
	if (text.len != 4 || memcmp(text.data, "null", 4) != 0)
		set_format(options, option->key,
				   llm_answer_format_read(option->key, text));
}

/*
 * Values are read one by one, so that messages, which may be long, are not
 * parsed here; in the table's order, since some keys refine others.
 */
void
llm_generate_options_parse(LlmTemplateText text, bool request_keys,
						   LlmGenerateOptions *options)
{
	LlmTemplateText values[lengthof(option_keys)] = { { NULL, 0 } };
	LlmTemplateText value;
	size_t off = 0;
	char *key;

	set_initial(options);
	if (text.data == NULL)
		return;
	if (llm_json_kind(text) != '{')
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("options must be a JSON object")));
	while (llm_json_next_member(text, &off, &key, &value))
		values[find_key(key, request_keys) - option_keys] = value;
	options->tools = llm_json_member(text, "tools");
	options->documents = llm_json_member(text, "documents");
	options->chat_template_kwargs =
		llm_json_member(text, "chat_template_kwargs");
	for (int i = 0; i < (int) lengthof(option_keys); i++)
	{
		if (values[i].data == NULL)
			continue;
		if (option_keys[i].is_format)
			read_format(&option_keys[i], values[i], options);
		else if (option_keys[i].read != NULL)
			read_option(&option_keys[i], values[i], options);
	}
}

static bool
is_own_key(const char *const *own_keys, const char *key)
{
	for (; *own_keys != NULL; own_keys++)
		if (strcmp(*own_keys, key) == 0)
			return true;
	return false;
}

void
llm_generate_options_parse_plain(LlmTemplateText text,
								 const char *const *own_keys,
								 LlmGenerateOptions *options)
{
	LlmTemplateText value;
	size_t off = 0;
	char *key;

	set_initial(options);
	if (text.data == NULL)
		return;
	if (llm_json_kind(text) != '{')
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("options must be a JSON object")));
	options->chat_template_kwargs =
		llm_json_member(text, "chat_template_kwargs");
	while (llm_json_next_member(text, &off, &key, &value))
	{
		const OptionKey *option;

		if (is_own_key(own_keys, key))
			continue;
		option = find_key(key, true);
		if (!option->is_plain)
			ereport(
				ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"%s\" does not apply to this function", key),
				 errdetail("Nothing is generated.")));
		if (option->read != NULL)
			read_option(option, value, options);
	}
}

void
llm_generate_options_refuse_stream(const LlmGenerateOptions *options)
{
	if (options->stream)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a SQL function returns one value and cannot stream"),
				 errhint("Use llm_chat_stream.")));
}

/* What the model's generation_config.json says where the caller is silent. */
static void
apply_defaults(LlmGenerateOptions *options,
			   const LlmGenerationDefaults *defaults)
{
	LlmSamplingParams *params = &options->params;

	if (!options->has_temperature && defaults->has_temperature)
		params->temperature = (float) defaults->temperature;
	if (!options->has_top_p && defaults->has_top_p)
		params->top_p = (float) defaults->top_p;
	if (!options->has_top_k && defaults->has_top_k)
		params->top_k = defaults->top_k;
	if (!options->has_min_p && defaults->has_min_p)
		params->min_p = (float) defaults->min_p;
	if (!options->has_repetition_penalty && defaults->has_repetition_penalty)
		params->repetition_penalty = (float) defaults->repetition_penalty;
	/* as many bits as a JSON number holds, so that it can be given again */
	if (!options->has_seed)
		params->seed = pg_prng_uint64(&pg_global_prng_state) >> 11;
}

bool
llm_generate_options_complete(LlmGenerateOptions *options,
							  const LlmGenerationDefaults *defaults,
							  uint32 n_prompt, int32 max_model_len,
							  uint32 default_max_tokens, LlmError *err)
{
	LlmSamplingParams *params = &options->params;
	int64 room = (int64) max_model_len - n_prompt;

	apply_defaults(options, defaults);
	if (room < 1)
	{
		llm_error_set(err, LLM_ERROR_LIMIT,
					  "the prompt has %u tokens, but the model's context is %d "
					  "tokens",
					  n_prompt, max_model_len);
		return llm_error_hint(err,
							  "Shorten the prompt, or raise "
							  "llm_ext.max_model_len if the model allows it.");
	}
	if (!options->has_max_tokens)
	{
		int64 automatic = default_max_tokens > 0 ? default_max_tokens
						  : defaults->has_max_new_tokens
							  ? defaults->max_new_tokens
							  : room;

		params->max_tokens = (uint32) Max(Min(automatic, room), 1);
		params->min_tokens = Min(params->min_tokens, params->max_tokens);
	}
	else if (params->max_tokens > room)
	{
		llm_error_set(err, LLM_ERROR_LIMIT,
					  "the prompt has %u tokens and max_tokens is %u, but the "
					  "model's context is %d tokens",
					  n_prompt, params->max_tokens, max_model_len);
		return llm_error_hint(err,
							  "Ask for at most %d tokens, or leave "
							  "max_tokens out.",
							  (int) room);
	}
	return llm_sampling_params_check(params, PG_INT32_MAX, err);
}

bool
llm_generate_options_repeatable(const LlmGenerateOptions *options)
{
	return options->has_seed || options->params.temperature == 0;
}

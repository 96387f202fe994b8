/*
 * generate_options.h
 *	  The options of a generating call: OpenAI's and vLLM's names.
 *
 * src/server/sql/generate_options.h
 */
#ifndef LLM_GENERATE_OPTIONS_H
#define LLM_GENERATE_OPTIONS_H

#include "postgres.h"

#include "src/common/ipc/ipc_message.h"
#include "src/common/model_dir/model_dir.h"
#include "src/common/template/chat_template.h"
#include "src/server/sql/answer_format.h"

#define LLM_MAX_STOP_STRINGS 16
#define LLM_MAX_CHOICES 128

typedef struct LlmStopString
{
	char *text; /* UTF-8 */
	size_t len; /* at least 1 */
} LlmStopString;

typedef struct LlmGenerateOptions
{
	char *model;   /* NULL: the default model */
	char *adapter; /* NULL: the tenant's, or none; "": none */
	char *user;	   /* who asks, for a split of traffic; or NULL */

	/* sampling, as the caller wrote it; completed by _complete */
	LlmSamplingParams params;
	bool has_temperature;
	bool has_top_p;
	bool has_top_k;
	bool has_min_p;
	bool has_repetition_penalty;
	bool has_max_tokens;
	bool has_seed;
	int n_choices;
	int32 *stop_ids;
	uint32 n_stop_ids;
	LlmWireBias *bias;
	uint32 n_bias;

	/* text */
	LlmStopString stop[LLM_MAX_STOP_STRINGS];
	int n_stop;
	bool include_stop_str_in_output;
	bool skip_special_tokens;
	bool add_special_tokens;
	bool has_add_special_tokens;

	/* chat template */
	LlmTemplateText tools;
	bool parallel_tool_calls; /* an answer may be several calls */
	LlmTemplateText documents;
	LlmTemplateText chat_template_kwargs;
	bool add_generation_prompt;
	bool continue_final_message;

	/* what the answer has to look like, and the option that says so */
	LlmGrammarSource format;
	const char *format_key;

	/* the call */
	uint64 cache_salt;
	bool has_class;
	bool is_batch;
	int timeout_ms;
	bool return_token_ids;
	bool echo;				  /* the prompt's text before the answer's */
	bool has_prompt_logprobs; /* the prompt's tokens, weighed */
	int n_prompt_logprobs;	  /* alternatives beside each */
	bool has_on_error;
	bool null_on_error;
	bool stream;
} LlmGenerateOptions;

/*
 * Read the options' JSON object (data NULL = none).  request_keys also allows
 * the keys of an OpenAI request that are not options (messages, prompt,
 * stream, user, ...), which the caller reads itself.  A key that nothing
 * knows, or a value out of range, is an error.
 */
extern void llm_generate_options_parse(LlmTemplateText json, bool request_keys,
									   LlmGenerateOptions *options);

/*
 * The same for calls that generate nothing: of the keys above those that say
 * which model, how long, in which class, and what becomes of a failed row.
 * The caller reads its own keys (NULL-terminated) itself.
 */
extern void llm_generate_options_parse_plain(LlmTemplateText json,
											 const char *const *own_keys,
											 LlmGenerateOptions *options);

/* Where the answer is one value. */
extern void
llm_generate_options_refuse_stream(const LlmGenerateOptions *options);

/*
 * Fill what the caller left open: from the model's generation_config.json,
 * then neutral values; max_tokens up to the end of the context, but
 * default_max_tokens where that is set.  False: the prompt and max_tokens
 * exceed the context, or a value is out of range.
 */
extern bool
llm_generate_options_complete(LlmGenerateOptions *options,
							  const LlmGenerationDefaults *defaults,
							  uint32 n_prompt, int32 max_model_len,
							  uint32 default_max_tokens, LlmError *err);

/* Completed options: do equal prompts get equal answers? */
extern bool llm_generate_options_repeatable(const LlmGenerateOptions *options);

#endif /* LLM_GENERATE_OPTIONS_H */

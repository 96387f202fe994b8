/*
 * completion_logprobs.c
 *	  Log-probabilities in llm_completion's response, in the three shapes that
 *	  OpenAI and vLLM give them: of a chat, of a text completion, of a prompt.
 *
 * src/server/sql/completion_logprobs.c
 */
#include "postgres.h"

#include <math.h>

#include "src/server/sql/completion.h"
#include "src/server/sql/text_convert.h"

/* A JSON number; log-probabilities may be -inf, which JSON cannot say. */
static void
append_logprob(StringInfo json, float4 logprob)
{
	if (isnan(logprob))
		appendStringInfoString(json, "null");
	else
		appendStringInfo(json, "%.9g", Max(logprob, -9999.0f));
}

/* The text of one token by itself, in the caller's buffer. */
static void
token_text(const LlmCompletion *completion, int32 token_id, LlmStrbuf *buf)
{
	LlmError err;

	llm_strbuf_reset(buf);
	if (!llm_tokenizer_token_bytes(completion->handle->tokenizer, token_id, buf,
								   &err))
		llm_strbuf_reset(buf); /* an id that only pads the output layer */
}

/* {"token": ..., "logprob": ..., "bytes": [...]  without the closing brace */
static void
append_token_logprob(StringInfo json, const LlmCompletion *completion,
					 int32 token_id, float4 logprob, LlmStrbuf *buf)
{
	token_text(completion, token_id, buf);
	appendStringInfoString(json, "{\"token\": ");
	llm_append_json_string(json, llm_strbuf_str(buf), buf->len);
	appendStringInfoString(json, ", \"logprob\": ");
	append_logprob(json, logprob);
	appendStringInfoString(json, ", \"bytes\": [");
	for (size_t i = 0; i < buf->len; i++)
		appendStringInfo(json, "%s%d", i > 0 ? ", " : "",
						 (unsigned char) buf->data[i]);
	appendStringInfoChar(json, ']');
}

void
llm_completion_chat_logprobs(StringInfo json, const LlmCompletion *completion,
							 const LlmGeneration *generation, LlmStrbuf *buf)
{
	const LlmRequestResult *result = generation->result;

	appendStringInfoString(json, "{\"content\": [");
	for (uint32 i = 0; i < generation->n_tokens; i++)
	{
		const LlmTopLogprob *top = &result->top[i * LLM_MAX_LOGPROBS];

		if (i > 0)
			appendStringInfoString(json, ", ");
		append_token_logprob(json, completion, result->token_ids[i],
							 result->logprobs[i], buf);
		appendStringInfoString(json, ", \"top_logprobs\": [");
		for (uint32 j = 0; j < result->n_top[i]; j++)
		{
			if (j > 0)
				appendStringInfoString(json, ", ");
			append_token_logprob(json, completion, top[j].token_id,
								 top[j].logprob, buf);
			appendStringInfoChar(json, '}');
		}
		appendStringInfoString(json, "]}");
	}
	appendStringInfoString(json, "]}");
}

/* The top tokens of one position as an object, as text completions do. */
static void
append_top_object(StringInfo json, const LlmCompletion *completion,
				  const LlmTopLogprob *top, uint32 n_top, LlmStrbuf *buf)
{
	appendStringInfoChar(json, '{');
	for (uint32 j = 0; j < n_top; j++)
	{
		token_text(completion, top[j].token_id, buf);
		if (j > 0)
			appendStringInfoString(json, ", ");
		llm_append_json_string(json, llm_strbuf_str(buf), buf->len);
		appendStringInfoString(json, ": ");
		append_logprob(json, top[j].logprob);
	}
	appendStringInfoChar(json, '}');
}

/* What a list of tokens with log-probabilities is made of. */
typedef struct TokenRun
{
	uint32 n_tokens;
	const int32 *ids;
	const float4 *logprobs;
	const uint32 *n_top;
	const LlmTopLogprob *top;
	bool has_first; /* before them: the prompt's first, which nothing weighs */
	int32 first_id;
} TokenRun;

static TokenRun
answer_run(const LlmGeneration *generation)
{
	const LlmRequestResult *result = generation->result;

	return (TokenRun){ .n_tokens = generation->n_tokens,
					   .ids = result->token_ids,
					   .logprobs = result->logprobs,
					   .n_top = result->n_top,
					   .top = result->top };
}

static TokenRun
prompt_run(const LlmCompletion *completion)
{
	const LlmRequestResult *scores = completion->scores;
	TokenRun run = { .has_first = completion->prompt.n_ids > 0 };

	if (run.has_first)
		run.first_id = completion->prompt.ids[0];
	if (scores != NULL)
	{
		run.n_tokens = scores->n_tokens;
		run.ids = scores->token_ids;
		run.logprobs = scores->logprobs;
		run.n_top = scores->n_top;
		run.top = scores->top;
	}
	return run;
}

typedef enum TokenPart
{
	PART_TOKENS,
	PART_LOGPROBS,
	PART_TOP
} TokenPart;

/* One of the arrays of a text completion's logprobs, from one run. */
static void
append_part(StringInfo json, const LlmCompletion *completion,
			const TokenRun *run, TokenPart part, LlmStrbuf *buf)
{
	uint32 n_wanted = (uint32) completion->options.params.n_logprobs;

	for (uint32 i = 0; i < run->n_tokens + run->has_first; i++)
	{
		bool is_first = run->has_first && i == 0;
		uint32 at = i - run->has_first;

		/* the array was opened, or has elements */
		if (json->data[json->len - 1] != '[')
			appendStringInfoString(json, ", ");
		if (part == PART_TOKENS)
		{
			token_text(completion, is_first ? run->first_id : run->ids[at],
					   buf);
			llm_append_json_string(json, llm_strbuf_str(buf), buf->len);
		}
		else if (is_first)
			appendStringInfoString(json, "null");
		else if (part == PART_LOGPROBS)
			append_logprob(json, run->logprobs[at]);
		else
			append_top_object(json, completion,
							  &run->top[(Size) at * LLM_MAX_LOGPROBS],
							  Min(run->n_top[at], n_wanted), buf);
	}
}

void
llm_completion_text_logprobs(StringInfo json, const LlmCompletion *completion,
							 const LlmGeneration *generation, LlmStrbuf *buf)
{
	static const char *const names[] = { "{\"tokens\": [",
										 "], \"token_logprobs\": [",
										 "], \"top_logprobs\": [" };
	TokenRun prompt = prompt_run(completion);
	TokenRun answer = answer_run(generation);

	for (int part = PART_TOKENS; part <= PART_TOP; part++)
	{
		appendStringInfoString(json, names[part]);
		if (completion->options.echo)
			append_part(json, completion, &prompt, (TokenPart) part, buf);
		append_part(json, completion, &answer, (TokenPart) part, buf);
	}
	appendStringInfoString(json, "]}");
}

/* "id": {"logprob": ..., "rank": ..., "decoded_token": ...} */
static void
append_ranked(StringInfo json, const LlmCompletion *completion,
			  const LlmTopLogprob *token, uint32 rank, LlmStrbuf *buf)
{
	token_text(completion, token->token_id, buf);
	appendStringInfo(json, "\"%d\": {\"logprob\": ", token->token_id);
	append_logprob(json, token->logprob);
	if (rank > 0)
		appendStringInfo(json, ", \"rank\": %u", rank);
	else
		appendStringInfoString(json, ", \"rank\": null");
	appendStringInfoString(json, ", \"decoded_token\": ");
	llm_append_json_string(json, llm_strbuf_str(buf), buf->len);
	appendStringInfoChar(json, '}');
}

/*
 * The prompt's tokens as vLLM shows them: of each position the likeliest, and
 * the prompt's own, whose rank is not known where it is not among them.
 */
void
llm_completion_prompt_logprobs(StringInfo json, const LlmCompletion *completion,
							   LlmStrbuf *buf)
{
	TokenRun run = prompt_run(completion);
	uint32 n_wanted = (uint32) completion->options.n_prompt_logprobs;

	appendStringInfoString(json, ", \"prompt_logprobs\": [null");
	for (uint32 i = 0; i < run.n_tokens; i++)
	{
		const LlmTopLogprob *top = &run.top[(Size) i * LLM_MAX_LOGPROBS];
		LlmTopLogprob own = { run.ids[i], run.logprobs[i] };
		uint32 own_rank = 0;

		for (uint32 j = 0; j < run.n_top[i]; j++)
			if (top[j].token_id == own.token_id)
				own_rank = j + 1;
		appendStringInfoString(json, ", {");
		append_ranked(json, completion, &own, own_rank, buf);
		for (uint32 j = 0; j < Min(run.n_top[i], n_wanted); j++)
		{
			if (top[j].token_id == own.token_id)
				continue;
			appendStringInfoString(json, ", ");
			append_ranked(json, completion, &top[j], j + 1, buf);
		}
		appendStringInfoChar(json, '}');
	}
	appendStringInfoChar(json, ']');
}

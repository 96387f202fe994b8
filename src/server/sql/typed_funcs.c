/*
 * typed_funcs.c
 *	  llm_classify, llm_filter, llm_score: one word of a few as the answer.
 *
 * src/server/sql/typed_funcs.c
 */
#include "postgres.h"

#include <math.h>

#include "src/server/pg_compat.h"
#include "src/server/sql/text_convert.h"
#include "src/server/sql/typed_call.h"

#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(llm_classify);
PG_FUNCTION_INFO_V1(llm_filter);
PG_FUNCTION_INFO_V1(llm_score);

/* All here take two arguments of their own, then adapter and options. */
#define ADAPTER_ARG 2

static LlmTypedCall *
create_call(FunctionCallInfo fcinfo, Size size)
{
	LlmTypedCall *call = palloc0(size);

	llm_typed_call_read(call, fcinfo, ADAPTER_ARG);
	return call;
}

/* -- llm_classify -- */

typedef struct ClassifyCall
{
	LlmTypedCall typed; /* must be first */
	LlmLabels labels;
} ClassifyCall;

static LlmBatchCall *
start_classify(FunctionCallInfo fcinfo, bool is_batch)
{
	ClassifyCall *call;
	LlmTypedPrompt prompt;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		return NULL;
	call = (ClassifyCall *) create_call(fcinfo, sizeof(*call));
	llm_labels_argument(fcinfo, 1, &call->labels);
	call->typed.options.format = llm_answer_format_choice(
		call->labels.texts, call->labels.n_labels, "a label");
	prompt = llm_prompt_classify(llm_text_argument(fcinfo, 0),
								 call->labels.texts, call->labels.n_labels);
	llm_typed_call_submit(&call->typed, &prompt, is_batch);
	return &call->typed.batch;
}

static Datum
finish_classify(LlmBatchCall *batch, bool *isnull)
{
	ClassifyCall *call = (ClassifyCall *) batch;
	LlmTemplateText answer;

	*isnull = true;
	if (!llm_typed_call_answer(&call->typed, &answer))
		return (Datum) 0;
	for (int i = 0; i < call->labels.n_labels; i++)
	{
		const LlmTemplateText *label = &call->labels.texts[i];
		const text *value = call->labels.values[i];

		if (label->len != answer.len ||
			memcmp(label->data, answer.data, answer.len) != 0)
			continue;
		*isnull = false;
		return PointerGetDatum(cstring_to_text_with_len(
			VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value)));
	}
	llm_error_set(&batch->err, LLM_ERROR_INTERNAL,
				  "the answer \"%.*s\" is none of the labels",
				  (int) Min(answer.len, 100), answer.data);
	return (Datum) 0;
}

const LlmBatchOps llm_classify_ops = { "llm_classify", llm_classify,
									   start_classify, llm_typed_call_advance,
									   finish_classify };

Datum
llm_classify(PG_FUNCTION_ARGS)
{
	return llm_batch_run(fcinfo, &llm_classify_ops);
}

/* -- llm_filter and llm_score: a condition, and how sure that it holds -- */

static const char *const words[] = { "no", "yes" };

static LlmBatchCall *
start_condition(FunctionCallInfo fcinfo, LlmTypedCall *call, bool is_batch)
{
	LlmTemplateText texts[lengthof(words)];
	LlmTypedPrompt prompt;

	for (int i = 0; i < lengthof(words); i++)
	{
		texts[i].data = words[i];
		texts[i].len = strlen(words[i]);
	}
	call->options.format =
		llm_answer_format_choice(texts, lengthof(words), "an answer");
	prompt = llm_prompt_filter(llm_text_argument(fcinfo, 1),
							   llm_text_argument(fcinfo, 0));
	llm_typed_call_submit(call, &prompt, is_batch);
	return &call->batch;
}

static LlmBatchCall *
start_filter(FunctionCallInfo fcinfo, bool is_batch)
{
	LlmTypedCall *call;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		return NULL;
	call = create_call(fcinfo, sizeof(*call));
	/* what is not known is not true: NULL, unless errors are asked for */
	if (!call->options.has_on_error)
		call->batch.null_on_error = true;
	return start_condition(fcinfo, call, is_batch);
}

static bool
is_yes(LlmTemplateText answer)
{
	return answer.len == 3 && memcmp(answer.data, "yes", 3) == 0;
}

static Datum
finish_filter(LlmBatchCall *batch, bool *isnull)
{
	LlmTemplateText answer;

	*isnull = !llm_typed_call_answer((LlmTypedCall *) batch, &answer);
	return BoolGetDatum(!*isnull && is_yes(answer));
}

const LlmBatchOps llm_filter_ops = { "llm_filter", llm_filter, start_filter,
									 llm_typed_call_advance, finish_filter };

Datum
llm_filter(PG_FUNCTION_ARGS)
{
	return llm_batch_run(fcinfo, &llm_filter_ops);
}

static LlmBatchCall *
start_score(FunctionCallInfo fcinfo, bool is_batch)
{
	LlmTypedCall *call;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		return NULL;
	call = create_call(fcinfo, sizeof(*call));
	call->options.params.n_logprobs = LLM_MAX_LOGPROBS;
	return start_condition(fcinfo, call, is_batch);
}

/* The word that an answer becomes whose first token this is; -1: neither. */
static int
word_of_token(const LlmTypedCall *call, int32 token_id)
{
	LlmStrbuf bytes = { 0 };
	LlmError err;
	int word = -1;

	if (llm_tokenizer_token_bytes(call->generation->handle->tokenizer, token_id,
								  &bytes, &err) &&
		bytes.len > 0)
	{
		for (int i = 0; i < lengthof(words); i++)
			if (strncmp(words[i], llm_strbuf_str(&bytes), bytes.len) == 0)
				word = i;
	}
	llm_strbuf_free(&bytes);
	return word;
}

/*
 * The probability of "yes" against that of "no", as far as the likeliest
 * tokens are theirs: which word it will be is decided by the first token.
 */
static Datum
finish_score(LlmBatchCall *batch, bool *isnull)
{
	LlmTypedCall *call = (LlmTypedCall *) batch;
	const LlmRequestResult *result = call->generation->result;
	double likeliest = 0; /* log-probability of the first that is found */
	double weights[lengthof(words)] = { 0 };
	LlmTemplateText answer;

	*isnull = !llm_typed_call_answer(call, &answer);
	if (*isnull)
		return (Datum) 0;
	for (uint32 i = 0; i < result->n_top[0]; i++)
	{
		int word = word_of_token(call, result->top[i].token_id);

		if (word < 0)
			continue;
		/* in descending order: the first weighs 1, none more */
		if (weights[0] + weights[1] == 0)
			likeliest = result->top[i].logprob;
		weights[word] += exp(result->top[i].logprob - likeliest);
	}
	/* neither is likely at all: the answer has to do */
	if (weights[0] + weights[1] == 0)
		return Float8GetDatum(is_yes(answer) ? 1 : 0);
	return Float8GetDatum(weights[1] / (weights[0] + weights[1]));
}

const LlmBatchOps llm_score_ops = { "llm_score", llm_score, start_score,
									llm_typed_call_advance, finish_score };

Datum
llm_score(PG_FUNCTION_ARGS)
{
	return llm_batch_run(fcinfo, &llm_score_ops);
}

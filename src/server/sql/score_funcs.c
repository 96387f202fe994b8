/*
 * score_funcs.c
 *	  llm_classify_probabilities: how probable each label is as the answer.
 *
 * Nothing is generated.  Each label is one request that asks for the
 * log-probabilities of its own tokens behind the prompt; the executor computes
 * the prompt once, since all share it.
 *
 * Prompt and label are tokenized as one text, because a label's first
 * characters may share a token with the prompt's last ones.  Labels are then
 * compared from the first position on at which any of them, or the prompt by
 * itself, differs: tokens in front of it are the same for all, so that the
 * sums are log-probabilities of complete texts given the same tokens.
 *
 * src/server/sql/score_funcs.c
 */
#include "postgres.h"

#include <math.h>

#include "src/common/util/json.h"
#include "src/server/report.h"
#include "src/server/settings.h"
#include "src/server/sql/adapter_choice.h"
#include "src/server/sql/generation.h"
#include "src/server/sql/text_convert.h"
#include "src/server/sql/token_limits.h"
#include "src/server/sql/typed_call.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"

enum
{
	ARG_INPUT = 0,
	ARG_LABELS,
	ARG_ADAPTER,
	ARG_OPTIONS
};

typedef struct ScoreOptions
{
	LlmGenerateOptions common;
	bool per_token; /* the mean of log-probabilities, not the sum */
	bool score_end; /* the token that ends an answer counts, too */
} ScoreOptions;

typedef struct ScoreCall
{
	LlmBatchCall batch;
	ScoreOptions options;
	LlmTemplateText input;
	LlmLabels labels;
	LlmPrompt *prompts; /* [n_labels], each with its label */
	uint32 n_shared;	/* tokens in front of the scored ones */
	LlmAdapterChoice adapter;
	LlmRequest **requests;
	const LlmRequestResult **results;
} ScoreCall;

PG_FUNCTION_INFO_V1(llm_classify_probabilities);

/* -- arguments -- */

static bool
read_flag(LlmTemplateText options, const char *key)
{
	LlmTemplateText value = llm_json_member(options, key);

	if (value.data == NULL)
		return false;
	if (value.len == 4 && memcmp(value.data, "true", 4) == 0)
		return true;
	if (value.len != 5 || memcmp(value.data, "false", 5) != 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("option \"%s\" must be true or false", key)));
	return false;
}

static void
read_options(FunctionCallInfo fcinfo, ScoreOptions *options)
{
	static const char *const own_keys[] = { "length_normalization", "score_end",
											NULL };
	LlmTemplateText json = { NULL, 0 };

	if (!PG_ARGISNULL(ARG_OPTIONS))
		json = llm_json_text(PG_GETARG_DATUM(ARG_OPTIONS), JSONBOID);
	llm_generate_options_parse_plain(json, own_keys, &options->common);
	llm_typed_answer_at_once(&options->common);
	if (!PG_ARGISNULL(ARG_ADAPTER))
		options->common.adapter =
			text_to_cstring(PG_GETARG_TEXT_PP(ARG_ADAPTER));
	if (json.data == NULL)
		return;
	options->per_token = read_flag(json, own_keys[0]);
	options->score_end = read_flag(json, own_keys[1]);
}

static void
check_label(const LlmTemplateText *labels, int idx)
{
	if (labels[idx].len == 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("a label must not be empty")));
	for (int i = 0; i < idx; i++)
		if (labels[i].len == labels[idx].len &&
			memcmp(labels[i].data, labels[idx].data, labels[idx].len) == 0)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("label \"%.*s\" comes twice",
								   (int) Min(labels[idx].len, 100),
								   labels[idx].data)));
}

/* -- prompts -- */

static uint32
common_length(const LlmPrompt *a, const LlmPrompt *b)
{
	uint32 n = 0;

	while (n < a->n_ids && n < b->n_ids && a->ids[n] == b->ids[n])
		n++;
	return n;
}

static bool
append_end(ScoreCall *call, const LlmModelHandle *handle, LlmPrompt *prompt)
{
	if (!call->options.score_end)
		return true;
	if (handle->facts->n_stop_ids == 0)
		return llm_error_set(&call->batch.err, LLM_ERROR_INVALID,
							 "option \"score_end\" needs a model with an "
							 "end-of-text token");
	prompt->ids =
		repalloc_huge(prompt->ids, ((Size) prompt->n_ids + 1) * sizeof(int32));
	prompt->ids[prompt->n_ids++] = handle->facts->stop_ids[0];
	return true;
}

static bool
encode_labels(ScoreCall *call, LlmModelHandle *handle, LlmTemplateText rendered)
{
	LlmError *err = &call->batch.err;
	bool add_special = call->options.common.add_special_tokens;
	LlmPrompt alone = { 0 };
	StringInfoData whole;

	if (!llm_prompt_from_text(handle, rendered, add_special, &alone, err))
		return false;
	call->n_shared = alone.n_ids;
	initStringInfo(&whole);
	for (int i = 0; i < call->labels.n_labels; i++)
	{
		LlmPrompt *prompt = &call->prompts[i];
		LlmTemplateText text;
		uint32 n_common;

		resetStringInfo(&whole);
		appendBinaryStringInfo(&whole, rendered.data, (int) rendered.len);
		appendBinaryStringInfo(&whole, call->labels.texts[i].data,
							   (int) call->labels.texts[i].len);
		text.data = whole.data;
		text.len = (size_t) whole.len;
		if (!llm_prompt_from_text(handle, text, add_special, prompt, err))
			return false;
		/* one token at least is the label's own */
		n_common = Min(common_length(&alone, prompt), prompt->n_ids - 1);
		call->n_shared = Min(call->n_shared, n_common);
		if (!append_end(call, handle, prompt) ||
			!llm_prompt_check_length(handle, prompt, err))
			return false;
	}
	if (call->n_shared == 0)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "the prompt has no token before the label");
	return true;
}

/* Some templates refuse a system message. */
static bool
render(const ScoreCall *call, LlmModelHandle *handle, LlmStrbuf *rendered,
	   LlmError *err)
{
	LlmTypedPrompt prompt = llm_prompt_classify(call->input, call->labels.texts,
												call->labels.n_labels);
	LlmPromptMessages messages = llm_prompt_messages(&prompt, true);
	const LlmGenerateOptions *options = &call->options.common;

	if (llm_prompt_render(handle, options, &messages, rendered, err))
		return true;
	if (err->code != LLM_ERROR_TEMPLATE)
		return false;
	llm_strbuf_reset(rendered);
	messages = llm_prompt_messages(&prompt, false);
	if (!llm_prompt_render(handle, options, &messages, rendered, err))
		return false;
	llm_error_clear(err);
	return true;
}

static bool
make_prompts(ScoreCall *call, LlmModelHandle *handle)
{
	LlmStrbuf rendered;
	bool ok;

	llm_strbuf_init(&rendered);
	PG_TRY();
	{
		ok = render(call, handle, &rendered, &call->batch.err);
		if (ok)
		{
			LlmTemplateText text = { llm_strbuf_str(&rendered), rendered.len };

			ok = encode_labels(call, handle, text);
		}
	}
	PG_FINALLY();
	{
		llm_strbuf_free(&rendered);
	}
	PG_END_TRY();
	return ok;
}

/* -- requests -- */

static LlmRequest *
submit(const ScoreCall *call, const LlmModelHandle *handle,
	   const LlmPrompt *prompt)
{
	const LlmGenerateOptions *options = &call->options.common;
	LlmRequestSpec spec = {
		.kind = LLM_REQUEST_SCORE,
		.n_scored = prompt->n_ids - call->n_shared,
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

	memcpy(spec.adapter, call->adapter.version.digest, sizeof(spec.adapter));
	spec.params.n_logprobs = 0;
	spec.params.max_tokens = spec.n_scored;
	return llm_request_submit(&spec);
}

/* False: the model was replaced meanwhile. */
static bool
submit_all(ScoreCall *call, LlmModelHandle *handle)
{
	const LlmGenerateOptions *options = &call->options.common;

	llm_token_limits_check();
	/* by what all labels share: one adapter for all */
	llm_adapter_choose(options->adapter, options->user, call->prompts[0].ids,
					   call->n_shared, handle, &call->adapter);
	for (int i = 0; i < call->labels.n_labels; i++)
	{
		call->requests[i] = submit(call, handle, &call->prompts[i]);
		if (call->requests[i] == NULL)
		{
			while (--i >= 0)
				llm_request_release(call->requests[i]);
			return false;
		}
		call->batch.n_prompt_tokens += call->prompts[i].n_ids;
	}
	call->batch.n_requests = (uint32) call->labels.n_labels;
	return true;
}

static LlmBatchCall *
start_scores(FunctionCallInfo fcinfo, bool is_batch)
{
	ScoreCall *call;
	LlmModelHandle *handle;

	if (PG_ARGISNULL(ARG_INPUT) || PG_ARGISNULL(ARG_LABELS))
		return NULL;
	call = palloc0(sizeof(ScoreCall));
	read_options(fcinfo, &call->options);
	llm_labels_argument(fcinfo, ARG_LABELS, &call->labels);
	for (int i = 0; i < call->labels.n_labels; i++)
		check_label(call->labels.texts, i);
	call->input = llm_text_argument(fcinfo, ARG_INPUT);
	if (!call->options.common.has_class)
		call->options.common.is_batch = is_batch;
	call->prompts = palloc0(sizeof(LlmPrompt) * call->labels.n_labels);
	call->requests = palloc0(sizeof(LlmRequest *) * call->labels.n_labels);
	call->results = palloc0(sizeof(LlmRequestResult *) * call->labels.n_labels);
	call->batch.is_repeatable = true;
	call->batch.null_on_error = call->options.common.null_on_error;
	do
	{
		call->batch.n_prompt_tokens = 0;
		handle = llm_model_handle_get(call->options.common.model);
		if (!make_prompts(call, handle))
			break;
	} while (!submit_all(call, handle));
	return &call->batch;
}

static bool
advance_scores(LlmBatchCall *batch)
{
	ScoreCall *call = (ScoreCall *) batch;
	bool is_done = true;

	for (int i = 0; i < call->labels.n_labels; i++)
	{
		call->results[i] = llm_request_poll(call->requests[i]);
		if (call->results[i]->error != NULL)
		{
			batch->err = *call->results[i]->error;
			return true;
		}
		is_done = is_done && call->results[i]->is_finished;
	}
	return is_done;
}

/* The label's log-probability, or its mean over tokens. */
static double
score_of(const ScoreCall *call, int label_idx)
{
	const LlmRequestResult *result = call->results[label_idx];
	double sum = 0;

	for (uint32 i = 0; i < result->n_tokens; i++)
		sum += (double) result->logprobs[i];
	return call->options.per_token ? sum / result->n_tokens : sum;
}

static Datum
finish_scores(LlmBatchCall *batch, bool *isnull)
{
	const ScoreCall *call = (const ScoreCall *) batch;
	Datum *probabilities = palloc(sizeof(Datum) * call->labels.n_labels);
	double best = -INFINITY;
	double total = 0;

	*isnull = false;
	for (int i = 0; i < call->labels.n_labels; i++)
	{
		batch->n_cached_tokens += call->results[i]->n_cached;
		best = Max(best, score_of(call, i));
	}
	if (!isfinite(best))
	{
		llm_error_set(&batch->err, LLM_ERROR_INVALID,
					  "no label has a probability: the logits are not finite");
		return (Datum) 0;
	}
	for (int i = 0; i < call->labels.n_labels; i++)
		total += exp(score_of(call, i) - best);
	for (int i = 0; i < call->labels.n_labels; i++)
		probabilities[i] =
			Float8GetDatum(exp(score_of(call, i) - best) / total);
	return PointerGetDatum(construct_array(probabilities, call->labels.n_labels,
										   FLOAT8OID, sizeof(float8),
										   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

const LlmBatchOps llm_classify_probabilities_ops = {
	"llm_classify_probabilities", llm_classify_probabilities, start_scores,
	advance_scores, finish_scores
};

/*
 * llm_classify_probabilities(input text, labels text[], adapter text,
 * options jsonb) → double precision[]
 */
Datum
llm_classify_probabilities(PG_FUNCTION_ARGS)
{
	return llm_batch_run(fcinfo, &llm_classify_probabilities_ops);
}

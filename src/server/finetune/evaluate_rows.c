/*
 * evaluate_rows.c
 *	  Requests of many rows side by side, their results in the rows' order.
 *
 * A row asks for the log-probabilities of its labels, as a request that
 * generates nothing, and perhaps for an answer to the tokens in front of its
 * last labels.  All of a row is in a memory context of its own, which gives
 * its requests up wherever the evaluation ends.
 *
 * src/server/finetune/evaluate_rows.c
 */
#include "src/server/finetune/evaluate.h"

#include "nodes/pg_list.h"
#include "src/server/report.h"
#include "src/server/settings.h"
#include "src/server/sql/text_convert.h"
#include "src/server/sql/token_limits.h"
#include "utils/memutils.h"

/* An answer that does not end is cut where the caller says nothing. */
#define DEFAULT_ANSWER_TOKENS 512

typedef struct ScoredExample
{
	LlmRequest *request;
	uint32 n_scored;	   /* the last ones of its tokens ... */
	const uint8 *is_label; /* [n_scored] ... of which these count */
} ScoredExample;

typedef struct PendingRow
{
	MemoryContext context;
	LlmEvaluatedRow row;
	ScoredExample first;
	ScoredExample second; /* of pairs */
	LlmGenerateOptions generate;
	LlmGeneration *generation; /* NULL: no answer is wanted */
} PendingRow;

typedef struct Evaluation
{
	MemoryContext context;
	const LlmEvaluateOptions *options;
	LlmModelHandle *handle;
	const char *adapter; /* one version, or "" */
	uint64 cache_salt;
	List *pending; /* of PendingRow, the oldest first */
	LlmEvaluatedSink sink;
	void *sink_arg;
} Evaluation;

static void __attribute__((noreturn))
fail_replaced(const Evaluation *evaluation)
{
	ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					errmsg("model \"%s\" was replaced during the evaluation",
						   evaluation->handle->info.name),
					errhint("Evaluate again.")));
	pg_unreachable();
}

static void finish_oldest(Evaluation *evaluation);

/* Slots are ours until their rows are finished: never wait for our own. */
static void
make_room(Evaluation *evaluation)
{
	while (evaluation->pending != NIL && !llm_request_has_room())
		finish_oldest(evaluation);
	llm_token_limits_check();
}

/* -- the log-probabilities of an example's labels -- */

static bool
submit_example(Evaluation *evaluation, const LlmExample *example,
			   ScoredExample *scored, LlmError *err)
{
	LlmPrompt prompt = { (int32 *) example->token_ids,
						 (uint32) example->n_tokens };
	LlmAdapterChoice choice;
	LlmRequestSpec spec = {
		.kind = LLM_REQUEST_SCORE,
		.model_idx = evaluation->handle->info.model_idx,
		.model_generation = evaluation->handle->info.generation,
		.prompt_ids = example->token_ids,
		.n_prompt = (uint32) example->n_tokens,
		.params = llm_sampling_params_default(),
		.is_batch = true,
		.timeout_ms = llm_setting_request_timeout_ms,
	};
	uint8 *is_label;
	uint32 first = 0;

	if (!llm_prompt_check_length(evaluation->handle, &prompt, err))
		return false;
	while (!example->is_label[first])
		first++;
	Assert(first > 0);
	scored->n_scored = spec.n_prompt - first;
	is_label = palloc(scored->n_scored);
	memcpy(is_label, example->is_label + first, scored->n_scored);
	scored->is_label = is_label;
	spec.n_scored = scored->n_scored;
	spec.params.n_logprobs = 0;
	spec.params.max_tokens = spec.n_scored;
	make_room(evaluation);
	llm_adapter_choose(evaluation->adapter, NULL, spec.prompt_ids,
					   spec.n_prompt, evaluation->handle, &choice);
	memcpy(spec.adapter, choice.version.digest, sizeof(spec.adapter));
	scored->request = llm_request_submit(&spec);
	if (scored->request == NULL)
		fail_replaced(evaluation);
	return true;
}

static bool
finish_example(const ScoredExample *scored, double *log_prob, LlmError *err)
{
	const LlmRequestResult *result;

	do
	{
		result = llm_request_wait(scored->request);
		if (result->error != NULL)
		{
			*err = *result->error;
			return false;
		}
	} while (!result->is_finished);
	*log_prob = 0;
	for (uint32 i = 0; i < scored->n_scored; i++)
		if (scored->is_label[i])
			*log_prob += (double) result->logprobs[i];
	llm_request_release(scored->request);
	return true;
}

/* -- an answer to what is in front of the last labels -- */

/* What the labels from first on say, without the token that ends them. */
static text *
expected_text(const Evaluation *evaluation, const LlmExample *example,
			  int32 first, int32 end)
{
	const LlmModelImageFacts *facts = evaluation->handle->facts;

	for (int i = 0; i < facts->n_stop_ids; i++)
	{
		if (example->token_ids[end - 1] != facts->stop_ids[i])
			continue;
		end--;
		break;
	}
	return llm_tokens_to_text(evaluation->handle, example->token_ids + first,
							  end - first, true);
}

static bool
start_answer(Evaluation *evaluation, const LlmExample *example,
			 PendingRow *pending)
{
	LlmModelHandle *handle = evaluation->handle;
	int32 end = example->n_tokens;
	int32 first;
	LlmPrompt prompt;

	while (!example->is_label[end - 1])
		end--;
	first = end - 1;
	while (example->is_label[first - 1])
		first--;
	pending->row.expected = expected_text(evaluation, example, first, end);
	prompt.ids = (int32 *) example->token_ids;
	prompt.n_ids = (uint32) first;
	pending->generate = evaluation->options->generate;
	pending->generate.adapter = (char *) evaluation->adapter;
	if (!llm_generate_options_complete(
			&pending->generate, &handle->facts->defaults, prompt.n_ids,
			handle->info.max_model_len, DEFAULT_ANSWER_TOKENS,
			&pending->row.err))
		return false;
	make_room(evaluation);
	pending->generation = llm_generation_start(
		handle, &pending->generate, &prompt, pending->generate.params.seed);
	if (pending->generation == NULL)
		fail_replaced(evaluation);
	return true;
}

static bool
finish_answer(PendingRow *pending)
{
	LlmGeneration *generation = pending->generation;
	LlmError *err = &pending->row.err;

	if (!llm_generation_complete(generation, err))
		return false;
	pending->row.answer = llm_text_try_from_utf8(
		llm_strbuf_str(&generation->text), generation->text.len, err);
	return pending->row.answer != NULL;
}

/* -- rows -- */

/* A name means one version as long as the evaluation runs. */
static void
fix_adapter(Evaluation *evaluation, const char *adapter)
{
	LlmAdapterChoice choice;

	llm_adapter_choose(adapter, "", NULL, 0, evaluation->handle, &choice);
	evaluation->adapter =
		choice.is_base
			? ""
			: psprintf("%s@%d", choice.version.name, choice.version.version);
}

static bool
start_row(Evaluation *evaluation, const LlmQueryRow *source,
		  PendingRow *pending)
{
	LlmEvaluatedRow *row = &pending->row;

	if (!llm_query_row_is_good(source))
	{
		row->err = *source->err;
		return false;
	}
	row->is_pair = source->kind == LLM_DATASET_PAIRS;
	row->n_labels = llm_example_n_labels(&source->row.first);
	if (!submit_example(evaluation, &source->row.first, &pending->first,
						&row->err) ||
		(row->is_pair && !submit_example(evaluation, &source->row.second,
										 &pending->second, &row->err)))
		return false;
	/* what is not desirable is no answer to compare with */
	if (evaluation->options->score == LLM_SCORE_NONE ||
		(source->kind == LLM_DATASET_SINGLES && !source->row.is_desirable))
		return true;
	return start_answer(evaluation, &source->row.first, pending);
}

static bool
finish_requests(PendingRow *pending)
{
	LlmEvaluatedRow *row = &pending->row;

	return finish_example(&pending->first, &row->log_prob, &row->err) &&
		   (!row->is_pair ||
			finish_example(&pending->second, &row->rejected_log_prob,
						   &row->err)) &&
		   (pending->generation == NULL || finish_answer(pending));
}

static void
finish_oldest(Evaluation *evaluation)
{
	PendingRow *pending = linitial(evaluation->pending);
	MemoryContext caller = MemoryContextSwitchTo(pending->context);

	if (pending->row.err.code == LLM_OK)
		(void) finish_requests(pending);
	evaluation->sink(evaluation->sink_arg, &pending->row);
	MemoryContextSwitchTo(caller);
	evaluation->pending = list_delete_first(evaluation->pending);
	MemoryContextDelete(pending->context);
}

static bool
take_row(void *arg, const LlmQueryRow *source)
{
	Evaluation *evaluation = arg;
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(
		evaluation->context, "llm_ext evaluated row", ALLOCSET_SMALL_SIZES);
	PendingRow *pending;

	MemoryContextSwitchTo(context);
	pending = palloc0(sizeof(PendingRow));
	pending->context = context;
	pending->row.row_number = source->row_number;
	if (source->key != NULL)
		pending->row.key = pstrdup(source->key);
	if (!start_row(evaluation, source, pending))
		Assert(pending->row.err.code != LLM_OK);
	MemoryContextSwitchTo(evaluation->context);
	evaluation->pending = lappend(evaluation->pending, pending);
	while (list_length(evaluation->pending) >= llm_setting_batch_rows)
		finish_oldest(evaluation);
	MemoryContextSwitchTo(caller);
	return true;
}

void
llm_evaluate_query(const char *adapter, const char *query,
				   const LlmEvaluateOptions *options, LlmEvaluatedSink sink,
				   void *arg)
{
	Evaluation evaluation = { .context = CurrentMemoryContext,
							  .options = options,
							  .sink = sink,
							  .sink_arg = arg };

	evaluation.handle = llm_model_handle_get(options->generate.model);
	llm_model_handle_pin(evaluation.handle);
	PG_TRY();
	{
		fix_adapter(&evaluation, adapter);
		llm_dataset_query_read(query, evaluation.handle, &options->dataset,
							   take_row, &evaluation);
		while (evaluation.pending != NIL)
			finish_oldest(&evaluation);
	}
	PG_FINALLY();
	{
		llm_model_handle_unpin(evaluation.handle);
	}
	PG_END_TRY();
}

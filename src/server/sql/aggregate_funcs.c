/*
 * aggregate_funcs.c
 *	  llm_agg: one answer to an instruction about any number of texts.
 *
 * Transition functions only gather the texts, so they run in parallel workers
 * as well; the model is asked when all are there.  Texts are packed, in their
 * order, into parts that fit the model's context (one that does not fit is
 * split), each part is answered, and the answers are texts again: as long as
 * there are several, they are packed and combined in the same way.  An answer
 * may be a fraction of the context only, so every level is shorter than the
 * one before.
 *
 * src/server/sql/aggregate_funcs.c
 */
#include "postgres.h"

#include "src/server/pg_compat.h"
#include "src/server/report.h"
#include "src/server/sql/text_convert.h"
#include "src/server/sql/typed_call.h"

#include "fmgr.h"
#include "libpq/pqformat.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(llm_agg_transition);
PG_FUNCTION_INFO_V1(llm_agg_combine);
PG_FUNCTION_INFO_V1(llm_agg_serialize);
PG_FUNCTION_INFO_V1(llm_agg_deserialize);
PG_FUNCTION_INFO_V1(llm_agg_final);

/* An answer's share of the context, and its limit. */
#define ANSWER_SHARE 8
#define MAX_ANSWER_TOKENS 1024

/* Parts that are answered at once. */
#define MAX_IN_FLIGHT 64

#define SEPARATOR "\n\n"

/* Texts in UTF-8, one allocation each. */
typedef struct TextList
{
	LlmTemplateText *items;
	int n_items;
	int capacity;
} TextList;

typedef struct AggregateState
{
	text *instruction; /* NULL: there was no row yet */
	TextList texts;
} AggregateState;

static void
add_text(TextList *list, const char *bytes, size_t len)
{
	char *copy = palloc(len + 1);

	if (list->n_items == list->capacity)
	{
		Size capacity = Max(list->capacity * 2, 64);

		list->items = list->items == NULL
						  ? palloc(capacity * sizeof(LlmTemplateText))
						  : repalloc_huge(list->items,
										  capacity * sizeof(LlmTemplateText));
		list->capacity = (int) capacity;
	}
	memcpy(copy, bytes, len);
	copy[len] = '\0';
	list->items[list->n_items].data = copy;
	list->items[list->n_items++].len = len;
}

/* -- gathering -- */

static MemoryContext
aggregate_context(FunctionCallInfo fcinfo)
{
	MemoryContext context;

	if (!AggCheckCallContext(fcinfo, &context))
		elog(ERROR, "a part of llm_agg was called by itself");
	return context;
}

static void
set_instruction(AggregateState *state, text *instruction)
{
	if (state->instruction == NULL)
		state->instruction = cstring_to_text_with_len(
			VARDATA_ANY(instruction), VARSIZE_ANY_EXHDR(instruction));
	else if (VARSIZE_ANY_EXHDR(state->instruction) !=
				 VARSIZE_ANY_EXHDR(instruction) ||
			 memcmp(VARDATA_ANY(state->instruction), VARDATA_ANY(instruction),
					VARSIZE_ANY_EXHDR(instruction)) != 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("llm_agg needs the same instruction in all "
							   "rows of a group"),
						errhint("Group by the instruction, too.")));
}

/* llm_agg_transition(internal, input text, instruction text) */
Datum
llm_agg_transition(PG_FUNCTION_ARGS)
{
	MemoryContext old = MemoryContextSwitchTo(aggregate_context(fcinfo));
	AggregateState *state = PG_ARGISNULL(0)
								? palloc0(sizeof(AggregateState))
								: (AggregateState *) PG_GETARG_POINTER(0);

	if (!PG_ARGISNULL(1) && !PG_ARGISNULL(2))
	{
		LlmTemplateText input = llm_text_argument(fcinfo, 1);

		set_instruction(state, PG_GETARG_TEXT_PP(2));
		if (input.len > 0)
			add_text(&state->texts, input.data, input.len);
	}
	MemoryContextSwitchTo(old);
	PG_RETURN_POINTER(state);
}

Datum
llm_agg_combine(PG_FUNCTION_ARGS)
{
	MemoryContext old = MemoryContextSwitchTo(aggregate_context(fcinfo));
	AggregateState *state = PG_ARGISNULL(0)
								? palloc0(sizeof(AggregateState))
								: (AggregateState *) PG_GETARG_POINTER(0);

	if (!PG_ARGISNULL(1))
	{
		const AggregateState *other = (AggregateState *) PG_GETARG_POINTER(1);

		if (other->instruction != NULL)
			set_instruction(state, other->instruction);
		for (int i = 0; i < other->texts.n_items; i++)
			add_text(&state->texts, other->texts.items[i].data,
					 other->texts.items[i].len);
	}
	MemoryContextSwitchTo(old);
	PG_RETURN_POINTER(state);
}

static void
send_bytes(StringInfo buf, const char *bytes, size_t len)
{
	pq_sendint32(buf, (int32) len);
	pq_sendbytes(buf, bytes, (int) len);
}

Datum
llm_agg_serialize(PG_FUNCTION_ARGS)
{
	const AggregateState *state = (AggregateState *) PG_GETARG_POINTER(0);
	StringInfoData buf;

	pq_begintypsend(&buf);
	pq_sendint32(&buf, state->instruction != NULL);
	if (state->instruction != NULL)
		send_bytes(&buf, VARDATA_ANY(state->instruction),
				   VARSIZE_ANY_EXHDR(state->instruction));
	pq_sendint32(&buf, state->texts.n_items);
	for (int i = 0; i < state->texts.n_items; i++)
		send_bytes(&buf, state->texts.items[i].data, state->texts.items[i].len);
	PG_RETURN_BYTEA_P(pq_endtypsend(&buf));
}

Datum
llm_agg_deserialize(PG_FUNCTION_ARGS)
{
	bytea *bytes = PG_GETARG_BYTEA_PP(0);
	AggregateState *state = palloc0(sizeof(AggregateState));
	StringInfoData buf;
	int n_texts;

	initStringInfo(&buf);
	appendBinaryStringInfo(&buf, VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));
	if (pq_getmsgint(&buf, 4) != 0)
	{
		int len = (int) pq_getmsgint(&buf, 4);

		state->instruction =
			cstring_to_text_with_len(pq_getmsgbytes(&buf, len), len);
	}
	n_texts = (int) pq_getmsgint(&buf, 4);
	for (int i = 0; i < n_texts; i++)
	{
		int len = (int) pq_getmsgint(&buf, 4);

		add_text(&state->texts, pq_getmsgbytes(&buf, len), len);
	}
	pq_getmsgend(&buf);
	PG_RETURN_POINTER(state);
}

/* -- answering -- */

typedef struct Reduction
{
	LlmTemplateText instruction;
	LlmModelHandle *handle;
	int32 answer_tokens; /* an answer's limit */
	int32 part_tokens;	 /* texts that fit one prompt */
} Reduction;

static void
fail(const LlmError *err)
{
	llm_report(ERROR, err);
}

/* How long the prompt is without texts decides how long these may be. */
static void
measure(Reduction *reduction)
{
	LlmTypedCall call = { 0 };
	LlmTemplateText nothing = { "", 0 };
	LlmTypedPrompt typed =
		llm_prompt_aggregate(nothing, reduction->instruction, true);
	int32 context;
	LlmPrompt prompt;
	LlmError err;

	reduction->handle = llm_model_handle_get(NULL);
	context = reduction->handle->info.max_model_len;
	llm_typed_call_init(&call);
	if (!llm_typed_call_prompt(&call, reduction->handle, &typed, &prompt, &err))
		fail(&err);
	reduction->answer_tokens =
		Max(Min(context / ANSWER_SHARE, MAX_ANSWER_TOKENS), 1);
	/* texts that are joined may have a few tokens more than each by itself */
	reduction->part_tokens =
		(context - reduction->answer_tokens - (int32) prompt.n_ids) / 17 * 16;
	if (reduction->part_tokens < 3 * reduction->answer_tokens)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("the model's context of %d tokens leaves too "
							   "little room beside an instruction of %u tokens",
							   context, prompt.n_ids)));
}

static int32
count_tokens(const Reduction *reduction, LlmTemplateText text)
{
	LlmIdbuf ids;
	LlmError err;
	int32 n;

	llm_idbuf_init(&ids);
	ids.limit = (size_t) reduction->part_tokens;
	if (!llm_prompt_encode(reduction->handle, text, false, &ids, &err))
	{
		if (err.code != LLM_ERROR_LIMIT)
			fail(&err);
		return PG_INT32_MAX;
	}
	n = (int32) ids.n_ids;
	llm_idbuf_free(&ids);
	return n;
}

/* Where to cut a text in two: behind a space near its middle. */
static size_t
middle_of(LlmTemplateText text)
{
	size_t middle = text.len / 2;

	for (size_t i = middle; i > middle - middle / 4; i--)
		if (text.data[i] == ' ' || text.data[i] == '\n')
			return i + 1;
	while (middle > 0 && ((unsigned char) text.data[middle] & 0xC0) == 0x80)
		middle--;
	return middle;
}

/* Texts on their way into parts. */
typedef struct Packer
{
	const Reduction *reduction;
	StringInfoData part;
	int32 n_tokens; /* of the part */
	TextList *parts;
} Packer;

static void
end_part(Packer *packer)
{
	if (packer->part.len > 0)
		add_text(packer->parts, packer->part.data, (size_t) packer->part.len);
	resetStringInfo(&packer->part);
	packer->n_tokens = 0;
}

static void
pack_text(Packer *packer, LlmTemplateText text)
{
	int32 limit = packer->reduction->part_tokens;
	int32 n_tokens = count_tokens(packer->reduction, text);

	CHECK_FOR_INTERRUPTS();
	if (n_tokens > limit && text.len > 1)
	{
		size_t middle = Max(middle_of(text), 1);
		LlmTemplateText first = { text.data, middle };
		LlmTemplateText rest = { text.data + middle, text.len - middle };

		pack_text(packer, first);
		pack_text(packer, rest);
		return;
	}
	if (packer->part.len > 0 && packer->n_tokens + n_tokens + 2 > limit)
		end_part(packer);
	if (packer->part.len > 0)
		appendStringInfoString(&packer->part, SEPARATOR);
	appendBinaryStringInfo(&packer->part, text.data, (int) text.len);
	packer->n_tokens += n_tokens + 2;
}

static TextList
pack(Reduction *reduction, const TextList *texts)
{
	TextList parts = { 0 };
	Packer packer = { .reduction = reduction, .parts = &parts };

	/* a model that was replaced meanwhile took its handle along */
	reduction->handle = llm_model_handle_get(NULL);
	initStringInfo(&packer.part);
	for (int i = 0; i < texts->n_items; i++)
		pack_text(&packer, texts->items[i]);
	end_part(&packer);
	return parts;
}

static LlmTypedCall *
start_part(const Reduction *reduction, LlmTemplateText part, bool are_answers)
{
	LlmTypedCall *call = palloc0(sizeof(LlmTypedCall));
	LlmTypedPrompt prompt =
		llm_prompt_aggregate(part, reduction->instruction, are_answers);

	llm_typed_call_init(call);
	call->options.params.max_tokens = (uint32) reduction->answer_tokens;
	call->options.has_max_tokens = true;
	llm_typed_call_submit(call, &prompt, true);
	if (call->generation == NULL)
		fail(&call->batch.err);
	return call;
}

/* Each part's answer, in their order; one cut at its limit is one, too. */
static TextList
answer_parts(const Reduction *reduction, const TextList *parts,
			 bool are_answers)
{
	TextList answers = { 0 };
	LlmTypedCall *calls[MAX_IN_FLIGHT];
	int n_started = 0;
	LlmError err;

	while (answers.n_items < parts->n_items)
	{
		LlmGeneration *generation;

		for (; n_started < parts->n_items &&
			   n_started < answers.n_items + MAX_IN_FLIGHT;
			 n_started++)
			calls[n_started % MAX_IN_FLIGHT] =
				start_part(reduction, parts->items[n_started], are_answers);
		generation = calls[answers.n_items % MAX_IN_FLIGHT]->generation;
		if (!llm_generation_complete(generation, &err))
			fail(&err);
		add_text(&answers, llm_strbuf_str(&generation->text),
				 generation->text.len);
		llm_generation_end(generation);
	}
	return answers;
}

static text *
reduce(const AggregateState *state)
{
	Reduction reduction = {
		.instruction = llm_text_to_utf8(state->instruction),
	};
	TextList texts = state->texts;
	bool are_answers = false;

	measure(&reduction);
	for (;;)
	{
		TextList parts = pack(&reduction, &texts);

		/* cannot be while an answer is shorter than half a part */
		if (are_answers && parts.n_items >= texts.n_items)
			elog(ERROR, "%d answers do not become fewer", texts.n_items);
		texts = answer_parts(&reduction, &parts, are_answers);
		if (texts.n_items == 1)
			return llm_text_from_utf8(texts.items[0].data, texts.items[0].len);
		are_answers = true;
	}
}

/* NULL where there was no text. */
Datum
llm_agg_final(PG_FUNCTION_ARGS)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext context;
	const AggregateState *state;
	text *answer;

	(void) aggregate_context(fcinfo);
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	state = (AggregateState *) PG_GETARG_POINTER(0);
	if (state->texts.n_items == 0)
		PG_RETURN_NULL();
	context =
		AllocSetContextCreate(caller, "llm aggregate", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(context);
	answer = reduce(state);
	MemoryContextSwitchTo(caller);
	answer = cstring_to_text_with_len(VARDATA_ANY(answer),
									  VARSIZE_ANY_EXHDR(answer));
	MemoryContextDelete(context);
	PG_RETURN_TEXT_P(answer);
}

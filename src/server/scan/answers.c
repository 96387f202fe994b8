/*
 * answers.c
 *	  Calls in flight, and what they brought; equal ones made once.
 *
 * A call lives in a memory context of its own until it is done; then only its
 * value is kept, until the last row that waits for it was emitted.  A call
 * that is repeatable is remembered by its arguments, and so is its answer, as
 * far as memory allows: rows that ask the same take it.  Arguments are equal
 * when they are the same bytes, out of line and compressed values expanded.
 *
 * src/server/scan/answers.c
 */
#include "postgres.h"

#include "src/server/scan/answers.h"

#include "common/hashfn.h"
#include "lib/ilist.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/datum.h"
#include "utils/memutils.h"

/* Longer arguments are not looked for. */
#define MAX_KEY_BYTES ((Size) 1024 * 1024)

struct LlmAnswer
{
	dlist_node node;	   /* in in_flight, until done */
	MemoryContext context; /* of the call, until done */
	const LlmBatchOps *ops;
	LlmBatchCall *call; /* until done, and longer where it failed */
	LlmValueType type;
	LlmAnswerCounts *counts; /* of the node that started it */
	int n_users;			 /* rows that wait for it */
	bool is_remembered;		 /* by_arguments has it */
	bool is_done;
	bool isnull;
	Datum value;
	Size n_bytes; /* of value */
	char *key;	  /* signature and arguments, while remembered */
	Size key_bytes;
};

/* by_arguments: an open hash table, its key being an answer's own. */
typedef struct Remembered
{
	LlmAnswer *answer;
	uint32 hash;
	char status;
} Remembered;

static inline bool
keys_are_equal(const LlmAnswer *a, const LlmAnswer *b)
{
	return a->key_bytes == b->key_bytes &&
		   memcmp(a->key, b->key, a->key_bytes) == 0;
}

#define SH_PREFIX remembered
#define SH_ELEMENT_TYPE Remembered
#define SH_KEY_TYPE LlmAnswer *
#define SH_KEY answer
#define SH_HASH_KEY(table, key) \
	hash_bytes((const unsigned char *) (key)->key, (int) (key)->key_bytes)
#define SH_EQUAL(table, a, b) keys_are_equal(a, b)
#define SH_STORE_HASH
#define SH_GET_HASH(table, element) (element)->hash
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

struct LlmAnswers
{
	dlist_node node;	   /* in statements */
	EState *estate;		   /* of the statement */
	MemoryContext context; /* of all below */
	MemoryContextCallback on_reset;
	dlist_head in_flight;
	Size n_bytes;			 /* of values that rows wait for */
	Size n_remembered_bytes; /* keys and values */
	remembered_hash *by_arguments;
	StringInfoData key; /* of the call that is looked for */
};

/* Statements of this process that have nodes of ours and are running. */
static dlist_head statements = DLIST_STATIC_INIT(statements);

static void
forget_statement(void *arg)
{
	dlist_delete(&((LlmAnswers *) arg)->node);
}

static LlmAnswers *
create_answers(EState *estate)
{
	MemoryContext context = AllocSetContextCreate(
		estate->es_query_cxt, "llm answers", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	LlmAnswers *answers = palloc0(sizeof(LlmAnswers));

	answers->estate = estate;
	answers->context = context;
	dlist_init(&answers->in_flight);
	answers->by_arguments = remembered_create(context, 64, NULL);
	initStringInfo(&answers->key);
	answers->on_reset.func = forget_statement;
	answers->on_reset.arg = answers;
	dlist_push_head(&statements, &answers->node);
	MemoryContextRegisterResetCallback(context, &answers->on_reset);
	MemoryContextSwitchTo(old);
	return answers;
}

LlmAnswers *
llm_answers_of(EState *estate)
{
	dlist_iter iter;

	dlist_foreach(iter, &statements)
	{
		LlmAnswers *answers = dlist_container(LlmAnswers, node, iter.cur);

		if (answers->estate == estate)
			return answers;
	}
	return create_answers(estate);
}

/* -- remembering -- */

/* Append an argument's bytes; false: there are too many. */
static bool
append_value(StringInfo key, Datum value, LlmValueType type)
{
	struct varlena *plain;
	Size n_bytes;
	char *bytes;

	if (type.is_by_value)
	{
		appendBinaryStringInfo(key, (char *) &value, sizeof(value));
		return true;
	}
	if (type.len == -1)
	{
		/* a header may have one byte or four */
		plain = PG_DETOAST_DATUM_PACKED(value);
		n_bytes = VARSIZE_ANY_EXHDR(plain);
		bytes = VARDATA_ANY(plain);
	}
	else
	{
		n_bytes = datumGetSize(value, false, type.len);
		bytes = DatumGetPointer(value);
	}
	if (n_bytes > MAX_KEY_BYTES)
		return false;
	appendBinaryStringInfo(key, (char *) &n_bytes, sizeof(n_bytes));
	appendBinaryStringInfo(key, bytes, (int) n_bytes);
	return true;
}

/* False: the arguments are too large to be remembered. */
static bool
make_key(LlmAnswers *answers, LlmCallSite *site)
{
	StringInfo key = &answers->key;
	bool is_small = true;

	resetStringInfo(key);
	appendBinaryStringInfo(key, site->signature.data, site->signature.len);
	for (int i = 0; i < site->n_args && is_small; i++)
	{
		const NullableDatum *arg = &site->fcinfo->args[i];

		appendStringInfoChar(key, arg->isnull ? 'n' : 'v');
		if (!arg->isnull)
			is_small = append_value(key, arg->value, site->arg_types[i]);
	}
	return is_small;
}

static LlmAnswer *
look_up(LlmAnswers *answers)
{
	LlmAnswer probe = { .key = answers->key.data,
						.key_bytes = answers->key.len };
	Remembered *found = remembered_lookup(answers->by_arguments, &probe);

	return found == NULL ? NULL : found->answer;
}

static void
drop_answer(LlmAnswer *answer)
{
	if (!answer->is_done)
	{
		dlist_delete(&answer->node);
		answer->counts->n_in_flight--;
		MemoryContextDelete(answer->context);
	}
	else if (!answer->isnull && !answer->type.is_by_value)
		pfree(DatumGetPointer(answer->value));
	if (answer->is_done && answer->call != NULL)
		pfree(answer->call);
	if (answer->key != NULL)
		pfree(answer->key);
	pfree(answer);
}

static void
forget(LlmAnswers *answers, LlmAnswer *answer)
{
	Assert(answer->is_remembered);
	remembered_delete(answers->by_arguments, answer);
	answer->is_remembered = false;
	answers->n_remembered_bytes -= answer->key_bytes + answer->n_bytes;
	if (answer->n_users == 0)
		drop_answer(answer);
}

/* Out of memory: forget all, rather than keep track of what is used most. */
static void
forget_all(LlmAnswers *answers)
{
	remembered_iterator iterator;
	Remembered *entry;

	remembered_start_iterate(answers->by_arguments, &iterator);
	while ((entry = remembered_iterate(answers->by_arguments, &iterator)) !=
		   NULL)
	{
		entry->answer->is_remembered = false;
		if (entry->answer->n_users == 0)
			drop_answer(entry->answer);
	}
	remembered_reset(answers->by_arguments);
	answers->n_remembered_bytes = 0;
}

static void
remember(LlmAnswers *answers, LlmAnswer *answer)
{
	bool found;

	answer->key_bytes = answers->key.len;
	answer->key = MemoryContextAlloc(answers->context, answer->key_bytes);
	memcpy(answer->key, answers->key.data, answer->key_bytes);
	if (answers->n_remembered_bytes + answer->key_bytes >
		(Size) work_mem * 1024)
		forget_all(answers);
	(void) remembered_insert(answers->by_arguments, answer, &found);
	Assert(!found);
	answer->is_remembered = true;
	answers->n_remembered_bytes += answer->key_bytes;
}

/* -- calls -- */

static void
count_call(LlmAnswerCounts *counts, const LlmBatchCall *call)
{
	counts->n_requests += call->n_requests;
	counts->n_prompt_tokens += call->n_prompt_tokens;
	counts->n_cached_tokens += call->n_cached_tokens;
	counts->n_output_tokens += call->n_output_tokens;
	if (call->err.code != LLM_OK)
		counts->n_failed++;
}

/* Copy what stays of a call out of its own memory. */
static void
keep_outcome(LlmAnswers *answers, LlmAnswer *answer, Datum value)
{
	LlmBatchCall *call = answer->call;
	MemoryContext old = MemoryContextSwitchTo(answers->context);

	answer->call = NULL;
	if (call->err.code != LLM_OK)
	{
		answer->isnull = true;
		answer->call = palloc(sizeof(LlmBatchCall));
		*answer->call = *call;
	}
	else if (!answer->isnull)
	{
		answer->value =
			datumCopy(value, answer->type.is_by_value, answer->type.len);
		if (!answer->type.is_by_value)
			answer->n_bytes = datumGetSize(value, false, answer->type.len);
	}
	MemoryContextSwitchTo(old);
}

/* The call is done: only its outcome stays. */
static void
finish(LlmAnswers *answers, LlmAnswer *answer)
{
	MemoryContext old = MemoryContextSwitchTo(answer->context);
	Datum value = (Datum) 0;

	answer->isnull = true;
	if (answer->call->err.code == LLM_OK)
		value = answer->ops->finish(answer->call, &answer->isnull);
	count_call(answer->counts, answer->call);
	keep_outcome(answers, answer, value);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(answer->context);
	answer->context = NULL;
	answer->is_done = true;
	dlist_delete(&answer->node);
	answer->counts->n_in_flight--;
	answers->n_bytes += answer->n_bytes;
	if (!answer->is_remembered)
		return;
	answers->n_remembered_bytes += answer->n_bytes;
	/* another try may succeed */
	if (answer->call != NULL)
		forget(answers, answer);
}

/* The row's memory goes before the call does, which may look at them again. */
static void
copy_arguments(LlmCallSite *site)
{
	for (int i = 0; i < site->n_args; i++)
	{
		NullableDatum *arg = &site->fcinfo->args[i];

		if (!arg->isnull)
			arg->value = datumCopy(arg->value, site->arg_types[i].is_by_value,
								   site->arg_types[i].len);
	}
}

/* Call the function's start in the given memory, which goes if that fails. */
static LlmBatchCall *
start_in(MemoryContext context, LlmCallSite *site)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	LlmBatchCall *volatile call = NULL;

	site->fcinfo->isnull = false;
	PG_TRY();
	{
		copy_arguments(site);
		call = site->ops->start(site->fcinfo, true);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(old);
		MemoryContextDelete(context);
		PG_RE_THROW();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	if (call == NULL)
		MemoryContextDelete(context);
	return call;
}

/* NULL: nothing had to be asked. */
static LlmAnswer *
start(LlmAnswers *answers, LlmCallSite *site, bool has_key)
{
	/* a call takes some kilobytes: one block, which PostgreSQL uses again */
	MemoryContext context = AllocSetContextCreate(answers->context, "llm call",
												  ALLOCSET_DEFAULT_SIZES);
	LlmBatchCall *call = start_in(context, site);
	LlmAnswer *answer;

	if (call == NULL)
		return NULL;
	answer = MemoryContextAllocZero(answers->context, sizeof(LlmAnswer));
	answer->context = context;
	answer->ops = site->ops;
	answer->call = call;
	answer->type = site->result_type;
	answer->n_users = 1;
	answer->counts = site->counts;
	answer->counts->n_in_flight++;
	dlist_push_tail(&answers->in_flight, &answer->node);
	if (has_key && call->is_repeatable && call->err.code == LLM_OK)
		remember(answers, answer);
	if (call->err.code != LLM_OK || site->ops->advance(call))
		finish(answers, answer);
	return answer;
}

LlmAnswer *
llm_answers_get(LlmAnswers *answers, LlmCallSite *site)
{
	LlmAnswer *answer = NULL;
	bool has_key;

	if (site->flinfo.fn_strict)
		for (int i = 0; i < site->n_args; i++)
			if (site->fcinfo->args[i].isnull)
				return NULL;
	has_key = make_key(answers, site);
	if (has_key)
		answer = look_up(answers);
	if (answer == NULL)
		return start(answers, site, has_key);
	site->counts->n_duplicates++;
	if (answer->n_users++ == 0)
		answers->n_bytes += answer->n_bytes;
	return answer;
}

void
llm_answers_advance(LlmAnswers *answers)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &answers->in_flight)
	{
		LlmAnswer *answer = dlist_container(LlmAnswer, node, iter.cur);

		if (answer->ops->advance(answer->call))
			finish(answers, answer);
	}
}

bool
llm_answers_any_in_flight(const LlmAnswers *answers)
{
	return !dlist_is_empty(unconstify(dlist_head *, &answers->in_flight));
}

Size
llm_answers_bytes(const LlmAnswers *answers)
{
	return answers->n_bytes;
}

bool
llm_answer_is_done(const LlmAnswer *answer)
{
	return answer->is_done;
}

Datum
llm_answer_value(LlmAnswer *answer, bool *isnull)
{
	Assert(answer->is_done);
	if (answer->call != NULL)
		llm_batch_report(answer->call);
	*isnull = answer->isnull;
	return answer->value;
}

void
llm_answer_release(LlmAnswers *answers, LlmAnswer *answer)
{
	Assert(answer->n_users > 0);
	if (--answer->n_users > 0)
		return;
	if (answer->is_done)
		answers->n_bytes -= answer->n_bytes;
	if (answer->is_done && answer->is_remembered)
		return;
	if (answer->is_remembered)
		forget(answers, answer);
	else
		drop_answer(answer);
}

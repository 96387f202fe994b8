/*
 * grammar_cache.c
 *	  Grammars compiled once per process and source.
 *
 * The rows of a statement ask for the same form again and again; compiling a
 * schema takes a millisecond or so, finding it here a look at its text.
 * Entries stand in a list, the latest used first; what exceeds the bounds is
 * forgotten from its end.
 *
 * src/server/sql/grammar_cache.c
 */
#include "postgres.h"

#include "src/common/grammar/grammar.h"
#include "src/server/sql/grammar_cache.h"

#include "common/hashfn.h"
#include "lib/ilist.h"
#include "utils/memutils.h"

#define MAX_ENTRIES 256
#define MAX_BYTES ((Size) 16 << 20)

typedef struct CacheEntry
{
	dlist_node node;
	LlmGrammarKind kind;
	uint64 hash; /* of the source's text */
	char *text;	 /* that text, behind the words */
	Size text_len;
	Size n_bytes; /* of the words */
	uint32 words[FLEXIBLE_ARRAY_MEMBER];
} CacheEntry;

static dlist_head entries = DLIST_STATIC_INIT(entries);
static int n_entries;
static Size n_cached_bytes;

static uint64
hash_text(LlmTemplateText text)
{
	return DatumGetUInt64(hash_any_extended((const unsigned char *) text.data,
											(int) text.len, 0));
}

static CacheEntry *
find_entry(LlmGrammarSource source, uint64 hash)
{
	dlist_iter iter;

	dlist_foreach(iter, &entries)
	{
		CacheEntry *entry = dlist_container(CacheEntry, node, iter.cur);

		if (entry->hash == hash && entry->kind == source.kind &&
			entry->text_len == source.text.len &&
			(source.text.len == 0 ||
			 memcmp(entry->text, source.text.data, source.text.len) == 0))
			return entry;
	}
	return NULL;
}

static Size
entry_bytes(const CacheEntry *entry)
{
	return entry->n_bytes + entry->text_len;
}

static void
make_room(Size n_bytes)
{
	while (n_entries > 0 &&
		   (n_entries >= MAX_ENTRIES || n_cached_bytes + n_bytes > MAX_BYTES))
	{
		CacheEntry *oldest =
			dlist_container(CacheEntry, node, dlist_tail_node(&entries));

		dlist_delete(&oldest->node);
		n_entries--;
		n_cached_bytes -= entry_bytes(oldest);
		pfree(oldest);
	}
}

static bool
compile_choice(LlmTemplateText text, LlmStrbuf *program, LlmError *err)
{
	const char **choices = palloc((text.len + 1) * sizeof(char *));
	size_t n_choices = 0;
	bool ok;

	for (size_t off = 0; off < text.len; off += strlen(text.data + off) + 1)
		choices[n_choices++] = text.data + off;
	ok = llm_grammar_compile_choice(choices, n_choices, program, err);
	pfree(choices);
	return ok;
}

static bool
compile(LlmGrammarSource source, LlmStrbuf *program, LlmError *err)
{
	const char *text = source.text.data;
	size_t len = source.text.len;

	switch (source.kind)
	{
		case LLM_GRAMMAR_JSON_OBJECT:
			return llm_grammar_compile_json_object(program, err);
		case LLM_GRAMMAR_JSON_SCHEMA:
			return llm_grammar_compile_json_schema(text, len, program, err);
		case LLM_GRAMMAR_REGEX:
			return llm_grammar_compile_regex(text, len, program, err);
		case LLM_GRAMMAR_CHOICE:
			return compile_choice(source.text, program, err);
		case LLM_GRAMMAR_GBNF:
			return llm_grammar_compile_gbnf(text, len, program, err);
		case LLM_GRAMMAR_NONE:
			break;
	}
	elog(ERROR, "unknown kind of grammar: %d", source.kind);
}

static CacheEntry *
add_entry(LlmGrammarSource source, uint64 hash, const LlmStrbuf *program)
{
	Size words_end = offsetof(CacheEntry, words) + program->len;
	CacheEntry *entry;

	make_room(program->len + source.text.len);
	entry = MemoryContextAllocExtended(TopMemoryContext,
									   words_end + source.text.len,
									   MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);
	if (entry == NULL)
		return NULL;
	entry->kind = source.kind;
	entry->hash = hash;
	entry->text = (char *) entry + words_end;
	entry->text_len = source.text.len;
	entry->n_bytes = program->len;
	memcpy(entry->words, program->data, program->len);
	if (source.text.len > 0)
		memcpy(entry->text, source.text.data, source.text.len);
	dlist_push_head(&entries, &entry->node);
	n_entries++;
	n_cached_bytes += entry_bytes(entry);
	return entry;
}

bool
llm_grammar_cache_get(LlmGrammarSource source, LlmGrammarProgram *program,
					  LlmError *err)
{
	CacheEntry *entry;
	uint64 hash;

	program->words = NULL;
	program->n_words = 0;
	if (source.kind == LLM_GRAMMAR_NONE)
		return true;
	hash = hash_text(source.text);
	entry = find_entry(source, hash);
	if (entry != NULL)
		dlist_move_head(&entries, &entry->node);
	else
	{
		LlmStrbuf compiled = { 0 };
		bool ok = compile(source, &compiled, err);

		if (ok)
			entry = add_entry(source, hash, &compiled);
		llm_strbuf_free(&compiled);
		if (!ok)
			return false;
		if (entry == NULL)
			return llm_error_no_memory(err, source.text.len, "a grammar");
	}
	program->words = entry->words;
	program->n_words = (uint32) (entry->n_bytes / sizeof(uint32));
	return true;
}

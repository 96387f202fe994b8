/*
 * grammar_cache.c
 *	  Grammars compiled once per process and source.
 *
 * The rows of a statement ask for the same form again and again; compiling a
 * schema takes a millisecond or so, finding it here the hash of its text.
 * Entries stand in a list, the latest used first; what exceeds the bounds is
 * forgotten from its end.
 *
 * src/server/sql/grammar_cache.c
 */
#include "postgres.h"

#include "src/common/grammar/grammar.h"
#include "src/common/util/sha256.h"
#include "src/server/sql/grammar_cache.h"

#include "lib/ilist.h"
#include "utils/memutils.h"

#define MAX_ENTRIES 256
#define MAX_BYTES ((Size) 16 << 20)

typedef struct CacheEntry
{
	dlist_node node;
	uint8_t digest[LLM_SHA256_BYTES];
	Size n_bytes;
	uint32 words[FLEXIBLE_ARRAY_MEMBER];
} CacheEntry;

static dlist_head entries = DLIST_STATIC_INIT(entries);
static int n_entries;
static Size n_cached_bytes;

static void
hash_source(LlmGrammarSource source, uint8_t digest[LLM_SHA256_BYTES])
{
	LlmSha256 sha;
	uint32 kind = source.kind;

	llm_sha256_init(&sha);
	llm_sha256_update(&sha, &kind, sizeof(kind));
	llm_sha256_update(&sha, source.text.data, source.text.len);
	llm_sha256_final(&sha, digest);
}

static CacheEntry *
find_entry(const uint8_t digest[LLM_SHA256_BYTES])
{
	dlist_iter iter;

	dlist_foreach(iter, &entries)
	{
		CacheEntry *entry = dlist_container(CacheEntry, node, iter.cur);

		if (memcmp(entry->digest, digest, LLM_SHA256_BYTES) == 0)
			return entry;
	}
	return NULL;
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
		n_cached_bytes -= oldest->n_bytes;
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
add_entry(const uint8_t digest[LLM_SHA256_BYTES], const LlmStrbuf *program)
{
	Size size = offsetof(CacheEntry, words) + program->len;
	CacheEntry *entry;

	make_room(size);
	entry = MemoryContextAllocExtended(TopMemoryContext, size,
									   MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);
	if (entry == NULL)
		return NULL;
	memcpy(entry->digest, digest, LLM_SHA256_BYTES);
	entry->n_bytes = program->len;
	memcpy(entry->words, program->data, program->len);
	dlist_push_head(&entries, &entry->node);
	n_entries++;
	n_cached_bytes += program->len;
	return entry;
}

bool
llm_grammar_cache_get(LlmGrammarSource source, LlmGrammarProgram *program,
					  LlmError *err)
{
	uint8_t digest[LLM_SHA256_BYTES];
	CacheEntry *entry;

	program->words = NULL;
	program->n_words = 0;
	if (source.kind == LLM_GRAMMAR_NONE)
		return true;
	hash_source(source, digest);
	entry = find_entry(digest);
	if (entry != NULL)
		dlist_move_head(&entries, &entry->node);
	else
	{
		LlmStrbuf compiled = { 0 };
		bool ok = compile(source, &compiled, err);

		if (ok)
			entry = add_entry(digest, &compiled);
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

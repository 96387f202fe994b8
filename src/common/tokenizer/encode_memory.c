/*
 * encode_memory.c
 *	  What the text to encode has in common with the one before.
 *
 * Rows of a statement ask the same of different texts, so that their prompts
 * begin alike.  Texts are cut at added tokens and the pieces encoded each by
 * itself, so behind an added token the ids of a text do not depend on what was
 * before it; what has to be the same up to there are the bytes that were
 * looked at to find the token, a few of them behind it perhaps
 * (LlmAddedPlace.seen).  So ids up to the last such token within the common
 * beginning are taken over, and are those that encoding would give.
 *
 * src/common/tokenizer/encode_memory.c
 */
#include <assert.h>
#include <string.h>

#include "src/common/tokenizer/tokenizer_internal.h"

/* Longer beginnings are not kept. */
#define MAX_TEXT_BYTES ((size_t) 256 * 1024)

void
llm_encode_memory_reset(LlmEncodeMemory *memory)
{
	llm_strbuf_reset(&memory->text);
	llm_idbuf_reset(&memory->ids);
	memory->n_marks = 0;
}

void
llm_encode_memory_free(LlmEncodeMemory *memory)
{
	llm_strbuf_free(&memory->text);
	llm_idbuf_free(&memory->ids);
	memory->n_marks = 0;
}

static size_t
common_bytes(const char *a, const char *b, size_t len)
{
	size_t n = 0;

	while (len - n >= 64 && memcmp(a + n, b + n, 64) == 0)
		n += 64;
	while (n < len && a[n] == b[n])
		n++;
	return n;
}

LlmAddedPlace
llm_encode_memory_recall(LlmEncodeMemory *memory, const char *text, size_t len,
						 LlmIdbuf *out)
{
	size_t max_common = len < memory->text.len ? len : memory->text.len;
	size_t n_common =
		common_bytes(llm_strbuf_str(&memory->text), text, max_common);
	const LlmEncodeMark *last;

	while (memory->n_marks > 0 &&
		   memory->marks[memory->n_marks - 1].place.seen > n_common)
		memory->n_marks--;
	if (memory->n_marks == 0)
		return (LlmAddedPlace){ 0 };
	last = &memory->marks[memory->n_marks - 1];
	assert(last->n_ids <= memory->ids.n_ids);
	llm_idbuf_append_many(out, memory->ids.ids, last->n_ids);
	return last->place;
}

void
llm_encode_memory_mark(LlmEncodeMemory *memory, const LlmAddedPlace *behind,
					   size_t n_ids)
{
	if (memory->n_marks == LLM_MAX_ENCODE_MARKS ||
		behind->seen > MAX_TEXT_BYTES)
		return;
	memory->marks[memory->n_marks++] = (LlmEncodeMark){ *behind, n_ids };
}

void
llm_encode_memory_keep(LlmEncodeMemory *memory, const char *text, size_t len,
					   const int32_t *ids)
{
	const LlmEncodeMark *last;

	/* where the end was looked at, no longer text can be the same */
	while (memory->n_marks > 0 &&
		   memory->marks[memory->n_marks - 1].place.seen > len)
		memory->n_marks--;
	llm_strbuf_reset(&memory->text);
	llm_idbuf_reset(&memory->ids);
	if (memory->n_marks == 0)
		return;
	last = &memory->marks[memory->n_marks - 1];
	llm_strbuf_append(&memory->text, text, last->place.seen);
	llm_idbuf_append_many(&memory->ids, ids, last->n_ids);
	if (memory->text.failed || memory->ids.failed)
		llm_encode_memory_free(memory);
}

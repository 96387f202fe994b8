/*
 * decode_steps.c
 *	  Decoders as a chain of stages that text flows through.
 *
 * The reference's decoders map a list of tokens to a list of tokens.  Here
 * each is a stage that gets one token at a time and passes on what can no
 * longer change, so that decoding a whole answer and decoding it as it is
 * generated are the same code: the one cannot disagree with the other.
 *
 * A stage behind one that joins all tokens (Fuse, ByteLevel) gets a single
 * token in chunks.  It holds back what the next chunk may still change: the
 * start of a pattern to be replaced, spaces that may turn out to be the last.
 * Two stages hold back more, for the reference decides about all of it at
 * once: a run of byte tokens stays until it ends (if it is no UTF-8 as a
 * whole, every byte becomes U+FFFD), and a regular expression behind a
 * joining stage sees its text only at the end.
 *
 * src/common/tokenizer/decode_steps.c
 */
#include <assert.h>
#include <stdlib.h>

#include "src/common/tokenizer/tokenizer_internal.h"
#include "src/common/tokenizer/unicode_class.h"

#define REPLACEMENT_CHARACTER "\xEF\xBF\xBD"
#define FALLBACK_TOKEN_BYTES 6 /* <0x0A> */
#define FUSED_BYTES 4096	   /* of whole texts, that go on in one chunk */

typedef struct DecodeStage
{
	LlmTokenStepKind kind;
	bool in_chunks;	  /* gets one token in chunks, not tokens */
	bool has_begun;	  /* a token, or the first chunk, was seen */
	bool is_passing;  /* chunks: the start is dealt with */
	bool may_skip;	  /* replaces a literal in tokens */
	size_t n_cut;	  /* characters taken off the start */
	LlmPiece literal; /* the step's first text */
	LlmStrbuf held;	  /* what later input may change */
	LlmStrbuf scratch;
} DecodeStage;

struct LlmDecodeChain
{
	LlmStepRow *row; /* borrowed */
	LlmStrbuf *out;	 /* of the call at work */
	LlmError *err;
	bool is_whole; /* nobody waits for what is held */
	size_t n_stages;
	DecodeStage stages[];
};

static bool
give(LlmDecodeChain *chain, size_t idx, const char *text, size_t len);

static LlmPiece
step_text(const LlmStepRow *row, size_t idx, int text_idx)
{
	LlmPiece piece = { 0 };

	piece.text = llm_step_row_text(row, idx, text_idx, &piece.len);
	return piece;
}

LlmDecodeChain *
llm_decode_chain_create(LlmStepRow *row, LlmError *err)
{
	LlmDecodeChain *chain =
		calloc(1, sizeof(*chain) + row->n_steps * sizeof(chain->stages[0]));
	bool in_chunks = false;

	if (chain == NULL)
	{
		llm_error_no_memory(err, row->n_steps * sizeof(chain->stages[0]),
							"a detokenizer");
		return NULL;
	}
	chain->row = row;
	chain->n_stages = row->n_steps;
	for (size_t i = 0; i < row->n_steps; i++)
	{
		DecodeStage *stage = &chain->stages[i];

		stage->kind = row->steps[i].kind;
		stage->in_chunks = in_chunks;
		stage->literal = step_text(row, i, 0);
		stage->may_skip = stage->kind == LLM_DEC_REPLACE && !in_chunks &&
						  stage->literal.len > 0;
		if (row->steps[i].kind == LLM_DEC_FUSE ||
			row->steps[i].kind == LLM_DEC_BYTE_LEVEL ||
			row->steps[i].kind == LLM_DEC_JOIN_SPACE)
			in_chunks = true;
	}
	return chain;
}

void
llm_decode_chain_free(LlmDecodeChain *chain)
{
	if (chain == NULL)
		return;
	for (size_t i = 0; i < chain->n_stages; i++)
	{
		llm_strbuf_free(&chain->stages[i].held);
		llm_strbuf_free(&chain->stages[i].scratch);
	}
	free(chain);
}

void
llm_decode_chain_expect_whole(LlmDecodeChain *chain)
{
	chain->is_whole = true;
}

void
llm_decode_chain_reset(LlmDecodeChain *chain)
{
	for (size_t i = 0; i < chain->n_stages; i++)
	{
		DecodeStage *stage = &chain->stages[i];

		stage->has_begun = false;
		stage->is_passing = false;
		stage->n_cut = 0;
		llm_strbuf_reset(&stage->held);
		llm_strbuf_reset(&stage->scratch);
	}
}

/* Forget the first n bytes of what is held. */
static void
drop_held(DecodeStage *stage, size_t n)
{
	assert(n <= stage->held.len);
	if (n == 0)
		return;
	memmove(stage->held.data, stage->held.data + n, stage->held.len - n + 1);
	stage->held.len -= n;
}

/*
 * Write a text up to its last match of the literal, with the content for
 * every match; returns where the rest starts.
 */
static size_t
replace_matches(LlmStrbuf *out, LlmPiece in, LlmPiece literal, LlmPiece content)
{
	size_t done = 0;

	while (literal.len > 0)
	{
		const char *match =
			memmem(in.text + done, in.len - done, literal.text, literal.len);

		if (match == NULL)
			break;
		llm_strbuf_append(out, in.text + done,
						  (size_t) (match - in.text) - done);
		llm_strbuf_append(out, content.text, content.len);
		done = (size_t) (match - in.text) + literal.len;
	}
	return done;
}

static void
replace_all(LlmStrbuf *out, LlmPiece in, LlmPiece literal, LlmPiece content)
{
	size_t done = replace_matches(out, in, literal, content);

	llm_strbuf_append(out, in.text + done, in.len - done);
}

/* -------------------------------------------------------------- byte level */

/* The bytes of a token in the byte-level alphabet; others stay as they are. */
static void
append_level_bytes(LlmStrbuf *out, const char *token, size_t len)
{
	size_t start = out->len;

	for (size_t off = 0; off < len;)
	{
		uint32_t cp;
		int byte;

		off += (size_t) llm_unicode_next(token + off, len - off, &cp);
		byte = llm_byte_level_decode(cp);
		if (byte < 0)
		{
			/* one foreign character makes the whole token literal */
			out->len = out->failed ? out->len : start;
			llm_strbuf_append(out, token, len);
			return;
		}
		llm_strbuf_append_char(out, (char) byte);
	}
}

static bool
byte_level_token(LlmDecodeChain *chain, size_t idx, const char *text,
				 size_t len)
{
	DecodeStage *stage = &chain->stages[idx];
	size_t done;

	if (stage->in_chunks)
	{
		llm_strbuf_append(&stage->held, text, len);
		return true;
	}
	append_level_bytes(&stage->held, text, len);
	llm_strbuf_reset(&stage->scratch);
	done = llm_unicode_append_lossy(
		&stage->scratch, llm_strbuf_str(&stage->held), stage->held.len, false);
	drop_held(stage, done);
	return stage->scratch.len == 0 ||
		   give(chain, idx + 1, stage->scratch.data, stage->scratch.len);
}

static bool
byte_level_end(LlmDecodeChain *chain, size_t idx)
{
	DecodeStage *stage = &chain->stages[idx];

	llm_strbuf_reset(&stage->scratch);
	if (stage->in_chunks)
	{
		LlmStrbuf bytes = { 0 };

		append_level_bytes(&bytes, llm_strbuf_str(&stage->held),
						   stage->held.len);
		llm_unicode_append_lossy(&stage->scratch, llm_strbuf_str(&bytes),
								 bytes.len, true);
		stage->scratch.failed = stage->scratch.failed || bytes.failed;
		llm_strbuf_free(&bytes);
	}
	else
		llm_unicode_append_lossy(&stage->scratch, llm_strbuf_str(&stage->held),
								 stage->held.len, true);
	llm_strbuf_reset(&stage->held);
	return give(chain, idx + 1, llm_strbuf_str(&stage->scratch),
				stage->scratch.len);
}

/* ----------------------------------------------------------------- replace */

/* Bytes at the end of text that may be the start of the pattern. */
static size_t
partial_match(const char *pattern, size_t pattern_len, const char *text,
			  size_t len)
{
	size_t n = pattern_len == 0 ? 0 : pattern_len - 1;

	if (n > len)
		n = len;
	while (n > 0 && memcmp(text + len - n, pattern, n) != 0)
		n--;
	return n;
}

static bool
replace_token(LlmDecodeChain *chain, size_t idx, const char *text, size_t len)
{
	DecodeStage *stage = &chain->stages[idx];
	LlmPiece literal = stage->literal;
	LlmPiece content = step_text(chain->row, idx, 1);
	LlmPiece in = { .text = text, .len = len };
	size_t done;
	size_t end;

	llm_strbuf_reset(&stage->scratch);
	if (!stage->in_chunks)
	{
		replace_all(&stage->scratch, in, literal, content);
		return give(chain, idx + 1, llm_strbuf_str(&stage->scratch),
					stage->scratch.len);
	}
	llm_strbuf_append(&stage->held, text, len);
	in.text = llm_strbuf_str(&stage->held);
	in.len = stage->held.len;
	done = replace_matches(&stage->scratch, in, literal, content);
	end = in.len - partial_match(literal.text, literal.len, in.text + done,
								 in.len - done);
	llm_strbuf_append(&stage->scratch, in.text + done, end - done);
	drop_held(stage, end);
	return stage->scratch.len == 0 ||
		   give(chain, idx + 1, stage->scratch.data, stage->scratch.len);
}

/* A token, or all chunks at the end. */
static bool
replace_regex(LlmDecodeChain *chain, size_t idx, const char *text, size_t len)
{
	DecodeStage *stage = &chain->stages[idx];
	LlmSplitRegex *regex = llm_step_row_regex(chain->row, idx, chain->err);
	LlmRegexScan scan = llm_regex_scan(text, len);
	LlmPiece content = step_text(chain->row, idx, 1);
	size_t done = 0;

	if (regex == NULL)
		return false;
	llm_strbuf_reset(&stage->scratch);
	while (len > 0)
	{
		bool found;
		size_t start;
		size_t end;

		if (!llm_split_regex_next(regex, &scan, &found, &start, &end,
								  chain->err))
			return false;
		if (!found)
			break;
		llm_strbuf_append(&stage->scratch, text + done, start - done);
		llm_strbuf_append(&stage->scratch, content.text, content.len);
		done = end;
	}
	llm_strbuf_append(&stage->scratch, text + done, len - done);
	return give(chain, idx + 1, llm_strbuf_str(&stage->scratch),
				stage->scratch.len);
}

/* ------------------------------------------------------------ byte fallback */

int
llm_decode_fallback_byte(const char *token, size_t len)
{
	int value = 0;

	if (len != FALLBACK_TOKEN_BYTES || memcmp(token, "<0x", 3) != 0 ||
		token[5] != '>')
		return -1;
	for (int i = 3; i < 5; i++)
	{
		char c = token[i];

		if (c >= '0' && c <= '9')
			value = value * 16 + (c - '0');
		else if (c >= 'a' && c <= 'f')
			value = value * 16 + (c - 'a' + 10);
		else if (c >= 'A' && c <= 'F')
			value = value * 16 + (c - 'A' + 10);
		else if (c != '+' || i != 3) /* Rust's parser takes a sign */
			return -1;
	}
	return value;
}

/* The run of bytes has ended: one token of text, or one mark per byte. */
static bool
end_byte_run(LlmDecodeChain *chain, size_t idx)
{
	DecodeStage *stage = &chain->stages[idx];
	size_t len = stage->held.len;
	bool ok = true;

	if (len == 0)
		return true;
	if (llm_utf8_is_valid(stage->held.data, len))
		ok = give(chain, idx + 1, stage->held.data, len);
	else
	{
		for (size_t i = 0; i < len && ok; i++)
			ok = give(chain, idx + 1, REPLACEMENT_CHARACTER, 3);
	}
	llm_strbuf_reset(&stage->held);
	return ok;
}

static bool
byte_fallback_token(LlmDecodeChain *chain, size_t idx, const char *text,
					size_t len)
{
	DecodeStage *stage = &chain->stages[idx];
	int byte;

	if (stage->in_chunks)
	{
		/* a single token: it is a byte's only if it is that short */
		if (stage->is_passing)
			return give(chain, idx + 1, text, len);
		llm_strbuf_append(&stage->held, text, len);
		if (stage->held.len <= FALLBACK_TOKEN_BYTES)
			return true;
		stage->is_passing = true;
		return give(chain, idx + 1, stage->held.data, stage->held.len);
	}
	byte = llm_decode_fallback_byte(text, len);
	if (byte >= 0)
	{
		llm_strbuf_append_char(&stage->held, (char) byte);
		return true;
	}
	return end_byte_run(chain, idx) && give(chain, idx + 1, text, len);
}

static bool
byte_fallback_end(LlmDecodeChain *chain, size_t idx)
{
	DecodeStage *stage = &chain->stages[idx];
	int byte;

	if (!stage->in_chunks)
		return end_byte_run(chain, idx);
	if (stage->is_passing)
		return true;
	byte =
		llm_decode_fallback_byte(llm_strbuf_str(&stage->held), stage->held.len);
	if (byte >= 0)
	{
		llm_strbuf_reset(&stage->held);
		llm_strbuf_append_char(&stage->held, (char) byte);
		return end_byte_run(chain, idx);
	}
	return give(chain, idx + 1, llm_strbuf_str(&stage->held), stage->held.len);
}

/* -------------------------------------------------------------------- strip */

/* Does the text start with the stage's character? */
static bool
starts_with(const char *text, size_t len, const char *what, size_t what_len)
{
	return what_len > 0 && len >= what_len && memcmp(text, what, what_len) == 0;
}

static bool
strip_token(LlmDecodeChain *chain, size_t idx, const char *text, size_t len)
{
	const DecodeStage *stage = &chain->stages[idx];
	const LlmTokenStep *step = &chain->row->steps[idx];
	size_t start = 0;
	size_t end = len;

	for (int32_t i = 0; i < step->numbers[0] &&
						starts_with(text + start, len - start,
									stage->literal.text, stage->literal.len);
		 i++)
		start += stage->literal.len;
	for (int32_t i = 0;
		 i < step->numbers[1] && end - start >= stage->literal.len &&
		 starts_with(text + end - stage->literal.len, stage->literal.len,
					 stage->literal.text, stage->literal.len);
		 i++)
		end -= stage->literal.len;
	return give(chain, idx + 1, text + start, end - start);
}

/*
 * Chunks of a single token: take characters off the start, then keep back as
 * many of them as may have to go from the end.
 */
static bool
strip_chunk(LlmDecodeChain *chain, size_t idx, const char *text, size_t len)
{
	DecodeStage *stage = &chain->stages[idx];
	const LlmTokenStep *step = &chain->row->steps[idx];
	size_t max_held;
	size_t tail;

	while (!stage->is_passing)
	{
		if (len == 0)
			return true;
		if (stage->n_cut >= (size_t) step->numbers[0] ||
			!starts_with(text, len, stage->literal.text, stage->literal.len))
			stage->is_passing = true;
		else
		{
			text += stage->literal.len;
			len -= stage->literal.len;
			stage->n_cut++;
		}
	}
	assert(stage->is_passing);
	if (step->numbers[1] <= 0)
		return len == 0 || give(chain, idx + 1, text, len);

	llm_strbuf_append(&stage->held, text, len);
	tail = stage->held.len;
	max_held = (size_t) step->numbers[1] * stage->literal.len;
	while (tail >= stage->literal.len && stage->held.len - tail < max_held &&
		   starts_with(stage->held.data + tail - stage->literal.len,
					   stage->literal.len, stage->literal.text,
					   stage->literal.len))
		tail -= stage->literal.len;
	if (tail > 0 && !give(chain, idx + 1, stage->held.data, tail))
		return false;
	drop_held(stage, tail);
	return true;
}

/* --------------------------------------------------------- other stages */

/* The replacement becomes a space; in the first token, usually nothing. */
static bool
metaspace_token(LlmDecodeChain *chain, size_t idx, const char *text, size_t len)
{
	DecodeStage *stage = &chain->stages[idx];
	bool is_first = stage->in_chunks || !stage->has_begun;
	bool drops =
		is_first && chain->row->steps[idx].numbers[0] != LLM_PREPEND_NEVER;

	stage->has_begun = true;
	llm_strbuf_reset(&stage->scratch);
	replace_all(&stage->scratch, (LlmPiece){ .text = text, .len = len },
				stage->literal, (LlmPiece){ .text = " ", .len = !drops });
	return give(chain, idx + 1, llm_strbuf_str(&stage->scratch),
				stage->scratch.len);
}

/* Write the held token with its suffixes replaced, and pass it on. */
static bool
pass_suffix_token(LlmDecodeChain *chain, size_t idx, const char *replacement)
{
	DecodeStage *stage = &chain->stages[idx];

	llm_strbuf_reset(&stage->scratch);
	replace_all(&stage->scratch,
				(LlmPiece){ .text = llm_strbuf_str(&stage->held),
							.len = stage->held.len },
				stage->literal,
				(LlmPiece){ .text = replacement, .len = strlen(replacement) });
	llm_strbuf_reset(&stage->held);
	return give(chain, idx + 1, llm_strbuf_str(&stage->scratch),
				stage->scratch.len);
}

/* Only the next token tells that the one before was not the last. */
static bool
bpe_suffix_token(LlmDecodeChain *chain, size_t idx, const char *text,
				 size_t len)
{
	DecodeStage *stage = &chain->stages[idx];

	if (!stage->in_chunks && stage->has_begun &&
		!pass_suffix_token(chain, idx, " "))
		return false;
	stage->has_begun = true;
	llm_strbuf_append(&stage->held, text, len);
	return true;
}

static bool
join_space_token(LlmDecodeChain *chain, size_t idx, const char *text,
				 size_t len)
{
	DecodeStage *stage = &chain->stages[idx];

	if (stage->has_begun && !give(chain, idx + 1, " ", 1))
		return false;
	stage->has_begun = true;
	return give(chain, idx + 1, text, len);
}

/* All but the first token: the prefix goes, or a space comes in front. */
static bool
word_piece_token(LlmDecodeChain *chain, size_t idx, const char *text,
				 size_t len)
{
	DecodeStage *stage = &chain->stages[idx];
	bool is_first = stage->in_chunks || !stage->has_begun;

	stage->has_begun = true;
	if (is_first)
		return give(chain, idx + 1, text, len);
	if (len >= stage->literal.len &&
		memcmp(text, stage->literal.text, stage->literal.len) == 0)
		return give(chain, idx + 1, text + stage->literal.len,
					len - stage->literal.len);
	llm_strbuf_reset(&stage->scratch);
	llm_strbuf_append_char(&stage->scratch, ' ');
	llm_strbuf_append(&stage->scratch, text, len);
	return give(chain, idx + 1, llm_strbuf_str(&stage->scratch),
				stage->scratch.len);
}

/* Chunks of a whole text may be long ones. */
static bool
fuse_token(LlmDecodeChain *chain, size_t idx, const char *text, size_t len)
{
	LlmStrbuf *held = &chain->stages[idx].held;
	bool ok;

	if (!chain->is_whole || idx + 1 == chain->n_stages)
		return give(chain, idx + 1, text, len);
	llm_strbuf_append(held, text, len);
	if (held->len < FUSED_BYTES)
		return true;
	ok = give(chain, idx + 1, llm_strbuf_str(held), held->len);
	llm_strbuf_reset(held);
	return ok;
}

/* A token that equals the one before is dropped. */
static bool
dedup_token(LlmDecodeChain *chain, size_t idx, const char *text, size_t len)
{
	DecodeStage *stage = &chain->stages[idx];

	if (stage->in_chunks)
		return give(chain, idx + 1, text, len);
	if (stage->has_begun && stage->held.len == len &&
		memcmp(llm_strbuf_str(&stage->held), text, len) == 0)
		return true;
	stage->has_begun = true;
	llm_strbuf_reset(&stage->held);
	llm_strbuf_append(&stage->held, text, len);
	return give(chain, idx + 1, text, len);
}

/* --------------------------------------------------------------- the chain */

/* Is the literal in the text?  For texts as short as tokens. */
static bool
contains(const char *text, size_t len, LlmPiece literal)
{
	for (size_t off = 0; off + literal.len <= len; off++)
	{
		if (text[off] == literal.text[0] &&
			memcmp(text + off, literal.text, literal.len) == 0)
			return true;
	}
	return false;
}

/*
 * Hand a token or chunk to a stage, or to the caller behind the last one.
 * Replacements that find nothing are passed by: cleaning up spaces is a row
 * of them, and few tokens concern any.
 */
static bool
give(LlmDecodeChain *chain, size_t idx, const char *text, size_t len)
{
	DecodeStage *stage;

	assert(idx <= chain->n_stages && chain->out != NULL);
	while (idx < chain->n_stages && chain->stages[idx].may_skip &&
		   !contains(text, len, chain->stages[idx].literal))
		idx++;
	if (idx == chain->n_stages)
	{
		llm_strbuf_append(chain->out, text, len);
		return true;
	}
	stage = &chain->stages[idx];
	if (stage->in_chunks && len == 0)
		return true;
	switch (stage->kind)
	{
		case LLM_DEC_BYTE_LEVEL:
			return byte_level_token(chain, idx, text, len);
		case LLM_DEC_REPLACE:
			return replace_token(chain, idx, text, len);
		case LLM_DEC_REPLACE_REGEX:
			if (!stage->in_chunks)
				return replace_regex(chain, idx, text, len);
			llm_strbuf_append(&stage->held, text, len);
			return true;
		case LLM_DEC_BYTE_FALLBACK:
			return byte_fallback_token(chain, idx, text, len);
		case LLM_DEC_FUSE:
			return fuse_token(chain, idx, text, len);
		case LLM_DEC_STRIP:
			return stage->in_chunks ? strip_chunk(chain, idx, text, len)
									: strip_token(chain, idx, text, len);
		case LLM_DEC_METASPACE:
			return metaspace_token(chain, idx, text, len);
		case LLM_DEC_BPE_SUFFIX:
			return bpe_suffix_token(chain, idx, text, len);
		case LLM_DEC_JOIN_SPACE:
			return join_space_token(chain, idx, text, len);
		case LLM_DEC_WORD_PIECE:
			return word_piece_token(chain, idx, text, len);
		case LLM_DEC_DEDUP:
			return dedup_token(chain, idx, text, len);
		case LLM_DEC_DROP_EMPTY:
			return len == 0 || give(chain, idx + 1, text, len);
		default:
			return llm_error_set(chain->err, LLM_ERROR_FORMAT,
								 "the tokenizer image is damaged: unknown "
								 "decoder");
	}
}

/* No more input for a stage: pass on what it holds. */
static bool
end_stage(LlmDecodeChain *chain, size_t idx)
{
	DecodeStage *stage = &chain->stages[idx];

	switch (stage->kind)
	{
		case LLM_DEC_BYTE_LEVEL:
			return byte_level_end(chain, idx);
		case LLM_DEC_REPLACE:
		case LLM_DEC_FUSE:
			return stage->held.len == 0 ||
				   give(chain, idx + 1, stage->held.data, stage->held.len);
		case LLM_DEC_REPLACE_REGEX:
			return !stage->in_chunks ||
				   replace_regex(chain, idx, llm_strbuf_str(&stage->held),
								 stage->held.len);
		case LLM_DEC_BYTE_FALLBACK:
			return byte_fallback_end(chain, idx);
		case LLM_DEC_BPE_SUFFIX:
			return !stage->has_begun || pass_suffix_token(chain, idx, "");
		default:
			return true; /* what Strip holds is what it strips */
	}
}

static bool
check_memory(const LlmDecodeChain *chain)
{
	for (size_t i = 0; i < chain->n_stages; i++)
	{
		if (chain->stages[i].held.failed || chain->stages[i].scratch.failed)
			return llm_error_no_memory(chain->err, chain->stages[i].held.len,
									   "decoded text");
	}
	return true;
}

bool
llm_decode_chain_token(LlmDecodeChain *chain, const char *token, size_t len,
					   LlmStrbuf *out, LlmError *err)
{
	assert(chain->n_stages == chain->row->n_steps);
	chain->out = out;
	chain->err = err;
	return give(chain, 0, token, len) && check_memory(chain);
}

bool
llm_decode_chain_end(LlmDecodeChain *chain, LlmStrbuf *out, LlmError *err)
{
	chain->out = out;
	chain->err = err;
	for (size_t i = 0; i < chain->n_stages; i++)
	{
		if (!end_stage(chain, i))
			return false;
	}
	return check_memory(chain);
}

/* ---------------------------------------------------------- single tokens */

bool
llm_decode_token_bytes(LlmStepRow *row, const char *token, size_t len,
					   LlmStrbuf *out, LlmError *err)
{
	LlmStrbuf buffers[2] = { { 0 }, { 0 } };
	bool done = false;
	int next = 0;

	for (size_t i = 0; i < row->n_steps && !done; i++)
	{
		int byte;

		switch (row->steps[i].kind)
		{
			case LLM_DEC_BYTE_LEVEL:
				append_level_bytes(out, token, len);
				done = true;
				break;
			case LLM_DEC_BYTE_FALLBACK:
				byte = llm_decode_fallback_byte(token, len);
				if (byte >= 0)
				{
					llm_strbuf_append_char(out, (char) byte);
					done = true;
				}
				break;
			case LLM_DEC_REPLACE:
			case LLM_DEC_METASPACE:
			case LLM_DEC_BPE_SUFFIX:
				llm_strbuf_reset(&buffers[next]);
				replace_all(&buffers[next],
							(LlmPiece){ .text = token, .len = len },
							step_text(row, i, 0),
							row->steps[i].kind == LLM_DEC_REPLACE
								? step_text(row, i, 1)
								: (LlmPiece){ .text = " ", .len = 1 });
				token = llm_strbuf_str(&buffers[next]);
				len = buffers[next].len;
				next = 1 - next;
				break;
			default:
				break; /* steps that look at the whole text */
		}
	}
	if (!done)
		llm_strbuf_append(out, token, len);
	out->failed = out->failed || buffers[0].failed || buffers[1].failed;
	llm_strbuf_free(&buffers[0]);
	llm_strbuf_free(&buffers[1]);
	return !out->failed ||
		   llm_error_no_memory(err, out->len, "a token's bytes");
}

/*
 * tokenizer_internal.h
 *	  What the files of this room share: the open tokenizer and the stages of
 *	  encoding.
 *
 * tokenizer_encode.c holds the handle and drives the stages in this order:
 *
 *	  added_tokens.c	text is cut at added tokens
 *	  normalize.c		... each text between them normalized
 *	  pre_tokenize.c	... cut into words
 *	  word_model.c		... which become ids, by one of bpe.c, unigram.c and
 *						word_piece.c
 *
 * and puts the ids of the post-processor (BOS and the like) around them.
 * encode_memory.c has what the next text may begin with as well.
 * detokenizer.c and decode_steps.c go the other way.  tokenizer_compile.c,
 * component_compile.c, added_compile.c and image_builder.c make the image,
 * tokenizer_image.c reads it, split_regex.c and unicode_class.c are tools.
 *
 * src/common/tokenizer/tokenizer_internal.h
 */
#ifndef LLM_TOKENIZER_INTERNAL_H
#define LLM_TOKENIZER_INTERNAL_H

#include "src/common/tokenizer/split_regex.h"
#include "src/common/tokenizer/tokenizer.h"
#include "src/common/tokenizer/tokenizer_image.h"

/*
 * A run of text on its way through the stages.  The first origin_len bytes
 * stem from the first character of the caller's text (0: none does); only
 * Metaspace's prepend_scheme "first" asks, and it asks of every piece.
 */
typedef struct LlmPiece
{
	const char *text; /* valid UTF-8, borrowed */
	size_t len;
	size_t origin_len;
} LlmPiece;

/*
 * Asked by every loop over text, so that a cancelled statement ends soon.
 * Once it said no it keeps saying no.
 */
typedef struct LlmEncodeGuard
{
	const volatile sig_atomic_t *interrupt; /* NULL: never */
	uint32_t n_ticks;
} LlmEncodeGuard;

/* One unit of work (a few tens of bytes) was done.  False: stop. */
static inline bool
llm_encode_guard_tick(LlmEncodeGuard *guard)
{
	if ((++guard->n_ticks & 255) != 0 || guard->interrupt == NULL)
		return true;
	if (*guard->interrupt == 0)
		return true;
	guard->n_ticks--; /* the next tick asks again */
	return false;
}

/* The usual end of a loop whose tick said no. */
extern bool llm_encode_cancelled(LlmError *err);

/* A row of steps and the expressions some of them need, made on first use. */
typedef struct LlmStepRow
{
	const LlmTokenStep *steps; /* borrowed */
	size_t n_steps;
	const char *blob;
	size_t n_blob_bytes;
	LlmSplitRegex **regexes; /* [n_steps] */
} LlmStepRow;

extern bool llm_step_row_init(LlmStepRow *row, const LlmTokenStep *steps,
							  size_t n_steps, LlmError *err);
extern void llm_step_row_free(LlmStepRow *row);

/* Text number idx of a step; an empty one where the image is damaged. */
extern const char *llm_step_row_text(const LlmStepRow *row, size_t step_idx,
									 int text_idx, size_t *len);

/* The expression in text 0 of a step, or NULL and *err. */
extern LlmSplitRegex *
llm_step_row_regex(LlmStepRow *row, size_t step_idx, LlmError *err);

/* ----------------------------------------------------------- normalize.c */

typedef struct LlmNormalizer
{
	LlmStepRow row;
	LlmEncodeGuard *guard;
	LlmStrbuf buffers[2]; /* a step reads one and writes the other */
	int32_t *codepoints;  /* for the Unicode forms */
	size_t n_codepoint_slots;
} LlmNormalizer;

extern void llm_normalizer_free(LlmNormalizer *normalizer);

/*
 * Normalize a piece; starts_text tells whether it begins where the caller's
 * text does.  The result is borrowed from the input or the normalizer until
 * the next call.
 */
extern bool llm_normalizer_run(LlmNormalizer *normalizer, LlmPiece in,
							   bool starts_text, LlmPiece *out, LlmError *err);

/* -------------------------------------------------------- added_tokens.c */

/* How far a text was cut. */
typedef struct LlmAddedPlace
{
	size_t done; /* where the text that was not emitted yet starts */
	size_t off;	 /* where the search goes on: before or behind that */
	size_t seen; /* no byte from here on had to do with it so far */
} LlmAddedPlace;

/* What a text was cut into: pieces of text, or ids of added tokens. */
typedef struct LlmAddedSink
{
	bool (*text)(void *arg, const char *start, size_t off, size_t len,
				 LlmError *err);
	bool (*token)(void *arg, int32_t token_id, const LlmAddedPlace *behind,
				  LlmError *err);
	void *arg;
	LlmAddedPlace from; /* where to begin: zeros, or behind a token */
} LlmAddedSink;

/* One of the two sets of patterns, with an index by first byte. */
typedef struct LlmAddedMatcher
{
	const LlmTokenImage *image;
	const LlmTokenPattern *patterns; /* sorted by text */
	size_t n_patterns;
	uint32_t first[257]; /* patterns that start with byte b: [b], [b + 1] */
	bool keep_special;	 /* leave special tokens in the text */
} LlmAddedMatcher;

extern void
llm_added_matcher_init(LlmAddedMatcher *matcher, const LlmTokenImage *image,
					   LlmTokenSectionId section);
extern bool
llm_added_matcher_split(const LlmAddedMatcher *matcher, LlmEncodeGuard *guard,
						const char *text, size_t len, const LlmAddedSink *sink,
						LlmError *err);

/* ------------------------------------------------------- encode_memory.c */

#define LLM_MAX_ENCODE_MARKS 64

/* Behind an added token: what comes has nothing to do with what was. */
typedef struct LlmEncodeMark
{
	LlmAddedPlace place;
	size_t n_ids; /* of the text up to there */
} LlmEncodeMark;

/* The beginning of the text that was encoded last, up to its last mark. */
typedef struct LlmEncodeMemory
{
	LlmStrbuf text;
	LlmIdbuf ids;
	LlmEncodeMark marks[LLM_MAX_ENCODE_MARKS];
	size_t n_marks;
} LlmEncodeMemory;

/* Forget all. */
extern void llm_encode_memory_reset(LlmEncodeMemory *memory);
extern void llm_encode_memory_free(LlmEncodeMemory *memory);

/*
 * Append the ids of the longest beginning of a text that is known; returns
 * where to go on.  Marks behind it are dropped.
 */
extern LlmAddedPlace
llm_encode_memory_recall(LlmEncodeMemory *memory, const char *text, size_t len,
						 LlmIdbuf *out);

/* The text that is being encoded got an added token. */
extern void llm_encode_memory_mark(LlmEncodeMemory *memory,
								   const LlmAddedPlace *behind, size_t n_ids);

/* The text is encoded, into these ids. */
extern void llm_encode_memory_keep(LlmEncodeMemory *memory, const char *text,
								   size_t len, const int32_t *ids);

/* --------------------------------------------------------- pre_tokenize.c */

typedef struct LlmPreTokenizer
{
	LlmStepRow row;
	LlmEncodeGuard *guard;
	LlmStrbuf *buffers; /* [n_steps]: a rewriting step's text */
	bool (*word)(void *arg, LlmPiece word, LlmError *err);
	void *arg;
} LlmPreTokenizer;

extern bool
llm_pre_tokenizer_init(LlmPreTokenizer *pre, const LlmTokenStep *steps,
					   size_t n_steps, LlmError *err);
extern void llm_pre_tokenizer_free(LlmPreTokenizer *pre);

/* Cut a piece into words and hand each to pre->word. */
extern bool
llm_pre_tokenizer_run(LlmPreTokenizer *pre, LlmPiece piece, LlmError *err);

/* -------------------------------------------------------------------- bpe.c */

typedef struct LlmBpe LlmBpe;

extern LlmBpe *llm_bpe_create(const LlmTokenImage *image, LlmEncodeGuard *guard,
							  LlmError *err);
extern void llm_bpe_free(LlmBpe *bpe);

/* Append the ids of a word. */
extern bool llm_bpe_encode_word(LlmBpe *bpe, const char *word, size_t len,
								LlmIdbuf *out, LlmError *err);

/* -------------------------------------------------------------- unigram.c */

typedef struct LlmUnigram LlmUnigram;

extern LlmUnigram *llm_unigram_create(const LlmTokenImage *image,
									  LlmEncodeGuard *guard, LlmError *err);
extern void llm_unigram_free(LlmUnigram *unigram);
extern bool llm_unigram_encode_word(LlmUnigram *unigram, const char *word,
									size_t len, LlmIdbuf *out, LlmError *err);

/* ----------------------------------------------------------- word_piece.c */

typedef struct LlmWordPiece LlmWordPiece;

extern LlmWordPiece *
llm_word_piece_create(const LlmTokenImage *image, LlmEncodeGuard *guard,
					  LlmError *err);
extern void llm_word_piece_free(LlmWordPiece *wp);
extern bool
llm_word_piece_encode_word(LlmWordPiece *wp, const char *word, size_t len,
						   LlmIdbuf *out, LlmError *err);

/* ----------------------------------------------------------- word_model.c */

/* Whichever model the image has. */
typedef struct LlmWordModel LlmWordModel;

extern LlmWordModel *
llm_word_model_create(const LlmTokenImage *image, LlmEncodeGuard *guard,
					  LlmError *err);
extern void llm_word_model_free(LlmWordModel *model);
extern bool llm_word_model_encode(LlmWordModel *model, const char *word,
								  size_t len, LlmIdbuf *out, LlmError *err);

/*
 * For the models: ids leave the image here, checked, since no other may reach
 * a model's embedding table.
 */
extern bool
llm_word_model_append(const LlmTokenImage *image, const int32_t *ids, size_t n,
					  LlmIdbuf *out, LlmError *err);

/* The unknown token; an error where the vocabulary has none. */
extern bool llm_word_model_append_unknown(const LlmTokenImage *image,
										  LlmIdbuf *out, LlmError *err);

/* ------------------------------------------------------------------ handle */

struct LlmTokenizer
{
	LlmTokenImage image;
	LlmEncodeGuard guard;
	LlmAddedMatcher raw_matcher;
	LlmAddedMatcher normalized_matcher;
	LlmNormalizer normalizer;
	LlmPreTokenizer pre;
	LlmStepRow decoders;
	LlmWordModel *model;	 /* made by the first encoding */
	LlmDetokenizer *decoder; /* llm_tokenizer_decode's own, likewise */
	LlmStrbuf repaired;		 /* input that was no valid UTF-8 */
	LlmEncodeMemory memory;
};

/* --------------------------------------------------------- decode_steps.c */

/*
 * The decoders of a tokenizer as a chain of stages that text flows through.
 * A stage gets whole tokens, or (behind the first one that joins them) one
 * token in chunks that never end within a character.
 */
typedef struct LlmDecodeChain LlmDecodeChain;

extern LlmDecodeChain *llm_decode_chain_create(LlmStepRow *row, LlmError *err);
extern void llm_decode_chain_free(LlmDecodeChain *chain);
extern void llm_decode_chain_reset(LlmDecodeChain *chain);

/* Only whole texts will be decoded: what may wait for more of them, does. */
extern void llm_decode_chain_expect_whole(LlmDecodeChain *chain);

/* Feed a token; what can be said of the text for sure goes to out. */
extern bool llm_decode_chain_token(LlmDecodeChain *chain, const char *token,
								   size_t len, LlmStrbuf *out, LlmError *err);
extern bool
llm_decode_chain_end(LlmDecodeChain *chain, LlmStrbuf *out, LlmError *err);

/* The bytes a token stands for on its own. */
extern bool llm_decode_token_bytes(LlmStepRow *row, const char *token,
								   size_t len, LlmStrbuf *out, LlmError *err);

/* Byte of a token such as <0x0A>, or -1. */
extern int llm_decode_fallback_byte(const char *token, size_t len);

#endif /* LLM_TOKENIZER_INTERNAL_H */

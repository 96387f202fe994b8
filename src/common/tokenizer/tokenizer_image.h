/*
 * tokenizer_image.h
 *	  The compiled tokenizer: layout, and reading it safely.
 *
 * An image is a header and a row of sections, each an array of fixed-size
 * elements at an 8-byte aligned offset.  Strings live in the blob section and
 * are named by LlmTokenText.  Nothing in it is a pointer, so it can be mapped
 * anywhere.
 *
 * Opening checks the header and the bounds of every section, not what is in
 * them: that would touch megabytes.  So whoever follows an offset, an index
 * or an id out of the image goes through the functions below, which answer
 * "absent" for what lies outside.  A damaged image gives errors or wrong ids,
 * never a wild access.
 *
 * src/common/tokenizer/tokenizer_image.h
 */
#ifndef LLM_TOKENIZER_IMAGE_H
#define LLM_TOKENIZER_IMAGE_H

#include <stddef.h>
#include <string.h>

#include "src/common/util/error.h"

#define LLM_TOKEN_IMAGE_MAGIC "LLMTOKEN"
#define LLM_TOKEN_IMAGE_VERSION 2

/* Bounds that keep a hostile tokenizer.json from taking all memory. */
#define LLM_TOKEN_MAX_IDS (1 << 24)
#define LLM_TOKEN_MAX_STEPS 64

/* A string in the blob. */
typedef struct LlmTokenText
{
	uint32_t off;
	uint32_t len;
} LlmTokenText;

typedef enum LlmTokenSectionId
{
	LLM_TOKEN_BLOB,			 /* bytes */
	LLM_TOKEN_VOCAB,		 /* LlmTokenVocabEntry, the model's vocabulary */
	LLM_TOKEN_VOCAB_HASH,	 /* LlmTokenHashSlot, open addressing */
	LLM_TOKEN_IDS,			 /* LlmTokenIdEntry, by token id */
	LLM_TOKEN_MERGES,		 /* LlmTokenMerge, open addressing */
	LLM_TOKEN_MERGE_PAIRS,	 /* uint64_t, bitmap of symbols that may merge */
	LLM_TOKEN_BYTE_IDS,		 /* int32_t [512], see LlmTokenByteTable */
	LLM_TOKEN_TRIE,			 /* LlmTokenTrieNode, the root first; not for BPE */
	LLM_TOKEN_SCORES,		 /* double, by vocabulary entry: Unigram only */
	LLM_TOKEN_ADDED,		 /* LlmTokenAdded */
	LLM_TOKEN_ADDED_NAMES,	 /* LlmTokenAddedName, sorted */
	LLM_TOKEN_PATTERNS_RAW,	 /* LlmTokenPattern, sorted: on raw text */
	LLM_TOKEN_PATTERNS_NORM, /* LlmTokenPattern, sorted: on normalized */
	LLM_TOKEN_NORMALIZERS,	 /* LlmTokenStep */
	LLM_TOKEN_PRE_TOKENIZERS,
	LLM_TOKEN_DECODERS,
	LLM_TOKEN_POST_PIECES, /* int32_t: an id, or LLM_TOKEN_POST_TEXT */
	LLM_TOKEN_SECTION_COUNT
} LlmTokenSectionId;

typedef struct LlmTokenSection
{
	uint64_t off;
	uint64_t count; /* elements */
} LlmTokenSection;

typedef enum LlmTokenModelKind
{
	LLM_TOKEN_MODEL_BPE,
	LLM_TOKEN_MODEL_UNIGRAM,
	LLM_TOKEN_MODEL_WORD_PIECE,
	LLM_TOKEN_MODEL_WORD_LEVEL
} LlmTokenModelKind;

/* flags of the header */
#define LLM_TOKEN_MODEL_BYTE_LEVEL 0x01	 /* words reach the model as bytes */
#define LLM_TOKEN_MODEL_BYTES_KNOWN 0x02 /* ... and each byte has its id */
#define LLM_TOKEN_MODEL_BYTE_FALLBACK 0x04
#define LLM_TOKEN_MODEL_IGNORE_MERGES 0x08
#define LLM_TOKEN_MODEL_FUSE_UNK 0x10
#define LLM_TOKEN_KEEP_SPECIAL_TEXT 0x20 /* text never names special tokens */

#define LLM_TOKEN_NO_UNK (-1)	   /* no unknown token is configured */
#define LLM_TOKEN_MISSING_UNK (-2) /* one is, but the vocabulary lacks it */

typedef struct LlmTokenImageHeader
{
	char magic[8];
	uint32_t version;
	uint32_t header_bytes;
	uint64_t image_bytes;
	uint32_t n_ids; /* token ids are 0 .. n_ids - 1 */
	uint32_t flags;
	int32_t unk_id;
	uint32_t model_kind;		 /* an LlmTokenModelKind */
	double unk_score;			 /* Unigram: of a character that is unknown */
	uint64_t max_word_chars;	 /* WordPiece: longer words are unknown */
	LlmTokenText subword_prefix; /* continuing_subword_prefix */
	LlmTokenText word_suffix;	 /* end_of_word_suffix */
	LlmTokenSection sections[LLM_TOKEN_SECTION_COUNT];
} LlmTokenImageHeader;

typedef struct LlmTokenVocabEntry
{
	LlmTokenText text;
	int32_t token_id;
} LlmTokenVocabEntry;

typedef struct LlmTokenHashSlot
{
	uint32_t hash;
	uint32_t entry; /* index into LLM_TOKEN_VOCAB plus 1; 0 = free */
} LlmTokenHashSlot;

typedef struct LlmTokenIdEntry
{
	uint32_t entry; /* index into LLM_TOKEN_VOCAB plus 1; 0 = none */
	uint32_t added; /* index into LLM_TOKEN_ADDED plus 1; 0 = none */
} LlmTokenIdEntry;

/* A pair of ids that merges; a free slot has rank UINT32_MAX. */
typedef struct LlmTokenMerge
{
	int32_t left;
	int32_t right;
	uint32_t rank;
	int32_t new_id;
} LlmTokenMerge;

/*
 * A node of the trie of all contents, by bytes.  The children of a node stand
 * side by side, ordered by label.
 */
typedef struct LlmTokenTrieNode
{
	uint32_t first_child;
	uint32_t entry; /* index into LLM_TOKEN_VOCAB plus 1; 0 = no content */
	uint16_t n_children;
	uint8_t label;
	uint8_t reserved;
} LlmTokenTrieNode;

/* The two halves of LLM_TOKEN_BYTE_IDS; -1 where the vocabulary has none. */
typedef enum LlmTokenByteTable
{
	LLM_TOKEN_BYTE_LEVEL_IDS = 0, /* the byte-level alphabet's characters */
	LLM_TOKEN_FALLBACK_IDS = 256  /* <0x00> .. <0xFF> */
} LlmTokenByteTable;

#define LLM_TOKEN_N_BYTE_IDS 512

#define LLM_ADDED_SINGLE_WORD 0x01
#define LLM_ADDED_LSTRIP 0x02
#define LLM_ADDED_RSTRIP 0x04
#define LLM_ADDED_NORMALIZED 0x08
#define LLM_ADDED_SPECIAL 0x10
#define LLM_ADDED_SKIPPED 0x20 /* skip_special_tokens leaves it out */

typedef struct LlmTokenAdded
{
	LlmTokenText content;
	LlmTokenText decoded; /* what decoders are fed; often the content */
	int32_t token_id;
	uint32_t flags;
} LlmTokenAdded;

typedef struct LlmTokenAddedName
{
	LlmTokenText content;
	int32_t token_id;
} LlmTokenAddedName;

typedef struct LlmTokenPattern
{
	LlmTokenText text;
	uint32_t added; /* index into LLM_TOKEN_ADDED */
} LlmTokenPattern;

#define LLM_TOKEN_POST_TEXT (-1) /* where the text's own ids go */

/* Kinds of steps; what "flags", "text" and "numbers" mean for each. */
typedef enum LlmTokenStepKind
{
	/* normalizers */
	LLM_NORM_PREPEND = 1, /* text[0] */
	LLM_NORM_REPLACE,	  /* text[0] literal by text[1] */
	LLM_NORM_REPLACE_REGEX,
	LLM_NORM_NFC,
	LLM_NORM_NFD,
	LLM_NORM_NFKC,
	LLM_NORM_NFKD,
	LLM_NORM_LOWERCASE,
	LLM_NORM_STRIP, /* numbers: left, right */
	LLM_NORM_STRIP_ACCENTS,
	LLM_NORM_NMT,
	LLM_NORM_BYTE_LEVEL,
	LLM_NORM_CHARSMAP,		   /* text[0] trie, text[1] replacements */
	LLM_NORM_CLEAN_TEXT,	   /* no controls, white space to spaces */
	LLM_NORM_SPACE_IDEOGRAPHS, /* a space before and behind each */
	LLM_NORM_STRIP_NONSPACING,

	/* pre-tokenizers; numbers[0] = LlmSplitBehavior, [1] = invert */
	LLM_PRE_SPLIT = 32,	  /* on text[0] */
	LLM_PRE_SPLIT_REGEX,  /* on text[0] */
	LLM_PRE_DIGITS,		  /* is_numeric */
	LLM_PRE_PUNCTUATION,  /* Unicode P* and ASCII punctuation */
	LLM_PRE_WHITESPACE,	  /* White_Space */
	LLM_PRE_WORDS,		  /* keep \w+ and [^\w\s]+ */
	LLM_PRE_PREFIX_SPACE, /* a space in front, unless one is there */
	LLM_PRE_METASPACE,	  /* text[0]; numbers[0] = LlmPrependScheme */
	LLM_PRE_BYTE_LEVEL,	  /* bytes to the byte-level alphabet */
	LLM_PRE_FIXED_LENGTH, /* numbers[0] characters each */
	LLM_PRE_SCRIPTS,	  /* where the script changes */

	/* decoders */
	LLM_DEC_BYTE_LEVEL = 64,
	LLM_DEC_REPLACE,	   /* text[0] literal by text[1] */
	LLM_DEC_REPLACE_REGEX, /* text[0] by text[1] */
	LLM_DEC_BYTE_FALLBACK,
	LLM_DEC_FUSE,
	LLM_DEC_STRIP,		/* character text[0]; numbers: start, stop */
	LLM_DEC_METASPACE,	/* text[0]; numbers[0] = LlmPrependScheme */
	LLM_DEC_BPE_SUFFIX, /* text[0] becomes a space, or nothing at the end */
	LLM_DEC_JOIN_SPACE, /* no decoder: tokens with spaces between */
	LLM_DEC_WORD_PIECE, /* a space in front, or the prefix text[0] gone */
	LLM_DEC_DEDUP,		/* equal tokens in a row are one */
	LLM_DEC_DROP_EMPTY	/* empty tokens are none */
} LlmTokenStepKind;

typedef enum LlmSplitBehavior
{
	LLM_SPLIT_REMOVED,
	LLM_SPLIT_ISOLATED,
	LLM_SPLIT_MERGED_WITH_PREVIOUS,
	LLM_SPLIT_MERGED_WITH_NEXT,
	LLM_SPLIT_CONTIGUOUS
} LlmSplitBehavior;

typedef enum LlmPrependScheme
{
	LLM_PREPEND_ALWAYS,
	LLM_PREPEND_FIRST,
	LLM_PREPEND_NEVER
} LlmPrependScheme;

typedef struct LlmTokenStep
{
	uint32_t kind; /* an LlmTokenStepKind */
	uint32_t reserved;
	LlmTokenText text[2];
	int32_t numbers[2];
} LlmTokenStep;

/* The parts of an image, located once when it is opened. */
typedef struct LlmTokenImage
{
	const LlmTokenImageHeader *header;
	const char *blob;
	const LlmTokenVocabEntry *vocab;
	const LlmTokenHashSlot *vocab_hash;
	const LlmTokenIdEntry *ids;
	const LlmTokenMerge *merges;
	const uint64_t *merge_pairs;
	const int32_t *byte_ids;
	const LlmTokenTrieNode *trie;
	const double *scores;
	const LlmTokenAdded *added;
	const LlmTokenAddedName *added_names;
	size_t n_blob_bytes;
	uint32_t n_vocab_entries;
	uint32_t vocab_hash_mask;
	uint32_t merge_mask;
	uint32_t n_trie_nodes;
	uint64_t merge_pair_mask; /* of bit numbers */
	uint32_t n_ids;
	uint32_t n_added;
	uint32_t n_added_names;
} LlmTokenImage;

/* Elements of a section are this large. */
extern size_t llm_token_section_element_bytes(LlmTokenSectionId section);

/* Check and locate.  The bytes are borrowed. */
extern bool llm_token_image_open(LlmTokenImage *image, const void *bytes,
								 size_t n_bytes, LlmError *err);

/* The elements of a section; their number in *count. */
extern const void *
llm_token_image_section(const LlmTokenImage *image, LlmTokenSectionId section,
						size_t *count);

/* The model's id of a token's content, or -1. */
extern int32_t
llm_token_image_find(const LlmTokenImage *image, const char *text, size_t len);

/* The id of an added token's content, or -1. */
extern int32_t llm_token_image_find_added(const LlmTokenImage *image,
										  const char *text, size_t len);

/* NULL where the id is no added token. */
extern const LlmTokenAdded *
llm_token_image_added(const LlmTokenImage *image, int32_t token_id);

/* A model token's content; NULL where the model has no such id. */
extern const char *llm_token_image_content(const LlmTokenImage *image,
										   int32_t token_id, size_t *len);

/* A string, or NULL (and length 0) where it lies outside the blob. */
static inline const char *
llm_token_image_text(const LlmTokenImage *image, LlmTokenText text, size_t *len)
{
	if ((uint64_t) text.off + text.len > image->n_blob_bytes)
	{
		*len = 0;
		return NULL;
	}
	*len = text.len;
	return image->blob + text.off;
}

static inline uint32_t
llm_token_hash_text(const char *text, size_t len)
{
	uint64_t hash = 0x9E3779B97F4A7C15u ^ len;

	while (len >= 8)
	{
		uint64_t word;

		memcpy(&word, text, 8);
		hash = (hash ^ word) * 0xFF51AFD7ED558CCDu;
		hash ^= hash >> 32;
		text += 8;
		len -= 8;
	}
	if (len > 0)
	{
		uint64_t word = 0;

		memcpy(&word, text, len);
		hash = (hash ^ word) * 0xFF51AFD7ED558CCDu;
		hash ^= hash >> 32;
	}
	hash *= 0xC4CEB9FE1A85EC53u;
	return (uint32_t) (hash >> 32);
}

static inline uint32_t
llm_token_hash_pair(int32_t left, int32_t right)
{
	uint64_t pair = ((uint64_t) (uint32_t) left << 32) | (uint32_t) right;

	pair *= 0x9E3779B97F4A7C15u;
	return (uint32_t) (pair >> 32) ^ (uint32_t) (pair >> 15);
}

/* The merge of a pair of ids, or NULL. */
static inline const LlmTokenMerge *
llm_token_image_merge(const LlmTokenImage *image, int32_t left, int32_t right)
{
	uint32_t at = llm_token_hash_pair(left, right);

	/* the bound matters only in a damaged image without a free slot */
	for (uint32_t probes = 0; probes <= image->merge_mask; probes++, at++)
	{
		const LlmTokenMerge *slot = &image->merges[at & image->merge_mask];

		if (slot->rank == UINT32_MAX)
			return NULL;
		if (slot->left == left && slot->right == right)
			return slot;
	}
	return NULL;
}

/* Where a search of the trie starts. */
#define LLM_TOKEN_TRIE_ROOT 0

/* The child of a node by its label, or 0 (the root is nobody's child). */
static inline uint32_t
llm_token_image_child(const LlmTokenImage *image, uint32_t node_idx,
					  unsigned char label)
{
	uint32_t low;
	uint32_t high;

	if (node_idx >= image->n_trie_nodes)
		return 0;
	low = image->trie[node_idx].first_child;
	high = low + image->trie[node_idx].n_children;
	if (low > image->n_trie_nodes || high > image->n_trie_nodes)
		return 0;
	while (low < high)
	{
		uint32_t middle = low + (high - low) / 2;

		if (image->trie[middle].label == label)
			return middle;
		if (image->trie[middle].label < label)
			low = middle + 1;
		else
			high = middle;
	}
	return 0;
}

/* The vocabulary entry whose content ends at a node, or NULL. */
static inline const LlmTokenVocabEntry *
llm_token_image_trie_entry(const LlmTokenImage *image, uint32_t node_idx)
{
	uint32_t entry =
		node_idx < image->n_trie_nodes ? image->trie[node_idx].entry : 0;

	return entry == 0 || entry > image->n_vocab_entries
			   ? NULL
			   : &image->vocab[entry - 1];
}

/*
 * False where no chain of merges can ever join two neighbouring symbols: a
 * word may be cut between them.  True says nothing (it is a hashed bitmap).
 */
static inline bool
llm_token_image_may_merge(const LlmTokenImage *image, int32_t left,
						  int32_t right)
{
	uint64_t bit = llm_token_hash_pair(left, right) & image->merge_pair_mask;

	return (image->merge_pairs[bit >> 6] >> (bit & 63)) & 1;
}

#endif /* LLM_TOKENIZER_IMAGE_H */

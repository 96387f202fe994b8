/*
 * gguf_internal.h
 *	  What the files of this room share.
 *
 * src/common/gguf/gguf_internal.h
 */
#ifndef LLM_GGUF_INTERNAL_H
#define LLM_GGUF_INTERNAL_H

#include <cjson/cJSON.h>

#include "src/common/gguf/gguf.h"
#include "src/common/util/arena.h"
#include "src/common/util/mapped_file.h"

#define GGUF_MAX_FILES 1024
#define GGUF_MAX_KEY_BYTES 255
#define GGUF_MAX_NAME_BYTES 127
#define GGUF_MAX_ARRAY_DEPTH 4
#define GGUF_MAX_ALIGNMENT (1 << 20)

/* The file's numbers for types of values. */
typedef enum GgufType
{
	GGUF_UINT8,
	GGUF_INT8,
	GGUF_UINT16,
	GGUF_INT16,
	GGUF_UINT32,
	GGUF_INT32,
	GGUF_FLOAT32,
	GGUF_BOOL,
	GGUF_STRING,
	GGUF_ARRAY,
	GGUF_UINT64,
	GGUF_INT64,
	GGUF_FLOAT64,
	GGUF_TYPE_COUNT
} GgufType;

typedef struct GgufEntry
{
	const char *key; /* in the arena */
	uint32_t type;
	const char *value; /* in the mapping; checked */
} GgufEntry;

typedef struct GgufFile
{
	const char *path;  /* in the arena */
	LlmMappedFile map; /* unmapped on closing where is_mapped */
	bool is_mapped;
	GgufEntry *entries; /* sorted by key, no two alike; in the arena */
	size_t n_entries;
} GgufFile;

struct LlmGguf
{
	LlmArena *arena; /* names, paths and arrays */
	GgufFile *files; /* the first has the metadata */
	int n_files;
	LlmGgufTensor *tensors; /* sorted by name, no two alike; malloc'ed */
	size_t n_tensors;
};

/* gguf_header.c: check a file's header and append its tensors. */
extern bool gguf_read_header(LlmGguf *gguf, int file_idx, LlmError *err);

/* gguf_values.c */
extern const GgufEntry *gguf_find_entry(const GgufFile *file, const char *key);
extern size_t gguf_type_bytes(uint32_t type); /* 0 for texts and arrays */
extern uint32_t gguf_load_u32(const char *bytes);
extern uint64_t gguf_load_u64(const char *bytes);
extern bool gguf_load_number(uint32_t type, const char *bytes, double *number);

/* An integer of metadata of one of a split file's pieces. */
extern bool gguf_file_get_int(const GgufFile *file, const char *key,
							  int64_t *value, LlmError *err);

/* gguf_names.c: what an architecture of GGUF files is on Hugging Face. */
typedef struct GgufNamePair
{
	const char *gguf; /* '#' stands for the layer */
	const char *other;
} GgufNamePair;

typedef struct GgufConfig GgufConfig;

typedef struct GgufArchitecture
{
	const char *name;		  /* general.architecture */
	const char *architecture; /* config.json's */
	const char *model_type;
	const GgufNamePair *names; /* beyond the common ones; ends with NULL */
	bool pairs_rows;		   /* of q and k */
	bool adds_one;			   /* to norms */

	/* What of config.json is its own; NULL where nothing is. */
	bool (*write_config)(GgufConfig *config);
} GgufArchitecture;

/* "<architecture>.<name>", a metadata key */
typedef struct GgufKey
{
	char text[GGUF_MAX_KEY_BYTES + 1];
} GgufKey;

extern GgufKey gguf_key(const GgufArchitecture *architecture, const char *name);

/* gguf_architectures.c; NULL: unsupported, or the file does not say */
extern const GgufArchitecture *
gguf_architecture(const LlmGguf *gguf, LlmError *err);

/* A config.json that is being made. */
struct GgufConfig
{
	const LlmGguf *gguf;
	const GgufArchitecture *architecture;
	bool *is_read; /* [entries of the first file]: whether someone looked */
	cJSON *out;
	bool failed; /* out of memory */
	LlmError *err;
};

/*
 * gguf_config.c, for architectures.  A "name" is a metadata key without the
 * architecture before it, a "key" is config.json's.
 */
extern bool
gguf_config_copy(GgufConfig *config, const char *name, const char *key);
extern bool
gguf_config_get(const GgufConfig *config, const char *name, double *value);
extern bool gguf_config_has(const GgufConfig *config, const char *name);
extern void gguf_config_set(GgufConfig *config, const char *key, double number);
extern void
gguf_config_set_bool(GgufConfig *config, const char *key, bool value);
extern void
gguf_config_set_text(GgufConfig *config, const char *key, const char *text);
extern void gguf_config_set_model(GgufConfig *config, const char *architecture,
								  const char *model_type);
extern bool gguf_config_unsupported(const GgufConfig *config, const char *fmt,
									...) __attribute__((format(printf, 2, 3)));

/* gguf_config_rope.c */
extern bool gguf_config_write_rope(GgufConfig *config);

/* The number with the fewest digits that is this float: 1e-5, not 9.99e-6. */
extern double gguf_shortest_number(float value);

/* gguf_config.c, gguf_tokens.c, gguf_tokenizer.c: texts of llm_gguf_text */
extern bool
gguf_write_config(const LlmGguf *gguf, LlmStrbuf *text, LlmError *err);
extern bool gguf_write_generation_config(const LlmGguf *gguf, LlmStrbuf *text,
										 bool *found, LlmError *err);
extern bool gguf_write_tokenizer_config(const LlmGguf *gguf, LlmStrbuf *text,
										LlmError *err);
extern bool
gguf_write_tokenizer(const LlmGguf *gguf, LlmStrbuf *text, LlmError *err);

/* gguf_tokens.c: "bos_token_id" and "eos_token_id" of a config */
extern bool gguf_config_write_token_ids(GgufConfig *config);

/* Append an object's text. */
extern bool gguf_print_json(const cJSON *json, LlmStrbuf *text, LlmError *err);

#endif /* LLM_GGUF_INTERNAL_H */

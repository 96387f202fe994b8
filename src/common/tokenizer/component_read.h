/*
 * component_read.h
 *	  What the compilers of components share: reading a component's JSON, and
 *	  writing its steps.
 *
 *	  component_compile.c	normalizers and pre-tokenizers; the entry
 *	  decoder_compile.c		decoders and post-processors
 *
 * A function that fails has composed a message with the component's name.
 *
 * src/common/tokenizer/component_read.h
 */
#ifndef LLM_COMPONENT_READ_H
#define LLM_COMPONENT_READ_H

#include "src/common/tokenizer/tokenizer_compiler.h"

/* The component at work. */
typedef struct LlmComponent
{
	LlmImageBuilder *builder;
	LlmTokenSectionId section;
	const char *what; /* "normalizer" and so on */
	const char *type;
	const cJSON *json;
	int depth;
	LlmError *err;
} LlmComponent;

typedef bool (*LlmComponentCompiler)(LlmComponent *c);

/* The errors: an unknown type, and a key that is missing or malformed. */
extern bool llm_component_unsupported(const LlmComponent *c);
extern bool llm_component_malformed(const LlmComponent *c, const char *key);

/* Find out what kind of component it is. */
extern bool llm_component_read_type(LlmComponent *c);
extern bool llm_component_is(const LlmComponent *c, const char *type);

extern bool llm_component_need_string(const LlmComponent *c, const char *key,
									  const char **value);

/* A string of exactly one character. */
extern bool llm_component_need_char(const LlmComponent *c, const char *key,
									const char **value);

/* *value is the default where the key is absent. */
extern bool
llm_component_get_bool(const LlmComponent *c, const char *key, bool *value);
extern bool
llm_component_get_count(const LlmComponent *c, const char *key, int32_t *value);

extern bool llm_component_add_step(const LlmComponent *c, LlmTokenStep step);

/* A step that has but its first number. */
extern bool llm_component_add_plain(const LlmComponent *c,
									LlmTokenStepKind kind, int32_t number);
extern LlmTokenText
llm_component_add_text(const LlmComponent *c, const char *text);

/* Translate an expression and make sure that it compiles. */
extern bool llm_component_add_regex(const LlmComponent *c, const char *pattern,
									LlmTokenText *text);

/* The step's "pattern": its kind and text 0. */
extern bool
llm_component_add_pattern(const LlmComponent *c, LlmTokenStep *step,
						  LlmTokenStepKind literal, LlmTokenStepKind regex);

/* Metaspace's replacement and scheme, with an older name for it. */
extern bool
llm_component_read_metaspace(const LlmComponent *c, LlmTokenStep *step);

/* Compile each member of a "Sequence". */
extern bool llm_component_members(LlmComponent *c, const char *key,
								  LlmComponentCompiler compile);

/* Decoders, with what the configuration says of spaces, and post-processors. */
extern bool
llm_compile_decoders(LlmComponent *c, const cJSON *root, const cJSON *config);
extern bool llm_compile_post_processors(LlmComponent *c, const cJSON *root);

#endif /* LLM_COMPONENT_READ_H */

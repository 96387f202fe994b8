/*
 * jinja_limits.h
 *	  Every bound on what a chat template and its input may ask for.
 *
 * A template and the messages are outside input.  The nesting bounds also
 * bound our own recursion: the deepest rendering uses about 1 MiB of stack.
 *
 * src/common/template/jinja_limits.h
 */
#ifndef LLM_JINJA_LIMITS_H
#define LLM_JINJA_LIMITS_H

/* Compiling: the template's text and what its tree may take. */
#define LLM_JINJA_MAX_SOURCE_BYTES ((size_t) 1 << 20)
#define LLM_JINJA_MAX_TREE_BYTES ((size_t) 128 << 20)

/* Parentheses, statements and operator chains within each other. */
#define LLM_JINJA_MAX_NESTING 150

/* Rendering: nodes being evaluated within each other, macro calls included. */
#define LLM_JINJA_MAX_DEPTH 2000

/* Lists within lists, in the JSON input and in values a template builds. */
#define LLM_JINJA_MAX_VALUE_DEPTH 300

/* About one step per node evaluated, character compared, item visited. */
#define LLM_JINJA_MAX_STEPS ((uint64_t) 20 * 1000 * 1000)
#define LLM_JINJA_STEPS_PER_POLL 1024

#define LLM_JINJA_MAX_MEMORY_BYTES ((size_t) 256 << 20)
#define LLM_JINJA_MAX_OUTPUT_BYTES ((size_t) 64 << 20)

/* The same two bounds as in Python's sandbox and integer parser. */
#define LLM_JINJA_MAX_RANGE 100000
#define LLM_JINJA_MAX_DIGITS 4300

#endif /* LLM_JINJA_LIMITS_H */

/*
 * jinja_lexer.h
 *	  Tokens of a template.
 *
 * src/common/template/jinja_lexer.h
 */
#ifndef LLM_JINJA_LEXER_H
#define LLM_JINJA_LEXER_H

#include "src/common/template/jinja_value.h"

typedef enum LlmJinjaTokenKind
{
	LLM_JINJA_TOKEN_DATA,
	LLM_JINJA_TOKEN_VARIABLE_BEGIN,
	LLM_JINJA_TOKEN_VARIABLE_END,
	LLM_JINJA_TOKEN_BLOCK_BEGIN,
	LLM_JINJA_TOKEN_BLOCK_END,
	LLM_JINJA_TOKEN_NAME,
	LLM_JINJA_TOKEN_STRING,
	LLM_JINJA_TOKEN_INTEGER,
	LLM_JINJA_TOKEN_FLOAT,
	LLM_JINJA_TOKEN_END,   /* of the template */
	LLM_JINJA_TOKEN_ERROR, /* value: the message */

	LLM_JINJA_TOKEN_ADD,
	LLM_JINJA_TOKEN_ASSIGN,
	LLM_JINJA_TOKEN_COLON,
	LLM_JINJA_TOKEN_COMMA,
	LLM_JINJA_TOKEN_DIV,
	LLM_JINJA_TOKEN_DOT,
	LLM_JINJA_TOKEN_EQ,
	LLM_JINJA_TOKEN_FLOORDIV,
	LLM_JINJA_TOKEN_GT,
	LLM_JINJA_TOKEN_GTEQ,
	LLM_JINJA_TOKEN_LBRACE,
	LLM_JINJA_TOKEN_LBRACKET,
	LLM_JINJA_TOKEN_LPAREN,
	LLM_JINJA_TOKEN_LT,
	LLM_JINJA_TOKEN_LTEQ,
	LLM_JINJA_TOKEN_MOD,
	LLM_JINJA_TOKEN_MUL,
	LLM_JINJA_TOKEN_NE,
	LLM_JINJA_TOKEN_PIPE,
	LLM_JINJA_TOKEN_POW,
	LLM_JINJA_TOKEN_RBRACE,
	LLM_JINJA_TOKEN_RBRACKET,
	LLM_JINJA_TOKEN_RPAREN,
	LLM_JINJA_TOKEN_SEMICOLON,
	LLM_JINJA_TOKEN_SUB,
	LLM_JINJA_TOKEN_TILDE
} LlmJinjaTokenKind;

typedef struct LlmJinjaToken
{
	LlmJinjaTokenKind kind;
	int line;
	LlmJinjaValue value; /* of data, names, literals and errors */
} LlmJinjaToken;

/*
 * The tokens of a whole template, ending in END or ERROR: what is wrong
 * within is an ERROR token, so that the parser reports what comes first.
 * Fails only for want of memory or for a source that is no text.
 */
extern bool llm_jinja_tokenize(LlmJinjaRun *run, const char *source, size_t len,
							   LlmJinjaToken **tokens);

/* "end of print statement", ",", the name itself: for messages. */
extern const char *llm_jinja_describe_token_kind(LlmJinjaTokenKind kind);

/* ---- literals (jinja_literal.c) ---- */

/* What stands between the quotes, decoded; *problem: what is wrong, or NULL. */
extern void llm_jinja_decode_string(const char *text, size_t len,
									LlmStrbuf *buf, const char **problem);

/* The end of the float at a digit, or "start" where there is none. */
extern size_t llm_jinja_match_float(const LlmJinjaString *source, size_t start);

/* The end of the integer at a digit; *base is 2, 8, 10 or 16. */
extern size_t
llm_jinja_match_integer(const LlmJinjaString *source, size_t start, int *base);

#endif /* LLM_JINJA_LEXER_H */

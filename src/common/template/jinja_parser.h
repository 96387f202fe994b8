/*
 * jinja_parser.h
 *	  What the parts of the parser share.
 *
 * jinja_parser.c holds the statements, jinja_expression.c the operators,
 * jinja_primary.c what they connect, jinja_token_stream.c the tokens.
 *
 * src/common/template/jinja_parser.h
 */
#ifndef LLM_JINJA_PARSER_H
#define LLM_JINJA_PARSER_H

#include "src/common/template/jinja_ast.h"
#include "src/common/template/jinja_lexer.h"

typedef struct LlmJinjaParser
{
	LlmJinjaRun *run;
	const LlmJinjaToken *token; /* the current one; the last is END or ERROR */
	int nesting;
	int n_loops; /* loops around us that break and continue can leave */

	/* for messages about tags that do not fit */
	const LlmJinjaString *tags[LLM_JINJA_MAX_NESTING + 1];
	int n_tags;
	const char *const *ends[LLM_JINJA_MAX_NESTING + 1]; /* NULL-terminated */
	int n_ends;
} LlmJinjaParser;

/* ---- tokens ---- */

extern bool
llm_jinja_parse_fail(LlmJinjaParser *parser, int line, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* An unknown tag, or (name NULL) the end of the template within a tag. */
extern bool llm_jinja_fail_tag(LlmJinjaParser *parser,
							   const LlmJinjaString *name, int line);

/* False where the current token is one that the lexer could not make. */
extern bool llm_jinja_check_token(LlmJinjaParser *parser);

/* Go one token ahead; false where the next token is wrong in itself. */
extern bool llm_jinja_advance(LlmJinjaParser *parser);
extern bool
llm_jinja_token_is(const LlmJinjaToken *token, LlmJinjaTokenKind kind);
extern bool
llm_jinja_token_is_name(const LlmJinjaToken *token, const char *name);

/* Go past the current token, which must be of that kind. */
extern bool llm_jinja_expect(LlmJinjaParser *parser, LlmJinjaTokenKind kind);
extern bool llm_jinja_expect_name(LlmJinjaParser *parser, const char *name);

/* Go past the current token where it is the one; *skipped says whether. */
extern bool llm_jinja_skip_if(LlmJinjaParser *parser, LlmJinjaTokenKind kind,
							  bool *skipped);
extern bool
llm_jinja_skip_name(LlmJinjaParser *parser, const char *name, bool *skipped);

/* For messages: the token's name in single quotes, in a buffer given. */
#define LLM_JINJA_DESCRIPTION_BYTES 160
extern const char *
llm_jinja_describe_token(LlmJinjaParser *parser, const LlmJinjaToken *token,
						 char *buffer);

/* Bound what is parsed within each other. */
extern bool llm_jinja_nest(LlmJinjaParser *parser);

/* ---- growing arrays of pointers ---- */

typedef struct LlmJinjaPointers
{
	void **items;
	size_t n_items;
	size_t capacity;
} LlmJinjaPointers;

extern bool
llm_jinja_append(LlmJinjaParser *parser, LlmJinjaPointers *list, void *item);

/* ---- expressions ---- */

typedef struct LlmJinjaTupleRules
{
	bool targets_only;	 /* only what can be assigned to */
	bool no_condition;	 /* "a if b" is not part of an item */
	bool in_parentheses; /* may be empty */
	bool with_namespace; /* targets may be "ns.x" */
} LlmJinjaTupleRules;

extern LlmJinjaExpr *
llm_jinja_make_expr(LlmJinjaParser *parser, LlmJinjaExprKind kind, int line);

/* Account for a child; false where it is NULL or the tree gets too high. */
extern bool llm_jinja_adopt(LlmJinjaParser *parser, LlmJinjaExpr *parent,
							const LlmJinjaExpr *child);

/* NULL where a child is. */
extern LlmJinjaExpr *
llm_jinja_make_unary(LlmJinjaParser *parser, LlmJinjaExprKind kind, int line,
					 LlmJinjaExpr *operand);
extern LlmJinjaExpr *
llm_jinja_make_binary(LlmJinjaParser *parser, LlmJinjaExprKind kind, int line,
					  LlmJinjaExpr *left, LlmJinjaExpr *right);
extern LlmJinjaExpr *
llm_jinja_make_list(LlmJinjaParser *parser, LlmJinjaExprKind kind, int line,
					const LlmJinjaPointers *items);

extern LlmJinjaExpr *
llm_jinja_parse_primary(LlmJinjaParser *parser, bool with_namespace);
extern LlmJinjaExpr *
llm_jinja_parse_postfix(LlmJinjaParser *parser, LlmJinjaExpr *expr);
extern LlmJinjaExpr *
llm_jinja_parse_filters_and_tests(LlmJinjaParser *parser, LlmJinjaExpr *expr);

extern LlmJinjaExpr *llm_jinja_parse_expression(LlmJinjaParser *parser);
extern LlmJinjaExpr *
llm_jinja_parse_tuple(LlmJinjaParser *parser, LlmJinjaTupleRules rules);

/* "|a|b(c)" behind an expression, or (first_name) "a|b(c)" behind "filter". */
extern bool llm_jinja_parse_filters(LlmJinjaParser *parser, bool first_name,
									LlmJinjaExpr **expr);

/* Names and tuples of them become targets; anything else is an error. */
extern bool llm_jinja_make_target(LlmJinjaParser *parser, LlmJinjaExpr *expr,
								  LlmJinjaNameUse use);

#endif /* LLM_JINJA_PARSER_H */

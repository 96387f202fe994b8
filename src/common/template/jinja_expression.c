/*
 * jinja_expression.c
 *	  Parse expressions: recursive descent, one function per precedence.
 *
 * The grammar is jinja2's, with its quirks: "not" binds looser than
 * comparisons, "~" tighter than "+", filters and tests tightest, an unary
 * minus tighter than "**".
 *
 * src/common/template/jinja_expression.c
 */
#include <assert.h>
#include <string.h>

#include "src/common/template/jinja_parser.h"

static LlmJinjaExpr *parse_or(LlmJinjaParser *parser);

/* ---- operators, tightest first ---- */

static LlmJinjaExpr *
parse_unary(LlmJinjaParser *parser, bool with_filter)
{
	const LlmJinjaToken *token = parser->token;
	LlmJinjaExpr *expr;

	if (!llm_jinja_nest(parser))
		return NULL;
	if (token->kind == LLM_JINJA_TOKEN_SUB ||
		token->kind == LLM_JINJA_TOKEN_ADD)
		expr =
			llm_jinja_advance(parser)
				? llm_jinja_make_unary(parser,
									   token->kind == LLM_JINJA_TOKEN_SUB
										   ? LLM_JINJA_EXPR_NEGATE
										   : LLM_JINJA_EXPR_PLUS,
									   token->line, parse_unary(parser, false))
				: NULL;
	else
		expr = llm_jinja_parse_primary(parser, false);
	expr = llm_jinja_parse_postfix(parser, expr);
	if (with_filter)
		expr = llm_jinja_parse_filters_and_tests(parser, expr);
	parser->nesting--;
	return expr;
}

/* "**" groups to the left here, unlike in Python. */
static LlmJinjaExpr *
parse_power(LlmJinjaParser *parser)
{
	int line = parser->token->line;
	LlmJinjaExpr *left = parse_unary(parser, true);

	while (left != NULL && parser->token->kind == LLM_JINJA_TOKEN_POW)
	{
		if (!llm_jinja_advance(parser))
			return NULL;
		left = llm_jinja_make_binary(parser, LLM_JINJA_EXPR_BINARY, line, left,
									 parse_unary(parser, true));
		if (left != NULL)
			left->op = LLM_JINJA_POWER;
		line = parser->token->line;
	}
	return left;
}

static bool
is_product_operator(LlmJinjaTokenKind kind, uint8_t *op)
{
	switch (kind)
	{
		case LLM_JINJA_TOKEN_MUL:
			*op = LLM_JINJA_MULTIPLY;
			return true;
		case LLM_JINJA_TOKEN_DIV:
			*op = LLM_JINJA_DIVIDE;
			return true;
		case LLM_JINJA_TOKEN_FLOORDIV:
			*op = LLM_JINJA_FLOOR_DIVIDE;
			return true;
		case LLM_JINJA_TOKEN_MOD:
			*op = LLM_JINJA_MODULO;
			return true;
		default:
			return false;
	}
}

static LlmJinjaExpr *
parse_product(LlmJinjaParser *parser)
{
	int line = parser->token->line;
	LlmJinjaExpr *left = parse_power(parser);
	uint8_t op;

	while (left != NULL && is_product_operator(parser->token->kind, &op))
	{
		if (!llm_jinja_advance(parser))
			return NULL;
		left = llm_jinja_make_binary(parser, LLM_JINJA_EXPR_BINARY, line, left,
									 parse_power(parser));
		if (left != NULL)
			left->op = op;
		line = parser->token->line;
	}
	return left;
}

static LlmJinjaExpr *
parse_concat(LlmJinjaParser *parser)
{
	int line = parser->token->line;
	LlmJinjaExpr *first = parse_product(parser);
	LlmJinjaPointers items = { 0 };

	if (first == NULL || parser->token->kind != LLM_JINJA_TOKEN_TILDE)
		return first;
	if (!llm_jinja_append(parser, &items, first))
		return NULL;
	while (parser->token->kind == LLM_JINJA_TOKEN_TILDE)
		if (!llm_jinja_advance(parser) ||
			!llm_jinja_append(parser, &items, parse_product(parser)))
			return NULL;
	return llm_jinja_make_list(parser, LLM_JINJA_EXPR_CONCAT, line, &items);
}

static LlmJinjaExpr *
parse_sum(LlmJinjaParser *parser)
{
	int line = parser->token->line;
	LlmJinjaExpr *left = parse_concat(parser);

	while (left != NULL && (parser->token->kind == LLM_JINJA_TOKEN_ADD ||
							parser->token->kind == LLM_JINJA_TOKEN_SUB))
	{
		bool is_add = parser->token->kind == LLM_JINJA_TOKEN_ADD;

		if (!llm_jinja_advance(parser))
			return NULL;
		left = llm_jinja_make_binary(parser, LLM_JINJA_EXPR_BINARY, line, left,
									 parse_concat(parser));
		if (left != NULL)
			left->op = is_add ? LLM_JINJA_ADD : LLM_JINJA_SUBTRACT;
		line = parser->token->line;
	}
	return left;
}

/* The comparison that stands here, gone past; *found says whether. */
static bool
parse_comparison(LlmJinjaParser *parser, uint8_t *op, bool *found)
{
	const LlmJinjaToken *token = parser->token;

	*found = true;
	if (token->kind == LLM_JINJA_TOKEN_EQ)
		*op = LLM_JINJA_COMPARE_EQUAL;
	else if (token->kind == LLM_JINJA_TOKEN_NE)
		*op = LLM_JINJA_COMPARE_UNEQUAL;
	else if (token->kind == LLM_JINJA_TOKEN_LT)
		*op = LLM_JINJA_LESS;
	else if (token->kind == LLM_JINJA_TOKEN_LTEQ)
		*op = LLM_JINJA_LESS_EQUAL;
	else if (token->kind == LLM_JINJA_TOKEN_GT)
		*op = LLM_JINJA_GREATER;
	else if (token->kind == LLM_JINJA_TOKEN_GTEQ)
		*op = LLM_JINJA_GREATER_EQUAL;
	else if (llm_jinja_token_is_name(token, "in"))
		*op = LLM_JINJA_COMPARE_IN;
	else if (llm_jinja_token_is_name(token, "not") &&
			 llm_jinja_token_is_name(token + 1, "in"))
	{
		*op = LLM_JINJA_COMPARE_NOT_IN;
		return llm_jinja_advance(parser) && llm_jinja_advance(parser);
	}
	else
	{
		*found = false;
		return true;
	}
	return llm_jinja_advance(parser);
}

static LlmJinjaExpr *
parse_compare(LlmJinjaParser *parser)
{
	int line = parser->token->line;
	LlmJinjaPointers items = { 0 };
	LlmStrbuf ops;
	LlmJinjaValue op_bytes;
	LlmJinjaExpr *expr = parse_sum(parser);
	uint8_t op;
	bool found = true;
	bool ok = llm_jinja_append(parser, &items, expr);

	llm_jinja_init_buffer(&ops);
	while (ok && found)
	{
		ok = parse_comparison(parser, &op, &found);
		if (!ok || !found)
			break;
		llm_strbuf_append_char(&ops, (char) op);
		ok = llm_jinja_append(parser, &items, parse_sum(parser));
	}
	if (!llm_jinja_finish_string(parser->run, &ops, ok, &op_bytes))
		return NULL;
	if (items.n_items == 1)
		return expr;
	expr = llm_jinja_make_list(parser, LLM_JINJA_EXPR_COMPARE, line, &items);
	if (expr != NULL)
		expr->list.comparisons = (const uint8_t *) op_bytes.string->data;
	return expr;
}

static LlmJinjaExpr *
parse_not(LlmJinjaParser *parser)
{
	int line = parser->token->line;
	LlmJinjaExpr *expr;

	if (!llm_jinja_token_is_name(parser->token, "not"))
		return parse_compare(parser);
	if (!llm_jinja_nest(parser) || !llm_jinja_advance(parser))
		return NULL;
	expr = llm_jinja_make_unary(parser, LLM_JINJA_EXPR_NOT, line,
								parse_not(parser));
	parser->nesting--;
	return expr;
}

static LlmJinjaExpr *
parse_and(LlmJinjaParser *parser)
{
	int line = parser->token->line;
	LlmJinjaExpr *left = parse_not(parser);
	bool more = true;

	while (left != NULL)
	{
		if (!llm_jinja_skip_name(parser, "and", &more))
			return NULL;
		if (!more)
			break;
		left = llm_jinja_make_binary(parser, LLM_JINJA_EXPR_AND, line, left,
									 parse_not(parser));
		line = parser->token->line;
	}
	return left;
}

static LlmJinjaExpr *
parse_or(LlmJinjaParser *parser)
{
	int line = parser->token->line;
	LlmJinjaExpr *left = parse_and(parser);
	bool more = true;

	while (left != NULL)
	{
		if (!llm_jinja_skip_name(parser, "or", &more))
			return NULL;
		if (!more)
			break;
		left = llm_jinja_make_binary(parser, LLM_JINJA_EXPR_OR, line, left,
									 parse_and(parser));
		line = parser->token->line;
	}
	return left;
}

/* "a if test else b", where b may be another such. */
static LlmJinjaExpr *
parse_condition(LlmJinjaParser *parser)
{
	int line = parser->token->line;
	LlmJinjaExpr *value = parse_or(parser);
	bool more = true;

	while (value != NULL)
	{
		LlmJinjaExpr *expr;

		if (!llm_jinja_skip_name(parser, "if", &more))
			return NULL;
		if (!more)
			break;
		expr = llm_jinja_make_expr(parser, LLM_JINJA_EXPR_CONDITION, line);
		if (expr == NULL)
			return NULL;
		expr->condition.then = value;
		expr->condition.test = parse_or(parser);
		if (!llm_jinja_adopt(parser, expr, value) ||
			!llm_jinja_adopt(parser, expr, expr->condition.test) ||
			!llm_jinja_skip_name(parser, "else", &more))
			return NULL;
		if (more)
		{
			if (!llm_jinja_nest(parser))
				return NULL;
			expr->condition.otherwise = parse_condition(parser);
			parser->nesting--;
			if (!llm_jinja_adopt(parser, expr, expr->condition.otherwise))
				return NULL;
		}
		value = expr;
		line = parser->token->line;
	}
	return value;
}

LlmJinjaExpr *
llm_jinja_parse_expression(LlmJinjaParser *parser)
{
	LlmJinjaExpr *expr;

	if (!llm_jinja_nest(parser))
		return NULL;
	expr = parse_condition(parser);
	parser->nesting--;
	return expr;
}

/* ---- tuples and targets ---- */

static bool
is_tuple_end(const LlmJinjaToken *token)
{
	return token->kind == LLM_JINJA_TOKEN_VARIABLE_END ||
		   token->kind == LLM_JINJA_TOKEN_BLOCK_END ||
		   token->kind == LLM_JINJA_TOKEN_RPAREN;
}

static LlmJinjaExpr *
parse_tuple_item(LlmJinjaParser *parser, LlmJinjaTupleRules rules)
{
	LlmJinjaExpr *expr;

	if (!llm_jinja_nest(parser))
		return NULL;
	if (rules.targets_only)
		expr = llm_jinja_parse_primary(parser, rules.with_namespace);
	else
		expr = rules.no_condition ? parse_or(parser) : parse_condition(parser);
	parser->nesting--;
	return expr;
}

LlmJinjaExpr *
llm_jinja_parse_tuple(LlmJinjaParser *parser, LlmJinjaTupleRules rules)
{
	int line = parser->token->line;
	LlmJinjaPointers items = { 0 };
	bool is_tuple = false;
	char description[LLM_JINJA_DESCRIPTION_BYTES];

	for (;;)
	{
		if (items.n_items > 0 &&
			!llm_jinja_expect(parser, LLM_JINJA_TOKEN_COMMA))
			return NULL;
		if (is_tuple_end(parser->token))
			break;
		if (!llm_jinja_append(parser, &items, parse_tuple_item(parser, rules)))
			return NULL;
		if (parser->token->kind != LLM_JINJA_TOKEN_COMMA)
			break;
		is_tuple = true;
		line = parser->token->line;
	}
	if (!is_tuple && items.n_items > 0)
		return items.items[0];
	if (!is_tuple && !rules.in_parentheses)
	{
		llm_jinja_parse_fail(
			parser, parser->token->line, "Expected an expression, got %s",
			llm_jinja_describe_token(parser, parser->token, description));
		return NULL;
	}
	return llm_jinja_make_list(parser, LLM_JINJA_EXPR_TUPLE, line, &items);
}

bool
llm_jinja_make_target(LlmJinjaParser *parser, LlmJinjaExpr *expr,
					  LlmJinjaNameUse use)
{
	if (expr->kind == LLM_JINJA_EXPR_NAME)
	{
		expr->name.use = use;
		return true;
	}
	if (expr->kind == LLM_JINJA_EXPR_NAMESPACE_REF)
		return true;
	if (expr->kind != LLM_JINJA_EXPR_TUPLE)
		return llm_jinja_parse_fail(parser, expr->line, "can't assign to '%s'",
									expr->kind == LLM_JINJA_EXPR_CONST ? "const"
									: expr->kind == LLM_JINJA_EXPR_LIST ? "list"
									: expr->kind == LLM_JINJA_EXPR_DICT
										? "dict"
										: "expression");
	for (size_t i = 0; i < expr->list.n_items; i++)
		if (!llm_jinja_make_target(parser, expr->list.items[i], use))
			return llm_jinja_parse_fail(parser, expr->line,
										"can't assign to 'tuple'");
	return true;
}

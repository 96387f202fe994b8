/*
 * jinja_primary.c
 *	  Parse what expressions are made of: literals, names, and what follows
 *	  them.
 *
 * Behind a literal or name come attributes, items, calls, filters and tests.
 * Every node accounts for its height, so that no tree is too high to walk.
 *
 * src/common/template/jinja_primary.c
 */
#include <assert.h>
#include <string.h>

#include "src/common/template/jinja_parser.h"

/* ---- making nodes ---- */

LlmJinjaExpr *
llm_jinja_make_expr(LlmJinjaParser *parser, LlmJinjaExprKind kind, int line)
{
	LlmJinjaExpr *expr = llm_jinja_alloc(parser->run, sizeof(*expr));

	if (expr == NULL)
		return NULL;
	memset(expr, 0, sizeof(*expr));
	expr->kind = (uint8_t) kind;
	expr->line = line;
	expr->height = 1;
	return expr;
}

/* Account for a child: trees too high would recurse too deep later. */
bool
llm_jinja_adopt(LlmJinjaParser *parser, LlmJinjaExpr *parent,
				const LlmJinjaExpr *child)
{
	if (child == NULL)
		return false;
	if (child->height >= parent->height)
		parent->height = child->height + 1;
	if (parent->height > LLM_JINJA_MAX_NESTING)
		return llm_jinja_parse_fail(parser, parent->line,
									"expression is nested more than %d deep",
									LLM_JINJA_MAX_NESTING);
	return true;
}

LlmJinjaExpr *
llm_jinja_make_binary(LlmJinjaParser *parser, LlmJinjaExprKind kind, int line,
					  LlmJinjaExpr *left, LlmJinjaExpr *right)
{
	LlmJinjaExpr *expr = llm_jinja_make_expr(parser, kind, line);

	if (expr == NULL || !llm_jinja_adopt(parser, expr, left) ||
		!llm_jinja_adopt(parser, expr, right))
		return NULL;
	expr->operands.left = left;
	expr->operands.right = right;
	return expr;
}

LlmJinjaExpr *
llm_jinja_make_unary(LlmJinjaParser *parser, LlmJinjaExprKind kind, int line,
					 LlmJinjaExpr *operand)
{
	LlmJinjaExpr *expr = llm_jinja_make_expr(parser, kind, line);

	if (expr == NULL || !llm_jinja_adopt(parser, expr, operand))
		return NULL;
	expr->operands.left = operand;
	return expr;
}

LlmJinjaExpr *
llm_jinja_make_list(LlmJinjaParser *parser, LlmJinjaExprKind kind, int line,
					const LlmJinjaPointers *items)
{
	LlmJinjaExpr *expr = llm_jinja_make_expr(parser, kind, line);

	if (expr == NULL)
		return NULL;
	expr->list.items = (LlmJinjaExpr **) items->items;
	expr->list.n_items = items->n_items;
	for (size_t i = 0; i < items->n_items; i++)
		if (!llm_jinja_adopt(parser, expr, expr->list.items[i]))
			return NULL;
	return expr;
}

static LlmJinjaExpr *
make_const(LlmJinjaParser *parser, LlmJinjaValue value, int line)
{
	LlmJinjaExpr *expr =
		llm_jinja_make_expr(parser, LLM_JINJA_EXPR_CONST, line);

	if (expr != NULL)
		expr->constant = value;
	return expr;
}

/* ---- primaries ---- */

static LlmJinjaExpr *
parse_name(LlmJinjaParser *parser, bool with_namespace)
{
	const LlmJinjaToken *token = parser->token;
	const LlmJinjaString *attribute = NULL;
	LlmJinjaExpr *expr;
	bool skipped = false;

	if (!llm_jinja_advance(parser))
		return NULL;
	if (llm_jinja_token_is_name(token, "true") ||
		llm_jinja_token_is_name(token, "True"))
		return make_const(parser, llm_jinja_bool(true), token->line);
	if (llm_jinja_token_is_name(token, "false") ||
		llm_jinja_token_is_name(token, "False"))
		return make_const(parser, llm_jinja_bool(false), token->line);
	if (llm_jinja_token_is_name(token, "none") ||
		llm_jinja_token_is_name(token, "None"))
		return make_const(parser, llm_jinja_none(), token->line);
	if (with_namespace)
	{
		if (!llm_jinja_skip_if(parser, LLM_JINJA_TOKEN_DOT, &skipped))
			return NULL;
		attribute = parser->token->value.string;
		if (skipped && !llm_jinja_expect(parser, LLM_JINJA_TOKEN_NAME))
			return NULL;
	}
	expr = llm_jinja_make_expr(
		parser, skipped ? LLM_JINJA_EXPR_NAMESPACE_REF : LLM_JINJA_EXPR_NAME,
		token->line);
	if (expr == NULL)
		return NULL;
	expr->name.name = token->value.string;
	expr->name.attribute = skipped ? attribute : NULL;
	expr->name.use = LLM_JINJA_NAME_LOAD;
	return expr;
}

/* String literals next to each other are one. */
static LlmJinjaExpr *
parse_strings(LlmJinjaParser *parser)
{
	const LlmJinjaToken *first = parser->token;
	LlmJinjaValue value = first->value;
	LlmStrbuf joined;
	bool ok = llm_jinja_advance(parser);

	if (!ok || !llm_jinja_token_is(parser->token, LLM_JINJA_TOKEN_STRING))
		return ok ? make_const(parser, value, first->line) : NULL;
	llm_jinja_init_buffer(&joined);
	llm_strbuf_append(&joined, value.string->data, value.string->len);
	while (ok && llm_jinja_token_is(parser->token, LLM_JINJA_TOKEN_STRING))
	{
		llm_strbuf_append(&joined, parser->token->value.string->data,
						  parser->token->value.string->len);
		ok = llm_jinja_advance(parser);
	}
	if (!llm_jinja_finish_string(parser->run, &joined, ok, &value))
		return NULL;
	return make_const(parser, value, first->line);
}

static LlmJinjaExpr *
parse_list(LlmJinjaParser *parser)
{
	int line = parser->token->line;
	LlmJinjaPointers items = { 0 };

	if (!llm_jinja_expect(parser, LLM_JINJA_TOKEN_LBRACKET))
		return NULL;
	while (!llm_jinja_token_is(parser->token, LLM_JINJA_TOKEN_RBRACKET))
	{
		if (items.n_items > 0 &&
			!llm_jinja_expect(parser, LLM_JINJA_TOKEN_COMMA))
			return NULL;
		if (llm_jinja_token_is(parser->token, LLM_JINJA_TOKEN_RBRACKET))
			break;
		if (!llm_jinja_append(parser, &items,
							  llm_jinja_parse_expression(parser)))
			return NULL;
	}
	if (!llm_jinja_expect(parser, LLM_JINJA_TOKEN_RBRACKET))
		return NULL;
	return llm_jinja_make_list(parser, LLM_JINJA_EXPR_LIST, line, &items);
}

static LlmJinjaExpr *
parse_dict(LlmJinjaParser *parser)
{
	int line = parser->token->line;
	LlmJinjaPointers items = { 0 };

	if (!llm_jinja_expect(parser, LLM_JINJA_TOKEN_LBRACE))
		return NULL;
	while (!llm_jinja_token_is(parser->token, LLM_JINJA_TOKEN_RBRACE))
	{
		if (items.n_items > 0 &&
			!llm_jinja_expect(parser, LLM_JINJA_TOKEN_COMMA))
			return NULL;
		if (llm_jinja_token_is(parser->token, LLM_JINJA_TOKEN_RBRACE))
			break;
		if (!llm_jinja_append(parser, &items,
							  llm_jinja_parse_expression(parser)) ||
			!llm_jinja_expect(parser, LLM_JINJA_TOKEN_COLON) ||
			!llm_jinja_append(parser, &items,
							  llm_jinja_parse_expression(parser)))
			return NULL;
	}
	if (!llm_jinja_expect(parser, LLM_JINJA_TOKEN_RBRACE))
		return NULL;
	return llm_jinja_make_list(parser, LLM_JINJA_EXPR_DICT, line, &items);
}

LlmJinjaExpr *
llm_jinja_parse_primary(LlmJinjaParser *parser, bool with_namespace)
{
	const LlmJinjaToken *token = parser->token;
	char description[LLM_JINJA_DESCRIPTION_BYTES];
	LlmJinjaExpr *expr;

	switch (token->kind)
	{
		case LLM_JINJA_TOKEN_NAME:
			return parse_name(parser, with_namespace);
		case LLM_JINJA_TOKEN_STRING:
			return parse_strings(parser);
		case LLM_JINJA_TOKEN_INTEGER:
		case LLM_JINJA_TOKEN_FLOAT:
			if (!llm_jinja_advance(parser))
				return NULL;
			return make_const(parser, token->value, token->line);
		case LLM_JINJA_TOKEN_LPAREN:
			if (!llm_jinja_advance(parser))
				return NULL;
			expr = llm_jinja_parse_tuple(
				parser, (LlmJinjaTupleRules){ .in_parentheses = true });
			if (expr == NULL ||
				!llm_jinja_expect(parser, LLM_JINJA_TOKEN_RPAREN))
				return NULL;
			return expr;
		case LLM_JINJA_TOKEN_LBRACKET:
			return parse_list(parser);
		case LLM_JINJA_TOKEN_LBRACE:
			return parse_dict(parser);
		default:
			llm_jinja_parse_fail(
				parser, token->line, "unexpected %s",
				llm_jinja_describe_token(parser, token, description));
			return NULL;
	}
}

/* ---- what follows a primary ---- */

/* stop or step of a slice, which may be absent: *bound stays NULL. */
static bool
parse_bound(LlmJinjaParser *parser, LlmJinjaExpr **bound)
{
	LlmJinjaTokenKind kind = parser->token->kind;

	if (kind == LLM_JINJA_TOKEN_COLON || kind == LLM_JINJA_TOKEN_RBRACKET ||
		kind == LLM_JINJA_TOKEN_COMMA)
		return true;
	*bound = llm_jinja_parse_expression(parser);
	return *bound != NULL;
}

/* A key, which is left in bounds[0], or a slice. */
static bool
parse_subscript(LlmJinjaParser *parser, LlmJinjaExpr *bounds[3], bool *is_slice)
{
	bool more = true;

	memset(bounds, 0, 3 * sizeof(*bounds));
	if (parser->token->kind != LLM_JINJA_TOKEN_COLON)
	{
		bounds[0] = llm_jinja_parse_expression(parser);
		if (bounds[0] == NULL)
			return false;
	}
	for (int i = 1; i < 3 && more; i++)
	{
		if (!llm_jinja_skip_if(parser, LLM_JINJA_TOKEN_COLON, &more) ||
			(more && !parse_bound(parser, &bounds[i])))
			return false;
		*is_slice = *is_slice || more;
	}
	return true;
}

static LlmJinjaExpr *
make_slice(LlmJinjaParser *parser, LlmJinjaExpr *object, int line,
		   LlmJinjaExpr *const bounds[3])
{
	LlmJinjaExpr *expr =
		llm_jinja_make_expr(parser, LLM_JINJA_EXPR_SLICE, line);

	if (expr == NULL || !llm_jinja_adopt(parser, expr, object))
		return NULL;
	expr->slice.object = object;
	for (int i = 0; i < 3; i++)
	{
		expr->slice.bounds[i] = bounds[i];
		if (bounds[i] != NULL && !llm_jinja_adopt(parser, expr, bounds[i]))
			return NULL;
	}
	return expr;
}

/* Between the brackets: a key, a tuple of keys, or a slice. */
static LlmJinjaExpr *
parse_bracket(LlmJinjaParser *parser, LlmJinjaExpr *object, int line)
{
	LlmJinjaExpr *bounds[3] = { NULL, NULL, NULL };
	LlmJinjaPointers keys = { 0 };
	bool is_slice = false;

	while (!is_slice && parser->token->kind != LLM_JINJA_TOKEN_RBRACKET)
	{
		if (keys.n_items > 0 &&
			!llm_jinja_expect(parser, LLM_JINJA_TOKEN_COMMA))
			return NULL;
		if (!parse_subscript(parser, bounds, &is_slice) ||
			(!is_slice && !llm_jinja_append(parser, &keys, bounds[0])))
			return NULL;
	}
	if (is_slice && keys.n_items > 0)
	{
		llm_jinja_parse_fail(parser, line,
							 "slices within tuples are not supported");
		return NULL;
	}
	if (!llm_jinja_expect(parser, LLM_JINJA_TOKEN_RBRACKET))
		return NULL;
	if (!is_slice)
		return llm_jinja_make_binary(
			parser, LLM_JINJA_EXPR_ITEM, line, object,
			keys.n_items == 1 ? keys.items[0]
							  : llm_jinja_make_list(
									parser, LLM_JINJA_EXPR_TUPLE, line, &keys));
	return make_slice(parser, object, line, bounds);
}

static LlmJinjaExpr *
parse_dot(LlmJinjaParser *parser, LlmJinjaExpr *object, int line)
{
	const LlmJinjaToken *token = parser->token;
	LlmJinjaExpr *expr;

	if (!llm_jinja_advance(parser))
		return NULL;
	if (token->kind == LLM_JINJA_TOKEN_INTEGER)
		return llm_jinja_make_binary(
			parser, LLM_JINJA_EXPR_ITEM, line, object,
			make_const(parser, token->value, token->line));
	if (token->kind != LLM_JINJA_TOKEN_NAME)
	{
		llm_jinja_parse_fail(parser, token->line, "expected name or number");
		return NULL;
	}
	expr = llm_jinja_make_expr(parser, LLM_JINJA_EXPR_ATTRIBUTE, line);
	if (expr == NULL || !llm_jinja_adopt(parser, expr, object))
		return NULL;
	expr->attribute.object = object;
	expr->attribute.name = token->value.string;
	return expr;
}

/* name=value, or a positional argument. */
static bool
parse_argument(LlmJinjaParser *parser, LlmJinjaPointers *args,
			   LlmJinjaPointers *kwargs, bool may_be_positional)
{
	const LlmJinjaToken *token = parser->token;
	LlmJinjaKeywordExpr *kwarg;

	if (token->kind == LLM_JINJA_TOKEN_NAME &&
		token[1].kind == LLM_JINJA_TOKEN_ASSIGN)
	{
		kwarg = llm_jinja_alloc(parser->run, sizeof(*kwarg));
		if (kwarg == NULL || !llm_jinja_advance(parser) ||
			!llm_jinja_advance(parser))
			return false;
		kwarg->name = token->value.string;
		kwarg->value = llm_jinja_parse_expression(parser);
		return kwarg->value != NULL && llm_jinja_append(parser, kwargs, kwarg);
	}
	if (!may_be_positional)
		return llm_jinja_parse_fail(
			parser, token->line, "invalid syntax for function call expression");
	return llm_jinja_append(parser, args, llm_jinja_parse_expression(parser));
}

/* "*args" or "**kwargs" where one stands and may stand. */
static bool
parse_star(LlmJinjaParser *parser, LlmJinjaArgExprs *args, int line)
{
	bool is_double = parser->token->kind == LLM_JINJA_TOKEN_POW;
	LlmJinjaExpr **target = is_double ? &args->more_kwargs : &args->more_args;

	if (args->more_kwargs != NULL || (!is_double && args->more_args != NULL))
		return llm_jinja_parse_fail(
			parser, line, "invalid syntax for function call expression");
	if (!llm_jinja_advance(parser))
		return false;
	*target = llm_jinja_parse_expression(parser);
	return *target != NULL;
}

static bool
parse_arguments(LlmJinjaParser *parser, LlmJinjaPointers *list,
				LlmJinjaPointers *kwargs, LlmJinjaArgExprs *args)
{
	int line = parser->token->line;
	bool first = true;

	if (!llm_jinja_expect(parser, LLM_JINJA_TOKEN_LPAREN))
		return false;
	while (!llm_jinja_token_is(parser->token, LLM_JINJA_TOKEN_RPAREN))
	{
		LlmJinjaTokenKind kind;

		if (!first && !llm_jinja_expect(parser, LLM_JINJA_TOKEN_COMMA))
			return false;
		kind = parser->token->kind;
		if (!first && kind == LLM_JINJA_TOKEN_RPAREN)
			break;
		first = false;
		if (kind == LLM_JINJA_TOKEN_MUL || kind == LLM_JINJA_TOKEN_POW)
		{
			if (!parse_star(parser, args, line))
				return false;
		}
		else if (args->more_kwargs != NULL)
			return llm_jinja_parse_fail(
				parser, line, "invalid syntax for function call expression");
		else if (!parse_argument(parser, list, kwargs,
								 args->more_args == NULL &&
									 kwargs->n_items == 0))
			return false;
	}
	return llm_jinja_expect(parser, LLM_JINJA_TOKEN_RPAREN);
}

/* "(...)" behind a callee, filter or test; NULL on failure. */
static LlmJinjaArgExprs *
parse_call_args(LlmJinjaParser *parser)
{
	LlmJinjaArgExprs *args = llm_jinja_alloc(parser->run, sizeof(*args));
	LlmJinjaPointers list = { 0 };
	LlmJinjaPointers kwargs = { 0 };

	if (args == NULL)
		return NULL;
	memset(args, 0, sizeof(*args));
	if (parser->token->kind == LLM_JINJA_TOKEN_LPAREN &&
		!parse_arguments(parser, &list, &kwargs, args))
		return NULL;
	args->args = (LlmJinjaExpr **) list.items;
	args->n_args = list.n_items;
	args->n_kwargs = kwargs.n_items;
	args->kwargs =
		llm_jinja_alloc(parser->run, kwargs.n_items * sizeof(*args->kwargs));
	if (args->kwargs == NULL)
		return NULL;
	for (size_t i = 0; i < kwargs.n_items; i++)
		args->kwargs[i] = *(LlmJinjaKeywordExpr *) kwargs.items[i];
	return args;
}

static bool
adopt_args(LlmJinjaParser *parser, LlmJinjaExpr *expr,
		   const LlmJinjaArgExprs *args)
{
	for (size_t i = 0; i < args->n_args; i++)
		if (!llm_jinja_adopt(parser, expr, args->args[i]))
			return false;
	for (size_t i = 0; i < args->n_kwargs; i++)
		if (!llm_jinja_adopt(parser, expr, args->kwargs[i].value))
			return false;
	if (args->more_args != NULL &&
		!llm_jinja_adopt(parser, expr, args->more_args))
		return false;
	return args->more_kwargs == NULL ||
		   llm_jinja_adopt(parser, expr, args->more_kwargs);
}

static LlmJinjaExpr *
parse_call(LlmJinjaParser *parser, LlmJinjaExpr *callee)
{
	LlmJinjaExpr *expr =
		llm_jinja_make_expr(parser, LLM_JINJA_EXPR_CALL, parser->token->line);

	if (expr == NULL || !llm_jinja_adopt(parser, expr, callee))
		return NULL;
	expr->call.callee = callee;
	expr->call.args = parse_call_args(parser);
	if (expr->call.args == NULL || !adopt_args(parser, expr, expr->call.args))
		return NULL;
	return expr;
}

LlmJinjaExpr *
llm_jinja_parse_postfix(LlmJinjaParser *parser, LlmJinjaExpr *expr)
{
	while (expr != NULL)
	{
		const LlmJinjaToken *token = parser->token;

		if (token->kind == LLM_JINJA_TOKEN_LPAREN)
			expr = parse_call(parser, expr);
		else if (token->kind == LLM_JINJA_TOKEN_DOT)
			expr = llm_jinja_advance(parser)
					   ? parse_dot(parser, expr, token->line)
					   : NULL;
		else if (token->kind == LLM_JINJA_TOKEN_LBRACKET)
			expr = llm_jinja_advance(parser)
					   ? parse_bracket(parser, expr, token->line)
					   : NULL;
		else
			break;
	}
	return expr;
}

/* The name of a filter or test, which may have dots. */
static const LlmJinjaString *
parse_dotted_name(LlmJinjaParser *parser)
{
	LlmJinjaValue name = parser->token->value;
	LlmStrbuf dotted;
	bool ok;

	if (!llm_jinja_expect(parser, LLM_JINJA_TOKEN_NAME))
		return NULL;
	if (parser->token->kind != LLM_JINJA_TOKEN_DOT)
		return name.string;
	llm_jinja_init_buffer(&dotted);
	llm_strbuf_append(&dotted, name.string->data, name.string->len);
	do
	{
		ok = llm_jinja_advance(parser);
		if (!ok)
			break;
		name = parser->token->value;
		ok = llm_jinja_expect(parser, LLM_JINJA_TOKEN_NAME);
		if (ok)
		{
			llm_strbuf_append_char(&dotted, '.');
			llm_strbuf_append(&dotted, name.string->data, name.string->len);
		}
	} while (ok && parser->token->kind == LLM_JINJA_TOKEN_DOT);
	return llm_jinja_finish_string(parser->run, &dotted, ok, &name)
			   ? name.string
			   : NULL;
}

static LlmJinjaExpr *
make_apply(LlmJinjaParser *parser, LlmJinjaExprKind kind, int line,
		   LlmJinjaExpr *input)
{
	LlmJinjaExpr *expr = llm_jinja_make_expr(parser, kind, line);

	if (expr == NULL ||
		(input != NULL && !llm_jinja_adopt(parser, expr, input)))
		return NULL;
	expr->apply.input = input;
	expr->apply.name = parse_dotted_name(parser);
	return expr->apply.name == NULL ? NULL : expr;
}

bool
llm_jinja_parse_filters(LlmJinjaParser *parser, bool first_name,
						LlmJinjaExpr **expr)
{
	while (first_name || parser->token->kind == LLM_JINJA_TOKEN_PIPE)
	{
		LlmJinjaExpr *filter;

		if (!first_name && !llm_jinja_advance(parser))
			return false;
		first_name = false;
		filter = make_apply(parser, LLM_JINJA_EXPR_FILTER, parser->token->line,
							*expr);
		if (filter == NULL)
			return false;
		filter->apply.args = parse_call_args(parser);
		if (filter->apply.args == NULL ||
			!adopt_args(parser, filter, filter->apply.args))
			return false;
		*expr = filter;
	}
	return true;
}

/* Does a test's argument without parentheses start here? */
static bool
starts_bare_argument(const LlmJinjaToken *token)
{
	switch (token->kind)
	{
		case LLM_JINJA_TOKEN_NAME:
			return !llm_jinja_token_is_name(token, "else") &&
				   !llm_jinja_token_is_name(token, "or") &&
				   !llm_jinja_token_is_name(token, "and");
		case LLM_JINJA_TOKEN_STRING:
		case LLM_JINJA_TOKEN_INTEGER:
		case LLM_JINJA_TOKEN_FLOAT:
		case LLM_JINJA_TOKEN_LBRACKET:
		case LLM_JINJA_TOKEN_LBRACE:
			return true;
		default:
			return false;
	}
}

static LlmJinjaExpr *
parse_test(LlmJinjaParser *parser, LlmJinjaExpr *input)
{
	int line = parser->token->line;
	LlmJinjaExpr *expr;
	LlmJinjaPointers bare = { 0 };
	bool negated;

	if (!llm_jinja_advance(parser) ||
		!llm_jinja_skip_name(parser, "not", &negated))
		return NULL;
	expr = make_apply(parser, LLM_JINJA_EXPR_TEST, line, input);
	if (expr == NULL)
		return NULL;
	if (starts_bare_argument(parser->token))
	{
		LlmJinjaArgExprs *args = llm_jinja_alloc(parser->run, sizeof(*args));

		if (llm_jinja_token_is_name(parser->token, "is"))
			llm_jinja_parse_fail(parser, parser->token->line,
								 "You cannot chain multiple tests with is");
		else if (args != NULL &&
				 llm_jinja_append(
					 parser, &bare,
					 llm_jinja_parse_postfix(
						 parser, llm_jinja_parse_primary(parser, false))))
		{
			*args = (LlmJinjaArgExprs){ .args = (LlmJinjaExpr **) bare.items,
										.n_args = 1 };
			expr->apply.args = args;
		}
	}
	else
		expr->apply.args = parse_call_args(parser);
	if (expr->apply.args == NULL || !adopt_args(parser, expr, expr->apply.args))
		return NULL;
	return negated
			   ? llm_jinja_make_unary(parser, LLM_JINJA_EXPR_NOT, line, expr)
			   : expr;
}

LlmJinjaExpr *
llm_jinja_parse_filters_and_tests(LlmJinjaParser *parser, LlmJinjaExpr *expr)
{
	while (expr != NULL)
	{
		if (parser->token->kind == LLM_JINJA_TOKEN_PIPE)
		{
			if (!llm_jinja_parse_filters(parser, false, &expr))
				return NULL;
		}
		else if (llm_jinja_token_is_name(parser->token, "is"))
			expr = parse_test(parser, expr);
		else if (parser->token->kind == LLM_JINJA_TOKEN_LPAREN)
			expr = parse_call(parser, expr);
		else
			break;
	}
	return expr;
}

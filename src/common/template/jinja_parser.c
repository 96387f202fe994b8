/*
 * jinja_parser.c
 *	  Parse statements: the text and tags of a template.
 *
 * src/common/template/jinja_parser.c
 */
#include "src/common/template/jinja_parser.h"

#include <assert.h>
#include <string.h>

static bool
parse_body(LlmJinjaParser *parser, const char *const *ends, LlmJinjaBody *body);

/* ---- bodies ---- */

static LlmJinjaStmt *
make_stmt(LlmJinjaParser *parser, LlmJinjaStmtKind kind, int line)
{
	LlmJinjaStmt *stmt = llm_jinja_alloc(parser->run, sizeof(*stmt));

	if (stmt == NULL)
		return NULL;
	memset(stmt, 0, sizeof(*stmt));
	stmt->kind = (uint8_t) kind;
	stmt->line = line;
	return stmt;
}

static bool
add_output(LlmJinjaParser *parser, LlmJinjaPointers *stmts, LlmJinjaExpr *expr)
{
	LlmJinjaStmt *stmt;

	if (expr == NULL)
		return false;
	stmt = make_stmt(parser, LLM_JINJA_STMT_OUTPUT, expr->line);
	if (stmt == NULL)
		return false;
	stmt->output = expr;
	return llm_jinja_append(parser, stmts, stmt);
}

/*
 * Behind a tag's own words: its end, then statements up to one of the ends,
 * which becomes the current token (go past it with drop_end).
 */
static bool
parse_inner(LlmJinjaParser *parser, const char *const *ends, bool drop_end,
			LlmJinjaBody *body)
{
	bool skipped;

	if (!llm_jinja_skip_if(parser, LLM_JINJA_TOKEN_COLON, &skipped) ||
		!llm_jinja_expect(parser, LLM_JINJA_TOKEN_BLOCK_END) ||
		!parse_body(parser, ends, body))
		return false;
	return !drop_end || llm_jinja_advance(parser);
}

/* The same for a body that is a function of its own: no loop reaches in. */
static bool
parse_function_body(LlmJinjaParser *parser, const char *const *ends,
					LlmJinjaBody *body)
{
	int n_loops = parser->n_loops;
	bool ok;

	parser->n_loops = 0;
	ok = parse_inner(parser, ends, true, body);
	parser->n_loops = n_loops;
	return ok;
}

/* ---- statements ---- */

static LlmJinjaExpr *
parse_target(LlmJinjaParser *parser, LlmJinjaTupleRules rules,
			 LlmJinjaNameUse use)
{
	LlmJinjaExpr *target;

	rules.targets_only = true;
	target = llm_jinja_parse_tuple(parser, rules);
	if (target == NULL || !llm_jinja_make_target(parser, target, use))
		return NULL;
	return target;
}

/* A name that is being defined: a macro's or a parameter's. */
static LlmJinjaExpr *
parse_defined_name(LlmJinjaParser *parser, LlmJinjaNameUse use)
{
	const LlmJinjaToken *token = parser->token;
	LlmJinjaExpr *expr;

	if (!llm_jinja_expect(parser, LLM_JINJA_TOKEN_NAME))
		return NULL;
	expr = llm_jinja_make_expr(parser, LLM_JINJA_EXPR_NAME, token->line);
	if (expr == NULL)
		return NULL;
	expr->name.name = token->value.string;
	expr->name.use = use;
	return expr;
}

static bool
parse_set(LlmJinjaParser *parser, LlmJinjaPointers *stmts, int line)
{
	static const char *const ends[] = { "endset", NULL };
	LlmJinjaStmt *stmt = make_stmt(parser, LLM_JINJA_STMT_SET, line);
	LlmJinjaExpr *target =
		parse_target(parser, (LlmJinjaTupleRules){ .with_namespace = true },
					 LLM_JINJA_NAME_STORE);
	bool has_value;

	if (stmt == NULL || target == NULL ||
		!llm_jinja_skip_if(parser, LLM_JINJA_TOKEN_ASSIGN, &has_value))
		return false;
	if (has_value)
	{
		stmt->set.target = target;
		stmt->set.value =
			llm_jinja_parse_tuple(parser, (LlmJinjaTupleRules){ 0 });
		return stmt->set.value != NULL && llm_jinja_append(parser, stmts, stmt);
	}
	stmt->kind = LLM_JINJA_STMT_SET_BLOCK;
	stmt->capture.target = target;
	return llm_jinja_parse_filters(parser, false, &stmt->capture.filter) &&
		   parse_inner(parser, ends, true, &stmt->capture.body) &&
		   llm_jinja_append(parser, stmts, stmt);
}

/* One "if", "elif" or "else" with its body; *last where endif follows. */
static bool
parse_branch(LlmJinjaParser *parser, LlmJinjaPointers *branches, bool has_test,
			 bool *last)
{
	static const char *const ends[] = { "elif", "else", "endif", NULL };
	static const char *const else_ends[] = { "endif", NULL };
	LlmJinjaBranch *branch = llm_jinja_alloc(parser->run, sizeof(*branch));

	if (branch == NULL)
		return false;
	memset(branch, 0, sizeof(*branch));
	branch->line = parser->token->line;
	if (has_test)
	{
		branch->test = llm_jinja_parse_tuple(
			parser, (LlmJinjaTupleRules){ .no_condition = true });
		if (branch->test == NULL)
			return false;
	}
	*last = !has_test;
	return parse_inner(parser, has_test ? ends : else_ends, false,
					   &branch->body) &&
		   llm_jinja_append(parser, branches, branch);
}

static bool
parse_if(LlmJinjaParser *parser, LlmJinjaPointers *stmts, int line)
{
	LlmJinjaStmt *stmt = make_stmt(parser, LLM_JINJA_STMT_IF, line);
	LlmJinjaPointers branches = { 0 };
	bool has_test = true;
	bool last = false;

	if (stmt == NULL)
		return false;
	while (!last)
	{
		if (!parse_branch(parser, &branches, has_test, &last))
			return false;
		last = last || llm_jinja_token_is_name(parser->token, "endif");
		has_test = llm_jinja_token_is_name(parser->token, "elif");
		if (!llm_jinja_advance(parser))
			return false;
	}
	stmt->choice.n_branches = branches.n_items;
	stmt->choice.branches =
		llm_jinja_alloc(parser->run, branches.n_items * sizeof(LlmJinjaBranch));
	if (stmt->choice.branches == NULL)
		return false;
	for (size_t i = 0; i < branches.n_items; i++)
		stmt->choice.branches[i] = *(LlmJinjaBranch *) branches.items[i];
	return llm_jinja_append(parser, stmts, stmt);
}

/* Behind "for": up to the end of the tag, "recursive" included. */
static bool
parse_for_head(LlmJinjaParser *parser, LlmJinjaForNode *loop)
{
	bool has_test;

	loop->target = parse_target(parser, (LlmJinjaTupleRules){ 0 },
								LLM_JINJA_NAME_PARAMETER);
	if (loop->target == NULL || !llm_jinja_expect_name(parser, "in"))
		return false;
	loop->iterable = llm_jinja_parse_tuple(
		parser, (LlmJinjaTupleRules){ .no_condition = true });
	if (loop->iterable == NULL || !llm_jinja_skip_name(parser, "if", &has_test))
		return false;
	if (has_test)
	{
		loop->test = llm_jinja_parse_expression(parser);
		if (loop->test == NULL)
			return false;
	}
	return llm_jinja_skip_name(parser, "recursive", &loop->recursive);
}

static bool
parse_for(LlmJinjaParser *parser, LlmJinjaPointers *stmts, int line)
{
	static const char *const ends[] = { "endfor", "else", NULL };
	static const char *const else_ends[] = { "endfor", NULL };
	LlmJinjaStmt *stmt = make_stmt(parser, LLM_JINJA_STMT_FOR, line);
	LlmJinjaForNode *loop = llm_jinja_alloc(parser->run, sizeof(*loop));
	int n_loops = parser->n_loops;

	if (stmt == NULL || loop == NULL)
		return false;
	memset(loop, 0, sizeof(*loop));
	stmt->loop = loop;
	if (!parse_for_head(parser, loop))
		return false;
	parser->n_loops++;
	if (!parse_inner(parser, ends, false, &loop->body))
		return false;
	/* "else" stands outside of the loop, but inside of a recursive one's
	 * function */
	parser->n_loops = loop->recursive ? 0 : n_loops;
	loop->has_else = llm_jinja_token_is_name(parser->token, "else");
	if (!llm_jinja_advance(parser))
		return false;
	if (loop->has_else &&
		!parse_inner(parser, else_ends, true, &loop->otherwise))
		return false;
	parser->n_loops = n_loops;
	return llm_jinja_append(parser, stmts, stmt);
}

/* "(a, b=1)" of a macro or call block. */
static bool
parse_signature(LlmJinjaParser *parser, LlmJinjaMacroNode *macro)
{
	LlmJinjaPointers params = { 0 };
	LlmJinjaPointers defaults = { 0 };
	bool has_default;

	if (!llm_jinja_expect(parser, LLM_JINJA_TOKEN_LPAREN))
		return false;
	while (parser->token->kind != LLM_JINJA_TOKEN_RPAREN)
	{
		if (params.n_items > 0 &&
			!llm_jinja_expect(parser, LLM_JINJA_TOKEN_COMMA))
			return false;
		if (!llm_jinja_append(
				parser, &params,
				parse_defined_name(parser, LLM_JINJA_NAME_PARAMETER)) ||
			!llm_jinja_skip_if(parser, LLM_JINJA_TOKEN_ASSIGN, &has_default))
			return false;
		if (has_default)
		{
			if (!llm_jinja_append(parser, &defaults,
								  llm_jinja_parse_expression(parser)))
				return false;
		}
		else if (defaults.n_items > 0)
			return llm_jinja_parse_fail(
				parser, parser->token->line,
				"non-default argument follows default argument");
	}
	macro->params = (LlmJinjaExpr **) params.items;
	macro->n_params = params.n_items;
	macro->defaults = (LlmJinjaExpr **) defaults.items;
	macro->n_defaults = defaults.n_items;
	return llm_jinja_expect(parser, LLM_JINJA_TOKEN_RPAREN);
}

static LlmJinjaStmt *
make_macro_stmt(LlmJinjaParser *parser, LlmJinjaStmtKind kind, int line)
{
	LlmJinjaStmt *stmt = make_stmt(parser, kind, line);
	LlmJinjaMacroNode *macro = llm_jinja_alloc(parser->run, sizeof(*macro));

	if (stmt == NULL || macro == NULL)
		return NULL;
	memset(macro, 0, sizeof(*macro));
	stmt->macro.node = macro;
	return stmt;
}

static bool
parse_macro(LlmJinjaParser *parser, LlmJinjaPointers *stmts, int line)
{
	static const char *const ends[] = { "endmacro", NULL };
	LlmJinjaStmt *stmt = make_macro_stmt(parser, LLM_JINJA_STMT_MACRO, line);
	LlmJinjaMacroNode *macro;

	if (stmt == NULL)
		return false;
	macro = stmt->macro.node;
	macro->target = parse_defined_name(parser, LLM_JINJA_NAME_STORE);
	if (macro->target == NULL)
		return false;
	macro->name = macro->target->name.name;
	return parse_signature(parser, macro) &&
		   parse_function_body(parser, ends, &macro->body) &&
		   llm_jinja_append(parser, stmts, stmt);
}

static bool
parse_call_block(LlmJinjaParser *parser, LlmJinjaPointers *stmts, int line)
{
	static const char *const ends[] = { "endcall", NULL };
	LlmJinjaStmt *stmt =
		make_macro_stmt(parser, LLM_JINJA_STMT_CALL_BLOCK, line);

	if (stmt == NULL || (parser->token->kind == LLM_JINJA_TOKEN_LPAREN &&
						 !parse_signature(parser, stmt->macro.node)))
		return false;
	stmt->macro.call = llm_jinja_parse_expression(parser);
	if (stmt->macro.call == NULL)
		return false;
	if (stmt->macro.call->kind != LLM_JINJA_EXPR_CALL)
		return llm_jinja_parse_fail(parser, line, "expected call");
	return parse_function_body(parser, ends, &stmt->macro.node->body) &&
		   llm_jinja_append(parser, stmts, stmt);
}

static bool
parse_generation(LlmJinjaParser *parser, LlmJinjaPointers *stmts, int line)
{
	static const char *const ends[] = { "endgeneration", NULL };
	LlmJinjaStmt *stmt =
		make_macro_stmt(parser, LLM_JINJA_STMT_GENERATION, line);

	return stmt != NULL &&
		   parse_function_body(parser, ends, &stmt->macro.node->body) &&
		   llm_jinja_append(parser, stmts, stmt);
}

static bool
parse_filter_block(LlmJinjaParser *parser, LlmJinjaPointers *stmts, int line)
{
	static const char *const ends[] = { "endfilter", NULL };
	LlmJinjaStmt *stmt = make_stmt(parser, LLM_JINJA_STMT_FILTER_BLOCK, line);

	return stmt != NULL &&
		   llm_jinja_parse_filters(parser, true, &stmt->capture.filter) &&
		   parse_inner(parser, ends, true, &stmt->capture.body) &&
		   llm_jinja_append(parser, stmts, stmt);
}

static bool
parse_with(LlmJinjaParser *parser, LlmJinjaPointers *stmts, int line)
{
	static const char *const ends[] = { "endwith", NULL };
	LlmJinjaStmt *stmt = make_stmt(parser, LLM_JINJA_STMT_WITH, line);
	LlmJinjaPointers targets = { 0 };
	LlmJinjaPointers values = { 0 };

	if (stmt == NULL)
		return false;
	while (parser->token->kind != LLM_JINJA_TOKEN_BLOCK_END)
	{
		if (targets.n_items > 0 &&
			!llm_jinja_expect(parser, LLM_JINJA_TOKEN_COMMA))
			return false;
		if (!llm_jinja_append(parser, &targets,
							  parse_target(parser, (LlmJinjaTupleRules){ 0 },
										   LLM_JINJA_NAME_PARAMETER)) ||
			!llm_jinja_expect(parser, LLM_JINJA_TOKEN_ASSIGN) ||
			!llm_jinja_append(parser, &values,
							  llm_jinja_parse_expression(parser)))
			return false;
	}
	stmt->with.targets = (LlmJinjaExpr **) targets.items;
	stmt->with.values = (LlmJinjaExpr **) values.items;
	stmt->with.n_targets = targets.n_items;
	return parse_inner(parser, ends, true, &stmt->with.body) &&
		   llm_jinja_append(parser, stmts, stmt);
}

/* Text is never escaped here, so only "autoescape false" can be honoured. */
static bool
parse_autoescape(LlmJinjaParser *parser, LlmJinjaPointers *stmts, int line)
{
	static const char *const ends[] = { "endautoescape", NULL };
	LlmJinjaStmt *stmt = make_stmt(parser, LLM_JINJA_STMT_WITH, line);
	LlmJinjaExpr *value = llm_jinja_parse_expression(parser);

	if (stmt == NULL || value == NULL ||
		!parse_inner(parser, ends, true, &stmt->with.body))
		return false;
	if (value->kind != LLM_JINJA_EXPR_CONST || llm_jinja_truth(value->constant))
	{
		stmt->kind = LLM_JINJA_STMT_REFUSED;
		stmt->refusal = "autoescape is not supported";
	}
	return llm_jinja_append(parser, stmts, stmt);
}

static bool
parse_block(LlmJinjaParser *parser, LlmJinjaPointers *stmts, int line)
{
	static const char *const ends[] = { "endblock", NULL };
	LlmJinjaStmt *stmt = make_stmt(parser, LLM_JINJA_STMT_BLOCK, line);
	const LlmJinjaToken *name = parser->token;
	bool special;
	int n_loops = parser->n_loops;

	if (stmt == NULL || !llm_jinja_expect(parser, LLM_JINJA_TOKEN_NAME))
		return false;
	special = llm_jinja_token_is_name(parser->token, "scoped") ||
			  llm_jinja_token_is_name(parser->token, "required");
	if (special)
		return llm_jinja_parse_fail(
			parser, line, "scoped and required blocks are not supported");
	stmt->block.name = name->value.string;
	parser->n_loops = 0;
	if (!parse_inner(parser, ends, true, &stmt->block.body))
		return false;
	parser->n_loops = n_loops;
	if (parser->token->kind == LLM_JINJA_TOKEN_NAME &&
		parser->token->value.string->len == name->value.string->len &&
		memcmp(parser->token->value.string->data, name->value.string->data,
			   name->value.string->len) == 0 &&
		!llm_jinja_advance(parser))
		return false;
	return llm_jinja_append(parser, stmts, stmt);
}

static bool
parse_print(LlmJinjaParser *parser, LlmJinjaPointers *stmts, int line)
{
	bool first = true;

	(void) line;
	while (parser->token->kind != LLM_JINJA_TOKEN_BLOCK_END)
	{
		if (!first && !llm_jinja_expect(parser, LLM_JINJA_TOKEN_COMMA))
			return false;
		if (!add_output(parser, stmts, llm_jinja_parse_expression(parser)))
			return false;
		first = false;
	}
	return true;
}

static bool
parse_jump(LlmJinjaParser *parser, LlmJinjaPointers *stmts, int line)
{
	bool is_break = llm_jinja_token_is_name(parser->token - 1, "break");

	if (parser->n_loops == 0)
		return llm_jinja_parse_fail(parser, line,
									is_break
										? "'break' outside loop"
										: "'continue' not properly in loop");
	return llm_jinja_append(
		parser, stmts,
		make_stmt(parser,
				  is_break ? LLM_JINJA_STMT_BREAK : LLM_JINJA_STMT_CONTINUE,
				  line));
}

/* A tag that loads another template: there is none to load. */
static bool
parse_refused(LlmJinjaParser *parser, LlmJinjaPointers *stmts, int line)
{
	LlmJinjaStmt *stmt = make_stmt(parser, LLM_JINJA_STMT_REFUSED, line);

	if (stmt == NULL)
		return false;
	stmt->refusal = "no loader for this environment specified";
	while (parser->token->kind != LLM_JINJA_TOKEN_BLOCK_END &&
		   parser->token->kind != LLM_JINJA_TOKEN_END)
		if (!llm_jinja_advance(parser))
			return false;
	return llm_jinja_append(parser, stmts, stmt);
}

typedef struct Tag
{
	const char *name;
	bool (*parse)(LlmJinjaParser *parser, LlmJinjaPointers *stmts, int line);
} Tag;

/* At a tag's name. */
static bool
parse_statement(LlmJinjaParser *parser, LlmJinjaPointers *stmts)
{
	static const Tag tags[] = {
		{ "if", parse_if },
		{ "for", parse_for },
		{ "set", parse_set },
		{ "macro", parse_macro },
		{ "call", parse_call_block },
		{ "filter", parse_filter_block },
		{ "generation", parse_generation },
		{ "break", parse_jump },
		{ "continue", parse_jump },
		{ "with", parse_with },
		{ "print", parse_print },
		{ "block", parse_block },
		{ "autoescape", parse_autoescape },
		{ "include", parse_refused },
		{ "import", parse_refused },
		{ "from", parse_refused },
		{ "extends", parse_refused },
	};
	const LlmJinjaToken *token = parser->token;

	if (token->kind != LLM_JINJA_TOKEN_NAME)
		return llm_jinja_parse_fail(parser, token->line, "tag name expected");
	for (size_t i = 0; i < sizeof(tags) / sizeof(tags[0]); i++)
	{
		bool ok;

		if (!llm_jinja_token_is_name(token, tags[i].name))
			continue;
		if (parser->n_tags == LLM_JINJA_MAX_NESTING)
			return llm_jinja_parse_fail(
				parser, token->line, "statements are nested more than %d deep",
				LLM_JINJA_MAX_NESTING);
		parser->tags[parser->n_tags++] = token->value.string;
		ok = llm_jinja_advance(parser) &&
			 tags[i].parse(parser, stmts, token->line);
		parser->n_tags--;
		return ok;
	}
	return llm_jinja_fail_tag(parser, token->value.string, token->line);
}

static bool
is_one_of(const LlmJinjaToken *token, const char *const *names)
{
	for (int i = 0; names != NULL && names[i] != NULL; i++)
		if (llm_jinja_token_is_name(token, names[i]))
			return true;
	return false;
}

/* One piece at root level; *ended where it was an end tag. */
static bool
parse_piece(LlmJinjaParser *parser, const char *const *ends,
			LlmJinjaPointers *stmts, bool *ended)
{
	const LlmJinjaToken *token = parser->token;
	LlmJinjaStmt *stmt;

	if (token->kind == LLM_JINJA_TOKEN_DATA)
	{
		stmt = make_stmt(parser, LLM_JINJA_STMT_TEXT, token->line);
		if (stmt == NULL)
			return false;
		stmt->text = token->value.string;
		return llm_jinja_append(parser, stmts, stmt) &&
			   llm_jinja_advance(parser);
	}
	if (!llm_jinja_advance(parser))
		return false;
	if (token->kind == LLM_JINJA_TOKEN_VARIABLE_BEGIN)
		return add_output(
				   parser, stmts,
				   llm_jinja_parse_tuple(parser, (LlmJinjaTupleRules){ 0 })) &&
			   llm_jinja_expect(parser, LLM_JINJA_TOKEN_VARIABLE_END);
	assert(token->kind == LLM_JINJA_TOKEN_BLOCK_BEGIN);
	*ended = is_one_of(parser->token, ends);
	return *ended || (parse_statement(parser, stmts) &&
					  llm_jinja_expect(parser, LLM_JINJA_TOKEN_BLOCK_END));
}

static bool
parse_body(LlmJinjaParser *parser, const char *const *ends, LlmJinjaBody *body)
{
	LlmJinjaPointers stmts = { 0 };
	bool ended = false;

	if (ends != NULL)
		parser->ends[parser->n_ends++] = ends;
	while (!ended && parser->token->kind != LLM_JINJA_TOKEN_END)
		if (!parse_piece(parser, ends, &stmts, &ended))
			return false;
	if (ends != NULL && !ended)
		return llm_jinja_fail_tag(parser, NULL, parser->token->line);
	if (ends != NULL)
		parser->n_ends--;
	body->stmts = (LlmJinjaStmt **) stmts.items;
	body->n_stmts = stmts.n_items;
	return true;
}

bool
llm_jinja_parse(LlmJinjaRun *run, const char *source, size_t len,
				LlmJinjaTree *tree)
{
	LlmJinjaParser parser = { .run = run };
	LlmJinjaToken *tokens;

	memset(tree, 0, sizeof(*tree));
	if (!llm_jinja_tokenize(run, source, len, &tokens))
		return false;
	parser.token = tokens;
	return llm_jinja_check_token(&parser) &&
		   parse_body(&parser, NULL, &tree->body);
}

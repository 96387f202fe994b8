/*
 * jinja_walk.c
 *	  Walk through a tree: the children of an expression, and which of the
 *	  special names a macro uses.
 *
 * src/common/template/jinja_walk.c
 */
#include <string.h>

#include "src/common/template/jinja_ast.h"

/* ---- walking expressions ---- */

static bool
visit_args(void *state, LlmJinjaArgExprs *args, LlmJinjaVisit visit)
{
	for (size_t i = 0; i < args->n_args; i++)
		if (!visit(state, args->args[i]))
			return false;
	for (size_t i = 0; i < args->n_kwargs; i++)
		if (!visit(state, args->kwargs[i].value))
			return false;
	if (args->more_args != NULL && !visit(state, args->more_args))
		return false;
	return args->more_kwargs == NULL || visit(state, args->more_kwargs);
}

static bool
visit_optional(void *state, LlmJinjaExpr *expr, LlmJinjaVisit visit)
{
	return expr == NULL || visit(state, expr);
}

bool
llm_jinja_visit_children(void *state, LlmJinjaExpr *expr, LlmJinjaVisit visit)
{
	switch ((LlmJinjaExprKind) expr->kind)
	{
		case LLM_JINJA_EXPR_CONST:
		case LLM_JINJA_EXPR_NAME:
		case LLM_JINJA_EXPR_NAMESPACE_REF:
		case LLM_JINJA_EXPR_KIND_COUNT:
			return true;
		case LLM_JINJA_EXPR_TUPLE:
		case LLM_JINJA_EXPR_LIST:
		case LLM_JINJA_EXPR_DICT:
		case LLM_JINJA_EXPR_CONCAT:
		case LLM_JINJA_EXPR_COMPARE:
			for (size_t i = 0; i < expr->list.n_items; i++)
				if (!visit(state, expr->list.items[i]))
					return false;
			return true;
		case LLM_JINJA_EXPR_ATTRIBUTE:
			return visit(state, expr->attribute.object);
		case LLM_JINJA_EXPR_SLICE:
			for (int i = 0; i < 3; i++)
				if (!visit_optional(state, expr->slice.bounds[i], visit))
					return false;
			return visit(state, expr->slice.object);
		case LLM_JINJA_EXPR_CALL:
			return visit(state, expr->call.callee) &&
				   visit_args(state, expr->call.args, visit);
		case LLM_JINJA_EXPR_FILTER:
		case LLM_JINJA_EXPR_TEST:
			return visit_optional(state, expr->apply.input, visit) &&
				   visit_args(state, expr->apply.args, visit);
		case LLM_JINJA_EXPR_CONDITION:
			return visit(state, expr->condition.test) &&
				   visit(state, expr->condition.then) &&
				   visit_optional(state, expr->condition.otherwise, visit);
		case LLM_JINJA_EXPR_ITEM:
		case LLM_JINJA_EXPR_BINARY:
		case LLM_JINJA_EXPR_AND:
		case LLM_JINJA_EXPR_OR:
		case LLM_JINJA_EXPR_NEGATE:
		case LLM_JINJA_EXPR_PLUS:
		case LLM_JINJA_EXPR_NOT:
			return visit(state, expr->operands.left) &&
				   visit_optional(state, expr->operands.right, visit);
	}
	return true;
}

/* ---- special names of macros ---- */

typedef struct Uses
{
	int watched; /* still to be looked for */
	int found;
} Uses;

int
llm_jinja_special_name(const LlmJinjaString *name)
{
	LlmJinjaValue value = llm_jinja_text(name);

	if (llm_jinja_string_is(value, "caller"))
		return LLM_JINJA_USES_CALLER;
	if (llm_jinja_string_is(value, "kwargs"))
		return LLM_JINJA_USES_KWARGS;
	return llm_jinja_string_is(value, "varargs") ? LLM_JINJA_USES_VARARGS : 0;
}

static void scan_body(const LlmJinjaBody *body, Uses *uses);

/* Reads count until the name is assigned, in the order of the text. */
static bool
scan_expr(void *state, LlmJinjaExpr *expr)
{
	Uses *uses = state;
	int name;

	if (expr->kind != LLM_JINJA_EXPR_NAME)
		return llm_jinja_visit_children(uses, expr, scan_expr);
	name = llm_jinja_special_name(expr->name.name);
	if (expr->name.use == LLM_JINJA_NAME_LOAD)
		uses->found |= name & uses->watched;
	else
		uses->watched &= ~name;
	return true;
}

static void
scan(LlmJinjaExpr *expr, Uses *uses)
{
	if (expr != NULL)
		scan_expr(uses, expr);
}

static void
scan_list(LlmJinjaExpr **exprs, size_t n, Uses *uses)
{
	for (size_t i = 0; i < n; i++)
		scan(exprs[i], uses);
}

static void
scan_macro(const LlmJinjaMacroNode *macro, Uses *uses)
{
	scan_list(macro->params, macro->n_params, uses);
	scan_list(macro->defaults, macro->n_defaults, uses);
	scan_body(&macro->body, uses);
}

static void
scan_stmt(const LlmJinjaStmt *stmt, Uses *uses)
{
	switch ((LlmJinjaStmtKind) stmt->kind)
	{
		case LLM_JINJA_STMT_OUTPUT:
			scan(stmt->output, uses);
			break;
		case LLM_JINJA_STMT_SET:
			scan(stmt->set.target, uses);
			scan(stmt->set.value, uses);
			break;
		case LLM_JINJA_STMT_SET_BLOCK:
		case LLM_JINJA_STMT_FILTER_BLOCK:
			scan(stmt->capture.target, uses);
			scan(stmt->capture.filter, uses);
			scan_body(&stmt->capture.body, uses);
			break;
		case LLM_JINJA_STMT_IF:
			for (size_t i = 0; i < stmt->choice.n_branches; i++)
			{
				scan(stmt->choice.branches[i].test, uses);
				scan_body(&stmt->choice.branches[i].body, uses);
			}
			break;
		case LLM_JINJA_STMT_FOR:
			scan(stmt->loop->target, uses);
			scan(stmt->loop->iterable, uses);
			scan_body(&stmt->loop->body, uses);
			scan_body(&stmt->loop->otherwise, uses);
			scan(stmt->loop->test, uses);
			break;
		case LLM_JINJA_STMT_MACRO:
		case LLM_JINJA_STMT_CALL_BLOCK:
		case LLM_JINJA_STMT_GENERATION:
			scan(stmt->macro.call, uses);
			scan_macro(stmt->macro.node, uses);
			break;
		case LLM_JINJA_STMT_WITH:
			scan_list(stmt->with.targets, stmt->with.n_targets, uses);
			scan_list(stmt->with.values, stmt->with.n_targets, uses);
			scan_body(&stmt->with.body, uses);
			break;
		default:
			break;
	}
}

static void
scan_body(const LlmJinjaBody *body, Uses *uses)
{
	for (size_t i = 0; i < body->n_stmts; i++)
		scan_stmt(body->stmts[i], uses);
}

int
llm_jinja_scan_special_names(const LlmJinjaBody *body)
{
	Uses uses = { LLM_JINJA_USES_CALLER | LLM_JINJA_USES_KWARGS |
					  LLM_JINJA_USES_VARARGS,
				  0 };

	scan_body(body, &uses);
	return uses.found;
}

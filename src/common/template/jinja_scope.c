/*
 * jinja_scope.c
 *	  Resolve the names of a template to slots of scopes.
 *
 * This follows jinja2's compiler (its "idtracking"), because templates can
 * tell the difference.  A loop, macro, with, call, filter or set block is a
 * scope; "if" is none.  What a scope assigns anywhere is its own variable:
 * it starts as the outer variable of that name, or, where an "if" may skip
 * the assignment, as the caller's.  What it only reads is the nearest outer
 * variable, else the caller's.
 *
 * A scope's names are collected first (collect_*), without looking into the
 * scopes within; then its names get their places and the scopes within their
 * turn (resolve_*).
 *
 * src/common/template/jinja_scope.c
 */
#include <assert.h>
#include <string.h>

#include "src/common/template/jinja_ast.h"

typedef struct Symbol
{
	LlmJinjaSlot slot;
	bool stored;
} Symbol;

typedef struct Symbols
{
	struct Symbols *outer;
	Symbol *items;
	size_t n_items;
	size_t capacity;
} Symbols;

typedef struct Resolver
{
	LlmJinjaRun *run;
	Symbols *symbols;
	bool is_soft; /* an unknown filter fails only when it runs */
	bool is_toplevel;
	int n_loops; /* around us; "loop" cannot be assigned there */
} Resolver;

static bool collect_body(Resolver *resolver, const LlmJinjaBody *body);
static bool collect_expr(void *state, LlmJinjaExpr *expr);
static bool resolve_body(Resolver *resolver, const LlmJinjaBody *body);
static bool resolve_expr(void *state, LlmJinjaExpr *expr);

/* ---- symbols ---- */

static bool
is_same_name(const LlmJinjaString *a, const LlmJinjaString *b)
{
	return a->len == b->len && memcmp(a->data, b->data, a->len) == 0;
}

static Symbol *
find_symbol(const Symbols *symbols, const LlmJinjaString *name)
{
	for (size_t i = 0; i < symbols->n_items; i++)
		if (is_same_name(symbols->items[i].slot.name, name))
			return &symbols->items[i];
	return NULL;
}

/* The nearest scope that has the name, counted from these symbols. */
static bool
find_place(const Symbols *symbols, const LlmJinjaString *name,
		   LlmJinjaPlace *place)
{
	place->n_out = 0;
	for (; symbols != NULL; symbols = symbols->outer, place->n_out++)
	{
		const Symbol *symbol = find_symbol(symbols, name);

		if (symbol != NULL)
		{
			place->slot = (uint16_t) (symbol - symbols->items);
			return true;
		}
	}
	return false;
}

static Symbol *
add_symbol(Resolver *resolver, Symbols *symbols, const LlmJinjaString *name)
{
	Symbol *symbol;

	if (symbols->n_items == UINT16_MAX)
	{
		llm_jinja_fail(resolver->run, "too many variables");
		return NULL;
	}
	if (symbols->n_items == symbols->capacity)
	{
		size_t capacity = symbols->capacity < 8 ? 8 : symbols->capacity * 2;
		Symbol *items =
			llm_jinja_alloc(resolver->run, capacity * sizeof(Symbol));

		if (items == NULL)
			return NULL;
		if (symbols->n_items > 0)
			memcpy(items, symbols->items, symbols->n_items * sizeof(Symbol));
		symbols->items = items;
		symbols->capacity = capacity;
	}
	symbol = &symbols->items[symbols->n_items++];
	memset(symbol, 0, sizeof(*symbol));
	symbol->slot.name = name;
	return symbol;
}

/* The name is the outer variable's where there is one, else as given. */
static void
alias_or(const Symbols *symbols, Symbol *symbol, LlmJinjaLoad load)
{
	LlmJinjaPlace place;

	if (symbols->outer != NULL &&
		find_place(symbols->outer, symbol->slot.name, &place))
	{
		place.n_out++;
		symbol->slot.alias = place;
		load = LLM_JINJA_LOAD_ALIAS;
	}
	symbol->slot.load = load;
}

static bool
load_name(Resolver *resolver, const LlmJinjaString *name)
{
	LlmJinjaPlace place;
	Symbol *symbol;

	if (find_place(resolver->symbols, name, &place))
		return true;
	symbol = add_symbol(resolver, resolver->symbols, name);
	if (symbol == NULL)
		return false;
	symbol->slot.load = LLM_JINJA_LOAD_CONTEXT;
	return true;
}

static bool
store_name(Resolver *resolver, const LlmJinjaString *name)
{
	Symbol *symbol = find_symbol(resolver->symbols, name);

	if (symbol == NULL)
	{
		symbol = add_symbol(resolver, resolver->symbols, name);
		if (symbol == NULL)
			return false;
		alias_or(resolver->symbols, symbol, LLM_JINJA_LOAD_NOTHING);
	}
	symbol->stored = true;
	return true;
}

static bool
declare_name(Resolver *resolver, const LlmJinjaString *name)
{
	Symbol *symbol = find_symbol(resolver->symbols, name);

	if (symbol == NULL)
		symbol = add_symbol(resolver, resolver->symbols, name);
	if (symbol == NULL)
		return false;
	symbol->slot.load = LLM_JINJA_LOAD_PARAMETER;
	symbol->stored = true;
	return true;
}

/* ---- branches ---- */

static bool
copy_symbols(Resolver *resolver, const Symbols *from, Symbols *to)
{
	*to = *from;
	to->items =
		llm_jinja_alloc(resolver->run, (from->n_items + 8) * sizeof(Symbol));
	if (to->items == NULL)
		return false;
	to->capacity = from->n_items + 8;
	if (from->n_items > 0)
		memcpy(to->items, from->items, from->n_items * sizeof(Symbol));
	return true;
}

/*
 * Take over what branches found.  A variable that only some branch assigns
 * must start as what it would be without.
 */
static bool
merge_branches(Resolver *resolver, Symbols *base, const Symbols *branches,
			   int n_branches)
{
	size_t n_before = base->n_items;
	bool *was_stored = llm_jinja_alloc(resolver->run, n_before + 1);

	if (was_stored == NULL)
		return false;
	for (size_t i = 0; i < n_before; i++)
		was_stored[i] = base->items[i].stored;
	for (int b = 0; b < n_branches; b++)
		for (size_t i = 0; i < branches[b].n_items; i++)
		{
			const Symbol *from = &branches[b].items[i];
			Symbol *to = find_symbol(base, from->slot.name);
			bool stored = from->stored || (to != NULL && to->stored);

			if (to == NULL)
				to = add_symbol(resolver, base, from->slot.name);
			if (to == NULL)
				return false;
			*to = *from;
			to->stored = stored;
		}
	for (size_t i = 0; i < base->n_items; i++)
		if (base->items[i].stored && (i >= n_before || !was_stored[i]))
			alias_or(base, &base->items[i], LLM_JINJA_LOAD_CONTEXT);
	return true;
}

/* One test with its body; what follows are its elifs and its else. */
static bool
collect_choice(Resolver *resolver, const LlmJinjaBranch *branches, size_t n)
{
	Symbols *base = resolver->symbols;
	Symbols copies[3];
	bool has_else = n > 1 && branches[n - 1].test == NULL;
	size_t n_tests = has_else ? n - 1 : n;
	bool ok;

	assert(n > 0 && branches[0].test != NULL);
	if (!collect_expr(resolver, branches[0].test))
		return false;
	for (int i = 0; i < 3; i++)
		if (!copy_symbols(resolver, base, &copies[i]))
			return false;
	resolver->symbols = &copies[0];
	ok = collect_body(resolver, &branches[0].body);
	resolver->symbols = &copies[1];
	for (size_t i = 1; ok && i < n_tests; i++)
		ok = collect_choice(resolver, &branches[i], 1);
	resolver->symbols = &copies[2];
	if (ok && has_else)
		ok = collect_body(resolver, &branches[n - 1].body);
	resolver->symbols = base;
	return ok && merge_branches(resolver, base, copies, 3);
}

/* ---- collecting the names of one scope ---- */

static bool
collect_expr(void *state, LlmJinjaExpr *expr)
{
	Resolver *resolver = state;

	if (expr->kind == LLM_JINJA_EXPR_NAMESPACE_REF)
		return load_name(resolver, expr->name.name);
	if (expr->kind != LLM_JINJA_EXPR_NAME)
		return llm_jinja_visit_children(resolver, expr, collect_expr);
	switch (expr->name.use)
	{
		case LLM_JINJA_NAME_LOAD:
			return load_name(resolver, expr->name.name);
		case LLM_JINJA_NAME_STORE:
			return store_name(resolver, expr->name.name);
		case LLM_JINJA_NAME_PARAMETER:
			return declare_name(resolver, expr->name.name);
	}
	return true;
}

static bool
collect_list(Resolver *resolver, LlmJinjaExpr **exprs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!collect_expr(resolver, exprs[i]))
			return false;
	return true;
}

/* What a statement names in the scope that it stands in. */
static bool
collect_stmt(Resolver *resolver, const LlmJinjaStmt *stmt)
{
	resolver->run->line = stmt->line;
	switch ((LlmJinjaStmtKind) stmt->kind)
	{
		case LLM_JINJA_STMT_OUTPUT:
			return collect_expr(resolver, stmt->output);
		case LLM_JINJA_STMT_SET:
			return collect_expr(resolver, stmt->set.value) &&
				   collect_expr(resolver, stmt->set.target);
		case LLM_JINJA_STMT_SET_BLOCK:
			return collect_expr(resolver, stmt->capture.target);
		case LLM_JINJA_STMT_IF:
			return collect_choice(resolver, stmt->choice.branches,
								  stmt->choice.n_branches);
		case LLM_JINJA_STMT_FOR:
			return collect_expr(resolver, stmt->loop->iterable);
		case LLM_JINJA_STMT_MACRO:
			return collect_expr(resolver, stmt->macro.node->target);
		case LLM_JINJA_STMT_CALL_BLOCK:
			return collect_expr(resolver, stmt->macro.call);
		case LLM_JINJA_STMT_FILTER_BLOCK:
			return collect_expr(resolver, stmt->capture.filter);
		case LLM_JINJA_STMT_WITH:
			return collect_list(resolver, stmt->with.values,
								stmt->with.n_targets);
		default:
			return true;
	}
}

static bool
collect_body(Resolver *resolver, const LlmJinjaBody *body)
{
	for (size_t i = 0; i < body->n_stmts; i++)
		if (!collect_stmt(resolver, body->stmts[i]))
			return false;
	return true;
}

/* ---- entering scopes ---- */

typedef struct Outside
{
	Symbols *symbols;
	bool is_soft;
	bool is_toplevel;
} Outside;

static Outside
enter_symbols(Resolver *resolver, Symbols *symbols, bool is_isolated)
{
	Outside outside = { resolver->symbols, resolver->is_soft,
						resolver->is_toplevel };

	memset(symbols, 0, sizeof(*symbols));
	symbols->outer = is_isolated ? NULL : resolver->symbols;
	resolver->symbols = symbols;
	resolver->is_soft = false;
	resolver->is_toplevel = false;
	return outside;
}

/* Write down the scope that was resolved, and go back out. */
static bool
leave_symbols(Resolver *resolver, Outside outside, LlmJinjaScope *scope)
{
	const Symbols *symbols = resolver->symbols;

	resolver->symbols = outside.symbols;
	resolver->is_soft = outside.is_soft;
	resolver->is_toplevel = outside.is_toplevel;
	scope->n_slots = symbols->n_items;
	scope->slots =
		llm_jinja_alloc(resolver->run, symbols->n_items * sizeof(LlmJinjaSlot));
	if (scope->slots == NULL)
		return false;
	for (size_t i = 0; i < symbols->n_items; i++)
		scope->slots[i] = symbols->items[i].slot;
	return true;
}

/* ---- giving names their places ---- */

static bool
fail_unknown(Resolver *resolver, const LlmJinjaExpr *expr)
{
	resolver->run->line = expr->line;
	return llm_jinja_fail(resolver->run, "No %s named '%.*s'.",
						  expr->kind == LLM_JINJA_EXPR_FILTER ? "filter"
															  : "test",
						  (int) expr->apply.name->len, expr->apply.name->data);
}

static bool
resolve_name(Resolver *resolver, LlmJinjaExpr *expr)
{
	bool found =
		find_place(resolver->symbols, expr->name.name, &expr->name.place);

	resolver->run->line = expr->line;
	if (resolver->n_loops > 0 && expr->kind == LLM_JINJA_EXPR_NAME &&
		expr->name.use == LLM_JINJA_NAME_STORE &&
		llm_jinja_string_is(llm_jinja_text(expr->name.name), "loop"))
		return llm_jinja_fail(resolver->run,
							  "Can't assign to special loop variable in "
							  "for-loop target");
	/* the filter of a set block is named in no scope: read it from here */
	if (!found)
		return load_name(resolver, expr->name.name) &&
			   resolve_name(resolver, expr);
	return true;
}

static bool
resolve_expr(void *state, LlmJinjaExpr *expr)
{
	Resolver *resolver = state;
	bool was_soft = resolver->is_soft;
	bool ok;

	if (expr->kind == LLM_JINJA_EXPR_NAME ||
		expr->kind == LLM_JINJA_EXPR_NAMESPACE_REF)
		return resolve_name(resolver, expr);
	if (expr->kind == LLM_JINJA_EXPR_FILTER)
		expr->apply.builtin = llm_jinja_find_filter(expr->apply.name->data,
													expr->apply.name->len);
	else if (expr->kind == LLM_JINJA_EXPR_TEST)
		expr->apply.builtin =
			llm_jinja_find_test(expr->apply.name->data, expr->apply.name->len);
	if ((expr->kind == LLM_JINJA_EXPR_FILTER ||
		 expr->kind == LLM_JINJA_EXPR_TEST) &&
		expr->apply.builtin == NULL && !resolver->is_soft)
		return fail_unknown(resolver, expr);
	if (expr->kind == LLM_JINJA_EXPR_CONDITION)
		resolver->is_soft = true;
	ok = llm_jinja_visit_children(resolver, expr, resolve_expr);
	resolver->is_soft = was_soft;
	return ok;
}

static bool
resolve_list(Resolver *resolver, LlmJinjaExpr **exprs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!resolve_expr(resolver, exprs[i]))
			return false;
	return true;
}

static bool
resolve_choice(Resolver *resolver, const LlmJinjaBranch *branches, size_t n)
{
	bool was_soft = resolver->is_soft;
	bool ok = true;

	resolver->is_soft = true;
	for (size_t i = 0; ok && i < n; i++)
		ok = (branches[i].test == NULL ||
			  resolve_expr(resolver, branches[i].test)) &&
			 resolve_body(resolver, &branches[i].body);
	resolver->is_soft = was_soft;
	return ok;
}

static const LlmJinjaString loop_name = { "loop", 4, 4, false };

static bool
resolve_loop_body(Resolver *resolver, LlmJinjaForNode *loop)
{
	Symbols symbols;
	Outside outside = enter_symbols(resolver, &symbols, false);

	/* the target first, so that it has the same slots in the test's scope */
	return collect_expr(resolver, loop->target) &&
		   declare_name(resolver, &loop_name) &&
		   collect_body(resolver, &loop->body) &&
		   find_place(&symbols, &loop_name, &loop->loop_place) &&
		   resolve_expr(resolver, loop->target) &&
		   resolve_body(resolver, &loop->body) &&
		   leave_symbols(resolver, outside, &loop->scope);
}

/* The target's names come first here too: places fit both scopes. */
static bool
resolve_loop_test(Resolver *resolver, LlmJinjaForNode *loop)
{
	Symbols symbols;
	Outside outside = enter_symbols(resolver, &symbols, false);

	return collect_expr(resolver, loop->target) &&
		   collect_expr(resolver, loop->test) &&
		   resolve_expr(resolver, loop->test) &&
		   leave_symbols(resolver, outside, &loop->test_scope);
}

/* Is "loop" among the names of a target? */
static bool
targets_loop(const LlmJinjaExpr *target)
{
	if (target->kind == LLM_JINJA_EXPR_NAME)
		return llm_jinja_string_is(llm_jinja_text(target->name.name), "loop");
	for (size_t i = 0;
		 target->kind == LLM_JINJA_EXPR_TUPLE && i < target->list.n_items; i++)
		if (targets_loop(target->list.items[i]))
			return true;
	return false;
}

static bool
resolve_for(Resolver *resolver, LlmJinjaForNode *loop)
{
	Symbols symbols;
	Outside outside;

	if (targets_loop(loop->target))
		return llm_jinja_fail(resolver->run,
							  "Can't assign to special loop variable in "
							  "for-loop target");
	if (!resolve_expr(resolver, loop->iterable))
		return false;
	resolver->n_loops++;
	if ((loop->test != NULL && !resolve_loop_test(resolver, loop)) ||
		!resolve_loop_body(resolver, loop))
		return false;
	if (loop->has_else)
	{
		outside = enter_symbols(resolver, &symbols, false);
		if (!collect_body(resolver, &loop->otherwise) ||
			!resolve_body(resolver, &loop->otherwise) ||
			!leave_symbols(resolver, outside, &loop->else_scope))
			return false;
	}
	resolver->n_loops--;
	return true;
}

/* ---- macros ---- */

/* A special name that the body reads and no parameter defines. */
static bool
declare_special(Resolver *resolver, const LlmJinjaString *name, bool wanted,
				LlmJinjaPlace *place)
{
	if (!wanted)
		return true;
	return declare_name(resolver, name) &&
		   find_place(resolver->symbols, name, place);
}

static bool
resolve_macro(Resolver *resolver, LlmJinjaMacroNode *macro)
{
	static const LlmJinjaString caller = { "caller", 6, 6, false };
	static const LlmJinjaString kwargs = { "kwargs", 6, 6, false };
	static const LlmJinjaString varargs = { "varargs", 7, 7, false };
	int uses = llm_jinja_scan_special_names(&macro->body);
	int params = 0;
	Symbols symbols;
	Outside outside = enter_symbols(resolver, &symbols, false);

	for (size_t i = 0; i < macro->n_params; i++)
	{
		int name = llm_jinja_special_name(macro->params[i]->name.name);

		params |= name;
		if ((name & uses & LLM_JINJA_USES_CALLER) != 0 &&
			i + macro->n_defaults < macro->n_params)
			return llm_jinja_fail(resolver->run,
								  "When defining macros or call blocks the "
								  "special \"caller\" argument must be omitted "
								  "or be given a default.");
	}
	macro->has_caller_param = (params & LLM_JINJA_USES_CALLER) != 0;
	macro->takes_caller = (uses & ~params & LLM_JINJA_USES_CALLER) != 0;
	macro->takes_kwargs = (uses & ~params & LLM_JINJA_USES_KWARGS) != 0;
	macro->takes_varargs = (uses & ~params & LLM_JINJA_USES_VARARGS) != 0;
	return collect_list(resolver, macro->params, macro->n_params) &&
		   declare_special(resolver, &caller, macro->takes_caller,
						   &macro->caller_place) &&
		   declare_special(resolver, &kwargs, macro->takes_kwargs,
						   &macro->kwargs_place) &&
		   declare_special(resolver, &varargs, macro->takes_varargs,
						   &macro->varargs_place) &&
		   collect_list(resolver, macro->defaults, macro->n_defaults) &&
		   collect_body(resolver, &macro->body) &&
		   resolve_list(resolver, macro->params, macro->n_params) &&
		   resolve_list(resolver, macro->defaults, macro->n_defaults) &&
		   resolve_body(resolver, &macro->body) &&
		   leave_symbols(resolver, outside, &macro->scope);
}

/* ---- statements ---- */

static bool
resolve_capture(Resolver *resolver, LlmJinjaStmt *stmt)
{
	Symbols symbols;
	Outside outside;

	stmt->capture.is_exported = resolver->is_toplevel;
	if (stmt->capture.target != NULL &&
		!resolve_expr(resolver, stmt->capture.target))
		return false;
	outside = enter_symbols(resolver, &symbols, false);
	return collect_body(resolver, &stmt->capture.body) &&
		   (stmt->capture.filter == NULL ||
			collect_expr(resolver, stmt->capture.filter)) &&
		   resolve_body(resolver, &stmt->capture.body) &&
		   (stmt->capture.filter == NULL ||
			resolve_expr(resolver, stmt->capture.filter)) &&
		   leave_symbols(resolver, outside, &stmt->capture.scope);
}

static bool
resolve_with(Resolver *resolver, LlmJinjaStmt *stmt)
{
	Symbols symbols;
	Outside outside;

	if (!resolve_list(resolver, stmt->with.values, stmt->with.n_targets))
		return false;
	outside = enter_symbols(resolver, &symbols, false);
	return collect_list(resolver, stmt->with.targets, stmt->with.n_targets) &&
		   collect_body(resolver, &stmt->with.body) &&
		   resolve_list(resolver, stmt->with.targets, stmt->with.n_targets) &&
		   resolve_body(resolver, &stmt->with.body) &&
		   leave_symbols(resolver, outside, &stmt->with.scope);
}

/* A block sees the caller's variables and the exported ones, no others. */
static bool
resolve_block(Resolver *resolver, LlmJinjaStmt *stmt)
{
	Symbols symbols;
	Outside outside = enter_symbols(resolver, &symbols, true);
	int n_loops = resolver->n_loops;
	bool ok;

	resolver->n_loops = 0;
	ok = collect_body(resolver, &stmt->block.body) &&
		 resolve_body(resolver, &stmt->block.body) &&
		 leave_symbols(resolver, outside, &stmt->block.scope);
	resolver->n_loops = n_loops;
	return ok;
}

static bool
resolve_stmt(Resolver *resolver, LlmJinjaStmt *stmt)
{
	resolver->run->line = stmt->line;
	switch ((LlmJinjaStmtKind) stmt->kind)
	{
		case LLM_JINJA_STMT_OUTPUT:
			return resolve_expr(resolver, stmt->output);
		case LLM_JINJA_STMT_SET:
			stmt->set.is_exported = resolver->is_toplevel;
			return resolve_expr(resolver, stmt->set.value) &&
				   resolve_expr(resolver, stmt->set.target);
		case LLM_JINJA_STMT_SET_BLOCK:
		case LLM_JINJA_STMT_FILTER_BLOCK:
			return resolve_capture(resolver, stmt);
		case LLM_JINJA_STMT_IF:
			return resolve_choice(resolver, stmt->choice.branches,
								  stmt->choice.n_branches);
		case LLM_JINJA_STMT_FOR:
			return resolve_for(resolver, stmt->loop);
		case LLM_JINJA_STMT_MACRO:
			stmt->macro.is_exported = resolver->is_toplevel;
			return resolve_macro(resolver, stmt->macro.node) &&
				   resolve_expr(resolver, stmt->macro.node->target);
		case LLM_JINJA_STMT_CALL_BLOCK:
			return resolve_macro(resolver, stmt->macro.node) &&
				   resolve_expr(resolver, stmt->macro.call);
		case LLM_JINJA_STMT_GENERATION:
			return resolve_macro(resolver, stmt->macro.node);
		case LLM_JINJA_STMT_WITH:
			return resolve_with(resolver, stmt);
		case LLM_JINJA_STMT_BLOCK:
			return resolve_block(resolver, stmt);
		default:
			return true;
	}
}

static bool
resolve_body(Resolver *resolver, const LlmJinjaBody *body)
{
	for (size_t i = 0; i < body->n_stmts; i++)
		if (!resolve_stmt(resolver, body->stmts[i]))
			return false;
	return true;
}

bool
llm_jinja_resolve(LlmJinjaRun *run, LlmJinjaTree *tree)
{
	Resolver resolver = { .run = run };
	Symbols symbols;
	Outside outside = enter_symbols(&resolver, &symbols, true);

	resolver.is_toplevel = true;
	return collect_body(&resolver, &tree->body) &&
		   resolve_body(&resolver, &tree->body) &&
		   leave_symbols(&resolver, outside, &tree->scope);
}

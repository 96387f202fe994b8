/*
 * jinja_ast.h
 *	  The tree of a compiled template, and the frames it runs in.
 *
 * Variables are resolved when a template is compiled, by jinja2's own rules
 * (jinja_scope.c): each scope lists its names, and a name in the tree is "so
 * many scopes out, such a slot".  While rendering, each scope entered has one
 * frame; frames nest exactly as the scopes do.
 *
 * src/common/template/jinja_ast.h
 */
#ifndef LLM_JINJA_AST_H
#define LLM_JINJA_AST_H

#include "src/common/template/jinja_object.h"
#include "src/common/template/jinja_value.h"

typedef struct LlmJinjaExpr LlmJinjaExpr;
typedef struct LlmJinjaStmt LlmJinjaStmt;
typedef struct LlmJinjaFrame LlmJinjaFrame;

/* ---- scopes ---- */

/* What a slot holds when its scope is entered. */
typedef enum LlmJinjaLoad
{
	LLM_JINJA_LOAD_PARAMETER, /* whatever the statement puts there */
	LLM_JINJA_LOAD_CONTEXT,	  /* the caller's variable, else a global */
	LLM_JINJA_LOAD_ALIAS,	  /* the value of an outer variable */
	LLM_JINJA_LOAD_NOTHING	  /* unset until it is assigned */
} LlmJinjaLoad;

/* A place of a variable: scopes outwards, slot there. */
typedef struct LlmJinjaPlace
{
	uint16_t n_out;
	uint16_t slot;
} LlmJinjaPlace;

typedef struct LlmJinjaSlot
{
	const LlmJinjaString *name;
	LlmJinjaLoad load;
	LlmJinjaPlace alias;
} LlmJinjaSlot;

typedef struct LlmJinjaScope
{
	LlmJinjaSlot *slots;
	size_t n_slots;
} LlmJinjaScope;

struct LlmJinjaFrame
{
	LlmJinjaFrame *outer; /* NULL: the template's or a block's own */
	LlmJinjaValue slots[];
};

/* ---- expressions ---- */

typedef enum LlmJinjaExprKind
{
	LLM_JINJA_EXPR_CONST,
	LLM_JINJA_EXPR_NAME,
	LLM_JINJA_EXPR_TUPLE,
	LLM_JINJA_EXPR_LIST,
	LLM_JINJA_EXPR_DICT,
	LLM_JINJA_EXPR_ATTRIBUTE,
	LLM_JINJA_EXPR_ITEM,
	LLM_JINJA_EXPR_SLICE,
	LLM_JINJA_EXPR_CALL,
	LLM_JINJA_EXPR_FILTER,
	LLM_JINJA_EXPR_TEST,
	LLM_JINJA_EXPR_NEGATE,
	LLM_JINJA_EXPR_PLUS,
	LLM_JINJA_EXPR_NOT,
	LLM_JINJA_EXPR_BINARY, /* op: an LlmJinjaOperator */
	LLM_JINJA_EXPR_AND,
	LLM_JINJA_EXPR_OR,
	LLM_JINJA_EXPR_CONCAT,
	LLM_JINJA_EXPR_COMPARE,
	LLM_JINJA_EXPR_CONDITION,
	LLM_JINJA_EXPR_NAMESPACE_REF, /* only as the target of a set */
	LLM_JINJA_EXPR_KIND_COUNT
} LlmJinjaExprKind;

/* LlmJinjaOrder's values come first. */
typedef enum LlmJinjaComparison
{
	LLM_JINJA_COMPARE_EQUAL = LLM_JINJA_GREATER_EQUAL + 1,
	LLM_JINJA_COMPARE_UNEQUAL,
	LLM_JINJA_COMPARE_IN,
	LLM_JINJA_COMPARE_NOT_IN
} LlmJinjaComparison;

typedef enum LlmJinjaNameUse
{
	LLM_JINJA_NAME_LOAD,
	LLM_JINJA_NAME_STORE,
	LLM_JINJA_NAME_PARAMETER
} LlmJinjaNameUse;

typedef struct LlmJinjaKeywordExpr
{
	const LlmJinjaString *name;
	LlmJinjaExpr *value;
} LlmJinjaKeywordExpr;

typedef struct LlmJinjaArgExprs
{
	LlmJinjaExpr **args;
	size_t n_args;
	LlmJinjaKeywordExpr *kwargs;
	size_t n_kwargs;
	LlmJinjaExpr *more_args;   /* *args, or NULL */
	LlmJinjaExpr *more_kwargs; /* **kwargs, or NULL */
} LlmJinjaArgExprs;

struct LlmJinjaExpr
{
	uint8_t kind; /* an LlmJinjaExprKind */
	uint8_t op;
	uint16_t height; /* of the tree below, to bound recursion */
	int line;
	union
	{
		LlmJinjaValue constant;
		struct
		{
			const LlmJinjaString *name;
			const LlmJinjaString *attribute; /* NAMESPACE_REF */
			LlmJinjaPlace place;
			LlmJinjaNameUse use;
		} name;
		struct
		{
			LlmJinjaExpr **items; /* DICT: key, value, key, value, ... */
			size_t n_items;
			const uint8_t *comparisons; /* COMPARE: between the items */
		} list;
		struct
		{
			LlmJinjaExpr *left; /* the only one, of an unary operator */
			LlmJinjaExpr *right;
		} operands;
		struct
		{
			LlmJinjaExpr *object;
			const LlmJinjaString *name;
		} attribute;
		struct
		{
			LlmJinjaExpr *object;
			LlmJinjaExpr *bounds[3]; /* start, stop, step; may be NULL */
		} slice;
		struct
		{
			LlmJinjaExpr *callee;
			LlmJinjaArgExprs *args;
		} call;
		struct
		{
			LlmJinjaExpr *input; /* NULL: the text of the block around it */
			const LlmJinjaString *name;
			LlmJinjaArgExprs *args;
			const LlmJinjaBuiltin *builtin; /* NULL: unknown, fails if run */
		} apply;
		struct
		{
			LlmJinjaExpr *test;
			LlmJinjaExpr *then;
			LlmJinjaExpr *otherwise; /* NULL: undefined */
		} condition;
	};
};

/* ---- statements ---- */

typedef enum LlmJinjaStmtKind
{
	LLM_JINJA_STMT_TEXT,
	LLM_JINJA_STMT_OUTPUT,
	LLM_JINJA_STMT_SET,
	LLM_JINJA_STMT_SET_BLOCK,
	LLM_JINJA_STMT_IF,
	LLM_JINJA_STMT_FOR,
	LLM_JINJA_STMT_MACRO,
	LLM_JINJA_STMT_CALL_BLOCK,
	LLM_JINJA_STMT_FILTER_BLOCK,
	LLM_JINJA_STMT_WITH,
	LLM_JINJA_STMT_BLOCK,
	LLM_JINJA_STMT_GENERATION,
	LLM_JINJA_STMT_BREAK,
	LLM_JINJA_STMT_CONTINUE,
	LLM_JINJA_STMT_REFUSED, /* include, import, extends: fails if run */
	LLM_JINJA_STMT_KIND_COUNT
} LlmJinjaStmtKind;

typedef struct LlmJinjaBody
{
	LlmJinjaStmt **stmts;
	size_t n_stmts;
} LlmJinjaBody;

typedef struct LlmJinjaBranch
{
	LlmJinjaExpr *test; /* NULL: else */
	LlmJinjaBody body;
	int line;
} LlmJinjaBranch;

typedef struct LlmJinjaForNode
{
	LlmJinjaExpr *target;
	LlmJinjaExpr *iterable;
	LlmJinjaExpr *test; /* NULL: every item */
	LlmJinjaBody body;
	LlmJinjaBody otherwise;
	bool has_else;
	bool recursive;
	LlmJinjaScope scope;
	LlmJinjaScope test_scope;
	LlmJinjaScope else_scope;
	LlmJinjaPlace loop_place; /* of "loop", in scope */
} LlmJinjaForNode;

/* A macro, or the body of a call block. */
typedef struct LlmJinjaMacroNode
{
	const LlmJinjaString *name; /* NULL: a call block's */
	LlmJinjaExpr *target;		/* what the macro's name is stored to */
	LlmJinjaExpr **params;
	size_t n_params;
	LlmJinjaExpr **defaults; /* of the last params */
	size_t n_defaults;
	LlmJinjaBody body;
	LlmJinjaScope scope;

	/* special names that the body uses and no parameter defines */
	bool takes_caller;
	bool takes_kwargs;
	bool takes_varargs;
	bool has_caller_param;
	LlmJinjaPlace caller_place;
	LlmJinjaPlace kwargs_place;
	LlmJinjaPlace varargs_place;
} LlmJinjaMacroNode;

struct LlmJinjaStmt
{
	uint8_t kind; /* an LlmJinjaStmtKind */
	int line;
	union
	{
		const LlmJinjaString *text;
		LlmJinjaExpr *output;
		struct
		{
			LlmJinjaExpr *target;
			LlmJinjaExpr *value;
			bool is_exported; /* at top level: blocks see it */
		} set;
		struct
		{
			LlmJinjaExpr *target;
			LlmJinjaExpr *filter; /* SET_BLOCK: may be NULL */
			LlmJinjaBody body;
			LlmJinjaScope scope;
			bool is_exported;
		} capture; /* SET_BLOCK, FILTER_BLOCK */
		struct
		{
			LlmJinjaBranch *branches; /* if, elif ..., else */
			size_t n_branches;
		} choice;
		LlmJinjaForNode *loop;
		struct
		{
			LlmJinjaMacroNode *node;
			LlmJinjaExpr *call; /* CALL_BLOCK */
			bool is_exported;
		} macro; /* MACRO, CALL_BLOCK, GENERATION */
		struct
		{
			LlmJinjaExpr **targets;
			LlmJinjaExpr **values;
			size_t n_targets;
			LlmJinjaBody body;
			LlmJinjaScope scope;
		} with;
		struct
		{
			const LlmJinjaString *name;
			LlmJinjaBody body;
			LlmJinjaScope scope;
		} block;
		const char *refusal;
	};
};

typedef struct LlmJinjaTree
{
	LlmJinjaBody body;
	LlmJinjaScope scope;
} LlmJinjaTree;

/* ---- from source to tree ---- */

extern bool llm_jinja_parse(LlmJinjaRun *run, const char *source, size_t len,
							LlmJinjaTree *tree);

/* Resolve names; find filters and tests. */
extern bool llm_jinja_resolve(LlmJinjaRun *run, LlmJinjaTree *tree);

/* ---- walking it (jinja_walk.c) ---- */

typedef bool (*LlmJinjaVisit)(void *state, LlmJinjaExpr *expr);

/* Visit the expressions right below; false as soon as a visit is. */
extern bool
llm_jinja_visit_children(void *state, LlmJinjaExpr *expr, LlmJinjaVisit visit);

/* Names that a macro has without declaring them, as bits. */
enum
{
	LLM_JINJA_USES_CALLER = 1,
	LLM_JINJA_USES_KWARGS = 2,
	LLM_JINJA_USES_VARARGS = 4
};

/* Which bit a name is; 0: none of these. */
extern int llm_jinja_special_name(const LlmJinjaString *name);

/* Those that a body reads before it assigns them. */
extern int llm_jinja_scan_special_names(const LlmJinjaBody *body);

/* ---- running it ---- */

extern bool llm_jinja_eval(LlmJinjaRun *run, LlmJinjaFrame *frame,
						   const LlmJinjaExpr *expr, LlmJinjaValue *out);
extern bool llm_jinja_exec(LlmJinjaRun *run, LlmJinjaFrame *frame,
						   const LlmJinjaBody *body);
extern bool llm_jinja_exec_tree(LlmJinjaRun *run, const LlmJinjaTree *tree);

/* NULL: out of memory.  The slots are MISSING until the scope is entered. */
extern LlmJinjaFrame *
llm_jinja_create_frame(LlmJinjaRun *run, const LlmJinjaScope *scope,
					   LlmJinjaFrame *outer);
extern bool llm_jinja_enter_scope(LlmJinjaRun *run, const LlmJinjaScope *scope,
								  LlmJinjaFrame *frame);
extern LlmJinjaValue *
llm_jinja_locate(LlmJinjaFrame *frame, LlmJinjaPlace place);

/* Store to a name, or unpack to a tuple of names. */
extern bool llm_jinja_assign(LlmJinjaRun *run, LlmJinjaFrame *frame,
							 const LlmJinjaExpr *target, LlmJinjaValue value);

extern bool
llm_jinja_eval_args(LlmJinjaRun *run, LlmJinjaFrame *frame,
					const LlmJinjaArgExprs *exprs, LlmJinjaArgs *args);

/* input: what the filter applies to, already evaluated. */
extern bool llm_jinja_eval_filter(LlmJinjaRun *run, LlmJinjaFrame *frame,
								  const LlmJinjaExpr *expr, LlmJinjaValue input,
								  LlmJinjaValue *out);

extern bool llm_jinja_call_macro(LlmJinjaRun *run, const LlmJinjaMacro *macro,
								 const LlmJinjaArgs *args, LlmJinjaValue *out);

/* loop(...) in a recursive loop: the text of the inner loop. */
extern bool llm_jinja_call_loop(LlmJinjaRun *run, const LlmJinjaLoop *loop,
								LlmJinjaValue iterable, LlmJinjaValue *out);

/* Bounds recursion; leave must follow where enter succeeded. */
extern bool llm_jinja_enter(LlmJinjaRun *run);

static inline void
llm_jinja_leave(LlmJinjaRun *run)
{
	run->depth--;
}

#endif /* LLM_JINJA_AST_H */

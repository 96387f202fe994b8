/*
 * type_schema.c
 *	  A JSON Schema for the values of an SQL type.
 *
 * A type is described in two passes: facets (what kind of JSON value, within
 * what bounds) are gathered from the type, its modifier, and, for a domain,
 * its checks; then they are written.  A check that no facet can say is left to
 * the domain itself, which is asked about every value anyway; one that is said
 * only keeps the model from answering what would be refused.
 *
 * Names and comments of types and columns go into the schema as titles and
 * descriptions: they are the instruction that the model sees.
 *
 * src/server/sql/type_schema.c
 */
#include "postgres.h"

#include "src/common/grammar/grammar.h"
#include "src/server/sql/text_convert.h"
#include "src/server/sql/type_schema.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/pg_class.h"
#include "catalog/pg_enum.h"
#include "catalog/pg_type.h"
#include "commands/comment.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "nodes/nodeFuncs.h"
#include "nodes/primnodes.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

typedef struct Facets
{
	const char *type;	 /* JSON's; NULL: any value */
	const char *format;	 /* NULL: none */
	const char *pattern; /* likewise; UTF-8 */
	const char *values;	 /* JSON values between commas; NULL: not listed */
	char *minimum;		 /* numbers as text; NULL: none */
	char *maximum;
	bool minimum_is_out; /* exclusive */
	bool maximum_is_out;
	const char *multiple_of;
	int max_length; /* in characters; -1: none */
	int min_length;
	bool is_not_null;
} Facets;

static void
append_schema(StringInfo json, Oid type_id, int32 typmod, bool is_nullable);

/* A text of the database as a JSON string. */
static void
append_string(StringInfo json, const char *text)
{
	LlmTemplateText utf8 = llm_text_to_utf8(cstring_to_text(text));

	llm_append_json_string(json, utf8.data, utf8.len);
}

/* -- numbers -- */

static bool
is_less(const char *a, const char *b)
{
	Datum left =
		DirectFunctionCall3(numeric_in, CStringGetDatum(a),
							ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
	Datum right =
		DirectFunctionCall3(numeric_in, CStringGetDatum(b),
							ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));

	return DatumGetInt32(DirectFunctionCall2(numeric_cmp, left, right)) < 0;
}

static void
raise_minimum(Facets *facets, char *bound, bool is_out)
{
	if (facets->minimum != NULL && is_less(bound, facets->minimum))
		return;
	if (facets->minimum == NULL || is_less(facets->minimum, bound))
		facets->minimum_is_out = false;
	facets->minimum = bound;
	facets->minimum_is_out |= is_out;
}

static void
lower_maximum(Facets *facets, char *bound, bool is_out)
{
	if (facets->maximum != NULL && is_less(facets->maximum, bound))
		return;
	if (facets->maximum == NULL || is_less(bound, facets->maximum))
		facets->maximum_is_out = false;
	facets->maximum = bound;
	facets->maximum_is_out |= is_out;
}

static void
set_integer(Facets *facets, int64 minimum, int64 maximum)
{
	facets->type = "integer";
	facets->minimum = psprintf(INT64_FORMAT, minimum);
	facets->maximum = psprintf(INT64_FORMAT, maximum);
}

/* A number of so many digits, and of so many behind the point. */
static void
set_numeric(Facets *facets, int32 typmod)
{
	int precision = ((typmod - VARHDRSZ) >> 16) & 0xFFFF;
	int scale = (((typmod - VARHDRSZ) & 0x7FF) ^ 1024) - 1024;
	StringInfoData bound;

	facets->type = "number";
	/* negative scales, and more digits behind the point than there are, are
	 * rare: the type's input function rounds them */
	if (typmod < VARHDRSZ || scale < 0 || scale > precision)
		return;
	initStringInfo(&bound);
	appendStringInfoString(&bound, "1");
	for (int i = 0; i < precision - scale; i++)
		appendStringInfoChar(&bound, '0');
	facets->maximum = bound.data;
	facets->minimum = psprintf("-%s", bound.data);
	facets->maximum_is_out = true;
	facets->minimum_is_out = true;
	if (scale == 0)
		facets->type = "integer";
	else if (scale <= 9)
		facets->multiple_of = psprintf("0.%0*d", scale, 1);
}

/* -- built-in types -- */

static void
set_base_type(Facets *facets, Oid type_id, int32 typmod)
{
	facets->type = "string";
	switch (type_id)
	{
		case BOOLOID:
			facets->type = "boolean";
			break;
		case INT2OID:
			set_integer(facets, PG_INT16_MIN, PG_INT16_MAX);
			break;
		case INT4OID:
			set_integer(facets, PG_INT32_MIN, PG_INT32_MAX);
			break;
		case INT8OID:
			set_integer(facets, PG_INT64_MIN, PG_INT64_MAX);
			break;
		case OIDOID:
			set_integer(facets, 0, PG_UINT32_MAX);
			break;
		case FLOAT4OID:
			/* bounds also rule out exponents that a float4 lacks */
			facets->minimum = "-1000000000000000000";
			facets->maximum = "1000000000000000000";
			facets->type = "number";
			break;
		case FLOAT8OID:
			facets->type = "number";
			break;
		case NUMERICOID:
			set_numeric(facets, typmod);
			break;
		case DATEOID:
			facets->format = "date";
			break;
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			facets->format = "date-time";
			break;
		case TIMEOID:
		case TIMETZOID:
			facets->format = "time";
			break;
		case INTERVALOID:
			facets->format = "duration";
			break;
		case UUIDOID:
			facets->format = "uuid";
			break;
		case JSONOID:
		case JSONBOID:
			facets->type = NULL;
			break;
		case BPCHAROID:
		case VARCHAROID:
			if (typmod >= VARHDRSZ)
				facets->max_length = typmod - VARHDRSZ;
			break;
		default:
			/* what its input function reads */
			break;
	}
}

static void
append_value(StringInfo list, const char *json)
{
	if (list->len > 0)
		appendStringInfoString(list, ", ");
	appendStringInfoString(list, json);
}

/* A text as one value of a list. */
static void
append_string_value(StringInfo list, const char *text)
{
	if (list->len > 0)
		appendStringInfoString(list, ", ");
	append_string(list, text);
}

static void
set_enum(Facets *facets, Oid type_id)
{
	CatCList *members =
		SearchSysCacheList1(ENUMTYPOIDNAME, ObjectIdGetDatum(type_id));
	int n_members = members->n_members;
	Form_pg_enum *labels = palloc(sizeof(Form_pg_enum) * (n_members + 1));
	StringInfoData list;

	for (int i = 0; i < n_members; i++)
	{
		Form_pg_enum label =
			(Form_pg_enum) GETSTRUCT(&members->members[i]->tuple);
		int at = i;

		/* in the order of the type, which is not that of the names */
		for (; at > 0 && labels[at - 1]->enumsortorder > label->enumsortorder;
			 at--)
			labels[at] = labels[at - 1];
		labels[at] = label;
	}
	initStringInfo(&list);
	for (int i = 0; i < n_members; i++)
		append_string_value(&list, NameStr(labels[i]->enumlabel));
	ReleaseCatCacheList(members);
	if (n_members == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("type %s has no values", format_type_be(type_id))));
	facets->values = list.data;
	facets->type = "string";
}

/* -- checks of domains -- */

/* The value itself, perhaps relabelled (a varchar compared as text). */
static bool
is_value(const Node *node)
{
	while (IsA(node, RelabelType))
		node = (const Node *) ((const RelabelType *) node)->arg;
	return IsA(node, CoerceToDomainValue);
}

/* The text of a constant; NULL: it is none, or null. */
static char *
constant_text(const Node *node)
{
	const Const *constant;
	Oid output;
	bool is_varlena;

	while (IsA(node, RelabelType))
		node = (const Node *) ((const RelabelType *) node)->arg;
	constant = (const Const *) node;
	if (!IsA(node, Const) || constant->constisnull)
		return NULL;
	getTypeOutputInfo(constant->consttype, &output, &is_varlena);
	return OidOutputFunctionCall(output, constant->constvalue);
}

/* Is it length(VALUE) of a text? */
static bool
is_length_of_value(const Node *node)
{
	const FuncExpr *call = (const FuncExpr *) node;

	if (!IsA(node, FuncExpr) || list_length(call->args) != 1 ||
		!is_value(linitial(call->args)))
		return false;
	return call->funcid == F_LENGTH_TEXT ||
		   call->funcid == F_CHAR_LENGTH_TEXT ||
		   call->funcid == F_CHARACTER_LENGTH_TEXT;
}

static bool
is_finite_number(const char *text)
{
	return text[strspn(text, "+-0123456789.")] == '\0';
}

/* VALUE op constant, or length(VALUE) op constant. */
static void
apply_comparison(Facets *facets, const char *op, char *bound, bool is_length)
{
	bool is_above = op[0] == '>';
	bool is_out = op[1] == '\0';

	if (!is_finite_number(bound))
		return;
	if (!is_length && is_above)
		raise_minimum(facets, bound, is_out);
	else if (!is_length)
		lower_maximum(facets, bound, is_out);
	else if (is_above)
		facets->min_length =
			Max(facets->min_length, atoi(bound) + (is_out ? 1 : 0));
	else if (facets->max_length < 0 ||
			 atoi(bound) - (is_out ? 1 : 0) < facets->max_length)
		facets->max_length = Max(atoi(bound) - (is_out ? 1 : 0), 0);
}

/*
 * PostgreSQL's expressions and ECMA-262's agree where they are plain; what is
 * taken has to compile as well.
 */
static void
apply_pattern(Facets *facets, const char *pattern)
{
	LlmStrbuf program = { 0 };
	LlmError err;
	StringInfoData schema;

	for (const char *p = pattern; *p != '\0'; p++)
		if (IS_HIGHBIT_SET(*p) || iscntrl((unsigned char) *p) ||
			(*p == '\\' && strchr("d.-+*?()[]{}|/\\^$", p[1]) == NULL) ||
			(*p == '[' && p[1] == ':') || (p == pattern && *p == '*'))
			return;
	if (strstr(pattern, "(?") != NULL || strncmp(pattern, "***", 3) == 0)
		return;
	initStringInfo(&schema);
	appendStringInfoString(&schema, "{\"type\": \"string\", \"pattern\": ");
	append_string(&schema, pattern);
	appendStringInfoChar(&schema, '}');
	if (facets->pattern == NULL && llm_grammar_compile_json_schema(
									   schema.data, schema.len, &program, &err))
		facets->pattern = pattern;
	llm_strbuf_free(&program);
}

static void
apply_operator(Facets *facets, const OpExpr *expr)
{
	char *op = get_opname(expr->opno);
	const Node *left = linitial(expr->args);
	const Node *right = lsecond(expr->args);
	char *text;

	/* operators of others may mean anything */
	if (op == NULL || expr->opno >= FirstNormalObjectId)
		return;
	if (constant_text(left) != NULL && op[0] != '~')
	{
		const Node *constant = left;

		left = right;
		right = constant;
		op[0] = op[0] == '<' ? '>' : op[0] == '>' ? '<' : op[0];
	}
	text = constant_text(right);
	if (text == NULL)
		return;
	if (strcmp(op, "~") == 0 && is_value(left))
		apply_pattern(facets, text);
	else if (strcmp(op, "<") == 0 || strcmp(op, "<=") == 0 ||
			 strcmp(op, ">") == 0 || strcmp(op, ">=") == 0)
	{
		bool is_number =
			facets->type != NULL && (strcmp(facets->type, "integer") == 0 ||
									 strcmp(facets->type, "number") == 0);

		if (is_value(left) && is_number)
			apply_comparison(facets, op, text, false);
		else if (is_length_of_value(left))
			apply_comparison(facets, op, text, true);
	}
}

/* VALUE = ANY (constants), which IN is made of. */
static void
apply_list(Facets *facets, const ScalarArrayOpExpr *expr)
{
	const Const *constant = lsecond(expr->args);
	StringInfoData list;
	ArrayType *array;
	Oid output;
	bool is_varlena;
	int16 typlen;
	bool typbyval;
	char typalign;
	Datum *values;
	bool *nulls;
	int n_values;

	if (!expr->useOr || expr->opno >= FirstNormalObjectId ||
		strcmp(get_opname(expr->opno), "=") != 0 ||
		!is_value(linitial(expr->args)) || !IsA(constant, Const) ||
		constant->constisnull || facets->values != NULL ||
		facets->type == NULL || facets->format != NULL)
		return;
	array = DatumGetArrayTypeP(constant->constvalue);
	get_typlenbyvalalign(ARR_ELEMTYPE(array), &typlen, &typbyval, &typalign);
	deconstruct_array(array, ARR_ELEMTYPE(array), typlen, typbyval, typalign,
					  &values, &nulls, &n_values);
	getTypeOutputInfo(ARR_ELEMTYPE(array), &output, &is_varlena);
	initStringInfo(&list);
	for (int i = 0; i < n_values; i++)
	{
		char *text;

		if (nulls[i])
			continue;
		text = OidOutputFunctionCall(output, values[i]);
		if (strcmp(facets->type, "string") == 0)
			append_string_value(&list, text);
		else if (is_finite_number(text))
			append_value(&list, text);
		else
			return;
	}
	if (list.len > 0)
		facets->values = list.data;
}

static void
apply_check(Facets *facets, const Node *expr)
{
	ListCell *cell;

	if (IsA(expr, BoolExpr) && ((const BoolExpr *) expr)->boolop == AND_EXPR)
	{
		foreach (cell, ((const BoolExpr *) expr)->args)
			apply_check(facets, lfirst(cell));
	}
	else if (IsA(expr, OpExpr) &&
			 list_length(((const OpExpr *) expr)->args) == 2)
		apply_operator(facets, (const OpExpr *) expr);
	else if (IsA(expr, ScalarArrayOpExpr))
		apply_list(facets, (const ScalarArrayOpExpr *) expr);
	else if (IsA(expr, NullTest) &&
			 ((const NullTest *) expr)->nulltesttype == IS_NOT_NULL &&
			 is_value((const Node *) ((const NullTest *) expr)->arg))
		facets->is_not_null = true;
}

static void
apply_domain(Facets *facets, Oid domain_id)
{
	/* the reference ends with its context, and so may not be on the stack */
	MemoryContext context = AllocSetContextCreate(
		CurrentMemoryContext, "llm domain", ALLOCSET_SMALL_SIZES);
	DomainConstraintRef *ref =
		MemoryContextAlloc(context, sizeof(DomainConstraintRef));
	ListCell *cell;

	InitDomainConstraintRef(domain_id, ref, context, false);
	foreach (cell, ref->constraints)
	{
		const DomainConstraintState *constraint = lfirst(cell);

		if (constraint->constrainttype == DOM_CONSTRAINT_NOTNULL)
			facets->is_not_null = true;
		else if (constraint->check_expr != NULL)
			apply_check(facets, (const Node *) constraint->check_expr);
	}
	MemoryContextDelete(context);
}

/* -- writing -- */

static void
append_type(StringInfo json, const char *type, bool is_nullable)
{
	if (is_nullable)
		appendStringInfo(json, "\"type\": [\"%s\", \"null\"]", type);
	else
		appendStringInfo(json, "\"type\": \"%s\"", type);
}

static void
append_facets(StringInfo json, const Facets *facets, bool is_nullable)
{
	if (facets->values != NULL)
	{
		appendStringInfo(json, "\"enum\": [%s%s]", facets->values,
						 is_nullable ? ", null" : "");
		return;
	}
	append_type(json, facets->type, is_nullable);
	if (facets->minimum != NULL)
		appendStringInfo(json, ", \"%s\": %s",
						 facets->minimum_is_out ? "exclusiveMinimum"
												: "minimum",
						 facets->minimum);
	if (facets->maximum != NULL)
		appendStringInfo(json, ", \"%s\": %s",
						 facets->maximum_is_out ? "exclusiveMaximum"
												: "maximum",
						 facets->maximum);
	if (facets->multiple_of != NULL)
		appendStringInfo(json, ", \"multipleOf\": %s", facets->multiple_of);
	/* one of the three: the domain or the type asks for the others itself */
	if (facets->format != NULL)
		appendStringInfo(json, ", \"format\": \"%s\"", facets->format);
	else if (facets->pattern != NULL)
	{
		appendStringInfoString(json, ", \"pattern\": ");
		append_string(json, facets->pattern);
	}
	else
	{
		if (facets->min_length > 0)
			appendStringInfo(json, ", \"minLength\": %d", facets->min_length);
		if (facets->max_length >= 0)
			appendStringInfo(json, ", \"maxLength\": %d", facets->max_length);
	}
}

static void
append_comment(StringInfo json, const char *key, const char *text)
{
	if (text == NULL || *text == '\0')
		return;
	appendStringInfo(json, "\"%s\": ", key);
	append_string(json, text);
	appendStringInfoString(json, ", ");
}

/* Columns in their order; those that are computed are not asked for. */
static void
append_columns(StringInfo json, Oid relation_id)
{
	Relation relation = relation_open(relation_id, AccessShareLock);
	TupleDesc desc = RelationGetDescr(relation);
	StringInfoData required;
	bool is_first = true;

	initStringInfo(&required);
	appendStringInfoString(json, ", \"properties\": {");
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);
		char *comment;

		if (column->attisdropped || column->attgenerated != '\0')
			continue;
		comment = GetComment(relation_id, RelationRelationId, column->attnum);
		appendStringInfoString(json, is_first ? "" : ", ");
		is_first = false;
		append_string(json, NameStr(column->attname));
		append_string_value(&required, NameStr(column->attname));
		appendStringInfoString(json, ": {");
		append_comment(json, "description", comment);
		append_schema(json, column->atttypid, column->atttypmod,
					  !column->attnotnull);
		appendStringInfoChar(json, '}');
	}
	appendStringInfo(json,
					 "}, \"required\": [%s], \"additionalProperties\": false",
					 required.data);
	relation_close(relation, AccessShareLock);
}

/* Names of types that users made say what values mean. */
static void
append_title(StringInfo json, Oid type_id)
{
	if (type_id < FirstNormalObjectId || OidIsValid(get_element_type(type_id)))
		return;
	append_comment(json, "title", format_type_be(type_id));
	append_comment(json, "description", GetComment(type_id, TypeRelationId, 0));
}

static void
append_array(StringInfo json, Oid element_id, int32 typmod, bool is_nullable)
{
	append_type(json, "array", is_nullable);
	appendStringInfoString(json, ", \"items\": {");
	append_schema(json, element_id, typmod, false);
	appendStringInfoChar(json, '}');
}

/* The members of a schema, without its braces. */
static void
append_schema(StringInfo json, Oid type_id, int32 typmod, bool is_nullable)
{
	Facets facets = { .max_length = -1 };
	Oid base_id = getBaseTypeAndTypmod(type_id, &typmod);
	Oid element_id = get_element_type(base_id);
	char kind = get_typtype(base_id);

	check_stack_depth();
	append_title(json, type_id);
	if (kind == TYPTYPE_PSEUDO)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("values of type %s cannot be extracted",
							   format_type_be(type_id)),
						errhint("Name a type with known columns, as in "
								"NULL::my_type.")));
	if (kind == TYPTYPE_ENUM)
		set_enum(&facets, base_id);
	else if (kind != TYPTYPE_COMPOSITE && !OidIsValid(element_id))
		set_base_type(&facets, base_id, typmod);
	if (type_id != base_id)
		apply_domain(&facets, type_id);
	is_nullable = is_nullable && !facets.is_not_null;
	if (kind == TYPTYPE_COMPOSITE)
	{
		append_type(json, "object", is_nullable);
		append_columns(json, get_typ_typrelid(base_id));
	}
	else if (OidIsValid(element_id))
		append_array(json, element_id, typmod, is_nullable);
	else if (facets.type != NULL)
		append_facets(json, &facets, is_nullable);
	else if (json->len >= 2 && json->data[json->len - 2] == ',')
		json->len -= 2; /* any value: what was said ends here */
	json->data[json->len] = '\0';
}

LlmTemplateText
llm_type_schema(Oid type_id, int32 typmod)
{
	StringInfoData json;
	LlmTemplateText text;
	bool is_composite = get_typtype(getBaseType(type_id)) == TYPTYPE_COMPOSITE;

	initStringInfo(&json);
	appendStringInfoChar(&json, '{');
	append_schema(&json, type_id, typmod, !is_composite);
	appendStringInfoChar(&json, '}');
	text.data = json.data;
	text.len = (size_t) json.len;
	return text;
}

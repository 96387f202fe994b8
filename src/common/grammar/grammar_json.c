/*
 * grammar_json.c
 *	  JSON as a schema needs it: numbers as they are written, places by name.
 *
 * src/common/grammar/grammar_json.c
 */
#include "src/common/grammar/grammar_json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/util/utf8.h"

#define MAX_JSON_DEPTH 128

typedef struct Reader
{
	LlmGrammarBuilder *b;
	const char *text;
	size_t len;
	size_t at;
	int depth;
} Reader;

static LlmSchemaJson *
refuse(Reader *r, const char *what)
{
	llm_grammar_fail(r->b, LLM_ERROR_FORMAT,
					 "schema is no JSON: %s at byte %zu", what, r->at);
	return NULL;
}

static void
skip_space(Reader *r)
{
	while (r->at < r->len && r->text[r->at] != '\0' &&
		   strchr(" \t\r\n", r->text[r->at]) != NULL)
		r->at++;
}

static bool
take(Reader *r, const char *text)
{
	size_t len = strlen(text);

	if (r->len - r->at < len || memcmp(r->text + r->at, text, len) != 0)
		return false;
	r->at += len;
	return true;
}

static bool
take_hex4(Reader *r, uint32_t *value)
{
	*value = 0;
	for (int i = 0; i < 4; i++)
	{
		char c = r->at < r->len ? r->text[r->at++] : ' ';
		int digit = c >= '0' && c <= '9'   ? c - '0'
					: c >= 'a' && c <= 'f' ? c - 'a' + 10
					: c >= 'A' && c <= 'F' ? c - 'A' + 10
										   : -1;

		if (digit < 0)
			return false;
		*value = *value * 16 + (uint32_t) digit;
	}
	return true;
}

/* Behind a backslash; a pair of surrogates is one character. */
static bool
take_escape(Reader *r, uint32_t *c)
{
	static const char escapes[] = "b\bf\fn\nr\rt\t\"\"\\\\//";
	uint32_t low;
	char letter = r->at < r->len ? r->text[r->at++] : '\0';

	if (letter == 'u')
	{
		if (!take_hex4(r, c))
			return false;
		if (*c >= 0xD800 && *c <= 0xDBFF)
		{
			if (!take(r, "\\u") || !take_hex4(r, &low) || low < 0xDC00 ||
				low > 0xDFFF)
				return false;
			*c = 0x10000 + ((*c - 0xD800) << 10) + (low - 0xDC00);
		}
		return *c != 0 && (*c < 0xDC00 || *c > 0xDFFF);
	}
	for (size_t i = 0; escapes[i] != '\0'; i += 2)
	{
		if (escapes[i] == letter)
		{
			*c = (uint8_t) escapes[i + 1];
			return true;
		}
	}
	return false;
}

/* Behind the opening quote. */
static const char *
read_string(Reader *r, size_t *len)
{
	const char *end = r->text + r->at;
	char *out;

	while (end < r->text + r->len && *end != '"')
		end += *end == '\\' && end + 1 < r->text + r->len ? 2 : 1;
	out = llm_grammar_alloc(r->b, (size_t) (end - (r->text + r->at)) + 5);
	*len = 0;
	while (out != NULL && !take(r, "\""))
	{
		uint32_t c;
		int n = 1;

		if (take(r, "\\"))
		{
			if (!take_escape(r, &c))
			{
				refuse(r, "a malformed escape");
				return NULL;
			}
		}
		else
		{
			n = r->at < r->len
					? llm_utf8_decode(r->text + r->at, r->len - r->at, &c)
					: 0;
			if (n == 0 || c < 0x20)
			{
				refuse(r, "a malformed string");
				return NULL;
			}
			r->at += (size_t) n;
		}
		*len += (size_t) llm_utf8_encode(c, out + *len);
	}
	return out;
}

static bool
skip_digits(Reader *r)
{
	size_t start = r->at;

	while (r->at < r->len && r->text[r->at] >= '0' && r->text[r->at] <= '9')
		r->at++;
	return r->at > start;
}

static bool
read_number(Reader *r, LlmSchemaJson *value)
{
	size_t start = r->at;
	char *copy;
	bool ok;

	take(r, "-");
	ok = take(r, "0") || skip_digits(r);
	if (ok && take(r, "."))
		ok = skip_digits(r);
	if (ok && (take(r, "e") || take(r, "E")))
	{
		if (!take(r, "+"))
			take(r, "-");
		ok = skip_digits(r);
	}
	if (!ok)
		return refuse(r, "a malformed value") != NULL;
	value->kind = LLM_SCHEMA_JSON_NUMBER;
	value->text_len = r->at - start;
	copy = llm_grammar_alloc(r->b, value->text_len + 1);
	if (copy != NULL)
		memcpy(copy, r->text + start, value->text_len);
	value->text = copy;
	return copy != NULL;
}

static LlmSchemaJson *read_value(Reader *r);

/* A member's key and colon, before its value. */
static const char *
read_key(Reader *r, size_t *len)
{
	const char *key;

	skip_space(r);
	if (!take(r, "\""))
	{
		refuse(r, "a key is expected");
		return NULL;
	}
	key = read_string(r, len);
	skip_space(r);
	if (key != NULL && !take(r, ":"))
	{
		refuse(r, "':' is expected");
		return NULL;
	}
	return key;
}

/* Behind the opening bracket or brace. */
static bool
read_children(Reader *r, LlmSchemaJson *value, const char *close)
{
	LlmSchemaJson **last = &value->child;

	skip_space(r);
	if (take(r, close))
		return true;
	do
	{
		const char *key = NULL;
		size_t key_len = 0;
		LlmSchemaJson *child;

		if (value->kind == LLM_SCHEMA_JSON_OBJECT)
		{
			key = read_key(r, &key_len);
			if (key == NULL)
				return false;
			if (llm_schema_json_get_len(value, key, key_len) != NULL)
			{
				llm_grammar_fail(r->b, LLM_ERROR_FORMAT,
								 "schema has the key \"%.100s\" twice in one "
								 "object, before byte %zu",
								 key, r->at);
				return false;
			}
		}
		child = read_value(r);
		if (child == NULL)
			return false;
		child->key = key;
		child->key_len = key_len;
		child->parent = value;
		*last = child;
		last = &child->next;
		value->n_children++;
		skip_space(r);
	} while (take(r, ","));
	return take(r, close) || refuse(r, "',' or an end is expected") != NULL;
}

static LlmSchemaJson *
read_value(Reader *r)
{
	LlmSchemaJson *value = llm_grammar_alloc(r->b, sizeof(*value));
	bool ok = true;

	if (value == NULL)
		return NULL;
	if (++r->depth > MAX_JSON_DEPTH)
		return refuse(r, "values nested more than 128 deep");
	skip_space(r);
	if (take(r, "{"))
	{
		value->kind = LLM_SCHEMA_JSON_OBJECT;
		ok = read_children(r, value, "}");
	}
	else if (take(r, "["))
	{
		value->kind = LLM_SCHEMA_JSON_ARRAY;
		ok = read_children(r, value, "]");
	}
	else if (take(r, "\""))
	{
		value->kind = LLM_SCHEMA_JSON_STRING;
		value->text = read_string(r, &value->text_len);
		ok = value->text != NULL;
	}
	else if (take(r, "true"))
		value->kind = LLM_SCHEMA_JSON_TRUE;
	else if (take(r, "false"))
		value->kind = LLM_SCHEMA_JSON_FALSE;
	else if (take(r, "null"))
		value->kind = LLM_SCHEMA_JSON_NULL;
	else
		ok = read_number(r, value);
	r->depth--;
	return ok ? value : NULL;
}

const LlmSchemaJson *
llm_schema_json_parse(LlmGrammarBuilder *b, const char *text, size_t len)
{
	Reader r = { .b = b, .text = text, .len = len };
	LlmSchemaJson *value = read_value(&r);

	skip_space(&r);
	if (value != NULL && r.at < len)
		value = refuse(&r, "more text behind the value");
	return llm_grammar_failed(b) ? NULL : value;
}

const LlmSchemaJson *
llm_schema_json_follow(const LlmSchemaJson *value)
{
	while (value->kind == LLM_SCHEMA_JSON_LINK)
		value = value->target;
	return value;
}

const LlmSchemaJson *
llm_schema_json_get_len(const LlmSchemaJson *object, const char *key,
						size_t len)
{
	if (object->kind != LLM_SCHEMA_JSON_OBJECT)
		return NULL;
	for (const LlmSchemaJson *child = object->child; child != NULL;
		 child = child->next)
	{
		if (child->key_len == len && memcmp(child->key, key, len) == 0)
			return llm_schema_json_follow(child);
	}
	return NULL;
}

/* -- made values -- */

LlmSchemaJson *
llm_schema_json_make(LlmGrammarBuilder *b, LlmSchemaJsonKind kind,
					 const LlmSchemaJson *made_for)
{
	LlmSchemaJson *value = llm_grammar_alloc(b, sizeof(*value));

	if (value == NULL)
		return NULL;
	value->kind = kind;
	value->parent = made_for;
	value->is_made = true;
	return value;
}

LlmSchemaJson *
llm_schema_json_make_link(LlmGrammarBuilder *b, const LlmSchemaJson *target)
{
	LlmSchemaJson *link = llm_schema_json_make(b, LLM_SCHEMA_JSON_LINK, target);

	if (link != NULL)
		link->target = target;
	return link;
}

LlmSchemaJson *
llm_schema_json_make_number(LlmGrammarBuilder *b, uint32_t number)
{
	LlmSchemaJson *value =
		llm_schema_json_make(b, LLM_SCHEMA_JSON_NUMBER, NULL);
	char *text = llm_grammar_alloc(b, 12);

	if (value == NULL || text == NULL)
		return NULL;
	value->text_len = (size_t) snprintf(text, 12, "%u", number);
	value->text = text;
	return value;
}

void
llm_schema_json_put(LlmSchemaJson *parent, const char *key,
					LlmSchemaJson *value)
{
	LlmSchemaJson **last;

	if (parent == NULL || value == NULL)
		return;
	for (last = &parent->child; *last != NULL; last = &(*last)->next)
		;
	*last = value;
	value->key = key;
	value->key_len = key != NULL ? strlen(key) : 0;
	if (value->kind != LLM_SCHEMA_JSON_LINK)
		value->parent = parent;
	parent->n_children++;
}

bool
llm_schema_json_equal(const LlmSchemaJson *left, const LlmSchemaJson *right)
{
	const LlmSchemaJson *other;

	left = llm_schema_json_follow(left);
	right = llm_schema_json_follow(right);
	other = right->child;
	if (left->kind != right->kind || left->n_children != right->n_children)
		return false;
	if (left->kind == LLM_SCHEMA_JSON_NUMBER)
		return strtod(left->text, NULL) == strtod(right->text, NULL);
	if (left->kind == LLM_SCHEMA_JSON_STRING)
		return left->text_len == right->text_len &&
			   memcmp(left->text, right->text, left->text_len) == 0;
	for (const LlmSchemaJson *child = left->child; child != NULL;
		 child = child->next)
	{
		if (left->kind == LLM_SCHEMA_JSON_OBJECT)
			other = llm_schema_json_get_len(right, child->key, child->key_len);
		if (other == NULL || !llm_schema_json_equal(child, other))
			return false;
		other = other->next;
	}
	return true;
}

/* One step of a pointer: a key with its escapes, or an index. */
static void
write_step(const LlmSchemaJson *value, LlmStrbuf *out)
{
	size_t index = 0;

	if (value->key == NULL)
	{
		for (const LlmSchemaJson *child = value->parent->child; child != value;
			 child = child->next)
			index++;
		llm_strbuf_printf(out, "/%zu", index);
		return;
	}
	llm_strbuf_append_char(out, '/');
	for (size_t i = 0; i < value->key_len; i++)
	{
		if (value->key[i] == '~')
			llm_strbuf_append_str(out, "~0");
		else if (value->key[i] == '/')
			llm_strbuf_append_str(out, "~1");
		else
			llm_strbuf_append_char(out, value->key[i]);
	}
}

const char *
llm_schema_json_pointer(LlmGrammarBuilder *b, const LlmSchemaJson *value)
{
	const LlmSchemaJson *path[MAX_JSON_DEPTH + 1];
	LlmStrbuf text = { 0 };
	size_t n = 0;
	char *copy;

	for (; value->parent != NULL; value = value->parent)
	{
		if (!value->is_made)
			path[n++] = value;
	}
	while (n > 0)
		write_step(path[--n], &text);
	copy = llm_grammar_alloc(b, text.len + 2);
	if (copy != NULL)
		memcpy(copy, text.len > 0 ? text.data : "/",
			   text.len > 0 ? text.len : 1);
	llm_strbuf_free(&text);
	return copy != NULL ? copy : "";
}

void
llm_schema_json_write_string(const char *text, size_t len, LlmStrbuf *out)
{
	static const char escapes[] = "\bb\ff\nn\rr\tt\"\"\\\\";

	llm_strbuf_append_char(out, '"');
	for (size_t i = 0; i < len; i++)
	{
		const char *escape = NULL;

		for (size_t j = 0; escapes[j] != '\0' && escape == NULL; j += 2)
		{
			if (escapes[j] == text[i])
				escape = &escapes[j + 1];
		}
		if (escape != NULL)
			llm_strbuf_printf(out, "\\%c", *escape);
		else if ((uint8_t) text[i] < 0x20)
			llm_strbuf_printf(out, "\\u%04x", (unsigned) text[i]);
		else
			llm_strbuf_append_char(out, text[i]);
	}
	llm_strbuf_append_char(out, '"');
}

void
llm_schema_json_write(const LlmSchemaJson *value, LlmStrbuf *out)
{
	static const char *const literals[] = { "null", "false", "true" };
	bool is_object = value->kind == LLM_SCHEMA_JSON_OBJECT;

	if (value->kind == LLM_SCHEMA_JSON_NUMBER)
		llm_strbuf_append(out, value->text, value->text_len);
	else if (value->kind == LLM_SCHEMA_JSON_STRING)
		llm_schema_json_write_string(value->text, value->text_len, out);
	else if (value->kind <= LLM_SCHEMA_JSON_TRUE)
		llm_strbuf_append_str(out, literals[value->kind]);
	else
	{
		llm_strbuf_append_char(out, is_object ? '{' : '[');
		for (const LlmSchemaJson *child = value->child; child != NULL;
			 child = child->next)
		{
			if (child != value->child)
				llm_strbuf_append_char(out, ',');
			if (is_object)
			{
				llm_schema_json_write_string(child->key, child->key_len, out);
				llm_strbuf_append_char(out, ':');
			}
			llm_schema_json_write(child, out);
		}
		llm_strbuf_append_char(out, is_object ? '}' : ']');
	}
}

/*
 * jinja_token_stream.c
 *	  The parser's way through the tokens, and what it says when lost.
 *
 * src/common/template/jinja_token_stream.c
 */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "src/common/template/jinja_parser.h"

/* ---- tokens ---- */

bool
llm_jinja_parse_fail(LlmJinjaParser *parser, int line, const char *fmt, ...)
{
	char message[LLM_ERROR_MESSAGE_BYTES];
	va_list args;

	va_start(args, fmt);
	vsnprintf(message, sizeof(message), fmt, args);
	va_end(args);
	parser->run->line = line;
	return llm_jinja_fail(parser->run, "%s", message);
}

bool
llm_jinja_check_token(LlmJinjaParser *parser)
{
	const LlmJinjaToken *token = parser->token;

	if (token->kind != LLM_JINJA_TOKEN_ERROR)
		return true;
	return llm_jinja_parse_fail(parser, token->line, "%.*s",
								(int) token->value.string->len,
								token->value.string->data);
}

bool
llm_jinja_advance(LlmJinjaParser *parser)
{
	if (parser->token->kind != LLM_JINJA_TOKEN_END)
		parser->token++;
	return llm_jinja_check_token(parser);
}

bool
llm_jinja_token_is(const LlmJinjaToken *token, LlmJinjaTokenKind kind)
{
	return token->kind == kind;
}

bool
llm_jinja_token_is_name(const LlmJinjaToken *token, const char *name)
{
	return token->kind == LLM_JINJA_TOKEN_NAME &&
		   llm_jinja_string_is(token->value, name);
}

const char *
llm_jinja_describe_token(LlmJinjaParser *parser, const LlmJinjaToken *token,
						 char *buffer)
{
	(void) parser;
	if (token->kind == LLM_JINJA_TOKEN_NAME)
		snprintf(buffer, LLM_JINJA_DESCRIPTION_BYTES, "'%.*s'",
				 (int) token->value.string->len, token->value.string->data);
	else
		snprintf(buffer, LLM_JINJA_DESCRIPTION_BYTES, "'%s'",
				 llm_jinja_describe_token_kind(token->kind));
	return buffer;
}

static bool
fail_expected(LlmJinjaParser *parser, const char *expected)
{
	const LlmJinjaToken *token = parser->token;
	char description[LLM_JINJA_DESCRIPTION_BYTES];

	if (token->kind == LLM_JINJA_TOKEN_END)
		return llm_jinja_parse_fail(parser, token->line,
									"unexpected end of template, expected "
									"'%s'.",
									expected);
	return llm_jinja_parse_fail(
		parser, token->line, "expected token '%s', got %s", expected,
		llm_jinja_describe_token(parser, token, description));
}

bool
llm_jinja_expect(LlmJinjaParser *parser, LlmJinjaTokenKind kind)
{
	if (parser->token->kind != kind)
		return fail_expected(parser, llm_jinja_describe_token_kind(kind));
	return llm_jinja_advance(parser);
}

bool
llm_jinja_expect_name(LlmJinjaParser *parser, const char *name)
{
	if (!llm_jinja_token_is_name(parser->token, name))
		return fail_expected(parser, name);
	return llm_jinja_advance(parser);
}

bool
llm_jinja_skip_if(LlmJinjaParser *parser, LlmJinjaTokenKind kind, bool *skipped)
{
	*skipped = parser->token->kind == kind;
	return !*skipped || llm_jinja_advance(parser);
}

bool
llm_jinja_skip_name(LlmJinjaParser *parser, const char *name, bool *skipped)
{
	*skipped = llm_jinja_token_is_name(parser->token, name);
	return !*skipped || llm_jinja_advance(parser);
}

bool
llm_jinja_nest(LlmJinjaParser *parser)
{
	/* an expression in parentheses passes here three times */
	if (++parser->nesting > 3 * LLM_JINJA_MAX_NESTING)
		return llm_jinja_parse_fail(parser, parser->token->line,
									"expression is nested more than %d deep",
									LLM_JINJA_MAX_NESTING);
	return true;
}

bool
llm_jinja_append(LlmJinjaParser *parser, LlmJinjaPointers *list, void *item)
{
	if (item == NULL)
		return false;
	if (list->n_items == list->capacity)
	{
		size_t capacity = list->capacity < 4 ? 4 : list->capacity * 2;
		void **items = llm_jinja_alloc(parser->run, capacity * sizeof(*items));

		if (items == NULL)
			return false;
		if (list->n_items > 0)
			memcpy(items, list->items, list->n_items * sizeof(*items));
		list->items = items;
		list->capacity = capacity;
	}
	list->items[list->n_items++] = item;
	return true;
}

/* ---- tags that do not fit ---- */

static void
append_ends(LlmStrbuf *message, const char *const *ends)
{
	for (int i = 0; ends[i] != NULL; i++)
		llm_strbuf_printf(message, "%s'%s'", i > 0 ? " or " : "", ends[i]);
}

static bool
is_expected_somewhere(const LlmJinjaParser *parser, const LlmJinjaString *name)
{
	for (int i = 0; i < parser->n_ends; i++)
		for (int j = 0; parser->ends[i][j] != NULL; j++)
			if (llm_jinja_string_is(llm_jinja_text(name), parser->ends[i][j]))
				return true;
	return false;
}

bool
llm_jinja_fail_tag(LlmJinjaParser *parser, const LlmJinjaString *name, int line)
{
	LlmStrbuf message;

	llm_jinja_init_buffer(&message);
	if (name == NULL)
		llm_strbuf_append_str(&message, "Unexpected end of template.");
	else
		llm_strbuf_printf(&message, "Encountered unknown tag '%.*s'.",
						  (int) name->len, name->data);
	if (parser->n_ends > 0)
	{
		llm_strbuf_append_str(
			&message,
			name != NULL && is_expected_somewhere(parser, name)
				? " You probably made a nesting mistake. Jinja is expecting "
				  "this tag, but currently looking for "
				: " Jinja was looking for the following tags: ");
		append_ends(&message, parser->ends[parser->n_ends - 1]);
		llm_strbuf_append_char(&message, '.');
	}
	if (parser->n_tags > 0)
	{
		const LlmJinjaString *tag = parser->tags[parser->n_tags - 1];

		llm_strbuf_printf(&message,
						  " The innermost block that needs to be closed is "
						  "'%.*s'.",
						  (int) tag->len, tag->data);
	}
	llm_jinja_parse_fail(parser, line, "%s", llm_strbuf_str(&message));
	llm_strbuf_free(&message);
	return false;
}

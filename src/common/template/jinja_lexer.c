/*
 * jinja_lexer.c
 *	  Cut a template into tokens, with jinja2's rules for whitespace.
 *
 * Fixed settings: trim_blocks (a newline behind a block or comment goes) and
 * lstrip_blocks (blanks between a line's start and a block or comment go),
 * no line statements, one trailing newline of the template dropped.  "-" and
 * "+" inside a tag override both.
 *
 * src/common/template/jinja_lexer.c
 */
#include "src/common/template/jinja_lexer.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/template/jinja_text.h"
#include "src/common/util/utf8.h"

#define MAX_OPEN_BRACKETS 512

typedef struct Lexer
{
	LlmJinjaRun *run;
	const char *source; /* newlines normalized */
	size_t len;
	size_t at;
	int line;
	bool line_starting; /* the last match ended in a newline */
	bool failed;		/* an ERROR token was emitted */
	char open[MAX_OPEN_BRACKETS];
	size_t n_open;
	LlmJinjaToken *tokens;
	size_t n_tokens;
	size_t capacity;
} Lexer;

const char *
llm_jinja_describe_token_kind(LlmJinjaTokenKind kind)
{
	static const char *const names[] = {
		[LLM_JINJA_TOKEN_DATA] = "template data / text",
		[LLM_JINJA_TOKEN_VARIABLE_BEGIN] = "begin of print statement",
		[LLM_JINJA_TOKEN_VARIABLE_END] = "end of print statement",
		[LLM_JINJA_TOKEN_BLOCK_BEGIN] = "begin of statement block",
		[LLM_JINJA_TOKEN_BLOCK_END] = "end of statement block",
		[LLM_JINJA_TOKEN_NAME] = "name",
		[LLM_JINJA_TOKEN_STRING] = "string",
		[LLM_JINJA_TOKEN_INTEGER] = "integer",
		[LLM_JINJA_TOKEN_FLOAT] = "float",
		[LLM_JINJA_TOKEN_END] = "end of template",
		[LLM_JINJA_TOKEN_ERROR] = "error",
		[LLM_JINJA_TOKEN_ADD] = "+",
		[LLM_JINJA_TOKEN_ASSIGN] = "=",
		[LLM_JINJA_TOKEN_COLON] = ":",
		[LLM_JINJA_TOKEN_COMMA] = ",",
		[LLM_JINJA_TOKEN_DIV] = "/",
		[LLM_JINJA_TOKEN_DOT] = ".",
		[LLM_JINJA_TOKEN_EQ] = "==",
		[LLM_JINJA_TOKEN_FLOORDIV] = "//",
		[LLM_JINJA_TOKEN_GT] = ">",
		[LLM_JINJA_TOKEN_GTEQ] = ">=",
		[LLM_JINJA_TOKEN_LBRACE] = "{",
		[LLM_JINJA_TOKEN_LBRACKET] = "[",
		[LLM_JINJA_TOKEN_LPAREN] = "(",
		[LLM_JINJA_TOKEN_LT] = "<",
		[LLM_JINJA_TOKEN_LTEQ] = "<=",
		[LLM_JINJA_TOKEN_MOD] = "%",
		[LLM_JINJA_TOKEN_MUL] = "*",
		[LLM_JINJA_TOKEN_NE] = "!=",
		[LLM_JINJA_TOKEN_PIPE] = "|",
		[LLM_JINJA_TOKEN_POW] = "**",
		[LLM_JINJA_TOKEN_RBRACE] = "}",
		[LLM_JINJA_TOKEN_RBRACKET] = "]",
		[LLM_JINJA_TOKEN_RPAREN] = ")",
		[LLM_JINJA_TOKEN_SEMICOLON] = ";",
		[LLM_JINJA_TOKEN_SUB] = "-",
		[LLM_JINJA_TOKEN_TILDE] = "~",
	};

	return names[kind];
}

/* ---- moving and emitting ---- */

/* A character of the source, or NUL behind its end. */
static char
peek(const Lexer *lexer, size_t ahead)
{
	return ahead < lexer->len - lexer->at ? lexer->source[lexer->at + ahead]
										  : '\0';
}

static bool
looks_at(const Lexer *lexer, size_t at, const char *text)
{
	size_t len = strlen(text);

	return len <= lexer->len - at && memcmp(lexer->source + at, text, len) == 0;
}

/* Go to a later position, counting lines. */
static void
advance_to(Lexer *lexer, size_t at)
{
	assert(at >= lexer->at && at <= lexer->len);
	if (at == lexer->at)
		return;
	lexer->line_starting = lexer->source[at - 1] == '\n';
	for (size_t i = lexer->at; i < at; i++)
		lexer->line += lexer->source[i] == '\n';
	lexer->at = at;
}

static size_t
skip_space(const Lexer *lexer, size_t at)
{
	int n;

	while (at < lexer->len)
	{
		uint32_t c = llm_jinja_char_at(lexer->source, lexer->len, at, &n);

		if (!llm_jinja_is_space(c))
			break;
		at += (size_t) n;
	}
	return at;
}

static bool
emit(Lexer *lexer, LlmJinjaTokenKind kind, LlmJinjaValue value)
{
	if (lexer->n_tokens == lexer->capacity)
	{
		size_t capacity = lexer->capacity < 64 ? 64 : lexer->capacity * 2;
		LlmJinjaToken *tokens =
			llm_jinja_alloc(lexer->run, capacity * sizeof(*tokens));

		if (tokens == NULL)
			return false;
		if (lexer->n_tokens > 0)
			memcpy(tokens, lexer->tokens, lexer->n_tokens * sizeof(*tokens));
		lexer->tokens = tokens;
		lexer->capacity = capacity;
	}
	lexer->tokens[lexer->n_tokens++] =
		(LlmJinjaToken){ .kind = kind, .line = lexer->line, .value = value };
	return true;
}

static bool
emit_text(Lexer *lexer, LlmJinjaTokenKind kind, const char *text, size_t len)
{
	LlmJinjaValue value;

	return llm_jinja_borrow_string(lexer->run, text, len, &value) &&
		   emit(lexer, kind, value);
}

/* The template is wrong here: the last token there will be. */
static bool __attribute__((format(printf, 2, 3)))
emit_error(Lexer *lexer, const char *fmt, ...)
{
	char message[200];
	va_list args;
	LlmJinjaValue value;

	va_start(args, fmt);
	vsnprintf(message, sizeof(message), fmt, args);
	va_end(args);
	lexer->failed = true;
	return llm_jinja_copy_string(lexer->run, message, strlen(message),
								 &value) &&
		   emit(lexer, LLM_JINJA_TOKEN_ERROR, value);
}

/* ---- text between tags ---- */

/*
 * The text before a tag, without what the tag's sign strips from its end.
 * is_variable: {{ does not take the blanks before it, blocks do.
 */
static bool
emit_data(Lexer *lexer, size_t end, char sign, bool is_variable)
{
	const char *text = lexer->source + lexer->at;
	size_t len = end - lexer->at;
	bool line_starting = lexer->line_starting;
	size_t line_start;

	if (sign == '-')
		llm_jinja_strip_text(&text, &len, LLM_JINJA_RIGHT, NULL);
	else if (sign != '+' && !is_variable)
	{
		const char *newline = memrchr(text, '\n', len);

		line_start = newline == NULL ? 0 : (size_t) (newline - text) + 1;
		if ((line_start > 0 || line_starting) &&
			skip_space(lexer, lexer->at + line_start) >= end)
			len = line_start;
	}
	if (len > 0 && !emit_text(lexer, LLM_JINJA_TOKEN_DATA, text, len))
		return false;
	advance_to(lexer, end);
	return true;
}

/* Behind a tag's end sign at "at": where the text goes on. */
static size_t
skip_after_tag(const Lexer *lexer, size_t at, char sign, bool trims_newline)
{
	if (sign == '-')
		return skip_space(lexer, at);
	if (sign != '+' && trims_newline && at < lexer->len &&
		lexer->source[at] == '\n')
		return at + 1;
	return at;
}

/*
 * Does a tag end ("%}", "#}"), maybe signed, stand at "at"?  Then *after is
 * where the text goes on.
 */
static bool
match_end(const Lexer *lexer, size_t at, const char *end, size_t *after)
{
	char sign = at < lexer->len ? lexer->source[at] : '\0';

	if ((sign == '+' || sign == '-') && looks_at(lexer, at + 1, end))
	{
		*after = skip_after_tag(lexer, at + 3, sign, true);
		return true;
	}
	if (!looks_at(lexer, at, end))
		return false;
	*after = skip_after_tag(lexer, at + 2, '\0', true);
	return true;
}

static char
sign_at(const Lexer *lexer, size_t at)
{
	char c = at < lexer->len ? lexer->source[at] : '\0';

	return c == '-' || c == '+' ? c : '\0';
}

/* Does "{%- raw -%}" stand at "at"?  Its end trims no newline. */
static bool
match_raw_begin(const Lexer *lexer, size_t at, size_t *after)
{
	at = skip_space(lexer, at + 2 + (sign_at(lexer, at + 2) != '\0'));
	if (!looks_at(lexer, at, "raw"))
		return false;
	at = skip_space(lexer, at + 3);
	if (looks_at(lexer, at, "-%}"))
		*after = skip_space(lexer, at + 3);
	else if (looks_at(lexer, at, "%}"))
		*after = at + 2;
	else
		return false;
	return true;
}

static bool
match_raw_end(const Lexer *lexer, size_t at, size_t *after)
{
	at = skip_space(lexer, at + 2 + (sign_at(lexer, at + 2) != '\0'));
	return looks_at(lexer, at, "endraw") &&
		   match_end(lexer, skip_space(lexer, at + 6), "%}", after);
}

static bool
lex_raw(Lexer *lexer)
{
	size_t after = 0;

	for (size_t at = lexer->at; at + 1 < lexer->len; at++)
	{
		if (!looks_at(lexer, at, "{%") || !match_raw_end(lexer, at, &after))
			continue;
		if (!emit_data(lexer, at, sign_at(lexer, at + 2), false))
			return false;
		advance_to(lexer, after);
		return true;
	}
	if (lexer->at == lexer->len)
		return true;
	return emit_error(lexer, "Missing end of raw directive");
}

static bool
lex_comment(Lexer *lexer)
{
	size_t after;

	for (size_t at = lexer->at; at < lexer->len; at++)
		if (match_end(lexer, at, "#}", &after))
		{
			advance_to(lexer, after);
			return true;
		}
	if (lexer->at == lexer->len)
		return true;
	return emit_error(lexer, "Missing end of comment tag");
}

/* ---- literals ---- */

static bool
emit_string(Lexer *lexer, const char *text, size_t len)
{
	const char *problem = NULL;
	LlmJinjaValue value;
	LlmStrbuf buf;

	if (memchr(text, '\\', len) == NULL)
		return emit_text(lexer, LLM_JINJA_TOKEN_STRING, text, len);
	llm_jinja_init_buffer(&buf);
	llm_jinja_decode_string(text, len, &buf, &problem);
	if (problem != NULL)
	{
		llm_strbuf_free(&buf);
		return emit_error(lexer, "%s", problem);
	}
	return llm_jinja_finish_string(lexer->run, &buf, true, &value) &&
		   emit(lexer, LLM_JINJA_TOKEN_STRING, value);
}

/* At a quote: emit the string if it ends. */
static bool
lex_string(Lexer *lexer, bool *matched)
{
	char quote = peek(lexer, 0);
	size_t end = lexer->at + 1;

	while (end < lexer->len && lexer->source[end] != quote)
		end += lexer->source[end] == '\\' ? 2 : 1;
	*matched = end < lexer->len;
	if (!*matched)
		return true;
	if (!emit_string(lexer, lexer->source + lexer->at + 1, end - lexer->at - 1))
		return false;
	advance_to(lexer, end + 1);
	return true;
}

static bool
emit_integer(Lexer *lexer, const char *digits, int base)
{
	char *end;
	long long value;
	LlmJinjaValue big;
	size_t len = strlen(digits);

	errno = 0;
	value = strtoll(digits, &end, base);
	if (errno == 0)
		return emit(lexer, LLM_JINJA_TOKEN_INTEGER, llm_jinja_int(value));
	if (base != 10 || len > LLM_JINJA_MAX_DIGITS)
		return emit_error(lexer, "integer is too large");
	if (!llm_jinja_copy_string(lexer->run, digits, len, &big))
		return false;
	big.kind = LLM_JINJA_BIGINT;
	return emit(lexer, LLM_JINJA_TOKEN_INTEGER, big);
}

static bool
lex_number(Lexer *lexer)
{
	size_t start = lexer->at;
	LlmJinjaString source = { .data = lexer->source, .len = lexer->len };
	size_t end = llm_jinja_match_float(&source, start);
	bool is_float = end > start;
	int base = 10;
	LlmStrbuf digits;
	bool ok;

	if (!is_float)
		end = llm_jinja_match_integer(&source, start, &base);
	llm_jinja_init_buffer(&digits);
	for (size_t i = start + (base == 10 ? 0 : 2); i < end; i++)
		if (lexer->source[i] != '_')
			llm_strbuf_append_char(&digits, lexer->source[i]);
	if (is_float)
		ok = emit(lexer, LLM_JINJA_TOKEN_FLOAT,
				  llm_jinja_float(strtod(llm_strbuf_str(&digits), NULL)));
	else
		ok = emit_integer(lexer, llm_strbuf_str(&digits), base);
	llm_strbuf_free(&digits);
	advance_to(lexer, end);
	return ok;
}

/* ---- inside of tags ---- */

static bool
lex_name(Lexer *lexer, bool *matched)
{
	const char *text = lexer->source + lexer->at;
	size_t len = 0;
	int n;

	while (lexer->at + len < lexer->len &&
		   llm_jinja_is_name_char(llm_jinja_char_at(lexer->source, lexer->len,
													lexer->at + len, &n)))
		len += (size_t) n;
	*matched = len > 0;
	if (!*matched)
		return true;
	if (!llm_jinja_is_identifier(text, len))
		return emit_error(lexer, "Invalid character in identifier");
	if (!emit_text(lexer, LLM_JINJA_TOKEN_NAME, text, len))
		return false;
	advance_to(lexer, lexer->at + len);
	return true;
}

static bool
track_brackets(Lexer *lexer, char c)
{
	static const char opening[] = "([{";
	static const char closing[] = ")]}";
	const char *found;

	found = strchr(opening, c);
	if (found != NULL)
	{
		if (lexer->n_open == MAX_OPEN_BRACKETS)
			return emit_error(lexer, "too many nested brackets");
		lexer->open[lexer->n_open++] = closing[found - opening];
		return true;
	}
	if (strchr(closing, c) == NULL)
		return true;
	if (lexer->n_open == 0)
		return emit_error(lexer, "unexpected '%c'", c);
	if (lexer->open[--lexer->n_open] != c)
		return emit_error(lexer, "unexpected '%c', expected '%c'", c,
						  lexer->open[lexer->n_open]);
	return true;
}

static bool
lex_operator(Lexer *lexer, bool *matched)
{
	/* two characters before one */
	static const LlmJinjaTokenKind kinds[] = {
		LLM_JINJA_TOKEN_FLOORDIV, LLM_JINJA_TOKEN_POW,
		LLM_JINJA_TOKEN_EQ,		  LLM_JINJA_TOKEN_NE,
		LLM_JINJA_TOKEN_GTEQ,	  LLM_JINJA_TOKEN_LTEQ,
		LLM_JINJA_TOKEN_ADD,	  LLM_JINJA_TOKEN_SUB,
		LLM_JINJA_TOKEN_DIV,	  LLM_JINJA_TOKEN_MUL,
		LLM_JINJA_TOKEN_MOD,	  LLM_JINJA_TOKEN_TILDE,
		LLM_JINJA_TOKEN_LBRACKET, LLM_JINJA_TOKEN_RBRACKET,
		LLM_JINJA_TOKEN_LPAREN,	  LLM_JINJA_TOKEN_RPAREN,
		LLM_JINJA_TOKEN_LBRACE,	  LLM_JINJA_TOKEN_RBRACE,
		LLM_JINJA_TOKEN_GT,		  LLM_JINJA_TOKEN_LT,
		LLM_JINJA_TOKEN_ASSIGN,	  LLM_JINJA_TOKEN_DOT,
		LLM_JINJA_TOKEN_COLON,	  LLM_JINJA_TOKEN_PIPE,
		LLM_JINJA_TOKEN_COMMA,	  LLM_JINJA_TOKEN_SEMICOLON,
	};

	*matched = false;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
	{
		const char *text = llm_jinja_describe_token_kind(kinds[i]);

		if (!looks_at(lexer, lexer->at, text))
			continue;
		*matched = true;
		if (!track_brackets(lexer, text[0]))
			return false;
		if (lexer->failed)
			return true;
		if (!emit(lexer, kinds[i], llm_jinja_missing()))
			return false;
		advance_to(lexer, lexer->at + strlen(text));
		return true;
	}
	return true;
}

static bool
emit_unexpected_char(Lexer *lexer)
{
	LlmJinjaValue prefix;
	LlmJinjaValue bad;
	LlmStrbuf text;
	int n;
	bool ok;

	llm_jinja_char_at(lexer->source, lexer->len, lexer->at, &n);
	if (!llm_jinja_borrow_string(lexer->run, lexer->source, lexer->at,
								 &prefix) ||
		!llm_jinja_borrow_string(lexer->run, lexer->source + lexer->at,
								 (size_t) n, &bad))
		return false;
	llm_jinja_init_buffer(&text);
	ok = llm_jinja_repr(lexer->run, bad, &text) &&
		 emit_error(lexer, "unexpected char %s at %zu", llm_strbuf_str(&text),
					prefix.string->n_chars);
	llm_strbuf_free(&text);
	return ok;
}

static bool
lex_inside_token(Lexer *lexer)
{
	char c = peek(lexer, 0);
	bool matched = false;
	bool ok;

	if (c >= '0' && c <= '9')
		return lex_number(lexer);
	ok = lex_name(lexer, &matched);
	if (ok && !matched && (c == '"' || c == '\''))
		ok = lex_string(lexer, &matched);
	if (ok && !matched)
		ok = lex_operator(lexer, &matched);
	if (ok && !matched)
		ok = emit_unexpected_char(lexer);
	return ok;
}

/* From behind "{{" or "{%" to its end. */
static bool
lex_inside(Lexer *lexer, bool is_variable)
{
	LlmJinjaTokenKind end_kind =
		is_variable ? LLM_JINJA_TOKEN_VARIABLE_END : LLM_JINJA_TOKEN_BLOCK_END;

	lexer->n_open = 0;
	while (lexer->at < lexer->len && !lexer->failed)
	{
		size_t after = lexer->at;
		bool at_end = false;

		if (lexer->n_open > 0)
			at_end = false;
		else if (!is_variable)
			at_end = match_end(lexer, lexer->at, "%}", &after);
		else if (looks_at(lexer, lexer->at, "-}}"))
		{
			at_end = true;
			after = skip_space(lexer, lexer->at + 3);
		}
		else if (looks_at(lexer, lexer->at, "}}"))
		{
			at_end = true;
			after = lexer->at + 2;
		}
		if (at_end)
		{
			if (!emit(lexer, end_kind, llm_jinja_missing()))
				return false;
			advance_to(lexer, after);
			return true;
		}
		advance_to(lexer, skip_space(lexer, lexer->at));
		if (lexer->at == after && !lex_inside_token(lexer))
			return false;
	}
	return true;
}

/* The text up to the next tag, and the tag's beginning. */
static bool
lex_root(Lexer *lexer)
{
	size_t at = lexer->at;
	size_t after;
	char kind;
	char sign;

	while (at + 1 < lexer->len &&
		   !(lexer->source[at] == '{' &&
			 strchr("%#{", lexer->source[at + 1]) != NULL &&
			 lexer->source[at + 1] != '\0'))
		at++;
	if (at + 1 >= lexer->len)
		return emit_data(lexer, lexer->len, '+', true);
	kind = lexer->source[at + 1];
	sign = sign_at(lexer, at + 2);
	if (!emit_data(lexer, at, sign, kind == '{'))
		return false;
	if (kind == '%' && match_raw_begin(lexer, at, &after))
	{
		advance_to(lexer, after);
		return lex_raw(lexer);
	}
	if (kind == '#')
	{
		advance_to(lexer, at + 2 + (sign != '\0'));
		return lex_comment(lexer);
	}
	if (!emit(lexer,
			  kind == '{' ? LLM_JINJA_TOKEN_VARIABLE_BEGIN
						  : LLM_JINJA_TOKEN_BLOCK_BEGIN,
			  llm_jinja_missing()))
		return false;
	advance_to(lexer, at + 2 + (sign != '\0'));
	return lex_inside(lexer, kind == '{');
}

/* Newlines become \n; one at the very end goes. */
static bool
normalize_source(Lexer *lexer, const char *source, size_t len)
{
	char *copy = llm_jinja_alloc(lexer->run, len);
	size_t n = 0;

	if (copy == NULL)
		return false;
	for (size_t i = 0; i < len; i++)
	{
		if (source[i] == '\r' && i + 1 < len && source[i + 1] == '\n')
			continue;
		copy[n++] = source[i] == '\r' ? '\n' : source[i];
	}
	if (n > 0 && copy[n - 1] == '\n')
		n--;
	lexer->source = copy;
	lexer->len = n;
	return true;
}

bool
llm_jinja_tokenize(LlmJinjaRun *run, const char *source, size_t len,
				   LlmJinjaToken **tokens)
{
	Lexer lexer = { .run = run, .line = 1, .line_starting = true };

	if (len > LLM_JINJA_MAX_SOURCE_BYTES)
		return llm_error_set(run->err, LLM_ERROR_LIMIT,
							 "chat template of %zu bytes is longer than %zu",
							 len, LLM_JINJA_MAX_SOURCE_BYTES);
	if (!llm_utf8_is_valid(source, len))
		return llm_error_set(run->err, LLM_ERROR_TEMPLATE,
							 "chat template is not valid UTF-8");
	if (!normalize_source(&lexer, source, len))
		return false;
	while (lexer.at < lexer.len && !lexer.failed)
		if (!lex_root(&lexer))
			return false;
	if (!lexer.failed &&
		!emit(&lexer, LLM_JINJA_TOKEN_END, llm_jinja_missing()))
		return false;
	*tokens = lexer.tokens;
	return true;
}

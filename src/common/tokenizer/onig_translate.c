/*
 * onig_translate.c
 *	  From Oniguruma's regular expressions (Ruby syntax) to PCRE2's.
 *
 * One pass, atom by atom.  What both libraries read alike is copied; what they
 * read differently is spelled out, so that no version of PCRE2 matters:
 *
 *	  \s \S		the property White_Space (PCRE2 adds U+180E)
 *	  \w \b		Alphabetic, marks, decimal digits, connectors
 *	  \d \h \v	decimal digits; hexadecimal digits; U+000B
 *	  \p{Han}	the script proper, not its extensions
 *	  X{n,m}+	a repeated repetition, not a possessive one
 *	  X{n}?		optional, not lazy
 *	  (?m)		the dot matches a newline
 *	  ( )		not captured: nothing here refers to groups
 *
 * Refused, since a near miss would change token ids silently: back
 * references, \K \G \R \X, nested and intersected character classes,
 * caseless text whose folding takes several characters.
 *
 * src/common/tokenizer/onig_translate.c
 */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "src/common/tokenizer/onig_property.h"
#include "src/common/tokenizer/split_regex.h"
#include "src/common/tokenizer/unicode_class.h"

#define MAX_GROUP_DEPTH 50
#define MAX_NAME_BYTES 48

typedef struct Translator
{
	const char *at;
	const char *end;
	const char *whole; /* the expression, for messages */
	LlmStrbuf *out;
	LlmError *err;
	int depth;
	bool caseless;
	uint32_t last_literal; /* right before, in the same run; 0 = none */
} Translator;

static bool translate_alternatives(Translator *t);

static bool
refuse(Translator *t, const char *what)
{
	size_t len = (size_t) (t->end - t->whole);

	return llm_error_set(t->err, LLM_ERROR_UNSUPPORTED,
						 "the expression \"%.*s\" uses %s, which is not "
						 "supported",
						 (int) (len > 300 ? 300 : len), t->whole, what);
}

static bool
peek_is(const Translator *t, const char *text)
{
	size_t len = strlen(text);

	return (size_t) (t->end - t->at) >= len && memcmp(t->at, text, len) == 0;
}

static bool
accept(Translator *t, const char *text)
{
	if (!peek_is(t, text))
		return false;
	t->at += strlen(text);
	return true;
}

static void
emit(Translator *t, const char *text)
{
	llm_strbuf_append_str(t->out, text);
}

/* A character that stands for itself, inside a class or outside. */
static void
emit_codepoint(Translator *t, uint32_t cp)
{
	if ((cp >= '0' && cp <= '9') || (cp >= 'a' && cp <= 'z') ||
		(cp >= 'A' && cp <= 'Z') || cp == '_' || cp == ' ')
		llm_strbuf_append_char(t->out, (char) cp);
	else if (cp > ' ' && cp < 0x7F)
		llm_strbuf_printf(t->out, "\\%c", (char) cp);
	else
		llm_strbuf_printf(t->out, "\\x{%X}", cp);
}

/*
 * A literal outside a class.  Oniguruma folds some pairs of letters to one
 * character (ss and U+00DF); PCRE2 does not.
 */
static bool
emit_literal(Translator *t, uint32_t cp)
{
	static const char *const folded_pairs[] = { "ss", "ff", "fi", "fl", "st" };

	if (t->caseless)
	{
		uint32_t lower = cp | 0x20;

		if (cp >= 0x80)
			return refuse(t, "a caseless character beyond ASCII");
		for (size_t i = 0; i < 5; i++)
		{
			if (t->last_literal == (unsigned char) folded_pairs[i][0] &&
				lower == (unsigned char) folded_pairs[i][1])
				return refuse(t, "caseless letters that fold to one");
		}
		t->last_literal = lower;
	}
	emit_codepoint(t, cp);
	return true;
}

static int
hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* Up to max_digits hexadecimal digits; returns how many there were. */
static int
read_hex(Translator *t, int max_digits, uint32_t *value)
{
	int n = 0;

	*value = 0;
	while (n < max_digits && t->at < t->end && hex_value(*t->at) >= 0)
	{
		*value = *value * 16 + (uint32_t) hex_value(*t->at);
		t->at++;
		n++;
	}
	return n;
}

/*
 * An escape that names one character; t->at is behind the backslash.
 * *is_char tells whether it was one (else nothing was consumed).
 */
static bool
read_escaped_char(Translator *t, bool *is_char, uint32_t *cp)
{
	static const char names[] = "tnrfvae";
	static const char values[] = "\t\n\r\f\v\a\x1B";
	char c = *t->at;
	const char *name = c != '\0' ? strchr(names, c) : NULL;

	*is_char = true;
	if (name != NULL)
	{
		*cp = (unsigned char) values[name - names];
		t->at++;
		return true;
	}
	if (c == 'x' || c == 'u')
	{
		bool braced = t->end - t->at > 1 && t->at[1] == '{' && c == 'x';
		int n;

		t->at += braced ? 2 : 1;
		n = read_hex(t, braced ? 8 : c == 'u' ? 4 : 2, cp);
		if (n == 0 || (c == 'u' && n != 4) || *cp > 0x10FFFF ||
			(*cp >= 0xD800 && *cp <= 0xDFFF) || (braced && !accept(t, "}")))
			return refuse(t, "a malformed \\x or \\u");
		if (!braced && c == 'x' && *cp >= 0x80)
			return refuse(t, "\\x with a byte beyond ASCII");
		return true;
	}
	if (c == '0')
	{
		*cp = 0;
		for (int n = 0;
			 n < 3 && t->at < t->end && *t->at >= '0' && *t->at <= '7'; n++)
			*cp = *cp * 8 + (uint32_t) (*t->at++ - '0');
		return true;
	}
	if ((unsigned char) c >= 0x80 || !llm_unicode_is_word((unsigned char) c))
	{
		t->at += llm_unicode_next(t->at, (size_t) (t->end - t->at), cp);
		return true;
	}
	*is_char = false;
	return true;
}

/*
 * Append the class members of a property.  A name that is not in the table is
 * taken for a script, then for one of Unicode's binary properties.
 */
static bool
emit_property(Translator *t, const char *name, size_t len, bool negated)
{
	char key[MAX_NAME_BYTES];
	const char *members;
	bool is_known;
	size_t n = 0;

	for (size_t i = 0; i < len; i++)
	{
		char c = name[i];

		if (c == ' ' || c == '_' || c == '-')
			continue;
		if (n == sizeof(key) - 1 || !llm_unicode_is_word((unsigned char) c))
			return refuse(t, "a malformed property name");
		key[n++] = c >= 'A' && c <= 'Z' ? (char) (c + 32) : c;
	}
	key[n] = '\0';
	members = llm_onig_property_members(key, negated, &is_known);
	if (is_known)
	{
		if (members == NULL)
			return refuse(t, "a negated property");
		emit(t, members);
		return true;
	}
	for (int i = 0; i < 2; i++)
	{
		char text[MAX_NAME_BYTES + 16];
		int text_len =
			snprintf(text, sizeof(text), i == 0 ? "\\%c{sc:%s}" : "\\%c{%s}",
					 negated ? 'P' : 'p', key);
		LlmSplitRegex *probe =
			llm_split_regex_create(text, (size_t) text_len, NULL);

		if (probe != NULL)
		{
			llm_split_regex_free(probe);
			emit(t, text);
			return true;
		}
	}
	return llm_error_set(t->err, LLM_ERROR_UNSUPPORTED,
						 "the character property \"%.*s\" is not known",
						 (int) len, name);
}

/* \p{name}, \p{^name}, \P{name}; t->at is behind the p. */
static bool
translate_property(Translator *t, bool negated)
{
	const char *start;
	const char *close;

	if (!accept(t, "{"))
		return refuse(t, "\\p without braces");
	if (accept(t, "^"))
		negated = !negated;
	start = t->at;
	close = memchr(start, '}', (size_t) (t->end - start));
	if (close == NULL)
		return refuse(t, "an unfinished \\p{");
	t->at = close + 1;
	return emit_property(t, start, (size_t) (close - start), negated);
}

/*
 * A shorthand for a set of characters, as class members.  *is_set tells
 * whether it was one (else nothing was consumed).
 */
static bool
translate_set_escape(Translator *t, bool in_class, bool *is_set)
{
	char c = *t->at;

	*is_set = true;
	t->at++;
	switch (c)
	{
		case 'd':
			emit(t, "\\p{Nd}");
			return true;
		case 'D':
			emit(t, "\\P{Nd}");
			return true;
		case 's':
			emit(t, CLASS_SPACE);
			return true;
		case 'S':
			emit(t, CLASS_NOT_SPACE);
			return true;
		case 'h':
			emit(t, CLASS_HEX);
			return true;
		case 'H':
			emit(t, CLASS_NOT_HEX);
			return true;
		case 'w':
			emit(t, in_class ? CLASS_WORD : CLASS_LONE_WORD);
			return true;
		case 'W':
			if (in_class)
				return refuse(t, "\\W in a character class");
			emit(t, "^" CLASS_LONE_WORD); /* the caller adds the brackets */
			return true;
		case 'p':
		case 'P':
			return translate_property(t, c == 'P');
		default:
			*is_set = false;
			t->at--;
			return true;
	}
}

/* A backslash outside a class; t->at is behind it. */
static bool
translate_escape(Translator *t)
{
	bool is_set;
	bool is_char;
	uint32_t cp;

	if (t->at == t->end)
		return refuse(t, "a backslash at the end");
	if (strchr("dDsShHwWpP", *t->at) != NULL)
	{
		t->last_literal = 0;
		/* the libraries and their versions differ in folding properties */
		emit(t, t->caseless ? "(?-i:[" : "[");
		if (!translate_set_escape(t, false, &is_set))
			return false;
		assert(is_set);
		emit(t, t->caseless ? "])" : "]");
		return true;
	}
	if (!read_escaped_char(t, &is_char, &cp))
		return false;
	if (is_char)
		return emit_literal(t, cp);

	t->last_literal = 0;
	if (accept(t, "A"))
		emit(t, "\\A");
	else if (accept(t, "z"))
		emit(t, "\\z");
	else if (accept(t, "Z"))
		emit(t, "\\Z");
	else if (accept(t, "b"))
		emit(t, "(?:(?<=[" CLASS_LONE_WORD "])(?![" CLASS_LONE_WORD
				"])|(?<![" CLASS_LONE_WORD "])(?=[" CLASS_LONE_WORD "]))");
	else if (accept(t, "B"))
		emit(t, "(?:(?<=[" CLASS_LONE_WORD "])(?=[" CLASS_LONE_WORD
				"])|(?<![" CLASS_LONE_WORD "])(?![" CLASS_LONE_WORD "]))");
	else
	{
		char what[] = "the escape \\?";

		what[sizeof(what) - 2] = *t->at;
		return refuse(t, what);
	}
	return true;
}

/* [:name:] inside a class; *is_posix tells whether it was one. */
static bool
translate_posix(Translator *t, bool *is_posix)
{
	const char *start = t->at + 2;
	const char *close;
	bool negated = false;

	*is_posix = false;
	if (!peek_is(t, "[:"))
		return true;
	close = start;
	if (close < t->end && *close == '^')
	{
		negated = true;
		close = ++start;
	}
	while (close < t->end && *close >= 'a' && *close <= 'z')
		close++;
	if (t->end - close < 2 || close[0] != ':' || close[1] != ']')
		return true;
	*is_posix = true;
	t->at = close + 2;
	if (close - start == 5 && memcmp(start, "punct", 5) == 0)
	{
		if (negated)
			return refuse(t, "[:^punct:]");
		emit(t, "\\p{P}\\p{S}"); /* unlike \p{Punct} it has all symbols */
		return true;
	}
	return emit_property(t, start, (size_t) (close - start), negated);
}

/* One character of a class, the start or end of a range. */
static bool
read_class_char(Translator *t, uint32_t *cp)
{
	bool is_char;

	if (*t->at != '\\')
	{
		t->at += llm_unicode_next(t->at, (size_t) (t->end - t->at), cp);
		return true;
	}
	t->at++;
	if (t->at == t->end)
		return refuse(t, "a backslash at the end");
	if (accept(t, "b"))
	{
		*cp = 0x08;
		return true;
	}
	if (!read_escaped_char(t, &is_char, cp))
		return false;
	return is_char || refuse(t, "an unknown escape in a character class");
}

/* A character or a range of a class. */
static bool
translate_class_range(Translator *t)
{
	uint32_t low;
	uint32_t high;

	if (!read_class_char(t, &low))
		return false;
	high = low;
	if (peek_is(t, "-") && !peek_is(t, "-]"))
	{
		t->at++;
		if (t->at == t->end || *t->at == '[' ||
			(*t->at == '\\' && t->end - t->at > 1 &&
			 strchr("dDsShHwWpP", t->at[1]) != NULL))
			return refuse(t, "a range that ends in a set");
		if (!read_class_char(t, &high))
			return false;
		if (high < low)
			return refuse(t, "an empty range");
		if (peek_is(t, "-") && !peek_is(t, "-]"))
			return refuse(t, "a hyphen behind a range");
	}
	if (t->caseless && high >= 0x80)
		return refuse(t, "a caseless character beyond ASCII");
	emit_codepoint(t, low);
	if (high > low)
	{
		emit(t, "-");
		emit_codepoint(t, high);
	}
	return true;
}

/* A character class; t->at is behind the opening bracket. */
static bool
translate_class(Translator *t)
{
	bool first = true;

	t->last_literal = 0;
	emit(t, "[");
	if (accept(t, "^"))
		emit(t, "^");
	for (;; first = false)
	{
		bool done;

		if (t->at == t->end)
			return refuse(t, "an unfinished character class");
		if (!first && accept(t, "]"))
			break;
		if (peek_is(t, "&&"))
			return refuse(t, "an intersection of character classes");
		if (*t->at == '[')
		{
			if (!translate_posix(t, &done))
				return false;
			if (!done)
				return refuse(t, "a nested character class");
			if (t->caseless)
				return refuse(t, "a caseless set of characters");
			continue;
		}
		if (*t->at == '\\' && t->end - t->at > 1 &&
			strchr("dDsShHwWpP", t->at[1]) != NULL)
		{
			t->at++;
			if (t->caseless && strchr("ds", *t->at) == NULL)
				return refuse(t, "a caseless set of characters");
			if (!translate_set_escape(t, true, &done))
				return false;
			assert(done);
			if (peek_is(t, "-") && !peek_is(t, "-]"))
				return refuse(t, "a range that starts with a set");
			continue;
		}
		if (!translate_class_range(t))
			return false;
	}
	emit(t, "]");
	return true;
}

/*
 * Inline options behind "(?": letters, then ":" or ")".  At the very start of
 * a group both libraries apply "(?i)" to all that follows in it; further in
 * they treat alternatives differently.
 */
static bool
translate_options(Translator *t, bool at_start, bool *opens_group)
{
	bool off = false;
	bool caseless = t->caseless;

	emit(t, "(?");
	for (;; t->at++)
	{
		if (t->at == t->end)
			return refuse(t, "an unfinished group");
		if (*t->at == '-' && !off)
		{
			off = true;
			emit(t, "-");
		}
		else if (*t->at == 'i')
		{
			caseless = !off;
			emit(t, "i");
		}
		else if (*t->at == 'm')
			emit(t, "s"); /* Ruby's name for it */
		else
			break;
	}
	*opens_group = *t->at == ':';
	if (!*opens_group && *t->at != ')')
		return refuse(t, "an unknown kind of group");
	if (!*opens_group && !at_start)
		return refuse(t, "options in the middle of a group");
	llm_strbuf_append_char(t->out, *t->at);
	t->at++;
	t->caseless = caseless;
	return true;
}

/* A group; t->at is behind the opening parenthesis. */
static bool
translate_group(Translator *t, bool at_start)
{
	static const char *const copied[] = {
		"?:", "?=", "?!", "?>", "?<=", "?<!"
	};
	bool outer_caseless = t->caseless;
	bool opens_group = true;
	bool copy = false;

	t->last_literal = 0;
	if (accept(t, "?#"))
	{
		const char *close = memchr(t->at, ')', (size_t) (t->end - t->at));

		if (close == NULL)
			return refuse(t, "an unfinished comment");
		t->at = close + 1;
		return true;
	}
	for (size_t i = 0; i < 6 && !copy; i++)
	{
		copy = accept(t, copied[i]);
		if (copy)
			llm_strbuf_printf(t->out, "(%s", copied[i]);
	}
	if (!copy && accept(t, "?<"))
	{
		while (t->at < t->end && llm_unicode_is_word((unsigned char) *t->at))
			t->at++;
		if (!accept(t, ">"))
			return refuse(t, "a malformed group name");
		emit(t, "(?:");
	}
	else if (!copy && accept(t, "?"))
	{
		if (!translate_options(t, at_start, &opens_group))
			return false;
	}
	else if (!copy)
		emit(t, "(?:");
	if (!opens_group)
		return true;

	if (++t->depth > MAX_GROUP_DEPTH)
		return refuse(t, "groups nested too deeply");
	if (!translate_alternatives(t))
		return false;
	if (!accept(t, ")"))
		return refuse(t, "an unclosed group");
	emit(t, ")");
	t->depth--;
	t->caseless = outer_caseless;
	t->last_literal = 0;
	return true;
}

/*
 * An interval such as {2,5}; *is_interval false (and nothing consumed) where
 * the brace stands for itself.
 */
static bool
read_interval(Translator *t, bool *is_interval, long *low, long *high)
{
	const char *start = t->at;
	long bounds[2] = { -1, -1 };
	bool comma = false;

	t->at++; /* the brace */
	for (int i = 0; i < 2; i++)
	{
		while (t->at < t->end && *t->at >= '0' && *t->at <= '9')
		{
			if (bounds[i] < 0)
				bounds[i] = 0;
			bounds[i] = bounds[i] * 10 + (*t->at++ - '0');
			if (bounds[i] > 65535)
				return refuse(t, "a repetition that is too large");
		}
		if (i == 0)
			comma = accept(t, ",");
		if (!comma)
			break;
	}
	*is_interval = accept(t, "}") && (bounds[0] >= 0 || bounds[1] >= 0);
	if (!*is_interval)
	{
		t->at = start;
		return true;
	}
	*low = bounds[0] < 0 ? 0 : bounds[0];
	*high = comma ? bounds[1] : *low; /* -1: no upper bound */
	if (*high >= 0 && *high < *low)
		return refuse(t, "a repetition whose bounds are swapped");
	return true;
}

/* Put "(?:" and ")" around what was written since start. */
static void
wrap_from(Translator *t, size_t start)
{
	size_t len = t->out->len - start;

	if (llm_strbuf_reserve(t->out, 4) == NULL)
		return;
	memmove(t->out->data + start + 3, t->out->data + start, len);
	memcpy(t->out->data + start, "(?:", 3);
	t->out->data[start + 3 + len] = ')';
	t->out->len += 4;
	t->out->data[t->out->len] = '\0';
}

/* A quantifier behind the atom that was written from atom_start on. */
static bool
translate_quantifier(Translator *t, size_t atom_start)
{
	bool is_interval = false;

	if (t->at == t->end || strchr("*+?{", *t->at) == NULL)
		return true;
	if (*t->at == '{')
	{
		long low;
		long high;

		if (!read_interval(t, &is_interval, &low, &high))
			return false;
		if (!is_interval)
			return true;
		if (high < 0)
			llm_strbuf_printf(t->out, "{%ld,}", low);
		else if (high == low)
			llm_strbuf_printf(t->out, "{%ld}", low);
		else
			llm_strbuf_printf(t->out, "{%ld,%ld}", low, high);
		if (accept(t, "+"))
		{
			wrap_from(t, atom_start);
			emit(t, "+");
		}
		else if (accept(t, "?"))
		{
			if (high == low)
				wrap_from(t, atom_start);
			emit(t, "?");
		}
	}
	else
	{
		llm_strbuf_append_char(t->out, *t->at++);
		if (accept(t, "?"))
			emit(t, "?");
		else if (accept(t, "+"))
			emit(t, "+");
	}
	t->last_literal = 0;
	if (t->at < t->end &&
		(strchr("*+?", *t->at) != NULL ||
		 (*t->at == '{' &&
		  read_interval(t, &is_interval, &(long){ 0 }, &(long){ 0 }) &&
		  is_interval)))
		return refuse(t, "a repeated repetition");
	return true;
}

/* One atom and its quantifier. */
static bool
translate_atom(Translator *t, bool at_start)
{
	size_t atom_start = t->out->len;
	char c = *t->at;
	uint32_t cp;

	if (strchr("*+?", c) != NULL)
		return refuse(t, "a repetition of nothing");
	if (c == '\\')
	{
		t->at++;
		if (!translate_escape(t))
			return false;
	}
	else if (c == '[')
	{
		t->at++;
		if (!translate_class(t))
			return false;
	}
	else if (c == '(')
	{
		t->at++;
		if (!translate_group(t, at_start))
			return false;
	}
	else if (c == '.' || c == '^' || c == '$')
	{
		llm_strbuf_append_char(t->out, c);
		t->at++;
		t->last_literal = 0;
	}
	else
	{
		t->at += llm_unicode_next(t->at, (size_t) (t->end - t->at), &cp);
		if (!emit_literal(t, cp))
			return false;
	}
	return translate_quantifier(t, atom_start);
}

/* Alternatives up to a closing parenthesis or the end. */
static bool
translate_alternatives(Translator *t)
{
	bool at_start = true;

	while (t->at < t->end && *t->at != ')')
	{
		if (accept(t, "|"))
		{
			emit(t, "|");
			t->last_literal = 0;
		}
		else if (!translate_atom(t, at_start))
			return false;
		at_start = false;
	}
	return true;
}

bool
llm_split_regex_translate(const char *pattern, size_t len, LlmStrbuf *out,
						  LlmError *err)
{
	Translator t = { .at = pattern,
					 .end = pattern + len,
					 .whole = pattern,
					 .out = out,
					 .err = err };

	if (!llm_utf8_is_valid(pattern, len) || memchr(pattern, '\0', len) != NULL)
		return refuse(&t, "bytes that are no text");
	if (!translate_alternatives(&t))
		return false;
	if (t.at < t.end)
		return refuse(&t, "an unmatched parenthesis");
	if (out->failed)
		return llm_error_no_memory(err, len, "a split expression");
	return true;
}

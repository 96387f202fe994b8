/*
 * jinja_page_filters.c
 *	  Filters that jinja2 has for web pages: wordwrap, striptags, xmlattr.
 *
 * wordwrap follows TextWrapper of CPython's Lib/textwrap.py, whose regular
 * expression for the pieces of a line is written out here.
 *
 * src/common/template/jinja_page_filters.c
 */
#include <string.h>

#include "src/common/template/jinja_filters.h"
#include "src/common/template/jinja_text.h"
#include "src/common/util/utf8.h"

/* ---- wordwrap: the characters of a line ---- */

typedef struct Line
{
	const char *data;
	const uint32_t *chars;
	const size_t *offsets; /* [n + 1], bytes */
	size_t n;
	bool breaks_words;
	bool breaks_hyphens;
} Line;

static bool
is_ascii_space(uint32_t c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool
is_letter(const Line *line, size_t at)
{
	return at < line->n && llm_jinja_is_word(line->chars[at]) &&
		   !llm_jinja_is_decimal(line->chars[at]);
}

/* What may stand before a dash between words. */
static bool
is_word_or_mark(const Line *line, size_t at)
{
	uint32_t c = line->chars[at];

	return llm_jinja_is_word(c) ||
		   (c < 0x80 && c != 0 && strchr("!\"'&.,?", (int) c));
}

/* The end of a dash of two and more hyphens before a word; 0: none. */
static size_t
dash_end(const Line *line, size_t at)
{
	size_t end = at;

	while (end < line->n && line->chars[end] == '-')
		end++;
	return at > 0 && is_word_or_mark(line, at - 1) && end >= at + 2 &&
				   end < line->n && llm_jinja_is_word(line->chars[end])
			   ? end
			   : 0;
}

/* Is the hyphen within a word, so that the line may be broken behind it? */
static bool
is_inner_hyphen(const Line *line, size_t at)
{
	bool behind_letters =
		at >= 1 && is_letter(line, at - 1) &&
		((at >= 2 && is_letter(line, at - 2)) ||
		 (at >= 3 && line->chars[at - 2] == '-' && is_letter(line, at - 3)));
	size_t next = at + 1;

	if (!behind_letters || !is_letter(line, next))
		return false;
	next++;
	if (next < line->n && line->chars[next] == '-')
		next++;
	return is_letter(line, next);
}

/* Where the piece that begins at "at" ends: spaces, a dash, or a word. */
static size_t
piece_end(const Line *line, size_t at)
{
	size_t end = at;

	if (is_ascii_space(line->chars[at]))
	{
		while (end < line->n && is_ascii_space(line->chars[end]))
			end++;
		return end;
	}
	if (line->breaks_hyphens && dash_end(line, at) > 0)
		return dash_end(line, at);
	for (end++; end < line->n && !is_ascii_space(line->chars[end]); end++)
	{
		if (line->breaks_hyphens && line->chars[end] == '-')
		{
			if (is_inner_hyphen(line, end))
				return end + 1;
			if (dash_end(line, end) > 0)
				return end;
		}
	}
	return end;
}

static bool
is_blank(const Line *line, size_t start, size_t end)
{
	while (start < end && llm_jinja_is_space(line->chars[start]))
		start++;
	return start == end;
}

/* How much of a word that fits into no line goes into the rest of this one. */
static size_t
break_word(const Line *line, size_t start, size_t end, size_t n_left)
{
	if (end - start <= n_left)
		return end;
	for (size_t at = start + n_left; line->breaks_hyphens && at > start + 1;
		 at--)
	{
		bool only_hyphens = true;

		if (line->chars[at - 1] != '-')
			continue;
		for (size_t i = start; i < at - 1; i++)
			only_hyphens = only_hyphens && line->chars[i] == '-';
		if (!only_hyphens)
			return at;
		break;
	}
	return start + n_left;
}

/* Where wrapping stands: at most a part of a word is behind us. */
typedef struct Wrap
{
	size_t at;
	size_t end; /* of the piece at "at" */
} Wrap;

static void
next_piece(const Line *line, Wrap *wrap)
{
	wrap->at = wrap->end;
	if (wrap->end < line->n)
		wrap->end = piece_end(line, wrap->end);
}

/* Take the output's next line; *start and *end are where it lies. */
static void
take_wrapped(const Line *line, size_t width, bool is_first, Wrap *wrap,
			 size_t *start, size_t *end)
{
	size_t last; /* where the last piece begins */

	if (!is_first && is_blank(line, wrap->at, wrap->end))
		next_piece(line, wrap);
	*start = last = wrap->at;
	while (wrap->at < line->n && wrap->end - *start <= width)
	{
		last = wrap->at;
		next_piece(line, wrap);
	}
	if (wrap->at < line->n && wrap->end - wrap->at > width)
	{
		if (line->breaks_words)
		{
			last = wrap->at;
			wrap->at = break_word(line, wrap->at, wrap->end,
								  width - (wrap->at - *start));
		}
		else if (wrap->at == *start)
			next_piece(line, wrap);
	}
	*end = is_blank(line, last, wrap->at) ? last : wrap->at;
}

static bool
wrap_line(LlmJinjaRun *run, const Line *line, size_t width,
		  const LlmJinjaString *separator, LlmStrbuf *buf)
{
	Wrap wrap = { 0 };
	bool is_first = true;

	next_piece(line, &wrap);
	while (wrap.at < line->n)
	{
		size_t start;
		size_t end;

		take_wrapped(line, width, is_first, &wrap, &start, &end);
		if (!llm_jinja_charge(run, 1 + (wrap.at - start) / 8))
			return false;
		if (end == start)
			continue;
		if (!is_first)
			llm_strbuf_append(buf, separator->data, separator->len);
		llm_strbuf_append(buf, line->data + line->offsets[start],
						  line->offsets[end] - line->offsets[start]);
		is_first = false;
	}
	return true;
}

static bool
read_line(LlmJinjaRun *run, const LlmJinjaString *text, Line *line)
{
	uint32_t *chars =
		llm_jinja_alloc(run, (text->n_chars + 1) * sizeof(*chars));
	size_t *offsets =
		llm_jinja_alloc(run, (text->n_chars + 1) * sizeof(*offsets));
	size_t at = 0;
	int n;

	if (chars == NULL || offsets == NULL)
		return false;
	line->data = text->data;
	line->chars = chars;
	line->offsets = offsets;
	line->n = text->n_chars;
	for (size_t i = 0; i < text->n_chars; i++, at += (size_t) n)
	{
		offsets[i] = at;
		chars[i] = llm_jinja_char_at(text->data, text->len, at, &n);
	}
	offsets[text->n_chars] = text->len;
	return true;
}

static bool
filter_wordwrap(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	static const LlmJinjaString newline = { "\n", 1, 1, false };
	const LlmJinjaString *separator = &newline;
	Line line = { .breaks_words = llm_jinja_flag(call->slot[1], true),
				  .breaks_hyphens = llm_jinja_flag(call->slot[3], true) };
	LlmJinjaList *lines;
	int64_t width = 79;
	LlmStrbuf buf;
	bool ok = true;

	if (call->slot[2].kind == LLM_JINJA_STRING)
		separator = call->slot[2].string;
	if (call->self.kind == LLM_JINJA_UNDEFINED)
		return llm_jinja_fail_undefined(run, call->self);
	if (call->self.kind != LLM_JINJA_STRING)
		return llm_jinja_fail(run, "'%s' object has no attribute 'splitlines'",
							  llm_jinja_type_name(call->self));
	if (!llm_jinja_want_int(run, call->slot[0], &width) ||
		!llm_jinja_split_lines(run, call->self.string, false, &lines))
		return false;
	if (width <= 0 && lines->n_items > 0)
		return llm_jinja_fail(run, "invalid width %lld (must be > 0)",
							  (long long) width);
	llm_jinja_init_buffer(&buf);
	for (size_t i = 0; ok && i < lines->n_items; i++)
	{
		if (i > 0)
			llm_strbuf_append(&buf, separator->data, separator->len);
		ok = read_line(run, lines->items[i].string, &line) &&
			 wrap_line(run, &line, (size_t) width, separator, &buf);
	}
	return llm_jinja_finish_string(run, &buf, ok, out);
}

/* ---- striptags ---- */

/* A text without tags and comments; what is not closed stays. */
static void
remove_tags(const LlmJinjaString *text, LlmStrbuf *buf)
{
	const char *at = text->data;
	const char *end = text->data + text->len;
	const char *start;

	while ((start = memchr(at, '<', (size_t) (end - at))) != NULL)
	{
		bool is_comment = end - start >= 4 && memcmp(start, "<!--", 4) == 0;
		const char *close =
			is_comment ? memmem(start + 4, (size_t) (end - start) - 4, "-->", 3)
					   : memchr(start, '>', (size_t) (end - start));

		if (close == NULL)
			break;
		llm_strbuf_append(buf, at, (size_t) (start - at));
		at = close + (is_comment ? 3 : 1);
	}
	llm_strbuf_append(buf, at, (size_t) (end - at));
}

/* Runs of spaces become one, those at the ends nothing. */
static void
collapse_spaces(const LlmStrbuf *text, LlmStrbuf *buf)
{
	const char *data = text->data;
	bool is_waiting = false;
	int n;

	for (size_t at = 0; at < text->len; at += (size_t) n)
	{
		if (llm_jinja_is_space(llm_jinja_char_at(data, text->len, at, &n)))
		{
			is_waiting = buf->len > 0;
			continue;
		}
		if (is_waiting)
			llm_strbuf_append_char(buf, ' ');
		is_waiting = false;
		llm_strbuf_append(buf, data + at, (size_t) n);
	}
}

/*
 * "&#65;" and "&#x41;" behind the mark: the code point, and how long it is.
 * 0: none of ours.  Those that HTML maps elsewhere are not read.
 */
static size_t
numeric_reference(const char *data, size_t len, uint32_t *codepoint)
{
	bool is_hex = len > 3 && (data[2] | 0x20) == 'x';
	size_t at = is_hex ? 3 : 2;
	size_t first = at;
	uint32_t value = 0;

	if (len < 3 || data[1] != '#')
		return 0;
	for (; at < len && value < 0x110000; at++)
	{
		char c = data[at];
		int digit = c >= '0' && c <= '9' ? c - '0'
					: is_hex && (c | 0x20) >= 'a' && (c | 0x20) <= 'f'
						? (c | 0x20) - 'a' + 10
						: -1;

		if (digit < 0)
			break;
		value = value * (is_hex ? 16 : 10) + (uint32_t) digit;
	}
	*codepoint = value;
	if (at == first || value < 0x20 || (value >= 0x7F && value < 0xA0) ||
		(value >= 0xD800 && value < 0xE000) || value >= 0xFDD0)
		return 0;
	return at + (at < len && data[at] == ';');
}

/* HTML has 2,231 names: those of XML are read, others are refused. */
static size_t
named_reference(const char *data, size_t len, char *c)
{
	static const struct
	{
		const char *name;
		char c;
	} names[] = {
		{ "&amp;", '&' },  { "&lt;", '<' },	   { "&gt;", '>' },
		{ "&quot;", '"' }, { "&apos;", '\'' },
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
	{
		size_t n = strlen(names[i].name);

		*c = names[i].c;
		if (len >= n && memcmp(data, names[i].name, n) == 0)
			return n;
	}
	return 0;
}

static bool
unescape(LlmJinjaRun *run, const LlmStrbuf *text, LlmStrbuf *buf)
{
	for (size_t at = 0; at < text->len;)
	{
		const char *data = text->data + at;
		size_t len = text->len - at;
		uint32_t codepoint;
		char bytes[4];
		size_t n = 0;

		if (data[0] == '&' && (n = named_reference(data, len, bytes)) > 0)
			llm_strbuf_append_char(buf, bytes[0]);
		else if (data[0] == '&' &&
				 (n = numeric_reference(data, len, &codepoint)) > 0)
			llm_strbuf_append(buf, bytes,
							  (size_t) llm_utf8_encode(codepoint, bytes));
		else if (data[0] == '&' && len > 1 &&
				 (data[1] == '#' ||
				  ((data[1] | 0x20) >= 'a' && (data[1] | 0x20) <= 'z')))
			return llm_jinja_fail(run,
								  "striptags: the character reference \"%.*s\" "
								  "is not supported",
								  (int) (len < 12 ? strnlen(data, len) : 12),
								  data);
		else
		{
			llm_strbuf_append_char(buf, data[0]);
			n = 1;
		}
		at += n;
	}
	return true;
}

static bool
filter_striptags(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	LlmJinjaValue text;
	LlmStrbuf bare;
	LlmStrbuf words;
	LlmStrbuf buf;
	bool ok;

	if (!llm_jinja_to_string(run, call->self, &text) ||
		!llm_jinja_charge(run, text.string->len / 4))
		return false;
	llm_jinja_init_buffer(&bare);
	llm_jinja_init_buffer(&words);
	llm_jinja_init_buffer(&buf);
	remove_tags(text.string, &bare);
	collapse_spaces(&bare, &words);
	ok = unescape(run, &words, &buf);
	buf.failed = buf.failed || bare.failed || words.failed;
	llm_strbuf_free(&bare);
	llm_strbuf_free(&words);
	return llm_jinja_finish_string(run, &buf, ok, out);
}

/* ---- xmlattr ---- */

static bool
append_escaped(LlmJinjaRun *run, LlmJinjaValue value, LlmStrbuf *buf)
{
	LlmJinjaValue text;

	if (!llm_jinja_to_string(run, value, &text))
		return false;
	if (text.string->is_markup)
		llm_strbuf_append(buf, text.string->data, text.string->len);
	else
		llm_jinja_escape_html(text.string, buf);
	return true;
}

static bool
append_attribute(LlmJinjaRun *run, const LlmJinjaEntry *entry, LlmStrbuf *buf)
{
	LlmStrbuf repr;
	bool ok = true;

	if (entry->key.kind != LLM_JINJA_STRING)
		return llm_jinja_fail(run,
							  "expected string or bytes-like object, got '%s'",
							  llm_jinja_type_name(entry->key));
	for (size_t i = 0; ok && i < entry->key.string->len; i++)
	{
		unsigned char c = (unsigned char) entry->key.string->data[i];

		ok = !is_ascii_space(c) && c != '/' && c != '>' && c != '=';
	}
	if (!ok)
	{
		llm_jinja_init_buffer(&repr);
		if (llm_jinja_repr(run, entry->key, &repr))
			llm_jinja_fail(run, "Invalid character in attribute name: %s",
						   llm_strbuf_str(&repr));
		llm_strbuf_free(&repr);
		return false;
	}
	if (buf->len > 0)
		llm_strbuf_append_char(buf, ' ');
	ok = append_escaped(run, entry->key, buf);
	llm_strbuf_append_str(buf, "=\"");
	ok = ok && append_escaped(run, entry->value, buf);
	llm_strbuf_append_char(buf, '"');
	return ok;
}

static bool
filter_xmlattr(LlmJinjaRun *run, const LlmJinjaCall *call, LlmJinjaValue *out)
{
	LlmStrbuf buf;
	LlmStrbuf spaced;
	bool ok = true;

	if (call->self.kind == LLM_JINJA_UNDEFINED)
		return llm_jinja_fail_undefined(run, call->self);
	if (call->self.kind != LLM_JINJA_DICT)
		return llm_jinja_fail(run, "'%s' object has no attribute 'items'",
							  llm_jinja_type_name(call->self));
	llm_jinja_init_buffer(&buf);
	for (size_t i = 0; ok && i < call->self.dict->n_entries; i++)
	{
		const LlmJinjaEntry *entry = &call->self.dict->entries[i];

		if (entry->value.kind != LLM_JINJA_NONE &&
			entry->value.kind != LLM_JINJA_UNDEFINED)
			ok = append_attribute(run, entry, &buf);
	}
	if (!llm_jinja_flag(call->slot[0], true) || buf.len == 0)
		return llm_jinja_finish_string(run, &buf, ok, out);
	llm_jinja_init_buffer(&spaced);
	llm_strbuf_append_char(&spaced, ' ');
	llm_strbuf_append(&spaced, buf.data, buf.len);
	spaced.failed = spaced.failed || buf.failed;
	llm_strbuf_free(&buf);
	return llm_jinja_finish_string(run, &spaced, ok, out);
}

const LlmJinjaBuiltin *
llm_jinja_find_page_filter(const char *name, size_t len)
{
	static const LlmJinjaBuiltin table[] = {
		{ "wordwrap", "width? break_long_words? wrapstring? break_on_hyphens?",
		  filter_wordwrap },
		{ "striptags", "", filter_striptags },
		{ "xmlattr", "autospace?", filter_xmlattr },
	};

	return llm_jinja_find_builtin(table, sizeof(table) / sizeof(table[0]), name,
								  len);
}

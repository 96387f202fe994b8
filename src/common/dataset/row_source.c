/*
 * row_source.c
 *	  From a row's fields to what is rendered: a conversation, or plain text.
 *
 * A row has a context, which is not learned, and an answer, which is; of a
 * conversation's messages all of the assistant's are answers, unless only the
 * last one is asked for.  Of pairs the first example has the chosen answer
 * and the second the rejected one.
 *
 * src/common/dataset/row_source.c
 */
#include <assert.h>
#include <string.h>

#include "src/common/dataset/row_internal.h"
#include "src/common/util/json.h"

/* The fields of a row on their way into an example. */
typedef struct RowReader
{
	LlmRowConverter *converter;
	const LlmRowField *fields;
	LlmConversation *conversation;
	LlmError *err;
} RowReader;

/* Absent: no column, or null. */
static LlmJsonSlice
field_of(const RowReader *reader, LlmRowPart part)
{
	const LlmRowFormat *format = &reader->converter->format;
	LlmJsonSlice field = { 0 };

	if (format->parts[part] >= 0)
		field = reader->fields[format->parts[part]];
	if (format->is_json[part] && llm_json_slice_kind(field) == 'n')
		field.data = NULL;
	return field;
}

static bool
fail_part(const RowReader *reader, LlmRowPart part, const char *problem)
{
	return llm_error_set(reader->err, LLM_ERROR_INVALID, "\"%s\" %s",
						 llm_row_part_names[part], problem);
}

/* Is the value a string, be it a text or JSON? */
static bool
is_string(const RowReader *reader, LlmRowPart part, LlmJsonSlice value)
{
	return !reader->converter->format.is_json[part] ||
		   llm_json_slice_kind(value) == '"';
}

/* The text of a JSON string, in the row's memory. */
static bool
decode_string(const RowReader *reader, LlmJsonSlice string, LlmJsonSlice *text)
{
	LlmStrbuf decoded;
	char *copy = NULL;
	bool ok;

	llm_strbuf_init(&decoded);
	ok = llm_json_slice_append_text(string, &decoded);
	if (ok && !decoded.failed)
		copy = llm_arena_strndup(reader->converter->arena,
								 llm_strbuf_str(&decoded), decoded.len);
	*text = (LlmJsonSlice){ copy, decoded.len };
	llm_strbuf_free(&decoded);
	if (!ok)
		return llm_error_set(reader->err, LLM_ERROR_INVALID,
							 "a value is no JSON string");
	return copy != NULL ||
		   llm_error_no_memory(reader->err, string.len, "a row");
}

/* A part that is a string; absent stays absent. */
static bool
read_text(const RowReader *reader, LlmRowPart part, LlmJsonSlice *text)
{
	const LlmJsonSlice value = field_of(reader, part);

	*text = value;
	if (value.data == NULL || !reader->converter->format.is_json[part])
		return true;
	if (!is_string(reader, part, value))
		return fail_part(reader, part, "is no string");
	return decode_string(reader, value, text);
}

static bool
require_text(const RowReader *reader, LlmRowPart part, LlmJsonSlice *text)
{
	if (!read_text(reader, part, text))
		return false;
	if (text->data == NULL)
		return fail_part(reader, part, "is null");
	if (text->len == 0)
		return fail_part(reader, part, "is empty");
	return true;
}

/* ---- conversations ---- */

static bool
add_message(const RowReader *reader, LlmJsonSlice message, bool is_answer)
{
	const LlmRowConverter *converter = reader->converter;

	if (converter->format.base == LLM_PART_CONVERSATIONS)
		return llm_conversation_add_tagged(reader->conversation, message,
										   &converter->options.tags, is_answer,
										   reader->err);
	return llm_conversation_add(reader->conversation, message, is_answer,
								reader->err);
}

/* Items from .. to - 1 of an array of messages. */
static bool
add_messages(const RowReader *reader, LlmJsonSlice array, size_t from,
			 size_t to, bool is_answer)
{
	LlmJsonSlice message;
	size_t off = 0;

	for (size_t i = 0;
		 i < to && llm_json_slice_next_item(array, &off, &message); i++)
	{
		if (i >= from && !add_message(reader, message, is_answer))
			return false;
	}
	return true;
}

/*
 * A part's JSON; absent stays absent.  A text, or a JSON string, may hold it,
 * and then nobody has checked before that it is JSON.
 */
static bool
read_json(const RowReader *reader, LlmRowPart part, LlmJsonSlice *value)
{
	const bool is_json = reader->converter->format.is_json[part];
	cJSON *parsed;

	*value = field_of(reader, part);
	if (value->data == NULL || (is_json && llm_json_slice_kind(*value) != '"'))
		return true;
	if (is_json && !decode_string(reader, *value, value))
		return false;
	parsed = llm_json_parse(value->data, value->len, llm_row_part_names[part],
							reader->err);
	cJSON_Delete(parsed);
	return parsed != NULL;
}

static bool
read_messages(const RowReader *reader, LlmRowPart part, LlmJsonSlice *array)
{
	if (!read_json(reader, part, array))
		return false;
	if (array->data == NULL)
		return fail_part(reader, part, "is null");
	if (llm_json_slice_kind(*array) != '[')
		return fail_part(reader, part, "is no array of messages");
	return true;
}

/* The role of a message is that of a system's. */
static bool
is_system(const RowReader *reader, LlmJsonSlice message)
{
	const LlmRowConverter *converter = reader->converter;
	const LlmRowTags *tags = &converter->options.tags;
	LlmJsonSlice role;

	if (converter->format.base == LLM_PART_CONVERSATIONS)
		return llm_json_slice_is(llm_json_slice_member(message, tags->role),
								 tags->system);
	role = llm_json_slice_member(message, "role");
	return llm_json_slice_is(role, "system") ||
		   llm_json_slice_is(role, "developer");
}

/* What a row says before its messages, the first of them given (or absent). */
static bool
add_system(const RowReader *reader, LlmJsonSlice first)
{
	const char *fallback = reader->converter->options.default_system;
	LlmJsonSlice system;

	if (!read_text(reader, LLM_PART_SYSTEM, &system))
		return false;
	if (system.data != NULL && system.len > 0)
	{
		if (first.data != NULL && is_system(reader, first))
			return fail_part(reader, LLM_PART_SYSTEM,
							 "is given beside a system message");
	}
	else if (fallback != NULL && fallback[0] != '\0' &&
			 (first.data == NULL || !is_system(reader, first)))
		system = (LlmJsonSlice){ fallback, strlen(fallback) };
	else
		return true;
	if (!llm_conversation_add_text(reader->conversation, "system", system,
								   false, reader->err))
		return false;
	reader->conversation->n_before = 1;
	return true;
}

static LlmJsonSlice
first_item(LlmJsonSlice array)
{
	LlmJsonSlice item;
	size_t off = 0;

	if (!llm_json_slice_next_item(array, &off, &item))
		item = (LlmJsonSlice){ 0 };
	return item;
}

static size_t
count_items(LlmJsonSlice array)
{
	LlmJsonSlice item;
	size_t off = 0;
	size_t n = 0;

	while (llm_json_slice_next_item(array, &off, &item))
		n++;
	return n;
}

static bool
read_tools(const RowReader *reader)
{
	LlmJsonSlice tools;

	if (field_of(reader, LLM_PART_TOOLS).len == 0)
		return true;
	if (!read_json(reader, LLM_PART_TOOLS, &tools))
		return false;
	if (llm_json_slice_kind(tools) == 'n')
		return true;
	if (llm_json_slice_kind(tools) != '[')
		return fail_part(reader, LLM_PART_TOOLS, "is no array");
	if (count_items(tools) > 0)
		reader->conversation->tools = tools;
	return true;
}

/* An answer that is a string, a message, or an array of messages. */
static bool
add_answer(const RowReader *reader, LlmRowPart part)
{
	const LlmJsonSlice value = field_of(reader, part);
	LlmJsonSlice text;

	switch (reader->converter->format.is_json[part] ? llm_json_slice_kind(value)
													: '"')
	{
		case '{':
			return add_message(reader, value, true);
		case '[':
			if (count_items(value) == 0)
				return fail_part(reader, part, "is empty");
			return add_messages(reader, value, 0, SIZE_MAX, true);
		default:
			return require_text(reader, part, &text) &&
				   llm_conversation_add_text(reader->conversation, "assistant",
											 text, true, reader->err);
	}
}

/* [[question, answer], ...] */
static bool
add_history(const RowReader *reader)
{
	LlmJsonSlice history;
	LlmJsonSlice pair;
	size_t off = 0;

	if (!read_json(reader, LLM_PART_HISTORY, &history))
		return false;
	if (history.data == NULL)
		return true;
	if (llm_json_slice_kind(history) != '[')
		return fail_part(reader, LLM_PART_HISTORY,
						 "is no array of questions with answers");
	while (llm_json_slice_next_item(history, &off, &pair))
	{
		LlmJsonSlice text;
		size_t within = 0;

		if (llm_json_slice_kind(pair) != '[' || count_items(pair) != 2)
			return fail_part(reader, LLM_PART_HISTORY,
							 "has an item that is no question with its answer");
		for (int i = 0; i < 2; i++)
		{
			if (!llm_json_slice_next_item(pair, &within, &text) ||
				!decode_string(reader, text, &text) ||
				!llm_conversation_add_text(reader->conversation,
										   i == 0 ? "user" : "assistant", text,
										   true, reader->err))
				return false;
		}
	}
	return true;
}

/* Alpaca: the instruction, and the input below it. */
static bool
add_instruction(const RowReader *reader)
{
	LlmJsonSlice instruction;
	LlmJsonSlice input;
	LlmStrbuf joined;
	bool ok;

	if (!require_text(reader, LLM_PART_INSTRUCTION, &instruction) ||
		!read_text(reader, LLM_PART_INPUT, &input))
		return false;
	llm_strbuf_init(&joined);
	llm_strbuf_append(&joined, instruction.data, instruction.len);
	if (input.data != NULL && input.len > 0)
	{
		llm_strbuf_append_char(&joined, '\n');
		llm_strbuf_append(&joined, input.data, input.len);
	}
	ok =
		!joined.failed || llm_error_no_memory(reader->err, joined.len, "a row");
	ok = ok && llm_conversation_add_text(
				   reader->conversation, "user",
				   (LlmJsonSlice){ llm_strbuf_str(&joined), joined.len }, false,
				   reader->err);
	llm_strbuf_free(&joined);
	return ok;
}

/* All that was added so far is context. */
static void
learn_nothing(const RowReader *reader)
{
	for (size_t i = 0; i < llm_conversation_n_turns(reader->conversation); i++)
		llm_conversation_turn(reader->conversation, i)->is_trained = false;
}

static void
learn_last_alone(const RowReader *reader)
{
	const size_t n = llm_conversation_n_turns(reader->conversation);

	for (size_t i = 0; i + 1 < n; i++)
		llm_conversation_turn(reader->conversation, i)->is_trained = false;
}

/* Messages that both answers of a pair begin with. */
static size_t
common_messages(LlmJsonSlice left, LlmJsonSlice right)
{
	LlmJsonSlice a;
	LlmJsonSlice b;
	size_t left_off = 0;
	size_t right_off = 0;
	size_t n = 0;

	while (llm_json_slice_next_item(left, &left_off, &a) &&
		   llm_json_slice_next_item(right, &right_off, &b) && a.len == b.len &&
		   memcmp(a.data, b.data, a.len) == 0)
		n++;
	return n;
}

/* A pair without a prompt: what both begin with is the prompt. */
static bool
add_split_pair(const RowReader *reader, LlmRowPart part)
{
	LlmJsonSlice answers[2];
	LlmJsonSlice own;
	size_t n;

	if (!read_messages(reader, LLM_PART_CHOSEN, &answers[0]) ||
		!read_messages(reader, LLM_PART_REJECTED, &answers[1]))
		return false;
	n = common_messages(answers[0], answers[1]);
	own = answers[part == LLM_PART_CHOSEN ? 0 : 1];
	if (count_items(own) == n)
		return llm_error_set(reader->err, LLM_ERROR_INVALID,
							 "\"chosen\" and \"rejected\" are the same, or one "
							 "begins the other");
	return add_system(reader, first_item(own)) &&
		   add_messages(reader, own, 0, n, false) &&
		   add_messages(reader, own, n, SIZE_MAX, true);
}

/* The context of an example, and where answers are part of it these. */
static bool
add_context(const RowReader *reader)
{
	const LlmRowPart base = reader->converter->format.base;
	LlmJsonSlice array;

	switch (base)
	{
		case LLM_PART_MESSAGES:
		case LLM_PART_CONVERSATIONS:
		case LLM_PART_PROMPT:
		case LLM_PART_COMPLETION:
			return read_messages(reader, base, &array) &&
				   add_system(reader, first_item(array)) &&
				   add_messages(reader, array, 0, SIZE_MAX, true);
		default:
			assert(base == LLM_PART_INSTRUCTION);
			return add_system(reader, (LlmJsonSlice){ 0 }) &&
				   add_history(reader) && add_instruction(reader);
	}
}

static bool
read_conversation(const RowReader *reader, LlmRowPart answer)
{
	const LlmRowFormat *format = &reader->converter->format;
	bool ok;

	if (format->base == LLM_PART_CHOSEN)
		ok = add_split_pair(reader, answer);
	else
	{
		ok = add_context(reader);
		if (ok && (format->base == LLM_PART_PROMPT ||
				   format->kind == LLM_DATASET_PAIRS))
			learn_nothing(reader);
		if (ok && answer != LLM_PART_COUNT)
			ok = add_answer(reader, answer);
	}
	if (!ok || !read_tools(reader))
		return false;
	if (reader->converter->options.mask_history ||
		format->kind == LLM_DATASET_SINGLES)
		learn_last_alone(reader);
	return llm_conversation_end(reader->conversation, reader->err);
}

/* ---- plain text ---- */

static bool
set_plain(LlmRowExample *example, LlmJsonSlice context, LlmJsonSlice answer,
		  LlmError *err)
{
	LlmRendering *rendering = &example->rendering;
	const LlmTemplateSpan span = { context.len, context.len + answer.len };

	rendering->is_plain = true;
	llm_strbuf_append(&rendering->text, context.data, context.len);
	llm_strbuf_append(&rendering->text, answer.data, answer.len);
	llm_strbuf_append(&rendering->spans, &span, sizeof(span));
	if (rendering->text.failed || rendering->spans.failed)
		return llm_error_no_memory(err, span.end, "a row");
	return true;
}

/* Bytes that both texts begin with. */
static size_t
common_text(LlmJsonSlice left, LlmJsonSlice right)
{
	size_t n = 0;

	while (n < left.len && n < right.len && left.data[n] == right.data[n])
		n++;
	return n;
}

/* Back to a word's beginning, and before the blank in front of it. */
static size_t
back_to_word(LlmJsonSlice text, size_t n)
{
	while (n > 0 && text.data[n - 1] != ' ' && text.data[n - 1] != '\n')
		n--;
	return n > 0 && text.data[n - 1] == ' ' ? n - 1 : n;
}

static bool
read_split_texts(const RowReader *reader, LlmRowExample *example,
				 LlmRowPart answer)
{
	LlmJsonSlice texts[2];
	LlmJsonSlice own;
	size_t n;

	if (!require_text(reader, LLM_PART_CHOSEN, &texts[0]) ||
		!require_text(reader, LLM_PART_REJECTED, &texts[1]))
		return false;
	n = common_text(texts[0], texts[1]);
	own = texts[answer == LLM_PART_CHOSEN ? 0 : 1];
	if (texts[0].len == n || texts[1].len == n)
		return llm_error_set(reader->err, LLM_ERROR_INVALID,
							 "\"chosen\" and \"rejected\" are the same, or one "
							 "begins the other");
	n = back_to_word(own, n);
	return set_plain(example, (LlmJsonSlice){ own.data, n },
					 (LlmJsonSlice){ own.data + n, own.len - n }, reader->err);
}

static bool
read_plain(const RowReader *reader, LlmRowExample *example, LlmRowPart answer)
{
	LlmJsonSlice context = { "", 0 };
	LlmJsonSlice text;

	if (reader->converter->format.base == LLM_PART_CHOSEN)
		return read_split_texts(reader, example, answer);
	if (!read_text(reader, LLM_PART_PROMPT, &context) ||
		!require_text(reader, answer, &text))
		return false;
	if (context.data == NULL)
	{
		if (reader->converter->format.base == LLM_PART_PROMPT)
			return fail_part(reader, LLM_PART_PROMPT, "is null");
		context = (LlmJsonSlice){ "", 0 };
	}
	return set_plain(example, context, text, reader->err);
}

/* The part with what is to be learned, where it is a part of its own. */
static LlmRowPart
answer_part(const LlmRowFormat *format, int example_idx)
{
	if (format->kind == LLM_DATASET_PAIRS)
		return example_idx == 0 ? LLM_PART_CHOSEN : LLM_PART_REJECTED;
	switch (format->base)
	{
		case LLM_PART_PROMPT:
			return LLM_PART_COMPLETION;
		case LLM_PART_INSTRUCTION:
			return LLM_PART_OUTPUT;
		case LLM_PART_COMPLETION:
		case LLM_PART_TEXT:
			return format->base;
		default:
			return LLM_PART_COUNT;
	}
}

bool
llm_row_read(LlmRowConverter *converter, const LlmRowField *fields,
			 int example_idx, LlmError *err)
{
	LlmRowExample *example = &converter->examples[example_idx];
	const RowReader reader = { .converter = converter,
							   .fields = fields,
							   .conversation = &example->conversation,
							   .err = err };
	const LlmRowPart base = converter->format.base;
	const LlmRowPart answer = answer_part(&converter->format, example_idx);
	const bool may_be_plain = base == LLM_PART_PROMPT ||
							  base == LLM_PART_COMPLETION ||
							  base == LLM_PART_CHOSEN || base == LLM_PART_TEXT;

	llm_strbuf_reset(&example->rendering.text);
	llm_strbuf_reset(&example->rendering.spans);
	example->rendering.is_plain = false;
	llm_conversation_reset(&example->conversation);
	if (may_be_plain && field_of(&reader, answer).data == NULL)
		return fail_part(&reader, answer, "is null");
	if (may_be_plain && is_string(&reader, answer, field_of(&reader, answer)))
		return read_plain(&reader, example, answer);
	if (base == LLM_PART_TEXT)
		return fail_part(&reader, base, "is no string");
	return read_conversation(
		&reader, base == LLM_PART_COMPLETION ? LLM_PART_COUNT : answer);
}

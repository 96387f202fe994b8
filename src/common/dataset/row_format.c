/*
 * row_format.c
 *	  Which columns of a query are which part of a row to learn.
 *
 * A part's column is the one that an option names, else the one that is called
 * like the part and has a type that the part can have.  Columns that are no
 * part are left alone: keys and the like.  The parts that are there make one
 * format; two formats at once are an error rather than a guess.
 *
 * src/common/dataset/row_format.c
 */
#include <assert.h>
#include <string.h>
#include <strings.h>

#include "src/common/dataset/dataset_row.h"

const char *const llm_row_part_names[LLM_PART_COUNT] = {
	[LLM_PART_MESSAGES] = "messages",
	[LLM_PART_CONVERSATIONS] = "conversations",
	[LLM_PART_TOOLS] = "tools",
	[LLM_PART_SYSTEM] = "system",
	[LLM_PART_INSTRUCTION] = "instruction",
	[LLM_PART_INPUT] = "input",
	[LLM_PART_OUTPUT] = "output",
	[LLM_PART_HISTORY] = "history",
	[LLM_PART_PROMPT] = "prompt",
	[LLM_PART_COMPLETION] = "completion",
	[LLM_PART_CHOSEN] = "chosen",
	[LLM_PART_REJECTED] = "rejected",
	[LLM_PART_LABEL] = "label",
	[LLM_PART_TEXT] = "text",
};

LlmRowPart
llm_row_part_find(const char *name)
{
	static const struct
	{
		const char *name;
		LlmRowPart part;
	} others[] = { { "query", LLM_PART_INPUT },
				   { "response", LLM_PART_OUTPUT },
				   { "kto_tag", LLM_PART_LABEL } };

	for (int i = 0; i < LLM_PART_COUNT; i++)
	{
		if (strcmp(name, llm_row_part_names[i]) == 0)
			return (LlmRowPart) i;
	}
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
	{
		if (strcmp(name, others[i].name) == 0)
			return others[i].part;
	}
	return LLM_PART_COUNT;
}

void
llm_row_options_init(LlmRowOptions *options)
{
	*options = (LlmRowOptions){
		.cutoff_len = 2048,
		.tags = { .role = "from",
				  .content = "value",
				  .user = "human",
				  .assistant = "gpt",
				  .observation = "observation",
				  .function = "function_call",
				  .system = "system" },
	};
}

static bool
type_fits(LlmRowPart part, LlmColumnType type)
{
	if (part == LLM_PART_LABEL)
		return type == LLM_COLUMN_BOOL;
	return type == LLM_COLUMN_TEXT || type == LLM_COLUMN_JSON;
}

static int
find_column(const LlmRowColumn *columns, int n_columns, const char *name)
{
	for (int i = 0; i < n_columns; i++)
	{
		if (strcmp(columns[i].name, name) == 0)
			return i;
	}
	return -1;
}

/* A column that an option names: it must be there and fit. */
static bool
take_mapped(const LlmRowColumn *columns, int n_columns, const char *name,
			LlmRowPart part, LlmRowFormat *format, LlmError *err)
{
	const int column = find_column(columns, n_columns, name);

	if (column < 0)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "the query has no column \"%s\", which option "
							 "\"columns\" takes for \"%s\"",
							 name, llm_row_part_names[part]);
	if (!type_fits(part, columns[column].type))
		return llm_error_set(
			err, LLM_ERROR_INVALID,
			"column \"%s\" cannot be \"%s\": its type is not %s", name,
			llm_row_part_names[part],
			part == LLM_PART_LABEL ? "boolean" : "text, json or jsonb");
	format->parts[part] = column;
	return true;
}

static bool
is_mapped(const LlmRowOptions *options, const char *name)
{
	for (int i = 0; i < LLM_PART_COUNT; i++)
	{
		if (options->columns[i] != NULL &&
			strcmp(options->columns[i], name) == 0)
			return true;
	}
	return false;
}

static bool
find_parts(const LlmRowColumn *columns, int n_columns,
		   const LlmRowOptions *options, LlmRowFormat *format, LlmError *err)
{
	for (int i = 0; i < LLM_PART_COUNT; i++)
	{
		format->parts[i] = -1;
		if (options->columns[i] != NULL && options->columns[i][0] != '\0' &&
			!take_mapped(columns, n_columns, options->columns[i],
						 (LlmRowPart) i, format, err))
			return false;
	}
	for (int i = 0; i < n_columns; i++)
	{
		const LlmRowPart part = llm_row_part_find(columns[i].name);

		if (part == LLM_PART_COUNT || options->columns[part] != NULL ||
			is_mapped(options, columns[i].name) ||
			!type_fits(part, columns[i].type))
			continue;
		if (format->parts[part] >= 0)
			return llm_error_set(err, LLM_ERROR_INVALID,
								 "columns \"%s\" and \"%s\" are both \"%s\"",
								 columns[format->parts[part]].name,
								 columns[i].name, llm_row_part_names[part]);
		format->parts[part] = i;
	}
	for (int i = 0; i < LLM_PART_COUNT; i++)
		format->is_json[i] = format->parts[i] >= 0 &&
							 columns[format->parts[i]].type == LLM_COLUMN_JSON;
	return true;
}

static bool
has(const LlmRowFormat *format, LlmRowPart part)
{
	return format->parts[part] >= 0;
}

/* Take this format, unless another one was found before. */
static bool
add_base(LlmRowFormat *format, LlmRowPart base, LlmError *err)
{
	if (format->base != LLM_PART_COUNT)
	{
		llm_error_set(err, LLM_ERROR_INVALID,
					  "the query's columns are rows of two kinds: \"%s\" and "
					  "\"%s\"",
					  llm_row_part_names[format->base],
					  llm_row_part_names[base]);
		return llm_error_hint(
			err,
			"Select the columns of one, or leave one out with option "
			"\"columns\": {\"%s\": null}.",
			llm_row_part_names[base]);
	}
	format->base = base;
	return true;
}

static bool
find_base(LlmRowFormat *format, LlmError *err)
{
	const bool is_pair = format->kind == LLM_DATASET_PAIRS;
	bool ok = true;

	format->base = LLM_PART_COUNT;
	if (has(format, LLM_PART_MESSAGES))
		ok = add_base(format, LLM_PART_MESSAGES, err);
	if (ok && has(format, LLM_PART_CONVERSATIONS))
		ok = add_base(format, LLM_PART_CONVERSATIONS, err);
	if (ok && has(format, LLM_PART_INSTRUCTION) &&
		(is_pair || has(format, LLM_PART_OUTPUT)))
		ok = add_base(format, LLM_PART_INSTRUCTION, err);
	if (ok && has(format, LLM_PART_PROMPT) &&
		(is_pair || has(format, LLM_PART_COMPLETION)))
		ok = add_base(format, LLM_PART_PROMPT, err);
	else if (ok && !is_pair && format->kind == LLM_DATASET_SINGLES &&
			 has(format, LLM_PART_COMPLETION))
		ok = add_base(format, LLM_PART_COMPLETION, err);
	if (ok && has(format, LLM_PART_TEXT))
		ok = add_base(format, LLM_PART_TEXT, err);
	if (ok && is_pair && format->base == LLM_PART_COUNT)
		format->base = LLM_PART_CHOSEN;
	return ok;
}

static bool
fail_unknown(LlmError *err)
{
	llm_error_set(err, LLM_ERROR_INVALID,
				  "the query's columns are no rows to learn from");
	return llm_error_hint(
		err,
		"Name them messages; conversations; instruction and output; prompt "
		"and completion; chosen and rejected; completion and label (boolean); "
		"or text; or map them with option \"columns\".");
}

bool
llm_row_format_detect(const LlmRowColumn *columns, int n_columns,
					  const LlmRowOptions *options, LlmRowFormat *format,
					  LlmError *err)
{
	memset(format, 0, sizeof(*format));
	if (!find_parts(columns, n_columns, options, format, err))
		return false;
	/* what Alpaca calls instruction some call prompt, beside output */
	if (has(format, LLM_PART_PROMPT) && has(format, LLM_PART_OUTPUT) &&
		!has(format, LLM_PART_INSTRUCTION) && !has(format, LLM_PART_COMPLETION))
	{
		format->parts[LLM_PART_INSTRUCTION] = format->parts[LLM_PART_PROMPT];
		format->is_json[LLM_PART_INSTRUCTION] =
			format->is_json[LLM_PART_PROMPT];
		format->parts[LLM_PART_PROMPT] = -1;
	}
	if (has(format, LLM_PART_CHOSEN) != has(format, LLM_PART_REJECTED))
		return llm_error_set(
			err, LLM_ERROR_INVALID,
			"the query has a column \"%s\" but none that is "
			"\"%s\"",
			has(format, LLM_PART_CHOSEN) ? "chosen" : "rejected",
			has(format, LLM_PART_CHOSEN) ? "rejected" : "chosen");
	format->kind = has(format, LLM_PART_CHOSEN)	 ? LLM_DATASET_PAIRS
				   : has(format, LLM_PART_LABEL) ? LLM_DATASET_SINGLES
												 : LLM_DATASET_PLAIN;
	if (!find_base(format, err))
		return false;
	if (format->base == LLM_PART_COUNT)
		return fail_unknown(err);
	if (format->base == LLM_PART_TEXT && format->kind != LLM_DATASET_PLAIN)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "a column \"text\" cannot stand beside \"%s\"",
							 format->kind == LLM_DATASET_PAIRS ? "chosen"
															   : "label");
	return true;
}

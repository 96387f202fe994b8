/*
 * row_convert.c
 *	  Rows of a table as examples: the stages in order, and what is too long.
 *
 * A row that is cut loses its beginning, because what matters most is how an
 * answer ends: a model that is shown answers without their end never stops.
 * The last answer is never cut.  Only a plain text, which answers nobody,
 * loses its end, or is split into blocks, as the strategy "bfd_split" of TRL's
 * packing does (whose blocks share no token, so that none learns its first).
 *
 * src/common/dataset/row_convert.c
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/dataset/row_internal.h"

/* The token that ends plain texts: the tokenizer's own choice, if it stops. */
static int32_t
choose_end(const LlmRowModel *model)
{
	const LlmJsonSlice tokens = { model->special_tokens.data,
								  model->special_tokens.len };
	LlmStrbuf content;
	int32_t token_id = -1;

	llm_strbuf_init(&content);
	if (llm_json_slice_append_text(llm_json_slice_member(tokens, "eos_token"),
								   &content))
		token_id = llm_tokenizer_token_to_id(
			model->tokenizer, llm_strbuf_str(&content), content.len);
	llm_strbuf_free(&content);
	for (int32_t i = 0; i < model->n_stop_ids; i++)
	{
		if (model->stop_ids[i] == token_id)
			return token_id;
	}
	return model->stop_ids[0];
}

LlmRowConverter *
llm_row_converter_create(const LlmRowModel *model, const LlmRowFormat *format,
						 const LlmRowOptions *options, LlmError *err)
{
	LlmRowConverter *converter;

	if (model->n_stop_ids == 0)
	{
		llm_error_set(err, LLM_ERROR_INVALID,
					  "the model has no end-of-text token, so that it could "
					  "not learn to stop");
		return NULL;
	}
	if (options->mask_history && options->train_on_prompt)
	{
		llm_error_set(
			err, LLM_ERROR_INVALID,
			"options \"mask_history\" and \"train_on_prompt\" exclude "
			"each other");
		return NULL;
	}
	if (options->overlong == LLM_OVERLONG_SPLIT &&
		(format->base != LLM_PART_TEXT || options->cutoff_len < 2))
	{
		llm_error_set(err, LLM_ERROR_INVALID,
					  format->base != LLM_PART_TEXT
						  ? "option \"overlong\": \"split\" is for rows of "
							"column \"text\" alone"
						  : "rows cannot be split into examples of one token");
		return NULL;
	}
	converter = calloc(1, sizeof(*converter));
	if (converter != NULL)
		converter->arena = llm_arena_create("a row", 0);
	if (converter == NULL || converter->arena == NULL)
	{
		free(converter);
		llm_error_no_memory(err, sizeof(*converter), "a dataset");
		return NULL;
	}
	converter->model = *model;
	converter->format = *format;
	converter->options = *options;
	converter->end_id = choose_end(model);
	return converter;
}

void
llm_row_converter_free(LlmRowConverter *converter)
{
	if (converter == NULL)
		return;
	for (int i = 0; i < 2; i++)
	{
		LlmRowExample *example = &converter->examples[i];

		llm_strbuf_free(&example->conversation.json);
		llm_strbuf_free(&example->conversation.turns);
		llm_strbuf_free(&example->rendering.text);
		llm_strbuf_free(&example->rendering.marks.items);
		llm_strbuf_free(&example->rendering.spans);
		llm_idbuf_free(&example->ids);
		llm_strbuf_free(&example->labels);
	}
	llm_strbuf_free(&converter->prefix);
	llm_strbuf_free(&converter->token);
	llm_strbuf_free(&converter->places);
	llm_idbuf_free(&converter->prefix_ids);
	llm_arena_free(converter->arena);
	free(converter);
}

static int
n_examples(const LlmRowConverter *converter)
{
	return converter->format.kind == LLM_DATASET_PAIRS ? 2 : 1;
}

/* The verdict on a single example. */
static bool
read_verdict(const LlmRowConverter *converter, const LlmRowField *fields,
			 LlmDatasetRow *row, LlmError *err)
{
	LlmRowField field;

	if (converter->format.kind != LLM_DATASET_SINGLES)
		return true;
	field = fields[converter->format.parts[LLM_PART_LABEL]];
	if (field.data == NULL)
		return llm_error_set(err, LLM_ERROR_INVALID, "\"label\" is null");
	row->is_desirable = field.data[0] == 't';
	return true;
}

/* Fields to tokens. */
static bool
tokenize_example(LlmRowConverter *converter, const LlmRowField *fields,
				 int example_idx, LlmError *err)
{
	LlmRowExample *example = &converter->examples[example_idx];

	return llm_row_read(converter, fields, example_idx, err) &&
		   (example->rendering.is_plain ||
			llm_row_render(converter, example, err)) &&
		   llm_row_tokenize(converter, example, err);
}

/* -- length -- */

static size_t
longest(const LlmRowConverter *converter)
{
	size_t n = converter->examples[0].ids.n_ids;

	if (n_examples(converter) == 2 && converter->examples[1].ids.n_ids > n)
		n = converter->examples[1].ids.n_ids;
	return n;
}

static bool
fail_overlong(const LlmRowConverter *converter, LlmError *err)
{
	llm_error_set(err, LLM_ERROR_LIMIT,
				  "the row has %zu tokens, more than cutoff_len, which is %d",
				  longest(converter), converter->options.cutoff_len);
	return llm_error_hint(err, "Raise \"cutoff_len\", or set \"overlong\" to "
							   "\"drop\" or \"truncate\".");
}

/* Leave out the first n_cut tokens. */
static bool
cut_beginning(const LlmRowConverter *converter, LlmRowExample *example,
			  size_t n_cut, LlmError *err)
{
	LlmIdbuf *ids = &example->ids;
	LlmStrbuf *labels = &example->labels;

	/* a token before the answer stays, since the first is never learned */
	if (example->last_answer <= n_cut)
		return llm_error_set(
			err, LLM_ERROR_LIMIT,
			"the row has %zu tokens, and its last answer alone "
			"does not fit into cutoff_len, which is %d",
			ids->n_ids, converter->options.cutoff_len);
	ids->n_ids -= n_cut;
	memmove(ids->ids, ids->ids + n_cut, ids->n_ids * sizeof(int32_t));
	labels->len -= n_cut;
	memmove(labels->data, labels->data + n_cut, labels->len);
	labels->data[0] = 0;
	return true;
}

static bool
truncate_row(LlmRowConverter *converter, LlmError *err)
{
	const size_t cutoff = (size_t) converter->options.cutoff_len;
	const size_t n_tokens = longest(converter);
	const size_t n_cut = n_tokens - cutoff;

	/* no failure, but something to know */
	llm_error_set(err, LLM_ERROR_LIMIT,
				  "the row has %zu tokens; %zu of them are left out", n_tokens,
				  n_cut);
	if (converter->format.base == LLM_PART_TEXT)
	{
		converter->examples[0].ids.n_ids = cutoff;
		converter->examples[0].labels.len = cutoff;
		return true;
	}
	/* both answers of a pair have the same context */
	for (int i = 0; i < n_examples(converter); i++)
	{
		if (!cut_beginning(converter, &converter->examples[i], n_cut, err))
			return false;
	}
	return true;
}

/* -- rows -- */

static LlmExample
example_of(const LlmRowExample *example)
{
	assert(example->ids.n_ids == example->labels.len);
	return (LlmExample){ .n_tokens = (int32_t) example->ids.n_ids,
						 .token_ids = example->ids.ids,
						 .is_label = (const uint8_t *) example->labels.data };
}

int32_t
llm_row_converter_n_examples(const LlmRowConverter *converter)
{
	const size_t cutoff = (size_t) converter->options.cutoff_len;
	const size_t n_tokens = longest(converter);

	if (converter->options.overlong != LLM_OVERLONG_SPLIT || n_tokens <= cutoff)
		return 1;
	/* each but the first adds a token less than it has */
	return (int32_t) (1 + (n_tokens - cutoff + cutoff - 2) / (cutoff - 1));
}

LlmExample
llm_row_converter_next(LlmRowConverter *converter)
{
	LlmRowExample *whole = &converter->examples[0];
	LlmExample example = example_of(whole);
	const size_t begin =
		converter->next_token == 0 ? 0 : converter->next_token - 1;
	const size_t n_left = whole->ids.n_ids - begin;

	assert(converter->next_token < whole->ids.n_ids);
	if (n_left < (size_t) converter->options.cutoff_len)
		example.n_tokens = (int32_t) n_left;
	else
		example.n_tokens = converter->options.cutoff_len;
	/* it was learned at the end of the block before */
	whole->labels.data[begin] = 0;
	example.token_ids += begin;
	example.is_label += begin;
	converter->next_token = begin + (size_t) example.n_tokens;
	return example;
}

/* The first of a row's examples. */
static LlmExample
split_row(LlmRowConverter *converter, LlmError *err)
{
	/* no failure, but something to know */
	llm_error_set(err, LLM_ERROR_LIMIT,
				  "the row has %zu tokens; it becomes %d examples",
				  longest(converter), llm_row_converter_n_examples(converter));
	return llm_row_converter_next(converter);
}

static bool
check_row(const LlmRowConverter *converter, const LlmDatasetRow *row,
		  LlmError *err)
{
	if (llm_example_n_labels(&row->first) == 0 ||
		(n_examples(converter) == 2 && llm_example_n_labels(&row->second) == 0))
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "no token of the row is learned");
	if (n_examples(converter) == 2 &&
		row->first.n_tokens == row->second.n_tokens &&
		memcmp(row->first.token_ids, row->second.token_ids,
			   (size_t) row->first.n_tokens * sizeof(int32_t)) == 0)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "\"chosen\" and \"rejected\" are the same");
	return true;
}

static bool
is_overlong(const LlmRowConverter *converter)
{
	return longest(converter) > (size_t) converter->options.cutoff_len;
}

static LlmRowOutcome
leave_out(const LlmRowConverter *converter, LlmError *err)
{
	fail_overlong(converter, err);
	return converter->options.overlong == LLM_OVERLONG_DROP ? LLM_ROW_DROPPED
															: LLM_ROW_BAD;
}

/* A row whose tokens are made: its labels, cut to what is allowed. */
static LlmRowOutcome
finish_row(LlmRowConverter *converter, LlmDatasetRow *row, LlmError *err)
{
	const bool splits = converter->options.overlong == LLM_OVERLONG_SPLIT;
	const bool may_cut = converter->options.overlong == LLM_OVERLONG_TRUNCATE;
	bool is_cut;

	if (is_overlong(converter) && !may_cut && !splits)
		return leave_out(converter, err);
	for (int i = 0; i < n_examples(converter); i++)
	{
		LlmRowExample *example = &converter->examples[i];

		/* renders a conversation for each answer: not of endless ones */
		if ((!example->rendering.is_plain &&
			 !llm_row_find_answers(converter, example, err)) ||
			!llm_row_label(converter, example, err))
			return LLM_ROW_BAD;
	}
	/* an end token may have been added */
	is_cut = is_overlong(converter);
	if (is_cut && splits)
	{
		row->first = split_row(converter, err);
		return LLM_ROW_SPLIT;
	}
	if (is_cut && !may_cut)
		return leave_out(converter, err);
	if (is_cut && !truncate_row(converter, err))
		return LLM_ROW_BAD;
	row->first = example_of(&converter->examples[0]);
	if (n_examples(converter) == 2)
		row->second = example_of(&converter->examples[1]);
	if (!check_row(converter, row, err))
		return LLM_ROW_BAD;
	return is_cut ? LLM_ROW_TRUNCATED : LLM_ROW_GOOD;
}

LlmRowOutcome
llm_row_convert(LlmRowConverter *converter, const LlmRowField *fields,
				const volatile sig_atomic_t *interrupt, LlmDatasetRow *row,
				LlmError *err)
{
	memset(row, 0, sizeof(*row));
	llm_arena_reset(converter->arena);
	converter->interrupt = interrupt;
	converter->next_token = 0;
	if (!read_verdict(converter, fields, row, err))
		return LLM_ROW_BAD;
	for (int i = 0; i < n_examples(converter); i++)
	{
		if (!tokenize_example(converter, fields, i, err))
			return LLM_ROW_BAD;
	}
	return finish_row(converter, row, err);
}

LlmTemplateText
llm_row_converter_text(const LlmRowConverter *converter, int example_idx)
{
	const LlmStrbuf *text = &converter->examples[example_idx].rendering.text;

	return (LlmTemplateText){ llm_strbuf_str(text), text->len };
}

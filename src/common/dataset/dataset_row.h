/*
 * dataset_row.h
 *	  From a table's row to tokens of which some are learned.
 *
 * Columns are recognized once, by their names and types; then each row is
 * rendered with the model's chat template and tokenized, as serving does, and
 * labelled: what the assistant says, and the token that ends it.  Labels go by
 * the place of the text, never by a token's id.
 *
 * A row that cannot be learned is an error of its own, LLM_ERROR_INVALID or
 * LLM_ERROR_TEMPLATE or LLM_ERROR_LIMIT, that says what is wrong with it.
 *
 * src/common/dataset/dataset_row.h
 */
#ifndef LLM_DATASET_ROW_H
#define LLM_DATASET_ROW_H

#include "src/common/dataset/dataset.h"
#include "src/common/template/chat_template.h"
#include "src/common/tokenizer/tokenizer.h"
#include "src/common/util/json_slice.h"

/* What a column can be; llm_row_part_names has their names in this order. */
typedef enum LlmRowPart
{
	LLM_PART_MESSAGES = 0,
	LLM_PART_CONVERSATIONS,
	LLM_PART_TOOLS,
	LLM_PART_SYSTEM,
	LLM_PART_INSTRUCTION,
	LLM_PART_INPUT,
	LLM_PART_OUTPUT,
	LLM_PART_HISTORY,
	LLM_PART_PROMPT,
	LLM_PART_COMPLETION,
	LLM_PART_CHOSEN,
	LLM_PART_REJECTED,
	LLM_PART_LABEL,
	LLM_PART_TEXT,
	LLM_PART_COUNT
} LlmRowPart;

extern const char *const llm_row_part_names[LLM_PART_COUNT];

/* The part of a name, other trainers' names for it included; or COUNT. */
extern LlmRowPart llm_row_part_find(const char *name);

typedef enum LlmColumnType
{
	LLM_COLUMN_OTHER = 0, /* no part of a row */
	LLM_COLUMN_TEXT,
	LLM_COLUMN_JSON,
	LLM_COLUMN_BOOL
} LlmColumnType;

typedef struct LlmRowColumn
{
	const char *name;
	LlmColumnType type;
} LlmRowColumn;

/* UTF-8 text, JSON, or "t" or "f"; data NULL = null. */
typedef LlmJsonSlice LlmRowField;

/* Which column is which part. */
typedef struct LlmRowFormat
{
	LlmDatasetKind kind;
	LlmRowPart base;		   /* the part that gives the format its name */
	int parts[LLM_PART_COUNT]; /* column, or -1 */
	bool is_json[LLM_PART_COUNT];
} LlmRowFormat;

typedef enum LlmOverlong
{
	LLM_OVERLONG_ERROR = 0, /* the row is bad */
	LLM_OVERLONG_DROP,
	LLM_OVERLONG_TRUNCATE, /* leave out its beginning; of a plain text its end */
	LLM_OVERLONG_SPLIT	   /* plain texts alone: several examples */
} LlmOverlong;

/* Names in a conversation of ShareGPT's kind. */
typedef struct LlmRowTags
{
	const char *role;
	const char *content;
	const char *user;
	const char *assistant;
	const char *observation;
	const char *function;
	const char *system;
} LlmRowTags;

typedef struct LlmRowOptions
{
	int32_t cutoff_len; /* most tokens of an example */
	LlmOverlong overlong;
	bool train_on_prompt;
	bool mask_history; /* only the last answer of a conversation is learned */
	bool append_eos;   /* where the template does not end the last answer */
	const char *default_system; /* or NULL */
	const char *kwargs;			/* a JSON object: template variables, or NULL */
	LlmRowTags tags;

	/* a part's column; "" = there is none; NULL = the one of the part's name */
	const char *columns[LLM_PART_COUNT];
} LlmRowOptions;

/* 2048 tokens at most, longer rows are bad, usual tags. */
extern void llm_row_options_init(LlmRowOptions *options);

/* Names that are no part are passed over.  False: no format, or several. */
extern bool llm_row_format_detect(const LlmRowColumn *columns, int n_columns,
								  const LlmRowOptions *options,
								  LlmRowFormat *format, LlmError *err);

/* What renders and tokenizes; borrowed. */
typedef struct LlmRowModel
{
	LlmTokenizer *tokenizer;
	const LlmChatTemplate *chat_template; /* NULL: it has none */
	const LlmChatTemplate *tool_template; /* for rows with tools */
	LlmTemplateText special_tokens;
	int32_t n_vocab;
	const int32_t *stop_ids;
	int32_t n_stop_ids;
	time_t now;
} LlmRowModel;

typedef struct LlmRowConverter LlmRowConverter;

/* Everything is borrowed and outlives the converter.  NULL: *err. */
extern LlmRowConverter *
llm_row_converter_create(const LlmRowModel *model, const LlmRowFormat *format,
						 const LlmRowOptions *options, LlmError *err);
extern void llm_row_converter_free(LlmRowConverter *converter);

typedef enum LlmRowOutcome
{
	LLM_ROW_GOOD = 0,
	LLM_ROW_TRUNCATED, /* good, but in part left out; *err says how much */
	LLM_ROW_SPLIT,	   /* good; *err says into how many examples */
	LLM_ROW_DROPPED,   /* too long, to be left out; *err says how long */
	LLM_ROW_BAD		   /* *err; LLM_ERROR_CANCELLED: interrupted */
} LlmRowOutcome;

/*
 * Convert the fields of a row, in the columns' order.  *row is borrowed until
 * the next call.  A nonzero *interrupt (may be NULL) stops it.
 */
extern LlmRowOutcome
llm_row_convert(LlmRowConverter *converter, const LlmRowField *fields,
				const volatile sig_atomic_t *interrupt, LlmDatasetRow *row,
				LlmError *err);

/*
 * The examples that the last row became: 1, but for one that was split.  Each
 * has cutoff_len tokens, the last one what is left.  Those behind the first
 * begin with the last token of the one before, so that each token is learned,
 * and once.
 */
extern int32_t llm_row_converter_n_examples(const LlmRowConverter *converter);

/* The next of these; there must be one.  Borrowed until the next call. */
extern LlmExample llm_row_converter_next(LlmRowConverter *converter);

/* The text whose tokens example_idx (0 or 1) of the last row has. */
extern LlmTemplateText
llm_row_converter_text(const LlmRowConverter *converter, int example_idx);

#endif /* LLM_DATASET_ROW_H */

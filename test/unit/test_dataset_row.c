/*
 * test_dataset_row.c
 *	  Rows of tables as examples: against the reference's tokens and labels,
 *	  every format, and rows that cannot be learned.
 *
 * test/vectors/dataset/make_vectors.py says how the expected labels are made.
 *
 * test/unit/test_dataset_row.c
 */
#include <cjson/cJSON.h>

#include "src/common/dataset/dataset_row.h"
#include "src/common/util/json.h"
#include "src/common/util/mapped_file.h"
#include "test/unit/unit_test.h"

#define CHATML                                                     \
	"{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + " \
	"m.content + '<|im_end|>\\n' }}{% endfor %}{% if "             \
	"add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"

static LlmError err;

/* ---- a tokenizer with a template ---- */

typedef struct Setup
{
	char name[32];
	LlmStrbuf image;
	LlmTokenizer *tokenizer;
	LlmChatTemplate *chat_template;
	char *special_tokens;
	int32_t stop_ids[4];
	int n_stop_ids;
} Setup;

static Setup setup;

static void
free_setup(void)
{
	llm_tokenizer_close(setup.tokenizer);
	llm_strbuf_free(&setup.image);
	llm_chat_template_free(setup.chat_template);
	free(setup.special_tokens);
	memset(&setup, 0, sizeof(setup));
}

static bool
load_tokenizer(const char *name)
{
	LlmMappedFile file;
	char path[200];
	bool ok;

	if (strcmp(setup.name, name) == 0)
		return true;
	llm_tokenizer_close(setup.tokenizer);
	setup.tokenizer = NULL;
	llm_strbuf_reset(&setup.image);
	snprintf(path, sizeof(path), "test/vectors/tokenizer/%s.json", name);
	if (!llm_mapped_file_open(&file, path, &err))
		return false;
	ok = llm_tokenizer_compile(file.data, file.size, NULL, 0, path,
							   &setup.image, &err);
	llm_mapped_file_close(&file);
	if (ok)
		setup.tokenizer =
			llm_tokenizer_open(setup.image.data, setup.image.len, &err);
	snprintf(setup.name, sizeof(setup.name), "%s", name);
	return setup.tokenizer != NULL;
}

static bool
load_template(const char *source)
{
	llm_chat_template_free(setup.chat_template);
	setup.chat_template = NULL;
	if (source[0] == '\0')
		return true;
	setup.chat_template =
		llm_chat_template_compile(source, strlen(source), &err);
	return setup.chat_template != NULL;
}

static void
set_special(const char *json)
{
	free(setup.special_tokens);
	setup.special_tokens = strdup(json);
}

static bool
load_chatml(void)
{
	set_special("{\"eos_token\": \"<|im_end|>\"}");
	setup.n_stop_ids = 2;
	setup.stop_ids[0] = 1202;
	setup.stop_ids[1] = 1200;
	return load_tokenizer("qwen2") && load_template(CHATML);
}

static LlmRowModel
model_of_setup(void)
{
	return (LlmRowModel){
		.tokenizer = setup.tokenizer,
		.chat_template = setup.chat_template,
		.tool_template = setup.chat_template,
		.special_tokens = { setup.special_tokens,
							strlen(setup.special_tokens) },
		.n_vocab = llm_tokenizer_n_vocab(setup.tokenizer),
		.stop_ids = setup.stop_ids,
		.n_stop_ids = setup.n_stop_ids,
	};
}

/* ---- a row ---- */

#define MAX_COLUMNS 8

typedef struct Row
{
	int n_columns;
	LlmRowColumn columns[MAX_COLUMNS];
	LlmRowField fields[MAX_COLUMNS];
	LlmRowOptions options;
	LlmRowConverter *converter;
	LlmRowOutcome outcome;
	LlmDatasetRow row;
	LlmRowFormat format;
} Row;

static void
init_row(Row *row)
{
	memset(row, 0, sizeof(*row));
	llm_row_options_init(&row->options);
}

static void
add_field(Row *row, const char *name, LlmColumnType type, const char *value)
{
	row->columns[row->n_columns] = (LlmRowColumn){ name, type };
	row->fields[row->n_columns++] =
		(LlmRowField){ value, value == NULL ? 0 : strlen(value) };
}

static void
free_row(Row *row)
{
	llm_row_converter_free(row->converter);
	row->converter = NULL;
}

/* False: the columns or the model are refused. */
static bool
convert(Row *row)
{
	const LlmRowModel model = model_of_setup();

	free_row(row);
	llm_error_clear(&err);
	if (!llm_row_format_detect(row->columns, row->n_columns, &row->options,
							   &row->format, &err))
		return false;
	row->converter =
		llm_row_converter_create(&model, &row->format, &row->options, &err);
	if (row->converter == NULL)
		return false;
	row->outcome =
		llm_row_convert(row->converter, row->fields, NULL, &row->row, &err);
	return true;
}

/* What is learned of an example, each run between bars. */
static const char *
learned(const LlmExample *example)
{
	static LlmStrbuf text;

	llm_strbuf_reset(&text);
	llm_strbuf_append_str(&text, "");
	for (int32_t i = 0; i < example->n_tokens; i++)
	{
		if (example->is_label[i] == 0)
			continue;
		if (i == 0 || example->is_label[i - 1] == 0)
			llm_strbuf_append_char(&text, '|');
		if (!llm_tokenizer_token_bytes(setup.tokenizer, example->token_ids[i],
									   &text, &err))
			return "an error";
	}
	return llm_strbuf_str(&text);
}

static const char *
rendered(const Row *row, int example_idx)
{
	return llm_row_converter_text(row->converter, example_idx).data;
}

static void
check_learned(int line, Row *row, const char *text)
{
	if (!convert(row) || row->outcome != LLM_ROW_GOOD)
		CHECK_FAIL("line %d: outcome %d: %s", line, (int) row->outcome,
				   err.message);
	else if (strcmp(learned(&row->row.first), text) != 0)
		CHECK_FAIL("line %d: learned \"%s\", expected \"%s\"", line,
				   learned(&row->row.first), text);
}

static void
check_message(int line, bool is_as_expected, const char *reason)
{
	if (!is_as_expected || strstr(err.message, reason) == NULL)
		CHECK_FAIL("line %d: \"%s\", expected \"%s\"", line, err.message,
				   reason);
}

#define CHECK_LEARNED(row, text) check_learned(__LINE__, row, text)

/* The row is bad, for a reason that says so. */
#define CHECK_BAD(r, reason) \
	check_message(__LINE__, convert(r) && (r)->outcome == LLM_ROW_BAD, reason)

/* No row of the kind can be. */
#define CHECK_REFUSED(r, reason) check_message(__LINE__, !convert(r), reason)

/* ---- the reference ---- */

static const char *
string_of(const cJSON *object, const char *key)
{
	return cJSON_GetStringValue(cJSON_GetObjectItem(object, key));
}

static void
compare_example(const char *name, const cJSON *expected,
				const LlmExample *example)
{
	const cJSON *ids = cJSON_GetObjectItem(expected, "ids");
	const char *labels = string_of(expected, "labels");
	const cJSON *id;
	int n = 0;

	if (cJSON_GetArraySize(ids) != example->n_tokens)
	{
		CHECK_FAIL("%s: %d tokens, expected %d", name, example->n_tokens,
				   cJSON_GetArraySize(ids));
		return;
	}
	cJSON_ArrayForEach(id, ids)
	{
		if (example->token_ids[n] != id->valueint)
			CHECK_FAIL("%s: token %d is %d, expected %d", name, n,
					   example->token_ids[n], id->valueint);
		if (example->is_label[n] != labels[n] - '0')
			CHECK_FAIL("%s: label %d (token %d) is %d, expected %c", name, n,
					   id->valueint, example->is_label[n], labels[n]);
		n++;
	}
}

/* A row of the file: its members are the columns. */
static void
check_case(const cJSON *test)
{
	const char *name = string_of(test, "name");
	const cJSON *stops = cJSON_GetObjectItem(test, "stops");
	const cJSON *expected = cJSON_GetObjectItem(test, "examples");
	char *texts[MAX_COLUMNS] = { NULL };
	const cJSON *item;
	Row row;

	init_row(&row);
	REQUIRE(load_tokenizer(string_of(test, "tokenizer")));
	REQUIRE(load_template(string_of(test, "template")));
	set_special(string_of(test, "special"));
	setup.n_stop_ids = 0;
	cJSON_ArrayForEach(item, stops)
	{
		setup.stop_ids[setup.n_stop_ids++] = item->valueint;
	}
	cJSON_ArrayForEach(item, cJSON_GetObjectItem(test, "row"))
	{
		const bool is_text = cJSON_IsString(item);

		texts[row.n_columns] =
			is_text ? strdup(item->valuestring) : cJSON_PrintUnformatted(item);
		add_field(&row, item->string,
				  is_text ? LLM_COLUMN_TEXT : LLM_COLUMN_JSON,
				  texts[row.n_columns]);
	}
	row.options.mask_history = cJSON_IsTrue(cJSON_GetObjectItem(
		cJSON_GetObjectItem(test, "options"), "mask_history"));
	if (!convert(&row) || row.outcome != LLM_ROW_GOOD)
		CHECK_FAIL("%s: %s", name, err.message);
	else
	{
		compare_example(name, cJSON_GetArrayItem(expected, 0), &row.row.first);
		if (cJSON_GetArraySize(expected) == 2)
			compare_example(name, cJSON_GetArrayItem(expected, 1),
							&row.row.second);
	}
	free_row(&row);
	for (int i = 0; i < MAX_COLUMNS; i++)
		free(texts[i]);
}

static void
test_reference(void)
{
	LlmMappedFile file;
	size_t off = 0;
	int n = 0;

	REQUIRE(
		llm_mapped_file_open(&file, "test/vectors/dataset/rows.jsonl", &err));
	while (off < file.size)
	{
		const char *end = memchr(file.data + off, '\n', file.size - off);
		const size_t len = (size_t) (end - file.data) - off;
		cJSON *test = llm_json_parse(file.data + off, len, "rows.jsonl", &err);

		if (test == NULL)
			CHECK_FAIL("%s", err.message);
		else
			check_case(test);
		cJSON_Delete(test);
		off += len + 1;
		n++;
	}
	CHECK(n > 40);
	llm_mapped_file_close(&file);
}

/* ---- formats ---- */

static void
test_messages(void)
{
	Row row;

	REQUIRE(load_chatml());
	init_row(&row);
	add_field(&row, "id", LLM_COLUMN_OTHER, NULL);
	add_field(&row, "messages", LLM_COLUMN_JSON,
			  "[{\"role\":\"user\",\"content\":\"a\"},"
			  "{\"role\":\"assistant\",\"content\":\"b\",\"train\":false},"
			  "{\"role\":\"user\",\"content\":\"c\"},"
			  "{\"role\":\"assistant\",\"content\":\"d\",\"weight\":1}]");
	CHECK_LEARNED(&row, "|d<|im_end|>");
	CHECK(strstr(rendered(&row, 0), "weight") == NULL);
	row.options.default_system = "S \"q\"";
	CHECK_LEARNED(&row, "|d<|im_end|>");
	CHECK(strncmp(rendered(&row, 0), "<|im_start|>system\nS \"q\"<|im_end|>",
				  strlen("<|im_start|>system\nS \"q\"<|im_end|>")) == 0);
	row.options.train_on_prompt = true;
	REQUIRE(convert(&row));
	CHECK_INT_EQ(llm_example_n_labels(&row.row.first),
				 row.row.first.n_tokens - 1);
	free_row(&row);
}

static void
test_conversations(void)
{
	Row row;

	REQUIRE(load_chatml());
	init_row(&row);
	add_field(&row, "conversations", LLM_COLUMN_JSON,
			  "[{\"from\":\"human\",\"value\":\"a\\u00e9\"},"
			  "{\"from\":\"gpt\",\"value\":\"b\"}]");
	add_field(&row, "system", LLM_COLUMN_TEXT, "be");
	CHECK_LEARNED(&row, "|b<|im_end|>");
	CHECK_STR_EQ(rendered(&row, 0),
				 "<|im_start|>system\nbe<|im_end|>\n<|im_start|>user\n"
				 "aé<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n");
	row.options.tags.role = "who";
	CHECK_BAD(&row, "message 1 has no \"who\"");
	row.options.tags.role = "from";
	row.options.tags.user = "person";
	CHECK_BAD(&row, "is from \"human\", who is none of person");
	free_row(&row);
}

static void
test_function_calls(void)
{
	Row row;

	REQUIRE(load_chatml());
	REQUIRE(load_template("{% for m in messages %}<|im_start|>{{ m.role }}\n"
						  "{{ m.content }}{% for c in m.tool_calls or [] %}"
						  "{{ c.function.name }}{{ c.function.arguments.x }}"
						  "{% endfor %}<|im_end|>{% endfor %}{% if "
						  "add_generation_prompt %}<|im_start|>assistant\n"
						  "{% endif %}"));
	init_row(&row);
	add_field(&row, "conversations", LLM_COLUMN_JSON,
			  "[{\"from\":\"human\",\"value\":\"a\"},"
			  "{\"from\":\"function_call\",\"value\":\"{\\\"name\\\":\\\"f\\\","
			  "\\\"arguments\\\":{\\\"x\\\":1.50}}\"},"
			  "{\"from\":\"observation\",\"value\":\"2\"},"
			  "{\"from\":\"gpt\",\"value\":\"b\"}]");
	CHECK_LEARNED(&row, "|f1.5<|im_end|>|b<|im_end|>");
	row.fields[0].data = "[{\"from\":\"human\",\"value\":\"a\"},"
						 "{\"from\":\"function_call\",\"value\":\"f(x)\"}]";
	row.fields[0].len = strlen(row.fields[0].data);
	CHECK_BAD(&row, "message 2 is no call of a function");
	free_row(&row);
}

static void
test_alpaca(void)
{
	Row row;

	REQUIRE(load_chatml());
	init_row(&row);
	add_field(&row, "instruction", LLM_COLUMN_TEXT, "Add");
	add_field(&row, "input", LLM_COLUMN_TEXT, "1 2");
	add_field(&row, "output", LLM_COLUMN_TEXT, "3");
	add_field(&row, "history", LLM_COLUMN_JSON, "[[\"q\",\"r\"]]");
	CHECK_LEARNED(&row, "|r<|im_end|>|3<|im_end|>");
	CHECK(strstr(rendered(&row, 0), "user\nAdd\n1 2<|im_end|>") != NULL);
	row.options.mask_history = true;
	CHECK_LEARNED(&row, "|3<|im_end|>");
	row.fields[1].data = NULL;
	CHECK_LEARNED(&row, "|3<|im_end|>");
	CHECK(strstr(rendered(&row, 0), "user\nAdd<|im_end|>") != NULL);
	row.fields[3] = (LlmRowField){ "[[\"q\"]]", 7 };
	CHECK_BAD(&row, "\"history\" has an item that is no question");
	row.fields[2].data = NULL;
	row.fields[3].data = NULL;
	CHECK_BAD(&row, "\"output\" is null");
	free_row(&row);
	/* other trainers' names */
	init_row(&row);
	add_field(&row, "prompt", LLM_COLUMN_TEXT, "Add");
	add_field(&row, "query", LLM_COLUMN_TEXT, "1 2");
	add_field(&row, "response", LLM_COLUMN_TEXT, "3");
	CHECK_LEARNED(&row, "|3<|im_end|>");
	free_row(&row);
}

static void
test_pairs(void)
{
	Row row;

	REQUIRE(load_chatml());
	init_row(&row);
	add_field(&row, "prompt", LLM_COLUMN_TEXT, "The sky is");
	add_field(&row, "chosen", LLM_COLUMN_TEXT, " blue");
	add_field(&row, "rejected", LLM_COLUMN_TEXT, " red");
	CHECK_LEARNED(&row, "| blue<|im_end|>");
	CHECK_STR_EQ(learned(&row.row.second), "| red<|im_end|>");
	row.fields[2] = row.fields[1];
	CHECK_BAD(&row, "\"chosen\" and \"rejected\" are the same");
	row.fields[2] = (LlmRowField){ "", 0 };
	CHECK_BAD(&row, "\"rejected\" is empty");
	free_row(&row);
	/* without a prompt: what both begin with */
	init_row(&row);
	add_field(&row, "chosen", LLM_COLUMN_TEXT, "The sky is blue");
	add_field(&row, "rejected", LLM_COLUMN_TEXT, "The sky is black");
	CHECK_LEARNED(&row, "| blue<|im_end|>");
	CHECK_STR_EQ(learned(&row.row.second), "| black<|im_end|>");
	row.fields[1] = (LlmRowField){ "The sky", 7 };
	CHECK_BAD(&row, "one begins the other");
	free_row(&row);
	/* answers to a conversation */
	init_row(&row);
	add_field(&row, "messages", LLM_COLUMN_JSON,
			  "[{\"role\":\"user\",\"content\":\"a\"}]");
	add_field(&row, "chosen", LLM_COLUMN_JSON,
			  "{\"role\":\"assistant\",\"content\":\"b\"}");
	add_field(&row, "rejected", LLM_COLUMN_TEXT, "c");
	CHECK_LEARNED(&row, "|b<|im_end|>");
	CHECK_STR_EQ(learned(&row.row.second), "|c<|im_end|>");
	free_row(&row);
}

static void
test_singles(void)
{
	Row row;

	REQUIRE(load_chatml());
	init_row(&row);
	add_field(&row, "prompt", LLM_COLUMN_TEXT, "a");
	add_field(&row, "completion", LLM_COLUMN_TEXT, " b");
	add_field(&row, "label", LLM_COLUMN_BOOL, "t");
	CHECK_LEARNED(&row, "| b<|im_end|>");
	CHECK_INT_EQ(row.format.kind, LLM_DATASET_SINGLES);
	CHECK(row.row.is_desirable);
	row.fields[2].data = "f";
	CHECK_LEARNED(&row, "| b<|im_end|>");
	CHECK(!row.row.is_desirable);
	row.fields[2].data = NULL;
	CHECK_BAD(&row, "\"label\" is null");
	/* a label that is none */
	row.options.columns[LLM_PART_LABEL] = "";
	CHECK_LEARNED(&row, "| b<|im_end|>");
	CHECK_INT_EQ(row.format.kind, LLM_DATASET_PLAIN);
	free_row(&row);
}

static void
test_text(void)
{
	Row row;

	REQUIRE(load_chatml());
	init_row(&row);
	add_field(&row, "body", LLM_COLUMN_TEXT, "one two three");
	row.options.columns[LLM_PART_TEXT] = "body";
	REQUIRE(convert(&row));
	CHECK_INT_EQ(row.outcome, LLM_ROW_GOOD);
	CHECK_INT_EQ(llm_example_n_labels(&row.row.first),
				 row.row.first.n_tokens - 1);
	CHECK_INT_EQ(row.row.first.token_ids[row.row.first.n_tokens - 1], 1202);
	free_row(&row);
}

static void
test_columns(void)
{
	Row row;

	REQUIRE(load_chatml());
	init_row(&row);
	add_field(&row, "a", LLM_COLUMN_TEXT, "x");
	CHECK_REFUSED(&row, "no rows to learn from");
	add_field(&row, "messages", LLM_COLUMN_JSON, "[]");
	add_field(&row, "text", LLM_COLUMN_TEXT, "x");
	CHECK_REFUSED(&row, "rows of two kinds: \"messages\" and \"text\"");
	row.options.columns[LLM_PART_MESSAGES] = "";
	CHECK(convert(&row));
	row.options.columns[LLM_PART_TEXT] = "nowhere";
	CHECK_REFUSED(&row, "no column \"nowhere\"");
	add_field(&row, "n", LLM_COLUMN_OTHER, "x");
	row.options.columns[LLM_PART_TEXT] = "n";
	CHECK_REFUSED(&row, "column \"n\" cannot be \"text\"");
	free_row(&row);
	init_row(&row);
	add_field(&row, "chosen", LLM_COLUMN_TEXT, "x");
	CHECK_REFUSED(&row, "none that is \"rejected\"");
	row.n_columns = 0;
	CHECK_REFUSED(&row, "no rows to learn from");
	row.options.mask_history = true;
	row.options.train_on_prompt = true;
	add_field(&row, "text", LLM_COLUMN_TEXT, "x");
	CHECK_REFUSED(&row, "exclude each other");
	row.options.mask_history = false;
	setup.n_stop_ids = 0;
	CHECK_REFUSED(&row, "no end-of-text token");
	free_row(&row);
}

/* ---- rows that cannot be learned ---- */

static void
test_bad_messages(void)
{
	static const struct
	{
		const char *messages;
		const char *reason;
	} bad[] = {
		{ NULL, "\"messages\" is null" },
		{ "null", "\"messages\" is null" },
		{ "{}", "no array of messages" },
		{ "\"x\"", "malformed JSON" },
		{ "[]", "has no messages" },
		{ "[1]", "message 1 is no object" },
		{ "[{\"content\":\"x\"}]", "message 1 has no role" },
		{ "[{\"role\":\"robot\",\"content\":\"x\"}]", "the role \"robot\"" },
		{ "[{\"role\":\"user\"}]", "message 1 has no content" },
		{ "[{\"role\":\"user\",\"content\":null}]", "has no content" },
		{ "[{\"role\":\"user\",\"content\":7}]", "neither a string nor" },
		{ "[{\"role\":\"user\",\"content\":\"x\"}]", "does not end with" },
		{ "[{\"role\":\"assistant\",\"content\":\"x\"}]", "nothing precedes" },
		{ "[{\"role\":\"user\",\"content\":\"x\"},"
		  "{\"role\":\"assistant\",\"content\":\"\"}]",
		  "message 2 is an empty answer" },
		{ "[{\"role\":\"user\",\"content\":\"x\"},"
		  "{\"role\":\"assistant\",\"content\":\"y\",\"weight\":0}]",
		  "no message of the conversation is to be learned" },
		{ "[{\"role\":\"user\",\"content\":\"x\",\"train\":true},"
		  "{\"role\":\"assistant\",\"content\":\"y\"}]",
		  "message 1 is to be learned, but" },
		{ "[{\"role\":\"user\",\"content\":\"x\"},"
		  "{\"role\":\"assistant\",\"content\":\"y\",\"weight\":0.5}]",
		  "neither 0 nor 1" },
		{ "[{\"role\":\"user\",\"content\":\"x\"},"
		  "{\"role\":\"assistant\",\"content\":\"y\",\"train\":7}]",
		  "neither true nor false" },
		/* what only the template's reader sees */
		{ "[{\"role\":\"user\",\"content\":\"x\"},"
		  "{\"role\":\"assistant\",\"content\":\"\\ud800\"}]",
		  "messages" },
	};
	Row row;

	REQUIRE(load_chatml());
	init_row(&row);
	add_field(&row, "messages", LLM_COLUMN_JSON, NULL);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
	{
		row.fields[0].data = bad[i].messages;
		row.fields[0].len =
			bad[i].messages == NULL ? 0 : strlen(bad[i].messages);
		CHECK_BAD(&row, bad[i].reason);
	}
	/* a text that should be JSON */
	row.columns[0].type = LLM_COLUMN_TEXT;
	row.fields[0].data = "[{\"role\":\"user\",\"content\":\"x\"},"
						 "{\"role\":\"assistant\",\"content\":\"y\"";
	row.fields[0].len = strlen(row.fields[0].data);
	CHECK_BAD(&row, "messages");
	free_row(&row);
}

/* Every beginning of a row, and every byte of it replaced: never a crash. */
static void
test_damaged_json(void)
{
	static const char whole[] =
		"[{\"role\":\"user\",\"content\":\"\\u0041x\"},"
		"{\"role\":\"assistant\",\"content\":\"y\",\"weight\":1}]";
	static const char bytes[] = "\"\\{}[],:\0u";
	char text[sizeof(whole)];
	Row row;
	int n_bad = 0;

	REQUIRE(load_chatml());
	init_row(&row);
	add_field(&row, "messages", LLM_COLUMN_TEXT, text);
	for (size_t i = 0; i + 1 < sizeof(whole); i++)
	{
		for (size_t k = 0; k < sizeof(bytes); k++)
		{
			memcpy(text, whole, sizeof(whole));
			text[i] = bytes[k];
			/* the last one cuts the row instead */
			row.fields[0].len = k + 1 == sizeof(bytes) ? i : sizeof(whole) - 1;
			REQUIRE(convert(&row));
			n_bad += row.outcome == LLM_ROW_BAD;
			CHECK(row.outcome == LLM_ROW_GOOD || err.message[0] != '\0');
		}
	}
	CHECK(n_bad > 500);
	free_row(&row);
}

/* ---- templates that cannot be learned from ---- */

#define TWO_TURNS                                 \
	"[{\"role\":\"user\",\"content\":\"a\"},"     \
	"{\"role\":\"assistant\",\"content\":\"b\"}," \
	"{\"role\":\"user\",\"content\":\"c\"},"      \
	"{\"role\":\"assistant\",\"content\":\"d\"}]"

static void
test_templates(void)
{
	Row row;

	REQUIRE(load_chatml());
	init_row(&row);
	add_field(&row, "messages", LLM_COLUMN_JSON, TWO_TURNS);
	/* earlier messages change as later ones come */
	REQUIRE(load_template("{% for m in messages %}{{ m.role if loop.last else "
						  "'old' }}: {{ m.content }}<|im_end|>{% endfor %}"));
	CHECK_BAD(&row, "changes what stands before the end of message 2");
	row.options.mask_history = true;
	REQUIRE(load_template("{{ messages | length }}{% for m in messages %}"
						  "{{ m.content }}<|im_end|>{% endfor %}"));
	CHECK_BAD(&row, "changes what stands before");
	/* the prompt for an answer is not how answers begin */
	REQUIRE(load_template("{% for m in messages %}{{ m.content }}<|im_end|>"
						  "{% endfor %}{% if add_generation_prompt %}<think>"
						  "{% endif %}"));
	CHECK_BAD(&row, "does not begin as the chat template has the model begin");
	/* nothing ends the answer */
	REQUIRE(load_template("{% for m in messages %}{{ m.role }}: "
						  "{{ m.content }}\n{% endfor %}{% if "
						  "add_generation_prompt %}assistant: {% endif %}"));
	CHECK_BAD(&row, "does not end the answer with a token");
	row.options.append_eos = true;
	REQUIRE(convert(&row));
	CHECK_INT_EQ(row.outcome, LLM_ROW_GOOD);
	CHECK_INT_EQ(row.row.first.token_ids[row.row.first.n_tokens - 1], 1202);
	row.options.append_eos = false;
	/* the next message's token ends it, and the last one nothing */
	REQUIRE(load_template("{% for m in messages %}{{ '<|im_end|>' if m.role == "
						  "'user' else '<|im_start|>' }}{{ m.content }}"
						  "{% endfor %}{% if add_generation_prompt %}"
						  "<|im_start|>{% endif %}"));
	row.options.mask_history = false;
	CHECK_BAD(&row, "does not end the answer with a token");
	row.options.append_eos = true;
	CHECK_LEARNED(&row, "|b<|im_end|>|d<|im_end|>");
	/* marks inside a macro have no place: the prefixes say where answers are */
	REQUIRE(load_template("{% macro say(m) %}{% generation %}{{ m.content }}"
						  "{% endgeneration %}<|im_end|>{% endmacro %}"
						  "{% for m in messages %}{{ say(m) }}{% endfor %}"));
	CHECK_LEARNED(&row, "|b<|im_end|>|d<|im_end|>");
	REQUIRE(load_template(""));
	CHECK_BAD(&row, "no chat template");
	REQUIRE(load_template("{{ raise_exception('no such thing') }}"));
	CHECK_BAD(&row, "no such thing");
	free_row(&row);
}

/* Flags choose among marked answers, too. */
static void
test_marks_and_flags(void)
{
	Row row;

	REQUIRE(load_chatml());
	REQUIRE(load_template("{% for m in messages %}{% if m.role == 'assistant' "
						  "%}<|im_start|>{% generation %}{{ m.content }}"
						  "<|im_end|>{% endgeneration %}{% else %}"
						  "{{ m.content }}{% endif %}{% endfor %}"));
	init_row(&row);
	add_field(&row, "messages", LLM_COLUMN_JSON, TWO_TURNS);
	CHECK_LEARNED(&row, "|b<|im_end|>|d<|im_end|>");
	row.options.mask_history = true;
	CHECK_LEARNED(&row, "|d<|im_end|>");
	free_row(&row);
}

/* ---- length ---- */

static void
test_overlong(void)
{
	Row row;
	int32_t n;
	int32_t whole[64];

	REQUIRE(load_chatml());
	init_row(&row);
	add_field(&row, "messages", LLM_COLUMN_JSON, TWO_TURNS);
	CHECK_LEARNED(&row, "|b<|im_end|>|d<|im_end|>");
	n = row.row.first.n_tokens;
	REQUIRE(n < 64);
	memcpy(whole, row.row.first.token_ids, sizeof(int32_t) * (size_t) n);
	row.options.cutoff_len = n;
	CHECK_LEARNED(&row, "|b<|im_end|>|d<|im_end|>");
	row.options.cutoff_len = n - 1;
	CHECK_BAD(&row, "more than cutoff_len");
	row.options.overlong = LLM_OVERLONG_DROP;
	REQUIRE(convert(&row));
	CHECK_INT_EQ(row.outcome, LLM_ROW_DROPPED);
	row.options.overlong = LLM_OVERLONG_TRUNCATE;
	for (int32_t cutoff = n - 1; cutoff > 4; cutoff--)
	{
		row.options.cutoff_len = cutoff;
		REQUIRE(convert(&row));
		CHECK_INT_EQ(row.outcome, LLM_ROW_TRUNCATED);
		CHECK_INT_EQ(row.row.first.n_tokens, cutoff);
		CHECK(memcmp(row.row.first.token_ids, whole + n - cutoff,
					 sizeof(int32_t) * (size_t) cutoff) == 0);
		CHECK(row.row.first.is_label[0] == 0);
		CHECK(strstr(learned(&row.row.first), "|d<|im_end|>") != NULL);
	}
	/* "d", its end, a line feed: no room for a token before */
	row.options.cutoff_len = 3;
	CHECK_BAD(&row, "its last answer alone does not fit");
	free_row(&row);
}

/* The blocks of a text are all of it, and each token is learned once. */
static void
test_split(void)
{
	Row row;
	int32_t whole[64];
	int32_t n;

	REQUIRE(load_chatml());
	init_row(&row);
	add_field(&row, "text", LLM_COLUMN_TEXT,
			  "one two three four five six seven eight nine ten eleven");
	REQUIRE(convert(&row) && row.outcome == LLM_ROW_GOOD);
	CHECK_INT_EQ(llm_row_converter_n_examples(row.converter), 1);
	n = row.row.first.n_tokens;
	REQUIRE(n > 10 && n < 64);
	memcpy(whole, row.row.first.token_ids, sizeof(int32_t) * (size_t) n);
	row.options.overlong = LLM_OVERLONG_SPLIT;
	for (int32_t cutoff = n; cutoff >= 2; cutoff--)
	{
		LlmExample block;
		int32_t at = 0;
		int32_t n_labels = 0;

		row.options.cutoff_len = cutoff;
		REQUIRE(convert(&row));
		CHECK_INT_EQ(row.outcome, cutoff == n ? LLM_ROW_GOOD : LLM_ROW_SPLIT);
		block = row.row.first;
		for (int32_t i = llm_row_converter_n_examples(row.converter);; i--)
		{
			CHECK(block.n_tokens == cutoff || i == 1);
			CHECK(block.n_tokens >= 2 && at + block.n_tokens <= n);
			CHECK(memcmp(block.token_ids, whole + at,
						 sizeof(int32_t) * (size_t) block.n_tokens) == 0);
			CHECK(block.is_label[0] == 0);
			n_labels += llm_example_n_labels(&block);
			at += block.n_tokens - 1;
			if (i == 1)
				break;
			block = llm_row_converter_next(row.converter);
		}
		CHECK_INT_EQ(at, n - 1);
		CHECK_INT_EQ(n_labels, n - 1);
	}
	row.options.cutoff_len = 1;
	CHECK_REFUSED(&row, "examples of one token");
	free_row(&row);
	init_row(&row);
	row.options.overlong = LLM_OVERLONG_SPLIT;
	add_field(&row, "messages", LLM_COLUMN_JSON, TWO_TURNS);
	CHECK_REFUSED(&row, "rows of column \"text\" alone");
	free_row(&row);
}

/* Both answers of a pair keep the same context. */
static void
test_overlong_pair(void)
{
	Row row;
	int32_t cut;

	REQUIRE(load_chatml());
	init_row(&row);
	add_field(&row, "prompt", LLM_COLUMN_TEXT, "one two three four five six");
	add_field(&row, "chosen", LLM_COLUMN_TEXT, " a b c d e f");
	add_field(&row, "rejected", LLM_COLUMN_TEXT, " x");
	CHECK_LEARNED(&row, "| a b c d e f<|im_end|>");
	cut = row.row.second.n_tokens - 2;
	row.options.cutoff_len = row.row.first.n_tokens - 2;
	row.options.overlong = LLM_OVERLONG_TRUNCATE;
	REQUIRE(convert(&row));
	CHECK_INT_EQ(row.outcome, LLM_ROW_TRUNCATED);
	CHECK_INT_EQ(row.row.first.n_tokens, row.options.cutoff_len);
	CHECK_INT_EQ(row.row.second.n_tokens, cut);
	CHECK_INT_EQ(row.row.first.token_ids[0], row.row.second.token_ids[0]);
	free_row(&row);
}

/* A megabyte, and an interrupt. */
static void
test_large(void)
{
	const size_t len = 1 << 20;
	char *text = malloc(len + 1);
	const volatile sig_atomic_t interrupt = 1;
	Row row;

	REQUIRE(text != NULL && load_chatml());
	for (size_t i = 0; i < len; i++)
		text[i] = "word by word, \xF0\x9F\x98\x80 "[i % 19];
	text[len] = '\0';
	init_row(&row);
	add_field(&row, "instruction", LLM_COLUMN_TEXT, text);
	add_field(&row, "output", LLM_COLUMN_TEXT, "b");
	CHECK_BAD(&row, "more than cutoff_len, which is 2048");
	row.options.overlong = LLM_OVERLONG_TRUNCATE;
	REQUIRE(convert(&row));
	CHECK_INT_EQ(row.outcome, LLM_ROW_TRUNCATED);
	CHECK_INT_EQ(row.row.first.n_tokens, 2048);
	CHECK_STR_EQ(learned(&row.row.first), "|b<|im_end|>");
	CHECK_INT_EQ(
		llm_row_convert(row.converter, row.fields, &interrupt, &row.row, &err),
		LLM_ROW_BAD);
	CHECK_INT_EQ(err.code, LLM_ERROR_CANCELLED);
	free_row(&row);
	free(text);
}

/* Thousands of answers, of which each would be looked for. */
static void
test_many_turns(void)
{
	LlmStrbuf messages;
	Row row;

	REQUIRE(load_chatml());
	llm_strbuf_init(&messages);
	llm_strbuf_append_char(&messages, '[');
	for (int i = 0; i < 20000; i++)
		llm_strbuf_printf(&messages,
						  "%s{\"role\":\"user\",\"content\":\"%d\"},"
						  "{\"role\":\"assistant\",\"content\":\"ok\"}",
						  i == 0 ? "" : ",", i);
	llm_strbuf_append_char(&messages, ']');
	REQUIRE(!messages.failed);
	init_row(&row);
	add_field(&row, "messages", LLM_COLUMN_JSON, messages.data);
	CHECK_BAD(&row, "more than cutoff_len");
	free_row(&row);
	llm_strbuf_free(&messages);
}

int
main(void)
{
	RUN_TEST(test_reference);
	RUN_TEST(test_messages);
	RUN_TEST(test_conversations);
	RUN_TEST(test_function_calls);
	RUN_TEST(test_alpaca);
	RUN_TEST(test_pairs);
	RUN_TEST(test_singles);
	RUN_TEST(test_text);
	RUN_TEST(test_columns);
	RUN_TEST(test_bad_messages);
	RUN_TEST(test_damaged_json);
	RUN_TEST(test_templates);
	RUN_TEST(test_marks_and_flags);
	RUN_TEST(test_overlong);
	RUN_TEST(test_split);
	RUN_TEST(test_overlong_pair);
	RUN_TEST(test_large);
	RUN_TEST(test_many_turns);
	free_setup();
	return unit_test_finish();
}

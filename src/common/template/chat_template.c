/*
 * chat_template.c
 *	  Chat templates: compile one, render a conversation with it.
 *
 * The room's files: jinja_lexer.c, jinja_parser.c and jinja_expression.c make
 * the tree of jinja_ast.h, jinja_scope.c resolves its names.  jinja_exec.c
 * and jinja_eval.c run it over the values of jinja_value.h, which
 * jinja_value.c makes, jinja_compare.c compares, jinja_print.c prints,
 * jinja_iterate.c and jinja_loop.c walk through, jinja_access.c and
 * jinja_operator.c take apart and put together, jinja_call.c calls.  What
 * templates can name is in jinja_tests.c, jinja_methods.c,
 * jinja_str_methods.c, jinja_filters.c, jinja_text_filters.c and
 * jinja_list_filters.c, with jinja_format.c, jinja_attribute_path.c and
 * jinja_text.c below them.  jinja_json.c reads JSON, jinja_tojson.c writes it.
 *
 * This file does what transformers' apply_chat_template does around the
 * template: messages lose their null fields, reasoning is passed under each
 * of its names, the final message may be left open.
 *
 * src/common/template/chat_template.c
 */
#include "src/common/template/chat_template.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/template/jinja_ast.h"
#include "src/common/template/jinja_text.h"
#include "src/common/template/jinja_value.h"
#include "src/common/util/utf8.h"

/* Put behind the final message's content, to find its end in the text. */
#define CONTINUE_TAG "CONTINUE_FINAL_MESSAGE_TAG "
#define CONTINUE_TAG_STRIPPED_LEN (sizeof(CONTINUE_TAG) - 2)

#define USUAL_MESSAGES_BYTES ((size_t) 4096)

/* Longer texts of variables are not kept. */
#define KEEP_VARIABLES_BYTES ((size_t) 16384)

/* More of a rendering's memory is not kept for the next. */
#define KEEP_ARENA_BYTES ((size_t) 65536)

/*
 * What renderings leave to the next one: memory, and the variables that were
 * read last, since most bring the same.
 */
typedef struct RenderMemory
{
	LlmArena *idle;			/* for a rendering, or NULL */
	LlmArena *arena;		/* of all below */
	LlmTemplateText tokens; /* what the variables were read from */
	LlmTemplateText kwargs;
	LlmJinjaDict *variables; /* NULL: nothing */
} RenderMemory;

struct LlmChatTemplate
{
	LlmArena *arena;
	LlmJinjaTree tree;
	bool mentions_content;
	RenderMemory *memory;
};

LlmChatTemplate *
llm_chat_template_compile(const char *source, size_t len, LlmError *err)
{
	LlmChatTemplate *chat_template = calloc(1, sizeof(*chat_template));
	LlmJinjaRun run = { .err = err };

	if (chat_template != NULL)
		chat_template->arena =
			llm_arena_create("chat template", LLM_JINJA_MAX_TREE_BYTES);
	if (chat_template != NULL)
		chat_template->memory = calloc(1, sizeof(RenderMemory));
	if (chat_template == NULL || chat_template->arena == NULL ||
		chat_template->memory == NULL)
	{
		llm_chat_template_free(chat_template);
		llm_error_no_memory(err, sizeof(*chat_template), "chat template");
		return NULL;
	}
	run.arena = chat_template->arena;
	chat_template->mentions_content =
		memmem(source, len, "content", strlen("content")) != NULL;
	if (!llm_jinja_parse(&run, source, len, &chat_template->tree) ||
		!llm_jinja_resolve(&run, &chat_template->tree))
	{
		llm_chat_template_free(chat_template);
		return NULL;
	}
	return chat_template;
}

void
llm_chat_template_free(LlmChatTemplate *chat_template)
{
	if (chat_template == NULL)
		return;
	if (chat_template->memory != NULL)
	{
		llm_arena_free(chat_template->memory->idle);
		llm_arena_free(chat_template->memory->arena);
	}
	free(chat_template->memory);
	llm_arena_free(chat_template->arena);
	free(chat_template);
}

/* ---- the conversation ---- */

static bool
fail_input(LlmJinjaRun *run, const char *problem)
{
	return llm_error_set(run->err, LLM_ERROR_INVALID, "%s", problem);
}

static bool
set_text_key(LlmJinjaRun *run, LlmJinjaDict *dict, const char *key,
			 LlmJinjaValue value)
{
	LlmJinjaValue name;

	return llm_jinja_borrow_string(run, key, strlen(key), &name) &&
		   llm_jinja_dict_set(run, dict, name, value);
}

static LlmJinjaValue
find_field(const LlmJinjaDict *message, const char *name)
{
	return llm_jinja_dict_find(message, name, strlen(name));
}

/* The reasoning, under the first of its names that the message uses. */
static LlmJinjaValue
find_reasoning(const LlmJinjaDict *message)
{
	static const char *const names[] = { "reasoning_content", "thinking",
										 "reasoning" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
	{
		LlmJinjaValue value = find_field(message, names[i]);

		if (value.kind != LLM_JINJA_MISSING && value.kind != LLM_JINJA_NONE)
			return value;
	}
	return llm_jinja_missing();
}

static bool
has_null_field(const LlmJinjaDict *message)
{
	for (size_t i = 0; i < message->n_entries; i++)
		if (message->entries[i].value.kind == LLM_JINJA_NONE)
			return true;
	return false;
}

/* A message without null fields, its reasoning under both current names. */
static bool
prepare_message(LlmJinjaRun *run, const LlmJinjaDict *given,
				LlmJinjaValue *message)
{
	LlmJinjaValue reasoning = find_reasoning(given);
	LlmJinjaDict *dict;

	if (reasoning.kind == LLM_JINJA_MISSING && !has_null_field(given))
		return true;
	dict = llm_jinja_create_dict(run);
	if (dict == NULL)
		return false;
	if (reasoning.kind != LLM_JINJA_MISSING &&
		!set_text_key(run, dict, "thinking", reasoning))
		return false;
	for (size_t i = 0; i < given->n_entries; i++)
		if (given->entries[i].value.kind != LLM_JINJA_NONE &&
			!llm_jinja_dict_set(run, dict, given->entries[i].key,
								given->entries[i].value))
			return false;
	if (reasoning.kind != LLM_JINJA_MISSING &&
		!set_text_key(run, dict, "reasoning_content", reasoning))
		return false;
	*message = (LlmJinjaValue){ .kind = LLM_JINJA_DICT, .dict = dict };
	return true;
}

/* An array of objects, read from JSON. */
static bool
read_objects(LlmJinjaRun *run, LlmTemplateText text, const char *what,
			 LlmJinjaValue *out)
{
	if (!llm_jinja_read_json(run, text.data, text.len, what, out))
		return false;
	if (out->kind != LLM_JINJA_LIST)
		return llm_error_set(run->err, LLM_ERROR_INVALID,
							 "%s must be an array, not %s", what,
							 llm_jinja_type_name(*out));
	for (size_t i = 0; i < out->list->n_items; i++)
		if (out->list->items[i].kind != LLM_JINJA_DICT)
			return llm_error_set(run->err, LLM_ERROR_INVALID,
								 "item %zu of %s must be an object, not %s",
								 i + 1, what,
								 llm_jinja_type_name(out->list->items[i]));
	return true;
}

/* A text borrowed from the caller as the value of a key. */
static bool
set_plain_field(LlmJinjaRun *run, LlmJinjaDict *dict, const char *key,
				LlmTemplateText text)
{
	LlmJinjaValue value;

	if (!llm_utf8_is_valid(text.data, text.len))
		return llm_error_set(run->err, LLM_ERROR_INVALID,
							 "messages: the text is not valid UTF-8");
	return llm_jinja_borrow_string(run, text.data, text.len, &value) &&
		   set_text_key(run, dict, key, value);
}

static bool
make_messages(LlmJinjaRun *run, const LlmTemplateInput *input,
			  LlmJinjaValue *messages)
{
	LlmJinjaList *list = llm_jinja_create_list(run, input->n_plain_messages);

	if (list == NULL)
		return false;
	for (size_t i = 0; i < input->n_plain_messages; i++)
	{
		const LlmTemplateMessage *message = &input->plain_messages[i];
		LlmJinjaDict *dict = llm_jinja_create_dict(run);

		if (dict == NULL ||
			!set_plain_field(run, dict, "role", message->role) ||
			!set_plain_field(run, dict, "content", message->content) ||
			!llm_jinja_push(
				run, list,
				(LlmJinjaValue){ .kind = LLM_JINJA_DICT, .dict = dict }))
			return false;
	}
	*messages = llm_jinja_list(list);
	return true;
}

static bool
read_messages(LlmJinjaRun *run, const LlmTemplateInput *input,
			  LlmJinjaValue *messages)
{
	LlmTemplateText text = input->messages;

	if (input->plain_messages != NULL)
		return make_messages(run, input, messages);
	if (text.data == NULL)
		return fail_input(run, "messages are missing");
	if (!read_objects(run, text, "messages", messages))
		return false;
	if (messages->list->n_items == 0)
		return fail_input(run, "messages are empty: a chat template needs at "
							   "least one");
	for (size_t i = 0; i < messages->list->n_items; i++)
		if (!prepare_message(run, messages->list->items[i].dict,
							 &messages->list->items[i]))
			return false;
	return true;
}

/* An optional array of objects: tools or documents. */
static bool
read_extra(LlmJinjaRun *run, LlmTemplateText text, const char *name)
{
	LlmJinjaValue value = llm_jinja_none();
	LlmJinjaValue null;
	LlmError ignored;
	LlmJinjaRun probe = *run;

	/* "null" is as good as absent */
	probe.err = &ignored;
	if (text.data != NULL &&
		!(text.len <= 8 &&
		  llm_jinja_read_json(&probe, text.data, text.len, name, &null) &&
		  null.kind == LLM_JINJA_NONE) &&
		!read_objects(run, text, name, &value))
		return false;
	return set_text_key(run, run->variables, name, value);
}

/* An optional object whose entries become variables. */
static bool
read_variables(LlmJinjaRun *run, LlmTemplateText text, const char *what)
{
	static const char *const reserved[] = { "messages", "tools", "documents",
											"add_generation_prompt" };
	LlmJinjaValue object;

	if (text.data == NULL)
		return true;
	if (!llm_jinja_read_json(run, text.data, text.len, what, &object))
		return false;
	if (object.kind != LLM_JINJA_DICT)
		return llm_error_set(run->err, LLM_ERROR_INVALID,
							 "%s must be an object, not %s", what,
							 llm_jinja_type_name(object));
	for (size_t i = 0; i < object.dict->n_entries; i++)
	{
		const LlmJinjaEntry *entry = &object.dict->entries[i];

		for (size_t j = 0; j < sizeof(reserved) / sizeof(reserved[0]); j++)
			if (llm_jinja_string_is(entry->key, reserved[j]))
				return llm_error_set(
					run->err, LLM_ERROR_INVALID,
					"%s may not set \"%s\", which is given apart", what,
					reserved[j]);
		if (!llm_jinja_dict_set(run, run->variables, entry->key, entry->value))
			return false;
	}
	return true;
}

static bool
read_all_variables(LlmJinjaRun *run, LlmTemplateText tokens,
				   LlmTemplateText kwargs)
{
	return read_variables(run, tokens, "special tokens") &&
		   read_variables(run, kwargs, "template variables");
}

static bool
is_same_text(LlmTemplateText a, LlmTemplateText b)
{
	if (a.data == NULL || b.data == NULL)
		return a.data == b.data;
	return a.len == b.len && memcmp(a.data, b.data, a.len) == 0;
}

static bool
keep_text(LlmArena *arena, LlmTemplateText text, LlmTemplateText *copy)
{
	*copy = text;
	if (text.data == NULL)
		return true;
	copy->data = llm_arena_strndup(arena, text.data, text.len);
	return copy->data != NULL;
}

/* Read them into memory of their own; false: they cannot be read, or kept. */
static bool
remember_variables(LlmJinjaRun *run, RenderMemory *memory,
				   const LlmTemplateInput *input)
{
	LlmJinjaRun reading = *run;
	LlmError ignored;

	memory->variables = NULL;
	llm_arena_free(memory->arena);
	memory->arena =
		llm_arena_create("template variables", LLM_JINJA_MAX_MEMORY_BYTES);
	if (memory->arena == NULL ||
		!keep_text(memory->arena, input->special_tokens, &memory->tokens) ||
		!keep_text(memory->arena, input->kwargs, &memory->kwargs))
		return false;
	reading.arena = memory->arena;
	reading.err = &ignored;
	reading.variables = llm_jinja_create_dict(&reading);
	if (reading.variables == NULL ||
		!read_all_variables(&reading, memory->tokens, memory->kwargs))
		return false;
	memory->variables = reading.variables;
	return true;
}

/* Variables besides the messages; their values never change. */
static bool
set_variables(LlmJinjaRun *run, RenderMemory *memory,
			  const LlmTemplateInput *input)
{
	size_t n_bytes = input->special_tokens.len + input->kwargs.len;
	bool is_known = memory->variables != NULL &&
					is_same_text(memory->tokens, input->special_tokens) &&
					is_same_text(memory->kwargs, input->kwargs);

	if (!is_known && (n_bytes > KEEP_VARIABLES_BYTES ||
					  !remember_variables(run, memory, input)))
		return read_all_variables(run, input->special_tokens, input->kwargs);
	for (size_t i = 0; i < memory->variables->n_entries; i++)
	{
		const LlmJinjaEntry *entry = &memory->variables->entries[i];

		if (!llm_jinja_dict_set(run, run->variables, entry->key, entry->value))
			return false;
	}
	return true;
}

/* ---- leaving the final message open ---- */

/* The last text block of a content that is a list. */
static LlmJinjaDict *
find_text_block(LlmJinjaValue content)
{
	for (size_t i = content.list->n_items; i-- > 0;)
	{
		LlmJinjaValue block = content.list->items[i];

		if (block.kind == LLM_JINJA_DICT &&
			find_field(block.dict, "text").kind != LLM_JINJA_MISSING)
			return block.dict;
	}
	return NULL;
}

/* Put the tag behind the final text; *text is what it was. */
static bool
tag_final_message(LlmJinjaRun *run, LlmJinjaValue messages, LlmJinjaValue *text)
{
	const LlmJinjaList *list = messages.list;
	LlmJinjaDict *owner = list->items[list->n_items - 1].dict;
	const char *key = "content";
	LlmJinjaValue tag;
	LlmJinjaValue tagged;

	*text = find_field(owner, key);
	if (text->kind == LLM_JINJA_MISSING)
		return fail_input(run, "continue_final_message is set, but the final "
							   "message has no content to continue");
	if (text->kind == LLM_JINJA_LIST)
	{
		owner = find_text_block(*text);
		if (owner == NULL)
			return fail_input(run, "continue_final_message is set, but the "
								   "final message has no text to continue");
		key = "text";
		*text = find_field(owner, key);
	}
	if (text->kind != LLM_JINJA_STRING)
		return llm_error_set(run->err, LLM_ERROR_INVALID,
							 "continue_final_message is set, but the final "
							 "message's content is no text but %s",
							 llm_jinja_type_name(*text));
	return llm_jinja_borrow_string(run, CONTINUE_TAG, strlen(CONTINUE_TAG),
								   &tag) &&
		   llm_jinja_operate(run, LLM_JINJA_ADD, *text, tag, &tagged) &&
		   set_text_key(run, owner, key, tagged);
}

/* The last occurrence of the tag, without its space. */
static const char *
find_tag(const char *text, size_t len)
{
	for (size_t at = len; at-- > 0;)
		if (len - at >= CONTINUE_TAG_STRIPPED_LEN &&
			memcmp(text + at, CONTINUE_TAG, CONTINUE_TAG_STRIPPED_LEN) == 0)
			return text + at;
	return NULL;
}

/*
 * Cut the text where the final message ends.  Where the template kept the
 * tag's space it keeps all space; where not, space before the tag goes too.
 */
static bool
cut_at_tag(LlmJinjaRun *run, LlmJinjaValue final, LlmStrbuf *rendered)
{
	const char *text = llm_strbuf_str(rendered);
	const char *tag = find_tag(text, rendered->len);
	const char *wanted = final.string->data;
	size_t wanted_len = final.string->len;
	size_t len;

	llm_jinja_strip_text(&wanted, &wanted_len, LLM_JINJA_BOTH, NULL);
	if (tag == NULL || memmem(text, rendered->len, wanted, wanted_len) == NULL)
		return fail_input(run, "continue_final_message is set, but the final "
							   "message does not appear in the rendered chat");
	len = (size_t) (tag - text);
	if (rendered->len - len < sizeof(CONTINUE_TAG) - 1 ||
		memcmp(tag, CONTINUE_TAG, sizeof(CONTINUE_TAG) - 1) != 0)
		llm_jinja_strip_text(&text, &len, LLM_JINJA_RIGHT, NULL);
	rendered->len = len;
	return true;
}

/* ---- rendering ---- */

static bool
prepare_input(LlmJinjaRun *run, const LlmChatTemplate *chat_template,
			  const LlmTemplateInput *input, LlmJinjaValue *final)
{
	LlmJinjaValue messages;

	if (input->continue_final_message && input->add_generation_prompt)
		return fail_input(run, "continue_final_message and "
							   "add_generation_prompt exclude each other");
	run->variables = llm_jinja_create_dict(run);
	run->exported = llm_jinja_create_dict(run);
	if (run->variables == NULL || run->exported == NULL)
		return false;
	if (!set_variables(run, chat_template->memory, input) ||
		!read_messages(run, input, &messages) ||
		!read_extra(run, input->tools, "tools") ||
		!read_extra(run, input->documents, "documents"))
		return false;
	if (input->continue_final_message)
	{
		if (!tag_final_message(run, messages, final))
			return false;
		if (!chat_template->mentions_content)
			return fail_input(run, "continue_final_message is set, but the "
								   "chat template does not use \"content\"");
	}
	return set_text_key(run, run->variables, "messages", messages) &&
		   set_text_key(run, run->variables, "add_generation_prompt",
						llm_jinja_bool(input->add_generation_prompt));
}

static bool
render(LlmJinjaRun *run, const LlmChatTemplate *chat_template,
	   const LlmTemplateInput *input, LlmStrbuf *rendered)
{
	LlmJinjaValue final = llm_jinja_missing();

	if (!prepare_input(run, chat_template, input, &final))
		return false;
	run->out = rendered;
	run->page = rendered;
	if (!llm_jinja_exec_tree(run, &chat_template->tree))
		return false;
	assert(run->depth == 0 && run->jump == LLM_JINJA_NO_JUMP);
	return !input->continue_final_message || cut_at_tag(run, final, rendered);
}

static LlmArena *
open_arena(RenderMemory *memory)
{
	LlmArena *arena = memory->idle;

	memory->idle = NULL;
	if (arena == NULL)
		arena = llm_arena_create("chat template rendering",
								 LLM_JINJA_MAX_MEMORY_BYTES);
	return arena;
}

static void
close_arena(RenderMemory *memory, LlmArena *arena)
{
	if (llm_arena_used_bytes(arena) > KEEP_ARENA_BYTES)
	{
		llm_arena_free(arena);
		return;
	}
	llm_arena_reset(arena);
	memory->idle = arena;
}

bool
llm_chat_template_render(const LlmChatTemplate *chat_template,
						 const LlmTemplateInput *input, LlmStrbuf *out,
						 LlmError *err)
{
	LlmJinjaRun run = { .err = err,
						.interrupt = input->interrupt,
						.now = input->now,
						.spans = input->spans };
	LlmStrbuf rendered;
	bool ok;

	run.arena = open_arena(chat_template->memory);
	if (run.arena == NULL)
		return llm_error_no_memory(err, sizeof(run), "chat template");
	llm_jinja_init_buffer(&rendered);
	/* most texts are a little longer than their messages */
	if (input->messages.len < USUAL_MESSAGES_BYTES)
		(void) llm_strbuf_reserve(&rendered, 2 * USUAL_MESSAGES_BYTES);
	if (input->spans != NULL)
	{
		llm_strbuf_reset(&input->spans->items);
		input->spans->is_partial = false;
	}
	ok = render(&run, chat_template, input, &rendered);
	if (ok)
	{
		llm_strbuf_append(out, llm_strbuf_str(&rendered), rendered.len);
		if (out->failed)
			ok = llm_error_no_memory(err, rendered.len, "rendered chat");
	}
	llm_strbuf_free(&rendered);
	close_arena(chat_template->memory, run.arena);
	return ok;
}

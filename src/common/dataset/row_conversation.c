/*
 * row_conversation.c
 *	  Messages of every dialect as the JSON that chat templates take.
 *
 * A message's values stay as they were written; only the flags "train" and
 * "weight", which speak to us, are left out.  Whether the whole is JSON is
 * found out when it is rendered.
 *
 * src/common/dataset/row_conversation.c
 */
#include <assert.h>
#include <string.h>

#include "src/common/dataset/row_internal.h"
#include "src/common/util/json.h"

void
llm_conversation_reset(LlmConversation *conversation)
{
	llm_strbuf_reset(&conversation->json);
	llm_strbuf_reset(&conversation->turns);
	conversation->tools = (LlmJsonSlice){ 0 };
	conversation->n_before = 0;
	llm_strbuf_append_char(&conversation->json, '[');
}

/* Of the message that comes next, as the row counts. */
static size_t
next_number(const LlmConversation *conversation)
{
	return llm_conversation_number(conversation,
								   llm_conversation_n_turns(conversation));
}

static bool
fail_message(const LlmConversation *conversation, LlmError *err,
			 const char *problem)
{
	return llm_error_set(err, LLM_ERROR_INVALID, "message %zu %s",
						 next_number(conversation), problem);
}

static bool
check_memory(const LlmConversation *conversation, LlmError *err)
{
	if (conversation->json.failed || conversation->turns.failed)
		return llm_error_no_memory(err, conversation->json.len,
								   "a conversation");
	return true;
}

/* Begin a message; the caller appends its JSON. */
static void
begin_turn(LlmConversation *conversation, LlmTurn *turn)
{
	if (llm_conversation_n_turns(conversation) > 0)
		llm_strbuf_append_char(&conversation->json, ',');
	turn->begin = conversation->json.len;
}

static bool
end_turn(LlmConversation *conversation, LlmTurn *turn, LlmError *err)
{
	turn->end = conversation->json.len;
	llm_strbuf_append(&conversation->turns, turn, sizeof(*turn));
	return check_memory(conversation, err);
}

/* -- messages as OpenAI has them -- */

static const char *
find_role(LlmJsonSlice role)
{
	static const char *const roles[] = { "system", "developer", "user",
										 "assistant", "tool" };

	for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++)
	{
		if (llm_json_slice_is(role, roles[i]))
			return roles[i];
	}
	return NULL;
}

static bool
fail_role(const LlmConversation *conversation, LlmJsonSlice role, LlmError *err)
{
	if (llm_json_slice_kind(role) != '"')
		return fail_message(conversation, err, "has no role");
	return llm_error_set(err, LLM_ERROR_INVALID,
						 "message %zu has the role %.*s, which is none of "
						 "system, developer, user, assistant, tool",
						 next_number(conversation),
						 (int) (role.len < 80 ? role.len : 80), role.data);
}

/* An assistant may say nothing where it calls a tool; nobody else may. */
static bool
check_content(const LlmConversation *conversation, LlmJsonSlice message,
			  bool is_assistant, LlmError *err)
{
	const LlmJsonSlice content = llm_json_slice_member(message, "content");
	const bool has_call =
		llm_json_slice_kind(llm_json_slice_member(message, "tool_calls")) ==
		'[';

	switch (llm_json_slice_kind(content))
	{
		case '\0':
			if (is_assistant && has_call)
				return true;
			return fail_message(conversation, err, "has no content");
		case '"':
			if (is_assistant && content.len == 2 && !has_call)
				return fail_message(conversation, err,
									"is an empty answer of the assistant");
			return true;
		case '[':
			return true;
		default:
			return fail_message(conversation, err,
								"has a content that is neither a string nor "
								"an array");
	}
}

/* What the flags say about learning a message. */
static bool
read_flags(const LlmConversation *conversation, LlmJsonSlice message,
		   bool is_assistant, bool *is_trained, LlmError *err)
{
	const LlmJsonSlice train = llm_json_slice_member(message, "train");
	const LlmJsonSlice weight = llm_json_slice_member(message, "weight");
	const bool is_on = llm_json_slice_kind(train) == 't' ||
					   (weight.data != NULL && weight.data[0] == '1');

	if (train.data != NULL && strchr("tf", train.data[0]) == NULL)
		return fail_message(conversation, err,
							"has a flag \"train\" that is neither true nor "
							"false");
	if (weight.data != NULL &&
		(weight.len != 1 || strchr("01", weight.data[0]) == NULL))
		return fail_message(conversation, err,
							"has a \"weight\" that is neither 0 nor 1");
	if (train.data != NULL && weight.data != NULL &&
		(train.data[0] == 't') != (weight.data[0] == '1'))
		return fail_message(conversation, err,
							"has flags \"train\" and \"weight\" that disagree");
	if (is_on && !is_assistant)
		return fail_message(conversation, err,
							"is to be learned, but is not the assistant's");
	*is_trained =
		is_assistant &&
		(train.data == NULL && weight.data == NULL ? *is_trained : is_on);
	return true;
}

static void
append_members(LlmStrbuf *json, LlmJsonSlice message)
{
	LlmJsonSlice key;
	LlmJsonSlice value;
	size_t off = 0;
	bool is_first = true;

	llm_strbuf_append_char(json, '{');
	while (llm_json_slice_next_member(message, &off, &key, &value))
	{
		if (llm_json_slice_is(key, "train") || llm_json_slice_is(key, "weight"))
			continue;
		llm_strbuf_append_str(json, is_first ? "" : ",");
		llm_strbuf_append(json, key.data, key.len);
		llm_strbuf_append_char(json, ':');
		llm_strbuf_append(json, value.data, value.len);
		is_first = false;
	}
	llm_strbuf_append_char(json, '}');
}

bool
llm_conversation_add(LlmConversation *conversation, LlmJsonSlice message,
					 bool is_answer, LlmError *err)
{
	LlmTurn turn = { .is_trained = is_answer };
	LlmJsonSlice role;
	const char *name;

	if (llm_json_slice_kind(message) != '{')
		return fail_message(conversation, err, "is no object");
	role = llm_json_slice_member(message, "role");
	name = find_role(role);
	if (name == NULL)
		return fail_role(conversation, role, err);
	turn.is_assistant = strcmp(name, "assistant") == 0;
	if (!check_content(conversation, message, turn.is_assistant, err) ||
		!read_flags(conversation, message, turn.is_assistant, &turn.is_trained,
					err))
		return false;
	begin_turn(conversation, &turn);
	append_members(&conversation->json, message);
	return end_turn(conversation, &turn, err);
}

bool
llm_conversation_add_text(LlmConversation *conversation, const char *role,
						  LlmJsonSlice text, bool is_answer, LlmError *err)
{
	LlmTurn turn = { .is_assistant = strcmp(role, "assistant") == 0 };

	assert(text.data != NULL);
	if (turn.is_assistant && text.len == 0)
		return fail_message(conversation, err,
							"is an empty answer of the assistant");
	turn.is_trained = turn.is_assistant && is_answer;
	begin_turn(conversation, &turn);
	llm_strbuf_printf(&conversation->json,
					  "{\"role\":\"%s\",\"content\":", role);
	llm_json_append_string(&conversation->json, text.data, text.len);
	llm_strbuf_append_char(&conversation->json, '}');
	return end_turn(conversation, &turn, err);
}

/* -- messages as ShareGPT has them -- */

/* The call or calls that a function message's text is. */
static bool
append_calls(LlmStrbuf *json, LlmJsonSlice text)
{
	const bool is_list = llm_json_slice_kind(text) == '[';
	LlmJsonSlice call = text;
	size_t off = 0;
	int n = 0;

	while (is_list ? llm_json_slice_next_item(text, &off, &call) : n == 0)
	{
		const LlmJsonSlice name = llm_json_slice_member(call, "name");
		const LlmJsonSlice arguments = llm_json_slice_member(call, "arguments");

		if (llm_json_slice_kind(name) != '"' || arguments.data == NULL)
			return false;
		llm_strbuf_append_str(json, n++ == 0 ? "" : ",");
		llm_strbuf_append_str(json, "{\"type\":\"function\",\"function\":"
									"{\"name\":");
		llm_strbuf_append(json, name.data, name.len);
		llm_strbuf_append_str(json, ",\"arguments\":");
		llm_strbuf_append(json, arguments.data, arguments.len);
		llm_strbuf_append_str(json, "}}");
	}
	return n > 0;
}

static bool
add_function_call(LlmConversation *conversation, LlmJsonSlice content,
				  bool is_trained, LlmError *err)
{
	LlmTurn turn = { .is_assistant = true, .is_trained = is_trained };
	LlmStrbuf text;
	cJSON *parsed = NULL;
	bool ok;

	llm_strbuf_init(&text);
	if (llm_json_slice_append_text(content, &text))
		parsed = llm_json_parse(llm_strbuf_str(&text), text.len, "call", NULL);
	begin_turn(conversation, &turn);
	llm_strbuf_append_str(&conversation->json,
						  "{\"role\":\"assistant\",\"content\":\"\","
						  "\"tool_calls\":[");
	ok = parsed != NULL &&
		 append_calls(&conversation->json,
					  (LlmJsonSlice){ llm_strbuf_str(&text), text.len });
	llm_strbuf_append_str(&conversation->json, "]}");
	llm_strbuf_free(&text);
	cJSON_Delete(parsed);
	if (!ok)
		return fail_message(conversation, err,
							"is no call of a function: a JSON object with "
							"\"name\" and \"arguments\"");
	return end_turn(conversation, &turn, err);
}

static bool
fail_tag(const LlmConversation *conversation, LlmJsonSlice tag,
		 const LlmRowTags *tags, LlmError *err)
{
	if (llm_json_slice_kind(tag) != '"')
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "message %zu has no \"%s\"",
							 next_number(conversation), tags->role);
	return llm_error_set(err, LLM_ERROR_INVALID,
						 "message %zu is from %.*s, who is none of %s, %s, %s, "
						 "%s, %s",
						 next_number(conversation),
						 (int) (tag.len < 80 ? tag.len : 80), tag.data,
						 tags->user, tags->assistant, tags->system,
						 tags->observation, tags->function);
}

bool
llm_conversation_add_tagged(LlmConversation *conversation, LlmJsonSlice message,
							const LlmRowTags *tags, bool is_answer,
							LlmError *err)
{
	const LlmJsonSlice tag = llm_json_slice_member(message, tags->role);
	const LlmJsonSlice content = llm_json_slice_member(message, tags->content);
	const bool is_call = llm_json_slice_is(tag, tags->function);
	const char *role = llm_json_slice_is(tag, tags->user)		   ? "user"
					   : llm_json_slice_is(tag, tags->assistant)   ? "assistant"
					   : llm_json_slice_is(tag, tags->observation) ? "tool"
					   : llm_json_slice_is(tag, tags->system)	   ? "system"
																   : NULL;
	LlmTurn turn = { .is_assistant = is_call, .is_trained = is_answer };

	if (llm_json_slice_kind(message) != '{')
		return fail_message(conversation, err, "is no object");
	if (!is_call && role == NULL)
		return fail_tag(conversation, tag, tags, err);
	if (llm_json_slice_kind(content) != '"')
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "message %zu has no string \"%s\"",
							 next_number(conversation), tags->content);
	turn.is_assistant = is_call || strcmp(role, "assistant") == 0;
	if (!read_flags(conversation, message, turn.is_assistant, &turn.is_trained,
					err))
		return false;
	if (is_call)
		return add_function_call(conversation, content, turn.is_trained, err);
	if (turn.is_assistant && content.len == 2)
		return fail_message(conversation, err,
							"is an empty answer of the assistant");
	begin_turn(conversation, &turn);
	llm_strbuf_printf(&conversation->json,
					  "{\"role\":\"%s\",\"content\":", role);
	llm_strbuf_append(&conversation->json, content.data, content.len);
	llm_strbuf_append_char(&conversation->json, '}');
	return end_turn(conversation, &turn, err);
}

/* -- the whole -- */

bool
llm_conversation_end(LlmConversation *conversation, LlmError *err)
{
	const size_t n_turns = llm_conversation_n_turns(conversation);
	bool is_trained = false;

	if (n_turns == 0)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "the conversation has no messages");
	for (size_t i = 0; i < n_turns; i++)
		is_trained |= llm_conversation_turn(conversation, i)->is_trained;
	if (!llm_conversation_turn(conversation, n_turns - 1)->is_assistant)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "the conversation does not end with an answer of "
							 "the assistant");
	if (!is_trained)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "no message of the conversation is to be learned");
	llm_strbuf_append_char(&conversation->json, ']');
	return check_memory(conversation, err);
}

/*
 * row_render.c
 *	  A conversation as the model sees it, and where in it the answers are.
 *
 * A template with {% generation %} blocks says itself what the assistant's
 * words are.  Of others an answer is what is added when its message is: the
 * conversation is rendered up to the message with the generation prompt, which
 * is what the model sees when it begins to answer, and again with the message;
 * both must be how the whole text begins.  Where they are not, because the
 * template changes earlier messages as later ones come, the model would learn
 * answers to prompts that it never gets to see, so that is an error.
 *
 * src/common/dataset/row_render.c
 */
#include <assert.h>
#include <string.h>

#include "src/common/dataset/row_internal.h"

/* Render the first n_turns messages into out, which is emptied. */
static bool
render_turns(LlmRowConverter *converter, const LlmConversation *conversation,
			 size_t n_turns, LlmTemplateInput *input, LlmStrbuf *out,
			 LlmError *err)
{
	const bool has_tools = conversation->tools.data != NULL;
	const LlmChatTemplate *chat_template = has_tools
											   ? converter->model.tool_template
											   : converter->model.chat_template;
	const size_t end = llm_conversation_turn(conversation, n_turns - 1)->end;
	const char saved = conversation->json.data[end];
	bool ok;

	if (chat_template == NULL)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "the model has no chat template%s",
							 has_tools ? " for tools" : "");
	input->messages = (LlmTemplateText){ conversation->json.data, end + 1 };
	input->tools =
		(LlmTemplateText){ conversation->tools.data, conversation->tools.len };
	input->special_tokens = converter->model.special_tokens;
	if (converter->options.kwargs != NULL)
		input->kwargs = (LlmTemplateText){ converter->options.kwargs,
										   strlen(converter->options.kwargs) };
	input->now = converter->model.now;
	input->interrupt = converter->interrupt;
	llm_strbuf_reset(out);
	/* the messages' array ends here for a moment */
	conversation->json.data[end] = ']';
	ok = llm_chat_template_render(chat_template, input, out, err);
	conversation->json.data[end] = saved;
	return ok;
}

/* Append a place; one that overlaps the place before is joined with it. */
static bool
add_span(LlmRendering *rendering, LlmTemplateSpan span, LlmError *err)
{
	const size_t n = rendering->spans.len / sizeof(span);
	LlmTemplateSpan *spans = (LlmTemplateSpan *) (void *) rendering->spans.data;

	if (span.begin >= span.end)
		return true;
	if (n > 0 && span.begin < spans[n - 1].end)
	{
		/* a block within a block */
		if (span.begin < spans[n - 1].begin)
			spans[n - 1].begin = span.begin;
		if (span.end > spans[n - 1].end)
			spans[n - 1].end = span.end;
	}
	else
		llm_strbuf_append(&rendering->spans, &span, sizeof(span));
	return !rendering->spans.failed ||
		   llm_error_no_memory(err, rendering->spans.len, "a row");
}

/* ---- templates that say where answers are ---- */

static size_t
n_generations(const LlmRowConverter *converter)
{
	return converter->generations.is_partial
			   ? 0
			   : converter->generations.items.len / sizeof(LlmTemplateSpan);
}

static size_t
count_turns(const LlmConversation *conversation, bool trained_alone)
{
	size_t n = 0;

	for (size_t i = 0; i < llm_conversation_n_turns(conversation); i++)
	{
		const LlmTurn *turn = llm_conversation_turn(conversation, i);

		n += turn->is_assistant && (turn->is_trained || !trained_alone);
	}
	return n;
}

/* Blocks count where all answers are learned, or each is one answer. */
static bool
generations_are_turns(const LlmRowConverter *converter,
					  const LlmConversation *conversation)
{
	const size_t n_answers = count_turns(conversation, false);

	return n_generations(converter) > 0 &&
		   (count_turns(conversation, true) == n_answers ||
			n_generations(converter) == n_answers);
}

static bool
take_generations(const LlmRowConverter *converter, LlmRowExample *example,
				 LlmError *err)
{
	const LlmConversation *conversation = &example->conversation;
	const LlmTemplateSpan *spans = (const LlmTemplateSpan *) (const void *)
									   converter->generations.items.data;
	const bool takes_all =
		count_turns(conversation, true) == count_turns(conversation, false);
	size_t turn_idx = 0;

	for (size_t i = 0; i < n_generations(converter); i++)
	{
		if (!takes_all)
		{
			while (!llm_conversation_turn(conversation, turn_idx)->is_assistant)
				turn_idx++;
			if (!llm_conversation_turn(conversation, turn_idx++)->is_trained)
				continue;
		}
		if (!add_span(&example->rendering, spans[i], err))
			return false;
	}
	return true;
}

/* ---- templates that do not ---- */

static bool
fail_prefix(const LlmConversation *conversation, size_t turn_idx, LlmError *err)
{
	llm_error_set(err, LLM_ERROR_TEMPLATE,
				  "the chat template changes what stands before the end of "
				  "message %zu when later messages follow",
				  llm_conversation_number(conversation, turn_idx));
	return llm_error_hint(
		err,
		"The model would learn an answer to a prompt that it never sees. Set "
		"\"mask_history\" to learn the last answer alone, or make the messages "
		"up to each answer a row of their own.");
}

static bool
fail_prompt(const LlmConversation *conversation, size_t turn_idx, LlmError *err)
{
	llm_error_set(err, LLM_ERROR_TEMPLATE,
				  "the assistant's message %zu does not begin as the chat "
				  "template has the model begin it",
				  llm_conversation_number(conversation, turn_idx));
	return llm_error_hint(
		err, "The generation prompt is not part of the conversation's text: "
			 "see whether \"chat_template_kwargs\" can make them agree.");
}

/* Does the whole text begin like the prefix buffer? */
static bool
is_prefix(const LlmRowConverter *converter, const LlmRendering *rendering)
{
	return converter->prefix.len <= rendering->text.len &&
		   (converter->prefix.len == 0 ||
			memcmp(converter->prefix.data, rendering->text.data,
				   converter->prefix.len) == 0);
}

/* Some templates end every text, but not its beginnings, with this token. */
static void
strip_end_token(LlmRowConverter *converter)
{
	LlmStrbuf *prefix = &converter->prefix;
	const LlmJsonSlice tokens = { converter->model.special_tokens.data,
								  converter->model.special_tokens.len };
	LlmStrbuf *end = &converter->token;

	llm_strbuf_reset(end);
	if (llm_json_slice_append_text(llm_json_slice_member(tokens, "eos_token"),
								   end) &&
		end->len > 0 && end->len <= prefix->len &&
		memcmp(prefix->data + prefix->len - end->len, end->data, end->len) == 0)
		prefix->len -= end->len;
}

/* The place where a message ends that others follow. */
static bool
find_end(LlmRowConverter *converter, const LlmRowExample *example,
		 size_t turn_idx, size_t *end, LlmError *err)
{
	const LlmConversation *conversation = &example->conversation;
	LlmTemplateInput input = { .add_generation_prompt = false };

	if (!render_turns(converter, conversation, turn_idx + 1, &input,
					  &converter->prefix, err))
		return false;
	if (!is_prefix(converter, &example->rendering))
		strip_end_token(converter);
	if (!is_prefix(converter, &example->rendering))
		return fail_prefix(conversation, turn_idx, err);
	*end = converter->prefix.len;
	return true;
}

/* The place where an answer begins, behind the prompt for it. */
static bool
find_begin(LlmRowConverter *converter, const LlmRowExample *example,
		   size_t turn_idx, size_t *begin, LlmError *err)
{
	const LlmConversation *conversation = &example->conversation;
	LlmTemplateInput input = { .add_generation_prompt = true };

	if (turn_idx == 0)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "nothing precedes the assistant's first message");
	if (!render_turns(converter, conversation, turn_idx, &input,
					  &converter->prefix, err))
		return false;
	*begin = converter->prefix.len;
	if (is_prefix(converter, &example->rendering))
		return true;
	/* is it the generation prompt, or what stands before it? */
	input.add_generation_prompt = false;
	if (!render_turns(converter, conversation, turn_idx, &input,
					  &converter->prefix, err))
		return false;
	if (!is_prefix(converter, &example->rendering))
		strip_end_token(converter);
	return is_prefix(converter, &example->rendering)
			   ? fail_prompt(conversation, turn_idx, err)
			   : fail_prefix(conversation, turn_idx, err);
}

static bool
find_turn(LlmRowConverter *converter, LlmRowExample *example, size_t turn_idx,
		  LlmError *err)
{
	LlmRendering *rendering = &example->rendering;
	LlmTemplateSpan span = { 0, rendering->text.len };

	if (!find_begin(converter, example, turn_idx, &span.begin, err) ||
		(turn_idx + 1 < llm_conversation_n_turns(&example->conversation) &&
		 !find_end(converter, example, turn_idx, &span.end, err)))
		return false;
	if (span.end <= span.begin)
		return llm_error_set(
			err, LLM_ERROR_TEMPLATE,
			"the chat template makes no text of the "
			"assistant's message %zu",
			llm_conversation_number(&example->conversation, turn_idx));
	return add_span(rendering, span, err);
}

bool
llm_row_render(LlmRowConverter *converter, LlmRowExample *example,
			   LlmError *err)
{
	const LlmConversation *conversation = &example->conversation;
	const size_t n_turns = llm_conversation_n_turns(conversation);
	LlmTemplateInput whole = { .spans = &converter->generations };

	assert(!example->rendering.is_plain && n_turns > 0);
	if (!render_turns(converter, conversation, n_turns, &whole,
					  &example->rendering.text, err))
		return false;
	if (generations_are_turns(converter, conversation))
		return take_generations(converter, example, err);
	for (size_t i = 0; i < n_turns; i++)
	{
		if (llm_conversation_turn(conversation, i)->is_trained &&
			!find_turn(converter, example, i, err))
			return false;
	}
	return true;
}

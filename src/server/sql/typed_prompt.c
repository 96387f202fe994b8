/*
 * typed_prompt.c
 *	  What the typed functions say to a model, all in one place.
 *
 * The instruction is the same for all rows of a statement and comes first, so
 * that its part of the prompt is computed once; the row's text is a message of
 * its own behind it.  Short on purpose: small models follow a short
 * instruction best, and the grammar guarantees the answer's form anyway.
 *
 * src/server/sql/typed_prompt.c
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "src/server/sql/typed_prompt.h"

static LlmTemplateText
text_of(const StringInfoData *buf)
{
	LlmTemplateText text = { buf->data, (size_t) buf->len };

	return text;
}

/* "before" text "after" as a system message for an input. */
static LlmTypedPrompt
instruct(const char *before, LlmTemplateText text, const char *after,
		 LlmTemplateText input)
{
	LlmTypedPrompt prompt = { .user = input };
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoString(&buf, before);
	appendBinaryStringInfo(&buf, text.data, (int) text.len);
	appendStringInfoString(&buf, after);
	prompt.system = text_of(&buf);
	return prompt;
}

LlmTypedPrompt
llm_prompt_classify(LlmTemplateText input, const LlmTemplateText *labels,
					int n_labels)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < n_labels; i++)
	{
		appendStringInfoString(&list, i > 0 ? ", " : "");
		appendBinaryStringInfo(&list, labels[i].data, (int) labels[i].len);
	}
	return instruct("Classify the text into exactly one of the labels. "
					"Labels: ",
					text_of(&list), ". Answer with the label only.", input);
}

LlmTypedPrompt
llm_prompt_filter(LlmTemplateText input, LlmTemplateText condition)
{
	return instruct("Does the following condition hold for the text? Answer "
					"yes or no. Condition: ",
					condition, "", input);
}

LlmTypedPrompt
llm_prompt_extract(LlmTemplateText input, LlmTemplateText schema)
{
	return instruct("Extract the data from the text. Answer with JSON that "
					"matches this JSON schema, and with null for what the "
					"text does not say. Schema: ",
					schema, "", input);
}

LlmTypedPrompt
llm_prompt_aggregate(LlmTemplateText texts, LlmTemplateText instruction,
					 bool are_answers)
{
	return instruct(are_answers
						? "The texts are answers to the instruction below, "
						  "each for a part of the data. Combine them into one "
						  "answer for all of the data. Instruction: "
						: "Follow the instruction for all of the texts "
						  "together. Instruction: ",
					instruction, "", texts);
}

LlmPromptMessages
llm_prompt_messages(const LlmTypedPrompt *prompt, bool with_system)
{
	LlmPromptMessages messages = { .n_plain = 1 };
	StringInfoData both;

	if (with_system)
	{
		messages.plain[0] = llm_plain_message("system", prompt->system);
		messages.plain[1] = llm_plain_message("user", prompt->user);
		messages.n_plain = 2;
		return messages;
	}
	initStringInfo(&both);
	appendBinaryStringInfo(&both, prompt->system.data,
						   (int) prompt->system.len);
	appendStringInfoString(&both, "\n\n");
	appendBinaryStringInfo(&both, prompt->user.data, (int) prompt->user.len);
	messages.plain[0] = llm_plain_message("user", text_of(&both));
	return messages;
}

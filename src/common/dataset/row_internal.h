/*
 * row_internal.h
 *	  The stages between a row's fields and its tokens.
 *
 *	  row_source.c        fields → a conversation, or plain text
 *	  row_conversation.c  messages of every dialect as the template's JSON
 *	  row_render.c        conversation → text, and the places to be learned
 *	  row_tokens.c        text → tokens and labels
 *	  row_convert.c       all of it, and rows that are too long
 *
 * src/common/dataset/row_internal.h
 */
#ifndef LLM_ROW_INTERNAL_H
#define LLM_ROW_INTERNAL_H

#include "src/common/dataset/dataset_row.h"
#include "src/common/util/arena.h"

/* A message of a conversation. */
typedef struct LlmTurn
{
	size_t begin; /* bytes of the conversation's JSON */
	size_t end;
	bool is_assistant;
	bool is_trained;
} LlmTurn;

/* Messages as a JSON array for the chat template. */
typedef struct LlmConversation
{
	LlmStrbuf json;
	LlmStrbuf turns; /* LlmTurn */
	LlmJsonSlice tools;
	size_t n_before; /* messages that were put before the row's own */
} LlmConversation;

static inline size_t
llm_conversation_n_turns(const LlmConversation *conversation)
{
	return conversation->turns.len / sizeof(LlmTurn);
}

static inline LlmTurn *
llm_conversation_turn(const LlmConversation *conversation, size_t turn_idx)
{
	return (LlmTurn *) (void *) conversation->turns.data + turn_idx;
}

/* A message's number for people: the row's own begin with 1. */
static inline size_t
llm_conversation_number(const LlmConversation *conversation, size_t turn_idx)
{
	return turn_idx + 1 - conversation->n_before;
}

/* Text with the places to be learned. */
typedef struct LlmRendering
{
	LlmStrbuf text;
	LlmTemplateSpans marks; /* what the template says is the assistant's */
	LlmStrbuf spans;		/* LlmTemplateSpan, in order, apart, none empty */
	bool is_plain; /* no chat template made it: it gets BOS and end token */
} LlmRendering;

/* What a row's example is made of. */
typedef struct LlmRowExample
{
	LlmConversation conversation;
	LlmRendering rendering;
	LlmIdbuf ids;
	size_t n_lead;		/* ids that the tokenizer put before the text's */
	size_t n_text_ids;	/* the text's own */
	LlmStrbuf labels;	/* a byte a token */
	size_t last_answer; /* first token of the last answer that is learned */
} LlmRowExample;

struct LlmRowConverter
{
	LlmRowModel model;
	LlmRowFormat format;
	LlmRowOptions options;
	int32_t end_id;	 /* ends plain texts */
	LlmArena *arena; /* of the row */
	LlmRowExample examples[2];
	size_t next_token; /* of a row that is split: what comes next */
	const volatile sig_atomic_t *interrupt;

	/* scratch */
	LlmStrbuf prefix;
	LlmStrbuf token;
	LlmStrbuf places;
	LlmIdbuf prefix_ids;
};

/* ---- row_conversation.c ---- */

extern void llm_conversation_reset(LlmConversation *conversation);

/*
 * Add a message of OpenAI's form; is_answer: the assistant's are learned,
 * unless their own flags say otherwise.
 */
extern bool
llm_conversation_add(LlmConversation *conversation, LlmJsonSlice message,
					 bool is_answer, LlmError *err);

/* Add one of ShareGPT's form. */
extern bool
llm_conversation_add_tagged(LlmConversation *conversation, LlmJsonSlice message,
							const LlmRowTags *tags, bool is_answer,
							LlmError *err);

/* Add a text that is the message of a role. */
extern bool
llm_conversation_add_text(LlmConversation *conversation, const char *role,
						  LlmJsonSlice text, bool is_answer, LlmError *err);

/* Nothing more follows: is it one that can be learned? */
extern bool llm_conversation_end(LlmConversation *conversation, LlmError *err);

/* ---- row_source.c ---- */

/* Make the conversation or the plain text of an example out of the fields. */
extern bool llm_row_read(LlmRowConverter *converter, const LlmRowField *fields,
						 int example_idx, LlmError *err);

/* ---- row_render.c ---- */

/* The text of the conversation. */
extern bool llm_row_render(LlmRowConverter *converter, LlmRowExample *example,
						   LlmError *err);

/* The places of it that are learned. */
extern bool llm_row_find_answers(LlmRowConverter *converter,
								 LlmRowExample *example, LlmError *err);

/* ---- row_tokens.c ---- */

/* The tokens of the rendering. */
extern bool llm_row_tokenize(LlmRowConverter *converter, LlmRowExample *example,
							 LlmError *err);

/* Which of them are learned. */
extern bool llm_row_label(LlmRowConverter *converter, LlmRowExample *example,
						  LlmError *err);

#endif /* LLM_ROW_INTERNAL_H */

/*
 * generation.h
 *	  From prompt to text: one answer in the making.
 *
 * A failure that belongs to the row (a message the template refuses, a prompt
 * too long, a request that failed) is returned as an LlmError, so that
 * on_error = 'null' can turn it into NULL; everything else is raised.
 *
 * src/server/sql/generation.h
 */
#ifndef LLM_GENERATION_H
#define LLM_GENERATION_H

#include "postgres.h"

#include "src/server/sql/adapter_choice.h"
#include "src/server/sql/generate_options.h"
#include "src/server/sql/model_handle.h"

typedef struct LlmPrompt
{
	int32 *ids; /* palloc'ed */
	uint32 n_ids;
} LlmPrompt;

/* A conversation, in UTF-8: a JSON array, or a few messages of one text. */
typedef struct LlmPromptMessages
{
	LlmTemplateText json;
	LlmTemplateMessage plain[2];
	size_t n_plain; /* 0: the JSON counts */
} LlmPromptMessages;

static inline LlmTemplateMessage
llm_plain_message(const char *role, LlmTemplateText content)
{
	LlmTemplateMessage message = { { role, strlen(role) }, content };

	return message;
}

/* Render messages with the model's chat template. */
extern bool
llm_prompt_render(LlmModelHandle *handle, const LlmGenerateOptions *options,
				  const LlmPromptMessages *messages, LlmStrbuf *rendered,
				  LlmError *err);

/*
 * Tokenize a text of any length, up to ids->limit; cancel stops it.  Where it
 * fails or is cancelled the ids are freed already.
 */
extern bool
llm_prompt_encode(LlmModelHandle *handle, LlmTemplateText text,
				  bool add_special_tokens, LlmIdbuf *ids, LlmError *err);

/* Render messages, and tokenize the result. */
extern bool llm_prompt_from_messages(LlmModelHandle *handle,
									 const LlmGenerateOptions *options,
									 const LlmPromptMessages *messages,
									 LlmPrompt *prompt, LlmError *err);

/*
 * Tokenize a text.  Reading stops with an error a little after the model's
 * context is full: no prompt may be longer, and texts may be huge.
 */
extern bool
llm_prompt_from_text(LlmModelHandle *handle, LlmTemplateText text,
					 bool add_special_tokens, LlmPrompt *prompt, LlmError *err);

/* False: it is longer than the model's context, for what generates nothing. */
extern bool llm_prompt_check_length(const LlmModelHandle *handle,
									const LlmPrompt *prompt, LlmError *err);

/* The text of tokens, in the database's encoding. */
extern text *llm_tokens_to_text(LlmModelHandle *handle, const int32 *ids,
								int n_ids, bool skip_special_tokens);

typedef struct LlmGeneration
{
	LlmModelHandle *handle; /* pinned */
	LlmAdapterChoice adapter;
	LlmRequest *request;
	const LlmRequestResult *result;
	LlmDetokenizer *detokenizer;
	LlmStrbuf text; /* UTF-8, cut at a stop string */
	size_t n_final; /* bytes of it that will not change any more */
	uint32 n_read;	/* tokens that are in text */
	bool is_done;
	LlmFinishReason reason; /* once done */
	const char *stop_text;	/* the stop string that was found, or NULL */
	int32 stop_id;			/* the stop token that was generated, or -1 */
	uint32 n_tokens;		/* of the answer, once done */

	/* what to look for */
	const LlmGenerateOptions *options; /* borrowed from the caller */
	size_t longest_stop;			   /* bytes */
} LlmGeneration;

/*
 * Submit one answer; options are complete and outlive the generation, which
 * lives in CurrentMemoryContext and gives its slot up with it.  NULL: the
 * model was replaced since the handle was taken; start over with a new one.
 */
extern LlmGeneration *
llm_generation_start(LlmModelHandle *handle, const LlmGenerateOptions *options,
					 const LlmPrompt *prompt, uint64 seed);

/*
 * Take in what has arrived; with "wait", until at least one more token has,
 * or the answer is done.
 */
extern bool
llm_generation_advance(LlmGeneration *generation, bool wait, LlmError *err);

/* Advance until done. */
extern bool llm_generation_complete(LlmGeneration *generation, LlmError *err);

/* Give up slot, memory and handle now rather than with the memory context. */
extern void llm_generation_end(LlmGeneration *generation);

#endif /* LLM_GENERATION_H */

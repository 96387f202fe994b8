/*
 * chat_template.h
 *	  Chat templates: the Jinja that Hugging Face models ship, rendered to the
 *	  byte like transformers' apply_chat_template does.
 *
 * A template is outside input: rendering is bounded in depth, steps, memory
 * and output.  It reads no file and calls nothing but its own filters and
 * functions.  Undefined names, missing keys and raise_exception behave as in
 * jinja2's ImmutableSandboxedEnvironment with trim_blocks and lstrip_blocks;
 * failures are LLM_ERROR_TEMPLATE with the template's line.
 *
 * A message of raise_exception is err->message as it is, its line the hint;
 * other failures of the template are "chat template line N: ...".  A bound
 * that is hit is LLM_ERROR_LIMIT, an interrupt LLM_ERROR_CANCELLED, input that
 * is no good (JSON, messages, flags) LLM_ERROR_INVALID.
 *
 * A compiled template is immutable and may be rendered any number of times,
 * by one thread at a time.
 *
 * src/common/template/chat_template.h
 */
#ifndef LLM_CHAT_TEMPLATE_H
#define LLM_CHAT_TEMPLATE_H

#include <signal.h>
#include <time.h>

#include "src/common/util/error.h"
#include "src/common/util/strbuf.h"

typedef struct LlmChatTemplate LlmChatTemplate;

/* A run of bytes that is not NUL-terminated; data NULL = absent. */
typedef struct LlmTemplateText
{
	const char *data;
	size_t len;
} LlmTemplateText;

/* Bytes begin .. end - 1 of the rendered text. */
typedef struct LlmTemplateSpan
{
	size_t begin;
	size_t end;
} LlmTemplateSpan;

/*
 * Where the template's {% generation %} blocks are: what the assistant said.
 * Freed with llm_strbuf_free(&spans->items).
 */
typedef struct LlmTemplateSpans
{
	LlmStrbuf items; /* LlmTemplateSpan, in order */
	bool is_partial; /* a block inside a macro or filter has no place */
} LlmTemplateSpans;

/* A message of one text, in UTF-8. */
typedef struct LlmTemplateMessage
{
	LlmTemplateText role;
	LlmTemplateText content;
} LlmTemplateMessage;

typedef struct LlmTemplateInput
{
	/* in place of "messages", where they have nothing but these; or NULL */
	const LlmTemplateMessage *plain_messages;
	size_t n_plain_messages;

	/* JSON texts; key order, 1 against 1.0 and big integers are kept */
	LlmTemplateText messages;  /* an array; required */
	LlmTemplateText tools;	   /* an array; absent renders as none */
	LlmTemplateText documents; /* an array; absent renders as none */
	LlmTemplateText kwargs;	   /* an object: further template variables */

	/* an object of strings: bos_token, eos_token, ... ; absent = empty */
	LlmTemplateText special_tokens;

	bool add_generation_prompt;

	/* end the text where the last message's content ends */
	bool continue_final_message;

	time_t now; /* for strftime_now, in local time */

	LlmTemplateSpans *spans; /* set; from out's end on; may be NULL */

	const volatile sig_atomic_t *interrupt; /* may be NULL */
} LlmTemplateInput;

extern LlmChatTemplate *
llm_chat_template_compile(const char *source, size_t len, LlmError *err);
extern void llm_chat_template_free(LlmChatTemplate *chat_template);

/* Appends the rendered text to *out; on failure *out is as it was. */
extern bool llm_chat_template_render(const LlmChatTemplate *chat_template,
									 const LlmTemplateInput *input,
									 LlmStrbuf *out, LlmError *err);

#endif /* LLM_CHAT_TEMPLATE_H */

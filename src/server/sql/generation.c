/*
 * generation.c
 *	  From prompt to text: one answer in the making.
 *
 * Tokens arrive from the scheduler, text is made here.  Stop strings are found
 * in the text, so a request that meets one is cancelled from this side; the
 * few tokens computed meanwhile are dropped.
 *
 * src/server/sql/generation.c
 */
#include "postgres.h"

#include "src/server/report.h"
#include "src/server/settings.h"
#include "src/server/sql/generation.h"
#include "src/server/sql/text_convert.h"
#include "src/server/sql/token_limits.h"

#include "miscadmin.h"
#include "utils/memutils.h"

/* -- prompts -- */

/*
 * What to watch when work that an interrupt stopped is done again: it may have
 * been no cancel but one of the many that come at intervals, and these must
 * not stop it for ever.
 */
static const volatile sig_atomic_t *
next_interrupt(const volatile sig_atomic_t *interrupt)
{
	return interrupt == &InterruptPending ? &QueryCancelPending : NULL;
}

bool
llm_prompt_render(LlmModelHandle *handle, const LlmGenerateOptions *options,
				  const LlmPromptMessages *messages, LlmStrbuf *rendered,
				  LlmError *err)
{
	const LlmChatTemplate *chat_template =
		llm_model_handle_template(handle, options->tools.data != NULL);
	LlmTemplateInput input = {
		.plain_messages = messages->n_plain > 0 ? messages->plain : NULL,
		.n_plain_messages = messages->n_plain,
		.messages = messages->json,
		.tools = options->tools,
		.documents = options->documents,
		.kwargs = options->chat_template_kwargs,
		.special_tokens = llm_model_image_special_tokens(handle->image),
		.add_generation_prompt =
			options->add_generation_prompt && !options->continue_final_message,
		.continue_final_message = options->continue_final_message,
		.now = time(NULL),
		.interrupt = &InterruptPending,
	};

	while (!llm_chat_template_render(chat_template, &input, rendered, err))
	{
		if (err->code != LLM_ERROR_CANCELLED)
			return false;
		CHECK_FOR_INTERRUPTS();
		llm_error_clear(err);
		input.interrupt = next_interrupt(input.interrupt);
		llm_strbuf_reset(rendered);
	}
	return true;
}

bool
llm_prompt_encode(LlmModelHandle *handle, LlmTemplateText text,
				  bool add_special_tokens, LlmIdbuf *ids, LlmError *err)
{
	const volatile sig_atomic_t *interrupt = &InterruptPending;
	size_t limit = ids->limit;

	while (!llm_tokenizer_encode(handle->tokenizer, text.data, text.len,
								 add_special_tokens, interrupt, ids, err))
	{
		llm_idbuf_free(ids);
		if (err->code != LLM_ERROR_CANCELLED)
			return false;
		CHECK_FOR_INTERRUPTS();
		llm_error_clear(err);
		interrupt = next_interrupt(interrupt);
		ids->limit = limit;
	}
	return true;
}

/* Move ids into palloc'ed memory; the buffer is freed in any case. */
static bool
take_ids(LlmIdbuf *buf, bool ok, LlmPrompt *prompt)
{
	int32 *ids = NULL;

	if (ok)
		ids = MemoryContextAllocExtended(CurrentMemoryContext,
										 Max(buf->n_ids, 1) * sizeof(int32),
										 MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);
	if (ids != NULL)
	{
		if (buf->n_ids > 0)
			memcpy(ids, buf->ids, buf->n_ids * sizeof(int32));
		prompt->ids = ids;
		prompt->n_ids = (uint32) buf->n_ids;
	}
	llm_idbuf_free(buf);
	if (ok && ids == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	return ok;
}

bool
llm_prompt_from_text(LlmModelHandle *handle, LlmTemplateText text,
					 bool add_special_tokens, LlmPrompt *prompt, LlmError *err)
{
	LlmIdbuf ids;
	bool ok;

	llm_idbuf_init(&ids);
	ids.limit = (size_t) handle->info.max_model_len + 1;
	ok = llm_prompt_encode(handle, text, add_special_tokens, &ids, err);
	if (!ok && err->code == LLM_ERROR_LIMIT)
	{
		llm_error_set(err, LLM_ERROR_LIMIT,
					  "the prompt (%zu bytes) has more tokens than the model's "
					  "context of %d",
					  text.len, handle->info.max_model_len);
		llm_error_hint(err, "Shorten the prompt, or raise "
							"llm_ext.max_model_len if the model allows it.");
	}
	return take_ids(&ids, ok, prompt);
}

bool
llm_prompt_check_length(const LlmModelHandle *handle, const LlmPrompt *prompt,
						LlmError *err)
{
	if (prompt->n_ids <= (uint32) handle->info.max_model_len)
		return true;
	llm_error_set(
		err, LLM_ERROR_LIMIT,
		"the text has %u tokens, but the model's context is %d tokens",
		prompt->n_ids, handle->info.max_model_len);
	return llm_error_hint(err, "Shorten the text, or raise "
							   "llm_ext.max_model_len if the model allows it.");
}

bool
llm_prompt_from_messages(LlmModelHandle *handle,
						 const LlmGenerateOptions *options,
						 const LlmPromptMessages *messages, LlmPrompt *prompt,
						 LlmError *err)
{
	LlmStrbuf rendered;
	LlmTemplateText text;
	bool ok;

	llm_strbuf_init(&rendered);
	PG_TRY();
	{
		ok = llm_prompt_render(handle, options, messages, &rendered, err);
		text.data = llm_strbuf_str(&rendered);
		text.len = rendered.len;
		/* templates write their own BOS */
		if (ok)
			ok = llm_prompt_from_text(handle, text, options->add_special_tokens,
									  prompt, err);
	}
	PG_FINALLY();
	{
		llm_strbuf_free(&rendered);
	}
	PG_END_TRY();
	return ok;
}

/* The detokenizer and the buffer are freed in any case. */
text *
llm_tokens_to_text(LlmModelHandle *handle, const int32 *ids, int n_ids,
				   bool skip_special_tokens)
{
	LlmDetokenizer *detokenizer;
	LlmStrbuf decoded;
	LlmError err;
	text *result = NULL;

	detokenizer =
		llm_detokenizer_create(handle->tokenizer, skip_special_tokens, &err);
	if (detokenizer == NULL)
		llm_report(ERROR, &err);
	llm_strbuf_init(&decoded);
	decoded.limit = MaxAllocSize;
	PG_TRY();
	{
		for (int i = 0; i < n_ids; i++)
		{
			CHECK_FOR_INTERRUPTS();
			if (!llm_detokenizer_push(detokenizer, ids[i], &decoded, &err))
				llm_report(ERROR, &err);
		}
		if (!llm_detokenizer_flush(detokenizer, &decoded, &err))
			llm_report(ERROR, &err);
		result = llm_text_from_utf8(llm_strbuf_str(&decoded), decoded.len);
	}
	PG_FINALLY();
	{
		llm_detokenizer_free(detokenizer);
		llm_strbuf_free(&decoded);
	}
	PG_END_TRY();
	return result;
}

/* -- answers -- */

/* Frees what is not palloc'ed; runs when the generation's context goes. */
static void
release_generation(void *arg)
{
	LlmGeneration *generation = arg;

	if (generation->handle == NULL)
		return;
	llm_detokenizer_free(generation->detokenizer);
	llm_strbuf_free(&generation->text);
	llm_model_handle_unpin(generation->handle);
	generation->detokenizer = NULL;
	generation->handle = NULL;
}

static size_t
longest_stop_bytes(const LlmGenerateOptions *options)
{
	size_t longest = 0;

	for (int i = 0; i < options->n_stop; i++)
		longest = Max(longest, options->stop[i].len);
	return longest;
}

LlmGeneration *
llm_generation_start(LlmModelHandle *handle, const LlmGenerateOptions *options,
					 const LlmPrompt *prompt, uint64 seed)
{
	LlmGeneration *generation = palloc0(sizeof(LlmGeneration));
	MemoryContextCallback *callback = palloc0(sizeof(MemoryContextCallback));
	LlmRequestSpec spec = {
		.model_idx = handle->info.model_idx,
		.model_generation = handle->info.generation,
		.prompt_ids = prompt->ids,
		.n_prompt = prompt->n_ids,
		.params = options->params,
		.stop_ids = options->stop_ids,
		.n_stop_ids = options->n_stop_ids,
		.bias = options->bias,
		.n_bias = options->n_bias,
		.is_batch = options->is_batch,
		.cache_salt = options->cache_salt,
		.timeout_ms = options->timeout_ms > 0 ? options->timeout_ms
											  : llm_setting_request_timeout_ms,
	};
	LlmGrammarProgram grammar;
	LlmError err;

	if (!llm_grammar_cache_get(options->format, &grammar, &err))
		llm_report(ERROR, &err);
	spec.grammar = grammar.words;
	spec.n_grammar_words = grammar.n_words;
	llm_token_limits_check();
	spec.params.seed = seed;
	llm_adapter_choose(options->adapter, options->user, prompt->ids,
					   prompt->n_ids, handle, &generation->adapter);
	memcpy(spec.adapter, generation->adapter.version.digest,
		   sizeof(spec.adapter));
	generation->options = options;
	generation->stop_id = -1;
	generation->longest_stop = longest_stop_bytes(options);
	llm_strbuf_init(&generation->text);
	generation->detokenizer = llm_detokenizer_create(
		handle->tokenizer, options->skip_special_tokens, &err);
	if (generation->detokenizer == NULL)
		llm_report(ERROR, &err);
	generation->handle = handle;
	llm_model_handle_pin(handle);
	callback->func = release_generation;
	callback->arg = generation;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, callback);
	generation->request = llm_request_submit(&spec);
	if (generation->request == NULL)
	{
		release_generation(generation);
		return NULL;
	}
	return generation;
}

/*
 * Look for a stop string in the text behind "from", including one that began
 * before it.  The earliest match wins.
 */
static const LlmStopString *
find_stop(const LlmGeneration *generation, size_t from, size_t *match_off)
{
	const LlmGenerateOptions *options = generation->options;
	const char *text = llm_strbuf_str(&generation->text);
	const LlmStopString *found = NULL;

	for (int i = 0; i < options->n_stop; i++)
	{
		const LlmStopString *stop = &options->stop[i];
		size_t start = from >= stop->len - 1 ? from - (stop->len - 1) : 0;
		const char *match = memmem(text + start, generation->text.len - start,
								   stop->text, stop->len);

		if (match != NULL &&
			(found == NULL || (size_t) (match - text) < *match_off))
		{
			found = stop;
			*match_off = (size_t) (match - text);
		}
	}
	return found;
}

static void
truncate_text(LlmGeneration *generation, size_t len)
{
	generation->text.len = len;
	if (generation->text.data != NULL)
		generation->text.data[len] = '\0';
}

/* True where a stop string ends the answer here. */
static bool
apply_stop(LlmGeneration *generation, size_t from)
{
	size_t match_off;
	const LlmStopString *stop;

	if (generation->options->n_stop == 0 ||
		generation->n_read <= generation->options->params.min_tokens ||
		generation->text.len <= from)
		return false;
	stop = find_stop(generation, from, &match_off);
	if (stop == NULL)
		return false;
	truncate_text(generation,
				  match_off + (generation->options->include_stop_str_in_output
								   ? stop->len
								   : 0));
	generation->stop_text = stop->text;
	generation->reason = LLM_FINISH_STOP;
	return true;
}

/* Whether a token only ends the answer and is no part of its text. */
static bool
is_stop_token(const LlmGeneration *generation, int32 token_id)
{
	const LlmGenerateOptions *options = generation->options;
	const LlmModelImageFacts *facts = generation->handle->facts;

	for (uint32 i = 0; i < options->n_stop_ids; i++)
		if (options->stop_ids[i] == token_id)
			return true;
	if (options->params.ignore_eos)
		return false;
	for (int i = 0; i < facts->n_stop_ids; i++)
		if (facts->stop_ids[i] == token_id)
			return true;
	return false;
}

/*
 * Turn newly arrived tokens into text.  The token that stopped the answer is
 * left out unless special tokens are asked for, as in vLLM.
 */
static bool
read_tokens(LlmGeneration *generation, LlmError *err)
{
	const LlmRequestResult *result = generation->result;

	while (generation->n_read < result->n_tokens)
	{
		int32 token_id = result->token_ids[generation->n_read];
		size_t from = generation->text.len;
		bool is_last =
			result->is_finished && generation->n_read + 1 == result->n_tokens;

		if (is_last && result->reason == LLM_FINISH_STOP &&
			is_stop_token(generation, token_id))
		{
			generation->stop_id = token_id;
			if (!generation->options->include_stop_str_in_output)
			{
				generation->n_read++;
				break;
			}
		}
		else if (!result->is_finished && is_stop_token(generation, token_id) &&
				 generation->n_read + 1 == result->n_tokens)
			break; /* its FINISHED is on the way */
		if (!llm_detokenizer_push(generation->detokenizer, token_id,
								  &generation->text, err))
			return false;
		generation->n_read++;
		if (apply_stop(generation, from))
		{
			generation->is_done = true;
			break;
		}
	}
	return true;
}

/* All tokens are read: flush what the detokenizer held back. */
static bool
finish_text(LlmGeneration *generation, LlmError *err)
{
	size_t from = generation->text.len;

	if (!llm_detokenizer_flush(generation->detokenizer, &generation->text, err))
		return false;
	generation->reason = generation->result->reason;
	(void) apply_stop(generation, from);
	generation->is_done = true;
	return true;
}

/* How much of the text no later stop string can take back. */
static size_t
final_bytes(const LlmGeneration *generation)
{
	size_t len = generation->text.len;
	size_t held =
		generation->longest_stop > 0 ? generation->longest_stop - 1 : 0;

	if (generation->is_done)
		return len;
	if (len <= held)
		return 0;
	len -= held;
	while (len > 0 &&
		   ((unsigned char) generation->text.data[len] & 0xC0) == 0x80)
		len--;
	return len;
}

bool
llm_generation_advance(LlmGeneration *generation, bool wait, LlmError *err)
{
	if (generation->is_done)
		return true;
	generation->result = wait ? llm_request_wait(generation->request)
							  : llm_request_poll(generation->request);
	if (generation->result->error != NULL)
	{
		*err = *generation->result->error;
		return false;
	}
	if (!read_tokens(generation, err))
		return false;
	if (!generation->is_done && generation->result->is_finished &&
		!finish_text(generation, err))
		return false;
	generation->n_final = Max(generation->n_final, final_bytes(generation));
	if (generation->text.failed)
		return llm_error_no_memory(err, generation->text.len, "an answer");
	if (generation->is_done)
	{
		/* a stop string was found here: the executor need not go on */
		llm_request_release(generation->request);
		generation->n_tokens = generation->n_read;
	}
	return true;
}

bool
llm_generation_complete(LlmGeneration *generation, LlmError *err)
{
	while (!generation->is_done)
		if (!llm_generation_advance(generation, true, err))
			return false;
	return true;
}

void
llm_generation_end(LlmGeneration *generation)
{
	llm_request_release(generation->request);
	release_generation(generation);
}

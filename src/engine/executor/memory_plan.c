/*
 * memory_plan.c
 *	  How a device's memory is divided, before any of it is touched.
 *
 * src/engine/executor/memory_plan.c
 */
#include <stdio.h>

#include "src/engine/executor/memory_plan.h"

static const char *const line_names[LLM_MEMORY_N_LINES] = {
	[LLM_MEMORY_WITHHELD] = "withheld",
	[LLM_MEMORY_OTHERS] = "others",
	[LLM_MEMORY_WEIGHTS] = "weights",
	[LLM_MEMORY_ACTIVATIONS] = "activations",
	[LLM_MEMORY_ADAPTERS] = "adapters",
	[LLM_MEMORY_SCRATCH] = "scratch",
	[LLM_MEMORY_GRAPHS] = "graphs",
	[LLM_MEMORY_RESERVE] = "reserve",
	[LLM_MEMORY_KV_CACHE] = "kv_cache",
};

/* What the lines in front of the cache leave of a GPU. */
static int64_t
left_for_cache(const LlmMemoryPlan *plan)
{
	int64_t left = plan->device_bytes;

	for (int line = 0; line < LLM_MEMORY_KV_CACHE; line++)
		left -= plan->bytes[line];
	return left;
}

/* "weights 16.06 GB, activations 0.52 GB, ..." */
static void
list_lines(const LlmMemoryPlan *plan, char *text, size_t size)
{
	size_t used = 0;

	text[0] = '\0';
	for (int line = 0; line < LLM_MEMORY_KV_CACHE && used < size; line++)
		if (plan->bytes[line] > 0)
			used += (size_t) snprintf(text + used, size - used, "%s%s %.2f GB",
									  used > 0 ? ", " : "", line_names[line],
									  (double) plan->bytes[line] / 1e9);
}

bool
llm_memory_plan_check(const LlmMemoryPlan *plan, const char *device,
					  int64_t *kv_bytes, LlmError *err)
{
	int64_t left = left_for_cache(plan);
	char lines[256];

	if (left > 0 && *kv_bytes <= left)
	{
		if (*kv_bytes == 0)
			*kv_bytes = left;
		return true;
	}
	list_lines(plan, lines, sizeof(lines));
	if (*kv_bytes > 0)
		llm_error_set(err, LLM_ERROR_NO_MEMORY,
					  "a KV cache of %.2f GB does not fit: %s has %.2f GB, of "
					  "which go: %s",
					  (double) *kv_bytes / 1e9, device,
					  (double) plan->device_bytes / 1e9, lines);
	else
		llm_error_set(err, LLM_ERROR_NO_MEMORY,
					  "the model does not fit: %s has %.2f GB, of which go: %s",
					  device, (double) plan->device_bytes / 1e9, lines);
	return llm_error_hint(err, "Raise llm_ext.gpu_memory_utilization, or lower "
							   "llm_ext.max_num_batched_tokens, "
							   "llm_ext.max_num_seqs, llm_ext.max_loras or "
							   "llm_ext.kv_cache_memory.");
}

static void
add_line(LlmStrbuf *json, const char *what, int64_t n_bytes, bool is_first)
{
	llm_strbuf_printf(json, "%s{\"what\": \"%s\", \"bytes\": %lld}",
					  is_first ? "" : ", ", what, (long long) n_bytes);
}

void
llm_memory_plan_describe(const LlmMemoryPlan *plan, LlmStrbuf *json)
{
	bool is_first = true;

	llm_strbuf_printf(json, "[");
	for (int line = 0; line < LLM_MEMORY_N_LINES; line++)
	{
		if (plan->bytes[line] == 0)
			continue;
		add_line(json, line_names[line], plan->bytes[line], is_first);
		is_first = false;
	}
	if (plan->device_bytes > 0)
		add_line(json, "unused",
				 left_for_cache(plan) - plan->bytes[LLM_MEMORY_KV_CACHE],
				 is_first);
	llm_strbuf_printf(json, "]");
}

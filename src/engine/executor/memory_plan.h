/*
 * memory_plan.h
 *	  How a device's memory is divided, before any of it is touched.
 *
 * The lines of a plan add up to the device's memory where it is a GPU.  On the
 * CPU nothing is divided: the plan says what is taken.
 *
 * src/engine/executor/memory_plan.h
 */
#ifndef LLM_MEMORY_PLAN_H
#define LLM_MEMORY_PLAN_H

#include "src/common/util/error.h"
#include "src/common/util/strbuf.h"

typedef enum LlmMemoryLine
{
	LLM_MEMORY_WITHHELD, /* by gpu_memory_utilization */
	LLM_MEMORY_OTHERS,	 /* in use before we came */
	LLM_MEMORY_WEIGHTS,
	LLM_MEMORY_ACTIVATIONS, /* of the largest step */
	LLM_MEMORY_ADAPTERS,	/* their slots */
	LLM_MEMORY_SCRATCH,		/* the backend's own, context and code included */
	LLM_MEMORY_GRAPHS,		/* recorded passes */
	LLM_MEMORY_RESERVE,		/* tables, what allocations are rounded up by */
	LLM_MEMORY_KV_CACHE,
	LLM_MEMORY_N_LINES
} LlmMemoryLine;

typedef struct LlmMemoryPlan
{
	int64_t device_bytes; /* 0: the CPU's */
	int64_t bytes[LLM_MEMORY_N_LINES];
} LlmMemoryPlan;

/*
 * Is there room for the cache?  *kv_bytes is what it wants, or 0: all the other
 * lines leave, which *kv_bytes becomes.  LLM_ERROR_NO_MEMORY with all numbers
 * where there is none.
 */
extern bool llm_memory_plan_check(const LlmMemoryPlan *plan, const char *device,
								  int64_t *kv_bytes, LlmError *err);

/*
 * Append [{"what": "weights", "bytes": 123}, ...]; a GPU's lines end with what
 * is left over.
 */
extern void
llm_memory_plan_describe(const LlmMemoryPlan *plan, LlmStrbuf *json);

#endif /* LLM_MEMORY_PLAN_H */

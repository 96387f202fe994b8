/*
 * adapter_slots.h
 *	  The executor's adapters: known by their paths, loaded when asked for, in
 *	  one of a few slots while requests use them.
 *
 *		known ──ask──> loading ──> on the host ──slot──> copying ──> ready
 *		  ^              │            │  ^                             │
 *		  └────fails─────┘<──evict────┘  └────────────evict────────────┘
 *
 * Loading happens in a thread of its own, copying beside the steps: nobody
 * waits for an adapter but the requests that asked for it.  These are parked
 * here, each with its message, and join the planner when their adapter is
 * ready; from then on until they end its slot is kept.  So the planner never
 * sees more adapters than there are slots.
 *
 * Where all slots are kept, an adapter that has waited long enough gets the
 * one that was given longest ago: its holder's new requests are parked, too,
 * and when the last old one has ended the slot changes hands.
 *
 * All functions are for the step loop's thread.
 *
 * src/engine/executor/adapter_slots.h
 */
#ifndef LLM_ADAPTER_SLOTS_H
#define LLM_ADAPTER_SLOTS_H

#include "src/engine/executor/executor.h"

typedef struct LlmAdapterSlots LlmAdapterSlots;

/* NULL in executor->adapters where the options allow no adapters. */
extern bool llm_adapter_slots_create(LlmExecutor *executor, LlmError *err);
extern void llm_adapter_slots_free(LlmExecutor *executor);

/* Device memory that slots take. */
extern int64_t llm_adapter_slots_bytes(const LlmModelConfig *config,
									   const LlmExecutorOptions *options);

/* ADAPTER and ADAPTER_FORGET.  False: the message makes no sense. */
extern bool
llm_adapter_slots_announce(LlmExecutor *executor, const LlmWireAdapter *wire,
						   size_t n_bytes, LlmError *err);
extern bool
llm_adapter_slots_forget(LlmExecutor *executor, const LlmWireAdapter *wire,
						 size_t n_bytes, LlmError *err);

/*
 * A request wants its adapter.  *is_ready: it may join the planner; otherwise
 * it is parked with its message, and llm_executor_start_request follows.
 */
extern bool
llm_adapter_slots_enter(LlmExecutor *executor, LlmExecRequest *request,
						const LlmWireRequest *wire, size_t n_bytes,
						bool *is_ready, LlmError *err);

/* It ends, parked or not; requests without an adapter may come, too. */
extern void
llm_adapter_slots_leave(LlmExecutor *executor, LlmExecRequest *request);

/*
 * Once in every turn of the loop: take what was loaded, move adapters, start
 * requests that waited for them.
 */
extern void llm_adapter_slots_turn(LlmExecutor *executor, int64_t now_us);

/* Becomes readable when an adapter was loaded; -1: there are no adapters. */
extern int llm_adapter_slots_fd(const LlmExecutor *executor);

/* Longest time in ms until the next turn; -1: any. */
extern int llm_adapter_slots_timeout(const LlmExecutor *executor);

/* The adapters of a step's tokens. */
extern void
llm_adapter_slots_fill_step(const LlmExecutor *executor,
							const LlmPlannedStep *step, LlmStepInputs *host);

#endif /* LLM_ADAPTER_SLOTS_H */

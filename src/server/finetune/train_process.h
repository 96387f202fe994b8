/*
 * train_process.h
 *	  The executor of a job: started, listened to, ended.
 *
 * A worker has one at a time.  It dies with the worker, whatever ends that.
 *
 * src/server/finetune/train_process.h
 */
#ifndef LLM_TRAIN_PROCESS_H
#define LLM_TRAIN_PROCESS_H

#include "postgres.h"

#include "src/common/ipc/ipc_message.h"

typedef enum LlmTrainEventKind
{
	LLM_TRAIN_EVENT_LOG,	 /* log is set */
	LLM_TRAIN_EVENT_SAVED,	 /* saved is set */
	LLM_TRAIN_EVENT_TRAINED, /* the adapter is written; trained is set */
	LLM_TRAIN_EVENT_FAILED,	 /* error is set */
	LLM_TRAIN_EVENT_DIED	 /* without a word */
} LlmTrainEventKind;

typedef struct LlmTrainEvent
{
	LlmTrainEventKind kind;
	LlmWireTrainLog log;
	LlmWireTrainSaved saved;
	LlmWireTrained trained;
	LlmError error;
} LlmTrainEvent;

/* Start one, and tell it what to do; returns its process id. */
extern int llm_train_process_start(const char *model_name, const char *json);

/* Wait for what it says next.  Interruptible. */
extern void llm_train_process_wait(LlmTrainEvent *event);

/* Resident memory, of the kernel's account. */
extern int64 llm_train_process_memory_bytes(void);

/* End it, if it is there, and wait until it is gone. */
extern void llm_train_process_end(void);

#endif /* LLM_TRAIN_PROCESS_H */

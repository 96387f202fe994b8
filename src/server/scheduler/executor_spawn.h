/*
 * executor_spawn.h
 *	  Starting an executor process: the only place that forks.
 *
 * src/server/scheduler/executor_spawn.h
 */
#ifndef LLM_EXECUTOR_SPAWN_H
#define LLM_EXECUTOR_SPAWN_H

#include <sys/types.h>

#include "src/common/util/error.h"

typedef struct LlmSpawnedProcess
{
	pid_t pid;
	int channel_fd; /* our end of the channel */
	int log_fd;		/* read end of its standard output and error */
} LlmSpawnedProcess;

/* The program, from llm_ext.executor_path or its default. */
extern const char *llm_executor_program(void);

/*
 * Start the executor program; the model's name appears among its arguments,
 * for ps.  Both descriptors are non-blocking and close-on-exec.
 */
extern bool llm_executor_spawn(const char *model_name,
							   LlmSpawnedProcess *process, LlmError *err);

#endif /* LLM_EXECUTOR_SPAWN_H */

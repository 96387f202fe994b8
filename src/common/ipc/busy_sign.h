/*
 * busy_sign.h
 *	  How many requests there are, for those who want to stay out of their way.
 *
 * A number in a file that all who know its path have mapped.  The scheduler
 * writes it, nobody else; training executors read it between two pieces of
 * their work, which a message could not be received often enough for.  It is
 * advice: nothing breaks where it is late or wrong.
 *
 * src/common/ipc/busy_sign.h
 */
#ifndef LLM_BUSY_SIGN_H
#define LLM_BUSY_SIGN_H

#include <stdint.h>

#include "src/common/util/error.h"

typedef struct LlmBusySignPage LlmBusySignPage;

typedef struct LlmBusySign
{
	LlmBusySignPage *page; /* NULL: closed */
} LlmBusySign;

/*
 * The writer's side: the file is made, or taken over as it is, so that who has
 * it mapped already goes on to see it.  The number becomes 0.
 */
extern bool
llm_busy_sign_create(LlmBusySign *sign, const char *path, LlmError *err);

/* A reader's. */
extern bool
llm_busy_sign_open(LlmBusySign *sign, const char *path, LlmError *err);
extern void llm_busy_sign_close(LlmBusySign *sign);

extern void llm_busy_sign_set(LlmBusySign *sign, uint32_t n_requests);
extern uint32_t llm_busy_sign_get(const LlmBusySign *sign);

#endif /* LLM_BUSY_SIGN_H */

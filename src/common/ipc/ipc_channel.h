/*
 * ipc_channel.h
 *	  Frames over a non-blocking stream socket.
 *
 * Sending only queues; flush writes what the socket takes.  Receiving returns
 * one whole frame at a time.  Neither ever blocks: callers wait for the fd
 * with whatever they wait with.  A channel is used by one thread.
 *
 * src/common/ipc/ipc_channel.h
 */
#ifndef LLM_IPC_CHANNEL_H
#define LLM_IPC_CHANNEL_H

#include <stddef.h>

#include "src/common/ipc/ipc_message.h"

typedef struct LlmChannel LlmChannel;

typedef enum LlmReceiveResult
{
	LLM_RECEIVE_FRAME,	 /* *header and *payload are set */
	LLM_RECEIVE_NOTHING, /* wait for the fd */
	LLM_RECEIVE_CLOSED	 /* end of stream or broken: *err says which */
} LlmReceiveResult;

/* Takes over the fd and makes it non-blocking and close-on-exec. */
extern LlmChannel *llm_channel_create(int fd, LlmError *err);

/* Closes the fd.  NULL is allowed. */
extern void llm_channel_free(LlmChannel *channel);

extern int llm_channel_fd(const LlmChannel *channel);

/*
 * Queue a frame whose payload is two runs of bytes (either may be empty).
 * Fails only for lack of memory or a payload beyond the frame limit.
 */
extern bool
llm_channel_send(LlmChannel *channel, LlmMessageType type, uint64_t request_id,
				 const void *head, size_t head_bytes, const void *tail,
				 size_t tail_bytes, LlmError *err);

/* Write what the socket takes now.  False: the other end is gone. */
extern bool llm_channel_flush(LlmChannel *channel, LlmError *err);

extern size_t llm_channel_pending_bytes(const LlmChannel *channel);

/*
 * The next frame.  The payload is 8-byte aligned, borrowed, and valid until
 * the next call.
 */
extern LlmReceiveResult
llm_channel_receive(LlmChannel *channel, LlmFrameHeader *header,
					const void **payload, LlmError *err);

#endif /* LLM_IPC_CHANNEL_H */

/*
 * ipc_channel.c
 *	  Frames over a non-blocking stream socket.
 *
 * Two byte queues, one per direction.  Each is a flat buffer with a start and
 * an end; consumed bytes at the front are dropped by moving the rest down
 * when the buffer has to grow, so bytes move at most once per doubling.
 * Frames are padded to 8 bytes on the wire, which keeps every payload aligned
 * wherever it lies in the queue.
 *
 * src/common/ipc/ipc_channel.c
 */
#include "src/common/ipc/ipc_channel.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_BYTES ((size_t) 64 * 1024)

typedef struct ByteQueue
{
	char *data;	  /* malloc'ed, so 16-byte aligned */
	size_t start; /* first byte not yet consumed */
	size_t end;	  /* one past the last byte */
	size_t capacity;
} ByteQueue;

struct LlmChannel
{
	int fd;
	ByteQueue in;
	ByteQueue out;
	size_t n_delivered; /* bytes of the frame last handed out */
};

static inline size_t
padded(size_t n_bytes)
{
	return (n_bytes + 7) & ~(size_t) 7;
}

/* Make room for n_bytes more; keeps the start a multiple of 8. */
static bool
queue_reserve(ByteQueue *queue, size_t n_bytes)
{
	size_t used = queue->end - queue->start;
	size_t capacity = queue->capacity;
	size_t shift = queue->start & ~(size_t) 7;
	char *data;

	if (queue->capacity - queue->end >= n_bytes)
		return true;
	if (shift > 0 && capacity - used - (queue->start - shift) >= n_bytes &&
		shift >= used)
	{
		memmove(queue->data, queue->data + shift, queue->end - shift);
		queue->start -= shift;
		queue->end -= shift;
		return true;
	}
	while (capacity - queue->end < n_bytes)
		capacity = capacity == 0 ? READ_BYTES : capacity * 2;
	data = realloc(queue->data, capacity);
	if (data == NULL)
		return false;
	queue->data = data;
	queue->capacity = capacity;
	return true;
}

LlmChannel *
llm_channel_create(int fd, LlmError *err)
{
	LlmChannel *channel;
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ||
		fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
	{
		llm_error_errno(err, "could not set up the executor channel");
		return NULL;
	}
	channel = calloc(1, sizeof(LlmChannel));
	if (channel == NULL)
	{
		llm_error_no_memory(err, sizeof(LlmChannel), "an executor channel");
		return NULL;
	}
	channel->fd = fd;
	return channel;
}

void
llm_channel_free(LlmChannel *channel)
{
	if (channel == NULL)
		return;
	close(channel->fd);
	free(channel->in.data);
	free(channel->out.data);
	free(channel);
}

int
llm_channel_fd(const LlmChannel *channel)
{
	return channel->fd;
}

size_t
llm_channel_pending_bytes(const LlmChannel *channel)
{
	return channel->out.end - channel->out.start;
}

bool
llm_channel_send(LlmChannel *channel, LlmMessageType type, uint64_t request_id,
				 const void *head, size_t head_bytes, const void *tail,
				 size_t tail_bytes, LlmError *err)
{
	LlmFrameHeader header = {
		.type = (uint16_t) type,
		.version = LLM_IPC_VERSION,
		.request_id = request_id,
	};
	size_t n_bytes = head_bytes + tail_bytes;
	ByteQueue *out = &channel->out;
	char *dest;

	if (head_bytes > LLM_IPC_MAX_FRAME_BYTES ||
		tail_bytes > LLM_IPC_MAX_FRAME_BYTES ||
		n_bytes > LLM_IPC_MAX_FRAME_BYTES)
		return llm_error_set(err, LLM_ERROR_LIMIT,
							 "a message of %zu bytes is larger than the limit "
							 "of %u",
							 n_bytes, LLM_IPC_MAX_FRAME_BYTES);
	header.n_bytes = (uint32_t) n_bytes;
	if (!queue_reserve(out, sizeof(header) + padded(n_bytes)))
		return llm_error_no_memory(err, n_bytes, "a message");
	dest = out->data + out->end;
	memcpy(dest, &header, sizeof(header));
	dest += sizeof(header);
	if (head_bytes > 0)
		memcpy(dest, head, head_bytes);
	if (tail_bytes > 0)
		memcpy(dest + head_bytes, tail, tail_bytes);
	memset(dest + n_bytes, 0, padded(n_bytes) - n_bytes);
	out->end += sizeof(header) + padded(n_bytes);
	return true;
}

bool
llm_channel_flush(LlmChannel *channel, LlmError *err)
{
	ByteQueue *out = &channel->out;

	while (out->start < out->end)
	{
		ssize_t n = send(channel->fd, out->data + out->start,
						 out->end - out->start, MSG_NOSIGNAL);

		if (n >= 0)
			out->start += (size_t) n;
		else if (errno == EAGAIN || errno == EWOULDBLOCK)
			return true;
		else if (errno != EINTR)
			return llm_error_errno(err, "could not write to the channel");
	}
	out->start = out->end = 0;
	return true;
}

/*
 * Read what the socket has, up to one buffer's worth.  Returns the bytes
 * read, 0 where there are none now, -1 at the end of the stream.
 */
static ssize_t
queue_fill(LlmChannel *channel, LlmError *err)
{
	ByteQueue *in = &channel->in;

	if (!queue_reserve(in, READ_BYTES))
	{
		llm_error_no_memory(err, READ_BYTES, "a message");
		return -1;
	}
	for (;;)
	{
		ssize_t n =
			recv(channel->fd, in->data + in->end, in->capacity - in->end, 0);

		if (n > 0)
		{
			in->end += (size_t) n;
			return n;
		}
		if (n == 0)
		{
			llm_error_set(err, LLM_ERROR_UNAVAILABLE,
						  "the other end closed the channel");
			return -1;
		}
		if (errno == EAGAIN || errno == EWOULDBLOCK)
			return 0;
		if (errno != EINTR)
		{
			llm_error_errno(err, "could not read from the channel");
			return -1;
		}
	}
}

LlmReceiveResult
llm_channel_receive(LlmChannel *channel, LlmFrameHeader *header,
					const void **payload, LlmError *err)
{
	ByteQueue *in = &channel->in;

	in->start += channel->n_delivered;
	channel->n_delivered = 0;
	if (in->start == in->end)
		in->start = in->end = 0;
	for (;;)
	{
		size_t have = in->end - in->start;
		ssize_t n;

		if (have >= sizeof(*header))
		{
			memcpy(header, in->data + in->start, sizeof(*header));
			if (header->version != LLM_IPC_VERSION ||
				header->n_bytes > LLM_IPC_MAX_FRAME_BYTES)
			{
				llm_error_set(err, LLM_ERROR_INTERNAL,
							  "malformed frame on the channel (version %u, "
							  "%u bytes)",
							  header->version, header->n_bytes);
				return LLM_RECEIVE_CLOSED;
			}
			if (have >= sizeof(*header) + padded(header->n_bytes))
			{
				*payload = in->data + in->start + sizeof(*header);
				assert(((uintptr_t) *payload & 7) == 0);
				channel->n_delivered =
					sizeof(*header) + padded(header->n_bytes);
				return LLM_RECEIVE_FRAME;
			}
		}
		n = queue_fill(channel, err);
		if (n < 0)
			return LLM_RECEIVE_CLOSED;
		if (n == 0)
			return LLM_RECEIVE_NOTHING;
	}
}

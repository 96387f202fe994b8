/*
 * test_ipc.c
 *	  Unit tests of src/common/ipc: frames over a socket pair, rings.
 *
 * test/unit/test_ipc.c
 */
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "src/common/ipc/ipc_channel.h"
#include "src/common/ipc/ipc_ring.h"
#include "src/common/util/philox.h"
#include "test/unit/unit_test.h"

static LlmChannel *left;
static LlmChannel *right;

static void
open_pair(void)
{
	int sv[2];
	LlmError err;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sv) != 0)
		abort();
	left = llm_channel_create(sv[0], &err);
	right = llm_channel_create(sv[1], &err);
	if (left == NULL || right == NULL)
		abort();
}

static void
close_pair(void)
{
	llm_channel_free(left);
	llm_channel_free(right);
}

/* Frames of every size up to 300 and some large ones, in one burst. */
static void
frames_arrive_whole_and_in_order(void)
{
	LlmFrameHeader header;
	const void *payload;
	LlmError err;
	char bytes[70000];
	uint64_t n_sent = 0;
	uint64_t n_received = 0;

	open_pair();
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (char) (i * 31);
	while (n_received < 400)
	{
		LlmReceiveResult result;

		if (n_sent < 400)
		{
			size_t n = n_sent < 300 ? n_sent : 60000 + n_sent;

			CHECK(llm_channel_send(left, LLM_MESSAGE_LOAD, n_sent, bytes, n / 3,
								   bytes + n / 3, n - n / 3, &err));
			n_sent++;
		}
		CHECK(llm_channel_flush(left, &err));
		result = llm_channel_receive(right, &header, &payload, &err);
		if (result == LLM_RECEIVE_NOTHING)
			continue;
		REQUIRE(result == LLM_RECEIVE_FRAME);
		CHECK_INT_EQ(header.request_id, n_received);
		CHECK_INT_EQ(header.n_bytes,
					 n_received < 300 ? n_received : 60000 + n_received);
		CHECK(((uintptr_t) payload & 7) == 0);
		CHECK(memcmp(payload, bytes, header.n_bytes) == 0);
		n_received++;
	}
	close_pair();
}

static void
end_of_stream_is_reported(void)
{
	LlmFrameHeader header;
	const void *payload;
	LlmError err;

	open_pair();
	CHECK(llm_channel_send(left, LLM_MESSAGE_STOP, 7, NULL, 0, NULL, 0, &err));
	CHECK(llm_channel_flush(left, &err));
	llm_channel_free(left);
	left = NULL;
	CHECK(llm_channel_receive(right, &header, &payload, &err) ==
		  LLM_RECEIVE_FRAME);
	CHECK_INT_EQ(header.type, LLM_MESSAGE_STOP);
	CHECK(llm_channel_receive(right, &header, &payload, &err) ==
		  LLM_RECEIVE_CLOSED);
	CHECK_INT_EQ(err.code, LLM_ERROR_UNAVAILABLE);
	CHECK(llm_channel_send(right, LLM_MESSAGE_STOP, 0, NULL, 0, NULL, 0, &err));
	CHECK(!llm_channel_flush(right, &err));
	close_pair();
}

static void
garbage_is_refused(void)
{
	LlmFrameHeader header;
	const void *payload;
	LlmError err;

	open_pair();
	CHECK(write(llm_channel_fd(left), "GET / HTTP/1.1\r\n\r\n", 18) == 18);
	CHECK(llm_channel_receive(right, &header, &payload, &err) ==
		  LLM_RECEIVE_CLOSED);
	CHECK_INT_EQ(err.code, LLM_ERROR_INTERNAL);
	close_pair();
	open_pair();
	CHECK(!llm_channel_send(left, LLM_MESSAGE_LOAD, 0, "", 1, "",
							LLM_IPC_MAX_FRAME_BYTES, &err));
	CHECK_INT_EQ(err.code, LLM_ERROR_LIMIT);
	close_pair();
}

typedef struct SharedRing
{
	LlmRing ring;
	char buffer[256];
} SharedRing;

#define RING_TEST_BYTES 2000000

static void *
ring_writer(void *arg)
{
	SharedRing *shared = arg;
	size_t done = 0;
	char piece[100];

	while (done < RING_TEST_BYTES)
	{
		size_t n = 1 + llm_philox(1, done, 0).word[0] % sizeof(piece);

		if (n > RING_TEST_BYTES - done)
			n = RING_TEST_BYTES - done;
		for (size_t i = 0; i < n; i++)
			piece[i] = (char) ((done + i) * 7 + ((done + i) >> 8));
		done += llm_ring_write(&shared->ring, shared->buffer, piece, n);
	}
	return NULL;
}

static void
ring_keeps_order_between_threads(void)
{
	SharedRing *shared = calloc(1, sizeof(SharedRing));
	pthread_t writer;
	size_t done = 0;
	size_t n_wrong = 0;
	char piece[90];

	REQUIRE(shared != NULL);
	llm_ring_init(&shared->ring, sizeof(shared->buffer));
	REQUIRE(pthread_create(&writer, NULL, ring_writer, shared) == 0);
	while (done < RING_TEST_BYTES)
	{
		size_t n = llm_ring_read(&shared->ring, shared->buffer, piece,
								 1 + done % sizeof(piece));

		for (size_t i = 0; i < n; i++)
			n_wrong += piece[i] != (char) ((done + i) * 7 + ((done + i) >> 8));
		done += n;
	}
	pthread_join(writer, NULL);
	CHECK_INT_EQ(n_wrong, 0);
	CHECK_INT_EQ(llm_ring_readable(&shared->ring), 0);
	CHECK_INT_EQ(llm_ring_writable(&shared->ring), 256);
	free(shared);
}

int
main(void)
{
	RUN_TEST(frames_arrive_whole_and_in_order);
	RUN_TEST(end_of_stream_is_reported);
	RUN_TEST(garbage_is_refused);
	RUN_TEST(ring_keeps_order_between_threads);
	return unit_test_finish();
}

/*
 * weight_lender.c
 *	  A descriptor of weights' memory, from the executor that has them to
 *	  another of the same user.
 *
 * The lender listens on a socket in a folder of the data directory that only
 * the server's user may enter, and each side looks at the other's user besides.
 * The socket's name is made of the key; who connects sends the whole key, and
 * gets one byte with the descriptor attached, or the end of the connection.
 * Neither waits long for the other.
 *
 * Sockets are named by way of the folder's descriptor, because their addresses
 * have room for some hundred bytes alone.  A name is taken over by renaming, so
 * that there is no moment without a lender when an executor replaces another;
 * one that was left behind by a crash refuses connections until then.
 *
 * src/engine/executor/weight_lender.c
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "src/engine/executor/weight_lender.h"

/* What an answer may take. */
#define PATIENCE_S 5

#define NAME_BYTES 64

struct LlmWeightLender
{
	LlmWeightKey key;
	int fd;		   /* what is lent */
	int folder_fd; /* where the name is */
	int socket_fd;
	int end_fd; /* an eventfd: the thread is to end */
	char name[NAME_BYTES];
	struct stat named; /* the socket under this name, where it is ours */
	bool has_thread;
	pthread_t thread;
};

/* ------------------------------------------------------------------------
 * Both sides
 * ------------------------------------------------------------------------
 */
static void
make_name(const LlmWeightKey *key, char name[NAME_BYTES])
{
	size_t used = (size_t) snprintf(name, NAME_BYTES, "weights-");

	for (int i = 0; i < 12; i++)
		used += (size_t) snprintf(name + used, NAME_BYTES - used, "%02x",
								  key->digest[i]);
}

static struct sockaddr_un
make_address(int folder_fd, const char *name)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s",
			 folder_fd, name);
	return address;
}

static int
open_folder(const char *folder, LlmError *err)
{
	int fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		llm_error_errno(err, "could not open directory \"%s\"", folder);
	return fd;
}

/* Is the other end of this one's user, and will it not be waited for long? */
static bool
check_peer(int socket_fd)
{
	struct timeval patience = { .tv_sec = PATIENCE_S };
	struct ucred peer = { 0 };
	socklen_t len = sizeof(peer);

	return getsockopt(socket_fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 &&
		   peer.uid == geteuid() &&
		   setsockopt(socket_fd, SOL_SOCKET, SO_RCVTIMEO, &patience,
					  sizeof(patience)) == 0 &&
		   setsockopt(socket_fd, SOL_SOCKET, SO_SNDTIMEO, &patience,
					  sizeof(patience)) == 0;
}

/* A message of one byte and a descriptor. */
typedef union FdMessage
{
	struct cmsghdr align;
	char bytes[CMSG_SPACE(sizeof(int))];
} FdMessage;

/* ------------------------------------------------------------------------
 * The lender
 * ------------------------------------------------------------------------
 */
static void
send_fd(int socket_fd, int fd)
{
	FdMessage control = { 0 };
	char yes = 'y';
	struct iovec part = { &yes, 1 };
	struct msghdr message = { .msg_iov = &part,
							  .msg_iovlen = 1,
							  .msg_control = control.bytes,
							  .msg_controllen = sizeof(control.bytes) };
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(header), &fd, sizeof(int));
	/* who does not get it finds the end of the connection */
	(void) !sendmsg(socket_fd, &message, MSG_NOSIGNAL);
}

static void
answer(const LlmWeightLender *lender)
{
	int socket_fd = accept4(lender->socket_fd, NULL, NULL, SOCK_CLOEXEC);
	LlmWeightKey asked;

	if (socket_fd < 0)
		return;
	if (check_peer(socket_fd) &&
		recv(socket_fd, &asked, sizeof(asked), 0) == (ssize_t) sizeof(asked) &&
		memcmp(&asked, &lender->key, sizeof(asked)) == 0)
		send_fd(socket_fd, lender->fd);
	(void) close(socket_fd);
}

static void *
lender_main(void *arg)
{
	const LlmWeightLender *lender = arg;

	for (;;)
	{
		struct pollfd pfds[2] = {
			{ .fd = lender->end_fd, .events = POLLIN },
			{ .fd = lender->socket_fd, .events = POLLIN },
		};

		if (poll(pfds, 2, -1) < 0)
			continue;
		if (pfds[0].revents != 0)
			return NULL;
		if (pfds[1].revents != 0)
			answer(lender);
	}
}

/* Listen under the key's name, in place of whoever had it. */
static bool
take_name(LlmWeightLender *lender, LlmError *err)
{
	char own[NAME_BYTES + 16];
	struct sockaddr_un address;

	snprintf(own, sizeof(own), "%s.%d", lender->name, (int) getpid());
	address = make_address(lender->folder_fd, own);
	(void) unlinkat(lender->folder_fd, own, 0);
	lender->socket_fd =
		socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (lender->socket_fd >= 0 &&
		bind(lender->socket_fd, (struct sockaddr *) &address,
			 sizeof(address)) == 0)
	{
		if (listen(lender->socket_fd, 8) == 0 &&
			fstatat(lender->folder_fd, own, &lender->named,
					AT_SYMLINK_NOFOLLOW) == 0 &&
			renameat(lender->folder_fd, own, lender->folder_fd, lender->name) ==
				0)
			return true;
		(void) unlinkat(lender->folder_fd, own, 0);
	}
	lender->named = (struct stat){ 0 };
	return llm_error_errno(err, "could not listen on \"%s\"", lender->name);
}

LlmWeightLender *
llm_weight_lender_open(const char *folder, const LlmWeightKey *key, int fd,
					   LlmError *err)
{
	LlmWeightLender *lender = calloc(1, sizeof(*lender));

	assert(fd >= 0);
	if (lender == NULL)
	{
		llm_error_no_memory(err, sizeof(*lender), "lending weights");
		return NULL;
	}
	lender->key = *key;
	lender->fd = lender->socket_fd = lender->end_fd = -1;
	make_name(key, lender->name);
	lender->folder_fd = open_folder(folder, err);
	if (lender->folder_fd >= 0 && take_name(lender, err))
	{
		lender->fd = fd;
		lender->end_fd = eventfd(0, EFD_CLOEXEC);
		lender->has_thread =
			lender->end_fd >= 0 &&
			pthread_create(&lender->thread, NULL, lender_main, lender) == 0;
		if (!lender->has_thread)
			llm_error_set(err, LLM_ERROR_IO,
						  "could not start the lender of weights");
	}
	if (lender->has_thread)
		return lender;
	lender->fd = -1; /* stays the caller's */
	llm_weight_lender_close(lender);
	return NULL;
}

/* The name stays where another lender has it by now. */
static void
give_up_name(const LlmWeightLender *lender)
{
	struct stat now;

	if (lender->named.st_ino != 0 &&
		fstatat(lender->folder_fd, lender->name, &now, AT_SYMLINK_NOFOLLOW) ==
			0 &&
		now.st_ino == lender->named.st_ino &&
		now.st_dev == lender->named.st_dev)
		(void) unlinkat(lender->folder_fd, lender->name, 0);
}

static void
close_fd(int fd)
{
	if (fd >= 0)
		(void) close(fd);
}

void
llm_weight_lender_close(LlmWeightLender *lender)
{
	const uint64_t one = 1;

	if (lender == NULL)
		return;
	if (lender->has_thread)
	{
		(void) !write(lender->end_fd, &one, sizeof(one));
		pthread_join(lender->thread, NULL);
	}
	if (lender->folder_fd >= 0)
		give_up_name(lender);
	close_fd(lender->fd);
	close_fd(lender->socket_fd);
	close_fd(lender->end_fd);
	close_fd(lender->folder_fd);
	free(lender);
}

/* ------------------------------------------------------------------------
 * The borrower
 * ------------------------------------------------------------------------
 */

/* -1: the other end had nothing to give. */
static int
receive_fd(int socket_fd)
{
	FdMessage control = { 0 };
	char byte;
	struct iovec part = { &byte, 1 };
	struct msghdr message = { .msg_iov = &part,
							  .msg_iovlen = 1,
							  .msg_control = control.bytes,
							  .msg_controllen = sizeof(control.bytes) };
	struct cmsghdr *header;
	int fd = -1;

	if (recvmsg(socket_fd, &message, MSG_CMSG_CLOEXEC) != 1)
		return -1;
	header = CMSG_FIRSTHDR(&message);
	if (header != NULL && header->cmsg_level == SOL_SOCKET &&
		header->cmsg_type == SCM_RIGHTS &&
		header->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(&fd, CMSG_DATA(header), sizeof(int));
	return fd;
}

/* Connected, to a process of the same user; -1: there is none. */
static int
connect_lender(int folder_fd, const LlmWeightKey *key)
{
	int socket_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	struct sockaddr_un address;
	char name[NAME_BYTES];

	make_name(key, name);
	address = make_address(folder_fd, name);
	if (socket_fd >= 0 &&
		connect(socket_fd, (struct sockaddr *) &address, sizeof(address)) ==
			0 &&
		check_peer(socket_fd))
		return socket_fd;
	close_fd(socket_fd);
	return -1;
}

int
llm_weight_borrow(const char *folder, const LlmWeightKey *key, LlmError *err)
{
	int folder_fd = open_folder(folder, err);
	int socket_fd;
	int fd = -1;

	if (folder_fd < 0)
		return -1;
	socket_fd = connect_lender(folder_fd, key);
	close_fd(folder_fd);
	if (socket_fd >= 0 && send(socket_fd, key, sizeof(*key), MSG_NOSIGNAL) ==
							  (ssize_t) sizeof(*key))
		fd = receive_fd(socket_fd);
	close_fd(socket_fd);
	if (fd < 0)
		llm_error_set(err, LLM_ERROR_UNAVAILABLE,
					  "no executor lends these weights");
	return fd;
}

/*
 * busy_sign.c
 *	  How many requests there are, for those who want to stay out of their way.
 *
 * src/common/ipc/busy_sign.c
 */
#include <assert.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/common/ipc/busy_sign.h"

struct LlmBusySignPage
{
	_Atomic uint32_t n_requests; /* by the writer; without a lock */
};

_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "the page is of several processes");

static bool
map_page(LlmBusySign *sign, const char *path, int fd, bool is_writer,
		 LlmError *err)
{
	void *page =
		mmap(NULL, sizeof(LlmBusySignPage),
			 is_writer ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);

	if (page == MAP_FAILED)
		return llm_error_errno(err, "could not map \"%s\"", path);
	sign->page = page;
	return true;
}

bool
llm_busy_sign_create(LlmBusySign *sign, const char *path, LlmError *err)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	bool ok;

	sign->page = NULL;
	if (fd < 0)
		return llm_error_errno(err, "could not create \"%s\"", path);
	ok = ftruncate(fd, (off_t) sizeof(LlmBusySignPage)) == 0 ||
		 llm_error_errno(err, "could not write \"%s\"", path);
	ok = ok && map_page(sign, path, fd, true, err);
	(void) close(fd);
	if (ok)
		llm_busy_sign_set(sign, 0);
	return ok;
}

bool
llm_busy_sign_open(LlmBusySign *sign, const char *path, LlmError *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;
	bool ok;

	sign->page = NULL;
	if (fd < 0)
		return llm_error_errno(err, "could not open \"%s\"", path);
	ok = fstat(fd, &st) == 0 && st.st_size == (off_t) sizeof(LlmBusySignPage);
	if (!ok)
		llm_error_set(err, LLM_ERROR_INVALID,
					  "\"%s\" does not say how many requests there are", path);
	ok = ok && map_page(sign, path, fd, false, err);
	(void) close(fd);
	return ok;
}

void
llm_busy_sign_close(LlmBusySign *sign)
{
	if (sign->page != NULL)
		(void) munmap(sign->page, sizeof(LlmBusySignPage));
	sign->page = NULL;
}

void
llm_busy_sign_set(LlmBusySign *sign, uint32_t n_requests)
{
	assert(sign->page != NULL);
	atomic_store_explicit(&sign->page->n_requests, n_requests,
						  memory_order_relaxed);
}

uint32_t
llm_busy_sign_get(const LlmBusySign *sign)
{
	assert(sign->page != NULL);
	return atomic_load_explicit(&sign->page->n_requests, memory_order_relaxed);
}

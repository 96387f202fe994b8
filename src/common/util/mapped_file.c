/*
 * mapped_file.c
 *	  A whole file, mapped read-only and shared.
 *
 * src/common/util/mapped_file.c
 */
#include "src/common/util/mapped_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Linux 5.14; an older kernel or C library does without. */
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

bool
llm_mapped_file_open(LlmMappedFile *file, const char *path, LlmError *err)
{
	struct stat st;
	void *data;
	int fd;

	memset(file, 0, sizeof(*file));
	/* O_NONBLOCK: opening a FIFO must not hang before we can refuse it */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return llm_error_errno(err, "could not open \"%s\"", path);
	if (fstat(fd, &st) != 0)
	{
		llm_error_errno(err, "could not stat \"%s\"", path);
		close(fd);
		return false;
	}
	if (!S_ISREG(st.st_mode))
	{
		close(fd);
		return llm_error_set(err, LLM_ERROR_FORMAT,
							 "\"%s\" is not a regular file", path);
	}
	if (st.st_size == 0)
	{
		close(fd);
		file->data = "";
		return true;
	}
	data = mmap(NULL, (size_t) st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (data == MAP_FAILED)
	{
		llm_error_errno(err, "could not map \"%s\"", path);
		close(fd);
		return false;
	}
	close(fd);
	file->data = data;
	file->size = (size_t) st.st_size;
	return true;
}

bool
llm_mapped_file_prefetch(const LlmMappedFile *file, const char *path,
						 LlmError *err)
{
	/* the system calls EFAULT what would have been a SIGBUS */
	if (file->size > 0 &&
		madvise((void *) file->data, file->size, MADV_POPULATE_READ) != 0 &&
		(errno == EFAULT || errno == EIO))
		return llm_error_set(err, LLM_ERROR_IO, "could not read \"%s\"", path);
	return true;
}

void
llm_mapped_file_release(const void *data, size_t n_bytes)
{
	uintptr_t page = (uintptr_t) sysconf(_SC_PAGESIZE);
	uintptr_t begin = ((uintptr_t) data + page - 1) / page * page;
	uintptr_t end = ((uintptr_t) data + n_bytes) / page * page;

	if (begin < end)
		(void) madvise((void *) begin, end - begin, MADV_DONTNEED);
}

void
llm_mapped_file_close(LlmMappedFile *file)
{
	if (file->size > 0)
		munmap((void *) file->data, file->size);
	memset(file, 0, sizeof(*file));
}

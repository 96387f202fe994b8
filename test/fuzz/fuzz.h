/*
 * fuzz.h
 *	  What the fuzz targets share.
 *
 * A target is one function that takes any bytes.  "make fuzz" links it with
 * libFuzzer; "make test" links it with replay.c and gives it the committed
 * corpus, so that what was found once stays mended.
 *
 * test/fuzz/fuzz.h
 */
#ifndef LLM_FUZZ_H
#define LLM_FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

extern int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_PATH_BYTES 64

#define FUZZ_CHECK(condition)                                                  \
	do                                                                         \
	{                                                                          \
		if (!(condition))                                                      \
		{                                                                      \
			fprintf(stderr, "%s:%d: broken promise: %s\n", __FILE__, __LINE__, \
					#condition);                                               \
			abort();                                                           \
		}                                                                      \
	} while (0)

/* A file in memory that holds the bytes, for what takes a path only. */
static inline int
fuzz_file(const uint8_t *data, size_t size, char path[FUZZ_PATH_BYTES])
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	if (fd < 0 || write(fd, data, size) != (ssize_t) size)
		abort();
	snprintf(path, FUZZ_PATH_BYTES, "/proc/self/fd/%d", fd);
	return fd;
}

#endif /* LLM_FUZZ_H */

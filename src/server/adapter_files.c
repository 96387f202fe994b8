/*
 * adapter_files.c
 *	  The files that executors map adapters from.
 *
 * A file's time of modification is when it was last asked for, to about a
 * minute.
 *
 * src/server/adapter_files.c
 */
#include "src/server/adapter_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/fd.h"

/* The prefix makes base backups and pg_rewind skip the folder. */
#define ADAPTER_FOLDER "pgsql_tmp_llm_ext_adapters"
#define IMAGE_SUFFIX ".safetensors"

/* Files are marked as used no more often than that. */
#define TOUCH_SECONDS 60

/* So long after its last use a file stays in any case. */
#define KEEP_SECONDS 600

void
llm_adapter_file_path(const uint8 digest[LLM_SHA256_BYTES],
					  char path[MAXPGPATH])
{
	int len = snprintf(path, MAXPGPATH, "%s/%s/", DataDir, ADAPTER_FOLDER);

	for (int i = 0; i < LLM_SHA256_BYTES; i++)
		len += snprintf(path + len, MAXPGPATH - len, "%02x", digest[i]);
	snprintf(path + len, MAXPGPATH - len, "%s", IMAGE_SUFFIX);
}

void
llm_adapter_file_temp_path(char path[MAXPGPATH])
{
	static uint32 n_paths;

	snprintf(path, MAXPGPATH, "%s/%s/new-%d-%u.tmp", DataDir, ADAPTER_FOLDER,
			 MyProcPid, ++n_paths);
}

bool
llm_adapter_file_touch(const uint8 digest[LLM_SHA256_BYTES], uint64 n_bytes)
{
	char path[MAXPGPATH];
	struct stat st;

	llm_adapter_file_path(digest, path);
	if (stat(path, &st) != 0 || (uint64) st.st_size != n_bytes)
		return false;
	if (time(NULL) - st.st_mtime > TOUCH_SECONDS)
		return utimensat(AT_FDCWD, path, NULL, 0) == 0;
	return true;
}

int
llm_adapter_file_create(const char *temp_path)
{
	char folder[MAXPGPATH];
	int fd;

	snprintf(folder, sizeof(folder), "%s/%s", DataDir, ADAPTER_FOLDER);
	if (mkdir(folder, S_IRWXU) < 0 && errno != EEXIST)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not create directory \"%s\": %m", folder)));
	fd = OpenTransientFile(temp_path, O_WRONLY | O_CREAT | O_TRUNC | PG_BINARY);
	if (fd < 0)
		ereport(ERROR, (errcode_for_file_access(),
						errmsg("could not create file \"%s\": %m", temp_path)));
	return fd;
}

void
llm_adapter_file_write(int fd, const char *temp_path, const void *bytes,
					   Size n_bytes)
{
	const char *from = bytes;

	while (n_bytes > 0)
	{
		ssize_t n = write(fd, from, Min(n_bytes, (Size) 1 << 30));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not write file \"%s\": %m", temp_path)));
		from += n;
		n_bytes -= (Size) n;
	}
}

void
llm_adapter_file_publish(int fd, const char *temp_path,
						 const uint8 digest[LLM_SHA256_BYTES])
{
	char path[MAXPGPATH];

	llm_adapter_file_path(digest, path);
	if (pg_fsync(fd) != 0 || CloseTransientFile(fd) != 0 ||
		rename(temp_path, path) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not complete file \"%s\": %m", temp_path)));
}

/* -- removing -- */

typedef struct CachedFile
{
	char path[MAXPGPATH];
	time_t used_at;
	uint64 n_bytes;
} CachedFile;

static int
compare_use(const void *a, const void *b)
{
	time_t x = ((const CachedFile *) a)->used_at;
	time_t y = ((const CachedFile *) b)->used_at;

	return (x > y) - (x < y);
}

/* Old temporary files are of processes that ended before they were done. */
static void
note_file(const char *path, CachedFile **files, int *n_files, int *capacity)
{
	Size len = strlen(path);
	struct stat st;

	if (stat(path, &st) != 0 || !S_ISREG(st.st_mode))
		return;
	if (len < strlen(IMAGE_SUFFIX) ||
		strcmp(path + len - strlen(IMAGE_SUFFIX), IMAGE_SUFFIX) != 0)
	{
		if (time(NULL) - st.st_mtime > KEEP_SECONDS)
			(void) unlink(path);
		return;
	}
	if (*n_files == *capacity)
	{
		*capacity *= 2;
		*files = repalloc(*files, (Size) *capacity * sizeof(CachedFile));
	}
	strlcpy((*files)[*n_files].path, path, MAXPGPATH);
	(*files)[*n_files].used_at = st.st_mtime;
	(*files)[(*n_files)++].n_bytes = (uint64) st.st_size;
}

void
llm_adapter_files_trim(uint64 max_bytes, bool (*is_used)(const char *path))
{
	char folder[MAXPGPATH];
	int capacity = 64;
	int n_files = 0;
	uint64 n_bytes = 0;
	CachedFile *files;
	struct dirent *item;
	DIR *dir;

	snprintf(folder, sizeof(folder), "%s/%s", DataDir, ADAPTER_FOLDER);
	dir = opendir(folder);
	if (dir == NULL)
		return; /* no adapter was ever used */
	files = palloc((Size) capacity * sizeof(CachedFile));
	while ((item = readdir(dir)) != NULL)
	{
		char path[MAXPGPATH * 2];

		snprintf(path, sizeof(path), "%s/%s", folder, item->d_name);
		note_file(path, &files, &n_files, &capacity);
	}
	(void) closedir(dir);
	for (int i = 0; i < n_files; i++)
		n_bytes += files[i].n_bytes;
	qsort(files, (Size) n_files, sizeof(CachedFile), compare_use);
	for (int i = 0; i < n_files && n_bytes > max_bytes; i++)
	{
		if (time(NULL) - files[i].used_at < KEEP_SECONDS ||
			is_used(files[i].path))
			continue;
		(void) unlink(files[i].path);
		n_bytes -= files[i].n_bytes;
	}
	pfree(files);
}

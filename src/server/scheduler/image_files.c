/*
 * image_files.c
 *	  Where executors write model images, and when those go away.
 *
 * All images lie in one folder of the data directory.  Each start of an
 * executor writes a file of its own; the supervisor decides which name backend
 * processes learn.
 *
 * src/server/scheduler/image_files.c
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "miscadmin.h"
#include "src/common/util/clock.h"
#include "src/server/scheduler/scheduler_process.h"
#include "storage/fd.h"

/* The prefix makes base backups and pg_rewind skip the folder. */
#define IMAGE_FOLDER "pgsql_tmp_llm_ext"

#define MAX_RETIRED_IMAGES 16
#define RETIRED_IMAGE_US INT64CONST(30000000)

typedef struct RetiredImage
{
	char path[MAXPGPATH]; /* empty: none */
	int64 remove_at_us;
} RetiredImage;

static RetiredImage retired_images[MAX_RETIRED_IMAGES];
static uint32 next_retired;

static uint64 n_paths; /* makes names unique */

void
llm_image_make_path(char *dest, Size size, int32 idx)
{
	snprintf(dest, size, "%s/%s/model-%d-%u-%llu.img", DataDir, IMAGE_FOLDER,
			 idx, llm_shared->epoch, (unsigned long long) ++n_paths);
}

/* Is this the image of a model that is to be served again? */
static bool
image_is_known(const char *path)
{
	for (int32 i = 0; i < llm_shared->n_models; i++)
		if (llm_models[i].is_used &&
			strcmp(llm_models[i].image_path, path) == 0)
			return true;
	return false;
}

void
llm_images_init(void)
{
	char folder[MAXPGPATH];
	DIR *dir;
	struct dirent *item;

	snprintf(folder, sizeof(folder), "%s/%s", DataDir, IMAGE_FOLDER);
	if (mkdir(folder, S_IRWXU) < 0 && errno != EEXIST)
		ereport(WARNING,
				(errcode_for_file_access(),
				 errmsg("could not create directory \"%s\": %m", folder)));
	dir = AllocateDir(folder);
	if (dir == NULL)
		return;
	while ((item = ReadDirExtended(dir, folder, LOG)) != NULL)
	{
		char path[MAXPGPATH * 2];

		if (strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s", folder, item->d_name);
		if (!image_is_known(path))
			(void) unlink(path);
	}
	FreeDir(dir);
}

void
llm_image_remove(char *path)
{
	if (path[0] != '\0')
		(void) unlink(path);
	path[0] = '\0';
}

/*
 * Remove an image a while later: a backend process may have looked its path
 * up and not opened it yet.
 */
void
llm_image_retire(char *path)
{
	RetiredImage *image = &retired_images[next_retired++ % MAX_RETIRED_IMAGES];

	llm_image_remove(image->path);
	strlcpy(image->path, path, sizeof(image->path));
	image->remove_at_us = llm_clock_us() + RETIRED_IMAGE_US;
	path[0] = '\0';
}

void
llm_images_remove_retired(void)
{
	for (int i = 0; i < MAX_RETIRED_IMAGES; i++)
		if (retired_images[i].path[0] != '\0' &&
			retired_images[i].remove_at_us <= llm_scheduler_now_us())
			llm_image_remove(retired_images[i].path);
}

/*
 * image_files.c
 *	  Where executors write model images, and when those go away; what else they
 *	  find in the same folder.
 *
 * All images lie in one folder of the data directory.  Each start of an
 * executor writes a file of its own; the supervisor decides which name backend
 * processes learn.
 *
 * Executors on a GPU have sockets there, by which they lend their weights, and
 * one file says how many requests there are.  It outlives the scheduler that
 * made it, because jobs go on to look at it.
 *
 * src/server/scheduler/image_files.c
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "miscadmin.h"
#include "src/common/ipc/busy_sign.h"
#include "src/common/util/clock.h"
#include "src/server/report.h"
#include "src/server/scheduler/scheduler_process.h"
#include "storage/fd.h"

/* The prefix makes base backups and pg_rewind skip the folder. */
#define IMAGE_FOLDER "pgsql_tmp_llm_ext"

#define BUSY_SIGN_NAME "requests"

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

static LlmBusySign busy_sign; /* closed where it could not be made */

const char *
llm_image_folder(void)
{
	static char path[MAXPGPATH];

	snprintf(path, sizeof(path), "%s/%s", DataDir, IMAGE_FOLDER);
	return path;
}

const char *
llm_busy_sign_path(void)
{
	static char path[MAXPGPATH + sizeof(BUSY_SIGN_NAME)];

	snprintf(path, sizeof(path), "%s/%s", llm_image_folder(), BUSY_SIGN_NAME);
	return path;
}

static void
make_busy_sign(void)
{
	LlmError err;

	if (!llm_busy_sign_create(&busy_sign, llm_busy_sign_path(), &err))
		llm_report(WARNING, &err);
}

void
llm_busy_sign_publish(uint32 n_requests)
{
	if (busy_sign.page != NULL && llm_busy_sign_get(&busy_sign) != n_requests)
		llm_busy_sign_set(&busy_sign, n_requests);
}

void
llm_image_make_path(char *dest, Size size, int32 idx)
{
	snprintf(dest, size, "%s/model-%d-%u-%llu.img", llm_image_folder(), idx,
			 llm_shared->epoch, (unsigned long long) ++n_paths);
}

/* Is this the image of a model that is to be served again, or the sign? */
static bool
is_known(const char *path)
{
	if (strcmp(path, llm_busy_sign_path()) == 0)
		return true;
	for (int32 i = 0; i < llm_shared->n_models; i++)
		if (llm_models[i].is_used &&
			strcmp(llm_models[i].image_path, path) == 0)
			return true;
	return false;
}

void
llm_images_init(void)
{
	const char *folder = llm_image_folder();
	DIR *dir;
	struct dirent *item;

	if (mkdir(folder, S_IRWXU) < 0 && errno != EEXIST)
		ereport(WARNING,
				(errcode_for_file_access(),
				 errmsg("could not create directory \"%s\": %m", folder)));
	make_busy_sign();
	dir = AllocateDir(folder);
	if (dir == NULL)
		return;
	while ((item = ReadDirExtended(dir, folder, LOG)) != NULL)
	{
		char path[MAXPGPATH * 2];

		if (strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s", folder, item->d_name);
		if (!is_known(path))
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

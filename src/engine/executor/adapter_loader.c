/*
 * adapter_loader.c
 *	  A thread that turns adapters' files into images.
 *
 * Two lists under one mutex: what is to be loaded, and what is done.  An
 * eventfd wakes the step loop's poll.
 *
 * src/engine/executor/adapter_loader.c
 */
#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "src/engine/executor/adapter_loader.h"

typedef struct LoadList
{
	LlmAdapterLoad *first;
	LlmAdapterLoad **last; /* where the next one is linked */
} LoadList;

struct LlmAdapterLoader
{
	const LlmModel *model;
	int32_t max_rank;
	int fd;
	bool has_thread;
	pthread_t thread;
	pthread_mutex_t mutex; /* of all below */
	pthread_cond_t changed;
	bool is_ending;
	LoadList waiting;
	LoadList done;
};

static void
append(LoadList *list, LlmAdapterLoad *load)
{
	load->next = NULL;
	*list->last = load;
	list->last = &load->next;
}

static LlmAdapterLoad *
take_first(LoadList *list)
{
	LlmAdapterLoad *load = list->first;

	if (load == NULL)
		return NULL;
	list->first = load->next;
	if (list->first == NULL)
		list->last = &list->first;
	return load;
}

/* The next load; NULL: the thread is to end. */
static LlmAdapterLoad *
next_load(LlmAdapterLoader *loader)
{
	LlmAdapterLoad *load = NULL;

	pthread_mutex_lock(&loader->mutex);
	while (!loader->is_ending && loader->waiting.first == NULL)
		pthread_cond_wait(&loader->changed, &loader->mutex);
	if (!loader->is_ending)
		load = take_first(&loader->waiting);
	pthread_mutex_unlock(&loader->mutex);
	return load;
}

static void *
loader_main(void *arg)
{
	LlmAdapterLoader *loader = arg;
	LlmAdapterLoad *load;
	const uint64_t one = 1;

	while ((load = next_load(loader)) != NULL)
	{
		load->ok =
			llm_model_adapter_load(loader->model, load->path, loader->max_rank,
								   &load->adapter, &load->err);
		pthread_mutex_lock(&loader->mutex);
		append(&loader->done, load);
		pthread_mutex_unlock(&loader->mutex);
		/* it can only fail where the counter is full: awake anyway */
		(void) !write(loader->fd, &one, sizeof(one));
	}
	return NULL;
}

LlmAdapterLoader *
llm_adapter_loader_create(const LlmModel *model, int32_t max_rank,
						  LlmError *err)
{
	LlmAdapterLoader *loader = calloc(1, sizeof(*loader));

	if (loader == NULL)
	{
		llm_error_no_memory(err, sizeof(*loader), "loading adapters");
		return NULL;
	}
	loader->model = model;
	loader->max_rank = max_rank;
	loader->waiting.last = &loader->waiting.first;
	loader->done.last = &loader->done.first;
	pthread_mutex_init(&loader->mutex, NULL);
	pthread_cond_init(&loader->changed, NULL);
	loader->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	loader->has_thread =
		loader->fd >= 0 &&
		pthread_create(&loader->thread, NULL, loader_main, loader) == 0;
	if (loader->has_thread)
		return loader;
	llm_error_set(err, LLM_ERROR_IO, "could not start the adapters' loader");
	llm_adapter_loader_free(loader);
	return NULL;
}

void
llm_adapter_loader_free(LlmAdapterLoader *loader)
{
	if (loader == NULL)
		return;
	pthread_mutex_lock(&loader->mutex);
	loader->is_ending = true;
	pthread_cond_signal(&loader->changed);
	pthread_mutex_unlock(&loader->mutex);
	if (loader->has_thread)
		pthread_join(loader->thread, NULL);
	if (loader->fd >= 0)
		close(loader->fd);
	pthread_cond_destroy(&loader->changed);
	pthread_mutex_destroy(&loader->mutex);
	free(loader);
}

void
llm_adapter_loader_add(LlmAdapterLoader *loader, LlmAdapterLoad *load)
{
	pthread_mutex_lock(&loader->mutex);
	append(&loader->waiting, load);
	pthread_cond_signal(&loader->changed);
	pthread_mutex_unlock(&loader->mutex);
}

LlmAdapterLoad *
llm_adapter_loader_take(LlmAdapterLoader *loader)
{
	LlmAdapterLoad *load;
	uint64_t n;

	pthread_mutex_lock(&loader->mutex);
	load = take_first(&loader->done);
	/* whoever comes now writes again */
	if (load == NULL)
		(void) !read(loader->fd, &n, sizeof(n));
	pthread_mutex_unlock(&loader->mutex);
	return load;
}

int
llm_adapter_loader_fd(const LlmAdapterLoader *loader)
{
	return loader->fd;
}

/*
 * model_handle.c
 *	  A model as a backend process sees it.
 *
 * Images are mapped on first use and kept for the life of the process, so the
 * second call pays a lookup in the model table and nothing else.  When a
 * model was replaced, its old image stays mapped while an answer is still
 * being read through it (a cursor, a set-returning function).
 *
 * src/server/sql/model_handle.c
 */
#include "postgres.h"

#include "src/server/catalog/model_rights.h"
#include "src/server/report.h"
#include "src/server/sql/model_handle.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#define MAX_HANDLES 32

/* An array of pointers, so that handles do not move. */
static LlmModelHandle *handles[MAX_HANDLES];

static bool
handle_is_current(const LlmModelHandle *handle, const LlmModelInfo *info)
{
	return handle->info.model_idx == info->model_idx &&
		   handle->info.generation == info->generation &&
		   strcmp(handle->info.image_path, info->image_path) == 0;
}

static void
close_handle(int i)
{
	llm_model_image_close(handles[i]->image);
	pfree(handles[i]);
	handles[i] = NULL;
}

/* An unused place; handles of replaced models that nobody reads make room. */
static int
find_place(const LlmModelInfo *info)
{
	int free_place = -1;

	for (int i = 0; i < MAX_HANDLES; i++)
	{
		if (handles[i] != NULL && handles[i]->n_users == 0 &&
			handles[i]->info.model_idx == info->model_idx)
			close_handle(i);
		if (handles[i] == NULL)
			free_place = i;
	}
	for (int i = 0; i < MAX_HANDLES && free_place < 0; i++)
	{
		if (handles[i]->n_users == 0)
		{
			close_handle(i);
			free_place = i;
		}
	}
	if (free_place < 0)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many models are in use by this session at once")));
	return free_place;
}

static LlmModelHandle *
open_handle(const LlmModelInfo *info)
{
	int place = find_place(info);
	LlmModelHandle *handle;
	LlmModelImage *image;
	LlmError err;

	image = llm_model_image_open(info->image_path, &err);
	if (image == NULL)
		llm_report(ERROR, &err);
	handle = MemoryContextAllocExtended(TopMemoryContext, sizeof(*handle),
										MCXT_ALLOC_NO_OOM | MCXT_ALLOC_ZERO);
	if (handle == NULL)
	{
		llm_model_image_close(image);
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	}
	handle->info = *info;
	handle->image = image;
	handle->tokenizer = llm_model_image_tokenizer(image);
	handle->facts = llm_model_image_facts(image);
	handles[place] = handle;
	return handle;
}

LlmModelHandle *
llm_model_handle_get(const char *name)
{
	LlmModelInfo info;

	llm_scheduler_get_model(name, &info);
	llm_model_rights_check(GetUserId(), info.name);
	for (int i = 0; i < MAX_HANDLES; i++)
	{
		if (handles[i] != NULL && handle_is_current(handles[i], &info))
		{
			handles[i]->info = info;
			return handles[i];
		}
	}
	return open_handle(&info);
}

void
llm_model_handle_pin(LlmModelHandle *handle)
{
	handle->n_users++;
}

void
llm_model_handle_unpin(LlmModelHandle *handle)
{
	Assert(handle->n_users > 0);
	handle->n_users--;
}

const LlmChatTemplate *
llm_model_handle_template(LlmModelHandle *handle, bool has_tools)
{
	LlmError err;
	const LlmChatTemplate *chat_template =
		llm_model_image_chat_template(handle->image, has_tools, &err);

	if (chat_template == NULL)
		llm_report(ERROR, &err);
	return chat_template;
}

/*
 * dataset_options.c
 *	  Options that say how a query's rows become a dataset.
 *
 * src/server/finetune/dataset_options.c
 */
#include "src/server/finetune/dataset_options.h"

#include "lib/stringinfo.h"
#include "src/server/report.h"

void
llm_dataset_options_init(LlmDatasetOptions *options)
{
	memset(options, 0, sizeof(*options));
	llm_row_options_init(&options->row);
	options->seed = 42;
}

static void __attribute__((noreturn))
fail_value(const cJSON *member, const char *wanted)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("option \"%s\" must be %s", member->string, wanted)));
	pg_unreachable();
}

static const char *
take_string(const cJSON *member)
{
	if (!cJSON_IsString(member))
		fail_value(member, "a string");
	return pstrdup(member->valuestring);
}

static bool
take_bool(const cJSON *member)
{
	if (!cJSON_IsBool(member))
		fail_value(member, "true or false");
	return cJSON_IsTrue(member);
}

static int64
take_count(const cJSON *member, int64 most)
{
	if (!cJSON_IsNumber(member) || !(member->valuedouble >= 1) ||
		member->valuedouble > (double) most ||
		member->valuedouble != (double) (int64) member->valuedouble)
		fail_value(member,
				   psprintf("a whole number from 1 to " INT64_FORMAT, most));
	return (int64) member->valuedouble;
}

/* Which of these strings it is. */
static int
take_choice(const cJSON *member, const char *const *names, int n_names)
{
	StringInfoData list;

	for (int i = 0; i < n_names; i++)
	{
		if (cJSON_IsString(member) &&
			strcmp(member->valuestring, names[i]) == 0)
			return i;
	}
	initStringInfo(&list);
	for (int i = 0; i < n_names; i++)
		appendStringInfo(&list, "%s\"%s\"",
						 i == 0				? ""
						 : i == n_names - 1 ? " or "
											: ", ",
						 names[i]);
	fail_value(member, list.data);
}

static void
take_val_size(LlmDatasetOptions *options, const cJSON *member)
{
	const double value = cJSON_IsNumber(member) ? member->valuedouble : -1;

	if (!(value >= 0) || value > 1e15 ||
		(value >= 1 && value != (double) (int64) value))
		fail_value(member, "a number of rows, or a part of them below 1");
	options->val_size = value;
}

/* {"messages": "chat", "label": null, ...} */
static void
take_columns(LlmDatasetOptions *options, const cJSON *member)
{
	const cJSON *item;

	if (!cJSON_IsObject(member))
		fail_value(member, "an object");
	cJSON_ArrayForEach(item, member)
	{
		const LlmRowPart part = llm_row_part_find(item->string);

		if (part == LLM_PART_COUNT)
			ereport(
				ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"columns\" has \"%s\", which is no part of "
						"a row",
						item->string)));
		if (!cJSON_IsNull(item) &&
			(!cJSON_IsString(item) || item->valuestring[0] == '\0'))
			fail_value(member, "an object of column names, or null for none");
		options->row.columns[part] =
			cJSON_IsNull(item) ? "" : pstrdup(item->valuestring);
	}
}

/* {"role_tag": "from", "user_tag": "human", ...} */
static void
take_tags(LlmDatasetOptions *options, const cJSON *member)
{
	LlmRowTags *tags = &options->row.tags;
	const struct
	{
		const char *name;
		const char **tag;
	} known[] = { { "role_tag", &tags->role },
				  { "content_tag", &tags->content },
				  { "user_tag", &tags->user },
				  { "assistant_tag", &tags->assistant },
				  { "observation_tag", &tags->observation },
				  { "function_tag", &tags->function },
				  { "system_tag", &tags->system } };
	const cJSON *item;

	if (!cJSON_IsObject(member))
		fail_value(member, "an object");
	cJSON_ArrayForEach(item, member)
	{
		int i = 0;

		while (i < lengthof(known) && strcmp(known[i].name, item->string) != 0)
			i++;
		if (i == lengthof(known))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("option \"tags\" has \"%s\", which is no tag",
							item->string)));
		*known[i].tag = take_string(item);
	}
}

static char *
copy_json(const cJSON *value)
{
	char *json = cJSON_PrintUnformatted(value);
	char *copy;

	if (json == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	copy = MemoryContextAllocExtended(CurrentMemoryContext, strlen(json) + 1,
									  MCXT_ALLOC_NO_OOM);
	if (copy != NULL)
		strcpy(copy, json);
	cJSON_free(json);
	if (copy == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	return copy;
}

static void
take_kwargs(LlmDatasetOptions *options, const cJSON *member)
{
	if (options->row.kwargs != NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("options \"enable_thinking\" and "
							   "\"chat_template_kwargs\" exclude each other")));
	if (strcmp(member->string, "enable_thinking") == 0)
		options->row.kwargs = take_bool(member) ? "{\"enable_thinking\":true}"
												: "{\"enable_thinking\":false}";
	else if (cJSON_IsObject(member))
		options->row.kwargs = copy_json(member);
	else
		fail_value(member, "an object");
}

static bool
take_row_option(LlmRowOptions *row, const cJSON *member)
{
	static const char *const overlong[] = { "error", "drop", "truncate",
											"split" };
	const char *name = member->string;

	if (strcmp(name, "cutoff_len") == 0)
		row->cutoff_len = (int32) take_count(member, PG_INT32_MAX / 2);
	else if (strcmp(name, "overlong") == 0)
		row->overlong =
			(LlmOverlong) take_choice(member, overlong, lengthof(overlong));
	else if (strcmp(name, "train_on_prompt") == 0)
		row->train_on_prompt = take_bool(member);
	else if (strcmp(name, "mask_history") == 0)
		row->mask_history = take_bool(member);
	else if (strcmp(name, "append_eos") == 0)
		row->append_eos = take_bool(member);
	else if (strcmp(name, "default_system") == 0)
		row->default_system = take_string(member);
	else
		return false;
	return true;
}

bool
llm_dataset_options_take(LlmDatasetOptions *options, const cJSON *member)
{
	static const char *const on_bad_row[] = { "strict", "skip" };
	const char *name = member->string;

	if (take_row_option(&options->row, member))
		return true;
	if (strcmp(name, "on_bad_row") == 0)
		options->skips_bad_rows =
			take_choice(member, on_bad_row, lengthof(on_bad_row)) == 1;
	else if (strcmp(name, "max_samples") == 0)
		options->max_samples = take_count(member, (int64) 1 << 50);
	else if (strcmp(name, "val_size") == 0)
		take_val_size(options, member);
	else if (strcmp(name, "eval_query") == 0)
		options->eval_query = take_string(member);
	else if (strcmp(name, "columns") == 0)
		take_columns(options, member);
	else if (strcmp(name, "tags") == 0)
		take_tags(options, member);
	else if (strcmp(name, "enable_thinking") == 0 ||
			 strcmp(name, "chat_template_kwargs") == 0)
		take_kwargs(options, member);
	else
		return false;
	return true;
}

void
llm_dataset_options_check(const LlmDatasetOptions *options)
{
	if (options->row.train_on_prompt && options->row.mask_history)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("options \"mask_history\" and "
							   "\"train_on_prompt\" exclude each other")));
	if (options->val_size > 0 && options->eval_query != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("options \"val_size\" and \"eval_query\" exclude "
						"each other")));
}

/*
 * model_funcs.c
 *	  llm_load_model, llm_unload_model, llm_default_model, llm_inspect_model.
 *
 * Whoever reads files of the server through these needs the right to read
 * server files, besides EXECUTE on the function.
 *
 * src/server/sql/model_funcs.c
 */
#include "postgres.h"

#include "src/common/model_dir/model_dir.h"
#include "src/server/report.h"
#include "src/server/scheduler/scheduler.h"
#include "src/server/sql/server_path.h"
#include "src/server/sql/text_convert.h"

#include "catalog/pg_type.h"
#include "common/string.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(llm_load_model);
PG_FUNCTION_INFO_V1(llm_unload_model);
PG_FUNCTION_INFO_V1(llm_default_model);
PG_FUNCTION_INFO_V1(llm_inspect_model);

/*
 * Models are shared by databases of any encoding, so their names are of the
 * characters that all have.
 */
static char *
check_name(char *name)
{
	if (*name == '\0' || strlen(name) >= LLM_MODEL_NAME_BYTES ||
		!pg_is_ascii(name))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("model name \"%s\" must have 1 to %d ASCII characters",
						name, LLM_MODEL_NAME_BYTES - 1)));
	return name;
}

static char *
name_argument(text *argument)
{
	return check_name(text_to_cstring(argument));
}

/* llm_load_model(path text, name text, options jsonb) → text (the name) */
Datum
llm_load_model(PG_FUNCTION_ARGS)
{
	char *path;
	char *name;
	char *options = NULL;

	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("model path must not be null")));
	llm_check_may_read_server_files("models");
	path = llm_path_argument(PG_GETARG_TEXT_PP(0), "model");
	if (PG_ARGISNULL(1))
		name = check_name(pstrdup(last_dir_separator(path) + 1));
	else
		name = name_argument(PG_GETARG_TEXT_PP(1));
	if (!PG_ARGISNULL(2))
	{
		LlmTemplateText json = llm_json_text(PG_GETARG_DATUM(2), JSONBOID);

		options = pnstrdup(json.data, json.len);
	}
	llm_scheduler_load_model(name, path, options);
	PG_RETURN_TEXT_P(cstring_to_text(name));
}

Datum
llm_unload_model(PG_FUNCTION_ARGS)
{
	llm_scheduler_unload_model(name_argument(PG_GETARG_TEXT_PP(0)));
	PG_RETURN_VOID();
}

Datum
llm_default_model(PG_FUNCTION_ARGS)
{
	llm_scheduler_set_default_model(name_argument(PG_GETARG_TEXT_PP(0)));
	PG_RETURN_VOID();
}

/* llm_inspect_model(path text) → jsonb */
Datum
llm_inspect_model(PG_FUNCTION_ARGS)
{
	char *path;
	LlmStrbuf json;
	LlmError err;
	Datum result = (Datum) 0;

	llm_check_may_read_server_files("models");
	path = llm_path_argument(PG_GETARG_TEXT_PP(0), "model");
	llm_strbuf_init(&json);
	PG_TRY();
	{
		if (!llm_model_inspect(path, &json, &err))
			llm_report(ERROR, &err);
		result = llm_jsonb_from_utf8(llm_strbuf_str(&json), json.len);
	}
	PG_FINALLY();
	{
		llm_strbuf_free(&json);
	}
	PG_END_TRY();
	PG_RETURN_DATUM(result);
}

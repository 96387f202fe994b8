/*
 * text_funcs.c
 *	  llm_render, llm_tokenize, llm_detokenize, llm_count_tokens.
 *
 * src/server/sql/text_funcs.c
 */
#include "postgres.h"

#include "src/common/util/json.h"
#include "src/server/report.h"
#include "src/server/sql/generation.h"
#include "src/server/sql/text_convert.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(llm_render);
PG_FUNCTION_INFO_V1(llm_tokenize);
PG_FUNCTION_INFO_V1(llm_detokenize);
PG_FUNCTION_INFO_V1(llm_count_tokens);

/* llm_render(messages json, options jsonb) → text */
Datum
llm_render(PG_FUNCTION_ARGS)
{
	LlmTemplateText messages;
	LlmTemplateText json = { NULL, 0 };
	LlmPromptMessages conversation = { .n_plain = 0 };
	LlmGenerateOptions options;
	LlmStrbuf rendered;
	LlmError err;
	text *result = NULL;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	messages = llm_json_text(PG_GETARG_DATUM(0), JSONOID);
	if (!PG_ARGISNULL(1))
		json = llm_json_text(PG_GETARG_DATUM(1), JSONBOID);
	if (llm_json_kind(messages) == '{')
	{
		if (json.data != NULL)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("options must be inside the request object"),
							errhint("Pass an array of messages to give options "
									"separately.")));
		json = messages;
		messages = llm_json_member(json, "messages");
		llm_generate_options_parse(json, true, &options);
	}
	else
		llm_generate_options_parse(json, false, &options);
	conversation.json = messages;
	llm_strbuf_init(&rendered);
	PG_TRY();
	{
		if (!llm_prompt_render(llm_model_handle_get(options.model), &options,
							   &conversation, &rendered, &err))
			llm_report(ERROR, &err);
		result = llm_text_from_utf8(llm_strbuf_str(&rendered), rendered.len);
	}
	PG_FINALLY();
	{
		llm_strbuf_free(&rendered);
	}
	PG_END_TRY();
	PG_RETURN_TEXT_P(result);
}

static void
read_tokenize_options(FunctionCallInfo fcinfo, int arg, const char *flag_key,
					  bool *flag, char **model)
{
	const cJSON *item;
	cJSON *tree;
	LlmError err;

	if (PG_ARGISNULL(arg))
		return;
	tree = llm_json_parse_value(llm_json_text(PG_GETARG_DATUM(arg), JSONBOID),
								"options");
	PG_TRY();
	{
		const char *name = NULL;

		if (!cJSON_IsObject(tree))
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("options must be a JSON object")));
		cJSON_ArrayForEach(item, tree)
		{
			if (strcmp(item->string, flag_key) == 0 ||
				strcmp(item->string, "model") == 0)
				continue;
			llm_error_set(&err, LLM_ERROR_INVALID, "unrecognized option \"%s\"",
						  item->string);
			llm_report(ERROR, &err);
		}
		if (!llm_json_get_bool(tree, flag_key, flag, &err) ||
			!llm_json_get_string(tree, "model", &name, &err))
			llm_report(ERROR, &err);
		if (name != NULL)
			*model = pstrdup(name);
	}
	PG_FINALLY();
	{
		cJSON_Delete(tree);
	}
	PG_END_TRY();
}

/* All ids of a text of any length; freed by the caller. */
static void
encode_text(const text *value, bool add_special_tokens, const char *model,
			LlmIdbuf *ids)
{
	LlmModelHandle *handle = llm_model_handle_get(model);
	LlmTemplateText utf8 = llm_text_to_utf8(value);
	LlmError err;

	llm_idbuf_init(ids);
	if (!llm_prompt_encode(handle, utf8, add_special_tokens, ids, &err))
		llm_report(ERROR, &err);
}

/* llm_tokenize(input text, options jsonb) → int[] */
Datum
llm_tokenize(PG_FUNCTION_ARGS)
{
	bool add_special_tokens = true;
	char *model = NULL;
	LlmIdbuf ids;
	ArrayType *result = NULL;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	read_tokenize_options(fcinfo, 1, "add_special_tokens", &add_special_tokens,
						  &model);
	encode_text(PG_GETARG_TEXT_PP(0), add_special_tokens, model, &ids);
	PG_TRY();
	{
		Datum *datums =
			palloc_extended(Max(ids.n_ids, 1) * sizeof(Datum), MCXT_ALLOC_HUGE);

		for (size_t i = 0; i < ids.n_ids; i++)
			datums[i] = Int32GetDatum(ids.ids[i]);
		result = construct_array(datums, (int) ids.n_ids, INT4OID,
								 sizeof(int32), true, TYPALIGN_INT);
	}
	PG_FINALLY();
	{
		llm_idbuf_free(&ids);
	}
	PG_END_TRY();
	PG_RETURN_ARRAYTYPE_P(result);
}

/* llm_count_tokens(input text) → int */
Datum
llm_count_tokens(PG_FUNCTION_ARGS)
{
	bool add_special_tokens = true;
	char *model = NULL;
	LlmIdbuf ids;
	int32 n;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	read_tokenize_options(fcinfo, 1, "add_special_tokens", &add_special_tokens,
						  &model);
	encode_text(PG_GETARG_TEXT_PP(0), add_special_tokens, model, &ids);
	n = (int32) ids.n_ids;
	llm_idbuf_free(&ids);
	PG_RETURN_INT32(n);
}

/* llm_detokenize(token_ids int[], options jsonb) → text */
Datum
llm_detokenize(PG_FUNCTION_ARGS)
{
	bool skip_special_tokens = true;
	char *model = NULL;
	ArrayType *array;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	read_tokenize_options(fcinfo, 1, "skip_special_tokens",
						  &skip_special_tokens, &model);
	array = PG_GETARG_ARRAYTYPE_P(0);
	if (ARR_NDIM(array) > 1 || array_contains_nulls(array))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("token ids must be a one-dimensional array without "
						"nulls")));
	PG_RETURN_TEXT_P(llm_tokens_to_text(
		llm_model_handle_get(model), (const int32 *) ARR_DATA_PTR(array),
		ARR_NDIM(array) == 0 ? 0 : ARR_DIMS(array)[0], skip_special_tokens));
}

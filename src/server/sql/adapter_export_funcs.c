/*
 * adapter_export_funcs.c
 *	  llm_export_adapter, llm_merge_adapter and llm_check_adapter.
 *
 * Both writers make a directory of their own, so that nothing is overwritten;
 * what fails leaves it behind with what was written.
 *
 * src/server/sql/adapter_export_funcs.c
 */
#include "postgres.h"

#include <sys/stat.h>

#include "src/common/adapter/adapter.h"
#include "src/common/util/json.h"
#include "src/server/adapter_files.h"
#include "src/server/catalog/adapter_catalog.h"
#include "src/server/report.h"
#include "src/server/sql/adapter_choice.h"
#include "src/server/sql/model_handle.h"
#include "src/server/sql/server_path.h"
#include "src/server/sql/text_convert.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#define DEFAULT_SHARD_BYTES ((uint64) 5 << 30)

PG_FUNCTION_INFO_V1(llm_export_adapter);
PG_FUNCTION_INFO_V1(llm_merge_adapter);
PG_FUNCTION_INFO_V1(llm_adapter_facts);

/* An adapter that is read: its image held against a model that is loaded. */
typedef struct OpenAdapter
{
	LlmAdapterVersion version;
	LlmModelHandle *handle;
	LlmModelConfig config;
	LlmAdapterImage *image; /* to be closed */
} OpenAdapter;

static OpenAdapter *
open_adapter(const char *reference, const char *model)
{
	OpenAdapter *adapter = palloc0(sizeof(OpenAdapter));
	char path[MAXPGPATH];
	LlmError err;

	llm_adapter_resolve(reference, NULL, 0, GetUserId(), &adapter->version);
	adapter->handle = llm_model_handle_get(model);
	llm_adapter_check_base(&adapter->version, adapter->handle);
	if (!llm_model_config_read(adapter->handle->info.path, &adapter->config,
							   &err))
		llm_report(ERROR, &err);
	llm_adapter_materialize(&adapter->version);
	llm_adapter_file_path(adapter->version.digest, path);
	adapter->image = llm_adapter_image_open(path, &adapter->config, &err);
	if (adapter->image == NULL)
		llm_report(ERROR, &err);
	return adapter;
}

/* A directory that is made, or that is there and is empty as far as we care. */
static void
make_directory(const char *path)
{
	if (mkdir(path, S_IRWXU | S_IRWXG | S_IRWXO) != 0 && errno != EEXIST)
		ereport(ERROR, (errcode_for_file_access(),
						errmsg("could not create directory \"%s\": %m", path)));
}

/* -- export -- */

static LlmAdapterProfile
profile_argument(const char *name)
{
	if (strcmp(name, "peft") == 0)
		return LLM_ADAPTER_PROFILE_PEFT;
	if (strcmp(name, "vllm") == 0)
		return LLM_ADAPTER_PROFILE_VLLM;
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("profile \"%s\" is unknown", name),
					errhint("Profiles are \"peft\" and \"vllm\".")));
}

/* llm_export_adapter(name text, path text, profile text) */
Datum
llm_export_adapter(PG_FUNCTION_ARGS)
{
	LlmAdapterProfile profile =
		profile_argument(text_to_cstring(PG_GETARG_TEXT_PP(2)));
	OpenAdapter *adapter;
	char *path;
	LlmError err;
	bool ok = false;

	llm_check_may_write_server_files("adapters");
	path = llm_path_argument(PG_GETARG_TEXT_PP(1), "adapter");
	adapter = open_adapter(text_to_cstring(PG_GETARG_TEXT_PP(0)), NULL);
	PG_TRY();
	{
		make_directory(path);
		ok = llm_adapter_export(adapter->image, &adapter->config, profile, path,
								&err);
	}
	PG_FINALLY();
	{
		llm_adapter_image_close(adapter->image);
	}
	PG_END_TRY();
	if (!ok)
		llm_report(ERROR, &err);
	PG_RETURN_VOID();
}

/* -- merge -- */

static bool
is_interrupted(void)
{
	return InterruptPending && (QueryCancelPending || ProcDiePending);
}

static LlmDtype
dtype_of(const char *name)
{
	for (int dtype = LLM_DTYPE_F32; dtype <= LLM_DTYPE_BF16; dtype++)
		if (strcmp(name, llm_dtype_name((LlmDtype) dtype)) == 0)
			return (LlmDtype) dtype;
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("weights cannot be stored as \"%s\"", name),
					errhint("Use \"float32\", \"float16\" or \"bfloat16\".")));
}

static void
read_merge_option(LlmAdapterMergeOptions *options, const cJSON *value)
{
	if (strcmp(value->string, "dtype") == 0 && cJSON_IsString(value))
	{
		options->has_dtype = true;
		options->dtype = dtype_of(value->valuestring);
	}
	else if (strcmp(value->string, "max_shard_bytes") == 0 &&
			 cJSON_IsNumber(value) && value->valuedouble >= 1 &&
			 value->valuedouble <= 1e15)
		options->max_shard_bytes = (uint64) value->valuedouble;
	else
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("option \"%s\" is unknown or has a wrong value",
							   value->string),
						errhint("Options are \"dtype\" (a string) and "
								"\"max_shard_bytes\" (a number).")));
}

static void
read_merge_options(FunctionCallInfo fcinfo, LlmAdapterMergeOptions *options)
{
	cJSON *json;
	const cJSON *value;

	*options = (LlmAdapterMergeOptions){ .max_shard_bytes = DEFAULT_SHARD_BYTES,
										 .is_interrupted = is_interrupted };
	if (PG_ARGISNULL(2))
		return;
	json = llm_json_parse_value(llm_json_text(PG_GETARG_DATUM(2), JSONBOID),
								"options");
	PG_TRY();
	{
		cJSON_ArrayForEach(value, json)
		{
			if (value->string == NULL)
				ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
								errmsg("options must be a JSON object")));
			read_merge_option(options, value);
		}
	}
	PG_FINALLY();
	{
		cJSON_Delete(json);
	}
	PG_END_TRY();
}

/* llm_merge_adapter(name text, path text, options jsonb) → jsonb */
Datum
llm_merge_adapter(PG_FUNCTION_ARGS)
{
	LlmAdapterMergeOptions options;
	LlmAdapterMergeReport report;
	OpenAdapter *adapter;
	char *path;
	char *json;
	LlmError err;
	bool ok = false;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	llm_check_may_write_server_files("models");
	path = llm_path_argument(PG_GETARG_TEXT_PP(1), "model");
	read_merge_options(fcinfo, &options);
	adapter = open_adapter(text_to_cstring(PG_GETARG_TEXT_PP(0)), NULL);
	PG_TRY();
	{
		make_directory(path);
		ok = llm_adapter_merge(adapter->image, &adapter->config,
							   adapter->handle->info.path, path, &options,
							   &report, &err);
	}
	PG_FINALLY();
	{
		llm_adapter_image_close(adapter->image);
	}
	PG_END_TRY();
	CHECK_FOR_INTERRUPTS();
	if (!ok)
		llm_report(ERROR, &err);
	json = psprintf("{\"merged_tensors\": %d, \"tensors\": %d, \"shards\": %d, "
					"\"max_change\": %.9g, \"max_rounding\": %.9g}",
					report.n_merged, report.n_tensors, report.n_shards,
					report.max_change, report.max_rounding);
	PG_RETURN_DATUM(llm_jsonb_from_utf8(json, strlen(json)));
}

/* -- check -- */

static void
put_fact(ReturnSetInfo *rsinfo, const char *item, const char *result)
{
	Datum values[2] = { CStringGetTextDatum(item),
						CStringGetTextDatum(result) };
	bool nulls[2] = { false, false };

	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

static void
put_comparison(ReturnSetInfo *rsinfo, const char *item, const uint8 *a,
			   const uint8 *b)
{
	put_fact(rsinfo, item,
			 memcmp(a, b, LLM_FINGERPRINT_BYTES) == 0 ? "same" : "different");
}

/* "8 of 8 layers, rank 2, scale 4" for a module; nothing where it has none. */
static void
put_module(ReturnSetInfo *rsinfo, const OpenAdapter *adapter,
		   LlmAdapterModule module)
{
	const LlmAdapterImage *image = adapter->image;
	const char *name = llm_adapter_module_name(module);
	int32 min_rank = PG_INT32_MAX;
	int32 max_rank = 0;
	float min_scale = 0;
	float max_scale = 0;
	int n = 0;
	char *ranks;
	char *scales;

	for (int i = 0; i < image->n_pairs; i++)
	{
		const LlmAdapterPair *pair = &image->pairs[i];

		if (pair->module != module)
			continue;
		min_scale = n == 0 ? pair->scale : Min(min_scale, pair->scale);
		max_scale = n == 0 ? pair->scale : Max(max_scale, pair->scale);
		min_rank = Min(min_rank, pair->rank);
		max_rank = Max(max_rank, pair->rank);
		n++;
	}
	if (n == 0)
		return;
	ranks = min_rank == max_rank
				? psprintf("rank %d", min_rank)
				: psprintf("ranks %d to %d", min_rank, max_rank);
	scales = min_scale == max_scale
				 ? psprintf("scale %g", min_scale)
				 : psprintf("scales %g to %g", min_scale, max_scale);
	put_fact(
		rsinfo, psprintf("module %s", name),
		psprintf("%d of %d layers, %s, %s", n,
				 module < LLM_ADAPTER_LM_HEAD ? adapter->config.n_layers : 1,
				 ranks, scales));
}

/* llm.adapter_facts(name text) → TABLE (item text, result text) */
Datum
llm_adapter_facts(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	OpenAdapter *adapter;

	InitMaterializedSRF(fcinfo, 0);
	adapter = open_adapter(text_to_cstring(PG_GETARG_TEXT_PP(0)), NULL);
	PG_TRY();
	{
		const LlmModelImageFacts *facts = adapter->handle->facts;

		put_fact(rsinfo, "version", psprintf("%d", adapter->version.version));
		put_fact(rsinfo, "model", adapter->handle->info.name);
		put_fact(rsinfo, "base model",
				 llm_model_fingerprint_compare(
					 adapter->version.base, facts->fingerprint) == LLM_BASE_SAME
					 ? "same"
					 : "same as far as quantized weights tell");
		put_comparison(rsinfo, "chat template", adapter->version.template_hash,
					   facts->template_hash);
		put_comparison(rsinfo, "tokenizer", adapter->version.tokenizer_hash,
					   facts->tokenizer_hash);
		put_fact(rsinfo, "kind", adapter->image->has_dora ? "DoRA" : "LoRA");
		for (int module = 0; module < LLM_ADAPTER_MODULE_COUNT; module++)
			put_module(rsinfo, adapter, (LlmAdapterModule) module);
	}
	PG_FINALLY();
	{
		llm_adapter_image_close(adapter->image);
	}
	PG_END_TRY();
	return (Datum) 0;
}

/*
 * embed_funcs.c
 *	  llm_embed: a text as a vector of the model's final hidden states.
 *
 * The loaded model's own layers make the vector: that of the last token, or
 * the mean over all.  A model that was trained to embed says which; the
 * default is the last token, since a causal model's other tokens have not seen
 * the whole text.
 *
 * src/server/sql/embed_funcs.c
 */
#include "postgres.h"

#include <math.h>

#include "src/common/util/json.h"
#include "src/server/report.h"
#include "src/server/settings.h"
#include "src/server/sql/adapter_choice.h"
#include "src/server/sql/batch_call.h"
#include "src/server/sql/generation.h"
#include "src/server/sql/text_convert.h"
#include "src/server/sql/token_limits.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/array.h"

enum
{
	ARG_INPUT = 0,
	ARG_OPTIONS
};

typedef struct EmbedOptions
{
	LlmGenerateOptions common;
	LlmRequestKind kind;
	bool normalize;
	int dimensions; /* 0 = all */
} EmbedOptions;

typedef struct EmbedCall
{
	LlmBatchCall batch;
	LlmTemplateText input;
	EmbedOptions options;
	LlmRequest *request;
	const LlmRequestResult *result;
} EmbedCall;

PG_FUNCTION_INFO_V1(llm_embed);

/* -- options -- */

static void
read_pooling(EmbedOptions *options, const cJSON *value)
{
	if (cJSON_IsString(value) && strcmp(value->valuestring, "last") == 0)
		options->kind = LLM_REQUEST_EMBED_LAST;
	else if (cJSON_IsString(value) && strcmp(value->valuestring, "mean") == 0)
		options->kind = LLM_REQUEST_EMBED_MEAN;
	else
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"pooling\" must be \"last\" or \"mean\"")));
}

static void
read_normalize(EmbedOptions *options, const cJSON *value)
{
	if (!cJSON_IsBool(value))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("option \"normalize\" must be true or false")));
	options->normalize = cJSON_IsTrue(value);
}

static void
read_dimensions(EmbedOptions *options, const cJSON *value)
{
	if (!cJSON_IsNumber(value) || value->valuedouble != value->valueint ||
		value->valueint < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"dimensions\" must be a positive integer")));
	options->dimensions = value->valueint;
}

typedef void (*EmbedOptionReader)(EmbedOptions *options, const cJSON *value);

static const char *const own_keys[] = { "pooling", "normalize", "dimensions",
										NULL };
static const EmbedOptionReader own_readers[] = { read_pooling, read_normalize,
												 read_dimensions };

static void
read_options(FunctionCallInfo fcinfo, EmbedOptions *options)
{
	LlmTemplateText json = { NULL, 0 };

	if (!PG_ARGISNULL(ARG_OPTIONS))
		json = llm_json_text(PG_GETARG_DATUM(ARG_OPTIONS), JSONBOID);
	llm_generate_options_parse_plain(json, own_keys, &options->common);
	options->kind = LLM_REQUEST_EMBED_LAST;
	for (int i = 0; json.data != NULL && own_keys[i] != NULL; i++)
	{
		LlmTemplateText text = llm_json_member(json, own_keys[i]);
		cJSON *value;

		if (text.data == NULL)
			continue;
		value = llm_json_parse_value(text, own_keys[i]);
		PG_TRY();
		{
			own_readers[i](options, value);
		}
		PG_FINALLY();
		{
			cJSON_Delete(value);
		}
		PG_END_TRY();
	}
}

/* -- the call -- */

static LlmRequest *
submit(const EmbedCall *call, LlmModelHandle *handle, const LlmPrompt *prompt)
{
	const LlmGenerateOptions *options = &call->options.common;
	LlmRequestSpec spec = {
		.kind = call->options.kind,
		.model_idx = handle->info.model_idx,
		.model_generation = handle->info.generation,
		.prompt_ids = prompt->ids,
		.n_prompt = prompt->n_ids,
		.params = llm_sampling_params_default(),
		.is_batch = options->is_batch,
		.cache_salt = options->cache_salt,
		.timeout_ms = options->timeout_ms > 0 ? options->timeout_ms
											  : llm_setting_request_timeout_ms,
	};

	LlmAdapterChoice adapter;

	llm_token_limits_check();
	llm_adapter_choose(options->adapter, options->user, prompt->ids,
					   prompt->n_ids, handle, &adapter);
	memcpy(spec.adapter, adapter.version.digest, sizeof(spec.adapter));
	return llm_request_submit(&spec);
}

/* False: this row cannot be embedded. */
static bool
start_request(EmbedCall *call)
{
	const LlmGenerateOptions *options = &call->options.common;
	LlmPrompt prompt = { 0 };

	do
	{
		LlmModelHandle *handle = llm_model_handle_get(options->model);

		if (!llm_prompt_from_text(handle, call->input,
								  !options->has_add_special_tokens ||
									  options->add_special_tokens,
								  &prompt, &call->batch.err) ||
			!llm_prompt_check_length(handle, &prompt, &call->batch.err))
			return false;
		call->request = submit(call, handle, &prompt);
	} while (call->request == NULL);
	call->batch.n_requests = 1;
	call->batch.n_prompt_tokens = prompt.n_ids;
	pfree(prompt.ids);
	return true;
}

static LlmBatchCall *
start_embed(FunctionCallInfo fcinfo, bool is_batch)
{
	EmbedCall *call;

	if (PG_ARGISNULL(ARG_INPUT))
		return NULL;
	call = palloc0(sizeof(EmbedCall));
	read_options(fcinfo, &call->options);
	call->input = llm_text_argument(fcinfo, ARG_INPUT);
	if (!call->options.common.has_class)
		call->options.common.is_batch = is_batch;
	call->batch.is_repeatable = true;
	call->batch.null_on_error = call->options.common.null_on_error;
	(void) start_request(call);
	return &call->batch;
}

static bool
advance_embed(LlmBatchCall *batch)
{
	EmbedCall *call = (EmbedCall *) batch;

	call->result = llm_request_poll(call->request);
	if (call->result->error != NULL)
		batch->err = *call->result->error;
	return call->result->is_finished;
}

/* To the length 1; a vector without a direction stays as it is. */
static void
normalize(float4 *vector, int n)
{
	double sum = 0;
	double scale;

	for (int i = 0; i < n; i++)
		sum += (double) vector[i] * vector[i];
	scale = sum > 0 ? 1 / sqrt(sum) : 1;
	for (int i = 0; i < n; i++)
		vector[i] = (float4) (vector[i] * scale);
}

static Datum
finish_embed(LlmBatchCall *batch, bool *isnull)
{
	const EmbedCall *call = (const EmbedCall *) batch;
	const LlmRequestResult *result = call->result;
	int n = call->options.dimensions > 0 ? call->options.dimensions
										 : (int) result->n_floats;
	Size n_bytes = ARR_OVERHEAD_NONULLS(1) + (Size) n * sizeof(float4);
	ArrayType *array;

	*isnull = false;
	batch->n_cached_tokens = result->n_cached;
	if (n > (int) result->n_floats)
	{
		llm_error_set(&batch->err, LLM_ERROR_INVALID,
					  "option \"dimensions\" is %d, but the model's vectors "
					  "have %u",
					  n, result->n_floats);
		return (Datum) 0;
	}
	array = palloc0(n_bytes);
	SET_VARSIZE(array, n_bytes);
	array->ndim = 1;
	array->elemtype = FLOAT4OID;
	ARR_DIMS(array)[0] = n;
	ARR_LBOUND(array)[0] = 1;
	memcpy(ARR_DATA_PTR(array), result->embedding, (Size) n * sizeof(float4));
	if (call->options.normalize)
		normalize((float4 *) ARR_DATA_PTR(array), n);
	return PointerGetDatum(array);
}

const LlmBatchOps llm_embed_ops = { "llm_embed", llm_embed, start_embed,
									advance_embed, finish_embed };

/* llm_embed(input text, options jsonb) → real[] */
Datum
llm_embed(PG_FUNCTION_ARGS)
{
	return llm_batch_run(fcinfo, &llm_embed_ops);
}

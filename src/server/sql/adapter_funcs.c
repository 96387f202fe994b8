/*
 * adapter_funcs.c
 *	  llm_register_adapter: a PEFT adapter, from the server's files or from
 *	  the client, becomes rows.
 *
 * The tensors are first copied into a file of ours: what is read is what is
 * stored, and nobody can cut a file short while it is mapped.  The adapter is
 * held against the model that is loaded, and its image written where executors
 * will look for it; then the rows are inserted.  What fails leaves no rows; a
 * file that no row names goes with the next clean-up.
 *
 * src/server/sql/adapter_funcs.c
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/common/adapter/adapter.h"
#include "src/common/util/json.h"
#include "src/server/adapter_files.h"
#include "src/server/catalog/adapter_image_store.h"
#include "src/server/catalog/adapter_store.h"
#include "src/server/pg_compat.h"
#include "src/server/report.h"
#include "src/server/settings.h"
#include "src/server/sql/model_handle.h"
#include "src/server/sql/server_path.h"
#include "src/server/sql/text_convert.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "tcop/utility.h"
#include "utils/builtins.h"

#define COPY_BYTES (256 * 1024)

PG_FUNCTION_INFO_V1(llm_register_adapter);
PG_FUNCTION_INFO_V1(llm_register_adapter_bytes);

typedef struct Registration
{
	char *name;
	char *model; /* NULL: the default one */
	char *description;
	bool activate;
	const char *origin;
	LlmModelHandle *handle;
	LlmModelConfig config;
	LlmTemplateText peft_config;
	char tensors_path[MAXPGPATH]; /* a copy of ours */
	LlmStrbuf image;
} Registration;

/* -- arguments -- */

static char *
string_option(const cJSON *value)
{
	if (!cJSON_IsString(value))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"%s\" must be a string", value->string)));
	return pstrdup(value->valuestring);
}

static void
read_option(Registration *registration, const cJSON *value)
{
	if (strcmp(value->string, "model") == 0)
		registration->model = string_option(value);
	else if (strcmp(value->string, "description") == 0)
		registration->description = string_option(value);
	else if (strcmp(value->string, "activate") == 0 && cJSON_IsBool(value))
		registration->activate = cJSON_IsTrue(value);
	else
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unrecognized option \"%s\"", value->string),
				 errhint("Options are \"model\", \"activate\" (true or false) "
						 "and \"description\".")));
}

static void
read_options(Registration *registration, FunctionCallInfo fcinfo, int argument)
{
	cJSON *json;
	const cJSON *value;

	registration->activate = true;
	if (PG_ARGISNULL(argument))
		return;
	json = llm_json_parse_value(
		llm_json_text(PG_GETARG_DATUM(argument), JSONBOID), "options");
	PG_TRY();
	{
		if (!cJSON_IsObject(json))
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("options must be a JSON object")));
		cJSON_ArrayForEach(value, json)
		{
			read_option(registration, value);
		}
	}
	PG_FINALLY();
	{
		cJSON_Delete(json);
	}
	PG_END_TRY();
}

/* -- copying -- */

static Size
max_adapter_bytes(void)
{
	return (Size) llm_setting_max_adapter_size_mb << 20;
}

static void
check_size(Size n_bytes)
{
	if (n_bytes > max_adapter_bytes())
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("the adapter has %zu bytes, more than "
							   "llm_ext.max_adapter_size allows (%d MB)",
							   n_bytes, llm_setting_max_adapter_size_mb)));
}

/* Open a regular file; its size in *n_bytes. */
static int
open_source(const char *path, Size *n_bytes)
{
	int fd = OpenTransientFile(path, O_RDONLY | O_NONBLOCK | PG_BINARY);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) != 0)
		ereport(ERROR, (errcode_for_file_access(),
						errmsg("could not open file \"%s\": %m", path)));
	if (!S_ISREG(st.st_mode))
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("\"%s\" is not a regular file", path)));
	*n_bytes = (Size) st.st_size;
	return fd;
}

static Size
read_source(int fd, const char *path, char *buffer, Size n_bytes)
{
	ssize_t n = read(fd, buffer, n_bytes);

	if (n < 0)
		ereport(ERROR, (errcode_for_file_access(),
						errmsg("could not read file \"%s\": %m", path)));
	return (Size) n;
}

/* Copy a file into the open file of the registration. */
static void
copy_file(const char *path, const char *dest, int dest_fd)
{
	char *buffer = palloc(COPY_BYTES);
	Size total = 0;
	Size n_bytes;
	Size n;
	int fd = open_source(path, &n_bytes);

	check_size(n_bytes);
	while ((n = read_source(fd, path, buffer, COPY_BYTES)) > 0)
	{
		total += n;
		check_size(total);
		llm_adapter_file_write(dest_fd, dest, buffer, n);
		CHECK_FOR_INTERRUPTS();
	}
	(void) CloseTransientFile(fd);
	pfree(buffer);
}

static LlmTemplateText
read_config(const char *path)
{
	Size n_bytes;
	Size used = 0;
	Size n;
	int fd = open_source(path, &n_bytes);
	char *text;

	if (n_bytes > LLM_ADAPTER_MAX_CONFIG_BYTES)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("file \"%s\" has %zu bytes, more than the limit "
							   "of %zu",
							   path, n_bytes, LLM_ADAPTER_MAX_CONFIG_BYTES)));
	text = palloc(n_bytes + 1);
	while (used < n_bytes &&
		   (n = read_source(fd, path, text + used, n_bytes - used)) > 0)
		used += n;
	(void) CloseTransientFile(fd);
	return (LlmTemplateText){ text, used };
}

/* A directory without adapter_model.safetensors may have the older format. */
static void
refuse_pickle(const char *dir)
{
	char *bin = psprintf("%s/adapter_model.bin", dir);
	char *tensors = psprintf("%s/adapter_model.safetensors", dir);

	if (access(tensors, F_OK) != 0 && access(bin, F_OK) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("\"%s\" is a pickle file, which runs code when it is "
						"read",
						bin),
				 errhint("Save the adapter as adapter_model.safetensors: load "
						 "it with PEFT and save it again.")));
}

/* -- the base model -- */

/* What a trainer left beside the adapter should be what the model has. */
static void
compare_hash(const char *what, const LlmStrbuf *bytes, const uint8 *expected)
{
	uint8 digest[LLM_SHA256_BYTES];
	LlmSha256 sha;

	llm_sha256_init(&sha);
	llm_sha256_update(&sha, llm_strbuf_str(bytes), bytes->len);
	llm_sha256_final(&sha, digest);
	if (memcmp(digest, expected, sizeof(digest)) != 0)
		ereport(WARNING,
				(errmsg("the adapter's %s is not the model's", what),
				 errdetail("Prompts are made with the model's, and the adapter "
						   "may not understand them.")));
}

static void
compare_template(const char *dir, const LlmModelImageFacts *facts)
{
	LlmStrbuf source;
	bool found;
	LlmError err;

	llm_strbuf_init(&source);
	if (llm_model_chat_template_read(dir, &source, &found, &err) && found)
		compare_hash("chat template", &source, facts->template_hash);
	llm_strbuf_free(&source);
}

static void
compare_tokenizer(const char *dir, const LlmModelImageFacts *facts)
{
	LlmModelFile json;
	LlmModelFile config;
	LlmStrbuf image;
	LlmError err;

	llm_strbuf_init(&image);
	if (llm_model_file_open(&json, dir, "tokenizer.json", &err) && json.found &&
		llm_model_file_open(&config, dir, "tokenizer_config.json", &err))
	{
		if (llm_tokenizer_compile(json.data, json.size,
								  config.found ? config.data : NULL,
								  config.size, "tokenizer.json", &image, &err))
			compare_hash("tokenizer", &image, facts->tokenizer_hash);
		llm_model_file_close(&config);
	}
	llm_model_file_close(&json);
	llm_strbuf_free(&image);
}

static void
find_model(Registration *registration)
{
	LlmError err;

	registration->handle = llm_model_handle_get(registration->model);
	if (!llm_model_config_read(registration->handle->info.path,
							   &registration->config, &err))
		llm_report(ERROR, &err);
}

/* An adapter that the model cannot serve can still be exported and merged. */
static void
check_rank(const Registration *registration, int32 rank)
{
	const LlmModelInfo *info = &registration->handle->info;

	if (rank <= info->max_lora_rank)
		return;
	if (info->max_lora_rank == 0)
		ereport(registration->activate ? ERROR : WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("model \"%s\" was loaded without room for adapters",
						info->name),
				 errhint("Set llm_ext.max_loras above 0 and load the model "
						 "again, or register with {\"activate\": false}.")));
	else
		ereport(registration->activate ? ERROR : WARNING,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the adapter has rank %d, but model \"%s\" serves at "
						"most %d",
						rank, info->name, info->max_lora_rank),
				 errhint("Raise llm_ext.max_lora_rank and load the model "
						 "again, or register with {\"activate\": false}.")));
}

/* -- registering -- */

/* What is wrong with our copy is wrong with the file that the user knows. */
static void
name_original(LlmError *err, const char *copy_path)
{
	Size len = strlen(copy_path);

	if (strncmp(err->message, copy_path, len) == 0)
	{
		char *rest = pstrdup(err->message + len);

		snprintf(err->message, sizeof(err->message), "%s%s",
				 "adapter_model.safetensors", rest);
		pfree(rest);
	}
}

static int32
import_and_store(Registration *registration)
{
	LlmAdapterSource source = {
		.config_json = registration->peft_config.data,
		.config_len = registration->peft_config.len,
		.tensors_path = registration->tensors_path,
	};
	const LlmModelImageFacts *facts = registration->handle->facts;
	LlmAdapterNewImage image;
	int32 number;
	int32 rank;
	LlmError err;

	if (!llm_adapter_import(&source, &registration->config,
							registration->handle->facts->fingerprint,
							&registration->image, &err))
	{
		name_original(&err, registration->tensors_path);
		llm_report(ERROR, &err);
	}
	image = (LlmAdapterNewImage){
		.name = registration->name,
		.model = registration->handle->info.name,
		.origin = registration->origin,
		.config = &registration->config,
		.base = facts->fingerprint,
		.template_hash = facts->template_hash,
		.tokenizer_hash = facts->tokenizer_hash,
		.bytes = registration->image.data,
		.n_bytes = registration->image.len,
	};
	number = llm_adapter_store_image(&image, &rank);
	check_rank(registration, rank);
	if (registration->description != NULL)
		llm_adapter_store_describe(registration->name,
								   registration->description);
	if (registration->activate)
		llm_adapter_store_activate(registration->name, number);
	return number;
}

/*
 * Register from a file of the server, or from bytes where path is NULL;
 * returns the version's number.
 */
static int32
register_adapter(Registration *registration, const char *path,
				 LlmTemplateText bytes)
{
	int32 number = 0;
	int fd;

	llm_strbuf_init(&registration->image);
	registration->image.limit = 2 * max_adapter_bytes();
	llm_adapter_file_temp_path(registration->tensors_path);
	fd = llm_adapter_file_create(registration->tensors_path);
	PG_TRY();
	{
		if (path != NULL)
			copy_file(path, registration->tensors_path, fd);
		else
			llm_adapter_file_write(fd, registration->tensors_path, bytes.data,
								   bytes.len);
		(void) CloseTransientFile(fd);
		number = import_and_store(registration);
	}
	PG_FINALLY();
	{
		(void) unlink(registration->tensors_path);
		llm_strbuf_free(&registration->image);
	}
	PG_END_TRY();
	return number;
}

static Registration *
begin_registration(FunctionCallInfo fcinfo, int n_required)
{
	Registration *registration = palloc0(sizeof(Registration));

	PreventCommandIfReadOnly("llm_register_adapter()");
	PreventCommandDuringRecovery("llm_register_adapter()");
	for (int i = 0; i < n_required; i++)
		if (PG_ARGISNULL(i))
			ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
							errmsg("only the options may be null")));
	registration->name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	llm_adapter_check_name(registration->name);
	read_options(registration, fcinfo, n_required);
	return registration;
}

/* llm_register_adapter(name text, path text, options jsonb) → integer */
Datum
llm_register_adapter(PG_FUNCTION_ARGS)
{
	Registration *registration = begin_registration(fcinfo, 2);
	const LlmTemplateText none = { NULL, 0 };
	char *dir;

	llm_check_may_read_server_files("adapters");
	dir = llm_path_argument(PG_GETARG_TEXT_PP(1), "adapter");
	registration->origin = dir;
	find_model(registration);
	refuse_pickle(dir);
	registration->peft_config =
		read_config(psprintf("%s/adapter_config.json", dir));
	compare_template(dir, registration->handle->facts);
	compare_tokenizer(dir, registration->handle->facts);
	PG_RETURN_INT32(register_adapter(
		registration, psprintf("%s/adapter_model.safetensors", dir), none));
}

/*
 * llm_register_adapter(name text, config json, tensors bytea, options jsonb)
 * → integer
 */
Datum
llm_register_adapter_bytes(PG_FUNCTION_ARGS)
{
	Registration *registration = begin_registration(fcinfo, 3);
	bytea *tensors = PG_GETARG_BYTEA_PP(2);
	LlmTemplateText bytes = { VARDATA_ANY(tensors),
							  VARSIZE_ANY_EXHDR(tensors) };

	registration->peft_config = llm_json_text(PG_GETARG_DATUM(1), JSONOID);
	registration->origin = "client";
	check_size(bytes.len);
	find_model(registration);
	PG_RETURN_INT32(register_adapter(registration, NULL, bytes));
}

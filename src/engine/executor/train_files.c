/*
 * train_files.c
 *	  What a job's executor writes: states and the adapter.
 *
 * Files go in and out by path: the dataset, states and the adapter are larger
 * than frames should be, and a file that was written whole and then renamed
 * is either there or not.
 *
 * A state is a header, what the job goes on from, and the best adapter so far
 * where that is kept: so it is never of another moment than the rest.
 *
 * src/engine/executor/train_files.c
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "src/common/util/json.h"
#include "src/engine/executor/train_session_internal.h"

typedef struct StateHeader
{
	TrainProgress progress;
	uint64_t n_best_bytes;
} StateHeader;

_Static_assert(sizeof(StateHeader) == 48, "what follows is aligned");

/* adapter_config.json's keys; modules by their names in the checkpoint. */
static char *
describe_adapter(const TrainSession *s)
{
	const LlmTrainRequest *r = &s->request;
	cJSON *json = cJSON_CreateObject();
	cJSON *targets = cJSON_AddArrayToObject(json, "target_modules");
	uint32_t named = 0;
	char *text;

	cJSON_AddStringToObject(json, "peft_type", "LORA");
	cJSON_AddStringToObject(json, "task_type", "CAUSAL_LM");
	cJSON_AddStringToObject(json, "bias", "none");
	cJSON_AddBoolToObject(json, "inference_mode", true);
	cJSON_AddBoolToObject(json, "fan_in_fan_out", false);
	cJSON_AddBoolToObject(json, "init_lora_weights", true);
	cJSON_AddNumberToObject(json, "r", r->lora_rank);
	cJSON_AddNumberToObject(json, "lora_alpha", r->lora_alpha);
	cJSON_AddNumberToObject(json, "lora_dropout", r->lora_dropout);
	if (r->use_rslora)
		cJSON_AddBoolToObject(json, "use_rslora", true);
	if (r->use_dora)
		cJSON_AddBoolToObject(json, "use_dora", true);
	for (int32_t i = 0; i < r->train.n_pairs; i++)
	{
		LlmWeightSpec spec;
		char *end;

		if (s->pairs[i].shares_a || (named >> s->pairs[i].module & 1) != 0)
			continue;
		named |= 1u << s->pairs[i].module;
		/* ...layers.0.self_attn.q_proj.weight */
		(void) train_find_spec(&s->executor->config,
							   llm_adapter_module_weight(s->pairs[i].module),
							   s->pairs[i].layer_idx, &spec);
		end = strrchr(spec.name, '.');
		if (end != NULL)
			*end = '\0';
		end = strrchr(spec.name, '.');
		cJSON_AddItemToArray(
			targets, cJSON_CreateString(end != NULL ? end + 1 : spec.name));
	}
	text = cJSON_PrintUnformatted(json);
	cJSON_Delete(json);
	return text;
}

static bool
append_image(TrainSession *s, LlmStrbuf *image, LlmError *err)
{
	char *config_json = describe_adapter(s);
	bool ok = config_json != NULL ||
			  llm_error_no_memory(err, 1024, "an adapter's config");

	ok = ok && llm_trainer_append_image(
				   s->trainer, llm_model_fingerprint_of(s->executor->model),
				   config_json, image, err);
	cJSON_free(config_json);
	return ok;
}

/* Whole or not at all. */
static bool
write_file(const char *path, const LlmStrbuf *bytes, LlmError *err)
{
	char partial[4096 + 16];
	FILE *file;
	bool ok;

	snprintf(partial, sizeof(partial), "%s.partial", path);
	file = fopen(partial, "wb");
	if (file == NULL)
		return llm_error_errno(err, "could not create \"%s\"", partial);
	ok = fwrite(bytes->data, 1, bytes->len, file) == bytes->len &&
		 fflush(file) == 0 && fsync(fileno(file)) == 0;
	if (fclose(file) != 0)
		ok = false;
	if (ok && rename(partial, path) == 0)
		return true;
	llm_error_errno(err, "could not write \"%s\"", path);
	(void) unlink(partial);
	return false;
}

static bool
take_state(TrainSession *s, const char *state, size_t n_bytes, LlmError *err)
{
	StateHeader header = { 0 };

	if (n_bytes >= sizeof(header))
		memcpy(&header, state, sizeof(header));
	if (n_bytes < sizeof(header) ||
		header.n_best_bytes > n_bytes - sizeof(header))
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "the state of training is damaged");
	n_bytes -= (size_t) header.n_best_bytes;
	s->progress = header.progress;
	llm_strbuf_append(&s->best, state + n_bytes, (size_t) header.n_best_bytes);
	if (s->best.failed)
		return llm_error_no_memory(err, (size_t) header.n_best_bytes,
								   "the best adapter");
	return llm_train_job_load(s->job, state + sizeof(header),
							  n_bytes - sizeof(header), err);
}

bool
train_load_state(TrainSession *s, LlmError *err)
{
	LlmMappedFile file;
	bool ok;

	if (s->request.state[0] == '\0')
		return true;
	if (!llm_mapped_file_open(&file, s->request.state, err))
		return false;
	ok = take_state(s, file.data, file.size, err);
	llm_mapped_file_close(&file);
	return ok;
}

bool
train_save_state(TrainSession *s, int64_t step, LlmError *err)
{
	const StateHeader header = { s->progress, s->best.len };
	LlmStrbuf state = { 0 };
	LlmWireTrainSaved saved = { .step = step };
	bool ok;

	llm_strbuf_append(&state, &header, sizeof(header));
	ok = llm_train_job_save(s->job, &state, err);
	llm_strbuf_append(&state, s->best.data, s->best.len);
	if (ok && state.failed)
		ok = llm_error_no_memory(err, s->best.len, "the state of training");
	ok = ok && write_file(s->request.checkpoint, &state, err);
	llm_strbuf_free(&state);
	if (ok)
		llm_executor_send(s->executor, LLM_MESSAGE_TRAIN_SAVED, 0, &saved,
						  sizeof(saved));
	return ok;
}

bool
train_keep_best(TrainSession *s, LlmError *err)
{
	llm_strbuf_reset(&s->best);
	return append_image(s, &s->best, err);
}

bool
train_write_adapter(TrainSession *s, LlmError *err)
{
	LlmStrbuf image = { 0 };
	bool ok;

	if (s->best.len > 0)
		return write_file(s->request.output, &s->best, err);
	ok = append_image(s, &image, err) &&
		 write_file(s->request.output, &image, err);
	llm_strbuf_free(&image);
	return ok;
}

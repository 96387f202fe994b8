/*
 * train_options.c
 *	  The TRAIN message's JSON.
 *
 * src/engine/executor/train_options.c
 */
#include <assert.h>
#include <string.h>

#include "src/common/util/json.h"
#include "src/engine/executor/train_session.h"

static bool
get_path(const cJSON *json, const char *key, char dest[4096], LlmError *err)
{
	const char *value = NULL;

	if (!llm_json_get_string(json, key, &value, err))
		return false;
	if (value == NULL)
		return true;
	if (strlen(value) >= 4096)
		return llm_error_set(err, LLM_ERROR_LIMIT,
							 "\"%s\" is longer than 4095 bytes", key);
	strcpy(dest, value);
	return true;
}

/* Numbers from low to high; NaN is neither. */
static bool
get_number(const cJSON *json, const char *key, double low, double high,
		   double *dest, LlmError *err)
{
	if (!llm_json_get_double(json, key, dest, err))
		return false;
	if (!(*dest >= low && *dest <= high))
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "\"%s\" must be between %g and %g, not %g", key,
							 low, high, *dest);
	return true;
}

static bool
get_count(const cJSON *json, const char *key, int64_t low, int64_t high,
		  int64_t *dest, LlmError *err)
{
	if (!llm_json_get_int(json, key, dest, err))
		return false;
	if (*dest < low || *dest > high)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "\"%s\" must be between %lld and %lld, not %lld",
							 key, (long long) low, (long long) high,
							 (long long) *dest);
	return true;
}

static bool
parse_paths(const cJSON *json, LlmTrainRequest *r, LlmError *err)
{
	if (!get_path(json, "path", r->model.path, err) ||
		!get_path(json, "dataset", r->dataset, err) ||
		!get_path(json, "eval_dataset", r->eval_dataset, err) ||
		!get_path(json, "initial", r->initial, err) ||
		!get_path(json, "baseline", r->baseline, err) ||
		!get_path(json, "state", r->state, err) ||
		!get_path(json, "checkpoint", r->checkpoint, err) ||
		!get_path(json, "output", r->output, err) ||
		!get_path(json, "busy_sign", r->busy_sign, err))
		return false;
	if (r->model.path[0] == '\0' || r->dataset[0] == '\0' ||
		r->output[0] == '\0')
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "a job needs \"path\", \"dataset\" and "
							 "\"output\"");
	return true;
}

/* The modules that a word of lora_target means; 0: it is not known. */
static uint32_t
targets_of(const char *word, size_t len)
{
	static const struct
	{
		const char *word;
		uint32_t targets;
	} groups[] = { { "all", LLM_TRAIN_ALL_TARGETS },
				   { "experts", LLM_TRAIN_EXPERT_TARGETS } };

	for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++)
	{
		if (strlen(groups[i].word) == len &&
			memcmp(groups[i].word, word, len) == 0)
			return groups[i].targets;
	}
	if (len > 5 && memcmp(word + len - 5, "_proj", 5) == 0)
		len -= 5;
	for (int m = 0; m < LLM_ADAPTER_MODULE_COUNT; m++)
	{
		const char *name = llm_adapter_module_name((LlmAdapterModule) m);
		uint32_t target = 1u << m;

		if (strlen(name) == len && memcmp(name, word, len) == 0)
			return target & (LLM_TRAIN_ALL_TARGETS | LLM_TRAIN_EXPERT_TARGETS);
	}
	return 0;
}

/* lora_target: modules separated by commas, with _proj or not. */
static bool
parse_targets(const char *text, uint32_t *targets, LlmError *err)
{
	*targets = 0;
	while (*text != '\0')
	{
		size_t n = strcspn(text, ",");
		uint32_t named = targets_of(text, n);

		if (named == 0)
		{
			llm_error_set(err, LLM_ERROR_INVALID,
						  "\"lora_target\" does not know the module \"%.*s\"",
						  (int) n, text);
			return llm_error_hint(err, "Known are all, q_proj, k_proj, v_proj, "
									   "o_proj, gate_proj, up_proj and "
									   "down_proj, and of mixtures experts.");
		}
		*targets |= named;
		text += n + (text[n] == ',');
	}
	return *targets != 0 ||
		   llm_error_set(err, LLM_ERROR_INVALID, "\"lora_target\" is empty");
}

static bool
parse_adapter(const cJSON *json, LlmTrainRequest *r, LlmError *err)
{
	const char *target = "all";
	int64_t rank = 8;
	double ratio = 1;
	double noise = 0;

	r->lora_alpha = 0;
	if (!get_count(json, "lora_rank", 1, LLM_ADAPTER_MAX_RANK, &rank, err) ||
		!get_number(json, "lora_alpha", 0, 1e6, &r->lora_alpha, err) ||
		!get_number(json, "lora_dropout", 0, 0.99, &r->lora_dropout, err) ||
		!llm_json_get_string(json, "lora_target", &target, err) ||
		!llm_json_get_bool(json, "use_rslora", &r->use_rslora, err) ||
		!llm_json_get_bool(json, "use_dora", &r->use_dora, err) ||
		!get_number(json, "loraplus_lr_ratio", 0, 1e6, &ratio, err) ||
		!get_number(json, "neftune_noise_alpha", 0, 1e6, &noise, err) ||
		!parse_targets(target, &r->targets, err))
		return false;
	r->lora_rank = (int32_t) rank;
	if (r->lora_alpha == 0)
		r->lora_alpha = 2 * (double) rank;
	r->train.dropout = (float) r->lora_dropout;
	r->train.neftune_alpha = (float) noise;
	r->train.b_rate_ratio = ratio;
	return true;
}

static bool
parse_optimizer(const cJSON *json, LlmTrainRequest *r, LlmError *err)
{
	LlmTrainOptions *t = &r->train;
	LlmRateOptions *rate = &r->job.rate;
	const char *kind = "linear";

	t->beta1 = 0.9;
	t->beta2 = 0.999;
	t->eps = 1e-8;
	t->max_grad_norm = 1;
	*rate = (LlmRateOptions){
		.learning_rate = 5e-5, .n_cycles = 0.5, .end_rate = 1e-7, .power = 1
	};
	if (!get_number(json, "adam_beta1", 0, 0.999999, &t->beta1, err) ||
		!get_number(json, "adam_beta2", 0, 0.999999, &t->beta2, err) ||
		!get_number(json, "adam_epsilon", 0, 1, &t->eps, err) ||
		!get_number(json, "weight_decay", 0, 1e3, &t->weight_decay, err) ||
		!get_number(json, "max_grad_norm", 0, 1e9, &t->max_grad_norm, err) ||
		!get_number(json, "moe_aux_loss_coef", 0, 1e3, &t->router_coef, err) ||
		!get_number(json, "learning_rate", 0, 1e3, &rate->learning_rate, err) ||
		!llm_json_get_string(json, "lr_scheduler_type", &kind, err) ||
		!get_count(json, "warmup_steps", 0, INT32_MAX, &rate->n_warmup_steps,
				   err) ||
		!get_number(json, "warmup_ratio", 0, 1, &r->job.warmup_ratio, err) ||
		!get_number(json, "min_lr_rate", 0, 1, &rate->min_rate, err))
		return false;
	if (!llm_rate_kind_parse(kind, &rate->kind))
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "\"lr_scheduler_type\" does not know the value "
							 "\"%s\"",
							 kind);
	if (rate->kind == LLM_RATE_COSINE_WITH_RESTARTS)
		rate->n_cycles = 1;
	return get_number(json, "num_cycles", 0, 1e6, &rate->n_cycles, err);
}

static bool
parse_preference(const cJSON *json, LlmTrainRequest *r, LlmError *err)
{
	LlmPreferenceOptions *p = &r->job.preference;
	const char *kind = "sigmoid";
	const char *nll = "response";

	p->beta = 0.1;
	p->simpo_gamma = 0.5;
	p->desirable_weight = 1;
	p->undesirable_weight = 1;
	if (!llm_json_get_string(json, "pref_loss", &kind, err) ||
		!get_number(json, "pref_beta", 1e-6, 1e6, &p->beta, err) ||
		!get_number(json, "pref_ftx", 0, 1e6, &p->ftx, err) ||
		!get_number(json, "dpo_label_smoothing", 0, 0.5, &p->label_smoothing,
					err) ||
		!get_number(json, "simpo_gamma", 0, 1e6, &p->simpo_gamma, err) ||
		!llm_json_get_string(json, "orpo_nll", &nll, err) ||
		!get_number(json, "kto_chosen_weight", 0, 1e6, &p->desirable_weight,
					err) ||
		!get_number(json, "kto_rejected_weight", 0, 1e6, &p->undesirable_weight,
					err))
		return false;
	p->orpo_full_nll = strcmp(nll, "full") == 0;
	if (!p->orpo_full_nll && strcmp(nll, "response") != 0)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "\"orpo_nll\" does not know the value \"%s\"",
							 nll);
	return llm_preference_kind_parse(kind, &p->kind) ||
		   llm_error_set(err, LLM_ERROR_INVALID,
						 "\"pref_loss\" does not know the value \"%s\"", kind);
}

/* QLoRA: the base model's weights in NF4. */
static bool
parse_quantization(const cJSON *json, LlmTrainRequest *r, LlmError *err)
{
	const char *type = "nf4";
	bool is_nested = true;
	int64_t n_bits = 0;

	if (!llm_json_get_int(json, "quantization_bit", &n_bits, err) ||
		!llm_json_get_string(json, "quantization_type", &type, err) ||
		!llm_json_get_bool(json, "double_quantization", &is_nested, err))
		return false;
	if (n_bits != 0 && n_bits != 4)
		return llm_error_set(err, LLM_ERROR_UNSUPPORTED,
							 "\"quantization_bit\" must be 4, not %lld",
							 (long long) n_bits);
	if (strcmp(type, "nf4") != 0)
		return llm_error_set(err, LLM_ERROR_UNSUPPORTED,
							 "\"quantization_type\" must be \"nf4\", not "
							 "\"%s\"",
							 type);
	if (n_bits == 4)
		strcpy(r->model.quantization, is_nested ? "nf4_nested" : "nf4");
	return true;
}

/* stage: what the rows must be for; absent: whatever they are for. */
static bool
parse_stage(const cJSON *json, LlmTrainRequest *r, LlmError *err)
{
	const char *stage = "";

	if (!llm_json_get_string(json, "stage", &stage, err))
		return false;
	if (stage[0] != '\0' && strcmp(stage, "sft") != 0 &&
		strcmp(stage, "dpo") != 0 && strcmp(stage, "kto") != 0)
	{
		llm_error_set(err, LLM_ERROR_INVALID,
					  "\"stage\" does not know the value \"%s\"", stage);
		return llm_error_hint(err, "Known are sft, dpo and kto.");
	}
	strcpy(r->stage, stage);
	return true;
}

static bool
parse_job(const cJSON *json, LlmTrainRequest *r, LlmError *err)
{
	int64_t rows = 8;
	int64_t accumulated = 1;
	int64_t seed = 42;
	int64_t cutoff = 2048;
	int64_t max_tokens = 0;
	LlmTrainJobOptions *j = &r->job;

	j->n_epochs = 3;
	if (!get_count(json, "per_device_train_batch_size", 1, 1 << 20, &rows,
				   err) ||
		!get_count(json, "gradient_accumulation_steps", 1, 1 << 20,
				   &accumulated, err) ||
		!get_number(json, "num_train_epochs", 0, 1e6, &j->n_epochs, err) ||
		!get_count(json, "max_steps", -1, INT32_MAX, &j->max_steps, err) ||
		!get_count(json, "seed", 0, INT64_C(1) << 52, &seed, err) ||
		!get_count(json, "cutoff_len", 2, 1 << 20, &cutoff, err) ||
		!get_count(json, "max_tokens", 0, 1 << 20, &max_tokens, err) ||
		!get_count(json, "max_memory_bytes", 0, INT64_C(1) << 50,
				   &r->max_memory_bytes, err) ||
		!llm_json_get_bool(json, "disable_shuffling", &j->disable_shuffling,
						   err) ||
		!llm_json_get_bool(json, "disable_gradient_checkpointing",
						   &r->disable_gradient_checkpointing, err))
		return false;
	if (rows * accumulated > INT32_MAX)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "a step of %lld rows is too large",
							 (long long) (rows * accumulated));
	if (j->max_steps < 0)
		j->max_steps = 0;
	j->batch_size = (int32_t) (rows * accumulated);
	j->group_size = (int32_t) rows;
	j->seed = (uint64_t) seed;
	j->max_segment = (int32_t) cutoff;
	/* both answers of a pair lie in one micro-batch */
	j->max_tokens = (int32_t) (max_tokens > 0 ? max_tokens : 2 * cutoff);
	return true;
}

static bool
parse_evaluation(const cJSON *json, LlmTrainRequest *r, LlmError *err)
{
	return get_count(json, "save_steps", 0, INT32_MAX, &r->save_steps, err) &&
		   get_count(json, "eval_steps", 0, INT32_MAX, &r->eval_steps, err) &&
		   get_count(json, "early_stopping_steps", 0, INT32_MAX,
					 &r->early_stopping_steps, err) &&
		   llm_json_get_bool(json, "load_best_model_at_end", &r->load_best,
							 err) &&
		   llm_json_get_bool(json, "eval_on_start", &r->eval_on_start, err);
}

/* What the trainer is to know of the job. */
static void
complete(LlmTrainRequest *r)
{
	r->train.seed = r->job.seed;
	r->train.max_tokens = r->job.max_tokens;
	r->train.max_segment = r->job.max_segment;
	r->train.max_logit_rows = r->job.max_tokens < 256 ? r->job.max_tokens : 256;
	r->train.recompute = r->disable_gradient_checkpointing
							 ? LLM_RECOMPUTE_SELECTIVE
							 : LLM_RECOMPUTE_FULL;
}

/* What a job leaves to others on the same device. */
static bool
parse_yielding(const cJSON *json, LlmTrainRequest *r, LlmError *err)
{
	r->max_yield_ms = 10000;
	if (!llm_json_get_bool(json, "yield_to_serving", &r->yield_to_serving,
						   err) ||
		!get_count(json, "max_yield_ms", 0, INT32_MAX, &r->max_yield_ms, err))
		return false;
	return !r->yield_to_serving || r->busy_sign[0] != '\0' ||
		   llm_error_set(err, LLM_ERROR_INVALID,
						 "\"yield_to_serving\" needs \"busy_sign\"");
}

bool
llm_train_request_parse(const char *text, size_t len, LlmTrainRequest *request,
						LlmError *err)
{
	cJSON *json = llm_json_parse(text, len, "the job", err);
	bool ok;

	memset(request, 0, sizeof(*request));
	if (json == NULL)
		return false;
	ok = llm_executor_options_parse(text, len, &request->model, err) &&
		 parse_quantization(json, request, err) &&
		 parse_paths(json, request, err) && parse_stage(json, request, err) &&
		 parse_adapter(json, request, err) &&
		 parse_optimizer(json, request, err) &&
		 parse_preference(json, request, err) &&
		 parse_evaluation(json, request, err) &&
		 parse_yielding(json, request, err) && parse_job(json, request, err);
	cJSON_Delete(json);
	if (ok)
		complete(request);
	return ok;
}

/*
 * finetune_options.c
 *	  A job's options: understood, or refused by name.
 *
 * What the executor is told is checked here too, by the table below, so that a
 * typing error fails the statement and not a job that has begun.
 *
 * src/server/finetune/finetune_options.c
 */
#include "postgres.h"

#include <math.h>

#include "src/common/adapter/adapter.h"
#include "src/server/finetune/finetune_options.h"
#include "src/server/report.h"
#include "src/server/settings.h"

#define MAX_COUNT 2147483647.0

typedef enum OptionType
{
	OPTION_NUMBER,
	OPTION_COUNT,
	OPTION_BOOL,
	OPTION_TEXT
} OptionType;

/* What the executor knows; see LlmTrainRequest. */
typedef struct TrainOption
{
	const char *name;
	OptionType type;
	double low; /* of numbers and counts */
	double high;
	const char *choices; /* of texts: each between spaces; NULL: any */
} TrainOption;

static const TrainOption train_options[] = {
	{ "lora_rank", OPTION_COUNT, 1, LLM_ADAPTER_MAX_RANK },
	{ "lora_alpha", OPTION_NUMBER, 0, 1e6 },
	{ "lora_dropout", OPTION_NUMBER, 0, 0.99 },
	{ "lora_target", OPTION_TEXT },
	{ "use_rslora", OPTION_BOOL },
	{ "use_dora", OPTION_BOOL },
	{ "loraplus_lr_ratio", OPTION_NUMBER, 0, 1e6 },
	{ "neftune_noise_alpha", OPTION_NUMBER, 0, 1e6 },
	{ "moe_aux_loss_coef", OPTION_NUMBER, 0, 1e3 },
	{ "quantization_bit", OPTION_COUNT, 4, 4 },
	{ "quantization_type", OPTION_TEXT, .choices = " nf4 " },
	{ "double_quantization", OPTION_BOOL },
	{ "stage", OPTION_TEXT, .choices = " sft dpo orpo simpo kto " },
	{ "pref_loss", OPTION_TEXT, .choices = " sigmoid hinge ipo orpo simpo " },
	{ "pref_beta", OPTION_NUMBER, 1e-6, 1e6 },
	{ "pref_ftx", OPTION_NUMBER, 0, 1e6 },
	{ "dpo_label_smoothing", OPTION_NUMBER, 0, 0.5 },
	{ "simpo_gamma", OPTION_NUMBER, 0, 1e6 },
	{ "orpo_nll", OPTION_TEXT, .choices = " response full " },
	{ "kto_chosen_weight", OPTION_NUMBER, 0, 1e6 },
	{ "kto_rejected_weight", OPTION_NUMBER, 0, 1e6 },
	{ "learning_rate", OPTION_NUMBER, 0, 1e3 },
	{ "lr_scheduler_type", OPTION_TEXT },
	{ "warmup_steps", OPTION_COUNT, 0, MAX_COUNT },
	{ "warmup_ratio", OPTION_NUMBER, 0, 1 },
	{ "min_lr_rate", OPTION_NUMBER, 0, 1 },
	{ "num_cycles", OPTION_NUMBER, 0, 1e6 },
	{ "adam_beta1", OPTION_NUMBER, 0, 0.999999 },
	{ "adam_beta2", OPTION_NUMBER, 0, 0.999999 },
	{ "adam_epsilon", OPTION_NUMBER, 0, 1 },
	{ "weight_decay", OPTION_NUMBER, 0, 1e3 },
	{ "max_grad_norm", OPTION_NUMBER, 0, 1e9 },
	{ "num_train_epochs", OPTION_NUMBER, 0, 1e6 },
	{ "max_steps", OPTION_COUNT, -1, MAX_COUNT },
	{ "per_device_train_batch_size", OPTION_COUNT, 1, 1 << 20 },
	{ "gradient_accumulation_steps", OPTION_COUNT, 1, 1 << 20 },
	{ "max_tokens", OPTION_COUNT, 0, 1 << 20 },
	{ "seed", OPTION_COUNT, 0, 4503599627370496.0 },
	{ "disable_shuffling", OPTION_BOOL },
	{ "disable_gradient_checkpointing", OPTION_BOOL },
	{ "save_steps", OPTION_COUNT, 0, MAX_COUNT },
	{ "eval_steps", OPTION_COUNT, 0, MAX_COUNT },
	{ "eval_on_start", OPTION_BOOL },
	{ "early_stopping_steps", OPTION_COUNT, 0, MAX_COUNT },
	{ "load_best_model_at_end", OPTION_BOOL },
	{ "num_threads", OPTION_COUNT, 0, 1024 },
	{ "yield_to_serving", OPTION_BOOL },
	{ "max_yield_ms", OPTION_COUNT, 0, MAX_COUNT },
	{ "device", OPTION_TEXT, .choices = " auto cpu cuda " },
	{ "dtype", OPTION_TEXT, .choices = " auto float32 bfloat16 float16 " },
};

static void __attribute__((noreturn))
fail_value(const char *name, const char *wanted)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("option \"%s\" must be %s", name, wanted)));
	pg_unreachable();
}

static const TrainOption *
find_train_option(const char *name)
{
	for (int i = 0; i < lengthof(train_options); i++)
		if (strcmp(train_options[i].name, name) == 0)
			return &train_options[i];
	return NULL;
}

static void
check_number(const char *name, const cJSON *value, double low, double high,
			 bool is_whole)
{
	double number = cJSON_IsNumber(value) ? value->valuedouble : NAN;

	if (!(number >= low && number <= high) ||
		(is_whole && number != floor(number)))
		fail_value(name, psprintf("a %snumber from %.15g to %.15g",
								  is_whole ? "whole " : "", low, high));
}

static void
check_choice(const char *name, const cJSON *value, const char *choices)
{
	if (!cJSON_IsString(value))
		fail_value(name, "a string");
	if (choices != NULL &&
		(strchr(value->valuestring, ' ') != NULL ||
		 strstr(choices, psprintf(" %s ", value->valuestring)) == NULL))
		fail_value(name,
				   psprintf("one of:%.*s", (int) strlen(choices) - 1, choices));
}

static void
check_train_option(const TrainOption *option, const cJSON *value)
{
	switch (option->type)
	{
		case OPTION_NUMBER:
			check_number(option->name, value, option->low, option->high, false);
			break;
		case OPTION_COUNT:
			check_number(option->name, value, option->low, option->high, true);
			break;
		case OPTION_BOOL:
			if (!cJSON_IsBool(value))
				fail_value(option->name, "true or false");
			break;
		case OPTION_TEXT:
			check_choice(option->name, value, option->choices);
			break;
	}
}

static void
copy_item(cJSON *train, const cJSON *value)
{
	cJSON *copy = cJSON_Duplicate(value, true);

	/* of equal keys the last counts */
	cJSON_DeleteItemFromObjectCaseSensitive(train, value->string);
	if (copy == NULL || !cJSON_AddItemToObject(train, value->string, copy))
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
}

static int64
take_count(const cJSON *value, double low)
{
	check_number(value->string, value, low, MAX_COUNT, true);
	return (int64) value->valuedouble;
}

static bool
take_bool(const cJSON *value)
{
	if (!cJSON_IsBool(value))
		fail_value(value->string, "true or false");
	return cJSON_IsTrue(value);
}

static char *
take_text(const cJSON *value)
{
	check_choice(value->string, value, NULL);
	return pstrdup(value->valuestring);
}

/* true: from the active version; a number: from that one. */
static void
take_continue(LlmFinetuneOptions *options, const cJSON *value)
{
	options->continues = !cJSON_IsFalse(value);
	options->continue_from = 0;
	if (!cJSON_IsBool(value))
		options->continue_from = (int32) take_count(value, 1);
}

static bool
take_own(LlmFinetuneOptions *options, const cJSON *value)
{
	const char *name = value->string;

	if (strcmp(name, "model") == 0)
		options->model = take_text(value);
	else if (strcmp(name, "description") == 0)
		options->description = take_text(value);
	else if (strcmp(name, "activate") == 0)
		options->activate = take_bool(value);
	else if (strcmp(name, "continue_from") == 0)
		take_continue(options, value);
	else if (strcmp(name, "publish_if_better") == 0)
		options->publish_if_better = take_bool(value);
	else if (strcmp(name, "logging_steps") == 0)
		options->logging_steps = take_count(value, 1);
	/* the engine always packs, and the results are the same */
	else if (strcmp(name, "packing") == 0)
		(void) take_bool(value);
	else
		return false;
	return true;
}

/* Absent and null are the same everywhere. */
static void
take_option(LlmFinetuneOptions *options, cJSON *train, const cJSON *value)
{
	const TrainOption *option = find_train_option(value->string);
	bool is_cutoff = strcmp(value->string, "cutoff_len") == 0;

	if (cJSON_IsNull(value))
		return;
	if (option != NULL)
	{
		check_train_option(option, value);
		copy_item(train, value);
		if (strcmp(option->name, "seed") == 0)
			options->dataset.seed = (uint64) value->valuedouble;
	}
	else if (is_cutoff)
		options->has_cutoff_len =
			llm_dataset_options_take(&options->dataset, value);
	else if (!take_own(options, value) &&
			 !llm_dataset_options_take(&options->dataset, value))
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unrecognized option \"%s\"", value->string),
			 errhint("Options of fine-tuning have LLaMA-Factory's names.")));
}

/* ORPO and SimPO are losses of pairs. */
static void
replace_stage(cJSON *train)
{
	cJSON *stage = cJSON_GetObjectItemCaseSensitive(train, "stage");
	const char *loss;

	if (stage == NULL || (strcmp(stage->valuestring, "orpo") != 0 &&
						  strcmp(stage->valuestring, "simpo") != 0))
		return;
	loss = pstrdup(stage->valuestring);
	if (cJSON_GetObjectItemCaseSensitive(train, "pref_loss") != NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("stage \"%s\" and option \"pref_loss\" exclude "
							   "each other",
							   loss)));
	if (cJSON_SetValuestring(stage, "dpo") == NULL ||
		cJSON_AddStringToObject(train, "pref_loss", loss) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
}

/* What is only known by evaluations needs them. */
static void
check_evaluation(const LlmFinetuneOptions *options, const cJSON *train)
{
	const cJSON *steps = cJSON_GetObjectItemCaseSensitive(train, "eval_steps");
	const cJSON *stopping =
		cJSON_GetObjectItemCaseSensitive(train, "early_stopping_steps");
	bool loads_best = cJSON_IsTrue(
		cJSON_GetObjectItemCaseSensitive(train, "load_best_model_at_end"));
	bool stops_early = stopping != NULL && stopping->valuedouble > 0;
	const char *needs = options->publish_if_better ? "publish_if_better"
						: loads_best			   ? "load_best_model_at_end"
						: stops_early			   ? "early_stopping_steps"
												   : NULL;

	if (needs != NULL && options->dataset.val_size == 0 &&
		options->dataset.eval_query == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"%s\" needs rows to evaluate with", needs),
				 errhint("Hold some out with \"val_size\", or name them with "
						 "\"eval_query\".")));
	if ((loads_best || stops_early) &&
		(steps == NULL || steps->valuedouble == 0))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("option \"%s\" needs \"eval_steps\"",
							   loads_best ? "load_best_model_at_end"
										  : "early_stopping_steps"),
						errdetail("Without it, only the end of the training is "
								  "evaluated.")));
}

static void
check_together(const LlmFinetuneOptions *options, const cJSON *train)
{
	const cJSON *rank = cJSON_GetObjectItemCaseSensitive(train, "lora_rank");

	check_evaluation(options, train);
	llm_dataset_options_check(&options->dataset);
	if ((rank != NULL ? rank->valuedouble : 8) > llm_setting_max_lora_rank)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"lora_rank\" is above the largest rank that "
						"is served, %d",
						llm_setting_max_lora_rank),
				 errhint("Raise llm_ext.max_lora_rank and load the model "
						 "again.")));
}

static void
take_all(LlmFinetuneOptions *options, const cJSON *object, cJSON *train)
{
	const cJSON *value;
	char *text;

	cJSON_ArrayForEach(value, object)
	{
		take_option(options, train, value);
	}
	replace_stage(train);
	check_together(options, train);
	if (options->publish_if_better)
	{
		cJSON_DeleteItemFromObjectCaseSensitive(train, "eval_on_start");
		(void) cJSON_AddTrueToObject(train, "eval_on_start");
	}
	text = cJSON_PrintUnformatted(train);
	if (text == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	options->train = pstrdup(text);
	cJSON_free(text);
}

void
llm_finetune_options_parse(const char *json, LlmFinetuneOptions *options)
{
	LlmError err;
	cJSON *object = llm_json_parse(json, strlen(json), "options", &err);
	cJSON *train = cJSON_CreateObject();

	memset(options, 0, sizeof(*options));
	llm_dataset_options_init(&options->dataset);
	options->activate = true;
	options->logging_steps = 10;
	if (object == NULL)
	{
		cJSON_Delete(train);
		llm_report(ERROR, &err);
	}
	PG_TRY();
	{
		if (!cJSON_IsObject(object))
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("options must be a JSON object")));
		take_all(options, object, train);
	}
	PG_FINALLY();
	{
		cJSON_Delete(object);
		cJSON_Delete(train);
	}
	PG_END_TRY();
}

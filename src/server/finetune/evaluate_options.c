/*
 * evaluate_options.c
 *	  The options of an evaluation: a dataset's, those of the answers, and how
 *	  they are scored.
 *
 * src/server/finetune/evaluate_options.c
 */
#include "src/server/finetune/evaluate.h"

#include "catalog/pg_type.h"
#include "src/server/sql/text_convert.h"

static void __attribute__((noreturn)) fail_key(const char *key, const char *why)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("option \"%s\" %s", key, why)));
	pg_unreachable();
}

static char *
take_string(const cJSON *member)
{
	if (!cJSON_IsString(member) || member->valuestring[0] == '\0')
		fail_key(member->string, "must be a string that is not empty");
	return pstrdup(member->valuestring);
}

static void
take_score(LlmEvaluateOptions *result, const cJSON *member)
{
	static const char *const names[] = { [LLM_SCORE_NONE] = "none",
										 [LLM_SCORE_EXACT] = "exact_match",
										 [LLM_SCORE_JSON] = "json_match",
										 [LLM_SCORE_REGEX] = "regex",
										 [LLM_SCORE_SQL] = "sql" };

	for (int i = 0; i < lengthof(names); i++)
	{
		if (!cJSON_IsString(member) ||
			strcmp(member->valuestring, names[i]) != 0)
			continue;
		result->score = (LlmScoreKind) i;
		return;
	}
	fail_key(member->string, "must be \"none\", \"exact_match\", "
							 "\"json_match\", \"regex\" or \"sql\"");
}

static void
take_member(LlmEvaluateOptions *result, const cJSON *member)
{
	const char *key = member->string;

	if (strcmp(key, "score") == 0)
		take_score(result, member);
	else if (strcmp(key, "pattern") == 0)
		result->pattern = take_string(member);
	else if (strcmp(key, "expression") == 0)
		result->expression = take_string(member);
	else if (strcmp(key, "val_size") == 0 || strcmp(key, "eval_query") == 0 ||
			 strcmp(key, "on_bad_row") == 0)
		fail_key(key, "belongs to training");
	else if (!llm_dataset_options_take(&result->dataset, member))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("unrecognized option \"%s\"", key)));
}

/* What decides the prompt is the dataset's to say. */
static void
check_generate(const LlmGenerateOptions *generate)
{
	if (generate->adapter != NULL)
		fail_key("generate", "must not name an adapter");
	if (generate->tools.data != NULL || generate->documents.data != NULL ||
		generate->chat_template_kwargs.data != NULL)
		fail_key("generate",
				 "must not change the prompt, which the dataset decides");
	llm_generate_options_refuse_stream(generate);
}

static void
check_score(const LlmEvaluateOptions *result, bool has_generate)
{
	if ((result->score == LLM_SCORE_REGEX) != (result->pattern != NULL))
		fail_key("pattern", "goes with \"score\": \"regex\"");
	if ((result->score == LLM_SCORE_SQL) != (result->expression != NULL))
		fail_key("expression", "goes with \"score\": \"sql\"");
	if (result->score == LLM_SCORE_NONE && has_generate)
		fail_key("generate", "needs a \"score\"");
	if (result->score != LLM_SCORE_NONE && result->dataset.row.train_on_prompt)
		fail_key("train_on_prompt", "leaves no answer to score");
}

/* All but "generate", which keeps its JSON text; NULL: model says nothing. */
static char *
take_members(LlmEvaluateOptions *result, LlmTemplateText object)
{
	cJSON *tree = llm_json_parse_value(object, "options");
	const cJSON *member;
	char *model = NULL;

	PG_TRY();
	{
		if (!cJSON_IsObject(tree))
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("options must be a JSON object")));
		cJSON_ArrayForEach(member, tree)
		{
			if (strcmp(member->string, "model") == 0)
				model = take_string(member);
			else if (strcmp(member->string, "generate") != 0)
				take_member(result, member);
		}
	}
	PG_FINALLY();
	{
		cJSON_Delete(tree);
	}
	PG_END_TRY();
	return model;
}

void
llm_evaluate_options_parse(Datum options, LlmEvaluateOptions *result)
{
	LlmTemplateText object = llm_json_text(options, JSONBOID);
	LlmTemplateText generate;
	char *model;

	memset(result, 0, sizeof(*result));
	llm_dataset_options_init(&result->dataset);
	model = take_members(result, object);
	generate = llm_json_member(object, "generate");
	llm_generate_options_parse(generate, false, &result->generate);
	check_generate(&result->generate);
	check_score(result, generate.data != NULL);
	llm_dataset_options_check(&result->dataset);
	if (result->dataset.row.overlong == LLM_OVERLONG_SPLIT)
		fail_key("overlong", "must not split rows, which are evaluated whole");
	if (result->generate.model == NULL)
		result->generate.model = model;
	if (!result->generate.has_temperature)
		result->generate.params.temperature = 0;
	result->generate.has_temperature = true;
	result->generate.has_class = true;
	result->generate.is_batch = true;
}

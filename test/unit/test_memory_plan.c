/*
 * test_memory_plan.c
 *	  The lines of a memory plan add up, and what does not fit is refused with
 *	  the numbers.
 *
 * test/unit/test_memory_plan.c
 */
#include <string.h>

#include "src/common/util/json.h"
#include "src/engine/executor/memory_plan.h"
#include "test/unit/unit_test.h"

#define GB INT64_C(1000000000)

/* A GPU of 80 GB, of which 49 GB are left for the cache. */
static LlmMemoryPlan
sample_plan(void)
{
	LlmMemoryPlan plan = { .device_bytes = 80 * GB };

	plan.bytes[LLM_MEMORY_WITHHELD] = 8 * GB;
	plan.bytes[LLM_MEMORY_OTHERS] = 1 * GB;
	plan.bytes[LLM_MEMORY_WEIGHTS] = 16 * GB;
	plan.bytes[LLM_MEMORY_ACTIVATIONS] = 2 * GB;
	plan.bytes[LLM_MEMORY_ADAPTERS] = 1 * GB;
	plan.bytes[LLM_MEMORY_SCRATCH] = 2 * GB;
	plan.bytes[LLM_MEMORY_GRAPHS] = GB / 2;
	plan.bytes[LLM_MEMORY_RESERVE] = GB / 2;
	return plan;
}

static cJSON *
describe(const LlmMemoryPlan *plan)
{
	LlmStrbuf json;
	LlmError err;
	cJSON *lines;

	llm_strbuf_init(&json);
	llm_memory_plan_describe(plan, &json);
	lines = llm_json_parse(json.data, json.len, "lines", &err);
	CHECK(lines != NULL && cJSON_IsArray(lines));
	llm_strbuf_free(&json);
	return lines;
}

static double
bytes_of(const cJSON *lines, const char *what)
{
	const cJSON *line;

	cJSON_ArrayForEach(line, lines)
	{
		if (strcmp(cJSON_GetObjectItem(line, "what")->valuestring, what) == 0)
			return cJSON_GetObjectItem(line, "bytes")->valuedouble;
	}
	return -1;
}

static void
a_gpus_lines_add_up(void)
{
	LlmMemoryPlan plan = sample_plan();
	int64_t kv_bytes = 0;
	double sum = 0;
	LlmError err;
	cJSON *lines;
	const cJSON *line;

	CHECK(llm_memory_plan_check(&plan, "a GPU", &kv_bytes, &err));
	CHECK_INT_EQ(kv_bytes, 49 * GB);
	/* blocks are whole, and not more than all sequences can use */
	plan.bytes[LLM_MEMORY_KV_CACHE] = 40 * GB;
	lines = describe(&plan);
	cJSON_ArrayForEach(line, lines)
	{
		sum += cJSON_GetObjectItem(line, "bytes")->valuedouble;
	}
	CHECK(sum == 80e9);
	CHECK(bytes_of(lines, "weights") == 16e9);
	CHECK(bytes_of(lines, "kv_cache") == 40e9);
	CHECK(bytes_of(lines, "unused") == 9e9);
	cJSON_Delete(lines);
}

static void
what_does_not_fit_is_refused_with_numbers(void)
{
	LlmMemoryPlan plan = sample_plan();
	int64_t kv_bytes = 50 * GB;
	LlmError err;

	CHECK(!llm_memory_plan_check(&plan, "a GPU", &kv_bytes, &err));
	CHECK_INT_EQ(err.code, LLM_ERROR_NO_MEMORY);
	CHECK(strstr(err.message, "a KV cache of 50.00 GB does not fit: a GPU has "
							  "80.00 GB") != NULL);
	CHECK(strstr(err.message, "weights 16.00 GB, activations 2.00 GB") != NULL);
	kv_bytes = 49 * GB;
	CHECK(llm_memory_plan_check(&plan, "a GPU", &kv_bytes, &err));
	CHECK_INT_EQ(kv_bytes, 49 * GB);
	kv_bytes = 0;
	plan.bytes[LLM_MEMORY_WEIGHTS] = 65 * GB;
	CHECK(!llm_memory_plan_check(&plan, "a GPU", &kv_bytes, &err));
	CHECK(strstr(err.message, "the model does not fit") != NULL);
	CHECK(strstr(err.message, "weights 65.00 GB") != NULL);
}

static void
on_the_cpu_it_says_what_is_taken(void)
{
	LlmMemoryPlan plan = { 0 };
	cJSON *lines;

	plan.bytes[LLM_MEMORY_WEIGHTS] = 3;
	plan.bytes[LLM_MEMORY_KV_CACHE] = 4;
	lines = describe(&plan);
	CHECK_INT_EQ(cJSON_GetArraySize(lines), 2);
	CHECK(bytes_of(lines, "weights") == 3);
	CHECK(bytes_of(lines, "kv_cache") == 4);
	CHECK(bytes_of(lines, "unused") == -1);
	cJSON_Delete(lines);
}

int
main(void)
{
	RUN_TEST(a_gpus_lines_add_up);
	RUN_TEST(what_does_not_fit_is_refused_with_numbers);
	RUN_TEST(on_the_cpu_it_says_what_is_taken);
	return unit_test_finish();
}

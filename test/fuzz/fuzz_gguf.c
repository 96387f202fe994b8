/*
 * fuzz_gguf.c
 *	  Any bytes as a GGUF file: refused, or its tensors can be read, its
 *	  tensors' names are translated, and the texts of the files that a model
 *	  directory would have parse.
 *
 * test/fuzz/fuzz_gguf.c
 */
#include "src/common/gguf/gguf.h"
#include "src/common/util/json.h"
#include "test/fuzz/fuzz.h"

static void
read_tensors(const LlmGguf *gguf)
{
	volatile uint8_t sum = 0;

	for (int i = 0; i < llm_gguf_n_tensors(gguf); i++)
	{
		const LlmGgufTensor *tensor = llm_gguf_get(gguf, i);
		const uint8_t *data = tensor->data;
		LlmGgufTensorName name;
		LlmError err;

		for (size_t k = 0; k < tensor->n_bytes; k++)
			sum = (uint8_t) (sum + data[k]);
		FUZZ_CHECK(llm_gguf_find(gguf, tensor->name) == tensor);
		if (llm_gguf_tensor_name(gguf, tensor, &name, &err))
			FUZZ_CHECK(name.name[0] != '\0');
		else
			FUZZ_CHECK(err.message[0] != '\0');
	}
}

static void
make_texts(const LlmGguf *gguf)
{
	static const char *const names[] = { "config.json",
										 "generation_config.json",
										 "tokenizer.json",
										 "tokenizer_config.json" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
	{
		LlmStrbuf text;
		LlmError err;
		bool found = false;

		llm_strbuf_init(&text);
		if (!llm_gguf_text(gguf, names[i], &text, &found, &err))
			FUZZ_CHECK(err.message[0] != '\0');
		else if (found)
		{
			cJSON *json =
				llm_json_parse(llm_strbuf_str(&text), text.len, names[i], &err);

			FUZZ_CHECK(json != NULL);
			cJSON_Delete(json);
		}
		llm_strbuf_free(&text);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	LlmError err;
	LlmGguf *gguf = llm_gguf_parse(data, size, "input", &err);

	if (gguf == NULL)
	{
		FUZZ_CHECK(err.message[0] != '\0');
		return 0;
	}
	read_tensors(gguf);
	make_texts(gguf);
	llm_gguf_close(gguf);
	return 0;
}

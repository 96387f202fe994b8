/*
 * safetensors_write.c
 *	  The beginning of a safetensors file.
 *
 * Whoever writes a file appends the tensors' data itself, since that may be
 * far more than fits into memory.
 *
 * src/common/safetensors/safetensors_write.c
 */
#include "src/common/safetensors/safetensors.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "src/common/util/json.h"

#define DATA_ALIGNMENT 64

static void
append_json_string(LlmStrbuf *buf, const char *text)
{
	cJSON string = { .type = cJSON_String, .valuestring = (char *) text };
	char *printed = cJSON_PrintUnformatted(&string);

	if (printed == NULL)
		buf->failed = true;
	else
		llm_strbuf_append_str(buf, printed);
	cJSON_free(printed);
}

static void
append_metadata(LlmStrbuf *buf, const cJSON *metadata)
{
	char *printed = cJSON_PrintUnformatted(metadata);

	llm_strbuf_append_str(buf, "\"__metadata__\":");
	if (printed == NULL)
		buf->failed = true;
	else
		llm_strbuf_append_str(buf, printed);
	cJSON_free(printed);
}

static void
append_tensor(LlmStrbuf *buf, const LlmStoredTensor *tensor, uint64_t begin)
{
	append_json_string(buf, tensor->name);
	llm_strbuf_printf(buf, ":{\"dtype\":\"%s\",\"shape\":[",
					  tensor->dtype_name);
	for (int i = 0; i < tensor->n_dims; i++)
		llm_strbuf_printf(buf, "%s%" PRId64, i > 0 ? "," : "",
						  tensor->shape[i]);
	llm_strbuf_printf(buf, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}",
					  begin, begin + tensor->n_bytes);
}

void
llm_safetensors_append_header(LlmStrbuf *file, const LlmStoredTensor *tensors,
							  int n_tensors, const cJSON *metadata)
{
	LlmStrbuf header;
	uint64_t offset = 0;
	uint64_t n_bytes;
	uint8_t length[8];

	llm_strbuf_init(&header);
	llm_strbuf_append_char(&header, '{');
	if (metadata != NULL)
		append_metadata(&header, metadata);
	for (int i = 0; i < n_tensors; i++)
	{
		if (i > 0 || metadata != NULL)
			llm_strbuf_append_char(&header, ',');
		append_tensor(&header, &tensors[i], offset);
		offset += tensors[i].n_bytes;
	}
	llm_strbuf_append_char(&header, '}');
	while (!header.failed && (header.len + 8) % DATA_ALIGNMENT != 0)
		llm_strbuf_append_char(&header, ' ');
	n_bytes = header.len;
	for (int i = 0; i < 8; i++)
		length[i] = (uint8_t) (n_bytes >> (8 * i));
	llm_strbuf_append(file, length, sizeof(length));
	llm_strbuf_append(file, llm_strbuf_str(&header), header.len);
	file->failed |= header.failed;
	llm_strbuf_free(&header);
}

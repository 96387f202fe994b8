/*
 * lora.c
 *	  Writing adapters' images.
 *
 * src/engine/compute/lora.c
 */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "src/common/util/half_float.h"
#include "src/engine/compute/lora.h"

static size_t
aligned(size_t n_bytes)
{
	return (n_bytes + LLM_LORA_ALIGN_BYTES - 1) / LLM_LORA_ALIGN_BYTES *
		   LLM_LORA_ALIGN_BYTES;
}

static size_t
down_bytes(const LlmLoraFormat *format, const LlmLoraShape *shape)
{
	return aligned((size_t) llm_lora_rank(shape->rank) *
				   (size_t) llm_lora_cols(shape->n_in) *
				   llm_dtype_bytes(format->dtype));
}

static size_t
up_bytes(const LlmLoraFormat *format, const LlmLoraShape *shape)
{
	size_t n_out = (size_t) (format->up_by_rank ? llm_lora_cols(shape->n_out)
												: shape->n_out);

	return aligned(n_out * (size_t) llm_lora_rank(shape->rank) *
				   llm_dtype_bytes(format->dtype));
}

static size_t
gain_bytes(const LlmLoraShape *shape)
{
	/* vectors of gains are read whole */
	return shape->has_gain
			   ? aligned((size_t) llm_lora_cols(shape->n_out) * sizeof(float))
			   : 0;
}

/* Where a module's numbers lie, one behind the other; returns the end. */
static size_t
place_module(const LlmLoraFormat *format, const LlmLoraShape *shape, size_t at,
			 LlmLoraModule *module)
{
	*module = (LlmLoraModule){ .rank = llm_lora_rank(shape->rank) };
	if (shape->rank == 0)
		return at;
	module->down = (uint32_t) (at / LLM_LORA_ALIGN_BYTES);
	at += down_bytes(format, shape);
	module->up = (uint32_t) (at / LLM_LORA_ALIGN_BYTES);
	at += up_bytes(format, shape);
	if (shape->has_gain)
		module->gain = (uint32_t) (at / LLM_LORA_ALIGN_BYTES);
	return at + gain_bytes(shape);
}

size_t
llm_lora_image_bytes(const LlmLoraFormat *format, const LlmLoraShape *shapes,
					 int32_t n_modules)
{
	size_t at = aligned((size_t) n_modules * sizeof(LlmLoraModule));
	LlmLoraModule module;

	for (int32_t i = 0; i < n_modules; i++)
		at = place_module(format, &shapes[i], at, &module);
	return at / LLM_LORA_ALIGN_BYTES <= UINT32_MAX ? at : 0;
}

void
llm_lora_image_init(void *image, const LlmLoraFormat *format,
					const LlmLoraShape *shapes, int32_t n_modules)
{
	size_t at = aligned((size_t) n_modules * sizeof(LlmLoraModule));
	LlmLoraModule *table = image;

	for (int32_t i = 0; i < n_modules; i++)
		at = place_module(format, &shapes[i], at, &table[i]);
}

/* dest[first + i] = from[i * stride] */
static void
write_row(void *dest, LlmDtype dtype, int64_t first, const float *from,
		  int64_t stride, int64_t n)
{
	uint16_t *halves = (uint16_t *) dest + first;
	float *floats = (float *) dest + first;

	if (dtype == LLM_DTYPE_BF16)
		for (int64_t i = 0; i < n; i++)
			halves[i] = llm_float_to_bf16(from[i * stride]);
	else
		for (int64_t i = 0; i < n; i++)
			floats[i] = from[i * stride];
}

/* B [n_out, rank] as [rank, n_out], so many outputs at a time. */
static void
write_by_rank(void *up, LlmDtype dtype, const LlmLoraShape *shape,
			  const float *from)
{
	const int64_t tile = 512;
	int64_t cols = llm_lora_cols(shape->n_out);

	for (int64_t o = 0; o < shape->n_out; o += tile)
	{
		int64_t n = shape->n_out - o < tile ? shape->n_out - o : tile;

		for (int64_t r = 0; r < shape->rank; r++)
			write_row(up, dtype, r * cols + o, from + o * shape->rank + r,
					  shape->rank, n);
	}
}

void
llm_lora_image_write(void *image, const LlmLoraFormat *format,
					 int32_t module_idx, const LlmLoraShape *shape,
					 const LlmLoraNumbers *numbers)
{
	const LlmLoraModule *module = llm_lora_module(image, module_idx);
	char *base = image;
	void *down = base + (size_t) module->down * LLM_LORA_ALIGN_BYTES;
	void *up = base + (size_t) module->up * LLM_LORA_ALIGN_BYTES;

	assert(shape->rank > 0 && module->rank == llm_lora_rank(shape->rank));
	assert((numbers->gain != NULL) == (module->gain != 0));
	for (int64_t r = 0; r < shape->rank; r++)
		write_row(down, format->dtype, r * llm_lora_cols(shape->n_in),
				  numbers->down + r * shape->n_in, 1, shape->n_in);
	if (format->up_by_rank)
		write_by_rank(up, format->dtype, shape, numbers->up);
	else
		for (int64_t o = 0; o < shape->n_out; o++)
			write_row(up, format->dtype, o * module->rank,
					  numbers->up + o * shape->rank, 1, shape->rank);
	if (numbers->gain != NULL)
		memcpy(base + (size_t) module->gain * LLM_LORA_ALIGN_BYTES,
			   numbers->gain, (size_t) shape->n_out * sizeof(float));
}

/*
 * cpu_linear_avx512bf16.c
 *	  Matrix products: AVX-512 BF16, both sides in bf16.
 *
 * VDPBF16PS multiplies pairs of bf16 exactly and adds them to an f32 lane;
 * subnormal numbers count as zero.
 *
 * src/engine/compute/cpu_linear_avx512bf16.c
 */
#define TILE_W 4
#define TILE_X 6

#include "src/engine/compute/cpu_linear_body.h"

static void
multiply_bf16_inputs(const LlmCpuLinearTask *task, int64_t row_begin,
					 int64_t row_end)
{
	multiply(FORM_BF16_INPUTS, task, row_begin, row_end);
}

static int64_t
bf16_row_bytes(int64_t n_cols)
{
	return (n_cols + 31) / 32 * 64 + LLM_CPU_ROW_PAD;
}

/* To the nearest, ties to even; padded with zeros. */
static void
prepare_bf16(const float *x, int64_t n_cols, void *out)
{
	char *dest = out;

	for (int64_t k = 0; k < n_cols; k += 32)
	{
		int64_t n = n_cols - k;
		V16 lo = n >= 16 ? v16_load(x + k) : v16_load_first(x + k, n);
		V16 hi = v16_zero();

		if (n > 16)
			hi = n >= 32 ? v16_load(x + k + 16)
						 : v16_load_first(x + k + 16, n - 16);
		_mm512_storeu_si512(dest + k * 2,
							(__m512i) _mm512_cvtne2ps_pbh(hi, lo));
	}
}

const LlmCpuLinearKernel llm_cpu_linear_avx512bf16 = {
	.row_bytes = bf16_row_bytes,
	.prepare = prepare_bf16,
	.multiply = multiply_bf16_inputs,
};

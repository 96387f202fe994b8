/*
 * cuda_code.cuh
 *	  Keys and values as 8-bit codes: from floats, and back to what tensor
 *	  cores multiply.
 *
 * src/common/util/unit_code.h says what codes and units are.  A head of a
 * block is [block_size, dim] codes and then [block_size] units; 16 tokens are
 * the least that lies together.  Their keys lie like bf16 ones, but in
 * matrices of 8 tokens by 16 dimensions: 16 bytes a token.  Their values lie
 * the other way round, 16 bytes a dimension, in the order of code_slot: a word
 * has the four tokens that a thread of a 16-token product holds.
 *
 * cuda/cuda_code.cuh
 */
#ifndef LLM_CUDA_CODE_CUH
#define LLM_CUDA_CODE_CUH

#include "cuda/cuda_internal.cuh"

#include <cuda_fp8.h>
#include <math.h>
#include <string.h>

extern "C"
{
#include "src/common/util/unit_code.h"
}

#define CODE_GROUP 16 /* tokens whose codes lie together */

/* Where the code of a group's token lies among a dimension's 16. */
static __device__ __forceinline__ int
code_slot(int token)
{
	return token % 8 / 2 * 4 + token / 8 * 2 + token % 2;
}

/* 2^(unit - 127), or NaN. */
static __device__ __forceinline__ float
unit_value(uint32_t unit)
{
	return __int_as_float(unit == LLM_UNIT_NAN ? 0x7fc00000
											   : (int) (unit << 23));
}

/* Of a vector whose largest magnitude has these bits. */
static __device__ __forceinline__ uint32_t
unit_of(LlmDtype dtype, uint32_t largest)
{
	bool is_e4m3 = dtype == LLM_DTYPE_FP8_E4M3;
	int unit = (int) (largest >> 23) - (is_e4m3 ? 8 : 6) +
			   ((largest & 0x7fffff) > (is_e4m3 ? 0x600000 : 0x7e0000));

	if (largest >= 0x7f800000)
		return LLM_UNIT_NAN;
	return (uint32_t) max(LLM_UNIT_MIN, min(unit, LLM_UNIT_MAX));
}

/* inverse: 1 over the unit, or 0 for a vector that is NaN */
static __device__ __forceinline__ uint32_t
code_of(LlmDtype dtype, float value, float inverse)
{
	float in_units = inverse == 0 ? 0 : value * inverse;

	if (dtype == LLM_DTYPE_FP8_E4M3)
		return __nv_cvt_float_to_fp8(in_units, __NV_SATFINITE, __NV_E4M3);
	return (uint32_t) __float2int_rn(fmaxf(fminf(in_units, 127), -127)) & 0xff;
}

/* Four codes as f16 in units: bytes 0 and 1, then 2 and 3. */
template <bool IS_E4M3>
static __device__ __forceinline__ void
codes_to_half(uint32_t out[2], uint32_t codes)
{
	if constexpr (IS_E4M3)
	{
		__half2_raw low =
			__nv_cvt_fp8x2_to_halfraw2((__nv_fp8x2_storage_t) codes, __NV_E4M3);
		__half2_raw high = __nv_cvt_fp8x2_to_halfraw2(
			(__nv_fp8x2_storage_t) (codes >> 16), __NV_E4M3);

		out[0] = (uint32_t) low.y << 16 | low.x;
		out[1] = (uint32_t) high.y << 16 | high.x;
	}
	else
	{
		/* 0x6400 is 1024 in f16, whose last bit counts 1 */
		const uint32_t offsets = 0x64806480; /* 1152 */
		uint32_t biased = codes ^ 0x80808080;

#pragma unroll
		for (int i = 0; i < 2; i++)
		{
			uint32_t pair =
				__byte_perm(biased, 0x64646464, i == 0 ? 0x4140 : 0x4342);
			__half2 value =
				__hsub2(*reinterpret_cast<__half2 *>(&pair),
						*reinterpret_cast<const __half2 *>(&offsets));

			out[i] = *reinterpret_cast<uint32_t *>(&value);
		}
	}
}

/* Two codes, in the low half of a word, to bf16; exact. */
static __device__ __forceinline__ uint32_t
codes_to_bf16(bool is_e4m3, uint32_t codes, float unit_0, float unit_1)
{
	float2 value;

	if (is_e4m3)
	{
		__half2_raw raw =
			__nv_cvt_fp8x2_to_halfraw2((__nv_fp8x2_storage_t) codes, __NV_E4M3);

		value = __half22float2(__half2(raw));
	}
	else
		value =
			make_float2((float) (int8_t) codes, (float) (int8_t) (codes >> 8));
	return pack_bf16(value.x * unit_0, value.y * unit_1);
}

/*
 * Expand the 16 bytes of piece i, counted from a tile's first 16-token group,
 * to a tile of bf16 in shared memory; units are the tile's.  Keys become
 * matrices of 8 tokens by 8 dimensions, values of 8 dimensions by 8 tokens, at
 * the same places.
 */
template <int DIM>
static __device__ __forceinline__ void
expand_key_piece(bool is_e4m3, const char *piece, const char *units, int i,
				 bf16 *tile)
{
	const int eight = i / (DIM / 2); /* of tokens */
	const int d = i % (DIM / 2) / 8;
	const uint4 codes = *(const uint4 *) piece;
	const uint32_t words[4] = { codes.x, codes.y, codes.z, codes.w };
	const float unit =
		unit_value(*(const uint8_t *) (units + eight * 8 + i % 8));
	bf16 *dest = tile + eight * 8 * DIM + 2 * d * 64 + i % 8 * 8;
	uint32_t out[8];

#pragma unroll
	for (int k = 0; k < 8; k++)
		out[k] = codes_to_bf16(is_e4m3, words[k / 2] >> k % 2 * 16, unit, unit);
	*(uint4 *) dest = make_uint4(out[0], out[1], out[2], out[3]);
	*(uint4 *) (dest + 64) = make_uint4(out[4], out[5], out[6], out[7]);
}

/* Tokens from the tile's token "end" on become zeros, whatever is there. */
template <int DIM>
static __device__ __forceinline__ void
expand_value_piece(bool is_e4m3, const char *piece, const char *units, int i,
				   int32_t end, bf16 *tile)
{
	const int group = i / DIM;
	const int d = i % DIM;
	const int32_t left = end - group * CODE_GROUP;
	const uint4 codes = *(const uint4 *) piece;
	const uint4 own = *(const uint4 *) (units + group * CODE_GROUP);
	const uint32_t words[4] = { codes.x, codes.y, codes.z, codes.w };
	const uint32_t all[4] = { own.x, own.y, own.z, own.w };
	bf16 *dest = tile + group * 2 * 8 * DIM + d / 8 * 64 + d % 8 * 8;
	uint32_t out[8];

	/* word k has tokens 2 k, 2 k + 1 and 8 more */
#pragma unroll
	for (int k = 0; k < 8; k++)
	{
		uint32_t pair = all[k / 2] >> k % 2 * 16;

		out[k] = codes_to_bf16(is_e4m3, words[k % 4] >> k / 4 * 16,
							   unit_value(pair & 0xff),
							   unit_value(pair >> 8 & 0xff));
		if (left < 2 * k + 2)
			out[k] = left <= 2 * k ? 0 : out[k] & 0xffff;
	}
	*(uint4 *) dest = make_uint4(out[0], out[1], out[2], out[3]);
	*(uint4 *) (dest + 8 * DIM) = make_uint4(out[4], out[5], out[6], out[7]);
}

#endif /* LLM_CUDA_CODE_CUH */

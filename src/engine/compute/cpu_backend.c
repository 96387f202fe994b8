/*
 * cpu_backend.c
 *	  The CPU as a compute backend: opening it, its memory, its table.
 *
 * The siblings: cpu_threads.c runs jobs on all cores; cpu_linear.c,
 * cpu_norm.c, cpu_rope_kv.c, cpu_kv_cache.c, cpu_attention.c, cpu_embed.c,
 * cpu_gated_act.c, cpu_moe.c, cpu_lora.c and cpu_sample.c hold one operation
 * each and cut it into work for threads; the kernels they call are written once in cpu_simd.h,
 * cpu_linear_body.h, cpu_vector_body.h and cpu_attention_body.h, and compiled
 * for each instruction set by the files with its suffix.
 *
 * src/engine/compute/cpu_backend.c
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "src/engine/compute/cpu_quant.h"
#include "src/engine/compute/cpu_train.h"

/* ------------------------------------------------------------------------
 * Memory
 * ------------------------------------------------------------------------
 */

/* In front of every block, so that the block itself stays aligned. */
typedef struct BlockHeader
{
	_Alignas(64) void *mapping; /* NULL: from the heap */
	size_t mapping_bytes;
} BlockHeader;

/* From here on the kernel's zero pages are used instead of the heap. */
#define MAP_BYTES ((size_t) 256 << 10)

#define HUGE_PAGE_BYTES ((size_t) 2 << 20)

/* total bytes of fresh pages, at a huge page's border where use_huge. */
static BlockHeader *
map_block(size_t total, bool use_huge)
{
	size_t n_bytes = total + (use_huge ? HUGE_PAGE_BYTES : 0);
	BlockHeader *header;
	uintptr_t start;
	void *mapping;

	if (n_bytes < total)
		return NULL;
	mapping = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (mapping == MAP_FAILED)
		return NULL;
	start = (uintptr_t) mapping;
	if (use_huge)
	{
		start = (start + HUGE_PAGE_BYTES - 1) & ~(HUGE_PAGE_BYTES - 1);
		/* a refusal costs speed only */
		(void) madvise((void *) start, total, MADV_HUGEPAGE);
	}
	header = (BlockHeader *) start;
	header->mapping = mapping;
	header->mapping_bytes = n_bytes;
	return header;
}

static void *
alloc_block(size_t n_bytes, bool use_huge, const char *name, LlmError *err)
{
	BlockHeader *header = NULL;
	size_t total = (n_bytes + sizeof(BlockHeader) + 63) & ~(size_t) 63;

	if (total >= n_bytes && total >= MAP_BYTES)
		header = map_block(total, use_huge && total >= HUGE_PAGE_BYTES);
	else if (total >= n_bytes)
	{
		header = aligned_alloc(64, total);
		if (header != NULL)
			memset(header, 0, total);
	}
	if (header == NULL)
	{
		llm_error_no_memory(err, n_bytes, name);
		return NULL;
	}
	return header + 1;
}

void *
llm_cpu_alloc(size_t n_bytes, const char *name, LlmError *err)
{
	return alloc_block(n_bytes, true, name, err);
}

void *
llm_cpu_alloc_sparse(size_t n_bytes, const char *name, LlmError *err)
{
	return alloc_block(n_bytes, false, name, err);
}

void
llm_cpu_free(void *address)
{
	BlockHeader *header;

	if (address == NULL)
		return;
	header = (BlockHeader *) address - 1;
	if (header->mapping != NULL)
		munmap(header->mapping, header->mapping_bytes);
	else
		free(header);
}

static void *
cpu_alloc(LlmCompute *compute, size_t n_bytes, const char *name, LlmError *err)
{
	(void) compute;
	return llm_cpu_alloc(n_bytes, name, err);
}

static void
cpu_free(LlmCompute *compute, void *address)
{
	(void) compute;
	llm_cpu_free(address);
}

static bool
cpu_copy(LlmCompute *compute, void *dest, const void *src, size_t n_bytes,
		 LlmError *err)
{
	(void) compute;
	(void) err;
	if (n_bytes > 0)
		memcpy(dest, src, n_bytes);
	return true;
}

static const void *
cpu_weight(LlmCompute *compute, const void *mapped, size_t n_bytes,
		   const char *name, LlmError *err)
{
	(void) compute;
	(void) n_bytes;
	(void) name;
	(void) err;
	return mapped;
}

static void
cpu_weight_free(LlmCompute *compute, const void *address)
{
	(void) compute;
	(void) address;
}

static bool
cpu_step_upload(LlmCompute *compute, const LlmStepInputs *host,
				LlmStepInputs *device, LlmError *err)
{
	LlmCpu *cpu = llm_cpu(compute);

	(void) err;
	assert(host->n_tokens <= cpu->options.max_rows);
	*device = *host;
	if (host->token_ids == NULL)
		return true;
	for (int32_t i = 0; i < host->n_tokens; i++)
	{
		int32_t id = host->token_ids[i];

		if (id < 0)
			id = cpu->drawn_ids[LLM_DRAWN_ROW(id)];
		/* where none could be drawn, the step's results are of no use */
		cpu->token_ids[i] = id < 0 ? 0 : id;
	}
	device->token_ids = cpu->token_ids;
	return true;
}

static bool
cpu_sync(LlmCompute *compute, LlmError *err)
{
	(void) compute;
	(void) err;
	return true;
}

static void
cpu_close(LlmCompute *compute)
{
	LlmCpu *cpu = llm_cpu(compute);

	if (compute == NULL)
		return;
	llm_cpu_threads_free(cpu->threads);
	llm_cpu_free(cpu->linear_x);
	llm_cpu_free(cpu->attention_scratch);
	llm_cpu_free(cpu->sample_scratch);
	llm_cpu_free(cpu->drawn_ids);
	llm_cpu_moe_free(cpu->moe);
	llm_cpu_free(cpu->train_scratch);
	llm_cpu_lora_free(cpu->lora);
	free(cpu);
}

static void
cpu_describe(const LlmCompute *compute, char *dest, size_t size)
{
	snprintf(dest, size, "cpu (%s, %d threads)", llm_compute_cpu_isa(compute),
			 llm_compute_cpu_n_threads(compute));
}

static const LlmComputeOps cpu_ops = {
	.name = "cpu",
	.close = cpu_close,
	.describe = cpu_describe,
	.alloc = cpu_alloc,
	.free = cpu_free,
	.write = cpu_copy,
	.read = cpu_copy,
	.weight = cpu_weight,
	.weight_free = cpu_weight_free,
	.weight_alloc = cpu_alloc,
	.host_alloc = cpu_alloc,
	.host_free = cpu_free,
	.quant_bytes = llm_cpu_quant_bytes,
	.quant_write = llm_cpu_quant_write,
	.kv_create = llm_cpu_kv_create,
	.kv_free = llm_cpu_kv_free,
	.kv_bytes = llm_cpu_kv_bytes,
	.step_upload = cpu_step_upload,
	.embed = llm_cpu_embed,
	.rms_norm = llm_cpu_rms_norm,
	.linear = llm_cpu_linear,
	.rope_kv = llm_cpu_rope_kv,
	.attention = llm_cpu_attention,
	.gated_act = llm_cpu_gated_act,
	.soft_cap = llm_cpu_soft_cap,
	.moe = llm_cpu_moe,
	.gather = llm_cpu_gather,
	.sum_rows = llm_cpu_sum_rows,
	.sample = llm_cpu_sample,
	.sample_wait = cpu_sync,
	.sync = cpu_sync,
	.train = &llm_cpu_train_ops,
};

/* ------------------------------------------------------------------------
 * Instruction sets
 * ------------------------------------------------------------------------
 */
typedef enum Isa
{
	ISA_PORTABLE,
	ISA_AVX2,
	ISA_AVX2VNNI, /* AVX2 and AVX-VNNI */
	ISA_AVX512,
	ISA_AVX512VNNI,
	ISA_AVX512BF16, /* and VNNI */
	ISA_COUNT
} Isa;

static const char *const isa_names[ISA_COUNT] = { "portable",	"avx2",
												  "avx2vnni",	"avx512",
												  "avx512vnni", "avx512bf16" };

#if defined(__x86_64__)

static bool
supports_avx2(void)
{
	unsigned eax;
	unsigned ebx;
	unsigned ecx;
	unsigned edx;

	return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
		   __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C) != 0;
}

static bool
supports_avx512(void)
{
	return supports_avx2() && __builtin_cpu_supports("avx512f") &&
		   __builtin_cpu_supports("avx512bw") &&
		   __builtin_cpu_supports("avx512dq") &&
		   __builtin_cpu_supports("avx512vl");
}

/* A bit of the second page of extended features. */
#define AVX_VNNI_BIT 4
#define AVX512_BF16_BIT 5

static bool
has_feature_bit(int bit)
{
	unsigned eax;
	unsigned ebx;
	unsigned ecx;
	unsigned edx;

	return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) &&
		   (eax >> bit & 1) != 0;
}

#endif

/* Whether processor and operating system support it. */
static bool
is_supported(Isa isa)
{
#if defined(__x86_64__)
	__builtin_cpu_init();
	switch (isa)
	{
		case ISA_AVX2:
			return supports_avx2();
		case ISA_AVX2VNNI:
			return supports_avx2() && has_feature_bit(AVX_VNNI_BIT);
		case ISA_AVX512:
			return supports_avx512();
		case ISA_AVX512VNNI:
			return supports_avx512() && __builtin_cpu_supports("avx512vnni");
		case ISA_AVX512BF16:
			return is_supported(ISA_AVX512VNNI) &&
				   has_feature_bit(AVX512_BF16_BIT);
		default:
			break;
	}
#endif
	return isa == ISA_PORTABLE;
}

/*
 * The fastest one.  Intel's processors start a VDPBF16PS every other cycle
 * but two f32 multiply-adds every cycle, which makes f32 inputs twice as fast
 * there, and exact; AMD's start one of either.
 */
static Isa
preferred_isa(void)
{
	Isa isa = ISA_COUNT - 1;

#if defined(__x86_64__)
	__builtin_cpu_init();
	if (__builtin_cpu_is("intel"))
		isa = ISA_AVX512VNNI;
#endif
	while (!is_supported(isa))
		isa--;
	return isa;
}

static bool
choose_isa(const char *name, Isa *isa, LlmError *err)
{
	*isa = preferred_isa();
	if (name == NULL)
		return true;
	for (int i = 0; i < ISA_COUNT; i++)
	{
		if (strcmp(name, isa_names[i]) != 0)
			continue;
		*isa = (Isa) i;
		if (!is_supported(*isa))
			return llm_error_set(err, LLM_ERROR_UNSUPPORTED,
								 "this processor does not support "
								 "instruction set \"%s\"",
								 name);
		return true;
	}
	llm_error_set(err, LLM_ERROR_INVALID, "instruction set \"%s\" is not known",
				  name);
	return llm_error_hint(err, "Known are portable, avx2, avx2vnni, avx512, "
							   "avx512vnni and avx512bf16.");
}

static void
use_isa(LlmCpu *cpu, Isa isa)
{
	cpu->isa = isa_names[isa];
	cpu->linear = llm_cpu_linear_portable;
	cpu->quant = llm_cpu_quant_portable;
	cpu->vector = llm_cpu_vector_portable;
	cpu->attention = llm_cpu_attention_portable;
	cpu->train = &llm_cpu_train_portable;
	cpu->lora_kernels = llm_cpu_lora_portable;
#if defined(__x86_64__)
	if (isa >= ISA_AVX2)
	{
		cpu->linear = llm_cpu_linear_avx2;
		cpu->quant =
			isa == ISA_AVX2VNNI ? llm_cpu_quant_avx2vnni : llm_cpu_quant_avx2;
		cpu->vector = llm_cpu_vector_avx2;
		cpu->attention = llm_cpu_attention_avx2;
		cpu->train = &llm_cpu_train_avx2;
		cpu->lora_kernels = llm_cpu_lora_avx2;
	}
	if (isa >= ISA_AVX512)
	{
		cpu->linear = llm_cpu_linear_avx512;
		cpu->vector = llm_cpu_vector_avx512;
		cpu->attention = llm_cpu_attention_avx512;
		cpu->train = &llm_cpu_train_avx512;
		cpu->lora_kernels = llm_cpu_lora_avx512;
	}
	if (isa >= ISA_AVX512VNNI)
		cpu->quant = llm_cpu_quant_avx512vnni;
	if (isa >= ISA_AVX512BF16)
		cpu->linear.bf16_inputs = llm_cpu_linear_avx512bf16;
#endif
}

/* ------------------------------------------------------------------------
 * Opening
 * ------------------------------------------------------------------------
 */
static bool
alloc_scratch(LlmCpu *cpu, LlmError *err)
{
	size_t n_threads = (size_t) llm_cpu_threads_count(cpu->threads);

	cpu->linear_x_bytes = llm_cpu_linear_x_bytes();
	cpu->linear_x = llm_cpu_alloc(cpu->linear_x_bytes +
									  n_threads * llm_cpu_linear_thread_bytes(),
								  "scratch of matrix products", err);
	if (cpu->linear_x == NULL)
		return false;
	cpu->linear_scratch = cpu->linear_x + cpu->linear_x_bytes;

	cpu->n_partial_tiles = 16 * (int32_t) n_threads;
	cpu->attention_thread_bytes = llm_cpu_attention_thread_bytes();
	cpu->attention_scratch = llm_cpu_alloc(
		n_threads * cpu->attention_thread_bytes +
			(size_t) cpu->n_partial_tiles * llm_cpu_attention_partial_bytes(),
		"attention scratch", err);
	if (cpu->attention_scratch == NULL)
		return false;

	cpu->sample_thread_bytes = llm_cpu_sample_thread_bytes(&cpu->options);
	cpu->sample_scratch = llm_cpu_alloc(n_threads * cpu->sample_thread_bytes,
										"sampling scratch", err);
	cpu->drawn_ids =
		llm_cpu_alloc(2 * (size_t) cpu->options.max_rows * sizeof(int32_t),
					  "token ids of a step", err);
	if (cpu->sample_scratch == NULL || cpu->drawn_ids == NULL)
		return false;
	cpu->token_ids = cpu->drawn_ids + cpu->options.max_rows;

	/* touched by training alone */
	cpu->train_scratch = llm_cpu_alloc_sparse(
		n_threads * llm_cpu_train_thread_bytes(), "scratch of training", err);
	if (cpu->train_scratch == NULL)
		return false;

	if (cpu->options.max_experts > 0)
		cpu->moe = llm_cpu_moe_create(&cpu->options, (int) n_threads, err);
	if (cpu->options.max_experts > 0 && cpu->moe == NULL)
		return false;

	if (cpu->options.max_loras > 0)
		cpu->lora = llm_cpu_lora_create(&cpu->options, err);
	return cpu->options.max_loras == 0 || cpu->lora != NULL;
}

static bool
check_options(const LlmComputeOptions *options, LlmError *err)
{
	if (options->precision != LLM_DTYPE_F32 &&
		options->precision != LLM_DTYPE_BF16)
		return llm_error_set(err, LLM_ERROR_UNSUPPORTED,
							 "the CPU backend computes in float32 or "
							 "bfloat16, not in %s",
							 options->precision < LLM_DTYPE_COUNT
								 ? llm_dtype_name(options->precision)
								 : "an unknown format");
	if (options->n_threads < 0 || options->n_threads > 4096)
		return llm_error_set(err, LLM_ERROR_INVALID,
							 "number of threads %d is outside 0 .. 4096",
							 options->n_threads);
	return true;
}

LlmCompute *
llm_compute_cpu_open(const LlmComputeOptions *options, LlmError *err)
{
	LlmCpu *cpu;
	Isa isa;

	if (!check_options(options, err) || !choose_isa(options->isa, &isa, err))
		return NULL;
	cpu = calloc(1, sizeof(*cpu));
	if (cpu == NULL)
	{
		llm_error_no_memory(err, sizeof(*cpu), "the CPU backend");
		return NULL;
	}
	cpu->base.ops = &cpu_ops;
	cpu->base.activation_dtype = LLM_DTYPE_F32;
	cpu->base.precision = options->precision;
	cpu->base.lora_format = (LlmLoraFormat){ options->precision, true };
	cpu->options = *options;
	cpu->options.isa = NULL;
	use_isa(cpu, isa);
	cpu->threads = llm_cpu_threads_create(options->n_threads, err);
	if (cpu->threads == NULL || !alloc_scratch(cpu, err))
	{
		cpu_close(&cpu->base);
		return NULL;
	}
	return &cpu->base;
}

const char *
llm_compute_cpu_isa(const LlmCompute *compute)
{
	return ((const LlmCpu *) compute)->isa;
}

int
llm_compute_cpu_n_threads(const LlmCompute *compute)
{
	return llm_cpu_threads_count(((const LlmCpu *) compute)->threads);
}

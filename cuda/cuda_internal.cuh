/*
 * cuda_internal.cuh
 *	  What the files of the CUDA backend share: its state, the checks around
 *	  calls and launches, and number formats.
 *
 * src/engine/compute/compute.h has the contracts; the README of this folder
 * says how the files share the work.
 *
 * cuda/cuda_internal.cuh
 */
#ifndef LLM_CUDA_INTERNAL_CUH
#define LLM_CUDA_INTERNAL_CUH

#include <assert.h>
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

/* the headers below are C */
#define _Static_assert static_assert
extern "C"
{
#include "src/engine/compute/compute.h"
}

typedef __nv_bfloat16 bf16;

#define WARP 32
#define FULL_MASK 0xffffffffu

/* Keys of a tile of attention; pieces of a context are multiples of it. */
#define KEY_TILE 64

/* Rows of a tile of the tensor cores' 16x8x16 product. */
#define MMA_ROWS 16

/* Bytes for cuBLASLt, and to push weights out of the cache when timing. */
#define WORKSPACE_BYTES ((size_t) 64 << 20)

/*
 * Contexts are read in pieces: partial results, then combined.  Keys of blocks
 * that neighbouring sequences share are one piece of all of them.
 */
typedef struct DecodePiece
{
	int32_t first; /* of its sequences: index into decode_seqs */
	int32_t first_key;
	int32_t end_key;
	int16_t n_seqs;
	int16_t ordinal; /* among each sequence's pieces; -1: the only one, which
					  * writes the result */
} DecodePiece;

/* What step_upload makes of a step for attention; device addresses. */
typedef struct StepPlan
{
	int32_t n_decode_seqs; /* sequences with one new token */
	int32_t n_pieces;	   /* an upper bound where the step may be recorded */
	bool are_whole;		   /* every piece is its sequence's only one */
	int32_t n_slots;	   /* of partial results */
	bool is_recordable;	   /* one new token each, brought to a ladder's size */
	bool is_prompt;		   /* deterministic: all tokens are prompts' */
	int32_t n_prefill_seqs;
	int32_t max_prefill_len;	 /* most new tokens of such a sequence */
	int32_t n_prefill_groups;	 /* their contexts by 16 tokens */
	int32_t max_prefill_groups;	 /* of one of them */
	const int32_t *first_groups; /* [n_prefill_seqs] sums of these */
	const DecodePiece *pieces;	 /* [n_pieces] */
	const int32_t *seq_slots;	 /* [n_decode_seqs + 1] first slot of each */
	const int32_t *decode_seqs;	 /* [n_decode_seqs] */
	const int32_t *prefill_seqs; /* [n_prefill_seqs] */
	const int32_t *n_pieces_now; /* [1] */
	int32_t n_lora_tiles;		 /* likewise an upper bound; 0: no adapters */
} StepPlan;

/* A step's arrays on their way, while the step before is computed. */
typedef struct StepStaging
{
	char *pinned;		  /* host */
	char *arrived;		  /* device, as many bytes */
	cudaEvent_t uploaded; /* pinned to arrived */
	cudaEvent_t placed;	  /* arrived to where the kernels read */
} StepStaging;

typedef struct GemmChoice GemmChoice;
typedef struct AlgorithmFile AlgorithmFile;
typedef struct SampleState SampleState;
typedef struct ExpertTable ExpertTable;
typedef struct CudaGraphs CudaGraphs;
typedef struct IdleClock IdleClock;
typedef struct LoraState LoraState;
typedef struct ProductPlans ProductPlans;

typedef struct LlmCuda
{
	LlmCompute base;
	LlmComputeOptions options;
	int device;
	int n_sms;
	int capability; /* 90 = Hopper */
	char name[128];
	cudaStream_t stream;
	cudaStream_t upload_stream; /* inputs of the next step */
	bool is_capturing;			/* launches are recorded, nothing runs */

	/* cuda_arena.cu */
	char *arena; /* weights lie side by side in it */
	size_t arena_bytes;
	unsigned long long arena_handle; /* the driver's, where is_arena_mapped */
	bool is_arena_mapped; /* lendable or borrowed; else cudaMalloc's */

	/* cuda_memory.cu */
	size_t arena_used;
	int64_t n_arena_items;
	char *pinned[2]; /* weights on their way */
	cudaEvent_t pinned_free[2];
	int next_pinned;

	/* cuda_step.cu */
	StepStaging staging[2];
	int next_staging;
	size_t array_bytes;	   /* most of a step's arrays without tables */
	char *step_arrays;	   /* device, array_bytes */
	int32_t *block_tables; /* device [max_seqs, table_stride] */
	int32_t table_stride;
	StepPlan plan; /* of the step in flight */
	int32_t max_pieces;
	int32_t max_slots;
	int32_t tile_seqs;	   /* whose rows fit one tile of decoding, all caches */
	int32_t kv_block_size; /* of all caches; 0: they differ */

	/* cuda_linear.cu */
	cublasLtHandle_t cublas;
	char *workspace; /* WORKSPACE_BYTES */
	GemmChoice *choices;
	int n_choices;
	bool own_products; /* deterministic ones by own kernels alone (tests) */
	AlgorithmFile *algorithms; /* cuda_algorithms.cu; NULL: none kept */

	/* cuda_attention.cu */
	float *partial_out; /* [max_slots, max_heads, MAX_HEAD_DIM] */
	float *partial_lse; /* [max_slots, max_heads] */

	/* cuda_attention_expand.cu; NULL where no memory was given for it */
	char *expanded;			  /* options.kv_expand_bytes */
	int32_t *expanded_tables; /* as block_tables */

	ExpertTable *experts; /* cuda_moe.cu */
	float *expert_scratch;
	SampleState *sample;		 /* cuda_sample.cu */
	CudaGraphs *graphs;			 /* cuda_graph.cu */
	IdleClock *idle;			 /* cuda_idle.cu; NULL: not measured */
	LoraState *lora;			 /* cuda_lora.cu; NULL: no adapters */
	ProductPlans *product_plans; /* cuda_train_product.cu; NULL: none yet */
} LlmCuda;

/* Paged keys and values of all layers. */
struct LlmKvCache
{
	LlmCuda *cuda;
	LlmKvCacheSpec spec;
	int32_t padded_dim; /* head_dim as stored: 64, 96, 128 or 256 */
	char *data;			/* [n_layers, 2 (k, v), n_blocks, n_kv_heads, ...] */
	int64_t half_bytes; /* of a layer's keys, or values */
	int32_t head_bytes; /* of a head of a block, units included */
};

static inline LlmCuda *
llm_cuda(LlmCompute *compute)
{
	return (LlmCuda *) compute;
}

/* ------------------------------------------------------------------------
 * Checks: each call and launch goes through one of these.
 * ------------------------------------------------------------------------
 */
static inline bool
cuda_failed(LlmError *err, cudaError_t code, const char *what)
{
	(void) cudaGetLastError(); /* no later launch is blamed for it */
	return llm_error_set(err,
						 code == cudaErrorMemoryAllocation ? LLM_ERROR_NO_MEMORY
														   : LLM_ERROR_INTERNAL,
						 "CUDA failed in %s: %s (%s)", what,
						 cudaGetErrorString(code), cudaGetErrorName(code));
}

#define CUDA_TRY(call)                             \
	do                                             \
	{                                              \
		cudaError_t code_ = (call);                \
		if (code_ != cudaSuccess)                  \
			return cuda_failed(err, code_, #call); \
	} while (0)

static inline bool
cuda_launched(const char *kernel, LlmError *err)
{
	cudaError_t code = cudaGetLastError();

	return code == cudaSuccess || cuda_failed(err, code, kernel);
}

/*
 * Launch a kernel of a pass that may start before the one in front of it has
 * ended (programmatic dependent launch, on Hopper).  Such a kernel calls
 * pass_release, and pass_wait before it touches anything but weights: that
 * waits for the kernel in front, which has waited for its own.
 */
typedef struct LaunchShape
{
	dim3 grid;
	unsigned n_threads;
	size_t shared_bytes;
} LaunchShape;

template <typename... Params, typename... Args>
static inline cudaError_t
launch_early(const LlmCuda *cuda, const LaunchShape &shape,
			 void (*kernel)(Params...), Args... args)
{
	cudaLaunchAttribute early = {};
	cudaLaunchConfig_t config = {};

	early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
	early.val.programmaticStreamSerializationAllowed = 1;
	config.gridDim = shape.grid;
	config.blockDim = dim3(shape.n_threads);
	config.dynamicSmemBytes = shape.shared_bytes;
	config.stream = cuda->stream;
	config.attrs = &early;
	config.numAttrs = cuda->capability >= 90 ? 1 : 0;
	return cudaLaunchKernelEx(&config, kernel, Params(args)...);
}

static inline int64_t
ceil_div(int64_t a, int64_t b)
{
	return (a + b - 1) / b;
}

/* ------------------------------------------------------------------------
 * Device helpers
 * ------------------------------------------------------------------------
 */

/* Let the next kernel of a pass start: its blocks find room as ours end. */
static __device__ __forceinline__ void
pass_release(void)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
	asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/* All kernels in front are done, and what they wrote can be read. */
static __device__ __forceinline__ void
pass_wait(void)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
	asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* Element i of a float tensor of any format. */
static __device__ __forceinline__ float
load_float(const void *data, LlmDtype dtype, int64_t i)
{
	if (dtype == LLM_DTYPE_BF16)
		return __bfloat162float(((const bf16 *) data)[i]);
	if (dtype == LLM_DTYPE_F16)
		return __half2float(((const __half *) data)[i]);
	return ((const float *) data)[i];
}

static __device__ __forceinline__ float
warp_sum(float x)
{
	for (int offset = WARP / 2; offset > 0; offset /= 2)
		x += __shfl_xor_sync(FULL_MASK, x, offset);
	return x;
}

/* Philox4x32-10, as src/common/util/philox.h. */
static __device__ __forceinline__ uint4
philox(uint64_t key, uint64_t counter_low, uint64_t counter_high)
{
	uint32_t k0 = (uint32_t) key;
	uint32_t k1 = (uint32_t) (key >> 32);
	uint4 c =
		make_uint4((uint32_t) counter_low, (uint32_t) (counter_low >> 32),
				   (uint32_t) counter_high, (uint32_t) (counter_high >> 32));

	for (int round = 0; round < 10; round++)
	{
		uint32_t high0 = __umulhi(0xD2511F53u, c.x);
		uint32_t low0 = 0xD2511F53u * c.x;
		uint32_t high1 = __umulhi(0xCD9E8D57u, c.z);
		uint32_t low1 = 0xCD9E8D57u * c.z;

		c = make_uint4(high1 ^ c.y ^ k0, low1, high0 ^ c.w ^ k1, low0);
		k0 += 0x9E3779B9u;
		k1 += 0xBB67AE85u;
	}
	return c;
}

/*
 * C += A B of one 16x8x16 tile.  Thread 4 g + t of the warp holds of A
 * [16, 16]: rows g (a0, a2) and g + 8 (a1, a3), columns 2t, 2t + 1 (a0, a1)
 * and 2t + 8, 2t + 9 (a2, a3); of B [16, 8] rows 2t, 2t + 1 (b0) and 2t + 8,
 * 2t + 9 (b1) of column g; of C [16, 8] columns 2t, 2t + 1 of rows g (c0, c1)
 * and g + 8 (c2, c3).
 */
static __device__ __forceinline__ void
mma_16x8x16(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
				 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
				 "{%0, %1, %2, %3};"
				 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
				 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0),
				   "r"(b1));
}

/* The same of f16. */
static __device__ __forceinline__ void
mma_16x8x16_half(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
				 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
				 "{%0, %1, %2, %3};"
				 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
				 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0),
				   "r"(b1));
}

static __device__ __forceinline__ uint32_t
pack_bf16(float low, float high)
{
	__nv_bfloat162 pair = __floats2bfloat162_rn(low, high);

	return *reinterpret_cast<uint32_t *>(&pair);
}

/* ------------------------------------------------------------------------
 * The files' functions
 * ------------------------------------------------------------------------
 */

/* cuda_arena.cu */
extern bool cuda_arena_open(LlmCuda *cuda, LlmError *err);
extern void cuda_arena_close(LlmCuda *cuda);
extern int cuda_arena_lend(LlmCompute *compute, LlmError *err);

/* cuda_memory.cu */
/* False, and what was asked for and is free. */
extern bool cuda_no_memory(LlmError *err, size_t n_bytes, const char *name);
extern bool cuda_memory_open(LlmCuda *cuda, LlmError *err);
extern void cuda_memory_close(LlmCuda *cuda);
extern void *cuda_alloc(LlmCompute *compute, size_t n_bytes, const char *name,
						LlmError *err);
extern void cuda_free(LlmCompute *compute, void *address);
extern bool cuda_write(LlmCompute *compute, void *dest, const void *src,
					   size_t n_bytes, LlmError *err);
extern bool cuda_read(LlmCompute *compute, void *dest, const void *src,
					  size_t n_bytes, LlmError *err);
extern const void *cuda_weight(LlmCompute *compute, const void *mapped,
							   size_t n_bytes, const char *name, LlmError *err);
extern void cuda_weight_free(LlmCompute *compute, const void *address);
extern void *cuda_weight_alloc(LlmCompute *compute, size_t n_bytes,
							   const char *name, LlmError *err);

/* cuda_step.cu */
extern bool cuda_step_open(LlmCuda *cuda, LlmError *err);
extern void cuda_step_close(LlmCuda *cuda);
extern size_t cuda_step_bytes(const LlmComputeOptions *options);
extern bool cuda_step_upload(LlmCompute *compute, const LlmStepInputs *host,
							 LlmStepInputs *device, LlmError *err);

/* Of the block tables of all sequences. */
extern size_t cuda_table_bytes(const LlmComputeOptions *options);

/* Most pieces that a decode step's contexts are cut into. */
extern int32_t cuda_max_pieces(const LlmComputeOptions *options, int n_sms);
/* Most partial results of them, one for each sequence of a piece. */
extern int32_t cuda_max_slots(const LlmComputeOptions *options, int n_sms);

/* cuda_graph.cu */
extern bool cuda_graph_open(LlmCuda *cuda, LlmError *err);
extern void cuda_graph_close(LlmCuda *cuda);
extern bool
cuda_pass_begin(LlmCompute *compute, const void *model, const LlmKvCache *kv,
				bool *is_replayed, LlmError *err);
extern bool cuda_pass_end(LlmCompute *compute, bool is_complete, LlmError *err);
/* recorded addresses are about to become others' */
extern void cuda_graph_forget(LlmCuda *cuda);

/* cuda_idle.cu */
typedef enum IdleMark
{
	IDLE_PLACED,  /* the step's inputs are about to be placed */
	IDLE_PASSED,  /* its pass is done */
	IDLE_DRAWING, /* its draw begins */
	IDLE_DRAWN,
	IDLE_N_MARKS
} IdleMark;
extern bool cuda_idle_open(LlmCuda *cuda, LlmError *err);
extern void cuda_idle_close(LlmCuda *cuda);
extern bool cuda_idle_mark(LlmCuda *cuda, IdleMark mark, LlmError *err);
extern bool cuda_idle_count(LlmCuda *cuda, LlmError *err);
extern bool cuda_idle_times(LlmCompute *compute, LlmDeviceTimes *times);

/* cuda_linear.cu */
extern bool cuda_linear_open(LlmCuda *cuda, LlmError *err);
extern void cuda_linear_close(LlmCuda *cuda);
extern bool
cuda_linear(LlmCompute *compute, const LlmLinearArgs *args, LlmError *err);

/* Biases of the parts, which their products have left out. */
extern bool
cuda_add_biases(LlmCuda *cuda, const LlmLinearArgs *args, LlmError *err);

/* Row counts whose products share an algorithm: the largest of them. */
extern int32_t cuda_row_class(int32_t n_rows);

/* cuda_skinny.cu: out = x W^T for few rows, bounded by reading W */
#define SKINNY_MAX_ROWS 16
typedef struct SkinnyArgs
{
	const bf16 *x;		/* [n_rows, n_cols], 16-byte aligned */
	const bf16 *weight; /* [n_out, n_cols], likewise; n_cols % 32 = 0 */
	void *out;
	int64_t out_stride;
	int32_t n_rows;
	int32_t n_cols;
	int32_t n_out;
	bool out_is_f32;
} SkinnyArgs;
extern bool cuda_skinny(LlmCuda *cuda, const SkinnyArgs *args, LlmError *err);
/* cuda_skinny_stream.cu: the same on Hopper */
extern bool
cuda_skinny_stream(LlmCuda *cuda, const SkinnyArgs *args, LlmError *err);

/* cuda_norm.cu, cuda_elementwise.cu */
extern bool
cuda_rms_norm(LlmCompute *compute, const LlmRmsNormArgs *args, LlmError *err);
extern bool
cuda_embed(LlmCompute *compute, const LlmEmbedArgs *args, LlmError *err);
extern bool
cuda_gather(LlmCompute *compute, const LlmGatherArgs *args, LlmError *err);
extern bool
cuda_sum_rows(LlmCompute *compute, const LlmSumRowsArgs *args, LlmError *err);
extern bool
cuda_gated_act(LlmCompute *compute, const LlmGatedActArgs *args, LlmError *err);
extern bool
cuda_soft_cap(LlmCompute *compute, const LlmSoftCapArgs *args, LlmError *err);
extern bool cuda_fill_normal(LlmCompute *compute, const LlmFillNormalArgs *args,
							 LlmError *err);

/* cuda_kv_cache.cu */
extern LlmKvCache *
cuda_kv_create(LlmCompute *compute, const LlmKvCacheSpec *spec, LlmError *err);
extern void cuda_kv_free(LlmKvCache *kv);
extern size_t cuda_kv_bytes(const LlmKvCacheSpec *spec);
extern bool
cuda_rope_kv(LlmCompute *compute, const LlmRopeKvArgs *args, LlmError *err);

/* cuda_attention.cu */
#define MAX_HEAD_DIM 256
extern bool cuda_attention(LlmCompute *compute, const LlmAttentionArgs *args,
						   LlmError *err);

/* The parameters of both attention kernels. */
typedef struct AttentionParams
{
	const bf16 *q;
	bf16 *out;
	const char *keys; /* the layer's */
	const char *values;
	LlmDtype kv_dtype;
	int32_t head_bytes; /* of a head of a block */
	const int32_t *block_tables;
	const int32_t *query_start;
	const int32_t *context_len;
	int64_t q_stride;
	int32_t table_stride;
	int32_t block_shift; /* log2 of the block size */
	int32_t n_heads;
	int32_t n_kv_heads;
	int32_t head_dim;
	int32_t group; /* query heads of a kv head */
	int32_t window;
	float scale_log2; /* of scores, for powers of 2 */
	float scale;
	float soft_cap;
	bool q_is_aligned; /* rows of q can be read by 16 bytes */
	float *partial_out;
	float *partial_lse;
} AttentionParams;
extern bool cuda_attention_decode(LlmCuda *cuda, const AttentionParams *params,
								  int32_t padded_dim, LlmError *err);
extern bool cuda_attention_prefill(LlmCuda *cuda, const AttentionParams *params,
								   int32_t padded_dim, LlmError *err);
/* cuda_attention_hopper.cu: the same on Hopper */
extern bool cuda_attention_hopper(LlmCuda *cuda, const AttentionParams *params,
								  int32_t padded_dim, LlmError *err);
/*
 * cuda_attention_expand.cu: contexts of prompts that are codes become bf16, and
 * *params point there, if there is room.
 */
extern bool cuda_attention_expand_open(LlmCuda *cuda, LlmError *err);
extern void cuda_attention_expand_close(LlmCuda *cuda);
extern bool cuda_attention_expand(LlmCuda *cuda, AttentionParams *params,
								  int32_t padded_dim, LlmError *err);

/* cuda_lora.cu */
extern bool cuda_lora_open(LlmCuda *cuda, LlmError *err);
extern void cuda_lora_close(LlmCuda *cuda);
extern size_t cuda_lora_bytes(const LlmComputeOptions *options);
extern void *cuda_host_alloc(LlmCompute *compute, size_t n_bytes,
							 const char *name, LlmError *err);
extern void cuda_host_free(LlmCompute *compute, void *address);
extern bool cuda_copy_aside(LlmCompute *compute, void *dest, const void *src,
							size_t n_bytes, LlmError *err);
extern bool
cuda_copy_aside_done(LlmCompute *compute, bool *is_done, LlmError *err);
/* after the plan is made: sorts the step's rows by their adapters */
extern bool
cuda_lora_upload(LlmCuda *cuda, const LlmStepInputs *host, LlmError *err);
/* around the base's product: whether there is anything to do; both halves */
extern bool cuda_lora_applies(const LlmCuda *cuda, const LlmLinearArgs *args);
extern bool
cuda_lora_shrink(LlmCuda *cuda, const LlmLinearArgs *args, LlmError *err);
/* this half may be left to an activation that comes next */
extern bool
cuda_lora_expand(LlmCuda *cuda, const LlmLinearArgs *args, LlmError *err);
/* what was left is done now: before anything else looks at the outputs */
extern bool cuda_lora_settle(LlmCuda *cuda, LlmError *err);
/* the activation together with what was left of its inputs, if anything was */
extern bool cuda_lora_gated_act(LlmCuda *cuda, const LlmGatedActArgs *args,
								bool *is_done, LlmError *err);
/* behind the lookup, where there is anything to do */
extern bool
cuda_lora_embed(LlmCuda *cuda, const LlmEmbedArgs *args, LlmError *err);

/* cuda_train.cu and its siblings, see cuda_train.cuh */
extern const struct LlmTrainOps *cuda_train_ops(void);
extern void cuda_train_close(LlmCuda *cuda);

/* cuda_moe.cu */
extern bool cuda_moe_open(LlmCuda *cuda, LlmError *err);
extern void cuda_moe_close(LlmCuda *cuda);
extern bool
cuda_moe(LlmCompute *compute, const LlmMoeArgs *args, LlmError *err);

/* cuda_sample.cu */
extern bool cuda_sample_open(LlmCuda *cuda, LlmError *err);
extern void cuda_sample_close(LlmCuda *cuda);
extern size_t cuda_sample_bytes(const LlmComputeOptions *options);
extern bool
cuda_sample(LlmCompute *compute, const LlmSampleArgs *args, LlmError *err);
extern bool cuda_sample_wait(LlmCompute *compute, LlmError *err);
/* after the stream was waited for: results to their owner */
extern void cuda_sample_deliver(LlmCuda *cuda);
/* device [max_rows]: what the last call draws, -1 for no token */
extern const int32_t *cuda_drawn_ids(const LlmCuda *cuda);

#endif /* LLM_CUDA_INTERNAL_CUH */

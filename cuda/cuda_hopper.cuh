/*
 * cuda_hopper.cuh
 *	  Instructions that Hopper alone has: barriers that count bytes, the bulk
 *	  copy engine, products of a warpgroup.
 *
 * A warpgroup is four warps, the first one's index a multiple of four.  Its
 * products run on while it goes on: between wgmma_commit and wgmma_wait
 * neither the sums nor the registers of A may be touched.  Operands in shared
 * memory lie as in the cache of cuda_kv_cache.cu, 8 x 8 matrices of 128
 * contiguous bytes, or are swizzled.
 *
 * cuda/cuda_hopper.cuh
 */
#ifndef LLM_CUDA_HOPPER_CUH
#define LLM_CUDA_HOPPER_CUH

#include "cuda/cuda_internal.cuh"

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900

/* ------------------------------------------------------------------------
 * Barriers that count bytes
 * ------------------------------------------------------------------------
 */
static __device__ __forceinline__ uint32_t
address_of(const void *shared)
{
	return (uint32_t) __cvta_generic_to_shared(shared);
}

static __device__ __forceinline__ void
barrier_init(uint64_t *barrier, int count)
{
	asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;"
				 :
				 : "r"(address_of(barrier)), "r"(count)
				 : "memory");
}

static __device__ __forceinline__ void
barrier_arrive(uint64_t *barrier)
{
	asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];"
				 :
				 : "r"(address_of(barrier))
				 : "memory");
}

/* The same as soon as the thread's copies so far, by cp.async, are done. */
static __device__ __forceinline__ void
barrier_arrive_copied(uint64_t *barrier)
{
	asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];"
				 :
				 : "r"(address_of(barrier))
				 : "memory");
}

static __device__ __forceinline__ void
barrier_wait(uint64_t *barrier, int parity)
{
	asm volatile("{\n"
				 ".reg .pred done;\n"
				 "again:\n"
				 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
				 "@!done bra again;\n"
				 "}\n"
				 :
				 : "r"(address_of(barrier)), "r"(parity)
				 : "memory");
}

static __device__ __forceinline__ void
barrier_expect(uint64_t *barrier, int n_bytes)
{
	asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
				 :
				 : "r"(address_of(barrier)), "r"(n_bytes)
				 : "memory");
}

static __device__ __forceinline__ void
copy_bulk(void *dest, const void *src, int n_bytes, uint64_t *barrier)
{
	asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::"
				 "bytes [%0], [%1], %2, [%3];"
				 :
				 : "r"(address_of(dest)), "l"(src), "r"(n_bytes),
				   "r"(address_of(barrier))
				 : "memory");
}

/* Generic writes to shared memory, before the engine or wgmma reads them. */
static __device__ __forceinline__ void
fence_async_proxy(void)
{
	asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* ------------------------------------------------------------------------
 * Products of a warpgroup
 * ------------------------------------------------------------------------
 */

/* Registers of each thread from here on; all warps of a warpgroup at once. */
template <int N>
static __device__ __forceinline__ void
registers_take(void)
{
	asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" : : "n"(N));
}

template <int N>
static __device__ __forceinline__ void
registers_give(void)
{
	asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" : : "n"(N));
}

/*
 * Describe a matrix of 8 x 8 matrices at "shared": k_bytes from one to the
 * next along the summed dimension, other_bytes along the other one.  The
 * hardware's "leading" offset is the one along the summed dimension, whichever
 * of the two is contiguous within an 8 x 8 matrix.
 */
static __device__ __forceinline__ uint64_t
wgmma_matrix(const void *shared, int k_bytes, int other_bytes)
{
	return (uint64_t) ((address_of(shared) & 0x3ffff) >> 4) |
		   (uint64_t) (k_bytes >> 4) << 16 |
		   (uint64_t) (other_bytes >> 4) << 32;
}

/* Of a row of swizzled matrices, in bytes; they repeat every eight rows. */
#define SWIZZLED_BYTES 128

/*
 * The same of rows of 128 bytes, 64 numbers, whose pieces of 16 bytes are
 * swizzled: piece i of row r is at i ^ r % 8.  other_bytes: from one 64
 * numbers to the next 64 of the same rows, where rows are summed over.
 */
static __device__ __forceinline__ uint64_t
wgmma_swizzled(const void *shared, int other_bytes)
{
	const uint64_t swizzle = (uint64_t) 1 << 62;

	return wgmma_matrix(shared, other_bytes, 8 * SWIZZLED_BYTES) | swizzle;
}

/* Registers written by ordinary instructions may be used by the next wgmma. */
static __device__ __forceinline__ void
wgmma_fence(void)
{
	asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

static __device__ __forceinline__ void
wgmma_commit(void)
{
	asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* Wait until at most N groups of products are under way. */
template <int N>
static __device__ __forceinline__ void
wgmma_wait(void)
{
	asm volatile("wgmma.wait_group.sync.aligned %0;" : : "n"(N) : "memory");
}

/* Keep the compiler from moving uses of sums across a wait. */
template <int N>
static __device__ __forceinline__ void
wgmma_pin(float (&sums)[N][4])
{
#pragma unroll
	for (int i = 0; i < N; i++)
#pragma unroll
		for (int k = 0; k < 4; k++)
			asm volatile("" : "+f"(sums[i][k])::"memory");
}

/* clang-format off */
#define SUM_4(d, i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
#define SUM_16(d, i) SUM_4(d, i), SUM_4(d, i + 1), SUM_4(d, i + 2), SUM_4(d, i + 3)
#define SUM_32(d) SUM_16(d, 0), SUM_16(d, 4)
#define SUM_48(d) SUM_32(d), SUM_16(d, 8)
#define SUM_64(d) SUM_48(d), SUM_16(d, 12)
#define SUM_NAMES_32 \
	"%0, %1, %2, %3, %4, %5, %6, %7, " \
	"%8, %9, %10, %11, %12, %13, %14, %15, " \
	"%16, %17, %18, %19, %20, %21, %22, %23, " \
	"%24, %25, %26, %27, %28, %29, %30, %31"
#define SUM_NAMES_48 \
	"%0, %1, %2, %3, %4, %5, %6, %7, " \
	"%8, %9, %10, %11, %12, %13, %14, %15, " \
	"%16, %17, %18, %19, %20, %21, %22, %23, " \
	"%24, %25, %26, %27, %28, %29, %30, %31, " \
	"%32, %33, %34, %35, %36, %37, %38, %39, " \
	"%40, %41, %42, %43, %44, %45, %46, %47"
#define SUM_NAMES_64 \
	"%0, %1, %2, %3, %4, %5, %6, %7, " \
	"%8, %9, %10, %11, %12, %13, %14, %15, " \
	"%16, %17, %18, %19, %20, %21, %22, %23, " \
	"%24, %25, %26, %27, %28, %29, %30, %31, " \
	"%32, %33, %34, %35, %36, %37, %38, %39, " \
	"%40, %41, %42, %43, %44, %45, %46, %47, " \
	"%48, %49, %50, %51, %52, %53, %54, %55, " \
	"%56, %57, %58, %59, %60, %61, %62, %63"
/* clang-format on */

/* n columns, their sums in each thread; the numbers of the operands behind */
#define WGMMA_SHARED(n, n_sums, a_name, b_name, add_name)      \
	asm volatile("{\n"                                         \
				 ".reg .pred p;\n"                             \
				 "setp.ne.b32 p, " add_name ", 0;\n"           \
				 "wgmma.mma_async.sync.aligned.m64n" #n        \
				 "k16.f32.bf16.bf16 {" SUM_NAMES_##n_sums      \
				 "}, " a_name ", " b_name ", p, 1, 1, 0, 0;\n" \
				 "}\n"                                         \
				 : SUM_##n_sums(sums)                          \
				 : "l"(a), "l"(b), "r"((int) adds)             \
				 : "memory")

#define WGMMA_REGISTERS(n, n_sums, a_names, b_name, add_name, b_along_n)   \
	asm volatile("{\n"                                                     \
				 ".reg .pred p;\n"                                         \
				 "setp.ne.b32 p, " add_name ", 0;\n"                       \
				 "wgmma.mma_async.sync.aligned.m64n" #n                    \
				 "k16.f32.bf16.bf16 {" SUM_NAMES_##n_sums                  \
				 "}, {" a_names "}, " b_name ", p, 1, 1, " b_along_n ";\n" \
				 "}\n"                                                     \
				 : SUM_##n_sums(sums)                                      \
				 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b),     \
				   "r"((int) adds)                                         \
				 : "memory")

/*
 * sums [64, N] = or += A [64, 16] B [16, N], sums as of mma_16x8x16, each warp
 * 16 rows.  Both in shared memory, contiguous along the summed dimension.
 */
template <int N>
static __device__ __forceinline__ void
wgmma_shared(float (*sums)[4], uint64_t a, uint64_t b, bool adds)
{
	static_assert(N == 64 || N == 128, "products of scores");
	if constexpr (N == 64)
		WGMMA_SHARED(64, 32, "%32", "%33", "%34");
	else
		WGMMA_SHARED(128, 64, "%64", "%65", "%66");
}

/*
 * The same with A from registers, as mma_16x8x16, and B contiguous along N or
 * along the summed dimension.
 */
template <int N, bool B_ALONG_N>
static __device__ __forceinline__ void
wgmma_registers(float (*sums)[4], const uint32_t a[4], uint64_t b,
				bool adds = true)
{
	static_assert(N == 64 || N == 96 || N == 128, "products of values");
	if constexpr (N == 64 && B_ALONG_N)
		WGMMA_REGISTERS(64, 32, "%32, %33, %34, %35", "%36", "%37", "1");
	else if constexpr (N == 64)
		WGMMA_REGISTERS(64, 32, "%32, %33, %34, %35", "%36", "%37", "0");
	else if constexpr (N == 96 && B_ALONG_N)
		WGMMA_REGISTERS(96, 48, "%48, %49, %50, %51", "%52", "%53", "1");
	else if constexpr (N == 96)
		WGMMA_REGISTERS(96, 48, "%48, %49, %50, %51", "%52", "%53", "0");
	else if constexpr (B_ALONG_N)
		WGMMA_REGISTERS(128, 64, "%64, %65, %66, %67", "%68", "%69", "1");
	else
		WGMMA_REGISTERS(128, 64, "%64, %65, %66, %67", "%68", "%69", "0");
}

#endif

#endif /* LLM_CUDA_HOPPER_CUH */

/*
 * cuda_attention_tile.cuh
 *	  What both attention kernels do with a tile of 64 keys: fetch it, read
 *	  fragments of it, and soften scores.
 *
 * Rows of a tile of queries are (token, head of the group) pairs, so that one
 * fetch of keys and values serves all heads that share them.  In shared memory
 * everything lies as in the cache: 8 x 8 matrices of 128 contiguous bytes, of
 * 8 tokens first all of their dimensions.
 *
 * cuda/cuda_attention_tile.cuh
 */
#ifndef LLM_CUDA_ATTENTION_TILE_CUH
#define LLM_CUDA_ATTENTION_TILE_CUH

#include "cuda/cuda_internal.cuh"

#define LOG2_E 1.4426950408889634f

static __device__ __forceinline__ uint32_t
shared_address(const void *p)
{
	return (uint32_t) __cvta_generic_to_shared(p);
}

/* 16 bytes to shared memory; zeros where the source is not to be read. */
static __device__ __forceinline__ void
copy_async(void *dest, const void *src, bool is_there)
{
	asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;"
				 :
				 : "r"(shared_address(dest)), "l"(src), "r"(is_there ? 16 : 0)
				 : "memory");
}

static __device__ __forceinline__ void
copies_commit(void)
{
	asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Wait until at most N groups of copies are under way. */
template <int N>
static __device__ __forceinline__ void
copies_wait(void)
{
	asm volatile("cp.async.wait_group %0;" : : "n"(N) : "memory");
}

/* Four 8 x 8 matrices; lane i gives the address of row i % 8 of matrix i / 8. */
static __device__ __forceinline__ void
load_matrices(uint32_t out[4], const bf16 *row)
{
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 "
				 "{%0, %1, %2, %3}, [%4];"
				 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
				 : "r"(shared_address(row))
				 : "memory");
}

static __device__ __forceinline__ void
load_matrices_transposed(uint32_t out[4], const bf16 *row)
{
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 "
				 "{%0, %1, %2, %3}, [%4];"
				 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
				 : "r"(shared_address(row))
				 : "memory");
}

/*
 * Start fetching keys first_key .. first_key + 63 of a sequence; those from
 * end_key on become zeros, whatever lies in the cache.
 */
template <int DIM, int N_THREADS>
static __device__ __forceinline__ void
fetch_tile(const AttentionParams &p, const char *cache, const int32_t *table,
		   int32_t kv_head, int32_t first_key, int32_t end_key, bf16 *tile)
{
	const int32_t block_mask = (1 << p.block_shift) - 1;

#pragma unroll
	for (int i = 0; i < KEY_TILE * DIM / 8 / N_THREADS; i++)
	{
		int piece = i * N_THREADS + (int) threadIdx.x;
		int32_t key = first_key + piece / DIM * 8 + piece % 8;
		bool is_there = key < end_key;
		int64_t at = 0;

		if (is_there)
		{
			int32_t block = table[key >> p.block_shift];
			int32_t row = (key & block_mask) / 8 * 8;

			at =
				((((int64_t) block * p.n_kv_heads + kv_head) << p.block_shift) +
				 row) *
					DIM +
				piece % DIM * 8;
		}
		copy_async(tile + piece * 8, (const bf16 *) cache + at, is_there);
	}
}

/*
 * Start fetching rows first_row .. of the queries, N_ROWS of them; zeros where
 * there are none.  N_THREADS of them, neighbours, take part.
 */
template <int DIM, int N_ROWS, int N_THREADS>
static __device__ __forceinline__ void
fetch_query_rows(const AttentionParams &p, int32_t first_token, int32_t n_rows,
				 int32_t first_row, int32_t kv_head, bf16 *tile)
{
	for (int i = (int) threadIdx.x % N_THREADS; i < N_ROWS * DIM / 8;
		 i += N_THREADS)
	{
		int32_t r = first_row + i / DIM * 8 + i % 8;
		int d = i % DIM / 8 * 8;
		bool is_there = r < n_rows && d < p.head_dim;
		const bf16 *src = p.q;

		if (is_there)
			src += (int64_t) (first_token + r / p.group) * p.q_stride +
				   (kv_head * p.group + r % p.group) * p.head_dim + d;
		if (p.q_is_aligned)
			copy_async(tile + i * 8, src, is_there);
		else
		{
#pragma unroll
			for (int k = 0; k < 8; k++)
				tile[i * 8 + k] = is_there && d + k < p.head_dim
									  ? src[k]
									  : __float2bfloat16(0);
		}
	}
	copies_commit();
}

/* The fragment of rows first .. first + 15, dims 16 s .. 16 s + 15. */
template <int DIM>
static __device__ __forceinline__ void
query_fragment(uint32_t out[4], const bf16 *tile, int first, int s)
{
	const int lane = (int) threadIdx.x % WARP;

	load_matrices(out, tile + (first / 8 + lane / 8 % 2) * 8 * DIM +
						   (2 * s + lane / 16) * 64 + lane % 8 * 8);
}

/* Of keys first .. first + 15: two pairs, one for each 8 of them. */
template <int DIM>
static __device__ __forceinline__ void
key_fragment(uint32_t out[4], const bf16 *tile, int first, int s)
{
	const int lane = (int) threadIdx.x % WARP;

	load_matrices(out, tile + (first / 8 + lane / 16) * 8 * DIM +
						   (2 * s + lane / 8 % 2) * 64 + lane % 8 * 8);
}

/*
 * Of keys first .. first + 15 the dims 16 s .. + 15: a pair for each 8; where
 * the matrices' rows are keys, or dimensions.
 */
template <int DIM, bool ROWS_ARE_DIMS>
static __device__ __forceinline__ void
value_fragment(uint32_t out[4], const bf16 *tile, int first, int s)
{
	const int lane = (int) threadIdx.x % WARP;
	const bf16 *row = tile + (first / 8 + lane / 8 % 2) * 8 * DIM +
					  (2 * s + lane / 16) * 64 + lane % 8 * 8;

	if constexpr (ROWS_ARE_DIMS)
		load_matrices(out, row);
	else
		load_matrices_transposed(out, row);
}

static __device__ __forceinline__ float
exp2_fast(float x)
{
	float y;

	asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
	return y;
}

/* What scores are multiplied with to become powers of 2. */
static __device__ __forceinline__ float
score_scale(const AttentionParams &p)
{
	return p.soft_cap > 0 ? LOG2_E : p.scale_log2;
}

static __device__ __forceinline__ float
capped_score(const AttentionParams &p, float dot)
{
	return p.soft_cap * tanhf(dot * p.scale / p.soft_cap);
}

static __device__ __forceinline__ bool
sees(const AttentionParams &p, int32_t position, int32_t key)
{
	return key <= position && (p.window <= 0 || key > position - p.window);
}

/* Over the four threads that share a row. */
static __device__ __forceinline__ float
quad_max(float x)
{
	x = fmaxf(x, __shfl_xor_sync(FULL_MASK, x, 1));
	return fmaxf(x, __shfl_xor_sync(FULL_MASK, x, 2));
}

static __device__ __forceinline__ float
quad_sum(float x)
{
	x += __shfl_xor_sync(FULL_MASK, x, 1);
	return x + __shfl_xor_sync(FULL_MASK, x, 2);
}

/*
 * One row's running softmax (Milakov & Gimelshein 2018): scores, times scale
 * powers of 2, become weights; max is kept unscaled.  Returns what earlier
 * results are multiplied with.
 */
template <int N_SCORES>
static __device__ __forceinline__ float
soften(float *const scores[N_SCORES], float scale, float &max, float &sum)
{
	/* four chains each, which do not wait for one another */
	float most[4] = { max, max, max, max };
	float added[4] = {};
	float new_max;
	float factor;
	float base;

#pragma unroll
	for (int i = 0; i < N_SCORES; i++)
		most[i % 4] = fmaxf(most[i % 4], *scores[i]);
	new_max = quad_max(fmaxf(fmaxf(most[0], most[1]), fmaxf(most[2], most[3])));
	/* nothing seen yet: exp2(-inf - 0) = 0 */
	base = new_max == -INFINITY ? 0 : new_max * scale;
	factor = exp2_fast(max * scale - base);
#pragma unroll
	for (int i = 0; i < N_SCORES; i++)
	{
		*scores[i] = exp2_fast(*scores[i] * scale - base);
		added[i % 4] += *scores[i];
	}
	/* of this thread's columns alone */
	sum = sum * factor + ((added[0] + added[1]) + (added[2] + added[3]));
	max = new_max;
	return factor;
}

/* ------------------------------------------------------------------------
 * Rows of a prompt
 * ------------------------------------------------------------------------
 */
/* What a warp carries from tile to tile for 16 of its rows. */
template <int DIM> struct RowTile
{
	float out[DIM / 8][4];
	float max[2]; /* rows g and g + 8 */
	float sum[2];
	int32_t position[2];
};

template <int DIM>
static __device__ __forceinline__ void
tile_init(RowTile<DIM> &tile, const AttentionParams &p, int32_t first_position,
		  int32_t first_row)
{
	const int lane = (int) threadIdx.x % WARP;

#pragma unroll
	for (int h = 0; h < 2; h++)
	{
		tile.max[h] = -INFINITY;
		tile.sum[h] = 0;
		tile.position[h] =
			first_position + (first_row + lane / 4 + 8 * h) / p.group;
	}
#pragma unroll
	for (int i = 0; i < DIM / 8; i++)
#pragma unroll
		for (int k = 0; k < 4; k++)
			tile.out[i][k] = 0;
}

template <int DIM>
static __device__ __forceinline__ void
store_tile(const RowTile<DIM> &tile, const AttentionParams &p,
		   int32_t first_token, int32_t n_rows, int32_t first_row,
		   int32_t kv_head)
{
	const int lane = (int) threadIdx.x % WARP;

#pragma unroll
	for (int h = 0; h < 2; h++)
	{
		int32_t r = first_row + lane / 4 + 8 * h;
		float sum = quad_sum(tile.sum[h]);
		float factor = sum > 0 ? 1 / sum : 0;
		bf16 *out = p.out + ((int64_t) (first_token + r / p.group) * p.n_heads +
							 kv_head * p.group + r % p.group) *
								p.head_dim;

		if (r >= n_rows)
			continue;
#pragma unroll
		for (int i = 0; i < DIM / 8; i++)
		{
			int d = i * 8 + lane % 4 * 2;

			if (d < p.head_dim)
				*(uint32_t *) (out + d) =
					pack_bf16(tile.out[i][2 * h] * factor,
							  tile.out[i][2 * h + 1] * factor);
		}
	}
}

/* Keys of a block: from the window of its first row to its last row's. */
typedef struct KeyRange
{
	int32_t first_tile;
	int32_t end_tile;
	int32_t end_key;
	int32_t first_masked; /* tiles from here on may need the causal mask */
	int32_t end_windowed; /* tiles before this may need the window's */
} KeyRange;

template <int TILE_KEYS>
static __device__ __forceinline__ KeyRange
key_range(const AttentionParams &p, int32_t first, int32_t last)
{
	KeyRange range;
	int32_t from = p.window > 0 ? max(first - p.window + 1, 0) : 0;

	range.end_key = last + 1;
	range.first_tile = from / TILE_KEYS;
	range.end_tile = last / TILE_KEYS + 1;
	range.first_masked = (first + 1) / TILE_KEYS;
	range.end_windowed =
		p.window > 0 ? (max(last - p.window + 1, 0)) / TILE_KEYS + 1 : 0;
	return range;
}

#endif /* LLM_CUDA_ATTENTION_TILE_CUH */

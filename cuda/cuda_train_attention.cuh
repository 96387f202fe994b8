/*
 * cuda_train_attention.cuh
 *	  What the kernels of attention among segments share.
 *
 * Rows of tiles are tokens of one head.
 *
 * There, a block has some queries of a head and goes over the keys that they
 * see.  Back, two kernels do: one has queries and sums d_q over keys, the
 * other has keys of a kv head and sums d_k and d_v over all queries of all its
 * heads, one after the other.  So each sum has one writer and one order; the
 * price are two of seven products, which both compute.
 *
 * The kernels on the way back know each softmax's denominator, so
 * probabilities are exp(score - log_sum), and with out_sums = out . d_out
 * (Dao 2023)
 *
 *	  d_score = probability * (d_out . value - out_sum)
 *
 * cuda/cuda_train_attention.cuh
 */
#ifndef LLM_CUDA_TRAIN_ATTENTION_CUH
#define LLM_CUDA_TRAIN_ATTENTION_CUH

#include "cuda/cuda_attention_tile.cuh"
#include "cuda/cuda_train.cuh"

#define LN_2 0.69314718055994531f

/* Tokens of a tile that is fetched while the one before is computed. */
#define TILE 64

/* Tokens of one of Hopper's on the way there. */
#define LONG_TILE 128

typedef struct SegmentParams
{
	const bf16 *q; /* [n_tokens, n_heads, head_dim] */
	const bf16 *k; /* [n_tokens, n_kv_heads, head_dim] */
	const bf16 *v;
	const bf16 *d_out;
	const int32_t *segment_start;
	const int32_t *segment_end;
	bf16 *out;
	bf16 *d_q;
	bf16 *d_k;
	bf16 *d_v;
	float *log_sums; /* [n_heads, n_tokens] */
	float *out_sums;
	const int32_t *block_order; /* Hopper's: blocks of queries, then of keys */
	int32_t n_tokens;
	int32_t n_heads;
	int32_t n_kv_heads;
	int32_t head_dim;
	int32_t window;
	float scale;
	float soft_cap;
	bool is_aligned; /* rows can be read by 16 bytes */
} SegmentParams;

/* cuda_train_attention_hopper.cu; heads are padded to 64 or 128 dimensions */
extern bool cuda_segment_attention_hopper(LlmCuda *cuda, const SegmentParams *p,
										  int32_t padded_dim, LlmError *err);
extern bool
cuda_segment_attention_back_hopper(LlmCuda *cuda, const SegmentParams *p,
								   int32_t padded_dim, LlmError *err);

static __device__ __forceinline__ unsigned char *
dynamic_shared(void)
{
	extern __shared__ __align__(1024) unsigned char shared[];

	return shared;
}

/* The first key that a token sees; its last one is itself. */
static __device__ __forceinline__ int32_t
first_seen(const SegmentParams &p, int32_t token)
{
	int32_t first = p.segment_start[token];

	return p.window > 0 ? max(first, token - p.window + 1) : first;
}

/* One behind the last query that sees a key. */
static __device__ __forceinline__ int32_t
end_seen(const SegmentParams &p, int32_t key)
{
	int32_t end = p.segment_end[key];

	return p.window > 0 ? min(end, key + p.window) : end;
}

static __device__ __forceinline__ int64_t
row_at(const SegmentParams &p, int32_t token, int32_t n_heads, int32_t head)
{
	return ((int64_t) token * n_heads + head) * p.head_dim;
}

/*
 * Start fetching tokens first .. first + N_ROWS - 1 of a head of an array;
 * zeros where there are none.  All N_THREADS threads of the block take part.
 */
template <int DIM, int N_ROWS, int N_THREADS>
static __device__ __forceinline__ void
fetch_rows(const SegmentParams &p, const bf16 *array, int32_t n_heads,
		   int32_t head, int32_t first, bf16 *tile)
{
#pragma unroll 4
	for (int i = (int) threadIdx.x; i < N_ROWS * DIM / 8; i += N_THREADS)
	{
		int32_t token = first + i / DIM * 8 + i % 8;
		int d = i % DIM / 8 * 8;
		bool is_there = token < p.n_tokens && d < p.head_dim;
		const bf16 *src =
			is_there ? array + row_at(p, token, n_heads, head) + d : array;

		if (p.is_aligned)
		{
			copy_async(tile + i * 8, src, is_there);
			continue;
		}
#pragma unroll
		for (int k = 0; k < 8; k++)
			tile[i * 8 + k] =
				is_there && d + k < p.head_dim ? src[k] : __float2bfloat16(0);
	}
}

/* Two neighbouring numbers of a row of a head, where they are there. */
static __device__ __forceinline__ void
store_pair(const SegmentParams &p, bf16 *row, int d, float a, float b)
{
	if (p.head_dim % 2 == 0)
	{
		if (d < p.head_dim)
			*(uint32_t *) (row + d) = pack_bf16(a, b);
		return;
	}
	if (d < p.head_dim)
		row[d] = __float2bfloat16(a);
	if (d + 1 < p.head_dim)
		row[d + 1] = __float2bfloat16(b);
}

/*
 * The rows of a product's sums, times a factor: the thread's two rows, 8
 * columns of which lie in sums[i].
 */
template <int DIM>
static __device__ __forceinline__ void
store_sums(const SegmentParams &p, bf16 *array, int32_t n_heads, int32_t head,
		   int32_t first_token, const float (&sums)[DIM / 8][4],
		   const float factors[2])
{
	const int lane = (int) threadIdx.x % WARP;

#pragma unroll
	for (int h = 0; h < 2; h++)
	{
		int32_t token = first_token + lane / 4 + 8 * h;
		bf16 *row = array + row_at(p, token, n_heads, head);

		if (token >= p.n_tokens)
			continue;
#pragma unroll
		for (int i = 0; i < DIM / 8; i++)
			store_pair(p, row, i * 8 + lane % 4 * 2,
					   sums[i][2 * h] * factors[h],
					   sums[i][2 * h + 1] * factors[h]);
	}
}

/* The running softmax of a thread's two rows, and what they see. */
typedef struct RowState
{
	float max[2];
	float sum[2];
	int32_t first[2]; /* keys; beyond all where there is no token */
	int32_t last[2];
} RowState;

static __device__ __forceinline__ RowState
row_state(const SegmentParams &p, int32_t first_token)
{
	const int lane = (int) threadIdx.x % WARP;
	RowState rows;

#pragma unroll
	for (int h = 0; h < 2; h++)
	{
		int32_t token = first_token + lane / 4 + 8 * h;

		rows.max[h] = -INFINITY;
		rows.sum[h] = 0;
		rows.last[h] = token;
		rows.first[h] = token < p.n_tokens ? first_seen(p, token) : INT32_MAX;
	}
	return rows;
}

/* What a score is multiplied with to be a power of 2's exponent. */
static __device__ __forceinline__ float
exponent_scale(const SegmentParams &p)
{
	return p.soft_cap > 0 ? LOG2_E : p.scale * LOG2_E;
}

static __device__ __forceinline__ float
cap_score(const SegmentParams &p, float dot)
{
	return p.soft_cap * tanhf(dot * p.scale / p.soft_cap);
}

/* Scores, or their derivatives, as fragments of A: one for each 16 columns. */
template <int N>
static __device__ __forceinline__ void
pack_fragments(uint32_t fragments[N / 2][4], const float (&sums)[N][4])
{
#pragma unroll
	for (int i = 0; i < 2 * N; i++)
		fragments[i / 4][i % 4] =
			pack_bf16(sums[i / 2][i % 2 * 2], sums[i / 2][i % 2 * 2 + 1]);
}

template <int DIM>
static __device__ __forceinline__ void
clear_sums(float (&sums)[DIM / 8][4])
{
#pragma unroll
	for (int i = 0; i < DIM / 8; i++)
#pragma unroll
		for (int k = 0; k < 4; k++)
			sums[i][k] = 0;
}

/* The end of the way there: results and the softmax's denominators. */
template <int DIM>
static __device__ __forceinline__ void
finish_queries(const SegmentParams &p, int32_t head, int32_t first_token,
			   const RowState &rows, const float (&out)[DIM / 8][4])
{
	const int lane = (int) threadIdx.x % WARP;
	const float scale = exponent_scale(p);
	float factors[2];

#pragma unroll
	for (int h = 0; h < 2; h++)
	{
		int32_t token = first_token + lane / 4 + 8 * h;
		float sum = quad_sum(rows.sum[h]);

		factors[h] = sum > 0 ? 1 / sum : 0;
		if (lane % 4 == 0 && token < p.n_tokens)
			p.log_sums[(int64_t) head * p.n_tokens + token] =
				rows.max[h] * scale * LN_2 + logf(sum);
	}
	store_sums<DIM>(p, p.out, p.n_heads, head, first_token, out, factors);
}

/* The keys that some of a block's queries see. */
typedef struct KeyTiles
{
	int32_t first; /* token */
	int32_t n_tiles;
	int32_t first_whole; /* keys from here to ... */
	int32_t last_whole;	 /* ... here are seen by all */
} KeyTiles;

/*
 * Of queries first_query .. + n_queries - 1, the first one being there, by
 * N_KEYS a tile.
 */
template <int N_KEYS>
static __device__ __forceinline__ KeyTiles
keys_of(const SegmentParams &p, int32_t first_query, int32_t n_queries)
{
	int32_t last = first_query + n_queries - 1;
	bool is_full = last < p.n_tokens;
	KeyTiles keys;

	last = min(last, p.n_tokens - 1);
	keys.first = first_seen(p, first_query);
	keys.n_tiles = (last - keys.first) / N_KEYS + 1;
	keys.first_whole = is_full ? first_seen(p, last) : INT32_MAX;
	keys.last_whole = first_query;
	return keys;
}

/* Whether some of the queries do not see some of tile t. */
template <int N_KEYS>
static __device__ __forceinline__ bool
needs_mask(const KeyTiles &keys, int32_t t)
{
	int32_t first = keys.first + t * N_KEYS;

	return first < keys.first_whole || first + N_KEYS - 1 > keys.last_whole;
}

/*
 * Cap, mask and soften the scores of tile t: they become weights.  Gives what
 * to rescale earlier results by.
 */
template <int N>
static __device__ __forceinline__ void
soften_tile(const SegmentParams &p, RowState &rows, float (&scores)[N][4],
			const KeyTiles &tiles, int32_t t, float factors[2])
{
	const int n = 4 * N; /* of this thread */
	const int32_t own_key = tiles.first + t * 8 * N + (int) threadIdx.x % 4 * 2;
	const float scale = exponent_scale(p);

	if (p.soft_cap > 0)
	{
#pragma unroll
		for (int i = 0; i < n; i++)
			scores[i / 4][i % 4] = cap_score(p, scores[i / 4][i % 4]);
	}
	if (needs_mask<8 * N>(tiles, t))
	{
#pragma unroll
		for (int i = 0; i < n; i++)
		{
			int32_t key = own_key + i / 4 * 8 + i % 2;

			if (key < rows.first[i % 4 / 2] || key > rows.last[i % 4 / 2])
				scores[i / 4][i % 4] = -INFINITY;
		}
	}
#pragma unroll
	for (int h = 0; h < 2; h++)
	{
		float *row[n / 2];

#pragma unroll
		for (int i = 0; i < n / 2; i++)
			row[i] = &scores[i / 2][2 * h + i % 2];
		factors[h] = soften<n / 2>(row, scale, rows.max[h], rows.sum[h]);
	}
}

/* ------------------------------------------------------------------------
 * Back
 * ------------------------------------------------------------------------
 */

/* What the way back knows of a thread's two queries. */
typedef struct QueryFacts
{
	float log_sum[2]; /* in powers of 2 */
	float out_sum[2];
	int32_t first[2];
	int32_t last[2];
} QueryFacts;

static __device__ __forceinline__ QueryFacts
query_facts(const SegmentParams &p, int32_t head, int32_t first_token)
{
	const int lane = (int) threadIdx.x % WARP;
	QueryFacts facts;

#pragma unroll
	for (int h = 0; h < 2; h++)
	{
		int32_t token = first_token + lane / 4 + 8 * h;
		bool is_there = token < p.n_tokens;
		int64_t at = (int64_t) head * p.n_tokens + token;

		facts.log_sum[h] = is_there ? p.log_sums[at] * LOG2_E : 0;
		facts.out_sum[h] = is_there ? p.out_sums[at] : 0;
		facts.first[h] = is_there ? first_seen(p, token) : INT32_MAX;
		facts.last[h] = token;
	}
	return facts;
}

/* The same of a tile of queries in shared memory, for those who have keys. */
typedef struct QueryTile
{
	float log_sum[TILE];
	float out_sum[TILE];
	int32_t start[TILE]; /* of their segments */
} QueryTile;

/* 4 bytes to shared memory; zeros where the source is not to be read. */
static __device__ __forceinline__ void
copy_word(void *dest, const void *src, bool is_there)
{
	asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;"
				 :
				 : "r"(shared_address(dest)), "l"(src), "r"(is_there ? 4 : 0)
				 : "memory");
}

/* Start fetching them; this is thread i of at least TILE. */
static __device__ __forceinline__ void
fetch_facts(const SegmentParams &p, int32_t head, int32_t first_token,
			QueryTile *tile, int i)
{
	const bool is_there = first_token + i < p.n_tokens;
	const int32_t token = is_there ? first_token + i : 0;
	const int64_t at = (int64_t) head * p.n_tokens + token;

	if (i >= TILE)
		return;
	copy_word(&tile->log_sum[i], p.log_sums + at, is_there);
	copy_word(&tile->out_sum[i], p.out_sums + at, is_there);
	copy_word(&tile->start[i], p.segment_start + token, is_there);
}

/* The tiles of queries that see some of a block's keys, head after head. */
typedef struct QueryTiles
{
	int32_t first_head;
	int32_t first; /* token */
	int32_t per_head;
	int32_t n_tiles;
} QueryTiles;

/* Of keys first_key .. + n_keys - 1, the first one being there. */
static __device__ __forceinline__ QueryTiles
queries_of(const SegmentParams &p, int32_t kv_head, int32_t first_key,
		   int32_t n_keys)
{
	const int32_t group = p.n_heads / p.n_kv_heads;
	const int32_t last = min(first_key + n_keys, p.n_tokens) - 1;
	QueryTiles queries;

	queries.first_head = kv_head * group;
	queries.first = first_key;
	queries.per_head = (end_seen(p, last) - first_key + TILE - 1) / TILE;
	queries.n_tiles = queries.per_head * group;
	return queries;
}

static __device__ __forceinline__ int32_t
query_head(const QueryTiles &queries, int32_t t)
{
	return queries.first_head + t / queries.per_head;
}

static __device__ __forceinline__ int32_t
first_query_of(const QueryTiles &queries, int32_t t)
{
	return queries.first + t % queries.per_head * TILE;
}

/*
 * A score's probability; *slope becomes the derivative of the capped score
 * with respect to what the cap was laid on.
 */
template <bool IS_CAPPED>
static __device__ __forceinline__ float
probability(const SegmentParams &p, float dot, float log_sum, float *slope)
{
	float t;

	*slope = 1;
	if constexpr (!IS_CAPPED)
		return exp2_fast(dot * (p.scale * LOG2_E) - log_sum);
	t = tanhf(dot * p.scale / p.soft_cap);
	*slope = 1 - t * t;
	return exp2_fast(p.soft_cap * t * LOG2_E - log_sum);
}

/* Scores of queries become probabilities, times the derivatives of the cap. */
static __device__ __forceinline__ void
query_weights(const SegmentParams &p, const QueryFacts &facts,
			  float (&scores)[TILE / 8][4], const KeyTiles &tiles, int32_t t)
{
	const int32_t own_key = tiles.first + t * TILE + (int) threadIdx.x % 4 * 2;
	const int n = TILE / 2;
	float slope;

	if (p.soft_cap > 0)
	{
#pragma unroll
		for (int i = 0; i < n; i++)
		{
			float weight = probability<true>(p, scores[i / 4][i % 4],
											 facts.log_sum[i % 4 / 2], &slope);

			scores[i / 4][i % 4] = weight * slope;
		}
	}
	else
	{
#pragma unroll
		for (int i = 0; i < n; i++)
			scores[i / 4][i % 4] = probability<false>(
				p, scores[i / 4][i % 4], facts.log_sum[i % 4 / 2], &slope);
	}
	if (!needs_mask<TILE>(tiles, t))
		return;
#pragma unroll
	for (int i = 0; i < n; i++)
	{
		const int32_t key = own_key + i / 4 * 8 + i % 2;

		if (key < facts.first[i % 4 / 2] || key > facts.last[i % 4 / 2])
			scores[i / 4][i % 4] = 0;
	}
}

/* slopes come in as d_out . value and become d score. */
static __device__ __forceinline__ void
query_slopes(const QueryFacts &facts, const float (&weights)[TILE / 8][4],
			 float (&slopes)[TILE / 8][4])
{
#pragma unroll
	for (int i = 0; i < TILE / 2; i++)
		slopes[i / 4][i % 4] =
			weights[i / 4][i % 4] *
			(slopes[i / 4][i % 4] - facts.out_sum[i % 4 / 2]);
}

/* A warp's 16 keys against a tile of queries. */
typedef struct KeyRows
{
	const QueryTile *facts;
	int32_t first_key;
	int32_t first_query;
	bool is_masked;
} KeyRows;

/* n_keys: of the block, from block_key on */
static __device__ __forceinline__ KeyRows
key_rows(const SegmentParams &p, const QueryTile *facts, int32_t block_key,
		 int32_t n_keys, int32_t first_query)
{
	const int32_t last_query = first_query + TILE - 1;
	KeyRows rows;

	rows.facts = facts;
	rows.first_key = block_key + (int32_t) threadIdx.x / WARP * MMA_ROWS;
	rows.first_query = first_query;
	rows.is_masked = first_query < block_key + n_keys - 1 ||
					 last_query >= p.n_tokens ||
					 facts->start[TILE - 1] > block_key ||
					 (p.window > 0 && block_key <= last_query - p.window);
	return rows;
}

/* Whether the key of sum i of the thread is seen by its query. */
static __device__ __forceinline__ bool
is_key_seen(const SegmentParams &p, const KeyRows &rows, int i)
{
	const int lane = (int) threadIdx.x % WARP;
	const int column = i / 4 * 8 + lane % 4 * 2 + i % 2;
	const int32_t query = rows.first_query + column;
	const int32_t key = rows.first_key + lane / 4 + i % 4 / 2 * 8;

	return key <= query && query < p.n_tokens &&
		   key >= rows.facts->start[column] &&
		   (p.window <= 0 || key > query - p.window);
}

/*
 * Scores [16 keys, TILE queries] become fragments of probabilities, and of
 * these times the derivatives of the cap: without one, the same.
 */
template <bool IS_CAPPED>
static __device__ __forceinline__ void
weigh_keys(const SegmentParams &p, const KeyRows &rows,
		   float (&scores)[TILE / 8][4], uint32_t (&weights)[TILE / 16][4],
		   uint32_t (&factors)[TILE / 16][4])
{
	const int own = (int) threadIdx.x % 4 * 2;

	if (!IS_CAPPED && rows.is_masked)
	{
#pragma unroll
		for (int i = 0; i < TILE / 2; i++)
			if (!is_key_seen(p, rows, i))
				scores[i / 4][i % 4] = -INFINITY;
	}
#pragma unroll
	for (int i = 0; i < TILE / 4; i++)
	{
		/* two neighbours */
		const float *pair = &scores[i / 2][i % 2 * 2];
		float weight[2];
		float slope[2];

#pragma unroll
		for (int k = 0; k < 2; k++)
		{
			float log_sum = rows.facts->log_sum[i / 2 * 8 + own + k] * LOG2_E;

			weight[k] = probability<IS_CAPPED>(p, pair[k], log_sum, &slope[k]);
			if (IS_CAPPED && !is_key_seen(p, rows, 2 * i + k))
				weight[k] = 0;
		}
		weights[i / 4][i % 4] = pack_bf16(weight[0], weight[1]);
		factors[i / 4][i % 4] =
			IS_CAPPED ? pack_bf16(weight[0] * slope[0], weight[1] * slope[1])
					  : weights[i / 4][i % 4];
	}
}

/* slopes come in as value . d_out and become d score. */
static __device__ __forceinline__ void
key_slopes(const KeyRows &rows, const uint32_t (&factors)[TILE / 16][4],
		   float (&slopes)[TILE / 8][4])
{
	const int own = (int) threadIdx.x % 4 * 2;

#pragma unroll
	for (int i = 0; i < TILE / 4; i++)
	{
		const uint32_t both = factors[i / 4][i % 4];
		const float *out_sums = &rows.facts->out_sum[i / 2 * 8 + own];
		float *pair = &slopes[i / 2][i % 2 * 2];

		/* a bf16 is the upper half of a float */
		pair[0] = __uint_as_float(both << 16) * (pair[0] - out_sums[0]);
		pair[1] = __uint_as_float(both & 0xffff0000u) * (pair[1] - out_sums[1]);
	}
}

#endif /* LLM_CUDA_TRAIN_ATTENTION_CUH */

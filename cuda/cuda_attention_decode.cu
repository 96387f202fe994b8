/*
 * cuda_attention_decode.cu
 *	  Attention of one new token per sequence over paged contexts.
 *
 * Contexts are cut into pieces (flash-decoding, Dao et al. 2023) that blocks
 * work through alone: all heads of a kv head's group together, padded to the
 * 16 rows of a tensor-core product, so that keys and values are read once.
 * Each of the four warps takes 16 keys of a tile of 64; some tiles are on
 * their way.  Codes of 8 bits become f16 in registers, without their units,
 * which multiply scores and weights: nothing is rounded on the way, and sums
 * are f32.  Queries beyond f16's range are taken for its largest number.
 * Results of pieces carry the logarithm of their weight, and a
 * second kernel adds them up; a sequence of one piece is done at once.  A piece
 * that several sequences share (the beginning of their prompts) has the rows of
 * all of them in its tile, so that it is read once for them.
 *
 * cuda/cuda_attention_decode.cu
 */
#include "cuda/cuda_attention_tile.cuh"
#include "cuda/cuda_code.cuh"

#define DECODE_WARPS 4
#define DECODE_THREADS (DECODE_WARPS * WARP)

typedef enum KvFormat
{
	KV_BF16,
	KV_E4M3,
	KV_INT8
} KvFormat;

template <int DIM, KvFormat FORMAT> struct Decode
{
	static const bool is_coded = FORMAT != KV_BF16;
	static const int stages = is_coded ? 4 : 3;
	/* of a tile of keys, or of values; behind codes their units */
	static const int tile_bytes = KEY_TILE * (is_coded ? DIM + 1 : 2 * DIM);
	static const int query_at = stages * 2 * tile_bytes;
	static const int shared_bytes = query_at + MMA_ROWS * DIM * 2;
	/* the warps' results lie in the stages when those are done with */
	static_assert(DECODE_WARPS * MMA_ROWS * DIM * 4 <= query_at, "results fit");
};

template <int DIM> struct Partial
{
	float out[DIM / 8][4];
	float max[2]; /* rows g and g + 8 */
	float sum[2];
};

/* Most keys of a long context make no new maximum. */
template <int DIM>
static __device__ __forceinline__ void
rescale_row(Partial<DIM> &part, int h, float factor)
{
	if (__all_sync(FULL_MASK, factor == 1))
		return;
#pragma unroll
	for (int i = 0; i < DIM / 8; i++)
	{
		part.out[i][2 * h] *= factor;
		part.out[i][2 * h + 1] *= factor;
	}
}

/* The warp's 16 keys of a tile. */
template <int DIM>
static __device__ __forceinline__ void
attend_keys(Partial<DIM> &part, const uint32_t queries[DIM / 16][4],
			const AttentionParams &p, const bf16 *tile, int32_t first_key,
			const int32_t position[2])
{
	const int lane = (int) threadIdx.x % WARP;
	const int own = (int) threadIdx.x / WARP * 16;
	const bf16 *values = tile + KEY_TILE * DIM;
	float scores[2][4] = {};
	uint32_t weights[4];

#pragma unroll
	for (int s = 0; s < DIM / 16; s++)
	{
		uint32_t k[4];

		key_fragment<DIM>(k, tile, own, s);
		mma_16x8x16(scores[0], queries[s], k[0], k[1]);
		mma_16x8x16(scores[1], queries[s], k[2], k[3]);
	}
#pragma unroll
	for (int h = 0; h < 2; h++)
	{
		float *row[4];
		float factor;

#pragma unroll
		for (int i = 0; i < 4; i++)
		{
			int32_t key = first_key + own + i / 2 * 8 + lane % 4 * 2 + i % 2;

			row[i] = &scores[i / 2][2 * h + i % 2];
			if (p.soft_cap > 0)
				*row[i] = capped_score(p, *row[i]);
			if (!sees(p, position[h], key))
				*row[i] = -INFINITY;
		}
		factor = soften<4>(row, score_scale(p), part.max[h], part.sum[h]);
		rescale_row<DIM>(part, h, factor);
	}
	weights[0] = pack_bf16(scores[0][0], scores[0][1]);
	weights[1] = pack_bf16(scores[0][2], scores[0][3]);
	weights[2] = pack_bf16(scores[1][0], scores[1][1]);
	weights[3] = pack_bf16(scores[1][2], scores[1][3]);
#pragma unroll
	for (int s = 0; s < DIM / 16; s++)
	{
		uint32_t v[4];

		value_fragment<DIM, false>(v, values, own, s);
		mma_16x8x16(part.out[2 * s], weights, v[0], v[1]);
		mma_16x8x16(part.out[2 * s + 1], weights, v[2], v[3]);
	}
}

/* ------------------------------------------------------------------------
 * Codes
 * ------------------------------------------------------------------------
 */

/* What weights are multiplied with, to use f16's whole range. */
#define WEIGHT_BITS 15

/*
 * The pieces of 16 bytes of a tile of codes: those of its 16-token groups, and
 * then the groups' units.  Which blocks a thread's pieces are in is looked up
 * well before they are fetched, once for keys and values.
 */
template <int DIM> struct CodePieces
{
	static const int n_codes = KEY_TILE / CODE_GROUP * DIM;
	static const int n = n_codes + KEY_TILE / CODE_GROUP;
	static const int per_thread = (n + DECODE_THREADS - 1) / DECODE_THREADS;
	int32_t blocks[per_thread]; /* -1: beyond the end */
};

/* The group of the thread's i-th piece. */
template <int DIM>
static __device__ __forceinline__ int
group_of_piece(int i)
{
	int piece = i * DECODE_THREADS + (int) threadIdx.x;

	return piece < CodePieces<DIM>::n_codes ? piece / DIM
											: piece - CodePieces<DIM>::n_codes;
}

template <int DIM>
static __device__ __forceinline__ void
find_pieces(CodePieces<DIM> &pieces, const AttentionParams &p,
			const int32_t *table, int32_t first_key, int32_t end_key)
{
#pragma unroll
	for (int i = 0; i < CodePieces<DIM>::per_thread; i++)
	{
		int32_t key = first_key + group_of_piece<DIM>(i) * CODE_GROUP;

		pieces.blocks[i] = key < end_key ? table[key >> p.block_shift] : -1;
	}
}

template <int DIM>
static __device__ __forceinline__ void
fetch_codes(const AttentionParams &p, const CodePieces<DIM> &pieces,
			int32_t kv_head, int32_t first_key, char *keys, char *values)
{
	const int32_t mask = (1 << p.block_shift) - 1;

#pragma unroll
	for (int i = 0; i < CodePieces<DIM>::per_thread; i++)
	{
		int piece = i * DECODE_THREADS + (int) threadIdx.x;
		int32_t key = first_key + group_of_piece<DIM>(i) * CODE_GROUP;
		bool is_there = pieces.blocks[i] >= 0;
		int64_t head =
			(int64_t) max(pieces.blocks[i], 0) * p.n_kv_heads + kv_head;
		int32_t at = piece < CodePieces<DIM>::n_codes
						 ? (key & mask) * DIM + piece % DIM * 16
						 : (mask + 1) * DIM + (key & mask);

		if (piece < CodePieces<DIM>::n)
		{
			copy_async(keys + piece * 16, p.keys + head * p.head_bytes + at,
					   is_there);
			copy_async(values + piece * 16, p.values + head * p.head_bytes + at,
					   is_there);
		}
	}
}

/*
 * Queries as f16, in the order in which a word of codes has dimensions: thread
 * 4 g + t has 4 t .. 4 t + 3 of each 16 of rows g and g + 8.
 */
template <int DIM>
static __device__ __forceinline__ void
half_queries(uint32_t queries[DIM / 16][4], const bf16 *tile)
{
	const int lane = (int) threadIdx.x % WARP;

#pragma unroll
	for (int i = 0; i < DIM / 8; i++)
	{
		int d = i / 2 * 16 + lane % 4 * 4;
		const bf16 *src =
			tile + i % 2 * 8 * DIM + d / 8 * 64 + lane / 4 * 8 + d % 8;

#pragma unroll
		for (int k = 0; k < 2; k++)
		{
			float2 q = __bfloat1622float2(((const __nv_bfloat162 *) src)[k]);
			__half2 pair;

			/* comparisons that leave a NaN */
			q.x = q.x > 65504 ? 65504 : q.x < -65504 ? -65504 : q.x;
			q.y = q.y > 65504 ? 65504 : q.y < -65504 ? -65504 : q.y;
			pair = __floats2half2_rn(q.x, q.y);
			queries[i / 2][2 * k + i % 2] =
				*reinterpret_cast<uint32_t *>(&pair);
		}
	}
}

static __device__ __forceinline__ uint32_t
pack_half(float low, float high)
{
	__half2 pair = __floats2half2_rn(low, high);

	return *reinterpret_cast<uint32_t *>(&pair);
}

/*
 * soften for values in units: weights become 2^WEIGHT_BITS p unit, and max is
 * that of log2(p unit), so that they fit f16 whatever the units are.
 */
static __device__ __forceinline__ float
soften_in_units(float *const scores[4], const uint32_t units[4], float scale,
				float &max, float &sum)
{
	float new_max = max;
	float base;
	float factor;

#pragma unroll
	for (int i = 0; i < 4; i++)
	{
		/* a masked key's unit may be that of NaN */
		*scores[i] = *scores[i] == -INFINITY ? -INFINITY
					 : units[i] == LLM_UNIT_NAN
						 ? NAN
						 : *scores[i] * scale + (float) ((int) units[i] - 127);
		new_max = fmaxf(new_max, *scores[i]);
	}
	new_max = quad_max(new_max);
	base = new_max == -INFINITY ? 0 : new_max;
	factor = exp2_fast(max - base);
	sum *= factor;
#pragma unroll
	for (int i = 0; i < 4; i++)
	{
		float weight = exp2_fast(*scores[i] - base + WEIGHT_BITS);

		*scores[i] = weight;
		sum += weight * __uint_as_float((254 - WEIGHT_BITS - units[i]) << 23);
	}
	max = new_max;
	return factor;
}

/* The units of the thread's four keys: 2 t, 2 t + 1 and 8 more. */
static __device__ __forceinline__ void
load_units(uint32_t units[4], const char *own)
{
	const int lane = (int) threadIdx.x % WARP;

#pragma unroll
	for (int i = 0; i < 2; i++)
	{
		uint32_t pair = *(const uint16_t *) (own + i * 8 + lane % 4 * 2);

		units[2 * i] = pair & 0xff;
		units[2 * i + 1] = pair >> 8;
	}
}

template <int DIM, bool IS_E4M3>
static __device__ __forceinline__ void
score_codes(float scores[2][4], const uint32_t queries[DIM / 16][4],
			const char *keys)
{
	const int lane = (int) threadIdx.x % WARP;
	const char *row =
		keys + lane / 8 % 2 * 8 * DIM + lane / 16 * 128 + lane % 8 * 16;

#pragma unroll
	for (int s = 0; s < DIM / 32; s++)
	{
		uint32_t codes[4];

		load_matrices(codes, (const bf16 *) (row + s * 256));
#pragma unroll
		for (int i = 0; i < 4; i++)
		{
			uint32_t k[2];

			codes_to_half<IS_E4M3>(k, codes[i]);
			mma_16x8x16_half(scores[i % 2], queries[2 * s + i / 2], k[0], k[1]);
		}
	}
}

template <int DIM, bool IS_E4M3>
static __device__ __forceinline__ void
attend_codes(Partial<DIM> &part, const uint32_t queries[DIM / 16][4],
			 const AttentionParams &p, const char *tile, int32_t first_key,
			 const int32_t position[2])
{
	const int lane = (int) threadIdx.x % WARP;
	const int own = (int) threadIdx.x / WARP * CODE_GROUP;
	const char *values = tile + KEY_TILE * (DIM + 1);
	float scores[2][4] = {};
	uint32_t key_units[4];
	uint32_t units[4];
	uint32_t weights[4];

	load_units(key_units, tile + KEY_TILE * DIM + own);
	load_units(units, values + KEY_TILE * DIM + own);
	score_codes<DIM, IS_E4M3>(scores, queries, tile + own * DIM);
#pragma unroll
	for (int h = 0; h < 2; h++)
	{
		float *row[4];
		float factor;

#pragma unroll
		for (int i = 0; i < 4; i++)
		{
			int32_t key = first_key + own + i / 2 * 8 + lane % 4 * 2 + i % 2;

			row[i] = &scores[i / 2][2 * h + i % 2];
			*row[i] *= unit_value(key_units[i]);
			if (p.soft_cap > 0)
				*row[i] = capped_score(p, *row[i]);
			if (!sees(p, position[h], key))
				*row[i] = -INFINITY;
		}
		factor = soften_in_units(row, units, score_scale(p), part.max[h],
								 part.sum[h]);
		rescale_row<DIM>(part, h, factor);
	}
	weights[0] = pack_half(scores[0][0], scores[0][1]);
	weights[1] = pack_half(scores[0][2], scores[0][3]);
	weights[2] = pack_half(scores[1][0], scores[1][1]);
	weights[3] = pack_half(scores[1][2], scores[1][3]);
#pragma unroll
	for (int s = 0; s < DIM / 32; s++)
	{
		uint32_t codes[4];

		load_matrices(
			codes, (const bf16 *) (values + own * DIM + (s * 32 + lane) * 16));
#pragma unroll
		for (int i = 0; i < 4; i++)
		{
			uint32_t v[2];

			codes_to_half<IS_E4M3>(v, codes[i]);
			mma_16x8x16_half(part.out[4 * s + i], weights, v[0], v[1]);
		}
	}
}

/* ------------------------------------------------------------------------
 * A piece
 * ------------------------------------------------------------------------
 */

/* Fetches a piece's tiles one by one. */
template <int DIM, KvFormat FORMAT> struct Fetcher
{
	const int32_t *table;
	int32_t kv_head;
	int32_t next_key;
	int32_t end_key;
	CodePieces<DIM> pieces; /* of the next tile, where it holds codes */
};

/* The next tile's keys, and values behind them, if there is one. */
template <int DIM, KvFormat FORMAT>
static __device__ __forceinline__ void
fetch_next(Fetcher<DIM, FORMAT> &next, const AttentionParams &p, char *stage)
{
	char *values = stage + Decode<DIM, FORMAT>::tile_bytes;

	if (next.next_key < next.end_key)
	{
		if constexpr (FORMAT == KV_BF16)
		{
			fetch_tile<DIM, DECODE_THREADS>(p, p.keys, next.table, next.kv_head,
											next.next_key, next.end_key,
											(bf16 *) stage);
			fetch_tile<DIM, DECODE_THREADS>(p, p.values, next.table,
											next.kv_head, next.next_key,
											next.end_key, (bf16 *) values);
		}
		else
		{
			fetch_codes<DIM>(p, next.pieces, next.kv_head, next.next_key, stage,
							 values);
			find_pieces<DIM>(next.pieces, p, next.table,
							 next.next_key + KEY_TILE, next.end_key);
		}
	}
	next.next_key += KEY_TILE;
	copies_commit();
}

/*
 * Walk over the piece's tiles, all stages but one ahead being fetched.  seq is
 * the first of its sequences, whose rows follow one another.
 */
template <int DIM, KvFormat FORMAT>
static __device__ __forceinline__ void
attend_piece(Partial<DIM> &part, const uint32_t queries[DIM / 16][4],
			 const AttentionParams &p, const DecodePiece &piece, int32_t seq,
			 int32_t kv_head, char *stages, int32_t first_key)
{
	const int n_stages = Decode<DIM, FORMAT>::stages;
	const int stage_bytes = 2 * Decode<DIM, FORMAT>::tile_bytes;
	const int row = (int) threadIdx.x % WARP / 4;
	const int32_t last = piece.n_seqs - 1;
	const int32_t position[2] = {
		p.context_len[seq + min(row / p.group, last)] - 1,
		p.context_len[seq + min((row + 8) / p.group, last)] - 1
	};
	const int n_tiles = (piece.end_key - first_key + KEY_TILE - 1) / KEY_TILE;
	Fetcher<DIM, FORMAT> next = { p.block_tables +
									  (int64_t) seq * p.table_stride,
								  kv_head, first_key, piece.end_key };

	if constexpr (FORMAT != KV_BF16)
		find_pieces<DIM>(next.pieces, p, next.table, first_key, piece.end_key);
#pragma unroll
	for (int t = 0; t < n_stages - 1; t++)
		fetch_next<DIM, FORMAT>(next, p, stages + t * stage_bytes);
	for (int t = 0; t < n_tiles; t++)
	{
		const char *stage = stages + t % n_stages * stage_bytes;

		copies_wait<n_stages - 2>();
		__syncthreads();
		fetch_next<DIM, FORMAT>(
			next, p, stages + (t + n_stages - 1) % n_stages * stage_bytes);
		if constexpr (FORMAT == KV_BF16)
			attend_keys<DIM>(part, queries, p, (const bf16 *) stage,
							 first_key + t * KEY_TILE, position);
		else
			attend_codes<DIM, FORMAT == KV_E4M3>(
				part, queries, p, stage, first_key + t * KEY_TILE, position);
	}
	copies_wait<0>();
	__syncthreads();
}

/* Each warp's result, normalized to its own maximum, to shared memory. */
template <int DIM>
static __device__ __forceinline__ void
share_results(const Partial<DIM> &part, float factor, float *outs,
			  float *maxima, float *sums)
{
	const int lane = (int) threadIdx.x % WARP;
	const int warp = (int) threadIdx.x / WARP;

#pragma unroll
	for (int h = 0; h < 2; h++)
	{
		int row = lane / 4 + 8 * h;
		float sum = quad_sum(part.sum[h]);

		if (lane % 4 == 0)
		{
			maxima[warp * MMA_ROWS + row] = part.max[h];
			sums[warp * MMA_ROWS + row] = sum;
		}
#pragma unroll
		for (int i = 0; i < DIM / 8; i++)
			*(float2 *) (outs + (warp * MMA_ROWS + row) * DIM + i * 8 +
						 lane % 4 * 2) =
				make_float2(part.out[i][2 * h] * factor,
							part.out[i][2 * h + 1] * factor);
	}
	__syncthreads();
}

/* Where a piece's results go. */
typedef struct PieceRows
{
	int64_t first_token;
	int32_t first_head;
	int32_t n_heads;		  /* of a sequence, here */
	int32_t n_rows;			  /* of all of them */
	const int32_t *seq_slots; /* of the first sequence on */
} PieceRows;

/*
 * Add up the warps' results and store the rows; maxima times scale are powers
 * of 2.
 */
template <int DIM>
static __device__ __forceinline__ void
store_results(const AttentionParams &p, const DecodePiece &piece,
			  const PieceRows &rows, float scale, const float *outs,
			  const float *maxima, const float *sums)
{
	for (int i = (int) threadIdx.x; i < rows.n_rows * DIM; i += DECODE_THREADS)
	{
		int row = i / DIM;
		int d = i % DIM;
		int32_t seq = row / rows.n_heads;
		int32_t head = rows.first_head + row % rows.n_heads;
		float max = -INFINITY;
		float sum = 0;
		float out = 0;
		float base;

#pragma unroll
		for (int w = 0; w < DECODE_WARPS; w++)
			max = fmaxf(max, maxima[w * MMA_ROWS + row]);
		base = max == -INFINITY ? 0 : max * scale;
#pragma unroll
		for (int w = 0; w < DECODE_WARPS; w++)
		{
			float factor = exp2f(maxima[w * MMA_ROWS + row] * scale - base);

			sum += factor * sums[w * MMA_ROWS + row];
			out += factor * outs[(w * MMA_ROWS + row) * DIM + d];
		}
		out = sum > 0 ? out / sum : 0;
		if (d >= p.head_dim)
			continue;
		if (piece.ordinal < 0)
			p.out[((rows.first_token + seq) * p.n_heads + head) * p.head_dim +
				  d] = __float2bfloat16(out);
		else
		{
			int64_t slot = rows.seq_slots[seq] + piece.ordinal;
			int64_t at = slot * p.n_heads + head;

			p.partial_out[at * p.head_dim + d] = out;
			if (d == 0)
				p.partial_lse[at] = sum > 0 ? base + log2f(sum) : -INFINITY;
		}
	}
}

/* The first key that a window leaves to any of n_seqs sequences. */
static __device__ __forceinline__ int32_t
first_seen(const AttentionParams &p, int32_t seq, int32_t n_seqs)
{
	int32_t least = p.context_len[seq];

	for (int32_t i = 1; i < n_seqs; i++)
		least = min(least, p.context_len[seq + i]);
	return max(least - p.window, 0);
}

/* Grid: pieces, kv heads, tiles of 16 heads of a group. */
template <int DIM, KvFormat FORMAT>
static __global__ void
__launch_bounds__(DECODE_THREADS)
	attention_decode(const __grid_constant__ AttentionParams p,
					 const __grid_constant__ StepPlan plan)
{
	extern __shared__ __align__(128) unsigned char shared[];
	__shared__ float maxima[DECODE_WARPS * MMA_ROWS];
	__shared__ float sums[DECODE_WARPS * MMA_ROWS];
	bf16 *query_tile = (bf16 *) (shared + Decode<DIM, FORMAT>::query_at);
	const bool is_coded = Decode<DIM, FORMAT>::is_coded;
	const int32_t kv_head = (int32_t) blockIdx.y;
	const int32_t first_row = (int32_t) blockIdx.z * MMA_ROWS;
	uint32_t queries[DIM / 16][4];
	Partial<DIM> part;
	DecodePiece piece;
	PieceRows rows;
	int32_t seq;
	int32_t first_key;

	pass_release();
	pass_wait();
	if ((int32_t) blockIdx.x >= *plan.n_pieces_now)
		return;
	piece = plan.pieces[blockIdx.x];
	seq = plan.decode_seqs[piece.first];
	/* several sequences' rows fit one tile: first_row is 0 then */
	rows.first_token = p.query_start[seq];
	rows.first_head = kv_head * p.group + first_row;
	rows.n_heads = min(p.group - first_row, MMA_ROWS);
	rows.n_rows = piece.n_seqs * rows.n_heads;
	rows.seq_slots = plan.seq_slots + piece.first;
	first_key = piece.first_key;
	if (p.window > 0)
		first_key = max(first_key,
						first_seen(p, seq, piece.n_seqs) / KEY_TILE * KEY_TILE);
	load_queries<DIM, MMA_ROWS, DECODE_THREADS>(p, (int32_t) rows.first_token,
												piece.n_seqs * p.group,
												first_row, kv_head, query_tile);
	__syncthreads();
	if constexpr (FORMAT == KV_BF16)
	{
#pragma unroll
		for (int s = 0; s < DIM / 16; s++)
			query_fragment<DIM>(queries[s], query_tile, 0, s);
	}
	else
		half_queries<DIM>(queries, query_tile);
#pragma unroll
	for (int i = 0; i < DIM / 8; i++)
#pragma unroll
		for (int k = 0; k < 4; k++)
			part.out[i][k] = 0;
#pragma unroll
	for (int h = 0; h < 2; h++)
	{
		part.max[h] = -INFINITY;
		part.sum[h] = 0;
	}
	attend_piece<DIM, FORMAT>(part, queries, p, piece, seq, kv_head,
							  (char *) shared, first_key);
	share_results<DIM>(part, is_coded ? 1.0f / (1 << WEIGHT_BITS) : 1,
					   (float *) shared, maxima, sums);
	store_results<DIM>(p, piece, rows, is_coded ? 1 : score_scale(p),
					   (float *) shared, maxima, sums);
}

/* ------------------------------------------------------------------------
 * Adding up the pieces of a sequence
 * ------------------------------------------------------------------------
 */

/* Grid: decoding sequences, heads; a thread for each dimension. */
static __global__ void
combine_pieces(const __grid_constant__ AttentionParams p,
			   const int32_t *decode_seqs, const int32_t *seq_slots)
{
	const int32_t head = (int32_t) blockIdx.y;
	float max = -INFINITY;
	int32_t first;
	int32_t end;
	int64_t token;

	pass_release();
	pass_wait();
	first = seq_slots[blockIdx.x];
	end = seq_slots[blockIdx.x + 1];
	token = p.query_start[decode_seqs[blockIdx.x]];
	if (end - first <= 1)
		return;
	for (int32_t i = first; i < end; i++)
		max = fmaxf(max, p.partial_lse[(int64_t) i * p.n_heads + head]);
	for (int32_t d = (int32_t) threadIdx.x; d < p.head_dim;
		 d += (int32_t) blockDim.x)
	{
		float sum = 0;
		float out = 0;

		for (int32_t i = first; i < end; i++)
		{
			int64_t at = (int64_t) i * p.n_heads + head;
			float weight = exp2f(p.partial_lse[at] - max);

			sum += weight;
			out += weight * p.partial_out[at * p.head_dim + d];
		}
		p.out[(token * p.n_heads + head) * p.head_dim + d] =
			__float2bfloat16(out / sum);
	}
}

template <int DIM, KvFormat FORMAT>
static bool
launch(LlmCuda *cuda, const AttentionParams &p, LlmError *err)
{
	const StepPlan *plan = &cuda->plan;
	const int bytes = Decode<DIM, FORMAT>::shared_bytes;
	dim3 grid((unsigned) plan->n_pieces, (unsigned) p.n_kv_heads,
			  (unsigned) ceil_div(p.group, MMA_ROWS));

	CUDA_TRY(cudaFuncSetAttribute(attention_decode<DIM, FORMAT>,
								  cudaFuncAttributeMaxDynamicSharedMemorySize,
								  bytes));
	CUDA_TRY(launch_early(cuda, { grid, DECODE_THREADS, (size_t) bytes },
						  attention_decode<DIM, FORMAT>, p, *plan));
	return true;
}

template <int DIM>
static bool
launch_format(LlmCuda *cuda, const AttentionParams &p, LlmError *err)
{
	if (p.kv_dtype == LLM_DTYPE_FP8_E4M3)
		return launch<DIM, KV_E4M3>(cuda, p, err);
	if (p.kv_dtype == LLM_DTYPE_INT8)
		return launch<DIM, KV_INT8>(cuda, p, err);
	return launch<DIM, KV_BF16>(cuda, p, err);
}

bool
cuda_attention_decode(LlmCuda *cuda, const AttentionParams *params,
					  int32_t padded_dim, LlmError *err)
{
	const StepPlan *plan = &cuda->plan;
	dim3 grid((unsigned) plan->n_decode_seqs, (unsigned) params->n_heads);
	bool ok;

	switch (padded_dim)
	{
		case 64:
			ok = launch_format<64>(cuda, *params, err);
			break;
		case 96:
			ok = launch_format<96>(cuda, *params, err);
			break;
		case 128:
			ok = launch_format<128>(cuda, *params, err);
			break;
		default:
			ok = launch_format<256>(cuda, *params, err);
			break;
	}
	if (!ok || plan->are_whole)
		return ok;
	CUDA_TRY(launch_early(cuda, { grid, 128 }, combine_pieces, *params,
						  plan->decode_seqs, plan->seq_slots));
	return true;
}

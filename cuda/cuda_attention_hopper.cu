/*
 * cuda_attention_hopper.cu
 *	  Attention of many new tokens on Hopper.
 *
 * As cuda_attention_prefill.cu, with the means of FlashAttention-3 (Shah et
 * al. 2024): a block has 128 rows (tokens times heads of a group), 64 for each
 * of two warpgroups, and a warp that does nothing but order tiles of keys and
 * values into rings in shared memory with the bulk copy engine, ahead of their
 * use.  A warpgroup has the tensor cores compute the next tile's scores and
 * this tile's values while it makes weights of scores; the two take turns, so
 * that one's products run beside the other's powers.
 *
 * Blocks stay for the whole kernel and take one tile of rows after the other,
 * late ones, which see most, first; every second round in reverse, so that all
 * have as much to do.  The rings go on across tiles, and a warpgroup fetches
 * its next queries while its last products run, so that short prompts do not
 * wait for memory again and again.
 *
 * The pieces of the cache are the tensor cores' operands as they are.  Where
 * the cache holds codes of 8 bits, a warpgroup expands them to bf16 instead of
 * ordering copies.
 *
 * cuda/cuda_attention_hopper.cu
 */
#include "cuda/cuda_attention_tile.cuh"
#include "cuda/cuda_code.cuh"
#include "cuda/cuda_hopper.cuh"

#define GROUP_THREADS 128 /* of a warpgroup */
#define GROUP_ROWS 64
#define WORKER_THREADS (2 * GROUP_THREADS)
#define WORKER_WARPS (WORKER_THREADS / WARP)
#define HOPPER_THREADS (WORKER_THREADS + GROUP_THREADS)
#define HOPPER_ROWS (2 * GROUP_ROWS)
#define MAX_STAGES 3

/* Barriers of hardware; 0 is __syncthreads. */
#define TURN_BARRIER 2 /* and 3: one for each warpgroup */
#define EXPANDERS_BARRIER 4
#define GROUP_BARRIER 5 /* and 6: one for each warpgroup */

#define MAX_SLOTS 2

template <int DIM, bool IS_CODED> struct Hopper
{
	/* sums of scores and of values have to fit a thread's registers */
	static const int keys = DIM <= 128 ? 128 : 64;
	/* values of a product */
	static const int part = DIM <= 128 ? DIM : 128;
	static const int tile_elements = keys * DIM;
	/* codes wait in slots of their own to be expanded */
	static const int stages = DIM <= 128 && !IS_CODED ? 3 : 2;
	static const int slots = !IS_CODED ? 0 : DIM <= 128 ? 2 : 1;
	static const int slot_bytes = keys * (DIM + 1); /* keys, or values */
	static const int tiles_bytes =
		(HOPPER_ROWS + 2 * stages * keys) * DIM * (int) sizeof(bf16);
	static const int shared_bytes = tiles_bytes + 2 * slots * slot_bytes;
};

/* Tiles of rows of all prompts: as many of each as the longest has. */
typedef struct HopperWork
{
	const int32_t *seqs; /* [n_seqs] */
	int32_t n_seqs;
	int32_t n_tiles;
} HopperWork;

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900

typedef struct HopperBarriers
{
	uint64_t keys_full[MAX_STAGES];
	uint64_t keys_empty[MAX_STAGES];
	uint64_t values_full[MAX_STAGES];
	uint64_t values_empty[MAX_STAGES];
	uint64_t rest_copied; /* the values of a last tile that is not full */
	uint64_t codes_full[MAX_SLOTS];
} HopperBarriers;

/* A tile of rows of a sequence, for one kv head. */
typedef struct RowBlock
{
	int32_t turn; /* tiles that the block might have had before */
	int32_t first_token;
	int32_t n_rows; /* of the sequence */
	int32_t first_row;
	int32_t first_position; /* of the sequence's new tokens */
	int32_t kv_head;
	const int32_t *table;
	KeyRange range;
} RowBlock;

/* What the threads of a block share. */
template <int DIM, bool IS_CODED> struct HopperBlock
{
	HopperBarriers *barriers;
	bf16 *queries;
	bf16 *keys;		/* [stages] */
	bf16 *values;	/* [stages] */
	char *slots;	/* [slots, 2 (k, v)] codes and behind them units */
	int32_t n_done; /* tiles of keys of the rows before; stages go on */
	RowBlock rows;
};

/*
 * The block's first tile of rows from rows.turn on, if there is one.  Neighbours
 * have the kv heads of a tile.
 */
template <int TILE_KEYS>
static __device__ __forceinline__ bool
find_rows(RowBlock &rows, const AttentionParams &p, const HopperWork &work)
{
	const int32_t n_items = work.n_tiles * work.n_seqs * p.n_kv_heads;

	for (;; rows.turn++)
	{
		int32_t in_round =
			(int32_t) (rows.turn % 2 == 0 ? blockIdx.x
										  : gridDim.x - 1 - blockIdx.x);
		int32_t index = rows.turn * (int32_t) gridDim.x + in_round;
		int32_t seq;
		int32_t n_tokens;

		if (rows.turn * (int32_t) gridDim.x >= n_items)
			return false;
		if (index >= n_items)
			continue;
		rows.kv_head = index % p.n_kv_heads;
		index /= p.n_kv_heads;
		seq = work.seqs[index % work.n_seqs];
		rows.first_row = (work.n_tiles - 1 - index / work.n_seqs) * HOPPER_ROWS;
		rows.first_token = p.query_start[seq];
		n_tokens = p.query_start[seq + 1] - rows.first_token;
		rows.n_rows = n_tokens * p.group;
		if (rows.first_row >= rows.n_rows)
			continue;
		rows.first_position = p.context_len[seq] - n_tokens;
		rows.table = p.block_tables + (int64_t) seq * p.table_stride;
		rows.range = key_range<TILE_KEYS>(
			p, rows.first_position + rows.first_row / p.group,
			rows.first_position +
				(min(rows.first_row + HOPPER_ROWS, rows.n_rows) - 1) / p.group);
		return true;
	}
}

static __device__ __forceinline__ int32_t
tiles_of(const RowBlock &rows)
{
	return rows.range.end_tile - rows.range.first_tile;
}

/* The threads of one warpgroup. */
static __device__ __forceinline__ void
group_sync(int barrier)
{
	asm volatile("bar.sync %0, %1;"
				 :
				 : "r"(barrier), "n"(GROUP_THREADS)
				 : "memory");
}

static __device__ __forceinline__ void
named_sync(int barrier)
{
	asm volatile("bar.sync %0, %1;"
				 :
				 : "r"(barrier), "n"(WORKER_THREADS)
				 : "memory");
}

static __device__ __forceinline__ void
named_arrive(int barrier)
{
	asm volatile("bar.arrive %0, %1;"
				 :
				 : "r"(barrier), "n"(WORKER_THREADS)
				 : "memory");
}

/* ------------------------------------------------------------------------
 * The warp that orders copies
 * ------------------------------------------------------------------------
 */

/* What lies together of a tile, piece by piece; beyond the end nothing. */
template <int DIM, bool IS_CODED>
static __device__ __forceinline__ void
order_tile(const AttentionParams &p, const HopperBlock<DIM, IS_CODED> &block,
		   const char *cache, int32_t first_key, bf16 *dest, uint64_t *barrier)
{
	const int lane = (int) threadIdx.x % WARP;
	const int32_t keys = Hopper<DIM, IS_CODED>::keys;
	const int32_t piece = min(1 << p.block_shift, keys);
	const int32_t n_pieces =
		(min(block.rows.range.end_key - first_key, keys) + piece - 1) / piece;
	const int n_bytes = piece * DIM * (int) sizeof(bf16);

	if (lane == 0)
		barrier_expect(barrier, n_pieces * n_bytes);
	__syncwarp();
	if (lane < n_pieces)
	{
		int32_t key = first_key + lane * piece;
		int64_t at =
			(int64_t) block.rows.table[key >> p.block_shift] * p.n_kv_heads;

		at = ((at + block.rows.kv_head) << p.block_shift) +
			 (key & ((1 << p.block_shift) - 1));
		copy_bulk(dest + lane * piece * DIM, (const bf16 *) cache + at * DIM,
				  n_bytes, barrier);
	}
}

/*
 * The last tile's values, zeros from the end on: what else lies there may not
 * be numbers, which weights of zero do not hide.
 */
template <int DIM, bool IS_CODED>
static __device__ __forceinline__ void
order_last_values(const AttentionParams &p,
				  const HopperBlock<DIM, IS_CODED> &block, int32_t first_key,
				  bf16 *dest, uint64_t *full, int rest_parity)
{
	const int lane = (int) threadIdx.x % WARP;
	const int32_t end = block.rows.range.end_key - first_key;

	order_tile<DIM, IS_CODED>(p, block, p.values, first_key, dest,
							  &block.barriers->rest_copied);
	barrier_wait(&block.barriers->rest_copied, rest_parity);
	for (int32_t i = end / 8 * DIM + lane;
		 i < Hopper<DIM, IS_CODED>::keys / 8 * DIM; i += WARP)
		if (i / DIM * 8 + i % 8 >= end)
			*(uint4 *) (dest + i * 8) = make_uint4(0, 0, 0, 0);
	fence_async_proxy();
	__syncwarp();
	if (lane == 0)
		barrier_arrive(full);
}

/* Whether a tile was not full, whose values go by rest_copied. */
template <int DIM, bool IS_CODED>
static __device__ __forceinline__ bool
order_tiles(const AttentionParams &p, const HopperBlock<DIM, IS_CODED> &block,
			int rest_parity)
{
	const int stages = Hopper<DIM, IS_CODED>::stages;
	const int32_t n_tiles = tiles_of(block.rows);
	HopperBarriers *barriers = block.barriers;
	bool is_full = true;

	for (int32_t t = 0; t < n_tiles; t++)
	{
		int stage = (block.n_done + t) % stages;
		int parity = ((block.n_done + t) / stages + 1) % 2;
		int32_t first_key =
			(block.rows.range.first_tile + t) * Hopper<DIM, IS_CODED>::keys;
		int offset = stage * Hopper<DIM, IS_CODED>::tile_elements;

		is_full =
			first_key + Hopper<DIM, IS_CODED>::keys <= block.rows.range.end_key;
		barrier_wait(&barriers->keys_empty[stage], parity);
		order_tile<DIM, IS_CODED>(p, block, p.keys, first_key,
								  block.keys + offset,
								  &barriers->keys_full[stage]);
		barrier_wait(&barriers->values_empty[stage], parity);
		if (is_full)
			order_tile<DIM, IS_CODED>(p, block, p.values, first_key,
									  block.values + offset,
									  &barriers->values_full[stage]);
		else
			order_last_values<DIM, IS_CODED>(
				p, block, first_key, block.values + offset,
				&barriers->values_full[stage], rest_parity);
	}
	return !is_full;
}

/* ------------------------------------------------------------------------
 * The warpgroup that expands codes
 * ------------------------------------------------------------------------
 */

static __device__ __forceinline__ void
expanders_sync(void)
{
	asm volatile("bar.sync %0, %1;"
				 :
				 : "n"(EXPANDERS_BARRIER), "n"(GROUP_THREADS)
				 : "memory");
}

/* This warp's part of a tile lies in shared memory. */
static __device__ __forceinline__ void
deliver(uint64_t *full)
{
	fence_async_proxy();
	__syncwarp();
	if (threadIdx.x % WARP == 0)
		barrier_arrive(full);
}

/* A tile's codes and units to a slot, by one warp. */
template <int DIM, bool IS_CODED>
static __device__ __forceinline__ void
order_codes(const AttentionParams &p, const HopperBlock<DIM, IS_CODED> &block,
			int32_t t)
{
	const int lane = (int) threadIdx.x % WARP;
	const int32_t keys = Hopper<DIM, IS_CODED>::keys;
	const int slot = (block.n_done + t) % Hopper<DIM, IS_CODED>::slots;
	const int32_t mask = (1 << p.block_shift) - 1;
	const int32_t piece = min(mask + 1, keys);
	const int32_t first_key = (block.rows.range.first_tile + t) * keys;
	const int32_t n_pieces =
		(min(block.rows.range.end_key - first_key, keys) + piece - 1) / piece;
	uint64_t *full = &block.barriers->codes_full[slot];
	char *dest = block.slots + slot * 2 * Hopper<DIM, IS_CODED>::slot_bytes;

	if (lane == 0)
		barrier_expect(full, 2 * n_pieces * piece * (DIM + 1));
	__syncwarp();
	if (lane < n_pieces)
	{
		int32_t key = first_key + lane * piece;
		int64_t head =
			((int64_t) block.rows.table[key >> p.block_shift] * p.n_kv_heads +
			 block.rows.kv_head) *
			p.head_bytes;

#pragma unroll
		for (int i = 0; i < 2; i++)
		{
			const char *src = (i == 0 ? p.keys : p.values) + head;
			char *own = dest + i * Hopper<DIM, IS_CODED>::slot_bytes;

			copy_bulk(own + lane * piece * DIM, src + (key & mask) * DIM,
					  piece * DIM, full);
			copy_bulk(own + keys * DIM + lane * piece,
					  src + (mask + 1) * DIM + (key & mask), piece, full);
		}
	}
}

template <int DIM, bool IS_CODED>
static __device__ __forceinline__ void
expand_slot(const AttentionParams &p, const HopperBlock<DIM, IS_CODED> &block,
			int32_t t)
{
	const int stages = Hopper<DIM, IS_CODED>::stages;
	const int n_keys = Hopper<DIM, IS_CODED>::keys;
	const int slots = Hopper<DIM, IS_CODED>::slots;
	const bool is_e4m3 = p.kv_dtype == LLM_DTYPE_FP8_E4M3;
	const int thread = (int) threadIdx.x - WORKER_THREADS;
	const int32_t at = block.n_done + t;
	const int stage = at % stages;
	const int parity = (at / stages + 1) % 2;
	const int offset = stage * Hopper<DIM, IS_CODED>::tile_elements;
	const int32_t left =
		block.rows.range.end_key - (block.rows.range.first_tile + t) * n_keys;
	const char *keys =
		block.slots + at % slots * 2 * Hopper<DIM, IS_CODED>::slot_bytes;
	const char *values = keys + Hopper<DIM, IS_CODED>::slot_bytes;

	barrier_wait(&block.barriers->codes_full[at % slots], at / slots % 2);
	barrier_wait(&block.barriers->keys_empty[stage], parity);
#pragma unroll 4
	for (int i = thread; i < n_keys / CODE_GROUP * DIM; i += GROUP_THREADS)
		expand_key_piece<DIM>(is_e4m3, keys + i * 16, keys + n_keys * DIM, i,
							  block.keys + offset);
	deliver(&block.barriers->keys_full[stage]);
	barrier_wait(&block.barriers->values_empty[stage], parity);
#pragma unroll 4
	for (int i = thread; i < n_keys / CODE_GROUP * DIM; i += GROUP_THREADS)
		expand_value_piece<DIM>(is_e4m3, values + i * 16, values + n_keys * DIM,
								i, left, block.values + offset);
	deliver(&block.barriers->values_full[stage]);
}

template <int DIM, bool IS_CODED>
static __device__ __forceinline__ void
expand_tiles(const AttentionParams &p, const HopperBlock<DIM, IS_CODED> &block)
{
	const int slots = Hopper<DIM, IS_CODED>::slots;
	const int32_t n_tiles = tiles_of(block.rows);
	const bool orders = threadIdx.x < WORKER_THREADS + WARP;

	for (int32_t t = 1 - slots; t < n_tiles; t++)
	{
		/* a slot is free when all have expanded what was in it */
		expanders_sync();
		if (orders && t + slots - 1 < n_tiles)
			order_codes<DIM, IS_CODED>(p, block, t + slots - 1);
		if (t >= 0)
			expand_slot<DIM, IS_CODED>(p, block, t);
	}
}

/* ------------------------------------------------------------------------
 * The warpgroups that compute
 * ------------------------------------------------------------------------
 */

/* Start the scores of the warpgroup's rows with a tile of keys. */
template <int DIM, bool IS_CODED>
static __device__ __forceinline__ void
start_scores(float (&scores)[Hopper<DIM, IS_CODED>::keys / 8][4],
			 const bf16 *queries, const bf16 *keys)
{
	const uint64_t a = wgmma_matrix(queries, 128, DIM * 16);
	const uint64_t b = wgmma_matrix(keys, 128, DIM * 16);

	wgmma_pin(scores);
	wgmma_fence();
#pragma unroll
	for (int s = 0; s < DIM / 16; s++)
		/* an address counts in 16 bytes; two 8 x 8 matrices further */
		wgmma_shared<Hopper<DIM, IS_CODED>::keys>(scores, a + s * 16,
												  b + s * 16, s > 0);
	wgmma_commit();
}

/*
 * Start adding a tile of values with their weights.  Expanded values lie along
 * the keys, others along the dimensions.
 */
template <int DIM, bool IS_CODED>
static __device__ __forceinline__ void
start_values(float (&out)[DIM / 8][4],
			 const uint32_t weights[Hopper<DIM, IS_CODED>::keys / 16][4],
			 const bf16 *values)
{
	const int part = Hopper<DIM, IS_CODED>::part;
	const uint64_t b = wgmma_matrix(values, DIM * 16, 128);

	wgmma_pin(out);
	wgmma_fence();
#pragma unroll
	for (int s = 0; s < Hopper<DIM, IS_CODED>::keys / 16; s++)
#pragma unroll
		for (int d = 0; d < DIM; d += part)
			wgmma_registers<part, !IS_CODED>(out + d / 8, weights[s],
											 b + s * (2 * DIM) + d);
	wgmma_commit();
}

/* Cap, mask, soften; weights replace scores.  Gives what to rescale by. */
template <int DIM, bool IS_CODED>
static __device__ __forceinline__ void
weigh(RowTile<DIM> &tile, float (&scores)[Hopper<DIM, IS_CODED>::keys / 8][4],
	  float factors[2], const AttentionParams &p, const KeyRange &range,
	  int32_t key_tile)
{
	const int n = Hopper<DIM, IS_CODED>::keys / 2;
	const int32_t first_key =
		key_tile * Hopper<DIM, IS_CODED>::keys + (int) threadIdx.x % 4 * 2;
	const float scale = score_scale(p);

	if (p.soft_cap > 0)
	{
#pragma unroll
		for (int i = 0; i < n; i++)
			scores[i / 4][i % 4] = capped_score(p, scores[i / 4][i % 4]);
	}
	if (key_tile >= range.first_masked || key_tile < range.end_windowed)
	{
#pragma unroll
		for (int i = 0; i < n; i++)
			if (!sees(p, tile.position[i % 4 / 2],
					  first_key + i / 4 * 8 + i % 2))
				scores[i / 4][i % 4] = -INFINITY;
	}
#pragma unroll
	for (int h = 0; h < 2; h++)
	{
		float *row[n / 2];

#pragma unroll
		for (int i = 0; i < n / 2; i++)
			row[i] = &scores[i / 2][2 * h + i % 2];
		factors[h] = soften<n / 2>(row, scale, tile.max[h], tile.sum[h]);
	}
}

/* Most tiles of a long context have no new maximum. */
template <int DIM, bool IS_CODED>
static __device__ __forceinline__ void
rescale(RowTile<DIM> &tile, const float factors[2])
{
	if (__all_sync(FULL_MASK, factors[0] == 1 && factors[1] == 1))
		return;
#pragma unroll
	for (int i = 0; i < DIM / 8; i++)
#pragma unroll
		for (int k = 0; k < 4; k++)
			tile.out[i][k] *= factors[k / 2];
}

/* A fragment of weights for each 16 keys. */
template <int DIM, bool IS_CODED>
static __device__ __forceinline__ void
pack_weights(uint32_t weights[Hopper<DIM, IS_CODED>::keys / 16][4],
			 const float scores[Hopper<DIM, IS_CODED>::keys / 8][4])
{
#pragma unroll
	for (int i = 0; i < Hopper<DIM, IS_CODED>::keys / 4; i++)
		weights[i / 4][i % 4] =
			pack_bf16(scores[i / 2][i % 2 * 2], scores[i / 2][i % 2 * 2 + 1]);
}

/* One warp of a stage's readers is done with it. */
static __device__ __forceinline__ void
release(uint64_t *empty)
{
	if (threadIdx.x % WARP == 0)
		barrier_arrive(empty);
}

/* Start the products of tile t, counted from the first one, when it is there. */
template <int DIM, bool IS_CODED>
static __device__ __forceinline__ void
await_scores(float (&scores)[Hopper<DIM, IS_CODED>::keys / 8][4],
			 const HopperBlock<DIM, IS_CODED> &block, const bf16 *queries,
			 int32_t t)
{
	const int stages = Hopper<DIM, IS_CODED>::stages;
	const int32_t at = block.n_done + t;

	barrier_wait(&block.barriers->keys_full[at % stages], at / stages % 2);
	start_scores<DIM, IS_CODED>(
		scores, queries,
		block.keys + at % stages * Hopper<DIM, IS_CODED>::tile_elements);
}

template <int DIM, bool IS_CODED>
static __device__ __forceinline__ void
await_values(float (&out)[DIM / 8][4],
			 const uint32_t weights[Hopper<DIM, IS_CODED>::keys / 16][4],
			 const HopperBlock<DIM, IS_CODED> &block, int32_t t)
{
	const int stages = Hopper<DIM, IS_CODED>::stages;
	const int32_t at = block.n_done + t;

	barrier_wait(&block.barriers->values_full[at % stages], at / stages % 2);
	start_values<DIM, IS_CODED>(
		out, weights,
		block.values + at % stages * Hopper<DIM, IS_CODED>::tile_elements);
}

/*
 * All tiles of keys, for the 64 rows of a warpgroup.  The last values' products
 * run on.
 */
template <int DIM, bool IS_CODED>
static __device__ __forceinline__ void
attend_tiles(RowTile<DIM> &tile, const AttentionParams &p,
			 const HopperBlock<DIM, IS_CODED> &block, const bf16 *queries)
{
	const int stages = Hopper<DIM, IS_CODED>::stages;
	const KeyRange &range = block.rows.range;
	const int32_t n_tiles = tiles_of(block.rows);
	const int group = (int) threadIdx.x / GROUP_THREADS;
	float scores[Hopper<DIM, IS_CODED>::keys / 8][4];
	uint32_t weights[Hopper<DIM, IS_CODED>::keys / 16][4];
	float factors[2];

	await_scores<DIM, IS_CODED>(scores, block, queries, 0);
	wgmma_wait<0>();
	wgmma_pin(scores);
	release(&block.barriers->keys_empty[block.n_done % stages]);
	weigh<DIM, IS_CODED>(tile, scores, factors, p, range, range.first_tile);
	pack_weights<DIM, IS_CODED>(weights, scores);
	if (group == 1 && n_tiles > 1)
		named_arrive(TURN_BARRIER);
	for (int32_t t = 1; t < n_tiles; t++)
	{
		named_sync(TURN_BARRIER + group);
		await_scores<DIM, IS_CODED>(scores, block, queries, t);
		await_values<DIM, IS_CODED>(tile.out, weights, block, t - 1);
		if (group == 0 || t + 1 < n_tiles)
			named_arrive(TURN_BARRIER + 1 - group);
		wgmma_wait<1>();
		wgmma_pin(scores);
		release(&block.barriers->keys_empty[(block.n_done + t) % stages]);
		weigh<DIM, IS_CODED>(tile, scores, factors, p, range,
							 range.first_tile + t);
		wgmma_wait<0>();
		wgmma_pin(tile.out);
		release(&block.barriers->values_empty[(block.n_done + t - 1) % stages]);
		rescale<DIM, IS_CODED>(tile, factors);
		pack_weights<DIM, IS_CODED>(weights, scores);
	}
	await_values<DIM, IS_CODED>(tile.out, weights, block, n_tiles - 1);
}

/* A warpgroup's half of the queries of a tile of rows. */
template <int DIM>
static __device__ __forceinline__ void
fetch_own_queries(const AttentionParams &p, const RowBlock &rows, bf16 *queries)
{
	const int32_t own = (int32_t) threadIdx.x / GROUP_THREADS * GROUP_ROWS;

	fetch_query_rows<DIM, GROUP_ROWS, GROUP_THREADS>(
		p, rows.first_token, rows.n_rows, rows.first_row + own, rows.kv_head,
		queries);
}

/* All tiles of rows of a block, whose first one is there. */
template <int DIM, bool IS_CODED>
static __device__ __forceinline__ void
attend_rows(const AttentionParams &p, const HopperWork &work,
			HopperBlock<DIM, IS_CODED> &block)
{
	const int stages = Hopper<DIM, IS_CODED>::stages;
	const int group = (int) threadIdx.x / GROUP_THREADS;
	const int32_t own = (int32_t) threadIdx.x / WARP * MMA_ROWS;
	bf16 *queries = block.queries + group * GROUP_ROWS * DIM;
	bool goes_on = true;

	fetch_own_queries<DIM>(p, block.rows, queries);
	while (goes_on)
	{
		const RowBlock rows = block.rows;
		RowTile<DIM> tile;

		copies_wait<0>();
		fence_async_proxy();
		group_sync(GROUP_BARRIER + group);
		tile_init(tile, p, rows.first_position, rows.first_row + own);
		attend_tiles<DIM, IS_CODED>(tile, p, block, queries);
		block.n_done += tiles_of(rows);
		block.rows.turn++;
		goes_on = find_rows<Hopper<DIM, IS_CODED>::keys>(block.rows, p, work);
		/* all warps are done with the scores' products, which read queries */
		group_sync(GROUP_BARRIER + group);
		if (goes_on)
			fetch_own_queries<DIM>(p, block.rows, queries);
		wgmma_wait<0>();
		wgmma_pin(tile.out);
		release(&block.barriers->values_empty[(block.n_done - 1) % stages]);
		store_tile(tile, p, rows.first_token, rows.n_rows, rows.first_row + own,
				   rows.kv_head);
	}
}

/* Keys and values for them. */
template <int DIM, bool IS_CODED>
static __device__ __forceinline__ void
deliver_rows(const AttentionParams &p, const HopperWork &work,
			 HopperBlock<DIM, IS_CODED> &block)
{
	int rest_parity = 0;

	do
	{
		if constexpr (IS_CODED)
			expand_tiles<DIM, IS_CODED>(p, block);
		else if (order_tiles<DIM, IS_CODED>(p, block, rest_parity))
			rest_parity ^= 1;
		block.n_done += tiles_of(block.rows);
		block.rows.turn++;
	} while (find_rows<Hopper<DIM, IS_CODED>::keys>(block.rows, p, work));
}

/* n_deliverers: who says that a stage is full */
static __device__ __forceinline__ void
init_barriers(HopperBarriers *barriers, int n_deliverers)
{
	for (int i = 0; i < MAX_STAGES; i++)
	{
		barrier_init(&barriers->keys_full[i], n_deliverers);
		barrier_init(&barriers->values_full[i], n_deliverers);
		barrier_init(&barriers->keys_empty[i], WORKER_WARPS);
		barrier_init(&barriers->values_empty[i], WORKER_WARPS);
	}
	barrier_init(&barriers->rest_copied, 1);
	for (int i = 0; i < MAX_SLOTS; i++)
		barrier_init(&barriers->codes_full[i], 1);
	fence_async_proxy();
}

#endif

/* Grid: any number of blocks. */
template <int DIM, bool IS_CODED>
static __global__ void
__launch_bounds__(HOPPER_THREADS, 1)
	attention_hopper(const __grid_constant__ AttentionParams p,
					 const __grid_constant__ HopperWork work)
{
/* on an older GPU it is never started */
#if __CUDA_ARCH__ >= 900
	extern __shared__ __align__(128) unsigned char shared[];
	__shared__ HopperBarriers barriers;
	HopperBlock<DIM, IS_CODED> block = { &barriers, (bf16 *) shared };

	if (!find_rows<Hopper<DIM, IS_CODED>::keys>(block.rows, p, work))
		return;
	block.keys = block.queries + HOPPER_ROWS * DIM;
	block.values = block.keys + Hopper<DIM, IS_CODED>::stages *
									Hopper<DIM, IS_CODED>::tile_elements;
	block.slots = (char *) shared + Hopper<DIM, IS_CODED>::tiles_bytes;
	if (threadIdx.x == 0)
		init_barriers(&barriers, IS_CODED ? GROUP_THREADS / WARP : 1);
	__syncthreads();
	if (threadIdx.x >= WORKER_THREADS)
	{
		registers_give<IS_CODED ? 56 : 40>();
		if (IS_CODED || threadIdx.x < WORKER_THREADS + WARP)
			deliver_rows<DIM, IS_CODED>(p, work, block);
	}
	else
	{
		registers_take<IS_CODED ? 224 : 232>();
		attend_rows<DIM, IS_CODED>(p, work, block);
	}
#endif
}

template <int DIM, bool IS_CODED>
static bool
launch(LlmCuda *cuda, const AttentionParams &p, LlmError *err)
{
	const StepPlan *plan = &cuda->plan;
	const int bytes = Hopper<DIM, IS_CODED>::shared_bytes;
	const HopperWork work = { plan->prefill_seqs, plan->n_prefill_seqs,
							  (int32_t) ceil_div(
								  (int64_t) plan->max_prefill_len * p.group,
								  HOPPER_ROWS) };
	int64_t n_items = (int64_t) work.n_tiles * work.n_seqs * p.n_kv_heads;

	CUDA_TRY(cudaFuncSetAttribute(attention_hopper<DIM, IS_CODED>,
								  cudaFuncAttributeMaxDynamicSharedMemorySize,
								  bytes));
	attention_hopper<DIM, IS_CODED>
		<<<(unsigned) (n_items < cuda->n_sms ? n_items : cuda->n_sms),
		   HOPPER_THREADS, bytes, cuda->stream>>>(p, work);
	return cuda_launched("prefill attention", err);
}

template <int DIM>
static bool
launch_format(LlmCuda *cuda, const AttentionParams &p, LlmError *err)
{
	return llm_dtype_is_coded(p.kv_dtype) ? launch<DIM, true>(cuda, p, err)
										  : launch<DIM, false>(cuda, p, err);
}

bool
cuda_attention_hopper(LlmCuda *cuda, const AttentionParams *params,
					  int32_t padded_dim, LlmError *err)
{
	assert(cuda->capability == 90);
	switch (padded_dim)
	{
		case 64:
			return launch_format<64>(cuda, *params, err);
		case 96:
			return launch_format<96>(cuda, *params, err);
		case 128:
			return launch_format<128>(cuda, *params, err);
		default:
			return launch_format<256>(cuda, *params, err);
	}
}

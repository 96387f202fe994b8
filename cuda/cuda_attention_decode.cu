/*
 * cuda_attention_decode.cu
 *	  Attention of one new token per sequence over paged contexts.
 *
 * Contexts are cut into pieces (flash-decoding, Dao et al. 2023): all heads of
 * a kv head's group together, so that keys and values are read once.  Blocks
 * stay for the whole kernel and take one piece of a kv head after the other,
 * neighbouring blocks the kv heads of a piece, which lie side by side.
 *
 * A warp takes every fourth slice of 16 keys, and has a ring of slots of its
 * own for them: where it is done with a slot, it orders the slice that comes
 * next there, also of pieces to come, on Hopper by the bulk copy engine.  So
 * memory is never idle, nothing waits for other warps but at the end of a
 * piece, and addresses cost nothing to speak of.
 *
 * Results of pieces carry the logarithm of their weight, and a second kernel
 * adds them up; a sequence of one piece is done at once.  A piece that several
 * sequences share (the beginning of their prompts) has the rows of all of them
 * in its tile, so that it is read once for them.
 *
 * cuda/cuda_attention_decode.cu
 */
#include "cuda/cuda_attention_decode.cuh"
#include "cuda/cuda_hopper.cuh"

#define DECODE_WARPS 4
#define DECODE_THREADS (DECODE_WARPS * WARP)
#define MERGE_ROWS 4

/* Blocks of a multiprocessor share its memory and its registers. */
template <int DIM, KvFormat FORMAT> struct Decode
{
	static const int n_blocks = FORMAT == KV_BF16 || DIM > 128 ? 2 : 3;
	/* of a row of a warp's results: rows 2 t meet different banks */
	static const int merge_stride = DIM + 4;
	static const int merge_bytes =
		DECODE_WARPS * MERGE_ROWS * merge_stride * (int) sizeof(float);
	/* 227 KiB, of which each block takes one more, and some to count */
	static const int ring_bytes = (227 * 1024) / n_blocks - 2048 - merge_bytes;
	static const int n_slots =
		ring_bytes / (DECODE_WARPS * Slice<DIM, FORMAT>::n_bytes);
	static const int merge_at =
		DECODE_WARPS * n_slots * Slice<DIM, FORMAT>::n_bytes;
	static const int shared_bytes = merge_at + merge_bytes;
	static_assert(n_slots >= 1, "a slot for each warp");
};

/* Of a warp: one for each slot, which its slice completes. */
template <int DIM, KvFormat FORMAT> struct Ring
{
	char *slots;
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
	uint64_t *full;
#endif
};

/* ------------------------------------------------------------------------
 * What there is to do
 * ------------------------------------------------------------------------
 */

/* A piece for one kv head, and for 16 rows where a group has more. */
typedef struct WorkItem
{
	DecodePiece piece;
	int32_t seq; /* the first one's */
	int32_t kv_head;
	int32_t first_row; /* of the group */
	int32_t first_key; /* that any row sees, or some before it */
} WorkItem;

static __host__ __device__ __forceinline__ int32_t
items_of_piece(const AttentionParams &p)
{
	return p.n_kv_heads * ((p.group + MMA_ROWS - 1) / MMA_ROWS);
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

static __device__ __forceinline__ WorkItem
open_item(const AttentionParams &p, const StepPlan &plan, int32_t index)
{
	const int32_t per_piece = items_of_piece(p);
	const int32_t unit = index % per_piece;
	WorkItem item;

	item.piece = plan.pieces[index / per_piece];
	item.seq = plan.decode_seqs[item.piece.first];
	item.kv_head = unit % p.n_kv_heads;
	item.first_row = unit / p.n_kv_heads * MMA_ROWS;
	item.first_key = item.piece.first_key;
	if (p.window > 0)
		item.first_key =
			max(item.first_key, first_seen(p, item.seq, item.piece.n_seqs) /
									SLICE_KEYS * SLICE_KEYS);
	return item;
}

/* The key of the warp's first slice of an item. */
static __device__ __forceinline__ int32_t
first_of_warp(const WorkItem &item)
{
	return item.first_key + (int) threadIdx.x / WARP * SLICE_KEYS;
}

/* ------------------------------------------------------------------------
 * Fetching
 * ------------------------------------------------------------------------
 */

/* The warp's slices, piece by piece, one of them after the other. */
typedef struct Fetcher
{
	int32_t item;
	int32_t n_items;
	int32_t kv_head;
	int32_t key; /* of the next slice */
	int32_t end_key;
	const int32_t *table;
	/* in lane l the block of the l-th slice after the last lookup */
	int32_t block;
	int at; /* slices since then */
	int slot;
} Fetcher;

static __device__ __forceinline__ void
look_up(Fetcher &next, const AttentionParams &p)
{
	int32_t key =
		next.key + (int) threadIdx.x % WARP * DECODE_WARPS * SLICE_KEYS;

	next.block = key < next.end_key ? next.table[key >> p.block_shift] : 0;
	next.at = 0;
}

static __device__ __forceinline__ void
begin_fetching(Fetcher &next, const AttentionParams &p, const StepPlan &plan)
{
	WorkItem item = open_item(p, plan, next.item);

	next.kv_head = item.kv_head;
	next.key = first_of_warp(item);
	next.end_key = item.piece.end_key;
	next.table = p.block_tables + (int64_t) item.seq * p.table_stride;
	look_up(next, p);
}

/* Keys and values of a slice: "row" is its first token in a head of a block. */
template <int DIM, KvFormat FORMAT>
static __device__ __forceinline__ void
order_slice(const AttentionParams &p, const Ring<DIM, FORMAT> &ring, int slot,
			int64_t head, int32_t row)
{
	const int half_bytes = Slice<DIM, FORMAT>::half_bytes;
	const int lane = (int) threadIdx.x % WARP;
	const int32_t block_size = 1 << p.block_shift;
	/* codes and units of a block of 16 lie together */
	const bool is_one =
		!Slice<DIM, FORMAT>::is_coded || block_size == SLICE_KEYS;
	const int n_bytes = is_one ? half_bytes : SLICE_KEYS * DIM;
	char *dest = ring.slots + slot * Slice<DIM, FORMAT>::n_bytes;
	const char *keys = p.keys + head + row * (half_bytes / SLICE_KEYS);

	if (Slice<DIM, FORMAT>::is_coded)
		keys = p.keys + head + row * DIM;
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
	if (lane != 0)
		return;
	barrier_expect(&ring.full[slot], 2 * half_bytes);
	copy_bulk(dest, keys, n_bytes, &ring.full[slot]);
	copy_bulk(dest + half_bytes, keys + (p.values - p.keys), n_bytes,
			  &ring.full[slot]);
	if (is_one)
		return;
	keys = p.keys + head + block_size * DIM + row;
	copy_bulk(dest + SLICE_KEYS * DIM, keys, SLICE_KEYS, &ring.full[slot]);
	copy_bulk(dest + half_bytes + SLICE_KEYS * DIM, keys + (p.values - p.keys),
			  SLICE_KEYS, &ring.full[slot]);
#else
	for (int i = lane * 16; i < half_bytes; i += WARP * 16)
	{
		const char *src =
			i < n_bytes ? keys + i : p.keys + head + block_size * DIM + row;

		copy_async(dest + i, src, true);
		copy_async(dest + half_bytes + i, src + (p.values - p.keys), true);
	}
#endif
}

/* Order the next slice, if there is one, to the slot that comes next. */
template <int DIM, KvFormat FORMAT>
static __device__ __forceinline__ void
fetch_next(Fetcher &next, const AttentionParams &p, const StepPlan &plan,
		   const Ring<DIM, FORMAT> &ring)
{
	while (next.key >= next.end_key && next.item < next.n_items)
	{
		next.item += (int32_t) gridDim.x;
		if (next.item < next.n_items)
			begin_fetching(next, p, plan);
	}
	if (next.item < next.n_items)
	{
		int32_t block;
		int32_t row = next.key & ((1 << p.block_shift) - 1);

		if (next.at == WARP)
			look_up(next, p);
		block = __shfl_sync(FULL_MASK, next.block, next.at);
		order_slice<DIM, FORMAT>(
			p, ring, next.slot,
			((int64_t) block * p.n_kv_heads + next.kv_head) * p.head_bytes,
			row);
		next.at++;
		next.key += DECODE_WARPS * SLICE_KEYS;
		next.slot =
			next.slot + 1 < Decode<DIM, FORMAT>::n_slots ? next.slot + 1 : 0;
	}
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
	copies_commit();
#endif
}

/* Slots in turn, as they were filled. */
typedef struct Reader
{
	int slot;
	int parity;
} Reader;

template <int DIM, KvFormat FORMAT>
static __device__ __forceinline__ char *
await_slice(const Reader &reader, const Ring<DIM, FORMAT> &ring)
{
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
	barrier_wait(&ring.full[reader.slot], reader.parity);
#else
	copies_wait<Decode<DIM, FORMAT>::n_slots - 1>();
	__syncwarp();
#endif
	return ring.slots + reader.slot * Slice<DIM, FORMAT>::n_bytes;
}

template <int DIM, KvFormat FORMAT>
static __device__ __forceinline__ void
pass_slot(Reader &reader)
{
	reader.slot++;
	if (reader.slot == Decode<DIM, FORMAT>::n_slots)
	{
		reader.slot = 0;
		reader.parity ^= 1;
	}
}

/* ------------------------------------------------------------------------
 * Results of a piece
 * ------------------------------------------------------------------------
 */

/* What the warps of a block have to add up. */
typedef struct Merge
{
	float (*maxima)[MMA_ROWS]; /* [DECODE_WARPS] */
	float (*sums)[MMA_ROWS];
	float *outs; /* [DECODE_WARPS, MERGE_ROWS, merge_stride] */
} Merge;

template <int DIM>
static __device__ __forceinline__ void
store_out(const AttentionParams &p, const StepPlan &plan, const WorkItem &item,
		  const PieceRows &rows, int row, int d, float out, float lse)
{
	int32_t seq = row / rows.n_heads;
	int32_t head = rows.first_head + row % rows.n_heads;

	if (item.piece.ordinal < 0)
		p.out[((rows.first_token + seq) * p.n_heads + head) * p.head_dim + d] =
			__float2bfloat16(out);
	else
	{
		int64_t slot =
			plan.seq_slots[item.piece.first + seq] + item.piece.ordinal;
		int64_t at = slot * p.n_heads + head;

		p.partial_out[at * p.head_dim + d] = out;
		if (d == 0)
			p.partial_lse[at] = lse;
	}
}

/* Add up the warps' results for rows first .. and store them. */
template <int DIM, KvFormat FORMAT>
static __device__ __forceinline__ void
merge_rows(const AttentionParams &p, const StepPlan &plan, const WorkItem &item,
		   const PieceRows &rows, const Merge &merge, int first)
{
	const int stride = Decode<DIM, FORMAT>::merge_stride;
	/* weights of codes are larger than those that sums are made of */
	const float unit = FORMAT == KV_BF16 ? 1 : 1.0f / (1 << WEIGHT_BITS);

	for (int i = (int) threadIdx.x; i < MERGE_ROWS * DIM; i += DECODE_THREADS)
	{
		const int row = first + i / DIM;
		const int d = i % DIM;
		float max = -INFINITY;
		float sum = 0;
		float out = 0;
		float base;

		if (row >= rows.n_rows || d >= p.head_dim)
			continue;
#pragma unroll
		for (int w = 0; w < DECODE_WARPS; w++)
			max = fmaxf(max, merge.maxima[w][row]);
		base = max == -INFINITY ? 0 : max;
#pragma unroll
		for (int w = 0; w < DECODE_WARPS; w++)
		{
			float factor = exp2_fast(merge.maxima[w][row] - base);

			sum += factor * merge.sums[w][row];
			out += factor * merge.outs[(w * MERGE_ROWS + i / DIM) * stride + d];
		}
		store_out<DIM>(p, plan, item, rows, row, d,
					   sum == 0 ? 0 : out * unit / sum,
					   sum == 0 ? -INFINITY : base + log2f(sum));
	}
}

template <int DIM, int TILES, KvFormat FORMAT>
static __device__ __forceinline__ void
finish_item(const Partial<DIM, TILES> &part, const AttentionParams &p,
			const StepPlan &plan, const WorkItem &item, const PieceRows &rows,
			const Merge &merge)
{
	const int stride = Decode<DIM, FORMAT>::merge_stride;
	const int lane = (int) threadIdx.x % WARP;
	const int warp = (int) threadIdx.x / WARP;
	float *own = merge.outs + warp * MERGE_ROWS * stride;

#pragma unroll
	for (int n = 0; n < TILES; n++)
#pragma unroll
		for (int k = 0; k < 2; k++)
		{
			int row = n * TILE_ROWS + lane % 4 * 2 + k;
			float sum = row_sum(part.sum[n][k]);

			if (lane < 4)
			{
				merge.maxima[warp][row] = part.max[n][k];
				merge.sums[warp][row] = sum;
			}
		}
#pragma unroll
	for (int first = 0; first < TILES * TILE_ROWS; first += MERGE_ROWS)
	{
		if (first >= rows.n_rows)
			break;
		if (lane % 4 * 2 / MERGE_ROWS == first / MERGE_ROWS % 2)
		{
			float *row = own + lane % 4 * 2 % MERGE_ROWS * stride + lane / 4;

#pragma unroll
			for (int i = 0; i < DIM / 4; i++)
				row[i % 2 * stride + i / 4 * 16 + i % 4 / 2 * 8] =
					part.out[first / TILE_ROWS][i / 4][i % 4];
		}
		__syncthreads();
		merge_rows<DIM, FORMAT>(p, plan, item, rows, merge, first);
		__syncthreads();
	}
}

/* ------------------------------------------------------------------------
 * The kernel
 * ------------------------------------------------------------------------
 */
template <int DIM, int TILES, KvFormat FORMAT>
static __device__ __forceinline__ void
attend_item(const AttentionParams &p, const StepPlan &plan,
			const WorkItem &item, const PieceRows &rows,
			const Ring<DIM, FORMAT> &ring, Fetcher &next, Reader &reader,
			const Merge &merge)
{
	Queries<DIM, TILES> queries;
	Partial<DIM, TILES> part;
	Sight<TILES> sight;

	load_query_rows<DIM, TILES, Slice<DIM, FORMAT>::is_coded>(queries, p, rows);
	partial_init<DIM, TILES>(part);
	sight.first_masked =
		p.window > 0 ? 0 : item.piece.end_key / SLICE_KEYS * SLICE_KEYS;
#pragma unroll
	for (int n = 0; n < TILES; n++)
#pragma unroll
		for (int k = 0; k < 2; k++)
		{
			int32_t row = n * TILE_ROWS + (int) threadIdx.x % WARP % 4 * 2 + k;
			int32_t seq = min(row / p.group, item.piece.n_seqs - 1);

			sight.position[n][k] = p.context_len[item.seq + seq] - 1;
		}
	for (int32_t key = first_of_warp(item); key < item.piece.end_key;
		 key += DECODE_WARPS * SLICE_KEYS)
	{
		char *slice = await_slice<DIM, FORMAT>(reader, ring);

		if (FORMAT == KV_BF16 && key + SLICE_KEYS > item.piece.end_key)
		{
			clear_values<DIM>(slice, item.piece.end_key - key);
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
			fence_async_proxy(); /* before the slot's next copy */
#endif
		}
		attend_slice<DIM, TILES, FORMAT>(part, queries, p, sight, slice, key);
		__syncwarp();
		fetch_next<DIM, FORMAT>(next, p, plan, ring);
		pass_slot<DIM, FORMAT>(reader);
	}
	finish_item<DIM, TILES, FORMAT>(part, p, plan, item, rows, merge);
}

/* Grid: any number of blocks. */
template <int DIM, KvFormat FORMAT>
static __global__ void
__launch_bounds__(DECODE_THREADS, (Decode<DIM, FORMAT>::n_blocks))
	attention_decode(const __grid_constant__ AttentionParams p,
					 const __grid_constant__ StepPlan plan)
{
	typedef Decode<DIM, FORMAT> Shape;
	extern __shared__ __align__(128) unsigned char shared[];
	__shared__ float maxima[DECODE_WARPS][MMA_ROWS];
	__shared__ float sums[DECODE_WARPS][MMA_ROWS];
	const int warp = (int) threadIdx.x / WARP;
	const Merge merge = { maxima, sums, (float *) (shared + Shape::merge_at) };
	Ring<DIM, FORMAT> ring = {
		(char *) shared + warp * Shape::n_slots * Slice<DIM, FORMAT>::n_bytes
	};
	Fetcher next = { (int32_t) blockIdx.x };
	Reader reader = { 0, 0 };

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
	__shared__ uint64_t full[DECODE_WARPS][Shape::n_slots];

	ring.full = full[warp];
	if (threadIdx.x % WARP == 0)
	{
		for (int i = 0; i < Shape::n_slots; i++)
			barrier_init(&ring.full[i], 1);
		fence_async_proxy();
	}
	__syncwarp();
#endif
	pass_release();
	pass_wait();
	next.n_items = *plan.n_pieces_now * items_of_piece(p);
	if (next.item >= next.n_items)
		return;
	begin_fetching(next, p, plan);
	for (int i = 0; i < Shape::n_slots; i++)
		fetch_next<DIM, FORMAT>(next, p, plan, ring);
	for (int32_t i = (int32_t) blockIdx.x; i < next.n_items;
		 i += (int32_t) gridDim.x)
	{
		WorkItem item = open_item(p, plan, i);
		PieceRows rows;

		/* several sequences' rows fit one tile: first_row is 0 then */
		rows.first_token = p.query_start[item.seq];
		rows.first_head = item.kv_head * p.group + item.first_row;
		rows.n_heads = min(p.group - item.first_row, MMA_ROWS);
		rows.n_rows = item.piece.n_seqs * rows.n_heads;
		if (rows.n_rows <= TILE_ROWS)
			attend_item<DIM, 1, FORMAT>(p, plan, item, rows, ring, next, reader,
										merge);
		else
			attend_item<DIM, 2, FORMAT>(p, plan, item, rows, ring, next, reader,
										merge);
	}
}

/* ------------------------------------------------------------------------
 * Adding up the pieces of a sequence
 * ------------------------------------------------------------------------
 */
#define COMBINE_WARPS 8
#define COMBINE_DIMS (WARP * 4) /* at once */

/* The warp's share of the pieces' results for dimensions d .. d + 3. */
static __device__ __forceinline__ float4
add_pieces(const AttentionParams &p, int64_t first, int32_t n, int32_t d,
		   float max, float &sum)
{
	const int64_t stride = (int64_t) p.n_heads * p.head_dim;
	const float *out = p.partial_out + first * p.head_dim + d;
	float4 total = make_float4(0, 0, 0, 0);

#pragma unroll 4
	for (int32_t i = (int32_t) threadIdx.x / WARP; i < n; i += COMBINE_WARPS)
	{
		float weight =
			exp2_fast(p.partial_lse[first + (int64_t) i * p.n_heads] - max);
		float2 low = { 0, 0 };
		float2 high = { 0, 0 };

		/* heads have even numbers of dimensions */
		if (d < p.head_dim)
			low = *(const float2 *) (out + i * stride);
		if (d + 2 < p.head_dim)
			high = *(const float2 *) (out + i * stride + 2);
		sum += weight;
		total.x += weight * low.x;
		total.y += weight * low.y;
		total.z += weight * high.x;
		total.w += weight * high.y;
	}
	return total;
}

/* Grid: decoding sequences, heads.  A warp adds up every eighth piece. */
static __global__ void
__launch_bounds__(COMBINE_WARPS *WARP)
	combine_pieces(const __grid_constant__ AttentionParams p,
				   const int32_t *decode_seqs, const int32_t *seq_slots)
{
	__shared__ float outs[COMBINE_WARPS][COMBINE_DIMS];
	__shared__ float sums[COMBINE_WARPS];
	const int lane = (int) threadIdx.x % WARP;
	const int warp = (int) threadIdx.x / WARP;
	const int32_t head = (int32_t) blockIdx.y;
	float max = -INFINITY;
	int64_t first;
	int32_t n;
	int64_t token;

	pass_release();
	pass_wait();
	first = (int64_t) seq_slots[blockIdx.x] * p.n_heads + head;
	n = seq_slots[blockIdx.x + 1] - seq_slots[blockIdx.x];
	token = p.query_start[decode_seqs[blockIdx.x]];
	if (n <= 1)
		return;
	for (int32_t i = lane; i < n; i += WARP)
		max = fmaxf(max, p.partial_lse[first + (int64_t) i * p.n_heads]);
	for (int offset = WARP / 2; offset > 0; offset /= 2)
		max = fmaxf(max, __shfl_xor_sync(FULL_MASK, max, offset));
	for (int32_t d = 0; d < p.head_dim; d += COMBINE_DIMS)
	{
		float sum = 0;
		float out = 0;

		*(float4 *) &outs[warp][4 * lane] =
			add_pieces(p, first, n, d + 4 * lane, max, sum);
		if (lane == 0)
			sums[warp] = sum;
		__syncthreads();
		sum = 0;
		for (int w = 0; w < COMBINE_WARPS && threadIdx.x < COMBINE_DIMS; w++)
		{
			sum += sums[w];
			out += outs[w][threadIdx.x];
		}
		if (threadIdx.x < COMBINE_DIMS && d + (int) threadIdx.x < p.head_dim)
			p.out[(token * p.n_heads + head) * p.head_dim + d +
				  (int) threadIdx.x] = __float2bfloat16(out / sum);
		__syncthreads();
	}
}

template <int DIM, KvFormat FORMAT>
static bool
launch(LlmCuda *cuda, const AttentionParams &p, LlmError *err)
{
	const int bytes = Decode<DIM, FORMAT>::shared_bytes;
	int64_t n_items = (int64_t) cuda->plan.n_pieces * items_of_piece(p);
	int64_t most = (int64_t) cuda->n_sms * Decode<DIM, FORMAT>::n_blocks;
	/* with more blocks, as many rounds would only share the memory with them */
	int64_t n_rounds = ceil_div(n_items, most);
	dim3 grid((unsigned) ceil_div(n_items, n_rounds));

	assert(n_items > 0);
	CUDA_TRY(cudaFuncSetAttribute(attention_decode<DIM, FORMAT>,
								  cudaFuncAttributeMaxDynamicSharedMemorySize,
								  bytes));
	CUDA_TRY(launch_early(cuda, { grid, DECODE_THREADS, (size_t) bytes },
						  attention_decode<DIM, FORMAT>, p, cuda->plan));
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
	CUDA_TRY(launch_early(cuda, { grid, COMBINE_WARPS * WARP }, combine_pieces,
						  *params, plan->decode_seqs, plan->seq_slots));
	return true;
}

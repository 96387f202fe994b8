/*
 * cuda_lora_act.cu
 *	  The gated activation of rows with adapters, which completes the products
 *	  of gate and up on its way.
 *
 * What an adapter adds to gate and up is computed where the activation reads
 * them, instead of reading and writing them once more.  Tiles, fragments and
 * roundings are those of lora_expand, so the bits are, too.  Rows without an
 * adapter are tiles of their own.
 *
 * cuda/cuda_lora_act.cu
 */
#include "cuda/cuda_activation.cuh"
#include "cuda/cuda_lora.cuh"

typedef struct ActParams
{
	LoraParams lora;
	bf16 *out; /* [n_rows, dim] */
	LlmActivation activation;
} ActParams;

/* The sums that a part's adapter adds to the warp's outputs. */
static __device__ __forceinline__ void
add_up(const ExpandTile &e, const bf16 *shared, uint2 up[2][4],
	   float sums[2][4][4])
{
	const int32_t stride = e.module.rank + 8;

	for (int32_t rank = 0; rank < e.module.rank; rank += 16)
	{
		if (rank > 0)
			read_up(e, rank, up);
		multiply_up(shared, stride, rank, up, sums);
	}
}

/* As lora_expand would have stored it. */
static __device__ __forceinline__ float
completed(const ExpandTile &e, const uint4 &old, const float sums[2][4][4],
		  int half, int lower, int k)
{
	const int t = (int) threadIdx.x % 4;
	float value = __bfloat162float(((const bf16 *) &old)[k]);

	if (e.module.rank == 0)
		return value;
	return __bfloat162float(
		__float2bfloat16(changed(e, value, sums[half][k / 2][2 * lower + k % 2],
								 e.col + 32 * half + 8 * t + k)));
}

static __device__ __forceinline__ void
store_activated(const ActParams &p, const ExpandTile &g, const ExpandTile &u,
				const uint4 old[2][2][2], const float sums[2][2][4][4])
{
	const int row = (int) threadIdx.x % WARP / 4;
	const int t = (int) threadIdx.x % 4;

#pragma unroll
	for (int i = 0; i < 4; i++)
	{
		const int half = i / 2;
		const int lower = i % 2;
		int64_t at = (int64_t) g.tile->rows[row + 8 * lower] * g.part.n_out +
					 g.col + 32 * half + 8 * t;
		float x[8];

#pragma unroll
		for (int k = 0; k < 8; k++)
			x[k] = gate(p.activation, completed(g, old[0][half][lower], sums[0],
												half, lower, k)) *
				   completed(u, old[1][half][lower], sums[1], half, lower, k);
		if (row + 8 * lower < g.tile->n_rows)
			*(uint4 *) (p.out + at) =
				make_uint4(pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]),
						   pack_bf16(x[4], x[5]), pack_bf16(x[6], x[7]));
	}
}

static __device__ __forceinline__ void
open_part(const LoraParams &p, const LoraTile *tile, int part, bool has_adapter,
		  ExpandTile *e)
{
	e->tile = tile;
	e->part = p.part[part];
	e->part_idx = part;
	e->col = (int32_t) blockIdx.y * EXPAND_COLS +
			 (int32_t) threadIdx.x / WARP * WARP_COLS;
	e->module = LlmLoraModule{};
	if (has_adapter)
		e->module = read_module(*tile, p.first_module + part);
}

/* Grid: tiles, outputs by EXPAND_COLS. */
static __global__ void
__launch_bounds__(EXPAND_WARPS *WARP)
	lora_gated_act(const __grid_constant__ ActParams p)
{
	extern __shared__ __align__(16) bf16 shared[];
	bf16 *inner[2] = { shared, shared + TILE_ROWS * (p.lora.max_rank + 8) };
	const int32_t tile_idx = (int32_t) blockIdx.x;
	const LoraTile *tile = &p.lora.rows.tiles[tile_idx];
	ExpandTile e[2];
	uint2 up[2][2][4];
	uint4 old[2][2][2];
	float sums[2][2][4][4] = {};
	bool is_there;

	pass_release();
	if (tile_idx >= p.lora.rows.header[1])
	{
		/* who waits for us waits for those in front, too */
		pass_wait();
		return;
	}
#pragma unroll
	for (int part = 0; part < 2; part++)
	{
		open_part(p.lora, tile, part, tile_idx < p.lora.rows.header[0],
				  &e[part]);
		if (e[part].module.rank > 0)
			read_up(e[part], 0, up[part]);
	}
	is_there = e[0].col < e[0].part.n_out;
	pass_wait();
#pragma unroll
	for (int part = 0; part < 2; part++)
	{
		if (is_there)
			read_outputs(e[part], old[part]);
		if (e[part].module.rank > 0)
			add_pieces(p.lora, e[part], inner[part], e[part].module.rank + 8);
	}
	__syncthreads();
	if (!is_there)
		return;
#pragma unroll
	for (int part = 0; part < 2; part++)
		add_up(e[part], inner[part], up[part], sums[part]);
	store_activated(p, e[0], e[1], old, sums);
}

bool
cuda_lora_act_launch(LlmCuda *cuda, const LoraParams *params,
					 const LlmGatedActArgs *args, LlmError *err)
{
	ActParams p = { *params, (bf16 *) args->out, args->activation };
	LaunchShape shape = { dim3((unsigned) params->rows.n_all,
							   (unsigned) ceil_div(args->dim, EXPAND_COLS)),
						  EXPAND_WARPS * WARP,
						  2 * (size_t) TILE_ROWS *
							  (size_t) (params->max_rank + 8) * sizeof(bf16) };

	assert(args->dim % WARP_COLS == 0);
	/* two of the highest rank are more than 48 KiB */
	CUDA_TRY(cudaFuncSetAttribute(lora_gated_act,
								  cudaFuncAttributeMaxDynamicSharedMemorySize,
								  (int) shape.shared_bytes));
	if (params->rows.n_all > 0)
		CUDA_TRY(launch_early(cuda, shape, lora_gated_act, p));
	return true;
}

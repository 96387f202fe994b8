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
} ActParams;

/* The sums that a part's adapter adds to half of the warp's outputs. */
static __device__ __forceinline__ void
add_up(const ExpandTile &e, const bf16 *shared, int half, uint2 up[4],
	   float sums[4][4])
{
	const int32_t stride = e.module.rank + 8;

#pragma unroll
	for (int j = 0; j < 4; j++)
#pragma unroll
		for (int i = 0; i < 4; i++)
			sums[j][i] = 0;
	for (int32_t rank = 0; rank < e.module.rank; rank += 16)
	{
		if (rank > 0)
			read_up(e, rank, half, up);
		multiply_up(shared, stride, rank, up, sums);
	}
}

static __device__ __forceinline__ float2
unpack_bf16(uint32_t pair)
{
	return make_float2(__uint_as_float(pair << 16),
					   __uint_as_float(pair & 0xffff0000u));
}

/* Two neighbours as lora_expand would have stored them. */
static __device__ __forceinline__ float2
completed(const ExpandTile &e, uint32_t old, float first, float second,
		  int32_t col)
{
	float2 values = unpack_bf16(old);

	if (e.module.rank == 0)
		return values;
	return unpack_bf16(pack_bf16(changed(e, values.x, first, col),
								 changed(e, values.y, second, col + 1)));
}

/* Four pairs of neighbours of one row: half a warp's columns, eight a thread. */
template <LlmActivation KIND>
static __device__ __forceinline__ void
store_activated(const ActParams &p, const ExpandTile e[2], const uint4 old[2],
				const float sums[2][4][4], int half, int lower)
{
	const int row = (int) threadIdx.x % WARP / 4 + 8 * lower;
	const int32_t col = e[0].col + 32 * half + (int) threadIdx.x % 4 * 8;
	const uint32_t *gates = (const uint32_t *) &old[0];
	const uint32_t *ups = (const uint32_t *) &old[1];
	uint32_t words[4];

#pragma unroll
	for (int k = 0; k < 4; k++)
	{
		float2 g = completed(e[0], gates[k], sums[0][k][2 * lower],
							 sums[0][k][2 * lower + 1], col + 2 * k);
		float2 u = completed(e[1], ups[k], sums[1][k][2 * lower],
							 sums[1][k][2 * lower + 1], col + 2 * k);

		words[k] = pack_bf16(gate(KIND, g.x) * u.x, gate(KIND, g.y) * u.y);
	}
	if (row < e[0].tile->n_rows)
		*(uint4 *) (p.out + (int64_t) e[0].tile->rows[row] * e[0].part.n_out +
					col) = make_uint4(words[0], words[1], words[2], words[3]);
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
template <LlmActivation KIND>
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
		{
			read_up(e[part], 0, 0, up[part][0]);
			read_up(e[part], 0, 1, up[part][1]);
		}
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
	for (int half = 0; half < 2; half++)
	{
		float sums[2][4][4];

#pragma unroll
		for (int part = 0; part < 2; part++)
			add_up(e[part], inner[part], half, up[part][half], sums[part]);
#pragma unroll
		for (int lower = 0; lower < 2; lower++)
		{
			const uint4 both[2] = { old[0][half][lower], old[1][half][lower] };

			store_activated<KIND>(p, e, both, sums, half, lower);
		}
	}
}

bool
cuda_lora_act_launch(LlmCuda *cuda, const LoraParams *params,
					 const LlmGatedActArgs *args, LlmError *err)
{
	ActParams p = { *params, (bf16 *) args->out };
	LaunchShape shape = { dim3((unsigned) params->rows.n_all,
							   (unsigned) ceil_div(args->dim, EXPAND_COLS)),
						  EXPAND_WARPS * WARP,
						  2 * (size_t) TILE_ROWS *
							  (size_t) (params->max_rank + 8) * sizeof(bf16) };

	void (*kernel)(ActParams) =
		ACTIVATION_INSTANCE(lora_gated_act, args->activation);

	assert(args->dim % WARP_COLS == 0);
	/* two of the highest rank are more than 48 KiB */
	CUDA_TRY(cudaFuncSetAttribute(kernel,
								  cudaFuncAttributeMaxDynamicSharedMemorySize,
								  (int) shape.shared_bytes));
	if (params->rows.n_all > 0)
		CUDA_TRY(launch_early(cuda, shape, kernel, p));
	return true;
}

"""NF4 weights as bitsandbytes makes them: the reference of test_nf4.c.

    python generate_nf4.py

Needs torch, numpy, safetensors and bitsandbytes (on the CPU); writes
nf4.safetensors beside itself, for each case:

    <case>.weight           F32, BF16 [n]   what is quantized
    <case>.values           U8  [(n + 1) / 2]
    <case>.scales           F32 [n_blocks], or nested ones
    <case>.scale_codes      U8  [n_blocks], where nested
    <case>.nearest          U8  [n_blocks] the entries of the map that are
                                nearest, likewise: bitsandbytes finds these on
                                a GPU, and on a CPU now and then a neighbour
    <case>.map              F32 [256], likewise
    <case>.offset           F32 [1], likewise
    <case>.decoded_sha256   U8  [32] of the dequantized weight's bytes, in the
                                weight's dtype
"""

import hashlib
import os

import bitsandbytes.functional as bnb
import torch
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
CASES = {
    "plain": ((24, 128), torch.float32, False),
    "nested": ((33, 512), torch.bfloat16, True),
    "halves": ((8, 64), torch.float16, True),
}


def nearest(weight, state):
    rest = weight.float().view(-1, 64).abs().amax(1) - state.offset
    scales = state.state2.absmax.repeat_interleave(256)[: len(rest)]
    distances = (rest / scales)[:, None].double() - state.state2.code[None].double()
    return distances.abs().argmin(1).to(torch.uint8)


def digest(tensor):
    data = tensor.contiguous().view(torch.uint8).numpy().tobytes()
    return torch.tensor(list(hashlib.sha256(data).digest()), dtype=torch.uint8)


torch.manual_seed(3)
tensors = {}
for name, (shape, dtype, is_nested) in CASES.items():
    weight = (torch.randn(shape) * torch.rand(shape[0], 1) * 0.1).to(dtype)
    weight[1, :64] = 0  # the first block of a row without any
    values, state = bnb.quantize_4bit(
        weight, blocksize=64, compress_statistics=is_nested, quant_type="nf4"
    )
    tensors[f"{name}.weight"] = weight.flatten()
    tensors[f"{name}.values"] = values.flatten()
    tensors[f"{name}.decoded_sha256"] = digest(bnb.dequantize_4bit(values, state).flatten())
    if is_nested:
        tensors[f"{name}.scale_codes"] = state.absmax
        tensors[f"{name}.nearest"] = nearest(weight, state)
        tensors[f"{name}.scales"] = state.state2.absmax
        tensors[f"{name}.map"] = state.state2.code.clone()
        tensors[f"{name}.offset"] = state.offset.reshape(1)
    else:
        tensors[f"{name}.scales"] = state.absmax
save_file(tensors, os.path.join(HERE, "nf4.safetensors"))
print(sum(t.numel() * t.element_size() for t in tensors.values()))

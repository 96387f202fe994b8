"""Make the blocks of test_quant.c and the floats that gguf.quants makes of them.

    python generate.py

Needs numpy and gguf; the test needs only the files that this writes beside
itself, for every format NAME:

    NAME.blocks     blocks as a GGUF file stores them
    NAME.f32        the elements that gguf.quants.dequantize makes of them

The bytes of the blocks are random, so that every bit of a format counts.  Only
the f16 scales are chosen: normal, subnormal, zero and negative ones.
"""

import os

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import quants

N_BLOCKS = 24
# where the f16 scales of a block lie
FORMATS = {
    "q8_0": (Type.Q8_0, 34, [0]),
    "q4_0": (Type.Q4_0, 18, [0]),
    "q4_k": (Type.Q4_K, 144, [0, 2]),
    "q6_k": (Type.Q6_K, 210, [208]),
    "q4_1": (Type.Q4_1, 20, [0, 2]),
    "q5_0": (Type.Q5_0, 22, [0]),
    "q5_1": (Type.Q5_1, 24, [0, 2]),
    "q2_k": (Type.Q2_K, 84, [80, 82]),
    "q3_k": (Type.Q3_K, 110, [108]),
    "q5_k": (Type.Q5_K, 176, [0, 2]),
    "iq4_nl": (Type.IQ4_NL, 18, [0]),
    "iq4_xs": (Type.IQ4_XS, 136, [0]),
}


def random_scale(rng):
    kind = rng.integers(0, 8)
    if kind == 0:
        return np.float16(0)
    if kind == 1:
        return np.float16(rng.integers(1, 1024) * 2.0**-24)
    return np.float16(rng.normal() * 10.0 ** rng.integers(-4, 1))


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    rng = np.random.default_rng(7)
    for name, (kind, block_bytes, scales) in FORMATS.items():
        blocks = rng.integers(0, 256, (N_BLOCKS, block_bytes), dtype=np.uint8)
        for block in blocks:
            for at in scales:
                block[at : at + 2] = np.array([random_scale(rng)]).view(np.uint8)
        floats = quants.dequantize(blocks, kind).astype(np.float32)
        blocks.tofile(os.path.join(here, name + ".blocks"))
        floats.tofile(os.path.join(here, name + ".f32"))


main()

#!/usr/bin/env python3
"""Attention alone by torch, in the shapes of test/bench/bench_attention.c.

Keys and values lie contiguously, [sequences, heads, tokens, dim] in bf16:
torch knows no pages.  Each of scaled_dot_product_attention's backends that
takes the shape is timed, and the best one printed.  Needs torch with CUDA.

tools/bench-sdpa.py
"""

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

HEADS, KV_HEADS, DIM, LAYERS = 32, 8, 128, 4
BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}
SHAPES = [
    (1, 1, 1023),
    (1, 1, 8191),
    (1, 1, 32767),
    (8, 1, 1023),
    (64, 1, 1023),
    (256, 1, 1023),
    (1, 512, 0),
    (1, 2048, 0),
    (1, 8192, 0),
    (1, 32768, 0),
    (16, 512, 0),
]


def time_us(call, n_calls):
    call(0)
    best = float("inf")
    for _ in range(5):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for i in range(n_calls):
            call(i % LAYERS)
        end.record()
        torch.cuda.synchronize()
        best = min(best, begin.elapsed_time(end) * 1000 / n_calls)
    return best


def measure(n_seqs, n_new, n_before):
    n = n_before + n_new
    q = torch.randn(n_seqs, HEADS, n_new, DIM, device="cuda", dtype=torch.bfloat16)
    shape = (n_seqs, KV_HEADS, n, DIM)
    layers = [
        [torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in "kv"]
        for _ in range(LAYERS)
    ]
    pairs = n_seqs * n_new * (n_before + 0.5 * (n_new + 1))
    found = []
    for name, backend in BACKENDS.items():

        def call(i):
            k, v = layers[i]
            with sdpa_kernel(backend):
                scaled_dot_product_attention(
                    q, k, v, is_causal=n_new > 1, enable_gqa=True
                )

        try:
            found.append((time_us(call, LAYERS if pairs > 1e7 else 64), name))
        except RuntimeError:
            pass
    us, name = min(found)
    n_bytes = 2 * 2 * n_seqs * KV_HEADS * n * DIM
    print(
        f"{name},{n_seqs},{n_new},{n_before},{us:.1f},{n_bytes / us / 1e6:.3f},"
        f"{4 * pairs * HEADS * DIM / us / 1e6:.1f}",
        flush=True,
    )


print(f"# torch {torch.__version__}, {torch.cuda.get_device_name()}")
print("backend,sequences,new,before,us,tb_per_s,tflop_per_s")
for shape in SHAPES:
    measure(*shape)

#!/usr/bin/env python3
"""LoRA by PEFT and transformers, in the shape of test/bench/bench_train.c.

A Llama 3.1 8B with made-up weights in bf16 on the GPU, adapters of rank 16 on
all projections in f32, AdamW, every token a label: one step is a micro-batch
there and back and the update, without gradient checkpointing and with it.
torch's attention alone, there and back, stands beside bench_train --parts.  Needs torch with CUDA, transformers and peft.

tools/bench-peft.py [LAYERS]
"""

import sys
import time

import torch
from peft import LoraConfig, get_peft_model
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from transformers import LlamaConfig, LlamaForCausalLM

CONFIG = dict(
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    num_attention_heads=32,
    num_key_value_heads=8,
    max_position_embeddings=131072,
    rms_norm_eps=1e-5,
    rope_theta=500000.0,
    tie_word_embeddings=False,
)
TARGETS = [f"{p}_proj" for p in ("q", "k", "v", "o", "gate", "up", "down")]
STEPS = 5


def make_model(n_layers):
    config = LlamaConfig(num_hidden_layers=n_layers, **CONFIG)
    config._attn_implementation = "sdpa"
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    model = get_peft_model(
        model,
        LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules=TARGETS),
    )
    model.train()
    return model


def measure(model, n_rows, n_tokens, checkpointing):
    if checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable(
            gradient_checkpointing_kwargs={"use_reentrant": False}
        )
    else:
        model.gradient_checkpointing_disable()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    ids = torch.randint(0, CONFIG["vocab_size"], (n_rows, n_tokens), device="cuda")
    torch.cuda.reset_peak_memory_stats()
    times = []
    for step in range(STEPS + 2):
        torch.cuda.synchronize()
        start = time.perf_counter()
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        if step >= 2:
            times.append(time.perf_counter() - start)
    times.sort()
    seconds = times[len(times) // 2]
    print(
        f"peft,{'full' if checkpointing else 'none'},{n_rows},{n_tokens},"
        f"{seconds * 1e6:.0f},{n_rows * n_tokens / seconds:.0f},"
        f"{torch.cuda.max_memory_allocated() / 1e9:.1f}",
        flush=True,
    )


def measure_attention(n_rows, n_tokens):
    def fresh(heads):
        return torch.randn(
            (n_rows, heads, n_tokens, 128), device="cuda", dtype=torch.bfloat16
        ).requires_grad_()

    q, k, v = fresh(32), fresh(8), fresh(8)
    pairs = n_rows * n_tokens * (n_tokens + 1) / 2
    for name, backend in (
        ("flash", SDPBackend.FLASH_ATTENTION),
        ("cudnn", SDPBackend.CUDNN_ATTENTION),
    ):
        try:
            with sdpa_kernel(backend):
                times = []
                for _ in range(6):
                    marks = [torch.cuda.Event(enable_timing=True) for _ in range(3)]
                    marks[0].record()
                    out = scaled_dot_product_attention(
                        q, k, v, is_causal=True, enable_gqa=True
                    )
                    marks[1].record()
                    out.backward(out.detach())
                    marks[2].record()
                    torch.cuda.synchronize()
                    times.append(
                        (marks[0].elapsed_time(marks[1]), marks[1].elapsed_time(marks[2]))
                    )
            there = min(t[0] for t in times) * 1e3
            back = min(t[1] for t in times) * 1e3
            unit = 2 * pairs * 32 * 128 / 1e6
            print(
                f"attention,{name},{n_rows},{n_tokens},{there:.0f},{2 * unit / there:.1f},"
                f"{back:.0f},{5 * unit / back:.1f}",
                flush=True,
            )
        except RuntimeError as problem:
            print(f"# {name}: {str(problem).splitlines()[0]}")


def main():
    n_layers = int(sys.argv[1]) if len(sys.argv) > 1 else 32
    print(f"# torch {torch.__version__}, {torch.cuda.get_device_name()}")
    print("attention,backend,rows,tokens,there_us,tflop_per_s,back_us,tflop_per_s")
    measure_attention(2, 4096)
    measure_attention(4, 2048)
    print("what,checkpointing,rows,tokens,us,tokens_per_s,peak_gb")
    model = make_model(n_layers)
    for n_rows, n_tokens in ((4, 2048), (2, 4096), (1, 4096)):
        for checkpointing in (False, True):
            try:
                measure(model, n_rows, n_tokens, checkpointing)
            except torch.cuda.OutOfMemoryError:
                print(f"# {n_rows} x {n_tokens}: out of memory")
                torch.cuda.empty_cache()


main()

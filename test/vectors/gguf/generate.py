"""Make the small GGUF files of test_gguf.c and test_gguf_model.c.

    python generate.py [name ...]

Needs numpy, safetensors, torch and gguf; the tests need only the files that
this writes beside itself.  Models are those of ../model, converted as
llama.cpp's convert_hf_to_gguf.py converts them: tensors renamed, rows of q
and k reordered for architecture "llama", vectors in F32, Llama 3's
frequencies as "rope_freqs.weight".
"""

import json
import math
import os
import sys

import gguf
import numpy as np
import torch
from safetensors import safe_open

HERE = os.path.dirname(os.path.abspath(__file__))
MODELS = os.path.join(HERE, "..", "model")

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}

TYPES = {
    "F32": gguf.GGMLQuantizationType.F32,
    "F16": gguf.GGMLQuantizationType.F16,
    "BF16": gguf.GGMLQuantizationType.BF16,
    "Q8_0": gguf.GGMLQuantizationType.Q8_0,
    "Q4_0": gguf.GGMLQuantizationType.Q4_0,
}

# file -> model of ../model, architecture, type of the matrices
FILES = {
    "llama2-bf16": ("llama2", "llama", "BF16"),
    "llama3-f16": ("llama3", "llama", "F16"),
    "linear-f32": ("linear", "llama", "F32"),
    "qwen3-bf16": ("qwen3", "qwen3", "BF16"),
    "qwen25_yarn-bf16": ("qwen25_yarn", "qwen2", "BF16"),
}


def gguf_name(name):
    stem, suffix = name.rsplit(".", 1)
    if stem in NAMES:
        return f"{NAMES[stem]}.{suffix}"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{NAMES[rest]}.{suffix}"


def pair_rows(weight, n_heads):
    """LlamaModel.permute of the converter."""
    shape = weight.shape
    return (
        weight.reshape(n_heads, 2, shape[0] // n_heads // 2, *shape[1:])
        .swapaxes(1, 2)
        .reshape(shape)
    )


def read_tensors(path):
    tensors = {}
    for file in sorted(os.listdir(path)):
        if not file.startswith("model") or not file.endswith(".safetensors"):
            continue
        with safe_open(os.path.join(path, file), "pt") as shard:
            for name in shard.keys():
                tensors[name] = shard.get_tensor(name).float().numpy()
    return tensors


def rope_of(config):
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    theta = config.get("rope_theta") or rope.get("rope_theta", 10000.0)
    return rope, rope.get("rope_type") or rope.get("type") or "default", theta


def llama3_factors(rope, theta, dim):
    """LlamaModel.generate_extra_tensors of the converter."""
    length = rope["original_max_position_embeddings"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    freqs = 1.0 / (theta ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim))
    factors = []
    for freq in freqs:
        wavelen = 2 * math.pi / freq
        if wavelen < length / high:
            factors.append(1)
        elif wavelen > length / low:
            factors.append(rope["factor"])
        else:
            smooth = (length / wavelen - low) / (high - low)
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, dtype=np.float32)


def write_metadata(writer, config):
    rope, kind, theta = rope_of(config)
    n_heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // n_heads
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(n_heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(theta)
    writer.add_rope_dimension_count(head_dim)
    writer.add_vocab_size(config["vocab_size"])
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
        writer.add_rope_scaling_factor(rope["factor"])
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if kind == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(rope, theta, head_dim))
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])


def write_model(name):
    model, architecture, type_name = FILES[name]
    with open(os.path.join(MODELS, model, "config.json")) as file:
        config = json.load(file)
    writer = gguf.GGUFWriter(os.path.join(HERE, f"{name}.gguf"), architecture)
    writer.add_license("apache-2.0")
    write_metadata(writer, config)
    for hf_name, weight in read_tensors(os.path.join(MODELS, model)).items():
        if architecture == "llama" and ".q_proj." in hf_name:
            weight = pair_rows(weight, config["num_attention_heads"])
        if architecture == "llama" and ".k_proj." in hf_name:
            weight = pair_rows(weight, config["num_key_value_heads"])
        kind = TYPES[type_name] if weight.ndim > 1 else TYPES["F32"]
        data = gguf.quants.quantize(np.ascontiguousarray(weight), kind)
        writer.add_tensor(gguf_name(hf_name), data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    for name in sys.argv[1:] or FILES:
        write_model(name)
        print(f"{name}: {os.path.getsize(os.path.join(HERE, name + '.gguf'))} bytes")


if __name__ == "__main__":
    main()

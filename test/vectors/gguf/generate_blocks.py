"""Make blocks-*.gguf, a Llama whose matrices have every block format that is read.

    python generate_blocks.py

Needs numpy, torch, transformers, safetensors and gguf; test_gguf_model.c needs
only what this writes beside itself:

    blocks-*.gguf        the model, split into pieces
    blocks.safetensors   p<i>.ids and p<i>.logits_f32, prompts and transformers'
                         logits of all their tokens, computed in float32 from
                         what gguf.quants.dequantize makes of the blocks

The bytes of the blocks are random; their scales are chosen so that weights
have the deviation that keeps activations of order 1.
"""

import os

import gguf
import numpy as np
import torch
from gguf import quants
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from generate import pair_rows, write_metadata

HERE = os.path.dirname(os.path.abspath(__file__))
Type = gguf.GGMLQuantizationType

CONFIG = LlamaConfig(
    vocab_size=96,
    hidden_size=256,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=256,
    rms_norm_eps=1e-5,
    bos_token_id=1,
    eos_token_id=2,
    tie_word_embeddings=False,
)

# where the scale of a block lies, and its offset as a multiple of the scale
SCALES = {
    Type.Q4_1: (0, 2, -7.5),
    Type.Q5_0: (0, None, 0),
    Type.Q5_1: (0, 2, -15.5),
    Type.Q2_K: (80, 82, 1.5),
    Type.Q3_K: (108, None, 0),
    Type.Q4_K: (0, 2, 7.5),
    Type.Q5_K: (0, 2, 15.5),
    Type.Q6_K: (208, None, 0),
    Type.IQ4_NL: (0, None, 0),
    Type.IQ4_XS: (0, None, 0),
}

LAYERS = [
    {
        "attn_q": Type.Q4_K,
        "attn_k": Type.Q5_K,
        "attn_v": Type.Q6_K,
        "attn_output": Type.Q5_0,
        "ffn_gate": Type.Q2_K,
        "ffn_up": Type.Q3_K,
        "ffn_down": Type.Q4_1,
    },
    {
        "attn_q": Type.Q5_K,
        "attn_k": Type.Q3_K,
        "attn_v": Type.IQ4_XS,
        "attn_output": Type.Q5_1,
        "ffn_gate": Type.Q4_K,
        "ffn_up": Type.Q6_K,
        "ffn_down": Type.IQ4_NL,
    },
]

HF_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def set_scales(blocks, kind, scales):
    at, offset_at, offset = SCALES[kind]
    blocks[:, at : at + 2] = scales.astype(np.float16)[:, None].view(np.uint8)
    if offset_at is not None:
        offsets = (scales * offset).astype(np.float16)
        blocks[:, offset_at : offset_at + 2] = offsets[:, None].view(np.uint8)


def random_blocks(rng, kind, n_rows, n_cols):
    """Blocks [n_rows, bytes of a row], and the floats they are."""
    n_elements, n_bytes = gguf.GGML_QUANT_SIZES[kind]
    n_blocks = n_rows * n_cols // n_elements
    blocks = rng.integers(0, 256, (n_blocks, n_bytes), dtype=np.uint8)
    set_scales(blocks, kind, np.ones(n_blocks))
    unit = n_cols**-0.5 / quants.dequantize(blocks, kind).std()
    set_scales(blocks, kind, unit * rng.uniform(0.5, 1.4, n_blocks))
    blocks = blocks.reshape(n_rows, -1)
    return blocks, quants.dequantize(blocks, kind).astype(np.float32)


def unpair_rows(weight, n_heads):
    """What pair_rows of generate.py makes of the result is the weight."""
    order = pair_rows(np.arange(weight.shape[0]), n_heads)
    out = np.empty_like(weight)
    out[order] = weight
    return out


def add_matrix(writer, state, rng, name, hf_name, kind):
    shape = state[hf_name].shape
    blocks, floats = random_blocks(rng, kind, *shape)
    writer.add_tensor(name, blocks, raw_dtype=kind)
    if "attn_q" in name:
        floats = unpair_rows(floats, CONFIG.num_attention_heads)
    if "attn_k" in name:
        floats = unpair_rows(floats, CONFIG.num_key_value_heads)
    state[hf_name] = torch.tensor(floats)


def main():
    rng = np.random.default_rng(3)
    model = LlamaForCausalLM(CONFIG).eval()
    state = model.state_dict()
    path = os.path.join(HERE, "blocks.gguf")
    writer = gguf.GGUFWriter(path, "llama", split_max_tensors=8)
    write_metadata(writer, CONFIG.to_dict())
    add_matrix(writer, state, rng, "token_embd.weight", "model.embed_tokens.weight", Type.Q4_K)
    add_matrix(writer, state, rng, "output.weight", "lm_head.weight", Type.Q6_K)
    norms = {"output_norm.weight": "model.norm.weight"}
    for i, layer in enumerate(LAYERS):
        for name, kind in layer.items():
            hf_name = f"model.layers.{i}.{HF_NAMES[name]}.weight"
            add_matrix(writer, state, rng, f"blk.{i}.{name}.weight", hf_name, kind)
        norms[f"blk.{i}.attn_norm.weight"] = f"model.layers.{i}.input_layernorm.weight"
        norms[f"blk.{i}.ffn_norm.weight"] = f"model.layers.{i}.post_attention_layernorm.weight"
    for name, hf_name in norms.items():
        weight = (1 + 0.2 * rng.normal(size=CONFIG.hidden_size)).astype(np.float32)
        writer.add_tensor(name, weight)
        state[hf_name] = torch.tensor(weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    model.load_state_dict(state)
    expected = {}
    for i, n in enumerate((1, 9, 37)):
        ids = torch.tensor(rng.integers(3, CONFIG.vocab_size, n), dtype=torch.int32)
        with torch.no_grad():
            logits = model(ids[None].long()).logits[0]
        expected[f"p{i}.ids"] = ids
        expected[f"p{i}.logits_f32"] = logits.contiguous()
        print(n, "tokens, deviation of the logits", float(logits.std()))
    save_file(expected, os.path.join(HERE, "blocks.safetensors"))


main()

"""Write a GGUF file of the shape that the benchmarks use, with made-up weights.

    python make_gguf.py bf16|q8_0|q4_0 FILE

For measuring llama.cpp beside this project: Llama with 1.2 billion parameters,
the head tied to the embedding, no vocabulary.  Needs numpy and gguf.
"""

import sys

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter, LlamaFileType

DIM, FFN_DIM, KV_DIM, N_LAYERS, N_VOCAB = 2048, 8192, 512, 16, 128256

# type of matrices, elements of a block, bytes of a block, file type
FORMATS = {
    "bf16": (Type.BF16, 1, 2, LlamaFileType.MOSTLY_BF16),
    "q8_0": (Type.Q8_0, 32, 34, LlamaFileType.MOSTLY_Q8_0),
    "q4_0": (Type.Q4_0, 32, 18, LlamaFileType.MOSTLY_Q4_0),
}


def tensors():
    yield "token_embd", N_VOCAB, DIM
    for i in range(N_LAYERS):
        yield f"blk.{i}.attn_norm", 0, DIM
        yield f"blk.{i}.attn_q", DIM, DIM
        yield f"blk.{i}.attn_k", KV_DIM, DIM
        yield f"blk.{i}.attn_v", KV_DIM, DIM
        yield f"blk.{i}.attn_output", DIM, DIM
        yield f"blk.{i}.ffn_norm", 0, DIM
        yield f"blk.{i}.ffn_gate", FFN_DIM, DIM
        yield f"blk.{i}.ffn_up", FFN_DIM, DIM
        yield f"blk.{i}.ffn_down", DIM, FFN_DIM
    yield "output_norm", 0, DIM


def random_matrix(rng, name, n_rows, n_cols):
    """Blocks whose elements are around 0.02 in size, row by row."""
    kind, elements, n_bytes, _ = FORMATS[name]
    shape = (n_rows, n_cols // elements * n_bytes)
    if kind == Type.BF16:
        values = rng.standard_normal((n_rows, n_cols), dtype=np.float32) * 0.02
        return (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    data = rng.integers(0, 256, shape, dtype=np.uint8)
    scale = np.array([0.0003 if kind == Type.Q8_0 else 0.005], np.float16)
    data.reshape(-1, n_bytes)[:, :2] = scale.view(np.uint8)
    return data


def main():
    name, path = sys.argv[1:]
    kind, _, _, file_type = FORMATS[name]
    rng = np.random.default_rng(1)
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(8192)
    writer.add_embedding_length(DIM)
    writer.add_block_count(N_LAYERS)
    writer.add_feed_forward_length(FFN_DIM)
    writer.add_head_count(32)
    writer.add_head_count_kv(8)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(500000.0)
    writer.add_rope_dimension_count(64)
    writer.add_vocab_size(N_VOCAB)
    writer.add_tokenizer_model("no_vocab")
    writer.add_file_type(file_type)
    for tensor, n_rows, n_cols in tensors():
        if n_rows == 0:
            data = np.ones(n_cols, np.float32)
            writer.add_tensor(tensor + ".weight", data)
        else:
            data = random_matrix(rng, name, n_rows, n_cols)
            writer.add_tensor(tensor + ".weight", data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


main()

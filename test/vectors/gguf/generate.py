"""Make the small GGUF files of test_gguf_model.c and test_gguf_tokenizer.c.

    python generate.py [name ...]

Needs numpy, safetensors, torch, transformers, sentencepiece and gguf; the
tests need only the files that this writes beside itself.  Everything is
converted as llama.cpp's convert_hf_to_gguf.py does it.

Models are those of ../model: tensors renamed, rows of q and k reordered for
architecture "llama", vectors in F32, Llama 3's frequencies as
"rope_freqs.weight".

Tokenizers are byte-level ones of ../tokenizer, and two that SentencePiece
trains here; <name>.json is what transformers makes of these.
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
    "mlp.gate": "ffn_gate_inp",
    "block_sparse_moe.gate": "ffn_gate_inp",
}

GEMMA_NAMES = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
MORE_NAMES = {
    "gemma2": GEMMA_NAMES,
    "gemma3": GEMMA_NAMES,
    "glm4": {
        "mlp.gate_up_proj": "ffn_up",
        "post_self_attn_layernorm": "post_attention_norm",
        "post_mlp_layernorm": "post_ffw_norm",
    },
    "phi3": {"self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up"},
}

# a layer's experts become one tensor
EXPERT_NAMES = {
    "gate_proj": "ffn_gate_exps",
    "up_proj": "ffn_up_exps",
    "down_proj": "ffn_down_exps",
    "w1": "ffn_gate_exps",
    "w3": "ffn_up_exps",
    "w2": "ffn_down_exps",
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
    "llama2-q8_0": ("llama2", "llama", "Q8_0"),
    "llama3-f16": ("llama3", "llama", "F16"),
    "linear-f32": ("linear", "llama", "F32"),
    "qwen3-bf16": ("qwen3", "qwen3", "BF16"),
    "qwen25_yarn-bf16": ("qwen25_yarn", "qwen2", "BF16"),
    "gemma2-bf16": ("gemma2", "gemma2", "BF16"),
    "gemma3-f32": ("gemma3", "gemma3", "F32"),
    "glm4-bf16": ("glm4", "glm4", "BF16"),
    "phi3_longrope-bf16": ("phi3_longrope", "phi3", "BF16"),
    "mixtral-bf16": ("mixtral", "llama", "BF16"),
    "qwen3_moe-bf16": ("qwen3_moe", "qwen3moe", "BF16"),
}


def gguf_name(name, architecture):
    names = {**NAMES, **MORE_NAMES.get(architecture, {})}
    stem, suffix = name.rsplit(".", 1)
    if stem in names:
        return f"{names[stem]}.{suffix}"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{names[rest]}.{suffix}"


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


def fuse_experts(tensors, architecture):
    """Yields GGUF names with tensors, the experts of a layer as one."""
    experts = {}
    for name, tensor in tensors.items():
        if ".experts." not in name:
            yield gguf_name(name, architecture), name, tensor
            continue
        _, _, layer, _, _, expert, kind, _ = name.split(".")
        key = f"blk.{layer}.{EXPERT_NAMES[kind]}.weight"
        experts.setdefault(key, {})[int(expert)] = tensor
    for name, parts in experts.items():
        yield name, name, np.stack([parts[i] for i in range(len(parts))])


def rope_of(config):
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    rope = rope.get("full_attention", rope)
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
    part = rope.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1
    writer.add_rope_dimension_count(int(head_dim * part))
    writer.add_vocab_size(config["vocab_size"])
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
        writer.add_rope_scaling_factor(rope["factor"])
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if kind == "longrope":
        original = rope.get("original_max_position_embeddings") or config["original_max_position_embeddings"]
        scale = config["max_position_embeddings"] / original
        writer.add_rope_scaling_orig_ctx_len(original)
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(scale) / math.log(original)))
        for length in ("long", "short"):
            factors = np.array(rope[f"{length}_factor"], dtype=np.float32)
            writer.add_tensor(f"rope_factors_{length}.weight", factors)
    if config.get("attn_logit_softcapping"):
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
    if config.get("final_logit_softcapping"):
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    if kind == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(rope, theta, head_dim))
    n_experts = config.get("num_local_experts") or config.get("num_experts")
    if n_experts:
        writer.add_expert_count(n_experts)
        writer.add_expert_used_count(config["num_experts_per_tok"])
    if "moe_intermediate_size" in config:
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    if config.get("sliding_window") and config.get("use_sliding_window", True):
        writer.add_sliding_window(config["sliding_window"])
    if config.get("sliding_window_pattern"):
        writer.add_sliding_window_pattern(config["sliding_window_pattern"])
    for add, key in (
        (writer.add_bos_token_id, "bos_token_id"),
        (writer.add_eos_token_id, "eos_token_id"),
    ):
        if isinstance(config.get(key), int):
            add(config[key])


def scales_queries(name, architecture):
    return name.endswith(".q_norm.weight" if architecture == "gemma3" else ".q_proj.weight")


def write_model(name):
    model, architecture, type_name = FILES[name]
    with open(os.path.join(MODELS, model, "config.json")) as file:
        config = json.load(file)
    writer = gguf.GGUFWriter(os.path.join(HERE, f"{name}.gguf"), architecture)
    writer.add_license("apache-2.0")
    write_metadata(writer, config)
    tensors = read_tensors(os.path.join(MODELS, model))
    for name_there, hf_name, weight in fuse_experts(tensors, architecture):
        if architecture.startswith("gemma") and hf_name.endswith("norm.weight"):
            weight = weight + np.float32(1)
        if "query_pre_attn_scalar" in config and scales_queries(hf_name, architecture):
            # GGUF files do not say how scores are scaled: let the queries do it
            head_dim = config["head_dim"]
            weight = weight * np.float32(math.sqrt(head_dim / config["query_pre_attn_scalar"]))
        if architecture == "llama" and ".q_proj." in hf_name:
            weight = pair_rows(weight, config["num_attention_heads"])
        if architecture == "llama" and ".k_proj." in hf_name:
            weight = pair_rows(weight, config["num_key_value_heads"])
        kind = TYPES[type_name] if weight.ndim > 1 else TYPES["F32"]
        data = gguf.quants.quantize(np.ascontiguousarray(weight), kind)
        writer.add_tensor(name_there, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# ---- tokenizers ----

TOKENIZERS = os.path.join(HERE, "..", "tokenizer")
TokenType = gguf.TokenType

# file of ../tokenizer -> its name among the converter's
BYTE_LEVEL = {"llama3": "llama-bpe", "qwen2": "qwen2", "gpt2": "gpt-2"}


def start_tokenizer(name):
    path = os.path.join(HERE, f"{name}.gguf")
    return gguf.GGUFWriter(path, "llama")


def finish_tokenizer(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def template_pieces(tokenizer):
    """Tokens that the post-processor puts before and behind a text."""
    post = tokenizer["post_processor"] or {}
    parts = post.get("processors", [post])
    before, behind = [], []
    for part in parts:
        side = before
        for piece in part.get("single", []):
            if "Sequence" in piece:
                side = behind
            else:
                side.append(piece["SpecialToken"]["id"])
    return before, behind


def write_byte_level(name):
    """TextModel.get_vocab_base of the converter."""
    with open(os.path.join(TOKENIZERS, f"{name}.json")) as file:
        tokenizer = json.load(file)
    added = {token["id"]: token for token in tokenizer["added_tokens"]}
    texts = {i: text for text, i in tokenizer["model"]["vocab"].items()}
    texts.update({i: token["content"] for i, token in added.items()})
    tokens, types = [], []
    for i in range(max(texts) + 1):
        tokens.append(texts.get(i, f"[PAD{i}]"))
        if i not in texts:
            types.append(TokenType.UNUSED)
        elif i not in added:
            types.append(TokenType.NORMAL)
        else:
            types.append(TokenType.CONTROL if added[i]["special"] else TokenType.USER_DEFINED)
    merges = tokenizer["model"]["merges"]
    writer = start_tokenizer(f"tokenizer-{name}")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(BYTE_LEVEL[name])
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    before, behind = template_pieces(tokenizer)
    writer.add_add_bos_token(bool(before))
    writer.add_add_eos_token(bool(behind))
    if before:
        writer.add_bos_token_id(tokens.index(before[0]))
    if behind:
        writer.add_eos_token_id(tokens.index(behind[0]))
    finish_tokenizer(writer)


USER_DEFINED = ["<mask>", *("\u2581" * n for n in range(2, 9)), "\n\n", "<div"]


def train_sentencepiece(path, is_gemma):
    import sentencepiece

    texts = []
    with open(os.path.join(TOKENIZERS, "cases.jsonl")) as file:
        texts = [json.loads(line)["text"].replace("\x00", " ") for line in file]
    options = dict(
        vocab_size=1400,
        model_type="bpe",
        byte_fallback=True,
        character_coverage=0.98,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        split_digits=True,
        num_threads=1,
        minloglevel=2,
        max_sentence_length=100000,
    )
    if is_gemma:
        options.update(
            pad_id=0,
            eos_id=1,
            bos_id=2,
            unk_id=3,
            pad_piece="<pad>",
            eos_piece="<eos>",
            bos_piece="<bos>",
            add_dummy_prefix=False,
            control_symbols=["<start_of_turn>", "<end_of_turn>"],
            user_defined_symbols=USER_DEFINED,
        )
    prefix = os.path.join(path, "model")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_prefix=prefix, **options
    )
    return prefix + ".model"


def convert_sentencepiece(model, is_gemma):
    """What LlamaConverter and GemmaConverter of transformers 4 make of it."""
    import sentencepiece
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
    from transformers.convert_slow_tokenizer import generate_merges

    pieces = sentencepiece.SentencePieceProcessor(model_file=model)
    scores = {pieces.id_to_piece(i): pieces.get_score(i) for i in range(pieces.vocab_size())}
    vocab = {text: i for i, text in enumerate(scores)}
    merges = generate_merges(vocab, scores)
    tokenizer = Tokenizer(
        models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    for i, text in enumerate(scores):
        is_special = pieces.is_control(i) or pieces.is_unknown(i)
        if is_special or (is_gemma and text in USER_DEFINED):
            token = AddedToken(text, normalized=False, special=is_special)
            (tokenizer.add_special_tokens if is_special else tokenizer.add_tokens)([token])
    replace = normalizers.Replace(" ", "\u2581")
    decoder = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    if is_gemma:
        tokenizer.normalizer = replace
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), replace])
        decoder.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(decoder)
    bos = "<bos>" if is_gemma else "<s>"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, pieces.piece_to_id(bos))]
    )
    return pieces, tokenizer


def write_sentencepiece(name):
    """TextModel._create_vocab_sentencepiece of the converter."""
    import tempfile

    is_gemma = name == "gemma"
    with tempfile.TemporaryDirectory() as path:
        pieces, tokenizer = convert_sentencepiece(train_sentencepiece(path, is_gemma), is_gemma)
    tokens, scores, types = [], [], []
    for i in range(pieces.vocab_size()):
        text, score, kind = pieces.id_to_piece(i), pieces.get_score(i), TokenType.NORMAL
        if pieces.is_unknown(i):
            kind = TokenType.UNKNOWN
        elif pieces.is_control(i):
            kind = TokenType.CONTROL
        elif pieces.is_byte(i):
            kind = TokenType.BYTE
        elif any(i == t and not a.special for t, a in tokenizer.get_added_tokens_decoder().items()):
            # listed in tokenizer_config.json, too, which changes them
            kind, score, text = TokenType.USER_DEFINED, -1000.0, text.replace("\u2581", " ")
        tokens.append(text)
        scores.append(score)
        types.append(kind)
    writer = start_tokenizer(f"tokenizer-{name}")
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_add_space_prefix(not is_gemma)
    writer.add_add_bos_token(True)
    writer.add_bos_token_id(pieces.bos_id())
    writer.add_eos_token_id(pieces.eos_id())
    finish_tokenizer(writer)
    tokenizer.save(os.path.join(HERE, f"{name}.json"), pretty=False)


# ---- pre-tokenizers ----

DIGITS = {"type": "Digits", "individual_digits": True}


def split_of(expression):
    return {
        "type": "Split",
        "pattern": {"Regex": expression},
        "behavior": "Isolated",
        "invert": False,
    }


def byte_level(use_regex):
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": False,
        "use_regex": use_regex,
    }


def pre_tokenizers():
    """How Hugging Face's tokenizers split a text, by the converter's names."""
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX as QWEN2
    from transformers.models.qwen3_5.tokenization_qwen3_5 import PRETOKENIZE_REGEX as QWEN35

    expressions = {"qwen2": QWEN2, "deepseek-r1-qwen": QWEN2, "qwen35": QWEN35}
    for name in ("llama-bpe", "llama3", "llama-v3", "falcon3", "dbrx", "smaug-bpe", "tekken", "gpt-4o", "llama4"):
        expressions[name] = GGUF_PRE_TOKENIZER_SPLITS[name]
    # Mistral's tokenizers that are called "pixtral" split as Llama 3's;
    # zai-org/glm-4-9b-hf and its successors have Llama 3's expression
    for name in ("pixtral", "glm4", "chatglm-bpe"):
        expressions[name] = GGUF_PRE_TOKENIZER_SPLITS["llama-bpe"]
    members = {name: [split_of(e), byte_level(False)] for name, e in expressions.items()}
    members["gpt-2"] = [byte_level(True)]
    members["smollm"] = members["starcoder"] = [DIGITS, byte_level(True)]
    return {
        name: {
            "normalizer": {"type": "NFC"} if "qwen" in name else None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        }
        for name, steps in members.items()
    }


def write_unsplit(name):
    """A vocabulary with merges across all that a pre-tokenizer may split."""
    from tokenizers import Tokenizer, models, pre_tokenizers as pre, trainers

    texts = []
    with open(os.path.join(TOKENIZERS, "cases.jsonl")) as file:
        texts = [json.loads(line)["text"] for line in file]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        initial_alphabet=sorted(pre.ByteLevel.alphabet()),
        max_token_length=6,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    vocab = sorted(model["vocab"], key=model["vocab"].get)
    writer = start_tokenizer(f"tokenizer-{name}")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocab + ["<|unsplit|>"])
    writer.add_token_types([TokenType.NORMAL] * len(vocab) + [TokenType.CONTROL])
    writer.add_token_merges([" ".join(m) for m in model["merges"]])
    writer.add_bos_token_id(len(vocab))
    finish_tokenizer(writer)
    with open(os.path.join(HERE, "pre_tokenizers.json"), "w") as file:
        json.dump(pre_tokenizers(), file, indent=1)
        file.write("\n")


def main():
    makers = {
        "unsplit": write_unsplit,
        **{name: write_model for name in FILES},
        **{name: write_byte_level for name in BYTE_LEVEL},
        **{name: write_sentencepiece for name in ("llama", "gemma")},
    }
    for name in sys.argv[1:] or makers:
        makers[name](name)
        print(name)


if __name__ == "__main__":
    main()

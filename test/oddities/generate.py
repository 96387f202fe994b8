"""Make the base model of test/oddities and the files of its cases.

    python generate.py

Needs torch, transformers 5, tokenizers and safetensors; the tests need only
what this writes: base/, a complete tiny model directory, and a folder for each
case with the files that are other than the base's.  A file "absent" lists
those that a case lacks, "expected" (written by hand) says what happens.
"""

import json
import os
import shutil

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
BASE = os.path.join(HERE, "base")
N_VOCAB = 272  # 256 bytes, 8 merges, 8 special tokens
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"


def write(case, name, content):
    folder = os.path.join(HERE, case)
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if isinstance(content, str):
        content = content.encode()
    if not isinstance(content, bytes):
        content = (json.dumps(content, indent=1) + "\n").encode()
    with open(path, "wb") as f:
        f.write(content)


def absent(case, *names):
    write(case, "absent", "".join(name + "\n" for name in names))


def make_tokenizer():
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: i for i, letter in enumerate(letters)}
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "w"),
              ("o", "r"), ("l", "d"), ("or", "ld")]
    for a, b in merges:
        vocab[a + b] = len(vocab)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        ["<s>", "</s>", "<end>", "<pad>", "<unused0>", "<unused1>", "<unused2>",
         "<unused3>"])
    assert tokenizer.get_vocab_size() == N_VOCAB
    return json.loads(tokenizer.to_str())


def make_base():
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=N_VOCAB, hidden_size=16, intermediate_size=16,
        num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        max_position_embeddings=64, bos_token_id=264, eos_token_id=265,
        tie_word_embeddings=False)
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    shutil.rmtree(BASE, ignore_errors=True)
    model.save_pretrained(BASE)
    write("base", "tokenizer.json", make_tokenizer())
    write("base", "tokenizer_config.json", {
        "bos_token": "<s>", "eos_token": "</s>", "chat_template": TEMPLATE})
    write("base", "generation_config.json",
          {"eos_token_id": 265, "temperature": 0.5, "do_sample": True})


def config_with(**changes):
    with open(os.path.join(BASE, "config.json")) as f:
        config = json.load(f)
    config.update(changes)
    return {key: value for key, value in config.items() if value is not ...}


def tokenizer_config_with(**changes):
    with open(os.path.join(BASE, "tokenizer_config.json")) as f:
        config = json.load(f)
    config.update(changes)
    return {key: value for key, value in config.items() if value is not ...}


def save_tensors(case, tensors, name="model.safetensors"):
    os.makedirs(os.path.join(HERE, case), exist_ok=True)
    save_file(tensors, os.path.join(HERE, case, name))


def templates():
    write("template_in_a_file", "chat_template.jinja", "file:" + TEMPLATE)
    write("template_in_a_file", "tokenizer_config.json",
          tokenizer_config_with(chat_template=...))
    write("template_for_tools_in_a_file", "chat_template.jinja", TEMPLATE)
    write("template_for_tools_in_a_file",
          "additional_chat_templates/tool_use.jinja", "tools:" + TEMPLATE)
    write("template_in_both", "chat_template.jinja", "file:" + TEMPLATE)
    write("template_absent", "tokenizer_config.json",
          tokenizer_config_with(chat_template=...))
    write("templates_by_name", "tokenizer_config.json", tokenizer_config_with(
        chat_template=[{"name": "tool_use", "template": "tools:" + TEMPLATE},
                       {"name": "default", "template": "default:" + TEMPLATE}]))
    write("templates_without_default", "tokenizer_config.json",
          tokenizer_config_with(
              chat_template=[{"name": "rag", "template": TEMPLATE}]))
    write("template_that_is_broken", "tokenizer_config.json",
          tokenizer_config_with(chat_template="{% for m in messages %}"))


def weights():
    tensors = load_file(os.path.join(BASE, "model.safetensors"))
    head, embedding = "lm_head.weight", "model.embed_tokens.weight"
    tied = config_with(tie_word_embeddings=True)

    write("tied_without_head", "config.json", tied)
    save_tensors("tied_without_head",
                 {k: v for k, v in tensors.items() if k != head})
    write("tied_with_equal_head", "config.json", tied)
    save_tensors("tied_with_equal_head",
                 {**tensors, head: tensors[embedding].clone()})
    write("tied_with_another_head", "config.json", tied)
    save_tensors("untied_without_head",
                 {k: v for k, v in tensors.items() if k != head})
    save_tensors("tensor_nobody_knows",
                 {**tensors, "model.layers.0.mystery.weight": torch.zeros(2)})
    save_tensors("tensor_nobody_needs", {
        **tensors,
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4)})
    save_tensors("tensor_in_int8", {
        **tensors, "model.norm.weight": torch.ones(16, dtype=torch.int8)})

    names = sorted(tensors)
    first, second = names[: len(names) // 2], names[len(names) // 2 :]
    for case in ("shards", "shard_is_missing", "shard_named_wrong"):
        absent(case, "model.safetensors")
        files = {name: "model-00001-of-00002.safetensors" for name in first}
        files.update({name: "model-00002-of-00002.safetensors" for name in second})
        save_tensors(case, {k: tensors[k] for k in first}, files[first[0]])
        if case != "shard_is_missing":
            save_tensors(case, {k: tensors[k] for k in second}, files[second[0]])
        if case == "shard_named_wrong":
            files[second[0]] = files[first[0]]
        write(case, "model.safetensors.index.json",
              {"metadata": {}, "weight_map": files})
    write("weights_are_an_lfs_pointer", "model.safetensors",
          "version https://git-lfs.github.com/spec/v1\n"
          "oid sha256:%s\nsize 17000\n" % ("0" * 64))
    absent("weights_as_pickle", "model.safetensors")
    write("weights_as_pickle", "pytorch_model.bin", b"\x80\x02}q\x00.")
    padded = {**tensors}
    for name in (head, embedding):
        padded[name] = torch.cat([tensors[name], torch.zeros(48, 16).to(
            torch.bfloat16)])
    write("vocabulary_padded", "config.json", config_with(vocab_size=N_VOCAB + 48))
    save_tensors("vocabulary_padded", padded)


def tokenizers():
    with open(os.path.join(BASE, "tokenizer.json")) as f:
        tokenizer = json.load(f)
    more = json.loads(json.dumps(tokenizer))
    more["added_tokens"].append(
        {"id": N_VOCAB, "content": "<beyond>", "single_word": False,
         "lstrip": False, "rstrip": False, "normalized": False, "special": True})
    write("token_beyond_the_vocabulary", "tokenizer.json", more)
    absent("tokenizer_as_sentencepiece", "tokenizer.json")
    write("tokenizer_as_sentencepiece", "tokenizer.model", b"\n\x07\n\x05<unk>")
    absent("tokenizer_config_absent", "tokenizer_config.json")


def configs():
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    write("rope_parameters", "config.json",
          config_with(rope_parameters=rope, rope_scaling=..., rope_theta=...))
    write("rope_scaling", "config.json", config_with(
        rope_parameters=..., rope_theta=5000.0,
        rope_scaling={"type": "linear", "factor": 3.0}))
    write("rope_in_both", "config.json", config_with(
        rope_parameters=rope, rope_theta=5000.0,
        rope_scaling={"type": "linear", "factor": 3.0}))
    write("rope_of_an_unknown_type", "config.json", config_with(
        rope_parameters={"rope_type": "spiral", "rope_theta": 10000.0}))
    absent("generation_config_absent", "generation_config.json")
    write("several_eos_ids", "generation_config.json",
          {"eos_token_id": [265, 266]})
    write("eos_beyond_the_vocabulary", "generation_config.json",
          {"eos_token_id": 100000})
    write("dtype_absent", "config.json", config_with(dtype=..., torch_dtype=...))
    write("dtype_by_its_old_name", "config.json",
          config_with(dtype=..., torch_dtype="bfloat16"))
    write("key_nobody_knows", "config.json", config_with(mystery_factor=2))
    write("quantized_by_others", "config.json", config_with(
        quantization_config={"quant_method": "awq", "bits": 4}))
    write("custom_code", "config.json", config_with(
        auto_map={"AutoModelForCausalLM": "modeling_mystery.MysteryLM"}))
    text = json.dumps(config_with())
    write("byte_order_mark", "config.json", b"\xef\xbb\xbf" + text.encode())
    write("duplicate_keys", "config.json",
          text.replace('"num_hidden_layers": 1',
                       '"num_hidden_layers": 7, "num_hidden_layers": 1'))
    write("config_is_a_list", "config.json", "[1]\n")
    write("config_is_empty", "config.json", "")


make_base()
templates()
weights()
tokenizers()
configs()

"""Checkpoints as bitsandbytes stores them: the models of test_nf4.c, and of
test_train.c's cases whose names end in _bnb.

    python generate_bnb.py

Needs torch, transformers 5, bitsandbytes (on the CPU) and safetensors.  Of
tiny models of ../model it writes beside itself

    bnb_nested      transformers' own: nested, two modules left out
    bnb_fused       transformers' own: not nested, fused modules
    bnb_experts     with experts, which transformers 5 does not quantize, but
                    4, whose experts were modules, did: put together from
                    bitsandbytes' own dictionaries

and in each expected.safetensors: "logits" F32 [n, vocab] of transformers,
computing in f32, for tokens "ids" I32 [n], and some matrices as bitsandbytes
decodes them.
"""

import copy
import json
import os
import shutil

import bitsandbytes as bnb
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

HERE = os.path.dirname(os.path.abspath(__file__))
MODELS = os.path.join(HERE, "..", "model")
IDS = [3 + i * i * 7 % 250 for i in range(12)]


def config(is_nested, skipped=None):
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=is_nested,
        bnb_4bit_compute_dtype=torch.float32,
        llm_int8_skip_modules=skipped,
    )


def decoded(values, state):
    """Its kernel for CPUs wants rows of whole blocks; blocks know no rows."""
    rows = copy.copy(state)
    rows.shape = torch.Size((state.shape.numel() // 64, 64))
    return bnb.functional.dequantize_4bit(values, rows).reshape(state.shape)


def unquantize(model):
    """Every quantized module as a plain one with what it decodes to."""
    found = {}
    for name, module in list(model.named_modules()):
        if not isinstance(module, bnb.nn.Linear4bit):
            continue
        plain = torch.nn.Linear(module.in_features, module.out_features, bias=module.bias is not None)
        weight = decoded(module.weight.data, module.weight.quant_state)
        found[name + ".weight"] = weight
        plain.weight.data = weight.float()
        if module.bias is not None:
            plain.bias.data = module.bias.data.float()
        parent = model.get_submodule(name.rpartition(".")[0])
        setattr(parent, name.rpartition(".")[2], plain)
    return found


def load(name):
    """A model written here, in f32, and its decoded matrices."""
    folder = os.path.join(HERE, name)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", device_map="cpu"
    )
    matrices = unquantize(model)
    for parameter in model.parameters():
        parameter.data = parameter.data.float()
    return model, matrices


def expect(folder, model, matrices):
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([IDS])).logits[0].float()
    tensors = {"ids": torch.tensor(IDS, dtype=torch.int32), "logits": logits}
    for name in sorted(matrices)[:: len(matrices) - 1]:
        tensors["decoded." + name] = matrices[name].contiguous()
    save_file(tensors, os.path.join(folder, "expected.safetensors"))


def published(name, source, quantization):
    folder = os.path.join(HERE, name)
    shutil.rmtree(folder, ignore_errors=True)
    model = AutoModelForCausalLM.from_pretrained(
        os.path.join(MODELS, source), quantization_config=quantization, device_map="cpu"
    )
    model.save_pretrained(folder)
    expect(folder, *load(name))


def experts(name, source):
    folder = os.path.join(HERE, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.mkdir(folder)
    tensors = load_file(os.path.join(MODELS, source, "model.safetensors"))
    stored, plain, matrices = {}, {}, {}
    for key, tensor in tensors.items():
        plain[key] = tensor
        if ".experts." not in key and "_proj" not in key:
            stored[key] = tensor
            continue
        values, state = bnb.functional.quantize_4bit(
            tensor, blocksize=64, compress_statistics=False, quant_type="nf4"
        )
        stored[key] = values
        for part, value in state.as_dict(packed=True).items():
            stored[f"{key}.{part}"] = value
        matrices[key] = decoded(values, state)
        plain[key] = matrices[key]
    with open(os.path.join(MODELS, source, "config.json")) as f:
        settings = json.load(f)
    rounded = os.path.join(folder, "plain")
    os.mkdir(rounded)
    save_file(plain, os.path.join(rounded, "model.safetensors"), {"format": "pt"})
    with open(os.path.join(rounded, "config.json"), "w") as f:
        json.dump(settings, f)
    model = AutoModelForCausalLM.from_pretrained(
        rounded, dtype=torch.float32, attn_implementation="eager"
    )
    expect(folder, model, matrices)
    shutil.rmtree(rounded)
    settings["quantization_config"] = config(False).to_dict()
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(settings, f, indent=2)
    save_file(stored, os.path.join(folder, "model.safetensors"), {"format": "pt"})


if __name__ == "__main__":
    skipped = ["lm_head", "model.layers.1.self_attn.o_proj", "model.layers.0.mlp.up_proj"]
    published("bnb_nested", "qwen3", config(True, skipped))
    published("bnb_fused", "phi3", config(False))
    experts("bnb_experts", "mixtral")

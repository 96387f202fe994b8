#!/usr/bin/env python3
"""Make the adapters of this folder with PEFT.

Values are drawn, not trained, from fixed seeds, and large enough to change
answers.  merged.json holds, for adapters on the tiny models of ../model, sums
over PEFT's own merge, in float32:  for each changed weight the sum of its
elements and of their squares.

    python3 generate.py            (torch, transformers, peft)
"""
import json
import os
import pathlib

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

HERE = pathlib.Path(__file__).resolve().parent
DEMO = HERE.parents[2] / "models" / "demo"
MODELS = HERE.parent / "model"

ADAPTERS = {
    "demo_one": (DEMO, torch.bfloat16, 1, 0.15, dict(
        r=2, lora_alpha=8, target_modules=["q_proj", "v_proj"])),
    "demo_two": (DEMO, torch.bfloat16, 2, 0.15, dict(
        r=2, lora_alpha=8, target_modules=["o_proj", "down_proj"],
        layers_to_transform=[0, 1, 2, 3])),
    "llama3_patterns": (MODELS / "llama3", torch.float32, 3, 0.1, dict(
        r=4, lora_alpha=6, use_rslora=True,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj",
                        "up_proj", "down_proj", "lm_head"],
        rank_pattern={"q_proj": 2, r"layers\.1\.mlp\.down_proj": 3},
        alpha_pattern={"v_proj": 1.5})),
    "phi3_dora": (MODELS / "phi3", torch.float16, 4, 0.1, dict(
        r=2, lora_alpha=4, use_dora=True,
        target_modules=["qkv_proj", "gate_up_proj", "down_proj"])),
    "mixtral_stacked": (MODELS / "mixtral", torch.bfloat16, 5, 0.1, dict(
        r=2, lora_alpha=3, target_modules=["v_proj"],
        target_parameters=["experts.gate_up_proj", "experts.down_proj"])),
}


def draw(model, seed, gain):
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_magnitude" in name:
            noise = torch.rand(parameter.shape, generator=generator)
            parameter.data *= (0.9 + 0.2 * noise).to(parameter.dtype)
        elif "lora_" in name:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data = (gain * noise).to(parameter.dtype)


def as_stored(tensors):
    """Experts as checkpoints have them: one by one."""
    out = {}
    for name, tensor in tensors.items():
        place, _, kind = name.rpartition(".")
        if not place.endswith(".experts"):
            out[name] = tensor
            continue
        place = place.replace(".mlp.", ".block_sparse_moe.")
        for i, expert in enumerate(tensor):
            parts = [expert] if kind == "down_proj" else expert.chunk(2)
            for leaf, part in zip(["w2"] if len(parts) == 1 else ["w1", "w3"], parts):
                out[f"{place}.{i}.{leaf}.weight"] = part
    return out


def sums(base, merged):
    out = {}
    for name, weight in merged.items():
        if name in base and not torch.equal(base[name], weight):
            wide = weight.double()
            out[name] = [wide.sum().item(), (wide * wide).sum().item()]
    return out


def main():
    merged = {}
    for name, (path, dtype, seed, gain, options) in ADAPTERS.items():
        torch.manual_seed(seed)
        base = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        before = {k: v.clone() for k, v in base.state_dict().items()}
        base.name_or_path = path.name
        model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **options))
        draw(model, seed, gain)
        for key, parameter in model.named_parameters():
            if "lora_" in key:
                parameter.data = parameter.data.to(dtype).to(parameter.dtype)
        stored = {k: p for k, p in model.named_parameters() if "lora_" in k}
        wide = {k: p.data for k, p in stored.items()}
        for key, parameter in stored.items():
            parameter.data = parameter.data.to(dtype)
        model.save_pretrained(HERE / name, save_embedding_layers=False)
        os.remove(HERE / name / "README.md")
        for key, parameter in stored.items():
            parameter.data = wide[key]
        if path.parent == MODELS:
            after = model.merge_and_unload().state_dict()
            merged[name] = sums(as_stored(before), as_stored(after))
    (HERE / "merged.json").write_text(json.dumps(merged, indent=1) + "\n")


if __name__ == "__main__":
    main()

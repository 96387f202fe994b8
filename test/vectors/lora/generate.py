"""Make the adapters of test_lora_model.c and what PEFT computes with them.

    python generate.py [name ...]

Needs torch, transformers 5, peft and safetensors; the tests need only the files
that this writes beside itself, one directory for each adapter:

    adapter_config.json, adapter_model.safetensors    as PEFT saves it
    expected.safetensors

The base models and their prompts are those of ../model.  An adapter's matrices
are random, both of them, and large enough to change the logits by about as much
as they are; DoRA's magnitudes stray from the norms that training starts from.

expected.safetensors holds, for prompts p1 and p2:
    p<i>.logits    F32 [1, vocab]   logits of its last token, in float32
"""

import os
import shutil
import sys

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
MODELS = os.path.join(HERE, "..", "model")
PROMPTS = (1, 2)

PLAIN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ATTENTION = PLAIN[:4]
FUSED = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
HALF_FUSED = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "down_proj"]

# name: (base model, stored dtype, arguments of LoraConfig)
ADAPTERS = {
    "llama2_dora": ("llama2", torch.float32, dict(r=2, lora_alpha=6, target_modules=PLAIN, use_dora=True)),
    "llama3_patterns": (
        "llama3",
        torch.float16,
        dict(
            r=2,
            lora_alpha=4,
            target_modules=PLAIN,
            rank_pattern={"q_proj": 5, r"layers\.1\.mlp\.down_proj": 1},
            alpha_pattern={"k_proj": 1, r"layers\.0\.mlp\.up_proj": 7},
        ),
    ),
    "llama3_head": ("llama3", torch.float32, dict(r=2, lora_alpha=2, target_modules=["q_proj", "lm_head"])),
    "linear_dora": ("linear", torch.float16, dict(r=2, lora_alpha=4, target_modules=PLAIN, use_dora=True)),
    "yarn": ("yarn", torch.bfloat16, dict(r=2, lora_alpha=4, target_modules=PLAIN)),
    "mistral_rslora": ("mistral", torch.bfloat16, dict(r=2, lora_alpha=4, target_modules=PLAIN, use_rslora=True)),
    "qwen2": ("qwen2", torch.bfloat16, dict(r=2, lora_alpha=4, target_modules=PLAIN)),
    "qwen2_values": ("qwen2", torch.bfloat16, dict(r=2, lora_alpha=4, target_modules=["v_proj"], layers_to_transform=[1])),
    "qwen3_dora": (
        "qwen3",
        torch.bfloat16,
        dict(r=2, lora_alpha=4, target_modules=PLAIN, use_dora=True, use_rslora=True),
    ),
    "qwen3_moe": ("qwen3_moe", torch.bfloat16, dict(r=2, lora_alpha=4, target_modules=ATTENTION)),
    "mixtral": ("mixtral", torch.bfloat16, dict(r=2, lora_alpha=4, target_modules=ATTENTION)),
    "phi3": ("phi3", torch.bfloat16, dict(r=2, lora_alpha=4, target_modules=FUSED)),
    "phi3_longrope_dora": (
        "phi3_longrope",
        torch.bfloat16,
        dict(r=2, lora_alpha=4, target_modules=FUSED, use_dora=True),
    ),
    "glm4": ("glm4", torch.bfloat16, dict(r=2, lora_alpha=4, target_modules=HALF_FUSED)),
    "glm_dora": ("glm", torch.bfloat16, dict(r=2, lora_alpha=4, target_modules=HALF_FUSED, use_dora=True)),
    "gemma": ("gemma", torch.bfloat16, dict(r=2, lora_alpha=4, target_modules=PLAIN)),
    "gemma2": ("gemma2", torch.bfloat16, dict(r=2, lora_alpha=4, target_modules=PLAIN)),
    "llama3_embed": (
        "llama3",
        torch.float32,
        dict(r=4, lora_alpha=6, target_modules=["embed_tokens", "lm_head", "v_proj"], use_rslora=True),
    ),
    "gemma2_embed": ("gemma2", torch.bfloat16, dict(r=2, lora_alpha=4, target_modules=["embed_tokens", "o_proj"])),
    "gemma3_dora": ("gemma3", torch.bfloat16, dict(r=1, lora_alpha=2, target_modules=PLAIN, use_dora=True)),
}


def randomize(model, dtype, seed):
    """Values that survive being stored as dtype."""
    generator = torch.Generator().manual_seed(seed)

    def noise(shape, scale):
        return (scale * torch.randn(shape, generator=generator)).to(dtype).float()

    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if "lora_A" in name:
                parameter.copy_(noise(parameter.shape, parameter.shape[1] ** -0.5))
            elif "lora_embedding_A" in name:
                parameter.copy_(noise(parameter.shape, 0.3))
            elif "lora_B" in name or "lora_embedding_B" in name:
                parameter.copy_(noise(parameter.shape, 0.05))
            elif "lora_magnitude_vector" in name:
                stray = 1 + noise(parameter.shape, 0.2)
                parameter.copy_((parameter * stray).to(dtype).float())


def logits_of(model, ids):
    with torch.no_grad():
        out = model(input_ids=torch.tensor([ids]), use_cache=False)
    return out.logits[0, -1:].float().contiguous()


def prompts_of(base):
    tensors = load_file(os.path.join(MODELS, base, "expected.safetensors"))
    return {i: tensors[f"p{i}.ids"].tolist() for i in PROMPTS}


def generate(name, seed):
    base, dtype, options = ADAPTERS[name]
    out = os.path.join(HERE, name)
    path = os.path.join(MODELS, base)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")
    model.eval()
    prompts = prompts_of(base)
    expected = {f"p{i}.base": logits_of(model, ids) for i, ids in prompts.items()}
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **options))
    randomize(model, dtype, seed)
    model.eval()
    for i, ids in prompts.items():
        expected[f"p{i}.logits"] = logits_of(model, ids)
        change = (expected[f"p{i}.logits"] - expected[f"p{i}.base"]).abs().max()
        print(f"{name} p{i}: logits up to {expected[f'p{i}.base'].abs().max():.2f}, changed by {change:.2f}")
    shutil.rmtree(out, ignore_errors=True)
    # an adapter must name its base, and ours has a path of this machine
    model.peft_config["default"].base_model_name_or_path = base
    model.save_pretrained(out, save_embedding_layers=False)
    os.remove(os.path.join(out, "README.md"))
    file = os.path.join(out, "adapter_model.safetensors")
    save_file({k: v.to(dtype) for k, v in load_file(file).items()}, file, metadata={"format": "pt"})
    logits = {k: v for k, v in expected.items() if k.endswith(".logits")}
    save_file(logits, os.path.join(out, "expected.safetensors"))


for i, name in enumerate(ADAPTERS):
    if len(sys.argv) == 1 or name in sys.argv[1:]:
        generate(name, 100 + i)

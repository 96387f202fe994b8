"""What PEFT's gradients are: the reference of test_train.c.

    python generate.py [name ...]

Needs torch, transformers 5, peft and safetensors; the tests need only the
file that this writes beside itself for each model of ../model:

    <name>.safetensors
        ids            I32 [n]      tokens of all segments
        starts         I32 [s + 1]  where segments begin, and the end
        rows, labels   I32 [k]      tokens that are scored, with what follows
        log_probs      F32 [k]
        loss           F32 [1]      the mean of -log_probs
        grad.<layer>.<module>.<A|B|magnitude>   F32 [16], see sketch()
        losses         F32 [100]    of 100 steps of AdamW on that batch

Values of A and B are a formula that both sides know (see value()); modules
that a family stores fused are trained apart here as they are there, but for
the cases named so, whose A is the first part's and whose B is in parts.
"""

import math
import os
import re
import sys

import numpy
import torch
from peft import LoraConfig, get_peft_model
from safetensors.numpy import save_file
from transformers import AutoModelForCausalLM
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

HERE = os.path.dirname(os.path.abspath(__file__))
MODELS = os.path.join(HERE, "..", "model")
RANK = 2
ALPHA = 3.0
SEGMENTS = (37, 5, 22)
N_STEPS = 100
STORED = {"qwen3": torch.bfloat16, "llama3": torch.float16}  # of the models' files
RATE = 2e-3
ROUTER_COEF = 0.5

MODULES = ("q", "k", "v", "o", "gate", "up", "down")
FUSED = {**{m: i for i, m in enumerate(MODULES)}, "qkv": 0, "gate_up": 4}
EXPERTS = {"gate": 9, "up": 10, "down": 11, "gate_up": 9}

# name: (what is trained, rsLoRA, DoRA); "fused": modules as they are stored,
# "nf4", "nf4_nested": projections are what is left of them as NF4 weights;
# "bnb": the checkpoint of that name that generate_bnb.py wrote
# "router": with the routers' loss, and its value "router_loss" F32 [1]
# "experts": gate, up and down are the experts'; of mixtral they are parameters
# as transformers 5 has them, of qwen3_moe modules as transformers 4 had them
CASES = {
    "mixtral": (("q", "k", "v", "o"), False, False),
    "qwen3_moe": (("q", "k", "v", "o"), False, False),
    "qwen3_moe_step": (("v", "o"), False, True),
    "qwen3_nf4": (MODULES, False, False),
    "llama3_nf4_nested": (("q", "v", "down"), False, True),
    "bnb_nested": (("q", "o", "up", "down"), False, False),
    "mixtral_experts": (("q", "v"), True, False),
    "mixtral_router": (("q", "k", "v"), False, False),
    "qwen3_moe_router": (("v", "o"), False, False),
    "qwen3_moe_experts": (("k", "gate", "up", "down"), False, False),
    "phi3_fused": (("qkv", "gate_up", "down"), False, False),
    "glm4_fused": (("q", "gate_up"), False, False),
    "llama2": (MODULES, False, False),
    "llama3": (MODULES, False, True),
    "linear": (MODULES, True, False),
    "mistral": (MODULES, False, False),
    "qwen2": (("q", "v", "down"), False, True),
    "qwen3": (MODULES, False, False),
    "glm": (MODULES, False, False),
    "glm4": (MODULES, False, False),
    "phi3": (MODULES, False, False),
    "phi3_longrope": (("q", "k"), False, False),
    "gemma": (MODULES, False, False),
    "gemma2": (MODULES, False, False),
    "gemma3": (MODULES, False, True),
    "yarn": (("o", "gate", "up"), True, False),
    "dynamic": (("q", "k", "v"), False, False),
}


def value(i, salt):
    """Number i of a matrix, in about -0.5 .. 0.5."""
    x = (i * 2654435761 + salt * 40503 + 12345) & 0xFFFFFFFF
    x ^= x >> 15
    x = (x * 2246822519) & 0xFFFFFFFF
    x ^= x >> 13
    return (x >> 8) / float(1 << 24) - 0.5


def sketch(gradient):
    """16 sums of a matrix's numbers, each with signs of its own.

    The mean square of two matrices' differences in these sums is an unbiased
    estimate of the square of the matrices' distance (each sign is + or - of a
    hash of the number's place): whatever is off shows, in a fraction of the
    room.  gradient_sketch.h has the same.
    """
    gradient = numpy.asarray(gradient, numpy.float64).reshape(-1)
    x = numpy.arange(len(gradient), dtype=numpy.uint64) * 2654435761 + 12345 & 0xFFFFFFFF
    for shift, factor in ((15, 2246822519), (13, 3266489917), (16, 1)):
        x = (x ^ x >> shift) * factor & 0xFFFFFFFF
    signs = [1.0 - 2.0 * (x >> (8 + k) & 1) for k in range(16)]
    return numpy.array([(s * gradient).sum() for s in signs], numpy.float32)


def matrix(shape, salt, scale):
    n = int(numpy.prod(shape))
    return torch.tensor([value(i, salt) * scale for i in range(n)]).reshape(shape)


class Parts(torch.nn.Module):
    """A fused projection as its parts."""

    def __init__(self, fused, names, sizes):
        super().__init__()
        at = 0
        self.names = names
        for name, size in zip(names, sizes):
            part = torch.nn.Linear(fused.in_features, size, bias=fused.bias is not None)
            part.weight.data = fused.weight.data[at : at + size].clone()
            if fused.bias is not None:
                part.bias.data = fused.bias.data[at : at + size].clone()
            setattr(self, name, part)
            at += size

    def forward(self, x):
        return torch.cat([getattr(self, name)(x) for name in self.names], dim=-1)


class Experts(torch.nn.ModuleList):
    """Experts as modules."""

    def __init__(self, fused):
        super().__init__()
        self.act = [fused.act_fn]  # no module of the list
        for gate_up, down in zip(fused.gate_up_proj, fused.down_proj):
            expert = torch.nn.Module()
            gate, up = gate_up.chunk(2)
            for name, weight in (("gate", gate), ("up", up), ("down", down)):
                linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
                linear.weight.data = weight.data.clone()
                setattr(expert, name + "_proj", linear)
            self.append(expert)

    def forward(self, x, indices, shares):
        out = torch.zeros_like(x)
        for i, expert in enumerate(self):
            rows, place = torch.where(indices == i)
            y = self.act[0](expert.gate_proj(x[rows])) * expert.up_proj(x[rows])
            out.index_add_(0, rows, expert.down_proj(y) * shares[rows, place, None])
        return out


def split_fused(model):
    q, kv, _, inner, _ = sizes_of(model.config).values()
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        if hasattr(attention, "qkv_proj"):
            attention.qkv_proj = Parts(
                attention.qkv_proj, ("q_proj", "k_proj", "v_proj"), (q, kv, kv)
            )
        if hasattr(mlp, "gate_up_proj"):
            mlp.gate_up_proj = Parts(mlp.gate_up_proj, ("gate_proj", "up_proj"), (inner, inner))


def load(name):
    if name.startswith("bnb_"):
        from generate_bnb import load as load_bnb

        return load_bnb(name)[0]
    model = AutoModelForCausalLM.from_pretrained(
        os.path.join(MODELS, base_of(name)),
        dtype=torch.float32,
        attn_implementation="eager",
    )
    if not name.endswith("_fused"):
        split_fused(model)
    if "_nf4" in name:
        round_to_nf4(name, model)
    if name == "qwen3_moe_experts":
        model.config.model_type = "modules"  # PEFT knows the other one's parameters
        for layer in model.model.layers:
            if hasattr(layer.mlp, "experts"):
                layer.mlp.experts = Experts(layer.mlp.experts)
    return model


def base_of(name):
    return re.sub("_fused|_nf4|_nested|_experts|_router", "", name)


def round_to_nf4(name, model):
    import bitsandbytes.functional as bnb

    for key, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and key.split(".")[-1].endswith("_proj"):
            weight = module.weight.data.to(STORED[base_of(name)])
            values, state = bnb.quantize_4bit(
                weight, blocksize=64, compress_statistics=name.endswith("_nested"), quant_type="nf4"
            )
            module.weight.data = bnb.dequantize_4bit(values, state).float()


def adapted(name, modules, use_rslora, use_dora):
    model = get_peft_model(
        load(name),
        LoraConfig(
            r=RANK,
            lora_alpha=ALPHA,
            target_modules=[m + "_proj" for m in modules],
            use_rslora=use_rslora,
            use_dora=use_dora,
            task_type="CAUSAL_LM",
            target_parameters=["experts.gate_up_proj", "experts.down_proj"]
            if name == "mixtral_experts"
            else None,
        ),
    )
    parameters = {}
    for key, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        parts = key.split(".")
        if "experts" in parts:
            set_expert(model, parts, parameter, parameters)
            continue
        layer = int(parts[parts.index("layers") + 1])
        module = [p[:-5] for p in parts if p.endswith("_proj") and p[:-5] in FUSED][-1]
        kind = "A" if "lora_A" in key else "B" if "lora_B" in key else "magnitude"
        salt = layer * 100 + FUSED[module] * 10 + (1 if kind == "B" else 0)
        if kind != "magnitude":
            scale = 2 / math.sqrt(parameter.shape[1]) if kind == "A" else 0.2
            parameter.data = matrix(parameter.shape, salt, scale)
        parameters[f"{layer}.{module}.{kind}"] = parameter
    return model, parameters


def expert_matrix(layer, module, expert, kind, shape):
    salt = expert * 1000 + layer * 100 + EXPERTS[module] * 10 + (kind == "B")
    return matrix(shape, salt, 2 / math.sqrt(shape[1]) if kind == "A" else 0.2)


def set_expert(model, parts, parameter, parameters):
    """Values of experts' matrices; of a parameter all experts' are in one."""
    layer = int(parts[parts.index("layers") + 1])
    kind = "A" if "lora_A" in parts else "B"
    at = parts.index("experts")
    if parts[at + 1].isdigit():
        expert, module = int(parts[at + 1]), parts[at + 2][:-5]
        parameter.data = expert_matrix(layer, module, expert, kind, parameter.shape)
        parameters[f"{layer}.expert_{module}.{kind}.{expert}"] = parameter
        return
    # the wrapper around the other one is down's
    module = "gate_up" if parts[at + 1] == "base_layer" else "down"
    n = model.config.num_local_experts
    rows, columns = parameter.shape
    if kind == "A":
        values = [expert_matrix(layer, module, e, kind, (rows // n, columns)) for e in range(n)]
        parameter.data = torch.cat(values)
    else:
        values = [expert_matrix(layer, module, e, kind, (rows, columns // n)) for e in range(n)]
        parameter.data = torch.stack(values, -1).reshape(rows, columns)
    parameters[f"{layer}.expert_{module}.{kind}"] = parameter


def gradients_of(key, parameter, n_experts):
    """A parameter's gradient, of experts' each expert's."""
    gradient = parameter.grad
    if ".expert_" not in key or key[-1].isdigit():
        return {key: gradient.numpy().copy()}
    if key.endswith("A"):
        parts = gradient.chunk(n_experts)
    else:
        parts = gradient.reshape(gradient.shape[0], -1, n_experts).unbind(-1)
    return {f"{key}.{e}": part.contiguous().numpy() for e, part in enumerate(parts)}


def batch(vocab):
    ids, starts, rows, labels = [], [0], [], []
    for s, length in enumerate(SEGMENTS):
        tokens = [3 + (i * i * 7 + i * 13 + s * 31) % (vocab - 3) for i in range(length)]
        for i in range(length // 3, length - 1):
            rows.append(len(ids) + i)
            labels.append(tokens[i + 1])
        ids += tokens
        starts.append(len(ids))
    return ids, starts, rows, labels


def sizes_of(config):
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return {
        "q": config.num_attention_heads * dim,
        "k": config.num_key_value_heads * dim,
        "v": config.num_key_value_heads * dim,
        "gate": config.intermediate_size,
        "up": config.intermediate_size,
    }


def parts_of(key, gradient, config):
    """A matrix's gradient, or those of its parts where they are fused."""
    layer, module, kind, *expert = key.split(".")
    rest = ".".join([kind, *expert])
    parts = {
        "qkv": ("q", "k", "v"),
        "gate_up": ("gate", "up"),
        "expert_gate_up": ("expert_gate", "expert_up"),
    }.get(module)
    if parts is None:
        yield key, gradient
    elif kind == "A":
        yield f"{layer}.{parts[0]}.{rest}", gradient
    else:
        at = 0
        for part in parts:
            size = sizes_of(config)[part.removeprefix("expert_")]
            yield f"{layer}.{part}.{rest}", gradient[at : at + size]
            at += size


def log_probs(model, ids, starts, rows, labels):
    found = []
    for begin, end in zip(starts, starts[1:]):
        logits = model(input_ids=torch.tensor([ids[begin:end]])).logits[0]
        scores = torch.log_softmax(logits.float(), -1)
        for row, label in zip(rows, labels):
            if begin <= row < end:
                found.append(scores[row - begin, label])
    return torch.stack(found)


def balance(model, ids, starts):
    """transformers' loss over the routers' logits of all segments together."""
    found = []
    for begin, end in zip(starts, starts[1:]):
        tokens = torch.tensor([ids[begin:end]])
        found.append(model(input_ids=tokens, output_router_logits=True).router_logits)
    logits = tuple(torch.cat(layer) for layer in zip(*found))
    n_experts = logits[0].shape[1]
    return load_balancing_loss_func(logits, n_experts, model.config.num_experts_per_tok)


def generate(name):
    case = CASES[name]
    model, parameters = adapted(name, *case)
    ids, starts, rows, labels = batch(model.config.vocab_size)
    scores = log_probs(model, ids, starts, rows, labels)
    loss = -scores.mean()
    extra = {}
    if name.endswith("_router"):
        router_loss = balance(model, ids, starts)
        extra["router_loss"] = router_loss.detach().reshape(1).numpy()
        (loss + ROUTER_COEF * router_loss).backward()
    else:
        loss.backward()
    tensors = {
        "ids": numpy.array(ids, numpy.int32),
        "starts": numpy.array(starts, numpy.int32),
        "rows": numpy.array(rows, numpy.int32),
        "labels": numpy.array(labels, numpy.int32),
        "log_probs": scores.detach().numpy(),
        "loss": loss.detach().reshape(1).numpy(),
        **extra,
    }
    for key, parameter in parameters.items():
        n_experts = getattr(model.config, "num_local_experts", 0)
        for whole, gradient in gradients_of(key, parameter, n_experts).items():
            for part, numbers in parts_of(whole, gradient, model.config):
                tensors["grad." + part] = sketch(numbers)
    if name in ("llama3", "qwen3"):
        tensors["losses"] = curve(model, parameters, ids, starts, rows, labels)
    save_file(tensors, os.path.join(HERE, name + ".safetensors"))
    print(name, float(loss), sum(t.nbytes for t in tensors.values()))


def curve(model, parameters, ids, starts, rows, labels):
    """100 steps as the Trainer of transformers takes them."""
    optimizer = torch.optim.AdamW(parameters.values(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda s: s / 10 if s < 10 else max(0.0, (N_STEPS - s) / (N_STEPS - 10)),
    )
    losses = []
    for _ in range(N_STEPS):
        optimizer.zero_grad()
        loss = -log_probs(model, ids, starts, rows, labels).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(parameters.values()), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss))
    return numpy.array(losses, numpy.float32)


if __name__ == "__main__":
    torch.manual_seed(0)
    for name in sys.argv[1:] or CASES:
        generate(name)

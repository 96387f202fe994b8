"""Make the tiny models of test_model.c and what transformers computes with them.

    python generate.py [name ...]

Needs torch, transformers 5 and safetensors; the tests need only the files
that this writes beside itself:

    <name>/config.json, model.safetensors   a model directory
    <name>/expected.safetensors             what transformers says of it
    rope.json                               frequencies of all rotary kinds

A model's weights are random, but scaled so that its logits are well spread
(standard deviation about 2) and that greedy decoding meets no near tie:
seeds and prompts are tried until each of the chosen tokens leads by MIN_GAP.
The same goes for the choice of experts: another one that is nearly as probable
would be a matter of rounding, and change the logits altogether.

expected.safetensors holds, for each prompt p<i>:
    p<i>.ids          I32 [n]        the prompt
    p<i>.logits_f32   F32 [k, vocab] logits of its last k tokens, computed in
                                     float32 from the stored weights
    p<i>.logits_bf16  F32 [k, vocab] the same with the model cast to bfloat16
                                     (to float16 where it is stored as that)
    p<i>.greedy       I32 [48]       tokens that greedy decoding appends (f32)
    p<i>.logits_end   F32 [vocab]    logits of the last of these; only where
                                     rotations depend on the length
"""

import json
import math
import os
import shutil
import sys

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers import Gemma2Config, Gemma3Config, Gemma3TextConfig, GemmaConfig
from transformers import Glm4Config, GlmConfig
from transformers import LlamaConfig, MistralConfig, MixtralConfig, Phi3Config
from transformers import Qwen2Config, Qwen3Config, Qwen3MoeConfig
from transformers.core_model_loading import revert_weight_conversion
from transformers.generation import LogitsProcessorList, StoppingCriteriaList

HERE = os.path.dirname(os.path.abspath(__file__))
N_GREEDY = 48
N_LAST = 4
MIN_GAP = 0.01

# how far the last expert chosen leads the first one that is not, in the logits
# of the router: bfloat16 moves them by a few hundredths, float32 by 1e-5
MIN_ROUTER_GAP = 0.15
MIN_GREEDY_ROUTER_GAP = 1e-3

# transformers' own bfloat16 strays from its float32 by up to 3 % of the
# largest logit; prompts where it strays more than this say nothing about us
MAX_BF16_ERROR = 0.012
PROMPT_LENGTHS = (1, 9, 37, 83)

COMMON = dict(
    vocab_size=256,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    rms_norm_eps=1e-5,
    bos_token_id=1,
    eos_token_id=2,
)


def small(**changes):
    return {**COMMON, **changes}


def narrow(**changes):
    options = dict(hidden_size=32, head_dim=16, num_attention_heads=4, intermediate_size=64)
    return small(**{**options, **changes})


def longrope_factors(n, seed):
    generator = torch.Generator().manual_seed(seed)
    return [round(float(x), 4) for x in 1 + 20 * torch.rand(n, generator=generator)]


MODELS = {
    # Llama 2: no grouping, everything default, untied
    "llama2": (
        LlamaConfig,
        small(num_key_value_heads=4, tie_word_embeddings=False),
        torch.bfloat16,
    ),
    # Llama 3.1: prompts reach beyond the original context; f16, tied
    "llama3": (
        LlamaConfig,
        small(
            vocab_size=320,
            tie_word_embeddings=True,
            rope_parameters=dict(
                rope_type="llama3",
                rope_theta=500000.0,
                factor=8.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_position_embeddings=32,
            ),
        ),
        torch.float16,
    ),
    # linear scaling, prompts within and beyond 64 tokens, biases everywhere,
    # stored in f32, narrow
    "linear": (
        LlamaConfig,
        small(
            hidden_size=32,
            head_dim=16,
            max_position_embeddings=64,
            attention_bias=True,
            mlp_bias=True,
            tie_word_embeddings=True,
            rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=4.0),
        ),
        torch.float32,
    ),
    # Mistral: window shorter than prompts, heads wider than hidden / heads
    "mistral": (
        MistralConfig,
        small(
            head_dim=32,
            sliding_window=24,
            tie_word_embeddings=False,
            intermediate_size=96,
            rope_parameters=dict(rope_type="default", rope_theta=1000000.0),
        ),
        torch.bfloat16,
    ),
    # Qwen2: biases on q, k, v; the last of three layers slides
    "qwen2": (
        Qwen2Config,
        small(
            num_hidden_layers=3,
            intermediate_size=96,
            tie_word_embeddings=True,
            use_sliding_window=True,
            sliding_window=20,
            max_window_layers=2,
            rope_parameters=dict(rope_type="default", rope_theta=1000000.0),
        ),
        torch.bfloat16,
    ),
    # Qwen2.5 with yarn
    "qwen25_yarn": (
        Qwen2Config,
        small(
            tie_word_embeddings=False,
            rope_parameters=dict(
                rope_type="yarn",
                rope_theta=1000000.0,
                factor=4.0,
                original_max_position_embeddings=64,
            ),
        ),
        torch.bfloat16,
    ),
    # yarn with everything that may be said of it
    "yarn": (
        LlamaConfig,
        narrow(
            tie_word_embeddings=False,
            rope_parameters=dict(
                rope_type="yarn",
                rope_theta=10000.0,
                factor=8.0,
                original_max_position_embeddings=32,
                beta_fast=8.0,
                beta_slow=0.5,
                mscale=0.9,
                mscale_all_dim=0.5,
                truncate=False,
            ),
        ),
        torch.bfloat16,
    ),
    # theta grows: prompts within and beyond 48 tokens, and past it on the way
    "dynamic": (
        LlamaConfig,
        narrow(
            tie_word_embeddings=False,
            max_position_embeddings=48,
            rope_parameters=dict(rope_type="dynamic", rope_theta=10000.0, factor=32.0),
        ),
        torch.bfloat16,
    ),
    # two sets of factors; in a Llama keys that are cached keep theirs
    "longrope": (
        LlamaConfig,
        narrow(
            tie_word_embeddings=False,
            rope_parameters=dict(
                rope_type="longrope",
                rope_theta=10000.0,
                short_factor=[round(1 + 0.1 * i, 2) for i in range(8)],
                long_factor=longrope_factors(8, 3),
                original_max_position_embeddings=48,
            ),
        ),
        torch.bfloat16,
    ),
    # Phi-3 with longrope: computed anew beyond 48 tokens; heads rotate in part
    "phi3_longrope": (
        Phi3Config,
        narrow(
            hidden_size=64,
            tie_word_embeddings=False,
            pad_token_id=0,
            original_max_position_embeddings=48,
            rope_parameters=dict(
                rope_type="longrope",
                rope_theta=10000.0,
                partial_rotary_factor=0.75,
                short_factor=[round(1 + 0.1 * i, 2) for i in range(6)],
                long_factor=longrope_factors(6, 3),
            ),
        ),
        torch.bfloat16,
    ),
    # GLM-4 of 2024: half of a head rotates, in neighbouring pairs; biases on
    # q, k, v; gate and up fused
    "glm": (
        GlmConfig,
        small(
            head_dim=16,
            num_key_value_heads=1,
            pad_token_id=0,
            eos_token_id=[2, 5],
            intermediate_size=96,
            partial_rotary_factor=0.5,
        ),
        torch.bfloat16,
    ),
    # GLM-4 of 2025: post norms, no biases, yarn, an odd number of pairs
    "glm4": (
        Glm4Config,
        small(
            head_dim=24,
            pad_token_id=0,
            attention_bias=False,
            intermediate_size=96,
            rope_parameters=dict(
                rope_type="yarn",
                rope_theta=10000.0,
                partial_rotary_factor=0.75,
                factor=4.0,
                original_max_position_embeddings=64,
            ),
        ),
        torch.bfloat16,
    ),
    # Phi-3-mini-4k: q, k and v fused, and all layers slide
    "phi3": (
        Phi3Config,
        small(sliding_window=21, intermediate_size=96, pad_token_id=0),
        torch.bfloat16,
    ),
    # Phi-4-mini: three quarters of a head rotate, longrope, grouped heads, tied
    "phi4_mini": (
        Phi3Config,
        small(
            hidden_size=96,
            num_attention_heads=6,
            intermediate_size=64,
            tie_word_embeddings=True,
            pad_token_id=0,
            sliding_window=300,
            partial_rotary_factor=0.75,
            original_max_position_embeddings=32,
            rope_parameters=dict(
                rope_type="longrope",
                rope_theta=10000.0,
                short_factor=[1.0, 1.0, 1.1, 1.2, 1.3, 1.5],
                long_factor=[1.0, 1.2, 2.0, 3.5, 5.0, 8.0],
            ),
        ),
        torch.bfloat16,
    ),
    # Gemma: embeddings scaled, norms of weight + 1, gelu's approximation;
    # sqrt(48) is no number of bfloat16
    "gemma": (
        GemmaConfig,
        small(hidden_size=48, head_dim=16, num_key_value_heads=1, pad_token_id=0),
        torch.bfloat16,
    ),
    # Gemma 2: post norms, soft caps that bite, a scale of its own, every
    # other layer sliding
    "gemma2": (
        Gemma2Config,
        small(
            hidden_size=48,
            head_dim=16,
            intermediate_size=96,
            num_hidden_layers=3,
            pad_token_id=0,
            query_pre_attn_scalar=4,
            sliding_window=19,
            attn_logit_softcapping=2.0,
            final_logit_softcapping=4.0,
        ),
        torch.bfloat16,
    ),
    # Gemma 3: norms on q and k, a full layer among four that slide, each kind
    # with a rotary embedding of its own; stored in f32
    "gemma3": (
        Gemma3TextConfig,
        small(
            hidden_size=40,
            head_dim=16,
            intermediate_size=48,
            num_hidden_layers=5,
            num_key_value_heads=1,
            pad_token_id=0,
            query_pre_attn_scalar=9,
            sliding_window=17,
            sliding_window_pattern=3,
            rope_parameters=dict(
                full_attention=dict(rope_type="linear", factor=8.0, rope_theta=1000000.0),
                sliding_attention=dict(rope_type="default", rope_theta=10000.0),
            ),
        ),
        torch.float32,
    ),
    # Gemma 3 that also sees: its text model
    "gemma3_vision": (
        Gemma3Config,
        dict(
            text_config=small(
                hidden_size=40,
                head_dim=16,
                intermediate_size=48,
                num_hidden_layers=3,
                num_key_value_heads=1,
                pad_token_id=0,
                query_pre_attn_scalar=9,
                sliding_window=17,
                sliding_window_pattern=3,
                final_logit_softcapping=3.0,
                rope_parameters=dict(
                    full_attention=dict(rope_type="linear", factor=8.0, rope_theta=1000000.0),
                    sliding_attention=dict(rope_type="default", rope_theta=10000.0),
                ),
            ),
            vision_config=dict(
                hidden_size=8,
                intermediate_size=8,
                num_hidden_layers=1,
                num_attention_heads=1,
                image_size=8,
                patch_size=4,
            ),
            mm_tokens_per_image=4,
            boi_token_index=250,
            eoi_token_index=251,
            image_token_index=252,
            eos_token_id=[2, 7],
        ),
        torch.bfloat16,
    ),
    # Qwen3: norms on q and k, head_dim of its own, one kv head
    "qwen3": (
        Qwen3Config,
        small(
            head_dim=32,
            num_key_value_heads=1,
            vocab_size=288,
            tie_word_embeddings=True,
            rope_parameters=dict(rope_type="default", rope_theta=1000000.0),
        ),
        torch.bfloat16,
    ),
    # Mixtral: every layer a mixture, its weights renormalized; a window
    "mixtral": (
        MixtralConfig,
        small(
            intermediate_size=32,
            num_local_experts=6,
            num_experts_per_tok=2,
            sliding_window=24,
            tie_word_embeddings=False,
            rope_parameters=dict(rope_type="default", rope_theta=1000000.0),
        ),
        torch.bfloat16,
    ),
    # Qwen3-MoE: a dense layer between two mixtures
    "qwen3_moe": (
        Qwen3MoeConfig,
        small(
            num_hidden_layers=3,
            intermediate_size=96,
            head_dim=32,
            num_key_value_heads=1,
            num_experts=8,
            num_experts_per_tok=3,
            moe_intermediate_size=24,
            norm_topk_prob=True,
            mlp_only_layers=[1],
            tie_word_embeddings=False,
            rope_parameters=dict(rope_type="default", rope_theta=1000000.0),
        ),
        torch.bfloat16,
    ),
    # Qwen3-MoE: every other layer a mixture, nothing renormalized; biases
    "qwen3_moe_step": (
        Qwen3MoeConfig,
        small(
            num_experts=10,
            num_experts_per_tok=4,
            moe_intermediate_size=40,
            norm_topk_prob=False,
            decoder_sparse_step=2,
            attention_bias=True,
            tie_word_embeddings=True,
            rope_parameters=dict(rope_type="default", rope_theta=10000.0),
        ),
        torch.bfloat16,
    ),
}

# written as two shards with an index
SHARDED = {"mistral"}

# config.json in the form of transformers 4: rope_scaling, rope_theta, torch_dtype
OLD_FORM = {"gemma3", "phi4_mini", "llama3", "qwen25_yarn", "mixtral", "qwen3_moe_step"}


def fill_weights(model, seed):
    generator = torch.Generator().manual_seed(seed)

    def normal(parameter, std, mean=0.0):
        parameter.copy_(mean + std * torch.randn(parameter.shape, generator=generator))

    tied = model.config.tie_word_embeddings
    # Gemma's norms multiply by weight + 1
    one = 0.0 if model.config.model_type.startswith("gemma") else 1.0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            fan_in = parameter.shape[-1]
            if "norm" in name:
                normal(parameter, 0.15, one)
                if tied and name.endswith("model.norm.weight"):
                    # both signs: a tied embedding must not predict itself
                    parameter[::2] = 2 * (one - 1) - parameter[::2]
            elif name.endswith("bias"):
                normal(parameter, 0.3)
            elif "embed_tokens" in name:
                normal(parameter, 2.0 / math.sqrt(fan_in) if tied else 1.0)
            elif "lm_head" in name:
                normal(parameter, 2.0 / math.sqrt(fan_in))
            elif "q_proj" in name or "k_proj" in name:
                normal(parameter, 1.0 / math.sqrt(fan_in))
            elif name.endswith("mlp.gate.weight"):
                normal(parameter, 2.0 / math.sqrt(fan_in))
            else:
                normal(parameter, 0.8 / math.sqrt(fan_in))


def is_mixture(model):
    return hasattr(model.config, "num_experts_per_tok")


def router_gap(model, ids, first=0):
    """The smallest lead of a chosen expert over the others, from token first on."""
    if not is_mixture(model):
        return math.inf
    n_top = model.config.num_experts_per_tok
    with torch.no_grad():
        out = model(torch.tensor([ids]), use_cache=False, output_router_logits=True)
    gap = math.inf
    for logits in out.router_logits:
        best = torch.topk(logits, n_top + 1).values[first:]
        gap = min(gap, float((best[:, -2] - best[:, -1]).min()))
    return gap


def random_prompt(model, length, generator):
    vocab = model.config.get_text_config().vocab_size
    if not is_mixture(model):
        return torch.randint(3, vocab, (length,), generator=generator).tolist()
    ids = []
    while len(ids) < length:
        ids.append(int(torch.randint(3, vocab, (1,), generator=generator)))
        if router_gap(model, ids, len(ids) - 1) < MIN_ROUTER_GAP:
            ids.pop()
    return ids


def forget(model):
    """Its rotary embedding as new: dynamic's remembers the longest sequence it has seen.

    Also keeps the frequencies in float32 in a model that was cast as a whole.
    """
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config)


class Lead:
    """Watches generation: the smallest lead of a chosen token, which ends it when too small."""

    def __init__(self):
        self.gap = math.inf

    def __call__(self, ids, scores):
        best = torch.topk(scores[0], 2).values
        self.gap = min(self.gap, float(best[0] - best[1]))
        self.scores = scores[0]
        return scores

    def is_too_small(self, ids, scores):
        return torch.full((1,), self.gap < MIN_GAP)


def greedy(model, ids):
    """Returns the tokens, the smallest lead of a chosen one, and the last one's logits.

    By generate, cache and all: where rotations depend on the length, cached
    keys keep theirs, or the family throws them away.
    """
    lead = Lead()
    forget(model)
    model.generation_config.eos_token_id = None  # it is a token like any other
    tokens = model.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        generation_config=GenerationConfig(do_sample=False, max_new_tokens=N_GREEDY),
        logits_processor=LogitsProcessorList([lead]),
        stopping_criteria=StoppingCriteriaList([lead.is_too_small]),
    )
    return tokens[0, len(ids) :].tolist(), lead.gap, lead.scores.float().clone()


def last_logits(model, ids):
    forget(model)
    with torch.no_grad():
        logits = model(torch.tensor([ids]), use_cache=False).logits[0]
    return logits[-min(N_LAST, len(ids)) :].float().clone()


def find_prompt(model, half_model, length, generator):
    for _ in range(200):
        ids = random_prompt(model, length, generator)
        f32 = last_logits(model, ids)
        half = last_logits(half_model, ids)
        error = float(((half - f32).abs().amax(1) / f32.abs().amax(1)).max())
        if error > MAX_BF16_ERROR:
            continue
        tokens, gap, end = greedy(model, ids)
        if (
            gap >= MIN_GAP
            and len(set(tokens)) >= 5
            and router_gap(model, ids + tokens) >= MIN_GREEDY_ROUTER_GAP
        ):
            print(f"  {length}: std {f32.std():.2f} gap {gap:.3f} bf16 {error:.4f}", flush=True)
            return ids, f32, half, tokens, end
    return None


def expect(model, dtype, generator):
    expected = {}
    # weights stored in f16 are not exact in bfloat16: let it compute in f16
    half_dtype = torch.float16 if dtype == torch.float16 else torch.bfloat16
    half_model = model.__class__(model.config).to(half_dtype).eval()
    half_model.load_state_dict({k: v.to(half_dtype) for k, v in model.state_dict().items()})
    for i, length in enumerate(PROMPT_LENGTHS):
        found = find_prompt(model, half_model, length, generator)
        if found is None:
            return None
        ids, f32, half, tokens, end = found
        expected[f"p{i}.ids"] = torch.tensor(ids, dtype=torch.int32)
        expected[f"p{i}.logits_f32"] = f32
        expected[f"p{i}.logits_bf16"] = half
        expected[f"p{i}.greedy"] = torch.tensor(tokens, dtype=torch.int32)
        if model.config.rope_parameters.get("rope_type") in ("dynamic", "longrope"):
            expected[f"p{i}.logits_end"] = end
    return expected


def write_config(name, model, dtype, path):
    config = model.config.to_dict()
    config["architectures"] = [model.__class__.__name__]
    for key in ("dtype", "torch_dtype", "_name_or_path", "id2label", "label2id"):
        config.pop(key, None)
    config["dtype"] = str(dtype).removeprefix("torch.")
    if name in OLD_FORM:
        rope = dict(config.pop("rope_parameters"))
        if name == "gemma3":
            config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
            rope = rope["full_attention"]
        config["rope_theta"] = rope.pop("rope_theta")
        if name == "phi4_mini":
            config["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
            rope.pop("original_max_position_embeddings")
            rope.pop("rope_type")
            rope["type"] = "su"
        if name == "qwen25_yarn":
            rope["type"] = rope.pop("rope_type")
        config["rope_scaling"] = rope
        config["torch_dtype"] = config.pop("dtype")
        if config["model_type"] == "qwen3_moe":
            config["num_experts"] = config.pop("num_local_experts")
        config.pop("layer_types", None)
    with open(os.path.join(path, "config.json"), "w") as file:
        json.dump(config, file, indent=1, sort_keys=True)
        file.write("\n")


def write_weights(name, model, dtype, path):
    state = {k: v.to(dtype) for k, v in model.state_dict().items()}
    if is_mixture(model) or hasattr(model.config, "text_config"):
        # experts have tensors of their own in files, Gemma 3 other names
        state = revert_weight_conversion(model, state)
    state = {k: v.contiguous() for k, v in state.items()}
    if model.config.tie_word_embeddings:
        state = {k: v for k, v in state.items() if not k.endswith("lm_head.weight")}
    meta = {"format": "pt"}
    if name not in SHARDED:
        save_file(state, os.path.join(path, "model.safetensors"), meta)
        return
    names = sorted(state)
    halves = (names[: len(names) // 2], names[len(names) // 2 :])
    index = {"metadata": {"total_size": sum(v.nbytes for v in state.values())}, "weight_map": {}}
    for i, half in enumerate(halves):
        shard = f"model-{i + 1:05d}-of-00002.safetensors"
        save_file({k: state[k] for k in half}, os.path.join(path, shard), meta)
        index["weight_map"].update({k: shard for k in half})
    with open(os.path.join(path, "model.safetensors.index.json"), "w") as file:
        json.dump(index, file, indent=1, sort_keys=True)


def make(name):
    cls, options, dtype = MODELS[name]
    for seed in range(1000, 1100):
        config = cls(**options)
        config._attn_implementation = "eager"
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        fill_weights(model, seed)
        # the stored values are the reference's
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(parameter.to(dtype).float())
        expected = expect(model, dtype, torch.Generator().manual_seed(seed))
        if expected is not None:
            break
    else:
        raise RuntimeError(f"{name}: no seed without near ties")
    path = os.path.join(HERE, name)
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    write_config(name, model, dtype, path)
    write_weights(name, model, dtype, path)
    save_file(expected, os.path.join(path, "expected.safetensors"))
    size = sum(os.path.getsize(os.path.join(path, f)) for f in os.listdir(path))
    print(f"{name}: seed {seed}, {size} bytes", flush=True)


def rope_cases():
    """(config class, options, max_len): what rotates in sequences of max_len tokens."""
    base = dict(vocab_size=32, intermediate_size=32, num_hidden_layers=1)
    heads = lambda dim, n: dict(hidden_size=dim * n, num_attention_heads=n, num_key_value_heads=n)

    def case(dim, max_position, rope, max_len=None):
        options = {**base, **heads(dim, 2), "max_position_embeddings": max_position}
        options["rope_parameters"] = rope
        return LlamaConfig, options, max_len or max_position

    def partial(cls, factor, dim, max_position, rope, max_len=None):
        """The same where only a part of each head rotates."""
        rope = {**rope, "partial_rotary_factor": factor}
        _, options, max_len = case(dim, max_position, rope, max_len)
        options.update(head_dim=dim, pad_token_id=0)
        if cls is Phi3Config:
            options["original_max_position_embeddings"] = rope["original_max_position_embeddings"]
        return cls, options, max_len

    llama3 = dict(
        rope_type="llama3",
        rope_theta=500000.0,
        factor=32.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=8192,
    )
    yarn = dict(rope_type="yarn", rope_theta=1e6, factor=4.0, original_max_position_embeddings=32768)
    longrope = dict(
        rope_type="longrope",
        rope_theta=10000.0,
        short_factor=longrope_factors(48, 1),
        long_factor=longrope_factors(48, 2),
        original_max_position_embeddings=4096,
    )
    return [
        case(128, 4096, dict(rope_type="default", rope_theta=10000.0)),
        case(64, 131072, dict(rope_type="default", rope_theta=5e6)),
        case(128, 2048, dict(rope_type="linear", rope_theta=10000.0, factor=8.0)),
        case(128, 4096, dict(rope_type="dynamic", rope_theta=10000.0, factor=2.0)),
        case(128, 4096, dict(rope_type="dynamic", rope_theta=10000.0, factor=2.0), 7000),
        case(64, 131072, llama3),
        case(128, 131072, {**llama3, "factor": 8.0}),
        case(128, 131072, yarn),
        case(16, 256, {**yarn, "original_max_position_embeddings": 64}),
        case(128, 131072, {**yarn, "truncate": False}),
        case(64, 163840, {**yarn, "factor": 40.0, "mscale": 1.0, "mscale_all_dim": 0.7, "original_max_position_embeddings": 4096}),
        case(128, 131072, {**yarn, "attention_factor": 1.25, "beta_fast": 16.0, "beta_slow": 2.0}),
        case(96, 131072, longrope),
        case(96, 131072, longrope, 4096),
        case(96, 131072, {**longrope, "attention_factor": 1.5}),
        case(96, 131072, {**longrope, "factor": 8.0}),
        partial(GlmConfig, 0.5, 64, 4096, dict(rope_type="default", rope_theta=10000.0)),
        partial(GlmConfig, 0.5, 64, 4096, dict(rope_type="linear", rope_theta=10000.0, factor=4.0)),
        partial(GlmConfig, 0.5, 64, 4096, dict(rope_type="dynamic", rope_theta=10000.0, factor=4.0), 9000),
        partial(GlmConfig, 0.5, 64, 131072, yarn),
        partial(GlmConfig, 0.5, 64, 131072, llama3),
        partial(Phi3Config, 0.75, 128, 131072, longrope),
        partial(Phi3Config, 0.75, 128, 131072, longrope, 4096),
    ]


def make_rope():
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    from transformers.models.glm.modeling_glm import GlmRotaryEmbedding
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    by_default = {
        GlmConfig: GlmRotaryEmbedding.compute_default_rope_parameters,
        LlamaConfig: LlamaRotaryEmbedding.compute_default_rope_parameters,
    }
    cases = []
    for cls, options, max_len in rope_cases():
        rope = json.loads(json.dumps(options["rope_parameters"]))
        config = cls(**options)
        kind = rope["rope_type"]
        if kind == "default":
            inv_freq, factor = by_default[cls](config)
        else:
            inv_freq, factor = ROPE_INIT_FUNCTIONS[kind](config, "cpu", seq_len=max_len)
        cases.append(
            {
                "config": {
                    **options,
                    "rope_parameters": rope,
                    "architectures": [cls.__name__.replace("Config", "ForCausalLM")],
                    "model_type": cls.model_type,
                },
                "max_len": max_len,
                "inv_freq": [float(x) for x in inv_freq],
                "attention_factor": float(factor),
            }
        )
    with open(os.path.join(HERE, "rope.json"), "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
    print(f"rope.json: {len(cases)} cases")


def main():
    names = sys.argv[1:] or [*MODELS, "rope"]
    torch.set_num_threads(1)
    for name in names:
        if name == "rope":
            make_rope()
        else:
            make(name)


if __name__ == "__main__":
    main()

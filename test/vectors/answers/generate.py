"""What transformers says about prompts: hidden states and log-probabilities.

    python generate.py

Needs torch, transformers 5 and safetensors; the tests need only the file that
this writes beside itself.  The models and prompts are those of
test/vectors/model.

expected.safetensors holds, for each model and each of its prompts p<i>, all
computed in float32:
    <model>.p<i>.last      F32 [hidden]  final hidden state of the last token
    <model>.p<i>.mean      F32 [hidden]  mean of all tokens' final hidden states
    <model>.p<i>.logprobs  F32 [n - 1]   log-probabilities of all tokens but
                                         the first, given those before them
"""

import os

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
MODELS_DIR = os.path.join(HERE, "..", "model")
MODELS = ("llama3", "gemma2", "qwen3", "dynamic", "mixtral")


def describe(name, expected):
    path = os.path.join(MODELS_DIR, name)
    model = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    prompts = load_file(os.path.join(path, "expected.safetensors"))
    i = 0
    while f"p{i}.ids" in prompts:
        ids = prompts[f"p{i}.ids"].long()[None]
        with torch.no_grad():
            hidden = model.model(ids).last_hidden_state[0].double()
            logits = model(ids).logits[0].double()
        logprobs = logits.log_softmax(-1)[:-1]
        key = f"{name}.p{i}"
        expected[f"{key}.last"] = hidden[-1].float()
        expected[f"{key}.mean"] = hidden.mean(0).float()
        if ids.shape[1] > 1:
            expected[f"{key}.logprobs"] = (
                logprobs.gather(1, ids[0, 1:, None])[:, 0].float().contiguous()
            )
        i += 1


def main():
    torch.set_num_threads(1)
    expected = {}
    for name in MODELS:
        describe(name, expected)
    save_file(expected, os.path.join(HERE, "expected.safetensors"))


if __name__ == "__main__":
    main()

"""What transformers says about prompts: hidden states and log-probabilities.

    python generate.py

Needs torch, transformers 5 and safetensors; the tests need only the file that
this writes beside itself.  The models and prompts are those of
test/vectors/model.

demo.json holds the same of the demo model, in float64: embeddings of texts, and
label probabilities: prompt and label are tokenized as one text, and log-
probabilities summed from the first token on at which any label, or the prompt
alone, differs.

expected.safetensors holds, for each model and each of its prompts p<i>, all
computed in float32:
    <model>.p<i>.last      F32 [hidden]  final hidden state of the last token
    <model>.p<i>.mean      F32 [hidden]  mean of all tokens' final hidden states
    <model>.p<i>.logprobs  F32 [n - 1]   log-probabilities of all tokens but
                                         the first, given those before them
"""

import json
import os

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
MODELS_DIR = os.path.join(HERE, "..", "model")
DEMO = os.path.join(HERE, "..", "..", "..", "models", "demo")
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


TEXTS = ["Hello!", "The lamp is broken, it never worked.", "caf\u00e9 \u2603 " * 20]
LABELS = [
    ["praise", "bug", "question"],
    ["yes", "yes and no", "no"],
    [" spaced", "\nnewline", "!!!"],
    ["\u00e9t\u00e9", "\u2603"],
]


def question(text, labels):
    instruction = (
        "Classify the text into exactly one of the labels. Labels: "
        f"{', '.join(labels)}. Answer with the label only."
    )
    return [
        {"role": "system", "content": instruction},
        {"role": "user", "content": text},
    ]


def scores(model, tokenizer, text, labels, end_id):
    rendered = tokenizer.apply_chat_template(
        question(text, labels),
        tokenize=False,
        add_generation_prompt=True,
    )

    def encode(s):
        return tokenizer(s, add_special_tokens=False)["input_ids"]

    alone = encode(rendered)
    wholes = [encode(rendered + label) for label in labels]
    n_shared = len(alone)
    for ids in wholes:
        n = 0
        while n < min(len(ids), len(alone)) and ids[n] == alone[n]:
            n += 1
        n_shared = min(n_shared, n, len(ids) - 1)
    sums = []
    for ids in wholes:
        ids = ids + end_id
        with torch.no_grad():
            logprobs = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        sums.append(sum(logprobs[i - 1, ids[i]] for i in range(n_shared, len(ids))))
    counts = torch.tensor([len(ids) + len(end_id) - n_shared for ids in wholes])
    sums = torch.stack(sums)
    return {
        "split": n_shared < len(alone),
        "sum": sums.softmax(0).tolist(),
        "mean": (sums / counts).softmax(0).tolist(),
    }


def describe_demo():
    model = AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32).double()
    tokenizer = AutoTokenizer.from_pretrained(DEMO)
    end = model.generation_config.eos_token_id
    end = end[0] if isinstance(end, list) else end
    embeddings = []
    for text in TEXTS:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            hidden = model.model(ids).last_hidden_state[0]
        embeddings.append(
            {"text": text, "last": hidden[-1].tolist(), "mean": hidden.mean(0).tolist()}
        )
    cases = []
    for labels in LABELS:
        for text in TEXTS[:2]:
            cases.append(
                {
                    "text": text,
                    "labels": labels,
                    "plain": scores(model, tokenizer, text, labels, []),
                    "ended": scores(model, tokenizer, text, labels, [end]),
                }
            )
    rounded = json.loads(
        json.dumps({"embeddings": embeddings, "scores": cases}),
        parse_float=lambda s: round(float(s), 7),
    )
    with open(os.path.join(HERE, "demo.json"), "w") as file:
        json.dump(rounded, file, indent=None, separators=(",", ":"))
        file.write("\n")
    print("labels split:", [c["plain"]["split"] for c in cases])


def main():
    torch.set_num_threads(1)
    describe_demo()
    expected = {}
    for name in MODELS:
        describe(name, expected)
    save_file(expected, os.path.join(HERE, "expected.safetensors"))


if __name__ == "__main__":
    main()

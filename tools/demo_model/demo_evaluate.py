"""
demo_evaluate.py
    Measures a trained demo model: exact answers on held-out text, by task.

Uses transformers' LlamaForCausalLM on the saved files, greedy, in float32,
so that the figures are those of the files and not of the training code.

    python tools/demo_model/demo_evaluate.py models/demo [--examples 500]

tools/demo_model/demo_evaluate.py
"""

import argparse
import random

import torch

import demo_smalltalk as talk
import demo_wild
from demo_tasks import TASKS, Writer


def load(path, device):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.padding_side = "left"
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).to(device).eval()
    return model, tokenizer


@torch.inference_mode()
def answers(model, tokenizer, conversations, batch=250, max_new_tokens=200):
    """The greedy answer to each conversation."""
    texts = [tokenizer.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in conversations]
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    result = [None] * len(texts)
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        inputs = tokenizer([texts[i] for i in chosen], return_tensors="pt", padding=True, add_special_tokens=False)
        inputs = {k: v.to(model.device) for k, v in inputs.items() if k in ("input_ids", "attention_mask")}
        output = model.generate(**inputs, do_sample=False, max_length=None, max_new_tokens=max_new_tokens)
        for i, ids in zip(chosen, output[:, inputs["input_ids"].shape[1] :]):
            result[i] = tokenizer.decode(ids, skip_special_tokens=True)
    return result


def measure(model, tokenizer, n_examples, split="test", n_shown=4, **options):
    """Accuracy by task on examples of a split; prints some of the errors."""
    figures = {}
    for task in TASKS:
        writer = Writer(random.Random(f"{split} {task}"), split)
        examples = [writer.example(task) for _ in range(n_examples)]
        given = answers(model, tokenizer, [e[:-1] for e in examples], **options)
        wrong = [(e, a) for e, a in zip(examples, given) if a != e[-1]["content"]]
        figures[task] = 1 - len(wrong) / n_examples
        print(f"{split} {task}: {100 * figures[task]:.1f} % of {n_examples} exact", flush=True)
        for example, answer in wrong[:n_shown]:
            asked = " || ".join(m["content"] for m in example[-4:-1])
            print(f"    asked {asked[-500:]!r}\n    right {example[-1]['content']!r}\n    given {answer[:200]!r}")
    return figures


def measure_wild(model, tokenizer, **options):
    """The handwritten prompts: right and total by task."""
    figures = {}
    for task, cases in demo_wild.cases().items():
        given = answers(model, tokenizer, [c for c, _ in cases], **options)
        figures[task] = (sum(a == right for a, (_, right) in zip(given, cases)), len(cases))
        print(f"handwritten {task}: {figures[task][0]} of {figures[task][1]}", flush=True)
        for (conversation, right), answer in zip(cases, given):
            if answer != right:
                print(f"    {conversation[-1]['content']!r}: right {right!r}, given {answer[:200]!r}")
    given = answers(model, tokenizer, [demo_wild.messages(None, text) for text, _ in demo_wild.CHAT], **options)
    for (text, right), answer in zip(demo_wild.CHAT, given):
        right = talk.DECLINE if right == "decline" else right
        print(f"    {text!r} -> {answer[:200]!r}{'' if right in (None, answer) else '   WRONG'}")
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path")
    parser.add_argument("--examples", type=int, default=500)
    parser.add_argument("--batch", type=int, default=100)
    args = parser.parse_args()
    model, tokenizer = load(args.path, "cuda" if torch.cuda.is_available() else "cpu")
    measure(model, tokenizer, args.examples, batch=args.batch)
    measure_wild(model, tokenizer, batch=args.batch)


if __name__ == "__main__":
    main()

"""
train.py
    Trains the demo model from scratch on text that it writes itself, measures
    it on held-out text and writes models/demo with its model card.

    python tools/demo_model/train.py --out models/demo --minutes 8

Needs PyTorch, transformers, tokenizers and safetensors; a GPU makes it a
matter of minutes.  The learning rate follows the clock, so that --minutes
is what it takes.

tools/demo_model/train.py
"""

import argparse
import math
import os
import random
import time
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

import demo_card
import demo_evaluate
import demo_model
import demo_tokenizer as tok
from demo_tasks import Writer

PROMPT_WEIGHT = 0.01  # loss per token of what the model is told
RAW_WEIGHT = 0.1  # loss per token of plain text


class Encoder:
    """Examples as token ids with a loss weight for each."""

    def __init__(self, path):
        self.tokenizer = Tokenizer.from_file(str(path))
        self.id = {t: self.tokenizer.token_to_id(t) for t in tok.SPECIAL}
        self.newline = self.tokenizer.encode("\n", add_special_tokens=False).ids

    def encode(self, examples):
        texts = []
        for example in examples:
            texts += [example] if isinstance(example, str) else [m["content"].strip() for m in example]
        encoded = iter(self.tokenizer.encode_batch(texts, add_special_tokens=False))
        return [self.one(example, encoded) for example in examples]

    def one(self, example, encoded):
        ids, weights = [self.id[tok.BOS]], [0.0]
        if isinstance(example, str):
            ids += next(encoded).ids + [self.id[tok.END_OF_TEXT]]
            return ids, weights + [RAW_WEIGHT] * (len(ids) - 1)
        for message in example:
            content = next(encoded).ids
            ids += [self.id[tok.ROLES[message["role"]]]] + self.newline
            weights += [0.0] * (1 + len(self.newline))
            ids += content + [self.id[tok.END]] + self.newline
            if message["role"] == "assistant":
                # long answers weigh more than short ones, but less than by length
                weights += [(len(content) + 1) ** -0.5] * (len(content) + 1) + [0.0] * len(self.newline)
            else:
                weights += [PROMPT_WEIGHT] * (len(content) + 1) + [0.0] * len(self.newline)
        return ids, weights


class Steps(torch.utils.data.IterableDataset):
    """Endless steps: lists of (ids, weights) batches of about equal lengths."""

    def __init__(self, tokenizer_path, n_tokens, n_batches, seed, n_uses=1):
        self.tokenizer_path, self.n_tokens, self.n_batches, self.seed = tokenizer_path, n_tokens, n_batches, seed
        self.n_uses = n_uses
        self.n_pool = max(500, n_tokens * n_batches // 12)

    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        worker = info.id if info else 0
        rng = random.Random(f"{self.seed} {worker}")
        writer, encoder = Writer(rng, "train"), Encoder(self.tokenizer_path)
        pool = []
        while True:
            if len(pool) < 2 * self.n_batches:
                fresh = self.batches(encoder.encode([writer.training_example() for _ in range(self.n_pool)]), encoder)
                pool += fresh * self.n_uses
                rng.shuffle(pool)
            yield [pool.pop() for _ in range(self.n_batches)]

    def batches(self, encoded, encoder):
        encoded = [e for e in encoded if len(e[0]) <= tok.MAX_POSITIONS]
        encoded.sort(key=lambda e: len(e[0]))
        result, start = [], 0
        while start < len(encoded):
            end = start
            while end < len(encoded) and (end + 1 - start) * len(encoded[end][0]) <= self.n_tokens:
                end += 1
            end = max(end, start + 1)
            length = -(-len(encoded[end - 1][0]) // 16) * 16
            ids = numpy.full((end - start, length), encoder.id[tok.PAD], dtype=numpy.int16)
            weights = numpy.zeros((end - start, length), dtype=numpy.float32)
            for row, (i, w) in enumerate(encoded[start:end]):
                ids[row, : len(i)] = i
                weights[row, : len(w)] = w
            result.append((torch.from_numpy(ids), torch.from_numpy(weights)))
            start = end
        return result


def batch_loss(model, ids, weights):
    logits = model(ids)[:, :-1]
    losses = F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
    return (losses * weights[:, 1:].flatten()).sum()


def learning_rate(args, step, progress):
    warm = min(1.0, (step + 1) / args.warmup)
    return args.lr * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def make_optimizer(model, lr, device):
    matrices = [p for p in model.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), eps=1e-9, fused=device == "cuda")


class Trainer:
    def __init__(self, args, tokenizer_path):
        self.args = args
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.manual_seed(args.seed)
        torch.set_float32_matmul_precision("high")
        config = dict(demo_model.CONFIG)
        if args.tiny:
            config.update(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1)
        self.model = demo_model.Llama(config).to(self.device)
        if args.init:
            from safetensors.torch import load_file

            self.model.load_state_dict({k: v.float() for k, v in load_file(str(Path(args.init) / "model.safetensors")).items()})
        self.run = torch.compile(self.model, dynamic=True) if args.compile else self.model
        self.optimizer = make_optimizer(self.model, args.lr, self.device)
        steps = Steps(tokenizer_path, args.batch_tokens, args.batches, args.seed, args.uses)
        self.loader = torch.utils.data.DataLoader(
            steps, batch_size=None, num_workers=args.workers, prefetch_factor=8 if args.workers else None,
            pin_memory=self.device == "cuda",
        )
        check = Steps(tokenizer_path, args.batch_tokens, 4, "check")
        self.check = [self.to_device(b) for b in next(iter(check))]
        self.best = (math.inf, None)

    def to_device(self, batch):
        ids, weights = batch
        return ids.to(self.device, non_blocking=True).long(), weights.to(self.device, non_blocking=True)

    def loss(self, batch):
        with torch.autocast(self.device, dtype=torch.bfloat16):
            return batch_loss(self.run, *batch)

    def keep_best(self, step, started):
        self.model.eval()
        with torch.no_grad():
            total = sum(self.loss(b).item() for b in self.check) / sum(b[1].sum().item() for b in self.check)
        self.model.train()
        print(f"step {step}, {time.time() - started:.0f} s: check loss {total:.4f}", flush=True)
        if total < self.best[0]:
            self.best = (total, {k: v.detach().clone() for k, v in self.model.state_dict().items()})

    def train(self):
        args = self.args
        n_tokens, waited = 0, 0.0
        iterator = iter(self.loader)
        batches = next(iterator)  # the workers are up: now the clock runs
        started, step = time.time(), 0
        limit = args.minutes * 60
        next_check = limit / 12
        while True:
            elapsed = time.time() - started
            progress = max(elapsed / limit, step / args.steps if args.steps else 0)
            if progress >= 1:
                break
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(args, step, progress)
            batches = [self.to_device(b) for b in batches]
            weight = sum(b[1].sum() for b in batches)
            total = 0
            for batch in batches:
                loss = self.loss(batch) / weight
                loss.backward()
                total = total + loss.detach()
                n_tokens += batch[0].numel()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            step += 1
            if step % 100 == 0 or step < 4:
                rate = n_tokens / (time.time() - started) / 1e6
                print(f"step {step}: loss {total.item():.4f}, {rate:.2f} M tokens/s, waited {waited:.1f} s for text", flush=True)
            if time.time() - started > next_check:
                next_check += limit / 12
                self.keep_best(step, started)
            waiting = time.time()
            batches = next(iterator)
            waited += time.time() - waiting
        self.keep_best(step, started)
        self.model.load_state_dict(self.best[1])
        return {"steps": step, "tokens": n_tokens, "seconds": time.time() - started, "loss": self.best[0]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--steps", type=int, default=0, help="stop after this many steps (0: by the clock alone)")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--warmup", type=int, default=300)
    parser.add_argument("--batch-tokens", type=int, default=36864)
    parser.add_argument("--batches", type=int, default=2, help="batches of a step")
    parser.add_argument("--uses", type=int, default=2, help="how often an example is trained on")
    parser.add_argument("--workers", type=int, default=max(0, len(os.sched_getaffinity(0)) - 2))
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--tokenizer", help="take the tokenizer of this model directory instead of learning one")
    parser.add_argument("--init", help="continue from the weights of this model directory, with its tokenizer")
    parser.add_argument("--examples", type=int, default=500, help="held-out examples of a task")
    parser.add_argument("--show", type=int, default=4, help="wrong answers to print for each task")
    parser.add_argument("--compile", action="store_true", help="use torch.compile")
    parser.add_argument("--tiny", action="store_true", help="a tiny network, to try the script")
    args = parser.parse_args()

    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    source = args.init or args.tokenizer
    if source:
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            (out / name).write_text((Path(source) / name).read_text())
        tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    else:
        tokenizer = tok.build(out, 20000 if args.tiny else 60000)
    print(f"vocabulary {tokenizer.get_vocab_size()}", flush=True)

    trainer = Trainer(args, out / "tokenizer.json")
    n_parameters = sum(p.numel() for p in trainer.model.parameters())
    print(f"{n_parameters} parameters on {trainer.device}", flush=True)
    report = trainer.train()
    names = {"bos": tok.BOS, "end": tok.END, "end_of_text": tok.END_OF_TEXT, "pad": tok.PAD}
    demo_model.save(trainer.model, out, {k: tokenizer.token_to_id(v) for k, v in names.items()})

    model, hf_tokenizer = demo_evaluate.load(str(out), trainer.device)
    batch = 500 if trainer.device == "cuda" else 50
    figures = demo_evaluate.measure(model, hf_tokenizer, args.examples, n_shown=args.show, batch=batch)
    wild = demo_evaluate.measure_wild(model, hf_tokenizer)
    report.update(parameters=n_parameters, examples=args.examples)
    (out / "README.md").write_text(demo_card.card(figures, wild, report))
    lowest = min(figures, key=figures.get)
    print(f"lowest held-out accuracy: {lowest} {100 * figures[lowest]:.1f} %")


if __name__ == "__main__":
    main()

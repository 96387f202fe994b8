"""What TRL's trainers do with preferences: the reference of test_train_curves.c.

    python generate_preference.py [name ...]

Needs torch, transformers 5, peft, trl, datasets and safetensors.  Each case is
a job of TRL's own trainer, over a few rows of tokens, that goes on from an
adapter; the file <name>.safetensors beside this one has

    sizes          I32 [n_rows, 4]  tokens of prompt, first and second answer
                                    (0: none); 1 where the row is desirable
    ids            I32 [...]        all tokens, row by row
    losses         F32 [n_steps]
    rewards        F32 [n_steps, 4] as logged: accuracies, chosen, rejected,
                                    margins; NaN: not logged
    grad.<layer>.<module>.<A|B>     of the last step, before it is taken;
                                    generate.py's sketch

Values of A and B begin as generate.py's formula says.

ORPO's trainer takes the likelihood's mean over the tokens of a micro-batch,
prompts included, and the weighted sum of "sigmoid" and "sft" that RPO is takes
it over a micro-batch's chosen answers.  Ours is over the step's tokens for the
first, so that accumulation makes no difference, and over each answer's for the
second, as in LLaMA-Factory.  So these jobs have one micro-batch a step, and
one row a micro-batch.  TRL's trainer has label smoothing in its "robust" loss
alone, of which the conservative one is a linear combination:
-(1 - e) s(x) - e s(-x) = 2 (1 - e) sigmoid - (1 - 2 e) robust.
"""

import os
import sys
import tempfile

import numpy
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from generate import ALPHA, FUSED, HERE, MODELS, RANK, matrix, sketch

MODEL = "qwen3"
N_ROWS = 12
BATCH = 3
ACCUMULATION = 2
N_EPOCHS = 3
EOS = 1
MODULES = ("q", "v", "o", "down")

COMMON = dict(
    per_device_train_batch_size=BATCH,
    gradient_accumulation_steps=ACCUMULATION,
    num_train_epochs=N_EPOCHS,
    learning_rate=5e-3,
    lr_scheduler_type="constant",
    max_grad_norm=0.0,
    logging_steps=1,
    save_strategy="no",
    report_to="none",
    use_cpu=True,
    bf16=False,
    gradient_checkpointing=False,
    max_length=64,
    train_sampling_strategy="sequential",
    disable_tqdm=True,
)

CASES = {
    "kto": (KTOTrainer, KTOConfig, dict(beta=0.3, desirable_weight=1.0, undesirable_weight=1.5)),
    "dpo": (DPOTrainer, DPOConfig, dict(beta=0.2)),
    "hinge": (DPOTrainer, DPOConfig, dict(beta=0.3, loss_type="hinge")),
    "ipo": (DPOTrainer, DPOConfig, dict(beta=0.4, loss_type="ipo")),
    "cdpo": (
        DPOTrainer,
        DPOConfig,
        dict(
            beta=0.2,
            label_smoothing=0.15,
            loss_type=["sigmoid", "robust"],
            loss_weights=[2 * 0.85, -0.7],
        ),
    ),
    "rpo": (
        DPOTrainer,
        DPOConfig,
        dict(
            beta=0.2,
            loss_type=["sigmoid", "sft"],
            loss_weights=[1.0, 0.5],
            per_device_train_batch_size=1,
            gradient_accumulation_steps=BATCH * ACCUMULATION,
        ),
    ),
    "orpo": (
        ORPOTrainer,
        ORPOConfig,
        dict(
            beta=0.3,
            per_device_train_batch_size=BATCH * ACCUMULATION,
            gradient_accumulation_steps=1,
        ),
    ),
    "simpo": (
        CPOTrainer,
        CPOConfig,
        dict(beta=2.0, loss_type="simpo", simpo_gamma=0.4, cpo_alpha=0.0),
    ),
}

REWARDS = ("accuracies", "chosen", "rejected", "margins")


def tokenizer(vocab):
    # special tokens are cut out of words: they must not begin any
    words = {"<unk>": 0, "<end>": EOS, "<pad>": 2, **{f"t{i}": i for i in range(3, vocab)}}
    base = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    base.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=base, eos_token="<end>", pad_token="<pad>")


def rows(vocab, has_second):
    def tokens(n, i, salt):
        return [3 + (t * t * 7 + t * 13 + i * 31 + salt * 17) % (vocab - 3) for t in range(n)]

    return [
        (
            tokens(4 + i * 5 % 7, i, 0),
            tokens(3 + i * 3 % 8, i, 1) + [EOS],
            tokens(2 + i * 7 % 9, i, 2) + [EOS] if has_second else [],
            int(i % 3 != 1),
        )
        for i in range(N_ROWS)
    ]


def text(ids):
    return " ".join(f"t{i}" for i in ids)


def adapted():
    model = AutoModelForCausalLM.from_pretrained(
        os.path.join(MODELS, MODEL), dtype=torch.float32, attn_implementation="eager"
    )
    model = get_peft_model(
        model,
        LoraConfig(
            r=RANK,
            lora_alpha=ALPHA,
            target_modules=[m + "_proj" for m in MODULES],
            task_type="CAUSAL_LM",
        ),
    )
    parameters = {}
    for key, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        parts = key.split(".")
        layer = int(parts[parts.index("layers") + 1])
        module = [p[:-5] for p in parts if p.endswith("_proj")][-1]
        kind = "A" if "lora_A" in key else "B"
        salt = layer * 100 + FUSED[module] * 10 + (kind == "B")
        scale = 2 / parameter.shape[1] ** 0.5 if kind == "A" else 0.2
        parameter.data = matrix(parameter.shape, salt, scale)
        parameters[f"{layer}.{module}.{kind}"] = parameter
    return model, parameters


class Recorder(TrainerCallback):
    def __init__(self, parameters):
        self.parameters = parameters
        self.losses = []
        self.rewards = []

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.gradients = {k: p.grad.numpy().copy() for k, p in self.parameters.items()}

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            self.losses.append(logs["loss"])
            self.rewards.append([logs.get("rewards/" + r, float("nan")) for r in REWARDS])


def generate(name):
    trainer_class, config_class, options = CASES[name]
    model, parameters = adapted()
    data = rows(model.config.vocab_size, name != "kto")
    table = {"prompt": [text(r[0]) for r in data]}
    if name == "kto":
        table["completion"] = [text(r[1][:-1]) for r in data]
        table["label"] = [bool(r[3]) for r in data]
    else:
        table["chosen"] = [text(r[1][:-1]) for r in data]
        table["rejected"] = [text(r[2][:-1]) for r in data]
    # the tokenizer splits at spaces: prompt and answer must not join
    for key in ("completion", "chosen", "rejected"):
        if key in table:
            table[key] = [" " + t for t in table[key]]
    recorder = Recorder(parameters)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = trainer_class(
            model=model,
            args=config_class(output_dir=scratch, **{**COMMON, **options}),
            train_dataset=Dataset.from_dict(table),
            processing_class=tokenizer(model.config.vocab_size),
            callbacks=[recorder],
        )
        trainer.train()
    tensors = {
        "sizes": numpy.array(
            [[len(r[0]), len(r[1]), len(r[2]), r[3] if name == "kto" else 0] for r in data],
            numpy.int32,
        ),
        "ids": numpy.array([i for r in data for i in r[0] + r[1] + r[2]], numpy.int32),
        "losses": numpy.array(recorder.losses, numpy.float32),
        "rewards": numpy.array(recorder.rewards, numpy.float32),
    }
    for key, gradient in recorder.gradients.items():
        tensors["grad." + key] = sketch(gradient)
    save_file(tensors, os.path.join(HERE, name + ".safetensors"))
    print(name, recorder.losses, recorder.rewards, sum(t.nbytes for t in tensors.values()))


if __name__ == "__main__":
    torch.manual_seed(0)
    for name in sys.argv[1:] or CASES:
        generate(name)

"""Preference losses and learning rates: the reference of test_train_job.c.

    python generate_losses.py

Needs torch and transformers 5; writes losses.json and rates.json beside
itself.  Losses are written down from the papers' formulas and differentiated
by autograd; rates are what transformers' own schedulers give.
"""

import json
import os

import torch
from torch.nn import functional
from transformers import get_scheduler

HERE = os.path.dirname(os.path.abspath(__file__))

PAIRS = [
    # sums of chosen and rejected, of the reference, numbers of labels
    (-12.5, -14.0, -13.0, -13.5, 9, 11),
    (-3.25, -2.5, -3.0, -2.75, 2, 5),
    (-40.0, -0.5, -10.0, -30.0, 40, 3),
    (-0.001, -90.0, -5.0, -50.0, 7, 80),
    (-12.0, -12.0, -12.0, -12.0, 6, 6),
]
OPTIONS = [
    dict(kind="sigmoid", beta=0.1, label_smoothing=0.0, simpo_gamma=0.5, ftx=0.0),
    dict(kind="sigmoid", beta=0.5, label_smoothing=0.2, simpo_gamma=0.5, ftx=0.3),
    dict(kind="hinge", beta=0.3, label_smoothing=0.0, simpo_gamma=0.5, ftx=0.0),
    dict(kind="ipo", beta=0.1, label_smoothing=0.0, simpo_gamma=0.5, ftx=0.0),
    dict(kind="orpo", beta=0.1, label_smoothing=0.0, simpo_gamma=0.5, ftx=0.0),
    dict(kind="simpo", beta=2.0, label_smoothing=0.0, simpo_gamma=0.5, ftx=0.0),
]


def loss_of(o, chosen, rejected, ref_chosen, ref_rejected, n_chosen, n_rejected):
    gain = (chosen - ref_chosen) - (rejected - ref_rejected)
    mean_c, mean_r = chosen / n_chosen, rejected / n_rejected
    if o["kind"] == "sigmoid":
        e = o["label_smoothing"]
        loss = -(1 - e) * functional.logsigmoid(o["beta"] * gain)
        loss = loss - e * functional.logsigmoid(-o["beta"] * gain)
    elif o["kind"] == "hinge":
        loss = functional.relu(1 - o["beta"] * gain)
    elif o["kind"] == "ipo":
        gain = (chosen - ref_chosen) / n_chosen - (rejected - ref_rejected) / n_rejected
        loss = (gain - 1 / (2 * o["beta"])) ** 2
    elif o["kind"] == "orpo":
        odds = (mean_c - mean_r) - (
            torch.log(-torch.expm1(mean_c)) - torch.log(-torch.expm1(mean_r))
        )
        loss = -mean_c - o["beta"] * functional.logsigmoid(odds)
    else:
        loss = -functional.logsigmoid(o["beta"] * (mean_c - mean_r) - o["simpo_gamma"])
    return loss - o["ftx"] * mean_c


def losses():
    cases = []
    for o in OPTIONS:
        for pair in PAIRS:
            chosen = torch.tensor(pair[0], dtype=torch.float64, requires_grad=True)
            rejected = torch.tensor(pair[1], dtype=torch.float64, requires_grad=True)
            loss = loss_of(o, chosen, rejected, *pair[2:])
            loss.backward()
            d_rejected = 0.0 if rejected.grad is None else rejected.grad.item()
            cases.append(
                dict(o, pair=pair, loss=loss.item(), d_chosen=chosen.grad.item(), d_rejected=d_rejected)
            )
    return cases


RATES = [
    ("linear", 40, 0, {}),
    ("linear", 40, 7, {}),
    ("cosine", 40, 5, {}),
    ("cosine_with_restarts", 40, 4, dict(num_cycles=3)),
    ("cosine_with_min_lr", 40, 4, dict(min_lr_rate=0.2)),
    ("polynomial", 40, 4, dict(power=2.0)),
    ("constant", 40, 0, {}),
    ("constant_with_warmup", 40, 6, {}),
    ("inverse_sqrt", 40, 6, {}),
    ("inverse_sqrt", 40, 0, {}),
]


def rates():
    cases = []
    for name, n_steps, n_warmup, extra in RATES:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3e-4)
        scheduler = get_scheduler(
            name, optimizer, num_warmup_steps=n_warmup, num_training_steps=n_steps,
            scheduler_specific_kwargs=extra,
        )
        found = []
        for _ in range(n_steps + 3):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        cases.append(dict(kind=name, n_steps=n_steps, n_warmup=n_warmup, extra=extra, rates=found))
    return cases


def write(name, cases):
    with open(os.path.join(HERE, name), "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")


write("losses.json", losses())
write("rates.json", rates())

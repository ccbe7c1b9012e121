"""Protocols `imagenet-linear` and `linear-sgd`: linear heads by SGD on a frozen backbone.

All learning rates are trained on augmented images in one pass of the backbone. Where there are
several, each has two heads: one skips the held-out rows, the other uses all of train + val. The
first heads' validation scores select the rate (ties go to the smaller one), and the second head of
that rate answers for test. So selection and refit cost one pass instead of two.

Letters: B batch, D features, C classes, H heads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from harl_bench.classify import scores, training
from harl_bench.classify.datasets import DataSet
from harl_bench.classify.network import Precision, network
from harl_bench.classify.outcome import Outcome, near_edge, require_images
from harl_bench.classify.pixels import Transform, Unreadable
from harl_bench.classify.splits import Rows
from harl_bench.convert.read import Backbone
from harl_bench.core.files import write_json
from harl_bench.core.progress import log
from harl_bench.nn.resnet import FEATURES

PER = 256  # images of a batch that a learning rate is stated for


def run(
    data: DataSet,
    splits: dict[str, Rows],
    backbone: Backbone,
    *,
    lr: list[float],
    epochs: float,
    batch_size: int,
    momentum: float,
    weight_decay: float,
    norm: bool,
    schedule: training.Schedule,
    milestones: tuple[float, ...],
    transform: Transform,
    crop_area: tuple[float, float],
    precision: Precision,
    seed: int,
    folder: Path,
    device: torch.device,
    workers: int,
    allow_unreadable: bool,
) -> Outcome:
    """Train all heads, select on val, answer for test with the last epoch's head.

    Args:
        lr: per 256 images of a batch; one alone is not selected, and sees train + val.
        norm: a batch norm before the linear layer, as VISSL's eval_mlp.
        folder: the run folder; selection.json and checkpoints are written there.
    """
    unreadable = Unreadable(data, allow_unreadable)
    trunk = network(backbone, device)
    rows = np.sort(np.concatenate([splits["train"], splits.get("val", np.empty(0, np.int64))]))
    held = torch.zeros(len(data.paths), dtype=torch.bool)
    held[torch.from_numpy(splits["val"]) if "val" in splits else []] = True
    labels = torch.from_numpy(data.labels)
    kinds = ("train", "all") if len(lr) > 1 else ("all",)
    names = [f"{kind}-{i}" for kind in kinds for i in range(len(lr))]
    heads = Heads(names, len(data.classes), norm, FEATURES[backbone.arch]).to(device)

    def features(pixels: Tensor) -> Tensor:
        with (
            torch.no_grad(),
            torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"),
        ):
            pooled: Tensor = trunk(pixels)
        return pooled.float()

    def learn(pixels: Tensor, batch: Rows) -> Tensor:
        x, rows_of_batch = features(pixels), torch.from_numpy(batch)
        y, free = labels[rows_of_batch].to(device), ~held[rows_of_batch].to(device)
        inputs = {"train": (x[free], y[free]), "all": (x, y)}
        losses = []
        for name, head in heads.members.items():
            values, truth = inputs[name.partition("-")[0]]
            if len(truth) > norm:  # a batch norm needs two rows
                losses.append(cross_entropy(head(values), truth))
        return torch.stack(losses).sum() if losses else heads.zero_loss()

    groups = heads.groups([peak * batch_size / PER for peak in lr], weight_decay)
    optimizer = torch.optim.SGD(groups, lr=0.0, momentum=momentum, nesterov=momentum > 0)
    training.train(
        "linear heads",
        data,
        rows,
        learn,
        heads,
        optimizer,
        steps=max(1, round(epochs * len(rows) / batch_size)),
        batch_size=batch_size,
        schedule=schedule,
        milestones=milestones,
        transform=transform,
        crop_area=crop_area,
        seed=seed,
        folder=folder / "checkpoints",
        metrics=folder / "metrics.jsonl",
        device=device,
        workers=workers,
        unreadable=unreadable,
    )
    heads.eval()

    def answers(split: str, what: str, names: list[str]) -> tuple[Rows, Tensor]:
        """Return the readable rows [N] of a split and the logits [N, H, C] of some heads."""

        def forward(pixels: Tensor) -> Tensor:
            x = features(pixels)
            return torch.stack([heads.members[name](x) for name in names], 1)

        readable, outputs = training.answers(
            f"{what} images",
            data,
            splits[split],
            forward,
            transform=transform,
            batch_size=batch_size,
            device=device,
            workers=workers,
            unreadable=unreadable,
        )
        require_images(readable, what, data.root, len(unreadable.paths))
        return readable, outputs

    best, selection = 0, dict[str, Any]({"lr": lr[0], "at_edge": False})
    if len(lr) > 1:
        readable, outputs = answers("val", "validation", [f"train-{i}" for i in range(len(lr))])
        labels_val = data.labels[readable]
        accuracy = [
            scores.accuracy(predicted, labels_val, data.metric)
            for predicted in outputs.numpy().argmax(2).T
        ]
        best = min((i for i in range(len(lr)) if accuracy[i] == max(accuracy)), key=lambda i: lr[i])
        key, edge = f"val_{data.metric}", near_edge(lr[best], lr, 1)
        selection = {"lr": lr[best], "metric": data.metric, key: accuracy[best], "at_edge": edge}
        selection["grid"] = [
            {"lr": rate, key: value} for rate, value in zip(lr, accuracy, strict=True)
        ]
        text = f"{scores.NAMES[data.metric]} {accuracy[best]:.2f}"
        log.info("selected learning rate %g: validation %s", lr[best], text)
        if selection["at_edge"]:
            log.warning("learning rate %g is an end of the grid; widen lr", lr[best])
    write_json(folder / "selection.json", selection)
    readable, outputs = answers("test", "test", [f"all-{best}"])
    logits, truth = outputs[:, 0].numpy(), data.labels[readable]
    return Outcome(readable, logits, truth, selection, unreadable=unreadable.paths)


class Heads(nn.Module):
    """Linear classifiers by name, initialised with zeros, each after a batch norm if `norm`."""

    def __init__(self, names: list[str], classes: int, norm: bool, width: int) -> None:
        super().__init__()
        self.members = nn.ModuleDict()
        for name in names:
            linear = nn.Linear(width, classes)
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
            self.members[name] = nn.Sequential(nn.BatchNorm1d(width), linear) if norm else linear

    def groups(self, lr: list[float], weight_decay: float) -> list[dict[str, Any]]:
        """Return parameter groups with each head's rate. Only batch norms do not decay (VISSL)."""
        groups = []
        for name, head in self.members.items():
            rate = lr[int(name.rpartition("-")[2])]
            norms = [
                p for m in head.modules() if isinstance(m, nn.BatchNorm1d) for p in m.parameters()
            ]
            linear = [p for m in head.modules() if isinstance(m, nn.Linear) for p in m.parameters()]
            groups.append({"params": linear, "lr": rate, "weight_decay": weight_decay})
            if norms:
                groups.append({"params": norms, "lr": rate, "weight_decay": 0.0})
        return groups

    def zero_loss(self) -> Tensor:
        """Return a loss with zero gradients, for a batch that no head may learn from."""
        return torch.stack([parameter.sum() for parameter in self.parameters()]).sum() * 0

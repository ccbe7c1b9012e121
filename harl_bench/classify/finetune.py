"""Protocols `finetune` and `semi-*`: all weights trained on labelled images, once a grid point.

Every point is trained on train and scored on val. The best (ties: the smaller learning rate, then
the stronger decay, then fewer steps) is trained again on train + val, or, where the labelled list
is the training set, answers itself. A point whose loss is not finite is left out. Test is read
once, after the choice is on disk. Each point is resumed by itself, and finished when
`grid/<point>/point.json` exists.
Source: SimCLR (2002.05709) B.8 and BYOL (2006.07733) D for `finetune`, BYOL C.2 for `semi-*`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from harl_bench.classify import scores, training
from harl_bench.classify.datasets import DataSet
from harl_bench.classify.network import Precision, network
from harl_bench.classify.outcome import Outcome, near_edge, require_images
from harl_bench.classify.pixels import Transform, Unreadable
from harl_bench.classify.splits import Rows
from harl_bench.convert.read import Backbone
from harl_bench.core.errors import TrainingError
from harl_bench.core.files import write_json
from harl_bench.core.progress import log
from harl_bench.nn.resnet import FEATURES

PER = 256  # images of a batch that a learning rate is stated for
POINT, CHOICE, METRICS = "point.json", "selection.json", "metrics.jsonl"


@dataclass(frozen=True)
class Point:
    """One setting, with the protocol's number of steps unless it has epochs or steps.

    `decay` is what a step takes off the weights: the optimiser's weight decay is decay / lr.
    """

    lr: float
    decay: float
    epochs: float | None = None
    steps: int | None = None

    @property
    def name(self) -> str:
        """Return the name of its folder."""
        epochs = "" if self.epochs is None else f"-{self.epochs:g}ep"
        steps = "" if self.steps is None else f"-{self.steps}steps"
        return f"lr{self.lr:.4g}-decay{self.decay:.4g}{epochs}{steps}"

    def length(self, steps: int | None, n: int, batch_size: int) -> int:
        """Return the number of steps on n images."""
        if self.epochs is None:
            own = steps if self.steps is None else self.steps
            assert own is not None, "a protocol states steps or epochs"
            return own
        return max(1, round(self.epochs * n / batch_size))


def grid(lr: list[float], decay: list[float], epochs: list[float]) -> list[Point]:
    """Return every combination, in the order in which ties are decided."""
    lengths: list[float | None] = [*sorted(epochs)] or [None]
    return [
        Point(r, d, e) for r in sorted(lr) for d in sorted(decay, reverse=True) for e in lengths
    ]


def run(
    data: DataSet,
    splits: dict[str, Rows],
    backbone: Backbone,
    *,
    points: list[Point],
    steps: int | None,
    halving: Sequence[tuple[int, int]] = (),
    batch_size: int,
    momentum: float,
    refit: bool,
    transform: Transform,
    crop_area: tuple[float, float],
    precision: Precision,
    seed: int,
    folder: Path,
    device: torch.device,
    workers: int,
    allow_unreadable: bool,
) -> Outcome:
    """Train every point, select on val, refit, answer for test.

    Args:
        points: in the order in which ties are decided.
        steps: of a training whose point states no epochs.
        halving: rounds of (steps, how many of the best continue) before the last, of `steps`.
        refit: train the selected point again on train + val.
        folder: the run folder.

    Raises:
        TrainingError: no point has a finite loss, or the selected one has none on train + val.
    """
    unreadable = Unreadable(data, allow_unreadable)
    shared: dict[str, Any] = {
        "transform": transform,
        "device": device,
        "workers": workers,
        "unreadable": unreadable,
    }
    fixed: dict[str, Any] = {
        "steps": steps,
        "batch_size": batch_size,
        "momentum": momentum,
        "crop_area": crop_area,
        "seed": seed,
        "precision": precision,
    }

    def validated(point: Point, what: str, at: Path) -> float:
        model = _trained(
            what, data, splits["train"], backbone, point, at, at / METRICS, **shared, **fixed
        )
        rows, outputs = _answers(
            "validation images", data, splits["val"], model, batch_size, precision, shared
        )
        require_images(rows, "validation", data.root, len(unreadable.paths))
        value = scores.judged(outputs.numpy(), data.labels[rows], data.metric)
        log.info("%s: validation %s %.2f", what, scores.NAMES[data.metric], value)
        return value

    def score(point: Point, what: str) -> float | None:
        at = folder / "grid" / point.name
        if not (at / POINT).exists():
            value = None
            try:
                value = validated(point, what, at)
            except TrainingError as error:
                log.warning("%s: %s; it is left out", what, error.what)
            write_json(at / POINT, {**asdict(point), f"val_{data.metric}": value})
        known: float | None = json.loads((at / POINT).read_text())[f"val_{data.metric}"]
        return known

    scored: list[dict[str, Any]] = []
    for length, keep in (*halving, (None, 1)):
        tried = [replace(point, steps=length) for point in points]
        accuracy: list[float] = []
        for number, point in enumerate(tried, 1):
            value = score(point, f"{point.name} ({number}/{len(tried)})")
            accuracy.append(-math.inf if value is None else value)
            scored.append({**asdict(point), f"val_{data.metric}": value})
            best = accuracy.index(max(accuracy))
            for i, other in enumerate(tried[:number]):  # a network is 190 MB with its optimiser
                if refit or i != best or length is not None:
                    (folder / "grid" / other.name / training.LAST).unlink(missing_ok=True)
        if max(accuracy) == -math.inf:
            what = "the loss is not finite at any point of the grid"
            raise TrainingError(what, where=folder, next="lower the learning rates, lr=[...]")
        # Stable: ties stay in the points' order.
        order = sorted(range(len(tried)), key=lambda i: -accuracy[i])
        points = [tried[i] for i in sorted(order[:keep])]
    (point,) = points
    selection = _selection(point, max(accuracy), scored, data.metric)
    write_json(folder / CHOICE, selection)
    at = folder / "grid" / point.name
    what, rows, metrics = point.name, splits["train"], at / METRICS
    if refit:
        what, at, metrics = f"{point.name} again", folder / "refit", folder / METRICS
        rows = np.sort(np.concatenate([splits["train"], splits["val"]]))
    model = _trained(what, data, rows, backbone, point, at, metrics, **shared, **fixed)
    rows, outputs = _answers(
        "test images", data, splits["test"], model, batch_size, precision, shared
    )
    require_images(rows, "test", data.root, len(unreadable.paths))
    return Outcome(rows, outputs.numpy(), data.labels[rows], selection, unreadable=unreadable.paths)


def _selection(
    best: Point, accuracy: float, scored: list[dict[str, Any]], metric: str
) -> dict[str, Any]:
    """Return the best point with its score, the metric and the grid, and warn at a grid's end."""
    rates, decays = [p["lr"] for p in scored], [p["decay"] for p in scored if p["decay"] > 0]
    edges = {
        "lr": near_edge(best.lr, rates, 1),
        "decay": best.decay > 0 and near_edge(best.decay, decays, 1),
    }
    for name, edge in edges.items():
        if edge:
            log.warning("%s %.3g is an end of the grid; widen it", name, getattr(best, name))
    log.info("selected %s: validation %s %.2f", best.name, scores.NAMES[metric], accuracy)
    return {
        **asdict(best),
        "metric": metric,
        f"val_{metric}": accuracy,
        "at_edge": any(edges.values()),
        "grid": scored,
    }


def _trained(
    what: str,
    data: DataSet,
    rows: Rows,
    backbone: Backbone,
    point: Point,
    folder: Path,
    metrics: Path,
    *,
    steps: int | None,
    batch_size: int,
    momentum: float,
    crop_area: tuple[float, float],
    precision: Precision,
    seed: int,
    transform: Transform,
    device: torch.device,
    workers: int,
    unreadable: Unreadable,
) -> nn.Module:
    """A network trained at a point, in evaluation mode; folder/last.pth holds it."""
    model = classifier(
        backbone,
        len(data.classes),
        momentum=statistics_momentum(len(rows), batch_size),
        device=device,
    )
    labels = torch.from_numpy(data.labels)
    lr = point.lr * batch_size / PER
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=lr,
        momentum=momentum,
        nesterov=momentum > 0,
        weight_decay=point.decay / lr,
    )

    def learn(pixels: Tensor, batch: Rows) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = model(pixels)
        return _loss(logits.float(), labels[torch.from_numpy(batch)].to(device))

    training.train(
        what,
        data,
        rows,
        learn,
        model,
        optimizer,
        steps=point.length(steps, len(rows), batch_size),
        batch_size=batch_size,
        schedule="cosine",
        transform=transform,
        crop_area=crop_area,
        seed=seed,
        folder=folder,
        metrics=metrics,
        device=device,
        workers=workers,
        unreadable=unreadable,
    )
    return model.eval()


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of logits [B, C] and labels [B], or of sigmoids for labels [B, C].

    paper: not stated for several classes an image; here: the mean over images and classes, as
    ssl-transfer's finetune.py, without the difficult ones; because they are not scored either.
    """
    if labels.ndim == 1:
        return cross_entropy(logits, labels)
    counted = labels >= 0
    return binary_cross_entropy_with_logits(logits[counted], labels[counted].float())


def classifier(
    backbone: Backbone, classes: int, *, momentum: float, device: torch.device
) -> nn.Module:
    """Return the checkpoint's network in training mode, with a linear layer of zeros.

    Args:
        momentum: of batch norm's running statistics, torch's meaning.
    """
    model = network(backbone, torch.device("cpu")).requires_grad_(True).train()
    model.fc = nn.Linear(FEATURES[backbone.arch], classes)
    nn.init.zeros_(model.fc.weight)
    nn.init.zeros_(model.fc.bias)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum
    moved: nn.Module = model.to(device, memory_format=torch.channels_last)
    return moved


def statistics_momentum(n: int, batch_size: int) -> float:
    """Return min(10 / s, 0.1) for s steps an epoch, SimCLR's max(1 - 10 / s, 0.9) in torch."""
    return min(10 * batch_size / n, 0.1)


def _answers(
    what: str,
    data: DataSet,
    rows: Rows,
    model: nn.Module,
    batch_size: int,
    precision: Precision,
    shared: dict[str, Any],
) -> tuple[Rows, Tensor]:
    def forward(pixels: Tensor) -> Tensor:
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            logits: Tensor = model(pixels)
        return logits

    return training.answers(what, data, rows, forward, batch_size=batch_size, **shared)

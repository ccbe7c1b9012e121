"""Deterministic cases, images and weights for both segmentation networks, without mmsegmentation."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harl_bench.segmentation import confusion, inference, losses, recipe, schedule, transforms
from harl_bench.segmentation.network import build
from harl_bench.segmentation.recipe import Recipe
from tests.detection.parity import noise

SLOTCON = [
    "network.contract_dilation=true",
    "loss_mean=all",
    "input.scale_px=[2049, 513]",
    "input.ratio_step=0",
]
CASES: dict[str, tuple[str, list[str]]] = {
    "fcn-d8": ("voc12aug-fcn-d8-20k", []),
    "fcn-d6": ("voc12aug-fcn16s-30k", SLOTCON),  # CVMI-Lab/SlotCon 30ff33d, fcn_d6_r50-d16
    "fcn16s": ("voc12aug-fcn16s-30k", []),  # all of conv5 dilated
}
CLASSES, SIDE, STEPS = 21, 65, 3
SLIDE = recipe.Test(mode="slide", crop_px=49, stride_px=33)
DRAWS = 12  # training crops of random draws


def case_recipe(name: str) -> Recipe:
    """The recipe of a case."""
    base, overrides = CASES[name]
    return recipe.load(base, overrides)[1]


def set_weights(model: torch.nn.Module) -> None:
    """Weights by formula, of a size that keeps activations near 1."""
    norms = {name.rpartition(".")[0] for name in model.state_dict() if name.endswith("running_var")}
    with torch.no_grad():
        for name, value in model.state_dict().items():
            owner, _, kind = name.rpartition(".")
            u = torch.from_numpy(noise(name, value.numel())).reshape(value.shape)
            if kind == "num_batches_tracked":
                continue
            if owner in norms:
                last = 0.3 if owner.endswith("bn3") else 1.0
                u = {"weight": last * (1 + 0.2 * u), "running_var": 1 + 0.5 * u}.get(kind, 0.1 * u)
            elif kind == "bias":
                u = 0.05 * u
            else:
                u = u * (3 * 2 / value[0].numel()) ** 0.5  # He et al. 2015
            value.copy_(u.to(value.dtype))


def image(index: int, height: int, width: int) -> np.ndarray:
    """[height, width, 3] uint8: noise smoothed over 8 px."""
    coarse = noise(f"image {index}", 3 * 20 * 24).reshape(1, 3, 20, 24)
    smooth = torch.nn.functional.interpolate(
        torch.from_numpy(coarse), size=(height, width), mode="bilinear"
    )[0]
    return ((smooth * 0.5 + 0.5) * 255).to(torch.uint8).permute(1, 2, 0).numpy()


def label(index: int, height: int, width: int) -> np.ndarray:
    """[height, width] uint8: blocks of the classes, one of them without label."""
    blocks = (noise(f"label {index}", 5 * 6) + 1) / 2 * (CLASSES + 1)
    blocks = blocks.astype(int).clip(0, CLASSES).reshape(5, 6)
    rows, columns = np.arange(height) * 5 // height, np.arange(width) * 6 // width
    values = blocks[rows][:, columns]
    values[: height // 7, : width // 3] = CLASSES
    return np.where(values == CLASSES, 255, values).astype(np.uint8)


def inputs(height: int = SIDE, width: int = SIDE) -> tuple[Tensor, Tensor]:
    """Two normalized images [2, 3, H, W] and their labels [2, H, W] int64."""
    pixels = np.stack([image(i, height, width) for i in range(2)]).astype(np.float32)
    mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    x = torch.from_numpy(((pixels - mean) / std).astype(np.float32)).permute(0, 3, 1, 2)
    labels = np.stack([label(i, height, width) for i in range(2)]).astype(np.int64)
    return x.contiguous(), torch.from_numpy(labels)


@dataclass
class Side:
    """One implementation.

    `loss(x, labels)` returns the weighted loss of each head, `logits(x)` those of the main head,
    `whole(x, size)` and `slide(x, size)` logits at a size.
    """

    model: torch.nn.Module
    loss: Callable[[Tensor, Tensor], list[Tensor]]
    logits: Callable[[Tensor], Tensor]
    whole: Callable[[Tensor, tuple[int, int]], Tensor]
    slide: Callable[[Tensor, tuple[int, int]], Tensor]


def ours(settings: Recipe) -> Side:
    """Our network, with weights by formula."""
    model = build(settings, CLASSES)
    set_weights(model)
    align = settings.align_corners

    def loss(x: Tensor, labels: Tensor) -> list[Tensor]:
        weights = [1.0, settings.auxiliary.weight if settings.auxiliary else 0.0]
        return [
            weight * losses.cross_entropy(out, labels, align_corners=align, mean=settings.loss_mean)
            for weight, out in zip(weights, model(x), strict=False)
        ]

    def whole(x: Tensor, size: tuple[int, int]) -> Tensor:
        logits = inference.whole(model, x, settings.test, align)
        return losses.enlarged(logits, size, align_corners=align)

    def slide(x: Tensor, size: tuple[int, int]) -> Tensor:
        logits = inference.slide(model, x, SLIDE, align)
        return losses.enlarged(logits, size, align_corners=align)

    return Side(model, loss, lambda x: model(x)[0], whole, slide)


def observe(side: Side) -> dict[str, Tensor]:
    """Return losses, all gradients and statistics of a training step, and logits of a test."""
    x, labels = inputs()
    side.model.train()
    torch.manual_seed(3)  # dropout
    heads = side.loss(x, labels)
    torch.stack(heads).sum().backward()
    seen = {f"loss/{k}": value.detach() for k, value in enumerate(heads)}
    named = dict(side.model.named_parameters())
    seen |= {f"gradient/{n}": p.grad.clone() for n, p in named.items() if p.grad is not None}
    buffers = dict(side.model.named_buffers())
    seen |= {f"buffer/{n}": b.clone() for n, b in buffers.items() if "running_" in n}
    side.model.eval()
    with torch.no_grad():
        x, _ = inputs(81, 97)
        seen["logits"] = side.logits(x)
        seen["whole"] = side.whole(x[:1], (120, 90))
        seen["slide"] = side.slide(x[:1], (120, 90))
    return seen


def train(side: Side, rates: list[float], settings: Recipe) -> dict[str, Tensor]:
    """Return losses, weights and statistics after some steps of SGD at these rates."""
    solver = settings.solver
    optimizer = torch.optim.SGD(
        side.model.parameters(),
        lr=rates[0],
        momentum=solver.momentum,
        weight_decay=solver.weight_decay,
    )
    x, labels = inputs()
    side.model.train()
    totals = []
    for k, rate in enumerate(rates):
        torch.manual_seed(k)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        total = torch.stack(side.loss(x, labels)).sum()
        total.backward()
        optimizer.step()
        totals.append(total.detach())
    state = {n: v.clone() for n, v in side.model.state_dict().items() if v.is_floating_point()}
    return {"totals": torch.stack(totals)} | state


def short(settings: Recipe) -> Recipe:
    """The recipe as a training of STEPS steps, a step of the schedule inside."""
    changes = {"iterations": STEPS}
    if settings.solver.steps:
        changes["steps"] = (1, 2)
    solver = settings.solver.model_copy(update=changes)
    return settings.model_copy(update={"solver": solver})


def rates(settings: Recipe) -> list[float]:
    """Our learning rate of every step."""
    return [schedule.rate(settings.solver, k) for k in range(settings.solver.iterations)]


def crops(settings: Recipe) -> list[tuple[np.ndarray, np.ndarray]]:
    """Our training crops, padded: a draw each, of images of both orientations."""
    made = []
    for seed in range(DRAWS):
        height, width = ((333, 500), (500, 375))[seed % 2]
        pair = image(seed, height, width), label(seed, height, width)
        random = np.random.RandomState(seed)
        crop = transforms.for_training(*pair, random, settings.input)
        made.append(transforms.padded(*crop, settings.input.crop_px))
    return made


def judged() -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of (truth, prediction): classes that nobody has, and one that is only predicted."""
    pairs = []
    for index in range(3):
        truth = label(index, 60, 80)
        guess = label(index + 10, 60, 80)
        truth = np.where((truth == 4) | (truth == 7), 3, truth).astype(np.uint8)
        guess = np.where((guess == 255) | (guess == 7), 2, guess).astype(np.uint8)
        half = np.where(truth == 255, 2, truth)
        pairs.append((truth, np.where(np.arange(80) % 2, half, guess).astype(np.uint8)))
    return pairs


def our_scores() -> dict[str, float | None]:
    """Our metrics of `judged`, with the IoU and accuracy of each class."""
    matrix = sum(confusion.count(truth, guess, CLASSES) for truth, guess in judged())
    metrics, per_class = confusion.scores(matrix, [str(k) for k in range(CLASSES)])
    for name, values in per_class.items():
        metrics |= {f"{kind} {name}": value for kind, value in values.items()}
    return metrics

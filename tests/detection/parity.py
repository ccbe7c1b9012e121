"""Deterministic cases, images and weights for both engines, without Detectron2."""

import platform
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor

from harl_bench.detection import recipe
from harl_bench.detection.torchvision_engine.model import build_model
from harl_bench.detection.torchvision_engine.solver import set_lr
from harl_bench.detection.torchvision_engine.structures import Instances

SMALL = [  # 16 proposals per image: 512 of them through res5 take a minute on a CPU
    "MODEL.DEVICE=cpu",
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE=16",
    "MODEL.RPN.POST_NMS_TOPK_TRAIN=200",
    "MODEL.RPN.POST_NMS_TOPK_TEST=24",
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST=0.014",  # of 81 classes with little contrast
    "TEST.DETECTIONS_PER_IMAGE=20",
]
CASES: dict[str, tuple[str, list[str]]] = {
    "voc-c4": ("voc-c4-24k", SMALL),  # extra norm after res5
    "coco-c4": ("coco-c4-1x", SMALL),  # masks from res5
    "fpn-2fc-frozen": (
        "coco-fpn-stock-1x",
        [*SMALL, "MODEL.RESNETS.STRIDE_IN_1X1=true", "INPUT.FORMAT=BGR"],
    ),
    "fpn-4conv1fc": ("coco-fpn-4conv1fc-1x", SMALL),  # SyncBN in backbone, FPN and both heads
}
TRAINED = ("voc-c4", "fpn-4conv1fc")  # cases that are also trained for ten steps
SCHEDULES: list[tuple[str, list[str]]] = [
    ("voc-c4-24k", []),
    ("voc-c4-24k-lars", []),
    ("coco-fpn-2fc-1x", []),
    ("coco-c4-2x", []),
    ("voc-c4-24k", ["SOLVER.MAX_ITER=20"]),  # warm-up longer than the training
    ("voc-c4-24k", ["SOLVER.MAX_ITER=300", "SOLVER.STEPS=(50, 200)"]),  # a step within the warm-up
    ("voc-c4-24k", ["SOLVER.MAX_ITER=300", "SOLVER.WARMUP_METHOD=constant"]),
    ("voc-c4-24k", ["SOLVER.MAX_ITER=300", "SOLVER.WARMUP_ITERS=0"]),
]
GAINS = {"fpn_": 0.2, "objectness": 2.0, "anchor_deltas": 0.5, "bbox_pred": 0.7, "cls_score": 1.2}
SIZES = [
    (123, 171),
    (142, 105),
]  # odd, and of either orientation: padding and the grid's stride show


def case_recipe(name: str) -> recipe.Recipe:
    """The recipe of a case."""
    base, overrides = CASES[name]
    return recipe.load(base, overrides)


def noise(name: str, n: int) -> np.ndarray:
    """Return n float64 in -1..1 by hashing the name, the same on every machine."""
    x = np.arange(n, dtype=np.uint32) * np.uint32(2654435761) + np.uint32(zlib.crc32(name.encode()))
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    return x.astype(np.float64) / 2**31 - 1


def set_weights(model: torch.nn.Module) -> None:
    """Weights by formula, of a size that keeps activations near 1 and logits unsaturated."""
    norms = {name.rpartition(".")[0] for name in model.state_dict() if name.endswith("running_var")}
    with torch.no_grad():
        for name, value in model.state_dict().items():
            owner, _, kind = name.rpartition(".")
            u = torch.from_numpy(noise(name, value.numel())).reshape(value.shape)
            if kind == "num_batches_tracked":
                continue
            if owner in norms:
                # residual sums stay bounded under frozen norms
                last = 0.3 if owner.endswith("conv3.norm") else 1.0
                u = {"weight": last * (1 + 0.2 * u), "running_var": 1 + 0.5 * u}.get(kind, 0.1 * u)
            elif kind == "bias":
                u = 0.05 * u
            else:
                # keeps the variance through a ReLU (He et al. 2015)
                u = u * (3 * 2 / value[0].numel()) ** 0.5
                u = u * next((gain for part, gain in GAINS.items() if part in name), 1.0)
            value.copy_(u.to(value.dtype))


def image(index: int) -> Tensor:
    """[3, H, W] uint8: noise smoothed over 8 px, so that features differ from place to place."""
    height, width = SIZES[index]
    # the name seeds it, and the golden values were recorded with this one
    coarse = noise(f"picture {index}", 3 * 20 * 24).reshape(1, 3, 20, 24)
    smooth = torch.nn.functional.interpolate(
        torch.from_numpy(coarse), size=(160, 192), mode="bilinear"
    )[0]
    return ((smooth[:, :height, :width] * 0.5 + 0.5) * 255).to(torch.uint8)


def objects(index: int, classes: int, bitmask: bool = False) -> Instances:
    """Return five objects of different sizes, one of two parts, as polygons or bitmasks."""
    height, width = SIZES[index]
    u = noise(f"objects {index}", 40)
    centre = np.stack(
        [
            (u[0:5] + 1) / 2 * width * 0.6 + 0.2 * width,
            (u[5:10] + 1) / 2 * height * 0.6 + 0.2 * height,
        ],
        1,
    )
    half = np.array(
        [[3.3, 2.7], [width * 0.35, height * 0.4], [20.2, 14.9], [16.3, 30.1], [33.7, 25.2]]
    )
    boxes = np.concatenate([centre - half, centre + half], 1)
    boxes = np.clip(boxes, 0, [width, height, width, height]).astype(np.float32)
    masks: list[Any] = []
    for i, (x0, y0, x1, y1) in enumerate(boxes.astype(np.float64)):
        xm, ym = (x0 + x1) / 2, (y0 + y1) / 2
        diamond = [np.array([xm, y0, x1, ym, xm, y1, x0, ym])]
        halves = [
            np.array([x0, y0, xm - 1, y0, x0, y1]),
            np.array([xm + 1, y0, x1, y0, x1, y1, xm + 1, ym]),
        ]
        masks.append(halves if i == 1 else diamond)
    if bitmask:
        yy, xx = np.mgrid[:height, :width] + 0.5
        masks = [
            torch.from_numpy(
                ((xx - (b[0] + b[2]) / 2) / (b[2] - b[0])) ** 2
                + ((yy - (b[1] + b[3]) / 2) / (b[3] - b[1])) ** 2
                < 0.25
            )
            for b in boxes
        ]
    kinds = torch.tensor([(3 * i + 2 * index) % classes for i in range(5)])
    return Instances(
        (height, width), gt_boxes=torch.from_numpy(boxes), gt_classes=kinds, gt_masks=masks
    )


def nothing(index: int) -> Instances:
    """An image without objects."""
    return Instances(SIZES[index], torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), [])


def batch(classes: int, variant: str = "polygons") -> list[dict[str, Any]]:
    """Return two images with objects (polygons or bitmasks); `empty`: the second has none."""
    targets = [objects(0, classes, variant == "bitmask"), objects(1, classes, variant == "bitmask")]
    if variant == "empty":
        targets[1] = nothing(1)
    # original sizes for inference: one larger, one smaller than the image the network sees
    originals = [(307, 428), (95, 70)]
    return [
        {
            "image": image(i),
            "instances": target,
            "height": originals[i][0],
            "width": originals[i][1],
        }
        for i, target in enumerate(targets)
    ]


def precise_batches() -> list[list[dict[str, Any]]]:
    """Three batches of COCO objects for precise batch norm."""
    return [batch(80), batch(80, "bitmask"), batch(80)[::-1]]


@dataclass
class Side:
    """One engine's model: `step(batch)` returns losses and counters, `detect(batch)` detections."""

    model: torch.nn.Module
    step: Callable[[list[dict[str, Any]]], tuple[dict[str, Tensor], dict[str, float]]]
    detect: Callable[[list[dict[str, Any]]], list[Instances]]


def ours(cfg: recipe.Recipe) -> Side:
    """The torchvision engine, with weights by formula."""
    model = build_model(cfg)
    set_weights(model)

    def step(inputs: list[dict[str, Any]]) -> tuple[dict[str, Tensor], dict[str, float]]:
        losses = model(inputs)
        return losses, model.counters

    return Side(model, step, model)


def observe(side: Side, cfg: recipe.Recipe) -> dict[str, Tensor]:
    """Return losses and counters of three batches, all gradients and buffers, detections."""
    seen: dict[str, Tensor] = {}
    classes = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    side.model.train()
    for variant in ("polygons", "bitmask", "empty") if cfg.MODEL.MASK_ON else ("polygons", "empty"):
        torch.manual_seed(3)  # before each side: both draw their samples from the global generator
        with torch.set_grad_enabled(variant == "polygons"):
            losses, counters = side.step(batch(classes, variant))
        seen |= {f"{variant}/{name}": value for name, value in losses.items()}
        seen |= {f"{variant}/{name}": torch.tensor(value) for name, value in counters.items()}
        if variant == "polygons":
            torch.stack(list(losses.values())).sum().backward()
            named = side.model.named_parameters()
            seen |= {f"gradient/{name}": p.grad.clone() for name, p in named if p.grad is not None}
    seen |= {
        f"buffer/{n}": b.clone()
        for n, b in side.model.named_buffers()
        if n.endswith(("_mean", "_var"))
    }
    side.model.eval()
    with torch.no_grad():
        for i, instances in enumerate(side.detect(batch(classes))):
            fields = ("pred_boxes", "scores", "pred_classes", "pred_masks")
            values = {name: getattr(instances, name) for name in fields}
            seen |= {
                f"detection {i}/{name}": value
                for name, value in values.items()
                if value is not None
            }
    return seen


def train(
    side: Side, cfg: recipe.Recipe, optimizer: torch.optim.Optimizer, steps: int = 10
) -> dict[str, Tensor]:
    """Return weights and norm statistics after some seeded warm-up steps on a fixed batch."""
    inputs = batch(cfg.MODEL.ROI_HEADS.NUM_CLASSES)
    side.model.train()
    totals = []
    for iteration in range(steps):
        torch.manual_seed(iteration)
        losses, _ = side.step(inputs)
        total = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        total.backward()
        set_lr(optimizer, cfg, iteration)
        optimizer.step()
        totals.append(total.detach())
    return {"totals": torch.stack(totals)} | {
        name: v.clone() for name, v in side.model.state_dict().items()
    }


def digest(value: Tensor) -> list[float]:
    """[sum, sum of absolute values, largest absolute value, number of values], in float64."""
    x = value.detach().double().flatten()
    return [x.sum().item(), x.abs().sum().item(), x.abs().max().item() if len(x) else 0.0, len(x)]


def machine() -> dict[str, str]:
    """Return what decides the last bits: equal machines must agree to 1e-5, others need not."""
    return {
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "platform": platform.platform(),
        "cpu": f"{_cpu_model()}, {torch.backends.cpu.get_cpu_capability()}",
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), ""
    )

"""The real mmsegmentation under our recipes and inputs; imported only where it is installed.

Version 1.2.2 with mmcv-lite 2.1.0, which has no compiled operators: FCN calls none of them.
"""

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harl_bench.segmentation.recipe import Head, Recipe
from tests.segmentation.parity import CLASSES, DRAWS, SLIDE, Side, image, judged, label, set_weights


class _Operators(types.ModuleType):
    """A stand-in for mmcv's compiled module: every operator refuses."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def refuse(*_: Any, **__: Any) -> None:
            raise RuntimeError(f"mmcv-lite has no {name}")

        return refuse


sys.modules.setdefault("mmcv._ext", _Operators("mmcv._ext"))

from mmcv.transforms import Compose  # noqa: E402
from mmengine.config import ConfigDict  # noqa: E402
from mmengine.optim.scheduler import MultiStepLR, PolyLR  # noqa: E402
from mmengine.structures import PixelData  # noqa: E402
from mmseg.evaluation.metrics import IoUMetric  # noqa: E402
from mmseg.registry import MODELS  # noqa: E402
from mmseg.structures import SegDataSample  # noqa: E402
from mmseg.utils import register_all_modules  # noqa: E402

register_all_modules()
NORM = {"type": "BN", "requires_grad": True}


def model(recipe: Recipe) -> torch.nn.Module:
    """mmsegmentation's network of a recipe."""
    network = recipe.network
    settings = {
        "type": "EncoderDecoder",
        "data_preprocessor": {"type": "SegDataPreProcessor"},
        "backbone": {
            "type": "ResNet",
            "depth": 50,
            "num_stages": 4,
            "out_indices": (0, 1, 2, 3),
            "strides": network.strides,
            "dilations": network.dilations,
            "contract_dilation": network.contract_dilation,
            "norm_cfg": NORM,
            "norm_eval": False,
            "style": "pytorch",
        },
        "decode_head": _head(recipe.head, 2048, 3, 1.0, recipe),
        "train_cfg": {},
        "test_cfg": {"mode": "whole"},
    }
    if recipe.auxiliary:
        settings["auxiliary_head"] = _head(
            recipe.auxiliary, 1024, 2, recipe.auxiliary.weight, recipe
        )
    return MODELS.build(settings)


def _head(head: Head, channels: int, stage: int, weight: float, recipe: Recipe) -> dict[str, Any]:
    return {
        "type": "FCNHead",
        "in_channels": channels,
        "in_index": stage,
        "channels": head.channels,
        "num_convs": head.convs,
        "dilation": head.dilation,
        "concat_input": head.concat_input,
        "dropout_ratio": head.dropout,
        "num_classes": CLASSES,
        "norm_cfg": NORM,
        "align_corners": recipe.align_corners,
        "loss_decode": {
            "type": "CrossEntropyLoss",
            "loss_weight": weight,
            "avg_non_ignore": recipe.loss_mean == "labelled",
        },
    }


def theirs(recipe: Recipe) -> Side:
    """mmsegmentation's network, with the same weights by formula."""
    network = model(recipe)
    set_weights(network)

    def loss(x: Tensor, labels: Tensor) -> list[Tensor]:
        samples = []
        for values in labels:
            sample = SegDataSample(gt_sem_seg=PixelData(data=values[None]))
            sample.set_metainfo({"img_shape": tuple(values.shape)})
            samples.append(sample)
        parts = network.loss(x, samples)
        return [value for name, value in parts.items() if "loss" in name]

    def tested(mode: dict[str, Any]) -> Any:
        def logits(x: Tensor, size: tuple[int, int]) -> Tensor:
            network.test_cfg = ConfigDict(mode)
            meta = {"ori_shape": size, "img_shape": x.shape[-2:], "pad_shape": x.shape[-2:]}
            meta |= {"padding_size": [0, 0, 0, 0], "flip": False}
            out = network.inference(x, [meta])
            return network.postprocess_result(out, [_sample(meta)])[0].seg_logits.data[None]

        return logits

    slide = {
        "mode": "slide",
        "crop_size": (SLIDE.crop_px, SLIDE.crop_px),
        "stride": (SLIDE.stride_px, SLIDE.stride_px),
    }
    return Side(
        network,
        loss,
        lambda x: network.decode_head(network.extract_feat(x)),
        tested({"mode": "whole"}),
        tested(slide),
    )


def _sample(meta: dict[str, Any]) -> SegDataSample:
    sample = SegDataSample()
    sample.set_metainfo(meta)
    return sample


def rates(recipe: Recipe) -> list[float]:
    """The rate of every step, from mmengine's scheduler."""
    solver = recipe.solver
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=solver.lr)
    n = solver.iterations
    if solver.schedule == "poly":
        scheduler: Any = PolyLR(
            optimizer, eta_min=solver.lr_min, power=solver.power, begin=0, end=n, by_epoch=False
        )
    else:
        milestones = list(solver.steps)
        scheduler = MultiStepLR(optimizer, milestones, gamma=solver.factor, end=n, by_epoch=False)
    values = []
    for _ in range(n):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return values


def pipeline(recipe: Recipe, *, load: bool = False) -> Compose:
    """mmsegmentation's training transforms, with `load` from files as to packed tensors."""
    settings = recipe.input
    steps: list[dict[str, Any]] = [
        *([{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}] if load else []),
        {
            "type": "RandomResize",
            "scale": settings.scale_px,
            "ratio_range": settings.ratio,
            "keep_ratio": True,
        },
        {
            "type": "RandomCrop",
            "crop_size": (settings.crop_px, settings.crop_px),
            "cat_max_ratio": settings.cat_max_ratio,
        },
        {"type": "RandomFlip", "prob": 0.5 if settings.flip else 0.0},
    ]
    if settings.photometric:
        steps.append({"type": "PhotoMetricDistortion"})
    if load:
        steps.append({"type": "PackSegInputs"})
    return Compose(steps)


def files(image: Path, label: Path) -> dict[str, Any]:
    """What mmsegmentation's loaders take."""
    names = {"img_path": str(image), "seg_map_path": str(label)}
    return names | {"label_map": None, "reduce_zero_label": False, "seg_fields": []}


def crops(recipe: Recipe) -> list[tuple[np.ndarray, np.ndarray]]:
    """mmsegmentation's training crops as RGB, padded with 0 and 255."""
    settings, transform = recipe.input, pipeline(recipe)
    made = []
    for seed in range(DRAWS):
        height, width = ((333, 500), (500, 375))[seed % 2]
        pixels = image(seed, height, width)[:, :, ::-1].copy()  # BGR
        values = {"img": pixels, "gt_seg_map": label(seed, height, width)}
        values |= {"seg_fields": ["gt_seg_map"], "img_shape": (height, width)}
        np.random.seed(seed)
        out = transform(values)
        crop, labels = out["img"][:, :, ::-1], out["gt_seg_map"]
        below, right = settings.crop_px - labels.shape[0], settings.crop_px - labels.shape[1]
        crop = np.pad(crop, ((0, below), (0, right), (0, 0)))
        made.append((crop, np.pad(labels, ((0, below), (0, right)), constant_values=255)))
    return made


def areas(truth: np.ndarray, guess: np.ndarray) -> tuple[Tensor, ...]:
    """IoUMetric's areas of each class in an image: intersection, union, prediction, label."""
    predicted, labels = torch.from_numpy(guess), torch.from_numpy(truth)
    return tuple(IoUMetric.intersect_and_union(predicted, labels, CLASSES, 255))


def scores() -> dict[str, float | None]:
    """IoUMetric's numbers of `judged`; its mean over what is no NaN."""
    totals = [sum(parts) for parts in zip(*(areas(*pair) for pair in judged()), strict=True)]
    numbers = IoUMetric.total_area_to_metrics(*totals, metrics=["mIoU"])
    out: dict[str, float | None] = {
        "mIoU": float(100 * np.nanmean(numbers["IoU"])),
        "mAcc": float(100 * np.nanmean(numbers["Acc"])),
        "aAcc": float(100 * numbers["aAcc"]),
    }
    for kind in ("IoU", "Acc"):
        for k, value in enumerate(numbers[kind]):
            out[f"{kind} {k}"] = None if np.isnan(value) else float(100 * value)
    return out

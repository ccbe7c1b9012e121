"""Detectron2's network under our recipes: its parts, its input and its detections."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetMapper
from detectron2.engine import hooks
from detectron2.layers import get_norm
from detectron2.modeling import ROI_HEADS_REGISTRY, build_model
from detectron2.modeling.roi_heads import Res5ROIHeads
from detectron2.solver import build_lr_scheduler, build_optimizer
from detectron2.structures import BoxMode
from detectron2.utils.events import EventStorage
from torch import nn

from harl_bench.core.errors import CheckpointError
from harl_bench.core.stopping import Stop, stoppable
from harl_bench.detection.datasets.sample import Dataset, Sample
from harl_bench.detection.engines import Job
from harl_bench.detection.metrics.coco import encoded
from harl_bench.detection.recipe import Recipe
from harl_bench.detection.scoring import Prediction
from harl_bench.detection.torchvision_engine import checkpoints
from harl_bench.detection.torchvision_engine.data import Batch
from harl_bench.detection.torchvision_engine.evaluate import predict as predictions
from harl_bench.detection.torchvision_engine.transforms import require_readable

logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)  # Detectron2's import warns

if "Res5ROIHeadsExtraNorm" not in ROI_HEADS_REGISTRY:

    @ROI_HEADS_REGISTRY.register()
    class Res5ROIHeadsExtraNorm(Res5ROIHeads):  # type: ignore[misc]
        """MoCo's head for VOC: one more norm after res5 (moco 132aea9, detection/train_net.py)."""

        @classmethod
        def _build_res5_block(cls, cfg: CfgNode) -> Any:
            blocks, channels = super()._build_res5_block(cfg)
            blocks.add_module("norm", get_norm(cfg.MODEL.RESNETS.NORM, channels))
            return blocks, channels


def evaluate(job: Job, weights: Path) -> list[Prediction]:
    """Return the detections of a trained detector, one entry per test image in its order."""
    model = network(job.recipe, job.device)
    try:
        model.load_state_dict(checkpoints.detector(weights, job.recipe))
    except RuntimeError as error:
        what, seen = f"not a detector of recipe {job.recipe.name}", " ".join(str(error).split())
        raise CheckpointError(what, where=weights, seen=seen[:200]) from None
    with stoppable() as stop:
        return predict(model, job, stop)


def configuration(recipe: Recipe, device: str) -> CfgNode:
    """Return Detectron2's configuration with every key of the resolved recipe."""
    cfg = get_cfg()
    cfg.merge_from_other_cfg(CfgNode(recipe.to_dict()))
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = device, ""
    return cfg


def network(recipe: Recipe, device: str) -> nn.Module:
    """Return Detectron2's model of a recipe with new weights, in training mode."""
    model: nn.Module = build_model(configuration(recipe, device))
    return model


def solver(recipe: Recipe, model: nn.Module) -> tuple[torch.optim.Optimizer, Any]:
    """Return Detectron2's optimizer and learning-rate scheduler."""
    cfg = configuration(recipe, "cpu")
    optimizer = build_optimizer(cfg, model)
    return optimizer, build_lr_scheduler(cfg, optimizer)


def losses(model: nn.Module, batch: Batch, iteration: int) -> dict[str, torch.Tensor]:
    """Return the losses of a forward pass in training mode, outside the trainer."""
    with EventStorage(iteration):
        return model(batch)  # type: ignore[no-any-return]


def precise_bn(model: nn.Module, batches: Iterator[Batch], iterations: int) -> None:
    """Run Detectron2's hook, outside its trainer."""
    hooks.PreciseBN(0, model, batches, iterations).update_stats()


class Mapper:
    """Detectron2's DatasetMapper on our samples, with random numbers of the item's generator."""

    def __init__(self, recipe: Recipe, dataset: Dataset, *, training: bool) -> None:
        cfg = configuration(recipe, "cpu")
        if dataset.bitmasks:
            cfg.INPUT.MASK_FORMAT = "bitmask"
        self.mapper, self.training = DatasetMapper(cfg, is_train=training), training

    def __call__(
        self, sample: Sample, generator: np.random.RandomState | None = None
    ) -> dict[str, Any]:
        require_readable(sample)
        if generator is not None:
            np.random.set_state(generator.get_state())
        item: dict[str, Any] = self.mapper(record(sample, self.training))
        return item


def record(sample: Sample, training: bool) -> dict[str, Any]:
    """Return a sample as one of Detectron2's dataset dicts."""
    item: dict[str, Any] = {"file_name": sample.path, "image_id": sample.image_id}
    item |= {"height": sample.height, "width": sample.width}
    if training:
        boxes, classes, crowd = (
            values.tolist() for values in (sample.boxes, sample.classes, sample.crowd)
        )
        mode = BoxMode.XYXY_ABS
        item["annotations"] = [
            {"bbox": box, "category_id": label, "iscrowd": is_crowd, "bbox_mode": mode}
            for box, label, is_crowd in zip(boxes, classes, crowd, strict=True)
        ]
        for annotation, outline in zip(item["annotations"], sample.segments or [], strict=False):
            annotation["segmentation"] = outline
    return item


def predict(model: nn.Module, job: Job, stop: Stop) -> list[Prediction]:
    """Return a Detectron2 model's detections of the test set, each process for its part."""
    mapper = Mapper(job.recipe, job.test, training=False)
    return predictions(model, job, stop, transform=mapper, as_prediction=prediction)


def prediction(image_id: str | int, output: Any) -> Prediction:
    """Return Detectron2's output of one image as a Prediction."""
    on_cpu = output["instances"].to("cpu")
    masks = encoded(on_cpu.pred_masks.numpy()) if on_cpu.has("pred_masks") else None
    boxes, scores = on_cpu.pred_boxes.tensor.numpy(), on_cpu.scores.tolist()
    return Prediction(image_id, boxes, scores, on_cpu.pred_classes.tolist(), masks)

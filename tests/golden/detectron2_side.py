"""The real Detectron2 under our recipes and inputs; imported only where it is installed, and never
its model_zoo.
"""

import tempfile
import zlib
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import get_norm
from detectron2.modeling import ROI_HEADS_REGISTRY, build_model
from detectron2.modeling.roi_heads import Res5ROIHeads
from detectron2.solver import build_lr_scheduler, build_optimizer
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from fvcore.nn.precise_bn import update_bn_stats

from harl_bench.detection.recipe import Recipe, load
from harl_bench.detection.torchvision_engine import structures
from tests.detection.parity import CASES, SCHEDULES, Side, case_recipe, set_weights

if "Res5ROIHeadsExtraNorm" not in ROI_HEADS_REGISTRY:

    @ROI_HEADS_REGISTRY.register()
    class Res5ROIHeadsExtraNorm(Res5ROIHeads):
        """MoCo's head: one more norm after res5."""

        @classmethod
        def _build_res5_block(cls, cfg: CfgNode) -> Any:
            blocks, channels = super()._build_res5_block(cfg)
            blocks.add_module("norm", get_norm(cfg.MODEL.RESNETS.NORM, channels))
            return blocks, channels


def config(recipe: Recipe) -> CfgNode:
    """Detectron2's configuration from the resolved recipe."""
    cfg = get_cfg()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        path.write_text(recipe.to_yaml())
        cfg.merge_from_file(str(path))
    return cfg


def model(recipe: Recipe) -> torch.nn.Module:
    """Detectron2's model of a recipe."""
    return build_model(config(recipe))


def batch(ours: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same inputs in Detectron2's classes."""
    theirs = []
    for item in ours:
        if "instances" not in item:
            theirs.append(item)
            continue
        target = item["instances"]
        instances = Instances(target.image_size)
        instances.gt_boxes, instances.gt_classes = (
            Boxes(target.gt_boxes.clone()),
            target.gt_classes.clone(),
        )
        if target.gt_masks and isinstance(target.gt_masks[0], torch.Tensor):
            instances.gt_masks = BitMasks(torch.stack(target.gt_masks))
        else:
            instances.gt_masks = PolygonMasks(
                [[p.copy() for p in mask] for mask in target.gt_masks]
            )
        theirs.append(item | {"instances": instances})
    return theirs


def theirs(recipe: Recipe) -> Side:
    """Detectron2's model of a recipe, with the same weights by formula."""
    network = model(recipe)
    set_weights(network)

    def step(inputs: list[dict[str, Any]]) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        with EventStorage(0) as storage:
            losses = network(batch(inputs))
            return losses, {name: value for name, (value, _) in storage.latest().items()}

    def detect(inputs: list[dict[str, Any]]) -> list[structures.Instances]:
        found = [out["instances"] for out in network(batch(inputs))]
        return [
            structures.Instances(
                f.image_size,
                pred_boxes=f.pred_boxes.tensor,
                scores=f.scores,
                pred_classes=f.pred_classes,
                pred_masks=f.pred_masks if f.has("pred_masks") else None,
            )
            for f in found
        ]

    return Side(network, step, detect)


def precise(recipe: Recipe, batches: list[list[dict[str, Any]]]) -> dict[str, torch.Tensor]:
    """State dict after fvcore's precise batch norm over these batches."""
    side = theirs(recipe)
    torch.manual_seed(0)
    with EventStorage(0):
        update_bn_stats(side.model, [batch(b) for b in batches], len(batches))
    return side.model.state_dict()


def learning_rates(recipe: Recipe) -> list[float]:
    """The rate of every step, from Detectron2's scheduler."""
    cfg = config(recipe)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=cfg.SOLVER.BASE_LR)
    scheduler = build_lr_scheduler(cfg, optimizer)
    rates = []
    for _ in range(cfg.SOLVER.MAX_ITER):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def parameter_groups(recipe: Recipe) -> list[list[Any]]:
    """[weight decay, learning rate, names of the parameters] per group of Detectron2's
    optimiser.
    """
    network = model(recipe)
    names = {parameter: name for name, parameter in network.named_parameters()}
    groups = build_optimizer(config(recipe), network).param_groups
    return [
        [group["weight_decay"], group["lr"], [names[p] for p in group["params"]]]
        for group in groups
    ]


def solver() -> dict[str, Any]:
    """Learning rates as [[first iteration, rate], ...] at which the rate leaves a straight line,
    their sum; groups.
    """
    content: dict[str, Any] = {"rates": {}, "groups": {}}
    for name, overrides in SCHEDULES:
        rates = learning_rates(load(name, overrides))
        marks = sorted(
            {0, 1, len(rates) // 2, len(rates) - 1, *range(0, len(rates), max(1, len(rates) // 40))}
        )
        content["rates"][" ".join([name, *overrides])] = {
            "sum": sum(rates),
            "at": {str(i): rates[i] for i in marks},
        }
    for name in CASES:
        content["groups"][name] = [
            [decay, rate, len(names), zlib.crc32("\n".join(names).encode())]
            for decay, rate, names in parameter_groups(case_recipe(name))
        ]
    return content

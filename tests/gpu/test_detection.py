"""The torchvision engine: a GPU's losses, gradients and detections are the CPU's."""

import inspect
import signal
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from harl_bench.convert.read import random_backbone
from harl_bench.core.errors import PreemptedError
from harl_bench.detection import recipe
from harl_bench.detection.torchvision_engine import checkpoints, train
from harl_bench.detection.torchvision_engine.masks import mask_targets
from harl_bench.detection.torchvision_engine.model import build_model
from harl_bench.detection.torchvision_engine.polygons import draw
from harl_bench.detection.torchvision_engine.solver import build_optimizer, set_lr
from tests.detection import parity, test_polygons, tiny
from tests.detection.test_model import require_filled_boxes
from tests.detection.test_train import job, signalled
from tests.gpu.conftest import Agree

pytestmark = pytest.mark.gpu


def observed(case: str, device: torch.device) -> dict[str, Tensor]:
    cfg = parity.case_recipe(case)
    side = parity.ours(cfg)
    side.model.to(device)
    return {name: value.detach().cpu() for name, value in parity.observe(side, cfg).items()}


@pytest.mark.parametrize("case", parity.CASES)
def test_losses_gradients_and_detections(
    case: str, both: Any, agree: Agree, same_draws: None
) -> None:
    """Of images with polygons, with bitmasks and with nothing."""
    reference, value = both(lambda device: observed(case, device))
    assert value.keys() == reference.keys()
    kinds = {
        "losses": ("loss", 1e-3),
        "gradients": ("gradient/", 5e-2),
        "statistics": ("buffer/", 1e-3),
        "boxes": ("/pred_boxes", 1e-3),
        "scores": ("/scores", 1e-3),
    }
    for what, (part, tolerance) in kinds.items():
        names = [name for name in reference if part in name]
        if names:
            agree(what, [value[n] for n in names], [reference[n] for n in names], tolerance)
    for name in (name for name in reference if name.endswith("pred_masks")):
        assert (value[name] != reference[name]).float().mean() < 1e-3


@pytest.mark.parametrize("case", ["voc-c4", "fpn-4conv1fc"])
def test_half_precision_trains(case: str, device: torch.device, agree: Agree) -> None:
    """AMP, float16 with a scaled loss on a GPU: the losses of a step are close to float32's."""
    cfg = parity.case_recipe(case)
    losses = []
    for half in (False, True):
        model = parity.ours(cfg).model.to(device).train()
        optimizer = build_optimizer(cfg, model)
        set_lr(optimizer, cfg, 0)
        scaler = torch.amp.GradScaler(device.type, enabled=half and device.type == "cuda")
        torch.manual_seed(3)
        classes = cfg.MODEL.ROI_HEADS.NUM_CLASSES
        losses.append(train._step(model, parity.batch(classes), optimizer, scaler))
        assert all(p.isfinite().all() for p in model.parameters())
    agree("losses", list(losses[1].values()), list(losses[0].values()), 0.2)


def test_mask_targets(device: torch.device) -> None:
    """Polygons are the CPU's pixels; bitmaps are resampled, and a sum may be on the other side."""
    rng = np.random.default_rng(0)
    polygons, (index, boxes) = (
        test_polygons.objects(rng, "whole pixels"),
        test_polygons.regions(rng, 500),
    )
    bitmaps = [torch.from_numpy(rng.random((400, 360)) < 0.5) for _ in range(10)]
    where = index.to(device), boxes.to(device)
    assert torch.equal(draw(polygons, *where, 28).cpu(), draw(polygons, index, boxes, 28))
    value, reference = mask_targets(bitmaps, *where, 28), mask_targets(bitmaps, index, boxes, 28)
    assert (value.cpu() != reference).float().mean() < 1e-3


def test_pasting_fills_the_box(device: torch.device) -> None:
    require_filled_boxes(device)


def test_an_image_without_any_detection(device: torch.device) -> None:
    cfg = recipe.load("coco-fpn-toy", ["MODEL.ROI_HEADS.SCORE_THRESH_TEST=1.0"])
    model = build_model(cfg).to(device).eval()
    with torch.no_grad():
        (found,) = model([{"image": parity.image(1), "height": 50, "width": 40}])
    assert found.pred_boxes.shape == (0, 4)
    assert found.pred_masks.shape == (0, 50, 40)


def test_a_preempted_training_goes_on(
    device: torch.device,
    tmp_path: Path,
    agree: Agree,
    monkeypatch: pytest.MonkeyPatch,
    deterministic: None,
) -> None:
    """It ends where the whole one does, with the same random numbers drawn.

    Deterministic, because RoIAlign's backward pass adds in any order on a GPU: rounding moves how
    many proposals there are, and with it how many numbers are drawn. torchvision compiles its
    deterministic RoIAlign, anew for new shapes, which rounds otherwise: here it stays uncompiled.
    """
    roi_align = import_module("torchvision.ops.roi_align")
    monkeypatch.setattr(roi_align, "_roi_align", inspect.unwrap(roi_align._roi_align))
    root, tensors = tiny.voc(tmp_path / "data", years=("VOC2007",)), random_backbone(0).tensors
    states = []
    for name in ("whole", "broken"):
        folder = tmp_path / name
        run = replace(job(folder, root, tensors), device=device.type)
        folder.mkdir()
        if name == "broken":
            with monkeypatch.context() as patch:
                signalled(patch, signal.SIGTERM, at=2)
                with pytest.raises(PreemptedError, match="iteration 3 of 4 is saved"):
                    train.train(run)
        train.train(run)
        states.append(checkpoints.read(folder / "checkpoints/model_final.pth"))
    whole, broken = states
    assert whole["iteration"] == broken["iteration"] == 3
    draws, others = whole["rng"][0], broken["rng"][0]
    for name in {"torch", "cuda"} & draws.keys():
        assert torch.equal(draws[name], others[name]), name
    assert ("cuda" in draws) == torch.cuda.is_available()
    weights = [name for name, value in whole["model"].items() if value.is_floating_point()]
    ends = ([state["model"][name] for name in weights] for state in (broken, whole))
    agree("weights", *ends, 1e-4)

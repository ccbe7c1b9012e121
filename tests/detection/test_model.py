"""The detector beyond parity: weights, frozen layers, norms over processes, odd inputs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from harl_bench.convert.names import to_detectron2
from harl_bench.core.errors import CheckpointError, TrainingError
from harl_bench.detection import recipe
from harl_bench.detection.torchvision_engine.masks import mask_targets, paste
from harl_bench.detection.torchvision_engine.model import build_model
from harl_bench.detection.torchvision_engine.norms import (
    FrozenBatchNorm2d,
    NaiveSyncBatchNorm,
    SyncBatchNorm,
)
from harl_bench.detection.torchvision_engine.pooling import levels
from harl_bench.detection.torchvision_engine.proposals import cell_anchors, grid_anchors
from harl_bench.detection.torchvision_engine.structures import Instances
from harl_bench.detection.torchvision_engine.weights import load_backbone_into
from harl_bench.nn import resnet
from tests.detection import parity


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    return {
        name: torch.from_numpy(parity.noise(name, int(np.prod(shape)))).float().reshape(shape)
        for name, shape in resnet.shapes().items()
    }


@pytest.mark.parametrize("naming", [str, to_detectron2])
@pytest.mark.parametrize("case", ["voc-c4", "fpn-2fc-frozen", "fpn-4conv1fc"])
def test_all_265_tensors_are_placed(
    case: str, naming: Any, tensors: dict[str, torch.Tensor]
) -> None:
    model = build_model(parity.case_recipe(case))
    assert (
        load_backbone_into(model, {naming(name): value for name, value in tensors.items()}) == 265
    )
    state = model.state_dict()
    prefix = "backbone." if case == "voc-c4" else "backbone.bottom_up."
    res5 = "roi_heads." if case == "voc-c4" else prefix
    for name, value in tensors.items():
        place = (res5 if name.startswith("layer4") else prefix) + to_detectron2(name)
        assert torch.equal(state[place], value), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.pop("layer4.2.bn3.weight"),
            "264 of 265 backbone tensors match; missing layer4.2.bn3.weight",
        ),
        (
            lambda t: t.update({"conv1.weight": torch.zeros(64, 3, 3, 3)}),
            "first mismatch; seen: conv1.weight",
        ),
        (lambda t: t.update({"layer9.conv": torch.zeros(1)}), "unexpected layer9.conv"),
        (
            lambda t: t.update({"bn1.bias": torch.full((64,), torch.nan)}),
            "a backbone tensor is not finite; seen: bn1",
        ),
    ],
)
def test_another_network_is_refused_and_nothing_is_placed(
    change: Any, message: str, tensors: dict[str, torch.Tensor]
) -> None:
    model = build_model(parity.case_recipe("voc-c4"))
    before = model.state_dict()["backbone.stem.conv1.weight"].clone()
    wrong = dict(tensors)
    change(wrong)
    with pytest.raises(CheckpointError, match=message):
        load_backbone_into(model, wrong)
    assert torch.equal(model.state_dict()["backbone.stem.conv1.weight"], before)


def test_freezing_stops_gradients_and_replaces_norms_but_keeps_names() -> None:
    trainable = build_model(recipe.load("coco-fpn-2fc-1x"))
    frozen = build_model(recipe.load("coco-fpn-2fc-1x", ["MODEL.BACKBONE.FREEZE_AT=2"]))
    assert list(trainable.state_dict()) == list(frozen.state_dict())
    kinds = {name: type(m) for name, m in frozen.named_modules() if name.endswith("norm")}
    for name, kind in kinds.items():
        early = ".stem." in name or ".res2." in name
        assert kind is (FrozenBatchNorm2d if early else SyncBatchNorm), name
    still = [
        n
        for n, p in frozen.named_parameters()
        if (".stem." in n or ".res2." in n) and p.requires_grad
    ]
    assert still == []


@pytest.mark.parametrize(
    ("name", "trained"),
    [
        ("voc-c4-24k", {"proposal_generator", "roi_heads"}),
        ("coco-fpn-2fc-1x", {"backbone", "proposal_generator", "roi_heads"}),
    ],
)
def test_a_frozen_backbone_trains_heads_only(name: str, trained: set[str]) -> None:
    """FREEZE_AT 5: all of ResNet is frozen, but for C4's res5, which is its head."""
    model = build_model(recipe.load(name, ["MODEL.BACKBONE.FREEZE_AT=5"]))
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert {name.partition(".")[0] for name in names} == trained
    assert all(name.startswith("backbone.fpn_") for name in names if name.startswith("backbone."))
    assert any(name.startswith("roi_heads.res5.") for name in names) == (name == "voc-c4-24k")
    frozen = model.backbone if name == "voc-c4-24k" else model.backbone.bottom_up
    norms = [module for module in frozen.modules() if hasattr(module, "running_mean")]
    assert {type(norm) for norm in norms} == {FrozenBatchNorm2d}


def test_anchors_by_hand() -> None:
    cells = cell_anchors((32, 64), (0.5, 1.0))
    assert cells[1].tolist() == [-16, -16, 16, 16]
    assert cells[0].tolist() == pytest.approx([-22.627417, -11.3137085, 22.627417, 11.3137085])
    assert cells[3].tolist() == [-32, -32, 32, 32], "size by size, then ratio by ratio"
    grid = grid_anchors(cells[1:2], torch.Size((2, 3)), 16, 0.0)
    assert grid[:, :2].tolist() == [[-16, -16], [0, -16], [16, -16], [-16, 0], [0, 0], [16, 0]]


def test_levels_by_hand() -> None:
    sides = torch.tensor([1.0, 111.9, 112.1, 223.9, 224.1, 448.1, 5000.0])
    boxes = torch.stack([torch.zeros(7), torch.zeros(7), sides, sides], dim=1)
    assert levels(boxes, [4, 8, 16, 32]).tolist() == [0, 0, 1, 1, 2, 3, 3]


def test_masks_of_both_kinds_are_cut_to_their_boxes() -> None:
    left = [np.array([10.0, 10, 20, 10, 20, 30, 10, 30])]  # the left half of the box below
    bitmap = torch.zeros(40, 40, dtype=torch.bool)
    bitmap[10:30, 10:20] = True
    boxes = torch.tensor([[10.0, 10, 30, 30]] * 3)
    cut = mask_targets([left, bitmap], torch.tensor([1, 0, 1]), boxes, 28)
    assert cut.shape == (3, 28, 28)
    for mask in cut:
        assert mask[:, :14].all()
        assert not mask[:, 15:].any()
    assert mask_targets([], torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4), 28).shape == (
        0,
        28,
        28,
    )


def test_pasting_fills_the_box() -> None:
    require_filled_boxes(torch.device("cpu"))


def require_filled_boxes(device: torch.device) -> None:
    """Paste on a device; tests/gpu does so on a GPU."""
    masks = torch.ones(2, 28, 28, device=device)
    masks[1, 14:] = 0
    boxes = torch.tensor([[5.0, 6, 15, 26], [0, 0, 40, 40]], device=device)
    pasted = paste(masks, boxes, (40, 50)).cpu()
    expected = torch.zeros(40, 50, dtype=torch.bool)
    expected[6:26, 5:15] = True
    assert torch.equal(pasted[0], expected)
    assert pasted[1].sum() == 40 * 20
    assert paste(masks[:0], boxes[:0], (40, 50)).shape == (0, 40, 50)


def test_diverged_training_is_one_clear_error() -> None:
    cfg = parity.case_recipe("fpn-2fc-frozen")
    model = build_model(cfg)
    nn.init.constant_(model.proposal_generator.rpn_head.objectness_logits.bias, torch.nan)
    with pytest.raises(TrainingError, match="training has diverged: proposals are not finite"):
        model(parity.batch(80))


def test_an_image_without_any_detection_gives_empty_fields() -> None:
    cfg = recipe.load("coco-fpn-toy", ["MODEL.ROI_HEADS.SCORE_THRESH_TEST=1.0"])
    model = build_model(cfg).eval()
    with torch.no_grad():
        (found,) = model([{"image": parity.image(1), "height": 50, "width": 40}])
    assert len(found) == 0
    assert found.pred_boxes.shape == (0, 4)
    assert found.pred_masks.shape == (0, 50, 40)
    assert found.image_size == (50, 40)


def test_instances_are_indexed_and_moved_with_all_their_fields() -> None:
    five = parity.objects(0, 20)
    some = five[torch.tensor([True, False, True, False, False])].to("cpu")
    assert len(some) == 2
    assert some.gt_masks is not None
    assert some.gt_masks[1] is five.gt_masks[2]  # type: ignore[index]
    assert len(Instances((4, 4))) == 0


def _norms_on_rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    full = _values()
    part = full[:3] if rank == 0 else full[3:]
    for name, norm in (("sync", SyncBatchNorm(4)), ("naive", NaiveSyncBatchNorm(4))):
        part = part.detach().requires_grad_()
        out = norm(part)
        (out * torch.arange(out.numel()).reshape(out.shape).cos()).sum().backward()
        saved = {
            "out": out.detach(),
            "grad": part.grad,
            "mean": norm.running_mean,
            "var": norm.running_var,
        }
        torch.save(saved, f"{folder}/{name}{rank}.pt")
    torch.distributed.destroy_process_group()


def _values() -> torch.Tensor:
    return torch.randn(4, 4, 5, 6, generator=torch.Generator().manual_seed(0)) * 2 + 1


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_norms_over_two_processes(tmp_path: Path) -> None:
    """SyncBN on 3 + 1 images is BatchNorm on 4; naiveSyncBN weighs the two ranks equally."""
    mp.start_processes(_norms_on_rank, (str(tmp_path),), nprocs=2, start_method="forkserver")
    saved = {
        (kind, rank): torch.load(tmp_path / f"{kind}{rank}.pt")
        for kind in ("sync", "naive")
        for rank in (0, 1)
    }
    full = _values().requires_grad_()
    norm = nn.BatchNorm2d(4)
    out = norm(full)
    parts = [out[:3], out[3:]]
    sum((p * torch.arange(p.numel()).reshape(p.shape).cos()).sum() for p in parts).backward()  # type: ignore[union-attr]
    assert full.grad is not None
    for rank, rows in ((0, slice(0, 3)), (1, slice(3, 4))):
        sync = saved["sync", rank]
        assert torch.allclose(sync["out"], out[rows], atol=1e-5)
        assert torch.allclose(sync["grad"], full.grad[rows], atol=1e-5)
        assert torch.allclose(sync["mean"], norm.running_mean, atol=1e-6)  # type: ignore[arg-type]
        assert torch.allclose(sync["var"], norm.running_var, atol=1e-6)  # type: ignore[arg-type]
        a, b = full[:3].detach(), full[3:].detach()
        mean = (a.mean((0, 2, 3)) + b.mean((0, 2, 3))) / 2
        var = ((a**2).mean((0, 2, 3)) + (b**2).mean((0, 2, 3))) / 2 - mean**2
        naive = saved["naive", rank]
        assert torch.allclose(naive["mean"], 0.1 * mean, atol=1e-6)
        assert torch.allclose(naive["var"], 0.9 + 0.1 * var, atol=1e-6), "biased, as Detectron2's"
        expected = (full[rows] - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
        assert torch.allclose(naive["out"], expected, atol=1e-4)


def _naive_beside_detectron2(rank: int, folder: str) -> None:
    from detectron2.layers.batch_norm import NaiveSyncBatchNorm as Theirs

    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    part = _values()[:3] if rank == 0 else _values()[3:]
    results = []
    for norm in (NaiveSyncBatchNorm(4), Theirs(4)):
        x = part.clone().requires_grad_()
        out = norm(x)
        (out * torch.arange(out.numel()).reshape(out.shape).cos()).sum().backward()
        results.append(
            [out, x.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var]
        )
    torch.distributed.destroy_process_group()
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True)), (
        "naiveSyncBN is not Detectron2's"
    )


@pytest.mark.slow
@pytest.mark.detectron2
def test_naive_sync_bn_over_two_processes_equals_detectron2_exactly(tmp_path: Path) -> None:
    pytest.importorskip("detectron2")
    mp.spawn(_naive_beside_detectron2, (str(tmp_path),), nprocs=2)

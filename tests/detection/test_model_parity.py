"""The torchvision engine against recorded numbers, and exactly against Detectron2."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from harl_bench.detection.torchvision_engine.solver import build_optimizer, precise_bn
from tests.detection import parity
from tests.golden.digests import differences

GOLDEN = Path(__file__).parents[1] / "golden"
# (relative error of sums and of the largest value) on the recording machine, and on another, whose
# kernels round differently: measured by switching oneDNN off, losses move by 5e-6, gradients of
# train-mode batch norms by up to 5e-3
SAME, OTHER = 1e-5, {"gradient": 3e-2, "detection 0": 1e-3, "detection 1": 1e-3}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def detectron2_side() -> Any:
    """The adapter of the real library."""
    pytest.importorskip("detectron2")
    from tests.golden import detectron2_side

    return detectron2_side


def golden(case: str, section: str) -> tuple[dict[str, list[float]], bool]:
    """(digests, whether they were recorded on a machine like this one)."""
    content = json.loads((GOLDEN / "detection" / f"{case}.json").read_text())
    return content[section], parity.machine().items() <= content["made"].items()


def unlike(
    values: dict[str, torch.Tensor], recorded: dict[str, list[float]], same: bool, loose: float
) -> list[str]:
    """Quantities whose digest is not the recorded one."""
    return differences(
        values, recorded, lambda name: SAME if same else OTHER.get(name.split("/")[0], loose)
    )


@pytest.mark.parametrize("case", parity.CASES)
def test_losses_gradients_statistics_and_detections_are_the_recorded_ones(case: str) -> None:
    cfg = parity.case_recipe(case)
    recorded, same = golden(case, "observed")
    seen = parity.observe(parity.ours(cfg), cfg)
    assert not unlike(seen, recorded, same, loose=1e-4)
    assert len(seen["detection 0/scores"]) > 5, "the case shows no detections to compare"
    assert seen["detection 0/scores"].max() < 1, "saturated logits hide errors"


@pytest.mark.slow
@pytest.mark.parametrize("case", parity.TRAINED)
def test_ten_training_steps_end_at_the_recorded_weights(case: str) -> None:
    cfg = parity.case_recipe(case)
    recorded, same = golden(case, "trained")
    side = parity.ours(cfg)
    # Sampling of proposals turns other rounding into other steps. On AVX2 instead of the recorded
    # AVX512 the sum of the losses ends 3 % apart and a running mean 12 %, while one step (above)
    # agrees to 1e-4. Equal machines: 1e-5.
    assert not unlike(
        parity.train(side, cfg, build_optimizer(cfg, side.model)), recorded, same, loose=0.2
    )


@pytest.mark.detectron2
@pytest.mark.parametrize("case", parity.CASES)
def test_equals_the_installed_detectron2_exactly(case: str, detectron2_side: Any) -> None:
    cfg = parity.case_recipe(case)
    ours = parity.observe(parity.ours(cfg), cfg)
    theirs = parity.observe(detectron2_side.theirs(cfg), cfg)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


@pytest.mark.detectron2
@pytest.mark.parametrize("case", parity.TRAINED)
def test_ten_training_steps_equal_detectron2_exactly(case: str, detectron2_side: Any) -> None:
    from detectron2.solver import build_optimizer as their_optimizer

    cfg = parity.case_recipe(case)
    ours, theirs = parity.ours(cfg), detectron2_side.theirs(cfg)
    a = parity.train(ours, cfg, build_optimizer(cfg, ours.model))
    b = parity.train(theirs, cfg, their_optimizer(detectron2_side.config(cfg), theirs.model))
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def precise() -> dict[str, torch.Tensor]:
    """Our state dict after precise batch norm."""
    model = parity.ours(parity.case_recipe("fpn-4conv1fc")).model
    torch.manual_seed(0)
    assert precise_bn(model, parity.precise_batches(), 3) == 69
    return model.state_dict()


def test_precise_statistics_are_the_recorded_ones() -> None:
    recorded, same = golden("fpn-4conv1fc", "precise")
    seen = {name: value for name, value in precise().items() if "running_" in name}
    assert not unlike(seen, recorded, same, loose=1e-4)


@pytest.mark.detectron2
def test_precise_statistics_equal_detectron2_exactly(detectron2_side: Any) -> None:
    ours = precise()
    theirs = detectron2_side.precise(parity.case_recipe("fpn-4conv1fc"), parity.precise_batches())
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


@pytest.mark.detectron2
@pytest.mark.parametrize("case", parity.CASES)
def test_one_seed_gives_both_engines_the_same_weights_under_the_same_names(
    case: str, detectron2_side: Any
) -> None:
    cfg = parity.case_recipe(case)
    torch.manual_seed(7)
    ours = parity.build_model(cfg).state_dict()
    torch.manual_seed(7)
    theirs = detectron2_side.model(cfg).state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)

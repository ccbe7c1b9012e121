"""Parameter groups, learning rate, clipping and precise batch norm."""

import functools
import json
import operator
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from harl_bench.core.errors import DataError
from harl_bench.detection import recipe
from harl_bench.detection.torchvision_engine.solver import (
    build_optimizer,
    lr_at,
    precise_bn,
    set_lr,
)
from tests.detection import parity

GOLDEN = Path(__file__).parents[1] / "golden"
RECORDED = json.loads((GOLDEN / "detection" / "solver.json").read_text())


@pytest.mark.parametrize(("name", "overrides"), parity.SCHEDULES)
def test_learning_rate_is_detectron2s_at_every_iteration(name: str, overrides: list[str]) -> None:
    cfg = recipe.load(name, overrides)
    rates = [lr_at(cfg, i) for i in range(cfg.SOLVER.MAX_ITER)]
    recorded = RECORDED["rates"][" ".join([name, *overrides])]
    # Python 3.12's sum is more exact than the recorded one
    added = functools.reduce(operator.add, rates)
    assert added == pytest.approx(recorded["sum"], rel=1e-12)
    assert {i: rates[int(i)] for i in recorded["at"]} == pytest.approx(recorded["at"], rel=1e-12)


@pytest.mark.detectron2
@pytest.mark.parametrize(("name", "overrides"), parity.SCHEDULES)
def test_learning_rate_equals_detectron2_to_the_last_bit(name: str, overrides: list[str]) -> None:
    pytest.importorskip("detectron2")
    from tests.golden import detectron2_side

    cfg = recipe.load(name, overrides)
    rates = [lr_at(cfg, i) for i in range(cfg.SOLVER.MAX_ITER)]
    assert rates == detectron2_side.learning_rates(cfg)


def test_learning_rate_by_hand() -> None:
    cfg = recipe.load("voc-c4-24k")  # 0.02, warm-up 100 from 1/1000, steps 18000 and 22000
    at = {
        0: 2e-5,
        50: 0.02 * (0.001 * 0.5 + 0.5),
        100: 0.02,
        17999: 0.02,
        18000: 0.002,
        21999: 0.002,
        22000: 0.0002,
    }
    assert {i: lr_at(cfg, i) for i in at} == pytest.approx(at)


@pytest.mark.parametrize("case", parity.CASES)
def test_parameter_groups_are_detectron2s(case: str) -> None:
    cfg = parity.case_recipe(case)
    model = parity.build_model(cfg)
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = [
        [
            g["weight_decay"],
            g["lr"],
            len(g["params"]),
            zlib.crc32("\n".join(names[p] for p in g["params"]).encode()),
        ]
        for g in build_optimizer(cfg, model).param_groups
    ]
    assert groups == RECORDED["groups"][case]


def test_bias_decay_applies_to_every_bias() -> None:
    cfg = recipe.load("voc-c4-24k", ["SOLVER.WEIGHT_DECAY_BIAS=0.5"])
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    by_decay = {g["weight_decay"]: g["params"] for g in build_optimizer(cfg, net).param_groups}
    assert {decay: len(params) for decay, params in by_decay.items()} == {0.0001: 1, 0.5: 2, 0.0: 1}


def test_gradients_are_clipped_by_value_when_asked() -> None:
    cfg = recipe.load(
        "voc-c4-24k",
        [
            "SOLVER.CLIP_GRADIENTS.ENABLED=true",
            "SOLVER.CLIP_GRADIENTS.CLIP_VALUE=0.25",
            "SOLVER.WEIGHT_DECAY=0.0",
        ],
    )
    net = nn.Linear(2, 1, bias=False)
    before = net.weight.detach().clone()
    optimizer = build_optimizer(cfg, net)
    assert set_lr(optimizer, cfg, 100) == 0.02
    net.weight.grad = torch.tensor([[3.0, -0.1]])
    optimizer.step()
    assert torch.allclose(net.weight, before - 0.02 * torch.tensor([[0.25, -0.1]]))


def test_precise_statistics_are_those_of_all_values_together() -> None:
    net = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2).eval())
    net[1].eval()
    batches = [
        torch.randn(n, 2, 3, 4, generator=torch.Generator().manual_seed(n)) * n for n in (1, 2, 5)
    ]
    values = torch.cat([b.transpose(0, 1).flatten(1) for b in batches], dim=1)
    assert precise_bn(net, batches, 3) == 1, "norms in eval mode are not touched"
    first: Any = net[0]
    assert torch.allclose(first.running_mean, values.mean(1), atol=1e-5)
    assert torch.allclose(first.running_var, values.var(1, unbiased=False), rtol=1e-5)
    assert first.momentum == 0.1
    assert net[1].running_mean.abs().sum() == 0


def test_precise_statistics_need_enough_batches() -> None:
    with pytest.raises(
        DataError, match=r"too few batches for precise batch norm; seen: 1; next: give 2"
    ):
        precise_bn(nn.BatchNorm2d(1), [torch.zeros(2, 1, 2, 2)], 2)

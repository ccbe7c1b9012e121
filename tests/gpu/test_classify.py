"""Classification: a GPU's features, neighbors and optima are the CPU's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from harl_bench.classify import eigenbasis, knn, network, solver
from harl_bench.classify.pixels import Transform, normalised
from harl_bench.cli import main
from harl_bench.convert.read import random_backbone
from harl_bench.core.results import read_result
from tests.classify.command import COLORS
from tests.gpu.conftest import Agree

pytestmark = pytest.mark.gpu
SIDE = 32


def pixels(device: torch.device) -> Tensor:
    """Return four images, normalized on the device."""
    g = torch.Generator().manual_seed(0)
    coarse = torch.rand(4, 3, 4, 4, generator=g)
    images = (
        torch.nn.functional.interpolate(coarse, SIDE, mode="bicubic").clamp(0, 1) * 255
    ).byte()
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    return normalised(images, Transform(SIDE, SIDE, "RGB", mean, std), device)


def extracted(device: torch.device, precision: network.Precision = "float32") -> Tensor:
    model = network.network(random_backbone(0), device)
    return network.forward(model, pixels(device), precision)


def test_features(both: Any, agree: Agree) -> None:
    reference, value = both(extracted)
    assert value.dtype == torch.float32
    agree("features", value, reference, 1e-4)


def test_features_in_bf16(device: torch.device, agree: Agree) -> None:
    agree("features", extracted(device, "bfloat16"), extracted(device), 3e-2)


def problem(rows: int = 200, width: int = 24, classes: int = 5) -> tuple[Tensor, Tensor]:
    """Return rectified features and labels that no hyperplanes separate."""
    g = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (rows,), generator=g)
    centers = torch.randn(classes, width, generator=g)
    values = (centers[labels] + 3 * torch.randn(rows, width, generator=g)).clamp(min=0)
    return values, labels


def test_the_linear_solver(both: Any, agree: Agree) -> None:
    """To a certificate of 1e-5, the optimum is the CPU's to that digit."""
    X, y = problem()
    strengths = [100.0, 1.0]

    def optima(device: torch.device) -> tuple[list[float], list[Tensor], list[float]]:
        basis = eigenbasis.prepare(X.to(device))
        path = solver.solve(basis, y.to(device), strengths, classes=5, eps=1e-5)
        weights = [part for optimum in path for part in basis.out(optimum.coefficients)]
        objectives = [optimum.objective for optimum in path]
        return objectives, weights, [optimum.certificate for optimum in path]

    reference, value = both(optima)
    assert max(*reference[2], *value[2]) <= 1e-5
    agree("objectives", value[0], reference[0], 1e-5)
    agree("weights", value[1], reference[1], 1e-4)


@pytest.mark.parametrize("blocks", [False, True])
def test_nearest_neighbors(
    blocks: bool, both: Any, agree: Agree, monkeypatch: pytest.MonkeyPatch
) -> None:
    if blocks:
        monkeypatch.setattr(knn, "QUERIES", 7)
        monkeypatch.setattr(knn, "BANK", 50)
    X, y = problem()

    def votes(device: torch.device) -> list[Tensor]:
        queries, bank, labels = (x.to(device) for x in (X[:60], X[60:], y[60:]))
        counted = knn.votes(queries, bank, labels, 5, neighbours=[1, 20], temperature=0.07)
        return [torch.from_numpy(counted[k]) for k in (1, 20)]

    reference, value = both(votes)
    for a, b in zip(value, reference, strict=True):
        assert torch.equal(a.argmax(1), b.argmax(1))
    agree("votes", value, reference, 1e-4)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three colors with noise, 8 training and 4 test images each."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 4)):
        for name, color in COLORS.items():
            folder = tmp_path / "set" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                noise = rng.integers(-25, 25, (36, 40, 3))
                values = np.clip(np.array(color) + noise, 0, 255).astype(np.uint8)
                Image.fromarray(values).save(folder / f"{i}.png")
    return tmp_path / "set"


@pytest.mark.parametrize(
    "protocol",
    [
        ["knn", "neighbours=[1,3]", "headline=3"],
        ["linear"],
        ["linear-sgd", "epochs=1", "batch_size=8"],
        ["finetune", "lr=[0.01]", "decay=[0.0]", "steps=2", "batch_size=8"],
    ],
    ids=lambda words: words[0],
)
def test_the_command(protocol: list[str], data: Path, device: torch.device, tmp_path: Path) -> None:
    """On that device, it ends with a score, close to that of the CPU."""
    scores = []
    for name in (device.type, "cpu"):
        out = tmp_path / f"run-{name}"
        size = ["image_size=32", "short_side_px=32"]
        where = ["--data", str(data), "--out", str(out), "--device", name, "--workers", "0"]
        arguments = [
            "classify",
            "random-resnet18",
            "--protocol",
            protocol[0],
            *protocol[1:],
            *size,
            *where,
        ]
        assert main(arguments) == 0
        (path,) = out.rglob("result.json")
        scores.append(next(v for k, v in read_result(path).metrics.items() if "top1" in k))
    assert abs(scores[0] - scores[1]) <= 100 / 12 + 1e-6, "one image of twelve"

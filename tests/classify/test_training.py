"""What SGD trains: batches, fine-tuning and heads, each against a plain loop."""

from pathlib import Path

import numpy as np
import pytest
import torch

from harl_bench.classify import datasets, finetune, pixels, training
from harl_bench.convert.read import read_backbone
from harl_bench.core.errors import UsageError
from tests.classify.command import CPU, SIZE


class TestBatches:
    def test_the_stream_drops_nothing_and_resumes_anywhere(self) -> None:
        rows = np.array([3, 5, 8, 9, 11])
        batches = list(training.Stream(rows, batch_size=2, seed=1, first=0, last=5))
        assert sorted(row for batch in batches for _, row in batch) == sorted([*rows, *rows])
        assert [epoch for batch in batches for epoch, _ in batch] == [0] * 5 + [1] * 5
        assert list(training.Stream(rows, batch_size=2, seed=1, first=3, last=5)) == batches[3:]
        assert list(training.Stream(rows, batch_size=2, seed=2, first=0, last=5)) != batches

    def test_crops_depend_on_seed_epoch_and_row_alone(self, data: Path) -> None:
        found = datasets.folder(data)
        transform = pixels.Transform(SIZE, SIZE, "RGB", (0, 0, 0), (1, 1, 1))
        crops = pixels.Crops(found, transform, (0.08, 1.0), seed=0)
        state = torch.get_rng_state()
        once = crops[0, 4][1]
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(123)
        assert torch.equal(crops[0, 4][1], once)
        assert once.shape == (3, SIZE, SIZE)
        others = [crops[1, 4][1], pixels.Crops(found, transform, (0.08, 1.0), seed=1)[0, 4][1]]
        assert not any(torch.equal(once, other) for other in others)

    @pytest.mark.parametrize(
        ("schedule", "step", "expected"),
        [
            ("cosine", 0, 1),
            ("cosine", 50, 0.5),
            ("cosine", 100, 0),
            ("steps", 0, 1),
            ("steps", 28, 1),
            ("steps", 29, 0.1),
            ("steps", 58, 0.01),
        ],
    )
    def test_rates(self, schedule: training.Schedule, step: int, expected: float) -> None:
        assert training.rate(step, 100, schedule, (8 / 28, 16 / 28)) == pytest.approx(expected)


def fitted(data: Path, folder: Path, **changes: object):
    found = datasets.folder(data)
    backbone = read_backbone("random")
    about = backbone.input
    settings: dict[str, object] = {
        "points": finetune.grid([0.02], [1e-4], []),
        "steps": 3,
        "batch_size": 4,
        "momentum": 0.9,
        "refit": False,
        "transform": pixels.Transform(SIZE, SIZE, "RGB", about.pixel_mean, about.pixel_std),
        "crop_area": (0.5, 1.0),
        "precision": "float32",
        "seed": 0,
        "folder": folder,
        "device": CPU,
        "workers": 0,
        "allow_unreadable": False,
    }
    return (
        finetune.run(found, found.divided(0), backbone, **(settings | changes)),
        found,
        backbone,
        settings,
    )


def test_a_state_of_another_run_is_refused(data: Path, tmp_path: Path) -> None:
    fitted(data, tmp_path / "run", steps=1)
    with pytest.raises(UsageError, match=r"last.pth is of another run.*seed was 0, now 7"):
        fitted(data, tmp_path / "run", steps=1, seed=7)

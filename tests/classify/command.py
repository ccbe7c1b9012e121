"""The command `classify` on small images, and what it leaves behind."""

import json
from pathlib import Path

import pytest
import torch

from harl_bench.classify import features
from harl_bench.cli import main
from harl_bench.core.results import Result, read_result

SIZE = 32
COLORS = {"blue": (30, 40, 200), "green": (30, 190, 60), "red": (210, 40, 30)}
CPU = torch.device("cpu")


def classify(
    data: Path, out: Path, *more: str, checkpoint: Path | str = "random", workers: int = 0
) -> int:
    return main(
        [
            "classify",
            str(checkpoint),
            f"image_size={SIZE}",
            f"short_side_px={SIZE}",
            "--data",
            str(data),
            "--out",
            str(out),
            "--device",
            "cpu",
            "--workers",
            str(workers),
            *more,
        ]
    )


def result(out: Path) -> Result:
    (path,) = sorted(out.rglob("result.json"))
    return read_result(path)


def selection(out: Path) -> dict[str, object]:
    return json.loads(next(out.rglob("selection.json")).read_text())


def watched_reads(monkeypatch: pytest.MonkeyPatch, out: Path) -> list[tuple[str, bool]]:
    """Return a list that gets each split that is read, and whether the choice is on disk by then."""
    read, seen = features.Features.read, list[tuple[str, bool]]()

    def watched(
        self: features.Features, split: str, device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append((split, any(out.rglob("selection.json"))))
        return read(self, split, device)

    monkeypatch.setattr(features.Features, "read", watched)
    return seen

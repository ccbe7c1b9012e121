"""Mask scores against hand-made numbers, and the command on files."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harl_bench.cli import main
from harl_bench.masks import quality


def test_scores_of_a_known_overlap() -> None:
    mask, truth = np.zeros((10, 10), bool), np.zeros((10, 10), bool)
    mask[:4, :5] = True  # 20 pixels
    truth[2:6, :5] = True  # 20 pixels, 10 shared
    row = quality.scores(mask, truth)
    assert row["foreground_iou"] == pytest.approx(100 * 10 / 30)
    assert row["mean_iou"] == pytest.approx(100 * (10 / 30 + 70 / 90) / 2)
    assert (row["precision"], row["recall"]) == (50, 50)
    assert row["f_beta"] == pytest.approx(50)
    assert row["mae"] == pytest.approx(20)


@pytest.mark.parametrize(("mask", "truth", "iou"), [(0, 0, 100), (1, 1, 100), (0, 1, 0), (1, 0, 0)])
def test_full_and_empty(mask: int, truth: int, iou: float) -> None:
    row = quality.scores(np.full((3, 4), mask, bool), np.full((3, 4), truth, bool))
    assert row["foreground_iou"] == iou


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Four pictures in two classes; the masks of class a are perfect, of class b empty."""
    for i, cls in enumerate("aabb"):
        truth = np.zeros((20, 30), np.uint8)
        truth[5:15, 5 + i : 20] = 255
        save(tmp_path / "truth" / cls / f"{i}.png", truth)
        save(tmp_path / "masks" / cls / f"{i}.png", truth if cls == "a" else np.zeros_like(truth))
        save(tmp_path / "images" / cls / f"{i}.jpg", np.stack([truth] * 3, axis=-1))
    return tmp_path / "masks", tmp_path / "truth", tmp_path / "images"


def test_command_prints_per_class_and_overall(
    folders: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    masks, truth, images = folders
    assert main(["masks", "evaluate", str(masks), str(truth), "--json"]) == 0
    text = capsys.readouterr().out
    summary = json.loads(text[text.index("{") :])
    assert summary["n"] == 4
    assert summary["overall"]["foreground_iou"] == 50
    assert summary["per_class"]["a"]["foreground_iou"] == 100
    assert summary["pictures"]["b/2.png"]["recall"] == 0
    assert main(["masks", "evaluate", str(masks), str(truth), "--images", str(images)]) == 0
    assert (masks / "quality.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda m: (m / "a" / "0.png").unlink(), "1 of 4 masks are missing"),
        (lambda m: save(m / "a" / "0.png", np.zeros((5, 5), np.uint8)), "differ in size"),
        (lambda m: (m / "a" / "0.png").write_bytes(b"half"), "unreadable picture"),
    ],
)
def test_bad_masks_are_one_line(
    folders: tuple[Path, Path, Path], spoil: object, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    masks, truth, _ = folders
    spoil(masks)  # type: ignore[operator]
    assert main(["masks", "evaluate", str(masks), str(truth)]) == 3
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1

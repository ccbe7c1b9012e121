"""Few images of each class: draws, means and intervals over them, and `linear-fewshot` as run."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from harl_bench.classify import draws, fewshot, linear, scores, solver
from tests.classify.command import CPU, classify, result, watched_reads
from tests.classify.layouts import WRITERS

FAST = ["--protocol", "linear-fewshot", "shots=[1,2]", "draws=3", "count=5"]


def test_draws_have_k_of_each_class() -> None:
    labels, rows = np.array([0] * 9 + [1] * 9 + [2] * 2), np.arange(3, 20)
    drawn = draws.per_class(labels, rows, 3, np.random.default_rng(0))
    assert np.bincount(labels[drawn]).tolist() == [3, 3, 2]  # the last class has no more
    assert set(drawn) <= set(rows)
    assert len(set(drawn.tolist())) == len(drawn)


def test_interval_is_students() -> None:
    values = [70.1, 72.4, 69.9, 71.0, 73.3]
    expected = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert draws.over_draws(values) == pytest.approx(expected)
    assert draws.over_draws(values[:2]) is None
    assert draws.over_draws([30.0] * 5) is None  # five times the same images: no interval of 0


class Store:
    """Three classes in 12 dimensions."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.labels = np.arange(90) % 3
        self.x = (rng.normal(size=(3, 12))[self.labels] + rng.normal(size=(90, 12))).astype("f4")
        self.splits = {"train": np.arange(40), "val": np.arange(40, 60), "test": np.arange(60, 90)}

    def read(self, split: str, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        rows = self.splits[split]
        return torch.from_numpy(self.x[rows]), torch.from_numpy(self.labels[rows])


def test_each_draw_is_linear_on_its_images(tmp_path: Path) -> None:
    """Against `linear` with a training split of the drawn images, without its refit."""
    grid = linear.grid(1e-3, 1e3, 7)
    outcome = fewshot.run(
        Store(),  # type: ignore[arg-type]
        3,
        shots=(2, 5),
        repeats=3,
        regularizations=grid,
        eps=solver.EPS,
        metric="top1",
        seed=6,
        device=CPU,
        folder=tmp_path,
    )
    assert outcome.scored is not None
    for k in (2, 5):
        expected = []
        for draw in range(3):
            one = Store()
            one.splits["train"] = draws.per_class(
                one.labels[:40], np.arange(40), k, np.random.default_rng((6, draw, k))
            )
            alone = linear.run(
                one,  # type: ignore[arg-type]
                3,
                regularizations=grid,
                eps=solver.EPS,
                refit_with_val=False,
                device=CPU,
                folder=tmp_path / str(draw),
            )
            ranks = scores.ranks(alone.logits, alone.labels)
            expected.append(scores.top1(ranks, alone.labels, 3))
        assert outcome.selection["scores"][f"k{k}/top1"] == pytest.approx(expected)
        assert outcome.scored.metrics[f"k{k}/top1"] == pytest.approx(np.mean(expected))


def test_the_command(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test split is read once, after every choice is on disk."""
    seen = watched_reads(monkeypatch, tmp_path / "runs")
    assert classify(data, tmp_path / "runs", *FAST, checkpoint="random-resnet18") == 0
    assert seen == [("train", False), ("val", False), ("test", True)]
    found = result(tmp_path / "runs")
    assert found.metrics.keys() == {
        f"k{k}/{name}" for k in (1, 2) for name in ("top1", "mean_per_class")
    }
    assert found.manifest["interval_95"].keys() <= found.metrics.keys()
    chosen = json.loads(next((tmp_path / "runs").rglob("selection.json")).read_text())
    assert [row["images"] for row in chosen["draws"]] == [3, 3, 3, 6, 6, 6]


def test_draws_of_all_images_are_said_once_and_have_no_interval(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = [*FAST, "shots=[1,99]"]
    assert classify(data, tmp_path / "runs", *more, checkpoint="random-resnet18") == 0
    assert capsys.readouterr().out.count("fewer than 99 training images; all are taken") == 1
    assert "k99/top1" not in result(tmp_path / "runs").manifest["interval_95"]


def test_a_set_of_several_classes_an_image(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    WRITERS["voc2007-cls"](tmp_path / "voc")
    more = ["--dataset", "voc2007-cls", *FAST]
    assert classify(tmp_path / "voc", tmp_path / "runs", *more, checkpoint="random-resnet18") == 2
    assert "fewshot needs one class an image" in capsys.readouterr().err

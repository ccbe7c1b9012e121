"""The set's own metric makes every choice on its validation split, and the result says so."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from harl_bench.classify import linear, scores
from harl_bench.classify.datasets import DATASETS, folder
from tests.classify.command import CPU, classify, result, selection

ONE = ["top1", "mean_per_class"]  # metrics of sets whose images show one class


def test_accuracy_by_hand() -> None:
    predicted, labels = np.array([0, 0, 0, 2, 0]), np.array([0, 0, 0, 2, 4])
    assert scores.accuracy(predicted, labels, "top1") == 80
    assert scores.accuracy(predicted, labels, "mean_per_class") == pytest.approx(
        200 / 3
    )  # 1, 1, 0; others absent
    assert np.isnan(scores.accuracy(predicted[:0], labels[:0], "top1"))


class Rare:
    """Features of two overlapping classes, the second rare: of strong regularization comes the
    frequent class alone.
    """

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        self.splits = {
            split: np.arange(n) for split, n in (("train", 220), ("val", 220), ("test", 110))
        }
        self.held = {}
        for split, rows in self.splits.items():
            labels = (rows % 11 == 0).astype(np.int64)
            x = rng.normal(size=(len(rows), 40)) + labels[:, None] * (np.arange(40) < 4) * 0.6
            self.held[split] = torch.from_numpy(x).float(), torch.from_numpy(labels)

    def read(self, split: str, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        return self.held[split]


def test_a_rare_class_counts_where_the_set_says_so(tmp_path: Path) -> None:
    chosen = {}
    for metric in ONE:
        (tmp_path / metric).mkdir()
        outcome = linear.run(
            Rare(),
            2,
            regularizations=linear.grid(1e-2, 1e4, 7),
            eps=2e-3,
            metric=metric,
            device=CPU,
            folder=tmp_path / metric,
        )
        rows = [
            json.loads(line)
            for line in (tmp_path / metric / "metrics.jsonl").read_text().splitlines()
        ]
        best = max(row[f"val_{metric}"] for row in rows)
        chosen[metric] = outcome.selection["strength"]
        assert chosen[metric] == max(
            row["strength"] for row in rows if row[f"val_{metric}"] == best
        )
        assert outcome.selection["metric"] == metric
    assert chosen["mean_per_class"] < chosen["top1"]


@pytest.mark.parametrize(
    "more",
    [
        ["--protocol", "linear", "count=3"],
        ["--protocol", "imagenet-linear", "epochs=1", "batch_size=8", "lr=[0.1,0.01]"],
        ["--protocol", "finetune", "steps=1", "batch_size=4", "lr=[0.01]", "decay=[0]"],
    ],
)
@pytest.mark.parametrize("metric", ONE)
def test_the_result_says_by_which_metric(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str], metric: str
) -> None:
    monkeypatch.setitem(DATASETS, "folder", lambda root: replace(folder(root), metric=metric))
    metrics: list[str] = []
    accuracy = scores.accuracy

    def noted(*arguments: object) -> float:
        metrics.append(str(arguments[-1]))
        return accuracy(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(scores, "accuracy", noted)
    assert classify(data, tmp_path / "runs", *more) == 0
    recorded = result(tmp_path / "runs").manifest["selection"]
    assert recorded == selection(tmp_path / "runs")
    assert recorded["metric"] == metric
    assert {key for key in recorded if key.startswith("val_")} == {f"val_{metric}"}
    assert set(metrics) == {metric}


def test_run_ids_of_top1_sets_stay(data: Path, tmp_path: Path) -> None:
    """The metric is the set's, and no part of a run's identity."""
    assert classify(data, tmp_path / "runs", "count=3") == 0
    assert result(tmp_path / "runs").run_id == "17f1a7e85efd8496"

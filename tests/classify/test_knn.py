"""The protocol knn, from the command to its scores."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harl_bench.classify import knn
from tests.classify.command import classify, result


class TestNeighbours:
    def test_votes_against_a_loop(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(knn, "QUERIES", 7)
        monkeypatch.setattr(knn, "BANK", 11)
        rng = np.random.default_rng(0)
        bank, queries = rng.normal(size=(50, 6)), rng.normal(size=(20, 6))
        labels = rng.integers(4, size=50)
        found = knn.votes(
            torch.from_numpy(queries).float(),
            torch.from_numpy(bank).float(),
            torch.from_numpy(labels),
            5,
            neighbours=[1, 10, 50],
            temperature=0.07,
        )
        for k, votes in found.items():
            for query, seen in zip(queries, votes, strict=True):
                near = bank @ query / np.linalg.norm(bank, axis=1) / np.linalg.norm(query)
                expected = np.zeros(5)
                for row in np.argsort(-near)[:k]:
                    expected[labels[row]] += np.exp(near[row] / 0.07)
                np.testing.assert_allclose(
                    seen / seen.sum(), expected / expected.sum(), rtol=1e-4, atol=1e-12
                )

    def test_no_temperature_overflows(self) -> None:
        """exp(1 / 0.001) is infinite: every vote was, and the first class won."""
        bank = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
        votes = knn.votes(
            bank[:1], bank, torch.tensor([2, 1, 0]), 3, neighbours=[3], temperature=0.001
        )[3]
        assert np.isfinite(votes).all()
        assert votes.argmax(1).tolist() == [2]

    def test_equal_votes_go_to_the_lower_label(self, data: Path, tmp_path: Path) -> None:
        """Two images of two classes at one place: a vote each."""
        same = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        votes = knn.votes(
            same[:1], same, torch.tensor([1, 0]), 3, neighbours=[2], temperature=0.07
        )[2]
        assert votes.argmax(1).tolist() == [0]

    def test_every_k_is_scored_from_train_and_val(self, data: Path, tmp_path: Path) -> None:
        more = ["--protocol", "knn", "neighbours=[1,5,15]", "headline=5"]
        assert classify(data, tmp_path / "runs", *more) == 0
        found = result(tmp_path / "runs")
        assert found.metrics["k5/top1"] == 100
        assert {name.partition("/")[0] for name in found.metrics} == {"k1", "k5", "k15"}
        assert found.manifest["selection"]["bank"] == 15
        assert found.manifest["interval_95"].keys() == found.metrics.keys()

    def test_fewer_than_five_neighbours_have_no_top5(self, tmp_path: Path) -> None:
        """It was the top-1 of one neighbour under another name."""
        rng = np.random.default_rng(0)
        for split, name, i in product(("train", "test"), "abcdef", range(3)):
            path = tmp_path / "six" / split / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(path)
        more = ["--protocol", "knn", "neighbours=[1,4,5]", "headline=5"]
        assert (
            classify(tmp_path / "six", tmp_path / "runs", *more, checkpoint="random-resnet18") == 0
        )
        assert result(tmp_path / "runs").metrics.keys() == {
            *(f"k{k}/top1" for k in (1, 4, 5)),
            "k5/top5",
        }

    def test_more_neighbours_than_images(
        self, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert classify(data, tmp_path / "runs", "--protocol", "knn") == 2
        assert "200 > 15; next: add neighbours=[10] headline=10" in capsys.readouterr().err

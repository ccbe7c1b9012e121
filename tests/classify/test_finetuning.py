"""Fine-tuning against a plain loop, stopped and continued, and what it selects."""

import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from harl_bench.classify import finetune, network, pixels, training
from harl_bench.core.errors import PreemptedError, TrainingError
from tests.classify.command import CPU, classify, result, selection
from tests.classify.test_training import fitted


class TestFinetuning:
    def test_against_a_plain_loop(self, data: Path, tmp_path: Path) -> None:
        """Three steps of SGD written out: the same batches, cosine, zero head, decay / lr,
        batch-norm momentum.
        """
        outcome, found, backbone, settings = fitted(data, tmp_path / "run")
        train = found.divided(0)["train"]
        model = network.network(backbone, CPU).requires_grad_(True).train()
        model.fc = torch.nn.Linear(2048, 3)
        torch.nn.init.zeros_(model.fc.weight)
        torch.nn.init.zeros_(model.fc.bias)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = min(10 / (len(train) / 4), 0.1)
        lr = 0.02 * 4 / 256
        optimizer = torch.optim.SGD(
            model.parameters(), lr, momentum=0.9, nesterov=True, weight_decay=1e-4 / lr
        )
        crops = pixels.Crops(found, settings["transform"], (0.5, 1.0), seed=0)  # type: ignore[arg-type]
        for step, batch in enumerate(training.Stream(train, batch_size=4, seed=0, first=0, last=3)):
            optimizer.param_groups[0]["lr"] = lr * 0.5 * (1 + np.cos(np.pi * step / 3))
            x = torch.stack([crops[item][1] for item in batch]).float()
            x = (x - torch.tensor(backbone.input.pixel_mean).view(3, 1, 1)) / torch.tensor(
                backbone.input.pixel_std
            ).view(3, 1, 1)
            loss = cross_entropy(model(x), torch.tensor([found.labels[row] for _, row in batch]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        saved = torch.load(tmp_path / "run/grid/lr0.02-decay0.0001/last.pth", weights_only=True)[
            "module"
        ]
        for name, value in model.state_dict().items():
            torch.testing.assert_close(saved[name], value, rtol=1e-3, atol=1e-5, msg=name)
        assert outcome.logits.shape == (9, 3)

    def test_stopped_and_continued_is_the_same(
        self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole, *_ = fitted(data, tmp_path / "a")
        step, calls = torch.optim.SGD.step, 0

        def stopping(self: torch.optim.SGD, *arguments: object) -> object:
            nonlocal calls
            calls += 1
            if calls == 2:
                signal.raise_signal(signal.SIGTERM)
            return step(self, *arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(torch.optim.SGD, "step", stopping)
        with pytest.raises(PreemptedError, match="step 2 of 3 is saved"):
            fitted(data, tmp_path / "b")
        again, *_ = fitted(data, tmp_path / "b")
        assert calls == 3
        np.testing.assert_array_equal(again.logits, whole.logits)

    def test_grid_selects_refits_and_keeps_one_network(self, data: Path, tmp_path: Path) -> None:
        more = [
            "--protocol",
            "finetune",
            "steps=2",
            "batch_size=4",
            "lr=[0.01,0.1]",
            "decay=[0,1e-4]",
        ]
        assert classify(data, tmp_path / "runs", *more) == 0
        found, chosen = result(tmp_path / "runs"), selection(tmp_path / "runs")
        assert found.protocol == "finetune"
        scores = [point["val_top1"] for point in chosen["grid"]]  # type: ignore[attr-defined]
        assert len(scores) == 4
        assert chosen["val_top1"] == max(scores)
        first = chosen["grid"][scores.index(max(scores))]  # type: ignore[index]
        assert (chosen["lr"], chosen["decay"]) == (first["lr"], first["decay"])
        assert [path.parent.name for path in (tmp_path / "runs").rglob("last.pth")] == ["refit"]
        assert any("cosine schedule" in text for text in found.departures)
        assert "steps 2 instead of 20000" in found.departures

    def test_a_finished_point_is_not_trained_again(
        self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        points = finetune.grid([0.01, 0.1], [0.0], [])
        trained, seen = finetune._trained, []

        def watched(what: str, *arguments: object, **named: object) -> torch.nn.Module:
            seen.append(what)
            if len(seen) == 2:
                raise OSError("the machine vanished")
            return trained(what, *arguments, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(finetune, "_trained", watched)
        with pytest.raises(OSError, match="vanished"):
            fitted(data, tmp_path / "run", points=points, steps=1)
        fitted(data, tmp_path / "run", points=points, steps=1)
        assert [what.partition(" ")[0] for what in seen[:3]] == [
            points[0].name,
            points[1].name,
            points[1].name,
        ]
        assert len(seen) == 4  # and the chosen one, which only answers

    def test_statistics_momentum_is_the_papers(self) -> None:
        """Table of the specification: Food101 .038 (train) and .034 (train + val), CIFAR .057 and
        .051, SUN397 .1.
        """
        cases = {68_175: 0.038, 75_750: 0.034, 45_000: 0.057, 50_000: 0.051, 15_880: 0.1}
        for n, expected in cases.items():
            assert finetune.statistics_momentum(n, 256) == pytest.approx(expected, abs=5e-4)

    def test_ties_go_to_the_smaller_rate_and_the_stronger_decay(self) -> None:
        points = finetune.grid([0.1, 0.01], [0.0, 1e-3], [50, 30])
        assert [(p.lr, p.decay, p.epochs) for p in points[:3]] == [
            (0.01, 1e-3, 30),
            (0.01, 1e-3, 50),
            (0.01, 0, 30),
        ]

    def scored(
        self,
        data: Path,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        score: Callable[[str], float],
        **changes: object,
    ) -> tuple[dict[str, object], list[str]]:
        """What is selected and what was trained, where the name of a point says how well it
        does.
        """
        trained: list[str] = []

        def named(what: str, *arguments: object, **named: object) -> torch.nn.Module:
            trained.append(what.partition(" ")[0])
            return torch.nn.Identity()

        def answers(*arguments: object) -> tuple[object, torch.Tensor]:
            rows = np.arange(2)
            return rows, torch.zeros(2, 3)

        monkeypatch.setattr(finetune, "_trained", named)
        monkeypatch.setattr(finetune, "_answers", answers)
        monkeypatch.setattr(finetune.scores, "accuracy", lambda *_: score(trained[-1]))
        return fitted(data, folder, **changes)[0].selection, trained

    def test_ties_go_to_the_first_point(
        self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        points = finetune.grid([0.1, 0.01], [0.0, 1e-3], [])
        chosen, trained = self.scored(data, tmp_path, monkeypatch, lambda name: 50.0, points=points)
        assert (chosen["lr"], chosen["decay"]) == (0.01, 1e-3)
        assert trained == [*(point.name for point in points), points[0].name]

    def test_halving_continues_with_the_best_of_each_round(
        self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Short trainings like 0.3, longer ones 0.1 and 0.2 equally: of those the smaller
        answers.
        """
        order = {"lr0.3": 3, "lr0.2": 2, "lr0.1": 2, "lr0.4": 1}
        score = {"10steps": order, "20steps": order | {"lr0.3": 0}, "decay0": order}
        chosen, trained = self.scored(
            data,
            tmp_path,
            monkeypatch,
            lambda name: float(score[name.split("-")[-1]][name.split("-")[0]]),
            points=finetune.grid([0.4, 0.3, 0.2, 0.1], [0.0], []),
            steps=40,
            halving=((10, 3), (20, 2)),
            refit=True,
        )
        assert trained == [
            "lr0.1-decay0-10steps",
            "lr0.2-decay0-10steps",
            "lr0.3-decay0-10steps",
            "lr0.4-decay0-10steps",
            "lr0.1-decay0-20steps",
            "lr0.2-decay0-20steps",
            "lr0.3-decay0-20steps",
            "lr0.1-decay0",
            "lr0.2-decay0",
            "lr0.1-decay0",
        ]
        assert (chosen["lr"], chosen["steps"], chosen["val_top1"]) == (0.1, None, 2.0)
        assert len(chosen["grid"]) == 9  # type: ignore[arg-type]

    def test_a_point_that_diverges_is_left_out(self, data: Path, tmp_path: Path) -> None:
        """It ended the run, at the same step whenever it was given again."""
        rates = {"points": finetune.grid([0.02, 1e30], [0.0], []), "refit": True}
        chosen = fitted(data, tmp_path / "run", **rates)[0].selection
        assert (chosen["lr"], chosen["at_edge"]) == (0.02, True)
        assert [point["val_top1"] is None for point in chosen["grid"]] == [False, True]
        assert fitted(data, tmp_path / "run", **rates)[0].selection == chosen  # as it is noted
        with pytest.raises(TrainingError, match="not finite at any point of the grid"):
            fitted(data, tmp_path / "none", points=finetune.grid([1e30], [0.0], []))

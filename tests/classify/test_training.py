"""What SGD trains: batches, fine-tuning and heads, each against a plain loop."""

import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from harl_bench.classify import datasets, finetune, heads, network, pixels, training
from harl_bench.convert.read import read_backbone
from harl_bench.core.errors import PreemptedError, UsageError
from tests.classify.command import CPU, SIZE, classify, result, selection


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


class TestHeads:
    def run(self, data: Path, folder: Path, **changes: object):
        found, backbone = datasets.folder(data), read_backbone("random")
        about = backbone.input
        settings: dict[str, object] = {
            "lr": [8.0, 2.0],
            "epochs": 2,
            "batch_size": 4,
            "momentum": 0.9,
            "weight_decay": 1e-3,
            "norm": False,
            "schedule": "cosine",
            "milestones": (),
            "crop_area": (0.5, 1.0),
            "precision": "float32",
            "seed": 0,
            "transform": pixels.Transform(SIZE, SIZE, "RGB", about.pixel_mean, about.pixel_std),
            "folder": folder,
            "device": CPU,
            "workers": 0,
            "allow_unreadable": False,
        }
        return (
            heads.run(found, found.divided(0), backbone, **(settings | changes)),
            found,
            backbone,
            settings,
        )

    def test_against_heads_trained_one_by_one(self, data: Path, tmp_path: Path) -> None:
        """Each head of the one pass equals its own plain SGD; the first kind never sees a held-out
        row.
        """
        _, found, backbone, settings = self.run(data, tmp_path)
        saved = torch.load(tmp_path / "checkpoints/last.pth", weights_only=True)["module"]
        splits = found.divided(0)
        rows = np.sort(np.concatenate([splits["train"], splits["val"]]))
        trunk, steps = network.network(backbone, CPU), round(2 * len(rows) / 4)
        crops = pixels.Crops(found, settings["transform"], (0.5, 1.0), seed=0)  # type: ignore[arg-type]
        for who in ("train", "all"):
            for i, rate in enumerate((8.0, 2.0)):
                W, b = torch.zeros(3, 2048, requires_grad=True), torch.zeros(3, requires_grad=True)
                lr = rate * 4 / 256
                optimizer = torch.optim.SGD(
                    [W, b], lr, momentum=0.9, nesterov=True, weight_decay=1e-3
                )
                for step, batch in enumerate(
                    training.Stream(rows, batch_size=4, seed=0, first=0, last=steps)
                ):
                    batch = [item for item in batch if who == "all" or item[1] not in splits["val"]]
                    if not batch:
                        continue
                    optimizer.param_groups[0]["lr"] = lr * 0.5 * (1 + np.cos(np.pi * step / steps))
                    x = torch.stack([crops[item][1] for item in batch])
                    with torch.no_grad():
                        x = trunk(pixels.normalised(x, settings["transform"], CPU))  # type: ignore[arg-type]
                    loss = cross_entropy(
                        x @ W.T + b, torch.tensor([found.labels[row] for _, row in batch])
                    )
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                seen = saved[f"members.{who}-{i}.weight"]
                torch.testing.assert_close(
                    seen, W.detach(), rtol=1e-3, atol=1e-4 * float(W.detach().abs().max())
                )

    def test_the_backbone_stays_as_it_was(
        self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = []
        network = heads.network
        monkeypatch.setattr(heads, "network", lambda *a: made.append(network(*a)) or made[-1])
        _, _, backbone, _ = self.run(data, tmp_path, norm=True, lr=[0.1])
        (trunk,) = made
        assert not trunk.training
        state = trunk.state_dict()
        assert all(torch.equal(state[name], value) for name, value in backbone.tensors.items())

    def test_imagenet_linear_on_a_folder(self, data: Path, tmp_path: Path) -> None:
        more = ["--protocol", "imagenet-linear", "epochs=2", "batch_size=4"]
        assert classify(data, tmp_path / "runs", *more, workers=1) == 0
        chosen = selection(tmp_path / "runs")
        assert len(chosen["grid"]) == 5  # type: ignore[arg-type]
        assert result(tmp_path / "runs").manifest["selection"] == chosen

    def test_linear_sgd_needs_no_validation(self, data: Path, tmp_path: Path) -> None:
        more = ["--protocol", "linear-sgd", "epochs=2", "batch_size=4", "milestones=[1]"]
        assert classify(data, tmp_path / "runs", *more) == 0
        assert selection(tmp_path / "runs") == {"lr": 0.01, "at_edge": False}
        saved = torch.load(next((tmp_path / "runs").rglob("last.pth")), weights_only=True)["module"]
        assert {name.split(".")[1] for name in saved} == {"all-0"}

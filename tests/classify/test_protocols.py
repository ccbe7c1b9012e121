"""Neighbours, SGD heads, fine-tuning and few labels: each against a short version, and as a person runs it."""

import hashlib
import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import cross_entropy

from harl_bench.classify import datasets, features, finetune, heads, knn, pixels, protocol, training
from harl_bench.classify.outcome import near_edge
from harl_bench.classify.subset import restricted
from harl_bench.cli import main
from harl_bench.convert.read import read_backbone
from harl_bench.core.errors import DataError, PreemptedError, UsageError
from harl_bench.core.results import Result, read_result
from tests.classify.layouts import WRITERS, imagenet

SIZE = 32
COLOURS = {"blue": (30, 40, 200), "green": (30, 190, 60), "red": (210, 40, 30)}
CPU = torch.device("cpu")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three colours, 5 training and 3 test pictures each."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 5), ("test", 3)):
        for name, colour in COLOURS.items():
            for i in range(count):
                path = tmp_path / "set" / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                noise = rng.integers(-25, 25, (36, 40, 3))
                Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(path)
    return tmp_path / "set"


def classify(data: Path, out: Path, *more: str, workers: int = 0) -> int:
    return main(["classify", "random", f"image_size={SIZE}", f"short_side_px={SIZE}", "--data", str(data), "--out",
                 str(out), "--device", "cpu", "--workers", str(workers), *more])  # fmt: skip


def result(out: Path) -> Result:
    (path,) = sorted(out.rglob("result.json"))
    return read_result(path)


def selection(out: Path) -> dict[str, object]:
    return json.loads(next(out.rglob("selection.json")).read_text())


class TestNeighbours:
    def test_votes_against_a_loop(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(knn, "QUERIES", 7)
        monkeypatch.setattr(knn, "BANK", 11)
        rng = np.random.default_rng(0)
        bank, queries = rng.normal(size=(50, 6)), rng.normal(size=(20, 6))
        labels = rng.integers(4, size=50)
        found = knn.votes(
            torch.from_numpy(queries).float(), torch.from_numpy(bank).float(), torch.from_numpy(labels), 5,
            neighbours=[1, 10, 50], temperature=0.07,
        )  # fmt: skip
        for k, votes in found.items():
            for query, seen in zip(queries, votes, strict=True):
                near = bank @ query / np.linalg.norm(bank, axis=1) / np.linalg.norm(query)
                expected = np.zeros(5)
                for row in np.argsort(-near)[:k]:
                    expected[labels[row]] += np.exp(near[row] / 0.07)
                np.testing.assert_allclose(seen, expected, rtol=1e-4, atol=1e-12)

    def test_equal_votes_go_to_the_lower_label(self, data: Path, tmp_path: Path) -> None:
        """Two pictures of two classes at one place: a vote each."""
        same = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        votes = knn.votes(same[:1], same, torch.tensor([1, 0]), 3, neighbours=[2], temperature=0.07)[2]
        assert votes.argmax(1).tolist() == [0]

    def test_every_k_is_scored_from_train_and_val(self, data: Path, tmp_path: Path) -> None:
        more = ["--protocol", "knn", "neighbours=[1,5,15]", "headline=5"]
        assert classify(data, tmp_path / "runs", *more) == 0
        found = result(tmp_path / "runs")
        assert found.metrics["k5/top1"] == 100
        assert {name.partition("/")[0] for name in found.metrics} == {"k1", "k5", "k15"}
        assert found.manifest["selection"]["bank"] == 15
        assert found.manifest["interval_95"].keys() == found.metrics.keys()

    def test_more_neighbours_than_pictures(
        self, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert classify(data, tmp_path / "runs", "--protocol", "knn") == 2
        assert "200 > 15; next: add neighbours=[10] headline=10" in capsys.readouterr().err


class TestBatches:
    def test_the_stream_drops_nothing_and_goes_on_anywhere(self) -> None:
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
        [("cosine", 0, 1), ("cosine", 50, 0.5), ("cosine", 100, 0), ("steps", 0, 1), ("steps", 28, 1),
         ("steps", 29, 0.1), ("steps", 58, 0.01)],
    )  # fmt: skip
    def test_rates(self, schedule: training.Schedule, step: int, expected: float) -> None:
        assert training.rate(step, 100, schedule, (8 / 28, 16 / 28)) == pytest.approx(expected)


def fitted(data: Path, folder: Path, **changes: object):
    found = datasets.folder(data)
    backbone = read_backbone("random")
    about = backbone.input
    settings: dict[str, object] = {
        "points": finetune.grid([0.02], [1e-4], []), "steps": 3, "batch_size": 4, "momentum": 0.9, "refit": False,
        "transform": pixels.Transform(SIZE, SIZE, "RGB", about.pixel_mean, about.pixel_std), "crop_area": (0.5, 1.0),
        "precision": "float32", "seed": 0, "folder": folder, "device": CPU, "workers": 0, "allow_unreadable": False,
    }  # fmt: skip
    return finetune.run(found, found.divided(0), backbone, **(settings | changes)), found, backbone, settings


class TestFinetuning:
    def test_against_a_plain_loop(self, data: Path, tmp_path: Path) -> None:
        """Three steps of SGD written out: the same batches, cosine, zero head, decay / lr, batch-norm momentum."""
        outcome, found, backbone, settings = fitted(data, tmp_path / "run")
        train = found.divided(0)["train"]
        model = features.network(backbone, CPU).requires_grad_(True).train()
        model.fc = torch.nn.Linear(2048, 3)
        torch.nn.init.zeros_(model.fc.weight)
        torch.nn.init.zeros_(model.fc.bias)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = min(10 / (len(train) / 4), 0.1)
        lr = 0.02 * 4 / 256
        optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9, nesterov=True, weight_decay=1e-4 / lr)
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
        saved = torch.load(tmp_path / "run/grid/lr0.02-decay0.0001/last.pth", weights_only=True)["module"]
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
        more = ["--protocol", "finetune", "steps=2", "batch_size=4", "lr=[0.01,0.1]", "decay=[0,1e-4]"]
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
        assert [what.partition(" ")[0] for what in seen[:3]] == [points[0].name, points[1].name, points[1].name]
        assert len(seen) == 4  # and the chosen one, which only answers

    def test_statistics_momentum_is_the_papers(self) -> None:
        """Table of the specification: Food101 .038 (train) and .034 (train + val), CIFAR .057 and .051, SUN397 .1."""
        cases = {68_175: 0.038, 75_750: 0.034, 45_000: 0.057, 50_000: 0.051, 15_880: 0.1}
        for n, expected in cases.items():
            assert finetune.statistics_momentum(n, 256) == pytest.approx(expected, abs=5e-4)

    def test_ties_go_to_the_smaller_rate_and_the_stronger_decay(self) -> None:
        points = finetune.grid([0.1, 0.01], [0.0, 1e-3], [50, 30])
        assert [(p.lr, p.decay, p.epochs) for p in points[:3]] == [(0.01, 1e-3, 30), (0.01, 1e-3, 50), (0.01, 0, 30)]
        assert finetune._selection(points, [50.0] * 8)["lr"] == 0.01


class TestHeads:
    def run(self, data: Path, folder: Path, **changes: object):
        found, backbone = datasets.folder(data), read_backbone("random")
        about = backbone.input
        settings: dict[str, object] = {
            "lr": [8.0, 2.0], "epochs": 2, "batch_size": 4, "momentum": 0.9, "weight_decay": 1e-3, "norm": False,
            "schedule": "cosine", "milestones": (), "crop_area": (0.5, 1.0), "precision": "float32", "seed": 0,
            "transform": pixels.Transform(SIZE, SIZE, "RGB", about.pixel_mean, about.pixel_std), "folder": folder,
            "device": CPU, "workers": 0, "allow_unreadable": False,
        }  # fmt: skip
        return heads.run(found, found.divided(0), backbone, **(settings | changes)), found, backbone, settings

    def test_against_heads_trained_one_by_one(self, data: Path, tmp_path: Path) -> None:
        """Each head of the one pass equals its own plain SGD; the first kind never sees a held-out row."""
        _, found, backbone, settings = self.run(data, tmp_path)
        saved = torch.load(tmp_path / "checkpoints/last.pth", weights_only=True)["module"]
        splits = found.divided(0)
        rows = np.sort(np.concatenate([splits["train"], splits["val"]]))
        trunk, steps = features.network(backbone, CPU), round(2 * len(rows) / 4)
        crops = pixels.Crops(found, settings["transform"], (0.5, 1.0), seed=0)  # type: ignore[arg-type]
        for who in ("train", "all"):
            for i, rate in enumerate((8.0, 2.0)):
                W, b = torch.zeros(3, 2048, requires_grad=True), torch.zeros(3, requires_grad=True)
                lr = rate * 4 / 256
                optimizer = torch.optim.SGD([W, b], lr, momentum=0.9, nesterov=True, weight_decay=1e-3)
                for step, batch in enumerate(training.Stream(rows, batch_size=4, seed=0, first=0, last=steps)):
                    batch = [item for item in batch if who == "all" or item[1] not in splits["val"]]
                    if not batch:
                        continue
                    optimizer.param_groups[0]["lr"] = lr * 0.5 * (1 + np.cos(np.pi * step / steps))
                    x = torch.stack([crops[item][1] for item in batch])
                    with torch.no_grad():
                        x = trunk(pixels.normalised(x, settings["transform"], CPU))  # type: ignore[arg-type]
                    loss = cross_entropy(x @ W.T + b, torch.tensor([found.labels[row] for _, row in batch]))
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                seen = saved[f"members.{who}-{i}.weight"]
                torch.testing.assert_close(seen, W.detach(), rtol=1e-3, atol=1e-4 * float(W.detach().abs().max()))

    def test_the_backbone_stays_as_it_was(self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.parametrize("kind", ["finetune", "imagenet-linear"])
def test_the_test_split_is_read_once_and_after_the_choice_is_written(
    data: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every decoded picture is noted; those shown among the mistakes are decoded again after the result's scores."""
    read, seen = datasets.DataSet.read, []

    def watched(self: datasets.DataSet, row: int) -> Image.Image:
        chosen = bool(list((tmp_path / "runs").rglob("selection.json")))
        seen.append((self.paths[row], chosen))
        return read(self, row)

    monkeypatch.setattr(datasets.DataSet, "read", watched)
    monkeypatch.setattr("harl_bench.classify.pictures.save", lambda *_: None)
    more = {"finetune": ["steps=1", "lr=[0.01]", "decay=[0]"], "imagenet-linear": ["epochs=1"]}[kind]
    assert classify(data, tmp_path / "runs", "--protocol", kind, "batch_size=4", *more) == 0
    tested = [(path, chosen) for path, chosen in seen if path.startswith("test/")]
    assert all(chosen for _, chosen in tested)
    assert sorted(path for path, _ in tested) == sorted({path for path, _ in tested})
    assert len(tested) == 9


class TestFewLabels:
    def listed(self, root: Path, count: int = 4) -> Path:
        names = [f"{wnid}_{i}.JPEG" for wnid in ("n01440764", "n02129165") for i in range(count)]
        path = root / "1percent.txt"
        path.write_text("\n".join(reversed(names)) + "\n")
        return path

    def test_held_out_pictures_are_none_of_the_list(self, tmp_path: Path) -> None:
        imagenet(tmp_path)
        path = self.listed(tmp_path)
        found = restricted(datasets.DATASETS["imagenet"](tmp_path), path, sha256="")
        divided = found.divided(0)
        assert len(divided["train"]) == 8
        assert np.bincount(found.labels[divided["val"]]).tolist() == [9, 9]  # of 10 others a class, one stays
        assert not set(divided["train"]) & set(divided["val"])
        assert {found.paths[row].rpartition("/")[2] for row in divided["train"]} == set(path.read_text().split())
        assert any("another list than SimCLR's" in text for text in found.departures)

    def test_the_published_list_is_known_by_its_hash(self, tmp_path: Path) -> None:
        imagenet(tmp_path)
        path = self.listed(tmp_path)
        text = "".join(f"{line}\n" for line in sorted(path.read_text().split()))
        digest = hashlib.sha256(text.encode()).hexdigest()
        found = restricted(datasets.DATASETS["imagenet"](tmp_path), path, sha256=digest)
        assert not any("list" in text for text in found.departures)
        whole = datasets.DATASETS["imagenet"](tmp_path)
        assert found.identity != whole.identity  # another run ...
        assert found.fingerprint == whole.fingerprint  # ... on the same features

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("n01440764_0.JPEG\nn01440764_99.JPEG\n", "not among the training pictures.*1 of 2, first n01440764_99"),
            ("n01440764_0.JPEG\n", "a class has no picture in the list.*n02129165"),
            ("n01440764_0.JPEG\nn01440764_0.JPEG\nn02129165_0.JPEG\n", "1 pictures are listed twice"),
        ],
    )
    def test_wrong_lists(self, tmp_path: Path, text: str, message: str) -> None:
        imagenet(tmp_path)
        (tmp_path / "list.txt").write_text(text)
        with pytest.raises(DataError, match=message):
            restricted(datasets.DATASETS["imagenet"](tmp_path), tmp_path / "list.txt", sha256="")

    def test_paths_serve_as_well_as_names(self, tmp_path: Path) -> None:
        imagenet(tmp_path)
        (tmp_path / "a").write_text("train/n01440764/n01440764_3.JPEG\nn02129165/n02129165_5.JPEG\n")
        found = restricted(datasets.DATASETS["imagenet"](tmp_path), tmp_path / "a", sha256="")
        assert [found.paths[row] for row in found.splits["train"]] == [
            "train/n01440764/n01440764_3.JPEG", "train/n02129165/n02129165_5.JPEG",
        ]  # fmt: skip

    def test_semi_as_a_person_runs_it(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        imagenet(tmp_path / "imagenet")
        more = ["--dataset", "imagenet", "--protocol", "semi-1pct", "batch_size=4", "lr=[0.01]", "epochs=[1,2]"]
        assert classify(tmp_path, tmp_path / "runs", *more) == 3
        assert "add list=FILE" in capsys.readouterr().err
        self.listed(tmp_path / "imagenet")
        assert classify(tmp_path, tmp_path / "runs", *more) == 0
        found = result(tmp_path / "runs")
        assert (found.dataset, found.protocol, found.n_test) == ("imagenet", "semi-1pct", 6)
        assert [point["epochs"] for point in found.manifest["selection"]["grid"]] == [1, 2]
        kept = [path.parent.name for path in (tmp_path / "runs").rglob("last.pth")]
        assert kept == [finetune.Point(0.01, 0.0, found.manifest["selection"]["epochs"]).name]

    def test_logistic_regression_on_the_list(self, tmp_path: Path) -> None:
        imagenet(tmp_path / "imagenet")
        path = self.listed(tmp_path)
        more = ["--dataset", "imagenet", "--protocol", "semi-1pct-logreg", f"list={path}", "count=3"]
        assert classify(tmp_path, tmp_path / "runs", *more) == 0
        assert result(tmp_path / "runs").manifest["split"]["train"]["n"] == 8


def test_every_packaged_protocol_states_source_cost_score_and_command() -> None:
    assert protocol.names() == [
        "finetune", "finetune-small", "imagenet-linear", "knn", "linear", "linear-sgd", "linear-toy", "semi-10pct",
        "semi-10pct-logreg", "semi-1pct", "semi-1pct-logreg",
    ]  # fmt: skip
    for name in protocol.names():
        text = (protocol.FOLDER / f"{name}.yaml").read_text()
        for heading in ("# Source:", "# Cost:", "# Expected:", "# Command:  harl-bench classify"):
            assert heading in text, (name, heading)
        assert f"--protocol {name}" in text
        loaded, settings, departures = protocol.load(name)
        assert loaded == name
        assert departures[: len(settings.departures)] == list(settings.departures) or name == "finetune-small"


def test_grids_are_the_papers() -> None:
    full = protocol.load("finetune")[1]
    np.testing.assert_allclose(full.lr, np.logspace(-4, -1, 7), rtol=1e-6)  # type: ignore[union-attr]
    np.testing.assert_allclose(full.decay, [0, *np.logspace(-6, -3, 7)], rtol=1e-6)  # type: ignore[union-attr]
    assert full.trainings == 57  # type: ignore[union-attr]
    assert full.cost(0, 0, 0) == 57 * 20_000 * 256 == 291_840_000
    small, departures = protocol.load("finetune-small")[1:]
    assert small.cost(0, 0, 0) == 21 * 5000 * 64
    assert departures[0].startswith("reduced: 21 trainings")
    assert protocol.load("semi-1pct")[1].cost(12_811, 10_000, 50_000) == 5 * 80 * 12_811 + 10 * 10_000 + 50_000
    assert protocol.load("imagenet-linear")[1].cost(1000, 10, 20) == 80 * 1010 + 10 + 20


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("knn", "headline=30", "headline 30 is not among neighbours"),
        ("finetune", "epochs=[3]", "either steps or epochs"),
        ("finetune", "lr=[0]", "learning rates are positive"),
        ("imagenet-linear", "crop_area=[0.5,0.2]", "crop_area is"),
        ("imagenet-linear", "decay=[1]", "unknown key 'decay'"),
    ],
)
def test_wrong_settings(name: str, override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        protocol.load(name, [override])


def test_a_dry_run_tells_the_cost(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert classify(data, tmp_path / "runs", "--protocol", "finetune-small", "--dry-run") == 0
    assert f"{21 * 5000 * 64 + 20 * 3 + 9:,} pictures through the network" in capsys.readouterr().out.replace("\n", " ")
    assert not (tmp_path / "runs").exists()


def test_edges() -> None:
    grid = [float(v) for v in range(1, 10)]
    assert [near_edge(v, grid, 3) for v in (1.0, 3.0, 4.0, 6.0, 7.0, 9.0)] == [True, True, False, False, True, True]
    assert not near_edge(1.0, [1.0], 1)


@pytest.mark.parametrize("kind", ["linear", "imagenet-linear", "finetune"])
def test_a_validation_split_without_a_readable_picture_is_one_line(
    data: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in COLOURS:
        (data / "val" / name).mkdir(parents=True)
        (data / "val" / name / "0.png").write_bytes(b"not a picture")
    more = {"linear": [], "finetune": ["steps=1", "batch_size=4"], "imagenet-linear": ["epochs=1", "batch_size=4"]}[
        kind
    ]
    assert classify(data, tmp_path / "runs", "--protocol", kind, "--allow-unreadable", *more) == 3
    error = capsys.readouterr().err
    assert "no readable validation picture" in error
    assert error.count("\n") == 1
    assert not list((tmp_path / "runs").rglob("result.json"))


def test_too_many_unreadable_pictures_stop_a_training(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "train" / "red" / "0.png").write_bytes(b"not a picture")
    (data / "train" / "red" / "1.png").write_bytes(b"not a picture")
    more = ["--protocol", "linear-sgd", "epochs=2", "batch_size=4"]
    assert classify(data, tmp_path / "runs", *more) == 3
    assert "pictures are unreadable, more than 1%" in capsys.readouterr().err
    assert classify(data, tmp_path / "runs", *more, "--allow-unreadable") == 0
    assert result(tmp_path / "runs").manifest["unreadable"] == ["train/red/0.png", "train/red/1.png"]


@pytest.mark.parametrize("name", ["cifar10", "dtd"])
def test_published_layouts_as_a_person_runs_them(tmp_path: Path, name: str) -> None:
    """An array on disk read by a worker, and a set with an official validation list."""
    WRITERS[name](tmp_path / "data")
    assert classify(tmp_path / "data", tmp_path / "runs", "--dataset", name, "count=3", workers=1) == 0
    found, published = result(tmp_path / "runs"), datasets.PUBLISHED[name]
    assert (found.dataset, found.protocol) == (name, "linear")
    assert any(f"instead of the published {published.train:,}" in text for text in found.departures)
    assert found.metrics["top1"] == 100  # colours alone tell these classes apart
    drawn = list((tmp_path / "runs").rglob("val.txt"))
    assert len(drawn) == (name == "cifar10")
    if drawn:
        digest = hashlib.sha256(drawn[0].read_bytes()).hexdigest()
        assert found.manifest["split"]["val"] == {"n": 2, "sha256": digest}
    lines = [json.loads(line) for line in next((tmp_path / "runs").rglob("metrics.jsonl")).read_text().splitlines()]
    assert len(lines) == 3
    assert max(line["certificate"] for line in lines) <= 2e-3


@pytest.mark.slow
def test_two_processes_extract_what_one_does(data: Path, tmp_path: Path) -> None:
    found, backbone = datasets.folder(data), read_backbone("random")
    transform = pixels.Transform(SIZE, SIZE, "RGB", backbone.input.pixel_mean, backbone.input.pixel_std)
    one, two = (
        np.load(features.extract(found, backbone, tmp_path / str(n), transform=transform, device=CPU, processes=n)
                / "features.npy") for n in (1, 2)
    )  # fmt: skip
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5 * one.max())
    about = json.loads(next((tmp_path / "2").glob("*/meta.json")).read_text())
    assert about["pictures_per_s"] > 0
    assert 0 <= about["waiting_share"] <= 1

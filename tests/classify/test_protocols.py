"""Neighbours and few labels, each against a short version, and every protocol as a person runs
it.
"""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harl_bench.classify import datasets, features, pixels, protocol
from harl_bench.classify.outcome import near_edge
from harl_bench.convert.read import read_backbone
from harl_bench.core.errors import UsageError
from tests.classify.command import COLORS, CPU, SIZE, classify, result
from tests.classify.layouts import WRITERS


@pytest.mark.parametrize("kind", ["finetune", "imagenet-linear"])
def test_the_test_split_is_read_once_and_after_the_choice_is_written(
    data: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every decoded image is noted; those shown among the mistakes are decoded again after the
    result's scores.
    """
    read, seen = datasets.DataSet.read, []

    def watched(self: datasets.DataSet, row: int) -> Image.Image:
        chosen = bool(list((tmp_path / "runs").rglob("selection.json")))
        seen.append((self.paths[row], chosen))
        return read(self, row)

    monkeypatch.setattr(datasets.DataSet, "read", watched)
    monkeypatch.setattr("harl_bench.classify.images.save", lambda *_: None)
    more = {"finetune": ["steps=1", "lr=[0.01]", "decay=[0]"], "imagenet-linear": ["epochs=1"]}[
        kind
    ]
    assert classify(data, tmp_path / "runs", "--protocol", kind, "batch_size=4", *more) == 0
    tested = [(path, chosen) for path, chosen in seen if path.startswith("test/")]
    assert all(chosen for _, chosen in tested)
    assert sorted(path for path, _ in tested) == sorted({path for path, _ in tested})
    assert len(tested) == 9


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kind: linear\nimage_size: 224\n", []),
        (
            "kind: linear\nimage_size: 64\ncount: 3\n",
            ["image_size 64 instead of 224", "count 3 instead of 45"],
        ),
        (
            "kind: linear\nimage_size: 224\nlabelled: {names: [few.txt], sha256: ab}\n",
            ["labelled {'names': ['few.txt'], 'sha256': 'ab'} instead of None"],
        ),
        (
            "kind: knn\nimage_size: 224\nneighbours: [5]\nheadline: 5\ntemperature: 1.0\n",
            [
                "kind knn instead of linear",
                "neighbours 5 instead of None",
                "headline 5 instead of None",
                "temperature 1.0 instead of None",
            ],
        ),
    ],
)
def test_a_file_of_a_packaged_name_departs_from_that_protocol(
    tmp_path: Path, text: str, expected: list[str]
) -> None:
    """Its rows stand in the column of that name."""
    (tmp_path / "linear.yaml").write_text(text)
    name, _, departures = protocol.load(str(tmp_path / "linear.yaml"))
    assert (name, departures) == ("linear", expected)
    (tmp_path / "mine.yaml").write_text(text)
    assert protocol.load(str(tmp_path / "mine.yaml"))[2] == []


def test_every_packaged_protocol_states_source_cost_score_and_command() -> None:
    for name in protocol.names():
        text = (protocol.FOLDER / f"{name}.yaml").read_text()
        for heading in ("# Source:", "# Cost:", "# Expected:", "# Command:  harl-bench classify"):
            assert heading in text, (name, heading)
        assert f"--protocol {name}" in text
        loaded, settings, departures = protocol.load(name)
        assert loaded == name
        assert (
            departures[: len(settings.departures)] == list(settings.departures)
            or name[:9] == "finetune-"
        )


def test_grids_are_the_papers() -> None:
    full = protocol.load("finetune")[1]
    np.testing.assert_allclose(full.lr, np.logspace(-4, -1, 7), rtol=1e-6)  # type: ignore[union-attr]
    np.testing.assert_allclose(full.decay, [0, *np.logspace(-6, -3, 7)], rtol=1e-6)  # type: ignore[union-attr]
    assert full.rounds == [(56, 20_000)]  # type: ignore[union-attr]
    assert full.cost(0, 0, 0) == 57 * 20_000 * 256 == 291_840_000
    small, departures = protocol.load("finetune-small")[1:]
    assert small.cost(0, 0, 0) == 21 * 5000 * 64
    assert departures[0].startswith("reduced: 21 trainings")
    halving, departures = protocol.load("finetune-halving")[1:]
    assert (halving.lr, halving.decay) == (full.lr, full.decay)  # type: ignore[union-attr]
    assert halving.rounds == [(56, 1000), (14, 4000), (3, 20_000)]  # type: ignore[union-attr]
    assert halving.cost(0, 10, 3) == (56 * 1000 + 14 * 4000 + 4 * 20_000) * 256 + 73 * 10 + 3
    assert departures[0].startswith("reduced: of 56 settings")
    assert (
        protocol.load("semi-1pct")[1].cost(12_811, 10_000, 50_000)
        == 5 * 80 * 12_811 + 10 * 10_000 + 50_000
    )
    assert protocol.load("imagenet-linear")[1].cost(1000, 10, 20) == 80 * 1010 + 10 + 20


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("knn", "headline=30", "headline 30 is not among neighbours"),
        ("knn", "neighbours=[20,20]", "are not different"),
        ("finetune", "epochs=[3]", "either steps or epochs"),
        ("finetune", "lr=[0.10001,0.10002]", "first four digits"),
        ("finetune", "decay=[0.00010001,0.00010002]", "first four digits"),
        ("finetune-halving", "halving=[[1000,60]]", "halving: rounds of"),
        ("finetune-halving", "halving=[[0,14]]", "halving: rounds of"),
        ("finetune-halving", "halving=[[4000,14],[1000,3]]", "halving: rounds of"),
        ("finetune", "lr=[0]", "learning rates are positive"),
        ("imagenet-linear", "crop_area=[0.5,0.2]", "crop_area is"),
        ("imagenet-linear", "decay=[1]", "unknown key 'decay'"),
        ("imagenet-linear", "lr=[.inf]", "lr.*should be a finite number"),
        ("linear", "high=.inf", "high.*should be a finite number"),
        ("linear-fewshot", "eps=.inf", "eps.*should be a finite number"),
        ("knn", "temperature=.inf", "temperature.*should be a finite number"),
        ("svm", "costs=[1,.inf]", "costs.*should be a finite number"),
    ],
)
def test_wrong_settings(name: str, override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        protocol.load(name, [override])


def test_val_share_is_not_said_of_a_set_with_its_own_validation_split(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was a departure that was none."""
    shutil.copytree(data / "test", data / "val")
    assert classify(data, tmp_path / "runs", "val_share=0.5") == 2
    assert "seen: val_share=0.5; next: leave val_share out" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["knn", "svm", "svm-lowshot", "linear-sgd"])
def test_val_share_is_not_said_where_val_is_learnt_from(
    data: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert classify(data, tmp_path / "runs", "--protocol", name, "val_share=0.5") == 2
    assert "val_share changes nothing: val is learnt from like train" in capsys.readouterr().err
    assert not list((tmp_path / "runs").rglob("features.npy"))


def test_a_dry_run_tells_the_cost(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert classify(data, tmp_path / "runs", "--protocol", "finetune-small", "--dry-run") == 0
    assert f"{21 * 5000 * 64 + 20 * 3 + 9:,} images through the network" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()


def test_edges() -> None:
    grid = [float(v) for v in range(1, 10)]
    assert [near_edge(v, grid, 3) for v in (1.0, 3.0, 4.0, 6.0, 7.0, 9.0)] == [
        True,
        True,
        False,
        False,
        True,
        True,
    ]
    assert not near_edge(1.0, [1.0], 1)


@pytest.mark.parametrize("kind", ["linear", "imagenet-linear", "finetune"])
def test_a_validation_split_without_a_readable_image_is_one_line(
    data: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in COLORS:
        (data / "val" / name).mkdir(parents=True)
        (data / "val" / name / "0.png").write_bytes(b"not an image")
    more = {
        "linear": [],
        "finetune": ["steps=1", "batch_size=4"],
        "imagenet-linear": ["epochs=1", "batch_size=4"],
    }[kind]
    assert classify(data, tmp_path / "runs", "--protocol", kind, "--allow-unreadable", *more) == 3
    error = capsys.readouterr().err
    assert "no readable validation image" in error
    assert error.count("\n") == 1
    assert not list((tmp_path / "runs").rglob("result.json"))


def test_too_many_unreadable_images_stop_a_training(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "train" / "red" / "0.png").write_bytes(b"not an image")
    (data / "train" / "red" / "1.png").write_bytes(b"not an image")
    more = ["--protocol", "linear-sgd", "epochs=2", "batch_size=4"]
    assert classify(data, tmp_path / "runs", *more) == 3
    assert "images are unreadable, more than 1%" in capsys.readouterr().err
    assert classify(data, tmp_path / "runs", *more, "--allow-unreadable") == 0
    assert result(tmp_path / "runs").manifest["unreadable"] == [
        "train/red/0.png",
        "train/red/1.png",
    ]


@pytest.mark.parametrize("name", ["cifar10", "dtd"])
def test_published_layouts_as_a_person_runs_them(tmp_path: Path, name: str) -> None:
    """An array on disk read by a worker, and a set with an official validation list."""
    WRITERS[name](tmp_path / "data")
    assert (
        classify(tmp_path / "data", tmp_path / "runs", "--dataset", name, "count=3", workers=1) == 0
    )
    found, published = result(tmp_path / "runs"), datasets.PUBLISHED[name]
    assert (found.dataset, found.protocol) == (name, "linear")
    assert any(f"instead of the published {published.train:,}" in text for text in found.departures)
    assert found.metrics["top1"] == 100  # colors alone tell these classes apart
    drawn = list((tmp_path / "runs").rglob("val.txt"))
    assert len(drawn) == (name == "cifar10")
    if drawn:
        digest = hashlib.sha256(drawn[0].read_bytes()).hexdigest()
        assert found.manifest["split"]["val"] == {"n": 2, "sha256": digest}
    lines = [
        json.loads(line)
        for line in next((tmp_path / "runs").rglob("metrics.jsonl")).read_text().splitlines()
    ]
    assert len(lines) == 3
    assert max(line["certificate"] for line in lines) <= 2e-3


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_two_processes_extract_what_one_does(data: Path, tmp_path: Path) -> None:
    found, backbone = datasets.folder(data), read_backbone("random")
    transform = pixels.Transform(
        SIZE, SIZE, "RGB", backbone.input.pixel_mean, backbone.input.pixel_std
    )
    one, two = (
        np.load(
            features.extract(
                found, backbone, tmp_path / str(n), transform=transform, device=CPU, processes=n
            )
            / "features.npy"
        )
        for n in (1, 2)
    )
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5 * one.max())
    about = json.loads(next((tmp_path / "2").glob("*/meta.json")).read_text())
    assert about["pictures_per_s"] > 0
    assert 0 <= about["waiting_share"] <= 1

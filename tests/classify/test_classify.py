"""`harl-bench classify` as a person runs it: features, selection before test, results, faults."""

import json
from pathlib import Path

import numpy as np
import pytest

from harl_bench.classify import linear
from harl_bench.cli import main
from harl_bench.convert.read import read_backbone
from harl_bench.convert.statements import TOY
from harl_bench.core.results import Result, read_result
from harl_bench.core.toy import MARKER
from harl_bench.nn import checkpoint
from tests.classify.command import SIZE, watched_reads


@pytest.fixture
def data(data_of_odd_sizes: Path) -> Path:
    return data_of_odd_sizes


def classify(data: Path, out: Path, *more: str, checkpoint: str = "random") -> int:
    return main(
        [
            "classify",
            checkpoint,
            f"image_size={SIZE}",
            "--data",
            str(data),
            "--out",
            str(out),
            "--device",
            "cpu",
            "--workers",
            "0",
            *more,
        ]
    )


def results(out: Path) -> list[Result]:
    return [read_result(path) for path in sorted(out.rglob("result.json"))]


def test_a_run_is_measured_recorded_and_not_repeated(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs"
    assert classify(data, out) == 0
    (result,) = results(out)
    assert result.metrics["top1"] == 100  # colors alone tell these classes apart
    assert result.metrics.keys() == {"top1", "mean_per_class"}
    assert (result.n_test, result.task, result.toy) == (12, "classify", False)
    assert result.per_class["red"]["top1"] == 100
    assert result.departures == [f"image_size {SIZE} instead of 224"]
    assert result.manifest["selection"]["largest_certificate"] <= 2e-3
    low, high = result.manifest["interval_95"]["top1"]
    assert low <= 100 <= high
    folder = next(out.rglob("result.json")).parent
    stored = np.load(folder / "predictions.npz")
    assert stored["labels"].tolist() == stored["predicted"].tolist()
    assert not (folder / "pictures" / "mistakes.png").exists()  # there are none to show
    capsys.readouterr()
    assert classify(data, out) == 0
    assert "already finished" in capsys.readouterr().out


def test_mistakes_are_counted_and_shown(data: Path, tmp_path: Path) -> None:
    (data / "test" / "red" / "0.png").write_bytes((data / "test" / "blue" / "0.png").read_bytes())
    assert classify(data, tmp_path / "runs") == 0
    (result,) = results(tmp_path / "runs")
    assert result.metrics["top1"] == pytest.approx(100 * 11 / 12)
    assert result.per_class["red"]["top1"] == 75
    assert (
        next((tmp_path / "runs").rglob("result.json")).parent / "pictures" / "mistakes.png"
    ).exists()


def test_seeds_share_nothing_but_the_data(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert classify(data, tmp_path / "runs", "--seeds", "0", "1") == 0
    first, second = results(tmp_path / "runs")
    assert (first.seed, second.seed) == (0, 1)
    splits = [r.manifest["split"]["val"]["sha256"] for r in (first, second)]
    assert splits[0] != splits[1]
    assert first.manifest["split"]["test"] == second.manifest["split"]["test"]


def test_a_toy_mark_is_passed_on(data: Path, tmp_path: Path) -> None:
    (data / MARKER).write_text("generated")
    assert classify(data, tmp_path / "runs") == 0
    assert results(tmp_path / "runs")[0].toy


def test_the_test_split_is_read_once_and_after_the_choice_is_written(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watched_reads(monkeypatch, tmp_path / "runs")
    assert classify(data, tmp_path / "runs") == 0
    assert seen == [("train", False), ("val", False), ("test", True)]


def test_ties_go_to_the_stronger_regularization(data: Path, tmp_path: Path) -> None:
    """Separable classes: every small lambda has a perfect validation score; the largest such one
    is taken.
    """
    assert classify(data, tmp_path / "runs") == 0
    folder = next((tmp_path / "runs").rglob("result.json")).parent
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    best = max(row["val_top1"] for row in rows)
    chosen = json.loads((folder / "selection.json").read_text())["strength"]
    assert chosen == max(row["strength"] for row in rows if row["val_top1"] == best)
    assert sum(row["val_top1"] == best for row in rows) > 1
    assert len(rows) == len(linear.grid(1e-6, 1e5, 45)) == 45


@pytest.mark.parametrize(
    ("spoil", "code", "message"),
    [
        (lambda d: (d / "test").rename(d / "tset"), 3, "no test/ folder"),
        (lambda d: (d / "test" / "red").rename(d / "test" / "rde"), 3, "different classes"),
        (
            lambda d: [p.unlink() for p in (d / "train" / "red").iterdir() if p.name != "0.png"],
            3,
            "too few training",
        ),
        (lambda d: [p.unlink() for p in d.rglob("*.png")], 3, "no images"),
    ],
)
def test_a_wrong_layout_is_one_line(
    data: Path,
    tmp_path: Path,
    spoil: object,
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil(data)  # type: ignore[operator]
    assert classify(data, tmp_path / "runs") == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["image_szie=3"], 2, "did you mean 'image_size'"),
        (["--protocol", "liner"], 2, "did you mean 'linear'"),
        (["--dataset", "floder"], 2, "did you mean 'folder'"),
        (["low=1e9"], 2, "above high"),
    ],
)
def test_wrong_words_are_one_line(
    data: Path,
    tmp_path: Path,
    more: list[str],
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert classify(data, tmp_path / "runs", *more) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_dry_run_writes_nothing(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert classify(data, tmp_path / "runs", "--dry-run") == 0
    text = capsys.readouterr().out
    (words,) = [line.split() for line in text.splitlines() if line.startswith("new ")]
    assert words[1].endswith("seed0")
    assert "to do       1 of 1, each " in text
    assert not (tmp_path / "runs").exists()


def test_what_the_file_states_and_the_label_reach_result_and_report(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    half, out = tmp_path / "half.pth", tmp_path / "runs"
    about = {
        "format": "harl-bench",
        "method": "byol",
        "net": "online",
        "toy": True,
        "high_pass": True,
    }
    about |= {
        "input_format": "RGB",
        "pixel_mean": [123.675, 116.28, 103.53],
        "pixel_std": [58.395, 57.12, 57.375],
    }
    backbone = read_backbone("random").tensors
    checkpoint.save(half, backbone=backbone, method={}, step=33, steps=60, harl_bench=about)
    command = [
        "classify",
        str(half),
        f"image_size={SIZE}",
        "--data",
        str(data),
        "--out",
        str(out),
        "--device",
        "cpu",
        "--workers",
        "0",
    ]
    assert main(command) == 0
    statement = "pretraining unfinished: step 33 of 60"
    assert f"warning: half.pth: {statement}" in " ".join(capsys.readouterr().out.split())
    (first,) = results(out)
    assert {
        statement,
        TOY,
        "the network sees high-pass filtered images, as in its pretraining",
    } <= set(first.departures)
    assert (first.method, first.label, first.toy) == ("byol", "", True)
    monkeypatch.setattr(
        "harl_bench.classify.measure.measure", lambda *_, **__: pytest.fail("measured again")
    )
    for label in ("mine", "ours"):
        assert main([*command, "--label", label]) == 0
    (again,) = results(out)
    assert (again.label, again.run_id, again.metrics) == ("ours", first.run_id, first.metrics)
    assert main(["report", str(out), "--md", str(tmp_path / "r.md")]) == 0
    text = (tmp_path / "r.md").read_text()
    assert "ours (half)" in text
    assert statement in text

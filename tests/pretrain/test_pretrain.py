"""`harl-bench pretrain` as a person runs it: files, resuming to the same bits, and stopping."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harl_bench.cli import main
from harl_bench.convert.read import read_backbone
from harl_bench.convert.statements import TOY
from harl_bench.core.progress import read_metrics
from harl_bench.nn import checkpoint
from tests.pretrain.conftest import write_images

FAST = [
    "image_size=32",
    "projector_hidden=16",
    "projector_out=8",
    "predictor_hidden=16",
    "epochs=3",
    "warmup_epochs=1",
    "batch_size=4",
    "log_every_steps=1",
    "checkpoint_every_steps=2",
    "feature_grid=14",
]
RESNET18 = [*FAST, "backbone=resnet18"]


def command(
    folders: tuple[Path, Path], out: Path, *more: str, overrides: list[str] = RESNET18
) -> list[str]:
    images, masks = map(str, folders)
    return [
        "pretrain",
        "--method",
        "harl",
        "--recipe",
        "harl-toy",
        *overrides,
        "--data",
        images,
        "--masks",
        masks,
        "--out",
        str(out),
        "--workers",
        "0",
        "--device",
        "cpu",
        *more,
    ]


def state(out: Path) -> dict[str, torch.Tensor]:
    payload = checkpoint.load_own(out / "last.pth")
    method: dict[str, torch.Tensor] = payload["method"]
    return method


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_leaves_its_files_and_is_not_repeated(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(command(folders, out, overrides=FAST)) == 0
    rows = read_metrics(out / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(9))
    expected = {
        "loss",
        "loss_whole",
        "loss_foreground",
        "loss_background",
        "alpha",
        "lambda",
        "tau",
        "lr",
        "feature_std",
    }
    assert expected <= rows[0].keys()
    assert (out / "pictures" / "views.png").stat().st_size > 1000
    assert {"config.yaml", "log.txt", "run.json", "done.json", "last.pth"} <= {
        p.name for p in out.iterdir()
    }
    read = read_backbone(out / "last.pth")
    # Its recipe is harl-toy, and it is finished.
    assert (read.toy, read.departures) == (True, [TOY])
    assert (read.ref.format, read.ref.net, read.epoch, len(read.tensors)) == (
        "harl-bench",
        "online",
        3,
        265,
    )
    assert read.method == "harl"
    target = read_backbone(out / "last.pth", net="momentum")
    assert not torch.equal(target.tensors["conv1.weight"], read.tensors["conv1.weight"])

    written = (out / "last.pth").stat().st_mtime_ns
    capsys.readouterr()
    assert main(command(folders, out, overrides=FAST)) == 0
    assert "already finished" in capsys.readouterr().out
    assert (out / "last.pth").stat().st_mtime_ns == written

    (out / "last.pth").unlink()
    assert main(command(folders, out, overrides=FAST)) == 4
    assert "its weights are gone" in capsys.readouterr().err
    assert read_metrics(out / "metrics.jsonl") == rows


def test_other_settings_in_the_same_folder_are_refused(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(command(folders, out)) == 0
    assert main([*command(folders, out), "alpha_base=0.5"]) == 2
    error = capsys.readouterr().err
    assert "alpha_base was 0.7, now 0.5" in error
    assert "--fresh" in error
    assert main([*command(folders, out, "--fresh"), "alpha_base=0.5"]) == 0


def test_seed_decides_everything(folders: tuple[Path, Path], tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert main(command(folders, tmp_path / name, "--seed", str(seed))) == 0
    assert same(state(tmp_path / "a"), state(tmp_path / "b"))
    assert not same(state(tmp_path / "a"), state(tmp_path / "c"))


def test_several_seeds_are_several_runs(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(folders, tmp_path / "one", "--seed", "1")) == 0
    assert main(command(folders, tmp_path / "runs", "--seeds", "0", "1")) == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["seed0", "seed1"]
    assert same(state(tmp_path / "one"), state(tmp_path / "runs" / "seed1"))
    assert not same(state(tmp_path / "one"), state(tmp_path / "runs" / "seed0"))
    capsys.readouterr()
    assert main(command(folders, tmp_path / "runs", "--seeds", "0", "--seed", "1")) == 2
    assert "leave one of them out" in capsys.readouterr().err


@pytest.mark.slow
def test_several_seeds_under_torchrun(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """The processes met anew for the second seed, and waited for each other for an hour."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    words = command(folders, tmp_path / "runs", "--seeds", "0", "1")
    log = tmp_path / "log"
    with open(log, "wb") as file:
        process = subprocess.Popen(
            [*torchrun, "-m", "harl_bench.cli", *words, "epochs=1", "warmup_epochs=0"],
            stdout=file,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
    try:
        assert process.wait(timeout=150) == 0
    finally:
        process.terminate()
        process.wait()
    assert len(list((tmp_path / "runs").glob("seed*/done.json"))) == 2
    assert log.read_text().count("pretrain harl: ") == 2, "one process speaks"


def test_a_loss_that_is_not_finite_stops_with_a_hint(
    folders: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pretrain.methods import harl

    monkeypatch.setattr(harl, "hybrid_loss", lambda D_w, L_mask, lambda_: D_w * float("nan"))
    assert main(command(folders, tmp_path / "run")) == 1
    error = capsys.readouterr().err
    assert "not finite" in error
    assert "base_lr" in error
    assert not (tmp_path / "run" / "done.json").exists()


def test_steps_are_those_of_the_ramp(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three batches an epoch: 3 steps in three epochs, then 2 in four, then 1 in three."""
    overrides = [*RESNET18, "epochs=10", "accumulation_ramp=true"]
    assert main(command(folders, tmp_path / "run", "--dry-run", overrides=overrides)) == 0
    assert "20 steps of 4 to 12 images, 10 epochs" in capsys.readouterr().out


def test_dry_run_and_preview_train_nothing(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(folders, tmp_path / "dry", "--dry-run", "--verbose")) == 0
    assert "feature_grid: 14" in capsys.readouterr().out
    assert main(command(folders, tmp_path / "dry", "--dry-run")) == 0
    text = capsys.readouterr().out
    assert "time        not known for resnet18 at " in text
    assert "feature_grid: 14" not in text
    assert len(text.splitlines()) <= 10
    assert not (tmp_path / "dry").exists()
    assert main(command(folders, tmp_path / "look", "--preview")) == 0
    assert (tmp_path / "look" / "pictures" / "views.png").exists()
    assert not (tmp_path / "look" / "last.pth").exists()


def test_byol_trains_without_masks(tmp_path: Path) -> None:
    images, _ = write_images(tmp_path, 8)
    out = tmp_path / "byol"
    assert (
        main(
            [
                "pretrain",
                "--method",
                "byol",
                "--recipe",
                "byol-toy",
                "--data",
                str(images),
                "--out",
                str(out),
                "--workers",
                "0",
                "--device",
                "cpu",
                *RESNET18,
            ]
        )
        == 0
    )
    assert read_metrics(out / "metrics.jsonl")[-1]["step"] == 5


def test_fresh_removes_what_a_run_wrote_and_nothing_else(folders: tuple[Path, Path]) -> None:
    """It removed the folder: the images, too, where they lay in it."""
    out = folders[0].parent
    before = {path for path in out.rglob("*") if path.is_file()}
    assert main(command(folders, out, "--tensorboard")) == 0
    assert len(set(out.glob("tensorboard/*"))) == 1
    made = {path for path in out.rglob("*") if path.is_file()}
    (out / "done.json").write_text('{"steps": 99}')
    assert main(command(folders, out, "--fresh", "--preview")) == 0
    kept = {path.name for path in out.rglob("*") if path.is_file() and path not in before}
    assert kept == {".lock", "config.yaml", "run.json", "views.png"}
    assert before < made
    assert all(path.is_file() for path in before)


def test_the_dry_run_gives_the_answer_of_the_run(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another run's folder is refused by both, a finished one told by both; nothing is written."""
    out = tmp_path / "run"
    assert main(command(folders, out, "--preview")) == 0  # claims the folder, trains nothing
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    other = [*RESNET18, "epochs=4"]
    for more in ((), ("--dry-run",)):
        assert main(command(folders, out, *more, overrides=other)) == 2
        assert "the folder holds another run" in capsys.readouterr().err
    assert main(command(folders, out, "--dry-run", "--fresh", overrides=other)) == 0
    assert main(command(folders, out, "--dry-run")) == 0
    assert "device      1 x cpu, " in capsys.readouterr().out
    (out / "done.json").write_text("{}")
    for code in (4, 0):  # without its weights, and with them
        assert main(command(folders, out, "--dry-run")) == code
        (out / "last.pth").touch()
    assert "already finished" in capsys.readouterr().out
    for name in ("done.json", "last.pth"):
        (out / name).unlink()
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path != out} == {
        path: time for path, time in before.items() if path != out
    }

"""What pretrain refuses or stops at, in one line with the right code."""

import shutil
from pathlib import Path

import pytest
import torch

from harl_bench.cli import main
from pretrain.unreadable import Unreadable
from tests.pretrain.test_pretrain import command


def test_more_than_one_percent_unreadable_stops_unless_allowed(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = folders[0] / "n0" / "p000.png"
    bad.write_bytes(bad.read_bytes()[:200])
    assert main(command(folders, tmp_path / "run")) == 3
    assert "1 of 12 images cannot be read" in capsys.readouterr().err
    assert main(command(folders, tmp_path / "run", "--allow-unreadable")) == 0
    assert "1 of 12 images could not be read" in capsys.readouterr().out
    assert (tmp_path / "run" / "unreadable.txt").read_text().startswith("n0/p000.png\t")


def test_unreadable_files_may_have_names_of_any_bytes(tmp_path: Path) -> None:
    faults = [("n0/caf\udce9.png", "truncated"), ("n0/ß.png", "empty")]
    Unreadable(tmp_path / "unreadable.txt", 9, True, resumed=False).add(faults)
    assert (tmp_path / "unreadable.txt").read_bytes().startswith(b"n0/caf\xe9.png\ttruncated\n")
    resumed = Unreadable(tmp_path / "unreadable.txt", 9, True, resumed=True)
    assert resumed.seen == dict(faults)


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (["--data", "{tmp}/none"], 3, "folder not found"),
        (["--data", "{tmp}/empty"], 3, "no images"),
        (["--recipe", "harl-tog"], 2, "did you mean 'harl-toy'"),
        (["--method", "byol"], 2, "is for harl, not byol"),
        (["--method", "hral"], 2, "unknown method 'hral'; did you mean 'harl'?"),
        (["feature_gird=14"], 2, "did you mean 'feature_grid'"),
        (["alpha_base=2"], 2, "less than or equal to 1"),
        (["warmup_epochs=9"], 2, "must be shorter than epochs"),
        (["batch_size=64"], 2, "larger than the data set"),
        (["--device", "cuda"], 5, "no CUDA device"),
    ],
)
def test_bad_input_is_one_line_with_the_right_code(
    folders: tuple[Path, Path],
    tmp_path: Path,
    change: list[str],
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "cuda" in change and torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    (tmp_path / "empty").mkdir()
    change = [part.replace("{tmp}", str(tmp_path)) for part in change]
    arguments = command(folders, tmp_path / "run")
    for option in (part for part in change if part.startswith("--")):
        at = arguments.index(option)
        del arguments[at : at + 2]
    assert main([*arguments, *change]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_harl_without_masks_names_the_command_that_makes_them(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["pretrain", "--method", "harl", "--recipe", "harl-toy", "--data", str(folders[0])])
        == 2
    )
    assert "harl-bench masks make" in capsys.readouterr().err


def test_masks_for_a_method_without_masks_are_refused(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["pretrain", "--method", "byol", "--recipe", "byol-toy", "--data", str(folders[0])]
    assert main([*arguments, "--masks", str(folders[1]), "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert "byol uses no masks" in error
    assert "leave --masks out" in error
    assert not (tmp_path / "run").exists()


def test_held_out_images_of_other_classes_are_refused(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strange = tmp_path / "val" / "zebra"
    strange.mkdir(parents=True)
    (strange / "a.png").write_bytes((folders[0] / "n0" / "p000.png").read_bytes())
    assert main(command(folders, tmp_path / "run", "--val", str(tmp_path / "val"))) == 3
    assert "zebra" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_held_out_images_among_the_images_are_refused(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They were trained on, and were among their own neighbours."""
    val = folders[0] / "val"
    shutil.copytree(folders[0], val)
    assert main(command(folders, tmp_path / "run", "--val", str(val))) == 2
    assert "held-out images among the images" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_more_gpus_than_there_are(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(folders, tmp_path / "run", "--gpus", "99")) == 5
    assert "not enough GPUs" in capsys.readouterr().err

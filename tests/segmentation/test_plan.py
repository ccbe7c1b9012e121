"""What segment would do: dry runs, the linear rule, and refusals in one line."""

from pathlib import Path

import pytest
import torch

from harl_bench.cli import main
from harl_bench.nn import distributed
from harl_bench.segmentation import recipe
from tests.segmentation.test_run import MOCO, command

NAMES = recipe.names()
DRY = {name: ["sweep.held_out=2"] if name.endswith("byol") else [] for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_a_dry_run_of_every_recipe_writes_nothing(
    name: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command(data, tmp_path / "runs", "--dry-run", name=name), *DRY[name]]) == 0
    text = capsys.readouterr().out
    assert not (tmp_path / "runs").exists()
    assert "265 of 265 tensors" in text
    assert "nothing was started (--dry-run)" in text
    assert f"images of {recipe.load(name)[1].input.crop_px} px with " in text
    assert len(text[text.index("recipe  ") :].splitlines()) == 10
    assert ("6 trainings" in text) == name.endswith("byol")


def test_a_dry_run_on_eight_gpus_says_what_each_gets(
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(distributed, "devices", lambda gpus: (8, "cuda"))
    words = command(data, tmp_path / "runs", "--dry-run")
    assert main([*words, "solver.batch=16", "workers=3"]) == 0
    text = capsys.readouterr().out
    assert "device      8 x cuda, 2 images of a batch and 3 data workers each" in text
    assert "GiB each: 2 images of 513 px with " in text


def test_the_linear_rule_and_a_warning_without_it(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--batch", "8", "--scale-lr", "--dry-run", "--verbose"]
    assert main(command(data, tmp_path, *more)) == 0
    text = capsys.readouterr().out
    for part in ("lr: 0.0015", "iterations: 60000", "- 42000", "- 54000"):
        assert part in text
    assert main(command(data, tmp_path, "--batch", "8", "--dry-run")) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "batch 8 instead of 16 without --scale-lr: 0.5 x the epochs" in text


def test_the_linear_rule_scales_the_rates_of_a_sweep(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = ["sweep.held_out=2", "sweep.lr=[0.01, 0.1]", "--batch", "4", "--scale-lr", "--dry-run"]
    assert main(command(data, tmp_path, *sweep, name=f"{MOCO}-byol")) == 0
    text = capsys.readouterr().out
    assert "sweep.lr=[0.0025, 0.025]" in text
    shipped = recipe.load(f"{MOCO}-byol")[1].sweep
    assert shipped is not None
    assert f"sweep.lr: {list(shipped.lr)} -> [0.0025, 0.025]" in " ".join(text.split())
    assert main(command(data, tmp_path, *sweep, "--lr", "0.1", name=f"{MOCO}-byol")) == 0
    assert "lr: 0.003 -> 0.025" in " ".join(capsys.readouterr().out.split())


REFUSED = {
    "scale": (["--scale-lr"], 2, "--scale-lr goes with --batch"),
    "rates": (["--lr", "0.1", "0.1"], 2, "takes each rate once"),
    "seeds": (["--seeds", "1", "1"], 2, "whole numbers from 0 up, each once"),
    "twice": (["--batch", "4", "solver.batch=8"], 2, "set the same recipe key"),
    "amp": (["--amp"], 2, "mixed precision needs a GPU"),
    "gpus": (["--gpus", "9"], 2, "--gpus 9"),
    "key": (["solver.lrs=1"], 2, "unknown key 'solver.lrs'"),
    "swept": (
        ["--recipe", f"{MOCO}-byol", "solver.lr=0.01"],
        2,
        "the recipe's sweep replaces solver.lr; seen: solver.lr=0.01; next: --lr 0.01",
    ),
    "held out": (["--recipe", f"{MOCO}-byol"], 2, "sweep.held_out 2,119 of 7 training images"),
    "eval": (["--eval-only"], 4, "no trained segmenter to evaluate"),
    "recipe": (["--recipe", "voc-c4-24k"], 2, "unknown segmentation recipe"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_are_one_line(
    case: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options, code, words = REFUSED[case]
    given = ["--data", str(data), "--out", str(tmp_path), "--dry-run", *options]
    assert main(["segment", "random", *given]) == code
    error = capsys.readouterr().err
    assert words in error
    assert len(error.strip().splitlines()) == 1


def test_data_and_checkpoints_have_their_exit_codes(data: Path, tmp_path: Path) -> None:
    assert main(command(tmp_path, tmp_path, "--dry-run")) == 3
    assert main(command(data, tmp_path, "--dry-run", ckpt="nowhere.pth")) == 4
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "odd.pth")
    assert main(command(data, tmp_path, "--dry-run", ckpt=str(tmp_path / "odd.pth"))) == 4

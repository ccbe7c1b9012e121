"""Plans of voc and coco: dry runs, the linear rule, and refusals before anything starts."""

import importlib.util
import re
import subprocess
import sys

import pytest
import torch

from harl_bench.cli import main
from harl_bench.nn import distributed
from tests.detection import tiny
from tests.detection.command import QUICK, coco, voc


def test_dry_run_writes_nothing_and_tells_the_plan(voc_root, tmp_path, capsys):
    out = tmp_path / "runs"
    grid = ["--seeds", "0", "1", "--lr", "0.01", "0.1"]
    assert main([*voc(voc_root, out), *QUICK, "--dry-run", *grid]) == 0
    text = capsys.readouterr().out
    assert not out.exists()
    assert text.count("new         ") == 4
    assert "voc-c4-toy-lr0.1/random-none/seed1" in text
    assert "265 of 265 tensors" in text
    assert "12 images" in text
    assert (
        "to do       4 of 4, each 2 iterations x 2 images; nothing was started (--dry-run)" in text
    )


def test_a_dry_run_on_eight_gpus_says_what_each_gets(voc_root, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(distributed, "devices", lambda gpus: (8, "cuda"))
    assert main(voc(voc_root, tmp_path / "runs", "--dry-run", recipe="voc-c4-24k")) == 0
    text = capsys.readouterr().out
    each = "2 images of a batch and 4 data workers each, engine torchvision"
    assert f"device      8 x cuda, {each}\n" in text
    assert "memory      about 8.6 GiB each: 2 images of 800 px" in text
    source = "24,000 iterations x 0.551 s (Detectron2's MODEL_ZOO.md)"
    assert f"time        about 3:40:24 a run on 8 V100: {source}\n" in text


def test_a_missing_evaluator_ends_the_command_before_training(
    tmp_path, coco_root, capsys, monkeypatch
):
    actual = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "hotcoco" else actual(name)
    )
    for more in ([], ["--dry-run"]):
        assert main(coco(coco_root, tmp_path / "runs", "--evaluator", "hotcoco", *more)) == 5
        assert "hotcoco is not installed" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_linear_rule(voc_root, tmp_path, capsys):
    command = voc(
        voc_root, tmp_path, "--batch", "8", "--scale-lr", "--dry-run", recipe="voc-c4-24k"
    )
    assert main(command) == 0
    text = capsys.readouterr().out
    for change in ("BASE_LR: 0.02 -> 0.01", "MAX_ITER: 24000 -> 48000", "WARMUP_ITERS: 100 -> 200"):
        assert f"SOLVER.{change}" in text
    assert "SOLVER.STEPS: [18000, 22000] -> [36000, 44000]" in text


@pytest.mark.parametrize(
    ("more", "rates"),
    [
        (["--lr", "0.02"], {"-lr0.005": 0.005}),
        (["--lr", "0.02,0.08"], {"-lr0.005": 0.005, "-lr0.02": 0.02}),
        (["SOLVER.BASE_LR=0.04"], {"": 0.01}),
        ([], {"": 0.005}),
    ],
)
def test_linear_rule_scales_the_rate_whoever_names_it(voc_root, tmp_path, capsys, more, rates):
    """The rate that is logged, named and planned is the rate that the optimizer gets."""
    command = voc(
        voc_root, tmp_path, "--batch", "4", "--scale-lr", "--dry-run", *more, recipe="voc-c4-24k"
    )
    assert main(command) == 0
    text = capsys.readouterr().out
    for suffix, rate in rates.items():
        assert (
            f"linear rule, x 0.25: SOLVER.BASE_LR={rate:g}  SOLVER.STEPS=(72000, 88000, )" in text
        )
        assert f"/voc-c4-24k{suffix}/random-none/seed0" in text
        line = next(
            line for line in text.splitlines() if f"/voc-c4-24k{suffix}/random-none/" in line
        )
        assert (f"SOLVER.BASE_LR: 0.02 -> {rate:g}" in line) == (rate != 0.02)
    assert "BASE_LR: 0.02 -> 0.02" not in text


def test_linear_rule_of_a_schedule_without_steps(voc_root, tmp_path, capsys):
    more = ["--batch", "8", "--scale-lr", "--dry-run", "SOLVER.STEPS=()"]
    assert main(voc(voc_root, tmp_path, *more, recipe="voc-c4-24k")) == 0
    assert "SOLVER.STEPS: [18000, 22000] -> []" in capsys.readouterr().out


def test_a_given_rate_stays_without_the_linear_rule(voc_root, tmp_path, capsys):
    more = ["--batch", "4", "--lr", "0.03", "--dry-run"]
    assert main(voc(voc_root, tmp_path, *more, recipe="voc-c4-24k")) == 0
    assert "SOLVER.BASE_LR: 0.02 -> 0.03" in capsys.readouterr().out


def test_own_data_as_the_guide_lays_them_out(tmp_path, capsys):
    """docs/own-data.md: a year of one's own, classes.txt, a frozen backbone."""
    root = tiny.voc(tmp_path / "data", years=("VOC2007",))
    (root / "VOC2007").rename(root / "VOC2026")
    (root / "classes.txt").write_text("cat\ndog\n")
    sets = ["DATASETS.TRAIN=('voc_2026_trainval',)", "DATASETS.TEST=('voc_2026_test',)"]
    command = voc(
        root,
        tmp_path / "runs",
        *sets,
        "MODEL.BACKBONE.FREEZE_AT=5",
        "--dry-run",
        recipe="voc-c4-24k",
    )
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "voc/voc_2026_test/voc-c4-24k/random-none/seed0" in text
    assert "MODEL.ROI_HEADS.NUM_CLASSES: 20 -> 2" in text
    assert "MODEL.BACKBONE.FREEZE_AT: 0 -> 5" in text


DRY = {
    "image": (
        lambda root: _cut(root / "VOC2007/JPEGImages/000008.jpg"),
        [],
        "unreadable image.*000008.jpg",
    ),
    "size": (
        lambda root: tiny.draw_image(root / "VOC2007/JPEGImages/000008.jpg", (9, 9), [], 0),
        [],
        "image and annotation differ in size",
    ),
    "training size": (
        lambda root: tiny.draw_image(root / "VOC2012/JPEGImages/000002.jpg", (9, 9), [], 0),
        [],
        "image and annotation differ in size.*VOC2012/JPEGImages/000002.jpg",
    ),
    "missing": (
        lambda root: (root / "VOC2007/JPEGImages/000008.jpg").unlink(),
        [],
        "000008 of test.txt has no",
    ),
    "eval": (lambda root: None, ["--eval-only"], "no trained detector to evaluate"),
    "gpus": (lambda root: None, ["--gpus", "99"], "--gpus 99"),
    "amp": (
        lambda root: None,
        ["--gpus", "0", "SOLVER.AMP.ENABLED=True"],
        "mixed precision needs a GPU.*add the override SOLVER.AMP.ENABLED=False",
    ),
}


def _cut(path):
    path.write_bytes(path.read_bytes()[:400])


@pytest.mark.parametrize("name", DRY)
def test_a_dry_run_gives_the_answer_of_the_run(tmp_path, capsys, name):
    spoil, more, message = DRY[name]
    root = tiny.voc(tmp_path / "data")
    spoil(root)
    answers = []
    for dry in (["--dry-run"], []):
        code = main([*voc(root, tmp_path / "runs"), *QUICK, *more, *dry])
        answers.append((code, capsys.readouterr().err))
    assert answers[0] == answers[1]
    assert answers[0][0] in (2, 3, 4)
    assert re.search(message, answers[0][1]), answers[0][1]


def test_a_dry_run_of_coco_reads_every_test_image(tmp_path, capsys):
    root = tiny.coco(tmp_path / "data")
    _cut(root / "val2017/000000000102.jpg")
    for dry in (["--dry-run"], []):
        assert main(coco(root, tmp_path / "runs", *dry)) == 3
        assert "000000000102.jpg" in capsys.readouterr().err


FAULTS = {
    "no data": (["--data", "nowhere"], 3, "data folder not found"),
    "swapped": (
        ["--data", __file__],
        3,
        "the data folder is a file.*checkpoint is the first argument",
    ),
    "recipe": (["--recipe", "voc-c4-24"], 2, "did you mean 'voc-c4-24k'"),
    "key": (["SOLVER.BASE_RL=1"], 2, "SOLVER.BASE_LR"),
    "task": (["--recipe", "coco-fpn-toy"], 2, "not for this command.*harl-bench coco"),
    "masks": (["MODEL.MASK_ON=True"], 2, "boxes without masks.*override MODEL.MASK_ON=False"),
    "format": (
        ["INPUT.FORMAT=BGR"],
        4,
        "INPUT.FORMAT RGB in the checkpoint, BGR.*override INPUT.FORMAT=RGB",
    ),
    "std": (["MODEL.PIXEL_STD=[1.0,1.0,1.0]"], 4, r"'MODEL.PIXEL_STD=\[58.395,57.12,57.375\]'"),
    "stride": (["MODEL.RESNETS.STRIDE_IN_1X1=True"], 4, "STRIDE_IN_1X1 False in the checkpoint"),
    "seeds": (["--seeds", "1", "1"], 2, "whole numbers from 0 up, each once"),
    "scale": (["--scale-lr"], 2, "--scale-lr goes with --batch"),
    "gpus": (["--gpus", "99"], 2, "--gpus 99"),
    "rates": (["--lr", "0.1", "0.1"], 2, "--lr takes each rate once"),
    "batch twice": (
        ["--batch", "4", "SOLVER.IMS_PER_BATCH=2"],
        2,
        "set the same recipe key; seen: SOLVER.IMS_PER_BATCH=2; next",
    ),
    "rate twice": (
        ["--lr", "0.1", "SOLVER.BASE_LR=0.2"],
        2,
        "set the same recipe key; seen: SOLVER.BASE_LR=0.2; next",
    ),
    "length twice": (["--max-iter", "4", "SOLVER.MAX_ITER=2"], 2, "set the same recipe key"),
    "eval": (["--eval-only"], 4, "no trained detector to evaluate"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_one_clear_line(voc_root, tmp_path, capsys, name):
    more, code, message = FAULTS[name]
    command = voc(voc_root, tmp_path / "runs")
    if more[0] in command:
        at = command.index(more[0])
        command[at : at + 2] = more
    else:
        command += more
    assert main(command) == code
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert error.count("\n") == 1


@pytest.mark.skipif(
    importlib.util.find_spec("detectron2") is not None, reason="Detectron2 is installed"
)
@pytest.mark.parametrize("engine", ["detectron2", "both"])
def test_without_detectron2_the_install_command_is_named(voc_root, tmp_path, capsys, engine):
    assert main([*voc(voc_root, tmp_path, engine=engine), *QUICK]) == 5
    error = capsys.readouterr().err
    assert "pip install --no-build-isolation" in error
    assert "docs/detectron2.md" in error
    assert error.count("\n") == 1


def test_help_is_fast_and_free_of_torch():
    code = (
        "import sys; from harl_bench.cli import main; main(['voc', '--help']); assert 'torch' "
        "not in sys.modules"
    )
    actual = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "harl-bench voc moco_v2_800ep.pth.tar --data /data --seeds 0 1 2" in actual.stdout


@pytest.mark.parametrize(("gpus", "device"), [(0, "cpu"), (None, "cuda"), (2, "cuda")])
def test_a_launchers_processes_heed_the_device(
    monkeypatch: pytest.MonkeyPatch, gpus: int | None, device: str
) -> None:
    """--device cpu is --gpus 0, also under torchrun on a machine with GPUs."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert distributed.devices(gpus)[1] == device

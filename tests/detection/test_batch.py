"""Another batch than the recipe's: warnings, records, refusals, advice and memory."""

import pytest
import torch

from harl_bench.cli import main
from harl_bench.core.results import read_result
from harl_bench.detection import batch, measure, recipe
from tests.detection import tiny
from tests.detection.command import QUICK, voc


@pytest.fixture(scope="module")
def voc_root(tmp_path_factory):
    return tiny.voc(tmp_path_factory.mktemp("voc"))


@pytest.mark.parametrize(
    ("overrides", "scaled", "expected"),
    [
        ([], False, None),
        (
            ["SOLVER.IMS_PER_BATCH=4"],
            False,
            "batch 4 instead of 16 without --scale-lr: 0.25 x the epochs, "
            "4 x the learning rate for each image",
        ),
        (
            ["SOLVER.IMS_PER_BATCH=32"],
            False,
            "batch 32 instead of 16 without --scale-lr: 2 x the epochs, "
            "0.5 x the learning rate for each image",
        ),
        (
            ["SOLVER.IMS_PER_BATCH=4", "SOLVER.BASE_LR=0.005"],
            False,
            "batch 4 instead of 16 without --scale-lr: 0.25 x the epochs",
        ),
        (
            ["SOLVER.IMS_PER_BATCH=4", "SOLVER.MAX_ITER=96000"],
            False,
            "batch 4 instead of 16 without --scale-lr: 4 x the learning rate for each image",
        ),
        (["SOLVER.IMS_PER_BATCH=4", "SOLVER.MAX_ITER=96000", "SOLVER.BASE_LR=0.005"], False, None),
        (["SOLVER.IMS_PER_BATCH=4"], True, None),
        (["SOLVER.MAX_ITER=20"], False, None),
    ],
)
def test_departure(overrides, scaled, expected):
    assert (
        batch.departure(
            recipe.load("voc-c4-24k", overrides), recipe.load("voc-c4-24k"), scaled=scaled
        )
        == expected
    )


@pytest.mark.parametrize("more", [["--batch", "4"], ["SOLVER.IMS_PER_BATCH=4"]])
def test_a_batch_without_the_linear_rule_is_warned_of(voc_root, tmp_path, capsys, more):
    assert main(voc(voc_root, tmp_path, "--dry-run", *more, recipe="voc-c4-24k")) == 0
    warnings = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: batch")
    ]
    assert warnings == [
        "warning: batch 4 instead of 16 without --scale-lr: 0.25 x the epochs, 4 x the learning "
        "rate for each image; "
        "--batch 4 --scale-lr keeps both"
    ]


def test_with_the_linear_rule_there_is_no_warning(voc_root, tmp_path, capsys):
    assert (
        main(
            voc(voc_root, tmp_path, "--dry-run", "--batch", "4", "--scale-lr", recipe="voc-c4-24k")
        )
        == 0
    )
    assert "without --scale-lr" not in capsys.readouterr().out


def test_the_departure_is_recorded(voc_root, tmp_path):
    assert (
        main([*voc(voc_root, tmp_path), *QUICK, "SOLVER.IMS_PER_BATCH=1", "--pictures", "0"]) == 0
    )
    (path,) = tmp_path.rglob("result.json")
    departures = read_result(path).departures
    assert any(d.startswith("batch 1 instead of 2 without --scale-lr: ") for d in departures), (
        departures
    )


def test_two_batches_are_refused(voc_root, tmp_path, capsys):
    """The rule's factor would come from the override and be 1: nothing would be scaled."""
    command = voc(
        voc_root,
        tmp_path,
        "--batch",
        "4",
        "--scale-lr",
        "SOLVER.IMS_PER_BATCH=4",
        recipe="voc-c4-24k",
    )
    assert main([*command, "--dry-run"]) == 2
    assert "set the same recipe key; seen: SOLVER.IMS_PER_BATCH=4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "images", "plain", "saved"),
    [
        ("voc-c4-24k", 2, 8.6, 5.6),
        ("coco-fpn-2fc-1x", 2, 4.8, 3.2),
        ("coco-fpn-4conv1fc-1x", 1, 2.9, 2.0),
        ("cityscapes-fpn-24k", 1, 4.8, 2.9),
    ],
)
def test_memory(name, images, plain, saved):
    cfg = recipe.load(name)
    assert batch.memory_gib(cfg, images, save_memory=False) == pytest.approx(plain)
    assert batch.memory_gib(cfg, images, save_memory=True) == pytest.approx(saved)
    assert batch.memory_gib(recipe.load("voc-c4-toy"), images, save_memory=False) is None


def test_dry_run_tells_the_memory(voc_root, tmp_path, capsys):
    command = voc(
        voc_root, tmp_path, "--dry-run", "--batch", "2", "--scale-lr", recipe="voc-c4-24k"
    )
    assert main(command) == 0
    assert "memory      about 8.6 GiB each: 2 images of 800 px; 5.6 with --save-memory\n" in (
        capsys.readouterr().out
    )
    assert main([*command, "--save-memory"]) == 0
    assert "memory      about 5.6 GiB each: 2 images of 800 px\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "processes", "save_memory", "available_gib", "expected"),
    [
        (
            "voc-c4-24k",
            1,
            False,
            24.0,
            "--save-memory (the same numbers, more time), or --batch 4 --scale-lr",
        ),
        (
            "voc-c4-24k",
            1,
            False,
            80.0,
            "--save-memory (the same numbers, more time), or --batch 8 --scale-lr",
        ),
        ("voc-c4-24k", 1, True, 24.0, "--batch 8 --scale-lr"),
        ("coco-fpn-2fc-1x", 8, True, 8.0, "--batch 8 --scale-lr"),
        ("voc-c4-24k", 16, True, 2.0, "a GPU with more memory, or more of them"),
        ("voc-c4-24k", 1, True, 2.0, "--batch 1 --scale-lr"),
        ("voc-c4-toy", 1, True, 2.0, "--batch 1 --scale-lr"),
    ],
)
def test_advice(name, processes, save_memory, available_gib, expected):
    message = batch.advice(
        recipe.load(name), processes, save_memory=save_memory, available_gib=available_gib
    )
    assert message == expected


@pytest.mark.parametrize("line", ["--save-memory", "--batch 1 --scale-lr"])
def test_a_full_gpu_advises_what_this_command_takes(voc_root, tmp_path, capsys, monkeypatch, line):
    def full(job):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with monkeypatch.context() as patch:
        patch.setattr(measure.ENGINES["torchvision"].__class__, "load", lambda self: (full, None))
        assert main([*voc(voc_root, tmp_path), *QUICK]) == 5
    error = capsys.readouterr().err
    assert error.endswith(
        "next: --save-memory (the same numbers, more time), or --batch 1 --scale-lr\n"
    ), error
    assert error.count("\n") == 1
    command = voc(voc_root, tmp_path, *line.split(), "--dry-run")  # the advice, taken
    assert main([*command, *(text for text in QUICK if "IMS_PER_BATCH" not in text)]) == 0

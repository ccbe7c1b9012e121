"""Each script runs at its least sizes, so that none is left behind by what it calls."""

import sys
from importlib import import_module
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
LEAST = {
    "classify_memory": "--rows 600 --classes 3 --queries 30",
    "coco_eval": "--images 3",
    "mask_targets": "--objects 4 --regions 16 --points 5 --repeats 1 --fake-ms 1",
    "masks": "speed --count 1",
    "pretrain_input": "--count 2 --repeats 1",
    "pretrain_loop": "--backbone resnet18 --batch 4 --size 32 --steps 12",
    "pretrain_step": "--backbone resnet18 --batch 2 --size 32 --repeats 1",
    "report": "9",
}
# Those that need a rival's environment or minutes at any size; the type checker reads them.
LONG = {
    "convert",
    "detection_step",
    "help",
    "independent_loop",
    "linear_solver",
    "segment_step",
    "voc07_svm",
}
PARTS = {"__init__", "pairs"}


def test_every_script_is_listed() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == LEAST.keys() | LONG | PARTS


@pytest.mark.parametrize("name", LEAST)
def test_a_script_prints_its_numbers(name, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", [name, *LEAST[name].split()])
    import_module(f"benchmarks.{name}").main()
    assert any(character.isdigit() for character in capsys.readouterr().out)

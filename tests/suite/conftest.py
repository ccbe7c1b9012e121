"""A suite whose commands are stand-ins that write down how they were called."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harl_bench.suite import process

FAKE = Path(__file__).with_name("fake_harl_bench.py")
SUITE = """
data: {photos: photos, voc: voc, wildflowers: wildflowers}
pretrain:
  - {name: byol, recipe: byol-toy, data: photos, overrides: [epochs=3]}
checkpoints: [byol, random]
tasks:
  - {task: classify, protocol: linear, data: wildflowers}
  - {task: voc, recipe: voc-c4-toy, data: voc, overrides: [SOLVER.MAX_ITER=9], checkpoints: [random]}
seeds: [0, 1]
report: {md: table.md}
"""
Calls = Callable[[], list[list[str]]]


def wildflowers(root: Path) -> None:
    """Names of images as a folder of classes has them."""
    for name in ("rose/0", "rose/1", "tulip/0", "tulip/1"):
        for split in ("train", "test"):
            path = root / split / f"{name}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """A working folder with a suite and its data; returns what was called since the last asking.

    Only names of the data are read.
    """
    for name in ("photos", "voc"):
        (tmp_path / name).mkdir()
    wildflowers(tmp_path / "wildflowers")
    (tmp_path / "suite.yaml").write_text(SUITE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAKE_CALLS", str(tmp_path / "calls"))
    monkeypatch.setattr(process, "HARL_BENCH", (sys.executable, str(FAKE)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def since() -> list[list[str]]:
        path = tmp_path / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [json.loads(line) for line in lines]

    return since

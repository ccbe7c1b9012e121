"""The command for a GPU runs whole on a CPU in tiny sizes, and no part ends it."""

import json
import os
import subprocess
import sys
import time
import warnings
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch

from benchmarks.gpu_check import measure, runs
from benchmarks.gpu_check.__main__ import parsed, run
from benchmarks.gpu_check.machine import outcome
from benchmarks.gpu_check.parts import PARTS, Part
from benchmarks.gpu_check.setting import Setting
from benchmarks.gpu_check.table import table

ROOT = Path(__file__).parents[2]
# As on a bare machine: a plain OpenCV, and only what the parts import.
BARE = """
import sys

for name in ("skimage", "submitit", "matplotlib", "tensorboard"):
    sys.modules[name] = None
import cv2

del cv2.ximgproc
sys.modules.pop("cv2.ximgproc", None)
"""


@pytest.mark.slow
def test_every_part_runs_in_tiny_sizes_without_what_a_bare_machine_lacks(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BARE)
    out = tmp_path / "check.json"
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_check", "--tiny", "--out", str(out)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    log = out.with_suffix(".log").read_text(errors="replace") if out.exists() else ""
    assert done.returncode == 0, done.stdout + done.stderr + log[-5000:]
    report = json.loads(out.read_text())
    assert list(report["parts"]) == list(PARTS)
    for name, numbers in report["parts"].items():
        assert not {"failed", "skipped"} & numbers.keys(), (name, numbers)
        assert numbers["seconds"] >= 0
        if name not in ("machine", "tests") and not name.startswith("syncs"):
            assert numbers["images_per_s"] > 0, name
    assert report["parts"]["tests"]["passed"] > 15
    assert report["parts"]["tests"]["differences"]
    assert report["parts"]["linear"]["certificate"] <= 2e-3
    assert "x lightly byol (goal 1.30)" in done.stdout
    assert f"{len(PARTS)} parts, 0 failed, 0 skipped" in done.stdout


@pytest.mark.slow
def test_what_goes_wrong_in_a_part_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It raises, dies or has no end; a process that lives serves the next part, too."""
    here = "tests.benchmarks.parts"
    parts = {
        "one": Part(f"{here}:works", 60, {"rate": 2.0}),
        "two": Part(f"{here}:works", 60, {"rate": 3.0}, {"one": 1.3, "absent": None}),
        "absent": Part(f"{here}:lacks", 60),
        "raises": Part(f"{here}:raises", 60),
        "dies": Part(f"{here}:dies", 60),
        "three": Part(f"{here}:works", 60, {"rate": 1.0}, {"two": None}),
        "hangs": Part(f"{here}:hangs", 0.5),
    }
    monkeypatch.setattr(Setting, "patience_s", 0.0)
    setting, out = Setting(True, ends_at=time.monotonic() + 3600), tmp_path / "check.json"
    report = run(parts, setting, out)
    assert json.loads(out.read_text()) == report
    found = report["parts"]
    assert list(found) == list(parts)
    assert found["one"]["ms"] == found["two"]["ms"] != found["three"]["ms"]
    assert found["absent"]["skipped"] == "nothing is installed"
    assert found["raises"]["failed"] == "ValueError: two lines"
    assert found["dies"]["failed"] == "its process died, exit code 7"
    assert found["hangs"]["failed"] == "no end after 2 s"
    log = out.with_suffix(".log").read_text()
    assert "ValueError: two" in log
    assert log.count("heard") == 3
    text = table(report, parts)
    assert "7 parts, 3 failed, 1 skipped" in text
    assert "1.50 x one (goal 1.30)" in text
    assert "0.33 x two" in text
    assert "absent (goal" not in text


def test_what_no_longer_fits_into_the_budget_is_skipped(tmp_path: Path) -> None:
    parts = {"late": Part("nowhere:nothing", 5)}
    report = run(parts, Setting(False, ends_at=time.monotonic() + 3), tmp_path / "check.json")
    assert report["parts"]["late"]["skipped"].endswith(" s are left, 5 are needed")


def test_no_gpu_is_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_check", "--out", str(tmp_path / "check.json")],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 5
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("no CUDA device; next: ")


def test_parts_are_selected_by_name_or_pattern(capsys: pytest.CaptureFixture[str]) -> None:
    assert parsed(["--only", "step *", "linear"]).only == ["step *", "linear"]
    with pytest.raises(SystemExit):
        parsed(["--only", "stepp"])
    assert "no such part; there are machine, tests," in capsys.readouterr().err


def test_rivals_are_parts_that_come_before() -> None:
    names = list(PARTS)
    for name, part in PARTS.items():
        assert all(names.index(rival) < names.index(name) for rival in part.rivals)


def test_a_batch_that_does_not_fit_is_halved() -> None:
    tried = []

    def make(batch: int) -> str:
        tried.append(batch)
        if batch > 16:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return "fits"

    assert measure.halving(make, 64) == (16, "fits")
    assert tried == [64, 32, 16]
    with pytest.raises(torch.OutOfMemoryError):
        measure.halving(lambda batch: make(64), 8)


def test_waiting_is_counted_by_file_and_line() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        text = "called a synchronizing CUDA operation (Triggered internally at ...)"
        for path, line, count in (("/x/pretrain/colors.py", 7, 3), ("/x/torch/optim.py", 9, 1)):
            for _ in range(count):
                warnings.warn_explicit(text, UserWarning, path, line)
        warnings.warn("something else", stacklevel=1)
    assert runs.located(caught) == {"pretrain/colors.py:7": 3, "/x/torch/optim.py:9": 1}


def test_the_tests_differences_and_failures_are_kept() -> None:
    report = ElementTree.fromstring(
        """<testsuite>
        <testcase classname="tests.gpu.test_a" name="x"><properties><property name="loss"
         value='{"difference": 2e-5, "tolerance": 1e-4}'/></properties></testcase>
        <testcase classname="tests.gpu.test_a" name="y"><failure/></testcase>
        <testcase classname="tests.gpu.test_a" name="z"><skipped/></testcase>
        </testsuite>"""
    )
    found = outcome([*report.iter("testcase")])
    assert (found["passed"], found["failed"]) == (1, "1 of 3 tests: test_a::y")
    assert found["differences"] == {"test_a::x loss": {"difference": 2e-5, "tolerance": 1e-4}}
    assert "the worst at 20% of its tolerance (test_a::x loss)" in found["note"]
    assert outcome([])["failed"] == "0 of 0 tests: none passed"

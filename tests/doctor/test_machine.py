"""The environment: a whole one is ok, and each thing that breaks gets its line and its command."""

import importlib
import importlib.metadata
import os
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harl_bench.core.errors import MachineError
from harl_bench.doctor import machine
from harl_bench.doctor.finding import Finding

Usage = namedtuple("Usage", "total used free")


def one(found: Finding | Any) -> Finding:
    return found if isinstance(found, Finding) else list(found)[-1]


def test_this_environment_has_no_failure(tmp_path: Path) -> None:
    found = list(machine.findings(tmp_path / "not" / "yet"))
    assert {f.what for f in found} >= {
        "Python",
        "packages",
        "torch",
        "torchvision",
        "OpenCV",
        "disk",
        "memory",
        "CPU",
    }
    assert [f.line() for f in found if f.level == "fail" and f.what != "disk"] == []


def distributions(*names: str) -> Callable[[], list[Any]]:
    return lambda: [SimpleNamespace(metadata={"Name": name}) for name in names]


def test_two_opencv_packages_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    both = distributions("opencv-python", "opencv-contrib-python-headless", "numpy")
    monkeypatch.setattr(importlib.metadata, "distributions", both)
    finding = one(machine._opencv())
    assert finding.level == "fail"
    assert finding.next == (
        "pip uninstall -y opencv-contrib-python-headless opencv-python && pip install "
        "opencv-contrib-python-headless"
    )


def test_opencv_without_contrib_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    monkeypatch.delattr(cv2, "ximgproc")
    assert one(machine._opencv()).level == "fail"


def test_a_package_that_is_too_old_or_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["numpy>=999", "no-such-package>=1", "pillow", 'pytest>=999; extra == "dev"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: asked)
    found = {f.what: f for f in machine._requirements()}
    assert set(found) == {"numpy", "no-such-package"}
    assert found["numpy"].next == 'pip install "numpy>=999"'
    assert found["no-such-package"].seen.startswith("missing")


def test_torchvision_of_another_release_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    monkeypatch.setattr(torchvision, "__version__", "0.20.1")
    finding = machine._torchvision("2.14.1")
    assert finding.level == "warn"
    assert finding.next == 'pip install "torchvision==0.29.*"'


def test_torchvision_that_does_not_load_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    def broken(*_: object) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(torchvision.ops, "nms", broken)
    assert machine._torchvision(torch.__version__).level == "fail"


@pytest.mark.parametrize(
    ("cuda", "driver", "level", "seen"),
    [
        ("13.0", None, "warn", "none visible to torch, built for CUDA 13.0"),
        (None, "/usr/bin/nvidia-smi", "warn", "torch is a CPU build"),
        (None, None, "ok", "none: everything works"),
    ],
)
def test_no_gpu(
    monkeypatch: pytest.MonkeyPatch, cuda: str | None, driver: str | None, level: str, seen: str
) -> None:
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: driver)
    finding = one(machine._torch())
    assert finding.level == level
    assert seen in finding.seen


def test_detectron2_is_optional_but_not_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    absent = machine._detectron2()
    assert (absent.level, absent.hint) == ("ok", "optional, docs/detectron2.md")

    def undefined(name: str) -> None:
        raise ImportError("undefined symbol")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(importlib, "import_module", undefined)
    broken = machine._detectron2()
    assert broken.level == "fail"
    assert broken.next.startswith("pip install --no-build-isolation git+https://")


@pytest.mark.parametrize(("free_gib", "level"), [(0.5, "fail"), (5, "warn"), (50, "ok")])
def test_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free_gib: float, level: str) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, free_gib * machine.GIB))
    assert machine._disk(tmp_path / "later").level == level


@pytest.mark.parametrize(("total_gib", "level"), [(0.0625, "warn"), (8, "ok")])
def test_shared_memory(monkeypatch: pytest.MonkeyPatch, total_gib: float, level: str) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(total_gib * machine.GIB, 0, 0))
    assert machine._shared_memory().level == level


@pytest.mark.parametrize(("total_gib", "level"), [(20, "warn"), (40, "ok")])
def test_shared_memory_for_the_batches_of_eight_gpus(
    monkeypatch: pytest.MonkeyPatch, total_gib: float, level: str
) -> None:
    """8 x 16 workers hold 2 batches each of 512 images, two views of 3 x 224 x 224 bytes."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(128)))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(total_gib * machine.GIB, 0, 0))
    finding = machine._shared_memory()
    assert finding.level == level
    gib = 128 * 2 * 512 * 2 * 3 * 224 * 224 / 2**30
    assert f"fill {gib:.1f} GiB" in finding.seen
    assert ("--shm-size=37g" in finding.hint) == (level == "warn")


def test_packaged_files_that_are_missing_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Path:
        raise MachineError("missing")

    monkeypatch.setattr(machine, "data_dir", missing)
    assert [f.level for f in machine._packaged()] == ["fail", "fail"]

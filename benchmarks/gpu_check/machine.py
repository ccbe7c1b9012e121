"""The machine, its limits, and the tests that need it."""

import json
import os
import platform
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from benchmarks.gpu_check.measure import timed
from benchmarks.gpu_check.setting import Setting

ROOT = Path(__file__).parents[2]
PACKAGES = ("torchvision", "lightly", "numpy", "pillow", "scipy", "scikit-learn", "pydantic")
QUICK = ("test_losses.py", "test_colors.py")  # of a tiny run; CI has the others' bodies elsewhere
SHM = "/dev/shm"


def machine(setting: Setting) -> dict:
    """Return versions, and what a matrix product and a copy reach: FLOP/s and bytes/s."""
    found: dict = {"torch": torch.__version__, "python": platform.python_version()}
    found |= {name: installed(name) for name in PACKAGES}
    found["cpus"] = len(os.sched_getaffinity(0))
    shm = os.statvfs(SHM)
    found["shm_gib"] = round(shm.f_blocks * shm.f_frsize / 2**30, 1)
    found["device"] = "CPU, tiny sizes"
    if not setting.tiny:
        device = torch.cuda.get_device_properties(0)
        found |= {"device": device.name, "gib": round(device.total_memory / 2**30, 1)}
        found |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    n, size = (64, 2**20) if setting.tiny else (8192, 2**30)
    square = torch.randn(n, n, device=setting.device, dtype=torch.bfloat16)
    block = torch.empty(size, device=setting.device, dtype=torch.uint8)
    found["bf16_tflops"] = round(2 * n**3 / timed(setting, lambda: square @ square) / 1e12, 3)
    found["copy_tb_per_s"] = round(2 * size / timed(setting, block.clone) / 1e12, 3)
    found["note"] = (
        f"{found['device']}, torch {found['torch']}, torchvision {found['torchvision']}, "
        f"{found['bf16_tflops']:.3g} TFLOP/s in bf16, {found['copy_tb_per_s']:.3g} TB/s"
    )
    return found


def installed(package: str) -> str | None:
    """Return a package's version, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def tests(setting: Setting) -> dict:
    """Run `pytest -m gpu`: each comparison of GPU and CPU, with its difference and tolerance."""
    where = [f"tests/gpu/{name}" for name in QUICK] if setting.tiny else ["tests/gpu"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "junit.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "--device", setting.device]
        command += [
            "-p",
            "no:cacheprovider",
            "--tb=short",
            "-o",
            "junit_family=xunit1",
            f"--junitxml={file}",
            *where,
        ]
        subprocess.run(command, cwd=ROOT, check=False)
        if not file.exists():
            return {"failed": "pytest did not run; the .log says why"}
        cases = [*ElementTree.parse(file).iter("testcase")]
    return outcome(cases)


def outcome(cases: list[ElementTree.Element]) -> dict:
    """Return what pytest's report says of its tests."""
    bad, skipped, differences = [], 0, {}
    for case in cases:
        name = f"{case.get('classname', '').removeprefix('tests.gpu.')}::{case.get('name')}"
        bad += [name] if case.find("failure") is not None or case.find("error") is not None else []
        skipped += case.find("skipped") is not None
        for record in case.iter("property"):
            numbers = json.loads(record.get("value", ""))
            differences[f"{name} {record.get('name')}"] = numbers
    found: dict = {"passed": len(cases) - len(bad) - skipped, "differences": differences}
    found["note"] = f"{found['passed']} passed"
    if differences:
        share = {name: n["difference"] / n["tolerance"] for name, n in differences.items()}
        worst = max(share, key=lambda name: share[name])
        found["note"] += (
            f", {len(differences)} comparisons, the worst at {share[worst]:.0%} of its tolerance "
            f"({worst})"
        )
    if bad or not found["passed"]:
        found["failed"] = f"{len(bad)} of {len(cases)} tests: {', '.join(bad) or 'none passed'}"
    return found

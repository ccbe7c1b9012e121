"""What the machine and the installation offer: each function looks at one thing."""

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from harl_bench.core.errors import MachineError
from harl_bench.core.resources import data_dir
from harl_bench.doctor.finding import Finding, Level

GIB = 2**30
OLDEST = (3, 11)  # Python
DISTRIBUTION = "harl-bench"
CONTRIB = "opencv-contrib-python-headless"
# torch 2.m and torchvision 0.(m + 15) are released as a pair (pytorch/vision README, since 2.0)
VISION_AHEAD = 15


def findings(out: Path) -> Iterator[Finding]:
    """Everything about this machine. Args: out: the folder runs would be written to."""
    yield _python()
    yield from _requirements()
    yield from _torch()
    yield _detectron2()
    yield from _opencv()
    yield from _packaged()
    yield _disk(out)
    yield _shared_memory()
    yield _memory()
    yield _found("CPU", f"{_cpus()} cores")
    if shutil.which("sbatch"):
        yield _slurm()


def _slurm() -> Finding:
    version = _version("submitit")
    if version is None:
        return _found(
            "SLURM", "here, but submitit is not", "warn", "pip install 'harl-bench[slurm]'"
        )
    return _found(
        "SLURM", f"here, with submitit {version}: harl-bench run SUITE --slurm cluster.yaml"
    )


def _found(what: str, seen: str, level: Level = "ok", next: str = "", hint: str = "") -> Finding:
    return Finding("environment", level, what, seen, next, hint)


def _python() -> Finding:
    version = platform.python_version()
    if sys.version_info < OLDEST:
        return _found(
            "Python", f"{version}, needed 3.11 or later", "fail", "python3.11 -m venv .venv"
        )
    return _found("Python", version)


def _requirements() -> Iterator[Finding]:
    """The installed packages against what harl-bench asks for."""
    from packaging.requirements import Requirement

    try:
        asked = [Requirement(text) for text in importlib.metadata.requires(DISTRIBUTION) or []]
    except importlib.metadata.PackageNotFoundError:
        yield _found(
            "packages", "harl-bench runs without being installed", "warn", "pip install -e ."
        )
        return
    needed = [r for r in asked if r.marker is None or r.marker.evaluate({"extra": ""})]
    wrong = [
        (r, seen)
        for r in needed
        if not r.specifier.contains(seen := _version(r.name) or "", prereleases=True)
    ]
    for requirement, seen in wrong:
        command = f'pip install "{requirement.name}{requirement.specifier}"'
        yield _found(
            requirement.name,
            f"{seen or 'missing'}, needed {requirement.specifier}",
            "fail",
            command,
        )
    if not wrong:
        yield _found("packages", f"{len(needed)} of {len(needed)} as required")


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a shared library of another build
        yield _found(
            "torch", f"cannot be imported: {error}", "fail", 'pip install "torch>=2.11,<2.15"'
        )
        return
    cuda = torch.version.cuda
    yield _found("torch", f"{torch.__version__}, {f'CUDA {cuda}' if cuda else 'CPU build'}")
    yield _torchvision(torch.__version__)
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(i)
            yield _found(f"GPU {i}", f"{about.name}, {about.total_memory / GIB:.0f} GiB")
    elif cuda:
        yield _found("GPU", f"none visible to torch, built for CUDA {cuda}", "warn", "nvidia-smi")
    elif shutil.which("nvidia-smi"):
        hint = "install torch's CUDA build: https://pytorch.org/get-started/locally"
        yield _found("GPU", "a driver is there, but torch is a CPU build", "warn", hint=hint)
    else:
        yield _found("GPU", "none: everything works, slowly")


def _torchvision(torch_version: str) -> Finding:
    major, minor = (int(part) for part in torch_version.split(".")[:2])
    command = f'pip install "torchvision==0.{minor + VISION_AHEAD}.*"'
    try:
        import torch
        import torchvision

        torchvision.ops.nms(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([1.0]), 0.5)
    except (
        ImportError,
        RuntimeError,
        OSError,
    ) as error:  # "operator torchvision::nms does not exist"
        return _found(
            "torchvision", f"does not fit torch {torch_version}: {error}", "fail", command
        )
    version = str(torchvision.__version__)
    if major == 2 and not version.startswith(f"0.{minor + VISION_AHEAD}."):
        return _found(
            "torchvision",
            f"{version} is not the one released with torch {torch_version}",
            "warn",
            command,
        )
    return _found("torchvision", f"{version}, fits torch {torch_version}")


def _detectron2() -> Finding:
    if importlib.util.find_spec("detectron2") is None:
        return _found(
            "Detectron2",
            "not installed: voc and coco use the torchvision engine",
            hint="optional, docs/detectron2.md",
        )
    from harl_bench.detection.engines import INSTALL, import_fault

    try:
        importlib.import_module("detectron2._C")
    except (ImportError, OSError) as error:
        return _found("Detectron2", f"was built for another torch: {error}", "fail", INSTALL)
    except Exception as error:
        return _found("Detectron2", f"is broken: {type(error).__name__}: {error}", "fail", INSTALL)
    if fault := import_fault():  # as --engine auto finds out
        return _found("Detectron2", f"is broken: {fault}", "fail", INSTALL)
    return _found("Detectron2", f"{_version('detectron2')}, its compiled part loads")


def _opencv() -> Iterator[Finding]:
    names = {(dist.metadata["Name"] or "").lower() for dist in importlib.metadata.distributions()}
    there = sorted(name for name in names if name.startswith("opencv-"))
    mend = (
        f"pip uninstall -y {' '.join(there)} && pip install {CONTRIB}"
        if there
        else f"pip install {CONTRIB}"
    )
    if len(there) > 1:
        yield _found("OpenCV", f"{', '.join(there)} overwrite each other's cv2/", "fail", mend)
        return
    try:
        import cv2
    except (ImportError, OSError) as error:
        yield _found("OpenCV", f"cannot be imported: {error}", "fail", mend)
        return
    if hasattr(cv2, "ximgproc"):
        yield _found("OpenCV", f"{cv2.__version__} with contrib (ximgproc)")
    else:
        yield _found(
            "OpenCV", f"{cv2.__version__} without contrib: masks need ximgproc", "fail", mend
        )


def _packaged() -> Iterator[Finding]:
    for name, pattern in (("transfer_configs", "*.yaml"), ("reports", "*.csv")):
        try:
            count = sum(1 for _ in data_dir(name).rglob(pattern))
        except MachineError:
            count = 0
        if count:
            yield _found(name, f"{count} {pattern[2:]} files")
        else:
            yield _found(
                name,
                "packaged files are missing",
                "fail",
                f"pip install --force-reinstall {DISTRIBUTION}",
            )


def _disk(out: Path) -> Finding:
    place = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(place).free / GIB
    seen = f"{free:.1f} GiB free at {place}"
    if free < 10:  # a detector's checkpoints take 0.5 to 1 GiB a run
        return _found(
            "disk",
            seen,
            "fail" if free < 1 else "warn",
            hint="free space, or choose a folder with --out",
        )
    return _found("disk", seen)


def _shared_memory() -> Finding:
    place = Path("/dev/shm")
    if not place.is_dir():
        return _found("shared memory", "no /dev/shm on this system")
    size = shutil.disk_usage(place).total / GIB
    if size < 1:  # Docker's default is 64 MiB, and loaders with worker processes die of it
        hint = "start the container with --shm-size=8g, or give --workers 0"
        return _found("shared memory", f"{size:.2f} GiB", "warn", hint=hint)
    return _found("shared memory", f"{size:.1f} GiB")


def _memory() -> Finding:
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(
        OSError, ValueError
    ):  # a container may be given less than the machine has
        size = min(size, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    seen = f"{size / GIB:.1f} GiB"
    return (
        _found("memory", seen, "warn", hint="the demo needs 4 GiB")
        if size < 4 * GIB
        else _found("memory", seen)
    )


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None

"""The machine and the installation: each function looks at one thing."""

import contextlib
import importlib.metadata
import importlib.util
import math
import os
import platform
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from harl_bench.core.errors import MachineError
from harl_bench.core.resources import data_dir
from harl_bench.doctor.finding import Finding

GIB = 2**30
RECIPE = "harl-100ep"
DISTRIBUTION = "harl-bench"
CONTRIB = "opencv-contrib-python-headless"
# torch 2.m and torchvision 0.(m + 15) are released as a pair (pytorch/vision README, since 2.0)
VISION_AHEAD = 15
finding = partial(Finding, "environment")


def findings(out: Path) -> Iterator[Finding]:
    """Yield what is seen of this machine. Args: out: the folder runs would be written to."""
    yield finding("ok", "Python", platform.python_version())
    yield from _requirements()
    yield from _torch()
    yield _detectron2()
    yield _opencv()
    yield from _packaged()
    yield _disk(out)
    yield _shared_memory()
    yield _memory()
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield finding("ok", "CPU", f"{cpus} cores")
    if shutil.which("sbatch"):
        yield _slurm()


def _requirements() -> Iterator[Finding]:
    """Compare the installed packages with what harl-bench asks for."""
    from packaging.requirements import Requirement

    try:
        texts = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        seen = "harl-bench runs without being installed"
        yield finding("warn", "packages", seen, "pip install -e .")
        return
    parsed = map(Requirement, texts)
    requirements = [r for r in parsed if not r.marker or r.marker.evaluate({"extra": ""})]
    fit = 0
    for requirement in requirements:
        name, specifier = requirement.name, requirement.specifier
        version = _version(name)
        if version and specifier.contains(version, prereleases=True):
            fit += 1
            continue
        seen = f"{version or 'missing'}, needed {specifier}"
        yield finding("fail", name, seen, f'pip install "{name}{specifier}"')
    if fit == len(requirements):
        yield finding("ok", "packages", f"{fit} of {fit} as required")


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a shared library of another build
        seen = f"cannot be imported: {error}"
        yield finding("fail", "torch", seen, 'pip install "torch>=2.11,<2.15"')
        return
    cuda = torch.version.cuda
    yield finding("ok", "torch", f"{torch.__version__}, {f'CUDA {cuda}' if cuda else 'CPU build'}")
    yield _torchvision(torch.__version__)
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(i)
            yield finding("ok", f"GPU {i}", f"{gpu.name}, {gpu.total_memory / GIB:.0f} GiB")
    elif cuda:
        yield finding("warn", "GPU", f"none visible to torch, built for CUDA {cuda}", "nvidia-smi")
    elif shutil.which("nvidia-smi"):
        hint = "install torch's CUDA build: https://pytorch.org/get-started/locally"
        yield finding("warn", "GPU", "a driver is there, but torch is a CPU build", hint=hint)
    else:
        yield finding("ok", "GPU", "none: everything works, slowly")


def _torchvision(torch_version: str) -> Finding:
    major, minor = (int(part) for part in torch_version.split(".")[:2])
    release = f"0.{minor + VISION_AHEAD}."
    command = f'pip install "torchvision=={release}*"'
    try:
        import torch
        import torchvision

        torchvision.ops.nms(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([1.0]), 0.5)
    except (ImportError, RuntimeError, OSError) as error:  # no operator torchvision::nms
        seen = f"does not fit torch {torch_version}: {error}"
        return finding("fail", "torchvision", seen, command)
    version = str(torchvision.__version__)
    if major == 2 and not version.startswith(release):
        seen = f"{version} is not the one released with torch {torch_version}"
        return finding("warn", "torchvision", seen, command)
    return finding("ok", "torchvision", f"{version}, fits torch {torch_version}")


def _detectron2() -> Finding:
    if importlib.util.find_spec("detectron2") is None:
        seen = "not installed: voc and coco use the torchvision engine"
        return finding("ok", "Detectron2", seen, hint="optional, docs/detectron2.md")
    from harl_bench.detection.engines import INSTALL, import_fault

    try:
        importlib.import_module("detectron2._C")
        fault = import_fault()  # as --engine auto finds out
        broken = f"is broken: {fault}" if fault else ""
    except (ImportError, OSError) as error:
        broken = f"was built for another torch: {error}"
    except Exception as error:
        broken = f"is broken: {type(error).__name__}: {error}"
    if broken:
        return finding("fail", "Detectron2", broken, INSTALL)
    return finding("ok", "Detectron2", f"{_version('detectron2')}, its compiled part loads")


def _opencv() -> Finding:
    names = {(dist.metadata["Name"] or "").lower() for dist in importlib.metadata.distributions()}
    packages = sorted(name for name in names if name.startswith("opencv-"))
    command = f"pip install {CONTRIB}"
    if packages:
        command = f"pip uninstall -y {' '.join(packages)} && {command}"
    if len(packages) > 1:
        seen = f"{', '.join(packages)} overwrite each other's cv2/"
        return finding("fail", "OpenCV", seen, command)
    try:
        import cv2
    except (ImportError, OSError) as error:
        return finding("fail", "OpenCV", f"cannot be imported: {error}", command)
    if hasattr(cv2, "ximgproc"):
        return finding("ok", "OpenCV", f"{cv2.__version__} with contrib (ximgproc)")
    seen = f"{cv2.__version__} without contrib: masks need ximgproc"
    return finding("fail", "OpenCV", seen, command)


def _packaged() -> Iterator[Finding]:
    for name, suffix in (("transfer_configs", "yaml"), ("reports", "csv")):
        try:
            count = sum(1 for _ in data_dir(name).rglob(f"*.{suffix}"))
        except MachineError:
            count = 0
        if count:
            yield finding("ok", name, f"{count} {suffix} files")
        else:
            command = f"pip install --force-reinstall {DISTRIBUTION}"
            yield finding("fail", name, "packaged files are missing", command)


def _disk(out: Path) -> Finding:
    folder = next(f for f in (out.absolute(), *out.absolute().parents) if f.is_dir())
    free = shutil.disk_usage(folder).free / GIB
    seen = f"{free:.1f} GiB free at {folder}"
    if free >= 10:  # a detector's checkpoints take 0.5 to 1 GiB a run
        return finding("ok", "disk", seen)
    hint = "free space, or choose a folder with --out"
    return finding("fail" if free < 1 else "warn", "disk", seen, hint=hint)


def _shared_memory() -> Finding:
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return finding("ok", "shared memory", "no /dev/shm on this system")
    size, batches = shutil.disk_usage(folder).total / GIB, _batches_gib()
    seen = f"{size:.2f} GiB" if size < 1 else f"{size:.1f} GiB"
    if batches:
        seen += f", data workers of pretrain --recipe {RECIPE} fill {batches:.1f} GiB"
    if size >= max(1, batches):
        return finding("ok", "shared memory", seen)
    # Docker's default is 64 MiB, and loaders with worker processes die of it
    wanted = max(8, math.ceil(batches))
    hint = f"start the container with --shm-size={wanted}g, or give fewer --workers"
    return finding("warn", "shared memory", seen, hint=hint)


def _batches_gib() -> float:
    """Return what the data workers of the largest recipe hold on this machine's GPUs, if any."""
    import torch

    from harl_bench.nn.runtime import readers
    from pretrain import memory, recipe

    if not (gpus := torch.cuda.device_count()):
        return 0.0
    config = recipe.load(RECIPE, None, [])
    workers = gpus * readers(None, on_gpu=True, processes=gpus)
    return memory.READ_AHEAD * workers * config.batch_size / gpus * memory.pixels(config) / GIB


def _memory() -> Finding:
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):  # a container may have less than the machine
        size = min(size, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    seen = f"{size / GIB:.1f} GiB"
    if size >= 4 * GIB:
        return finding("ok", "memory", seen)
    return finding("warn", "memory", seen, hint="the demo needs 4 GiB")


def _slurm() -> Finding:
    version = _version("submitit")
    if version is None:
        command = "pip install 'harl-bench[slurm]'"
        return finding("warn", "SLURM", "here, but submitit is not", command)
    seen = f"here, with submitit {version}: harl-bench run SUITE --slurm cluster.yaml"
    return finding("ok", "SLURM", seen)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None

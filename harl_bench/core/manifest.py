"""Who measured what, where and with which versions: the record that goes into every result."""

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import harl_bench

PACKAGES = (
    "torch",
    "torchvision",
    "detectron2",
    "numpy",
    "pillow",
    "opencv-contrib-python-headless",
    "scikit-image",
    "scikit-learn",
    "pycocotools",
    "cityscapesscripts",
)


def collect() -> dict[str, Any]:
    """Versions, machine, code state and command line of this process, as plain JSON values."""
    return {
        "harl_bench": harl_bench.__version__,
        "git": git_state(),
        "argv": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "gpus": _gpus(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "written": now(),
    }


def now() -> str:
    """The present moment, ISO 8601, UTC, seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def git_state() -> dict[str, Any] | None:
    """Commit of the checkout, and whether tracked files differ from it; None without a checkout."""
    root = Path(harl_bench.__file__).parents[1]
    if not (root / ".git").exists():
        return None
    try:
        sha = _git(root, "rev-parse", "HEAD")
        changes = _git(root, "status", "--porcelain", "--untracked-files=no")
        return {"sha": sha, "dirty": bool(changes)}
    except (OSError, subprocess.SubprocessError):
        return None


def sha256(path: str | Path) -> str:
    """Hex digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(root: str | Path, relative_paths: Iterable[str | Path]) -> str:
    """Hex digest over sorted (relative path, size): tells whether a data set changed, unread."""
    return of_sizes(sizes(root, relative_paths))


def sizes(root: str | Path, relative_paths: Iterable[str | Path]) -> list[tuple[str, int]]:
    """Return (relative path, bytes) of each file."""
    return [(path, os.path.getsize(os.path.join(root, path))) for path in map(str, relative_paths)]


def of_sizes(sizes: Iterable[tuple[str, int]]) -> str:
    """Return the fingerprint of (relative path, bytes) in any order."""
    digest = hashlib.sha256()
    for path, size in sorted(sizes):
        digest.update(f"{path}\0{size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return ran.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _gpus() -> list[str]:
    torch = sys.modules.get("torch")  # asked only when a command has loaded it anyway
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]

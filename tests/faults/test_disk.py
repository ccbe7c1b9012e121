"""Full disks, folders that refuse, odd names, files that vanish, two processes in one place."""

import os
import shutil
import subprocess
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from harl_bench.cli import main
from harl_bench.core import images
from harl_bench.core.plain import open_plain
from tests import warm
from tests.faults.commands import CASES, Calm, start
from tests.masks import mask_scenes

LIMITS = {
    "masks": 30,
    "pretrain": 1_000_000,
    "convert": 1_000_000,
    "voc": 1_000_000,
    "classify": 3_000,
}


def run(arguments: list[str], **options: Any) -> "subprocess.CompletedProcess[str]":
    """The CLI in a process of its own; options are those of warm.run."""
    return warm.run(["harl_bench.cli", *arguments], **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", LIMITS)
def test_refused_writes_are_one_line_and_the_same_command_then_finishes(
    root: Path, tmp_path: Path, calm: Callable[[str], Calm], name: str
) -> None:
    case, out = CASES[name], tmp_path / "out"
    refused = run(case.command(root, out), largest=LIMITS[name])
    assert refused.returncode == 5, refused.stderr
    last = refused.stderr.splitlines()[-1]
    assert last.startswith("error[environment]: a file may not grow this large here; "), (
        refused.stderr
    )
    assert "Traceback" not in refused.stderr
    finished = run(case.command(root, out))
    assert finished.returncode == 0, finished.stderr
    assert case.outcome(out) == calm(name).outcome


@pytest.mark.slow
@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("mount"), reason="only root mounts a file system"
)
@pytest.mark.parametrize(("name", "size"), [("pretrain", "20m"), ("classify", "100k")])
def test_a_full_disk_is_named(root: Path, tmp_path: Path, name: str, size: str) -> None:
    """Features are written through a map of their file (160 KB), which could end in SIGBUS."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], check=False
    ).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        full = run(CASES[name].command(root, disk / "out"))
        assert full.returncode == 5, full.stderr
        assert full.stderr.splitlines()[-1].startswith(
            "error[environment]: the disk is full; in "
        ), full.stderr
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["masks", "pretrain", "convert", "voc", "classify"])
def test_output_that_cannot_be_written_is_one_line(root: Path, name: str) -> None:
    """Nobody, not even root, makes folders in /proc."""
    refused = run(CASES[name].command(root, Path("/proc/harl-bench")))
    assert refused.returncode in (2, 3, 5), refused.stderr
    assert refused.stderr.splitlines()[-1].startswith("error["), refused.stderr
    assert "Traceback" not in refused.stderr
    assert "error[internal]" not in refused.stderr


NAMES = {
    "spaces": " a  b ",
    "quotes": 'it\'s "so"',
    "newline": "two\nlines",
    "unicode": "Übung 猫 ✓",
    "long": "n" * 200,
    "percent": "100% {x} $HOME `id`",
    "dash": "-rf",
    "bytes": os.fsdecode(b"caf\xe9"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", NAMES)
def test_any_name_is_a_name(root: Path, tmp_path: Path, kind: str) -> None:
    """Of the folder of data, of an image, and of the folder of results, up to the report."""
    home = tmp_path / NAMES[kind]
    shutil.copytree(root / "classes", home / "classes")
    shutil.copytree(root / "photos/images", home / "photos")
    first = sorted((home / "photos").rglob("*.*"))[0]
    first.rename(first.with_name(NAMES[kind] + first.suffix))
    maker = ["--method", "drfi-lite", "--workers", "0", "--preview", "2"]
    masks = run(["masks", "make", str(home / "photos"), "--out", str(home / "masks"), *maker])
    assert masks.returncode == 0, masks.stderr
    assert len(list((home / "masks").rglob("*.png"))) == 8 + 1
    classify = run(CASES["classify"].command(home, home / "runs"))
    assert classify.returncode == 0, classify.stderr
    report = run(
        ["report", str(home / "runs"), "--html", str(home / "r.html"), "--tex", str(home / "r.tex")]
    )
    assert report.returncode == 0, report.stderr
    assert (home / "r.html").stat().st_size > 1000


@pytest.mark.slow
def test_two_processes_of_one_run_do_not_disturb_each_other(
    root: Path, tmp_path: Path, calm: Callable[[str], Calm]
) -> None:
    case = CASES["pretrain"]
    both = [start(case.command(root, tmp_path / "out"), tmp_path / f"log{i}.txt") for i in (0, 1)]
    codes = [process.wait(timeout=600) for process in both]
    logs = [(tmp_path / f"log{i}.txt").read_text() for i in (0, 1)]
    assert 0 in codes, logs
    for code, log in zip(codes, logs, strict=True):
        assert code == 0 or log.splitlines()[-1].startswith("error["), log
        assert "Traceback" not in log
    assert case.outcome(tmp_path / "out") == calm("pretrain").outcome


@pytest.mark.parametrize("kind", ["gone", "pipe", "device"])
def test_what_is_no_file_counts_with_the_unreadable_ones(tmp_path: Path, kind: str) -> None:
    """A dangling link stands for an image that vanished. A pipe would wait, a device never ends."""
    mask_scenes.write(tmp_path, 4)
    first = sorted((tmp_path / "images").rglob("*.*"))[0]
    first.unlink()
    if kind == "pipe":
        os.mkfifo(first)
    else:
        first.symlink_to({"gone": tmp_path / "gone.jpg", "device": "/dev/zero"}[kind])
    maker = ["--method", "drfi-lite", "--workers", "0", "--preview", "0"]
    make = ["masks", "make", str(tmp_path / "images"), "--out", str(tmp_path / "out"), *maker]
    assert main(make) == 3, "more than one percent"
    assert main([*make, "--allow-unreadable"]) == 0
    assert first.name in (tmp_path / "out/unreadable.txt").read_text()


@pytest.mark.slow
@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("mount"), reason="only root mounts a file system"
)
def test_data_may_be_read_only(root: Path, tmp_path: Path) -> None:
    """Nothing is written beside images, masks, annotations and checkpoints."""
    data = tmp_path / "data"
    data.mkdir()
    if subprocess.run(["mount", "-o", "bind,ro", str(root), str(data)], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with pytest.raises(OSError, match="Read-only"):
            (data / "x").touch()
        for name in ("masks", "pretrain", "convert", "voc", "coco", "classify"):
            done = run(CASES[name].command(data, tmp_path / name))
            assert done.returncode == 0, done.stderr
    finally:
        subprocess.run(["umount", str(data)], check=True)


def test_slow_files_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each image takes another time, so workers overtake each other. Order and weights stay."""
    mask_scenes.write(tmp_path, 8)
    (tmp_path / "photos").symlink_to(tmp_path)

    def pretrain(out: Path) -> int:
        arguments = CASES["pretrain"].command(tmp_path, out)
        arguments[arguments.index("--workers") + 1] = "2"
        return main(arguments)

    assert pretrain(tmp_path / "calm") == 0

    def slow(path: Path) -> BinaryIO:
        time.sleep(zlib.crc32(str(path).encode()) % 200 / 1000)
        return open_plain(path)

    monkeypatch.setattr(images, "open_plain", slow)
    assert pretrain(tmp_path / "slow") == 0
    assert CASES["pretrain"].outcome(tmp_path / "slow") == CASES["pretrain"].outcome(
        tmp_path / "calm"
    )

"""A dry run gives the answer of the run; a finished run is recognised without torch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harl_bench.classify import protocol
from harl_bench.cli import main
from harl_bench.convert.read import read_backbone
from harl_bench.core import remembered
from harl_bench.nn import checkpoint
from tests.classify.command import classify


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = []
    for more in (["--dry-run"], []):
        command = [
            "classify",
            "random",
            "--data",
            str(data),
            "--out",
            str(tmp_path / "runs"),
            "--device",
            "cuda",
        ]
        assert main([*command, *more]) == 5
        lines.append(capsys.readouterr().err)
        assert not (tmp_path / "runs").exists()
    assert lines[0] == lines[1]
    assert "no CUDA device" in lines[0]


def test_neighbours(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more in (["--dry-run"], []):
        assert classify(data, tmp_path / "runs", "--protocol", "knn", *more) == 2
        assert "200 > 15; next: add neighbours=[10] headline=10" in capsys.readouterr().err
        assert not (tmp_path / "runs").exists()


def test_the_memory_is_stated(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert classify(data, tmp_path / "runs", "--dry-run") == 0
    assert "memory      about 0.0 GiB\n" in capsys.readouterr().out
    settings = protocol.load("imagenet-linear-cached")[1]
    small, rows = 3_760, 1_281_167
    assert settings.memory(small, 47) == (
        2 * 4 * small * 2048 + 12 * small * 47,
        2 * 4 * small * 2048 + 24 * small * 47,
    )
    # large features stay in their file
    assert settings.memory(rows, 1000) == (4 * rows * 2048 + 12 * rows * 1000, 24 * rows * 1000)


def test_a_finished_run_is_recognised_without_torch(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    checkpoint.save(path, backbone=read_backbone("random").tensors)
    os.utime(path, (1e9, 1e9))
    out = tmp_path / "runs"
    since = remembered.now() + 60  # as if the file had lain there for a minute
    command = [
        "classify",
        str(path),
        "image_size=32",
        "short_side_px=32",
        "--data",
        str(data),
        "--out",
        str(out),
        "--device",
        "cpu",
        "--workers",
        "0",
    ]
    assert main(command) == 0
    backbone = read_backbone(path)
    remembered.remember(
        out, str(path), None, reference=backbone.ref, files=backbone.files, since=since
    )
    code = (
        f"import sys; from harl_bench.cli import main; assert main({command!r}) == 0; assert "
        "'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "already finished" in done.stdout
    assert remembered.reference(out, str(path), None) == backbone.ref
    assert remembered.reference(out, str(path), "momentum") is None
    os.utime(path)  # the same bytes, but who knows
    assert remembered.reference(out, str(path), None) is None


def test_a_young_file_is_not_remembered(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    path.write_bytes(b"x")
    remembered.remember(
        tmp_path, str(path), reference=remembered.RANDOM, files=[path], since=remembered.now()
    )
    assert remembered.reference(tmp_path, str(path)) is None

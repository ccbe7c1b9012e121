"""The provenance record, fingerprints of data, packaged files, and the mark of generated data."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import harl_bench
from harl_bench.core import manifest, resources
from harl_bench.core.errors import MachineError
from harl_bench.core.toy import is_toy


def test_collect_is_plain_json() -> None:
    record = json.loads(json.dumps(manifest.collect()))
    assert record["harl_bench"] == harl_bench.__version__
    assert record["packages"]["numpy"]
    assert record["cpu_count"] == os.cpu_count()
    assert record["written"].endswith("+00:00")
    assert "/" not in record["argv"][0]


def test_collect_does_not_load_torch() -> None:
    code = (
        "import sys; from harl_bench.core import manifest; manifest.collect(); sys.exit('torch' "
        "in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_git_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "harl_bench"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(harl_bench, "__file__", str(package / "__init__.py"))
    assert manifest.git_state() is None

    def git(*words: str) -> None:
        about = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        subprocess.run(
            ["git", "-C", str(tmp_path), *about, *words], check=True, capture_output=True
        )

    git("init")
    git("add", ".")
    assert manifest.git_state() is None  # no commit yet
    git("commit", "-m", "x")
    clean = manifest.git_state()
    assert clean is not None
    assert len(clean["sha"]) == 40
    assert not clean["dirty"]
    (tmp_path / "untracked").touch()
    assert manifest.git_state() == clean
    (package / "__init__.py").write_text("changed")
    assert manifest.git_state() == clean | {"dirty": True}


def test_fingerprint(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"12")
    first = manifest.fingerprint(tmp_path, ["a", "b"])
    # The order does not matter.
    assert manifest.fingerprint(tmp_path, [Path("b"), Path("a")]) == first
    assert manifest.fingerprint(tmp_path, ["a"]) != first
    (tmp_path / "b").write_bytes(b"123")
    assert manifest.fingerprint(tmp_path, ["a", "b"]) != first
    name = os.fsdecode(b"\xff.jpg")  # a name that is not UTF-8
    (tmp_path / name).touch()
    assert len(manifest.fingerprint(tmp_path, [name])) == 64
    with pytest.raises(FileNotFoundError):
        manifest.fingerprint(tmp_path, ["absent"])


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc" * 10_000)
    assert manifest.sha256(tmp_path / "x") == hashlib.sha256(b"abc" * 10_000).hexdigest()


def test_packaged_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (resources.data_dir("transfer_configs") / "base-c4.yaml").is_file()
    assert (resources.data_dir("reports") / "published" / "table3.csv").is_file()
    with pytest.raises(
        MachineError, match=r"packaged folder 'absent' is missing.*install harl-bench again"
    ):
        resources.data_dir("absent")
    packaged = tmp_path / "harl_bench" / "_data" / "reports"  # the wheel's place is looked at first
    packaged.mkdir(parents=True)
    (tmp_path / "reports").mkdir()
    monkeypatch.setattr(
        resources, "__file__", str(tmp_path / "harl_bench" / "core" / "resources.py")
    )
    assert resources.data_dir("reports") == packaged


def test_toy_marks_reach_two_folders_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / "a" / "b" / "c"
    deep.mkdir(parents=True)
    assert not is_toy(deep)
    (tmp_path / "a" / "TOY").touch()
    assert is_toy(tmp_path / "a")
    assert is_toy(deep)
    assert not is_toy(deep / "d")
    assert not is_toy(tmp_path)
    monkeypatch.chdir(tmp_path / "a")
    assert is_toy("b")

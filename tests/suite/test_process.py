"""The commands of a suite start this package, whatever lies in the working folder."""

import os
import subprocess
from pathlib import Path

import harl_bench
from harl_bench.suite.process import HARL_BENCH


def test_a_users_own_pretrain_is_not_imported(tmp_path: Path) -> None:
    for name in ("pretrain.py", "harl_bench.py", "yaml.py"):
        (tmp_path / name).write_text("raise SystemExit('this is not ours')\n")
    root = str(Path(harl_bench.__file__).parents[1])
    command = [*HARL_BENCH, "pretrain", "--help"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Train a ResNet-50 without labels" in done.stdout

"""A suite whose commands are stand-ins that write down how they were called."""

import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harl_bench.suite import process

FAKE = Path(__file__).with_name("fake_harl_bench.py")
SUITE = """
data: {photos: photos, voc: voc, wildflowers: wildflowers}
pretrain:
  - {name: byol, recipe: byol-toy, data: photos, overrides: [epochs=3]}
checkpoints: [byol, random]
tasks:
  - {task: classify, protocol: linear, data: wildflowers}
  - {task: voc, recipe: voc-c4-toy, data: voc, overrides: [SOLVER.MAX_ITER=9], checkpoints: [random]}
seeds: [0, 1]
report: {md: table.md}
"""
SLURM_SUITE = """
data: {photos: photos, wildflowers: wildflowers}
pretrain:
  - {name: byol, recipe: byol-toy, data: photos}
checkpoints: [byol, random]
tasks:
  - {task: classify, protocol: linear, data: wildflowers}
seeds: [0, 1]
report: {md: table.md}
"""
CLUSTER = """
partition: gpu
account: vision
gpus_per_node: 8
mem: 200GB
time: 1-12:00:00
max_parallel: 2
setup: ["module load cuda/13.0"]
"""
# sbatch that runs its jobs before it answers would find no pickles: they are moved to their place
# after it, so the jobs are noted and run when the test asks.
SBATCH = """\
#!/bin/sh
n=$(($(cat {root}/jobs 2>/dev/null || echo 100) + 1)); echo $n > {root}/jobs
cp "$1" {root}/job-$n.sh
echo "Submitted batch job $n"
"""
SRUN = """\
#!/bin/sh
while [ "${1#--}" != "$1" ]; do case "$1" in --output|--error) shift 2;; *) shift;; esac; done
exec "$@"
"""
Calls = Callable[[], list[list[str]]]


def wildflowers(root: Path) -> None:
    """Names of images as a folder of classes has them."""
    for name in ("rose/0", "rose/1", "tulip/0", "tulip/1"):
        for split in ("train", "test"):
            path = root / split / f"{name}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """A working folder with a suite and its data; returns what was called since the last asking.

    Only names of the data are read.
    """
    for name in ("photos", "voc"):
        (tmp_path / name).mkdir()
    wildflowers(tmp_path / "wildflowers")
    (tmp_path / "suite.yaml").write_text(SUITE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAKE_CALLS", str(tmp_path / "calls"))
    monkeypatch.setattr(process, "HARL_BENCH", (sys.executable, str(FAKE)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def since() -> list[list[str]]:
        path = tmp_path / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [json.loads(line) for line in lines]

    return since


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a suite and a cluster file; SLURM's commands are stand-ins."""
    for name in ("photos", "bin"):
        (tmp_path / name).mkdir()
    wildflowers(tmp_path / "wildflowers")
    (tmp_path / "suite.yaml").write_text(SLURM_SUITE)
    (tmp_path / "cluster.yaml").write_text(CLUSTER)
    for name, text in (
        ("sbatch", SBATCH.format(root=tmp_path)),
        ("srun", SRUN),
        ("scontrol", "#!/bin/sh\n"),
    ):
        command = tmp_path / "bin" / name
        command.write_text(text)
        command.chmod(command.stat().st_mode | stat.S_IXUSR)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_CALLS", str(tmp_path / "calls"))
    monkeypatch.setattr(process, "HARL_BENCH", (sys.executable, str(FAKE)))
    return tmp_path

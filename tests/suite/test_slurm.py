"""SLURM: what sbatch is told, and the whole path through stand-ins for its commands."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harl_bench import cli
from harl_bench.core.errors import MachineError
from harl_bench.report.states import states
from harl_bench.suite import cluster, config, plan, process, records, slurm
from harl_bench.suite.command import Command
from tests.suite.conftest import FAKE

SMALL = """\
#SBATCH --cpus-per-task=8
#SBATCH --dependency=afterany:{after}
#SBATCH --gpus-per-node=1
"""
SCRIPT = """\
#!/bin/bash

# Parameters
#SBATCH --account=vision
#SBATCH --cpus-per-task=64
#SBATCH --gpus-per-node=8
#SBATCH --job-name=harl-bench-0
#SBATCH --mem=200GB
#SBATCH --nodes=1
#SBATCH --open-mode=append
#SBATCH --output={out}/%j_0_log.out
#SBATCH --partition=gpu
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=2160
#SBATCH --wckey=submitit

# setup
module load cuda/13.0

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output {out}/%j_%t_log.out {python} -u -m submitit.core._submit {out}
"""


def run_jobs(place: Path) -> None:
    """Run every job that was handed over, in order, each in a process of its own as by SLURM."""
    folder = place / "runs" / "slurm"
    code = (
        "import sys; from harl_bench.suite import process; process.HARL_BENCH = "
        f"(sys.executable, {str(FAKE)!r}); "
        "from submitit.core.submission import submitit_main; submitit_main()"
    )
    for script in sorted(place.glob("job-*.sh")):
        number = script.stem.removeprefix("job-")
        array = next(
            (
                line
                for line in script.read_text().splitlines()
                if line.startswith("#SBATCH --array=")
            ),
            "",
        )
        tasks = range(int(array.partition("=0-")[2].partition("%")[0]) + 1) if array else [None]
        for task in tasks:
            job = {"SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": number}
            if task is not None:
                job |= {"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": str(task)}
            subprocess.run(
                [sys.executable, "-c", code, str(folder)], env=os.environ | job, check=True
            )
        script.unlink()


def calls(place: Path) -> list[list[str]]:
    path = place / "calls"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_dry_run_prints_the_very_script(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("submitit")
    assert cli.main(["run", "suite.yaml", "--slurm", "cluster.yaml", "--dry-run"]) == 0
    told = capsys.readouterr().out
    script = SCRIPT.format(out=place / "runs" / "slurm", python=sys.executable)
    assert script in told
    # both seeds of the features that they share, in one job
    assert SMALL.format(after="JOB") in told
    # each has random weights
    assert "--array=0-1%2\n#SBATCH --cpus-per-task=8\n#SBATCH --gpus-per-node=1" in told
    assert not (place / "jobs").exists()
    assert not (place / "runs").exists()


@pytest.mark.slow
def test_the_whole_path(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("FAKE_BROKEN", json.dumps({"random": "error"}))
    assert cli.main(["run", "suite.yaml", "--slurm", "cluster.yaml"]) == 0
    told = capsys.readouterr().out
    assert "submitted 5 commands as 101, 102, 103, 104; you may log out" in told
    first = (place / "job-101.sh").read_text()
    assert first == SCRIPT.format(out=place / "runs" / "slurm", python=sys.executable)
    assert "--dependency" not in (place / "job-102.sh").read_text()
    assert SMALL.format(after="101:102") in (place / "job-103.sh").read_text()
    assert "--dependency=afterany:101:102:103" in (place / "job-104.sh").read_text()
    assert "gpus" not in (place / "job-104.sh").read_text()  # the report
    queued = [state for state in states(Path("runs")) if state.word == "queued"]
    assert [state.about for state in queued] == [
        f"SLURM job {n}" for n in ("101", "102_0", "102_1", "103", "103")
    ]
    assert cli.main(["run", "suite.yaml", "--slurm", "cluster.yaml"]) == 0  # given twice by mistake
    assert "5 commands with SLURM already" in capsys.readouterr().out
    run_jobs(place)
    assert [words[:2] for words in calls(place)] == [
        ["pretrain", "--recipe"],
        ["classify", "random"],
        ["classify", "random"],
        ["classify", "runs/pretrain/byol/last.pth"],
        ["classify", "runs/pretrain/byol/last.pth"],
        ["report", "runs"],
    ]
    words = sorted(state.word for state in states(Path("runs")))
    assert words == ["done", "done", "done", "failed", "failed"]
    assert Path("runs/table.md").read_text() == "the report"
    monkeypatch.delenv("FAKE_BROKEN")
    # tries again what failed
    assert cli.main(["run", "suite.yaml", "--slurm", "cluster.yaml"]) == 0
    assert "submitted 2 commands as 105, 106" in capsys.readouterr().out
    run_jobs(place)
    assert {state.word for state in states(Path("runs"))} == {"done"}


def test_a_signal_saves_and_asks_to_run_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """submitit calls checkpoint() while the command runs, then gives the same command again."""
    import threading
    import time

    submitit = pytest.importorskip("submitit")
    monkeypatch.setattr(process, "HARL_BENCH", (sys.executable, str(FAKE)))
    monkeypatch.setenv("FAKE_BROKEN", json.dumps({"random": "slow"}))
    command = Command(
        "classify",
        "linear",
        "wildflowers",
        "random",
        0,
        (),
        (
            "classify",
            "random",
            "--data",
            "wildflowers",
            "--protocol",
            "linear",
            "--seeds",
            "0",
            "--out",
            "runs",
        ),
        (),
    )
    records.join(Path("runs"), command, 0, "7_0")
    job, codes = slurm.Job([command], Path("runs"), {}), list[int]()
    work = threading.Thread(target=lambda: codes.append(job()))
    work.start()
    for _ in range(300):
        if Path("ready").exists():
            break
        time.sleep(0.1)
    assert not [state for state in states(Path("runs")) if state.word == "queued"]
    again = job.checkpoint()
    work.join(timeout=20)
    assert codes == [75]
    assert not list(Path("runs").rglob("failed.json"))
    assert isinstance(again, submitit.helpers.DelayedSubmission)
    monkeypatch.delenv("FAKE_BROKEN")
    assert again.function() == 0
    assert {state.word for state in states(Path("runs"))} == {"done"}


def test_a_checkpoint_of_half_a_pretraining_is_not_measured(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """SLURM starts a later array however the earlier one ended, and last.pth is there early."""
    out = Path("runs")
    pretraining, *others = plan.commands(config.load("suite.yaml"), out)
    measurement = next(command for command in others if command.needs)
    outputs = {"byol": pretraining.outputs}
    monkeypatch.setenv("FAKE_BROKEN", json.dumps({"byol-toy": "half"}))
    assert slurm.Job([pretraining], out, outputs)() == 3
    assert (out / "pretrain/byol/last.pth").is_file()
    records.join(out, measurement, 0, "7_0")
    assert slurm.Job([measurement], out, outputs)() == 1
    assert "byol failed, which it needs" in capsys.readouterr().out
    assert [words[0] for words in calls(place)] == ["pretrain"]
    assert [state.word for state in states(out)] == ["failed"]
    monkeypatch.delenv("FAKE_BROKEN")
    assert slurm.Job([pretraining, measurement], out, outputs)() == 0
    assert {state.word for state in states(out)} == {"done"}


def test_what_a_queued_pretraining_makes_is_waited_for(place: Path) -> None:
    pytest.importorskip("submitit")
    out, options = Path("runs"), cluster.load(Path("cluster.yaml"))
    commands = plan.commands(config.load("suite.yaml"), out)
    assert slurm.submit(commands, options, out, ["report"], {})[0] == "101"
    more = plan.commands(config.load("suite.yaml", ["seeds=[0, 1, 2]"]), out)
    queued = slurm.with_slurm(more, out)
    assert (len(queued), len(more)) == (5, 7)
    assert slurm.submit(more, options, out, ["report"], queued) == ["105", "106", "107"]
    assert "--dependency" not in (place / "job-105.sh").read_text()  # random weights
    assert "--dependency=afterany:101:105\n" in (place / "job-106.sh").read_text()


def test_a_queue_that_does_not_answer_is_not_empty(place: Path) -> None:
    commands = plan.commands(config.load("suite.yaml"), Path("runs"))
    records.join(Path("runs"), commands[0], 0, "101")
    squeue = place / "bin" / "squeue"
    for text, alive in (
        ("echo 101", [commands[0].name]),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", []),
        ("echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1", None),
    ):
        squeue.write_text(f"#!/bin/sh\n{text}\n")
        squeue.chmod(0o755)
        if alive is None:
            with pytest.raises(MachineError, match="Unable to contact slurm controller"):
                slurm.with_slurm(commands, Path("runs"))
        else:
            assert list(slurm.with_slurm(commands, Path("runs"))) == alive

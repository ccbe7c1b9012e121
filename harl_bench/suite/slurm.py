"""The commands of a suite as SLURM array jobs, through submitit: throttled, requeued on time-out and preemption.

Commands that need others' outcome wait in a later array, which depends on the earlier one; a last job reports.
"""

import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from harl_bench.core.config import Config, read_yaml, validated
from harl_bench.core.errors import PREEMPTED, MachineError
from harl_bench.suite import failures, waiting
from harl_bench.suite.cell import Cell
from harl_bench.suite.process import Ending, Processes

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

FOLDER = "slurm"  # below --out: submitit's pickles, scripts and the jobs' output
INSTALL = "pip install 'harl-bench[slurm]'"
TIME = re.compile(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)")


class Cluster(Config):
    """What sbatch is told; a YAML file of these keys is given as `--slurm FILE`.

    time: D-HH:MM:SS or HH:MM:SS, of one job; a run that takes longer is requeued and goes on.
    max_parallel: jobs of an array that may run at the same time.
    signal_s: seconds before its end that a job is told to save its state.
    max_requeues: how often a job may reach its time limit.
    setup: shell lines before the command, e.g. "module load cuda/13.0", "source env/bin/activate".
    extra: further sbatch options by name, e.g. {gres: "gpu:a100:8"}.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpus_per_node: int | None = Field(default=None, ge=1)
    cpus_per_task: int | None = Field(default=None, ge=1)
    mem: str | None = Field(default=None, pattern=r"^\d+[KMGT]?B?$")
    time: str = Field(default="12:00:00", pattern=TIME.pattern)
    max_parallel: int = Field(default=4, ge=1)
    signal_s: int = Field(default=120, ge=30)
    max_requeues: int = Field(default=50, ge=0)
    setup: list[str] = []
    extra: dict[str, str | int | bool] = {}

    @property
    def minutes(self) -> int:
        """The time limit of a job."""
        told = TIME.fullmatch(self.time)
        assert told, "the pattern has been checked"
        days, hours, minutes, seconds = (int(part or 0) for part in told.groups())
        return max(1, (days * 24 + hours) * 60 + minutes + (seconds > 0))


def load(path: Path) -> Cluster:
    """Read a cluster file.

    Raises:
        UsageError: an unknown key or a wrong value, with file and line.
    """
    values = read_yaml(path)
    return validated(Cluster, values, source=str(path), lines=values.lines)


class Command:
    """One cell as a job. On a signal its command saves its state, and the job is requeued with the same command."""

    def __init__(self, cell: Cell, out: Path) -> None:
        self.cell, self.out = cell, out
        self._processes: Processes | None = None

    def __call__(self) -> int:
        """Run it; the exit code. What fails leaves its record, as it does on one machine."""
        queue, processes = waiting.Line(self.out), Processes()
        queue.start(self.cell)
        self._processes = processes
        endings: list[Ending] = []
        work = threading.Thread(target=lambda: endings.append(processes.run(self.cell.arguments)), daemon=True)
        work.start()
        work.join()  # here, in the main thread, submitit's handler can interrupt while the other one reads on
        queue.leave(self.cell)
        code = endings[0].code
        if code == 0:
            failures.forget(self.cell, self.out)
        elif code != PREEMPTED and processes.came is None:  # not every command minds signals
            failures.record(self.cell, self.out, endings[0])
        return code

    def checkpoint(self) -> "DelayedSubmission":
        """Called by submitit within SLURM's signal: wait until the state is saved, then ask to be run again."""
        from submitit.helpers import DelayedSubmission

        if self._processes is not None:
            self._processes.stop(signal.SIGUSR2)
            self._processes.wait()
        waiting.Line(self.out).start(self.cell, started=False)
        return DelayedSubmission(Command(self.cell, self.out))


class Report:
    """The last job."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.arguments = list(arguments)

    def __call__(self) -> int:
        """Write the report; the exit code."""
        ending: Ending = Processes().run(self.arguments)
        return ending.code


def stages(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Cells by how many others have to be finished one after the other before them; within a stage in their order."""
    depth: dict[str, int] = {}
    found: dict[int, list[Cell]] = {}
    for cell in cells:  # whatever makes something comes before what needs it
        place = max((depth[need] + 1 for need in cell.needs if need in depth), default=0)
        if cell.makes:
            depth[cell.makes] = place
        found.setdefault(place, []).append(cell)
    return [found[place] for place in sorted(found)]


def texts(cells: Sequence[Cell], cluster: Cluster, out: Path) -> list[str]:
    """The sbatch script of each array, as `submit` hands it over; JOB stands for an earlier array's number.

    Raises:
        MachineError: submitit is not installed.
    """
    make = _submitit().slurm.slurm._make_sbatch_string
    folder = (out / FOLDER).resolve()
    command = f"{shlex.quote(sys.executable)} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    return [
        make(
            command=command, folder=folder, map_count=len(stage) if len(stage) > 1 else None,
            **_parameters(cluster, f"harl-bench-{place}", "afterany:JOB" if place else None),
        )
        for place, stage in enumerate(stages(cells))
    ]  # fmt: skip


def submit(cells: Sequence[Cell], cluster: Cluster, out: Path, report: Sequence[str]) -> list[str]:
    """Hand everything over to SLURM; the job numbers of the arrays and of the report.

    Raises:
        MachineError: submitit or SLURM is missing, or sbatch refused.
    """
    submitit = _submitit()
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise MachineError("no SLURM here", seen="sbatch or srun is not on the path", next="run this on a login node")
    folder = (out / FOLDER).resolve()
    executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=cluster.max_requeues)
    queue, numbers = waiting.Line(out), list[str]()
    try:
        for place, stage in enumerate(stages(cells)):
            after = f"afterany:{numbers[-1]}" if numbers else None
            executor.update_parameters(**_parameters(cluster, f"harl-bench-{place}", after))
            jobs = _array(executor, [Command(cell, out) for cell in stage])
            for number, (cell, job) in enumerate(zip(stage, jobs, strict=True)):
                queue.join(cell, len(cells) * place + number, str(job.job_id))
            numbers.append(str(jobs[0].job_id).partition("_")[0])
        short = cluster.model_copy(update={"time": "1:00:00"})
        executor.update_parameters(**_parameters(short, "harl-bench-report", f"afterany:{numbers[-1]}"))
        numbers.append(str(executor.submit(Report(report)).job_id))
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
        told = " ".join(str(error).split())[-300:]
        raise MachineError("sbatch refused", seen=told, next="mend the --slurm file; what is queued stays") from None
    return numbers


def with_slurm(cells: Sequence[Cell], out: Path) -> dict[str, str]:
    """The cells that an earlier submission still takes care of, by name, with their jobs."""
    queue = waiting.Line(out)
    told = {cell.name: job for cell in cells if (job := queue.job(cell))}
    if not told or shutil.which("squeue") is None:
        return told
    ids = ",".join(sorted({job.partition("_")[0] for job in told.values()}))
    listed = subprocess.run(
        ["squeue", "--noheader", "--array", "--format=%i", f"--jobs={ids}"], capture_output=True, text=True, check=False
    ).stdout.split()
    return {name: job for name, job in told.items() if job in listed}


def _array(executor: Any, commands: Sequence[Command]) -> list[Any]:
    """One array job; submitit makes a plain job of a single command."""
    with executor.batch():
        jobs = [executor.submit(command) for command in commands]
    return jobs


def _parameters(cluster: Cluster, name: str, after: str | None) -> dict[str, Any]:
    """In submitit's words."""
    told: dict[str, Any] = {
        "job_name": name,
        "time": cluster.minutes,
        "signal_delay_s": cluster.signal_s,
        "array_parallelism": cluster.max_parallel,
        "stderr_to_stdout": True,
        "setup": cluster.setup or None,
        "dependency": after,
        "additional_parameters": {"requeue": True, **cluster.extra},
    }
    for key in ("partition", "account", "qos", "constraint", "gpus_per_node", "cpus_per_task", "mem"):
        told[key] = getattr(cluster, key)
    return {key: value for key, value in told.items() if value is not None}


def _submitit() -> Any:
    try:
        import submitit
        import submitit.slurm.slurm
    except ImportError:
        raise MachineError("SLURM jobs are handed over by submitit, which is not installed", next=INSTALL) from None
    return submitit

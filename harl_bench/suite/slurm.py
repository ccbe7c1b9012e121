"""The commands of a suite as SLURM array jobs, through submitit: throttled, requeued when stopped.

Commands that need others' outcome wait in a later array, which depends on the earlier one. A last
job reports.
"""

import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harl_bench.core.errors import PREEMPTED, MachineError
from harl_bench.suite import records
from harl_bench.suite.cluster import Cluster
from harl_bench.suite.command import DETECTION, Command
from harl_bench.suite.process import Process

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

FOLDER = "slurm"  # below --out: submitit's pickles, scripts and the jobs' output
INSTALL = "pip install 'harl-bench[slurm]'"
# readers of images and the process that computes; without a GPU, mask makers use as many
CPUS_PER_GPU = 8


class Job:
    """Commands that run one after the other.

    On a signal the command under way saves its state, and the job is requeued with what is left.

    Args:
        outputs: files of what other commands make, by its name. A pretraining that failed leaves a
            last.pth, too, so that a command starts only where all files of its needs are there.
    """

    def __init__(
        self, commands: Sequence[Command], out: Path, outputs: Mapping[str, Sequence[Path]]
    ) -> None:
        self.commands, self.out, self.outputs = list(commands), out, dict(outputs)
        self._process: Process | None = None

    def __call__(self) -> int:
        """Run them; return the last exit code that is not 0. A failure leaves its record."""
        last = 0
        for command in list(self.commands):
            if missing := self._missing(command):
                print(f"{command.name}: {', '.join(missing)} failed, which it needs", flush=True)
                records.leave(self.out, command)
                self.commands.remove(command)
                last = last or 1
                continue
            records.mark(self.out, command, started=True)
            self._process = Process(command.arguments)
            code = self._process.finish()
            records.leave(self.out, command)
            if code == PREEMPTED or self._process.signal is not None:
                return code
            if code == 0:
                records.forget_failure(self.out, command)
            else:
                records.keep_failure(self.out, command, self._process)
            self.commands.remove(command)
            last = code or last
        return last

    def checkpoint(self) -> "DelayedSubmission":
        """Wait until the state is saved, then ask to be run again: on SLURM's signal."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None:
            self._process.stop(signal.SIGUSR2)
            self._process.finish()
        for command in self.commands:
            records.mark(self.out, command, started=False)
        return DelayedSubmission(Job(self.commands, self.out, self.outputs))

    def _missing(self, command: Command) -> list[str]:
        return [
            need
            for need in command.needs
            if not all(path.is_file() for path in self.outputs.get(need, ()))
        ]


class Report:
    """The last job."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.arguments = list(arguments)

    def __call__(self) -> int:
        """Write the report; return the exit code."""
        return Process(self.arguments).finish()


class Array(NamedTuple):
    """Jobs that ask for the same and wait for the same, each a list of commands.

    Attributes:
        stage: how many arrays have to end one after the other before this one.
        gpus: None where the cluster file names none.
    """

    name: str
    stage: int
    gpus: int | None
    cpus: int
    jobs: list[list[Command]]


def arrays(
    commands: Sequence[Command], cluster: Cluster, queued: Iterable[str] = ()
) -> list[Array]:
    """Return the arrays, sorted by stage. Commands that share stored features are one job.

    `queued` names what jobs of an earlier submission make.
    """
    # of what is made; makers stand before their users
    stages: dict[str, int] = dict.fromkeys(queued, 0)
    groups: dict[tuple[int, int | None, int], dict[str, list[Command]]] = {}
    for command in commands:
        stage = max((stages[need] + 1 for need in command.needs if need in stages), default=0)
        if command.makes:
            stages[command.makes] = stage
        jobs = groups.setdefault((stage, *_resources(command, cluster)), {})
        jobs.setdefault(command.shares or command.name, []).append(command)
    ordered = sorted(groups.items(), key=lambda group: group[0][0])
    return [
        Array(f"harl-bench-{number}", *key, list(jobs.values()))
        for number, (key, jobs) in enumerate(ordered)
    ]


def _resources(command: Command, cluster: Cluster) -> tuple[int | None, int]:
    """Return (GPUs, CPUs) that a job asks for."""
    gpus = cluster.gpus_per_node
    if gpus is not None and command.gpus != "all":
        gpus = int(command.gpus == "one")
    each = CPUS_PER_GPU
    if command.task in DETECTION:
        each = command.settings().DATALOADER.NUM_WORKERS + 1
    elif command.task == "segment":
        each = command.settings().workers + 1
    return gpus, cluster.cpus_per_task or each * max(1, gpus or 0)


def texts(commands: Sequence[Command], cluster: Cluster, out: Path) -> list[str]:
    """Return each array's sbatch script as `submit` writes it, with JOB for earlier numbers.

    Raises:
        MachineError: submitit is not installed.
    """
    write = _submitit().slurm.slurm._make_sbatch_string
    folder = (out / FOLDER).resolve()
    command = [sys.executable, "-u", "-m", "submitit.core._submit", str(folder)]
    scripts = []
    for array in arrays(commands, cluster):
        parameters = _parameters(cluster, array, ["JOB"] if array.stage else [])
        count = len(array.jobs) if len(array.jobs) > 1 else None
        scripts.append(
            write(command=shlex.join(command), folder=folder, map_count=count, **parameters)
        )
    return scripts


def require_slurm() -> Any:
    """Return submitit.

    Raises:
        MachineError: submitit or SLURM is missing.
    """
    submitit = _submitit()
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        seen = "sbatch or srun is not on the path"
        raise MachineError("no SLURM here", seen=seen, next="run this on a login node")
    return submitit


def submit(
    commands: Sequence[Command],
    cluster: Cluster,
    out: Path,
    report: Sequence[str],
    queued: Mapping[str, str],
) -> list[str]:
    """Hand everything over to SLURM; return the job numbers of the arrays and of the report.

    Args:
        queued: jobs of the commands that SLURM has already, by name. What needs them waits for
            them.

    Raises:
        MachineError: submitit or SLURM is missing, or sbatch refused.
    """
    submitit = require_slurm()
    executor = submitit.SlurmExecutor(
        (out / FOLDER).resolve(), max_num_timeout=cluster.max_requeues
    )
    outputs = {command.makes: command.outputs for command in commands if command.makes}
    makers = {c.makes: queued[c.name] for c in commands if c.makes and c.name in queued}
    remaining = [command for command in commands if command.name not in queued]
    numbers: dict[int, list[str]] = {}  # of jobs by stage
    position = 0
    try:
        for array in arrays(remaining, cluster, makers):
            executor.parameters.clear()
            needs = [need for members in array.jobs for c in members for need in c.needs]
            earlier = [makers[need] for need in dict.fromkeys(needs) if need in makers]
            earlier += numbers.get(array.stage - 1, [])
            executor.update_parameters(**_parameters(cluster, array, earlier))
            with executor.batch():  # one array job, or a plain job of a single one
                jobs = [executor.submit(Job(members, out, outputs)) for members in array.jobs]
            for members, job in zip(array.jobs, jobs, strict=True):
                for command in members:
                    records.join(out, command, position, str(job.job_id))
                    position += 1
            numbers.setdefault(array.stage, []).append(str(jobs[0].job_id).partition("_")[0])
        every = [number for stage in numbers.values() for number in stage]
        gpus = None if cluster.gpus_per_node is None else 0
        last = Array("harl-bench-report", 0, gpus, 2, [])
        executor.parameters.clear()
        hour = cluster.model_copy(update={"time": "1:00:00"})
        executor.update_parameters(**_parameters(hour, last, every))
        return [*every, str(executor.submit(Report(report)).job_id)]
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
        seen = " ".join(str(error).split())[-300:]
        hint = "correct the --slurm file; jobs that are queued stay"
        raise MachineError("sbatch refused", seen=seen, next=hint) from None


def with_slurm(commands: Sequence[Command], out: Path) -> dict[str, str]:
    """Return the jobs of the commands that an earlier submission still takes care of, by name.

    Raises:
        MachineError: squeue does not answer. What it does not list would be handed over twice.
    """
    jobs = {command.name: job for command in commands if (job := records.job(out, command))}
    if not jobs or shutil.which("squeue") is None:
        return jobs
    numbers = ",".join(sorted({job.partition("_")[0] for job in jobs.values()}))
    squeue = ["squeue", "--noheader", "--array", "--format=%i", f"--jobs={numbers}"]
    answer = subprocess.run(squeue, capture_output=True, text=True, check=False)
    if answer.returncode and "Invalid job id" not in answer.stderr:  # said where all have ended
        seen = " ".join(answer.stderr.split())[-300:]
        hint = "the same command again when squeue answers"
        raise MachineError("squeue cannot tell which jobs are queued", seen=seen, next=hint)
    alive = answer.stdout.split()
    return {name: job for name, job in jobs.items() if job in alive}


def _parameters(cluster: Cluster, array: Array, earlier: Sequence[str]) -> dict[str, Any]:
    """Return submitit's parameters of an array that waits for the end of earlier jobs."""
    options: dict[str, Any] = {"requeue": True, **cluster.extra}
    if options["requeue"] is False:
        options["no-requeue"] = True
    parameters: dict[str, Any] = {
        "job_name": array.name,
        "time": cluster.minutes,
        "signal_delay_s": cluster.signal_s,
        "array_parallelism": cluster.max_parallel,
        "stderr_to_stdout": True,
        "setup": cluster.setup or None,
        "dependency": ":".join(("afterany", *earlier)) if earlier else None,
        "gpus_per_node": array.gpus or None,
        "cpus_per_task": array.cpus,
        "additional_parameters": {key: v for key, v in options.items() if v is not False},
        **cluster.model_dump(include={"partition", "account", "qos", "constraint", "mem"}),
    }
    return {key: value for key, value in parameters.items() if value is not None}


def _submitit() -> Any:
    try:
        import submitit
        import submitit.slurm.slurm
    except ImportError:
        text = "SLURM jobs are handed over by submitit, which is not installed"
        raise MachineError(text, next=INSTALL) from None
    return submitit

"""The commands of a suite as SLURM array jobs, through submitit: throttled, requeued on time-out
and preemption.

Commands that need others' outcome wait in a later array, which depends on the earlier one; a last
job reports.
"""

import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harl_bench.core.errors import PREEMPTED, MachineError
from harl_bench.suite import failures, waiting
from harl_bench.suite.cell import Cell
from harl_bench.suite.cluster import Cluster
from harl_bench.suite.process import Ending, Processes

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

FOLDER = "slurm"  # below --out: submitit's pickles, scripts and the jobs' output
INSTALL = "pip install 'harl-bench[slurm]'"
CPUS_PER_GPU = (
    8  # readers of images and the process that computes; without a GPU, mask makers use as many
)


class Command:
    """Cells as one job, one after the other.

    On a signal the command under way saves its state, and the job is requeued with what is left of
    them.
    """

    def __init__(self, cells: Sequence[Cell], out: Path) -> None:
        self.cells, self.out = list(cells), out
        self._processes: Processes | None = None

    def __call__(self) -> int:
        """Run them; the last exit code that is not 0, if any.

        What fails leaves its record, as on one machine.
        """
        code = 0
        for cell in list(self.cells):
            ended = self._run(cell)
            if ended == PREEMPTED or (self._processes and self._processes.came is not None):
                return ended
            self.cells.remove(cell)
            code = ended or code
        return code

    def _run(self, cell: Cell) -> int:
        queue, processes = waiting.Line(self.out), Processes()
        queue.start(cell)
        self._processes = processes
        endings: list[Ending] = []
        work = threading.Thread(
            target=lambda: endings.append(processes.run(cell.arguments)), daemon=True
        )
        work.start()
        # here, in the main thread, submitit's handler can interrupt while the other one reads on
        work.join()
        queue.leave(cell)
        code = endings[0].code
        if code == 0:
            failures.forget(cell, self.out)
        elif code != PREEMPTED and processes.came is None:  # not every command minds signals
            failures.record(cell, self.out, endings[0])
        return code

    def checkpoint(self) -> "DelayedSubmission":
        """Called by submitit within SLURM's signal: wait until the state is saved, then ask to be
        run again.
        """
        from submitit.helpers import DelayedSubmission

        if self._processes is not None:
            self._processes.stop(signal.SIGUSR2)
            self._processes.wait()
        for cell in self.cells:
            waiting.Line(self.out).start(cell, started=False)
        return DelayedSubmission(Command(self.cells, self.out))


class Report:
    """The last job."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.arguments = list(arguments)

    def __call__(self) -> int:
        """Write the report; the exit code."""
        ending: Ending = Processes().run(self.arguments)
        return ending.code


def stages(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Cells by how many others have to be finished one after the other before them; within a stage
    in their order.
    """
    depth: dict[str, int] = {}
    found: dict[int, list[Cell]] = {}
    for cell in cells:  # whatever makes something comes before what needs it
        place = max((depth[need] + 1 for need in cell.needs if need in depth), default=0)
        if cell.makes:
            depth[cell.makes] = place
        found.setdefault(place, []).append(cell)
    return [found[place] for place in sorted(found)]


class Array(NamedTuple):
    """Jobs that ask for the same and wait for the same: lists of cells, a list a job."""

    name: str
    stage: int
    gpus: int | None
    cpus: int
    jobs: list[list[Cell]]


def arrays(cells: Sequence[Cell], cluster: Cluster) -> list[Array]:
    """Return the arrays, those of a stage beside each other; cells that share stored features are
    one job.
    """
    found: dict[tuple[int, int | None, int], dict[str, list[Cell]]] = {}
    for stage, members in enumerate(stages(cells)):
        for cell in members:
            jobs = found.setdefault((stage, *_needs(cell, cluster)), {})
            jobs.setdefault(cell.shares or cell.name, []).append(cell)
    named = enumerate(found.items())
    return [Array(f"harl-bench-{n}", *wanted, list(jobs.values())) for n, (wanted, jobs) in named]


def _needs(cell: Cell, cluster: Cluster) -> tuple[int | None, int]:
    """(GPUs, CPUs) that a job asks for; GPUs are None where the file names none."""
    gpus = cluster.gpus_per_node
    if gpus is not None and cell.gpus != "all":
        gpus = int(cell.gpus == "one")
    each = CPUS_PER_GPU
    if cell.task in ("voc", "coco"):
        from harl_bench.detection.recipe import load as load_recipe

        each = load_recipe(cell.setting, cell.overrides).DATALOADER.NUM_WORKERS + 1
    return gpus, cluster.cpus_per_task or each * max(1, gpus or 0)


def texts(cells: Sequence[Cell], cluster: Cluster, out: Path) -> list[str]:
    """The sbatch script of each array, as `submit` hands it over; JOB stands for the earlier
    arrays' numbers.

    Raises:
        MachineError: submitit is not installed.
    """
    make = _submitit().slurm.slurm._make_sbatch_string
    folder = (out / FOLDER).resolve()
    command = (
        f"{shlex.quote(sys.executable)} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    )
    return [
        make(
            command=command,
            folder=folder,
            map_count=len(array.jobs) if len(array.jobs) > 1 else None,
            **_parameters(cluster, array, "afterany:JOB" if array.stage else None),
        )
        for array in arrays(cells, cluster)
    ]


def demand_slurm() -> Any:
    """Return submitit.

    Raises:
        MachineError: submitit or SLURM is missing.
    """
    submitit = _submitit()
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise MachineError(
            "no SLURM here",
            seen="sbatch or srun is not on the path",
            next="run this on a login node",
        )
    return submitit


def submit(cells: Sequence[Cell], cluster: Cluster, out: Path, report: Sequence[str]) -> list[str]:
    """Hand everything over to SLURM; the job numbers of the arrays and of the report.

    Raises:
        MachineError: submitit or SLURM is missing, or sbatch refused.
    """
    submitit = demand_slurm()
    folder = (out / FOLDER).resolve()
    executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=cluster.max_requeues)
    queue, numbers = waiting.Line(out), dict[int, list[str]]()  # of jobs by stage
    order = 0
    try:
        for array in arrays(cells, cluster):
            executor.parameters.clear()
            executor.update_parameters(
                **_parameters(cluster, array, _after(numbers.get(array.stage - 1)))
            )
            jobs = _submitted(executor, [Command(job, out) for job in array.jobs])
            for members, job in zip(array.jobs, jobs, strict=True):
                for cell in members:
                    queue.join(cell, order, str(job.job_id))
                    order += 1
            numbers.setdefault(array.stage, []).append(str(jobs[0].job_id).partition("_")[0])
        last = Array("harl-bench-report", 0, None if cluster.gpus_per_node is None else 0, 2, [])
        short = cluster.model_copy(update={"time": "1:00:00"})
        executor.parameters.clear()
        executor.update_parameters(
            **_parameters(short, last, _after([n for ns in numbers.values() for n in ns]))
        )
        reporting = str(executor.submit(Report(report)).job_id)
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
        told = " ".join(str(error).split())[-300:]
        raise MachineError(
            "sbatch refused", seen=told, next="mend the --slurm file; what is queued stays"
        ) from None
    return [*(number for stage in numbers.values() for number in stage), reporting]


def _after(numbers: Sequence[str] | None) -> str | None:
    return ":".join(("afterany", *numbers)) if numbers else None


def with_slurm(cells: Sequence[Cell], out: Path) -> dict[str, str]:
    """The cells that an earlier submission still takes care of, by name, with their jobs."""
    queue = waiting.Line(out)
    told = {cell.name: job for cell in cells if (job := queue.job(cell))}
    if not told or shutil.which("squeue") is None:
        return told
    ids = ",".join(sorted({job.partition("_")[0] for job in told.values()}))
    listed = subprocess.run(
        ["squeue", "--noheader", "--array", "--format=%i", f"--jobs={ids}"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split()
    return {name: job for name, job in told.items() if job in listed}


def _submitted(executor: Any, commands: Sequence[Command]) -> list[Any]:
    """One array job; submitit makes a plain job of a single command."""
    with executor.batch():
        jobs = [executor.submit(command) for command in commands]
    return jobs


def _parameters(cluster: Cluster, array: Array, after: str | None) -> dict[str, Any]:
    """In submitit's words.

    A false option is left out, but for requeue, whose opposite has a name.
    """
    options = {"requeue": True, **cluster.extra}
    if options["requeue"] is False:
        options["no-requeue"] = True
    told: dict[str, Any] = {
        "job_name": array.name,
        "time": cluster.minutes,
        "signal_delay_s": cluster.signal_s,
        "array_parallelism": cluster.max_parallel,
        "stderr_to_stdout": True,
        "setup": cluster.setup or None,
        "dependency": after,
        "gpus_per_node": array.gpus or None,
        "cpus_per_task": array.cpus,
        "additional_parameters": {
            key: value for key, value in options.items() if value is not False
        },
    }
    for key in ("partition", "account", "qos", "constraint", "mem"):
        told[key] = getattr(cluster, key)
    return {key: value for key, value in told.items() if value is not None}


def _submitit() -> Any:
    try:
        import submitit
        import submitit.slurm.slurm
    except ImportError:
        raise MachineError(
            "SLURM jobs are handed over by submitit, which is not installed", next=INSTALL
        ) from None
    return submitit

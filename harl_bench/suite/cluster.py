"""The YAML file of `run --slurm FILE`: options of every job on a cluster."""

from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, field_validator

from harl_bench.core.config import Config, read_yaml, validated

# sbatch's forms: minutes, minutes:seconds, hours:minutes:seconds, days-hours[:minutes[:seconds]].
TIME = r"^(\d+(:\d\d?){0,2}|\d+-\d+(:\d\d?){0,2})$"
# Options that harl-bench and submitit set themselves.
OWN = {"array", "dependency", "job_name", "output", "error"}
OWN |= {"signal", "nodes", "open_mode", "ntasks"}


class Cluster(Config):
    """Options of sbatch; a YAML file of these keys is given as `--slurm FILE`.

    gpus_per_node: of a job that trains on all GPUs. Classification asks for one, masks for none.
    cpus_per_task: of every job; default: 8 for each of its GPUs, or the recipe's readers and one.
    mem: of every job, as sbatch takes it, e.g. 200G.
    time: of one job, as sbatch takes it; a run that takes longer is requeued and goes on.
    max_parallel: jobs of an array that may run at the same time.
    signal_s: seconds before its end that a job is told to save its state.
    max_requeues: how often a job may reach its time limit.
    setup: shell lines before the command, e.g. "module load cuda/13.0", "source env/bin/activate".
    extra: further sbatch options by name for every job, e.g. {exclusive: true}; `requeue: false` is
        --no-requeue.
    """

    model_config = ConfigDict(coerce_numbers_to_str=True)  # account: 1234, mem: 64000, time: 720

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpus_per_node: int | None = Field(default=None, ge=1)
    cpus_per_task: int | None = Field(default=None, ge=1)
    mem: str | None = Field(default=None, pattern=r"^\d+[KMGTkmgt]?[Bb]?$")
    time: str = Field(default="12:00:00", pattern=TIME)
    max_parallel: int = Field(default=4, ge=1)
    signal_s: int = Field(default=120, ge=30)
    max_requeues: int = Field(default=50, ge=0)
    setup: list[str] = []
    extra: dict[str, str | int | bool] = {}

    @property
    def minutes(self) -> int:
        """The time limit of a job."""
        days, dash, clock = self.time.rpartition("-")
        parts = [int(part) for part in clock.split(":")]
        if not dash and len(parts) < 3:  # minutes or minutes:seconds; after days, hours come first
            parts = [0, *parts]
        hours, minutes, seconds = [*parts, 0, 0][:3]
        return max(1, (int(days or 0) * 24 + hours) * 60 + minutes + (seconds > 0))

    @field_validator("extra")
    @classmethod
    def _is_further(cls, extra: dict[str, Any]) -> dict[str, Any]:
        own = {*OWN, *cls.model_fields}
        if known := sorted(key for key in extra if key.replace("-", "_") in own):
            raise ValueError(f"{', '.join(known)}: a key of its own, or set by harl-bench")
        return extra


def load(path: Path) -> Cluster:
    """Read a cluster file.

    Raises:
        UsageError: an unknown key or a wrong value, with file and line.
    """
    values = read_yaml(path)
    return validated(Cluster, values, source=str(path), lines=values.lines)

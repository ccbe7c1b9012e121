"""The command `harl-bench pretrain`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from harl_bench.core.errors import MachineError, UsageError
from harl_bench.core.files import write_json
from harl_bench.core.options import COMMON, HARDWARE, PROTOCOL, Device, DryRun, Fresh, Gpus, Workers
from harl_bench.core.progress import duration, log, log_file
from harl_bench.core.results import Run
from harl_bench.core.toy import is_toy
from pretrain.claim import claimed
from pretrain.job import Job, prepared, work
from pretrain.methods import METHODS

if TYPE_CHECKING:
    from pretrain.config import PretrainConfig


def pretrain(
    *overrides: Annotated[
        str, Parameter(help="key=value changes to the recipe, e.g. feature_grid=14")
    ],
    data: Annotated[
        Path, Parameter(group=COMMON, help="Folder of images or .tar shards; sub-folders too.")
    ],
    method: Annotated[
        str | None,
        Parameter(group=PROTOCOL, help=f"{', '.join(METHODS)}; must agree with the recipe."),
    ] = None,
    masks: Annotated[
        Path | None,
        Parameter(group=COMMON, help="Folder or .tar shards of masks: same paths, .png."),
    ] = None,
    val: Annotated[
        Path | None,
        Parameter(
            group=COMMON,
            help="Held-out images by class: a linear probe and kNN watch the features.",
        ),
    ] = None,
    out: Annotated[
        Path | None, Parameter(group=COMMON, help="Run folder; last.pth lands there.")
    ] = None,
    recipe: Annotated[str | None, Parameter(group=PROTOCOL, help="Default: METHOD-100ep.")] = None,
    seed: Annotated[int | None, Parameter(group=COMMON)] = None,
    device: Device = "auto",
    gpus: Gpus = None,
    workers: Workers = None,
    allow_unreadable: Annotated[bool, Parameter(group=COMMON, negative="")] = False,
    tensorboard: Annotated[
        bool, Parameter(group=COMMON, negative="", help="Also write TensorBoard files.")
    ] = False,
    preview: Annotated[
        bool, Parameter(group=COMMON, negative="", help="Write pictures/views.png and stop.")
    ] = False,
    threads: Annotated[int | None, Parameter(group=HARDWARE, help="CPU threads of torch.")] = None,
    dry_run: DryRun = False,
    fresh: Fresh = False,
) -> None:
    """Train a ResNet-50 without labels.

    The same command again goes on where it stopped; a finished run is left alone. All visible GPUs
    share the work; for several machines, start the command on each with torchrun.

    Try:

        harl-bench pretrain --method harl --data imagenet/train --masks imagenet/masks --out harl

        harl-bench pretrain --method byol --data photos --recipe byol-100ep batch_size=64 epochs=20
    """
    from harl_bench.core.lookup import lookup
    from pretrain import recipe as recipes

    if method is not None:
        lookup(METHODS, method, "method")

    changes = [*overrides, *([f"seed={seed}"] if seed is not None else [])]
    config = recipes.load(recipe, method, changes)
    if config.needs_masks and masks is None:
        raise UsageError(
            f"{'HARL' if config.method == 'harl' else config.method} needs masks",
            next=f"harl-bench masks make {data} --out MASKS --method drfi-lite, then --masks MASKS",
        )
    if masks is not None and not config.needs_masks:
        raise UsageError(
            f"{config.method} uses no masks", where="--masks", next="leave --masks out"
        )
    name = recipe_name(recipe, config.method)
    usual = Path("runs", "pretrain", data.resolve().name, name, config.method, f"seed{config.seed}")
    folder = out or usual

    from harl_bench.nn import distributed, runtime

    with distributed.joined():
        where = runtime.device("cpu" if gpus == 0 else device)
        # Elsewhere than on the machine that will train, --dry-run takes --gpus at its word.
        on_gpu = where.type == "cuda" or (dry_run and bool(gpus))
        count = gpus if dry_run and gpus else processes(gpus, on_gpu=on_gpu)
        job = prepared(config, data, masks, val)
        describe(job, data)
        if dry_run:
            for key, value in config.model_dump().items():
                tell("  %s: %s", key, value)
        together = distributed.world_size() if distributed.under_launcher() else count
        here = distributed.processes_here() if distributed.under_launcher() else count
        job.workers = runtime.readers(workers, on_gpu=on_gpu, processes=here)
        if not claimed(folder, job, together, fresh=fresh, preview=preview, dry_run=dry_run):
            return
        if dry_run or on_gpu:
            plan(job.config, together, here, job.workers, on_gpu=on_gpu)
        if dry_run:
            device_name = f"{together} GPUs" if on_gpu and together > 1 else where
            tell("would train on %s into %s (--dry-run)", device_name, folder)
            return
        job.folder, job.device, job.threads = folder, where.type, threads
        job.allow_unreadable, job.tensorboard = allow_unreadable, tensorboard
        job.toy = is_toy(data, name)
        if distributed.is_main():
            lead(job, count)
        else:  # a launcher's other processes: the first one writes
            work(job)


def describe(job: Job, data: Path) -> None:
    """How much there is to do, and how many masks there are."""
    from pretrain.data import steps_per_epoch

    found, config = job.images, job.config
    per_epoch = steps_per_epoch(len(found.paths), config.batch_size)
    n, steps = len(found.paths), per_epoch * config.epochs
    size, epochs = config.batch_size, config.epochs
    tell("%d images in %s; %d steps of %d images, %d epochs", n, data, steps, size, epochs)
    if found.masks:
        tell(
            "%d have a mask; %d have none and %d a rejected one: those count in the whole-image "
            "term only",
            int(found.masked.sum()),
            int((~found.masked).sum()) - found.rejected,
            found.rejected,
        )


def plan(config: PretrainConfig, together: int, here: int, workers: int, *, on_gpu: bool) -> None:
    """Say what each of `together` processes gets, `here` of them on this machine, and warn where
    memory is short.

    Raises:
        UsageError: a batch that cannot be divided among the processes.
    """
    import math
    import shutil

    import torch

    from harl_bench.nn import runtime
    from pretrain.job import memory_advice
    from pretrain.memory import GIB, MIB, needed
    from pretrain.parallel import share_of_batch

    images = share_of_batch(config.batch_size, config.accumulate, together)
    need = needed(config, images, processes=here, workers=workers, on_gpu=on_gpu)
    tell(
        "%d processes, %d images of a batch for each%s, %d data workers for each",
        together,
        images,
        f" at a time, {config.accumulate} times a step" if config.accumulate > 1 else "",
        workers,
    )
    tell(
        "memory of each: about %.1f GiB (%d images of %.1f MiB in %s, and %.1f GiB)",
        need.gpu / GIB,
        images,
        need.image / MIB,
        config.precision,
        need.fixed / GIB,
    )
    if on_gpu and torch.cuda.is_available() and need.gpu > runtime.gpu_gib() * GIB:
        advice = memory_advice(config, together)
        log.warning("the GPU has %.1f GiB, which will not do; %s", runtime.gpu_gib(), advice)
    shared = Path("/dev/shm")
    if workers and shared.is_dir():
        size = shutil.disk_usage(shared).total
        tell("shared memory: %.1f GiB of %.1f GiB", need.shared / GIB, size / GIB)
        if need.shared > size:
            wanted = math.ceil(need.shared / GIB)
            log.warning(
                "shared memory is short: start the container with --shm-size=%dg, or give fewer "
                "--workers",
                wanted,
            )


def processes(gpus: int | None, *, on_gpu: bool) -> int:
    """One process per GPU; one on the CPU.

    Raises:
        MachineError: fewer GPUs than asked for.
    """
    import torch

    there = torch.cuda.device_count() if on_gpu else 0
    if gpus is not None and gpus > there:
        raise MachineError(
            "not enough GPUs", seen=f"--gpus {gpus}, {there} visible", next="give a smaller --gpus"
        )
    return max(1, there if gpus is None else gpus)


def lead(job: Job, count: int) -> None:
    """Train, alone or with processes of our own, and say what came of it."""
    import time

    from harl_bench.nn import distributed
    from pretrain.data import steps_per_epoch
    from pretrain.record import judge
    from pretrain.state import LAST

    began, config = time.monotonic(), job.config
    run = Run(job.folder, run_id="", state="unfinished")
    with run.locked(), log_file(job.folder / "log.txt"):
        last = distributed.launch(work, count, job)
        # A state may come without its log.
        ending = f", last loss {last['loss']:.4f}" if "loss" in last else ""
        took = duration(time.monotonic() - began)
        log.info("wrote %s after %s%s", job.folder / LAST, took, ending)
        for missed in judge(config.expect, last):
            log.warning("not as the recipe expects: %s", missed)
        steps = steps_per_epoch(len(job.images.paths), config.batch_size) * config.epochs
        write_json(job.folder / "done.json", {"steps": steps, **last})


def tell(text: str, *values: Any) -> None:
    """A log line of the first process."""
    from harl_bench.nn import distributed

    if distributed.is_main():
        log.info(text, *values)


def recipe_name(recipe: str | None, method: str) -> str:
    """The part of the default run folder that names the recipe."""
    return Path(recipe).stem if recipe else f"{method}-100ep"

"""The command `harl-bench pretrain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from harl_bench.core.errors import MachineError, UsageError
from harl_bench.core.files import write_json
from harl_bench.core.options import (
    COMMON,
    HARDWARE,
    PROTOCOL,
    AllowUnreadable,
    Device,
    DryRun,
    Fresh,
    Gpus,
    Workers,
    numbers,
    offering,
)
from harl_bench.core.progress import announce, duration, log, log_file
from harl_bench.core.runs import Run
from harl_bench.core.summary import free_disk, show_plan
from harl_bench.core.toy import is_toy
from pretrain.claim import claimed
from pretrain.job import Job, prepared, work
from pretrain.methods import METHODS


def _recipes() -> list[str]:
    from pretrain import recipe

    return recipe.names()


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
        offering(lambda: METHODS),
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
    recipe: Annotated[
        str | None,
        Parameter(group=PROTOCOL, help="Default: METHOD-100ep."),
        offering(_recipes),
    ] = None,
    seed: Annotated[
        int | None, Parameter(group=COMMON, help="Decides the whole run; default: the recipe's.")
    ] = None,
    seeds: Annotated[
        list[int] | None,
        Parameter(
            group=COMMON,
            consume_multiple=True,
            converter=numbers,
            help="Several runs, one after the other, each in seed<k> below --out.",
        ),
    ] = None,
    device: Device = "auto",
    gpus: Gpus = None,
    workers: Workers = None,
    allow_unreadable: AllowUnreadable = False,
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
    options = locals()
    from harl_bench.core.lookup import lookup
    from pretrain import recipe as recipes

    if seeds is not None:
        if seed is not None or any(word.startswith("seed=") for word in overrides):
            raise UsageError("--seeds and a seed", next="leave one of them out")
        options |= {"seeds": None}
        del options["overrides"]
        announce("pretrain: seeds %s; loading torch", " ".join(map(str, seeds)))
        from harl_bench.nn.distributed import joined

        with joined():  # once: a launcher's processes cannot meet a second time
            for one in dict.fromkeys(seeds):
                folder = out / f"seed{one}" if out else None
                pretrain(*overrides, **options | {"seed": one, "out": folder})
        return
    if method is not None:
        lookup(METHODS, method, "method")

    announce("pretrain: %s on %s; loading torch", recipe or f"{method or 'harl'}-100ep", data)
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
    from pretrain.plan import estimate, share
    from pretrain.state import LAST

    with distributed.joined():
        where = runtime.device("cpu" if gpus == 0 else device)
        # Elsewhere than on the machine that will train, --dry-run takes --gpus at its word.
        on_gpu = where.type == "cuda" or (dry_run and bool(gpus))
        count = gpus if dry_run and gpus else processes(gpus, on_gpu=on_gpu)
        job = prepared(config, data, masks, val)
        describe(job, data)
        if dry_run:
            for key, value in config.model_dump().items():
                log.debug("  %s: %s", key, value)  # with --verbose
        together = distributed.world_size() if distributed.under_launcher() else count
        here = distributed.processes_here() if distributed.under_launcher() else count
        job.workers = runtime.readers(workers, on_gpu=on_gpu, processes=here)
        if not claimed(folder, job, together, fresh=fresh, preview=preview, dry_run=dry_run):
            return
        if dry_run or on_gpu:
            rows = share(job.config, together, here, job.workers, on_gpu=on_gpu)
        if dry_run:
            if distributed.is_main():
                rows["time"] = estimate(config, len(job.images.paths))
                rows["disk"] = f"{free_disk(folder)}; a run keeps about 1 GiB"
                state = "unfinished" if (folder / LAST).exists() and not fresh else "new"
                each = f"{config.epochs} epochs of {len(job.images.paths)} images"
                show_plan(rows, [(state, str(folder))], each=each)
            return
        if on_gpu:
            for name, text in rows.items():
                tell("%s: %s", name, text)
        job.folder, job.device, job.threads = folder, where.type, threads
        job.allow_unreadable, job.tensorboard = allow_unreadable, tensorboard
        job.toy = is_toy(data, name)
        if distributed.is_main():
            lead(job, count)
        else:  # a launcher's other processes: the first one writes
            work(job)


def describe(job: Job, data: Path) -> None:
    """How much there is to do, and how many masks there are."""
    from pretrain.parallel import RAMP

    found, config = job.images, job.config
    n, size, epochs = len(found.paths), str(config.batch_size), config.epochs
    if config.accumulation_ramp:
        size += f" to {RAMP[0][1] * config.batch_size}"
    tell("%d images in %s; %d steps of %s images, %d epochs", n, data, steps_of(job), size, epochs)
    if found.masks:
        tell(
            "%d have a mask; %d have none and %d a rejected one: those count in the whole-image "
            "term only",
            int(found.masked.sum()),
            int((~found.masked).sum()) - found.rejected,
            found.rejected,
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

    from harl_bench.nn import launching
    from pretrain.record import judge
    from pretrain.state import LAST

    began, config = time.monotonic(), job.config
    run = Run(job.folder, run_id="", state="unfinished")
    with run.locked(), log_file(job.folder / "log.txt"):
        last = launching.launch(work, count, job)
        # A state may come without its log.
        ending = f", last loss {last['loss']:.4f}" if "loss" in last else ""
        took = duration(time.monotonic() - began)
        log.info("wrote %s after %s%s", job.folder / LAST, took, ending)
        for missed in judge(config.expect, last):
            log.warning("not as the recipe expects: %s", missed)
        write_json(job.folder / "done.json", {"steps": steps_of(job), **last})


def steps_of(job: Job) -> int:
    """Return the optimiser steps of a run."""
    from pretrain.data import steps_per_epoch
    from pretrain.parallel import plan

    config = job.config
    per_epoch = steps_per_epoch(len(job.images.paths), config.batch_size)
    return len(plan(per_epoch, config.epochs, ramp=config.accumulation_ramp))


def tell(text: str, *values: Any) -> None:
    """A log line of the first process."""
    from harl_bench.nn import distributed

    if distributed.is_main():
        log.info(text, *values)


def recipe_name(recipe: str | None, method: str) -> str:
    """The part of the default run folder that names the recipe."""
    return Path(recipe).stem if recipe else f"{method}-100ep"

"""The command `harl-bench pretrain`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from harl_bench.core.errors import BenchError, MachineError, UsageError
from harl_bench.core.options import COMMON, HARDWARE, PROTOCOL, Device, DryRun, Fresh, Gpus, Workers
from harl_bench.core.progress import duration, log, log_file
from harl_bench.core.results import Run, write_json

if TYPE_CHECKING:
    from pretrain.config import PretrainConfig
    from pretrain.data import Pictures, TwoViews


def pretrain(
    *overrides: Annotated[str, Parameter(help="key=value changes to the recipe, e.g. feature_grid=14")],
    data: Annotated[Path, Parameter(group=COMMON, help="Folder of pictures or .tar shards; sub-folders too.")],
    method: Annotated[
        str | None, Parameter(group=PROTOCOL, help="harl, byol, simclr, ...; must agree with the recipe.")
    ] = None,
    masks: Annotated[
        Path | None, Parameter(group=COMMON, help="Folder or .tar shards of masks: same paths, .png.")
    ] = None,
    val: Annotated[
        Path | None,
        Parameter(group=COMMON, help="Held-out pictures by class: a linear probe and kNN watch the features."),
    ] = None,
    out: Annotated[Path | None, Parameter(group=COMMON, help="Run folder; last.pth lands there.")] = None,
    recipe: Annotated[str | None, Parameter(group=PROTOCOL, help="Default: METHOD-100ep.")] = None,
    seed: Annotated[int | None, Parameter(group=COMMON)] = None,
    device: Device = "auto",
    gpus: Gpus = None,
    workers: Workers = None,
    allow_unreadable: Annotated[bool, Parameter(group=COMMON, negative="")] = False,
    tensorboard: Annotated[bool, Parameter(group=COMMON, negative="", help="Also write TensorBoard files.")] = False,
    preview: Annotated[bool, Parameter(group=COMMON, negative="", help="Write pictures/views.png and stop.")] = False,
    threads: Annotated[int | None, Parameter(group=HARDWARE, help="CPU threads of torch.")] = None,
    dry_run: DryRun = False,
    fresh: Fresh = False,
) -> None:
    """Train a ResNet-50 without labels.

    The same command again goes on where it stopped; a finished run is left alone. All visible GPUs share the work;
    for several machines, start the command on each with torchrun.

    Try:

        harl-bench pretrain --method harl --data imagenet/train --masks imagenet/masks --out runs/pretrain/harl

        harl-bench pretrain --method byol --data photos --recipe byol-100ep batch_size=64 epochs=20
    """
    from pretrain import recipe as recipes

    changes = [*overrides, *([f"seed={seed}"] if seed is not None else [])]
    config = recipes.load(recipe, method, changes)
    if config.needs_masks and masks is None:
        raise UsageError(
            f"{'HARL' if config.method == 'harl' else config.method} needs masks",
            next=f"harl-bench masks make {data} --out MASKS --method drfi-lite, then --masks MASKS",
        )
    if masks is not None and not config.needs_masks:
        raise UsageError(f"{config.method} uses no masks", where="--masks", next="leave --masks out")
    name = recipe_name(recipe, config.method)
    folder = out or Path("runs") / "pretrain" / data.resolve().name / name / config.method / f"seed{config.seed}"

    from harl_bench.nn import distributed, runtime

    with distributed.joined():
        where = runtime.device("cpu" if gpus == 0 else device)
        count = processes(gpus, on_gpu=where.type == "cuda")
        job = prepared(config, data, masks, val)
        describe(job, data)
        if dry_run:
            for key, value in config.model_dump().items():
                tell("  %s: %s", key, value)
            tell("would train on %s into %s (--dry-run)", where, folder)
            return
        if not claimed(folder, job, fresh=fresh, preview=preview):
            return
        here = distributed.processes_here() if distributed.under_launcher() else count
        job.workers = runtime.readers(workers, on_gpu=where.type == "cuda", processes=here)
        job.folder, job.device, job.threads = folder, where.type, threads
        job.allow_unreadable, job.tensorboard = allow_unreadable, tensorboard
        if distributed.is_main():
            lead(job, count)
        else:  # a launcher's other processes: the first one writes
            work(job)


@dataclass
class Job:
    """What a process needs to train."""

    config: PretrainConfig
    pictures: Pictures
    val: Pictures | None
    folder: Path = Path()
    device: str = "cpu"
    workers: int = 0
    threads: int | None = None
    allow_unreadable: bool = False
    tensorboard: bool = False

    def dataset(self) -> TwoViews:
        """The views of the training pictures; where a GPU trains, it also does their colours."""
        from pretrain.methods import method_class

        method = method_class(self.config.method)
        dataset: TwoViews = method.dataset(self.pictures, self.config, unfinished=self.device == "cuda")
        return dataset


def prepared(config: PretrainConfig, data: Path, masks: Path | None, val: Path | None) -> Job:
    """Find the pictures and check what can be checked before anything is written."""
    from pretrain import data as pictures_of
    from pretrain.evaluate import hold
    from pretrain.labels import Labels

    found = pictures_of.find(data, masks)
    pictures_of.steps_per_epoch(len(found.paths), config.batch_size)
    if config.needs_labels:
        classes, asked = len(Labels(found.root, found.paths).names), getattr(config, "classes", None)
        if asked not in (None, classes):
            seen = f"classes={asked}, {classes} class folders"
            raise UsageError("other classes than the data have", where=data, seen=seen, next="leave classes out")
        config = config.model_copy(update={"classes": classes})
    held_out = pictures_of.find(val, None) if val else None
    if held_out:
        hold(found, held_out)
    return Job(config, found, held_out)


def describe(job: Job, data: Path) -> None:
    """How much there is to do, and how many masks there are."""
    from pretrain.data import steps_per_epoch

    found, config = job.pictures, job.config
    per_epoch = steps_per_epoch(len(found.paths), config.batch_size)
    tell("%d pictures in %s; %d steps of %d pictures, %d epochs", len(found.paths), data, per_epoch * config.epochs,
         config.batch_size, config.epochs)  # fmt: skip
    if found.masks:
        tell("%d have a mask; %d have none and %d a rejected one: those count in the whole-picture term only",
             int(found.masked.sum()), int((~found.masked).sum()) - found.rejected, found.rejected)  # fmt: skip


def processes(gpus: int | None, *, on_gpu: bool) -> int:
    """One process per GPU; one on the CPU.

    Raises:
        MachineError: fewer GPUs than asked for.
    """
    import torch

    there = torch.cuda.device_count() if on_gpu else 0
    if gpus is not None and gpus > there:
        raise MachineError("not enough GPUs", seen=f"--gpus {gpus}, {there} visible", next="give a smaller --gpus")
    return max(1, there if gpus is None else gpus)


def claimed(folder: Path, job: Job, *, fresh: bool, preview: bool) -> bool:
    """Whether there is something left to train; the first process looks, writes and tells the others."""
    from harl_bench.nn import distributed
    from pretrain.state import LAST

    outcome: bool | BenchError = False
    if distributed.is_main():
        try:
            identity: dict[str, object] = {
                "config": job.config.model_dump(exclude=NEUTRAL), "data_fingerprint": job.pictures.fingerprint(),
                **job.config.identity(),
            }  # fmt: skip
            if finished(folder, identity, fresh=fresh):
                log.info("already finished: %s", folder / LAST)
            else:
                from pretrain import preview as previews

                previews.save(job.dataset(), folder / "pictures" / "views.png")
                if preview:
                    log.info("wrote %s", folder / "pictures" / "views.png")
                outcome = not preview
        except BenchError as error:
            outcome = error
    outcome = distributed.gather(outcome)[0]
    if isinstance(outcome, BenchError):
        raise outcome
    return outcome


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
        log.info(
            "wrote %s after %s, last loss %.4f", job.folder / LAST, duration(time.monotonic() - began), last["loss"]
        )
        for missed in judge(config.expect, last):
            log.warning("not as the recipe expects: %s", missed)
        steps = steps_per_epoch(len(job.pictures.paths), config.batch_size) * config.epochs
        write_json(job.folder / "done.json", {"steps": steps, **last})


def work(job: Job) -> dict[str, float]:
    """One process's part of the training; the last step's numbers."""
    import torch

    from harl_bench.nn import runtime
    from pretrain import loop
    from pretrain.evaluate import hold
    from pretrain.methods import build

    if job.threads:
        torch.set_num_threads(job.threads)
    runtime.seed_everything(job.config.seed)
    method, dataset = build(job.config), job.dataset()
    method.attach(dataset)
    return loop.train(
        method, job.pictures, dataset, job.config, job.folder,
        device=torch.device(job.device), workers=dataset.most_workers(job.config, job.workers),
        allow_unreadable=job.allow_unreadable, tensorboard=job.tensorboard,
        held=hold(job.pictures, job.val) if job.val else None,
    )  # fmt: skip


def tell(text: str, *values: Any) -> None:
    """A log line of the first process."""
    from harl_bench.nn import distributed

    if distributed.is_main():
        log.info(text, *values)


# What a run may change on its way: it decides what is written when, not what is learnt.
NEUTRAL = {"log_every_steps", "checkpoint_every_steps", "evaluate_every_epochs", "expect", "compile", "channels_last"}


def recipe_name(recipe: str | None, method: str) -> str:
    """The part of the default run folder that names the recipe."""
    return Path(recipe).stem if recipe else f"{method}-100ep"


def finished(folder: Path, identity: dict[str, object], *, fresh: bool) -> bool:
    """Claim the folder for this run; True when it is already done.

    Raises:
        UsageError: the folder holds a run with other settings or other data.
    """
    import json
    import shutil

    import yaml

    from pretrain.recipe import configured

    known = folder / "run.json"
    if fresh and known.exists():
        with Run(folder, run_id="", state="unfinished").locked():
            shutil.rmtree(folder)
    if known.exists():
        try:
            before = json.loads(known.read_text(encoding="utf-8"))
        except ValueError:
            before = {}
        if "config" in before:  # an earlier version wrote the keys of every method
            before["config"] = configured(before["config"]).model_dump(exclude=NEUTRAL)
        if json.loads(json.dumps(before)) != json.loads(json.dumps(identity)):
            raise UsageError("the folder holds another run", where=folder, seen=difference(before, identity),
                             next="choose another --out, or --fresh to throw that run away")  # fmt: skip
        return (folder / "done.json").exists()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(identity["config"], sort_keys=False), encoding="utf-8")
    write_json(known, identity)
    return False


def difference(before: dict[str, object], now: dict[str, object]) -> str:
    """What changed between two runs' identities, in words."""
    old, new = before.get("config"), now["config"]
    if isinstance(old, dict) and isinstance(new, dict) and old != new:
        keys = [key for key in new if old.get(key) != new[key]]
        return ", ".join(f"{key} was {old.get(key)}, now {new[key]}" for key in keys[:4])
    return "its data changed"

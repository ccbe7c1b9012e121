"""The command `harl-bench classify`."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from harl_bench.classify.datasets import DATASETS, read
from harl_bench.core.options import (
    COMMON,
    PROTOCOL,
    DataRoot,
    Device,
    DryRun,
    Fresh,
    Gpus,
    Label,
    Net,
    Out,
    Seeds,
    Workers,
    offering,
)
from harl_bench.core.progress import announce, log, log_file

ARCHS = ("resnet50", "resnet18")  # that are measured
PROTOCOLS = sorted(path.stem for path in Path(__file__).with_name("protocols").glob("*.yaml"))

if TYPE_CHECKING:
    from harl_bench.classify.datasets import DataSet
    from harl_bench.classify.protocol import Settings


def _led(command: Callable[..., None]) -> Callable[..., None]:
    """Let the first of the processes that torchrun started run the command, and call the others."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            command(*arguments, **options)
            return
        from harl_bench.nn import launching

        with launching.leading() as leads:
            if leads:
                command(*arguments, **options)

    return run


@_led
def classify(
    checkpoint: Annotated[
        str, Parameter(help='Checkpoint of a ResNet-50 or -18; "random", "random-resnet18-grid14".')
    ],
    /,
    *overrides: Annotated[
        str, Parameter(help="key=value changes to the protocol, e.g. image_size=96")
    ],
    data: DataRoot = None,
    dataset: Annotated[
        str,
        Parameter(
            group=COMMON,
            help=f"{', '.join(DATASETS)}; a folder has train/CLASS and test/CLASS.",
        ),
        offering(lambda: DATASETS),
    ] = "folder",
    protocol: Annotated[
        str,
        Parameter(group=PROTOCOL, help=f"{', '.join(PROTOCOLS)}, or a YAML file."),
        offering(lambda: PROTOCOLS),
    ] = "linear",
    seeds: Seeds = [0],  # noqa: B006  (cyclopts shows it)
    out: Out = Path("runs"),
    net: Net = None,
    device: Device = "auto",
    gpus: Gpus = None,
    workers: Workers = None,
    allow_unreadable: Annotated[
        bool,
        Parameter(group=COMMON, negative="", help="Continue with more than 1 % unreadable images."),
    ] = False,
    label: Label = None,
    dry_run: DryRun = False,
    fresh: Fresh = False,
) -> None:
    """Measure a ResNet-50 on classification: frozen, fine-tuned, few labels, nearest neighbours.

    Features are extracted once, on all GPUs (of several nodes under torchrun), and stored below
    --out. Training uses one GPU. A finished run is skipped, an unfinished one resumes. --dry-run
    shows what a protocol costs.

    Try:

        harl-bench classify byol.pth --data DATA --dataset dtd --protocol linear --seeds 0 1 2

        harl-bench classify byol.pth --data IN --dataset imagenet --protocol semi-1pct list=1pct.txt

        harl-bench classify random --data toy/classify --protocol linear-toy

        harl-bench classify random-resnet18-grid14 --data cifar10 --protocol linear image_size=64
    """
    from functools import partial

    from harl_bench.classify import cost
    from harl_bench.classify import protocol as protocols
    from harl_bench.core import manifest, remembered
    from harl_bench.core.files import write_bytes
    from harl_bench.core.label import relabel
    from harl_bench.core.results import RESULT, read_result
    from harl_bench.core.runs import open_run
    from harl_bench.core.summary import free_disk, show_plan, summarize

    announce("classify: %s by %s on %s; reading the data set", checkpoint, protocol, dataset)
    name, settings, departures = protocols.load(protocol, overrides)
    images = _labelled(read(dataset, data), settings)
    sizes = ", ".join(f"{split} {len(rows):,}" for split, rows in images.splits.items())
    log.info("%s: %d classes, %s images", images.name, len(images.classes), sizes)
    config = settings.model_dump(
        mode="json", exclude={"list"}
    )  # what the list says is in the fingerprint
    if not remembered.random_weights(checkpoint) and _seeds_change_nothing(images, settings, seeds):
        log.warning(
            "every seed gives this result: nothing of %s on %s is random", name, images.name
        )
    opened = partial(
        open_run,
        out,
        task="classify",
        dataset=images.name,
        protocol=name,
        config=config,
        data_fingerprint=images.identity,
        contents=images.contents,
    )
    folders: list[Path] = []  # of the results
    width = 2048  # features of a ResNet-50 (nn/resnet.py, which loads torch)
    rows: dict[str, str] = {}  # of --dry-run
    remaining: list[tuple[str, str]] = []  # its runs that are not finished
    for seed in dict.fromkeys(seeds):
        ref = remembered.reference(out, checkpoint, net)
        if (
            ref
            and not fresh
            and (run := opened(checkpoint=ref, seed=seed, dry_run=True)).state == "finished"
        ):
            log.info(
                "already finished: %s", run.folder
            )  # without torch, which takes seconds to import
            if not dry_run:
                relabel(run.folder, label)
            folders.append(run.folder)
            continue
        announce("seed %d: loading torch", seed)
        from harl_bench.classify import network
        from harl_bench.classify.measure import measure, plan
        from harl_bench.classify.record import record
        from harl_bench.convert.read import read_backbone
        from harl_bench.nn import runtime

        since = remembered.now()
        backbone = read_backbone(checkpoint, net=net, seed=seed, archs=ARCHS)
        width = network.width(backbone.arch, getattr(settings, "layer", None))
        if not dry_run:
            remembered.remember(
                out, checkpoint, net, reference=backbone.ref, files=backbone.files, since=since
            )
        run = opened(checkpoint=backbone.ref, seed=seed, fresh=fresh, dry_run=True)
        if run.state == "finished" and not fresh:
            log.info("already finished: %s", run.folder)
            if not dry_run:
                relabel(run.folder, label)
            folders.append(run.folder)
            continue
        evaluation = plan(
            images,
            backbone,
            settings,
            folder=run.folder,
            cache=out / "features",
            device=device,
            seed=seed,
            workers=workers,
            gpus=gpus,
            allow_unreadable=allow_unreadable,
        )
        if dry_run:
            rows["device"] = (
                f"{evaluation.processes} x {evaluation.device.type}, {evaluation.workers} data "
                "workers each"
            )
            remaining.append((run.state, str(run.folder)))
            continue
        run = opened(checkpoint=backbone.ref, seed=seed, fresh=fresh)
        with (
            run.locked(),
            run.timed() as wall_s,
            log_file(run.folder / "log.txt"),
            runtime.gpu_memory(_memory_advice(settings)),
        ):
            import yaml

            started = manifest.now()
            write_bytes(
                run.folder / "config.yaml", yaml.safe_dump(config, sort_keys=False).encode()
            )
            outcome = measure(evaluation, settings)
            record(
                run,
                evaluation,
                settings,
                outcome,
                protocol=name,
                departures=departures,
                label=label,
                started=started,
                wall_s=wall_s(),
            )
        folders.append(run.folder)
    if not dry_run:
        summarize([read_result(folder / RESULT) for folder in folders], out)
        return
    for key, value in config.items():
        log.debug("  %s: %s", key, value)  # with --verbose
    rows |= {
        "memory": cost.memory(images, settings, width),
        "time": cost.time(images, settings, width, folders),
        "disk": f"{free_disk(out)}; {cost.disk(images, settings, width)}",
    }
    each = f"{cost.passes(images, settings):,} images through the network"
    runs = [*remaining, *(("finished", str(folder)) for folder in folders)]
    show_plan(rows, runs, each=each)


def _memory_advice(settings: Settings) -> str:
    """Return what to do when the GPU's memory is full. Learning rates follow the batch size."""
    batch = getattr(settings, "batch_size", 1)
    smaller = f"batch_size={batch // 2} (a departure), or " if batch > 1 else ""
    return f"{smaller}--device cpu"


def _seeds_change_nothing(images: DataSet, settings: Settings, seeds: list[int]) -> bool:
    """Return whether several seeds would give one result.

    In `linear` and `knn` only the choice of validation images is random. It may be the data set's
    own, and to `knn` it makes no difference, as its bank holds both.
    """
    if len(set(seeds)) < 2 or settings.kind not in ("linear", "knn"):
        return False
    first, second = (images.divided(seed)["val"].tolist() for seed in sorted(set(seeds))[:2])
    return settings.kind == "knn" or (not settings.val_share and bool(first == second))


def _labelled(images: DataSet, settings: Settings) -> DataSet:
    """Return the data set restricted to the labels that the protocol or `list=` allows."""
    from harl_bench.classify.subset import restricted
    from harl_bench.core.errors import UsageError

    labelled = settings.labelled
    if labelled is None and settings.list == Path():
        return images
    learning = ("knn", "heads", "svm", "svm-lowshot")  # from train and val
    if settings.kind in learning or getattr(settings, "refit", False):
        raise UsageError(
            "this protocol learns from the validation images, too, whose labels a list leaves out",
            where="list",
            next="take semi-*, linear-fewshot, or linear with refit=false",
        )
    return restricted(
        images,
        settings.list,
        sha256=labelled.sha256 if labelled else "",
        among=labelled.names if labelled else (),
    )

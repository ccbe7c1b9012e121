"""The command `harl-bench classify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from harl_bench.classify.datasets import DATASETS
from harl_bench.core.options import (
    COMMON,
    PROTOCOL,
    Data,
    Device,
    DryRun,
    Fresh,
    Gpus,
    Label,
    Net,
    Out,
    Seeds,
    Workers,
)
from harl_bench.core.progress import log, log_file

ARCHS = ("resnet50", "resnet18")  # that are measured
PROTOCOLS = sorted(path.stem for path in Path(__file__).with_name("protocols").glob("*.yaml"))

if TYPE_CHECKING:
    from harl_bench.classify.datasets import DataSet
    from harl_bench.classify.protocol import Settings


def classify(
    checkpoint: Annotated[
        str, Parameter(help='Checkpoint of a ResNet-50 or -18; "random", "random-resnet18-grid14".')
    ],
    /,
    *overrides: Annotated[
        str, Parameter(help="key=value changes to the protocol, e.g. image_size=96")
    ],
    data: Data,
    dataset: Annotated[
        str,
        Parameter(
            group=COMMON,
            help=f"{', '.join(DATASETS)}; a folder has train/CLASS and test/CLASS.",
        ),
    ] = "folder",
    protocol: Annotated[
        str,
        Parameter(group=PROTOCOL, help=f"{', '.join(PROTOCOLS)}, or a YAML file."),
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

    Features are extracted once, on all GPUs, and stored below --out. Training uses one GPU. A
    finished run is skipped, an unfinished one resumes. --dry-run shows what a protocol costs.

    Try:

        harl-bench classify byol.pth --data DATA --dataset dtd --protocol linear --seeds 0 1 2

        harl-bench classify byol.pth --data IN --dataset imagenet --protocol semi-1pct list=1pct.txt

        harl-bench classify random --data toy/classify --protocol linear-toy

        harl-bench classify random-resnet18-grid14 --data cifar10 --protocol linear image_size=64
    """
    import time
    from functools import partial

    from harl_bench.classify import protocol as protocols
    from harl_bench.core import manifest, remembered
    from harl_bench.core.files import write_bytes
    from harl_bench.core.label import relabel
    from harl_bench.core.lookup import lookup
    from harl_bench.core.results import open_run

    name, settings, departures = protocols.load(protocol, overrides)
    images = _labelled(lookup(DATASETS, dataset, "data set")(data), settings)
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
    )
    width = 2048  # features of a ResNet-50 (nn/resnet.py, which loads torch)
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
            continue
        from harl_bench.classify.measure import measure, plan
        from harl_bench.classify.record import record
        from harl_bench.convert.read import read_backbone
        from harl_bench.nn import runtime
        from harl_bench.nn.resnet import FEATURES

        since = remembered.now()
        backbone = read_backbone(checkpoint, net=net, seed=seed, archs=ARCHS)
        width = FEATURES[backbone.arch]
        if not dry_run:
            remembered.remember(
                out, checkpoint, net, reference=backbone.ref, files=backbone.files, since=since
            )
        run = opened(checkpoint=backbone.ref, seed=seed, fresh=fresh, dry_run=True)
        if run.state == "finished" and not fresh:
            log.info("already finished: %s", run.folder)
            if not dry_run:
                relabel(run.folder, label)
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
            log.info("would measure seed %d (%s) into %s (--dry-run)", seed, run.state, run.folder)
            continue
        run = opened(checkpoint=backbone.ref, seed=seed, fresh=fresh)
        with (
            run.locked(),
            log_file(run.folder / "log.txt"),
            runtime.gpu_memory(_memory_advice(settings)),
        ):
            import yaml

            began, started = time.monotonic(), manifest.now()
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
                wall_s=time.monotonic() - began,
            )
    if dry_run:
        for key, value in config.items():
            log.info("  %s: %s", key, value)
        log.info("a seed takes %s images through the network", f"{_cost(images, settings):,}")
        _log_memory(images, settings, width)


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

    labelled = settings.labelled
    if labelled is None and settings.list == Path():
        return images
    return restricted(
        images,
        settings.list,
        sha256=labelled.sha256 if labelled else "",
        among=labelled.names if labelled else (),
    )


def _cost(images: DataSet, settings: Settings) -> int:
    """Return the number of images through the network.

    Features are shared, so they include the images that a list of labelled images leaves out.
    """
    train, val, test = (len(images.divided(0)[split]) for split in ("train", "val", "test"))
    others = len(images.splits.get("others", ())) - val if settings.kind in ("linear", "knn") else 0
    return max(others, 0) + settings.cost(train, val, test)


def _log_memory(images: DataSet, settings: Settings, width: int) -> None:
    """Log the memory of the solver or the neighbours. Training has no such fixed need."""
    if settings.kind not in ("linear", "knn"):
        return
    divided = images.divided(0)
    held = len(divided["train"]) + (
        len(divided["val"]) if settings.kind == "knn" or settings.refit else 0
    )
    single, double = settings.memory(held, len(images.classes), width)
    more = f", {double / 1e9:,.1f} GB where float64 must finish" if double > single else ""
    disk = 4 * width * len(images.paths) / 1e9
    log.info("memory: %.1f GB%s; the features take %.1f GB of disk", single / 1e9, more, disk)

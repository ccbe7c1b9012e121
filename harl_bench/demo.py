"""`harl-bench demo`: the whole path, from pictures to tables, on generated data (or on real data in the same formats).

It only calls the commands a person would type, prints each of them, and resumes like them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from harl_bench.core.errors import DataError
from harl_bench.core.options import COMMON, DryRun, Fresh
from harl_bench.core.pictures import SUFFIXES, find_pictures
from harl_bench.core.progress import console, duration, log

NOTICE = "Toy numbers: tiny pictures, minutes of training. They say nothing about any method."
REPORTS = ("report.html", "table.md", "table.tex", "table.csv")
MASK_S, PRETRAIN_S = (
    0.08,
    0.6,
)  # seconds a picture on 2 idle cores, for the ETA; pretraining sees each five times


@dataclass(frozen=True)
class Parts:
    """Where the data sets of a demo lie; the steps of those that are None are left out."""

    photos: Path  # unlabelled images to pretrain on
    pairs: Path | None  # images/ and masks/ with their true foreground
    voc: Path | None  # VOC2007/
    coco: Path | None  # annotations/
    classify: Path | None  # train/<class>/ and test/<class>/


@dataclass(frozen=True)
class Step:
    """One command as a person would type it, what it calls, and about how long it takes."""

    command: str
    call: Callable[[], Any]
    seconds: float


def demo(
    *,
    out: Annotated[
        Path | None,
        Parameter(
            group=COMMON, help="Folder of everything the demo makes; default demo or demo-real."
        ),
    ] = None,
    real: Annotated[
        Path | None, Parameter(group=COMMON, help="Real data in these formats instead of toy data.")
    ] = None,
    seed: Annotated[int, Parameter(group=COMMON)] = 0,
    dry_run: DryRun = False,
    fresh: Fresh = False,
) -> None:
    """Walk the whole path once: masks, HARL pretraining, conversion, VOC, COCO, classification, report.

    On generated data, with the real ResNet-50, on the CPU, in minutes. It compares HARL-pretrained with random
    initialisation. The same command again goes on where it stopped.

    Try:

        harl-bench demo

        harl-bench demo --real data --out demo-real
    """
    began = time.monotonic()
    out = out or Path("demo" if real is None else "demo-real")
    console.print(NOTICE, style="bold")
    data = real or out / "data"
    if real is None and not dry_run:
        from harl_bench.toydata.run import toy_data

        _announce("1", f"harl-bench toy-data {data} --seed {seed}", None)
        toy_data(data, seed=seed, fresh=fresh)
    parts = find_parts(data) if real is not None or not dry_run else toy_parts(data)
    steps = plan(parts, out, seed=seed, fresh=fresh)
    if dry_run:
        if real is None:
            log.info("harl-bench toy-data %s --seed %d", data, seed)
        for step in steps:
            log.info(step.command)
        log.info("nothing was started (--dry-run)")
        return
    run_steps(steps, first=1 if real is not None else 2)
    for name in REPORTS:
        console.print(f"  {out / name}")
    log.info(
        "%s in %s. Next: harl-bench voc --help",
        NOTICE.partition(":")[0],
        duration(time.monotonic() - began),
    )


def toy_parts(data: Path) -> Parts:
    """Return where `harl-bench toy-data` puts its parts."""
    photos = data / "photos"
    return Parts(photos / "images", photos, data / "voc", data / "coco", data / "classify")


def find_parts(data: Path) -> Parts:
    """Recognise the data sets in a folder, or in its direct sub-folders, by their layout.

    Raises:
        DataError: the folder is missing or holds no unlabelled pictures.
    """
    if not data.is_dir():
        raise DataError("folder not found", where=data, next="check the path")
    folders = sorted(path for path in data.iterdir() if path.is_dir())

    def first(is_it: Callable[[Path], bool]) -> Path | None:
        return next((path for path in [data, *folders] if is_it(path)), None)

    pairs = first(lambda p: (p / "images").is_dir() and (p / "masks").is_dir())
    photos = first(lambda p: "photos" in p.name and p != data)
    photos = photos / "images" if photos and (photos / "images").is_dir() else photos
    photos = photos or (pairs / "images" if pairs else None)
    if photos is None and any(path.suffix.lower() in SUFFIXES for path in data.iterdir()):
        photos = data
    if photos is None:
        raise DataError(
            "no unlabelled pictures", where=data, seen=", ".join(p.name for p in folders) or "an empty folder",
            next="put pictures into a sub-folder named photos",
        )  # fmt: skip
    return Parts(
        photos=photos,
        pairs=pairs,
        voc=first(lambda p: (p / "VOC2007").is_dir()),
        coco=first(lambda p: (p / "annotations").is_dir()),
        classify=first(lambda p: (p / "train").is_dir() and (p / "test").is_dir()),
    )


def plan(parts: Parts, out: Path, *, seed: int, fresh: bool) -> list[Step]:
    """Return the commands of the demo for the data sets that are present."""
    from harl_bench.classify.run import classify
    from harl_bench.convert.run import convert
    from harl_bench.detection.run import coco, voc
    from harl_bench.masks.evaluate_run import evaluate
    from harl_bench.masks.run import make
    from harl_bench.report.run import report
    from pretrain.run import pretrain

    runs, checkpoint = out / "runs", out / "harl.pkl"
    masks, pretrained = runs / "masks", runs / "pretrain" / "harl"
    cpu = {"device": "cpu", "workers": 1, "fresh": fresh}
    no_gpu = {"gpus": 0, "fresh": fresh}
    images = {"photos": parts.photos}
    if parts.pairs and parts.pairs / "images" != parts.photos:
        images["scenes"] = parts.pairs / "images"
    steps = [
        _step(
            "masks make",
            make,
            folder,
            seconds=MASK_S * count(folder),
            quietly={"fresh": fresh},
            out=masks / name,
            method="drfi-lite",
        )
        for name, folder in images.items()
    ]
    if parts.pairs:
        name, folder = list(images.items())[-1]
        steps.append(
            _step(
                "masks evaluate",
                evaluate,
                masks / name,
                parts.pairs / "masks",
                seconds=2,
                images=folder,
                sheet=masks / name / "pictures" / "quality.png",
            )
        )
    steps += [
        _step(
            "pretrain",
            pretrain,
            seconds=PRETRAIN_S * count(parts.photos),
            quietly=cpu,
            method="harl",
            recipe="harl-toy",
            data=parts.photos,
            masks=masks / "photos",
            out=pretrained,
            seed=seed,
        ),
        _step("convert", convert, pretrained / "last.pth", seconds=3, out=checkpoint),
    ]
    engine = {"engine": "torchvision"}
    measures = (
        ("classify", classify, parts.classify, 12, cpu, {"protocol": "linear-toy"}),
        ("voc", voc, parts.voc, 40, no_gpu, {"recipe": "voc-c4-toy", **engine}),
        ("coco", coco, parts.coco, 40, no_gpu, {"recipe": "coco-fpn-toy", **engine}),
    )
    for name, measure, data, seconds, quietly, options in measures:
        if data is None:
            log.warning("no %s data: that step is left out", name)
            continue
        options = {"data": data, **options, "out": runs, "seeds": [seed]}
        for source in (str(checkpoint), "random"):
            steps.append(_step(name, measure, source, seconds=seconds, quietly=quietly, **options))
    html, md, tex, csv = (out / name for name in REPORTS)
    tables = {"html": html, "md": md, "tex": tex, "csv": csv, "against": "published"}
    return [*steps, _step("report", report, runs, seconds=6, **tables)]


def _step(
    name: str,
    function: Callable[..., Any],
    *arguments: Any,
    seconds: float,
    quietly: Any = None,
    **options: Any,
) -> Step:
    """Return the step that calls a command's function; its text leaves out what is set `quietly`."""
    words = [f"harl-bench {name}", *arguments]
    for key, value in options.items():
        words += [f"--{key}", *(value if isinstance(value, list) else [value])]
    call = partial(function, *arguments, **options, **(quietly or {}))
    return Step(" ".join(map(str, words)), call, seconds)


def count(folder: Path) -> int:
    """Return the number of images in a folder; 0 where toy data are still to be generated."""
    return len(find_pictures(folder)) if folder.is_dir() else 0


def run_steps(steps: list[Step], *, first: int = 1) -> None:
    """Run the commands in order, announcing each with the time that is left at the pace so far."""
    began, done = time.monotonic(), 0.0
    total = sum(step.seconds for step in steps)
    for number, step in enumerate(steps, first):
        elapsed = time.monotonic() - began
        pace = (
            elapsed / done if done and elapsed > 5 else 1.0
        )  # resumed steps take no time and say nothing of the pace
        _announce(f"{number}/{len(steps) + first - 1}", step.command, pace * (total - done))
        step.call()
        done += step.seconds


def _announce(number: str, command: str, left_s: float | None) -> None:
    left = f"  (ETA {duration(left_s)})" if left_s is not None else ""
    console.print(f"\n[{number}] $ {command}{left}", markup=False, style="bold")

"""`harl-bench demo`: the whole path, from images to tables, on generated data (or on real data in
the same formats).

It only calls the commands a person would type, prints each of them, and resumes like them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from harl_bench.core.errors import DataError
from harl_bench.core.images import SUFFIXES, find_images
from harl_bench.core.options import COMMON, DryRun, Fresh
from harl_bench.core.progress import console, duration, log

NOTICE = "Toy numbers: tiny images, minutes of training. They say nothing about any method."
REPORTS = ("report.html", "table.md", "table.tex", "table.csv")
MASK_S, PRETRAIN_S = (
    0.08,
    0.6,
)  # seconds an image on 2 idle cores, for the ETA; pretraining sees each five times


@dataclass(frozen=True)
class Parts:
    """Where the data sets of a demo lie; None: not there, its step is left out.

    Args:
        photos: unlabelled images to pretrain on.
        scenes, truth: images with ground-truth foreground masks.
        voc: folder that holds VOC2007.
        coco: folder that holds annotations/.
        classify: folder that holds train/<class> and test/<class>.
    """

    photos: Path
    scenes: Path | None
    truth: Path | None
    voc: Path | None
    coco: Path | None
    classify: Path | None


@dataclass(frozen=True)
class Step:
    """One command: its words as a person would type them, what it calls, and its share of the
    time.
    """

    command: str
    call: Callable[[], Any]
    weight_s: float


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
    """Walk the whole path once: masks, HARL pretraining, conversion, VOC, COCO, classification,
    report.

    On generated data, with the real ResNet-50, on the CPU, in minutes. It compares HARL-pretrained
    with random initialisation. The same command again goes on where it stopped.

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
    """Where `harl-bench toy-data` puts its parts."""
    photos = data / "photos"
    return Parts(
        photos / "images",
        photos / "images",
        photos / "masks",
        data / "voc",
        data / "coco",
        data / "classify",
    )


def find_parts(data: Path) -> Parts:
    """Recognise the data sets in a folder, or in its direct sub-folders, by their layout.

    Raises:
        DataError: the folder is missing or holds no unlabelled images.
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
            "no unlabelled images",
            where=data,
            seen=", ".join(p.name for p in folders) or "an empty folder",
            next="put images into a sub-folder named photos",
        )
    return Parts(
        photos=photos,
        scenes=pairs / "images" if pairs else None,
        truth=pairs / "masks" if pairs else None,
        voc=first(lambda p: (p / "VOC2007").is_dir()),
        coco=first(lambda p: (p / "annotations").is_dir()),
        classify=first(lambda p: (p / "train").is_dir() and (p / "test").is_dir()),
    )


def plan(parts: Parts, out: Path, *, seed: int, fresh: bool) -> list[Step]:
    """The commands of the demo for the data sets there are. Weights are seconds on 2 idle cores."""
    runs, checkpoint = out / "runs", out / "harl.pkl"
    masks, pretrained = runs / "masks", runs / "pretrain" / "harl"
    steps = [
        *_mask_steps(parts, masks, fresh),
        _pretrain_step(parts, masks / "photos", pretrained, seed, fresh),
    ]
    steps.append(_convert_step(pretrained / "last.pth", checkpoint))
    measures = (
        ("classify", parts.classify, _classify_step),
        ("voc", parts.voc, _voc_step),
        ("coco", parts.coco, _coco_step),
    )
    for name, data, make in measures:
        if data is None:
            log.warning("no %s data: that step is left out", name)
            continue
        steps += [make(data, source, runs, seed, fresh) for source in (str(checkpoint), "random")]
    return [*steps, _report_step(runs, out)]


def count(folder: Path) -> int:
    """Images in a folder; 0 where toy data are still to be made."""
    return len(find_images(folder)) if folder.is_dir() else 0


def _mask_steps(parts: Parts, masks: Path, fresh: bool) -> list[Step]:
    from harl_bench.masks.evaluate_run import evaluate
    from harl_bench.masks.run import make

    def made(images: Path, name: str) -> Step:
        target = masks / name
        command = f"harl-bench masks make {images} --out {target} --method drfi-lite"
        weight_s = MASK_S * count(images)
        return Step(
            command, lambda: make(images, out=target, method="drfi-lite", fresh=fresh), weight_s
        )

    steps = [made(parts.photos, "photos")]
    if parts.scenes and parts.truth:
        if parts.scenes != parts.photos:
            steps.append(made(parts.scenes, "scenes"))
        name = "scenes" if parts.scenes != parts.photos else "photos"
        target, truth, scenes = masks / name, parts.truth, parts.scenes
        sheet = target / "pictures" / "quality.png"
        command = f"harl-bench masks evaluate {target} {truth} --images {scenes} --sheet {sheet}"
        steps.append(Step(command, lambda: evaluate(target, truth, images=scenes, sheet=sheet), 2))
    return steps


def _pretrain_step(parts: Parts, masks: Path, out: Path, seed: int, fresh: bool) -> Step:
    from pretrain.run import pretrain

    photos = parts.photos
    command = (
        f"harl-bench pretrain --method harl --recipe harl-toy --data {photos} --masks {masks} "
        f"--out {out}"
    )
    return Step(
        f"{command} --seed {seed}",
        lambda: pretrain(
            method="harl",
            recipe="harl-toy",
            data=photos,
            masks=masks,
            out=out,
            seed=seed,
            device="cpu",
            workers=1,
            fresh=fresh,
        ),
        PRETRAIN_S * count(photos),
    )


def _convert_step(source: Path, target: Path) -> Step:
    from harl_bench.convert.run import convert

    return Step(
        f"harl-bench convert {source} --out {target}", lambda: convert(source, out=target), 3
    )


def _classify_step(data: Path, source: str, runs: Path, seed: int, fresh: bool) -> Step:
    from harl_bench.classify.run import classify

    command = (
        f"harl-bench classify {source} --data {data} --protocol linear-toy --out {runs} --seeds "
        f"{seed}"
    )
    return Step(
        command,
        lambda: classify(
            source,
            data=data,
            protocol="linear-toy",
            seeds=[seed],
            out=runs,
            device="cpu",
            workers=1,
            fresh=fresh,
        ),
        12,
    )


def _voc_step(data: Path, source: str, runs: Path, seed: int, fresh: bool) -> Step:
    from harl_bench.detection.run import voc

    return Step(
        f"harl-bench voc {source} --data {data} --recipe voc-c4-toy --engine torchvision --out "
        f"{runs} --seeds {seed}",
        lambda: voc(
            source,
            data=data,
            recipe="voc-c4-toy",
            engine="torchvision",
            out=runs,
            seeds=[seed],
            gpus=0,
            fresh=fresh,
        ),
        40,
    )


def _coco_step(data: Path, source: str, runs: Path, seed: int, fresh: bool) -> Step:
    from harl_bench.detection.run import coco

    command = (
        f"harl-bench coco {source} --data {data} --recipe coco-fpn-toy --engine torchvision "
        f"--out {runs}"
    )
    return Step(
        f"{command} --seeds {seed}",
        lambda: coco(
            source,
            data=data,
            recipe="coco-fpn-toy",
            engine="torchvision",
            out=runs,
            seeds=[seed],
            gpus=0,
            fresh=fresh,
        ),
        40,
    )


def _report_step(runs: Path, out: Path) -> Step:
    from harl_bench.report.run import report

    html, md, tex, csv = (out / name for name in REPORTS)
    command = (
        f"harl-bench report {runs} --html {html} --md {md} --tex {tex} --csv {csv} --against "
        "published"
    )
    return Step(
        command, lambda: report(runs, html=html, md=md, tex=tex, csv=csv, against="published"), 6
    )


def run_steps(steps: list[Step], *, first: int = 1) -> None:
    """Run the commands in order, announcing each with the time that is left at the pace so far."""
    began, done = time.monotonic(), 0.0
    total = sum(step.weight_s for step in steps)
    for number, step in enumerate(steps, first):
        elapsed = time.monotonic() - began
        pace = (
            elapsed / done if done and elapsed > 5 else 1.0
        )  # resumed steps take no time and say nothing of the pace
        _announce(f"{number}/{len(steps) + first - 1}", step.command, pace * (total - done))
        step.call()
        done += step.weight_s


def _announce(number: str, command: str, left_s: float | None) -> None:
    left = f"  (ETA {duration(left_s)})" if left_s is not None else ""
    console.print(f"\n[{number}] $ {command}{left}", markup=False, style="bold")

"""`harl-bench demo`: the whole path, from images to tables, on generated or on real data.

It only calls the commands a person would type, prints each of them, and resumes like them.
"""

import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from harl_bench.core.errors import DataError
from harl_bench.core.images import SUFFIXES, find_images
from harl_bench.core.options import COMMON, DryRun, Fresh
from harl_bench.core.progress import console, duration, log

REPORTS = ("report.html", "table.md", "table.tex", "table.csv")
# Seconds an image on 2 idle cores, for the ETA; pretraining sees each as often as its recipe says.
MASK_S, PRETRAIN_S = 0.08, {"harl-simclr-toy": 0.3, "harl-toy": 0.33}


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
    """One command: its function with what it is given, and about how long it takes."""

    name: str
    function: Callable[..., Any]
    arguments: list[Any]
    options: dict[str, Any]
    seconds: float = 0.0
    unsaid: dict[str, Any] = field(default_factory=dict)  # options that the text leaves out

    @property
    def command(self) -> str:
        """Return the command as a person would type it."""
        words = ["harl-bench", self.name, *self.arguments]
        for key, value in self.options.items():
            words += [f"--{key}", *(value if isinstance(value, list) else [value])]
        return shlex.join(map(str, words))

    def run(self) -> None:
        """Call the function."""
        self.function(*self.arguments, **self.options, **self.unsaid)


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
    """Walk the whole path once: masks, pretraining, classification, conversion, VOC, COCO, report.

    On generated data, on the CPU, in minutes: a ResNet-18 is classified with, a ResNet-50 detects.
    It compares HARL-pretrained with random initialization. The same command again goes on where it
    stopped.

    Try:

        harl-bench demo

        harl-bench demo --real data --out demo-real
    """
    from harl_bench.toydata.run import toy_data

    began = time.monotonic()
    out = out or Path("demo" if real is None else "demo-real")
    data = real or out / "data"
    toy = Step("toy-data", toy_data, [data], {"seed": seed}, unsaid={"fresh": fresh})
    if real is None and not dry_run:
        _announce("1", toy.command)
        toy.run()
    parts = toy_parts(data) if real is None else find_parts(data)
    steps = plan(parts, out, seed=seed, fresh=fresh)
    if dry_run:
        for step in [*([toy] if real is None else []), *steps]:
            log.info(step.command)
        log.info("nothing was started (--dry-run)")
        return
    run_steps(steps, first=1 if real is not None else 2)
    for name in REPORTS:
        console.print(f"  {out / name}")
    passed = duration(time.monotonic() - began)
    log.info("done in %s. Next: harl-bench voc --help", passed)


def toy_parts(data: Path) -> Parts:
    """Return where `harl-bench toy-data` puts its parts."""
    photos = data / "photos"
    return Parts(photos / "images", photos, data / "voc", data / "coco", data / "classify")


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
    masks, pretrained = runs / "masks", runs / "pretrain"
    anew = {"fresh": fresh}
    images = {"photos": parts.photos}
    if parts.pairs and parts.pairs / "images" != parts.photos:
        images["scenes"] = parts.pairs / "images"
    steps = []
    for name, folder in images.items():
        options: dict[str, Any] = {"out": masks / name, "method": "drfi-lite"}
        steps.append(Step("masks make", make, [folder], options, MASK_S * count(folder), anew))
    if parts.pairs:
        scored = masks / ("scenes" if "scenes" in images else "photos")
        sheet = scored / "pictures" / "quality.png"
        options = {"images": parts.pairs / "images", "sheet": sheet}
        steps.append(Step("masks evaluate", evaluate, [scored, parts.pairs / "masks"], options, 2))
    cpu = {"device": "cpu", "workers": 1, **anew}

    def train(recipe: str, folder: Path) -> None:
        options = {"recipe": recipe, "data": parts.photos, "masks": masks / "photos"}
        options |= {"out": folder, "seed": seed}
        seconds = PRETRAIN_S[recipe] * count(parts.photos)
        steps.append(Step("pretrain", pretrain, [], options, seconds, cpu))

    def measure(
        name: str,
        function: Callable[..., Any],
        sources: tuple[Path | str, str],
        data: Path | None,
        seconds: float,
        unsaid: dict[str, Any],
        **protocol: str,
    ) -> None:
        if data is None:
            log.warning("no %s data: that step is left out", name)
            return
        options = {"data": data, **protocol, "out": runs, "seeds": [seed]}
        for source in sources:
            steps.append(Step(name, function, [str(source)], options, seconds, unsaid))

    small = (pretrained / "resnet18" / "last.pth", "random-resnet18-grid14")
    train("harl-simclr-toy", small[0].parent)
    measure("classify", classify, small, parts.classify, 8, cpu, protocol="linear-toy")
    train("harl-toy", pretrained / "harl")
    last = pretrained / "harl" / "last.pth"
    steps.append(Step("convert", convert, [last], {"out": checkpoint}, 3))
    large, no_gpu = (checkpoint, "random"), {"gpus": 0, **anew}
    engine = {"engine": "torchvision"}
    measure("voc", voc, large, parts.voc, 45, no_gpu, recipe="voc-c4-toy", **engine)
    measure("coco", coco, large, parts.coco, 65, no_gpu, recipe="coco-fpn-toy", **engine)
    tables = {Path(name).suffix[1:]: out / name for name in REPORTS}
    steps.append(Step("report", report, [runs], {**tables, "against": "published"}, 6))
    return steps


def count(folder: Path) -> int:
    """Return the number of images in a folder; 0 where toy data are still to be generated."""
    return len(find_images(folder)) if folder.is_dir() else 0


def run_steps(steps: list[Step], *, first: int = 1) -> None:
    """Run the commands in order, announcing each with the time that is left at the pace so far."""
    began, done = time.monotonic(), 0.0
    total = sum(step.seconds for step in steps)
    for number, step in enumerate(steps, first):
        elapsed = time.monotonic() - began
        # Resumed steps take no time and say nothing of the pace.
        pace = elapsed / done if done and elapsed > 5 else 1.0
        _announce(f"{number}/{len(steps) + first - 1}", step.command, pace * (total - done))
        step.run()
        done += step.seconds


def _announce(number: str, command: str, left_s: float | None = None) -> None:
    left = f"  (ETA {duration(left_s)})" if left_s is not None else ""
    console.print(f"\n[{number}] $ {command}{left}", markup=False, style="bold")

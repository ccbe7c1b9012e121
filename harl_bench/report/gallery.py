"""Small copies for the page of the images that runs, pretraining and mask making left."""

import base64
import fnmatch
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harl_bench.core.errors import DataError
from harl_bench.core.images import read_rgb
from harl_bench.core.progress import read_metrics
from harl_bench.core.results import IDENTITY, RESULT, walk
from harl_bench.report.collect import TASKS, Entry, plain

BUDGET = 3_600_000  # characters of all images together: the page stays below 5 MB
MOST = 160  # images; beyond that reading them takes longer than the rest of the report
WIDTHS = ((24, 960), (80, 640), (MOST, 420))  # (images up to, their greatest width in pixels)
QUALITY = 74
# What the commands' images show, by the beginning of their names; others have their name. The rest
# of the name is the test image's.
CAPTIONS = {
    "views": "Two views of each image, with their masks",
    "preview": "Images and their masks",
    "quality": "The best and the worst masks, with the human outline",
    "mistakes": "The most confident mistakes",
    "confusions": "The classes most often confused",
    "precision-recall": "Precision over recall at IoU .50",
    "detection-": "Test image {}: left the ground truth (yellow, difficult gray), right "
    "the detections (green: right, red: wrong)",
    "segmentation-": "Test image {}: the image, its labels, the prediction, and the errors",
}


@dataclass(frozen=True)
class Image:
    """An image inside the page; `name` is that of its file."""

    name: str
    caption: str
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Exhibit:
    """A folder with images or a log that is no measured run: pretraining, masks.

    `metrics` are its log's lines.
    """

    title: str
    folder: Path
    files: tuple[Path, ...]
    metrics: tuple[dict[str, Any], ...] = ()


def exhibits(root: Path) -> list[Exhibit]:
    """Return every folder below `root` with images or a log and no result, sorted by path."""
    collected = []
    for name, folders, files in walk(root):
        folder = Path(name)
        if RESULT in files or _measured(folder, files):
            folders.clear()
            continue
        previews = sorted(fnmatch.filter(files, "preview*.png"))
        images = (*(folder / preview for preview in previews), *image_files(folder))
        metrics = tuple(read_metrics(folder / "metrics.jsonl")) if "metrics.jsonl" in files else ()
        if images or metrics:
            title = " / ".join(folder.relative_to(root).parts) or folder.resolve().name
            collected.append(Exhibit(plain(title), folder, images, metrics))
        folders[:] = [f for f in folders if f not in ("pictures", "checkpoints")]
    return collected


def image_files(folder: Path) -> tuple[Path, ...]:
    """Return the PNG files of a run folder's `pictures/`, sorted."""
    return tuple(sorted((folder / "pictures").glob("*.png")))


def files_of(entry: Entry) -> tuple[Path, ...]:
    """Return the images of the entry's first seed that has any: other seeds show the same."""
    return next((files for path, _ in entry.runs if (files := image_files(path.parent))), ())


def encoded(groups: Sequence[Sequence[Path]], faults: list[str]) -> list[list[Image]]:
    """Return each group's images as WebP, the more the smaller.

    All groups get a first one before any gets a second. Unreadable files are added to `faults`, and
    so is the number of those that did not fit.
    """
    turns = list(_turns(groups))
    width = next((w for most, w in WIDTHS if len(turns) <= most), WIDTHS[-1][1])
    shown: list[list[tuple[int, Image]]] = [[] for _ in groups]
    spent = omitted = 0
    for group, position, path in turns:
        if spent > BUDGET or sum(map(len, shown)) >= MOST:
            omitted += 1
            continue
        try:
            image = _encoded(path, width)
        except DataError as error:
            faults.append(str(error))
            continue
        spent += len(image.uri)
        shown[group].append((position, image))
    if omitted:
        count = sum(map(len, shown))
        faults.append(f"the page shows {count} of {count + omitted} images; all are in run folders")
    return [[image for _, image in sorted(group, key=lambda item: item[0])] for group in shown]


def _turns(groups: Sequence[Sequence[Path]]) -> Iterator[tuple[int, int, Path]]:
    for position in range(max(map(len, groups), default=0)):
        for number, group in enumerate(groups):
            if position < len(group):
                yield number, position, group[position]


def _encoded(path: Path, width: int) -> Image:
    image = read_rgb(path)
    image.thumbnail((width, 2 * width))
    data = io.BytesIO()
    image.save(data, "WEBP", quality=QUALITY, method=2)
    uri = "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode()
    return Image(plain(path.stem), _caption(plain(path.stem)), uri, image.width, image.height)


def _caption(name: str) -> str:
    for start, text in CAPTIONS.items():
        if name.startswith(start):
            return text.format(name.removeprefix(start))
    words = name.replace("_", " ").replace("-", " ").strip()
    return words[:1].upper() + words[1:]


def _measured(folder: Path, files: Iterable[str]) -> bool:
    """Return whether a folder is an unfinished run of a task, which `ls` shows."""
    if IDENTITY not in files:
        return False
    try:
        return json.loads((folder / IDENTITY).read_text(encoding="utf-8")).get("task") in TASKS[:-1]
    except (OSError, ValueError, AttributeError):
        return False

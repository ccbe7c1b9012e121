"""Pictures for the page: what runs, pretraining and mask making left in `pictures/`, small enough to travel in it."""

import base64
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harl_bench.core.errors import DataError
from harl_bench.core.pictures import read_rgb
from harl_bench.core.progress import read_metrics
from harl_bench.core.results import IDENTITY, RESULT
from harl_bench.report.collect import TASKS, Entry, plain

BUDGET = 3_600_000  # characters of all pictures together: the page stays below 5 MB
MOST = 160  # pictures; beyond that reading them takes longer than the rest of the report
WIDTHS = ((24, 960), (80, 640), (MOST, 420))  # (pictures up to, their greatest width in pixels)
QUALITY = 74
# What the commands' pictures show, by the beginning of their names; others are captioned with their name.
CAPTIONS = {
    "views": "Two views of each picture, with their masks",
    "preview": "Pictures and their masks",
    "mistakes": "The most confident mistakes",
    "confusions": "The classes most often confused",
    "precision-recall": "Precision over recall at IoU .50",
}


@dataclass(frozen=True)
class Picture:
    """A picture inside the page."""

    caption: str
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Exhibit:
    """A folder with something to show that is no measured run: pretraining, masks. `metrics` are its log's lines."""

    title: str
    folder: Path
    files: tuple[Path, ...]
    metrics: tuple[dict[str, Any], ...] = ()


def exhibits(root: Path) -> list[Exhibit]:
    """Every folder below `root` with `pictures/`, a preview or a log, and no result; sorted by path."""
    found = []
    for name, folders, files in os.walk(root):
        folder = Path(name)
        folders.sort()
        if RESULT in files or _measured(folder, files):
            folders.clear()
            continue
        previews = tuple(
            folder / file for file in sorted(files) if file.startswith("preview") and file.endswith(".png")
        )
        pictures = previews + (picture_files(folder) if "pictures" in folders else ())
        metrics = tuple(read_metrics(folder / "metrics.jsonl")) if "metrics.jsonl" in files else ()
        if pictures or metrics:
            title = " / ".join(folder.relative_to(root).parts) or folder.resolve().name
            found.append(Exhibit(plain(title), folder, pictures, metrics))
        folders[:] = [f for f in folders if f not in ("pictures", "checkpoints")]
    return found


def picture_files(folder: Path) -> tuple[Path, ...]:
    """The PNG files of a run folder's `pictures/`, sorted."""
    return tuple(sorted((folder / "pictures").glob("*.png")))


def files_of(entry: Entry) -> tuple[Path, ...]:
    """Pictures of the entry's first seed that has any: the other seeds show the same."""
    return next((files for path, _ in entry.runs if (files := picture_files(path.parent))), ())


def encoded(groups: Sequence[Sequence[Path]], faults: list[str]) -> list[list[Picture]]:
    """Each group's pictures as WebP, the more the smaller. All groups get a first one before any gets a second.

    Unreadable files are added to `faults`, and so is the number of those that did not fit.
    """
    turns = list(_turns(groups))
    width = next((w for most, w in WIDTHS if len(turns) <= most), WIDTHS[-1][1])
    shown: list[list[tuple[int, Picture]]] = [[] for _ in groups]
    spent = left = 0
    for group, place, path in turns:
        if spent > BUDGET or sum(map(len, shown)) >= MOST:
            left += 1
            continue
        try:
            picture = _encoded(path, width)
        except DataError as error:
            faults.append(str(error))
            continue
        spent += len(picture.uri)
        shown[group].append((place, picture))
    if left:
        faults.append(f"{left} more pictures are in the run folders: the page shows {sum(map(len, shown))}")
    return [[picture for _, picture in sorted(group, key=lambda item: item[0])] for group in shown]


def _turns(groups: Sequence[Sequence[Path]]) -> Iterator[tuple[int, int, Path]]:
    for place in range(max(map(len, groups), default=0)):
        for number, group in enumerate(groups):
            if place < len(group):
                yield number, place, group[place]


def _encoded(path: Path, width: int) -> Picture:
    picture = read_rgb(path)
    picture.thumbnail((width, 2 * width))
    data = io.BytesIO()
    picture.save(data, "WEBP", quality=QUALITY, method=2)
    uri = "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode()
    name = plain(path.stem).replace("_", " ").replace("-", " ").strip()
    caption = next((text for start, text in CAPTIONS.items() if path.stem.startswith(start)), "")
    return Picture(caption or name[:1].upper() + name[1:], uri, picture.width, picture.height)


def _measured(folder: Path, files: Iterable[str]) -> bool:
    """An unfinished run of a task: `ls` shows those."""
    if IDENTITY not in files:
        return False
    try:
        return json.loads((folder / IDENTITY).read_text(encoding="utf-8")).get("task") in TASKS[:3]
    except (OSError, ValueError, AttributeError):
        return False

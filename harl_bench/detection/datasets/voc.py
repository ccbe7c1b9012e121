"""PASCAL VOC: ImageSets/Main/<split>.txt, Annotations/<id>.xml and JPEGImages/<id>.jpg, read as
Detectron2 does.

Images of another format (<id>.png, <id>.JPG) are taken too, and splits with a second column (VOC's
lists of one class).

Semantics of D2:data/datasets/pascal_voc.py: objects marked difficult are kept (they train; the
metric ignores them), 1 is subtracted from xmin and ymin only, because VOC's pixels are 1-based and
inclusive.
"""

import math
import re
from pathlib import Path
from shlex import quote
from typing import Any
from xml.etree import ElementTree

import numpy as np

from harl_bench.core.errors import DataError
from harl_bench.core.images import SUFFIXES
from harl_bench.core.lookup import unknown
from harl_bench.core.plain import read_plain
from harl_bench.detection.datasets.sample import (
    Dataset,
    Sample,
    Samples,
    count_boxes,
    file_names,
    files_by_stem,
    numbers,
)

CLASS_NAMES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
ARCHIVES = {
    "voc_2007_trainval": "VOCtrainval_06-Nov-2007.tar",
    "voc_2007_test": "VOCtest_06-Nov-2007.tar",
    "voc_2012_trainval": "VOCtrainval_11-May-2012.tar",
}
PARTS = {
    "Annotations": frozenset({".xml"}),
    "JPEGImages": SUFFIXES,
}  # folders and what lies in them
MAX_XML_BYTES = 10_000_000  # the largest of VOC has 20 thousand
FROM_0 = (
    "boxes start at 0, so the file counts from 0: VOC counts from 1, and all boxes lie one "
    "pixel too far up and left"
)
ONE_CLASS = (
    "lines of the split have a second column (a list of one class): their images are all taken, "
    "those with -1 too"
)


def read(root: Path, name: str, class_names: tuple[str, ...] | None = None) -> Dataset:
    """One split, named as Detectron2 names it: `voc_2007_trainval`, `voc_2012_val`,
    `voc_2007_test`.

    Args:
        root: holds VOC2007/ and VOC2012/, or VOCdevkit/ that does. A file classes.txt in it, one
            name a line, replaces the twenty classes.

    Raises:
        DataError: a folder, split, XML or image is missing, or an XML does not say what VOC's do.
    """
    _, year, _ = name.split("_", 2)
    folder = _folder(root, f"VOC{year}", name)
    class_names = class_names or _class_names(root)
    indices = {class_name: i for i, class_name in enumerate(class_names)}
    faults: dict[str, int] = {}
    rows = entries(folder, name, faults)
    samples = []
    for image_id, xml, image in rows:
        if xml is None or image is None:
            raise _missing(folder / ("JPEGImages" if xml else "Annotations"), image_id, name)
        sample = _sample(
            folder / "Annotations" / xml, folder / "JPEGImages" / image, image_id, indices
        )
        count_boxes(faults, sample.boxes, sample.width, sample.height)
        _count(faults, FROM_0, int((sample.boxes[:, :2] == -1).any(1).sum()))
        samples.append(sample)
    relative = folder.relative_to(root)
    files = [f"{relative}/Annotations/{xml}" for _, xml, _ in rows]
    files += [f"{relative}/JPEGImages/{image}" for *_, image in rows]
    return Dataset(name, root, class_names, Samples(samples), files, faults)


def entries(
    folder: Path, name: str, faults: dict[str, int]
) -> list[tuple[str, str | None, str | None]]:
    """Return (id, file in Annotations, file in JPEGImages) for each line of a split; None is a file
    that is missing.

    Args:
        folder: VOC2007 or another year's.
        name: of the split, `voc_2007_trainval`.
        faults: where lines with a second column are counted.

    Raises:
        DataError: a folder or the split is missing, the split cannot be read or lists an image
            twice, or an id has several images.
    """
    split = name.split("_", 2)[2]
    lines = _lines(folder, split, name)
    for part in PARTS:
        if not (folder / part).is_dir():
            hint = deeper(folder, part) or f"unpack {_archive(name)} there"
            raise DataError(
                f"{folder.name} has no {part} folder", where=folder, seen=_names(folder), next=hint
            )
    xmls, images = (files_by_stem(folder / part, suffixes) for part, suffixes in PARTS.items())
    rows = []
    for line in lines:
        columns = re.fullmatch(r"(\S+)\s+(-1|0|1)", line) if line not in xmls else None
        _count(faults, ONE_CLASS, int(columns is not None))
        image_id = columns[1] if columns else line
        rows.append(
            (
                image_id,
                _chosen(xmls, image_id, ".xml", folder),
                _chosen(images, image_id, ".jpg", folder),
            )
        )
    ids = [image_id for image_id, *_ in rows]
    if len(set(ids)) != len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        path = folder / "ImageSets" / "Main" / f"{split}.txt"
        raise DataError(
            "split lists an image twice", where=path, seen=twice, next="remove the second line"
        )
    return rows


def deeper(folder: Path, part: str) -> str | None:
    """Return the command that brings `part` to where it belongs, if it lies one or two folders too
    deep.
    """
    parts = Path(part).parts
    for k in reversed(range(len(parts))):
        upper, rest = folder.joinpath(*parts[:k]), Path(*parts[k:])
        for found in sorted([*upper.glob(f"*/{rest}"), *upper.glob(f"*/*/{rest}")]):
            return f"mv {quote(str(found.parents[len(parts) - k - 1]))}/* {quote(str(upper))}/"
    return None


def _chosen(files: dict[str, list[str]], image_id: str, suffix: str, folder: Path) -> str | None:
    """The file of an id, as VOC names it where several have its stem."""
    names = files.get(image_id, [])
    if f"{image_id}{suffix}" in names or len(names) < 2:
        return f"{image_id}{suffix}" if f"{image_id}{suffix}" in names else next(iter(names), None)
    raise DataError(
        f"{image_id} has several files",
        where=folder,
        seen=", ".join(names),
        next="leave one of them",
    )


def _missing(folder: Path, image_id: str, name: str) -> DataError:
    """The error for an id without its file, which tells where the file is if it is near."""
    kind, suffix = ("XML", ".xml") if folder.name == "Annotations" else ("image", ".jpg")
    split = name.split("_", 2)[2]
    hint = f"unpack {_archive(name)} completely, or take the id out of the split"
    near = (
        path
        for path in sorted(folder.rglob("*"))
        if path.stem.lower() == image_id.lower() and path.is_file()
    )
    if (path := next(near, None)) and path.suffix.lower() in PARTS[folder.name]:
        up = f"mv {quote(str(path.parent))}/* {quote(str(folder))}/"
        hint = up if path.parent != folder else f"rename {path.name} to {image_id}{suffix}"
    elif (folder / image_id).is_file() or Path(image_id).suffix.lower() in PARTS["JPEGImages"]:
        hint = f"write ids without suffix into {split}.txt: {Path(image_id).stem}"
    seen = f"{len(file_names(folder))} files in {folder.name}"
    return DataError(
        f"{image_id} of {split}.txt has no {kind}",
        where=folder / f"{image_id}{suffix}",
        seen=seen,
        next=hint,
    )


def _folder(root: Path, year: str, name: str) -> Path:
    for folder in (root / year, root / "VOCdevkit" / year):
        if folder.is_dir():
            return folder
    seen, hint = _names(root), f"give the folder that holds {year}"
    others = sorted(path.name for path in root.glob("VOC20*"))
    near = [
        path
        for pattern in (f"*/{year}", f"*/*/{year}")
        for path in sorted(root.glob(pattern))
        if path.is_dir()
    ]
    if root.resolve().name == year and any((root / part).is_dir() for part in PARTS):
        hint = f"--data {quote(str(root.resolve().parent))}"
    elif near:
        hint = (
            f"mv {quote(str(near[0]))} {quote(str(root))}/"
            if others
            else f"--data {quote(str(near[0].parent))}"
        )
    elif year == "VOC2012" and "VOC2007" in others:
        hint = (
            "add VOC2012, or train on VOC2007 alone with the override "
            "DATASETS.TRAIN=('voc_2007_trainval',)"
        )
    raise DataError(f"{year} is missing ({name})", where=root, seen=seen, next=hint)


def _names(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join(names[:6]) + (" ..." if len(names) > 6 else "") or "an empty folder"


def _count(faults: dict[str, int], sentence: str, n: int) -> None:
    if n:
        faults[sentence] = faults.get(sentence, 0) + n


def _class_names(root: Path) -> tuple[str, ...]:
    path = root / "classes.txt"
    if not path.is_file():
        return CLASS_NAMES
    names = tuple(_text(path, "class list"))
    if not names or len(set(names)) != len(names):
        raise DataError(
            "a class list has one different name a line", where=path, seen=f"{len(names)} names"
        )
    return names


def _lines(folder: Path, split: str, name: str) -> list[str]:
    path = folder / "ImageSets" / "Main" / f"{split}.txt"
    if not path.is_file():
        there = (
            sorted(other.name for other in path.parent.glob("*.txt"))
            if path.parent.is_dir()
            else []
        )
        seen = ", ".join(there[:6]) or "no split files"
        hint = deeper(folder, f"ImageSets/Main/{split}.txt") or f"unpack {_archive(name)} there"
        raise DataError(f"{folder.name} {split} split is missing", where=path, seen=seen, next=hint)
    lines = _text(path, "split")
    if not lines:
        raise DataError("split is empty", where=path, seen="no line", next="one image id a line")
    return lines


def _text(path: Path, what: str) -> list[str]:
    """The lines of a text file that are not blank, without a byte order mark, as Windows' editors
    write it.
    """
    try:
        return [
            line.strip()
            for line in read_plain(path).decode("utf-8-sig").splitlines()
            if line.strip()
        ]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot read {what}", where=path, seen=error, next="save it as plain text, UTF-8"
        ) from None


def _archive(name: str) -> str:
    return ARCHIVES.get(name, f"the archive of {name}")


def _sample(path: Path, image: Path, image_id: str, indices: dict[str, int]) -> Sample:
    tree = _parse(path)
    width, height = (_number(tree, f"./size/{side}", path) for side in ("width", "height"))
    if not (width >= 1 and height >= 1):
        raise DataError("XML gives no image size", where=path, seen=f"{width} x {height}")
    boxes, names, difficult = [], [], []
    for thing in tree.findall("object"):
        class_name = (thing.findtext("name") or "").strip()
        if class_name not in indices:
            raise DataError(unknown(class_name, indices, "class"), where=path)
        box = [
            _number(thing, f"./bndbox/{corner}", path)
            for corner in ("xmin", "ymin", "xmax", "ymax")
        ]
        boxes.append([box[0] - 1.0, box[1] - 1.0, box[2], box[3]])
        names.append(class_name)
        difficult.append(_flag(thing, "difficult", path))
    return Sample(
        path=str(image),
        image_id=image_id,
        width=int(width),
        height=int(height),
        boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        classes=numbers(names, indices),
        crowd=np.zeros(len(names), dtype=bool),
        difficult=np.array(difficult, dtype=bool),
    )


class _NoDoctype(ElementTree.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Entities can only be declared in a DOCTYPE, and they can expand without bound or read
        other files.
        """
        raise ValueError("it declares a DOCTYPE, which VOC's files do not")


def _parse(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_XML_BYTES:
            raise ValueError(f"{path.stat().st_size:,} bytes")
        parser = ElementTree.XMLParser(target=_NoDoctype())
        parser.feed(read_plain(path))
        return parser.close()
    except (OSError, ValueError, LookupError, ElementTree.ParseError) as error:
        raise DataError(
            "not a VOC annotation", where=path, seen=error, next="unpack it again"
        ) from None


def _number(element: Any, place: str, path: Path) -> float:
    text = element.findtext(place)
    try:
        value = float(text)
        if math.isfinite(value):
            return value
    except (TypeError, ValueError):
        pass
    raise DataError(f"XML has no number at {place.removeprefix('./')}", where=path, seen=text)


def _flag(element: Any, place: str, path: Path) -> bool:
    """int(), then bool, as D2:evaluation/pascal_voc_evaluation.py:144; absent is 0."""
    text = element.findtext(place, "0")
    try:
        return bool(int(text))
    except ValueError:
        raise DataError(
            f"{place} is not a whole number",
            where=path,
            seen=text,
            next="write 1 for yes, 0 for no",
        ) from None

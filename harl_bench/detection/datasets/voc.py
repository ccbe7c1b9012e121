"""PASCAL VOC, read as Detectron2 does: ImageSets/Main/<split>.txt, Annotations/, JPEGImages/.

Images of another format (<id>.png, <id>.JPG) are read, too, and splits with a second column (VOC's
lists of one class).

Semantics of D2:data/datasets/pascal_voc.py: objects marked difficult are kept for training (the
metric ignores them), and 1 is subtracted from xmin and ymin only, because VOC's pixels are 1-based
and inclusive.
"""

import math
import re
from collections import Counter
from pathlib import Path
from shlex import quote
from typing import Any
from xml.etree import ElementTree

import numpy as np

from harl_bench.core.errors import DataError
from harl_bench.core.images import SUFFIXES
from harl_bench.core.lookup import unknown
from harl_bench.core.nearby import belongs
from harl_bench.core.plain import read_plain
from harl_bench.detection.datasets.sample import (
    Dataset,
    Sample,
    Samples,
    class_indices,
    count_boxes,
    count_fault,
    file_names,
    files_by_stem,
    labels_of,
)

_CLASSES = """aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse
motorbike person pottedplant sheep sofa train tvmonitor"""
CLASS_NAMES = tuple(_CLASSES.split())
ARCHIVES = {
    "voc_2007_trainval": "VOCtrainval_06-Nov-2007.tar",
    "voc_2007_test": "VOCtest_06-Nov-2007.tar",
    "voc_2012_trainval": "VOCtrainval_11-May-2012.tar",
}
HOMES = ("", "VOCdevkit")  # of VOC2007 and VOC2012, in the folder of the data
SUFFIXES_OF = {"Annotations": frozenset({".xml"}), "JPEGImages": SUFFIXES}  # by folder
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
    """Read one split by Detectron2's name, `voc_2007_trainval` or `voc_2012_val`.

    Args:
        root: holds VOC2007/ and VOC2012/, or VOCdevkit/ that does. A file classes.txt in it, one
            name a line, replaces the twenty classes.

    Raises:
        DataError: a folder, split, XML or image is missing, or an XML is not like VOC's.
    """
    _, year, _ = name.split("_", 2)
    folder = _folder(root, f"VOC{year}", name)
    class_names = class_names or _class_names(root)
    indices = {class_name: i for i, class_name in enumerate(class_names)}
    faults: dict[str, int] = {}
    rows = entries(folder, name, faults)
    samples = []
    annotations, images = folder / "Annotations", folder / "JPEGImages"
    for image_id, xml, image in rows:
        if xml is None or image is None:
            raise _missing(images if xml else annotations, image_id, name)
        sample = _sample(annotations / xml, images / image, image_id, indices)
        count_boxes(faults, sample.boxes, sample.width, sample.height)
        count_fault(faults, FROM_0, int((sample.boxes[:, :2] == -1).any(1).sum()))
        samples.append(sample)
    relative = folder.relative_to(root)
    files = [f"{relative}/Annotations/{xml}" for _, xml, _ in rows]
    files += [f"{relative}/JPEGImages/{image}" for *_, image in rows]
    return Dataset(
        name,
        root,
        class_names,
        Samples(samples),
        files,
        faults,
        folder=HOMES[1],
        labels=labels_of(class_names, samples),
    )


def entries(
    folder: Path, name: str, faults: dict[str, int]
) -> list[tuple[str, str | None, str | None]]:
    """Return (id, file in Annotations, file in JPEGImages) for each line of a split.

    A missing file is None.

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
    for part in SUFFIXES_OF:
        if not (folder / part).is_dir():
            what = f"{folder.name} has no {part} folder"
            hint = move_command(folder, part) or f"unpack {_archive(name)} there"
            raise DataError(what, where=folder, seen=_names(folder), next=hint)
    xmls, images = (files_by_stem(folder / part, s) for part, s in SUFFIXES_OF.items())
    rows = []
    for line in lines:
        columns = re.fullmatch(r"(\S+)\s+(-1|0|1)", line) if line not in xmls else None
        count_fault(faults, ONE_CLASS, int(columns is not None))
        image_id = columns[1] if columns else line
        xml = _file(xmls, image_id, ".xml", folder)
        rows.append((image_id, xml, _file(images, image_id, ".jpg", folder)))
    ids = [image_id for image_id, *_ in rows]
    if repeated := [i for i, n in Counter(ids).items() if n > 1]:
        path, hint = folder / "ImageSets" / "Main" / f"{split}.txt", "remove the second line"
        raise DataError("split lists an image twice", where=path, seen=repeated[0], next=hint)
    return rows


def move_command(folder: Path, part: str) -> str | None:
    """Return the command that moves `part` here from one or two folders below, if it is there."""
    parts = Path(part).parts
    for k in reversed(range(len(parts))):
        upper, rest = folder.joinpath(*parts[:k]), Path(*parts[k:])
        for match in sorted([*upper.glob(f"*/{rest}"), *upper.glob(f"*/*/{rest}")]):
            return f"mv {quote(str(match.parents[len(parts) - k - 1]))}/* {quote(str(upper))}/"
    return None


def _file(files: dict[str, list[str]], image_id: str, suffix: str, folder: Path) -> str | None:
    """Return the file of an id, by VOC's own name if several have its stem."""
    names = files.get(image_id, [])
    if f"{image_id}{suffix}" in names:
        return f"{image_id}{suffix}"
    if len(names) < 2:
        return next(iter(names), None)
    what, hint = f"{image_id} has several files", "leave one of them"
    raise DataError(what, where=folder, seen=", ".join(names), next=hint)


def _missing(folder: Path, image_id: str, name: str) -> DataError:
    """Return the error for an id without its file, with the place of the file if it is near."""
    kind, suffix = ("XML", ".xml") if folder.name == "Annotations" else ("image", ".jpg")
    split = name.split("_", 2)[2]
    hint = f"unpack {_archive(name)} completely, or take the id out of the split"
    near = (
        path
        for path in sorted(folder.rglob("*"))
        if path.stem.lower() == image_id.lower() and path.is_file()
    )
    if (path := next(near, None)) and path.suffix.lower() in SUFFIXES_OF[folder.name]:
        up = f"mv {quote(str(path.parent))}/* {quote(str(folder))}/"
        hint = up if path.parent != folder else f"rename {path.name} to {image_id}{suffix}"
    elif (folder / image_id).is_file() or Path(image_id).suffix.lower() in SUFFIXES:
        hint = f"write ids without suffix into {split}.txt: {Path(image_id).stem}"
    seen = f"{len(file_names(folder))} files in {folder.name}"
    return DataError(
        f"{image_id} of {split}.txt has no {kind}",
        where=folder / f"{image_id}{suffix}",
        seen=seen,
        next=hint,
    )


def holds(folder: Path, year: str) -> bool:
    """Return whether VOC2007 or another year lies in a folder, or in VOCdevkit/ in it."""
    return any((folder / home / year).is_dir() for home in HOMES)


def _folder(root: Path, year: str, name: str) -> Path:
    for folder in (root / home / year for home in HOMES):
        if folder.is_dir():
            return folder
    others = sorted(path.name for path in root.glob("VOC20*"))
    paths = [*sorted(root.glob(f"*/{year}")), *sorted(root.glob(f"*/*/{year}"))]
    near = next((path for path in paths if path.is_dir()), None)
    hint = belongs(root, "voc", _archive(name))
    if root.resolve().name == year and any((root / part).is_dir() for part in SUFFIXES_OF):
        hint = f"--data {quote(str(root.resolve().parent))}"
    elif near and others:
        hint = f"mv {quote(str(near))} {quote(str(root))}/"
    elif near:
        hint = f"--data {quote(str(near.parent))}"
    elif year == "VOC2012" and "VOC2007" in others:
        override = "\"DATASETS.TRAIN=('voc_2007_trainval',)\""  # quoted for the shell
        hint = f"add VOC2012, or train on VOC2007 alone with the override {override}"
    raise DataError(f"{year} is missing ({name})", where=root, seen=_names(root), next=hint)


def _names(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join(names[:6]) + (" ..." if len(names) > 6 else "") or "an empty folder"


def _class_names(root: Path) -> tuple[str, ...]:
    path = root / "classes.txt"
    if not path.is_file():
        return CLASS_NAMES
    names = tuple(_text(path, "class list"))
    if not names or len(set(names)) != len(names):
        what = "a class list has one different name a line"
        raise DataError(what, where=path, seen=f"{len(names)} names")
    if slashed := [name for name in names if "/" in name]:
        hint = "rename the class here and in the annotations: its detections are a file of its name"
        raise DataError("a class name has a slash", where=path, seen=slashed[0], next=hint)
    return names


def _lines(folder: Path, split: str, name: str) -> list[str]:
    path = folder / "ImageSets" / "Main" / f"{split}.txt"
    if not path.is_file():
        splits = sorted(other.name for other in path.parent.glob("*.txt"))
        seen = ", ".join(splits[:6]) or "no split files"
        hint = move_command(folder, f"ImageSets/Main/{split}.txt")
        hint = hint or f"unpack {_archive(name)} there"
        raise DataError(f"{folder.name} {split} split is missing", where=path, seen=seen, next=hint)
    lines = _text(path, "split")
    if not lines:
        raise DataError("split is empty", where=path, seen="no line", next="one image id a line")
    return lines


def _text(path: Path, what: str) -> list[str]:
    """Return the lines of a text file that are not blank, without a byte order mark (Windows)."""
    try:
        lines = read_plain(path).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        hint = "save it as plain text, UTF-8"
        raise DataError(f"cannot read {what}", where=path, seen=error, next=hint) from None
    return [line.strip() for line in lines if line.strip()]


def _archive(name: str) -> str:
    return ARCHIVES.get(name, f"the archive of {name}")


def _sample(path: Path, image: Path, image_id: str, indices: dict[str, int]) -> Sample:
    tree = _parse(path)
    width, height = (_number(tree, f"./size/{side}", path) for side in ("width", "height"))
    if not (width >= 1 and height >= 1):
        raise DataError("XML gives no image size", where=path, seen=f"{width} x {height}")
    boxes, names, difficult = [], [], []
    for element in tree.findall("object"):
        class_name = (element.findtext("name") or "").strip()
        if class_name not in indices:
            raise DataError(unknown(class_name, indices, "class"), where=path)
        sides = ("xmin", "ymin", "xmax", "ymax")
        box = [_number(element, f"./bndbox/{side}", path) for side in sides]
        boxes.append([box[0] - 1.0, box[1] - 1.0, box[2], box[3]])
        names.append(class_name)
        difficult.append(_flag(element, "difficult", path))
    return Sample(
        path=str(image),
        image_id=image_id,
        width=int(width),
        height=int(height),
        boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        classes=class_indices(names, indices),
        crowd=np.zeros(len(names), dtype=bool),
        difficult=np.array(difficult, dtype=bool),
    )


class _NoDoctype(ElementTree.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Refuse a DOCTYPE: its entities can expand without bound or read other files."""
        raise ValueError("it declares a DOCTYPE, which VOC's files do not")


def _parse(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_XML_BYTES:
            raise ValueError(f"{path.stat().st_size:,} bytes")
        parser = ElementTree.XMLParser(target=_NoDoctype())
        parser.feed(read_plain(path))
        return parser.close()
    except (OSError, ValueError, LookupError, ElementTree.ParseError) as error:
        hint = "unpack it again"
        raise DataError("not a VOC annotation", where=path, seen=error, next=hint) from None


def _number(element: Any, tag: str, path: Path) -> float:
    text = element.findtext(tag)
    try:
        value = float(text)
        if math.isfinite(value):
            return value
    except (TypeError, ValueError):
        pass
    raise DataError(f"XML has no number at {tag.removeprefix('./')}", where=path, seen=text)


def _flag(element: Any, tag: str, path: Path) -> bool:
    """Return bool(int(text)), as D2:evaluation/pascal_voc_evaluation.py:144, False if absent."""
    text = element.findtext(tag, "0")
    try:
        return bool(int(text))
    except ValueError:
        what, hint = f"{tag} is not a whole number", "write 1 for yes, 0 for no"
        raise DataError(what, where=path, seen=text, next=hint) from None

"""PASCAL VOC: ImageSets/Main/<split>.txt, Annotations/<id>.xml and JPEGImages/<id>.jpg, read as Detectron2 does.

Semantics of D2:data/datasets/pascal_voc.py: objects marked difficult are kept (they train; the metric ignores them),
1 is subtracted from xmin and ymin only, because VOC's pixels are 1-based and inclusive.
"""

import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from harl_bench.core.errors import DataError
from harl_bench.core.lookup import unknown
from harl_bench.core.plain import read_plain
from harl_bench.detection.datasets.sample import Dataset, Sample, Samples, count_boxes, file_names, numbers

CLASS_NAMES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
ARCHIVES = {
    "voc_2007_trainval": "VOCtrainval_06-Nov-2007.tar",
    "voc_2007_test": "VOCtest_06-Nov-2007.tar",
    "voc_2012_trainval": "VOCtrainval_11-May-2012.tar",
}
MAX_XML_BYTES = 10_000_000  # the largest of VOC has 20 thousand


def read(root: Path, name: str, class_names: tuple[str, ...] | None = None) -> Dataset:
    """One split, named as Detectron2 names it: `voc_2007_trainval`, `voc_2012_val`, `voc_2007_test`.

    Args:
        root: holds VOC2007/ and VOC2012/, or VOCdevkit/ that does. A file classes.txt in it, one name a line, replaces
            the twenty classes.

    Raises:
        DataError: a folder, split, XML or picture is missing, or an XML does not say what VOC's do.
    """
    _, year, split = name.split("_", 2)
    folder = _folder(root, f"VOC{year}", name)
    class_names = class_names or _class_names(root)
    indices = {class_name: i for i, class_name in enumerate(class_names)}
    ids = _ids(folder, split, name)
    for part in ("Annotations", "JPEGImages"):
        if not (folder / part).is_dir():
            raise DataError(f"{folder.name} has no {part} folder", where=folder, next=f"unpack {_archive(name)} there")
    pictures, xmls = file_names(folder / "JPEGImages"), file_names(folder / "Annotations")
    faults: dict[str, int] = {}
    samples = []
    for image_id in ids:
        for kind, path, found in (
            ("XML", folder / "Annotations" / f"{image_id}.xml", xmls),
            ("picture", folder / "JPEGImages" / f"{image_id}.jpg", pictures),
        ):
            if path.name not in found:
                raise DataError(
                    f"{image_id} of {split}.txt has no {kind}",
                    where=path,
                    seen=f"{len(found)} files in {path.parent.name}",
                    next=f"unpack {_archive(name)} completely, or take the id out of the split",
                )
        sample = _sample(folder, image_id, indices)
        count_boxes(faults, sample.boxes, sample.width, sample.height)
        samples.append(sample)
    relative = folder.relative_to(root)
    files = [f"{relative}/Annotations/{i}.xml" for i in ids] + [f"{relative}/JPEGImages/{i}.jpg" for i in ids]
    return Dataset(name, root, class_names, Samples(samples), files, faults)


def _folder(root: Path, year: str, name: str) -> Path:
    for folder in (root / year, root / "VOCdevkit" / year):
        if folder.is_dir():
            return folder
    others = sorted(path.name for path in root.iterdir())
    hint = f"give the folder that holds {year}"
    if year == "VOC2012" and "VOC2007" in others:
        hint = "add VOC2012, or train on VOC2007 alone with the override DATASETS.TRAIN=('voc_2007_trainval',)"
    seen = ", ".join(others[:6]) + (" ..." if len(others) > 6 else "") or "an empty folder"
    raise DataError(f"{year} is missing ({name})", where=root, seen=seen, next=hint)


def _class_names(root: Path) -> tuple[str, ...]:
    path = root / "classes.txt"
    if not path.is_file():
        return CLASS_NAMES
    names = tuple(line.strip() for line in read_plain(path).decode().splitlines() if line.strip())
    if not names or len(set(names)) != len(names):
        raise DataError("a class list has one different name a line", where=path, seen=f"{len(names)} names")
    return names


def _ids(folder: Path, split: str, name: str) -> list[str]:
    path = folder / "ImageSets" / "Main" / f"{split}.txt"
    try:
        lines = read_plain(path).decode().splitlines()
    except FileNotFoundError:
        there = sorted(other.name for other in path.parent.glob("*.txt")) if path.parent.is_dir() else []
        seen = ", ".join(there[:6]) or "no split files"
        raise DataError(
            f"{folder.name} {split} split is missing", where=path, seen=seen, next=f"unpack {_archive(name)} there"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("cannot read split", where=path, seen=error) from None
    ids = [line.strip() for line in lines if line.strip()]
    if not ids:
        raise DataError("split is empty", where=path, seen=f"{len(lines)} lines", next="one picture id a line")
    if len(set(ids)) != len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise DataError("split lists a picture twice", where=path, seen=twice, next="remove the second line")
    return ids


def _archive(name: str) -> str:
    return ARCHIVES.get(name, f"the archive of {name}")


def _sample(folder: Path, image_id: str, indices: dict[str, int]) -> Sample:
    path = folder / "Annotations" / f"{image_id}.xml"
    tree = _parse(path)
    width, height = (_number(tree, f"./size/{side}", path) for side in ("width", "height"))
    if not (width >= 1 and height >= 1):
        raise DataError("XML gives no picture size", where=path, seen=f"{width} x {height}")
    boxes, names, difficult = [], [], []
    for thing in tree.findall("object"):
        class_name = (thing.findtext("name") or "").strip()
        if class_name not in indices:
            raise DataError(unknown(class_name, indices, "class"), where=path)
        box = [_number(thing, f"./bndbox/{corner}", path) for corner in ("xmin", "ymin", "xmax", "ymax")]
        boxes.append([box[0] - 1.0, box[1] - 1.0, box[2], box[3]])
        names.append(class_name)
        difficult.append((thing.findtext("difficult") or "0").strip() == "1")
    return Sample(
        path=str(folder / "JPEGImages" / f"{image_id}.jpg"),
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
        """Entities can only be declared in a DOCTYPE, and they can expand without bound or read other files."""
        raise ValueError("it declares a DOCTYPE, which VOC's files do not")


def _parse(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_XML_BYTES:
            raise ValueError(f"{path.stat().st_size:,} bytes")
        parser = ElementTree.XMLParser(target=_NoDoctype())
        parser.feed(read_plain(path))
        return parser.close()
    except (OSError, ValueError, LookupError, ElementTree.ParseError) as error:
        raise DataError("not a VOC annotation", where=path, seen=error, next="unpack it again") from None


def _number(element: Any, place: str, path: Path) -> float:
    text = element.findtext(place)
    try:
        value = float(text)
        if math.isfinite(value):
            return value
    except (TypeError, ValueError):
        pass
    raise DataError(f"XML has no number at {place.removeprefix('./')}", where=path, seen=text)

"""PASCAL VOC's layout: JPEGImages, Annotations with 1-based inclusive boxes, ImageSets/Main."""

from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

from harl_bench.toydata.scene import Thing, compose
from harl_bench.toydata.shape import NAMES
from harl_bench.toydata.texture import Random

CLASSES = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike "
    "person pottedplant sheep sofa train tvmonitor"
)
# The toy shapes have names of VOC's twenty, so that the true protocol's 20-class mean applies.
NAME_OF = dict(zip(NAMES, ("bottle", "tvmonitor", "boat", "pottedplant", "bicycle"), strict=True))
DIFFICULT_FRACTION = 0.004  # of the image; smaller objects are marked difficult
DIFFICULT_HIDDEN = 0.5


def write(
    root: Path, year: int, counts: Mapping[str, int], *, side_px: int, random: Random
) -> None:
    """Write VOC<year> below `root` with the given number of images per split (train, val, test).

    `trainval` lists train and val; VOC2012 has no test list, as in the original.
    """
    base = root / f"VOC{year}"
    lists: dict[str, list[str]] = {split: [] for split in counts}
    objects: dict[str, list[tuple[str, bool]]] = {}  # class and difficult of each image's objects
    for split, count in counts.items():
        for _ in range(count):
            name = f"{'' if year == 2007 else '2008_'}{len(objects) + 1:06d}"
            path = base / "JPEGImages" / f"{name}.jpg"
            shapes = random.choice(NAMES, random.integers(1, 3))
            height, width, things = compose(path, shapes, side_px, random, (0.3, 0.46), tiny=0.05)
            _write_xml(base / "Annotations" / f"{name}.xml", year, height, width, things)
            objects[name] = [(NAME_OF[thing.name], _difficult(thing)) for thing in things]
            lists[split].append(name)
    lists["trainval"] = sorted(lists["train"] + lists["val"])
    folder = base / "ImageSets" / "Main"
    folder.mkdir(parents=True, exist_ok=True)
    for split, names in lists.items():
        (folder / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for cls in CLASSES.split():
            lines = [f"{name} {_flag(objects[name], cls):>2}\n" for name in names]
            (folder / f"{cls}_{split}.txt").write_text("".join(lines))


def _difficult(thing: Thing) -> bool:
    """Return whether it is tiny, or mostly hidden."""
    return bool(thing.visible.mean() < DIFFICULT_FRACTION or thing.hidden > DIFFICULT_HIDDEN)


def _flag(objects: list[tuple[str, bool]], cls: str) -> int:
    """Return 1 where the class is present, -1 where it is not, 0 where all are difficult."""
    difficult = [flag for name, flag in objects if name == cls]
    return int(not all(difficult)) if difficult else -1


def _write_xml(path: Path, year: int, height: int, width: int, things: list[Thing]) -> None:
    root = ET.Element("annotation")
    _add(root, folder=f"VOC{year}", filename=f"{path.stem}.jpg")
    source = ET.SubElement(root, "source")
    _add(source, database="harl-bench toy data", annotation=f"PASCAL VOC{year} layout")
    _add(source, image="generated")
    _add(ET.SubElement(root, "size"), width=width, height=height, depth=3)
    _add(root, segmented=0)
    for thing in things:
        x, y, w, h = thing.box
        item = ET.SubElement(root, "object")
        truncated = int(thing.cut > 0.02 or thing.hidden > 0.15)
        _add(item, name=NAME_OF[thing.name], pose="Unspecified", truncated=truncated)
        _add(item, difficult=int(_difficult(thing)))
        _add(ET.SubElement(item, "bndbox"), xmin=x + 1, ymin=y + 1, xmax=x + w, ymax=y + h)
    path.parent.mkdir(parents=True, exist_ok=True)
    ET.indent(root, "\t")
    ET.ElementTree(root).write(path, encoding="utf-8")


def _add(parent: ET.Element, **values: object) -> None:
    for tag, value in values.items():
        ET.SubElement(parent, tag).text = str(value)

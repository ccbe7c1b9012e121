"""PASCAL VOC's layout: JPEGImages, Annotations with 1-based inclusive boxes, ImageSets/Main and
per-class lists.
"""

from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

from harl_bench.toydata.image import write_jpeg
from harl_bench.toydata.scene import Scene, Thing, compose, size_px
from harl_bench.toydata.shape import NAMES
from harl_bench.toydata.texture import Random

# The toy shapes wear names of VOC's twenty, so that the true protocol's class list and its 20-class
# mean apply.
NAME_OF = {
    "disc": "bottle",
    "box": "tvmonitor",
    "triangle": "boat",
    "star": "pottedplant",
    "ring": "bicycle",
}
CLASSES = (
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
DIFFICULT_SHARE = 0.004  # of the image; smaller objects are marked difficult
DIFFICULT_HIDDEN = 0.5
Objects = list[tuple[str, bool]]  # class and difficult, of one image


def write(
    root: Path, year: int, counts: Mapping[str, int], *, side_px: int, random: Random
) -> None:
    """Write VOC<year> below `root` with the given number of images per split (train, val, test).

    `trainval` lists train and val; VOC2012 has no test list, as in the original.
    """
    base = root / f"VOC{year}"
    lists: dict[str, list[str]] = {split: [] for split in counts}
    objects: dict[str, Objects] = {}
    number = 0
    for split, count in counts.items():
        for _ in range(count):
            number += 1
            name = f"{number:06d}" if year == 2007 else f"2008_{number:06d}"
            names = [str(n) for n in random.choice(NAMES, int(random.integers(1, 4)))]
            scene = compose(
                random, names, size=size_px(random, side_px), radii=(0.12, 0.42), tiny=0.08
            )
            write_jpeg(base / "JPEGImages" / f"{name}.jpg", scene.image, random)
            _write_xml(base / "Annotations" / f"{name}.xml", name, year, scene)
            objects[name] = [(NAME_OF[thing.name], difficult(thing)) for thing in scene.things]
            lists[split].append(name)
    lists["trainval"] = sorted([*lists.get("train", []), *lists.get("val", [])])
    _write_lists(base / "ImageSets" / "Main", lists, objects)


def difficult(thing: Thing) -> bool:
    """Tiny, or mostly hidden."""
    return bool(thing.visible.mean() < DIFFICULT_SHARE or thing.hidden > DIFFICULT_HIDDEN)


def _write_xml(path: Path, name: str, year: int, scene: Scene) -> None:
    height, width = scene.image.shape[:2]
    root = ET.Element("annotation")
    _texts(root, folder=f"VOC{year}", filename=f"{name}.jpg")
    source = ET.SubElement(root, "source")
    _texts(
        source,
        database="harl-bench toy data",
        annotation=f"PASCAL VOC{year} layout",
        image="generated",
    )
    _texts(ET.SubElement(root, "size"), width=width, height=height, depth=3)
    _texts(root, segmented=0)
    for thing in scene.things:
        x1, y1, x2, y2 = thing.box
        item = ET.SubElement(root, "object")
        cut = int(thing.cut > 0.02 or thing.hidden > 0.15)
        _texts(
            item,
            name=NAME_OF[thing.name],
            pose="Unspecified",
            truncated=cut,
            difficult=int(difficult(thing)),
        )
        _texts(ET.SubElement(item, "bndbox"), xmin=x1 + 1, ymin=y1 + 1, xmax=x2, ymax=y2)
    path.parent.mkdir(parents=True, exist_ok=True)
    ET.indent(root, "\t")
    ET.ElementTree(root).write(path, encoding="utf-8")


def _texts(parent: ET.Element, **values: object) -> None:
    for tag, value in values.items():
        ET.SubElement(parent, tag).text = str(value)


def _write_lists(
    folder: Path, lists: Mapping[str, list[str]], objects: Mapping[str, Objects]
) -> None:
    """`<split>.txt` with one id a line; `<class>_<split>.txt` with 1 (there), -1 (not there) or 0
    (difficult only).
    """
    folder.mkdir(parents=True, exist_ok=True)
    for split, names in lists.items():
        (folder / f"{split}.txt").write_text(
            "".join(f"{name}\n" for name in names), encoding="utf-8"
        )
        for cls in CLASSES:
            lines = (f"{name} {_flag(objects[name], cls):>2}\n" for name in names)
            (folder / f"{cls}_{split}.txt").write_text("".join(lines), encoding="utf-8")


def _flag(objects: Objects, cls: str) -> int:
    marks = [hard for name, hard in objects if name == cls]
    return -1 if not marks else 0 if all(marks) else 1

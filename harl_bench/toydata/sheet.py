"""A contact sheet of the toy data, read back from disk: what is written is what is shown."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pycocotools.coco import COCO

from harl_bench.core.files import replacing
from harl_bench.core.images import read_rgb

NAME = "preview.png"
COLUMNS, CELL_PX, GAP_PX, HEAD_PX = 10, 132, 8, 30
COLORS = ((228, 87, 70), (52, 120, 200), (46, 160, 96), (216, 150, 30), (140, 84, 190))
GRAY = (128, 128, 128)


def write(folder: Path) -> None:
    """Write a row of photos, their masks, VOC with boxes, COCO with segments, and classes."""
    photos = sorted((folder / "photos" / "images").rglob("*.jpg"))
    masks = sorted((folder / "photos" / "masks").rglob("*.png"))
    annotations = sorted((folder / "voc" / "VOC2007" / "Annotations").glob("*.xml"))
    classes = sorted((folder / "classify" / "train").glob("*/*.jpg"))
    rows = {
        "photos/images: unlabelled images": map(read_rgb, photos),
        "photos/masks: their true foreground": map(read_rgb, masks),
        "voc: boxes, difficult ones thin": map(_boxes, annotations),
        "coco: polygons and RLE, crowds in grey": _segments(folder / "coco"),
        "classify: five classes": map(read_rgb, classes[:: max(1, len(classes) // COLUMNS)]),
    }
    width = COLUMNS * (CELL_PX + GAP_PX) + GAP_PX
    sheet = Image.new("RGB", (width, len(rows) * (CELL_PX + HEAD_PX) + GAP_PX), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for row, (title, images) in enumerate(rows.items()):
        top = row * (CELL_PX + HEAD_PX)
        draw.text((GAP_PX, top + 10), title, fill=(60, 60, 60), font=font)
        for column, image in zip(range(COLUMNS), images, strict=False):
            image.thumbnail((CELL_PX, CELL_PX), Image.Resampling.LANCZOS)
            left = GAP_PX + column * (CELL_PX + GAP_PX) + (CELL_PX - image.width) // 2
            sheet.paste(image, (left, top + HEAD_PX + (CELL_PX - image.height) // 2))
    with replacing(folder / NAME) as temporary:
        sheet.save(temporary, format="PNG")


def _boxes(xml: Path) -> Image.Image:
    image = read_rgb(xml.parents[1] / "JPEGImages" / f"{xml.stem}.jpg")
    draw = ImageDraw.Draw(image)
    for i, item in enumerate(ET.parse(xml).getroot().iter("object")):
        box = [int(value.text or 0) - 1 for value in item.iterfind("bndbox/*")]
        line_px = 1 if item.findtext("difficult") == "1" else 2
        draw.rectangle(box, outline=COLORS[i % len(COLORS)], width=line_px)
    return image


def _segments(folder: Path) -> Iterator[Image.Image]:
    with contextlib.redirect_stdout(io.StringIO()):  # it prints that it is done
        coco = COCO(folder / "annotations" / "instances_train2017.json")
    for info in coco.dataset["images"]:
        image = np.array(read_rgb(folder / "train2017" / info["file_name"])).astype(float)
        for i, item in enumerate(coco.imgToAnns[info["id"]]):
            inside = coco.annToMask(item).astype(bool)
            color = GRAY if item["iscrowd"] else COLORS[i % len(COLORS)]
            image[inside] = 0.35 * image[inside] + 0.65 * np.array(color)
        yield Image.fromarray(image.round().astype(np.uint8))

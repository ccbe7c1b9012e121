"""A contact sheet of the toy data, read back from disk: what is written is what is shown."""

import contextlib
import io
import json
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pycocotools.coco import COCO

from harl_bench.core.results import replacing

NAME = "preview.png"
COLUMNS, CELL_PX, GAP_PX, HEAD_PX = 10, 132, 8, 30
COLORS = ((228, 87, 70), (52, 120, 200), (46, 160, 96), (216, 150, 30), (140, 84, 190))


def write(folder: Path) -> None:
    """Rows: photos, their masks, VOC with boxes (dashed: difficult), COCO with segments, one row of
    classes.
    """
    photos = sorted((folder / "photos" / "images").rglob("*.jpg"))[:COLUMNS]
    masks = [
        folder
        / "photos"
        / "masks"
        / p.relative_to(folder / "photos" / "images").with_suffix(".png")
        for p in photos
    ]
    xmls = sorted((folder / "voc" / "VOC2007" / "Annotations").glob("*.xml"))[:COLUMNS]
    classes = sorted((folder / "classify" / "train").glob("*/*.jpg"))
    classes = classes[:: max(1, len(classes) // COLUMNS)][:COLUMNS]
    rows: list[tuple[str, list[Image.Image]]] = [
        ("photos/images: unlabelled images", [Image.open(p).convert("RGB") for p in photos]),
        ("photos/masks: their true foreground", [Image.open(p).convert("RGB") for p in masks]),
        ("voc: boxes, difficult ones thin", [_boxes(p) for p in xmls]),
        ("coco: polygons and RLE, crowds in grey", _segments(folder / "coco")),
        ("classify: five classes", [Image.open(p).convert("RGB") for p in classes]),
    ]
    width = COLUMNS * (CELL_PX + GAP_PX) + GAP_PX
    sheet = Image.new("RGB", (width, len(rows) * (CELL_PX + HEAD_PX) + GAP_PX), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for r, (title, images) in enumerate(rows):
        top = r * (CELL_PX + HEAD_PX)
        draw.text((GAP_PX, top + 10), title, fill=(60, 60, 60), font=font)
        for c, image in enumerate(images[:COLUMNS]):
            image.thumbnail((CELL_PX, CELL_PX), Image.Resampling.LANCZOS)
            left = GAP_PX + c * (CELL_PX + GAP_PX) + (CELL_PX - image.width) // 2
            sheet.paste(image, (left, top + HEAD_PX + (CELL_PX - image.height) // 2))
    with replacing(folder / NAME) as temporary:
        sheet.save(temporary, format="PNG")


def _boxes(xml: Path) -> Image.Image:
    image = Image.open(xml.parents[1] / "JPEGImages" / f"{xml.stem}.jpg").convert("RGB")
    draw = ImageDraw.Draw(image)
    for i, item in enumerate(ET.parse(xml).getroot().iter("object")):
        x1, y1, x2, y2 = (
            int(item.findtext(f"bndbox/{tag}") or 0) - 1 for tag in ("xmin", "ymin", "xmax", "ymax")
        )
        draw.rectangle(
            (x1, y1, x2, y2),
            outline=COLORS[i % len(COLORS)],
            width=1 if item.findtext("difficult") == "1" else 2,
        )
    return image


def _segments(coco: Path) -> list[Image.Image]:
    file = coco / "annotations" / "instances_train2017.json"
    annotations = COCO()
    annotations.dataset = json.loads(file.read_text())
    with contextlib.redirect_stdout(io.StringIO()):  # it prints that it is done
        annotations.createIndex()
    images = []
    for image in annotations.dataset["images"][:COLUMNS]:
        values = np.asarray(
            Image.open(coco / "train2017" / image["file_name"]).convert("RGB")
        ).astype(float)
        for i, item in enumerate(annotations.loadAnns(annotations.getAnnIds(imgIds=[image["id"]]))):
            inside = annotations.annToMask(item).astype(bool)
            tint = (128, 128, 128) if item["iscrowd"] else COLORS[i % len(COLORS)]
            values[inside] = 0.35 * values[inside] + 0.65 * np.array(tint)
        images.append(Image.fromarray(values.round().astype(np.uint8)))
    return images

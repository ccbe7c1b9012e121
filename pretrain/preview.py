"""An image of what the network sees: both views of some images, their masks laid over them."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from harl_bench.core.files import replacing
from pretrain.augment import to_image
from pretrain.data import TwoViews, collate

GAP, TINT = 4, np.array([230, 60, 50])


def save(dataset: TwoViews, path: Path, *, count: int = 8) -> None:
    """Write a PNG, a column an image: view 1, the same with mask, view 2, the same with mask."""
    count = min(count, len(dataset.images.paths))
    batch = collate([dataset[0, i] for i in range(count)])
    if batch.error is not None:
        raise batch.error
    rows = []
    for views, masks in zip(batch.views, batch.masks, strict=True):
        images = [to_image(x) for x in views]
        rows += [images, [_overlay(p, m.numpy()[0]) for p, m in zip(images, masks, strict=True)]]
    side = dataset.size + GAP
    label = 14
    sheet = Image.new("RGB", (count * side + GAP, len(rows) * (side + label) + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    names = ("view T", "mask M", "view T'", "mask M'")
    for r, (row, name) in enumerate(zip(rows, names, strict=False)):  # supervised: one view
        top = GAP + r * (side + label)
        draw.text((GAP, top), name, fill=(90, 90, 90))
        for c, image in enumerate(row):
            sheet.paste(image, (GAP + c * side, top + label))
    with replacing(path) as temporary:
        sheet.save(temporary, format="PNG")


def _overlay(image: Image.Image, mask: np.ndarray) -> Image.Image:  # type: ignore[type-arg]
    values = np.asarray(image).astype(float)
    grey = values.mean(axis=2, keepdims=True).repeat(3, axis=2)
    tinted = np.where(mask[..., None] > 0, 0.5 * values + 0.5 * TINT, 0.35 * grey + 0.65 * 255)
    return Image.fromarray(tinted.round().astype(np.uint8))

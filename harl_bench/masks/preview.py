"""Sheets of cards with an image on the left and its mask over it on the right."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

PAPER, INK, SOFT = (255, 255, 255), (28, 33, 40), (107, 114, 128)
TINT, MISS = (255, 122, 0), (0, 144, 178)
PANEL_PX = 220  # longer side of one panel
GAP_PX, MARGIN_PX, CAPTION_PX, TITLE_PX = 6, 28, 44, 62
Color = tuple[int, int, int]


@dataclass(frozen=True)
class Card:
    """An image [H, W, 3], its mask [H, W], two caption lines, and a truth [H, W] to outline."""

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    name: str
    note: str
    truth: NDArray[np.bool_] | None = None


def grid(cards: Sequence[Card], title: str, subtitle: str, columns: int = 3) -> Image.Image:
    """Draw all cards on one sheet, row by row."""
    columns = max(1, min(columns, len(cards)))
    rows = -(-len(cards) // columns)
    card_w, card_h = 2 * PANEL_PX + GAP_PX, PANEL_PX + CAPTION_PX
    width = 2 * MARGIN_PX + columns * card_w + (columns - 1) * MARGIN_PX
    height = MARGIN_PX + TITLE_PX + rows * (card_h + MARGIN_PX)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    _write(draw, MARGIN_PX, MARGIN_PX - 4, title, 22, INK, width - 2 * MARGIN_PX)
    _write(draw, MARGIN_PX, MARGIN_PX + 26, subtitle, 14, SOFT, width - 2 * MARGIN_PX)
    for i, card in enumerate(cards):
        x = MARGIN_PX + i % columns * (card_w + MARGIN_PX)
        y = MARGIN_PX + TITLE_PX + i // columns * (card_h + MARGIN_PX)
        _paste(sheet, card, x, y)
        _write(draw, x, y + PANEL_PX + 6, card.name, 14, INK, card_w)
        _write(draw, x, y + PANEL_PX + 24, card.note, 13, SOFT, card_w)
    return sheet


def overlay(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], truth: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """Fade the background, outline the foreground in orange and the truth in blue."""
    import cv2

    grey = image.mean(axis=2, keepdims=True)
    faded = 0.35 * (0.3 * image + 0.7 * grey) + 0.65 * 255
    shown = np.where(mask[..., None], image, faded).astype(np.uint8)
    for area, color in ((truth, MISS), (mask, TINT)):
        if area is not None:
            pixels = area.astype(np.uint8)
            outlines, _ = cv2.findContours(pixels, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(shown, outlines, -1, color, 2, cv2.LINE_AA)
    return shown


def spread(names: Sequence[Path], count: int) -> list[Path]:
    """Return `count` of the names, evenly spaced, so that most class folders are among them."""
    if count >= len(names):
        return list(names)
    return [names[int((i + 0.5) * len(names) / count)] for i in range(count)]


def _paste(sheet: Image.Image, card: Card, x: int, y: int) -> None:
    import cv2

    height, width = card.mask.shape
    scale = PANEL_PX / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    filter_ = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    image = cv2.resize(card.image, size, interpolation=filter_)
    mask = _resized(card.mask, size)
    truth = None if card.truth is None else _resized(card.truth, size)
    for i, panel in enumerate((image, overlay(image, mask, truth))):
        left = x + i * (PANEL_PX + GAP_PX) + (PANEL_PX - size[0]) // 2
        sheet.paste(Image.fromarray(panel), (left, y + (PANEL_PX - size[1]) // 2))


def _resized(area: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    import cv2

    resized = cv2.resize(area.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return np.asarray(resized > 0.5)


def _write(
    draw: ImageDraw.ImageDraw, x: int, y: int, text: str, size: int, color: Color, width: int
) -> None:
    draw.text((x, y), _fit(draw, text, size, width), color, font=_font(size))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _fit(draw: ImageDraw.ImageDraw, text: str, size: int, width: int) -> str:
    text = "".join(c if c.isprintable() else "?" for c in text)
    if draw.textlength(text, font=_font(size)) <= width:
        return text
    while text and draw.textlength(text + "...", font=_font(size)) > width:
        text = text[:-1]
    return text + "..."

"""Images of masks: tidy cards with the image on the left and its mask over it on the right."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

PAPER, INK, SOFT, TINT, MISS = (
    (255, 255, 255),
    (28, 33, 40),
    (107, 114, 128),
    (255, 122, 0),
    (0, 144, 178),
)
PANEL_PX = 220  # longer side of one panel
GAP_PX, MARGIN_PX, CAPTION_PX, TITLE_PX = 6, 28, 44, 62


@dataclass(frozen=True)
class Card:
    """One image [H, W, 3], its mask [H, W] bool, two caption lines; `truth` [H, W] bool adds its
    outline.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    name: str
    note: str
    truth: NDArray[np.bool_] | None = None


def grid(cards: Sequence[Card], title: str, subtitle: str, columns: int = 3) -> Image.Image:
    """All cards on one sheet, row by row."""
    columns = max(1, min(columns, len(cards)))
    rows = -(-len(cards) // columns)
    card_w, card_h = 2 * PANEL_PX + GAP_PX, PANEL_PX + CAPTION_PX
    width = 2 * MARGIN_PX + columns * card_w + (columns - 1) * MARGIN_PX
    height = MARGIN_PX + TITLE_PX + rows * (card_h + MARGIN_PX)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text(
        (MARGIN_PX, MARGIN_PX - 4),
        _fit(draw, title, 22, width - 2 * MARGIN_PX),
        INK,
        font=_font(22),
    )
    draw.text(
        (MARGIN_PX, MARGIN_PX + 26),
        _fit(draw, subtitle, 14, width - 2 * MARGIN_PX),
        SOFT,
        font=_font(14),
    )
    for i, card in enumerate(cards):
        x = MARGIN_PX + i % columns * (card_w + MARGIN_PX)
        y = MARGIN_PX + TITLE_PX + i // columns * (card_h + MARGIN_PX)
        _paste(sheet, card, x, y)
        draw.text((x, y + PANEL_PX + 6), _fit(draw, card.name, 14, card_w), INK, font=_font(14))
        draw.text((x, y + PANEL_PX + 24), _fit(draw, card.note, 13, card_w), SOFT, font=_font(13))
    return sheet


def overlay(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], truth: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """The image with the background faded, the foreground outlined in orange and the truth in
    blue.
    """
    import cv2

    grey = image.mean(axis=2, keepdims=True)
    faded = 0.35 * (0.3 * image + 0.7 * grey) + 0.65 * 255
    shown = np.where(mask[..., None], image, faded).astype(np.uint8)
    for area, color in ((truth, MISS), (mask, TINT)):
        if area is not None:
            outlines, _ = cv2.findContours(
                area.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE
            )
            cv2.drawContours(shown, outlines, -1, color, 2, cv2.LINE_AA)
    return shown


def spread(names: Sequence[Path], count: int) -> list[Path]:
    """`count` of the names, evenly spaced, so that a preview shows every class folder it can."""
    if count >= len(names):
        return list(names)
    return [names[int((i + 0.5) * len(names) / count)] for i in range(count)]


def _paste(sheet: Image.Image, card: Card, x: int, y: int) -> None:
    import cv2

    height, width = card.mask.shape
    scale = PANEL_PX / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    image = cv2.resize(card.image, size, interpolation=how)
    mask, truth = (
        None
        if area is None
        else cv2.resize(area.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.5
        for area in (card.mask, card.truth)
    )
    assert mask is not None, "a card has a mask"
    for i, panel in enumerate((image, overlay(image, mask, truth))):
        left = x + i * (PANEL_PX + GAP_PX) + (PANEL_PX - size[0]) // 2
        sheet.paste(Image.fromarray(panel), (left, y + (PANEL_PX - size[1]) // 2))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _fit(draw: ImageDraw.ImageDraw, text: str, size: int, width: int) -> str:
    text = "".join(c if c.isprintable() else "?" for c in text)
    if draw.textlength(text, font=_font(size)) <= width:
        return text
    while text and draw.textlength(text + "...", font=_font(size)) > width:
        text = text[:-1]
    return text + "..."

"""Images of the most confident mistakes, and of the classes most often confused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from harl_bench.classify.scores import confusions
from harl_bench.classify.splits import Rows
from harl_bench.core.files import replacing

TILE, CAPTION, GAP, COLUMNS = 132, 34, 10, 8  # px, px, px, images a row
PAIRS = 6
INK, QUIET, PAPER = (30, 30, 30), (120, 120, 120), (255, 255, 255)

Read = Callable[[int], Image.Image]


def save(
    folder: Path,
    read: Read,
    rows: Rows,
    labels: Rows,
    probabilities: np.ndarray[Any, Any],
    classes: list[str],
) -> None:
    """Write mistakes.png and confusions.png; nothing where there are no mistakes.

    Args:
        read: decodes the image of a row of the data set.
        rows, labels: [N] row and true class of each test image.
        probabilities: [N, C] of the classifier.
    """
    predicted = probabilities.argmax(1)
    sure = probabilities.max(1)
    wrong = np.flatnonzero(predicted != labels)
    wrong = wrong[np.argsort(-sure[wrong], kind="stable")]
    if not len(wrong):
        return

    def tile(i: np.signedinteger[Any]) -> tuple[Image.Image, str, str]:
        said = f"said {classes[predicted[i]]}, {100 * sure[i]:.0f} %"
        return read(int(rows[i])), f"is {classes[labels[i]]}", said

    lines = [
        [tile(i) for i in wrong[start : start + COLUMNS]]
        for start in range(0, min(len(wrong), 24), COLUMNS)
    ]
    _save(_sheet([("", line) for line in lines]), folder / "mistakes.png")
    pairs = []
    for true, answer, count in confusions(predicted, labels)[:PAIRS]:
        examples = [i for i in wrong if labels[i] == true and predicted[i] == answer][:COLUMNS]
        of = int((labels == true).sum())
        title = f"{classes[true]} taken for {classes[answer]}: {count} of {of}"
        pairs.append((title, [tile(i) for i in examples]))
    _save(_sheet(pairs), folder / "confusions.png")


def save_several(
    folder: Path,
    read: Read,
    rows: Rows,
    labels: Rows,
    probabilities: np.ndarray[Any, Any],
    classes: list[str],
    *,
    margins: bool = False,
) -> None:
    """Write mistakes.png: the absent classes with the highest probabilities.

    Args:
        labels: [N, C] of 1 (present), 0 (absent) and -1 (difficult).
        probabilities: [N, C] of each class by itself.
        margins: an SVM's margins are behind them, of which no percentage is shown.
    """
    images, absent = np.nonzero(labels == 0)
    sure = probabilities[images, absent]
    wrong = np.flatnonzero(sure > 0.5)
    wrong = wrong[np.argsort(-sure[wrong], kind="stable")][: 3 * COLUMNS]
    if not len(wrong):
        return
    tiles = []
    for k in wrong:
        present = [classes[c] for c in np.flatnonzero(labels[images[k]] == 1)]
        percent = "" if margins else f", {100 * sure[k]:.0f} %"
        said = f"said {classes[absent[k]]}{percent}"
        tiles.append((read(int(rows[images[k]])), f"is {', '.join(present) or 'none'}", said))
    lines = [tiles[start : start + COLUMNS] for start in range(0, len(tiles), COLUMNS)]
    _save(_sheet([("", line) for line in lines]), folder / "mistakes.png")


def _sheet(lines: list[tuple[str, list[tuple[Image.Image, str, str]]]]) -> Image.Image:
    """Return lines of square thumbnails with two captions each, under their titles, if any."""
    font = ImageFont.load_default(size=12)
    title_height = 26 if any(title for title, _ in lines) else 0
    height = GAP + len(lines) * (title_height + TILE + CAPTION + GAP)
    width = GAP + max(len(tiles) for _, tiles in lines) * (TILE + GAP)
    titles = [font.getlength(title) for title, _ in lines]
    sheet = Image.new("RGB", (max(width, round(max(titles)) + 2 * GAP), height), PAPER)
    draw = ImageDraw.Draw(sheet)
    y = GAP
    for title, tiles in lines:
        draw.text((GAP, y + 4), title, fill=INK, font=font)
        y += title_height
        for column, (image, first, second) in enumerate(tiles):
            x = GAP + column * (TILE + GAP)
            sheet.paste(ImageOps.fit(image, (TILE, TILE), Image.Resampling.BICUBIC), (x, y))
            draw.text((x, y + TILE + 3), _fitted(first, font), fill=QUIET, font=font)
            draw.text((x, y + TILE + 18), _fitted(second, font), fill=INK, font=font)
        y += TILE + CAPTION + GAP
    return sheet


def _fitted(text: str, font: Any) -> str:
    """Return the text, cut in its middle to fit a thumbnail, unprintable characters replaced."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    if font.getlength(text) <= TILE:
        return text
    keep = len(text) - 1
    while keep > 4 and font.getlength(f"{text[: keep // 2]}..{text[-(keep - keep // 2) :]}") > TILE:
        keep -= 1
    return f"{text[: keep // 2]}..{text[-(keep - keep // 2) :]}"


def _save(sheet: Image.Image, path: Path) -> None:
    with replacing(path) as temporary:
        sheet.save(temporary)

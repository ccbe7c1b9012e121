"""Masks of images of every mode, and images that cannot be read."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harl_bench.masks import manifests
from tests.masks.test_make import make, masks_of

PALETTE = Image.new("P", (60, 50), 3)
PALETTE.putpalette([i % 256 for i in range(768)])
MODES = {
    "grey.png": Image.new("L", (60, 50), 90),
    "alpha.png": Image.new("RGBA", (60, 50), (10, 200, 30, 0)),
    "palette.gif": PALETTE,
    "bits.png": Image.new("1", (60, 50), 1),
    "deep.png": Image.fromarray(np.full((50, 60), 40_000, np.uint16)),
    "cmyk.jpg": Image.new("CMYK", (60, 50), (10, 90, 30, 0)),
    "line.png": Image.new("RGB", (300, 1), (9, 9, 9)),
    "dot.webp": Image.new("RGB", (1, 1), (200, 9, 9)),
}


def test_images_of_every_mode(tmp_path: Path) -> None:
    """All are read; flat ones have no foreground, which is a rejected mask and not an error."""
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    for name, image in MODES.items():
        image.save(images / name)
    assert make(images, out) == 0
    rows = manifests.read(out)
    assert set(rows) == set(MODES)
    for name, row in rows.items():
        assert (row.width, row.height) == MODES[name].size
        assert (row.valid, row.foreground) == (0, 0.0)
        assert not np.asarray(Image.open(out / Path(name).with_suffix(".png"))).any()


BAD = {
    "empty.jpg": b"",
    "text.png": b"<html>not found</html>",
    "cut.jpg": None,
}


def test_too_many_unreadable_images(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, content in BAD.items():
        (root / "images" / name).write_bytes(
            content if content is not None else (root / "images/a/00.jpg").read_bytes()[:300]
        )
    out = root / "out"
    assert make(root / "images", out) == 3
    error = capsys.readouterr().err
    assert "3 of 9 images gave no mask" in error
    assert "--allow-unreadable" in error
    listed = (out / "unreadable.txt").read_text().splitlines()
    assert [line.partition("\t")[0] for line in listed] == sorted(BAD)
    assert len(masks_of(out)) == 6, "the others are kept"
    assert make(root / "images", out, "--allow-unreadable") == 0
    for name in BAD:
        (root / "images" / name).unlink()
    assert make(root / "images", out) == 0
    assert not (out / "unreadable.txt").exists()


def test_one_in_a_hundred_may_be_unreadable(root: Path) -> None:
    for i in range(100):
        Image.new("L", (16, 16), i).save(root / "images" / f"flat{i}.png")
    (root / "images" / "empty.jpg").write_bytes(b"")
    assert make(root / "images", root / "out") == 0
    assert (root / "out" / "unreadable.txt").read_text().startswith("empty.jpg\t")

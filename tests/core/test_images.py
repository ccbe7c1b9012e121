"""Whatever a file holds, RGB comes out, or one clear error."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from harl_bench.core import images, masks
from harl_bench.core.errors import DataError
from harl_bench.core.images import find_images, image_size, read_mask, read_rgb
from harl_bench.core.palette import voc_palette

RAMP = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20


def pixels(path: Path) -> Any:
    return np.asarray(read_rgb(path)).tolist()


@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGBA", "1", "CMYK", "YCbCr", "HSV"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    suffix = {"CMYK": "tif", "YCbCr": "tif", "HSV": "tif"}.get(mode, "png")
    original = Image.fromarray(RAMP, "L").convert("RGB").convert(mode)
    path = tmp_path / f"x.{suffix}"
    if mode == "HSV":
        original = original.convert("RGB")  # no file format stores it
    original.save(path)
    read = read_rgb(path)
    assert (read.mode, read.size) == ("RGB", (4, 3))
    assert np.array_equal(np.asarray(read), np.asarray(original.convert("RGB")))


def test_cmyk_jpeg(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 0, 0, 0)).save(tmp_path / "x.jpg")
    assert np.asarray(read_rgb(tmp_path / "x.jpg")).min() > 250  # no ink is white


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    levels = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / "x.png")
    assert pixels(tmp_path / "x.png") == [[[0] * 3, [1] * 3, [128] * 3, [255] * 3]]


def test_floating_point_images(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0.0, 100.0, 255.0]], dtype=np.float32)).save(tmp_path / "x.tif")
    assert pixels(tmp_path / "x.tif") == [[[0] * 3, [100] * 3, [255] * 3]]


@pytest.mark.parametrize("levels", [[0.0, 0.5, 1.0], [0.0, 9.0, 65535.0], [0, 5, 2**20], [0, 1]])
def test_thirty_two_bits_of_an_unknown_white_are_refused(tmp_path: Path, levels: list[Any]) -> None:
    """Almost black images were read from them without a word."""
    kind = np.int32 if isinstance(levels[0], int) else np.float32
    Image.fromarray(np.array([levels], dtype=kind)).save(tmp_path / "x.tif")
    with pytest.raises(DataError, match="32 bits does not say which value is white") as caught:
        read_rgb(tmp_path / "x.tif")
    assert f"values from 0 to {levels[-1]:g}" in str(caught.value)


def test_sixteen_bits_of_a_pgm(tmp_path: Path) -> None:
    (tmp_path / "x.ppm").write_bytes(b"P5 3 1 65535 " + np.array([0, 257, 65535], ">u2").tobytes())
    assert pixels(tmp_path / "x.ppm") == [[[0] * 3, [1] * 3, [255] * 3]]


def test_one_pixel(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (1, 2, 3)).save(tmp_path / "x.png")
    assert pixels(tmp_path / "x.png") == [[[1, 2, 3]]]


def test_the_content_decides_not_the_name(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2), (9, 9, 9)).save(tmp_path / "x.jpg", format="PNG")
    assert pixels(tmp_path / "x.jpg")[0] == [[9, 9, 9], [9, 9, 9]]


def test_exif_orientation(tmp_path: Path) -> None:
    tags = Image.Exif()
    tags[0x0112] = 6  # turned by 90 degrees
    Image.fromarray(RAMP, "L").save(tmp_path / "x.png", exif=tags)
    assert read_rgb(tmp_path / "x.png", exif=True).size == (3, 4)
    assert read_rgb(tmp_path / "x.png").size == (4, 3)


@pytest.mark.parametrize("orientation", range(10))
def test_exif_turns_as_pillow_does(tmp_path: Path, orientation: int) -> None:
    tags = Image.Exif()
    tags[0x0112] = orientation  # 0 and 9 say nothing
    Image.fromarray(RAMP, "L").save(tmp_path / "x.png", exif=tags)
    with Image.open(tmp_path / "x.png") as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    read = read_rgb(tmp_path / "x.png", exif=True)
    assert np.array_equal(np.asarray(read), expected)
    assert image_size(tmp_path / "x.png", exif=True) == read.size
    assert image_size(tmp_path / "x.png") == (4, 3)


TIFF = b"MM\x00*\x00\x00\x00\x08"
MALFORMED = {
    "garbage": b"garbage",
    "empty": b"",
    "cut header": TIFF[:6],
    "cut entry": TIFF + b"\x00\x01\x01\x12\x00\x03",
    "far directory": b"MM\x00*\xff\xff\xff\xff",
    "text for a number": TIFF + b"\x00\x01\x01\x12\x00\x02\x00\x00\x00\x02a\x00\x00\x00" + bytes(4),
    "a tag that Pillow cannot write": TIFF
    + b"\x00\x02\x01\x12\x00\x03\x00\x00\x00\x01\x00\x01\x00\x00\x87\x69\x00\x02\x00\x00\x00\x02a\x00\x00\x00"
    + bytes(4),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_exif_segment_turns_nothing(tmp_path: Path, name: str) -> None:
    """detectron2 issue 1885: such photos lie in COCO-like sets, and Detectron2 takes them as they
    are stored.

    Their JFIF header states a resolution: otherwise Pillow looks for one in the segment, and
    swallows the error.
    """
    plain, segment = jpeg(dpi=(72, 72)), b"Exif\0\0" + MALFORMED[name]
    (tmp_path / "plain.jpg").write_bytes(plain)
    odd = plain[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + plain[2:]
    (tmp_path / "odd.jpg").write_bytes(odd)
    expected = np.asarray(read_rgb(tmp_path / "plain.jpg"))
    for exif in (True, False):
        assert np.array_equal(np.asarray(read_rgb(tmp_path / "odd.jpg", exif=exif)), expected)


def jpeg(**options: Any) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "JPEG", **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not an image",
        jpeg()[:700],
        jpeg()[:20],
        b"\x89PNG\r\n\x1a\n" + bytes(40),
        b"GIF89a" + bytes(3),
        b"BM" + bytes(60),
    ],
    ids=["empty", "text", "truncated", "header", "png", "gif", "bmp"],
)
def test_unreadable(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x\ny.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match="unreadable image") as caught:
        read_rgb(path)
    assert f"seen: {len(content):,} bytes" in str(caught.value)
    assert caught.value.line().isprintable()


def test_missing_folder_and_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="image not found"):
        read_rgb(tmp_path / "x.jpg")
    with pytest.raises(DataError, match="unreadable image"):
        read_rgb(tmp_path)
    Image.new("L", (11, 10)).save(tmp_path / "x.png")
    monkeypatch.setattr(images, "MAX_PIXELS", 109)
    with pytest.raises(DataError, match=r"image is too large.*11 x 10 pixels"):
        read_rgb(tmp_path / "x.png")


@pytest.mark.parametrize(("foreground", "background"), [(255, 0), (1, 0), (128, 127), (200, 100)])
def test_masks_are_0_and_255(tmp_path: Path, foreground: int, background: int) -> None:
    values = np.full((2, 3), background, dtype=np.uint8)
    values[0, 1] = foreground
    Image.fromarray(values).save(tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png", (3, 2))
    assert mask.mode == "L"
    assert np.asarray(mask).tolist() == [[0, 255, 0], [0, 0, 0]]


def test_a_mask_of_another_size(tmp_path: Path) -> None:
    Image.new("L", (3, 2)).save(tmp_path / "m.png")
    assert np.asarray(read_mask(tmp_path / "m.png")).max() == 0
    with pytest.raises(
        DataError, match=r"mask and image differ in size.*mask 3 x 2, image 2 x 3.*masks make"
    ):
        read_mask(tmp_path / "m.png", (2, 3))


def test_find_images(tmp_path: Path) -> None:
    for name in ("b/2.JPG", "a.png", "b/1.jpeg", ".hidden/x.jpg", ".x.jpg", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    outside = tmp_path.with_name(f"{tmp_path.name}-outside")
    outside.mkdir()
    (outside / "z.png").touch()
    os.symlink(outside, tmp_path / "linked")
    assert find_images(tmp_path) == [
        Path("a.png"),
        Path("b/1.jpeg"),
        Path("b/2.JPG"),
        Path("linked/z.png"),
    ]


def test_find_images_does_not_go_round_in_links(tmp_path: Path) -> None:
    """`train/cat/all -> .` made 41 of each image of a class."""
    (tmp_path / "set" / "cat").mkdir(parents=True)
    (tmp_path / "set" / "cat" / "a.png").touch()
    (tmp_path / "set" / "cat" / "all").symlink_to(".")
    (tmp_path / "set" / "cat" / "up").symlink_to(tmp_path)
    (tmp_path / "set" / "copy").symlink_to("cat")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "back").symlink_to(tmp_path / "set" / "cat")
    (tmp_path / "set" / "cat" / "forth").symlink_to(tmp_path / "a")
    expected = [Path("cat/a.png"), Path("copy/a.png")]
    assert find_images(tmp_path / "set") == expected
    (tmp_path / "link").symlink_to("set")
    assert find_images(tmp_path / "link") == expected


def test_find_images_refuses(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="folder not found"):
        find_images(tmp_path / "absent")
    with pytest.raises(DataError, match=r"no images.*an empty folder"):
        find_images(tmp_path)
    (tmp_path / "a.txt").touch()
    with pytest.raises(DataError, match=r"no images.*1 other file;"):
        find_images(tmp_path)
    with pytest.raises(DataError, match="not a folder"):
        find_images(tmp_path / "a.txt")


@pytest.mark.parametrize("kind", ["palette", "16-bit", "0 and 100", "bool"])
def test_masks_of_other_scales_keep_their_foreground(tmp_path: Path, kind: str) -> None:
    inside = np.zeros((4, 6), bool)
    inside[1:3, 2:5] = True
    image = {
        "16-bit": lambda: Image.fromarray(inside.astype(np.uint16) * 65535),
        "0 and 100": lambda: Image.fromarray(inside.astype(np.uint8) * 100),
        "bool": lambda: Image.fromarray(inside),
        "palette": lambda: Image.fromarray(inside.astype(np.uint8), "P"),
    }[kind]()
    if kind == "palette":
        image.putpalette([0, 0, 0, 128, 0, 0])
    image.save(tmp_path / "m.png")
    assert np.array_equal(np.asarray(read_mask(tmp_path / "m.png")) > 0, inside)


@pytest.mark.parametrize(
    ("files", "mask"),
    [
        (["a/x.png", "a/x.jpg", "a/x_mask.png"], "a/x.png"),
        (["a/x.jpg", "a/x_mask.png"], "a/x_mask.png"),
        (["a/x.PNG"], "a/x.PNG"),
        (["a/x.jpg", "a/y.png"], "a/x.jpg"),
        (["a/x_mask.JPG"], "a/x_mask.JPG"),
        (["x.png", "a/xx.png", "a/x_masks.png"], None),
    ],
)
def test_the_mask_of_an_image(files: list[str], mask: str | None) -> None:
    assert masks.pair_masks(["a/x.jpeg"], files, "masks") == ({"a/x.jpeg": mask} if mask else {})


def test_one_mask_does_not_serve_two_images() -> None:
    with pytest.raises(
        DataError, match=r"two images would share one mask.*x_mask.png for x.jpg and x_mask.jpg"
    ):
        masks.pair_masks(["x.jpg", "x_mask.jpg"], ["x_mask.png"], "masks")
    assert len(masks.pair_masks(["x.jpg", "x_mask.jpg"], ["x_mask.png", "x.png"], "masks")) == 2


def test_a_label_image_is_no_mask(tmp_path: Path) -> None:
    """Of VOC's labels the outlines (255) were taken for the foreground, of DAVIS' one object."""
    label = np.zeros((6, 8), np.uint8)
    label[:2], label[2] = 15, 255
    image = Image.fromarray(label, "P")
    image.putpalette([value for color in voc_palette() for value in color])
    image.save(tmp_path / "m.png")
    with pytest.raises(DataError, match="a label image of several classes, not a mask"):
        read_mask(tmp_path / "m.png")
    image.putpalette([value for level in range(256) for value in (level,) * 3])
    image.save(tmp_path / "m.png")
    assert np.array_equal(np.asarray(read_mask(tmp_path / "m.png")) > 0, label == 255)

"""Reading images the same way everywhere: out comes RGB, whatever is in, or one clear error."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from harl_bench.core.errors import DataError, UnreadableError
from harl_bench.core.plain import open_plain

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".gif"})
IMAGENET_MEAN = (123.675, 116.28, 103.53)  # torchvision's mean and deviation of RGB values, x 255
IMAGENET_STD = (58.395, 57.12, 57.375)
T = TypeVar("T")
ORIENTATION = 0x0112  # EXIF tag
SIDEWAYS = (5, 6, 7, 8)  # its values that swap width and height
# a decompression bomb otherwise; the largest photographs of any set here have 40 million
MAX_PIXELS = 200_000_000


def read_rgb(
    path: str | os.PathLike[str], *, exif: bool = False, content: bytes | None = None
) -> Image.Image:
    """Decode an image to RGB: gray, palette, CMYK, alpha (dropped) and 16-bit (scaled to 8) alike.

    Args:
        path: the file; its content decides the format, not its name.
        exif: turn the image upright as its EXIF orientation says, which Detectron2 does and
            torchvision, in which the published methods were trained and classified, does not.
        content: the file's bytes, where `path` only names it (a member of a .tar).

    Raises:
        UnreadableError: missing, empty, truncated, not an image, of 32 bits whose white
            is not known, or above MAX_PIXELS.
    """
    import numpy as np
    from PIL import Image

    def rgb(opened: Image.Image) -> Image.Image:
        image = _upright(opened) if exif else opened
        if image.mode.startswith("I;16") or (image.mode == "I" and opened.format == "PPM"):
            # PIL's convert("RGB") clips 16 bits at 255: white
            levels = np.asarray(image, dtype=np.float64) / 257
            image = Image.fromarray(levels.round().astype(np.uint8), "L")
        elif image.mode in ("I", "F"):
            levels = np.asarray(image, dtype=np.float64)
            if not 1 < levels.max(initial=0) <= 255:  # 0 to 1, or up to any number
                raise UnreadableError(
                    "an image of 32 bits does not say which value is white",
                    where=path,
                    seen=f"values from {levels.min():g} to {levels.max():g}",
                    next="save it with 8 or 16 bits",
                )
            image = Image.fromarray(levels.clip(0).round().astype(np.uint8), "L")
        return image.convert("RGB")

    return _decoded(path, rgb, content)


def read_mask(
    path: str | os.PathLike[str],
    size: tuple[int, int] | None = None,
    *,
    content: bytes | None = None,
) -> Image.Image:
    """Decode a mask to 8-bit "L" with values 0 and 255.

    Foreground is above 127, or above half of the largest value where that is no 8-bit white (0/1,
    0/100, 0/65535); of a palette image the two indices count, not the colors.

    Args:
        path: the mask file.
        size: (width, height) it must have, its image's.
        content: as for `read_rgb`.

    Raises:
        UnreadableError: cannot be decoded.
        DataError: of another size than its image, or a label image of several classes.
    """
    import numpy as np
    from PIL import Image

    def levels(opened: Image.Image) -> np.ndarray[Any, Any]:
        plain = opened.mode in ("1", "L", "P") or opened.mode.startswith(("I", "F"))
        values = np.asarray(opened if plain else opened.convert("L"))
        if opened.mode == "P" and len(found := np.unique(values)) > 2:
            values = np.asarray(opened.convert("L"))
            if not np.array_equal(found, np.unique(values)):  # no gray scale
                raise DataError(
                    "a label image of several classes, not a mask",
                    where=path,
                    seen=f"{len(found)} colors",
                    next="save it anew: 255 where the foreground is, 0 elsewhere",
                )
        return values if values.dtype == np.uint8 else values.astype(np.float64)

    values = _decoded(path, levels, content)
    height, width = values.shape
    if size is not None and (width, height) != size:
        raise DataError(
            "mask and image differ in size",
            where=path,
            seen=f"mask {width} x {height}, image {size[0]} x {size[1]}",
            next="make the masks of these images again with: harl-bench masks make",
        )
    peak = float(values.max(initial=0))
    threshold = 127 if 127 < peak <= 255 else peak / 2
    return Image.fromarray((values > threshold).astype(np.uint8) * np.uint8(255), "L")


def read_label(path: str | os.PathLike[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Decode a label image to its classes, int64 [H, W]: of a palette image the indices count.

    Raises:
        UnreadableError: cannot be decoded.
        DataError: it has colors instead of classes.
    """
    import numpy as np

    def values(opened: Image.Image) -> np.ndarray[Any, np.dtype[np.int64]]:
        if opened.mode in ("L", "P") or opened.mode.startswith("I"):
            return np.asarray(opened).astype(np.int64)
        raise DataError(
            "a label image with colors instead of classes",
            where=path,
            seen=f"mode {opened.mode}",
            next="copy the original file: a palette image that was not converted",
        )

    return _decoded(path, values)


def image_size(path: str | os.PathLike[str], *, exif: bool = False) -> tuple[int, int]:
    """Return (width, height) from an image's header; its pixels are not decoded.

    Args:
        exif: of the image turned upright, as `read_rgb` returns it.

    Raises:
        UnreadableError: missing, or not an image.
    """
    from PIL import Image

    try:
        with open_plain(path) as file, Image.open(file) as opened:
            width, height = opened.size
            turned = exif and _orientation(opened) in SIDEWAYS
            return (height, width) if turned else (width, height)
    except Exception as error:  # decoders raise anything
        raise UnreadableError(
            "unreadable image",
            where=path,
            seen=_cause(path, None, error),
            next="replace or remove it",
        ) from None


def _upright(image: Image.Image) -> Image.Image:
    """Return the image turned as its EXIF orientation says, or as it is stored where its EXIF
    cannot be read.

    As D2:data/detection_utils.py:116-152 (detectron2 issue 1885). PIL's `exif_transpose` also
    writes the tags anew and fails on those that it cannot write.
    """
    from PIL import Image

    turns = Image.Transpose
    methods = {
        2: turns.FLIP_LEFT_RIGHT,
        3: turns.ROTATE_180,
        4: turns.FLIP_TOP_BOTTOM,
        5: turns.TRANSPOSE,
        6: turns.ROTATE_270,
        7: turns.TRANSVERSE,
        8: turns.ROTATE_90,
    }
    method = methods.get(_orientation(image))
    return image if method is None else image.transpose(method)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 where there is none or its EXIF cannot be read."""
    from PIL import Image

    try:
        # PNG's own getexif would decode the image, in case that EXIF stands behind the pixels.
        return int(Image.Image.getexif(image).get(ORIENTATION, 1))
    except Exception:  # whatever a malformed segment provokes: SyntaxError, struct.error, KeyError
        return 1


def _decoded(
    path: str | os.PathLike[str], convert: Callable[[Image.Image], T], content: bytes | None = None
) -> T:
    """Open and decode a file whole, and turn every way that can fail into one UnreadableError."""
    from PIL import Image

    try:
        with (
            open_plain(path) if content is None else io.BytesIO(content) as file,
            Image.open(file) as opened,
        ):
            if opened.width * opened.height > MAX_PIXELS:
                raise UnreadableError(
                    "image is too large",
                    where=path,
                    seen=f"{opened.width} x {opened.height} pixels",
                    next=f"scale it below {MAX_PIXELS:,} pixels",
                )
            opened.load()
            return convert(opened)
    except DataError:
        raise
    except FileNotFoundError:
        raise UnreadableError("image not found", where=path, next="check the path") from None
    except Exception as error:  # decoders raise anything: struct.error, KeyError, EOFError
        raise UnreadableError(
            "unreadable image",
            where=path,
            seen=_cause(path, content, error),
            next="replace or remove it",
        ) from None


def find_images(folder: str | os.PathLike[str]) -> list[Path]:
    """All image files below a folder, as sorted paths relative to it.

    Symbolic links are followed, except those to a folder that holds them.

    Raises:
        DataError: the folder is missing, is a file, or holds no image.
    """
    root = existing_folder(folder)
    others = 0
    found: list[Path] = []
    for path in _walk(root):
        if path.suffix.lower() in SUFFIXES:
            found.append(path.relative_to(root))
        else:
            others += 1
    if not found:
        raise no_images(root, others)
    return sorted(found)


def existing_folder(folder: str | os.PathLike[str]) -> Path:
    """The folder as a path.

    Raises:
        DataError: it is missing or a file.
    """
    root = Path(folder)
    if not root.exists():
        raise DataError("folder not found", where=root, next="check the path")
    if not root.is_dir():
        raise DataError("not a folder", where=root, next="give the folder that holds the images")
    return root


def no_images(root: Path, others: int) -> DataError:
    """The error of a folder with `others` files that are no images."""
    seen = f"{others} other file{'s' * (others > 1)}" if others else "an empty folder"
    return DataError(
        "no images",
        where=root,
        seen=seen,
        next=f"give a folder of {', '.join(sorted(SUFFIXES))} files",
    )


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = [n for n in folders if not n.startswith(".") and not loops(folder, n)]
        yield from (Path(folder) / name for name in files if not name.startswith("."))


def loops(folder: str | os.PathLike[str], name: str) -> bool:
    """Return whether a folder is a link to one that holds it: its images would be listed again."""
    path = os.path.join(folder, name)
    if not os.path.islink(path):
        return False
    target, here = os.path.realpath(path), Path(folder).absolute()
    above = (Path(os.path.realpath(at)) for at in (here, *here.parents))
    return any(at.is_relative_to(target) for at in above)


def _cause(path: str | os.PathLike[str], content: bytes | None, error: Exception) -> str:
    if content is not None:
        size = len(content)
    else:
        size = os.path.getsize(path) if os.path.exists(path) else 0
    return f"{size:,} bytes, {str(error) or type(error).__name__}"

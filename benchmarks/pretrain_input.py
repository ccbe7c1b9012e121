"""Pretraining's input on one core: decoding and two Table-A1 views with their masks.

    python -m benchmarks.pretrain_input [--images FOLDER] [--count 64] [--repeats 5] [--profile]

The rival is the plain torchvision-v2 pipeline on tensors, with GaussianBlur(23); both read the same
JPEG and PNG files and draw the same kind of views (tests/pretrain/test_colors.py compares their
statistics). They run in turn. Printed are images a second by the medians of CPU time, which other
processes disturb least, and the ratio. A last line leaves the colors to the device that trains.
Without a folder: made-up photographs of 500 x 375 px, ImageNet's usual size.
"""

import argparse
import cProfile
import pstats
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torchvision import io, tv_tensors
from torchvision.transforms import v2

from harl_bench.core.images import find_images, read_rgb
from pretrain import data
from pretrain.views import BYOL_VIEWS, View

SIZE = 224


def photographs(folder: Path, count: int, source: Path | None) -> tuple[Path, Path]:
    """Folders of `count` JPEGs and their masks: a folder's images, or smooth colors with grain."""
    images, masks = folder / "images", folder / "masks"
    images.mkdir()
    masks.mkdir()
    rng = np.random.default_rng(0)
    names = find_images(source)[:count] if source else []
    for i in range(len(names) or count):
        if source:
            image = read_rgb(source / names[i])
        else:
            noise = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
            coarse = noise.resize((500, 375))
            grain = rng.normal(0, 12, (375, 500, 1)) * rng.random((1, 1, 3))
            image = Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8))
        image.save(images / f"{i:04d}.jpg", quality=90)
        mask = np.zeros(image.size[::-1], np.uint8)
        h, w = mask.shape
        cv2.ellipse(mask, (w // 2, h // 2), (w // 4, h // 3), 20, 0, 360, 255, -1)
        Image.fromarray(mask).save(masks / f"{i:04d}.png")
    return images, masks


def plain(recipe: View) -> v2.Compose:
    """One view of Table A1 from torchvision's own parts."""
    return v2.Compose(
        [
            v2.RandomResizedCrop(
                SIZE, recipe.crop_area, interpolation=v2.InterpolationMode.BICUBIC, antialias=True
            ),
            v2.RandomHorizontalFlip(recipe.flip),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.2, 0.1)], recipe.jitter),
            v2.RandomGrayscale(recipe.grayscale),
            v2.RandomApply([v2.GaussianBlur(23, recipe.blur_sigma)], recipe.blur),
            v2.RandomSolarize(128, recipe.solarize),
            v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
            v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )


def rival(images: Path, masks: Path) -> Callable[[int], object]:
    """Decoding by torchvision, then both views."""
    names = sorted(p.stem for p in images.iterdir())
    views = [plain(recipe) for recipe in BYOL_VIEWS]

    def sample(i: int) -> object:
        pixels = io.decode_image(str(images / f"{names[i]}.jpg"), io.ImageReadMode.RGB)
        inside = io.decode_image(str(masks / f"{names[i]}.png"), io.ImageReadMode.GRAY)
        image, mask = tv_tensors.Image(pixels), tv_tensors.Mask(inside)
        return [view(image, mask) for view in views]

    return sample


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="where our time goes, by function")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as folder:
        images, masks = photographs(Path(folder), options.count, options.images)
        found = data.find(images, masks)
        ours, left = (
            data.TwoViews(found, views=BYOL_VIEWS, size=SIZE, seed=0, unfinished=unfinished)
            for unfinished in (False, True)
        )
        torch.manual_seed(0)
        sides: dict[str, Callable[[int], object]] = {
            "torchvision v2": rival(images, masks),
            "ours": lambda i: ours[0, i],
            "ours, colors left to the GPU": lambda i: left[0, i],
        }
        n = len(found.paths)
        if options.profile:
            profile = cProfile.Profile(time.process_time)
            profile.runcall(lambda: [ours[0, i] for i in range(n)])
            pstats.Stats(profile).sort_stats("tottime").print_stats(14)
        times: dict[str, list[float]] = {name: [] for name in sides}
        for repeat in range(options.repeats + 1):
            for name, sample in sides.items():
                began = time.process_time()
                for i in range(n):
                    sample(i)
                if repeat:
                    times[name].append((time.process_time() - began) / n)
    for name, column in times.items():
        ratio = statistics.median(
            a / b for a, b in zip(times["torchvision v2"], column, strict=True)
        )
        spent = statistics.median(column)
        print(
            f"{name:30} {1 / spent:7.1f} images/s a core   {1e3 * spent:6.2f} ms   ratio "
            f"{ratio:5.2f}"
        )


if __name__ == "__main__":
    main()

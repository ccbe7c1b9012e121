"""How good masks are, and how fast, beside what anyone could do in a line of OpenCV.

    python -m benchmarks.masks quality IMAGES [--checkpoint CKPT] [--only WORD] [--sheet FILE]
    python -m benchmarks.masks speed [--count 8]

`quality` wants IMAGES/images and IMAGES/masks (ground truth). Fitted makers are cross-fitted: each
half of the images is scored by a maker that saw only the other half. `speed` makes up photographs
of 500x375 px and uses one core. Both take --json FILE. Without arguments: speed.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from harl_bench.core.images import read_mask, read_rgb
from harl_bench.core.progress import set_up_logging, track
from harl_bench.masks import drfi, finish, makers, preview, quality
from harl_bench.masks.regions import PAPER_PX

Image = NDArray[np.uint8]
Foreground = NDArray[np.bool_]
SIDE = (375, 500)


def centre_ellipse(rgb: Image) -> Foreground:
    """An ellipse of 0.6 of the image's sides: the guess without looking."""
    h, w = rgb.shape[:2]
    y, x = np.mgrid[:h, :w]
    return np.asarray(((y - h / 2) / h) ** 2 + ((x - w / 2) / w) ** 2 < 0.3**2)


def otsu_luminance(rgb: Image) -> Foreground:
    """Brighter than Otsu's threshold."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)[1] > 0)


def opencv(create: str) -> Callable[[Image], Foreground]:
    """One of OpenCV's own saliency detectors, then Otsu."""

    def mask(rgb: Image) -> Foreground:
        maker: Any = getattr(cv2.saliency, create)()
        computed, saliency = maker.computeSaliency(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
        assert computed, "OpenCV computes saliency of every image here"
        return finish.binarise(np.asarray(saliency, np.float32), "otsu")

    return mask


RIVALS: dict[str, Callable[[Image], Foreground]] = {
    "centre ellipse": centre_ellipse,
    "Otsu on luminance": otsu_luminance,
    "OpenCV spectral residual + Otsu": opencv("StaticSaliencySpectralResidual_create"),
    "OpenCV fine-grained + Otsu": opencv("StaticSaliencyFineGrained_create"),
}


def finished(maker: makers.Maker, name: str, **threshold: str) -> Callable[[Image], Foreground]:
    """A maker of ours with its threshold and clean-up, as `masks make` applies them."""
    level = makers.threshold_of(name, **threshold)
    return lambda rgb: finish.finish(maker(rgb, Path("image")), rgb.shape[:2], level)[0] > 0


def quality_table(
    root: Path, limit: int | None, checkpoint: str | None, only: str
) -> tuple[dict[str, Any], list[preview.Card]]:
    """Mean scores in percent of the makers whose name holds `only`; drfi's best and worst cards."""
    from harl_bench.masks.fit import image_names

    names = image_names(root / "images", limit)
    pairs = [(root / "images" / name, root / "masks" / name.with_suffix(".png")) for name in names]
    scores: dict[str, list[dict[str, float]]] = {}
    cards: list[tuple[float, preview.Card]] = []  # with their foreground IoU

    def measure(
        name: str, mask: Callable[[Image], Foreground], some: list[tuple[Path, Path]]
    ) -> None:
        for image, truth in track(some, name):
            rgb = np.asarray(read_rgb(image))
            true = np.asarray(read_mask(truth, rgb.shape[1::-1])) > 0
            made = mask(rgb)
            scores.setdefault(name, []).append(quality.scores(made, true))
            if name == "drfi":
                iou = scores[name][-1]["foreground_iou"]
                note = f"foreground IoU {iou:.0f} %"
                cards.append((iou, preview.Card(rgb, made, image.name, note, true)))

    lite = finished(makers.method_of("drfi-lite").maker(), "drfi-lite")
    for name, mask in {**RIVALS, "drfi-lite": lite}.items():
        if only in name:
            measure(name, mask, pairs)
    for half in (0, 1):
        seen, unseen = pairs[half::2], pairs[1 - half :: 2]
        for name, how, steps in (
            ("drfi, HARL paper's single level", drfi.Fit(levels="single", work_px=PAPER_PX), 0),
            ("drfi", drfi.Fit(), 2),
        ):
            if only in name:
                forest, _ = drfi.fit(seen, how, seed=0, workers=0)
                measure(name, finished(drfi.DrfiMaker(how, forest, steps), "drfi"), unseen)
        if checkpoint and only in "deep":
            measure(f"deep on {Path(checkpoint).name}", _deep(seen, checkpoint), unseen)
    ranked = [card for _, card in sorted(cards, key=lambda pair: -pair[0])]
    return {name: quality.mean(rows) for name, rows in scores.items()}, [*ranked[:6], *ranked[-6:]]


def _deep(seen: list[tuple[Path, Path]], checkpoint: str) -> Callable[[Image], Foreground]:
    """A head trained on drfi-lite's masks of the images seen; their ground truth is not used."""
    from harl_bench.masks import deep
    from harl_bench.masks.fit import pseudo_masks

    with tempfile.TemporaryDirectory() as folder:
        root = seen[0][0].parent
        names = [image.relative_to(root) for image, _ in seen]
        pairs = pseudo_masks(root, Path(folder) / "masks", names, "drfi-lite", workers=0)
        out = Path(folder) / "head.safetensors"
        deep.fit(pairs, deep.Fit(), out, {}, checkpoint=checkpoint, seed=0, device="auto")
        return finished(makers.method_of("deep", model=out).maker(), "deep")


def speed_table(count: int) -> dict[str, Any]:
    """Images a second of one core at 500x375, by CPU time: other work counts little."""
    photographs = [photograph(seed) for seed in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        pairs = []
        for i, (rgb, truth) in enumerate(photographs):
            paths = Path(folder) / f"{i}.png", Path(folder) / f"{i}-mask.png"
            cv2.imwrite(str(paths[0]), rgb[..., ::-1])
            cv2.imwrite(str(paths[1]), truth.astype(np.uint8) * 255)
            pairs.append(paths)
        fitted = {
            name: drfi.DrfiMaker(how, drfi.fit(pairs, how, seed=0, workers=0)[0], steps)
            for name, how, steps in (
                ("drfi, HARL paper's single level", drfi.Fit(levels="single", work_px=PAPER_PX), 0),
                ("drfi", drfi.Fit(), 2),
                ("drfi levels=fifteen", drfi.Fit(levels="fifteen"), 2),
            )
        }
    ours = {"drfi-lite": finished(makers.method_of("drfi-lite").maker(), "drfi-lite")}
    ours |= {name: finished(maker, "drfi") for name, maker in fitted.items()}
    images = [rgb for rgb, _ in photographs]
    regions = {"scikit-image felzenszwalb (regions alone)": _felzenszwalb}
    rows = {name: _rate(mask, images) for name, mask in (regions | RIVALS | ours).items()}
    small = [cv2.resize(rgb, (32, 32), interpolation=cv2.INTER_AREA) for rgb in images]
    return rows | {"drfi-lite, images of 32 px": _rate(ours["drfi-lite"], small * 8)}


def _rate(mask: Callable[[Image], Foreground], images: list[Image]) -> float:
    """Images a CPU second."""
    mask(images[0])  # load what is loaded on use
    began = time.process_time()
    for rgb in images:
        mask(rgb)
    return len(images) / (time.process_time() - began)


def _felzenszwalb(rgb: Image) -> Foreground:
    """The official repository's only step: regions, no saliency (spec 4.1)."""
    from skimage.segmentation import felzenszwalb

    return np.asarray(
        felzenszwalb(rgb, scale=sum(rgb.shape[:2]) // 8, sigma=0.5, min_size=1000) > 0
    )


def photograph(seed: int) -> tuple[Image, Foreground]:
    """Something as busy as a photograph at 500x375: shaded, textured patches and one object."""
    rng = np.random.default_rng(seed)
    h, w = SIDE
    image = np.zeros((h, w, 3), np.float32)
    for octave in (4, 8, 16, 64, 375):
        coarse = rng.normal(0, 1, (octave, octave, 3)).astype(np.float32)
        image += cv2.resize(coarse, (w, h), interpolation=cv2.INTER_CUBIC) * (60 / octave**0.4)
    y, x = np.mgrid[:h, :w]
    truth = np.asarray(
        (y - h * rng.uniform(0.35, 0.65)) ** 2 + (x - w * rng.uniform(0.35, 0.65)) ** 2 < 90**2
    )
    image[truth] += rng.choice([-90, 90], 3)
    return (image + 128).clip(0, 255).astype(np.uint8), truth


def main() -> None:
    """Print one of the two tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command")
    good = commands.add_parser("quality")
    good.add_argument("images", type=Path)
    good.add_argument("--limit", type=int)
    good.add_argument("--checkpoint", help="also measure deep on this checkpoint, or on 'random'")
    good.add_argument("--only", default="", help="only makers whose name holds this word")
    good.add_argument("--sheet", type=Path, help="write drfi's best and worst images here")
    fast = commands.add_parser("speed")
    fast.add_argument("--count", type=int, default=8)
    for command in (good, fast):
        command.add_argument("--json", type=Path)
    options = parser.parse_args(sys.argv[1:] or ["speed"])
    set_up_logging()
    cv2.setNumThreads(1)
    if options.command == "quality":
        rows, cards = quality_table(options.images, options.limit, options.checkpoint, options.only)
        print(f"| maker | {' | '.join(next(iter(rows.values())))} |")
        print(f"|---|{'--:|' * len(next(iter(rows.values())))}")
        for name, row in rows.items():
            print(f"| {name} | {' | '.join(f'{value:.1f}' for value in row.values())} |")
        if options.sheet and cards:
            note = "orange: made, blue: truth"
            preview.grid(cards, "drfi cross-fitted: best and worst", note).save(options.sheet)
    else:
        rows = speed_table(options.count)
        rival = next(iter(rows.values()))
        print(f"{'one core, 500x375':<45} {'photographs/s':>10} {'ratio':>7}")
        for name, rate in rows.items():
            print(f"{name:<45} {rate:>10.1f} {rate / rival:>7.2f}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""DRFI (Jiang et al., CVPR 2013): a random forest scores regions by 93 features.

The scores are fused over several segmentations. The forest is fitted on labelled images
(`harl-bench masks fit --method drfi`), by the authors on MSRA: masks of this maker are not made
without supervision, whatever the HARL paper's wording (spec 4.1). Nothing fitted is shipped.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from harl_bench.core.config import Config
from harl_bench.core.errors import DataError, UsageError
from harl_bench.masks import forest as forests
from harl_bench.masks import region_features as f
from harl_bench.masks import regions as r
from harl_bench.masks.drfi_lite import DrfiLite, color_posterior, engine_name, to_lab
from harl_bench.masks.forest import Forest
from harl_bench.masks.regions import Floats, Image, Labels

# a region with this fraction inside or outside the truth is an example, others are left out (DRFI)
SURE = 0.8
SURPLUS = 1.2  # examples of the larger class, per example of the smaller one (authors' balanceData)
REFINE_PX = 256 * 192  # as drfi-lite
# (sigma, k, min_size px at 400x300). The authors' fifteen rows lie in a binary file; their ranges
# and three rows are known (spec 4.1), and these fifteen keep to them.
SCALES = ((100, 150), (200, 200), (300, 250), (400, 300), (600, 300))
LEVELS = {
    "three": DrfiLite().levels,
    "fifteen": tuple(
        (sigma, float(k), float(size)) for sigma in (0.8, 0.9, 1.0) for k, size in SCALES
    ),
}


class Segmentation(Config):
    """Parameters of cutting an image into regions.

    levels: "three" or "fifteen" segmentations, or a list of (sigma, k, min_size px) at 400x300.
        "single" is the HARL paper's: k = (h + w) / 8, `sigma` and `min_size` px (at 500x375), which
        the other settings leave unused.
    work_px: larger images are shrunk to this many pixels, by default to those DRFI was developed
        on.
    """

    sigma: float = Field(default=0.8, gt=0, le=10)
    min_size: float = Field(default=1000, ge=1)
    levels: Literal["single", "three", "fifteen"] | tuple[r.Level, ...] = "three"
    work_px: int = Field(default=r.REFERENCE_PX, ge=64)
    engine: Literal["opencv", "skimage"] = "opencv"

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        if self.levels != "single" and (self.sigma, self.min_size) != (0.8, 1000):
            raise UsageError(
                "sigma and min_size belong to the single segmentation",
                seen=f"levels={self.levels}",
                next="add levels=single, or give levels as a list of [sigma, k, min_size]",
            )
        return self

    def cut(self, rgb: Image) -> list[Labels]:
        """Return all segmentations of a working image [h, w, 3]."""
        if self.levels == "single":
            h, w = rgb.shape[:2]
            size = max(2, round(self.min_size * h * w / r.PAPER_PX))
            return [
                r.segment(rgb, sigma=self.sigma, k=(h + w) / 8, min_size=size, engine=self.engine)
            ]
        levels = LEVELS[self.levels] if isinstance(self.levels, str) else self.levels
        return [r.segment_scaled(rgb, level, self.engine) for level in levels]


class Fit(Segmentation):
    """Parameters of `masks fit --method drfi`; the numbers are those of the authors' code."""

    trees: int = Field(default=200, ge=1, le=10_000)
    features_per_split: int = Field(default=15, ge=1, le=len(f.NAMES))


class Drfi(Segmentation):
    """Parameters of drfi.

    The HARL paper's: levels=single work_px=187500 when fitting, refine_steps=0 when making.

    model: the file that `masks fit` wrote; by default images are cut as they were for fitting.
    refine_steps: of drfi-lite's two-color-model posterior on the fused map. paper: none; here: 2,
        as in drfi-lite; because it follows outlines that no region has. 0 leaves DRFI's own map.
    """

    model: Path
    refine_steps: int = Field(default=2, ge=0, le=20)

    @model_validator(mode="before")
    @classmethod
    def _cut_as_fitted(cls, values: dict[str, Any]) -> dict[str, Any]:
        if values.get("model") is None:
            raise UsageError(
                "drfi needs a fitted forest",
                where="--model",
                next=(
                    "harl-bench masks fit IMAGES --masks MASKS --method drfi --out FILE, or "
                    "--method drfi-lite"
                ),
            )
        _, about = forests.load(Path(values["model"]), len(f.NAMES))
        return {**about.get("segmentation", {}), **values}

    def describe_engine(self) -> str:
        """Return the program that cuts the regions; the parameters have the forest's digest."""
        return engine_name(self.engine)

    def maker(self) -> "DrfiMaker":
        """Load the forest."""
        return DrfiMaker(self, forests.load(self.model, len(f.NAMES))[0], self.refine_steps)


class DrfiMaker:
    """A maker that scores regions by a forest."""

    def __init__(self, segmentation: Segmentation, forest: Forest, refine_steps: int = 0) -> None:
        self._segmentation, self._forest, self._steps = segmentation, forest, refine_steps

    def __call__(self, rgb: Image, relative: Path) -> NDArray[np.float32]:
        """Return saliency [h, w] in 0..1; zeros for an image too small to hold regions."""
        small = r.shrink(rgb, self._segmentation.work_px)
        if min(small.shape[:2]) < r.SMALLEST_SIDE_PX:
            return np.zeros(small.shape[:2], np.float32)
        pixels = f.channels(small)
        levels = [
            (labels, self._forest.predict(f.features(labels, pixels)))
            for labels in self._segmentation.cut(small)
        ]
        fused = fuse(levels)
        return refine(small, fused, self._steps) if self._steps else fused


def fuse(levels: Sequence[tuple[Labels, Floats]]) -> NDArray[np.float32]:
    """Paint the regions' scores [n] and average over segmentations: [h, w] in 0..1 (DRFI)."""
    painted = [r.unit(np.exp(1.25 * r.unit(scores)))[labels] for labels, scores in levels]
    return r.unit(np.mean(painted, axis=0)).astype(np.float32)


def refine(rgb: Image, saliency: NDArray[np.float32], steps: int) -> NDArray[np.float32]:
    """Return the posterior of being foreground, with the map [h, w] as prior."""
    import cv2

    small = r.shrink(rgb, REFINE_PX)
    prior = cv2.resize(saliency, small.shape[1::-1], interpolation=cv2.INTER_AREA)
    return color_posterior(small, to_lab(small), r.unit(prior.astype(np.float64)), steps)


def examples(
    rgb: Image, truth: NDArray[np.bool_], segmentation: Segmentation
) -> tuple[NDArray[np.float32], Floats]:
    """Return features [n, 93] and targets [n] of sure foreground (1) and background (0) regions."""
    import cv2

    small = r.shrink(rgb, segmentation.work_px)
    h, w = small.shape[:2]
    if min(h, w) < r.SMALLEST_SIDE_PX:
        return np.zeros((0, len(f.NAMES)), np.float32), np.zeros(0)
    inside = cv2.resize(truth.astype(np.float32), (w, h), interpolation=cv2.INTER_AREA)
    pixels = f.channels(small)
    rows, targets = [], []
    for labels in segmentation.cut(small):
        fraction = r.region_mean(labels, int(labels.max()) + 1, inside)[:, 0]
        sure = np.maximum(fraction, 1 - fraction) >= SURE
        rows.append(f.features(labels, pixels)[sure])
        targets.append((fraction[sure] > 0.5).astype(float))
    return np.concatenate(rows), np.concatenate(targets)


def fit(
    pairs: Sequence[tuple[Path, Path]], parameters: Fit, *, seed: int, workers: int
) -> tuple[Forest, dict[str, int]]:
    """Fit a forest to (image, mask) files; return it and the number of regions of each class.

    Raises:
        DataError: unreadable, or no region is surely foreground or none surely background.
    """
    from harl_bench.masks.fit import mapped

    parts = mapped(partial(_examples_of, segmentation=parameters), pairs, "regions", workers)
    rows, targets = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    selected = _balanced(targets, np.random.default_rng(seed))
    rows, targets = rows[selected], targets[selected]
    trees, tried = parameters.trees, parameters.features_per_split
    forest = forests.fit(rows, targets, trees=trees, features_per_split=tried, seed=seed)
    positive = int(targets.sum())
    return forest, {"foreground_regions": positive, "background_regions": len(targets) - positive}


def _examples_of(
    pair: tuple[Path, Path], segmentation: Segmentation
) -> tuple[NDArray[np.float32], Floats]:
    from harl_bench.core.images import read_mask, read_rgb

    rgb = np.asarray(read_rgb(pair[0]))
    truth = np.asarray(read_mask(pair[1], (rgb.shape[1], rgb.shape[0]))) > 0
    return examples(rgb, truth, segmentation)


def _balanced(targets: Floats, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return row numbers: all of the smaller class, and of the other SURPLUS times as many."""
    classes = [np.flatnonzero(targets == value) for value in (0, 1)]
    fewest = min(map(len, classes))
    if fewest == 0:
        raise DataError(
            "no region is surely foreground, or none surely background",
            seen=f"{len(classes[1])} foreground and {len(classes[0])} background regions",
            next="give masks of whole objects, foreground 255, or more images",
        )
    most = max(fewest, int(fewest * SURPLUS))
    samples = [rng.permutation(c)[:most] if len(c) > fewest else c for c in classes]
    return np.sort(np.concatenate(samples))

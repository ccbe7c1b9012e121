"""drfi-lite: a label-free score of regions.

No parameter was learned and no labelled image was used.

DRFI (Jiang et al.) learns from labelled images how 93 regional features make a region salient. Here
four of its ideas and their label-free descendants are added up instead (spec: HARL paper's maker A
without its regressor):

1. contrast: how far a region's colors lie from the other regions', near ones counting more (DRFI)
2. backgroundness: how far they lie from those of the image's border strip (DRFI)
3. seclusion: length of the cheapest path to the image's rim through neighbouring regions (Wei et
   al. 2012)
4. weighted contrast: to regions that are well connected with the rim, spread over a graph of alike
   regions (robust background detection, Zhu et al. 2014)

The sum, times a centre prior, is averaged over several segmentations. The map is then the prior of
a two-color-model posterior: how much likelier a pixel's color is inside than outside, by soft
histograms (as GrabCut, without its graph cut, which costs ten times more and gained nothing).
"""

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harl_bench.core.config import Config
from harl_bench.masks import regions as r
from harl_bench.masks.regions import Floats, Image, Labels, Layout

CENTRE_SIGMA = 0.33  # of the side; spec 4.1
NEAR = 0.4  # reach of regional contrast, of the longer side (DRFI)
COLOR_SIGMA = 10.0  # Lab units that still count as the same surface (Zhu et al. 2014)
REACH = 0.25  # reach of background-weighted contrast, of the longer side (Zhu et al. 2014)
CLIP = 3.0  # Lab difference of neighbours by shading alone, free on a path (Wei et al. 2012)
BINS = 8  # per Lab axis, for regional histograms (DRFI)
MODEL_BINS = 12  # per Lab axis, for the two color models


class DrfiLite(Config):
    """Parameters of drfi-lite.

    levels: (sigma, k, min_size px) of each segmentation at 400x300.
    work_px: pixels of the map that the color models follow.
    region_px: pixels at which regions are cut and scored. paper (DRFI): 400x300 for all; here:
        160x120; because it is three times faster and no worse on ECSSD.
    min_region_px: the smallest region. On ECSSD at 32 px, 6 costs 1.2 points of IoU and 2 (no
        limit) twice the time.
    """

    levels: tuple[r.Level, ...] = Field(
        default=((0.8, 150, 180), (0.8, 300, 360), (0.8, 450, 600)), min_length=1
    )
    work_px: int = Field(default=256 * 192, ge=64)
    region_px: int = Field(default=160 * 120, ge=64)
    min_region_px: int = Field(default=6, ge=2)
    refine_steps: int = Field(default=2, ge=0, le=20)
    engine: Literal["opencv", "skimage"] = "opencv"

    def describe_engine(self) -> str:
        """Return the program that cuts the regions."""
        return engine_name(self.engine)

    def maker(self) -> "DrfiLite":
        """Return itself: there is nothing to load."""
        return self

    def __call__(self, rgb: Image, relative: Path) -> NDArray[np.float32]:
        """Return saliency [h, w] in 0..1 of an image [H, W, 3]; zeros if too small for regions."""
        import cv2

        small = r.shrink(rgb, self.work_px)
        if min(small.shape[:2]) < r.SMALLEST_SIDE_PX:
            return np.zeros(small.shape[:2], np.float32)
        lab = to_lab(small)
        cut = r.shrink(rgb, self.region_px)
        cut_lab = lab if cut.shape == small.shape else to_lab(cut)
        bins = bins_of(cut_lab, BINS)
        prior = np.zeros(cut.shape[:2])
        for level in self.levels:
            labels = r.segment_scaled(cut, level, self.engine, self.min_region_px)
            prior += r.unit(score(labels, cut_lab, bins))[labels]
        prior = cv2.resize(prior, small.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        return color_posterior(small, lab, r.unit(prior), self.refine_steps)


def engine_name(engine: str) -> str:
    """Return the program with its version, such as `opencv 5.0.0 graph segmentation`."""
    if engine == "skimage":
        from importlib.metadata import version

        return f"scikit-image {version('scikit-image')} felzenszwalb"
    import cv2

    return f"opencv {cv2.__version__} graph segmentation"


def to_lab(rgb: Image) -> NDArray[np.float32]:
    """Return CIE Lab [h, w, 3]: L 0..100, a and b about -128..127."""
    import cv2

    lab: NDArray[np.float32] = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    return lab


def score(labels: Labels, lab: NDArray[np.float32], bins: NDArray[np.int64]) -> Floats:
    """Return the saliency of each region, [n], not normalised.

    Args:
        lab: the colors, [h, w, 3].
        bins: their bins, [h, w], with BINS per axis.
    """
    layout = r.layout(labels)
    color = r.region_mean(labels, layout.n, lab)
    apart = _distances(color)
    h, w = labels.shape
    centre_px = layout.centre * (w, h) / max(h, w)
    away = _distances(centre_px)
    histograms = r.region_histogram(labels, layout.n, bins, BINS**3)
    path = paths(layout, apart)
    cues = (
        contrast(histograms, layout, apart, away),
        backgroundness(labels, lab, bins, color, histograms),
        seclusion(layout, path),
        background_weighted(layout, apart, away, path),
    )
    prior: Floats = np.exp(-((layout.centre - 0.5) ** 2).sum(axis=1) / (2 * CENTRE_SIGMA**2))
    return np.asarray(np.sum([r.unit(cue) for cue in cues], axis=0) * prior)


def contrast(histograms: Floats, layout: Layout, apart: Floats, away: Floats) -> Floats:
    """Return how far colors and histograms lie from the others', by area and nearness."""
    weight = np.exp(-away / NEAR) * layout.area
    np.fill_diagonal(weight, 0)
    weight /= weight.sum(axis=1, keepdims=True) + 1e-12
    unlike = r.chi_square_pairs(histograms)
    return r.unit((unlike * weight).sum(axis=1)) + r.unit((apart * weight).sum(axis=1))


def backgroundness(
    labels: Labels,
    lab: NDArray[np.float32],
    bins: NDArray[np.int64],
    color: Floats,
    histograms: Floats,
) -> Floats:
    """Return how far each region's color and histogram lie from those of the border strip."""
    strip = r.border_strip(*labels.shape)
    unlike = r.chi_square(histograms, np.bincount(bins[strip], minlength=BINS**3) / strip.sum())
    return r.unit(unlike) + r.unit(np.linalg.norm(color - lab[strip].mean(axis=0), axis=1))


def paths(layout: Layout, apart: Floats) -> Floats:
    """Return the length of the cheapest path between all regions, [n, n].

    Steps lead to neighbours, and from each region on the rim to all others on it. A step costs the
    color difference above CLIP.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import shortest_path

    steps = np.where(_linked(layout), np.maximum(apart - CLIP, 1e-6), 0)
    lengths: Floats = shortest_path(csr_array(steps), directed=False)
    return lengths


def seclusion(layout: Layout, path: Floats) -> Floats:
    """Return the length of the cheapest path from each region to the rim, [n]."""
    return np.asarray(path[:, layout.edge > 0].min(axis=1))


def background_weighted(layout: Layout, apart: Floats, away: Floats, path: Floats) -> Floats:
    """Return contrast to probable background, smoothed over a graph (Zhu et al. 2014, eq. 9)."""
    same = np.exp(-(path**2) / (2 * COLOR_SIGMA**2))
    rim_contact = (same @ layout.edge) / np.sqrt(same @ layout.area)  # "boundary connectivity"
    background = 1 - np.exp(-(rim_contact**2) / 2)
    near = np.exp(-(away**2) / (2 * REACH**2))
    relative_area = layout.area / layout.area.mean()
    foreground = r.unit((apart * near) @ (background * relative_area))

    steps = (layout.touching > 0).astype(np.float32)
    linked = _linked(layout) | (steps @ steps > 0)  # neighbours of neighbours too
    alike = np.where(linked, np.exp(-(apart**2) / (2 * COLOR_SIGMA**2)), 0)
    alike = alike * np.sqrt(relative_area[:, None] * relative_area)
    np.fill_diagonal(alike, 0)
    # background counts five times, as in the authors' code
    pull = 5 * background * relative_area + foreground * relative_area + 1e-6
    system = np.diag(alike.sum(axis=1) + pull) - alike
    return np.linalg.solve(system, foreground * relative_area)


def color_posterior(
    rgb: Image, lab: NDArray[np.float32], prior: Floats, steps: int
) -> NDArray[np.float32]:
    """Return the probability [h, w] of foreground, by a prior map and two soft color histograms.

    The prior is undecided (0.5) at its own Otsu threshold. A guided filter makes edges follow the
    image.
    """
    import cv2
    from scipy.ndimage import gaussian_filter
    from skimage.filters import threshold_otsu

    if prior.max() <= prior.min():
        return np.zeros(prior.shape, np.float32)
    radius_px = max(1, round(8 * (prior.size / (256 * 192)) ** 0.5))
    start = 1 / (1 + np.exp(-10 * (prior - threshold_otsu(prior))))
    guide = rgb.astype(np.float32) / 255
    bins = bins_of(lab, MODEL_BINS).ravel()
    cube = (MODEL_BINS,) * 3
    posterior = start
    for _ in range(steps):
        models = []
        for weight in (posterior, 1 - posterior):
            counts = np.bincount(bins, weight.ravel(), MODEL_BINS**3).reshape(cube)
            models.append(gaussian_filter(counts / counts.sum(), 0.7) + 1e-5)
        evidence = np.log(models[0] / models[1]).ravel()[bins].reshape(prior.shape)
        odds = evidence + np.log((start + 1e-3) / (1 - start + 1e-3))
        raw = (1 / (1 + np.exp(-odds))).astype(np.float32)
        posterior = np.clip(cv2.ximgproc.guidedFilter(guide, raw, radius_px, 1e-3), 0, 1)
    return np.asarray(posterior, np.float32)


def _linked(layout: Layout) -> NDArray[np.bool_]:
    """Return [n, n] whether two regions touch, or both lie on the rim."""
    rim = layout.edge > 0
    linked: NDArray[np.bool_] = (layout.touching > 0) | (rim[:, None] & rim)
    np.fill_diagonal(linked, False)
    return linked


def _distances(points: Floats) -> Floats:
    from scipy.spatial.distance import cdist

    distances: Floats = cdist(points, points)
    return distances


def bins_of(lab: NDArray[np.float32], per_axis: int) -> NDArray[np.int64]:
    """Return the color bin of each pixel, [h, w], with `per_axis` bins on each axis of Lab."""
    # photographs rarely leave a, b in -64..64
    low, span = np.array([0, -64, -64]), np.array([100, 128, 128])
    axis = np.clip((lab - low) / span * per_axis, 0, per_axis - 1).astype(np.int64)
    bins: NDArray[np.int64] = (axis[..., 0] * per_axis + axis[..., 1]) * per_axis + axis[..., 2]
    return bins

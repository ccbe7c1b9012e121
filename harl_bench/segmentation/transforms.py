"""Training and test images: resized, cropped, flipped, distorted, padded.

Images are RGB uint8 [H, W, 3], labels uint8 [H, W]. Every random number comes from the generator
that is passed in, in mmsegmentation's order: the same `np.random.RandomState` gives its pipeline's
images. Sizes are (width, height).
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from harl_bench.segmentation.confusion import IGNORED, Labels
from harl_bench.segmentation.recipe import Input

Pixels = NDArray[np.uint8]
Size = tuple[int, int]
TRIES = 10  # crops that are drawn for cat_max_ratio (mmsegmentation 1.2.2, RandomCrop)
BRIGHTNESS, CONTRAST, SATURATION, HUE = 32, (0.5, 1.5), (0.5, 1.5), 18  # its PhotoMetricDistortion
LEVELS = np.arange(256, dtype=np.uint8)


def for_training(
    image: Pixels, label: Labels, random: np.random.RandomState, settings: Input
) -> tuple[Pixels, Labels]:
    """Return a random crop of at most crop_px x crop_px, before padding."""
    scaled = random_size((image.shape[1], image.shape[0]), random, settings)
    image, label = resized(image, scaled), resized(label, scaled, nearest=True)
    rows, columns = random_crop(label, random, settings.crop_px, settings.cat_max_ratio)
    image, label = image[rows, columns], label[rows, columns]
    if settings.flip and random.random_sample() < 0.5:
        image, label = cv2.flip(image, 1), cv2.flip(label, 1)
    if settings.photometric:
        image = distorted(image, random)
    return np.ascontiguousarray(image), np.ascontiguousarray(label)


def random_size(size: Size, random: np.random.RandomState, settings: Input) -> Size:
    """Return the size of an image after its random ratio.

    paper (MoCo): a ratio in [0.5, 2.0], no more is stated; here, with ratio_step 0.25: steps of
    0.25 of the image's own size, because its author points to the public DeepLab implementation.
    """
    low, high = settings.ratio
    if settings.ratio_step:
        ratio = low + settings.ratio_step * random.randint(
            int((high - low) / settings.ratio_step + 1e-9) + 1
        )
    else:
        ratio = random.random_sample() * (high - low) + low
    if settings.scale_px is None:
        return _times(size, ratio)
    long_px, short_px = (int(side * ratio) for side in settings.scale_px)
    return fitted(size, (long_px, short_px))


def fitted(size: Size, limits: tuple[int, int]) -> Size:
    """Return the largest size of this aspect within (long, short), as mmcv's `rescale_size`."""
    return _times(size, min(max(limits) / max(size), min(limits) / min(size)))


def _times(size: Size, factor: float) -> Size:
    width, height = (max(1, int(side * float(factor) + 0.5)) for side in size)
    return width, height


def resized(pixels: NDArray[np.uint8], size: Size, *, nearest: bool = False) -> Pixels:
    """Return an image (bilinear) or a label (nearest) of another size.

    paper (MoCo): not stated; here: OpenCV's, with half-pixel centers, because mmsegmentation and
    with it SlotCon's re-implementation use it.
    """
    if (pixels.shape[1], pixels.shape[0]) == size:
        return pixels
    flag = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, size, interpolation=flag), dtype=np.uint8)


def random_crop(
    label: Labels, random: np.random.RandomState, crop_px: int, cat_max_ratio: float
) -> tuple[slice, slice]:
    """Return rows and columns of a crop.

    One whose labelled pixels are of one class by cat_max_ratio or more is drawn again.
    """
    window = _window(label, random, crop_px)
    for _ in range(TRIES if cat_max_ratio < 1 else 0):
        # of each class; 255 lies outside the range
        histogram = cv2.calcHist([label[window]], [0], None, [IGNORED], [0, IGNORED])
        counts = histogram.astype(np.int64)
        if np.count_nonzero(counts) > 1 and counts.max() / counts.sum() < cat_max_ratio:
            break
        window = _window(label, random, crop_px)
    return window


def _window(label: Labels, random: np.random.RandomState, crop_px: int) -> tuple[slice, slice]:
    top, left = (random.randint(max(side - crop_px, 0) + 1) for side in label.shape)
    return slice(top, top + crop_px), slice(left, left + crop_px)


def distorted(image: Pixels, random: np.random.RandomState) -> Pixels:
    """Return the image with random brightness, contrast, saturation and hue, each half the time."""
    if random.randint(2):
        image = _linear(image, 1.0, random.uniform(-BRIGHTNESS, BRIGHTNESS))
    contrast_last = random.randint(2) == 0
    if not contrast_last and random.randint(2):
        image = _linear(image, random.uniform(*CONTRAST), 0.0)
    if random.randint(2):
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        saturations = _linear(LEVELS, random.uniform(*SATURATION), 0.0)
        image = cv2.cvtColor(_mapped(hsv, 1, saturations), cv2.COLOR_HSV2RGB)
    if random.randint(2):
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hues = (LEVELS.astype(int) + random.randint(-HUE, HUE)) % 180
        image = cv2.cvtColor(_mapped(hsv, 0, hues.astype(np.uint8)), cv2.COLOR_HSV2RGB)
    if contrast_last and random.randint(2):
        image = _linear(image, random.uniform(*CONTRAST), 0.0)
    return image


def _linear(values: Pixels, alpha: float, beta: float) -> Pixels:
    """Return values * alpha + beta in float32, cut to 0..255, looked up for each of the levels."""
    table = np.clip(LEVELS.astype(np.float32) * alpha + beta, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(values, table), dtype=np.uint8)


def _mapped(image: Pixels, channel: int, table: Pixels) -> Pixels:
    """Return the image with one channel looked up in a table of the 256 levels."""
    tables = np.stack([LEVELS] * 3, axis=-1)[None]
    tables[..., channel] = table
    return np.asarray(cv2.LUT(image, tables), dtype=np.uint8)


def padded(image: Pixels, label: Labels, side: int) -> tuple[Pixels, Labels]:
    """Return image and label of side x side, filled below and to the right with 0 and 255.

    The image's filling is set to 0 once more after normalization, where 0 is the mean pixel
    (`batches.normalized`).
    """
    below, right = side - label.shape[0], side - label.shape[1]
    return (
        np.asarray(cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_CONSTANT)),
        np.asarray(
            cv2.copyMakeBorder(label, 0, below, 0, right, cv2.BORDER_CONSTANT, value=IGNORED)
        ),
    )

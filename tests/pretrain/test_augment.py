"""Table A1: one geometric draw for image and mask, its probabilities, torchvision's crops."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pretrain import augment, views
from pretrain.data import TwoViews


def coordinates(width: int, height: int) -> tuple[Image.Image, Image.Image]:
    """An image whose left half is white, and the mask of that half."""
    left = np.zeros((height, width), np.uint8)
    left[:, : width // 2] = 255
    return Image.fromarray(np.stack([left] * 3, axis=-1)), Image.fromarray(left)


def view(
    image: Image.Image, mask: Image.Image, recipe: views.View, size: int, rng: augment.Rng
) -> list[Tensor]:
    """One view and its mask, as the data set that training reads makes them."""
    made = TwoViews(None, views=(recipe,), size=size, seed=0)  # type: ignore[arg-type]
    return list(
        made._view(image, mask, augment.chosen_box(mask, recipe, rng), recipe, size, rng)[:2]
    )


@pytest.mark.parametrize("seed", range(20))
def test_mask_follows_its_image(seed: int) -> None:
    """Without color changes, foreground pixels are the white ones, but for the resampled edge."""
    image, mask = coordinates(151, 97)
    plain = views.View(jitter=0, grayscale=0, blur=0)
    x, m = view(image, mask, plain, 64, np.random.default_rng(seed))
    white = augment.to_image(x).convert("L")
    agree = (np.asarray(white) > 127) == (m[0].numpy() > 0)
    assert agree.mean() > 0.97
    assert set(m.unique().tolist()) <= {0.0, 1.0}


def test_a_mask_flipped_by_itself_would_be_noticed() -> None:
    """The canary of the test above: a misaligned mask fails it."""
    image, mask = coordinates(151, 97)
    plain = views.View(jitter=0, grayscale=0, blur=0, crop_area=(0.9, 1.0), flip=0)
    x, m = view(
        image, mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT), plain, 64, np.random.default_rng(0)
    )
    agree = (np.asarray(augment.to_image(x).convert("L")) > 127) == (m[0].numpy() > 0)
    assert agree.mean() < 0.2


def test_the_generator_decides_the_view() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 90, 3), dtype=np.uint8))
    mask = Image.new("L", image.size, 255)
    first, again, other = (
        view(image, mask, views.T, 32, np.random.default_rng(s))[0] for s in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_crops_are_distributed_as_torchvisions() -> None:
    """Mean and spread of area and aspect over 4,000 draws, against RandomResizedCrop itself."""
    from torchvision.transforms import RandomResizedCrop

    width, height, n = 320, 240, 4000
    rng = np.random.default_rng(0)
    ours = np.array([augment.crop_box(width, height, views.T, rng) for _ in range(n)], dtype=float)
    ours = np.stack(
        [ours[:, 2] - ours[:, 0], ours[:, 3] - ours[:, 1], ours[:, 0], ours[:, 1]], axis=1
    )
    torch.manual_seed(0)
    blank = torch.zeros(3, height, width)
    theirs = np.array(
        [RandomResizedCrop.get_params(blank, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(n)],
        dtype=float,
    )
    theirs = theirs[:, [3, 2, 1, 0]]  # torchvision: top, left, height, width
    for column in range(4):
        a, b = ours[:, column], theirs[:, column]
        error = 5 * np.sqrt((a.var() + b.var()) / n)
        assert abs(a.mean() - b.mean()) < error
        assert abs(a.std() - b.std()) < error


def test_crop_box_stays_inside_odd_and_tiny_images() -> None:
    rng = np.random.default_rng(0)
    for width, height in ((1, 1), (2, 500), (500, 2), (7, 11)):
        for _ in range(50):
            left, top, right, bottom = augment.crop_box(width, height, views.T, rng)
            assert 0 <= left < right <= width
            assert 0 <= top < bottom <= height


def test_table_a1() -> None:
    """The literal values (HARL, Table A1); T and T' differ in blur and solarise alone."""
    t, t_prime = views.T, views.T_PRIME
    assert (t.flip, t.jitter, t.brightness, t.contrast, t.saturation, t.hue, t.grayscale) == (
        0.5,
        0.8,
        0.4,
        0.4,
        0.2,
        0.1,
        0.2,
    )
    assert (t.crop_area, t.blur_sigma) == ((0.08, 1.0), (0.1, 2.0))
    assert (t.blur, t.solarize, t_prime.blur, t_prime.solarize) == (1.0, 0.0, 0.1, 0.2)


def test_resize_is_pillows() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (150, 301, 3), dtype=np.uint8)
    for size in (64, 224):
        theirs = np.asarray(
            Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)
        ).astype(int)
        difference = np.abs(augment.resize(Image.fromarray(pixels), size).astype(int) - theirs)
        assert difference.max() <= 2
        assert difference.mean() < 0.02


def test_normalisation() -> None:
    image = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2))
    x = augment.to_tensor(np.array(image))
    assert x[0, 0, 0].item() == pytest.approx(-123.675 / 58.395, abs=1e-5)
    assert np.array_equal(np.asarray(augment.to_image(x)), np.asarray(image))

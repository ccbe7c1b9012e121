"""Colors: one image and a batch do what torchvision does, with equal draws and statistics."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from pretrain import colors, views
from tests.pretrain.test_augment import view


def image(seed: int = 0, side: int = 64) -> np.ndarray:
    """Smooth colors with some noise, as photographs have."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize(
        (side, side), Image.BICUBIC
    )
    return np.clip(
        np.asarray(coarse).astype(int) + rng.integers(-12, 13, (side, side, 3)), 0, 255
    ).astype(np.uint8)


def tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def drawn(part: int | slice | None = None, value: float = 0.0) -> np.ndarray:
    row = np.zeros(colors.WIDTH, np.float32)
    row[:4], row[colors.ORDER] = colors.UNCHANGED, range(4)
    if part is not None:
        row[part] = value
    return row


@pytest.mark.parametrize(
    ("part", "value", "torchvision"),
    [
        (colors.BRIGHTNESS, 0.6, lambda x: F.adjust_brightness(x, 0.6)),
        (colors.BRIGHTNESS, 1.4, lambda x: F.adjust_brightness(x, 1.4)),
        (colors.CONTRAST, 0.6, lambda x: F.adjust_contrast(x, 0.6)),
        (colors.CONTRAST, 1.4, lambda x: F.adjust_contrast(x, 1.4)),
        (colors.SATURATION, 0.2, lambda x: F.adjust_saturation(x, 0.2)),
        (colors.SATURATION, 1.8, lambda x: F.adjust_saturation(x, 1.8)),
        (colors.HUE, -0.1, lambda x: F.adjust_hue(x, -0.1)),
        (colors.HUE, 0.45, lambda x: F.adjust_hue(x, 0.45)),
        (colors.GREY, 1, lambda x: F.rgb_to_grayscale(x, 3)),
        (colors.SIGMA, 0.1, lambda x: F.gaussian_blur(x, [7, 7], [0.1, 0.1])),
        (colors.SIGMA, 0.7, lambda x: F.gaussian_blur(x, [7, 7], [0.7, 0.7])),
        (colors.SIGMA, 2.0, lambda x: F.gaussian_blur(x, [7, 7], [2.0, 2.0])),
        (colors.SOLARISE, 1, lambda x: F.solarize(x, 127.5 / 255)),
    ],
)
def test_each_operation_is_torchvisions(part: int, value: float, torchvision) -> None:
    """The batch to floating-point rounding; one image to 8 bits (hue: 256 steps of the circle)."""
    pixels = image()
    theirs = 255 * torchvision(tensor(pixels).float() / 255)
    batch = colors.apply_batch(tensor(pixels)[None], torch.from_numpy(drawn(part, value))[None])[0]
    # Its luma has weight 0.2989 for red.
    torch.testing.assert_close(batch, theirs, atol=0.05, rtol=0)
    one = tensor(colors.apply(pixels, drawn(part, value))).float()
    assert (one - theirs).abs().max() <= (6 if part == colors.HUE else 1.01)
    assert (one - theirs).abs().mean() < 0.7


def test_nothing_drawn_changes_nothing() -> None:
    pixels = image()
    assert np.array_equal(colors.apply(pixels, drawn()), pixels)
    assert torch.equal(
        colors.apply_batch(tensor(pixels)[None], torch.from_numpy(drawn())[None])[0], tensor(pixels)
    )


def test_order_matters_and_both_ways_keep_it() -> None:
    """Brightness before contrast is not contrast before brightness."""
    pixels = image()
    row = drawn()
    row[:4] = 1.4, 0.6, 1.2, 0.05
    made = []
    for order in ((0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2)):
        row[colors.ORDER] = order
        one = tensor(colors.apply(pixels, row)).float()
        batch = colors.apply_batch(tensor(pixels)[None], torch.from_numpy(row)[None])[0]
        assert (one - batch).abs().mean() < 1
        made.append(batch)
    assert (made[0] - made[1]).abs().mean() > 1


@pytest.mark.parametrize("recipe", views.BYOL_VIEWS)
def test_a_batch_gets_what_its_images_would_get_one_by_one(recipe: views.View) -> None:
    rng = np.random.default_rng(0)
    pixels = [image(i) for i in range(24)]
    rows = [colors.draw(recipe, rng) for _ in pixels]
    batch = colors.apply_batch(
        torch.stack([tensor(p) for p in pixels]), torch.from_numpy(np.stack(rows))
    )
    for made, p, row in zip(batch, pixels, rows, strict=True):
        assert (made - tensor(colors.apply(p, row)).float()).abs().mean() < 1.5


@pytest.mark.parametrize("recipe", views.BYOL_VIEWS)
def test_draws_have_table_a1s_probabilities_and_ranges(recipe: views.View) -> None:
    rng = np.random.default_rng(0)
    rows = np.stack([colors.draw(recipe, rng) for _ in range(6000)])
    jittered = (rows[:, :4] != np.float32(colors.UNCHANGED)).any(axis=1)
    within = 4 * np.sqrt(0.25 / len(rows))
    for shown, chance in (
        (jittered, recipe.jitter),
        (rows[:, colors.GREY], recipe.grayscale),
        (rows[:, colors.SIGMA] > 0, recipe.blur),
        (rows[:, colors.SOLARISE], recipe.solarize),
    ):
        assert abs(shown.mean() - chance) <= within
    for part, span, centre in ((0, 0.4, 1), (1, 0.4, 1), (2, 0.2, 1), (3, 0.1, 0)):
        values = rows[jittered, part]
        assert (centre - span <= values).all()
        assert (values <= centre + span).all()
        assert values.std() == pytest.approx(span / np.sqrt(3), rel=0.04)
    orders = {tuple(order) for order in rows[jittered][:, colors.ORDER].astype(int)}
    assert len(orders) == 24


def test_views_have_the_statistics_of_torchvisions_pipeline() -> None:
    """Both pipelines of benchmarks/pretrain_input.py on the same images: mean, spread and roughness
    of their views.

    The tolerances are five standard errors over 300 views of each.
    """
    n, side = 300, 32
    rng = np.random.default_rng(0)
    images = [Image.fromarray(image(i, 60)) for i in range(20)]
    mask = Image.new("L", (60, 60), 255)
    plain = v2.Compose(
        [
            v2.RandomResizedCrop(
                side, (0.08, 1.0), interpolation=v2.InterpolationMode.BICUBIC, antialias=True
            ),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.2, 0.1)], 0.8),
            v2.RandomGrayscale(0.2),
            v2.GaussianBlur(colors.kernel_px(side), (0.1, 2.0)),
            v2.RandomSolarize(128, 0.0),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    torch.manual_seed(0)
    ours, theirs = [], []
    for i in range(n):
        chosen = images[i % len(images)]
        ours.append(statistics(view(chosen, mask, views.T, side, rng)[0]))
        theirs.append(statistics(plain(tensor(np.array(chosen)))))
    a, b = np.array(ours), np.array(theirs)
    error = 5 * np.sqrt((a.var(axis=0) + b.var(axis=0)) / n)
    assert (np.abs(a.mean(axis=0) - b.mean(axis=0)) < error).all()
    assert (np.abs(a.std(axis=0) / b.std(axis=0) - 1) < 0.25).all()


def statistics(x: torch.Tensor) -> list[float]:
    """Mean and spread by channel, colorfulness, and roughness (what blur takes away)."""
    return [
        *x.mean(dim=(1, 2)).tolist(),
        *x.std(dim=(1, 2)).tolist(),
        float((x[0] - x[2]).std()),
        float((x[:, 1:] - x[:, :-1]).abs().mean()),
    ]

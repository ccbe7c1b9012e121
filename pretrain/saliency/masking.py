"""Masking an image on a grid of cells so that a ConvNet sees few new edges, evenly over foreground
and background.

For `saliency_mask` (Chin et al., WACV 2024, arXiv 2309.12757); the numbers are those of the
authors' code for MoCo v2 (github.com/joycenerd/Saliency-Guided-Masking-for-ConvNets, e57d58e) at
224 px, and grow with the image.

Letters: B batch, S side of the grid, H, W image, r share of the cells that is masked, phi the
foreground's share.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as nnf
from torch import Tensor

from harl_bench.nn.blur import gaussian_blur

FOREGROUND_STD = -0.6  # a cell is foreground from the map's mean minus 0.6 deviations on
MOST_FOREGROUND = 0.55  # phi above this counts as this
# Chance of a focal mask; of the others', that all channels lose the same cells.
FOCAL, ALL_CHANNELS = 0.2, 0.3
QUERY_NOISE, NEGATIVE_NOISE = 0.18, 0.14  # standard deviations, after normalisation
QUERY_FOCUS, NEGATIVE_FOCUS = 200 / 224, 130 / 224  # sides of the focal squares
BLUR_PX, BLUR_SIGMA = 31, 10.0


def foreground_cells(maps: Tensor) -> Tensor:
    """Cells at or above mean - 0.6 std of their map: [B, S, S] activations to [B, S, S] bool.

    code: compares a copy sorted row by row at the unsorted positions; here: each cell with its own
    value.
    """
    std, mean = torch.std_mean(maps.float(), dim=(1, 2), keepdim=True)
    return maps >= mean + FOREGROUND_STD * std


def even_cells(
    foreground: Tensor, r: Tensor, generator: torch.Generator, channels: int = 1
) -> Tensor:
    """Random cells, the same share of the foreground and of the background up to rounding.

    round(r phi S^2) cells lie in the foreground, the rest of floor(r S^2) in the background. Above
    phi = 0.55 the foreground gets less than its share; what the background cannot hold goes to the
    foreground.

    Args:
        foreground: [B, S, S] bool.
        r: [B] share of all cells.
        channels: how many independent draws.

    Returns:
        [B, channels, S, S] bool, True is masked.
    """
    cells = foreground[0].numel()
    n_foreground = foreground.sum(dim=(1, 2))
    total = (r * cells + 1e-4).floor().long()  # 1e-4: 0.25 * 4 in float32 must not become 0.99999
    phi = (n_foreground / cells).clamp(max=MOST_FOREGROUND)
    inside = torch.minimum((r * phi * cells).round().long(), total)
    outside = torch.minimum(total - inside, cells - n_foreground)
    return _drawn(foreground, total - outside, outside, generator, channels)


def salient_cells(
    foreground: Tensor, r: Tensor, generator: torch.Generator, channels: int = 1
) -> Tensor:
    """Random cells of the foreground alone, round(r phi S^2) of them; shapes as `even_cells`."""
    inside = (r * foreground.sum(dim=(1, 2))).round().long()
    return _drawn(foreground, inside, torch.zeros_like(inside), generator, channels)


def _drawn(
    foreground: Tensor, inside: Tensor, outside: Tensor, generator: torch.Generator, channels: int
) -> Tensor:
    """So many cells of each region: those of the lowest random rank within it."""
    B, S, _ = foreground.shape
    flat = foreground.reshape(B, 1, -1).expand(-1, channels, -1)
    chance = torch.rand(flat.shape, generator=generator, device=flat.device)

    def lowest(region: Tensor, n: Tensor) -> Tensor:
        rank = chance.masked_fill(~region, 2.0).argsort(dim=-1).argsort(dim=-1)
        return region & (rank < n[:, None, None])

    return (lowest(flat, inside) | lowest(~flat, outside)).view(B, channels, S, S)


def to_pixels(cells: Tensor, size: tuple[int, int]) -> Tensor:
    """Cells [B, c, S, S] bool painted as pixels [B, c, H, W] bool."""
    return nnf.interpolate(cells.float(), size=size, mode="nearest") > 0.5


def fill_blur(x: Tensor, masked: Tensor) -> Tensor:
    """Masked pixels from the image blurred with kernel 31, sigma 10."""
    return torch.where(masked, gaussian_blur(x, BLUR_PX, BLUR_SIGMA), x)


def fill_mean(x: Tensor, masked: Tensor) -> Tensor:
    """Masked pixels become the image's channel means."""
    return torch.where(masked, x.mean(dim=(2, 3), keepdim=True), x)


FILLS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"blur": fill_blur, "mean": fill_mean}


def fill_noise(x: Tensor, masked: Tensor, std: float, generator: torch.Generator) -> Tensor:
    """Masked pixels of a high-pass filtered image become Gaussian noise."""
    noise = std * torch.randn(x.shape, generator=generator, device=x.device)
    return torch.where(masked, noise.to(x), x)


def query_pixels(
    foreground: Tensor, r: Tensor, size: tuple[int, int], fill: str, generator: torch.Generator
) -> Tensor:
    """What of the query is masked: [B, 3, H, W] bool (1 channel for blur and mean)."""
    if fill != "high_pass":
        return to_pixels(even_cells(foreground, r, generator), size)
    cells = even_cells(foreground, r, generator, 3)
    return _varied(cells, ~_square(len(r), size, QUERY_FOCUS, generator), generator)


def negative_pixels(
    foreground: Tensor, r: Tensor, size: tuple[int, int], fill: str, generator: torch.Generator
) -> Tensor:
    """What of the hard negative is masked, as `query_pixels`: much of the foreground alone."""
    if fill != "high_pass":
        return to_pixels(salient_cells(foreground, r, generator), size)
    focus = _square(len(r), size, NEGATIVE_FOCUS, generator)
    return _varied(salient_cells(foreground, r, generator, 3), focus, generator)


def _varied(cells: Tensor, focal: Tensor, generator: torch.Generator) -> Tensor:
    """Per image a focal mask, the same cells in all channels, or cells of each channel's own."""
    B, device = len(cells), cells.device
    is_focal = torch.rand(B, 1, 1, 1, generator=generator, device=device) < FOCAL
    same = torch.rand(B, 1, 1, 1, generator=generator, device=device) < ALL_CHANNELS
    pixels = to_pixels(torch.where(same, cells[:, :1], cells), (focal.shape[2], focal.shape[3]))
    return torch.where(is_focal, focal, pixels)


def _square(B: int, size: tuple[int, int], share: float, generator: torch.Generator) -> Tensor:
    """[B, 1, H, W] bool, True inside a square at a random place."""
    H, W = size
    side = round(share * min(H, W))
    at = torch.rand(2, B, 1, generator=generator, device=generator.device)
    (y, x), spans = at, []
    for start, extent in ((y, H), (x, W)):
        first = (start * (extent - side + 1)).floor()
        place = torch.arange(extent, device=generator.device)
        spans.append((place >= first) & (place < first + side))
    inside: Tensor = spans[0][:, :, None] & spans[1][:, None, :]
    return inside[:, None]

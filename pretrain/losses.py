"""HARL's objective (Tran et al., Sensors 2022, 22, 5169), in the paper's symbols.

Letters: B batch, C channels, D projection width, S side of the feature grid; h feature map, v pooled vector,
p online prediction, z target projection; regions w whole, f foreground, b background.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def regression(p: Tensor, z: Tensor) -> Tensor:
    """D(p, z) = 2 - 2 cos(p, z), the squared distance of the unit vectors, per sample.

    paper: negative cosine, noted as equivalent to the normalised MSE; here: BYOL's 2 - 2 cos; because the minimiser is
    the same and lambda = 1 is BYOL to the digit.

    Args:
        p: [B, D] online prediction.
        z: [B, D] target projection, without gradient.

    Returns:
        [B] float32, in [0, 4].
    """
    return 2 - 2 * F.cosine_similarity(p.float(), z.float(), dim=-1)


def mean_over_valid(distance: Tensor, valid: Tensor) -> Tensor:
    """Mean of the [B] distances over the [B] bool valid samples; 0 with zero gradient when none is valid."""
    return (distance * valid).sum() / valid.sum().clamp(min=1)


def mask_loss(D_f: Tensor, D_b: Tensor, alpha: float) -> Tensor:
    """L_mask = alpha D(p_f, z_f) + (1 - alpha) D(p_b, z_b), equation (1)."""
    return alpha * D_f + (1 - alpha) * D_b


def hybrid_loss(D_w: Tensor, L_mask: Tensor, lambda_: float) -> Tensor:
    """L_hyb = lambda D(p_w, z_w) + (1 - lambda) L_mask, equation (4).

    paper: the prose does not say which term lambda weights; here: the whole picture's; because lambda rises to 1 and
    Table 4 improves with lambda_base towards, and beyond, what the mask loss alone reaches (docs/fidelity.md 1.1).
    """
    return lambda_ * D_w + (1 - lambda_) * L_mask


def downsample_mask(mask: Tensor, S: tuple[int, int], rule: str = "area") -> Tensor:
    """The foreground cells M_f of the feature grid.

    paper: appendix A.2 is lost; here: a cell is foreground when half its area is, and a mask with any foreground keeps
    at least its fullest cell; because the official `any` rule makes a disc of 25 % of the picture 51 % of the cells.

    Args:
        mask: [B, 1, H, W], 1 is foreground.
        S: (rows, columns) of the grid.
        rule: "area", "nearest", or "any" (the official PyTorch code's).

    Returns:
        [B, 1, S, S] float, 0 or 1.
    """
    if rule == "nearest":
        return F.interpolate(mask.float(), size=S, mode="nearest")
    if rule == "any":  # PIL's antialiased bilinear resize of an 8-bit mask, then > 0
        soft = F.interpolate(mask.float(), size=S, mode="bilinear", antialias=True)
        return (soft * 255 >= 0.5).float()
    area = F.adaptive_avg_pool2d(mask.float(), S)
    cells = (area >= 0.5).float()
    fullest = (area == area.amax(dim=(2, 3), keepdim=True)).flatten(1)
    first = F.one_hot(fullest.float().argmax(dim=1), fullest.shape[1]).view_as(area).float()
    lost = (cells.sum(dim=(1, 2, 3), keepdim=True) == 0) & (area.amax(dim=(2, 3), keepdim=True) > 0)
    return torch.where(lost, first, cells)


def masked_pool(h: Tensor, M: Tensor, how: str = "mean") -> Tensor:
    """v = sum(h * M) / n over the cells of a region, n = sum(M).

    paper: global average pooling of the masked map, which divides by S*S and so writes the object's area into the
    vector's length; here: the mean over the region; options "gap" (paper) and "area_plus_one" (official code).

    Args:
        h: [B, C, S, S] feature map.
        M: [B, 1, S, S], 0 or 1.

    Returns:
        [B, C] float32; zeros where the region is empty.
    """
    total = (h.float() * M).sum(dim=(2, 3))
    n = M.sum(dim=(2, 3))
    if how == "gap":
        return total / (M.shape[2] * M.shape[3])
    return total / (n + 1 if how == "area_plus_one" else n.clamp(min=1))

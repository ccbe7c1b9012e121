"""HARL's objective (Tran et al., Sensors 2022, 22, 5169), in the paper's symbols.

Letters: B batch, C channels, D projection width, S side of the feature grid; h feature map, v
pooled vector, p online prediction, z target projection; regions w whole, f foreground, b
background.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx

from harl_bench.nn import distributed

FAR = -1e9  # a logit that takes no part; minus infinity would make gradients of empty rows NaN


def regression(p: Tensor, z: Tensor) -> Tensor:
    """D(p, z) = 2 - 2 cos(p, z), the squared distance of the unit vectors, per sample.

    paper: negative cosine, noted as equivalent to the normalised MSE; here: BYOL's 2 - 2 cos;
    because the minimiser is the same and lambda = 1 is BYOL to the digit.

    Args:
        p: [B, D] online prediction.
        z: [B, D] target projection, without gradient.

    Returns:
        [B] float32, in [0, 4].
    """
    return 2 - 2 * F.cosine_similarity(p.float(), z.float(), dim=-1)


def mean_over_valid(distance: Tensor, valid: Tensor | None) -> Tensor:
    """Mean of the [B] distances over the [B] bool valid samples; 0 with zero gradient when none is
    valid.

    Over several processes, the mean of their values is the mean over all valid samples of the
    global batch: the local sum is divided by the global count over the number of processes.
    """
    if valid is None:
        return distance.mean()
    count = valid.sum().float()
    world = distributed.world_size()
    if world > 1:
        torch.distributed.all_reduce(count)
    return (distance * valid).sum() * world / count.clamp(min=1)


def gathered(values: Tensor) -> Tensor:
    """[B, ...] of all processes, by rank: [world * B, ...].

    Gradients flow back to the process they came from.
    """
    if distributed.world_size() == 1:
        return values
    if values.dtype == torch.bool:
        return gathered(values.byte()).bool()
    return torch.cat(_Gather.apply(values.contiguous()))


class _Gather(Function):
    """all_gather whose gradient is the sum of all processes' gradients of this process's part."""

    @staticmethod
    def forward(ctx: FunctionCtx, values: Tensor) -> tuple[Tensor, ...]:
        parts = [torch.empty_like(values) for _ in range(distributed.world_size())]
        torch.distributed.all_gather(parts, values)
        return tuple(parts)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> Tensor:
        every = torch.stack(gradients)
        torch.distributed.all_reduce(every)
        return every[distributed.rank()]


@torch.no_grad()
def feature_std(z: Tensor) -> Tensor:
    """Return the spread of [B, D] directions: 0 collapsed, 1 / sqrt(D) even (SimSiam, 4.1)."""
    return F.normalize(z, dim=1).std(dim=0).mean()


def nt_xent(
    z_1: Tensor,
    z_2: Tensor,
    temperature: float,
    valid: Tensor | None = None,
    own: Tensor | None = None,
) -> Tensor:
    """SimCLR's loss: each view must find the image's other view among all other views of the global
    batch.

    l(i, j) = -log exp(s_ij / t) / sum_{k != i} exp(s_ik / t), averaged over the 2N views (equation
    1). Over several processes each computes the rows of its own views; negatives of the others
    carry gradients.

    Args:
        z_1, z_2: [B, D] projections of the two views.
        valid: [B] bool, images that are neither anchors nor negatives where False; None: all count.
        own: [B] weighted similarity of view 1 to a negative of its own; FAR where it has none.

    Returns:
        A scalar float32.
    """
    # bf16 would round similarities to three digits.
    with torch.autocast(z_1.device.type, enabled=False):
        z_1, z_2 = (F.normalize(z.float(), dim=-1) for z in (z_1, z_2))
        all_z = torch.cat([gathered(z_1), gathered(z_2)])
        B, N = len(z_1), len(all_z) // 2
        logits = torch.cat([z_1, z_2]) @ all_z.T / temperature
        here = distributed.rank() * B + torch.arange(B, device=z_1.device)
        itself, other = torch.cat([here, here + N]), torch.cat([here + N, here])
        logits = logits.masked_fill(F.one_hot(itself, 2 * N).bool(), FAR)
        if valid is not None:
            logits = logits.masked_fill(~gathered(valid).repeat(2), FAR)
            valid = valid.repeat(2)
        if own is not None:  # a further column, in which the anchors of view 2 take no part
            own = torch.cat([own.float() / temperature, torch.full_like(own.float(), FAR)])
            logits = torch.cat([logits, own[:, None]], dim=1)
        return mean_over_valid(F.cross_entropy(logits, other, reduction="none"), valid)


def info_nce(
    q: Tensor,
    k: Tensor,
    queue: Tensor,
    counts: Tensor,
    temperature: float,
    valid: Tensor | None = None,
) -> Tensor:
    """MoCo's loss: the query must find its key among the queue's keys (He et al. 2020, equation 1).

    Args:
        q: [B, D] queries.
        k: [B, D] keys of the same images, without gradient.
        queue: [Q, D] L2-normalised keys of earlier batches.
        counts: [Q] bool, False for keys that are no negatives.
        valid: [B] bool, the samples that count; None: all.

    Returns:
        A scalar float32.
    """
    return mean_over_valid(info_nce_each(q, k, queue, counts, temperature), valid)


def info_nce_each(
    q: Tensor,
    k: Tensor,
    queue: Tensor,
    counts: Tensor,
    temperature: float,
    own: Tensor | None = None,
) -> Tensor:
    """`info_nce` of each sample, [B].

    Args:
        own: [B] weighted similarity to a negative of the sample's own; FAR where it has none.
    """
    with torch.autocast(q.device.type, enabled=False):
        q, k = F.normalize(q.float(), dim=-1), F.normalize(k.float(), dim=-1)
        negatives = (q @ queue.T).masked_fill(~counts, FAR)
        columns = [(q * k).sum(dim=1, keepdim=True), negatives]
        if own is not None:
            columns.append(own.float()[:, None])
        logits = torch.cat(columns, dim=1) / temperature
        return F.cross_entropy(logits, q.new_zeros(len(q), dtype=torch.int64), reduction="none")


def mask_loss(D_f: Tensor, D_b: Tensor, alpha: float) -> Tensor:
    """L_mask = alpha D(p_f, z_f) + (1 - alpha) D(p_b, z_b), equation (1)."""
    return alpha * D_f + (1 - alpha) * D_b


def hybrid_loss(D_w: Tensor, L_mask: Tensor, lambda_: float) -> Tensor:
    """L_hyb = lambda D(p_w, z_w) + (1 - lambda) L_mask, equation (4).

    paper: the prose does not say which term lambda weights; here: the whole image's; because lambda
    rises to 1, Table 4 improves with lambda_base towards, and beyond, what the mask loss alone
    reaches, and the authors' later code has it there (docs/fidelity.md 1.1).
    """
    return lambda_ * D_w + (1 - lambda_) * L_mask


def downsample_mask(mask: Tensor, S: tuple[int, int], rule: str = "area") -> Tensor:
    """The foreground cells M_f of the feature grid.

    paper: appendix A.2 is lost; here: a cell is foreground when half its area is, and a mask with
    any foreground keeps at least its fullest cell; because the official `any` rule makes a disc of
    25 % of the image 51 % of the cells.

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

    paper: global average pooling of the masked map, which divides by S*S and so writes the object's
    area into the vector's length; here: the mean over the region; options "gap" (paper) and
    "area_plus_one" (official code).

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

"""`--save-memory`: keep the inputs of residual blocks only, and compute the rest again in the
backward pass.

The second computation is the first one's copy, bit for bit: the blocks draw no random numbers, and
batch norm takes its
statistics from the batch. Only running statistics would move twice: the second time, copies of them
do.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def save_memory(model: nn.Module, blocks: tuple[type[nn.Module], ...]) -> int:
    """Make every block of these kinds below `model` forget its activations; return how many there
    are.

    Parameters, buffers and their names stay, and so do losses, gradients and statistics.
    """
    found = [block for block in model.modules() if isinstance(block, blocks)]
    for block in found:
        block.forward = partial(_forward, block, block.forward)  # type: ignore[method-assign]
    return len(found)


def _forward(block: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return forward(x)
    out: Tensor = checkpoint(
        forward,
        x,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=partial(_contexts, block),
    )
    return out


def _contexts(
    block: nn.Module,
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """For the first computation of a block, and for the second."""
    return contextlib.nullcontext(), statistics_kept(block)


@contextlib.contextmanager
def statistics_kept(module: nn.Module) -> Iterator[None]:
    """Give the batch norms of `module` copies of their buffers while the block runs, and their own
    back after it.
    """
    norms = [child for child in module.modules() if isinstance(child, _BatchNorm)]
    kept = [dict(norm._buffers) for norm in norms]
    for norm, buffers in zip(norms, kept, strict=True):
        norm._buffers.update(
            {name: None if value is None else value.clone() for name, value in buffers.items()}
        )
    try:
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            norm._buffers.update(buffers)

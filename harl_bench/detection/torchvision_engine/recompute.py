"""`--save-memory`: activation checkpointing of residual blocks.

The recomputed values are the first ones bit for bit: the blocks draw no random numbers, and batch
norm takes its statistics from the batch. Only running statistics would be updated twice, so the
second update goes to copies of them.
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
    """Checkpoint the activations of every block of these kinds in `model`, and return their number.

    Parameters, buffers and their names stay, and so do losses, gradients and statistics.
    """
    matches = [block for block in model.modules() if isinstance(block, blocks)]
    for block in matches:
        block.forward = partial(_forward, block, block.forward)  # type: ignore[method-assign]
    return len(matches)


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
    """Return the contexts of a block's first and second computation."""
    return contextlib.nullcontext(), frozen_statistics(block)


@contextlib.contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Let the batch norms of `module` update copies of their buffers while the context lasts."""
    norms = [child for child in module.modules() if isinstance(child, _BatchNorm)]
    originals = [dict(norm._buffers) for norm in norms]
    for norm, buffers in zip(norms, originals, strict=True):
        norm._buffers.update({k: None if x is None else x.clone() for k, x in buffers.items()})
    try:
        yield
    finally:
        for norm, buffers in zip(norms, originals, strict=True):
            norm._buffers.update(buffers)

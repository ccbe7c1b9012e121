"""The GPU memory of a training, counted on tensors without values."""

import torch
from torch import Tensor, nn

from harl_bench.segmentation.network import build
from harl_bench.segmentation.recipe import Recipe

COPIES = 3  # of the weights: themselves, gradients and momentum


def per_image_gib(recipe: Recipe, classes: int) -> float:
    """Return the GiB that the backward pass of one more crop keeps in float32."""
    one, two = (_kept(recipe, classes, images) for images in (1, 2))
    return (two - one) / 2**30


def fixed_gib(recipe: Recipe, classes: int) -> float:
    """Return the GiB of weights, gradients and momentum."""
    with torch.device("meta"):
        model = build(recipe, classes)
    return COPIES * sum(p.numel() * p.element_size() for p in model.parameters()) / 2**30


def _kept(recipe: Recipe, classes: int, images: int) -> int:
    side = recipe.input.crop_px
    with torch.device("meta"):
        model, x = build(recipe, classes), torch.empty(images, 3, side, side)
    kept = saved_bytes(model, x)
    # Each head's logits at the label's size, and their log-softmax.
    return kept + 2 * 4 * images * classes * side**2 * (2 if recipe.auxiliary else 1)


def saved_bytes(model: nn.Module, x: Tensor) -> int:
    """Return the bytes of the tensors that a forward pass keeps for the backward pass.

    Parameters are left out, and tensors that several operations keep count once.
    """
    own = {id(parameter) for parameter in model.parameters()}
    kept: dict[int, tuple[Tensor, int]] = {}

    def note(tensor: Tensor) -> Tensor:
        base = tensor if tensor._base is None else tensor._base
        if id(tensor) not in own and id(base) not in own:
            storage = tensor.untyped_storage()
            kept[storage._cdata] = (tensor, storage.nbytes())  # held: its address is not reused
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        out = model(x)
    del out
    return sum(size for _, size in kept.values())

"""The methods by name. To add one: a file here, a line below, a recipe."""

from typing import TYPE_CHECKING

from harl_bench.core.lookup import lookup

if TYPE_CHECKING:
    from pretrain.config import PretrainConfig
    from pretrain.methods.method import Method

METHODS = {
    "harl": "pretrain.methods.harl:Harl",
    "byol": "pretrain.methods.byol:Byol",
    "simclr": "pretrain.methods.simclr:Simclr",
    "mocov2": "pretrain.methods.mocov2:Mocov2",
    "simsiam": "pretrain.methods.simsiam:Simsiam",
    "supervised": "pretrain.methods.supervised:Supervised",
    "saliency_crop": "pretrain.methods.saliency_crop:SaliencyCrop",
    "saliency_mask": "pretrain.methods.saliency_mask:SaliencyMask",
}
WITH_MASKS = {"harl"}  # the others refuse --masks


def needs_masks(config: "PretrainConfig") -> bool:
    """Whether a configuration trains with --masks."""
    return config.method in WITH_MASKS or (config.method == "saliency_mask" and config.localiser == "masks")


def build(config: "PretrainConfig") -> "Method":
    """The method of a configuration, randomly initialised from torch's global generator.

    Raises:
        UsageError: unknown method.
    """
    import importlib

    module, _, name = lookup(METHODS, config.method, "method").partition(":")
    method: Method = getattr(importlib.import_module(module), name)(config)
    return method

"""The methods by name. To add one: a file here, a line below, a recipe."""

import importlib
from typing import TYPE_CHECKING, Any

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
    "saliency_crop": "pretrain.saliency.crop:SaliencyCrop",
    "saliency_mask": "pretrain.saliency.mask:SaliencyMask",
}


def method_class(name: str) -> Any:
    """Return the class of a method.

    Raises:
        UsageError: unknown method.
    """
    module, _, cls = lookup(METHODS, name, "method").partition(":")
    return getattr(importlib.import_module(module), cls)


def build(config: "PretrainConfig") -> "Method":
    """Return the method of a configuration, randomly initialised from torch's global generator."""
    method: Method = method_class(config.method)(config)
    return method

"""The makers of saliency maps by name, and what a maker is."""

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from harl_bench.core.config import Config, parse_overrides, validated
from harl_bench.core.lookup import lookup


class Maker(Protocol):
    """Saliency [h, w] float32 in 0..1, at any size, of a picture [H, W, 3] uint8 and its path below the root."""

    def __call__(self, rgb: NDArray[np.uint8], relative: Path) -> NDArray[np.float32]: ...


class Method(Protocol):
    """Parameters of a maker: a strict, frozen `Config` that can build it, in whichever process."""

    def maker(self) -> Maker: ...

    def describe_engine(self) -> str:
        """The program that does the work, with its version, for the manifest."""
        ...


MAKERS = {
    "drfi-lite": "harl_bench.masks.drfi_lite:DrfiLite",
}
THRESHOLDS = {"drfi-lite": "otsu"}  # of each maker; the others' is 0.5, as in the spec


def method_of(name: str, overrides: Iterable[str] = (), **values: object) -> Method:
    """The named method with its parameters: defaults, then `values`, then "key=value" overrides.

    Raises:
        UsageError: an unknown method or parameter, or a value of the wrong kind.
    """
    module, _, attribute = lookup(MAKERS, name, "mask maker").partition(":")
    model: type[Config] = getattr(importlib.import_module(module), attribute)
    method: Method = validated(model, values | parse_overrides(overrides), source=f"method {name}")  # type: ignore[assignment]
    return method

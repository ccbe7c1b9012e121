"""The makers of saliency maps by name."""

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from harl_bench.core.config import Config, parse_overrides, validated
from harl_bench.core.lookup import lookup
from harl_bench.masks.finish import Rule, parse_threshold


class Maker(Protocol):
    """Returns saliency [h, w] float32 in 0..1, at any size, of an image [H, W, 3] uint8.

    `relative` is the image's path below the root.
    """

    def __call__(self, rgb: NDArray[np.uint8], relative: Path) -> NDArray[np.float32]: ...


class Method(Protocol):
    """Parameters of a maker: a strict, frozen `Config` that can build it, in whichever process."""

    def maker(self) -> Maker: ...

    def describe_engine(self) -> str:
        """Return the program that does the work, with its version, for the manifest."""
        ...


MAKERS = {
    "drfi-lite": "harl_bench.masks.drfi_lite:DrfiLite",
    "drfi": "harl_bench.masks.drfi:Drfi",
    "deep": "harl_bench.masks.deep:Deep",
    "external": "harl_bench.masks.external:External",
    "ellipse": "harl_bench.masks.ellipse:Ellipse",
}
LABEL_FREE = ("drfi-lite",)  # need nothing but images, so they can make pseudo-masks
THRESHOLDS = {"drfi-lite": "otsu"}  # of each maker; the others' is 0.5, as in the spec


def method_of(name: str, overrides: Iterable[str] = (), **values: object) -> Method:
    """Return the named method: its defaults, then `values`, then "key=value" overrides.

    Raises:
        UsageError: an unknown method or parameter, or a value of the wrong kind.
    """
    module, _, attribute = lookup(MAKERS, name, "mask maker").partition(":")
    model: type[Config] = getattr(importlib.import_module(module), attribute)
    method: Method = validated(model, values | parse_overrides(overrides), source=f"method {name}")  # type: ignore[assignment]
    return method


def threshold_of(name: str, text: str | None = None) -> float | Rule:
    """Return the threshold given as text, or the method's own.

    Raises:
        UsageError: neither a number in 0..1 nor a known rule.
    """
    return parse_threshold(text or THRESHOLDS.get(name, "0.5"))

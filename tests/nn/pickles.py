"""Crafted pickles: calls and opcodes, and how each must be refused."""

import pickletools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harl_bench.core.errors import CheckpointError
from harl_bench.nn import checkpoint

SECONDS = 10  # of CPU time; none of these takes four


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, Any]:
        return self.function, self.arguments


def refused(path: Path) -> str:
    """The one line, and that it came in time."""
    began = time.process_time()
    with pytest.raises(CheckpointError) as caught:
        checkpoint.read(path)
    assert time.process_time() - began < SECONDS
    assert "\n" not in caught.value.line()
    return caught.value.line()


def op(name: str, argument: bytes = b"") -> bytes:
    return next(o.code for o in pickletools.opcodes if o.name == name).encode("latin1") + argument

"""Recorded numbers: [sum, sum of absolute values, largest absolute value, count] of each tensor."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.detection.parity import digest, machine


def digests(values: dict[str, torch.Tensor]) -> dict[str, list[float]]:
    """Nine digits: a float32 has seven."""
    return {name: [float(f"{x:.9g}") for x in digest(value)] for name, value in values.items()}


def write(path: Path, made: dict[str, str], content: dict[str, Any]) -> None:
    """One quantity a line, so that a change is a readable diff."""
    lines = [f'"made": {json.dumps(made | machine())}']
    for section, values in content.items():
        rows = ",\n".join(
            f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in values.items()
        )
        lines.append(f'"{section}": {{\n{rows}\n}}')
    path.parent.mkdir(exist_ok=True)
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(path, path.stat().st_size, "bytes")


def differences(
    values: dict[str, torch.Tensor],
    recorded: dict[str, list[float]],
    tolerance: Callable[[str], float],
) -> list[str]:
    """Quantities whose digest is not the recorded one, to a relative tolerance by name."""
    assert values.keys() == recorded.keys(), values.keys() ^ recorded.keys()
    wrong = []
    for name, value in values.items():
        (total, absolute, largest, n), now = recorded[name], digest(value)
        errors = [abs(now[0] - total), abs(now[1] - absolute), abs(now[2] - largest)]
        allowed = [tolerance(name) * size for size in (absolute, absolute, largest)]
        if now[3] != n or any(e > a + 1e-12 for e, a in zip(errors, allowed, strict=True)):
            wrong.append(f"{name}: {now}, recorded {recorded[name]}")
    return wrong

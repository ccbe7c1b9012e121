"""What a checkpoint says about its own pretraining: the method, and what departs from a finished,
real one.
"""

from collections.abc import Mapping
from typing import Any

from harl_bench.core.errors import one_line
from harl_bench.nn.checkpoint import FORMAT

TOY = "pretraining was a toy: generated images, or a recipe that takes minutes"
MOST, LONGEST = 20, 200  # departures that are read of a file, characters of each


def method(payload: Any, about: Mapping[str, Any]) -> str:
    """Return the method that a file states, or "".

    Our own files have it in their `harl_bench` entry, Lightning's (solo-learn) in their
    hyper-parameters. The format is
    no statement: BYOL and SimSiam of one author have the same keys. Earlier versions of `convert`
    wrote it there.

    Args:
        about: the file's `harl_bench` entry, {} if it has none.
    """
    settings = payload.get("hyper_parameters") if isinstance(payload, Mapping) else None
    for holder in (about, settings if isinstance(settings, Mapping) else {}):
        value = holder.get("method")
        if isinstance(value, str) and 0 < len(value) <= LONGEST and value != holder.get("format"):
            return one_line(value)
    return ""


def departures(payload: Any, about: Mapping[str, Any]) -> list[str]:
    """Return what holds of these weights wherever they are measured, one sentence each.

    Args:
        about: the file's `harl_bench` entry; what a converted file's source stated stands in its
            `departures`.
    """
    carried = about.get("departures")
    lines = (
        [
            one_line(line)
            for line in carried[:MOST]
            if isinstance(line, str) and len(line) <= LONGEST
        ]
        if isinstance(carried, list)
        else []
    )
    ours = isinstance(payload, Mapping) and payload.get("format") == FORMAT
    step, steps = (payload.get(key) if ours else None for key in ("step", "steps"))
    if isinstance(step, int) and isinstance(steps, int) and step < steps:
        lines.append(f"pretraining unfinished: step {step} of {steps}")
    if about.get("toy") is True:
        lines.append(TOY)
    return list(dict.fromkeys(lines))

"""What tells runs of one name apart: labels, images, settings."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harl_bench.core.config import flatten
from harl_bench.core.results import Result

# Keys of a configuration that differ between the seeds of one experiment without being a setting.
NOT_SETTINGS = frozenset({"seed", "seeds", "output_dir", "out", "weights", "checkpoint"})
MOST = 3  # settings that a row names


def parted(group: list[tuple[Path, Result]]) -> list[list[tuple[Path, Result]]]:
    """Return the runs of the same labels and images, all of them where no two are known to differ.

    A mean over seeds that were scored with different labels is no number of either. Runs of earlier
    versions noted nothing.
    """
    parts: dict[str, list[tuple[Path, Result]]] = {}
    for path, result in group:
        parts.setdefault(described(result), []).append((path, result))
    return [*parts.values()] if len(parts.keys() - {""}) > 1 else [group]


def drawn(group: list[tuple[Path, Result]]) -> list[list[tuple[Path, Result]]]:
    """Return the runs of each mask maker: if one seed has two digests, there are several makers.

    Only a folder for each seed, `seed0/drfi` and `seed1/drfi`, shows which fits belong together.
    """
    if len({(r.seed, r.checkpoint.sha256) for _, r in group}) == len({r.seed for _, r in group}):
        return [group]
    folders: dict[str, list[tuple[Path, Result]]] = {}
    for path, result in group:
        folder = re.sub(rf"(?<![^/])seed{result.seed}(?![^/])", "seed", result.checkpoint.path)
        folders.setdefault(folder, []).append((path, result))
    if len(folders) > 1:
        return [draw for part in folders.values() for draw in drawn(part)]
    digests: dict[str, list[tuple[Path, Result]]] = {}
    for path, result in group:
        digests.setdefault(result.checkpoint.sha256, []).append((path, result))
    return list(digests.values())


def described(result: Result) -> str:
    """Return the digests of a run's labels and images in words, "" where it noted none."""
    return ", ".join(f"{name} {digest[:8]}" for name, digest in sorted(result.contents.items()))


def settings(value: Any) -> Any:
    """Return a configuration without what differs between the seeds of one experiment."""
    if not isinstance(value, dict):
        return value
    return {
        key: settings(inner)
        for key, inner in value.items()
        if key.rpartition(".")[2].lower() not in NOT_SETTINGS
    }


def apart(own: Result, others: Sequence[Result]) -> list[str]:
    """Return up to three settings, with their values, that others do not share, or the data."""
    mine, *theirs = (
        flatten(settings(r.config)) | {"data": r.data_fingerprint[:8]} for r in (own, *others)
    )
    keys = [key for key in mine if any(other.get(key) != mine[key] for other in theirs)]
    return [f"{key.removeprefix('recipe.')} {mine[key]}" for key in keys[:MOST]]

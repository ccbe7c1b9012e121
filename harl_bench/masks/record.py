"""An evaluation of masks as a run, whose result.json enters the report."""

import hashlib
import json
import os
import resource
import time
from pathlib import Path
from typing import Any

from harl_bench.core import manifest
from harl_bench.core.contents import of_files
from harl_bench.core.errors import DataError
from harl_bench.core.masks import MASK, mask_name
from harl_bench.core.results import CheckpointRef, Result
from harl_bench.core.runs import Run, open_run, write_result
from harl_bench.core.toy import is_toy
from harl_bench.masks import manifests

PROTOCOL = "mask-quality"  # as published/text_and_readme.csv calls it


def open_masks(
    out: Path, masks: Path, truth: Path, names: list[str], seed: int
) -> tuple[Run, dict[str, Any]]:
    """Open the run of these masks against this truth; return it and the known fields of its result.

    Raises:
        DataError: MASKS has no manifest that says how its masks were made, or a mask is not the one
            that it lists.
    """
    rows = manifests.read(masks)
    if not rows:
        raise DataError(
            "the masks have no manifest",
            where=masks,
            next="make them with harl-bench masks make, or omit --out",
        )
    _require_listed(masks, rows, {stem_of(name) for name in names})
    first = next(iter(rows.values()))
    made_with = {**json.loads(first.parameters), "engine": first.engine}
    digests = "".join(f"{path} {rows[path].sha256}\n" for path in sorted(rows))
    folder = truth.resolve()
    about: dict[str, Any] = {
        "task": "masks",
        "dataset": folder.parent.name if truth.name in ("masks", "truth") else folder.name,
        "protocol": PROTOCOL,
        "checkpoint": CheckpointRef(
            path=str(masks),
            name=masks.name,
            sha256=hashlib.sha256(digests.encode()).hexdigest(),
            format="masks",
            net="online",
        ),
        "seed": seed,
        # the model's digest differs between the seeds of one experiment
        "config": {key: _name(value) for key, value in {"maker": first.maker, **made_with}.items()},
        "data_fingerprint": manifest.fingerprint(truth, names),
    }
    run = open_run(out, **about)
    return run, about | {
        "manifest": manifest.collect() | {"masks": made_with},
        "method": first.maker,
        "engine": first.engine,
        "toy": is_toy(truth),
        "started": manifest.now(),
        # Masks are scored anew each time, so that other truth is no reason to refuse.
        "contents": {"truth": of_files([truth / name for name in names])},
    }


def _require_listed(masks: Path, rows: dict[str, manifests.Row], scored: set[str]) -> None:
    """Raise a DataError where a mask that was scored is not the one of its row."""
    files = {masks / mask_name(path): row for path, row in rows.items() if stem_of(path) in scored}
    files = {path: row for path, row in files.items() if path.is_file()}  # others are in shards
    other = [path for path, row in files.items() if manifest.sha256(path) != row.sha256]
    if other:
        raise DataError(
            f"{len(other)} of {len(files)} masks differ from those in the manifest",
            where=other[0],
            next="make them again with harl-bench masks make, or omit --out",
        )


def stem_of(name: str) -> str:
    """Return what an image, its mask and its truth share: the path without suffix and _mask."""
    return os.path.splitext(name)[0].removesuffix(MASK)


def _name(value: Any) -> Any:
    return value.partition("#")[0] if isinstance(value, str) else value


def keep(run: Run, about: dict[str, Any], summary: dict[str, Any], began: float) -> None:
    """Write result.json. `began`: time.monotonic() when the scoring began."""
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = Result(
        run_id=run.run_id,
        metrics=summary["overall"],
        per_class=summary["per_class"],
        n_test=summary["n"],
        wall_s=round(time.monotonic() - began, 1),
        peak_memory_mb=peak_kib / 1024,
        **about,
    )
    write_result(run, result)

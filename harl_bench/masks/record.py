"""An evaluation of masks as a run, whose result.json enters the report."""

import hashlib
import json
import resource
import time
from pathlib import Path
from typing import Any

from harl_bench.core import manifest
from harl_bench.core.errors import DataError
from harl_bench.core.results import CheckpointRef, Result, Run, open_run, write_result
from harl_bench.core.toy import is_toy
from harl_bench.masks import manifests

PROTOCOL = "mask-quality"  # as published/text_and_readme.csv calls it


def open_masks(
    out: Path, masks: Path, truth: Path, names: list[str], seed: int
) -> tuple[Run, dict[str, Any]]:
    """Open the run of these masks against this truth; return it and the known fields of its result.

    Raises:
        DataError: MASKS has no manifest that says how its masks were made.
    """
    rows = manifests.read(masks)
    if not rows:
        raise DataError(
            "the masks have no manifest",
            where=masks,
            next="make them with harl-bench masks make, or omit --out",
        )
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
    }


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

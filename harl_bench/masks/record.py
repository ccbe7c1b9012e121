"""An evaluation of masks as a run: result.json where the report finds it beside the paper's mask
quality.
"""

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
    """The run folder of these masks against this truth, and the fields of its result that are known
    beforehand.

    Raises:
        DataError: MASKS has no manifest: nothing tells how its masks were made.
    """
    rows = manifests.read(masks)
    if not rows:
        raise DataError(
            "the masks have no manifest",
            where=masks,
            next="make them with harl-bench masks make, or leave --out away",
        )
    first = next(iter(rows.values()))
    made_with = {**json.loads(first.parameters), "engine": first.engine}
    digest = hashlib.sha256(
        "".join(f"{path} {rows[path].sha256}\n" for path in sorted(rows)).encode()
    )
    about: dict[str, Any] = {
        "task": "masks",
        "dataset": truth.resolve().parent.name
        if truth.name in ("masks", "truth")
        else truth.resolve().name,
        "protocol": PROTOCOL,
        "checkpoint": CheckpointRef(
            path=str(masks),
            name=masks.name,
            sha256=digest.hexdigest(),
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
    write_result(
        run,
        Result(
            run_id=run.run_id,
            metrics=summary["overall"],
            per_class=summary["per_class"],
            n_test=summary["n"],
            wall_s=round(time.monotonic() - began, 1),
            peak_memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            / 1024,  # KiB on Linux
            **about,
        ),
    )

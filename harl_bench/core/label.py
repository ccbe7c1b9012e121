"""The name that a user gives to a row of the report; it decides nothing that is computed."""

from pathlib import Path
from typing import Any

from harl_bench.core.files import write_json
from harl_bench.core.manifest import now
from harl_bench.core.progress import log
from harl_bench.core.results import RESULT, read_result


def labelled(label: str | None) -> dict[str, Any]:
    """Return the fields of a result that name its row: {} without a label."""
    return {"label": label, "labelled": now()} if label else {}


def relabel(folder: Path, label: str | None) -> None:
    """Put a new label into the result of a finished run; "" takes one away, None leaves all as it
    is.

    Raises:
        DataError: the result cannot be read.
    """
    if label is None:
        return
    result = read_result(folder / RESULT)
    if result.label != label:
        relabelled = result.model_copy(update={"label": label, "labelled": now()})
        write_json(folder / RESULT, relabelled.model_dump())
        log.info("labelled %r: %s", label, folder)

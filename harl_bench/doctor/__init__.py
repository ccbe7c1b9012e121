"""`harl-bench doctor`: is everything there? Looks only; downloads and changes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from harl_bench.core.options import COMMON, Out

if TYPE_CHECKING:
    from harl_bench.doctor.finding import Finding

CODES = {"environment": 5, "checkpoint": 4, "data": 3}


def doctor(
    *,
    data: Annotated[
        Path | None,
        Parameter(group=COMMON, help="Folder of data sets to check; default $DETECTRON2_DATASETS."),
    ] = None,
    checkpoints: Annotated[
        list[Path],
        Parameter(
            group=COMMON,
            consume_multiple=True,
            negative="",
            help="Checkpoints, or folders of them, to read.",
        ),
    ] = [],  # noqa: B006
    out: Out = Path("runs"),
    json: Annotated[
        bool, Parameter(group=COMMON, show_default=False, help="Print a JSON list of findings.")
    ] = False,
    deep: Annotated[
        bool,
        Parameter(
            group=COMMON,
            show_default=False,
            help="Decode every image of the published classification sets (minutes to an hour) "
            "and hash archives.",
        ),
    ] = False,
    fix: Annotated[
        bool, Parameter(group=COMMON, show_default=False, help="Print only the commands to give.")
    ] = False,
) -> int:
    """Check machine, packages, data sets and checkpoints.

    Prints one line each, ok, warn or fail, with the next command. Looks and reports; it downloads
    and changes nothing. Exit code 5 when something of the environment failed, else 4 when
    a checkpoint failed, else 3 when some data failed, else 0.

    Try:

        harl-bench doctor --data data

        harl-bench doctor --data data --checkpoints moco_v2_800ep.pth.tar runs/pretrain/harl

        harl-bench doctor --data data --fix
    """
    from collections import Counter
    from dataclasses import asdict
    from json import dumps

    findings = []
    for finding in _findings(out, data, checkpoints, deep=deep):
        findings.append(finding)
        if not json and not fix:
            print(finding.line(), flush=True)  # at once: reading COCO takes a while
    if json:
        print(dumps([asdict(finding) for finding in findings], indent=1))
    elif fix:
        faults = [finding for finding in findings if finding.level != "ok"]
        remedies = [f.next or f"# {f.what}: {f.hint}" for f in faults if f.next or f.hint]
        print("\n".join(dict.fromkeys(remedies)) or "# nothing to fix")
    else:
        counts = Counter(finding.level for finding in findings)
        print(", ".join(f"{n} {level}" for level, n in counts.items()))
    failed = {finding.area for finding in findings if finding.level == "fail"}
    return next((code for area, code in CODES.items() if area in failed), 0)


def _findings(
    out: Path, data: Path | None, checkpoints: Sequence[Path], *, deep: bool
) -> Iterator[Finding]:
    from harl_bench.doctor import machine
    from harl_bench.doctor.finding import Finding

    yield from machine.findings(out)
    if root := data or os.environ.get("DETECTRON2_DATASETS"):
        from harl_bench.doctor import data as data_sets

        yield from data_sets.findings(Path(root).expanduser(), deep=deep)
    else:
        command = "harl-bench doctor --data DIR"
        yield Finding("data", "ok", "data", "none named: demo needs none", command)
    if checkpoints:
        from harl_bench.doctor import checkpoints as files

        yield from files.findings(path.expanduser() for path in checkpoints)

"""`harl-bench doctor`: is everything there? Looks only; downloads and changes nothing."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from harl_bench.core.options import COMMON, Out

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
            help=(
                "Decode every image of the published classification sets (minutes to an hour) "
                "and hash archives."
            ),
        ),
    ] = False,
    fix: Annotated[
        bool, Parameter(group=COMMON, show_default=False, help="Print only the commands to give.")
    ] = False,
) -> int:
    """Check machine, packages, data sets and checkpoints: one line each, ok, warn or fail, with the
    next command.

    Looks and reports; it downloads and changes nothing. Exit code 5 when something of the
    environment failed, else 4 when a checkpoint failed, else 3 when some data failed, else 0.

    Try:

        harl-bench doctor --data data

        harl-bench doctor --data data --checkpoints moco_v2_800ep.pth.tar runs/pretrain/harl

        harl-bench doctor --data data --fix
    """
    import os
    from collections import Counter
    from dataclasses import asdict
    from json import dumps

    from harl_bench.doctor import machine
    from harl_bench.doctor.finding import Finding

    found: list[Finding] = []

    def tell(finding: Finding) -> None:
        found.append(finding)
        if not json and not fix:
            print(finding.line(), flush=True)  # at once: reading COCO takes a while

    for finding in machine.findings(out):
        tell(finding)
    root = data or os.environ.get("DETECTRON2_DATASETS")
    if root:
        from harl_bench.doctor import data as data_sets

        for finding in data_sets.findings(Path(root).expanduser(), deep=deep):
            tell(finding)
    else:
        tell(
            Finding(
                "data", "ok", "data", "none named: demo needs none", "harl-bench doctor --data DIR"
            )
        )
    if checkpoints:
        from harl_bench.doctor import checkpoints as files

        for finding in files.findings(path.expanduser() for path in checkpoints):
            tell(finding)
    counts = Counter(finding.level for finding in found)
    if json:
        print(dumps([asdict(finding) for finding in found], indent=1))
    elif fix:
        remaining = [f for f in found if f.level != "ok" and (f.next or f.hint)]
        print(
            "\n".join(dict.fromkeys(f.next or f"# {f.what}: {f.hint}" for f in remaining))
            or "# nothing to mend"
        )
    else:
        print(", ".join(f"{n} {level}" for level, n in counts.items()))
    failed = {finding.area for finding in found if finding.level == "fail"}
    return next((code for area, code in CODES.items() if area in failed), 0)

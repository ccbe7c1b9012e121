"""The command `harl-bench run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from harl_bench.core.errors import CheckpointError, DataError, PreemptedError
from harl_bench.core.options import DryRun, Gpus, Out
from harl_bench.core.progress import console, duration, log

if TYPE_CHECKING:
    from harl_bench.suite.config import Suite
    from harl_bench.suite.plan import Cell
    from harl_bench.suite.process import Ending


def run(
    suite: Annotated[str, Parameter(help="harl-paper, moco-transfer, toy, or a YAML file like them.")],
    /,
    *overrides: Annotated[str, Parameter(help="key=value changes to the suite, e.g. data.voc=/data 'seeds=[0]'")],
    out: Out = Path("runs"),
    gpus: Gpus = None,
    dry_run: DryRun = False,
) -> int:
    """Run a whole suite: pretrainings, then checkpoints x tasks x seeds, then the report.

    Goes on after a failure and lists it at the end (exit code 1). The same command again skips what is finished,
    continues what is not, and tries again what failed.

    Try:

        harl-bench run moco-transfer data.voc=/data data.coco=/data/coco --dry-run

        harl-bench run toy --out runs-toy
    """
    from harl_bench.report.collect import plain
    from harl_bench.suite import config, plan

    loaded = config.load(suite, overrides)
    cells = plan.cells(loaded, out, gpus)
    runs, hashes = plan.known(out), dict[Path, str]()
    planned = [(cell, plan.found(cell, runs, hashes)[0]) for cell in cells]
    for line in plan.table(planned, loaded.seeds):
        console.print(line, markup=False)
    todo = [cell for cell, state in planned if state != "finished"]
    log.info("%d commands, %d finished, %d to do", len(cells), len(cells) - len(todo), len(todo))
    missing = _missing(loaded, cells)
    if dry_run:
        for error in missing:
            log.warning("%s", error)
        log.info("nothing was started (--dry-run)")
        return 0
    if missing:
        raise missing[0]
    failures = _run(cells, out)
    ending = _report(loaded, out)
    if ending is not None and ending.code:
        failures["report"] = ending.last_line
    for name, cause in failures.items():
        log.warning("failed: %s: %s", plain(name), cause)
    log.info("%d of %d commands failed; the same command again tries only those", len(failures), len(cells) + 1)
    return 1 if failures else 0


def _missing(suite: Suite, cells: list[Cell]) -> list[DataError | CheckpointError]:
    """What has to be there before days of work begin."""
    used = {folder for cell in cells for folder in cell.data}
    errors: list[DataError | CheckpointError] = []
    for name, folder in suite.data.items():
        if folder in used and not folder.is_dir():
            hint = suite.prepare or f"give its place: data.{name}=DIR"
            errors.append(DataError(f"data folder {name!r} is missing", where=folder, next=hint))
    for path in dict.fromkeys(cell.path for cell in cells if cell.path and not cell.needs):
        if not path.is_file():
            known = ", ".join(step.name for step in suite.pretrain) or "no pretraining"
            text = "checkpoint not found"
            errors.append(CheckpointError(text, where=path, seen=f"{known} in the suite", next="check the path"))
    return errors


def _run(cells: list[Cell], out: Path) -> dict[str, str]:
    """Every command in turn; the names and causes of those that failed.

    Raises:
        PreemptedError, KeyboardInterrupt: a signal came; nothing more is started.
    """
    import time

    from harl_bench.report.collect import plain
    from harl_bench.suite import failures, process

    failed: dict[str, str] = {}
    lost: set[str] = set()  # pretrainings
    for number, cell in enumerate(cells, 1):
        console.print(f"\n[{number}/{len(cells)}] {plain(cell.name)}", style="bold", markup=False)
        if cell.needs in lost:
            failed[cell.name] = f"pretraining {cell.needs} failed"
            continue
        began = time.monotonic()
        ending = process.run(cell.arguments)
        _stop(ending)
        if ending.code == 0:
            failures.forget(cell, out)
            log.info("done in %s", duration(time.monotonic() - began))
            continue
        failed[cell.name] = failures.record(cell, out, ending)
        lost |= {cell.checkpoint} if cell.folder else set()
    return failed


def _stop(ending: Ending) -> None:
    """Pass a signal on: 75 for a scheduler, 130 for Ctrl-C."""
    import signal

    from harl_bench.core.errors import INTERRUPTED, PREEMPTED

    if ending.signal == signal.SIGINT or ending.code in (INTERRUPTED, -signal.SIGINT):
        raise KeyboardInterrupt
    if ending.signal is not None or ending.code == PREEMPTED:
        raise PreemptedError("the suite was stopped, its state is saved", next="give the same command again")


def _report(suite: Suite, out: Path) -> Ending | None:
    """The report over everything below `out`; None when there is nothing to report."""
    from harl_bench.core.results import scan
    from harl_bench.suite import process

    if not out.is_dir() or not scan(out)[0]:
        return None
    told = suite.report
    files = {"--html": told.html, "--md": told.md, "--tex": told.tex, "--csv": told.csv}
    arguments = ["report", str(out)]
    for option, path in files.items():
        arguments += [option, str(out / path)] if path else []
    for option, value in (("--against", told.against), ("--baseline", told.baseline)):
        arguments += [option, value] if value else []
    console.print("\nharl-bench " + " ".join(arguments), style="bold", markup=False)
    ending = process.run(arguments)
    _stop(ending)
    return ending

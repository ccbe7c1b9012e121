"""The command `harl-bench run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from harl_bench.core.errors import BenchError, CheckpointError, DataError, UsageError
from harl_bench.core.options import HARDWARE, DryRun, Gpus, Out
from harl_bench.core.progress import console, log

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harl_bench.suite.cell import Cell
    from harl_bench.suite.config import Suite
    from harl_bench.suite.finished import Memory
    from harl_bench.suite.plan import Known, State


def run(
    suite: Annotated[
        str, Parameter(help="harl-paper, harl-masks, moco-transfer, toy, or a YAML file like them.")
    ],
    /,
    *overrides: Annotated[
        str, Parameter(help="key=value changes to the suite, e.g. data.voc=/data 'seeds=[0]'")
    ],
    out: Out = Path("runs"),
    gpus: Gpus = None,
    at_once: Annotated[
        int | None,
        Parameter(
            group=HARDWARE,
            validator=Number(gte=1),
            help="Commands at a time, the GPUs shared out equally (default: detectors and "
            "pretraining take all GPUs, "
            "others one each).",
        ),
    ] = None,
    slurm: Annotated[
        Path | None,
        Parameter(group=HARDWARE, help="Hand over to SLURM, with the settings of this YAML file."),
    ] = None,
    dry_run: DryRun = False,
) -> int:
    """Run a whole suite: masks, pretrainings, then checkpoints x tasks x seeds, then the report.

    Goes on after a failure and lists it at the end (exit code 1). The same command again skips what
    is finished, continues what is not, and tries again what failed. Before anything starts, each
    kind of command is asked whether it accepts its inputs. `--dry-run` does the same and shows the
    matrix, what it will take, and with `--slurm` the scripts.

    Try:

        harl-bench run moco-transfer data.voc=/data data.coco=/data/coco --dry-run

        harl-bench run toy --out runs-toy

        harl-bench run harl-paper --slurm cluster.yaml
    """
    from harl_bench.report.collect import plain
    from harl_bench.suite import checks, config, finished, local, plan

    if slurm is not None and (gpus is not None or at_once is not None):
        raise UsageError(
            "--gpus and --at-once are of this machine",
            where="--slurm",
            next="gpus_per_node in its file",
        )
    loaded = config.load(suite, overrides)
    cells = plan.cells(loaded, out, gpus)
    runs, hashes = plan.known(out), dict[Path, str]()
    planned = [(cell, plan.found(cell, runs, hashes)[0]) for cell in cells]
    for line in plan.table(planned, loaded.seeds):
        console.print(line, markup=False)
    remaining = [cell for cell, state in planned if state != "finished"]
    log.info(
        "%d commands, %d finished, %d to do",
        len(cells),
        len(cells) - len(remaining),
        len(remaining),
    )
    _tell_cost(remaining, runs, out)
    slots = None if slurm is not None else local.slots(gpus, at_once)
    refused: list[BenchError] = [*_missing(loaded, cells)]
    refused = refused or list(checks.refusals(remaining, slots, at_once is not None))
    if dry_run:
        if slurm is not None:
            _scripts(remaining, slurm, out)
        for error in refused[1:]:
            log.warning("%s", error)
        log.info("nothing was started (--dry-run)")
    if refused:
        raise refused[0]
    if slurm is not None:
        return _hand_over(remaining, slurm, out, _report_arguments(loaded, out), dry_run=dry_run)
    if dry_run:
        return 0
    assert slots is not None, "asked for above"
    memory = finished.Memory(out)
    again = _to_ask(planned, runs, memory)
    if known := len(cells) - len(again):
        log.info("%d finished commands are as they were, %d to give", known, len(again))
    failures = local.run_all(again, out, slots, at_once, memory)
    if cause := _report(loaded, out):
        failures["report"] = cause
    for name, cause in failures.items():
        log.warning("failed: %s: %s", plain(name), cause)
    log.info(
        "%d of %d commands failed; the same command again tries only those",
        len(failures),
        len(again) + 1,
    )
    return 1 if failures else 0


def _tell_cost(remaining: Sequence[Cell], runs: Sequence[Known], out: Path) -> None:
    from harl_bench.suite import cost

    lines, short = cost.told(remaining, runs, out)
    for line in lines:
        log.info("%s", line)
    if short:
        log.warning("%s", short)


def _scripts(remaining: Sequence[Cell], file: Path, out: Path) -> None:
    from harl_bench.suite import cluster, slurm

    for number, text in enumerate(slurm.texts(remaining, cluster.load(file), out), 1):
        console.print(f"\nsbatch script {number}:", style="bold")
        console.print(text, markup=False)


def _to_ask(
    planned: Sequence[tuple[Cell, State]], runs: Sequence[Known], memory: Memory
) -> list[Cell]:
    """Commands to give: what is to do, and what was finished before if a thing that it reads has
    changed since; its own
    command then compares the data. A fit has no memory: given again, it would fit again."""
    again: list[Cell] = []
    renewed: set[str] = set()
    for cell, state in planned:
        kept = cell.task == "masks fit" or memory.holds(cell, runs)
        if state != "finished" or renewed & set(cell.needs) or not kept:
            again.append(cell)
            renewed |= {cell.makes} - {""}
    return again


def _hand_over(
    remaining: list[Cell], file: Path, out: Path, report: Sequence[str], *, dry_run: bool
) -> int:
    from harl_bench.suite import cluster, slurm

    told = cluster.load(file)
    slurm.demand_slurm()
    if dry_run:
        return 0
    already = slurm.with_slurm(remaining, out)
    if already:
        log.info(
            "%d commands are with SLURM already: %s",
            len(already),
            ", ".join(dict.fromkeys(already.values())),
        )
    remaining = [cell for cell in remaining if cell.name not in already]
    if not remaining:
        log.info("nothing to hand over; harl-bench ls %s shows how they stand", out)
        return 0
    numbers = slurm.submit(remaining, told, out, report)
    log.info(
        "submitted %d commands as %s; you may log out. Watch: harl-bench ls %s",
        len(remaining),
        ", ".join(numbers),
        out,
    )
    return 0


def _missing(suite: Suite, cells: Sequence[Cell]) -> list[DataError | CheckpointError]:
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
            errors.append(
                CheckpointError(
                    text, where=path, seen=f"{known} in the suite", next="check the path"
                )
            )
    return errors


def _report_arguments(suite: Suite, out: Path) -> list[str]:
    told = suite.report
    files = {"--html": told.html, "--md": told.md, "--tex": told.tex, "--csv": told.csv}
    arguments = ["report", str(out)]
    for option, path in files.items():
        arguments += [option, str(out / path)] if path else []
    for option, value in (("--against", told.against), ("--baseline", told.baseline)):
        arguments += [option, value] if value else []
    return arguments


def _report(suite: Suite, out: Path) -> str:
    """The report over everything below `out`, if there is anything to report; why it failed, or
    "".
    """
    from harl_bench.core.results import scan
    from harl_bench.suite import local, process

    if not out.is_dir() or not scan(out)[0]:
        return ""
    arguments = _report_arguments(suite, out)
    console.print("\nharl-bench " + " ".join(arguments), style="bold", markup=False)
    processes = process.Processes()
    with processes.forwarding():
        ending = processes.run(arguments)
    local.stop(ending, processes.came)
    return "" if ending.code == 0 else ending.last_line or f"exit code {ending.code}, no message"

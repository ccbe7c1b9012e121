"""The command `harl-bench run`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from harl_bench.core.errors import BenchError, CheckpointError, DataError, UsageError
from harl_bench.core.options import HARDWARE, DryRun, Gpus, Out, offering
from harl_bench.core.progress import console, log

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harl_bench.suite.command import Command
    from harl_bench.suite.config import Suite
    from harl_bench.suite.finished import Memory
    from harl_bench.suite.state import RunFolder, State


def _suites() -> list[str]:
    from harl_bench.suite import config

    return config.names()


def run(
    suite: Annotated[
        str,
        Parameter(
            help="A name from docs/protocols.md (harl-paper, moco-transfer, dense-transfer, toy, "
            "...) or a YAML file like theirs."
        ),
        offering(_suites),
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
            "pretraining take all GPUs, others one each).",
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

        harl-bench run moco-transfer data.voc=/data data.coco=/data data.cityscapes=/data --dry-run

        harl-bench run toy --out runs-toy

        harl-bench run harl-paper --slurm cluster.yaml
    """
    from harl_bench.report.collect import plain
    from harl_bench.suite import checks, config, cost, finished, local, plan, state
    from harl_bench.suite.command import counted

    if slurm is not None and (gpus is not None or at_once is not None):
        text, hint = "--gpus and --at-once are of this machine", "gpus_per_node in its file"
        raise UsageError(text, where="--slurm", next=hint)
    loaded = config.load(suite, overrides)
    commands, runs = plan.commands(loaded, out, gpus), state.known(out)
    planned = [(command, state.find(command, runs)[0]) for command in commands]
    for line in plan.table(planned, loaded.seeds):
        console.print(line, markup=False)
    remaining = [command for command, word in planned if word != "finished"]
    done = len(commands) - len(remaining)
    log.info("%s, %d finished, %d to do", counted(len(commands)), done, len(remaining))
    cost.show(remaining, runs, out)
    slots = local.slots(gpus, at_once) if slurm is None else None
    refused = _missing(loaded, commands) or list(checks.refusals(remaining, slots))
    if dry_run:
        if slurm is not None:
            _print_scripts(remaining, slurm, out)
        for error in refused[1:]:
            log.warning("%s", error)
        log.info("nothing was started (--dry-run)")
    if refused:
        raise refused[0]
    if slots is None:
        assert slurm is not None, "otherwise this machine computes"
        return _hand_over(remaining, slurm, out, _report_arguments(loaded, out), dry_run=dry_run)
    if dry_run:
        return 0
    memory = finished.Memory(out)
    again = _to_ask(planned, runs, memory)
    if skipped := len(commands) - len(again):
        log.info("%s skipped: nothing that they read has changed", counted(skipped))
    failures = local.run_all(again, out, slots, memory)
    if cause := _report(loaded, out):
        failures["report"] = cause
    for name, cause in failures.items():
        log.warning("failed: %s: %s", plain(name), cause)
    if failures:
        text = "%d of %s failed; the same command again tries only those"
        log.info(text, len(failures), counted(len(again) + 1))
    return 1 if failures else 0


def _to_ask(
    planned: Sequence[tuple[Command, State]], runs: Sequence[RunFolder], memory: Memory
) -> list[Command]:
    """Return what is to do, and what is finished but has read a thing that changed since.

    Its own command then compares the data. A fit has no memory: given again, it would fit again.
    """
    again: list[Command] = []
    renewed: set[str] = set()
    for command, state in planned:
        same = command.task == "masks fit" or memory.holds(command, runs)
        if state != "finished" or renewed & set(command.needs) or not same:
            again.append(command)
            renewed |= {command.makes} - {""}
    return again


def _missing(suite: Suite, commands: Sequence[Command]) -> list[BenchError]:
    """Return what has to be there before days of work begin, and is not."""
    used = {folder for command in commands for folder in command.data}
    errors: list[BenchError] = []
    for name, folder in suite.data.items():
        if folder in used and not folder.is_dir():
            hint = suite.prepare or f"give its place: data.{name}=DIR"
            errors.append(DataError(f"data folder {name!r} is missing", where=folder, next=hint))
    seen = f"{', '.join(step.name for step in suite.pretrain) or 'no pretraining'} in the suite"
    for path in dict.fromkeys(c.path for c in commands if c.path and not c.needs):
        if not path.is_file():
            text = "checkpoint not found"
            errors.append(CheckpointError(text, where=path, seen=seen, next="check the path"))
    return errors


def _print_scripts(remaining: Sequence[Command], file: Path, out: Path) -> None:
    from harl_bench.suite import cluster, slurm

    for number, text in enumerate(slurm.texts(remaining, cluster.load(file), out), 1):
        console.print(f"\nsbatch script {number}:", style="bold")
        console.print(text, markup=False)


def _hand_over(
    remaining: Sequence[Command], file: Path, out: Path, report: Sequence[str], *, dry_run: bool
) -> int:
    from harl_bench.suite import cluster, slurm
    from harl_bench.suite.command import counted

    settings = cluster.load(file)
    slurm.require_slurm()
    if dry_run:
        return 0
    jobs = slurm.with_slurm(remaining, out)
    if jobs:
        numbers = ", ".join(dict.fromkeys(jobs.values()))
        log.info("%s with SLURM already: %s", counted(len(jobs)), numbers)
    count = sum(command.name not in jobs for command in remaining)
    if not count:
        log.info("nothing to hand over; next: harl-bench ls %s", shlex.quote(str(out)))
        return 0
    numbers = ", ".join(slurm.submit(remaining, settings, out, report, jobs))
    text = "submitted %s as %s; you may log out. Watch: harl-bench ls %s"
    log.info(text, counted(count), numbers, shlex.quote(str(out)))
    return 0


def _report_arguments(suite: Suite, out: Path) -> list[str]:
    from harl_bench.suite.command import options
    from harl_bench.suite.plan import LAST

    report, baseline = suite.report, suite.report.baseline
    if baseline in [step.name for step in suite.pretrain]:
        baseline = f"{baseline}-{Path(LAST).stem}"  # as results name its checkpoint
    files = {f"--{kind}": getattr(report, kind) for kind in ("html", "md", "tex", "csv")}
    paths = {option: path and out / path for option, path in files.items()}
    settings = {"--against": report.against, "--baseline": baseline or None}
    return ["report", str(out), *options(paths | settings)]


def _report(suite: Suite, out: Path) -> str:
    """Report on everything below `out`, if there is anything; return why that failed, or ""."""
    from harl_bench.core.results import scan
    from harl_bench.suite import process

    if not out.is_dir() or not scan(out)[0]:
        return ""
    arguments = _report_arguments(suite, out)
    console.print("\nharl-bench " + shlex.join(arguments), style="bold", markup=False)
    ended = process.run(arguments)
    return ended.cause if ended.returncode else ""

"""Everything of harl-bench that needs a GPU, in one run of at most eight minutes.

    python -m benchmarks.gpu_check [--out gpu_check.json] [--budget 460] [--only "step *"]

Each part runs in a process beside this one: a failure, a crash or a part without an end is a line
and the rest goes on. The file is written after each part; a table with ratios against rivals of
the same run comes last. Parts come in the order of their worth, and one that no longer fits into
the budget says so. Batches halve where memory does not suffice. What parts print goes to a .log
beside the file. --tiny runs the same code on a CPU in tiny sizes: its numbers say nothing.
docs/gpu.md says more.
"""

import argparse
import sys
import time
from fnmatch import fnmatch
from pathlib import Path

from benchmarks.gpu_check.parts import PARTS, Part
from benchmarks.gpu_check.setting import Setting
from benchmarks.gpu_check.table import line, table
from benchmarks.gpu_check.worker import Worker
from harl_bench.core.errors import BenchError
from harl_bench.core.files import write_json

BUDGET_S, TINY_S = 460.0, 3600.0
PATIENCE = 4  # times the seconds that a part should take, before it counts as hanging


def main() -> int:
    options = parsed()
    selected = {
        name: part
        for name, part in PARTS.items()
        if any(fnmatch(name, pattern) for pattern in options.only)
    }
    budget = options.budget
    if budget is None:
        budget = TINY_S if options.tiny else BUDGET_S
    setting = Setting(options.tiny, ends_at=time.monotonic() + budget)
    try:
        report = run(selected, setting, options.out)
    except BenchError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(table(report, PARTS))
    return int(any("failed" in outcome for outcome in report["parts"].values()))


def parsed(words: list[str] | None = None) -> argparse.Namespace:
    """Return the options of a command line, this process's by default."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("gpu_check.json"))
    parser.add_argument("--budget", type=float, help=f"seconds in all, {BUDGET_S:.0f} by default")
    parser.add_argument(
        "--only", nargs="+", metavar="PART", default=["*"], help="names or patterns of parts"
    )
    parser.add_argument("--tiny", action="store_true", help="tiny sizes on the CPU")
    options = parser.parse_args(words)
    for pattern in options.only:
        if not any(fnmatch(name, pattern) for name in PARTS):
            parser.error(f"--only {pattern}: no such part; there are {', '.join(PARTS)}")
    return options


def run(parts: dict[str, Part], setting: Setting, out: Path) -> dict:
    """Measure parts one after another and return the report, which `out` has after each of them.

    Raises:
        MachineError: there is no GPU.
    """
    report: dict = {"tiny": setting.tiny, "date": time.strftime("%Y-%m-%d %H:%M"), "parts": {}}
    began = time.monotonic()
    with Worker(setting, out.with_suffix(".log")) as worker:
        for name, part in parts.items():
            left = setting.left_s
            if left <= 0 or (left < part.seconds and not setting.tiny):
                outcome = {"skipped": f"{max(left, 0):.0f} s are left, {part.seconds} are needed"}
            else:
                limit = min(left, max(setting.patience_s, PATIENCE * part.seconds))
                outcome = worker.measure(part, limit)
            report["parts"][name] = outcome
            report["seconds"] = round(time.monotonic() - began, 1)
            write_json(out, report)
            print(f"{report['seconds']:6.0f} s  {line(name, outcome)}", flush=True)
    return report


if __name__ == "__main__":
    sys.exit(main())

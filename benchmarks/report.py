"""How long `report` and `ls` take over many runs.

    python -m benchmarks.report [RUNS=2000]

The rival is the least anyone could do: json.load of all files into pandas. Prints seconds and the
ratio to the rival, all from this one run. The runs are made up.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.report.report_store import result, write

RIVAL = """
import json, pathlib, sys
import pandas
rows = []
for path in pathlib.Path(sys.argv[1]).rglob("result.json"):
    with open(path) as file:
        run = json.load(file)
    for metric, value in run["metrics"].items():
        keys = (run["task"], run["dataset"], run["protocol"], run["checkpoint"]["name"])
        rows.append((*keys, run["seed"], metric, value))
keys = ["task", "dataset", "protocol", "checkpoint"]
frame = pandas.DataFrame(rows, columns=[*keys, "seed", "metric", "value"])
table = frame.groupby([*keys, "metric"])["value"].agg(["mean", "std", "count"])
table.unstack("metric").to_markdown(sys.argv[2])
"""
# as long as a true recipe
CONFIG = {f"MODEL.SECTION_{i}.KEY_{k}": [i, k, 0.5] for i in range(12) for k in range(10)}


def main() -> None:
    """Make the runs, then time the rival, ls, and report, each in a process of its own."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    with tempfile.TemporaryDirectory() as folder:
        runs, out = Path(folder) / "runs", Path(folder) / "out"
        made = made_up(runs, number)
        out.mkdir()
        command = [sys.executable, "-m", "harl_bench.cli"]
        report = ["report", str(runs), "--against", "published"]
        report += ["--md", f"{out}/t.md", "--tex", f"{out}/t.tex", "--csv", f"{out}/t.csv"]
        rival = timed([sys.executable, "-c", RIVAL, str(runs), f"{out}/rival.md"])
        print(f"{made} runs{'':<31} {'seconds':>8} {'ratio':>6}")
        print(f"{'json.load + pandas, one table':<40} {rival:>8.2f} {1.0:>6.2f}")
        for name, arguments in {
            "ls": ["ls", str(runs)],
            "report: terminal, md, tex, csv": report,
            "report: the same and html": [*report, "--html", f"{out}/r.html"],
        }.items():
            seconds = timed([*command, *arguments])
            print(f"{name:<40} {seconds:>8.2f} {seconds / rival:>6.2f}")
        print(f"page: {(out / 'r.html').stat().st_size / 1e6:.2f} MB")


def made_up(root: Path, number: int) -> int:
    """`number` runs over three tasks, three seeds each, without images."""
    tasks = (
        ("voc", "voc07+12", "voc-c4-24k"),
        ("coco", "coco", "coco-fpn-2fc-1x"),
        ("classify", "cifar10", "linear"),
    )
    results = []
    for i in range(number):
        (task, dataset, protocol), seed, method = tasks[i % 3], i // 3 % 3, f"checkpoint{i // 9}"
        about = {"dataset": dataset, "protocol": protocol, "config": CONFIG | {"SEED": seed}}
        results.append(result(task, method, seed, score=30 + i % 17, **about))
    return len(write(root, *results))


def timed(command: list[str]) -> float:
    """Wall seconds of a process; its output is dropped."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()

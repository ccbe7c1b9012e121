"""`harl-bench --help` against the import of torch alone: wall seconds of whole processes, in turn.

python -m benchmarks.help
"""

import statistics
import subprocess
import sys
import time

REPEATS = 7
COMMANDS = {
    "harl-bench --help": [sys.executable, "-m", "harl_bench.cli", "--help"],
    "python -c 'import torch'": [sys.executable, "-c", "import torch"],
}


def seconds(command: list[str]) -> float:
    """Wall time of one process."""
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    times = [[seconds(command) for command in COMMANDS.values()] for _ in range(REPEATS + 1)][1:]
    for name, column in zip(COMMANDS, zip(*times, strict=True), strict=True):
        print(f"{name}: median {statistics.median(column):.3f} s, least {min(column):.3f} s")
    print(f"ratio {statistics.median(a / b for a, b in times):.3f}")


if __name__ == "__main__":
    main()

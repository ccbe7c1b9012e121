"""What input and loop cost: a pretraining run on JPEGs against its step on views on the device.

    python -m benchmarks.pretrain_loop [--method harl] [--batch 256] [--size 224] [--steps 60]

--override KEY=VALUE changes the recipe of the run.

The run is `harl-bench pretrain` on made-up photographs of 500 x 375 px with masks, its data
workers, its colors, its copies to the device and its bookkeeping included; the step is that of
benchmarks/pretrain_step.py. Printed are images a second of both, medians after the first ten steps,
their ratio, and the share of the time the loop waited for data.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.pretrain_input import photographs
from benchmarks.pretrain_step import ours
from harl_bench.cli import main as harl_bench
from harl_bench.core.progress import read_metrics

EVERY = 5
SETTLED = 10  # steps until kernels are chosen and the workers run ahead


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--method", default="harl", choices=("harl", "byol"))
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--override", action="append", default=[])
    options = parser.parse_args()
    options.device = "cuda" if torch.cuda.is_available() else "cpu"
    on_gpu = options.device == "cuda"
    options.precision = "bf16" if on_gpu else "fp32"
    options.layout = torch.channels_last if on_gpu else torch.contiguous_format
    with tempfile.TemporaryDirectory() as folder:
        images, masks = photographs(Path(folder), 2 * options.batch, None)
        out = Path(folder) / "run"
        arguments = [
            *("pretrain", "--recipe", f"{options.method}-100ep"),
            *("--data", str(images), "--out", str(out)),
            f"backbone={options.backbone}",
            f"batch_size={options.batch}",
            f"image_size={options.size}",
            f"precision={options.precision}",
            f"epochs={options.steps // 2}",
            "warmup_epochs=1",
            f"log_every_steps={EVERY}",  # a row waits for its step, as few steps of a run do
            "checkpoint_every_steps=1000000",
            *options.override,
        ]
        if options.method == "harl":
            arguments += ["--masks", str(masks)]
        if code := harl_bench(arguments):
            sys.exit(code)
        rows = read_metrics(out / "metrics.jsonl")[1 + SETTLED // EVERY :]
    loop = statistics.median(row["pictures_per_s"] for row in rows)
    waited = statistics.median(row["data_wait"] for row in rows)
    alone = statistics.median(timed(options, len(rows)))
    print(
        f"{options.method}, {options.backbone}, {options.size} px, batch {options.batch}, "
        f"{options.precision}, {options.device}"
    )
    print(f"loop on JPEGs {loop:9.1f} images/s, {waited:.0%} of the time waiting for data")
    print(f"step alone    {alone:9.1f} images/s")
    print(f"loop / step   {loop / alone:9.3f}")


def timed(options: argparse.Namespace, repeats: int) -> list[float]:
    """Images a second of the step alone."""
    step, rates = ours(options.method, options), []
    for repeat in range(repeats + SETTLED):
        if options.device == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        step()
        if options.device == "cuda":
            torch.cuda.synchronize()
        if repeat >= SETTLED:
            rates.append(options.batch / (time.perf_counter() - began))
    return rates


if __name__ == "__main__":
    main()

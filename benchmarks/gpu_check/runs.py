"""Real pretraining runs on JPEGs: their speed, and where they wait for the GPU."""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import torch

from benchmarks.gpu_check.machine import ROOT, SHM
from benchmarks.gpu_check.setting import Setting
from benchmarks.pretrain_input import photographs
from harl_bench.cli import main as harl_bench
from harl_bench.core.progress import read_metrics

STEPS = 24
SYNC_STEPS = 8
NARROW = ("projector_hidden=64", "projector_out=32")  # of tiny runs


def run(setting: Setting) -> dict:
    """Run `harl-bench pretrain` on JPEGs with workers, in a process of its own.

    Returns:
        Medians over the last two thirds of the steps, and the largest use of shared memory.
    """
    sizes = setting.sizes()
    steps = 4 if setting.tiny else STEPS
    with tempfile.TemporaryDirectory() as folder:
        images, masks = photographs(Path(folder), sizes.batch, None)
        for image in sorted(images.iterdir()):  # the same files again: two steps an epoch
            os.link(image, images / f"again-{image.name}")
            os.link(masks / f"{image.stem}.png", masks / f"again-{image.stem}.png")
        out = Path(folder) / "run"
        command = arguments(setting, images, masks, out, "harl-100ep", sizes.batch, steps)
        command += (
            ["log_every_steps=1", "--workers", "1"] if setting.tiny else ["log_every_steps=1"]
        )
        process = subprocess.Popen([sys.executable, "-m", "harl_bench.cli", *command], cwd=ROOT)
        shared = [0.0]
        while process.poll() is None:
            shared.append(shared_gib())
            time.sleep(0.2)
        rows = read_metrics(out / "metrics.jsonl")
    if process.returncode or len(rows) != steps:
        return {"failed": f"exit code {process.returncode} after {len(rows)} of {steps} steps"}
    settled = rows[steps // 3 :]
    rate, waited = (
        statistics.median(row[key] for row in settled) for key in ("pictures_per_s", "data_wait")
    )
    note = f"{waited:.0%} of the time waiting for data, {max(shared):.1f} GiB of shared memory"
    found = {"batch": sizes.batch, "images_per_s": round(rate, 2)}
    return found | {"ms": round(1e3 * sizes.batch / rate, 2), "data_wait": waited, "note": note}


def arguments(
    setting: Setting, images: Path, masks: Path, out: Path, recipe: str, batch: int, steps: int
) -> list[str]:
    """Return the arguments of a short run with two steps an epoch."""
    sizes = setting.sizes()
    needs_masks = recipe.startswith("harl")
    return [
        *("pretrain", "--recipe", recipe, "--data", str(images), "--out", str(out)),
        *(("--masks", str(masks)) if needs_masks else ()),
        *("--device", setting.device, f"backbone={sizes.backbone}", f"image_size={sizes.size}"),
        *(f"batch_size={batch}", f"precision={sizes.precision}", f"epochs={steps // 2}"),
        *("warmup_epochs=1", "checkpoint_every_steps=1000000"),
        *(NARROW if setting.tiny else ()),
    ]


def shared_gib() -> float:
    """Return how much of the shared memory is in use."""
    shm = os.statvfs(SHM)
    return (shm.f_blocks - shm.f_bfree) * shm.f_frsize / 2**30


RECIPES = {"harl": "harl-100ep", "mocov2": "mocov2-200ep"}


def syncs(setting: Setting, *, method: str) -> dict:
    """Count where a steady step of a run waits for the GPU, by file and line.

    CUDA's synchronization debug mode warns of each wait. What a run of sixteen steps has more than
    one of eight is of the steps; the rest is of the start and the end. On a CPU there are none.
    """
    waits = []
    with tempfile.TemporaryDirectory() as folder:
        images, masks = photographs(Path(folder), 8, None)
        for steps in (SYNC_STEPS, 2 * SYNC_STEPS):
            command = narrow(setting, method, images, masks, Path(folder) / f"run-{steps}", steps)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                if not setting.tiny:
                    torch.cuda.set_sync_debug_mode("warn")
                try:
                    code = harl_bench([*command, "log_every_steps=1000", "--workers", "0"])
                finally:
                    if not setting.tiny:
                        torch.cuda.set_sync_debug_mode("default")
            if code:
                return {"failed": f"exit code {code}; the .log says why"}
            waits.append(located(caught))
    where = {place: n for place, count in waits[1].items() if (n := count - waits[0][place]) > 0}
    once, each = sum(waits[0].values()), sum(where.values()) / SYNC_STEPS
    lines = ", ".join(f"{place} x {n / SYNC_STEPS:g}" for place, n in where.items())
    note = f"{each:g} a step: {lines or 'nowhere'}; {once} in a run of {SYNC_STEPS} steps"
    return {"a_step": each, "where": where, "once": dict(waits[0]), "note": note}


def narrow(
    setting: Setting, method: str, images: Path, masks: Path, out: Path, steps: int
) -> list[str]:
    """Return the arguments of a run of a ResNet-18 in small batches."""
    command = arguments(setting, images, masks, out, RECIPES[method], 4, steps)
    own = ["queue_size=64", "bn_groups=2"] if method == "mocov2" else []
    kept = [value for value in command if not value.startswith(("image_size", "backbone"))]
    return [*kept, f"image_size={32 if setting.tiny else 64}", "backbone=resnet18", *own]


def located(caught: list[warnings.WarningMessage]) -> Counter[str]:
    """Return how often each place waited."""
    short = re.compile(r".*/(?=(pretrain|harl_bench|site-packages)/)")
    return Counter(
        f"{short.sub('', message.filename)}:{message.lineno}"
        for message in caught
        if "synchronizing" in str(message.message)
    )

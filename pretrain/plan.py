"""What a run takes: each process's part of a batch, memory and time, said before it starts."""

import math
import shutil
from pathlib import Path

import torch

from harl_bench.core.progress import duration, log
from harl_bench.nn import runtime
from pretrain.config import PretrainConfig
from pretrain.job import memory_advice
from pretrain.memory import GIB, MIB, needed
from pretrain.parallel import share_of_batch
from pretrain.recipe import EPOCH_S, IMAGENET


def estimate(config: PretrainConfig, images: int) -> str:
    """Return about how long a run takes by the published speed, scaled to its images and epochs."""
    if config.image_size != 224 or config.backbone != "resnet50":
        return f"not known for {config.backbone} at {config.image_size} px; the log gives an ETA"
    seconds = EPOCH_S * images / IMAGENET
    return (
        f"about {duration(config.epochs * seconds)} a run on 8 A100: {config.epochs} epochs x "
        f"{duration(seconds)} (HARL's paper: its 1000 epochs of ImageNet took 149 h)"
    )


def share(
    config: PretrainConfig, together: int, here: int, workers: int, *, on_gpu: bool
) -> dict[str, str]:
    """Return what each of `together` processes gets, `here` of them on this machine, and warn where
    memory is short.

    Raises:
        UsageError: a batch that cannot be divided among the processes.
    """
    images = share_of_batch(config.batch_size, config.accumulate, together)
    need = needed(config, images, processes=here, workers=workers, on_gpu=on_gpu)
    times = f" at a time, {config.accumulate} times a step," if config.accumulate > 1 else ""
    rows = {
        "device": f"{together} x {'cuda' if on_gpu else 'cpu'}, {images} images of a batch{times} "
        f"and {workers} data workers each",
        "memory": f"about {need.gpu / GIB:.1f} GiB each: {images} images of "
        f"{config.image_size} px with {need.image / MIB:.1f} MiB in {config.precision}, and "
        f"{need.fixed / GIB:.1f} GiB for weights and the rest",
    }
    if on_gpu and torch.cuda.is_available() and need.gpu > runtime.gpu_gib() * GIB:
        advice = memory_advice(config, together)
        log.warning("the GPU has %.1f GiB, which will not do; %s", runtime.gpu_gib(), advice)
    shared = Path("/dev/shm")
    if workers and shared.is_dir():
        size = shutil.disk_usage(shared).total
        rows["memory"] += f"; {need.shared / GIB:.1f} of {size / GIB:.1f} GiB of shared memory"
        if need.shared > size:
            wanted = math.ceil(need.shared / GIB)
            log.warning(
                "shared memory is short: start the container with --shm-size=%dg, or give fewer "
                "--workers",
                wanted,
            )
    return rows

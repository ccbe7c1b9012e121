"""What a process needs to train, and what it does with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harl_bench.core.errors import UsageError

if TYPE_CHECKING:
    from pretrain.config import PretrainConfig
    from pretrain.data import Images, TwoViews


@dataclass
class Job:
    """What a process needs to train."""

    config: PretrainConfig
    images: Images
    val: Images | None
    folder: Path = Path()
    device: str = "cpu"
    workers: int = 0
    threads: int | None = None
    allow_unreadable: bool = False
    tensorboard: bool = False
    toy: bool = False

    def dataset(self) -> TwoViews:
        """The views of the training images; where a GPU trains, it also does their colors."""
        from pretrain.methods import method_class

        method = method_class(self.config.method)
        dataset: TwoViews = method.dataset(
            self.images, self.config, unfinished=self.device == "cuda"
        )
        return dataset


def prepared(config: PretrainConfig, data: Path, masks: Path | None, val: Path | None) -> Job:
    """Find the images and check what can be checked before anything is written."""
    from pretrain.data import find, steps_per_epoch
    from pretrain.evaluate import hold
    from pretrain.images import refuse_among
    from pretrain.labels import Labels

    found = find(data, masks)
    steps_per_epoch(len(found.paths), config.batch_size)
    if config.needs_labels:
        classes = len(Labels(found.root, found.paths).names)
        asked = getattr(config, "classes", None)
        if asked not in (None, classes):
            seen = f"classes={asked}, {classes} class folders"
            raise UsageError(
                "other classes than the data have", where=data, seen=seen, next="leave classes out"
            )
        config = config.model_copy(update={"classes": classes})
    held_out = find(val, None) if val else None
    if val and held_out:
        refuse_among(found.index, val, "held-out images")
        hold(found, held_out)
    return Job(config, found, held_out)


def work(job: Job) -> dict[str, float]:
    """One process's part of the training; the last step's numbers."""
    import torch

    from harl_bench.nn import distributed, runtime
    from pretrain import loop
    from pretrain.evaluate import hold
    from pretrain.methods import build

    if job.threads:
        torch.set_num_threads(job.threads)
    runtime.seed_everything(job.config.seed)
    method, dataset = build(job.config), job.dataset()
    method.attach(dataset)
    with runtime.gpu_memory(memory_advice(job.config, distributed.world_size())):
        return loop.train(
            method,
            job.images,
            dataset,
            job.config,
            job.folder,
            device=torch.device(job.device),
            workers=dataset.most_workers(job.config, job.workers),
            allow_unreadable=job.allow_unreadable,
            tensorboard=job.tensorboard,
            toy=job.toy,
            held=hold(job.images, job.val) if job.val else None,
        )


def memory_advice(config: PretrainConfig, processes: int) -> str:
    """What to give when the GPU's memory is full: the next number of parts of a batch."""
    most = config.batch_size // (2 * processes)  # batch norm needs two images of each process
    counts = [
        n
        for n in range(2 * config.accumulate, most + 1)
        if config.batch_size % (n * processes) == 0 and config.bn_groups_of(processes, n)
    ]
    if not counts:
        return "more GPUs, or a smaller batch_size=..., with another --out"
    grouped = config.bn_groups_of(1, 1) > 1  # whose groups are as large as before
    part = "" if grouped else " (each batch norm then sees a part of the batch)"
    return f"accumulate={counts[0]} with another --out{part}, or more GPUs"

"""The training loop, in time order, shared by all methods."""

import math
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import torch
import torchvision

from harl_bench.core.errors import BenchError, TrainingError
from harl_bench.core.progress import Tracker, log, read_metrics
from harl_bench.core.stopping import started, stoppable
from harl_bench.nn import distributed, resnet
from pretrain import data, parallel
from pretrain.batch import Batch
from pretrain.config import PretrainConfig
from pretrain.evaluate import Held, evaluate
from pretrain.labels import Labels
from pretrain.methods.method import Method
from pretrain.optim import build_optimizer, set_learning_rate
from pretrain.probe import Probe
from pretrain.record import Record
from pretrain.state import LAST, resume, save
from pretrain.unreadable import Unreadable


def train(
    method: Method,
    images: data.Images,
    dataset: data.TwoViews,
    config: PretrainConfig,
    out: Path,
    *,
    device: torch.device,
    workers: int,
    allow_unreadable: bool = False,
    held: Held | None = None,
    tensorboard: bool = False,
    toy: bool = False,
) -> dict[str, float]:
    """Train to the end, or go on from out/last.pth; called by every process.

    Returns the last step's numbers.

    Args:
        held: held-out images; with them a linear probe learns along and both are measured.
        toy: whether data or recipe are toys; last.pth states it.

    Raises:
        TrainingError: the loss is not finite.
        UsageError: a batch that cannot be divided among the processes, or last.pth is of another
            run.
        DataError: a mask of another size, or too many unreadable images.
        PreemptedError: a signal asked to stop; the state is saved.
    """
    n, parts = len(images.paths), config.accumulate
    per_epoch = data.steps_per_epoch(n, config.batch_size)
    local = parallel.share_of_batch(config.batch_size, parts)
    steps = parallel.plan(per_epoch, config.epochs, ramp=config.accumulation_ramp)
    K = len(steps)
    W = sum(first < per_epoch * config.warmup_epochs for first, _ in steps)
    if parts > 1:
        log.info(
            "each batch in %d parts: batch norm, and contrasts between images of one batch, see "
            "%d images",
            parts,
            local * (distributed.world_size() if config.sync_bn else 1),
        )

    on_gpu = device.type == "cuda"
    torch.backends.cudnn.benchmark = on_gpu  # every batch has the same size
    layout = (
        torch.channels_last
        if (on_gpu if config.channels_last is None else config.channels_last)
        else None
    )
    method.to(device).train()
    if layout:
        method.to(memory_format=layout)  # type: ignore[call-overload]
    step = parallel.distributed_step(method, sync_bn=config.sync_bn)
    if config.compile:
        compile_backbones(method)
    optimizer = build_optimizer(method, config)
    labels = (
        held.train_labels
        if held
        else Labels(images.root, images.paths)
        if config.needs_labels
        else None
    )
    probe = build_probe(method, held, config, device) if held else None

    fingerprint = images.fingerprint()
    first = resume(out / LAST, method, optimizer, probe, config=config, data=fingerprint)
    record = Record(out, resume_step=first, tensorboard=tensorboard, dim=method.dim)
    unreadable = Unreadable(out / "unreadable.txt", n, allow_unreadable, resumed=first > 0)
    rows = read_metrics(out / "metrics.jsonl")
    last: dict[str, float] = {k: v for k, v in rows[-1].items() if v is not None} if rows else {}

    def seen(k: int) -> int:
        """Batches before step k."""
        return steps[k][0] if k < K else per_epoch * config.epochs

    def write_state(k: int) -> None:
        unreadable.share()
        save(
            out / LAST,
            method,
            optimizer,
            probe,
            k,
            K,
            epoch=seen(k) // per_epoch,
            config=config,
            data=fingerprint,
            toy=toy,
        )

    share = parallel.Share(
        n,
        batch_size=config.batch_size,
        seed=config.seed,
        first=seen(first),
        last=per_epoch * config.epochs,
        parts=parts,
    )
    evaluate_at = set(evaluation_steps(steps, per_epoch, config)) if held else set()

    with (
        closing(
            batches(dataset, share, workers)
        ) as stream,  # ends the data workers, however the loop ends
        Tracker(f"pretrain {config.method}", K, start=first, unit="steps") as tracker,
        stoppable() as stop,
    ):
        for k in range(first, K):
            began, waited = time.perf_counter(), 0.0
            count = steps[k][1] * parts
            lr = set_learning_rate(optimizer, config, k, K, W)
            optimizer.zero_grad(set_to_none=True)
            loss = torch.zeros((), device=device)
            logs: dict[str, float | torch.Tensor] = {}
            for part in range(count):
                asked_at = time.perf_counter()
                batch, items = next(stream)
                waited += time.perf_counter() - asked_at
                error = fault(batch, unreadable)
                # Data can be mended, and the steps so far are good; within a step, batch norm has
                # already moved on.
                parallel.raise_together(error, partial(write_state, k) if part == 0 else None)
                marks = labels.of(items, batch.unreadable).to(device) if labels else None
                ready = data.on_device(batch, device, marks)
                with (
                    parallel.without_sync(step, part < count - 1),
                    torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"),
                ):
                    output = step(ready, k, K)
                    (output.loss / count).backward()  # type: ignore[no-untyped-call]
                loss += output.loss.detach() / count
                probed = (
                    {"probe_top1": probe.learn(marks, count)} if probe and marks is not None else {}
                )
                for name, x in {**output.logs, **probed}.items():
                    logs[name] = logs.get(name, 0.0) + x / count
            optimizer.step()
            method.after_step(k, K)
            if probe:
                probe.step(k, K)

            value = float(loss)
            parallel.raise_together(not_finite(value, lr, k, K, out))
            elapsed = time.perf_counter() - began
            rate = config.batch_size * steps[k][1] / elapsed
            if k % config.log_every_steps == 0 or k == K - 1 or k in evaluate_at:
                numbers = {"loss": value, **{name: float(x) for name, x in logs.items()}, "lr": lr}
                last = parallel.mean_over_processes(numbers)
                if held and k in evaluate_at:
                    last |= evaluate(
                        method.backbone,
                        probe,
                        held,
                        size=config.image_size,
                        seed=config.seed,
                        workers=workers,
                        device=device,
                        high_passed=config.high_passed,
                    )
                    log.info(
                        "step %d: %s",
                        k,
                        ", ".join(f"{name} {x:.2f}" for name, x in last.items() if "top1" in name),
                    )
                rates = {"pictures_per_s": rate, "data_wait": waited / elapsed}
                record.write(k, epoch=steps[k][0] / per_epoch, **last, **rates)
            tracker.advance(1, loss=value, lr=lr, **{"img/s": rate})
            asked = distributed.any_process(stop.asked)
            if (k + 1) % config.checkpoint_every_steps == 0 or k == K - 1 or asked:
                write_state(k + 1)
            if asked and k < K - 1:
                came = [number for number in distributed.gather(stop.signal) if number]
                stop.signal = stop.signal or came[0]
                stop.raise_if_asked("the state is saved")
    unreadable.report()
    record.close()
    return last


def batches(
    dataset: data.TwoViews, share: parallel.Share, workers: int
) -> Generator[tuple[Batch, list[tuple[int, int]]], None, None]:
    """Every batch and which images it holds, in order."""
    with torch.random.fork_rng(
        devices=[]
    ):  # a loader draws a number, which a resumed run would draw once more
        read = started(data.loader(dataset, share, workers=workers))
    yield from zip(read, share, strict=True)


def fault(batch: Batch, unreadable: Unreadable) -> BenchError | None:
    """What must stop the run, found while the batch was read."""
    try:
        if batch.error is not None:
            raise batch.error
        unreadable.add(batch.unreadable)
    except BenchError as error:
        return error
    return None


def not_finite(value: float, lr: float, k: int, K: int, out: Path) -> TrainingError | None:
    """The error of a loss that is no number; the weights in memory are spoilt then, those on disk
    are not.
    """
    if math.isfinite(value):
        return None
    before = f"; an earlier state is in {out / LAST}" if (out / LAST).exists() else ""
    return TrainingError(
        "the loss is not finite",
        where=f"step {k} of {K}",
        seen=f"loss {value}, lr {lr:.4g}",
        next=f"lower base_lr or lengthen warmup_epochs{before}",
    )


def compile_backbones(method: Method) -> None:
    """torch.compile the stages of every ResNet in place; names of parameters stay."""
    for module in method.modules():
        if isinstance(module, torchvision.models.ResNet):
            for stage in (module.layer1, module.layer2, module.layer3, module.layer4):
                stage.compile()


def build_probe(method: Method, held: Held, config: PretrainConfig, device: torch.device) -> Probe:
    """The online probe of a run."""
    probe = Probe(
        method.backbone,
        features=resnet.FEATURES[config.backbone],
        classes=len(held.train_labels.names),
        base_lr=config.probe_lr,
        batch_size=config.batch_size,
    )
    probe.linear.to(device)
    return probe


def evaluation_steps(
    steps: list[tuple[int, int]], per_epoch: int, config: PretrainConfig
) -> Iterator[int]:
    """The last step of every `evaluate_every_epochs` epochs, and of the run."""
    for k, (first, count) in enumerate(steps):
        epoch, rest = divmod(first + count, per_epoch)
        if (rest == 0 and epoch % config.evaluate_every_epochs == 0) or k == len(steps) - 1:
            yield k

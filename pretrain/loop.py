"""The training loop, in time order, shared by all methods."""

import math
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import torch

from harl_bench.core.errors import TrainingError
from harl_bench.core.progress import log, read_metrics
from harl_bench.nn import distributed, resnet
from harl_bench.nn.session import Session
from pretrain import data, parallel
from pretrain.config import PretrainConfig
from pretrain.evaluate import Held, evaluate
from pretrain.labels import Labels
from pretrain.methods.method import Method
from pretrain.optim import build_optimizer, set_learning_rate
from pretrain.prefetch import Prefetch, batches
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
    steps = parallel.plan(per_epoch, config.epochs, ramp=config.accumulation_ramp)
    # Batches before each step, and in all.
    starts = [*(start for start, _ in steps), per_epoch * config.epochs]
    K, W = len(steps), sum(start < per_epoch * config.warmup_epochs for start, _ in steps)
    step = on_its_device(method, config, device)
    optimizer = build_optimizer(method, config)
    labels = held.train_labels if held else None
    if config.needs_labels and not labels:
        labels = Labels(images.root, images.paths)
    probe = build_probe(method, held, config, device) if held else None

    fingerprint = images.fingerprint()
    first = resume(out / LAST, method, optimizer, probe, config=config, data=fingerprint)
    record = Record(out, resume_step=first, tensorboard=tensorboard, dim=method.dim)
    unreadable = Unreadable(out / "unreadable.txt", n, allow_unreadable, resumed=first > 0)
    rows = read_metrics(out / "metrics.jsonl")
    last: dict[str, float] = {k: v for k, v in rows[-1].items() if v is not None} if rows else {}
    evaluate_at = set(evaluation_steps(steps, per_epoch, config)) if held else set()
    share = parallel.Share(
        n,
        batch_size=config.batch_size,
        seed=config.seed,
        first=starts[first],
        last=starts[K],
        parts=parts,
    )

    # Since the last row of metrics.jsonl: images, seconds, and those of them without data.
    trained, elapsed_s, waited_s = 0, 0.0, 0.0

    def write_state(k: int) -> None:
        unreadable.share()
        save(
            out / LAST,
            method,
            optimizer,
            probe,
            k,
            K,
            epoch=starts[k] // per_epoch,
            config=config,
            data=fingerprint,
            toy=toy,
        )

    with (
        # Closing ends the data workers, however the loop ends.
        closing(batches(dataset, share, workers)) as read,
        Session(f"pretrain {config.method}", K, first=first, save=write_state) as session,
    ):
        stream = Prefetch(read, device, labels)

        def save_before_error(k: int) -> None:
            session.settle()
            write_state(k)

        for k in session:
            lr = set_learning_rate(optimizer, config, k, K, W)
            optimizer.zero_grad(set_to_none=True)
            loss, logs = torch.zeros((), device=device), dict[str, float | torch.Tensor]()
            count = steps[k][1] * parts
            for part in range(count):
                batch = stream.next(session, unreadable, None if part else save_before_error)
                with (
                    parallel.without_sync(step, part < count - 1),
                    torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"),
                ):
                    output = step(batch, k, K)
                    (output.loss / count).backward()  # type: ignore[no-untyped-call]
                loss += output.loss.detach() / count
                numbers = dict(output.logs)
                if probe and batch.labels is not None:
                    numbers["probe_top1"] = probe.learn(batch.labels, count)
                for name, x in numbers.items():
                    logs[name] = logs.get(name, 0.0) + x / count
                if part < count - 1:
                    stream.fetch(session)
            optimizer.step()
            method.after_step(k, K)
            if probe:
                probe.step(k, K)

            stream.fetch(session)
            session.watch(loss, partial(not_finite, lr, k, K, out))
            logged = k % config.log_every_steps == 0 or k == K - 1 or k in evaluate_at
            if logged:
                session.settle()
            trained += config.batch_size * steps[k][1]
            elapsed_s, waited_s = elapsed_s + session.elapsed_s, waited_s + session.waited_s
            rate = trained / elapsed_s
            if logged:
                means = {
                    "loss": session.loss,
                    **{name: float(x) for name, x in logs.items()},
                    "lr": lr,
                }
                last = parallel.mean_over_processes(means)
                if held and k in evaluate_at:
                    last |= evaluated(k, method, probe, held, config, workers, device, last)
                rates = {"pictures_per_s": rate, "data_wait": waited_s / elapsed_s}
                record.write(k, epoch=steps[k][0] / per_epoch, **last, **rates)
                trained, elapsed_s, waited_s = 0, 0.0, 0.0
            known = {} if math.isnan(session.loss) else {"loss": session.loss}
            session.advance(**known, lr=lr, **{"img/s": rate})
            session.save(due=(k + 1) % config.checkpoint_every_steps == 0)
    unreadable.report()
    record.close()
    return last


def on_its_device(method: Method, config: PretrainConfig, device: torch.device) -> parallel.Step:
    """Bring the method to its device; return its step, whose backward pass averages over the
    processes.

    Raises:
        UsageError: a batch that cannot be divided among the processes.
    """
    local = parallel.share_of_batch(config.batch_size, config.accumulate)
    world = distributed.world_size()
    if config.accumulate > 1:
        log.info(
            "each batch in %d parts: batch norm, and contrasts between images of one batch, see "
            "%d images",
            config.accumulate,
            local * world if config.sync_bn else local // parallel.bn_groups(config, world),
        )
    on_gpu = device.type == "cuda"
    torch.backends.cudnn.benchmark = on_gpu  # every batch has the same size
    method.to(device).train()
    if on_gpu if config.channels_last is None else config.channels_last:
        method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    step = parallel.distributed_step(method, sync_bn=config.sync_bn, compiled=config.compile)
    if config.compile:
        method.compile_step()
    return step


def evaluated(
    k: int,
    method: Method,
    probe: Probe | None,
    held: Held,
    config: PretrainConfig,
    workers: int,
    device: torch.device,
    numbers: dict[str, float],
) -> dict[str, float]:
    """Return the accuracies on held-out images, and log all of step k, those in `numbers` too."""
    scores = evaluate(
        method.backbone,
        probe,
        held,
        size=config.image_size,
        seed=config.seed,
        workers=workers,
        device=device,
        high_passed=config.high_passed,
    )
    shown = {name: x for name, x in {**numbers, **scores}.items() if "top1" in name}
    log.info("step %d: %s", k, ", ".join(f"{name} {x:.2f}" for name, x in shown.items()))
    return scores


def not_finite(lr: float, k: int, K: int, out: Path, value: float) -> TrainingError:
    """Return the error of a loss that is no number; the weights are spoilt, not the saved ones."""
    before = f"; an earlier state is in {out / LAST}" if (out / LAST).exists() else ""
    return TrainingError(
        "the loss is not finite",
        where=f"step {k} of {K}",
        seen=f"loss {value}, lr {lr:.4g}",
        next=f"lower base_lr or lengthen warmup_epochs{before}",
    )


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

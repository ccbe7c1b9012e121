"""The training loop, in time order, shared by all methods."""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightly.models.utils import get_weight_decay_parameters
from lightly.utils.lars import LARS

from harl_bench.convert.formats import IMAGENET
from harl_bench.core.errors import BenchError, DataError, PreemptedError, TrainingError
from harl_bench.core.manifest import collect
from harl_bench.core.progress import MetricsFile, Tracker, log, read_metrics
from harl_bench.nn import checkpoint, resnet, runtime
from pretrain import data
from pretrain.config import PretrainConfig
from pretrain.methods.method import Batch, Method
from pretrain.schedules import learning_rate

LAST = "last.pth"
UNREADABLE_SHARE = 0.01  # more than this stops a run that was not told to allow it
LEAST_DECAY = 1e-20  # lightly's LARS takes a group without decay for one that is not to be adapted
COLLAPSED = 0.1  # of the 1/sqrt(D) that directions spread evenly over the sphere have


def train(
    method: Method, pictures: data.Pictures, dataset: data.TwoViews, config: PretrainConfig, out: Path, *,
    device: torch.device, workers: int, allow_unreadable: bool = False,
) -> dict[str, float]:  # fmt: skip
    """Train to the end, or go on from out/last.pth. Returns the last step's numbers.

    Raises:
        TrainingError: the loss is not finite.
        DataError: a mask of another size, or too many unreadable pictures.
        PreemptedError: a signal asked to stop; the state is saved.
    """
    n = len(pictures.paths)
    per_epoch = data.steps_per_epoch(n, config.batch_size)
    K, W = per_epoch * config.epochs, round(per_epoch * config.warmup_epochs)
    peak = config.base_lr * config.batch_size / 256

    method.module.to(device).train()
    optimizer = build_optimizer(method, config)
    first = resume(out / LAST, method, optimizer, device)
    metrics = MetricsFile(out / "metrics.jsonl", resume_step=first)
    batches = data.Batches(n, batch_size=config.batch_size, seed=config.seed, first=first, last=K)
    unreadable = Unreadable(out / "unreadable.txt", n, allow_unreadable, resumed=first > 0)
    rows = read_metrics(out / "metrics.jsonl")
    last: dict[str, float] = {k: v for k, v in rows[-1].items() if v is not None} if rows else {}

    with Tracker(f"pretrain {config.method}", K, start=first, unit="steps") as tracker, stop_requested() as asked:
        waited = clock = time.perf_counter()
        for k, batch in zip(range(first, K), data.loader(dataset, batches, workers=workers), strict=True):
            waited = time.perf_counter() - clock
            try:
                if batch.error is not None:
                    raise batch.error
                unreadable.add(batch.unreadable)
            except BenchError:  # the data can be mended, and the steps so far are good
                save(out / LAST, method, optimizer, k, K, config)
                raise

            lr = learning_rate(peak, k, K, W)
            for group in optimizer.param_groups:
                group["lr"] = lr
            with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                output = method.step(on_device(batch, device), k, K)
            value = float(output.loss.detach())
            if not math.isfinite(value):
                before = f"; an earlier state is in {out / LAST}" if (out / LAST).exists() else ""
                raise TrainingError(
                    "the loss is not finite",
                    where=f"step {k} of {K}",
                    seen=f"loss {value}, lr {lr:.4g}, {output.logs}",
                    next=f"lower base_lr or lengthen warmup_epochs{before}",
                )
            optimizer.zero_grad(set_to_none=True)
            output.loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            method.after_step(k, K)

            elapsed = time.perf_counter() - clock
            clock = time.perf_counter()
            last = {"loss": value, **{name: float(x) for name, x in output.logs.items()}, "lr": lr}
            if k % config.log_every_steps == 0 or k == K - 1:
                rates = {"pictures_per_s": config.batch_size / elapsed, "data_wait": waited / elapsed}
                metrics.append(step=k, epoch=k / per_epoch, **last, **rates)
                warn_of_collapse(last, config)
            tracker.advance(1, loss=value, lr=lr, **{"img/s": config.batch_size / elapsed})
            if (k + 1) % config.checkpoint_every_steps == 0 or k == K - 1 or asked:
                save(out / LAST, method, optimizer, k + 1, K, config)
            if asked and k < K - 1:
                raise asked[0]
    unreadable.report()
    return last


def build_optimizer(method: Method, config: PretrainConfig) -> LARS:
    """LARS; biases and batch norm take plain momentum SGD, without decay or adaptation [HARL section 4, BYOL].

    BYOL's trust ratio divides by |g + wd w|; lightly's by |g| + wd |w|; because after 50 steps they differ by 7.5e-7.
    """
    decayed, plain = get_weight_decay_parameters(method.trained())
    decay = max(config.weight_decay, LEAST_DECAY)
    groups = [{"params": decayed, "weight_decay": decay}, {"params": plain, "weight_decay": 0.0}]
    return LARS(groups, lr=0.1, momentum=config.momentum, trust_coefficient=config.trust_coefficient)


def save(
    path: Path, method: Method, optimizer: torch.optim.Optimizer, step: int, K: int, config: PretrainConfig
) -> None:
    """Write everything that going on needs, and the backbone under torchvision's names."""
    checkpoint.save(
        path,
        backbone=resnet.backbone_tensors(method.backbone),
        method=method.module.state_dict(),
        optimizer=optimizer.state_dict(),
        step=step,
        steps=K,
        rng=runtime.rng_state(),
        config=config.model_dump(),
        manifest=collect(),
        harl_bench={
            "format": "harl-bench", "net": "online", "epoch": step * config.epochs // K, "method": config.method,
            "input_format": IMAGENET.input_format, "pixel_mean": list(IMAGENET.pixel_mean),
            "pixel_std": list(IMAGENET.pixel_std), "stride_in_1x1": False,
        },
    )  # fmt: skip


def resume(path: Path, method: Method, optimizer: torch.optim.Optimizer, device: torch.device) -> int:
    """Load the state that `save` wrote, if any; return the step to begin with."""
    if not path.exists():
        return 0
    state = checkpoint.load_own(path)
    method.module.load_state_dict(state["method"])
    optimizer.load_state_dict(state["optimizer"])
    runtime.set_rng_state(state["rng"])
    log.info("going on at step %d of %d", state["step"], state["steps"])
    return int(state["step"])


def on_device(batch: Batch, device: torch.device) -> Batch:
    """The batch's tensors on the device."""
    views, masks, has_mask = (t.to(device, non_blocking=True) for t in (batch.views, batch.masks, batch.has_mask))
    return Batch(views, masks, has_mask)


def warn_of_collapse(numbers: dict[str, float], config: PretrainConfig) -> None:
    """Say so when all projections point the same way."""
    spread = numbers.get("feature_std", 1.0) * math.sqrt(config.projector_out)
    if spread < COLLAPSED:
        log.warning("the projections collapse: their spread is %.3f of an even one; lower base_lr?", spread)


class Unreadable:
    """Counts and lists the pictures that could not be decoded.

    Raises (from add):
        DataError: more than 1 % of the pictures, unless allowed.
    """

    def __init__(self, path: Path, n: int, allowed: bool, *, resumed: bool) -> None:
        self.path, self.n, self.allowed = path, n, allowed
        lines = path.read_text(encoding="utf-8").splitlines() if resumed and path.exists() else []
        self.seen = {name: why for name, _, why in (line.partition("\t") for line in lines)}

    def add(self, faults: list[tuple[str, str]]) -> None:
        """Take note of a batch's faults."""
        fresh = {name: why for name, why in faults if name not in self.seen}
        if not fresh:
            return
        self.seen |= fresh
        self.path.write_text("".join(f"{name}\t{why}\n" for name, why in sorted(self.seen.items())), encoding="utf-8")
        if len(self.seen) > UNREADABLE_SHARE * self.n and not self.allowed:
            name, why = next(iter(fresh.items()))
            raise DataError(
                f"{len(self.seen)} of {self.n} pictures cannot be read, more than 1 %", where=name,
                seen=why, next=f"mend those listed in {self.path}, or give --allow-unreadable",
            )  # fmt: skip

    def report(self) -> None:
        """One line at the end."""
        if self.seen:
            log.warning("%d of %d pictures could not be read, listed in %s", len(self.seen), self.n, self.path)


@contextmanager
def stop_requested() -> Iterator[list[BaseException]]:
    """A list that fills when a signal asks to stop: SIGTERM and SIGUSR2 (preemption), SIGINT (Ctrl-C)."""
    asked: list[BaseException] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if asked:  # a second Ctrl-C does not wait for the step to end
                raise KeyboardInterrupt
            asked.append(KeyboardInterrupt())
        else:
            name = signal.Signals(number).name
            asked.append(PreemptedError(f"stopped by {name}; the state is saved", next="give the same command again"))

    handled = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)
    before: dict[int, Any] = {number: signal.signal(number, ask) for number in handled}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

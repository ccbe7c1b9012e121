"""Training a detector: one loop in time order. Schedule, files and logged names are Detectron2's.

Order within an iteration, as in Detectron2's hooks (D2:engine/defaults.py:440-500): step, precise
BN, checkpoint, evaluation, metrics. A run is a function of its seed: on the CPU, an interrupted and
resumed one ends with the same weights, bit for bit, as one that ran through.
"""

import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from harl_bench.core.errors import TrainingError
from harl_bench.core.progress import log
from harl_bench.core.unreadable import note
from harl_bench.detection.engines import Job
from harl_bench.detection.scoring import score, shown
from harl_bench.detection.torchvision_engine import checkpoints
from harl_bench.detection.torchvision_engine.backbone import Bottleneck, Stem
from harl_bench.detection.torchvision_engine.data import Batch, training_batches
from harl_bench.detection.torchvision_engine.evaluate import predict
from harl_bench.detection.torchvision_engine.model import build_model
from harl_bench.detection.torchvision_engine.recompute import save_memory
from harl_bench.detection.torchvision_engine.solver import build_optimizer, precise_bn, set_lr
from harl_bench.detection.torchvision_engine.weights import load_backbone_into
from harl_bench.nn import distributed
from harl_bench.nn.checkpoint import refuse_another_run
from harl_bench.nn.norms import synchronised
from harl_bench.nn.runtime import rng_state, seed_everything, set_rng_state
from harl_bench.nn.session import Session

WINDOW = 20  # iterations per line of metrics.jsonl, medians over them (D2:utils/events.py)


def train(job: Job) -> dict[str, Any]:
    """Train to checkpoints/model_final.pth, from the last checkpoint if there is one.

    Returns:
        {"unreadable": {path: reason} of skipped images, "wall_s": seconds over all sessions}.

    Raises:
        TrainingError: the loss is not finite.
        UsageError: the last checkpoint is of another run.
        DataError: too many images are unreadable, or one contradicts its annotation.
        PreemptedError, KeyboardInterrupt: asked to stop; the state is saved.
    """
    recipe, folder, device = job.recipe, job.folder / "checkpoints", torch.device(job.device)
    last = recipe.SOLVER.MAX_ITER - 1
    seed_everything(job.seed)
    model = build_model(recipe)
    load_backbone_into(model, job.tensors)
    model.to(device)
    if job.save_memory:
        save_memory(model, (Stem, Bottleneck))
    optimizer = build_optimizer(recipe, model)
    scaler = torch.amp.GradScaler(
        device.type, enabled=recipe.SOLVER.AMP.ENABLED and device.type == "cuda"
    )
    seed_everything(job.seed + distributed.rank())
    begun = time.monotonic()
    unreadable: dict[str, str] = {}
    state = checkpoints.last(folder)
    if state:
        before = state.get("about", {})
        if before:  # what it holds is older than its number of processes, and states of each are
            before = {"processes": len(state["rng"]), **before}
        refuse_another_run(folder, before, _about(job))
    start = _restore(state, model, optimizer, scaler, unreadable) if state else 0
    spent_s = state["wall_s"] if state else 0.0
    if start > last:
        return {"unreadable": unreadable, "wall_s": spent_s}
    wrapped = _distributed(model)
    rank, world = distributed.rank(), distributed.world_size()
    batches = training_batches(
        job.train, recipe, seed=job.seed, start=start, workers=job.workers, rank=rank, world=world
    )
    window: list[dict[str, float]] = []

    def save(iterations: int) -> None:
        state = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "iteration": iterations - 1,
            "scaler": scaler.state_dict(),
            "wall_s": spent_s + time.monotonic() - begun,
            "about": _about(job),
            "harl_bench": {"network": checkpoints.of_network(recipe)},
        }
        _save(folder, state, unreadable, final=iterations > last)

    metrics = job.folder / "metrics.jsonl"
    with Session(
        "train", last + 1, first=start, save=save, metrics=metrics, unit="iteration"
    ) as session:
        _name_as_detectron2(metrics)
        for iteration in session:
            batch = session.next(batches)
            note(batch, unreadable, len(job.train.samples), allowed=job.allow_unreadable)
            rate = set_lr(optimizer, recipe, iteration)
            try:
                losses = _step(wrapped, batch, optimizer, scaler)
            except TrainingError as error:  # values were not finite before there was a loss
                raise _diverged(error.what, window[-1:], iteration, rate) from None
            total = sum(losses.values())
            what = "the loss is not finite"
            session.check(total, partial(_diverged, what, [losses], iteration, rate))
            times = {"time": session.elapsed_s, "data_time": session.waited_s}
            window.append({"total_loss": total, **losses, **model.counters, "lr": rate, **times})
            evaluates = _at(recipe.TEST.EVAL_PERIOD, iteration) and iteration != last
            if recipe.TEST.PRECISE_BN.ENABLED and (evaluates or iteration == last):
                _precise(model, job, iteration)
            # Also before an evaluation, which a signal may end.
            session.save(due=evaluates or _at(recipe.SOLVER.CHECKPOINT_PERIOD, iteration))
            if evaluates:
                _evaluate(model, job, session)
            if _at(WINDOW, iteration) or iteration == last:
                line = _medians(window)
                session.log(**line, eta_seconds=line["time"] * (last - iteration))
                window.clear()
            wait = f"{100 * session.waited_s / session.elapsed_s:.0f}%"
            session.advance(loss=total, lr=f"{rate:.2g}", wait=wait)
    return {"unreadable": unreadable, "wall_s": spent_s + time.monotonic() - begun}


def _step(
    model: nn.Module, batch: Batch, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
) -> dict[str, float]:
    """Do one forward pass, backward pass and update, and return the losses."""
    with torch.autocast("cuda", torch.float16, enabled=scaler.is_enabled()):
        losses = model(batch)
        total = sum(losses.values())
    assert isinstance(total, torch.Tensor), "a detector has losses"
    optimizer.zero_grad()
    scaler.scale(total).backward()  # type: ignore[no-untyped-call]
    scaler.step(optimizer)
    scaler.update()
    return {name: value.item() for name, value in losses.items()}


def _diverged(
    what: str, losses: list[dict[str, float]], iteration: int, rate: float
) -> TrainingError:
    """Return the error for a run that cannot go on; `losses` are the last ones known, if any."""
    last = {name: value for row in losses for name, value in row.items() if "loss" in name}
    rates = "lower SOLVER.BASE_LR or raise SOLVER.WARMUP_ITERS"
    return TrainingError(
        f"{what} at iteration {iteration}, learning rate {rate:.3g}",
        seen=", ".join(f"{name} {value:.3g}" for name, value in last.items()) or None,
        next=f"{rates}; do INPUT.FORMAT and PIXEL_STD fit the weights?",
    )


def precise_start(recipe: Any, iteration: int) -> int:
    """Return the batch that precise BN starts from: its stream goes on between evaluations."""
    period = recipe.TEST.EVAL_PERIOD
    return int(iteration // period * recipe.TEST.PRECISE_BN.NUM_ITER) if period > 0 else 0


def _precise(model: nn.Module, job: Job, iteration: int) -> None:
    """Run precise BN on a second stream of batches. Detectron2's hook has its own loader, too."""
    log.info("precise batch norm over %d batches", job.recipe.TEST.PRECISE_BN.NUM_ITER)
    batches = training_batches(
        job.train,
        job.recipe,
        seed=job.seed,
        start=precise_start(job.recipe, iteration),
        workers=job.workers,
        rank=distributed.rank(),
        world=distributed.world_size(),
    )
    precise_bn(model, batches, job.recipe.TEST.PRECISE_BN.NUM_ITER)


def _evaluate(model: nn.Module, job: Job, session: Session) -> None:
    predictions = predict(model, job, session.stop)
    if distributed.is_main():
        scores = score(job.test, predictions, masks=job.recipe.MODEL.MASK_ON, library=job.evaluator)
        log.info("iteration %d: %s", session.k + 1, shown(scores.metrics, scores.metric))
        session.log(**{detectron2_name(name): value for name, value in scores.metrics.items()})


def detectron2_name(name: str) -> str:
    """Return the name under which Detectron2 logs a score: bbox/AP for VOC's AP."""
    return name if "/" in name else f"bbox/{name}"


def _medians(window: list[dict[str, float]]) -> dict[str, float]:
    """Return medians over iterations of means over processes, and the last learning rate."""
    every = distributed.gather(window)
    names = {name: None for row in every[0] for name in row}
    means = [
        {name: sum(rows[k].get(name, 0.0) for rows in every) / len(every) for name in names}
        for k in range(len(window))
    ]
    return {name: median(row[name] for row in means) for name in names} | {"lr": window[-1]["lr"]}


def _save(folder: Path, state: dict[str, Any], unreadable: dict[str, str], *, final: bool) -> None:
    """Save the state with every process's random numbers and unreadable images.

    Each process knows of all unreadable images afterwards.
    """
    states = distributed.gather(rng_state())
    for share in distributed.gather(unreadable):
        unreadable.update(share)
    if distributed.is_main():
        state = {**state, "rng": states, "unreadable": unreadable}
        path = checkpoints.save(folder, state, final=final)
        log.info("saved %s", path.name)
    distributed.barrier()


def _about(job: Job) -> dict[str, Any]:
    """Return what a checkpoint copied from another run's folder would have otherwise."""
    solver = job.recipe.SOLVER
    return {
        "seed": job.seed,
        "processes": distributed.world_size(),
        "MAX_ITER": solver.MAX_ITER,
        "IMS_PER_BATCH": solver.IMS_PER_BATCH,
        "BASE_LR": solver.BASE_LR,
    }


def _restore(
    state: dict[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    unreadable: dict[str, str],
) -> int:
    """Restore everything and return the next iteration."""
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    if scaler.is_enabled() and state["scaler"]:
        scaler.load_state_dict(state["scaler"])
    # A run has as many states as processes: their number is part of its identity.
    set_rng_state(state["rng"][distributed.rank()])
    unreadable.update(state["unreadable"])
    log.info("resuming after iteration %d", state["iteration"] + 1)
    return int(state["iteration"]) + 1


def _distributed(model: nn.Module) -> nn.Module:
    """Average gradients over processes.

    Norm statistics stay with each process, as in Detectron2.
    """
    if distributed.world_size() == 1:
        return model
    devices = [torch.cuda.current_device()] if next(model.parameters()).is_cuda else None
    if devices is None:
        synchronised(model, only=nn.SyncBatchNorm)
    return distributed.averaged(model, device_ids=devices)


def _name_as_detectron2(metrics: Path) -> None:
    """Point metrics.json, the name that Detectron2 users look for, at metrics.jsonl."""
    alias = metrics.with_suffix(".json")
    if distributed.is_main() and not alias.is_symlink():
        alias.symlink_to(metrics.name)


def _at(period: int, iteration: int) -> bool:
    return period > 0 and (iteration + 1) % period == 0

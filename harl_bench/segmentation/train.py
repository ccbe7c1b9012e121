"""Training a segmenter: one loop in time order.

A run is a function of its seed: an interrupted and resumed one ends, on the CPU, with the weights
of one that ran through, bit for bit. Nothing random is left to a generator's state: crops follow
from the seed and their position, dropout from the seed and the iteration.
"""

import time
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harl_bench.core.errors import TrainingError
from harl_bench.core.progress import log
from harl_bench.core.unreadable import note
from harl_bench.nn import checkpoint, distributed
from harl_bench.nn.norms import synchronised
from harl_bench.nn.runtime import seed_everything
from harl_bench.nn.session import Session
from harl_bench.segmentation import batches, network
from harl_bench.segmentation.job import Job
from harl_bench.segmentation.losses import cross_entropy
from harl_bench.segmentation.recipe import Recipe
from harl_bench.segmentation.schedule import rate

WINDOW = 20  # iterations for each line of metrics.jsonl, means over them and over all processes
Scaler = torch.amp.GradScaler


def train(job: Job, what: str = "train") -> dict[str, Any]:
    """Train to the recipe's last iteration, from the last saved state if there is one.

    Returns:
        {"unreadable": {path: reason} of skipped images, "wall_s": seconds over all sessions}.

    Raises:
        TrainingError: the loss is not finite.
        UsageError: the saved state is of another run.
        DataError: too many images are unreadable, or a label contradicts its image.
        PreemptedError, KeyboardInterrupt: asked to stop; the state is saved.
    """
    recipe, solver, device = job.recipe, job.recipe.solver, torch.device(job.device)
    rank, world = distributed.rank(), distributed.world_size()
    seed_everything(job.seed)
    model = network.build(recipe, len(job.train.classes), job.backbone).to(device)
    if world > 1:
        synchronised(model)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=solver.lr,
        momentum=solver.momentum,
        weight_decay=solver.weight_decay,
    )
    scaler = Scaler(device.type, enabled=recipe.amp and device.type == "cuda")
    unreadable: dict[str, str] = {}
    first, spent_s = _resume(job, model, optimizer, scaler, unreadable)
    if first >= solver.iterations:
        return {"unreadable": unreadable, "wall_s": spent_s}
    began = time.monotonic()
    wrapped = _distributed(model)
    stream = batches.training_batches(
        job.train, recipe, seed=job.seed, first=first, workers=job.workers, rank=rank, world=world
    )
    window: list[dict[str, float]] = []

    def save(iterations: int) -> None:
        for share in distributed.gather(unreadable):
            unreadable.update(share)
        if distributed.is_main():
            checkpoint.save(
                job.last,
                model=model.state_dict(),
                optimizer=optimizer.state_dict(),
                scaler=scaler.state_dict(),
                iterations=iterations,
                wall_s=spent_s + time.monotonic() - began,
                unreadable=unreadable,
                about=_about(job),
                harl_bench=_convention(job),
                network=recipe.of_network(),
            )
        distributed.barrier()

    metrics = job.folder / "metrics.jsonl"
    with Session(
        what, solver.iterations, first=first, save=save, metrics=metrics, unit="iteration"
    ) as session:
        for iteration in session:
            samples = session.next(stream)
            note(samples, unreadable, len(job.train.items), allowed=job.allow_unreadable)
            lr = rate(solver, iteration)
            for group in optimizer.param_groups:
                group["lr"] = lr
            x, labels = batches.stacked(samples, recipe, job.backbone.input, device)
            torch.manual_seed(_dropout_seed(job.seed, iteration, rank))
            losses = step(wrapped, x, labels, job.recipe, optimizer, scaler)
            total = sum(losses.values())
            session.check(total, partial(_diverged, losses, iteration, lr))
            times = {"time": session.elapsed_s, "data_time": session.waited_s}
            window.append({**losses, "total_loss": total, **times})
            if (iteration + 1) % WINDOW == 0 or iteration + 1 == solver.iterations:
                session.log(**_means(window), lr=lr)
                window.clear()
            session.save(due=(iteration + 1) % recipe.save_every == 0)
            wait = f"{100 * session.waited_s / session.elapsed_s:.0f}%"
            session.advance(loss=total, lr=f"{lr:.2g}", wait=wait)
    return {"unreadable": unreadable, "wall_s": spent_s + time.monotonic() - began}


def step(
    model: nn.Module,
    x: Tensor,
    labels: Tensor,
    recipe: Recipe,
    optimizer: torch.optim.Optimizer,
    scaler: Scaler,
) -> dict[str, float]:
    """Do one forward pass, backward pass and update; return each head's loss, weighted."""
    names = ("loss", "auxiliary_loss")
    weights = (1.0, recipe.auxiliary.weight if recipe.auxiliary else 0.0)
    with torch.autocast("cuda", torch.float16, enabled=scaler.is_enabled()):
        outputs = model(x)
    losses = {
        name: weight
        * cross_entropy(logits, labels, align_corners=recipe.align_corners, mean=recipe.loss_mean)
        for name, weight, logits in zip(names, weights, outputs, strict=False)
    }
    optimizer.zero_grad()
    total = torch.stack([*losses.values()]).sum()
    scaler.scale(total).backward()  # type: ignore[no-untyped-call]
    scaler.step(optimizer)
    scaler.update()
    return {name: value.item() for name, value in losses.items()}


def _resume(
    job: Job,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: Scaler,
    unreadable: dict[str, str],
) -> tuple[int, float]:
    """Restore the saved state, if there is one; return its iterations and seconds."""
    if not job.last.is_file():
        return 0, 0.0
    state = checkpoint.load_own(job.last)
    checkpoint.refuse_another_run(job.last, state.get("about", {}), _about(job))
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    if scaler.is_enabled() and state["scaler"]:
        scaler.load_state_dict(state["scaler"])
    unreadable.update(state["unreadable"])
    log.info("resuming after iteration %d", state["iterations"])
    return int(state["iterations"]), float(state["wall_s"])


def _distributed(model: nn.Module) -> nn.Module:
    """Average gradients over processes; batch norm pools its statistics by itself."""
    if distributed.world_size() == 1:
        return model
    devices = [torch.cuda.current_device()] if next(model.parameters()).is_cuda else None
    return distributed.averaged(model, device_ids=devices)


def _dropout_seed(seed: int, iteration: int, rank: int) -> int:
    return int(np.random.SeedSequence([seed, iteration, rank]).generate_state(1)[0])


def _means(window: list[dict[str, float]]) -> dict[str, float]:
    every = [row for rows in distributed.gather(window) for row in rows]
    return {name: sum(row[name] for row in every) / len(every) for name in every[0]}


def _diverged(losses: dict[str, float], iteration: int, lr: float) -> TrainingError:
    return TrainingError(
        f"the loss is not finite at iteration {iteration}, learning rate {lr:.3g}",
        seen=", ".join(f"{name} {value:.3g}" for name, value in losses.items()),
        next="lower solver.lr (--lr)",
    )


def _convention(job: Job) -> dict[str, Any]:
    """Return the images and strides that the network is trained with, as `convert` states them."""
    settings, convention = job.recipe.input, job.backbone.input
    return {
        "input_format": convention.input_format,
        "pixel_mean": list(settings.pixel_mean or convention.pixel_mean),
        "pixel_std": list(settings.pixel_std or convention.pixel_std),
        "stride_in_1x1": job.backbone.stride_in_1x1,
    }


def _about(job: Job) -> dict[str, Any]:
    """Return what a state copied from another run's folder would have otherwise."""
    solver = job.recipe.solver
    return {
        "seed": job.seed,
        "iterations": solver.iterations,
        "batch": solver.batch,
        "lr": solver.lr,
        "images": len(job.train.items),
    }

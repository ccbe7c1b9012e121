"""`--engine both`: train the two engines from one state on the same images, print differences."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harl_bench.core.errors import TrainingError
from harl_bench.core.progress import Tracker, console
from harl_bench.core.stopping import Stop
from harl_bench.detection.datasets.sample import Samples
from harl_bench.detection.engines import Job
from harl_bench.detection.scoring import Prediction, score
from harl_bench.detection.torchvision_engine import evaluate
from harl_bench.detection.torchvision_engine.data import training_batches
from harl_bench.detection.torchvision_engine.model import build_model
from harl_bench.detection.torchvision_engine.solver import build_optimizer, precise_bn, set_lr
from harl_bench.detection.torchvision_engine.weights import load_backbone_into
from harl_bench.nn.runtime import seed_everything

TEST_IMAGES = 50  # enough to see a difference in a score


def compare_all(jobs: Sequence[tuple[str, Job]]) -> None:
    """Compare the engines on every job, given with its name.

    Raises:
        TrainingError: they differ in one of them; all are compared and printed before.
    """
    worst: dict[str, float] = {}
    for name, job in jobs:
        console.print(name, markup=False)
        worst[name] = max(compare(job).values())
    if different := [f"{name}: {x:.3g}" for name, x in worst.items() if x]:
        hint = "--gpus 0 leaves out sums whose order changes from run to run"
        raise TrainingError(
            f"the engines differ in {len(different)} of {len(worst)} runs",
            seen=", ".join(different),
            next=f"see the quantities above; on a GPU, {hint}",
        )


def compare(job: Job) -> dict[str, float]:
    """Train both for SOLVER.MAX_ITER iterations, print and return the largest differences.

    They are absolute, by quantity. Both engines start from one state dict, and before each step the
    global generators are seeded alike. Images and objects come from each engine's own mapper,
    precise batch norm, detections and scores from its own network and code.
    """
    from harl_bench.detection import detectron2_model

    recipe = job.recipe
    seed_everything(job.seed)
    ours = build_model(recipe)
    load_backbone_into(ours, job.tensors)
    theirs = detectron2_model.network(recipe, job.device)
    theirs.load_state_dict(ours.state_dict())
    ours.to(job.device)
    our_optimizer = build_optimizer(recipe, ours)
    their_optimizer, scheduler = detectron2_model.solver(recipe, theirs)
    mapper = detectron2_model.Mapper(recipe, job.train, training=True)
    our_batches = training_batches(job.train, recipe, seed=job.seed)
    their_batches = training_batches(job.train, recipe, seed=job.seed, transform=mapper)
    largest: dict[str, float] = {}
    with Tracker("both engines", recipe.SOLVER.MAX_ITER, unit="iterations") as tracker:
        for iteration in range(recipe.SOLVER.MAX_ITER):
            our_batch, their_batch = next(our_batches), next(their_batches)
            _note(largest, "images (0-255)", _images(our_batch), _images(their_batch))
            _note(largest, "boxes (px)", _boxes(our_batch), _boxes(their_batch))
            rate = set_lr(our_optimizer, recipe, iteration)
            _note(largest, "learning rate", rate, their_optimizer.param_groups[0]["lr"])
            seed_everything(job.seed + iteration)
            our_losses = ours(our_batch)
            seed_everything(job.seed + iteration)
            their_losses = detectron2_model.losses(theirs, their_batch, iteration)
            for name, loss in their_losses.items():
                _note(largest, name, our_losses[name], loss)
            _update(our_optimizer, our_losses)
            _update(their_optimizer, their_losses)
            scheduler.step()
            tracker.advance(largest=max(largest.values()))
    _compare_states(largest, ours, theirs, "after training")
    if recipe.TEST.PRECISE_BN.ENABLED:
        count = recipe.TEST.PRECISE_BN.NUM_ITER
        our_batches = training_batches(job.train, recipe, seed=job.seed)
        their_batches = training_batches(job.train, recipe, seed=job.seed, transform=mapper)
        seed_everything(job.seed)
        precise_bn(ours, our_batches, count)
        seed_everything(job.seed)
        detectron2_model.precise_bn(theirs, their_batches, count)
        _compare_states(largest, ours, theirs, "after precise BN")
    _compare_detections(largest, job, ours, theirs)
    for quantity, difference in largest.items():
        console.print(f"{quantity:34} {difference:.3g}", markup=False)
    worst = max(largest.values())
    verdict = f"largest difference {worst:.3g}" if worst else "equal in every quantity"
    console.print(f"Detectron2 and torchvision engine: {verdict}", markup=False)
    return largest


def _compare_states(
    largest: dict[str, float], ours: nn.Module, theirs: nn.Module, when: str
) -> None:
    state, other_state = ours.state_dict(), theirs.state_dict()
    for name, value in state.items():
        kind = "norm statistics" if name.endswith(("running_mean", "running_var")) else "weights"
        _note(largest, f"{kind} {when}", value.double(), other_state[name].double())


def _compare_detections(
    largest: dict[str, float], job: Job, ours: nn.Module, theirs: nn.Module
) -> None:
    from harl_bench.detection import detectron2_model

    samples = Samples(job.test.samples[i] for i in range(min(TEST_IMAGES, len(job.test.samples))))
    few = replace(job, test=replace(job.test, samples=samples))
    our_predictions = evaluate.predict(ours, few, Stop())
    their_predictions = detectron2_model.predict(theirs, few, Stop())
    for a, b in zip(our_predictions, their_predictions, strict=True):
        _note(largest, "number of detections", len(a.scores), len(b.scores))
        if len(a.scores) == len(b.scores):
            _note(largest, "detected boxes (px)", a.boxes, b.boxes)
            _note(largest, "scores (0-1)", a.scores, b.scores)
            _note(largest, "classes", a.classes, b.classes)
            masks_differ = float(_mask_codes(a) != _mask_codes(b))
            _note(largest, "masks (fraction that differs)", masks_differ, 0.0)
    if len(samples) == len(job.test.samples):
        masks = bool(job.recipe.MODEL.MASK_ON)
        our_scores = score(job.test, our_predictions, masks=masks).metrics
        their_scores = score(job.test, their_predictions, masks=masks).metrics
        for name in our_scores:
            _note(largest, f"{name} (percent)", our_scores[name] or 0.0, their_scores[name] or 0.0)


def _update(optimizer: torch.optim.Optimizer, losses: dict[str, Tensor]) -> None:
    optimizer.zero_grad()
    sum(losses.values(), torch.zeros((), device=next(iter(losses.values())).device)).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _note(largest: dict[str, float], quantity: str, ours: Any, theirs: Any) -> None:
    """Record the largest absolute difference, infinite for another shape or a NaN."""
    a, b = _array(ours), _array(theirs)
    difference = float(np.abs(a - b).max(initial=0)) if a.shape == b.shape else np.nan
    difference = np.inf if np.isnan(difference) else difference
    largest[quantity] = max(largest.get(quantity, 0.0), difference)


def _array(value: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    return np.asarray(value, dtype=np.float64)


def _images(batch: list[dict[str, Any]]) -> Any:
    return torch.cat([item["image"].flatten() for item in batch]).float()


def _boxes(batch: list[dict[str, Any]]) -> Any:
    boxes = [item["instances"].gt_boxes for item in batch]
    return torch.cat([getattr(b, "tensor", b) for b in boxes])


def _mask_codes(prediction: Prediction) -> list[Any]:
    return [mask["counts"] for mask in prediction.masks or []]

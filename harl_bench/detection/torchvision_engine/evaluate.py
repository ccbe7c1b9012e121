"""Detections of a test set: one image at a time, in evaluation mode, each process its part."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harl_bench.core.errors import CheckpointError
from harl_bench.core.progress import Tracker
from harl_bench.core.stopping import Stop, stoppable
from harl_bench.detection.engines import Job
from harl_bench.detection.metrics.coco import encoded
from harl_bench.detection.scoring import Prediction
from harl_bench.detection.torchvision_engine.checkpoints import detector
from harl_bench.detection.torchvision_engine.data import Transform, evaluation_batches
from harl_bench.detection.torchvision_engine.model import build_model
from harl_bench.detection.torchvision_engine.structures import Instances
from harl_bench.nn import distributed


def evaluate(job: Job, weights: Path) -> list[Prediction]:
    """Return the detections of a trained detector, one entry per test image in its order.

    Raises:
        CheckpointError: the file does not hold this recipe's detector.
    """
    model = build_model(job.recipe)
    try:
        model.load_state_dict(detector(weights, job.recipe))
    except (KeyError, RuntimeError) as error:
        what, seen = f"not a detector of recipe {job.recipe.name}", " ".join(str(error).split())
        raise CheckpointError(what, where=weights, seen=seen[:200]) from None
    model.to(job.device)
    with stoppable() as stop:
        return predict(model, job, stop)


def predict(
    model: nn.Module,
    job: Job,
    stop: Stop,
    *,
    transform: Transform | None = None,
    as_prediction: Callable[[str | int, Any], Prediction] | None = None,
) -> list[Prediction]:
    """Return a model's detections of the test set. The model's mode stays as it was.

    Args:
        transform, as_prediction: input and output of another engine's model; None: this one's.
    """
    training = model.training
    rank, world = distributed.rank(), distributed.world_size()
    batches = evaluation_batches(
        job.test.samples,
        job.recipe,
        workers=job.workers,
        rank=rank,
        world=world,
        transform=transform,
    )
    as_prediction, predictions = as_prediction or _prediction, []
    model.eval()
    with (
        torch.inference_mode(),
        Tracker("evaluate", len(job.test.samples) // world, unit="images") as tracker,
    ):
        for batch in batches:
            stop.raise_if_asked("while evaluating; the trained detector is kept")
            predictions.append(as_prediction(batch[0]["image_id"], model(batch)[0]))
            tracker.advance()
    model.train(training)
    return [prediction for part in distributed.gather(predictions) for prediction in part]


def _prediction(image_id: str | int, output: Instances) -> Prediction:
    instances = output.to("cpu")
    boxes, scores, classes = instances.pred_boxes, instances.scores, instances.pred_classes
    assert boxes is not None, "the heads always return boxes"
    assert scores is not None, "and their scores"
    assert classes is not None, "and classes"
    masks = None if instances.pred_masks is None else encoded(instances.pred_masks.numpy())
    return Prediction(image_id, boxes.numpy(), scores.tolist(), classes.tolist(), masks)

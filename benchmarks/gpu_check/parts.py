"""What is measured, in the order of its worth."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PLACE = "benchmarks.gpu_check"


@dataclass(frozen=True)
class Part:
    """A measurement.

    Args:
        function: "module:name", called with the Setting and the arguments. It returns a dict: the
            table shows `images_per_s`, `ms`, `peak_gib` and `note`, `failed` marks a failure.
        seconds: that it takes on an H200, measured; with less left it is skipped.
        rivals: other parts of the run, with the ratio of images a second that is the goal, if any.
    """

    function: str
    seconds: float
    arguments: Mapping[str, object] = field(default_factory=dict)
    rivals: Mapping[str, float | None] = field(default_factory=dict)


def step(method: str, rivals: Mapping[str, float | None], seconds: float = 5, **more: Any) -> Part:
    """Return the part that times a method's optimizer step."""
    return Part(f"{PLACE}.pretraining:step", seconds, {"method": method, **more}, rivals)


def detector(name: str, rivals: Mapping[str, float | None], **more: object) -> Part:
    """Return the part that times a detector's training step and inference."""
    return Part(f"{PLACE}.detection:{name}", 15, more, rivals)


SGD: dict[str, Any] = {"optimizer": "sgd", "base_lr": 0.03}
FPN, C4, FCN = "coco-fpn-2fc-1x", "voc-c4-24k", "voc12aug-fcn-d8-20k"
COMPILED_S = 240.0  # more than 139 s on 16 cores with nothing beside it
PARTS: dict[str, Part] = {
    "machine": Part(f"{PLACE}.machine:machine", 16),
    "tests": Part(f"{PLACE}.machine:tests", 95),
    "limit": Part(f"{PLACE}.pretraining:limit", 14),
    "lightly byol": Part(f"{PLACE}.pretraining:lightly", 5),
    "step byol": step("byol", {"lightly byol": 1.3, "limit": None}),
    "step harl": step("harl", {"step byol": 0.91, "lightly byol": None, "limit": None}),
    "step simclr": step("simclr", {"step byol": None}),
    "step mocov2": step("mocov2", {"step byol": None}, **SGD),
    "step harl fp32": step("harl", {"step harl": None}, 20, precision="fp32"),
    "run harl": Part(f"{PLACE}.runs:run", 45, rivals={"step harl": None}),
    "syncs harl": Part(f"{PLACE}.runs:syncs", 8, {"method": "harl"}),
    "colors": Part(f"{PLACE}.pretraining:colors", 10, rivals={"step harl": None}),
    "torchvision fpn": detector("torchvision", {}),
    "detection fpn": detector("ours", {"torchvision fpn": None}, recipe=FPN),
    "detection fpn amp": detector("ours", {"detection fpn": None}, recipe=FPN, amp=True),
    "detection c4": detector("ours", {}, recipe=C4),
    "detection c4 amp": detector("ours", {"detection c4": None}, recipe=C4, amp=True),
    "segmentation": Part(f"{PLACE}.segmentation:ours", 12, {"name": FCN}),
    "segmentation amp": Part(
        f"{PLACE}.segmentation:ours", 12, {"name": FCN, "amp": True}, {"segmentation": None}
    ),
    "features": Part(f"{PLACE}.classification:features", 8),
    "features bf16": Part(
        f"{PLACE}.classification:features", 8, {"precision": "bfloat16"}, {"features": None}
    ),
    "knn cpu": Part(f"{PLACE}.classification:neighbors", 10, {"device": "cpu"}),
    "knn": Part(f"{PLACE}.classification:neighbors", 8, rivals={"knn cpu": None}),
    "scikit-learn linear": Part(f"{PLACE}.classification:scikit_learn", 20),
    "linear": Part(f"{PLACE}.classification:linear", 8, rivals={"scikit-learn linear": None}),
    "syncs mocov2": Part(f"{PLACE}.runs:syncs", 8, {"method": "mocov2"}),
    "step harl compiled": step(
        "harl", {"step harl": None, "lightly byol": 1.3}, COMPILED_S, compile=True
    ),
    "step byol compiled": step("byol", {"step byol": None}, COMPILED_S, compile=True),
    "step simclr compiled": step("simclr", {"step simclr": None}, COMPILED_S, compile=True),
    "step mocov2 compiled": step("mocov2", {"step mocov2": None}, COMPILED_S, compile=True, **SGD),
}

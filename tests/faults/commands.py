"""The commands under attack, on tiny data, and what of their output must be equal."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tests import warm
from tests.detection.command import TINY

RESNET18 = [
    "backbone=resnet18",
    "image_size=32",
    "batch_size=4",
    "epochs=2",
    "warmup_epochs=1",
    "checkpoint_every_steps=1",
    "projector_hidden=16",
    "projector_out=8",
    "predictor_hidden=16",
]
DETECTION = [
    *TINY,
    "SOLVER.CHECKPOINT_PERIOD=1",
    "--engine",
    "torchvision",
    "--seeds",
    "0",
    "--workers",
    "0",
]
SUITE = """
data: {{voc: {root}/voc, classify: {root}/classes}}
checkpoints: [random]
tasks:
  - {{task: classify, protocol: linear-toy, data: classify, overrides: [image_size=32]}}
  - {{task: voc, recipe: voc-c4-toy, engine: torchvision, data: voc, overrides: [{overrides}]}}
seeds: [0]
report: {{md: table.md}}
"""


class Case(NamedTuple):
    """A command, by the folders of its data and output, and what of the output must be equal."""

    command: Callable[[Path, Path], list[str]]
    outcome: Callable[[Path], Any]


def tensors(path: Path) -> dict[str, bytes]:
    """Every tensor of a checkpoint, to the bit."""
    values: dict[str, bytes] = {}

    def walk(node: Any, name: str) -> None:
        if isinstance(node, torch.Tensor):
            flat = node.detach().contiguous().flatten()
            values[name] = flat.view(torch.uint8).numpy().tobytes()
        elif isinstance(node, dict):
            for key, value in node.items():
                walk(value, f"{name}.{key}")

    payload = torch.load(path, weights_only=True)
    walk(payload.get("method") or payload["model"], "")
    assert values
    return values


def scores(out: Path) -> dict[str, Any]:
    results = {
        p.parent.relative_to(out).as_posix(): json.loads(p.read_text())
        for p in sorted(out.rglob("result.json"))
    }
    assert results
    return {name: (result["metrics"], result["per_class"]) for name, result in results.items()}


def detector(out: Path) -> Any:
    (path,) = out.rglob("model_final.pth")
    return scores(out), tensors(path)


def masks(out: Path) -> Any:
    return {
        p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.rglob("[!.]*.png"))
    }, sorted((out / "manifest.csv").read_text().splitlines())


def suite(root: Path, out: Path) -> list[str]:
    overrides = ", ".join(json.dumps(o) for o in [*TINY, "SOLVER.CHECKPOINT_PERIOD=1"])
    (root / "suite.yaml").write_text(SUITE.format(root=root, overrides=overrides))
    return ["run", str(root / "suite.yaml"), "--out", str(out)]


def masks_make(root: Path, out: Path) -> list[str]:
    maker = ["--method", "drfi-lite", "--workers", "1", "--preview", "0"]
    return ["masks", "make", str(root / "photos/images"), "--out", str(out), *maker]


def pretrain(root: Path, out: Path) -> list[str]:
    data = ["--data", str(root / "photos/images"), "--masks", str(root / "photos/masks")]
    method = ["pretrain", "--method", "harl", "--recipe", "harl-toy", *RESNET18]
    return [*method, *data, "--out", str(out), "--workers", "1", "--device", "cpu"]


def detection(task: str, recipe: str, root: Path, out: Path) -> list[str]:
    paths = ["--data", str(root / task), "--out", str(out)]
    return [task, "random", "--recipe", recipe, *paths, *DETECTION]


def classify(root: Path, out: Path) -> list[str]:
    paths = ["--data", str(root / "classes"), "--out", str(out)]
    protocol = ["classify", "random", "--protocol", "linear-toy", "image_size=32"]
    return [*protocol, *paths, "--workers", "1", "--device", "cpu"]


def convert(root: Path, out: Path) -> list[str]:
    return ["convert", str(root / "moco.pth.tar"), "--out", str(out / "back.pth")]


CASES = {
    "masks": Case(masks_make, masks),
    "pretrain": Case(pretrain, lambda out: tensors(out / "last.pth")),
    "convert": Case(convert, lambda out: tensors(out / "back.pth")),
    "voc": Case(partial(detection, "voc", "voc-c4-toy"), detector),
    "coco": Case(partial(detection, "coco", "coco-fpn-toy"), detector),
    "classify": Case(classify, scores),
    "run": Case(suite, scores),
}


def start(arguments: list[str], log: Path) -> warm.Process:
    """Run the CLI in a process and a session of its own."""
    module = "tests.faults.forking" if arguments[0] == "run" else "harl_bench.cli"
    with open(log, "ab") as file:
        return warm.Process([module, *arguments], stdout=file, stderr=file)


def finish(command: list[str], log: Path) -> None:
    assert start(command, log).wait(timeout=600) == 0, log.read_text()[-3000:]


class Calm(NamedTuple):
    """An undisturbed run: its outcome and how long it took, in seconds."""

    outcome: Any
    length: float

"""SIGKILL at random moments: the same command again finishes, and ends where an undisturbed one ends."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import resnet50

from tests.detection import tiny
from tests.detection.test_train import TINY
from tests.faults import FULL
from tests.masks import mask_scenes as scenes

pytestmark = pytest.mark.slow
KILLS = 30 if FULL else 2  # of each command
RESNET18 = ["backbone=resnet18", "image_size=32", "batch_size=4", "epochs=2", "warmup_epochs=1",
            "checkpoint_every_steps=1", "projector_hidden=16", "projector_out=8", "predictor_hidden=16"]  # fmt: skip
DETECTION = [*TINY, "SOLVER.CHECKPOINT_PERIOD=1", "--engine", "torchvision", "--seeds", "0", "--workers", "0"]
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
    """A command, given the folders of its data and of its output; and what of the output must be the same."""

    command: Callable[[Path, Path], list[str]]
    outcome: Callable[[Path], Any]


def tensors(path: Path) -> dict[str, bytes]:
    """Every tensor of a checkpoint, to the bit."""
    found: dict[str, bytes] = {}

    def walk(node: Any, name: str) -> None:
        if isinstance(node, torch.Tensor):
            found[name] = node.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes() if node.dim() else \
                str(node.item()).encode()  # fmt: skip
        elif isinstance(node, dict):
            for key, value in node.items():
                walk(value, f"{name}.{key}")

    payload = torch.load(path, weights_only=True)
    walk(payload.get("method") or payload["model"], "")
    assert found
    return found


def scores(out: Path) -> dict[str, Any]:
    found = {p.parent.relative_to(out).as_posix(): json.loads(p.read_text()) for p in sorted(out.rglob("result.json"))}
    assert found
    return {name: (result["metrics"], result["per_class"]) for name, result in found.items()}


def detector(out: Path) -> Any:
    (path,) = out.rglob("model_final.pth")
    return scores(out), tensors(path)


def masks(out: Path) -> Any:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.rglob("[!.]*.png"))}, sorted(
        (out / "manifest.csv").read_text().splitlines()
    )


def suite(root: Path, out: Path) -> list[str]:
    overrides = ", ".join(json.dumps(o) for o in [*TINY, "SOLVER.CHECKPOINT_PERIOD=1"])
    (root / "suite.yaml").write_text(SUITE.format(root=root, overrides=overrides))
    return ["run", str(root / "suite.yaml"), "--out", str(out)]


CASES = {
    "masks": Case(
        lambda root, out: ["masks", "make", str(root / "photos/images"), "--out", str(out), "--method", "drfi-lite",
                           "--workers", "1", "--preview", "0"],
        masks,
    ),
    "pretrain": Case(
        lambda root, out: ["pretrain", "--method", "harl", "--recipe", "harl-toy", *RESNET18, "--data",
                           str(root / "photos/images"), "--masks", str(root / "photos/masks"), "--out", str(out),
                           "--workers", "1", "--device", "cpu"],
        lambda out: tensors(out / "last.pth"),
    ),
    "convert": Case(
        lambda root, out: ["convert", str(root / "moco.pth.tar"), "--out", str(out / "back.pth")],
        lambda out: tensors(out / "back.pth"),
    ),
    "voc": Case(
        lambda root, out: ["voc", "random", "--data", str(root / "voc"), "--recipe", "voc-c4-toy", "--out", str(out),
                           *DETECTION],
        detector,
    ),
    "coco": Case(
        lambda root, out: ["coco", "random", "--data", str(root / "coco"), "--recipe", "coco-fpn-toy", "--out",
                           str(out), *DETECTION],
        detector,
    ),
    "classify": Case(
        lambda root, out: ["classify", "random", "--protocol", "linear-toy", "image_size=32", "--data",
                           str(root / "classes"), "--out", str(out), "--workers", "1", "--device", "cpu"],
        scores,
    ),
    "run": Case(suite, scores),
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    scenes.write(root / "photos", 8)
    tiny.voc(root / "voc", train=3, test=2)
    tiny.coco(root / "coco", train=4, test=2)
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 4)):
        for k, name in enumerate(("red", "green")):
            for i in range(count):
                path = root / "classes" / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = rng.integers(0, 120, (40, 36, 3), dtype=np.uint8)
                pixels[..., k] += 100
                Image.fromarray(pixels).save(path)
    backbone = {f"module.encoder_q.{name}": value for name, value in resnet50().state_dict().items()}
    torch.save({"epoch": 200, "arch": "resnet50", "state_dict": backbone}, root / "moco.pth.tar")
    return root


def start(arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    with open(log, "ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "harl_bench.cli", *arguments], stdout=file, stderr=file, start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip


def whole(out: Path) -> None:
    """Nothing that carries its final name is half written."""
    for path in out.rglob("*"):
        if path.name.startswith(".") or not path.is_file():
            continue
        if path.suffix == ".json" and not path.is_symlink():
            json.loads(path.read_text())
        elif path.suffix == ".png":
            Image.open(path).load()
        elif path.suffix in (".pth", ".pkl"):
            torch.load(path, weights_only=True)


@pytest.mark.parametrize("name", CASES)
def test_killed_at_any_moment(root: Path, tmp_path: Path, name: str) -> None:
    case = CASES[name]
    calm, broken, log = tmp_path / "calm", tmp_path / "broken", tmp_path / "log.txt"
    began = time.monotonic()
    assert start(case.command(root, calm), log).wait(timeout=600) == 0, log.read_text()[-3000:]
    length = time.monotonic() - began
    expected = case.outcome(calm)
    random = np.random.default_rng([sum(name.encode()), KILLS])
    killed = 0
    for _ in range(KILLS):
        process = start(case.command(root, broken), log)
        try:
            code = process.wait(timeout=float(random.uniform(0.25, 1.0)) * length)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
        else:
            assert code == 0, log.read_text()[-3000:]
            if FULL:  # it had got to the end: once more from nothing
                broken.rename(tmp_path / f"ended{killed}")
                assert case.outcome(tmp_path / f"ended{killed}") == expected
        whole(broken)
    assert start(case.command(root, broken), log).wait(timeout=600) == 0, log.read_text()[-3000:]
    assert case.outcome(broken) == expected
    assert start(case.command(root, broken), log).wait(timeout=600) == 0, "a finished command is skipped"
    assert case.outcome(broken) == expected

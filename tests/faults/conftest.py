"""Data of every command, and what each leaves undisturbed: once in a process of the tests."""

import functools
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import resnet50

from tests import warm
from tests.detection import tiny
from tests.faults.commands import CASES, Calm, finish
from tests.masks import mask_scenes as scenes


@pytest.fixture(scope="session")
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
    backbone = {
        f"module.encoder_q.{name}": value for name, value in resnet50().state_dict().items()
    }
    torch.save({"epoch": 200, "arch": "resnet50", "state_dict": backbone}, root / "moco.pth.tar")
    return root


@pytest.fixture(scope="session")
def calm(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Calm]:
    @functools.cache
    def run(name: str) -> Calm:
        folder = tmp_path_factory.mktemp(f"calm-{name}")
        warm.server()  # whose start is none of its time
        began = time.monotonic()
        finish(CASES[name].command(root, folder / "out"), folder / "log.txt")
        calm = Calm(CASES[name].outcome(folder / "out"), time.monotonic() - began)
        shutil.rmtree(folder)
        return calm

    return run

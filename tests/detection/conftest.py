"""Tiny data of VOC and COCO, a finished run of voc, and an engine that does nothing."""

import numpy as np
import pytest

from harl_bench.cli import main
from harl_bench.detection import engines
from harl_bench.detection.scoring import Prediction
from tests.detection import tiny
from tests.detection.command import QUICK, voc


@pytest.fixture(scope="module")
def voc_root(tmp_path_factory):
    return tiny.voc(tmp_path_factory.mktemp("voc"))


@pytest.fixture(scope="module")
def coco_root(tmp_path_factory):
    return tiny.coco(tmp_path_factory.mktemp("coco"))


@pytest.fixture(scope="module")
def finished(voc_root, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    assert main([*voc(voc_root, out), *QUICK, "--pictures", "2"]) == 0
    return out


@pytest.fixture
def untrained(monkeypatch):
    """Use an engine that learns and detects nothing: names and records do not depend on it."""

    def train(job):
        (job.folder / "checkpoints").mkdir(exist_ok=True)
        (job.folder / "checkpoints/model_final.pth").touch()
        return {"unreadable": {}, "wall_s": 0.0}

    def evaluate(job, weights):
        nothing = np.zeros((0, 4), dtype=np.float32)
        return [Prediction(s.image_id, nothing, [], [], []) for s in job.test.samples]

    monkeypatch.setattr(engines.Engine, "load", lambda engine: (train, evaluate))

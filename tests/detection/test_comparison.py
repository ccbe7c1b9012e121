"""`--engine both` with a stand-in for Detectron2 made of our own parts, equal or not."""

import sys
import types

import numpy as np
import pytest

from harl_bench.cli import main
from harl_bench.detection import comparison
from harl_bench.detection.scoring import Prediction
from harl_bench.detection.torchvision_engine import data, evaluate, model, solver
from tests.detection import tiny
from tests.detection.command import QUICK, voc
from tests.detection.test_engine_choice import ENGINE, place


class Scheduler:
    """Sets the learning rate of the next step, as Detectron2's does."""

    def __init__(self, optimizer, recipe):
        self.optimizer, self.recipe, self.iteration = optimizer, recipe, 0
        solver.set_lr(optimizer, recipe, 0)

    def step(self):
        self.iteration += 1
        solver.set_lr(self.optimizer, self.recipe, self.iteration)


class Mapper:
    """Our own transform under Detectron2's name."""

    def __init__(self, recipe, dataset, *, training):
        self.recipe, self.bitmasks = recipe, dataset.bitmasks

    def __call__(self, sample, generator):
        size = self.recipe.INPUT
        return data.transforms.for_training(
            sample,
            generator,
            sizes_px=size.MIN_SIZE_TRAIN,
            max_px=size.MAX_SIZE_TRAIN,
            flip=size.RANDOM_FLIP == "horizontal",
            channels=size.FORMAT,
            masks=self.recipe.MODEL.MASK_ON,
            bitmasks=self.bitmasks,
        )


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """An engine equal to ours; tests break one of its functions."""
    place(tmp_path / "site", monkeypatch, "")
    module = types.ModuleType("stand_in")

    def solved(recipe, network):
        optimizer = solver.build_optimizer(recipe, network)
        return optimizer, Scheduler(optimizer, recipe)

    module.train = module.evaluate = None
    module.network = lambda recipe, device: model.build_model(recipe)
    module.solver, module.Mapper, module.predict = solved, Mapper, evaluate.predict
    module.losses = lambda network, batch, iteration: network(batch)
    module.precise_bn = solver.precise_bn
    for name in ENGINE:
        monkeypatch.setitem(sys.modules, name, module)
    return module


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny.voc(tmp_path_factory.mktemp("voc"), train=3, test=2)


def test_equal_engines_are_found_equal_after_precise_bn_too(root, tmp_path, capsys, stand_in):
    assert main([*voc(root, tmp_path / "runs", engine="both"), *QUICK]) == 0
    text = capsys.readouterr().out
    assert "Detectron2 and torchvision engine: equal in every quantity" in text
    assert "norm statistics after precise BN   0\n" in text
    assert not (tmp_path / "runs").exists()


def test_every_seed_and_rate_is_compared(root, tmp_path, capsys, stand_in, monkeypatch):
    jobs = []
    monkeypatch.setattr(comparison, "compare", lambda job: jobs.append(job) or {"loss": 0.0})
    command = [*voc(root, tmp_path / "runs", engine="both"), *QUICK, "--seeds", "0", "1"]
    assert main([*command, "--lr", "0.01", "0.02"]) == 0
    assert [(job.recipe.SOLVER.BASE_LR, job.seed) for job in jobs] == [
        (0.01, 0),
        (0.01, 1),
        (0.02, 0),
        (0.02, 1),
    ]
    assert "voc-c4-toy-lr0.02 seed 1\n" in capsys.readouterr().out


def in_losses(module):
    module.losses = lambda network, batch, iteration: {
        k: v * 1.001 for k, v in network(batch).items()
    }


def in_precise_bn(module):
    """Half the batches: everything before it is equal."""
    module.precise_bn = lambda network, batches, iterations: None


def in_detections(module):
    def predict(network, job, stop):
        first, *others = evaluate.predict(network, job, stop)
        boxes = np.concatenate([first.boxes, np.float32([[1, 2, 9, 9]])])
        return [
            Prediction(
                first.image_id, boxes, [*first.scores, 0.5], [*first.classes, 0], first.masks
            ),
            *others,
        ]

    module.predict = predict


@pytest.mark.parametrize("fault", [in_losses, in_precise_bn, in_detections])
def test_engines_that_differ_exit_with_1(root, tmp_path, capsys, stand_in, fault):
    fault(stand_in)
    assert main([*voc(root, tmp_path, engine="both"), *QUICK]) == 1
    captured = capsys.readouterr()
    assert (
        "error[training]: the engines differ in 1 of 1 runs; seen: voc-c4-toy seed 0: "
        in captured.err
    )
    assert captured.err.count("\n") == 1
    assert "Detectron2 and torchvision engine: largest difference" in captured.out


def test_all_are_compared_before_it_fails(monkeypatch, capsys):
    differences = iter([{"loss": 0.5}, {"loss": 0.0}, {"loss": float("inf")}])
    monkeypatch.setattr(comparison, "compare", lambda job: next(differences))
    with pytest.raises(
        comparison.TrainingError, match=r"differ in 2 of 3 runs; seen: a: 0\.5, c: inf"
    ):
        comparison.compare_all([("a", None), ("b", None), ("c", None)])
    assert capsys.readouterr().out.split() == ["a", "b", "c"]

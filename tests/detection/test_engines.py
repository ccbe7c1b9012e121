"""Both engines on one run, live: needs an installed Detectron2 (docs/detectron2.md)."""

import os
import signal

import pytest
import torch

from harl_bench.cli import main
from harl_bench.core.errors import PreemptedError
from harl_bench.detection.engines import choose
from tests.detection import tiny
from tests.detection.test_train import TINY, job, same

pytest.importorskip("detectron2", reason="Detectron2 is not installed")
pytestmark = pytest.mark.detectron2


@pytest.mark.parametrize(("task", "recipe"), [("voc", "voc-c4-toy"), ("coco", "coco-fpn-toy")])
def test_both_engines_are_equal_in_every_quantity(tmp_path, capsys, task, recipe):
    root = getattr(tiny, task)(tmp_path / "data")
    command = [
        task,
        "random",
        "--data",
        str(root),
        "--recipe",
        recipe,
        "--engine",
        "both",
        "--out",
        str(tmp_path / "runs"),
    ]
    assert main([*command, *TINY]) == 0
    text = capsys.readouterr().out
    assert "equal in every quantity" in text, text
    assert not (tmp_path / "runs").exists()


def test_auto_takes_detectron2_where_it_is():
    assert choose("auto") == "detectron2"


def test_engines_train_to_the_same_weights(tmp_path):
    """Through each engine's own trainer, from initialization to precise BN."""
    from harl_bench.convert.read import read_backbone
    from harl_bench.detection import detectron2_engine
    from harl_bench.detection.torchvision_engine import checkpoints, train

    root, tensors = (
        tiny.voc(tmp_path / "data", years=("VOC2007",)),
        read_backbone("random", seed=0).tensors,
    )
    for engine, folder in ((train, tmp_path / "ours"), (detectron2_engine, tmp_path / "theirs")):
        engine.train(job(folder, root, tensors, "TEST.EVAL_PERIOD=2"))
    ours, theirs = (
        checkpoints.read(tmp_path / name / "checkpoints/model_final.pth")
        for name in ("ours", "theirs")
    )
    assert same(dict(ours["model"]), dict(theirs["model"]))


def test_detectron2_resumes_bit_for_bit(tmp_path, monkeypatch):
    from harl_bench.convert.read import read_backbone
    from harl_bench.detection import detectron2_engine
    from harl_bench.detection.torchvision_engine import checkpoints

    root, tensors = (
        tiny.voc(tmp_path / "data", years=("VOC2007",)),
        read_backbone("random", seed=0).tensors,
    )
    detectron2_engine.train(job(tmp_path / "whole", root, tensors))
    interrupted = job(tmp_path / "parts", root, tensors)
    original = detectron2_engine.training_batches

    def batches(*arguments, **named):
        for k, batch in enumerate(original(*arguments, **named)):
            if k == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(detectron2_engine, "training_batches", batches)
        with pytest.raises(PreemptedError, match="iteration 2 of 4 is saved"):
            detectron2_engine.train(interrupted)
    detectron2_engine.train(interrupted)
    whole, parts = (
        checkpoints.read(tmp_path / name / "checkpoints/model_final.pth")
        for name in ("whole", "parts")
    )
    assert same(dict(whole["model"]), dict(parts["model"]))
    predictions = detectron2_engine.evaluate(
        interrupted, tmp_path / "parts/checkpoints/model_final.pth"
    )
    assert [p.image_id for p in predictions] == [s.image_id for s in interrupted.test.samples]


def test_a_detector_of_one_engine_is_evaluated_alike_by_the_other(tmp_path):
    from harl_bench.convert.read import read_backbone
    from harl_bench.detection import detectron2_engine
    from harl_bench.detection.torchvision_engine import evaluate, train

    root, tensors = (
        tiny.voc(tmp_path / "data", years=("VOC2007",)),
        read_backbone("random", seed=0).tensors,
    )
    run = job(tmp_path / "run", root, tensors)
    train.train(run)
    weights = tmp_path / "run/checkpoints/model_final.pth"
    for a, b in zip(
        evaluate.evaluate(run, weights), detectron2_engine.evaluate(run, weights), strict=True
    ):
        assert a.scores == b.scores
        assert torch.equal(torch.from_numpy(a.boxes), torch.from_numpy(b.boxes))

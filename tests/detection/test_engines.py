"""Both engines on one run, live: needs an installed Detectron2 (docs/detectron2.md)."""

import os
import signal

import pytest
import torch

from harl_bench.cli import main
from harl_bench.core.errors import PreemptedError
from harl_bench.core.results import read_result
from harl_bench.detection.engines import choose
from tests.detection import tiny
from tests.detection.command import TINY
from tests.detection.test_cityscapes import needs_cityscapesscripts
from tests.detection.test_train import job, same, signalled

pytest.importorskip("detectron2", reason="Detectron2 is not installed")
pytestmark = pytest.mark.detectron2
SHOWN = [*TINY, "MODEL.ROI_HEADS.SCORE_THRESH_TEST=0.0"]  # detections of four iterations


@pytest.mark.parametrize(
    ("task", "recipe"),
    [
        ("voc", "voc-c4-toy"),
        ("coco", "coco-fpn-toy"),
        pytest.param("cityscapes", "cityscapes-fpn-toy", marks=needs_cityscapesscripts),
    ],
)
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
    assert main([*command, *SHOWN]) == 0
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
    from harl_bench.detection import detectron2_engine, detectron2_model
    from harl_bench.detection.torchvision_engine import checkpoints

    root, tensors = (
        tiny.voc(tmp_path / "data", years=("VOC2007",)),
        read_backbone("random", seed=0).tensors,
    )
    detectron2_engine.train(job(tmp_path / "whole", root, tensors))
    interrupted = job(tmp_path / "parts", root, tensors)
    with monkeypatch.context() as patch:
        signalled(patch, signal.SIGTERM, 1, detectron2_engine)
        with pytest.raises(PreemptedError, match="iteration 2 of 4 is saved"):
            detectron2_engine.train(interrupted)
    detectron2_engine.train(interrupted)
    whole, parts = (
        checkpoints.read(tmp_path / name / "checkpoints/model_final.pth")
        for name in ("whole", "parts")
    )
    assert same(dict(whole["model"]), dict(parts["model"]))
    predictions = detectron2_model.evaluate(
        interrupted, tmp_path / "parts/checkpoints/model_final.pth"
    )
    assert [p.image_id for p in predictions] == [s.image_id for s in interrupted.test.samples]


def test_a_signal_during_an_evaluation_loses_no_iteration(tmp_path, monkeypatch):
    from harl_bench.convert.read import read_backbone
    from harl_bench.detection import detectron2_engine
    from harl_bench.detection.torchvision_engine import checkpoints

    root = tiny.voc(tmp_path / "data", years=("VOC2007",))
    tensors = read_backbone("random", seed=0).tensors
    interrupted = job(tmp_path / "parts", root, tensors, "TEST.EVAL_PERIOD=2")
    detectron2_engine.train(job(tmp_path / "whole", root, tensors, "TEST.EVAL_PERIOD=2"))
    original = detectron2_engine.predict

    def predict(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(detectron2_engine, "predict", predict)
        with pytest.raises(PreemptedError):
            detectron2_engine.train(interrupted)
    assert (tmp_path / "parts/checkpoints/model_0000001.pth").is_file()
    detectron2_engine.train(interrupted)
    whole, parts = (
        checkpoints.read(tmp_path / name / "checkpoints/model_final.pth")
        for name in ("whole", "parts")
    )
    assert same(dict(whole["model"]), dict(parts["model"]))


def test_a_detector_of_one_engine_is_evaluated_alike_by_the_other(tmp_path):
    from harl_bench.convert.read import read_backbone
    from harl_bench.detection import detectron2_model
    from harl_bench.detection.torchvision_engine import evaluate, train

    root, tensors = (
        tiny.voc(tmp_path / "data", years=("VOC2007",)),
        read_backbone("random", seed=0).tensors,
    )
    run = job(tmp_path / "run", root, tensors)
    train.train(run)
    weights = tmp_path / "run/checkpoints/model_final.pth"
    for a, b in zip(
        evaluate.evaluate(run, weights), detectron2_model.evaluate(run, weights), strict=True
    ):
        assert a.scores == b.scores
        assert torch.equal(torch.from_numpy(a.boxes), torch.from_numpy(b.boxes))


@pytest.mark.slow
@needs_cityscapesscripts
def test_the_cityscapes_command_scores_alike_by_both_engines_and_after_a_signal(
    tmp_path, monkeypatch, capsys
):
    from harl_bench.detection import detectron2_engine

    root = tiny.cityscapes(tmp_path / "data")

    def run(engine, out):
        options = ["--data", str(root), "--recipe", "cityscapes-fpn-toy", "--engine", engine]
        return main(["cityscapes", "random", *options, "--out", str(tmp_path / out), *SHOWN])

    assert run("torchvision", "ours") == 0
    assert run("detectron2", "theirs") == 0
    with monkeypatch.context() as patch:
        signalled(patch, signal.SIGTERM, 1, detectron2_engine)
        assert run("detectron2", "parts") == 75
    assert "Traceback" not in capsys.readouterr().err
    assert run("detectron2", "parts") == 0
    folders = [
        path.parent
        for out in ("ours", "theirs", "parts")
        for path in (tmp_path / out).rglob("result.json")
    ]
    results = [read_result(folder / "result.json") for folder in folders]
    assert [r.engine for r in results] == ["torchvision", "detectron2", "detectron2"]
    assert all(r.metrics == results[0].metrics for r in results)
    detections = [
        (folder / "inference/cityscapes_instances_results.json").read_bytes() for folder in folders
    ]
    assert detections[0].count(b"image_id") > 10
    assert detections[0] == detections[1] == detections[2]

"""Training: resume bit for bit, stopping on signals, checkpoints, metrics, and what stops a run."""

import json
import os
import shutil
import signal

import pytest
import torch

from harl_bench.convert.read import read_backbone
from harl_bench.core.errors import DataError, PreemptedError, TrainingError, UsageError
from harl_bench.detection import recipe
from harl_bench.detection.datasets import voc
from harl_bench.detection.datasets.sample import for_training
from harl_bench.detection.engines import Job
from harl_bench.detection.torchvision_engine import checkpoints, train
from tests.detection import tiny
from tests.detection.command import TINY


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny.voc(tmp_path_factory.mktemp("voc"), years=("VOC2007",))


@pytest.fixture(scope="module")
def tensors():
    return read_backbone("random", seed=0).tensors


def job(folder, root, tensors, *overrides, seed=0, **options):
    return Job(
        recipe=recipe.load("voc-c4-toy", [*TINY, *overrides]),
        tensors=tensors,
        train=for_training(voc.read(root, "voc_2007_trainval")),
        test=voc.read(root, "voc_2007_test"),
        folder=folder,
        seed=seed,
        device="cpu",
        **options,
    )


def signalled(monkeypatch, number, at, engine=train):
    """Send this process a signal while batch `at` (of those drawn from now on) is read."""
    original = engine.training_batches

    def batches(*arguments, **named):
        for k, batch in enumerate(original(*arguments, **named)):
            if k == at:
                os.kill(os.getpid(), number)
            yield batch

    monkeypatch.setattr(engine, "training_batches", batches)


def same(a, b):
    """Nested values, tensors bit for bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, root, tensors):
    folder = tmp_path_factory.mktemp("run")
    train.train(job(folder, root, tensors, "TEST.EVAL_PERIOD=2"))
    return folder


def test_resumed_run_ends_with_the_same_weights_bit_for_bit(
    tmp_path, root, tensors, uninterrupted, monkeypatch
):
    interrupted = job(tmp_path, root, tensors, "TEST.EVAL_PERIOD=2")
    with monkeypatch.context() as patch:
        signalled(patch, signal.SIGTERM, at=2)
        with pytest.raises(PreemptedError, match="SIGTERM, iteration 3 of 4 is saved") as caught:
            train.train(interrupted)
    assert caught.value.exit_code == 75
    names = [p.name for p in checkpoints.numbered(tmp_path / "checkpoints")]
    assert names == ["model_0000002.pth", "model_0000001.pth"]
    train.train(interrupted)
    ours, theirs = (
        checkpoints.read(f / "checkpoints/model_final.pth") for f in (tmp_path, uninterrupted)
    )
    for key in ("model", "optimizer", "iteration", "rng"):
        assert same(ours[key], theirs[key]), key


def test_a_signal_during_an_evaluation_loses_no_iteration(
    tmp_path, root, tensors, uninterrupted, monkeypatch
):
    interrupted = job(tmp_path, root, tensors, "TEST.EVAL_PERIOD=2")
    original = train.predict

    def predict(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(train, "predict", predict)
        with pytest.raises(PreemptedError, match="while evaluating"):
            train.train(interrupted)
    assert checkpoints.last(tmp_path / "checkpoints")["iteration"] == 1
    train.train(interrupted)
    ours, theirs = (
        checkpoints.read(f / "checkpoints/model_final.pth") for f in (tmp_path, uninterrupted)
    )
    assert same(ours["model"], theirs["model"])


def test_checkpoint_of_another_run_is_refused(tmp_path, root, tensors, uninterrupted):
    other = job(tmp_path / "other", root, tensors, seed=7)
    shutil.copytree(uninterrupted / "checkpoints", other.folder / "checkpoints")
    with pytest.raises(UsageError, match=r"is of another run.*seed was 0, now 7"):
        train.train(other)


def test_first_weights_are_the_backbones_and_the_seeds(root, tensors, tmp_path, uninterrupted):
    trained = checkpoints.read(uninterrupted / "checkpoints/model_final.pth")["model"]
    assert not torch.equal(trained["backbone.stem.conv1.weight"], tensors["conv1.weight"])
    other = job(
        tmp_path, root, tensors, "SOLVER.MAX_ITER=1", "TEST.PRECISE_BN.ENABLED=False", seed=1
    )
    train.train(other)
    state = checkpoints.read(tmp_path / "checkpoints/model_final.pth")["model"]
    name = "roi_heads.box_predictor.cls_score.weight"
    assert (state[name] - trained[name]).abs().max() > 1e-3  # heads of another seed


def test_metrics_have_detectron2s_keys(uninterrupted):
    rows = [json.loads(line) for line in (uninterrupted / "metrics.json").read_text().splitlines()]
    evaluation, last = rows
    assert evaluation["iteration"] == 1
    assert {"bbox/AP", "bbox/AP50", "bbox/AP75"} <= evaluation.keys()
    assert last["iteration"] == 3
    assert {
        "total_loss",
        "loss_cls",
        "loss_box_reg",
        "loss_rpn_cls",
        "loss_rpn_loc",
        "lr",
        "time",
        "data_time",
        "eta_seconds",
        "fast_rcnn/cls_accuracy",
        "fast_rcnn/fg_cls_accuracy",
        "fast_rcnn/false_negative",
        "roi_head/num_fg_samples",
        "roi_head/num_bg_samples",
        "rpn/num_pos_anchors",
        "rpn/num_neg_anchors",
    } <= last.keys()
    assert (uninterrupted / "checkpoints/last_checkpoint").read_text() == "model_final.pth"


def test_ctrl_c_saves_too(tmp_path, root, tensors, monkeypatch):
    signalled(monkeypatch, signal.SIGINT, at=0)
    with pytest.raises(KeyboardInterrupt):
        train.train(job(tmp_path, root, tensors))
    assert checkpoints.last(tmp_path / "checkpoints")["iteration"] == 0


def test_loss_that_is_not_finite_stops_the_run_with_a_hint(tmp_path, root, tensors):
    wild = job(
        tmp_path, root, tensors, "SOLVER.BASE_LR=1e12", "SOLVER.WARMUP_ITERS=0", "SOLVER.STEPS=()"
    )
    with pytest.raises(
        TrainingError, match=r"not finite at iteration [123], learning rate 1e\+12.*BASE_LR"
    ) as caught:
        train.train(wild)
    assert caught.value.exit_code == 1


def test_unreadable_images_stop_the_run_unless_allowed(tmp_path, tensors):
    root = tiny.voc(tmp_path / "data", years=("VOC2007",))
    broken = root / "VOC2007/JPEGImages/000002.jpg"
    broken.write_bytes(b"")
    with pytest.raises(
        DataError, match=r"1 of 6 training images is unreadable, more than 1 %.*000002.jpg"
    ):
        train.train(job(tmp_path / "run", root, tensors))
    about = train.train(job(tmp_path / "run", root, tensors, allow_unreadable=True))
    assert list(about["unreadable"]) == [str(broken)]


def test_last_two_checkpoints_are_kept(tmp_path):
    for iteration in range(5):
        checkpoints.save(tmp_path, {"model": {}, "iteration": iteration})
    assert [p.name for p in checkpoints.numbered(tmp_path)] == [
        "model_0000004.pth",
        "model_0000003.pth",
    ]
    checkpoints.save(tmp_path, {"model": {}, "iteration": 5}, final=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "last_checkpoint",
        "model_0000003.pth",
        "model_0000004.pth",
        "model_final.pth",
    ]


def test_damaged_checkpoint_gives_way_to_the_one_before(tmp_path):
    for iteration in range(2):
        checkpoints.save(tmp_path, {"model": {}, "iteration": iteration})
    newest = tmp_path / "model_0000001.pth"
    newest.write_bytes(newest.read_bytes()[:100])
    assert checkpoints.last(tmp_path)["iteration"] == 0

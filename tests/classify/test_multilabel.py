"""Several classes an image: AP by the development kit's loop, binary problems, whole runs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from harl_bench.classify import datasets, eigenbasis, finetune, multilabel, scores, solver
from harl_bench.classify.subset import restricted
from harl_bench.cli import main
from harl_bench.core.average_precision import average_precisions, mean_ap, resampled
from harl_bench.core.errors import DataError
from tests.classify.command import classify, result, selection
from tests.classify.layouts import VOC, voc2007


def kit(confidence: np.ndarray, truth: np.ndarray) -> float:
    """VOCevalcls.m, line by line; truth is 1, 0 or -1 for difficult."""
    order = sorted(range(len(truth)), key=lambda i: -confidence[i])
    hits = false = 0
    curve = []
    for i in order:
        hits += truth[i] == 1
        false += truth[i] == 0
        if hits + false:
            curve.append((hits / (truth == 1).sum(), hits / (hits + false)))
    best = [max((p for r, p in curve if r >= k / 10 - 1e-12), default=0) for k in range(11)]
    return 100 * sum(best) / 11


def answers(N: int, C: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores with ties, and labels of which a tenth is difficult."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((N, C)) < 0.2).astype(np.int64)
    logits = (labels + rng.normal(size=(N, C))).round(1)
    labels[rng.random((N, C)) < 0.1] = -1
    return logits, labels


@pytest.mark.parametrize("N", [7, 40, 300])
def test_average_precision_is_the_development_kits(N: int) -> None:
    logits, labels = answers(N, 5)
    labels[:3, :4] = [[1] * 4, [0] * 4, [1] * 4]
    labels[labels[:, 4] == 1, 4] = 0  # present nowhere
    expected = [kit(logits[:, c], labels[:, c]) for c in range(4)]
    aps = average_precisions(logits, labels)
    assert aps[:4] == pytest.approx(expected)
    assert np.isnan(aps[4])
    assert mean_ap(logits, labels) == pytest.approx(np.mean(expected))
    assert scores.judged(logits, labels, "mAP11") == mean_ap(logits, labels)
    moved = np.where(labels == -1, 1e3 * np.sign(logits), logits)
    assert average_precisions(moved, labels)[:4] == pytest.approx(expected)


def test_resampled_images_count_as_often_as_they_are_drawn() -> None:
    logits, labels = answers(50, 3)
    rows = np.sort(np.random.default_rng(1).integers(50, size=(4, 50)))
    times = np.stack([np.bincount(drawn, minlength=50) for drawn in rows])
    expected = [average_precisions(logits[drawn], labels[drawn]) for drawn in rows]
    np.testing.assert_allclose(resampled(logits, labels, times), expected)


def test_the_interval_holds_the_score() -> None:
    logits, labels = answers(200, 3)
    outcome = multilabel.scored(logits, labels, ["a", "b", "c"], np.random.default_rng(0))
    low, high = outcome.intervals["mAP11"]
    assert low < outcome.metrics["mAP11"] < high
    assert high - low < 25
    aps = average_precisions(logits, labels)
    assert [outcome.per_class[name]["AP"] for name in "abc"] == pytest.approx(aps.tolist())


@pytest.mark.parametrize(("rows", "width"), [(60, 90), (300, 30)])
def test_binary_problems_equal_scikit_learns(rows: int, width: int) -> None:
    """Each class without its difficult rows, in one basis; none of the last class is present."""
    rng = np.random.default_rng(0)
    labels = (rng.random((rows, 4)) < [0.05, 0.2, 0.5, 0]).astype(np.int64)
    X = np.maximum(labels @ rng.normal(size=(4, width)) + rng.normal(size=(rows, width)), 0)
    labels[rng.random((rows, 4)) < 0.1] = -1
    basis = eigenbasis.prepare(torch.from_numpy(X.astype(np.float32)))
    regularizations = [1e3, 1.0, 1e-2]
    path = solver.solve(basis, torch.from_numpy(labels), regularizations, classes=4, eps=1e-4)
    for optimum in path:
        W, b = (tensor.numpy() for tensor in basis.out(optimum.coefficients))
        assert optimum.certificate <= 1e-4
        assert not W[:, 3].any()
        objective = 0.0
        for c in range(3):
            kept = labels[:, c] >= 0
            rival = LogisticRegression(C=1 / optimum.regularization, tol=1e-12, max_iter=100_000)
            rival.fit(X[kept].astype(np.float32).astype(float), labels[kept, c])
            assert np.linalg.norm(rival.coef_[0] - W[:, c]) <= 1e-3 * np.linalg.norm(W[:, c])
            signs = 2 * labels[kept, c] - 1
            objective += np.logaddexp(0, -signs * (X[kept] @ W[:, c] + b[c])).sum()
            objective += optimum.regularization / 2 * (W[:, c] ** 2).sum()
        assert optimum.objective == pytest.approx(objective, rel=1e-3)


def test_the_loss_leaves_difficult_labels_out() -> None:
    logits = torch.tensor([[2.0, -1.0], [0.5, 3.0]], requires_grad=True)
    labels = torch.tensor([[1, 0], [-1, 0]])
    loss = finetune._loss(logits, labels)
    expected = [np.log1p(np.exp(-2.0)), np.log1p(np.exp(-1.0)), np.log1p(np.exp(3.0))]
    assert loss.item() == pytest.approx(np.mean(expected))
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[1, 0] == 0


@pytest.mark.parametrize(
    "more",
    [
        ["--protocol", "linear", "count=5"],
        ["--protocol", "finetune", "steps=2", "batch_size=4", "lr=[0.01]", "decay=[0]"],
    ],
)
def test_a_whole_run(tmp_path: Path, more: list[str]) -> None:
    voc2007(tmp_path / "data", count=8)
    out = tmp_path / "runs"
    assert classify(tmp_path / "data", out, "--dataset", "voc2007-cls", *more) == 0
    recorded = result(out)
    assert (recorded.dataset, recorded.metric, recorded.n_test) == ("voc2007-cls", "mAP11", 8)
    assert list(recorded.metrics) == ["mAP11"]
    assert recorded.manifest["selection"] == selection(out)
    assert selection(out)["metric"] == "mAP11"
    assert "val_mAP11" in selection(out)
    stored = np.load(next(out.rglob("predictions.npz")))
    expected = {c: kit(stored["scores"][:, c], stored["labels"][:, c]) for c in (1, 2)}
    assert recorded.metrics["mAP11"] == pytest.approx(np.mean(list(expected.values())))
    assert recorded.per_class["bird"]["AP"] == pytest.approx(expected[2])
    assert recorded.per_class["cow"]["AP"] is None
    low, high = recorded.manifest["interval_95"]["mAP11"]
    assert low <= recorded.metrics["mAP11"] <= high
    assert stored["classes"].tolist() == VOC


def test_kinds_that_need_one_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    voc2007(tmp_path / "data")
    command = ["classify", "random", "--data", str(tmp_path / "data"), "--dataset", "voc2007-cls"]
    for protocol in ("knn", "linear-sgd"):
        more = ["--protocol", protocol, "--out", str(tmp_path / "runs"), "--dry-run"]
        assert main([*command, *more]) == 2
        assert "needs one class an image; seen: voc2007-cls" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("images", "absent"),
    [
        (["000004", "000007"], ""),  # a bird and a bicycle, nothing difficult
        (["000013"], "bird"),  # a bicycle and a difficult cat
        (["000004"], "bicycle"),
    ],
)
def test_a_list_of_labels_has_an_image_that_shows_each_class(
    tmp_path: Path, images: list[str], absent: str
) -> None:
    voc2007(tmp_path)
    path = tmp_path / "list.txt"
    path.write_text("".join(f"{image}.jpg\n" for image in images))
    data = datasets.read("voc2007-cls", tmp_path)
    if absent:
        with pytest.raises(DataError, match=f"1 such classes, first '{absent}'"):
            restricted(data, path, sha256="")
    else:
        assert len(restricted(data, path, sha256="").splits["train"]) == len(images)

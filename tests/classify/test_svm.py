"""SVMs on pooled maps against the published scripts' lines."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.model_selection import cross_val_score
from sklearn.svm import LinearSVC
from torch import nn

from harl_bench.classify import datasets, features, network, pixels, stages, svm
from harl_bench.classify.protocol import load
from harl_bench.convert.read import read_backbone
from harl_bench.core.average_precision import average_precisions, resampled
from harl_bench.core.errors import DataError
from tests.classify.command import CPU

ARCHS = ("resnet50", "resnet18")
RNG = np.random.default_rng
COSTS = "costs=[1.0,0.0625]"


def published_ap(targets: np.ndarray, scores: np.ndarray) -> float:
    """AP as get_precision_recall and calculate_ap of svm_helper.py have it."""
    order = np.argsort(scores)[::-1]
    hits = (targets > 0)[order].astype(float)
    precision, recall = hits.cumsum() / np.arange(1, len(hits) + 1), hits.cumsum() / hits.sum()
    recall, precision = np.r_[0, recall, 1], np.r_[0, precision, 0]
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    steps = np.flatnonzero(recall[1:] != recall[:-1]) + 1
    return float(sum((recall[i] - recall[i - 1]) * precision[i] for i in steps))


def made(rows: int, d: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Non-negative features [N, D] and flags [N, C], a tenth of the absent ones difficult."""
    rng = RNG(seed)
    present = (rng.random((rows, classes)) < 0.25).astype(np.int64)
    centres = RNG(99).random((classes, d))
    x = np.maximum(present @ centres + rng.normal(0.3, 1.0, (rows, d)), 0).astype(np.float32)
    present[(present == 0) & (rng.random(present.shape) < 0.1)] = -1
    return x, present


class TestArea:
    @pytest.mark.parametrize("seed", range(5))
    def test_is_the_published_one(self, seed: int) -> None:
        present, scores = RNG(seed).integers(-1, 2, (200, 1)), RNG(seed + 50).normal(size=(200, 1))
        counted = present[:, 0] >= 0
        expected = 100 * published_ap(present[counted, 0], scores[counted, 0])
        assert average_precisions(scores, present, "area") == pytest.approx(expected, abs=1e-9)

    def test_images_that_occur_several_times(self) -> None:
        """Against rows that are really repeated."""
        present, scores = RNG(0).integers(0, 2, (60, 1)), RNG(1).normal(size=(60, 1))
        rows = RNG(2).integers(60, size=60)
        times = np.bincount(rows, minlength=60)[None]
        expected = 100 * published_ap(present[rows, 0], scores[rows, 0])
        assert resampled(scores, present, times, "area")[0, 0] == pytest.approx(expected)


class TestStages:
    @pytest.mark.parametrize(
        ("stage", "expected"), enumerate((9216, 9216, 8192, 9216, 8192), start=1)
    )
    def test_sizes_are_the_published_ones(self, stage: int, expected: int) -> None:
        assert stages.width("resnet50", stage) == expected
        model = network.network(read_backbone("random"), CPU, stage)
        assert model(torch.rand(1, 3, 224, 224)).shape == (1, expected)

    @pytest.mark.parametrize("stage", range(1, 6))
    def test_values_are_those_of_the_map(self, stage: int) -> None:
        """Against a hook on the whole network, and AvgPool2d as MultiPooling calls it."""
        x, backbone = torch.rand(2, 3, 224, 224), read_backbone("random-resnet18", archs=ARCHS)
        whole, maps = network.network(backbone, CPU), []
        part = [whole.relu, whole.layer1, whole.layer2, whole.layer3, whole.layer4][stage - 1]
        part.register_forward_hook(lambda module, inputs, output: maps.append(output.clone()))
        whole(x)
        window = [(10, 10, 4), (16, 8), (13, 5), (8, 3), (6, 1)][stage - 1]
        expected = nn.AvgPool2d(*window)(maps[0]).flatten(1)
        assert torch.equal(network.network(backbone, CPU, stage)(x), expected)

    def test_another_stage_is_another_key(self, data: Path) -> None:
        backbone, found = read_backbone("random-resnet18", archs=ARCHS), datasets.folder(data)
        plain = pixels.Transform(32, 32, "RGB", (0, 0, 0), (1, 1, 1))
        keys = {features.key(found, backbone, plain, "float32", stage) for stage in (None, 4, 5)}
        assert len(keys) == 3


class Store:
    """Features in memory, read as from a folder."""

    def __init__(self, x: np.ndarray, labels: np.ndarray, splits: dict[str, np.ndarray]) -> None:
        self.x, self.labels, self.splits = x, labels, splits

    def read(self, split: str, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        rows = self.splits[split]
        return torch.from_numpy(self.x[rows]), torch.from_numpy(self.labels[rows])


def store(classes: int = 3) -> Store:
    x, present = made(260, 40, classes, 0)
    mixed = RNG(5).permutation(160)
    splits = {
        "train": np.sort(mixed[:90]),
        "val": np.sort(mixed[90:]),
        "test": np.arange(160, 260),
    }
    return Store(x, present, splits)


def test_svm_is_the_published_script(tmp_path: Path) -> None:
    """Its lines, on the features as they come: no rotation, every cost fitted."""
    settings = load("svm", ["costs=[1.0,10.0,0.0625,0.001953125]"])[1]
    made_up, names = store(), ["a", "b", "c"]
    outcome = svm.run(made_up, names, settings, folder=tmp_path, seed=0, jobs=1)
    x = made_up.x.astype(np.float64)
    x = x / (np.linalg.norm(x, axis=1) + 1e-5)[:, None]
    aps, chosen = [], {}
    for c, name in enumerate(names):
        target = made_up.labels[:160, c].astype(np.int32, copy=True)
        target[target == 0] = -1
        scored = []
        for cost in settings.costs:
            clf = LinearSVC(
                C=cost, class_weight={1: 2, -1: 1}, intercept_scaling=1.0, penalty="l2",
                loss="squared_hinge", tol=0.0001, dual=True, max_iter=2000, random_state=0,
            )  # fmt: off
            values = cross_val_score(clf, x[:160], target, cv=3, scoring="average_precision")
            scored.append((values.mean(), cost, clf.fit(x[:160], target)))
        best = max(scored, key=lambda triple: triple[0])
        chosen[name] = best[1]
        truth = made_up.labels[160:, c]
        answers = best[2].decision_function(x[160:])
        np.testing.assert_allclose(outcome.logits[:, c], answers, rtol=1e-4, atol=1e-5)
        aps.append(published_ap(truth[truth != -1], answers[truth != -1]))
    assert outcome.selection["cost"] == chosen
    assert outcome.scored is not None
    assert outcome.scored.metrics["mAP"] == pytest.approx(100 * np.mean(aps), abs=1e-9)


def test_a_stopped_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, fits = load("svm", [COSTS])[1], []
    work = svm.cross_validated
    monkeypatch.setattr(svm, "cross_validated", lambda *a: fits.append(a[2]) or work(*a))
    whole = svm.run(store(), ["a", "b", "c"], settings, folder=tmp_path, seed=0, jobs=1)
    assert len(fits) == 6
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines[:4]) + '\n{"step": 5, "cla')
    again = svm.run(store(), ["a", "b", "c"], settings, folder=tmp_path, seed=0, jobs=1)
    assert len(fits) == 8
    assert again.scored == whole.scored
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len({(row["class"], row["cost"]) for row in rows}) == len(rows) == 6


@pytest.mark.slow
def test_processes_give_the_same(tmp_path: Path) -> None:
    settings = load("svm", ["costs=[1.0]", "folds=2"])[1]
    one, two = (
        svm.run(store(), ["a", "b", "c"], settings, folder=tmp_path / str(n), seed=0, jobs=n)
        for n in (1, 2)
    )
    assert one.scored == two.scored
    np.testing.assert_array_equal(one.logits, two.logits)


class TestLowShot:
    def test_draws_have_k_with_and_others_without(self) -> None:
        present = made(400, 4, 1, 3)[1][:, 0]
        rows = svm.draw(present, 7, 19, RNG(0))
        assert (present[rows] == 1).sum() == 7
        assert (present[rows] == 0).sum() == 19 * 7
        assert len(set(rows.tolist())) == 20 * 7
        assert rows.tolist() != svm.draw(present, 7, 19, RNG(1)).tolist()

    def test_is_the_published_script(self, tmp_path: Path) -> None:
        """Every cost of every sample, mean over classes, then the cost of the best mean."""
        more = ["shots=[2,5]", "samples=3", "costs=[1.0,0.0625,0.001953125]"]
        settings, made_up, names = load("svm-lowshot", more)[1], store(), ["a", "b", "c"]
        outcome = svm.run_lowshot(made_up, names, settings, folder=tmp_path, seed=4, jobs=1)
        x = svm.normalised(torch.from_numpy(made_up.x))
        assert outcome.scored is not None
        for k in settings.shots:
            table = np.zeros((3, 3, 3))
            for sample, c in np.ndindex(3, 3):
                present, truth = made_up.labels[:160, c], made_up.labels[160:, c]
                rows = svm.draw(present, k, 2, RNG((4, sample, k, c)))
                for i, cost in enumerate(settings.costs):
                    clf = LinearSVC(
                        C=cost, class_weight={1: 2, -1: 1}, dual=True, max_iter=2000,
                        random_state=4,
                    ).fit(x[:160][rows], np.where(present[rows] == 1, 1, -1))  # fmt: off
                    answers = clf.decision_function(x[160:])
                    table[sample, c, i] = published_ap(truth[truth != -1], answers[truth != -1])
            means = 100 * table.mean(axis=1)
            best = means.mean(axis=0).argmax()
            metrics = outcome.scored.metrics
            assert metrics[f"k{k}/mAP"] == pytest.approx(means[:, best].mean(), abs=1e-9)
            assert metrics[f"k{k}/sd"] == pytest.approx(means[:, best].std(), abs=1e-9)
            assert outcome.selection["cost"][f"k{k}"] == settings.costs[best]

    def test_a_class_that_no_test_image_shows_is_left_out_also_on_resuming(
        self, tmp_path: Path
    ) -> None:
        settings, made_up = (
            load("svm-lowshot", ["shots=[2]", "samples=2", "costs=[1.0]"])[1],
            store(),
        )
        made_up.labels[160:, 2] = 0
        arguments = {"folder": tmp_path, "seed": 0, "jobs": 1}
        first = svm.run_lowshot(made_up, ["a", "b", "c"], settings, **arguments)
        lines = (tmp_path / svm.METRICS).read_text().splitlines()
        assert [json.loads(line, parse_constant=pytest.fail)["ap"] for line in lines][2] == [None]
        again = svm.run_lowshot(made_up, ["a", "b", "c"], settings, **arguments)
        assert first.scored is not None
        assert again.scored == first.scored
        assert np.isfinite(first.scored.metrics["k2/mAP"])

    def test_a_class_with_fewer_images_than_shots(self, tmp_path: Path) -> None:
        settings = load("svm-lowshot", ["shots=[96]"])[1]
        with pytest.raises(DataError, match="fewer than the 96 shots"):
            svm.run_lowshot(store(), ["a", "b", "c"], settings, folder=tmp_path, seed=0, jobs=1)

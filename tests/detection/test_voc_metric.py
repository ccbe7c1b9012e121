"""VOC's metric against a plain loop over detections with ties."""

import numpy as np
import pytest

from harl_bench.core.errors import DataError
from harl_bench.detection.datasets import voc as voc_data
from harl_bench.detection.datasets.sample import Sample
from harl_bench.detection.metrics import voc
from tests.detection import scenes, tiny


def sample(image_id, boxes, classes, difficult):
    n = len(boxes)
    boxes = np.array(boxes, dtype=float).reshape(-1, 4)
    classes, difficult = np.array(classes, dtype=np.int64), np.array(difficult, dtype=bool)
    return Sample("", image_id, 100, 100, boxes, classes, np.zeros(n, dtype=bool), difficult)


def scene(seed):
    """The scene of scenes.py as samples, and as lines of result files."""
    truth, results = scenes.voc(seed)
    detections = {k: [] for k in range(len(scenes.NAMES))}
    for image_id, boxes, scores, classes in results:
        for label, line in voc.lines(image_id, boxes, scores.tolist(), classes):
            detections[label].append(line)
    return [sample(*row) for row in truth], detections


def oracle(lines, samples, label, threshold, area=False):
    """AP of one class: walk down the sorted detections, each looking at its best object only."""
    rows = [line.split() for line in lines]
    order = np.argsort(-np.array([float(r[1]) for r in rows]))
    objects = {
        s.image_id: [
            (b + np.array([1, 1, 0, 0]), d)
            for b, c, d in zip(s.boxes, s.classes, s.difficult, strict=True)
            if c == label
        ]
        for s in samples
    }
    total, taken, hits = sum(not d for o in objects.values() for _, d in o), set(), []
    for i in order:
        x = np.array([float(v) for v in rows[i][2:]])
        best, which = -1.0, None
        for k, (b, _) in enumerate(objects[rows[i][0]]):
            w, h = min(x[2], b[2]) - max(x[0], b[0]) + 1, min(x[3], b[3]) - max(x[1], b[1]) + 1
            shared = max(w, 0.0) * max(h, 0.0)
            areas = (x[2] - x[0] + 1) * (x[3] - x[1] + 1) + (b[2] - b[0] + 1) * (b[3] - b[1] + 1)
            if shared / (areas - shared) > best:
                best, which = shared / (areas - shared), k
        if best > threshold and objects[rows[i][0]][which][1]:
            hits.append(None)  # difficult: neither right nor wrong
        else:
            hits.append(bool(best > threshold) and (rows[i][0], which) not in taken)
            taken |= {(rows[i][0], which)} if best > threshold else set()
    true, false = np.cumsum([h is True for h in hits]), np.cumsum([h is False for h in hits])
    if total == 0:
        return 0.0
    recall, precision = true / total, true / np.maximum(true + false, 1e-300)
    if area:  # each object found adds 1 / total, times the best precision from there on
        steps = np.flatnonzero(np.diff(true, prepend=0))
        return sum(max(precision[k:]) for k in steps) / total * 100
    return sum(max(precision[recall >= t], default=0) for t in np.arange(0, 1.1, 0.1)) / 11 * 100


@pytest.mark.parametrize("interpolated", ["11-point", "area"])
@pytest.mark.parametrize("seed", range(6))
def test_voc_equals_the_plain_loop_on_ties(seed, interpolated):
    samples, detections = scene(seed)
    metrics, table, _ = voc.evaluate(detections, samples, scenes.NAMES, interpolated)
    area = interpolated == "area"
    expected = np.array(
        [[oracle(detections[c], samples, c, t, area) for t in voc.THRESHOLDS] for c in range(3)]
    )
    assert metrics["AP"] == pytest.approx(expected.mean(), abs=1e-10)
    assert metrics["AP50"] == pytest.approx(expected[:, 0].mean(), abs=1e-10)
    assert metrics["AP75"] == pytest.approx(expected[:, 5].mean(), abs=1e-10)
    assert table[scenes.NAMES[1]]["AP50"] == pytest.approx(expected[1, 0], abs=1e-10)
    assert 5 < metrics["AP50"] < 95


def test_voc_area_of_a_known_curve():
    """Right, wrong, right of three objects: recalls 1/3, 1/3, 2/3, precisions 1, 1/2, 2/3."""
    samples = [
        sample("x", [[0, 0, 9, 9], [20, 20, 29, 29], [50, 50, 59, 59]], [0, 0, 0], [False] * 3)
    ]
    lines = [
        "x 0.900 1.0 1.0 9.0 9.0",
        "x 0.800 70.0 70.0 80.0 80.0",
        "x 0.700 21.0 21.0 29.0 29.0",
    ]
    scores = {
        kind: voc.evaluate({0: lines}, samples, ["a"], kind)[0]["AP50"]
        for kind in ("area", "11-point")
    }
    assert scores == {
        "area": pytest.approx(100 * (1 / 3 + 2 / 9)),
        "11-point": pytest.approx(100 * (4 + 3 * 2 / 3) / 11),
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("voc_2007_test", "11-point"),
        ("voc_2007_val", "11-point"),
        ("voc_2012_val", "area"),
        ("voc_2010_train", "area"),
    ],
)
def test_voc_metric_of_a_year_is_detectron2s(name, expected):
    assert voc.interpolation(name) == expected


def test_voc_order_of_lines_decides_ties():
    samples = [sample("x", [[0, 0, 9, 9]], [0], [False])]
    right, wrong = "x 0.500 1.0 1.0 9.0 9.0", "x 0.500 50.0 50.0 60.0 60.0"
    scores = [
        voc.evaluate({0: lines}, samples, ["a"])[0]["AP50"]
        for lines in ([right, wrong], [wrong, right])
    ]
    assert scores == [pytest.approx(100.0), pytest.approx(50.0)]


@pytest.mark.parametrize("interpolated", ["11-point", "area"])
def test_voc_class_without_truth_counts_as_zero_in_the_mean_and_as_nothing_in_the_table(
    interpolated,
):
    samples = [sample("x", [[0, 0, 9, 9]], [0], [False])]
    metrics, table, _ = voc.evaluate(
        {0: ["x 0.9 1 1 9 9"], 1: ["x 0.9 1 1 9 9"]}, samples, ["a", "b"], interpolated
    )
    assert metrics["AP50"] == pytest.approx(50.0)
    assert table["b"] == {"AP": None, "AP50": None, "AP75": None}


def test_voc_overlap_must_exceed_the_threshold():
    # 10 x 10 object, detection covering exactly half of it: IoU .5 is no match
    samples = [sample("x", [[0, 0, 10, 10]], [0], [False])]
    assert voc.evaluate({0: ["x 0.9 1 1 10 5"]}, samples, ["a"])[0]["AP50"] == 0
    assert voc.evaluate({0: ["x 0.9 1 1 10 5.1"]}, samples, ["a"])[0]["AP50"] == pytest.approx(100)


def test_voc_difficult_objects_neither_count_nor_penalise():
    samples = [sample("x", [[0, 0, 9, 9], [30, 30, 50, 50]], [0, 0], [False, True])]
    lines = [
        "x 0.900 31.0 31.0 50.0 50.0",
        "x 0.800 31.0 31.0 50.0 50.0",
        "x 0.700 1.0 1.0 9.0 9.0",
    ]
    assert voc.evaluate({0: lines}, samples, ["a"])[0]["AP50"] == pytest.approx(100)


def test_voc_lines_are_rounded_text():
    boxes = np.array([[0.04, 1.06, 20, 30.25]], dtype=np.float32)
    assert voc.lines("7", boxes, [0.12349], [3]) == [(3, "7 0.123 1.0 2.1 20.0 30.2")]


def test_voc_ids_may_have_spaces():
    truth = {"photo 7": voc.Truth(np.array([[1.0, 1, 20, 20]]), np.zeros(1, dtype=bool))}
    lines = [line for _, line in voc.lines("photo 7", np.float32([[0, 0, 20, 20]]), [0.9], [0])]
    score = voc.score_class(lines, truth, {"photo 7"}, voc.AVERAGES["11-point"])
    assert score.ap == pytest.approx([100.0] * 10)


def test_voc_refuses_detections_of_unknown_images_and_broken_lines():
    samples = [sample("x", [[0, 0, 9, 9]], [0], [False])]
    with pytest.raises(DataError, match=r"not in the test split.*y"):
        voc.evaluate({0: ["y 0.9 1 1 9 9"]}, samples, ["a"])
    with pytest.raises(DataError, match="not a line of a VOC result file"):
        voc.evaluate({0: ["x 0.9 1 1 9"]}, samples, ["a"])


def test_voc_ground_truth_comes_back_as_in_the_file(tmp_path):
    read = voc_data.read(tiny.voc(tmp_path, years=("VOC2007",)), "voc_2007_test")
    lines = {c: [] for c in range(20)}
    for s in read.samples:
        for label, line in voc.lines(
            s.image_id, s.boxes.astype(np.float32), [0.9] * len(s.boxes), s.classes
        ):
            lines[label].append(line)
    metrics, table, _ = voc.evaluate(lines, read.samples, read.class_names)
    assert metrics["AP"] == pytest.approx(10.0)  # two of twenty classes
    assert table["cat"]["AP"] == pytest.approx(100.0)

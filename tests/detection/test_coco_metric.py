"""COCO's metric: a plain loop agrees, and both evaluators to the last bit."""

import json

import numpy as np
import pytest

from harl_bench.core.errors import MachineError
from harl_bench.detection.datasets import coco as coco_data
from harl_bench.detection.metrics import coco
from tests.detection import tiny


def perfect(read, masks=True):
    """Detections equal to the ground truth, crowds left out."""
    from pycocotools import mask as coco_mask

    results = []
    for s in read.samples:
        keep = ~s.crowd
        outlines = [o for o, k in zip(s.segments, keep, strict=True) if k]
        codes = [
            o
            if isinstance(o, dict)
            else coco_mask.merge(coco_mask.frPyObjects([p.tolist() for p in o], s.height, s.width))
            for o in outlines
        ]
        bitmaps = [coco_mask.decode(code) for code in codes]
        bitmaps = np.array(bitmaps, dtype=bool).reshape(-1, s.height, s.width)
        ids = [read.category_ids[c] for c in s.classes[keep]]
        results += coco.records(
            s.image_id,
            s.boxes[keep].astype(np.float32),
            [0.9] * len(ids),
            ids,
            coco.encoded(bitmaps) if masks else None,
        )
    return results


def test_coco_perfect_detections_score_100(tmp_path):
    read = coco_data.read(tiny.coco(tmp_path), "coco_2017_val", scored=True)
    metrics, per_class, curves = coco.evaluate(read.truth, perfect(read), masks=True)
    assert metrics["bbox/AP"] == pytest.approx(100.0)
    assert metrics["segm/AP"] == pytest.approx(100.0)
    assert per_class["dog"] == {"bbox/AP": pytest.approx(100.0), "segm/AP": pytest.approx(100.0)}
    assert metrics["bbox/APl"] is None  # no large object: nothing to measure
    assert curves["bbox"].shape == (101, 2)


def test_coco_without_detections_scores_zero_in_both_tasks(tmp_path):
    read = coco_data.read(tiny.coco(tmp_path), "coco_2017_val", scored=True)
    metrics, _, _ = coco.evaluate(read.truth, [], masks=True)
    assert metrics["bbox/AP"] == metrics["segm/AP"] == 0.0


def test_coco_mask_size_buckets_use_the_masks_area(tmp_path):
    """A thin diagonal object: its box is medium (40 x 40), its outline small (area 80)."""
    root = tiny.coco(tmp_path, test=1)
    path = root / "annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    outline = [[2, 2, 4, 2, 42, 42, 40, 42]]
    content["annotations"] = [
        content["annotations"][0]
        | {"bbox": [2, 2, 40, 40], "area": 80.0, "iscrowd": 0, "segmentation": outline}
    ]
    path.write_text(json.dumps(content))
    read = coco_data.read(root, "coco_2017_val", scored=True)
    far = {
        "image_id": 101,
        "category_id": read.category_ids[read.samples[0].classes[0]],
        "score": 0.95,
    }
    stray = np.zeros((read.samples[0].height, read.samples[0].width), dtype=bool)
    stray[0, :40] = stray[:40, 0] = (
        True  # a false positive of small area in a medium box, ahead of the true one
    )
    extra = coco.records(
        101,
        np.array([[0, 0, 40, 40]], dtype=np.float32),
        [0.95],
        [far["category_id"]],
        coco.encoded(stray[None]),
    )
    metrics, _, _ = coco.evaluate(read.truth, [*perfect(read), *extra], masks=True)
    assert metrics["segm/APs"] < 60  # the false positive counts among the small ones
    assert metrics["segm/APm"] is None


def average_precision(read, detections, threshold):
    """Return the mean 101-point AP of boxes, without crowds, at most 100 detections an image."""
    aps = []
    for label, category in enumerate(read.category_ids):
        truth = {s.image_id: s.boxes[s.classes == label] for s in read.samples}
        rows = sorted(
            (d for d in detections if d["category_id"] == category), key=lambda d: -d["score"]
        )
        taken, hits = set(), []
        for d in rows:
            x, y, w, h = d["bbox"]
            best, which = threshold, None
            for k, (x0, y0, x1, y1) in enumerate(truth[d["image_id"]]):
                if (d["image_id"], k) not in taken:
                    shared = max(0, min(x + w, x1) - max(x, x0)) * max(
                        0, min(y + h, y1) - max(y, y0)
                    )
                    overlap = shared / (w * h + (x1 - x0) * (y1 - y0) - shared)
                    best, which = (overlap, k) if overlap >= best else (best, which)
            hits.append(which is not None)
            taken.add((d["image_id"], which))
        total = sum(map(len, truth.values()))
        true = np.cumsum(hits)
        recall, precision = true / total, true / np.arange(1, len(hits) + 1)
        aps.append(
            np.mean([max(precision[recall >= t], default=0) for t in np.linspace(0, 1, 101)])
        )
    return 100 * float(np.mean(aps))


@pytest.mark.parametrize("seed", range(3))
def test_coco_boxes_equal_a_plain_loop(tmp_path, seed):
    root = tiny.coco(tmp_path, test=6)
    path = root / "annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    content["annotations"] = [a for a in content["annotations"] if not a["iscrowd"]]
    path.write_text(json.dumps(content))
    read = coco_data.read(root, "coco_2017_val", scored=True)
    generator = np.random.default_rng(seed)
    results = [d for d in perfect(read, masks=False) for _ in range(3)]
    results = [
        d | {"bbox": (np.array(d["bbox"]) + generator.normal(0, 2, 4)).tolist(), "score": s}
        for d, s in zip(results, generator.permutation(len(results)) / 100, strict=True)
    ]
    metrics, _, _ = coco.evaluate(read.truth, results, masks=False)
    assert metrics["bbox/AP50"] == pytest.approx(average_precision(read, results, 0.5), abs=1e-6)
    assert metrics["bbox/AP75"] == pytest.approx(average_precision(read, results, 0.75), abs=1e-6)


def tangled(read, seed):
    """Detections around the ground truth: tied scores, wrong classes, masks that are shifted."""
    from pycocotools import mask as coco_mask

    generator = np.random.default_rng(seed)
    for record in [d for d in perfect(read) for _ in range(3)]:
        mask = np.roll(
            coco_mask.decode(record["segmentation"]),
            generator.integers(-3, 4),
            axis=generator.integers(0, 2),
        )
        yield record | {
            "bbox": (np.array(record["bbox"]) + generator.normal(0, 1.5, 4)).clip(0.1).tolist(),
            "score": float(generator.integers(1, 9) / 9),
            "category_id": int(generator.choice(read.category_ids)),
            "segmentation": coco.encoded(mask[None])[0],
        }


@pytest.mark.parametrize("seed", range(4))
def test_fast_evaluator_is_equal_to_the_last_bit(tmp_path, seed):
    """Polygons, run-length codes, crowds, images and classes without objects."""
    pytest.importorskip("hotcoco")
    root = tiny.coco(tmp_path, test=11)
    path = root / "annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    content["categories"].append({"id": 90, "name": "never there"})
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != 104]
    path.write_text(json.dumps(content))
    read = coco_data.read(root, "coco_2017_val", scored=True)
    results = list(tangled(read, seed))
    fast, reference = (
        coco.evaluate(read.truth, results, masks=True, library=name)
        for name in ("hotcoco", "pycocotools")
    )
    assert fast[:2] == reference[:2]
    for kind in ("bbox", "segm"):
        np.testing.assert_array_equal(fast[2][kind], reference[2][kind])
    assert 5 < fast[0]["bbox/AP50"] < 95
    assert coco.evaluate(read.truth, [], masks=True, library="hotcoco")[0]["segm/AP"] == 0.0


def test_missing_fast_evaluator_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(coco.importlib.util, "find_spec", lambda name: None)
    read = coco_data.read(tiny.coco(tmp_path), "coco_2017_val", scored=True)
    with pytest.raises(MachineError, match="hotcoco is not installed"):
        coco.evaluate(read.truth, [{}], masks=False, library="hotcoco")

"""Data, batches and metrics against Detectron2 (golden/record_detection_data.py)."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from harl_bench.detection import recipe
from harl_bench.detection.datasets import coco as coco_data
from harl_bench.detection.datasets import voc as voc_data
from harl_bench.detection.datasets.sample import for_training
from harl_bench.detection.metrics import coco, voc
from harl_bench.detection.torchvision_engine import data, transforms
from tests.detection import scenes, tiny

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/detection_data/golden.json").read_text())


def test_output_sizes():
    sizes = [[*case, *transforms.output_size(*case)] for case in scenes.size_cases()]
    assert sizes == GOLDEN["output_sizes"]


def mapped(dataset, masks):
    """Our mapper's rows, in the form of the recording."""
    for position, sample in enumerate(for_training(dataset).samples):
        generator = np.random.RandomState([scenes.ORDER_SEED, position])
        item = transforms.for_training(
            sample,
            generator,
            sizes_px=scenes.SIZES_PX,
            max_px=scenes.MAX_PX,
            flip=True,
            channels="RGB",
            masks=masks,
            bitmasks=dataset.bitmasks,
        )
        image, instances = item["image"], item["instances"]
        row = {
            "image_id": item["image_id"],
            "shape": list(image.shape),
            "sha256": hashlib.sha256(image.numpy().tobytes()).hexdigest(),
            "boxes": instances.gt_boxes.tolist(),
            "classes": instances.gt_classes.tolist(),
        }
        if masks and isinstance(instances.gt_masks[0], list):
            row["polygons"] = [[p.tolist() for p in parts] for parts in instances.gt_masks]
        elif masks:
            row["masks"] = [
                hashlib.sha256(m.numpy().tobytes()).hexdigest() for m in instances.gt_masks
            ]
        yield row


def test_mapped_voc_images_and_boxes_are_equal(tmp_path):
    root = tiny.voc(tmp_path, years=("VOC2007",))
    assert (
        list(mapped(voc_data.read(root, "voc_2007_trainval"), masks=False))
        == GOLDEN["mapper"]["voc"]
    )


@pytest.mark.parametrize("kind", ["polygons", "codes", "mixed"])
def test_mapped_coco_outlines_are_equal(tmp_path, kind):
    root = tiny.coco(tmp_path)
    path = root / "annotations/instances_train2017.json"
    path.write_text(json.dumps(scenes.only(kind, json.loads(path.read_text()))))
    assert (
        list(mapped(coco_data.read(root, "coco_2017_train"), masks=True)) == GOLDEN["mapper"][kind]
    )


def test_order_of_batches(tmp_path):
    root = tiny.voc(tmp_path, years=("VOC2007",))
    overrides = [
        "SOLVER.IMS_PER_BATCH=2",
        "INPUT.MIN_SIZE_TRAIN=(40,)",
        "DATASETS.TRAIN=('voc_2007_trainval',)",
    ]
    settings = recipe.load("voc-c4-toy", overrides)
    batches = data.training_batches(
        voc_data.read(root, "voc_2007_trainval"), settings, seed=scenes.ORDER_SEED
    )
    assert [[item["image_id"] for item in next(batches)] for _ in range(20)] == GOLDEN["mapper"][
        "order"
    ]


@pytest.mark.parametrize("seed", scenes.SEEDS)
def test_voc_scores_on_ties(tmp_path, seed):
    truth, detections = scenes.voc(seed)
    scenes.write_voc(tmp_path, truth)
    for image_id, *_ in truth:
        tiny.draw_image(tmp_path / "VOC2007/JPEGImages" / f"{image_id}.jpg", (9, 9), [], 0)
    read = voc_data.read(tmp_path, "voc_2007_test", scenes.NAMES)
    lines = {k: [] for k in range(len(scenes.NAMES))}
    for image_id, boxes, scores, classes in detections:
        for label, line in voc.lines(image_id, boxes, scores.tolist(), classes):
            lines[label].append(line)
    metrics, _, _ = voc.evaluate(lines, read.samples, scenes.NAMES)
    assert metrics == pytest.approx(GOLDEN["voc"]["scores"][seed], abs=1e-9)


@pytest.mark.parametrize("seed", scenes.SEEDS)
def test_coco_scores(tmp_path, seed):
    root = tiny.coco(tmp_path, test=8)
    content = json.loads((root / "annotations/instances_val2017.json").read_text())
    truth = coco_data.read(root, "coco_2017_val", scored=True).truth
    ids = sorted(c["id"] for c in content["categories"])
    predictions = []
    for image_id, _, boxes, scores, classes, masks in scenes.coco(seed, content):
        labels = [ids[c] for c in classes]
        predictions += coco.records(image_id, boxes, scores.tolist(), labels, coco.encoded(masks))
    metrics, per_class, _ = coco.evaluate(truth, predictions, masks=True)
    for task, scores in GOLDEN["coco"][seed].items():
        for name, value in scores.items():
            kind, _, class_name = name.partition("-")
            ours = per_class[class_name][f"{task}/AP"] if class_name else metrics[f"{task}/{kind}"]
            assert ours == pytest.approx(value, abs=1e-9), (task, name)

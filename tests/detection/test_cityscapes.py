"""Cityscapes' instances against Detectron2's loader and cityscapesscripts' score, and the command.

Recorded by golden/record_cityscapes.py.
"""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from harl_bench.cli import main
from harl_bench.core.results import read_result
from harl_bench.detection import recipe
from harl_bench.detection.datasets import cityscapes as data
from harl_bench.detection.metrics import cityscapes as metric
from harl_bench.detection.metrics.coco import encoded
from harl_bench.detection.scoring import Prediction, score
from tests.detection import scenes, tiny
from tests.detection.command import TINY

GOLDEN = json.loads(
    (Path(__file__).parents[1] / "golden/detection_data/cityscapes.json").read_text()
)
TRAIN, VAL = "cityscapes_fine_instance_seg_train", "cityscapes_fine_instance_seg_val"
needs_cityscapesscripts = pytest.mark.skipif(
    importlib.util.find_spec("cityscapesscripts") is None, reason="needs cityscapesscripts"
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny.cityscapes(tmp_path_factory.mktemp("cityscapes"))


def test_objects_are_those_of_detectron2_with_the_last_row_and_column_in_the_box(root):
    dataset = data.read(root, TRAIN)
    actual = []
    for s in dataset.samples:
        ends = s.boxes.astype(int) - [0, 0, 1, 1]
        rows = np.flatnonzero((ends[:, 2:] > ends[:, :2]).all(axis=1))
        assert len(rows) == len(s.classes) - 1  # the rider of one row, which Detectron2 leaves out
        actual.append(
            {
                "image_id": s.image_id,
                "size": [s.width, s.height],
                "boxes": ends[rows].tolist(),
                "labels": [dataset.category_ids[k] for k in s.classes[rows]],
                "crowd": s.crowd[rows].tolist(),
                "masks": [s.segments[k]["counts"].decode() for k in rows],
            }
        )
    assert actual == GOLDEN["objects"]
    assert dataset.bitmasks
    assert dataset.class_names[0] == "person"
    assert dataset.class_names[-1] == "bicycle"


def test_boxes_are_those_of_the_outlines_that_detectron2_registers(tmp_path):
    root = tiny.cityscapes(tmp_path, train=1)
    path = next((root / "gtFine/train").rglob("*_instanceIds.png"))
    Image.fromarray(scenes.drawn(scenes.outlines())).save(path)
    image = next((root / "leftImg8bit/train").rglob("*.png"))
    Image.new("RGB", scenes.CITY_PX).save(image)
    (sample,) = data.read(root, TRAIN).samples
    assert np.abs(sample.boxes - GOLDEN["outlines"]).max() < 0.1
    assert len(sample.boxes) == 12


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths_are_those_of_pycocotools(seed):
    generator = np.random.default_rng(seed)
    mask = np.zeros((7, 9), dtype=bool, order="F")
    left, right = sorted(generator.choice(10, 2, replace=False).tolist())
    mask[:, left:right] = generator.random((7, right - left)) < generator.choice([0.2, 0.9, 1])
    code = data._run_lengths(mask[:, left:right], left, mask.shape)
    assert code == coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))


def test_instance_ids_are_found_from_the_image(root):
    for folder in (root, root / "leftImg8bit" / ".."):
        image = folder / "leftImg8bit/val/lindau/lindau_000001_000019_leftImg8bit.png"
        assert np.unique(data.instance_ids(str(image)))[-1] == 33001


def predictions_of(dataset, seed):
    for sample in dataset.samples:
        labels, scores, masks = scenes.cityscapes(seed, data.instance_ids(sample.path))
        boxes = np.zeros((len(labels), 4), dtype=np.float32)
        classes = [data.IDS.index(label) for label in labels]
        yield Prediction(sample.image_id, boxes, scores, classes, encoded(np.array(masks)))


@needs_cityscapesscripts
@pytest.mark.parametrize("seed", scenes.SEEDS)
def test_scores_are_those_of_cityscapesscripts(root, seed, tmp_path):
    dataset = data.read(root, VAL)
    predictions = list(predictions_of(dataset, seed))
    scores = score(dataset, predictions, masks=True, folder=tmp_path)
    rows = {"all": scores.metrics, **scores.per_class}
    assert {name: list(row.values()) for name, row in rows.items()} == GOLDEN["scores"][seed]
    records = json.loads((tmp_path / "cityscapes_instances_results.json").read_text())
    assert len(records) == sum(len(p.scores) for p in predictions)
    assert records[0]["image_id"] == "lindau_000000_000019_leftImg8bit.png"


@needs_cityscapesscripts
def test_perfect_detections_score_100_and_none_score_0(root):
    dataset = data.read(root, VAL)
    perfect, none = [], []
    for s in dataset.samples:
        rows = [k for k in range(len(s.classes)) if not s.crowd[k]]
        classes, masks = [int(s.classes[k]) for k in rows], [s.segments[k] for k in rows]
        boxes = s.boxes[rows].astype(np.float32)
        perfect.append(Prediction(s.image_id, boxes, [1.0] * len(rows), classes, masks))
        none.append(Prediction(s.image_id, boxes[:0], [], [], []))
    assert score(dataset, perfect, masks=True).metrics == {"segm/AP": 100.0, "segm/AP50": 100.0}
    assert score(dataset, none, masks=True).metrics == {"segm/AP": 0.0, "segm/AP50": 0.0}


def test_void_and_other_objects_are_counted():
    ids = np.full((4, 4), 26000)
    ids[0], ids[1], ids[2] = 0, 29000, 26001  # a numbered caravan is no void in cityscapesscripts
    mask = encoded(np.ones((1, 4, 4), dtype=bool))
    matches = metric.matches(metric.Image(ids, [26], [0.5], mask))
    (car,) = matches["prediction"]["car"]
    assert (car["pixelCount"], car["voidIntersection"]) == (16, 4)
    assert {t["instID"]: t["intersection"] for t in car["matchedGt"]} == {26000: 4, 26001: 4}


ABSENT = "5 of 8 classes have no test object and are not in the mean"


def command(root, out, *more):
    options = ["--data", str(root), "--out", str(out), "--recipe", "cityscapes-fpn-toy"]
    quick = [*TINY, "SOLVER.MAX_ITER=2", "SOLVER.STEPS=()", "TEST.PRECISE_BN.NUM_ITER=1"]
    return ["cityscapes", "random", *options, "--engine", "torchvision", *quick, *more]


@needs_cityscapesscripts
def test_the_command_trains_scores_draws_and_is_skipped_the_second_time(root, tmp_path, capsys):
    assert main(command(root, tmp_path, "--images", "1")) == 0
    (path,) = tmp_path.rglob("result.json")
    result = read_result(path)
    folder = path.parent.relative_to(tmp_path).as_posix()
    assert folder == "cityscapes/cityscapes/cityscapes-fpn-toy/random-none/seed0"
    assert set(result.metrics) == {"segm/AP", "segm/AP50"}
    assert len(result.per_class) == 8
    assert result.n_test == 3
    assert {f"{TRAIN} has 3 images, the published 2,975", ABSENT} <= set(result.departures)
    names = sorted(p.name for p in (path.parent / "pictures").iterdir())
    assert names == ["detection-lindau_000000_000019_leftImg8bit.png"]
    assert main(command(root, tmp_path)) == 0
    assert "finished before" in capsys.readouterr().out


def test_images_that_are_trained_and_tested_on_count_once(root, tmp_path, monkeypatch, capsys):
    """Their instanceIds counted, too."""
    monkeypatch.setattr("harl_bench.detection.plan.library", lambda: None)
    assert main(command(root, tmp_path, "--dry-run", f"DATASETS.TRAIN=('{TRAIN}','{VAL}')")) == 0
    assert f"{VAL}: 3 test images that are among the training images" in capsys.readouterr().out


def test_without_the_package_one_line_says_how_to_install_it(root, tmp_path, monkeypatch, capsys):
    name = "cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling"
    monkeypatch.setitem(sys.modules, name, None)
    assert main(command(root, tmp_path, "--dry-run")) == 5
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install 'harl-bench[cityscapes]'" in line


FAULTS = {
    "no instanceIds": (
        lambda root: [p.unlink() for p in root.rglob("*val*/*/*_instanceIds.png")],
        "a half of Cityscapes is missing",
    ),
    "one image without": (
        lambda root: next((root / "gtFine/train").rglob("*000001*_instanceIds.png")).unlink(),
        "1 of 3 images of train have no label",
    ),
    "an id of no label": (
        lambda root: Image.fromarray(np.full((60, 90), 34000, dtype=np.uint16)).save(
            next((root / "gtFine/val").rglob("*_instanceIds.png"))
        ),
        "instanceIds of no label",
    ),
    "labelIds saved in colors": (
        lambda root: Image.new("RGB", (90, 60)).save(
            next((root / "gtFine/val").rglob("*_instanceIds.png"))
        ),
        "a label image with colors",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_data_is_one_line(tmp_path, monkeypatch, capsys, name):
    monkeypatch.setattr("harl_bench.detection.plan.library", lambda: None)
    root = tiny.cityscapes(tmp_path / "data")
    damage, words = FAULTS[name]
    damage(root)
    assert main(command(root, tmp_path / "runs")) == 3
    *_, line = capsys.readouterr().err.splitlines()
    assert words in line


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("MODEL.MASK_ON=False", "scored by masks"),
        ("DATASETS.TEST=('cityscapes_fine_instance_seg_test',)", "unknown Cityscapes split"),
        ("DATASETS.TEST=('coco_2017_val',)", "harl-bench coco"),
        ("DATASETS.TEST=('cityscapes_fine_sem_seg_val',)", "data sets are named like"),
    ],
)
def test_another_use_of_the_recipe_is_refused(root, tmp_path, monkeypatch, capsys, override, words):
    monkeypatch.setattr("harl_bench.detection.plan.library", lambda: None)
    assert main(command(root, tmp_path, override)) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert words in line


def test_the_recipe_is_the_one_of_its_source():
    settings = recipe.load("cityscapes-fpn-24k")
    model, solver = settings.MODEL, settings.SOLVER
    assert (model.RESNETS.NORM, model.FPN.NORM, model.BACKBONE.FREEZE_AT) == ("SyncBN", "SyncBN", 0)
    assert (model.ROI_HEADS.NUM_CLASSES, model.MASK_ON) == (8, True)
    assert settings.INPUT.MIN_SIZE_TRAIN == (800, 832, 864, 896, 928, 960, 992, 1024)
    assert (settings.INPUT.MIN_SIZE_TEST, settings.INPUT.MAX_SIZE_TEST) == (1024, 2048)
    assert settings.INPUT.MAX_SIZE_TRAIN == 2048
    assert (solver.IMS_PER_BATCH, solver.BASE_LR, solver.MAX_ITER) == (8, 0.01, 24_000)
    assert (solver.STEPS, solver.WARMUP_ITERS) == ((18_000,), 1000)
    assert (settings.TEST.PRECISE_BN.ENABLED, settings.TEST.PRECISE_BN.NUM_ITER) == (True, 200)

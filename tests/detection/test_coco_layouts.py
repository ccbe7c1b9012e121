"""Where COCO's files may lie, and what is said of files that lie elsewhere."""

import shutil
from pathlib import Path

import pytest

from harl_bench.core.errors import DataError
from harl_bench.detection.datasets import coco as data
from harl_bench.detection.datasets.sample import (
    SCORED_TWICE,
    TRAINED_TWICE,
    fingerprints,
)
from harl_bench.detection.metrics import coco
from tests.detection import tiny
from tests.detection.test_coco_files import LIBRARIES, VAL, edited
from tests.detection.test_coco_metric import perfect


@pytest.fixture
def root(tmp_path):
    return tiny.coco(tmp_path, train=1)


def test_file_names_with_folders_backslashes_and_absolute_paths(tmp_path):
    root = tiny.coco(tmp_path / "data", train=1)
    shutil.move(root / "val2017/000000000104.jpg", tmp_path / "elsewhere.jpg")
    plain = data.read(tiny.coco(tmp_path / "plain", train=1), "coco_2017_val")
    expected = [Path(s.path).read_bytes() for s in plain.samples]
    (root / "val2017/sub").mkdir()
    shutil.move(root / "val2017/000000000103.jpg", root / "val2017/sub/103.jpg")
    names = [
        "val2017/000000000101.jpg",
        ".\\000000000102.jpg",
        "sub\\103.jpg",
        str(tmp_path / "elsewhere.jpg"),
    ]

    def change(content):
        for image, name in zip(content["images"], names, strict=True):
            image["file_name"] = name

    read = data.read(edited(root, change), "coco_2017_val", scored=True)
    assert [Path(s.path).read_bytes() for s in read.samples] == expected
    assert str(tmp_path / "elsewhere.jpg") in read.files
    assert "val2017/000000000102.jpg" in read.files
    assert len(fingerprints(root, [read])[0]) == 64


LAYOUTS = {
    "coco_2017_val_100": ("instances_val2017_100.json", "val2017"),
    "coco_2014_minival": ("instances_minival2014.json", "val2014"),
    "coco_2014_valminusminival": ("instances_valminusminival2014.json", "val2014"),
    "coco_2014_minival_100": ("instances_minival2014_100.json", "val2014"),
    "coco_2014_train": ("instances_train2014.json", "train2014"),
    "coco_2017_own_part": ("instances_own_part2017.json", "own_part2017"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_detectron2s_layout(root, name):
    """D2:data/datasets/builtin.py, _PREDEFINED_SPLITS_COCO."""
    file, folder = LAYOUTS[name]
    (root / VAL).rename(root / "annotations" / file)
    (root / "val2017").rename(root / folder)
    assert len(data.read(root, name, scored=True).samples) == 4


def test_the_2014_lists_may_hold_an_annotation_id_twice_as_in_detectron2(root):
    def change(content):
        content["annotations"][1]["id"] = content["annotations"][0]["id"]

    edited(root, change)
    with pytest.raises(DataError, match="an id twice"):
        data.read(root, "coco_2017_val", scored=True)
    (root / VAL).rename(root / "annotations/instances_minival2014.json")
    (root / "val2017").rename(root / "val2014")
    read = data.read(root, "coco_2014_minival", scored=True)
    for library in LIBRARIES:
        assert coco.evaluate(read.truth, perfect(read), masks=True, library=library)[0][
            "bbox/AP"
        ] == pytest.approx(100)


def test_an_image_under_two_ids_is_told(root):
    def change(content):
        content["images"].append(
            content["images"][0] | {"id": 999, "file_name": "val2017/000000000101.jpg"}
        )

    edited(root, change)
    assert data.read(root, "coco_2017_val", scored=True).faults == {SCORED_TWICE: 1}
    assert data.read(root, "coco_2017_val").faults == {TRAINED_TWICE: 1}


def _move_in(root):
    (root / "val2017").rename(root / "inner")
    (root / "val2017").mkdir()
    (root / "inner").rename(root / "val2017/val2017")


def _rename(old, new):
    return lambda root: (root / old).rename(root / new)


def _windows(content):
    content["images"][0]["file_name"] = r"C:\data\000000000101.jpg"


MISPLACED = {
    "one deeper": (
        _move_in,
        r"lies at \S+/val2017/val2017/000000000101.jpg: move what is in \S+val2017/val2017 to",
    ),
    "suffix": (
        _rename("val2017/000000000101.jpg", "val2017/000000000101.PNG"),
        "write 000000000101.PNG as its file",
    ),
    "folder deeper": (
        lambda r: shutil.move(r / "val2017", r / "train2017"),
        r"lies at \S+/train2017/val2017: move",
    ),
    "Windows": (lambda r: edited(r, _windows), "write 000000000101.jpg as its file_name"),
    "gone": (lambda r: (r / "val2017/000000000101.jpg").unlink(), "unpack val2017.zip completely"),
    "annotations deeper": (
        lambda r: (
            (r / "annotations/a").mkdir(),
            (r / VAL).rename(r / "annotations/a/instances_val2017.json"),
        ),
        r"lies at \S+annotations/a/instances_val2017.json: move it",
    ),
    "all deeper": (
        lambda r: ((r / "x").mkdir(), (r / "annotations").rename(r / "x/annotations")),
        r"--data \S+/x",
    ),
}


@pytest.mark.parametrize("name", MISPLACED)
def test_what_lies_elsewhere_is_named(root, name):
    spoil, message = MISPLACED[name]
    spoil(root)
    with pytest.raises(DataError, match=message):
        data.read(root, "coco_2017_val")

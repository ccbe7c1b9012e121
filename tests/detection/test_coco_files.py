"""COCO files as people have them: whatever the reader accepts, both evaluators score, and alike."""

import json

import numpy as np
import pytest

from harl_bench.core.errors import DataError
from harl_bench.detection.datasets import coco as data
from harl_bench.detection.datasets.sample import (
    BOX_AS_OUTLINE,
    fingerprints,
)
from harl_bench.detection.metrics import coco
from tests.detection import tiny
from tests.detection.test_coco_metric import perfect, tangled

VAL = "annotations/instances_val2017.json"
LIBRARIES = ("hotcoco", "pycocotools")


@pytest.fixture
def root(tmp_path):
    return tiny.coco(tmp_path, train=1)


def edited(root, change, path=VAL):
    """Change the JSON in place by a function of its content."""
    content = json.loads((root / path).read_text())
    change(content)
    (root / path).write_text(json.dumps(content))
    return root


def scores(root, *, masks=True, detections=perfect):
    """The scores by each evaluator."""
    pytest.importorskip("hotcoco")
    read = data.read(root, "coco_2017_val", masks=masks, scored=True)
    results = list(detections(read))
    return [
        coco.evaluate(read.truth, results, masks=masks, library=library)[0] for library in LIBRARIES
    ]


@pytest.mark.parametrize(("first", "step"), [(0, 1), (-3, 1), (5, -1), (2**70, 1)])
@pytest.mark.parametrize("objects", [1, 2, 5, 20])
def test_perfect_detections_score_100_whatever_the_annotation_ids(root, first, step, objects):
    """With id 0, pycocotools gave 0, 25.25, 64.16 and 89.36: it means "no match" there."""

    def change(content):
        content["images"] = [content["images"][0] | {"width": 400, "height": 400}]
        content["annotations"] = [
            {
                "id": first + step * k,
                "image_id": content["images"][0]["id"],
                "category_id": 7,
                "iscrowd": 0,
                "bbox": [19 * k, 2, 12, 12],
                "area": 144,
                "segmentation": [[19 * k, 2, 19 * k + 12, 2, 19 * k + 12, 14]],
            }
            for k in range(objects)
        ]

    fast, reference = scores(edited(root, change))
    assert fast == reference
    assert (reference["bbox/AP"], reference["segm/AP"]) == (pytest.approx(100), pytest.approx(100))


def _set(key, **changes):
    return lambda content: [item.update(changes) for item in content[key]]


def _first_crowd(content):
    content["annotations"][0] |= {"iscrowd": 1, "segmentation": []}


def _ids(key, other, foreign, number):
    def change(content):
        new = {item["id"]: number(item["id"]) for item in content[key]}
        for item in content[key]:
            item["id"] = new[item["id"]]
        for item in content[other]:
            item[foreign] = new[item[foreign]]

    return change


ODD = {
    "CVAT's date": _set("images", date_captured=0, license=0, flickr_url=None),
    "Detectron2's licences": lambda content: content.update(
        info={"description": None}, licenses=None
    ),
    "Roboflow's year": lambda content: content.update(
        info={"year": "2024", "version": 1}, licenses=[{"id": "1"}]
    ),
    "negative images": _ids("images", "annotations", "image_id", lambda n: n - 102),
    "large images": _ids("images", "annotations", "image_id", lambda n: n + 2**66),
    "whole floats": _ids("images", "annotations", "image_id", float),
    "negative categories": _ids("categories", "annotations", "category_id", lambda n: n - 7),
    "size as a float": lambda content: [
        image.update(width=float(image["width"])) for image in content["images"]
    ],
    "supercategory of null": _set("categories", supercategory=None, keypoints=None),
    "name of half a pair": lambda content: content["categories"][0].update(name="\ud800"),
    "attributes": _set("annotations", attributes={"occluded": False}, track_id="a", score="x"),
    "crowd without outline": _first_crowd,
    "iscrowd of true": lambda content: [
        a.update(iscrowd=bool(a["iscrowd"])) for a in content["annotations"]
    ],
    "empty polygon": lambda content: content["annotations"][0].update(segmentation=[[]]),
    "one point": lambda content: content["annotations"][0].update(segmentation=[[3, 4]]),
    "two points": lambda content: content["annotations"][0].update(segmentation=[[3, 4, 9, 9]]),
    "a point beside a polygon": lambda content: content["annotations"][0].update(
        segmentation=[[3, 4], [3, 4, 20, 4, 20, 20]]
    ),
    "odd count": lambda content: content["annotations"][0].update(segmentation=[[3, 4, 9, 9, 1]]),
    "far box": lambda content: content["annotations"][0].update(
        bbox=[-9e8, 1, 9.9e8, 9e8], segmentation=[[]]
    ),
}


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("name", ODD)
def test_both_evaluators_score_what_the_reader_accepts(root, name, masks):
    if masks or "crowd" not in name:
        fast, reference = scores(
            edited(root, ODD[name]), masks=masks, detections=lambda read: tangled_of(read, masks)
        )
        assert fast == reference
        assert 0 < reference["bbox/AP50"] <= 100


def tangled_of(read, masks):
    if masks:
        return list(tangled(read, 1))
    return [record | {"score": 0.5} for record in perfect_boxes(read)]


def perfect_boxes(read):
    for s in read.samples:
        keep = ~s.crowd
        ids = [read.category_ids[c] for c in s.classes[keep]]
        yield from coco.records(s.image_id, s.boxes[keep].astype(np.float32), [0.9] * len(ids), ids)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_any_encoding_that_json_may_have_is_scored(root, encoding):
    (root / VAL).write_text((root / VAL).read_text(), encoding=encoding)
    fast, reference = scores(root)
    assert fast == reference
    assert reference["segm/AP"] == pytest.approx(100)


def test_a_crowd_without_outline_covers_its_box(root):
    """Two detections in the crowd are ignored: the score stays 100. A third outside is wrong."""

    def change(content):
        image = content["images"][0] | {"width": 60, "height": 44}
        box = {"image_id": image["id"], "category_id": 7, "area": 100.0}
        content["images"] = [image]
        content["annotations"] = [
            box | {"id": 1, "bbox": [0, 0, 20, 20], "iscrowd": 1},
            box
            | {
                "id": 2,
                "bbox": [30, 5, 10, 10],
                "iscrowd": 0,
                "segmentation": [[30, 5, 40, 5, 40, 15, 30, 15]],
            },
        ]

    edited(root, change)
    read = data.read(root, "coco_2017_val", scored=True)
    assert read.faults == {BOX_AS_OUTLINE: 1}

    def detections(*corners):
        masks = np.zeros((len(corners), 44, 60), dtype=bool)
        for mask, (x, y) in zip(masks, corners, strict=True):
            mask[y : y + 10, x : x + 10] = True
        boxes = np.array([(x, y, x + 10, y + 10) for x, y in corners], dtype=np.float32)
        best_first = [0.9 - k / 10 for k in range(len(corners))]
        return coco.records(
            read.samples[0].image_id, boxes, best_first, [7] * len(corners), coco.encoded(masks)
        )

    for library in LIBRARIES:
        ignored = coco.evaluate(
            read.truth, detections((0, 0), (8, 8), (30, 5)), masks=True, library=library
        )[0]
        wrong = coco.evaluate(
            read.truth, detections((45, 30), (30, 5)), masks=True, library=library
        )[0]
        assert (ignored["segm/AP"], wrong["segm/AP"]) == (pytest.approx(100), pytest.approx(50))


FAULTS = {
    "iscrowd": (_set("annotations", iscrowd="0"), "iscrowd must be 0 or 1.*'0' in annotation 1"),
    "far polygon": (
        _set("annotations", segmentation=[[0, 0, 1e8, 0, 1e8, 1e8]]),
        "beyond 1,000,000 pixels",
    ),
    "huge": (_set("images", width=10**30), "too large"),
    "half a pixel": (_set("images", width=60.5), "needs file_name, width and height"),
    "huge coordinate": (_set("annotations", segmentation=[[10**400] * 6]), "not a number"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_no_evaluator_could_score_is_refused(root, name):
    change, message = FAULTS[name]
    edited(root, change)
    with pytest.raises(DataError, match=message):
        data.read(root, "coco_2017_val", scored=True)


SAME, OTHER = True, False
EDITS = {
    "info": (lambda c: c.update(info={"year": "2024"}), SAME),
    "baggage": (_set("annotations", attributes={}), SAME),
    "annotation ids": (lambda c: [a.update(id=a["id"] - 1) for a in c["annotations"]], SAME),
    "floats": (lambda c: [i.update(width=float(i["width"])) for i in c["images"]], SAME),
    "order of images": (lambda c: c["images"].reverse(), SAME),
    "folder in the name": (
        lambda c: [i.update(file_name=f"val2017/{i['file_name']}") for i in c["images"]],
        SAME,
    ),
    "a box": (lambda c: c["annotations"][0]["bbox"].__setitem__(0, 5.25), OTHER),
    "a digit of an area": (lambda c: c["annotations"][0].update(area=1.0), OTHER),
    "a crowd": (lambda c: c["annotations"][0].update(iscrowd=1), OTHER),
    "a category": (lambda c: c["annotations"][0].update(category_id=7), OTHER),
    "a name": (lambda c: c["categories"][0].update(name="cow"), OTHER),
    "an outline": (lambda c: c["annotations"][0].update(segmentation=[[1, 1, 9, 1, 9, 9]]), OTHER),
    "an image less": (lambda c: c["images"].pop(), OTHER),
}


@pytest.mark.parametrize("name", EDITS)
def test_the_fingerprint_follows_what_decides_the_outcome(root, name):
    change, same = EDITS[name]
    before = fingerprints(root, [data.read(root, "coco_2017_val", scored=True)])[0]
    edited(root, change)
    (root / VAL).write_text(json.dumps(json.loads((root / VAL).read_text()), indent=3))
    after = fingerprints(root, [data.read(root, "coco_2017_val", scored=True)])[0]
    assert (before == after) == same


def test_outlines_do_not_count_without_masks(root):
    before, after = (
        fingerprints(r, [data.read(r, "coco_2017_val", masks=False, scored=True)])[0]
        for r in (root, edited(tiny.coco(root / "other", train=1), EDITS["an outline"][0]))
    )
    assert before == after

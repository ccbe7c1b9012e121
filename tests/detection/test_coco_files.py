"""COCO files as people have them: whatever the reader accepts, both evaluators score, and alike."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harl_bench.core.errors import DataError
from harl_bench.detection.datasets import coco as data
from harl_bench.detection.datasets.sample import (
    BOX_AS_OUTLINE,
    SCORED_TWICE,
    TRAINED_TWICE,
    fingerprints,
)
from harl_bench.detection.metrics import coco
from tests.detection import tiny
from tests.detection.test_metrics import perfect, tangled

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


NUMBER = st.floats(-60, 120, width=32) | st.integers(-60, 120)
SIDE = st.floats(0.5, 70, width=32)
POLYGON = st.lists(NUMBER, max_size=9)
BAGGAGE = st.dictionaries(
    st.sampled_from(
        ["date_captured", "license", "score", "year", "supercategory", "attributes", "keypoints"]
    ),
    st.none() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2),
)


@st.composite
def odd_files(draw):
    """Return an accepted COCO file that other readers refuse, and whether masks are scored."""
    ids = st.lists(
        st.integers(-(2**70), 2**70) | st.integers(-3, 3), min_size=1, max_size=4, unique=True
    )
    image_ids, category_ids = draw(ids), draw(ids)
    masks = draw(st.booleans())
    number = draw(st.sampled_from([int, float])) if max(map(abs, image_ids)) < 1e9 else int
    images = [
        draw(BAGGAGE)
        | {
            "id": number(i),
            "file_name": draw(st.sampled_from(["a.jpg", "val2017/b.jpg", ".\\a.jpg"])),
            "width": draw(st.sampled_from([60, 60.0])),
            "height": 44,
        }
        for i in image_ids
    ]
    annotations = []
    for annotation_id in draw(st.lists(st.integers(-5, 5), max_size=8, unique=True)):
        crowd = draw(st.sampled_from([0, 0, 1, True, False, 0.0]))
        outline = draw(st.lists(POLYGON, min_size=1, max_size=3) | st.sampled_from(codes(60, 44)))
        annotation = draw(BAGGAGE) | {
            "id": annotation_id,
            "image_id": draw(st.sampled_from([*image_ids, 2**71])),
            "iscrowd": crowd,
            "category_id": draw(st.sampled_from(category_ids)),
            "area": draw(st.floats(-1, 1e6) | st.integers(0, 9000)),
            "bbox": [draw(NUMBER), draw(NUMBER), draw(SIDE), draw(SIDE)],
        }
        if not (crowd or not masks) or draw(st.booleans()):
            annotation["segmentation"] = outline
        annotations.append(annotation)
    categories = [
        draw(BAGGAGE) | {"id": i, "name": f"class {k}"} for k, i in enumerate(category_ids)
    ]
    return draw(BAGGAGE) | {
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }, masks


def codes(width, height):
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[5:30, 10:33] = 1
    uncompressed = tiny.rle(mask)
    return [
        uncompressed,
        uncompressed | {"counts": coco.encoded(mask[None].astype(bool))[0]["counts"]},
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("odd")
    (root / "annotations").mkdir()
    (root / "val2017").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (root / "val2017" / name).touch()
    return root


@settings(
    max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
@given(file=odd_files(), seed=st.integers(0, 99))
def test_any_accepted_file_is_scored_alike_by_both_evaluators(folder, file, seed):
    """Perfect boxes score 100 where there are objects; perturbed ones score alike bit for bit."""
    pytest.importorskip("hotcoco")
    content, masks = file
    (folder / VAL).write_text(json.dumps(content))
    read = data.read(folder, "coco_2017_val", masks=masks, scored=True)
    truth = json.loads(read.truth.content)
    generator = np.random.default_rng(seed)
    encoded = coco.encoded(np.ones((1, 44, 60), dtype=bool))
    perfect, shifted = [], []
    for a in truth["annotations"]:
        record = {
            "image_id": read.truth.image_ids[a["image_id"] - 1],
            "score": float(generator.integers(1, 5) / 5),
            "category_id": read.truth.category_ids[a["category_id"] - 1],
            "bbox": a["bbox"],
        } | ({"segmentation": encoded[0]} if masks else {})
        perfect += [] if a["iscrowd"] else [record]
        shifted.append(
            record
            | {"bbox": (np.array(a["bbox"]) + generator.normal(0, 4, 4)).clip(-50, 200).tolist()}
        )
    for detections in (perfect, shifted):
        fast, reference = (
            coco.evaluate(read.truth, detections, masks=masks, library=name) for name in LIBRARIES
        )
        assert fast[:2] == reference[:2]
        assert detections is shifted or fast[0]["bbox/AP"] in (
            None,
            pytest.approx(100),
            0.0 if not perfect else None,
        )


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

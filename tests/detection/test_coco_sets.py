"""The reader of COCO: Detectron2's semantics, one clear line for bad input."""

import json
import tracemalloc

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from harl_bench.core.errors import DataError
from harl_bench.detection.datasets import coco, outlines
from harl_bench.detection.datasets.sample import for_training
from tests.detection import tiny


@pytest.fixture(scope="module")
def coco_root(tmp_path_factory):
    return tiny.coco(tmp_path_factory.mktemp("coco"))


def test_coco_sorts_categories_and_images(coco_root):
    read = coco.read(coco_root, "coco_2017_train")
    assert read.category_ids == (3, 7)
    assert read.class_names == ("dog", "cat")
    assert [sample.image_id for sample in read.samples] == [1, 2, 3, 4, 5, 6]
    np.testing.assert_array_equal(
        read.samples[1].boxes - [0.25, 0.5, 0, 0], tiny.boxes_of(2, tiny.SIZES[2])
    )


def test_coco_outlines_of_every_kind(coco_root):
    samples = {
        sample.image_id: sample for sample in coco.read(coco_root, "coco_2017_train").samples
    }
    one, two = samples[1].segments[0], samples[2].segments[0]
    assert [len(one), len(two)] == [1, 2]
    code = samples[1].segments[1]
    x0, y0, x1, y1 = tiny.boxes_of(1, tiny.SIZES[1])[1]
    expected = np.zeros(tiny.SIZES[1][::-1], dtype=np.uint8)
    expected[y0:y1, x0:x1] = 1
    np.testing.assert_array_equal(coco_mask.decode(code), expected)
    assert samples[5].crowd.tolist() == [False, True]


def test_coco_compressed_code_is_read_like_the_uncompressed(tmp_path):
    content = tiny.coco_json(6)
    for annotation in content["annotations"]:
        code = annotation["segmentation"]
        if isinstance(code, dict):
            packed = coco_mask.frPyObjects(code, *code["size"])
            annotation["segmentation"] = {
                "size": packed["size"],
                "counts": packed["counts"].decode(),
            }
    plain, packed = (tiny.coco(tmp_path / name) for name in ("plain", "packed"))
    (packed / "annotations/instances_train2017.json").write_text(json.dumps(content))
    for a, b in zip(
        *(coco.read(root, "coco_2017_train").samples for root in (plain, packed)), strict=True
    ):
        assert str(a.segments) == str(b.segments)


@pytest.mark.parametrize("seed", range(20))
def test_compressed_counts_are_decoded_as_pycocotools_does(seed):
    generator = np.random.default_rng(seed)
    mask = (generator.random((37, 23)) > generator.random()).astype(np.uint8)
    runs = tiny.rle(mask)["counts"]
    packed = coco_mask.frPyObjects(tiny.rle(mask), *mask.shape)
    assert outlines.runs(packed["counts"].decode()) == runs


def test_coco_layout_may_lie_in_a_folder_coco(tmp_path):
    tiny.coco(tmp_path / "coco")
    assert len(coco.read(tmp_path, "coco_2017_val").samples) == 4


def test_coco_training_drops_crowd_only_images(tmp_path):
    root = tiny.coco(tmp_path)
    content = tiny.coco_json(6)
    for annotation in content["annotations"]:
        annotation["iscrowd"] |= annotation["image_id"] == 5
    (root / "annotations/instances_train2017.json").write_text(json.dumps(content))
    assert [s.image_id for s in for_training(coco.read(root, "coco_2017_train")).samples] == [
        1,
        2,
        3,
        4,
        6,
    ]


def test_coco_short_polygons_and_flat_boxes_are_skipped_with_a_count(tmp_path):
    root = tiny.coco(tmp_path)
    content = tiny.coco_json(6)
    content["annotations"][0]["segmentation"] = [[1, 2, 3, 4]]
    content["annotations"][2]["bbox"][2] = 0
    content["annotations"].append(content["annotations"][3] | {"id": 99, "image_id": 12345})
    (root / "annotations/instances_train2017.json").write_text(json.dumps(content))
    read = coco.read(root, "coco_2017_train")
    assert len(read.samples[0].boxes) == 1
    assert sorted(read.faults.values()) == [1, 1, 1]
    assert any("without area" in fault for fault in read.faults)


def _edit(**changes):
    """Change the first entry of lists: annotations={"category_id": 5}."""

    def spoil(root):
        path = root / "annotations/instances_train2017.json"
        content = json.loads(path.read_text())
        for key, change in changes.items():
            content[key][0].update(change)
        path.write_text(json.dumps(content))

    return spoil


EMPTY = '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}'
TRAIN = "annotations/instances_train2017.json"
COCO_FAULTS = {
    "broken": (tiny.replaced(TRAIN, '{"images": ['), "broken COCO JSON"),
    "list": (tiny.replaced(TRAIN, "[]"), "lacks a list"),
    "nameless": (
        tiny.replaced(TRAIN, '{"images": [], "annotations": [], "categories": [{"id": 1}]}'),
        "a category needs a name",
    ),
    "no annotations": (
        tiny.replaced(TRAIN, '{"images": [], "categories": []}'),
        "seen: no list annotations",
    ),
    "no images": (tiny.replaced(TRAIN, EMPTY), "no images are listed"),
    "file missing": (
        lambda r: (r / TRAIN).unlink(),
        "COCO train2017 annotations are missing.*instances_val2017",
    ),
    "not coco": (
        lambda r: (r / "annotations").rename(r / "ann"),
        "no COCO data.*seen: ann, train2017",
    ),
    "folder": (lambda r: (r / "train2017").rename(r / "x"), "image folder train2017 is missing"),
    "image": (
        lambda r: (r / "train2017/000000000002.jpg").unlink(),
        "image is missing.*000000000002.jpg",
    ),
    "category": (
        _edit(annotations={"category_id": 5}),
        "unknown category.*category_id 5 in annotation 1",
    ),
    "category list": (_edit(annotations={"category_id": [5]}), "unknown category"),
    "image id": (_edit(annotations={"image_id": None}), "annotation without image_id"),
    "image twice": (_edit(images={"id": 2}), '"images" has an id twice.*2'),
    "annotation twice": (_edit(annotations={"id": 2}), '"annotations" has an id twice.*2'),
    "category twice": (_edit(categories={"id": 3}), '"categories" has an id twice'),
    "box": (_edit(annotations={"bbox": [1, 2, 3]}), "bbox must be four numbers"),
    "box nan": (_edit(annotations={"bbox": [1, 2, 3, float("nan")]}), "bbox must be four numbers"),
    "no outline": (
        _edit(annotations={"segmentation": []}),
        "no segmentation.*annotation 1.*MODEL.MASK_ON=False",
    ),
    "outline": (
        _edit(annotations={"segmentation": [["a"] * 6]}),
        "coordinate that is not a number",
    ),
    "size": (
        _edit(annotations={"segmentation": {"size": [9, 9], "counts": [81]}}),
        r"has size \[9, 9\]",
    ),
    "runs": (
        _edit(annotations={"segmentation": {"size": [60, 44], "counts": [3]}}),
        "runs over 3 pixels.*2,640",
    ),
    "counts": (
        _edit(annotations={"segmentation": {"size": [60, 44], "counts": "~~~"}}),
        "broken run-length",
    ),
    "no size": (_edit(images={"width": 0}), "needs file_name, width and height"),
}


@pytest.mark.parametrize("name", COCO_FAULTS)
def test_coco_fault_is_one_clear_line(tmp_path, name):
    spoil, message = COCO_FAULTS[name]
    root = tiny.coco(tmp_path)
    spoil(root)
    with pytest.raises(DataError, match=message) as caught:
        coco.read(root, "coco_2017_train")
    assert "\n" not in caught.value.line()


def test_coco_test_split_needs_area(tmp_path):
    root = tiny.coco(tmp_path)
    _edit(annotations={"area": None})(root)
    assert coco.read(root, "coco_2017_train").faults == {}
    with pytest.raises(DataError, match="needs area and iscrowd"):
        coco.read(root, "coco_2017_train", scored=True)


def test_memory_does_not_grow_with_the_polygons_area(tmp_path):
    peaks = []
    for side in (100, 5000):
        root = tmp_path / str(side)
        content = tiny.coco_json(1)
        content["images"][0] |= {"width": side, "height": side}
        box = {"bbox": [0, 0, side, side], "segmentation": [[0, 0, side, 0, side, side, 0, side]]}
        content["annotations"] = [content["annotations"][0] | box | {"id": k} for k in range(50)]
        (root / "annotations").mkdir(parents=True)
        (root / TRAIN).write_text(json.dumps(content))
        tiny.draw_image(root / "train2017/000000000001.jpg", (8, 8), [], 0)
        tracemalloc.start()
        coco.read(root, "coco_2017_train")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]

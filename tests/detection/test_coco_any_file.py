"""Any file that the reader accepts is scored alike by both evaluators."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harl_bench.detection.datasets import coco as data
from harl_bench.detection.metrics import coco
from tests.detection import tiny
from tests.detection.test_coco_files import LIBRARIES, VAL

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

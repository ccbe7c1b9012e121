"""The toy data: true formats, boxes and masks on the visible pixels, decided by the seed."""

import contextlib
import hashlib
import io
import shutil
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO

from harl_bench.classify.datasets import DATASETS
from harl_bench.cli import main
from harl_bench.core.toy import is_toy
from harl_bench.doctor import data as doctor
from harl_bench.report.tables import TWELVE
from harl_bench.segmentation import datasets
from harl_bench.segmentation.datasets.checks import require_usable
from harl_bench.toydata import coco, voc
from harl_bench.toydata.run import PARTS


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "toy"
    assert main(["toy-data", str(folder), "--scale", "0.3", "--side-px", "96", "--seed", "6"]) == 0
    return folder


def digests(folder: Path) -> dict[str, str]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files
    }


def test_the_seed_decides_every_byte(toy: Path, tmp_path: Path) -> None:
    options = ["--scale", "0.05", "--side-px", "64"]
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        assert main(["toy-data", str(tmp_path / name), *options, "--seed", seed]) == 0
    a, b, c = (digests(tmp_path / name) for name in "abc")
    assert a == b
    assert a["photos/images/n00000001/000000.jpg"] != c["photos/images/n00000001/000000.jpg"]


def test_every_part_is_marked(toy: Path) -> None:
    assert all(is_toy(toy / part) for part in PARTS)
    assert is_toy(toy / "photos" / "images")
    assert (toy / "preview.png").stat().st_size > 10_000


def test_voc_tree(toy: Path) -> None:
    marks = {"difficult": 0, "truncated": 0}
    sizes = set()
    for year, splits in (
        (2007, ("train", "val", "trainval", "test")),
        (2012, ("train", "val", "trainval")),
    ):
        base = toy / "voc" / f"VOC{year}"
        lists = {s: (base / "ImageSets" / "Main" / f"{s}.txt").read_text().split() for s in splits}
        assert sorted(lists["train"] + lists["val"]) == lists["trainval"]
        assert not set(lists.get("test", [])) & set(lists["trainval"])
        assert len(list((base / "ImageSets" / "Main").glob("*_trainval.txt"))) == len(
            voc.CLASSES.split()
        )
        for name in {n for names in lists.values() for n in names}:
            root = ET.parse(base / "Annotations" / f"{name}.xml").getroot()
            width, height = Image.open(base / "JPEGImages" / f"{name}.jpg").size
            sizes.add((width, height))
            assert [int(root.findtext(f"size/{t}") or 0) for t in ("width", "height", "depth")] == [
                width,
                height,
                3,
            ]
            for item in root.iter("object"):
                box = [
                    int(item.findtext(f"bndbox/{t}") or 0) for t in ("xmin", "ymin", "xmax", "ymax")
                ]
                assert 1 <= box[0] <= box[2] <= width
                assert 1 <= box[1] <= box[3] <= height
                assert item.findtext("name") in voc.NAME_OF.values()
                for mark in marks:
                    marks[mark] += item.findtext(mark) == "1"
    assert marks["difficult"] > 0
    assert marks["truncated"] > 0
    assert len(sizes) > 10
    assert any(w % 2 and h % 2 for w, h in sizes)


def test_coco_segmentations_decode_to_their_area_and_box(toy: Path) -> None:
    kinds = set()
    for split in ("train", "val"):
        with contextlib.redirect_stdout(io.StringIO()):
            index = COCO(str(toy / "coco" / "annotations" / f"instances_{split}2017.json"))
        assert len(index.getCatIds()) == 80
        for item in index.dataset["annotations"]:
            inside = index.annToMask(item).astype(bool)
            segmentation = item["segmentation"]
            polygon = isinstance(segmentation, list)
            kinds.add(
                "multi"
                if polygon and len(segmentation) > 1
                else "polygon"
                if polygon
                else "crowd"
                if item["iscrowd"]
                else type(segmentation["counts"]).__name__
            )
            slack = 0.08 * item["area"] + 12 if polygon else 0
            assert abs(int(inside.sum()) - item["area"]) <= slack
            x, y, w, h = item["bbox"]
            rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
            if not polygon:
                assert (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) == (x, y, x + w, y + h)
        for image in index.dataset["images"]:
            size = Image.open(toy / "coco" / f"{split}2017" / image["file_name"]).size
            assert size == (image["width"], image["height"])
        numbers = [item["id"] for item in index.dataset["annotations"]]
        assert len(numbers) == len(set(numbers))
    assert {"polygon", "multi", "crowd", "str", "list"} <= kinds


def test_polygons_follow_the_pixels() -> None:
    y, x = np.mgrid[:60, :80]
    disc = (x - 30) ** 2 + (y - 28) ** 2 < 20**2
    parts = disc & ((x < 22) | (x > 30))
    for mask, count in ((disc, 1), (parts, 2)):
        outlines = coco.polygons(mask)
        assert len(outlines) == count
        decoded = rle.decode(rle.merge(rle.frPyObjects(outlines, 60, 80))).astype(bool)
        assert (decoded & mask).sum() / (decoded | mask).sum() > 0.95


def test_uncompressed_run_lengths() -> None:
    mask = np.random.default_rng(0).random((7, 5)) > 0.5
    for m in (mask, ~mask, np.zeros((3, 4), bool), np.ones((3, 4), bool)):
        encoded = coco.uncompressed(m)
        assert sum(encoded["counts"]) == m.size
        assert np.array_equal(rle.decode(rle.frPyObjects(encoded, *m.shape)).astype(bool), m)


def test_photo_masks_are_aligned_and_binary(toy: Path) -> None:
    photos = sorted((toy / "photos" / "images").rglob("*.jpg"))
    assert len(photos) == 38
    for path in photos:
        mask = Image.open(
            (toy / "photos" / "masks" / path.relative_to(toy / "photos" / "images")).with_suffix(
                ".png"
            )
        )
        assert mask.mode == "L"
        assert mask.size == Image.open(path).size
        values = np.asarray(mask)
        assert set(np.unique(values)) == {0, 255}
        assert 0.01 < (values > 0).mean() < 0.9


def test_the_same_command_again_changes_nothing_and_other_settings_are_refused(
    toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = digests(toy)
    options = ["toy-data", str(toy), "--scale", "0.3", "--side-px", "96", "--seed"]
    assert main([*options, "6"]) == 0
    assert "already there" in capsys.readouterr().out
    assert main([*options, "7"]) == 2
    assert "seed was 6, now 7" in capsys.readouterr().err
    assert digests(toy) == before


def test_a_foreign_folder_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "voc").mkdir()
    (tmp_path / "voc" / "mine.txt").write_text("keep")
    assert main(["toy-data", str(tmp_path), "--fresh"]) == 3
    assert "other files" in capsys.readouterr().err
    assert (tmp_path / "voc" / "mine.txt").read_text() == "keep"


def test_an_interrupted_folder_is_made_again(tmp_path: Path) -> None:
    options = ["--scale", "0.05", "--side-px", "64"]
    assert main(["toy-data", str(tmp_path / "a"), *options]) == 0
    whole = digests(tmp_path / "a")
    (tmp_path / "a" / "toy.json").unlink()
    (tmp_path / "a" / "photos" / "images" / "n00000001" / "000000.jpg").write_bytes(b"half")
    assert main(["toy-data", str(tmp_path / "a"), *options]) == 0
    assert digests(tmp_path / "a") == whole


@pytest.mark.parametrize(
    ("name", "classes", "expected"),
    [("voc12aug", 21, {0, 2, 4, 5, 16, 20, 255}), ("cityscapes", 19, {0, 6, 7, 11, 13, 18, 255})],
)
def test_segmentation_trees_are_read_by_their_command(
    toy: Path, name: str, classes: int, expected: set[int]
) -> None:
    train, val = datasets.read(name, toy / "segment")
    assert len(train.classes) == classes
    present = set[int]()
    for split in (train, val):
        require_usable(split, scored=True)
        for k in range(len(split.items)):
            present |= set(np.unique(split.label(k)).tolist())
    assert {0, 255} < present <= expected  # the ground, 255, and shapes


def test_extra_labels_are_the_same_as_png_and_as_mat(toy: Path, tmp_path: Path) -> None:
    shutil.copytree(toy / "segment", tmp_path / "sbd")
    shutil.rmtree(tmp_path / "sbd" / "VOC2012" / "SegmentationClassAug")
    a, b = (datasets.read("voc12aug", root)[0] for root in (toy / "segment", tmp_path / "sbd"))
    assert len(a.items) == len(b.items) == 18
    assert any(item.label.endswith(".mat") for item in b.items)
    assert all(np.array_equal(a.label(k), b.label(k)) for k in range(18))


@pytest.mark.parametrize("name", TWELVE)
def test_each_of_the_twelve_sets_is_read_by_its_reader(toy: Path, name: str) -> None:
    data = DATASETS[name](toy / "transfer")
    assert data.name == name
    assert len(data.classes) == (20 if name == "voc2007-cls" else 5)
    divided = data.divided(0)
    assert all(len(divided[split]) for split in ("train", "val", "test"))
    assert not set(divided["train"]) & set(divided["test"])
    assert data.read(0).mode == "RGB"
    if data.multilabel:
        assert {0, 1} <= set(np.unique(data.labels[divided["test"]]).tolist()) <= {-1, 0, 1}


def test_the_doctor_knows_them(toy: Path) -> None:
    checked = list(doctor.findings(toy / "transfer"))
    named = {finding.what for finding in checked if finding.level == "ok"}
    assert named >= set(TWELVE)
    assert not [finding for finding in checked if finding.level == "fail"]

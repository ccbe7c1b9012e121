"""The reader of VOC: Detectron2's semantics, one clear line for bad input."""

import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest

from harl_bench.core.errors import DataError
from harl_bench.detection import recipe
from harl_bench.detection.datasets import voc
from harl_bench.detection.datasets.sample import concatenate, for_training
from tests.detection import tiny


@pytest.fixture(scope="module")
def voc_root(tmp_path_factory):
    return tiny.voc(tmp_path_factory.mktemp("voc"))


def test_voc_subtracts_one_from_the_low_corner_only(voc_root):
    sample = voc.read(voc_root, "voc_2007_trainval").samples[0]
    assert (sample.image_id, sample.width, sample.height) == ("000001", *tiny.SIZES[1])
    np.testing.assert_array_equal(sample.boxes, tiny.boxes_of(1, tiny.SIZES[1]))
    assert [voc.CLASS_NAMES[c] for c in sample.classes] == ["dog", "cat"]


def test_voc_keeps_difficult_objects_for_training(voc_root):
    train = for_training(
        concatenate([voc.read(voc_root, f"voc_{year}_trainval") for year in (2007, 2012)])
    )
    assert len(train.samples) == 12
    assert sum(int(sample.difficult.sum()) for sample in train.samples) == 2


def test_voc_image_without_objects_is_a_negative_in_test_and_left_out_of_training(tmp_path):
    root = tiny.voc(tmp_path, years=("VOC2007",))
    for image_id in ("000001", "000007"):
        (root / "VOC2007/Annotations" / f"{image_id}.xml").write_text(tiny.xml((60, 44), []))
    assert len(voc.read(root, "voc_2007_test").samples) == 4
    train = for_training(voc.read(root, "voc_2007_trainval"))
    assert len(train.samples) == 5
    assert train.faults == {"images without objects, left out of training": 1}


def test_voc_layout_may_be_symlinked_and_read_only(tmp_path, voc_root):
    (tmp_path / "VOC2007").symlink_to(voc_root / "VOC2007")
    tmp_path.chmod(0o500)
    assert len(voc.read(tmp_path, "voc_2007_test").samples) == 4
    tmp_path.chmod(0o700)


def test_voc_own_class_list(tmp_path):
    root = tiny.voc(tmp_path, years=("VOC2007",))
    (root / "classes.txt").write_text("dog\ncat\n")
    assert voc.read(root, "voc_2007_test").class_names == ("dog", "cat")


def test_voc_list_of_another_windows_editor(tmp_path):
    """A byte order mark is no part of the first id or class."""
    root = tiny.voc(tmp_path, years=("VOC2007",))
    (root / "classes.txt").write_text("dog\ncat\n", encoding="utf-8-sig")
    (root / TRAINVAL).write_text("000001\r\n000002\r\n", encoding="utf-8-sig")
    path = root / FIRST_XML
    path.write_text(path.read_text(), encoding="utf-8-sig")
    read = voc.read(root, "voc_2007_trainval")
    assert read.class_names == ("dog", "cat")
    assert [sample.image_id for sample in read.samples] == ["000001", "000002"]


def test_voc_list_of_one_class_takes_every_image_and_says_so(tmp_path):
    root = tiny.voc(tmp_path, years=("VOC2007",))
    (root / "VOC2007/ImageSets/Main/cat_trainval.txt").write_text(
        "000001 -1\n000002  1\n000003  0\n"
    )
    read = voc.read(root, "voc_2007_cat_trainval")
    assert [sample.image_id for sample in read.samples] == ["000001", "000002", "000003"]
    assert read.faults == {voc.ONE_CLASS: 3}


def test_voc_id_with_a_space_stays_whole(tmp_path):
    root = tiny.voc(tmp_path, years=("VOC2007",))
    for folder, suffix in (("Annotations", ".xml"), ("JPEGImages", ".jpg")):
        (root / "VOC2007" / folder / f"000001{suffix}").rename(
            root / "VOC2007" / folder / f"cat 1{suffix}"
        )
    (root / TRAINVAL).write_text("cat 1\n")
    read = voc.read(root, "voc_2007_trainval")
    assert (read.samples[0].image_id, read.faults) == ("cat 1", {})


@pytest.mark.parametrize("name", ["000001.JPG", "000001.png", "000001.jpeg", "000001.PNG"])
def test_voc_image_of_another_format(tmp_path, name):
    root = tiny.voc(tmp_path, years=("VOC2007",))
    folder = root / "VOC2007/JPEGImages"
    (folder / "000001.jpg").rename(folder / name)
    read = voc.read(root, "voc_2007_trainval")
    assert Path(read.samples[0].path) == folder / name
    assert f"VOC2007/JPEGImages/{name}" in read.files
    assert "VOC2007/JPEGImages/000002.jpg" in read.files


def test_voc_jpg_goes_before_its_copies(tmp_path):
    root = tiny.voc(tmp_path, years=("VOC2007",))
    folder = root / "VOC2007/JPEGImages"
    for name in ("000001.JPG", "000001.bmp"):
        (folder / name).write_bytes((folder / "000001.jpg").read_bytes())
    assert Path(voc.read(root, "voc_2007_trainval").samples[0].path).name == "000001.jpg"
    (folder / "000001.jpg").unlink()
    with pytest.raises(DataError, match=r"000001 has several files.*seen: 000001.JPG, 000001.bmp"):
        voc.read(root, "voc_2007_trainval")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<difficult>0</difficult>", False),
        ("<difficult>1</difficult>", True),
        ("<difficult>2</difficult>", True),
        ("<difficult> 1 </difficult>", True),
        ("<difficult>-1</difficult>", True),
        ("", False),
        ("<difficult>True</difficult>", None),
        ("<difficult>1.0</difficult>", None),
        ("<difficult/>", None),
    ],
)
def test_voc_difficult_is_a_whole_number(tmp_path, text, expected):
    """int() and then bool, as Detectron2's evaluator; it stops at anything else, and so do we."""
    root = tiny.voc(tmp_path, years=("VOC2007",))
    first = OBJECT.format("cat", 2).replace("</object>", f"{text}</object>")
    tiny.replaced(FIRST_XML, f"<annotation>{SIZE}{first}</annotation>")(root)
    if expected is None:
        with pytest.raises(
            DataError, match=r"difficult is not a whole number.*000001.xml.*write 1 for yes"
        ):
            voc.read(root, "voc_2007_trainval")
    else:
        assert voc.read(root, "voc_2007_trainval").samples[0].difficult.tolist() == [expected]


def test_voc_boxes_that_count_from_0_are_counted(tmp_path):
    root = tiny.voc(tmp_path, years=("VOC2007",))
    assert voc.read(root, "voc_2007_trainval").faults == {}
    # 0-based here, the file has one more
    boxes = [(-1, 5, 20, 20), (5, -1, 20, 20), (0, 0, 20, 20)]
    (root / FIRST_XML).write_text(tiny.xml((60, 44), [("cat", box, 0) for box in boxes]))
    assert voc.read(root, "voc_2007_trainval").faults == {voc.FROM_0: 2}


def _into(folder: Path, name: str) -> None:
    """Put all that a folder holds into a folder below it."""
    folder.rename(folder.with_name("moving"))
    folder.mkdir()
    folder.with_name("moving").rename(folder / name)


MISPLACED = {
    "year in itself": lambda root: _into(root / "VOC2007", "VOC2007"),
    "images in themselves": lambda root: _into(root / "VOC2007/JPEGImages", "JPEGImages"),
    "XML in themselves": lambda root: _into(root / "VOC2007/Annotations", "Annotations"),
    "lists in themselves": lambda root: _into(root / "VOC2007/ImageSets/Main", "Main"),
    "one folder deeper": lambda root: _into(root, "data set"),
    "devkit in itself": lambda root: (_into(root, "VOCdevkit"), _into(root, "VOCdevkit")),
    "one of two deeper": lambda root: (
        (root / "VOC2012").mkdir(),
        _into(root / "VOC2007", "VOC2007"),
        (root / "VOC2007").rename(root / "more"),
    ),
    "one of two named alike": lambda root: (
        (root / "VOC2012").mkdir(),
        _into(root / "VOC2007", "VOC2007"),
    ),
}


@pytest.mark.parametrize("name", MISPLACED)
def test_voc_that_lies_elsewhere_is_named_by_advice_that_works(tmp_path, name):
    root = tiny.voc(tmp_path / "data", years=("VOC2007",))
    MISPLACED[name](root)
    with pytest.raises(DataError) as caught:
        voc.read(root, "voc_2007_trainval")
    command = caught.value.next
    if command.startswith("--data "):
        root = Path(*shlex.split(command)[1:])
    else:
        subprocess.run(command, shell=True, check=True)
    assert len(voc.read(root, "voc_2007_trainval").samples) == 6


def test_voc_given_the_year_itself_names_the_folder_above(tmp_path):
    root = tiny.voc(tmp_path, years=("VOC2007",))
    with pytest.raises(DataError, match=rf"VOC2007 is missing.*next: --data {root}$"):
        voc.read(root / "VOC2007", "voc_2007_trainval")


def test_voc_ids_with_a_suffix_are_told(tmp_path):
    root = tiny.voc(tmp_path, years=("VOC2007",))
    (root / TRAINVAL).write_text("000001.jpg\n")
    with pytest.raises(
        DataError,
        match=r"000001.jpg of trainval.txt has no XML.*without suffix into trainval.txt: 000001",
    ):
        voc.read(root, "voc_2007_trainval")


def test_odd_boxes_are_counted_and_kept_for_the_metric(tmp_path):
    root = tiny.voc(tmp_path, years=("VOC2007",))
    boxes = [(5, 5, 5, 20), (70, 5, 90, 20), (-9, 5, 20, 20), (5, 5, 20, 20)]
    xml = tiny.xml((60, 44), [("cat", box, 0) for box in boxes])
    (root / "VOC2007/Annotations/000001.xml").write_text(xml)
    read = voc.read(root, "voc_2007_trainval")
    assert len(read.samples[0].boxes) == 4
    assert {key.split(",")[0]: n for key, n in read.faults.items()} == {
        "boxes without area": 1,
        "boxes wholly outside their image": 1,
        "boxes partly outside their image": 1,
    }


SIZE = "<size><width>60</width><height>44</height></size>"
OBJECT = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
TRAINVAL = "VOC2007/ImageSets/Main/trainval.txt"
FIRST_XML = "VOC2007/Annotations/000001.xml"


def _objects(name, xmin):
    return tiny.replaced(FIRST_XML, f"<annotation>{SIZE}{OBJECT.format(name, xmin)}</annotation>")


VOC_FAULTS = {
    "split missing": (lambda r: (r / TRAINVAL).unlink(), "split is missing.*test.txt.*unpack"),
    "split empty": (tiny.replaced(TRAINVAL, "\n"), "split is empty"),
    "UTF-16 split": (
        lambda r: (r / TRAINVAL).write_text("000001", encoding="utf-16"),
        "cannot read split.*plain text, UTF-8",
    ),
    "UTF-16 classes": (
        lambda r: (r / "classes.txt").write_text("cat", encoding="utf-16"),
        "cannot read class list.*plain text",
    ),
    "slash in a class": (
        lambda r: (r / "classes.txt").write_text("cat\n../dog\n"),
        "class name has a slash.*classes.txt.*[.][.]/dog.*rename",
    ),
    "no XML but in another case": (
        lambda r: (
            tiny.replaced(TRAINVAL, "A1\n")(r),
            (r / FIRST_XML).rename(r / FIRST_XML.replace("000001", "a1")),
        ),
        "A1 of trainval.txt has no XML.*rename a1.xml to A1.xml",
    ),
    "id twice": (tiny.replaced(TRAINVAL, "000001\n000001\n"), "lists an image twice.*000001"),
    "year missing": (lambda r: (r / "VOC2007").rename(r / "VOC07"), "VOC2007 is missing.*VOC07"),
    "no images": (lambda r: (r / "VOC2007/JPEGImages").rename(r / "x"), "no JPEGImages folder"),
    "no image": (
        lambda r: (r / "VOC2007/JPEGImages/000003.jpg").unlink(),
        "000003 of trainval.txt has no image",
    ),
    "no XML": (
        lambda r: (r / "VOC2007/Annotations/000003.xml").unlink(),
        "000003 of trainval.txt has no XML",
    ),
    "cut XML": (tiny.replaced(FIRST_XML, "<annotation><size>"), "not a VOC annotation.*000001.xml"),
    "no size": (tiny.replaced(FIRST_XML, "<annotation></annotation>"), "no number at size/width"),
    "size zero": (
        tiny.replaced(FIRST_XML, f"<annotation>{SIZE.replace('60', '0')}</annotation>"),
        "no image size",
    ),
    "class": (_objects("catt", 2), "'catt'; did you mean 'cat'"),
    "box": (_objects("cat", "x"), "no number at bndbox/xmin.*x"),
    "nan": (_objects("cat", "nan"), "no number at bndbox/xmin"),
    "bomb": (
        tiny.replaced(FIRST_XML, '<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>'),
        "DOCTYPE",
    ),
}


@pytest.mark.parametrize("name", VOC_FAULTS)
def test_voc_fault_is_one_clear_line(tmp_path, name):
    spoil, message = VOC_FAULTS[name]
    root = tiny.voc(tmp_path, years=("VOC2007",))
    spoil(root)
    with pytest.raises(DataError, match=message) as caught:
        voc.read(root, "voc_2007_trainval")
    assert caught.value.exit_code == 3
    assert "\n" not in caught.value.line()


def test_voc_without_2012_names_the_override(tmp_path):
    root = tiny.voc(tmp_path, years=("VOC2007",))
    with pytest.raises(DataError, match="VOC2012 is missing") as missing:
        voc.read(root, "voc_2012_trainval")
    (override,) = shlex.split(str(missing.value).partition("with the override ")[2])
    assert recipe.load("voc-c4-24k", [override]).DATASETS.TRAIN == ("voc_2007_trainval",)

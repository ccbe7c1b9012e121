"""Both data sets from their original layouts, and every fault as one line."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harl_bench.core.errors import DataError, UnreadableError
from harl_bench.core.palette import voc_palette
from harl_bench.segmentation import datasets
from harl_bench.segmentation.datasets import cityscapes, voc
from harl_bench.segmentation.datasets.checks import require_usable
from tests.segmentation import trees


@pytest.mark.parametrize("kind", ["palette", "gray", "sbd"])
def test_train_aug_is_the_union_without_val_and_vocs_own_labels_win(
    kind: str, tmp_path: Path
) -> None:
    train, val = datasets.read("voc12aug", trees.voc(tmp_path, kind))
    stems = [Path(item.image).stem for item in train.items]
    assert stems == sorted([*trees.ids("train", 3), *trees.ids("extra", 4)])
    assert [Path(item.image).stem for item in val.items] == trees.ids("val", 3)
    for row, stem in enumerate(stems):
        number = row if stem in trees.ids("train", 3) else 6 + trees.ids("extra", 4).index(stem)
        expected = trees.label_of(number)
        if stem in trees.ids("train", 3):
            expected[:2] = 255  # the border is VOC's alone
        assert np.array_equal(train.label(row), expected)
    assert train.departure == "train_aug has 7 images, the published 10,582"
    require_usable(train, scored=False)
    require_usable(val, scored=True)


def test_the_three_kinds_of_extra_labels_read_alike(tmp_path: Path) -> None:
    labels = []
    for kind in ("palette", "gray", "sbd"):
        train, _ = datasets.read("voc12aug", trees.voc(tmp_path / kind, kind))
        labels.append([train.label(row).tobytes() for row in range(len(train.items))])
    assert labels[0] == labels[1] == labels[2]


@pytest.mark.parametrize("place", [".", "VOCdevkit", "VOC2012"])
def test_the_folder_may_be_above_or_vocs_own(place: str, tmp_path: Path) -> None:
    trees.voc(tmp_path / "data")
    root = tmp_path / "data"
    if place == "VOCdevkit":
        (root / "VOCdevkit").mkdir()
        (root / "VOC2012").rename(root / "VOCdevkit" / "VOC2012")
    train, val = datasets.read("voc12aug", root / ("VOC2012" if place == "VOC2012" else "."))
    assert (len(train.items), len(val.items)) == (7, 3)


def test_sbd_beside_the_kit_is_found_from_vocs_own_folder(tmp_path: Path) -> None:
    root = trees.voc(tmp_path, "sbd")
    (root / "VOCdevkit").mkdir()
    (root / "VOC2012").rename(root / "VOCdevkit" / "VOC2012")
    for given in (root, root / "VOCdevkit" / "VOC2012"):
        train, _ = datasets.read("voc12aug", given)
        assert len(train.items) == 7


@pytest.mark.parametrize("column", ["{0}", "/JPEGImages/{0}.jpg /SegmentationClassAug/{0}.png"])
def test_lists_of_the_wild(column: str, tmp_path: Path) -> None:
    """Trainaug lists name VOC's own images too, by id or by two paths; val is never trained on."""
    root = trees.voc(tmp_path)
    names = [*trees.ids("train", 3), *trees.ids("extra", 2), *trees.ids("val", 3)]
    lines = [column.format(name) for name in names]
    trees.write_list(root / "VOC2012/ImageSets/Segmentation/trainaug.txt", lines)
    train, _ = datasets.read("voc12aug", root)
    assert len(train.items) == 5


def test_voc12_trains_on_vocs_own(tmp_path: Path) -> None:
    train, _ = datasets.read("voc12", trees.voc(tmp_path, "none"))
    assert [Path(item.image).stem for item in train.items] == trees.ids("train", 3)


def test_cityscapes_maps_the_ids(tmp_path: Path) -> None:
    for root in (trees.cityscapes(tmp_path / "data/cityscapes"), tmp_path / "data"):
        train, val = datasets.read("cityscapes", root)
        assert (len(train.items), len(val.items)) == (3, 2)
        ids = trees.label_of(1, (trees.CAR, trees.SKY), ground=7)
        expected = np.select([ids == trees.CAR, ids == trees.SKY], [13, 10], 0).astype(np.uint8)
        expected[:3] = 255
        assert np.array_equal(train.label(1), expected)
        require_usable(train, scored=True)


# The mapping of the specification, written out once more.
SPEC = "7:0 8:1 11:2 12:3 13:4 17:5 19:6 20:7 21:8 22:9 23:10 24:11 25:12 26:13 27:14 28:15 31:16 32:17 33:18"


@pytest.mark.parametrize(
    ("name", "tree"), [("voc12aug", trees.voc), ("cityscapes", trees.cityscapes)]
)
def test_what_a_mac_leaves_beside_each_file_is_passed_over(
    name: str, tree: Callable[[Path], Path], tmp_path: Path
) -> None:
    root = tree(tmp_path)
    before = datasets.read(name, root)
    for path in [path for path in root.rglob("*.png") if path.is_file()]:
        path.with_name(f"._{path.name}").write_bytes(b"Mac OS X")
    assert [split.items for split in datasets.read(name, root)] == [s.items for s in before]


def test_tables() -> None:
    mapping = dict(map(int, pair.split(":")) for pair in SPEC.split())
    assert [cityscapes.TABLE[v] for v in range(34)] == [mapping.get(v, 255) for v in range(34)]
    assert set(cityscapes.TABLE[34:255]) == {254}
    assert voc.TABLE[:21] == tuple(range(21))
    assert set(voc.TABLE[21:255]) == {254}
    assert voc.TABLE[255] == cityscapes.TABLE[255] == 255
    # VOCdevkit's first colors, and that of the border.
    assert voc_palette()[:4] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert voc_palette()[20] == (0, 64, 128)
    assert voc_palette()[255] == (224, 224, 192)


def own(root: Path, split: str = "train", k: int = 1) -> Path:
    return root / "VOC2012/SegmentationClass" / f"{trees.ids(split, 3)[k]}.png"


def as_rgb(root: Path) -> None:
    Image.open(own(root)).convert("RGB").save(own(root))


def as_gray(root: Path) -> None:
    Image.open(own(root)).convert("L").save(own(root))


def other_values(root: Path) -> None:
    label = trees.label_of(1)
    label[3, 3:5] = 21, 77
    trees.save_palette(own(root), label)


def other_size(root: Path) -> None:
    trees.save_palette(own(root), trees.label_of(1)[:-1])


def blank(root: Path) -> None:
    trees.save_palette(own(root, "val"), np.full_like(trees.label_of(4), 255))


def cut_short(root: Path) -> None:
    own(root).write_bytes(own(root).read_bytes()[:60])


def shared(root: Path) -> None:
    trees.write_list(
        root / "VOC2012/ImageSets/Segmentation/val.txt",
        [*trees.ids("val", 3), trees.ids("train", 2)[1]],
    )


def no_file(*parts: str) -> Callable[[Path], None]:
    def remove(root: Path) -> None:
        path = root.joinpath(*parts)
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return remove


VOC_FAULTS = {
    "rgb": (as_rgb, "colors instead of classes", "mode RGB"),
    "gray": (as_gray, "none of the 21 classes", "VOC's colors turned into gray"),
    "values": (other_values, "none of the 21 classes", "seen: 21, 77"),
    "size": (other_size, "label and image differ in size", "label 44 x 59, image 44 x 60"),
    "blank": (blank, "every pixel is ignored", "255 alone"),
    "truncated": (cut_short, "unreadable image", "replace or remove it"),
    "overlap": (shared, "1 images are in train_aug and in val", trees.ids("train", 2)[1]),
    "no images": (no_file("VOC2012/JPEGImages"), "no JPEGImages folder", "VOCtrainval_11"),
    "no labels": (no_file("VOC2012/SegmentationClass"), "no SegmentationClass folder", "unpack"),
    "no label": (
        no_file("VOC2012/SegmentationClass", f"{trees.ids('val', 1)[0]}.png"),
        "1 of 6 listed ids have no label",
        "unpack",
    ),
    "no image": (
        no_file("VOC2012/JPEGImages", f"{trees.ids('extra', 1)[0]}.jpg"),
        "1 of 10 listed ids have no image",
        "unpack",
    ),
    "no list": (
        no_file("VOC2012/ImageSets/Segmentation/val.txt"),
        "the list val.txt is missing",
        "train.txt",
    ),
    "no extra": (no_file("VOC2012/SegmentationClassAug"), "no extra labels", "dataset=voc12"),
}


def check(name: str, root: Path) -> None:
    for split in datasets.read(name, root):
        require_usable(split, scored=True)


@pytest.mark.parametrize("case", VOC_FAULTS)
def test_faults_of_voc_are_one_line_each(case: str, tmp_path: Path) -> None:
    spoil, what, detail = VOC_FAULTS[case]
    root = trees.voc(tmp_path)
    spoil(root)
    with pytest.raises(DataError) as caught:
        check("voc12aug", root)
    line = caught.value.line()
    assert what in line
    assert detail in line
    assert "\n" not in line


def test_a_damaged_mat_is_named(tmp_path: Path) -> None:
    root = trees.voc(tmp_path, "sbd")
    path = root / "SBD/dataset/cls" / f"{trees.ids('extra', 1)[0]}.mat"
    whole = path.read_bytes()
    for content in (b"", whole[:150], whole[:-20], b"no mat file at all", whole[:128] + b"x" * 90):
        path.write_bytes(content)
        with pytest.raises(UnreadableError, match=f"not a label of SBD.*{path.name}"):
            require_usable(datasets.read("voc12aug", root)[0], scored=False)


def test_a_listed_id_without_mat(tmp_path: Path) -> None:
    root = trees.voc(tmp_path, "sbd")
    (root / "SBD/dataset/cls" / f"{trees.ids('extra', 1)[0]}.mat").unlink()
    with pytest.raises(DataError, match=r"1 of 6 listed ids have no label.*benchmark.tgz"):
        datasets.read("voc12aug", root)


def city_file(kind: str, split: str = "train") -> str:
    city = {"train": "aachen", "val": "munster"}[split]
    folder, suffix = {
        "image": ("leftImg8bit", "leftImg8bit"),
        "label": ("gtFine", "gtFine_labelIds"),
    }[kind]
    return f"{folder}/{split}/{city}/{city}_000001_000019_{suffix}.png"


def same_in_both(root: Path) -> None:
    for kind in ("image", "label"):
        target = root / city_file(kind).replace("/train/", "/val/")
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(root / city_file(kind), target)


def train_ids(root: Path) -> None:
    Image.fromarray(np.full((60, 44), 40, np.uint8)).save(root / city_file("label"))


CITY_FAULTS = {
    "no truth": (no_file("gtFine"), "a half of Cityscapes is missing", "gtFine_trainvaltest.zip"),
    "no val": (no_file("leftImg8bit/val"), "a half of Cityscapes is missing", "leftImg8bit_"),
    "no label": (no_file(city_file("label")), "1 of 3 images of train have no label", "gtFine_"),
    "no image": (no_file(city_file("image")), "1 of 3 labels of train have no image", "leftImg8"),
    "overlap": (same_in_both, "1 images are in train and in val", "aachen_000001"),
    "values": (train_ids, "none of the 19 classes", "seen: 40"),
}


@pytest.mark.parametrize("case", CITY_FAULTS)
def test_faults_of_cityscapes_are_one_line_each(case: str, tmp_path: Path) -> None:
    spoil, what, detail = CITY_FAULTS[case]
    root = trees.cityscapes(tmp_path)
    spoil(root)
    with pytest.raises(DataError) as caught:
        check("cityscapes", root)
    assert what in caught.value.line()
    assert detail in caught.value.line()


def test_a_wrong_folder_gets_the_right_one_as_advice(tmp_path: Path) -> None:
    trees.voc(tmp_path / "deep/data")
    with pytest.raises(DataError, match=r"VOC2012 is missing.*--data \S*/deep/data"):
        datasets.read("voc12aug", tmp_path)
    trees.cityscapes(tmp_path / "other/city")
    with pytest.raises(DataError, match=r"Cityscapes is missing.*--data \S*/other/city"):
        datasets.read("cityscapes", tmp_path / "other/..")
    with pytest.raises(DataError, match="data folder not found"):
        datasets.read("voc12", tmp_path / "nowhere")


def test_the_fingerprint_knows_images_and_labels(tmp_path: Path) -> None:
    root = trees.voc(tmp_path)
    first = datasets.fingerprints(datasets.read("voc12aug", root))[0]
    assert datasets.fingerprints(datasets.read("voc12aug", root))[0] == first
    blank(root)
    assert datasets.fingerprints(datasets.read("voc12aug", root))[0] != first

"""The readers on tiny data in the true layouts: against torchvision's where it reads them, and
every fault one line.
"""

import os
import pickle
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torchvision

from harl_bench.classify.datasets import DATASETS, PUBLISHED
from harl_bench.core.errors import DataError
from tests.classify.layouts import VOC, WRITERS, cars_whole, cifar10, cifar100, draw_image

LABELS = {  # classes in the order of their labels, and sizes of train and test
    "food101": (["apple_pie", "waffles"], 12, 6),
    "cifar10": (["airplane", "automobile"], 20, 4),
    "cifar100": (["apple", "bear", "chair"], 12, 6),
    "sun397": (["abbey", "apartment_building/outdoor", "yard"], 15, 6),
    "cars": (["AM General Hummer SUV 2000", "Acura RL Sedan 2012"], 6, 3),
    "dtd": (["banded", "zigzagged"], 6, 6),
    "birdsnap": (["Acadian Flycatcher", "Acorn Woodpecker"], 12, 4),
    "aircraft": (["707-320", "Boeing 717"], 6, 6),
    "voc2007-cls": (VOC, 6, 6),
    "pets": (["Abyssinian", "American Bulldog"], 48, 6),
    "caltech101": (["Faces", "accordion"], 60, 11),
    "flowers": (["1", "2"], 6, 6),
    "stl10": (["airplane", "bird"], 8, 4),
    "places365": (["airfield", "apartment_building/outdoor"], 28, 6),
    "inaturalist2018": (["Bufo", "Corvus"], 10, 4),
    "imagenet": (["n01440764", "n02129165"], 28, 6),
    "imagenet100": (["n01440764", "n02129165"], 28, 6),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_reader(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path)
    found = DATASETS[name](tmp_path)
    classes, train, test = LABELS[name]
    assert found.name == name
    assert found.classes == classes
    assert (len(found.splits["train"]), len(found.splits["test"])) == (train, test)
    assert found.paths == sorted(found.paths) or found.pixels is not None
    divided = found.divided(0)
    parts = [set(divided[split].tolist()) for split in ("train", "val", "test")]
    assert all(parts)
    assert not parts[0] & parts[1] and not (parts[0] | parts[1]) & parts[2]  # noqa: PT018
    assert parts[0] | parts[1] | parts[2] == set(range(len(found.paths)))
    assert found.read(0).mode == "RGB"
    assert any("instead of the published" in departure for departure in found.departures)
    assert DATASETS[name](tmp_path).fingerprint == found.fingerprint


def rivals(name: str, root: Path, split: str) -> Iterable[tuple[str | Path, int]]:
    """Paths and labels of a split by torchvision's class."""
    sets = torchvision.datasets
    if name == "cars":
        return sets.StanfordCars(root, split)._samples
    if name == "imagenet":
        return sets.ImageFolder(root / {"train": "train", "test": "val"}[split]).samples
    if name == "dtd":
        rival = sets.DTD(root / "dtd" / "..", split)
    elif name == "pets":
        rival = sets.OxfordIIITPet(root, {"train": "trainval"}.get(split, split))
        return zip(rival._images, rival._labels, strict=True)
    else:
        classes = {"food101": "Food101", "aircraft": "FGVCAircraft", "flowers": "Flowers102"}
        rival = getattr(sets, classes[name])(root, split)
    return zip(rival._image_files, rival._labels, strict=True)


@pytest.mark.parametrize(
    "name", ["food101", "dtd", "cars", "imagenet", "pets", "aircraft", "flowers"]
)
def test_equal_to_torchvision(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.datasets.flowers102.check_integrity", lambda *_: True)
    WRITERS[name](tmp_path)
    found = DATASETS[name](tmp_path)
    for split in found.splits:
        ours = sorted(
            (os.path.realpath(found.root / found.paths[row]), int(found.labels[row]))
            for row in found.splits[split]
        )
        theirs = rivals(name, tmp_path, split)
        assert ours == sorted((os.path.realpath(path), int(label)) for path, label in theirs)


def test_stl10_has_torchvisions_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.datasets.stl10.check_integrity", lambda *_: True)
    WRITERS["stl10"](tmp_path)
    found = DATASETS["stl10"](tmp_path)
    assert found.pixels is not None
    for split, rows in found.splits.items():
        rival = torchvision.datasets.STL10(tmp_path, split)
        np.testing.assert_array_equal(found.pixels[rows], rival.data.transpose(0, 2, 3, 1))
        assert found.labels[rows].tolist() == rival.labels.tolist()


@pytest.mark.parametrize(("split", "theirs"), [("train", "train-standard"), ("test", "val")])
def test_places365_lists_torchvisions_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str, theirs: str
) -> None:
    monkeypatch.setattr("torchvision.datasets.places365.check_integrity", lambda *_, **__: True)
    WRITERS["places365"](tmp_path)
    found = DATASETS["places365"](tmp_path)
    rival = torchvision.datasets.Places365(tmp_path / "places365", theirs, small=True)
    ours = [(str(found.root / found.paths[i]), int(found.labels[i])) for i in found.splits[split]]
    assert ours == sorted(rival.imgs)
    monkeypatch.undo()
    (tmp_path / "places365" / "val_256").rename(tmp_path / "places365" / "elsewhere")
    with pytest.raises(DataError, match="no folder of the test images, val_256 or val_large"):
        DATASETS["places365"](tmp_path)


def test_caltech101_lists_torchvisions_images(tmp_path: Path) -> None:
    WRITERS["caltech101"](tmp_path)
    found = DATASETS["caltech101"](tmp_path)
    rival = torchvision.datasets.Caltech101(tmp_path)
    assert found.classes == rival.categories
    numbers = [int(path[-8:-4]) for path in found.paths]
    ours = list(zip(found.labels.tolist(), numbers, strict=True))
    assert ours == list(zip(rival.y, rival.index, strict=True))
    train, again = found.splits["train"], DATASETS["caltech101"](tmp_path).splits["train"]
    assert np.bincount(found.labels[train]).tolist() == [30, 30]
    assert train.tolist() == again.tolist()
    assert not {1, 30} >= set(numbers)  # drawn, not the first ones
    divided = found.divided(0)
    assert np.bincount(found.labels[divided["val"]]).tolist() == [5, 5]
    assert any("BACKGROUND_Google" in departure for departure in found.departures)


def test_voc2007_lists_torchvisions_images(tmp_path: Path) -> None:
    WRITERS["voc2007-cls"](tmp_path / "VOCdevkit")
    found = DATASETS["voc2007-cls"](tmp_path)
    for split, rows in found.splits.items():
        rival = torchvision.datasets.VOCDetection(tmp_path, "2007", split)
        assert [str(found.root / found.paths[row]) for row in rows] == rival.images


def test_dead_links_of_birdsnap_are_counted(tmp_path: Path) -> None:
    WRITERS["birdsnap"](tmp_path)
    found = DATASETS["birdsnap"](tmp_path)
    assert "12 training images instead of the published 47,386" in found.departures
    for path in (tmp_path / "birdsnap/download/images/Acorn_Woodpecker").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"1 of 2 classes have no train image.*Acorn Woodpecker"):
        DATASETS["birdsnap"](tmp_path)


@pytest.mark.parametrize(("name", "write"), [("cifar10", cifar10), ("cifar100", cifar100)])
def test_cifar_pickles_records_and_torchvision_agree(
    tmp_path: Path, name: str, write: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "py")
    write(tmp_path / "bin", binary=True)
    one, two = DATASETS[name](tmp_path / "py"), DATASETS[name](tmp_path / "bin")
    assert one.fingerprint == two.fingerprint
    assert one.classes == two.classes
    rival = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}[
        name
    ]
    monkeypatch.setattr(rival, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    for split in ("train", "test"):
        theirs = rival(tmp_path / "py", train=split == "train")
        assert one.pixels is not None
        np.testing.assert_array_equal(one.pixels[one.splits[split]], theirs.data)
        assert one.labels[one.splits[split]].tolist() == theirs.targets
    np.testing.assert_array_equal(np.asarray(two.read(3)), one.pixels[3])


def test_a_pickle_that_would_run_code_runs_none(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path(tmp_path / "sprung").write_text, ("gotcha",))

    cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(
        pickle.dumps({"data": Trap(), "labels": [0]}, 2)
    )
    with pytest.raises(DataError, match="not a CIFAR batch"):
        DATASETS["cifar10"](tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_labels_of_voc2007(tmp_path: Path) -> None:
    WRITERS["voc2007-cls"](tmp_path)
    found = DATASETS["voc2007-cls"](tmp_path)
    assert found.multilabel
    assert found.metric == "mAP11"
    assert found.labels.shape == (18, 20)
    train = found.labels[found.splits["train"]]
    columns = [VOC.index(name) for name in ("bicycle", "bird", "cat", "cow")]
    assert train[:, columns].T.tolist() == [
        [1, 0, 1, 1, 1, 0],
        [1, 1, 0, 1, 0, 1],
        [-1, 0, 0, 0, -1, 0],
        [0] * 6,
    ]


def test_cars_in_one_folder(tmp_path: Path) -> None:
    cars_whole(tmp_path)
    found = DATASETS["cars"](tmp_path)
    assert (len(found.splits["train"]), len(found.splits["test"])) == (6, 3)
    assert found.labels[:4].tolist() == [0, 1, 0, 1]


def test_data_may_name_the_set_itself(tmp_path: Path) -> None:
    for name, folder in {
        "food101": "food-101",
        "sun397": "SUN397",
        "cars": "stanford_cars",
        "dtd": "dtd",
    }.items():
        WRITERS[name](tmp_path)
        assert DATASETS[name](tmp_path / folder).fingerprint == DATASETS[name](tmp_path).fingerprint


def cut(path: str, keep: int) -> Callable[[Path], None]:
    return lambda root: (root / path).write_bytes((root / path).read_bytes()[:keep]) and None


def drop(path: str) -> Callable[[Path], None]:
    return lambda root: (root / path).unlink()


def put(path: str, text: str) -> Callable[[Path], None]:
    return lambda root: (root / path).write_text(text) and None


def unlabelled(root: Path) -> None:
    from scipy.io import savemat

    from tests.classify.layouts import _records

    notes = _records({"bbox_x1": [1], "fname": ["00001.jpg"]})
    savemat(root / "stanford_cars/cars_test_annos_withlabels.mat", {"annotations": notes})


def few(root: Path) -> None:
    for path in sorted((root / "caltech101/101_ObjectCategories/Faces").iterdir())[1:]:
        path.unlink()


def twice(root: Path) -> None:
    folder = root / "caltech101/101_ObjectCategories"
    folder.rename(root / "moving")
    folder.mkdir()
    (root / "moving").rename(folder / folder.name)


def untested(root: Path) -> None:
    for line in (root / "birdsnap/test_images.txt").read_text().split()[1:]:
        (root / "birdsnap/download/images" / line).unlink()


PLANES = "fgvc-aircraft-2013b/data"


def absent(root: Path) -> None:
    for path in (root / "VOC2007/ImageSets/Main").glob("*_val.txt"):
        path.write_text(path.read_text().replace("  1", " -1").replace("  0", " -1"))


def trainval_alone(root: Path) -> None:
    for path in (root / "VOC2007/ImageSets/Main").glob("*_test.txt"):
        path.unlink()


def flat(root: Path) -> None:
    for path in list((root / "val").rglob("*.JPEG")):
        path.rename(root / "val" / path.name)


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        (
            "food101",
            drop("food-101/images/waffles/1007.jpg"),
            "1 of 18 listed images are missing.*first images/waff",
        ),
        ("food101", put("food-101/meta/train.json", "{"), "cannot read list"),
        ("food101", put("food-101/meta/test.json", '{"pho": []}'), "not in train.json"),
        ("food101", drop("food-101/meta/train.json"), "unpack food-101.tar.gz"),
        (
            "dtd",
            put("dtd/dtd/labels/test1.txt", "banded/banded_0002.jpg\n"),
            "1 of 2 classes have no test image",
        ),
        ("dtd", put("dtd/dtd/labels/val1.txt", "pitted/pitted_0002.jpg\n"), "no image folder"),
        ("dtd", put("dtd/dtd/labels/val1.txt", "banded/banded_0000.jpg\n"), "listed twice"),
        ("sun397", drop("SUN397/Partitions/Testing_01.txt"), "cannot read list"),
        ("sun397", drop("SUN397/Partitions/Training_01.txt"), "by hand"),
        ("sun397", put("SUN397/Partitions/Testing_01.txt", "/z/zoo/sun_a.jpg\n"), "of no class"),
        ("cars", cut("stanford_cars/devkit/cars_meta.mat", 90), "cannot read MATLAB file"),
        ("cars", drop("stanford_cars/cars_test_annos_withlabels.mat"), "file not found.*by hand"),
        ("cars", unlabelled, "annotations without 'class'"),
        ("cifar10", cut("cifar-10-batches-py/data_batch_2", 400), "cannot read CIFAR batch"),
        ("cifar10", drop("cifar-10-batches-py/test_batch"), "file not found.*cifar-10-python"),
        ("cifar100", drop("cifar-100-python/train"), "cifar-100-python.tar.gz"),
        ("birdsnap", put("birdsnap/images.txt", "url md5\n"), "no tab-separated columns path, sp"),
        ("birdsnap", put("birdsnap/species.txt", "id\tcommon\n1\tCrow\n"), "image of no species"),
        (
            "birdsnap",
            lambda root: shutil.rmtree(root / "birdsnap/download"),
            "18 of 18 listed images are missing.*get_birdsnap.py",
        ),
        ("birdsnap", cut("birdsnap/images.txt", 95), "a line has fewer than 4 fields.*seen: http"),
        ("birdsnap", put("birdsnap/species.txt", "id\tcommon\nx\tCrow\n"), "without a number.*x"),
        (
            "birdsnap",
            put("birdsnap/test_images.txt", "path\nAcorn_Woodpecker\\1.jpg\n"),
            "a test image is not in images.txt",
        ),
        ("birdsnap", untested, "no test image is there.*get_birdsnap.py"),
        (
            "aircraft",
            put(f"{PLANES}/images_variant_val.txt", "0001002 747\n"),
            "not in variants.txt",
        ),
        ("aircraft", put(f"{PLANES}/images_variant_val.txt", "0001002\n"), "fewer than 2 fields"),
        ("aircraft", drop(f"{PLANES}/variants.txt"), "cannot read list.*variants.txt"),
        ("pets", put("oxford-iiit-pet/annotations/test.txt", "cat_1 x 1 1\n"), "without a label"),
        ("pets", drop("oxford-iiit-pet/images/Abyssinian_3.jpg"), "1 of 54 listed images are miss"),
        ("flowers", drop("flowers-102/setid.mat"), "file not found.*place.*setid.mat"),
        ("flowers", cut("flowers-102/imagelabels.mat", 90), "cannot read MATLAB file"),
        ("stl10", cut("stl10_binary/train_X.bin", 999), "train_X.bin is cut short.*for 8 labels"),
        ("stl10", drop("stl10_binary/test_y.bin"), "file not found.*stl10_binary.tar.gz"),
        ("places365", put("places365/places365_val.txt", "Places365_val_1.jpg 9\n"), "no category"),
        (
            "places365",
            put("places365/categories_places365.txt", "/a/airfield one\n"),
            "a category without a number.*/a/airfield",
        ),
        ("inaturalist2018", put("inaturalist2018/val2018.json", "{"), "cannot read list"),
        ("inaturalist2018", put("inaturalist2018/val2018.json", "{}"), "no 'annotations'"),
        ("caltech101", few, "1 of 2 classes have no train image.*Faces"),
        ("caltech101", twice, "no test image is there"),
        (
            "voc2007-cls",
            drop("VOC2007/ImageSets/Main/sofa_val.txt"),
            "cannot read list.*sofa_val.txt",
        ),
        (
            "voc2007-cls",
            trainval_alone,
            "no .*aeroplane_test.txt.*unpack .*VOCtest_06-Nov-2007.tar",
        ),
        (
            "voc2007-cls",
            put("VOC2007/ImageSets/Main/dog_test.txt", "000003 2\n"),
            "no image with 1, 0 or -1.*000003 2",
        ),
        (
            "voc2007-cls",
            put("VOC2007/ImageSets/Main/dog_test.txt", "000003 1\n"),
            "dog_test.txt and aeroplane_test.txt list different images",
        ),
        ("voc2007-cls", absent, "no val image shows a class"),
        ("imagenet", flat, "no class folders"),
    ],
)
def test_every_fault_is_one_line(
    tmp_path: Path, name: str, spoil: Callable[[Path], None], message: str
) -> None:
    WRITERS[name](tmp_path)
    spoil(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        DATASETS[name](tmp_path)
    assert "\n" not in caught.value.line()


@pytest.mark.parametrize("name", ["aircraft", "dtd", "flowers", "voc2007-cls"])
def test_an_official_validation_split_is_counted(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    WRITERS[name](tmp_path)
    sizes = {split: len(rows) for split, rows in DATASETS[name](tmp_path).splits.items()}
    known = PUBLISHED[name]._replace(**sizes)
    monkeypatch.setitem(PUBLISHED, name, known)
    of_images = [text for text in DATASETS[name](tmp_path).departures if "images" in text]
    assert of_images == []
    monkeypatch.setitem(PUBLISHED, name, known._replace(val=known.val + 1))
    (departure,) = (text for text in DATASETS[name](tmp_path).departures if "images" in text)
    assert departure == f"{known.val} validation images instead of the published {known.val + 1}"


def test_a_cut_list_does_not_rename_images(tmp_path: Path) -> None:
    WRITERS["sun397"](tmp_path)
    path = tmp_path / "SUN397/Partitions/Testing_01.txt"
    path.write_text(path.read_text().rstrip()[:-2])
    with pytest.raises(DataError, match="1 of 21 listed images are missing") as caught:
        DATASETS["sun397"](tmp_path)
    assert "rename" not in caught.value.line()


def test_a_cut_binary_batch(tmp_path: Path) -> None:
    cifar100(tmp_path, binary=True)
    cut("cifar-100-binary/test.bin", 5000)(tmp_path)
    with pytest.raises(DataError, match="no multiple of 3,074"):
        DATASETS["cifar100"](tmp_path)


def test_images_outside_the_lists_do_not_count(tmp_path: Path) -> None:
    WRITERS["sun397"](tmp_path)
    before = DATASETS["sun397"](tmp_path)
    draw_image(tmp_path / "SUN397/a/abbey/sun_new.jpg", 0, 9)
    assert DATASETS["sun397"](tmp_path).fingerprint == before.fingerprint

"""What is wrong with a data set is one line, and what is beside its lists does not count."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harl_bench.classify.datasets import DATASETS, PUBLISHED
from harl_bench.core.errors import DataError
from tests.classify.layouts import WRITERS, cifar100, draw_image


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

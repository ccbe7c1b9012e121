"""The readers on tiny data in the true layouts: against torchvision's where it reads them, and
every fault one line.
"""

import os
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torchvision

from harl_bench.classify.datasets import DATASETS
from harl_bench.core.errors import DataError
from tests.classify.layouts import VOC, WRITERS, cars_whole, cifar10, cifar100

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

"""The readers on tiny data in the true layouts: against torchvision's where it reads them, and
every fault one line.
"""

import hashlib
import os
import pickle
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torchvision

from harl_bench.classify import splits
from harl_bench.classify.datasets import DATASETS, PUBLISHED
from harl_bench.core.errors import DataError
from tests.classify.layouts import WRITERS, cars_whole, cifar10, cifar100, draw_image

LABELS = {  # classes in the order of their labels, and sizes of train and test
    "food101": (["apple_pie", "waffles"], 12, 6),
    "cifar10": (["airplane", "automobile"], 20, 4),
    "cifar100": (["apple", "bear", "chair"], 12, 6),
    "sun397": (["abbey", "apartment_building/outdoor", "yard"], 15, 6),
    "cars": (["AM General Hummer SUV 2000", "Acura RL Sedan 2012"], 6, 3),
    "dtd": (["banded", "zigzagged"], 6, 6),
    "imagenet": (["n01440764", "n02129165"], 28, 6),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_reader(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path)
    found = DATASETS[name](tmp_path)
    classes, train, test = LABELS[name]
    assert found.name == name
    assert found.classes == classes
    assert (len(found.splits["train"]), len(found.splits["test"])) == (train, test)
    assert found.paths == sorted(found.paths) or name.startswith("cifar")
    divided = found.divided(0)
    parts = [set(divided[split].tolist()) for split in ("train", "val", "test")]
    assert all(parts)
    assert not parts[0] & parts[1] and not (parts[0] | parts[1]) & parts[2]  # noqa: PT018
    assert parts[0] | parts[1] | parts[2] == set(range(len(found.paths)))
    assert found.read(0).mode == "RGB"
    assert any("instead of the published" in departure for departure in found.departures)
    assert DATASETS[name](tmp_path).fingerprint == found.fingerprint


@pytest.mark.parametrize("name", ["food101", "dtd", "cars", "imagenet"])
def test_equal_to_torchvision(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path)
    found = DATASETS[name](tmp_path)
    for split in ("train", "test"):
        ours = sorted(
            (os.path.realpath(found.root / found.paths[row]), int(found.labels[row]))
            for row in found.splits[split]
        )
        if name == "food101":
            rival = torchvision.datasets.Food101(tmp_path, split)
            theirs = zip(rival._image_files, rival._labels, strict=True)
        elif name == "dtd":
            rival = torchvision.datasets.DTD(tmp_path / "dtd" / "..", split)
            theirs = zip(rival._image_files, rival._labels, strict=True)
        elif name == "cars":
            theirs = torchvision.datasets.StanfordCars(tmp_path, split)._samples
        else:
            theirs = torchvision.datasets.ImageFolder(
                tmp_path / {"train": "train", "test": "val"}[split]
            ).samples
        assert ours == sorted((os.path.realpath(path), int(label)) for path, label in theirs)


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


# class sizes of the published training splits; those of Cars lie between 24 and 68 and sum up to
# 8,144
SIZES = {
    "food101": [750] * 101,
    "cifar10": [5000] * 10,
    "cifar100": [500] * 100,
    "sun397": [50] * 397,
    "cars": [41, 42] * 97 + [43, 50],
}


@pytest.mark.parametrize("name", SIZES)
def test_validation_sizes_are_table_a2(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path)
    published, sizes = PUBLISHED[name], SIZES[name]
    assert sum(sizes) == published.train
    labels = np.repeat(np.arange(len(sizes)), sizes)
    hold_out = DATASETS[name](tmp_path).hold_out
    rows = np.arange(len(labels))
    train, val = hold_out(labels, rows, np.random.default_rng(0))
    assert (len(train), len(val)) == (published.train - published.val, published.val)
    assert not set(train) & set(val)
    counts = Counter(np.bincount(labels[val]).tolist())
    expected = {
        "food101": {75: 101},
        "cifar10": {500: 10},
        "cifar100": {51: 67, 50: 33},
        "sun397": {10: 397},
    }
    if name in expected:
        assert counts == expected[name]
    else:
        exact = np.array(sizes) * published.val / published.train
        assert (np.abs(np.bincount(labels[val]) - exact) < 1).all()
    _, again = hold_out(labels, rows, np.random.default_rng(0))
    _, other = hold_out(labels, rows, np.random.default_rng(1))
    assert again.tolist() == val.tolist()
    assert other.tolist() != val.tolist()


def test_imagenet_holds_out_ten_a_class() -> None:
    labels = np.repeat(np.arange(3), [732, 1300, 8])
    hold_out = partial(splits.per_class, count=10)
    train, val = hold_out(labels, np.arange(len(labels)), np.random.default_rng(0))
    assert np.bincount(labels[val]).tolist() == [10, 10, 7]
    assert len(train) + len(val) == len(labels)


def test_the_draw_stays_what_it_was() -> None:
    """Golden: seed 0's list on CIFAR-100's shape; a change of numpy's generator would silently
    change every split.
    """
    labels = np.arange(50_000) % 100
    _, val = splits.proportional(
        labels, np.arange(50_000), np.random.default_rng(0), held=5067, of=50_000
    )
    assert hashlib.sha256(val.astype("<i8").tobytes()).hexdigest()[:16] == "9b3275f4ffa594ec"

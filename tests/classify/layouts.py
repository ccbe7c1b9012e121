"""Tiny data in the published sets' true layouts on disk.

Each writer takes the data folder, as --data names it.
"""

import json
import struct
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

COLORS = [(30, 40, 200), (30, 190, 60), (210, 40, 30), (200, 200, 40)]


def draw_image(path: Path, label: int, seed: int) -> None:
    """A noisy image of its class's color, of an odd size."""
    rng = np.random.default_rng((label, seed))
    noise = rng.integers(-25, 25, (int(rng.integers(33, 50)), int(rng.integers(33, 50)), 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.clip(np.array(COLORS[label % 4]) + noise, 0, 255).astype(np.uint8)
    Image.fromarray(values).save(path, format="JPEG", quality=95)


def food101(root: Path, train: int = 6, test: int = 3) -> None:
    """meta/{train,test}.json and images/<class>/<id>.jpg; two classes."""
    base = root / "food-101"
    lists: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    for label, name in enumerate(("waffles", "apple_pie")):
        ids = [f"{name}/{1000 + 7 * i}" for i in range(train + test)]
        for i, one in enumerate(ids):
            draw_image(base / "images" / f"{one}.jpg", label, i)
        lists["train"][name], lists["test"][name] = ids[:train], ids[train:]
    (base / "meta").mkdir()
    for split, members in lists.items():
        (base / "meta" / f"{split}.json").write_text(json.dumps(members))
        flat = [one for ids in members.values() for one in ids]
        (base / "meta" / f"{split}.txt").write_text("\n".join(flat) + "\n")


def dtd(root: Path, each: int = 3) -> None:
    """dtd/dtd/images/<class>/<class>_0001.jpg, labels/{train,val,test}1.txt; two classes."""
    base = root / "dtd" / "dtd"
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for label, name in enumerate(("banded", "zigzagged")):
        for i in range(3 * each):
            path = f"{name}/{name}_{i:04d}.jpg"
            draw_image(base / "images" / path, label, i)
            lists[("train", "val", "test")[i % 3]].append(path)
    (base / "labels").mkdir()
    for split, paths in lists.items():
        (base / "labels" / f"{split}1.txt").write_text("\n".join(paths) + "\n")


def sun397(root: Path, train: int = 5, test: int = 2) -> None:
    """Letters, a two-level class, ClassName.txt and the lists of partition 1; other images lie
    beside them.
    """
    base = root / "SUN397"
    classes = ["/a/abbey", "/a/apartment_building/outdoor", "/y/yard"]
    lists: dict[str, list[str]] = {"Training_01": [], "Testing_01": []}
    for label, name in enumerate(classes):
        for i in range(train + test + 1):  # the last is in no list
            path = f"{name}/sun_{'abcdefghijklmnop'[i]}{label}zz.jpg"
            draw_image(base / path.lstrip("/"), label, i)
            if i < train + test:
                lists["Training_01" if i < train else "Testing_01"].append(path)
    (base / "Partitions").mkdir()
    (base / "ClassName.txt").write_text("\n".join(classes) + "\n")
    for name, paths in lists.items():
        (base / "Partitions" / f"{name}.txt").write_text("\r\n".join(paths) + "\r\n")


CARS = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012"]


def _records(fields: dict[str, list[object]]) -> np.ndarray:
    """A MATLAB struct array."""
    count = len(next(iter(fields.values())))
    array = np.zeros((1, count), dtype=[(name, object) for name in fields])
    for name, values in fields.items():
        for i, value in enumerate(values):
            array[0, i][name] = value
    return array


def cars(root: Path, train: int = 6, test: int = 3) -> None:
    """stanford_cars/: two folders of images, devkit/*.mat, cars_test_annos_withlabels.mat; labels
    from 1.
    """
    base = root / "stanford_cars"
    (base / "devkit").mkdir(parents=True)
    names = np.empty((1, 2), dtype=object)
    names[0, :] = CARS
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": names})
    for split, count, path in (
        ("train", train, "devkit/cars_train_annos.mat"),
        ("test", test, "cars_test_annos_withlabels.mat"),
    ):
        labels = [1 + i % 2 for i in range(count)]
        files = [f"{i + 1:05d}.jpg" for i in range(count)]
        for file, label in zip(files, labels, strict=True):
            draw_image(base / f"cars_{split}" / file, label, int(file[:5]))
        box = {f"bbox_{side}": [1] * count for side in ("x1", "y1", "x2", "y2")}
        savemat(base / path, {"annotations": _records({**box, "class": labels, "fname": files})})


def cars_whole(root: Path, count: int = 9) -> None:
    """The other official layout: car_ims/ and cars_annos.mat with a flag for test images."""
    files = [f"car_ims/{i + 1:06d}.jpg" for i in range(count)]
    labels = [1 + i % 2 for i in range(count)]
    for i, (file, label) in enumerate(zip(files, labels, strict=True)):
        draw_image(root / file, label, i)
    names = np.empty((1, 2), dtype=object)
    names[0, :] = CARS
    notes = _records(
        {"relative_im_path": files, "class": labels, "test": [int(i >= 6) for i in range(count)]}
    )
    savemat(root / "cars_annos.mat", {"annotations": notes, "class_names": names})


def python2_pickle(entry: dict[str, object]) -> bytes:
    """A dict as Python 2 pickled it, as CIFAR's official files are: byte strings, and arrays of the
    old numpy.
    """

    def told(value: object) -> bytes:
        if isinstance(value, str):
            text = value.encode()
            return b"U" + bytes([len(text)]) + text  # SHORT_BINSTRING
        if isinstance(value, int):
            return b"J" + struct.pack("<i", value)
        if isinstance(value, list):
            return b"](" + b"".join(map(told, value)) + b"e"
        assert isinstance(value, np.ndarray)
        assert value.dtype == np.uint8
        rows, columns = value.shape
        kind = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNN" + 2 * told(-1) + b"K\x00tb"
        made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
        data = b"T" + struct.pack("<i", value.size) + value.tobytes()  # BINSTRING
        return made + b"(K\x01(" + told(rows) + told(columns) + b"t" + kind + b"\x89" + data + b"tb"

    return b"\x80\x02}(" + b"".join(told(key) + told(value) for key, value in entry.items()) + b"u."


def _cifar(count: int, classes: int, seed: int) -> tuple[np.ndarray, list[int]]:
    rng = np.random.default_rng(seed)
    labels = [i % classes for i in range(count)]
    color = np.array(COLORS)[np.array(labels) % 4]
    pixels = np.clip(color[:, :, None] + rng.integers(-25, 25, (count, 3, 1024)), 0, 255)
    return pixels.reshape(count, 3072).astype(np.uint8), labels


def cifar10(root: Path, batch: int = 4, binary: bool = False) -> None:
    """Five training batches and one to test, as Python 2 pickles or as binary records; two
    classes.
    """
    base = root / ("cifar-10-batches-bin" if binary else "cifar-10-batches-py")
    base.mkdir(parents=True)
    for i, name in enumerate([f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]):
        data, labels = _cifar(batch, 2, i)
        if binary:
            records = np.concatenate([np.array(labels, np.uint8)[:, None], data], 1)
            (base / f"{name}.bin").write_bytes(records.tobytes())
        else:
            entry = {
                "batch_label": name,
                "labels": labels,
                "data": data,
                "filenames": [f"{j}.png" for j in labels],
            }
            (base / name).write_bytes(python2_pickle(entry))
    if binary:
        (base / "batches.meta.txt").write_text("airplane\nautomobile\n\n")
    else:
        meta = {
            "num_cases_per_batch": batch,
            "label_names": ["airplane", "automobile"],
            "num_vis": 3072,
        }
        (base / "batches.meta").write_bytes(python2_pickle(meta))


def cifar100(root: Path, train: int = 12, test: int = 6, binary: bool = False) -> None:
    """Fine and coarse labels; three fine classes."""
    base = root / ("cifar-100-binary" if binary else "cifar-100-python")
    base.mkdir(parents=True)
    names = ["apple", "bear", "chair"]
    for i, (name, count) in enumerate((("train", train), ("test", test))):
        data, labels = _cifar(count, 3, i)
        coarse = [label // 2 for label in labels]
        if binary:
            records = np.concatenate(
                [np.array(coarse, np.uint8)[:, None], np.array(labels, np.uint8)[:, None], data], 1
            )
            (base / f"{name}.bin").write_bytes(records.tobytes())
        else:
            entry = {
                "fine_labels": labels,
                "coarse_labels": coarse,
                "data": data,
                "filenames": [str(i) for i in labels],
            }
            (base / name).write_bytes(python2_pickle(entry))
    if binary:
        (base / "fine_label_names.txt").write_text("\n".join(names) + "\n")
    else:
        meta = {"fine_label_names": names, "coarse_label_names": ["one", "two"]}
        (base / "meta").write_bytes(python2_pickle(meta))


def imagenet(root: Path, train: int = 14, val: int = 3) -> None:
    """train/<wnid>/<wnid>_<n>.JPEG, val/<wnid>/ILSVRC2012_val_<n>.JPEG; two classes."""
    number = 0
    for label, wnid in enumerate(("n02129165", "n01440764")):
        for i in range(train):
            draw_image(root / "train" / wnid / f"{wnid}_{i}.JPEG", label, i)
        for i in range(val):
            number += 1
            draw_image(root / "val" / wnid / f"ILSVRC2012_val_{number:08d}.JPEG", label, 100 + i)


WRITERS = {
    "food101": food101,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "sun397": sun397,
    "cars": cars,
    "dtd": dtd,
    "imagenet": imagenet,
}

"""Tiny data in the published sets' true layouts on disk.

Each writer takes the data folder, as --data names it.
"""

import json
import struct
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

NAMES = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike "
    "person pottedplant sheep sofa train tvmonitor"
)
VOC = NAMES.split()
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

    def encoded(value: object) -> bytes:
        if isinstance(value, str):
            text = value.encode()
            return b"U" + bytes([len(text)]) + text  # SHORT_BINSTRING
        if isinstance(value, int):
            return b"J" + struct.pack("<i", value)
        if isinstance(value, list):
            return b"](" + b"".join(map(encoded, value)) + b"e"
        assert isinstance(value, np.ndarray)
        assert value.dtype == np.uint8
        rows, columns = value.shape
        kind = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNN" + 2 * encoded(-1) + b"K\x00tb"
        array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
        data = b"T" + struct.pack("<i", value.size) + value.tobytes()  # BINSTRING
        return (
            array
            + b"(K\x01("
            + encoded(rows)
            + encoded(columns)
            + b"t"
            + kind
            + b"\x89"
            + data
            + b"tb"
        )

    return (
        b"\x80\x02}("
        + b"".join(encoded(key) + encoded(value) for key, value in entry.items())
        + b"u."
    )


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


def voc2007(root: Path, count: int = 6) -> None:
    """VOC2007/: ImageSets/Main/<class>_<split>.txt with 1, -1 and 0, JPEGImages/, Annotations/;
    each image shows bicycle or bird, every third both, and every fourth a difficult cat.
    """
    base = root / "VOC2007"
    lists = base / "ImageSets" / "Main"
    for folder in (lists, base / "Annotations"):
        folder.mkdir(parents=True)
    names: dict[str, list[str]] = {}
    for k, split in enumerate(("train", "val", "test")):
        names[split] = [f"{1 + 3 * i + k:06d}" for i in range(count)]
        flags = {cls: [-1] * count for cls in VOC}
        flags["bicycle"] = [1 if i % 3 == 0 or i % 2 == 0 else -1 for i in range(count)]
        flags["bird"] = [1 if i % 3 == 0 or i % 2 == 1 else -1 for i in range(count)]
        flags["cat"] = [0 if i % 4 == 0 else -1 for i in range(count)]
        for i, name in enumerate(names[split]):
            draw_image(base / "JPEGImages" / f"{name}.jpg", i % 2, i)
            present = {cls: flag[i] for cls, flag in flags.items() if flag[i] >= 0}
            width, height = Image.open(base / "JPEGImages" / f"{name}.jpg").size
            objects = "".join(
                f"<object><name>{cls}</name><difficult>{1 - flag}</difficult><bndbox><xmin>1</xmin>"
                "<ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
                for cls, flag in present.items()
            )
            size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
            xml = f"<annotation><filename>{name}.jpg</filename>{size}{objects}</annotation>"
            (base / "Annotations" / f"{name}.xml").write_text(xml)
        for cls, flag in flags.items():
            text = "".join(f"{name} {f:>2}\n" for name, f in zip(names[split], flag, strict=True))
            (lists / f"{cls}_{split}.txt").write_text(text)
    names["trainval"] = sorted(names["train"] + names["val"])
    for split, own in names.items():
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in own))


def birdsnap(root: Path, train: int = 6, test: int = 2) -> None:
    """Tab-separated images.txt, species.txt and test_images.txt, and download/images/, in which one
    image of each of the two species is missing.
    """
    base = root / "birdsnap"
    tables = {"images": ["url\tmd5\tpath\tspecies_id\tbb_x1"], "test_images": ["path"]}
    tables["species"] = ["id\tcommon\tscientific\tdir"]
    for label, name in enumerate(("Acadian Flycatcher", "Acorn Woodpecker")):
        folder = name.replace(" ", "_")
        tables["species"].append(f"{label + 1}\t{name}\tAves {label}\t{folder}")
        for i in range(train + test + 1):  # the link of the last is dead
            path = f"{folder}/{7 * i + label}.jpg"
            tables["images"].append(f"http://x/{i}\t00\t{path}\t{label + 1}\t1.0")
            if i < test:
                tables["test_images"].append(path)
            if i < train + test:
                draw_image(base / "download" / "images" / path, label, i)
    for name, rows in tables.items():
        (base / f"{name}.txt").write_text("\n".join(rows) + "\n")


def aircraft(root: Path, each: int = 3) -> None:
    """data/{variants.txt, images_variant_{train,val,test}.txt, images/}; two variants."""
    base = root / "fgvc-aircraft-2013b" / "data"
    variants, lists = ["707-320", "Boeing 717"], {"train": "", "val": "", "test": ""}
    for i in range(6 * each):
        label, split = i % 2, ("train", "val", "test")[i // 2 % 3]
        draw_image(base / "images" / f"{1000 + i:07d}.jpg", label, i)
        lists[split] += f"{1000 + i:07d} {variants[label]}\n"
    (base / "variants.txt").write_text("\n".join(variants) + "\n")
    for split, text in lists.items():
        (base / f"images_variant_{split}.txt").write_text(text)


def pets(root: Path, train: int = 24, test: int = 3) -> None:
    """images/ and annotations/{trainval,test}.txt with class from 1, species and breed."""
    base = root / "oxford-iiit-pet"
    (base / "annotations").mkdir(parents=True)
    lists = {"trainval": "", "test": ""}
    for label, name in enumerate(("Abyssinian", "american_bulldog")):
        for i in range(train + test):
            draw_image(base / "images" / f"{name}_{i + 1}.jpg", label, i)
            split = "trainval" if i < train else "test"
            lists[split] += f"{name}_{i + 1} {label + 1} {label + 1} 1\n"
    for split, text in lists.items():
        (base / "annotations" / f"{split}.txt").write_text(text)


def caltech101(root: Path, test: int = 4) -> None:
    """101_ObjectCategories/<class>/image_0001.jpg; two classes and the background."""
    base = root / "caltech101" / "101_ObjectCategories"
    for label, name in enumerate(("BACKGROUND_Google", "Faces", "accordion")):
        for i in range(30 + test + label):
            draw_image(base / name / f"image_{i + 1:04d}.jpg", label, i)


def flowers(root: Path, each: int = 3) -> None:
    """jpg/, imagelabels.mat and setid.mat, both from 1; two classes."""
    base = root / "flowers-102"
    numbers = np.arange(6 * each)
    for number in numbers:
        draw_image(base / "jpg" / f"image_{number + 1:05d}.jpg", int(number % 2), int(number))
    savemat(base / "imagelabels.mat", {"labels": numbers[None] % 2 + 1})
    splits = {"trnid": 0, "valid": 1, "tstid": 2}
    rows = {key: numbers[None, numbers // 2 % 3 == k] + 1 for key, k in splits.items()}
    savemat(base / "setid.mat", rows)


def stl10(root: Path, train: int = 8, test: int = 4) -> None:
    """stl10_binary/: planes column by column, labels from 1; two classes."""
    base = root / "stl10_binary"
    base.mkdir(parents=True)
    for k, (split, count) in enumerate((("train", train), ("test", test))):
        labels = np.arange(count) % 2
        noise = np.random.default_rng(k).integers(0, 40, (count, 3, 96, 96))
        pixels = (np.array(COLORS)[labels][:, :, None, None] + noise).astype(np.uint8)
        (base / f"{split}_X.bin").write_bytes(pixels.transpose(0, 1, 3, 2).tobytes())
        (base / f"{split}_y.bin").write_bytes((labels + 1).astype(np.uint8).tobytes())
    (base / "class_names.txt").write_text("airplane\nbird\n")


def places365(root: Path, train: int = 14, val: int = 3) -> None:
    """Lists, data_256_standard/<letter>/<class>/ and val_256/; two classes, one of two levels."""
    base = root / "places365"
    names = ["/a/airfield", "/a/apartment_building/outdoor"]
    trained, tested = "", ""
    for label, name in enumerate(names):
        for i in range(train):
            draw_image(base / f"data_256_standard{name}/{i:08d}.jpg", label, i)
            trained += f"{name}/{i:08d}.jpg {label}\n"
        for i in range(val):
            file = f"Places365_val_{i * 2 + label:08d}.jpg"
            draw_image(base / "val_256" / file, label, 100 + i)
            tested += f"{file} {label}\n"
    (base / "places365_train_standard.txt").write_text(trained)
    (base / "places365_val.txt").write_text(tested)
    lines = "".join(f"{name} {label}\n" for label, name in enumerate(names))
    (base / "categories_places365.txt").write_text(lines)


def inaturalist2018(root: Path, train: int = 5, val: int = 2) -> None:
    """train2018.json, val2018.json and train_val2018/<group>/<category>/; two categories."""
    base = root / "inaturalist2018"
    categories = [{"id": id_, "name": name} for id_, name in ((7, "Corvus"), (3, "Bufo"))]
    for split, count in (("train", train), ("val", val)):
        images, annotations = [], []
        for label, category in enumerate(categories):
            for i in range(count):
                path = f"train_val2018/Animalia/{category['id']}/{split}{i}.jpg"
                draw_image(base / path, label, i)
                number = 1000 * label + i
                images.append({"id": number, "file_name": path})
                annotations.append({"image_id": number, "category_id": category["id"]})
        content = {"images": images, "annotations": annotations, "categories": categories}
        (base / f"{split}2018.json").write_text(json.dumps(content))


WRITERS = {
    "food101": food101,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "sun397": sun397,
    "cars": cars,
    "dtd": dtd,
    "birdsnap": birdsnap,
    "aircraft": aircraft,
    "voc2007-cls": voc2007,
    "pets": pets,
    "caltech101": caltech101,
    "flowers": flowers,
    "stl10": stl10,
    "places365": places365,
    "inaturalist2018": inaturalist2018,
    "imagenet": imagenet,
    "imagenet100": lambda root: imagenet(root / "imagenet100"),
}

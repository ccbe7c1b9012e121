"""A data set that is there, but not quite where it belongs: the error names the place, and its
advice is followed.
"""

import re
import shlex
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from harl_bench.classify.datasets import DATASETS
from harl_bench.cli import main
from harl_bench.core.errors import DataError
from harl_bench.doctor import data as doctor
from tests.classify.layouts import WRITERS, cars_whole, draw_image


def deeper(folder: str) -> Callable[[Path], None]:
    """Put what a folder holds into a folder of the same name inside it."""

    def move(root: Path) -> None:
        (root / folder).rename(root / "moving")
        (root / folder).mkdir()
        (root / "moving").rename(root / folder / Path(folder).name)

    return move


def to(source: str, target: str) -> Callable[[Path], None]:
    def move(root: Path) -> None:
        (root / target).parent.mkdir(parents=True, exist_ok=True)
        (root / source).rename(root / target)

    return move


def packed(folder: str, archive: str, inside: str) -> Callable[[Path], None]:
    def pack(root: Path) -> None:
        with tarfile.open(root / archive, "w:gz") as tar:
            tar.add(root / folder, inside)
        shutil.rmtree(root / folder)

    return pack


def classes_packed(root: Path) -> None:
    for folder in list((root / "train").iterdir()):
        with tarfile.open(f"{folder}.tar", "w") as tar:
            for path in folder.iterdir():
                tar.add(path, path.name)
        shutil.rmtree(folder)


def suffixes(root: Path) -> None:
    for path in list((root / "food-101").rglob("*.jpg")):
        path.rename(path.with_suffix(".JPG"))


def follow(advice: str, root: Path) -> Path:
    """Do what the advice says; the --data to give afterwards."""
    if match := re.fullmatch(r"--data (.+)", advice):
        return Path(shlex.split(match[1])[0])
    if match := re.fullmatch(r"move what (.+) holds to (.+)", advice):
        source, target = map(Path, match.groups())
        target.mkdir(parents=True, exist_ok=True)
        for path in list(source.iterdir()):
            path.rename(target / path.name)
        source.rmdir()
    elif match := re.fullmatch(r"move (.+) to (.+)", advice):
        Path(match[1]).rename(match[2])
    elif match := re.fullmatch(r"rename (.+\.JPG) to .+\.jpg, and the others like it", advice):
        for path in list(root.rglob("*.JPG")):
            path.rename(path.with_suffix(".jpg"))
    elif match := re.fullmatch(r"rename (.+) to (\S+)", advice):
        Path(match[1]).rename(Path(match[1]).with_name(match[2]))
    else:
        subprocess.run(["bash", "-c", advice], check=True)
    return root


LABELS = "cars_test_annos_withlabels.mat"
MISPLACED = {
    "cars deeper": (
        "cars",
        deeper("stanford_cars/cars_train"),
        "which lies in .*cars_train/cars_train",
    ),
    "cars beside": (
        "cars",
        to("stanford_cars/cars_test", "cars_test"),
        "which lies in .*/cars_test",
    ),
    "cars labels": (
        "cars",
        to(f"stanford_cars/{LABELS}", f"stanford_cars/devkit/{LABELS}"),
        "which lies in .*devkit",
    ),
    "cars packed": (
        "cars",
        packed("stanford_cars/cars_train", "stanford_cars/cars_train.tgz", "cars_train"),
        "cars_train.tgz is packed",
    ),
    "cars wrapped": ("cars", deeper("stanford_cars"), "cars in .*/stanford_cars"),
    "food deeper": ("food101", deeper("food-101/images"), "which lies in .*images/images/"),
    "food suffix": ("food101", suffixes, r"1007.JPG is there|10\d\d.JPG is there"),
    "food case": ("food101", to("food-101/images", "food-101/Images"), "Images is there"),
    "food packed": (
        "food101",
        packed("food-101", "food-101.tar.gz", "food-101"),
        "food-101.tar.gz is packed",
    ),
    "food list": ("food101", to("food-101/meta/test.json", "food-101/test.json"), "which lies in"),
    "sun wrapped": ("sun397", deeper("SUN397"), "sun397 in .*/SUN397"),
    "sun list": (
        "sun397",
        to("SUN397/Partitions/Testing_01.txt", "SUN397/Testing_01.txt"),
        "which lies in",
    ),
    "sun lists": (
        "sun397",
        to("SUN397/Partitions", "SUN397/lists/Partitions"),
        "which lies in .*lists/Partitions",
    ),
    "dtd thrice": ("dtd", to("dtd", "data/dtd"), "dtd in .*/data"),
    "dtd images": ("dtd", to("dtd/dtd/images", "dtd/images"), "which lies in"),
    "dtd packed": (
        "dtd",
        packed("dtd/dtd", "dtd-r1.0.1.tar.gz", "dtd"),
        "dtd-r1.0.1.tar.gz is packed",
    ),
    "cifar wrapped": (
        "cifar10",
        to("cifar-10-batches-py", "cifar10/cifar-10-batches-py"),
        "cifar10 in .*/cifar10",
    ),
    "cifar batch": (
        "cifar100",
        to("cifar-100-python/test", "cifar-100-python/more/test"),
        "which lies in .*more",
    ),
    "imagenet packed": ("imagenet", classes_packed, "2 archives, first n01440764.tar"),
    "imagenet deeper": ("imagenet", deeper("train"), "one folder deeper"),
    "imagenet case": ("imagenet", to("val", "Val"), "Val/"),
}


@pytest.mark.parametrize("case", MISPLACED)
def test_the_error_names_the_place_and_its_advice_helps(tmp_path: Path, case: str) -> None:
    name, spoil, seen = MISPLACED[case]
    root = tmp_path / "DATA dir"
    root.mkdir()
    WRITERS[name](root)
    whole = DATASETS[name](root).fingerprint
    spoil(root)
    with pytest.raises(DataError) as caught:
        DATASETS[name](root)
    error = caught.value
    assert re.search(seen, str(error.seen) + str(error.what))
    assert "unpack" not in str(error.next)
    assert "\n" not in error.line()
    root = follow(str(error.next), root)
    assert DATASETS[name](root).fingerprint == whole


@pytest.mark.parametrize("name", WRITERS)
def test_too_deep_a_data_folder(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / "here")
    whole = DATASETS[name](tmp_path / "here")
    below = (
        next(path for path in sorted(whole.root.iterdir()))
        if name != "imagenet"
        else whole.root / "train"
    )
    inner = below if below.is_dir() else tmp_path / "here"
    if inner == tmp_path / "here":
        inner = tmp_path / "here" / "empty"
        inner.mkdir()
    with pytest.raises(DataError) as caught:
        DATASETS[name](inner)
    assert DATASETS[name](follow(str(caught.value.next), inner)).fingerprint == whole.fingerprint


def test_cars_in_one_folder_one_deeper(tmp_path: Path) -> None:
    cars_whole(tmp_path / "sub")
    with pytest.raises(DataError, match="--data") as caught:
        DATASETS["cars"](tmp_path)
    assert len(DATASETS["cars"](follow(str(caught.value.next), tmp_path)).paths) == 9


LISTS = {
    "dtd": "dtd/dtd/labels/train1.txt",
    "sun397": "SUN397/ClassName.txt",
    "food101": "food-101/meta/train.json",
    "cifar10": "cifar-10-batches-bin/batches.meta.txt",
}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", LISTS)
def test_byte_order_marks(tmp_path: Path, name: str, encoding: str) -> None:
    """Windows' editors and PowerShell write them; the first line was a class or an image of its
    own.
    """
    WRITERS[name](tmp_path, **({"binary": True} if name == "cifar10" else {}))
    before = DATASETS[name](tmp_path)
    path = tmp_path / LISTS[name]
    path.write_bytes(path.read_text().encode(encoding))
    after = DATASETS[name](tmp_path)
    assert (after.classes, after.paths, after.fingerprint) == (
        before.classes,
        before.paths,
        before.fingerprint,
    )


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_validation_folders(tmp_path: Path, val: str) -> None:
    for split in ("train", "test", val):
        for label, name in enumerate(("cat", "dog")):
            for i in range(3):
                draw_image(tmp_path / "set" / split / name / f"{i}.jpg", label, i)
    found = DATASETS["folder"](tmp_path / "set")
    assert {split: len(rows) for split, rows in found.splits.items()} == {
        "train": 6,
        "val": 6,
        "test": 6,
    }
    divided = found.divided(0)
    assert {found.paths[row].split("/")[0] for row in divided["val"]} == {val}
    assert len(divided["train"]) == 6  # nothing is held out besides
    findings = [
        finding for finding in doctor.findings(tmp_path / "set") if finding.what == "set classes"
    ]
    assert "val 6" in findings[0].seen


def test_two_validation_folders(tmp_path: Path) -> None:
    for split in ("train", "test", "val", "valid"):
        for label, name in enumerate(("cat", "dog")):
            for i in range(3):
                draw_image(tmp_path / split / name / f"{i}.jpg", label, i)
    with pytest.raises(
        DataError, match=r"two validation splits; in .*seen: val/ and valid/; next: keep one"
    ):
        DATASETS["folder"](tmp_path)
    (failed,) = [finding for finding in doctor.findings(tmp_path) if finding.level == "fail"]
    assert "two validation splits" in failed.seen


@pytest.mark.parametrize("dataset", ["folder", "dtd", "cifar10"])
def test_swapped_arguments_are_explained(
    tmp_path: Path, dataset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "moco.pkl").write_bytes(b"weights")
    command = [
        "classify",
        str(tmp_path / "data"),
        "--data",
        str(tmp_path / "moco.pkl"),
        "--dataset",
        dataset,
    ]
    assert main([*command, "--protocol", "linear", "--out", str(tmp_path / "runs")]) == 3
    error = capsys.readouterr().err
    assert "the data folder is a file" in error
    assert "the checkpoint is the first argument" in error

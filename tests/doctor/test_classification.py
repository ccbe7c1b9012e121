"""The published classification sets: recognised by layout, counted, each fault named."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torchvision

from harl_bench.classify.datasets import DATASETS, PUBLISHED
from harl_bench.doctor import data
from harl_bench.doctor.finding import Finding
from tests.classify.layouts import WRITERS, cars_whole, dtd, sun397, voc2007


def findings(root: Path, what: str, **options: bool) -> list[Finding]:
    return [finding for finding in data.findings(root, **options) if finding.what.startswith(what)]


def write(root: Path) -> None:
    for name, writer in WRITERS.items():
        writer(root / name if name == "imagenet" else root)


def test_all_are_found_once_with_counts_beside_the_published(tmp_path: Path) -> None:
    write(tmp_path)
    # VOC2007 is checked for detection, too.
    found = [one for one in data.findings(tmp_path) if not one.what.startswith("VOC")]
    assert {finding.level for finding in found} == {"ok", "warn"}
    for name, published in PUBLISHED.items():
        (counted,) = [finding for finding in found if finding.what == name]
        assert f"training images instead of the published {published.train:,}" in counted.seen
        assert counted.hint == published.place
    assert (
        len(found) == len(PUBLISHED) + len(PUBLISHED) - 3
    )  # a sample of each set that lies in files
    assert not [finding for finding in found if "photos" in finding.what]


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("aircraft", "fgvc-aircraft-2013b"),
        ("cifar100", "cifar-100-python"),
        ("dtd", "dtd"),
        ("flowers", "flowers-102"),
        ("pets", "oxford-iiit-pet"),
    ],
)
def test_a_sets_own_folder_is_that_set(tmp_path: Path, name: str, folder: str) -> None:
    """`classify` takes it; Pets' annotations/ passed for COCO's, and others for nothing."""
    WRITERS[name](tmp_path)
    found = list(data.findings(tmp_path / folder))
    assert found[0].what == name
    assert {one.level for one in found} <= {"ok", "warn"}  # of other counts than the published
    assert not [one for one in found if "COCO" in one.what]


def test_voc_in_its_kit_is_checked_for_both_of_its_tasks(tmp_path: Path) -> None:
    voc2007(tmp_path / "VOCdevkit")
    checked = {finding.what for finding in data.findings(tmp_path)}
    assert checked >= {"voc2007-cls", "voc2007-cls sample", "VOC2007 trainval"}


def test_one_folder_of_cars(tmp_path: Path) -> None:
    cars_whole(tmp_path)
    assert [finding.what for finding in data.findings(tmp_path)] == ["cars", "cars sample"]


def test_counts_as_published_are_ok(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dtd(tmp_path)
    monkeypatch.setitem(
        PUBLISHED, "dtd", PUBLISHED["dtd"]._replace(classes=2, train=6, val=6, test=6)
    )
    assert [finding.level for finding in findings(tmp_path, "dtd")] == ["ok", "ok"]


def lose_list(root: Path) -> None:
    (root / "SUN397/Partitions/Training_01.txt").unlink()


def lose_image(root: Path) -> None:
    next((root / "SUN397/a/abbey").glob("sun_a*.jpg")).unlink()


def break_image(root: Path) -> None:
    next((root / "SUN397/a/abbey").glob("sun_a*.jpg")).write_bytes(b"no")


@pytest.mark.parametrize(
    ("spoil", "what", "seen"),
    [
        (lose_list, "sun397", "no Partitions/Training_01.txt"),
        (lose_image, "sun397", "1 of 21 listed images are missing"),
        (break_image, "sun397 sample", "unreadable image"),
    ],
)
def test_faults(tmp_path: Path, spoil: Callable[[Path], None], what: str, seen: str) -> None:
    sun397(tmp_path)
    spoil(tmp_path)
    (failed,) = [finding for finding in findings(tmp_path, "sun397") if finding.level == "fail"]
    assert failed.what == what
    assert seen in failed.seen
    assert failed.hint


def test_deep_hashes_archives_and_decodes_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dtd(tmp_path, each=10)
    archive = tmp_path / "dtd-r1.0.1.tar.gz"
    archive.write_bytes(b"not the archive")
    shallow, deep = findings(tmp_path, "dtd"), findings(tmp_path, "dtd", deep=True)
    assert shallow[1].seen == "24 decoded"
    assert [(f.what, f.level) for f in deep[1:]] == [
        ("dtd images", "ok"),
        ("dtd-r1.0.1.tar.gz", "fail"),
    ]
    assert deep[1].seen == "60 decoded"
    md5 = {"dtd-r1.0.1.tar.gz": hashlib.md5(archive.read_bytes()).hexdigest()}
    monkeypatch.setitem(PUBLISHED, "dtd", PUBLISHED["dtd"]._replace(archives=md5))
    assert findings(tmp_path, "dtd", deep=True)[2].level == "ok"


@pytest.mark.parametrize(("name", "batch"), [("cifar10", "data_batch_3"), ("cifar100", "train")])
def test_whole_cifar_batches_are_compared_with_the_published_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, batch: str
) -> None:
    """Nothing else would tell labels that were shuffled: its images have no names."""
    WRITERS[name](tmp_path)
    found = DATASETS[name](tmp_path)
    sizes = {split: len(rows) for split, rows in found.splits.items()}
    monkeypatch.setitem(
        PUBLISHED,
        name,
        PUBLISHED[name]._replace(
            classes=len(found.classes), train=sizes["train"], test=sizes["test"]
        ),
    )
    official = getattr(torchvision.datasets, name.upper())
    for part in ("train_list", "test_list"):
        md5s = [
            [file, hashlib.md5((found.root / file).read_bytes()).hexdigest()]
            for file, _ in getattr(official, part)
        ]
        monkeypatch.setattr(official, part, md5s)
    assert {finding.level for finding in data.findings(tmp_path)} == {"ok"}
    with open(found.root / batch, "ab") as file:
        file.write(b"x")
    (wrong,) = [finding for finding in data.findings(tmp_path) if finding.level == "fail"]
    assert wrong.what == batch
    assert "another file than the published one" in wrong.seen

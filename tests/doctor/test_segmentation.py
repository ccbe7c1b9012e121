"""Segmentation sets: recognised, counted, a sample decoded, each fault named."""

from pathlib import Path

import pytest
from PIL import Image

from harl_bench.core.errors import MachineError
from harl_bench.core.toy import MARKER
from harl_bench.doctor import data, segmentation
from harl_bench.doctor.finding import Finding
from tests.detection import tiny
from tests.segmentation import trees

TITLE = "VOC2012 segmentation"


def by_what(root: Path) -> dict[str, Finding]:
    return {finding.what: finding for finding in data.findings(root)}


@pytest.mark.parametrize("kind", ["palette", "gray", "sbd"])
def test_voc_is_counted_and_the_command_has_the_exact_folder(kind: str, tmp_path: Path) -> None:
    root = trees.voc(tmp_path / "my data", kind)
    found = by_what(tmp_path)
    assert set(found) == {f"{TITLE} {part}" for part in ("train_aug", "val")} | {
        f"{TITLE} {part} sample" for part in ("train_aug", "val")
    }
    whole = found[f"{TITLE} train_aug"]
    assert whole.level == "warn"
    assert "7 images, the published 10,582, so scores do not compare" in whole.seen
    assert found[f"{TITLE} val sample"].seen == "3 images and labels decoded"
    (root / MARKER).touch()
    toy = by_what(tmp_path)[f"{TITLE} train_aug"]
    assert toy.level == "ok"
    assert toy.next.startswith(f"harl-bench segment CKPT --data '{root}'")


def test_annotations_beside_the_labels_are_checked_as_before(tmp_path: Path) -> None:
    (trees.voc(tmp_path) / "VOC2012" / "Annotations").mkdir()
    assert {"VOC2012 trainval", f"{TITLE} train_aug"} <= set(by_what(tmp_path))


def test_faults(tmp_path: Path) -> None:
    root = trees.voc(tmp_path)
    path = root / "VOC2012/SegmentationClass" / f"{trees.ids('val', 3)[1]}.png"
    Image.open(path).convert("L").save(path)
    finding = by_what(root)[f"{TITLE} val sample"]
    assert (finding.level, finding.area) == ("fail", "data")
    assert path.name in finding.seen
    assert "VOC's colors turned into gray" in finding.hint
    path.unlink()
    finding = by_what(root)[TITLE]
    assert finding.level == "fail"
    assert "1 of 6 listed ids have no label" in finding.seen


def test_cityscapes_below_or_as_the_folder(tmp_path: Path) -> None:
    root = trees.cityscapes(tmp_path / "cityscapes")
    for half in ("leftImg8bit", "gtFine"):
        (root / half / "test").mkdir()  # the archives have it
    for folder in (tmp_path, root):
        found = by_what(folder)
        assert set(found) == {
            "Cityscapes train",
            "Cityscapes train sample",
            "Cityscapes val",
            "Cityscapes val sample",
            "Cityscapes instances",
        }
        assert found["Cityscapes instances"].level == "warn"
        assert "no *_gtFine_instanceIds.png" in found["Cityscapes instances"].seen
        assert "3 images, the published 2,975" in found["Cityscapes train"].seen
    (root / "gtFine").rename(root / "gtCoarse")
    finding = by_what(root)["Cityscapes"]
    assert finding.level == "fail"
    assert finding.hint == "unpack gtFine_trainvaltest.zip"


def test_instances_of_cityscapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tiny.cityscapes(tmp_path)
    monkeypatch.setattr("harl_bench.doctor.segmentation.library", lambda: None)
    (finding,) = segmentation.instances(root)
    assert (finding.level, finding.next) == ("ok", f"harl-bench cityscapes CKPT --data {root}")
    assert finding.seen == "6 images with instanceIds, 6 decoded"
    monkeypatch.setattr("harl_bench.doctor.segmentation.library", missing)
    (finding,) = segmentation.instances(root)
    assert (finding.level, finding.next) == ("warn", "pip install it")
    path = next((root / "gtFine/val").rglob("*_instanceIds.png"))
    path.write_bytes(path.read_bytes()[:100])
    (finding,) = segmentation.instances(root)
    assert finding.level == "fail"
    assert str(path) in finding.seen


def missing() -> None:
    raise MachineError("the score is not installed", next="pip install it")

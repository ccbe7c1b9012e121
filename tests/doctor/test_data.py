"""Data sets: recognised by layout, read by the commands' own readers, each fault named."""

import errno
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harl_bench.cli import main
from harl_bench.doctor import data, sample
from harl_bench.doctor.finding import Finding
from harl_bench.toydata.run import PARTS
from pretrain import images as pretraining
from tests.masks import mask_scenes as scenes


def by_what(root: Path) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for finding in data.findings(root):
        assert finding.area == "data"
        found.setdefault(finding.what, []).append(finding)
    return found


def test_whole_sets_are_ok_and_generated_data_are_told(made: Path) -> None:
    found = by_what(made)
    warned = [
        f
        for group in found.values()
        for f in group
        if f.level != "ok" and "partly outside" not in f.seen and "cityscapesscripts" not in f.seen
    ]
    assert all("generated data" in f.seen for f in warned)
    assert len(warned) == len(PARTS)
    parts = {
        "VOC2007 trainval",
        "VOC2007 test",
        "VOC2012 trainval",
        "COCO train2017",
        "COCO val2017",
        "VOC2012 segmentation train_aug",
        "VOC2012 segmentation val",
        "Cityscapes train",
        "Cityscapes val",
    }
    assert parts | {f"{part} sample" for part in parts} <= set(found)
    assert "5 classes in every split" in found["classify classes"][0].seen
    assert "each with its mask" in found["photos masks"][0].seen


def test_counts_against_the_published_ones(sets: Path) -> None:
    found = by_what(sets)
    for what, total in {
        "VOC2007 trainval": "5,011",
        "VOC2007 test": "4,952",
        "VOC2012 trainval": "11,540",
        "COCO train2017": "118,287",
        "COCO val2017": "5,000",
    }.items():
        finding = found[what][0]
        assert finding.level == "warn"
        assert f"fewer than the published {total}" in finding.seen
    assert found["VOC2007 test"][0].next.startswith("tar -xf VOCtest_06-Nov-2007.tar -C ")


def ids(root: Path, split: str = "trainval") -> list[str]:
    return (root / "voc/VOC2007/ImageSets/Main" / f"{split}.txt").read_text().split()


def lose_image(root: Path) -> None:
    (root / "voc/VOC2007/JPEGImages" / f"{ids(root)[0]}.jpg").unlink()


def lose_xml(root: Path) -> None:
    (root / "voc/VOC2007/Annotations" / f"{ids(root)[1]}.xml").unlink()


def lose_test(root: Path) -> None:
    (root / "voc/VOC2007/ImageSets/Main/test.txt").unlink()


def break_xml(root: Path) -> None:
    (root / "voc/VOC2007/Annotations" / f"{ids(root)[0]}.xml").write_text("<annotation>")


def truncate_image(root: Path) -> None:
    path = root / "voc/VOC2007/JPEGImages" / f"{ids(root)[0]}.jpg"
    path.write_bytes(path.read_bytes()[:300])


def swap_image(root: Path) -> None:
    Image.new("RGB", (7, 5)).save(root / "voc/VOC2007/JPEGImages" / f"{ids(root)[0]}.jpg")


def break_json(root: Path) -> None:
    (root / "coco/annotations/instances_val2017.json").write_text("{")


def lose_coco_image(root: Path) -> None:
    next((root / "coco/val2017").glob("*.jpg")).unlink()


def lose_train_json(root: Path) -> None:
    (root / "coco/annotations/instances_train2017.json").unlink()


def lose_class(root: Path) -> None:
    shutil.rmtree(
        next(path for path in sorted((root / "classify/test").iterdir()) if path.is_dir())
    )


def resize_mask(root: Path) -> None:
    Image.new("L", (3, 3)).save(sorted((root / "photos/masks").rglob("*.png"))[0])


def lose_masks(root: Path) -> None:
    for path in list((root / "photos/masks").rglob("*.png")):
        path.rename(path.with_name(f"other-{path.name}"))


@pytest.mark.parametrize(
    ("break_it", "what", "seen", "remedy"),
    [
        (
            lose_image,
            "VOC2007 trainval",
            "ids have no jpg, first",
            "tar -xf VOCtrainval_06-Nov-2007.tar",
        ),
        (
            lose_xml,
            "VOC2007 trainval",
            "ids have no xml, first",
            "tar -xf VOCtrainval_06-Nov-2007.tar",
        ),
        (
            lose_test,
            "VOC2007 test",
            "test.txt; there: train.txt, trainval.txt",
            "tar -xf VOCtest_06-Nov-2007.tar",
        ),
        (break_xml, "VOC2007 trainval", "not a VOC annotation", "tar -xf"),
        (truncate_image, "VOC2007 trainval sample", "unreadable image", "tar -xf"),
        (swap_image, "VOC2007 trainval sample", "is 7 x 5, annotated", "tar -xf"),
        (break_json, "COCO val2017", "broken COCO JSON", "annotations_trainval2017.zip"),
        (lose_coco_image, "COCO val2017", "image is missing", "unzip -n val2017.zip"),
        (
            lose_train_json,
            "COCO train2017",
            "annotations are missing",
            "annotations_trainval2017.zip",
        ),
        (lose_class, "classify classes", "train and test hold different classes", "each class"),
        (
            resize_mask,
            "photos masks sample",
            "mask and image differ in size",
            "harl-bench masks make",
        ),
        (lose_masks, "photos masks", "images have no mask", "harl-bench masks make"),
    ],
)
def test_each_fault_is_one_failed_line(
    sets: Path, break_it: Callable[[Path], None], what: str, seen: str, remedy: str
) -> None:
    before = {f.what for group in by_what(sets).values() for f in group if f.level == "fail"}
    break_it(sets)
    failed = [f for group in by_what(sets).values() for f in group if f.level == "fail"]
    assert not before
    assert [f.what for f in failed] == [what]
    assert seen in failed[0].seen
    assert remedy in failed[0].next or remedy in failed[0].hint
    assert "\n" not in failed[0].line()


def test_a_link_to_nowhere_is_told_and_what_follows_is_looked_at(sets: Path) -> None:
    next((sets / "classify/train").iterdir()).joinpath("gone.jpg").symlink_to("/nowhere/gone.jpg")
    found = by_what(sets)
    assert any(f.level == "fail" and "gone.jpg" in f.seen for f in found["classify"])
    assert any(what.startswith("VOC") for what in found)


def leak(root: Path) -> Path:
    classes = root / "classify"
    source, target = (sorted((classes / split).rglob("*.*"))[0] for split in ("train", "test"))
    shutil.copy(source, target.with_name("again" + source.suffix))
    return source


def test_an_image_in_two_splits_is_a_leak(sets: Path) -> None:
    source = leak(sets)
    (finding,) = by_what(sets)["classify classes leak"]
    assert finding.level == "fail"
    assert "1 file of one split is in another, too, first" in finding.seen
    assert source.name in finding.seen


def test_a_few_missing_masks_are_a_warning(sets: Path) -> None:
    masks = sorted((sets / "photos/masks").rglob("*.png"))
    masks[0].unlink()
    finding = by_what(sets / "photos")["photos masks"][0]
    assert (finding.level, finding.seen.partition(" images")[0]) == ("warn", f"1 of {len(masks)}")


@pytest.mark.parametrize("orientation", [3, 6])
def test_an_image_that_exif_turns_lies_as_its_mask_for_all_that_read_both(
    tmp_path: Path, orientation: int
) -> None:
    """Masks, doctor, pretraining and classification take images as they lie in the file."""
    images, _ = scenes.write(tmp_path / "photos", 3)
    tags = Image.Exif()
    tags[0x0112] = orientation
    for path in images.rglob("*.jpg"):
        Image.open(path).save(path, exif=tags, quality=95)
    shutil.rmtree(tmp_path / "photos/masks")
    assert (
        main(
            [
                "masks",
                "make",
                str(images),
                "--out",
                str(tmp_path / "photos/masks"),
                "--method",
                "drfi-lite",
                "--workers",
                "0",
                "--preview",
                "0",
            ]
        )
        == 0
    )
    assert {finding.level for finding in by_what(tmp_path)["photos masks sample"]} == {"ok"}
    found = pretraining.find(images, tmp_path / "photos/masks")
    for i, path in enumerate(found.paths):
        image = found.image(i)
        mask = np.asarray(found.mask(i, image.size)) > 0
        _, truth = scenes.disc(int(path.stem))
        assert (mask & truth).sum() / (mask | truth).sum() > 0.5


def test_voc2012_that_is_absent_is_a_warning(sets: Path) -> None:
    shutil.rmtree(sets / "voc/VOC2012")
    finding = by_what(sets)["VOC2012 trainval"][0]
    assert finding.level == "warn"
    assert (
        finding.next
        == f"tar -xf VOCtrainval_11-May-2012.tar -C {sets / 'voc'} --strip-components=1"
    )


def test_objects_that_training_skips_are_counted(sets: Path) -> None:
    path = sets / "coco/annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"][2] = 0.0
    path.write_text(json.dumps(content))
    assert any("1 boxes without area" in f.seen for f in by_what(sets)["COCO train2017"])


def test_plain_photos_and_what_is_no_data(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("x")
    assert [f.level for group in by_what(tmp_path).values() for f in group] == ["fail"]
    Image.new("RGB", (4, 4)).save(tmp_path / "notes" / "a.png")
    found = by_what(tmp_path)
    assert found["notes photos"][0].seen == "1 images"
    assert found["notes sample"][0].level == "ok"
    assert by_what(tmp_path / "notes")["notes photos"][0].level == "ok"
    (missing,) = data.findings(tmp_path / "absent")
    assert missing.level == "fail"
    (a_file,) = data.findings(tmp_path / "notes" / "a.txt")
    assert a_file.level == "fail"


def test_a_folder_that_may_not_be_listed_is_named_and_the_others_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk of data has a lost+found, which is root's. Its owner may list all, so it is acted."""
    for name in ("lost+found", "photos"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "photos" / "a.png")
    iterdir = Path.iterdir

    def refusing(folder: Path) -> Iterator[Path]:
        if folder.name == "lost+found":
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return iterdir(folder)

    monkeypatch.setattr(Path, "iterdir", refusing)
    found = by_what(tmp_path)
    (refused,) = found["lost+found"]
    assert (refused.level, refused.seen) == ("warn", f"cannot list {tmp_path / 'lost+found'}")
    assert found["photos photos"][0].level == "ok"


def test_the_sample_covers_both_ends() -> None:
    spread = sample.spread(range(1000))
    assert (len(spread), spread[0], spread[-1]) == (sample.SAMPLE, 0, 999)
    assert sample.spread([1, 2]) == [1, 2]
    assert sample.spread([]) == []

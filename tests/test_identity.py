"""A number belongs to the labels and images that it was measured with, and one set is one run.

Every case changes what no name and no size tells, and gives the same command again.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image, ImageOps

from harl_bench.cli import main
from harl_bench.core import manifest
from harl_bench.core.results import read_result
from harl_bench.detection import plan as detection_plan
from harl_bench.detection import runs as detection
from harl_bench.detection.datasets import coco
from harl_bench.detection.scoring import Scores
from harl_bench.segmentation import plan as segmentation_plan
from harl_bench.segmentation import runs as segmentation
from tests.classify import layouts
from tests.detection import tiny
from tests.detection.command import TINY
from tests.pretrain.conftest import write_images
from tests.pretrain.test_pretrain import RESNET18
from tests.segmentation import trees

QUICK = ["--engine", "torchvision", "--gpus", "0", *TINY, "SOLVER.MAX_ITER=2", "SOLVER.STEPS=()"]
CLASSIFY = ["classify", "random-resnet18", "--protocol", "linear-toy", "--workers", "0"]
CLASSIFY += ["--device", "cpu"]
HEAD = ["head.channels=8", "head.convs=1", "workers=0", "input.crop_px=33", "solver.batch=2"]
SEGMENT = ["segment", "random", "--gpus", "0", *HEAD, "solver.iterations=3"]
CITY_SEGMENT = [*SEGMENT, "--recipe", "cityscapes-fcn-d8-40k"]
VOC = ["voc", "random", "--recipe", "voc-c4-toy", *QUICK]
COCO = ["coco", "random", "--recipe", "coco-fpn-toy", *QUICK, "--images", "0"]
CITY = ["cityscapes", "random", "--recipe", "cityscapes-fpn-toy", *QUICK]


@pytest.fixture(autouse=True)
def _untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Detectors and segmenters that learn nothing: what a run is does not depend on it."""

    def detected(engine: str, job: Any, *_: Any) -> tuple[Scores, dict[str, Any]]:
        about = {"unreadable": {}, "wall_s": 0.0, "peak_memory_mb": 0.0}
        return Scores({"AP": 1.0}, {"cat": {"AP": 1.0}}, {}), about

    def segmented(job: Any, *_: Any) -> tuple[Any, dict[str, Any]]:
        classes = len(job.test.classes)
        about = {"unreadable": {}, "wall_s": 0.0, "peak_memory_mb": 0.0}
        return np.ones((classes, classes), np.int64), about

    monkeypatch.setattr(detection, "measure", detected)
    monkeypatch.setattr(detection_plan, "library", lambda: None)  # cityscapesscripts
    monkeypatch.setattr(segmentation, "measure", segmented)


def swap_lines(path: Path, other: Path) -> None:
    """Exchange the first lines of two lists: no file comes, goes or changes its size."""
    first, second = (p.read_text().splitlines(keepends=True) for p in (path, other))
    path.write_text("".join([second[0], *first[1:]]))
    other.write_text("".join([first[0], *second[1:]]))


def swap_words(path: Path, one: str, other: str) -> None:
    text = path.read_text()
    assert one in text
    path.write_text(text.replace(one, other))


def padded(folder: Path, pattern: str) -> Path:
    """Give every PNG room for another one of the same size: what follows its end is not read."""
    for path in folder.rglob(pattern):
        path.write_bytes(path.read_bytes().ljust(4000, b"\0"))
    return folder


def redraw(path: Path, change: Callable[[Image.Image], Image.Image]) -> None:
    """Write another image of the same name and size."""
    size, drawn = path.stat().st_size, BytesIO()
    with Image.open(path) as image:
        change(image).save(drawn, "PNG")
    assert drawn.tell() <= size
    path.write_bytes(drawn.getvalue().ljust(size, b"\0"))


def turned(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.ROTATE_180)


def written(write: Callable[[Path], Any]) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        write(root)
        return root

    return make


def folder_of_colors(root: Path) -> Path:
    for split, label, i in ((s, k, i) for s in ("train", "test") for k in (0, 1) for i in range(4)):
        path = root / split / "ab"[label] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 60, (36, 40, 3)) + 150 * label
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    return padded(root, "*.png")


class Case(NamedTuple):
    write: Callable[[Path], Path]  # the data; returns the folder for --data
    command: list[str]
    change: Callable[[Path], Any]
    what: str = "labels"


MAIN = "VOC2007/ImageSets/Main"
SPLITS = "dtd/dtd/labels"
CASES = {
    "dtd's lists": Case(
        written(layouts.dtd),
        [*CLASSIFY, "--dataset", "dtd"],
        lambda r: swap_lines(r / SPLITS / "train1.txt", r / SPLITS / "test1.txt"),
    ),
    "voc2007's lists of a class": Case(
        written(layouts.voc2007),
        [*CLASSIFY, "--dataset", "voc2007-cls"],
        lambda r: swap_words(r / MAIN / "bird_test.txt", "000003  1", "000003 -1"),
    ),
    "places365's list": Case(
        written(layouts.places365),
        [*CLASSIFY, "--dataset", "places365"],
        lambda r: swap_lines_in(r / "places365/places365_val.txt"),
    ),
    "images of a folder": Case(
        folder_of_colors, CLASSIFY, lambda r: redraw(r / "test/a/1.png", ImageOps.invert), "images"
    ),
    "voc's boxes": Case(
        tiny.voc, VOC, lambda r: swap_words(r / "VOC2007/Annotations/000008.xml", "dog", "cat")
    ),
    "voc's difficult objects": Case(
        tiny.voc,
        VOC,
        lambda r: swap_words(r / "VOC2007/Annotations/000007.xml", "cult>0<", "cult>1<"),
    ),
    "voc's splits": Case(
        tiny.voc, VOC, lambda r: swap_lines(r / MAIN / "trainval.txt", r / MAIN / "test.txt")
    ),
    "voc's order of classes": Case(
        lambda r: named(tiny.voc(r), "cat", "dog"), VOC, lambda r: named(r, "dog", "cat")
    ),
    "voc's images": Case(
        lambda r: padded(tiny.voc(r), "*.jpg"),
        VOC,
        lambda r: redraw(r / "VOC2007/JPEGImages/000008.jpg", turned),
        "images",
    ),
    "cityscapes' instances": Case(
        lambda r: padded(tiny.cityscapes(r), "*.png"),
        CITY,
        lambda r: redraw(next(r.glob("gtFine/val/*/*_instanceIds.png")), turned),
    ),
    "segment's labels": Case(
        lambda r: padded(trees.voc(r), "*.png"),
        [*SEGMENT, "--recipe", "voc12aug-fcn16s-30k"],
        lambda r: redraw(r / f"VOC2012/SegmentationClass/{trees.ids('val', 1)[0]}.png", turned),
    ),
    "segment's training labels": Case(
        lambda r: padded(trees.voc(r), "*.png"),
        [*SEGMENT, "--recipe", "voc12aug-fcn16s-30k"],
        lambda r: redraw(
            r / f"VOC2012/SegmentationClassAug/{trees.ids('extra', 1)[0]}.png", turned
        ),
    ),
    "segment's cityscapes": Case(
        lambda r: padded(trees.cityscapes(r), "*.png"),
        CITY_SEGMENT,
        lambda r: redraw(next(r.glob("gtFine/val/*/*_labelIds.png")), turned),
    ),
}


def swap_lines_in(path: Path) -> None:
    """Exchange the labels of the first two images that differ in it."""
    lines = [line.split() for line in path.read_text().splitlines()]
    other = next(line for line in lines if line[1] != lines[0][1])
    lines[0][1], other[1] = other[1], lines[0][1]
    path.write_text("".join(" ".join(line) + "\n" for line in lines))


def named(root: Path, *names: str) -> Path:
    (root / "classes.txt").write_text("\n".join(names))
    return root


def sizes(root: Path) -> dict[str, int]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.stat().st_size for path in files}


def forget(folder: Path) -> None:
    """Leave a run as earlier versions left it."""
    for path in (folder / "run.json", folder / "result.json"):
        about = json.loads(path.read_text())
        del about["contents"]
        path.write_text(json.dumps(about))


@pytest.mark.parametrize("name", CASES)
def test_other_labels_of_the_same_names_and_sizes_are_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case, out = CASES[name], tmp_path / "runs"
    data = case.write(tmp_path / "data")
    command = [*case.command, "--data", str(data), "--out", str(out)]
    assert main(command) == 0
    (path,) = out.rglob("result.json")
    assert set(read_result(path).contents) == {"labels", "images"}
    before, result = sizes(data), path.read_bytes()
    case.change(data)
    assert sizes(data) == before
    capsys.readouterr()
    assert main(command) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert f"the {case.what} have changed since this run was made; in {path.parent}" in (line)
    path.unlink()  # half done
    assert main([*command, "--dry-run"]) == 3
    path.write_bytes(result)


@pytest.mark.parametrize("name", ["dtd's lists", "voc's boxes", "segment's labels"])
def test_what_the_refusal_advises(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case, out = CASES[name], tmp_path / "runs"
    data = case.write(tmp_path / "data")
    command = [*case.command, "--data", str(data), "--out"]
    assert main([*command, str(out)]) == 0
    case.change(data)
    assert main([*command, str(out)]) == 3
    assert "choose another --out, or --fresh to throw that run away" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "another")]) == 0
    (path,), (other,) = ((tmp_path / o).rglob("result.json") for o in ("runs", "another"))
    assert read_result(other).run_id == read_result(path).run_id  # ids do not know it
    forget(path.parent)
    assert main([*command, str(out)]) == 0  # a run of an earlier version is taken as it is
    assert not read_result(path).contents
    assert main([*command, str(out), "--fresh"]) == 0
    assert read_result(path).contents == read_result(other).contents


def test_fresh_features_are_those_of_the_images_that_lie_there(tmp_path: Path) -> None:
    data, out = folder_of_colors(tmp_path / "data"), tmp_path / "runs"
    command = [*CLASSIFY, "--data", str(data), "--out"]
    assert main([*command, str(out)]) == 0
    for path in (data / "test").rglob("*.png"):
        redraw(path, ImageOps.invert)
    assert main([*command, str(out), "--fresh"]) == 0
    assert main([*command, str(tmp_path / "another")]) == 0
    (path,), (other,) = ((tmp_path / o).rglob("result.json") for o in ("runs", "another"))
    assert read_result(path).metrics == read_result(other).metrics
    assert len(list((out / "features").glob("*/meta.json"))) == 2


def test_other_masks_of_the_same_names_and_sizes_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, masks = write_images(tmp_path, 12)
    padded(masks, "*.png")
    command = ["pretrain", "--method", "harl", "--recipe", "harl-toy", *RESNET18, "--device", "cpu"]
    command += ["--data", str(images), "--masks", str(masks), "--workers", "0", "epochs=1"]
    command += ["--out", str(tmp_path / "run")]
    assert main([*command, "warmup_epochs=0"]) == 0
    before = sizes(masks)
    for path in masks.rglob("*.png"):
        redraw(path, ImageOps.invert)
    assert sizes(masks) == before
    capsys.readouterr()
    assert main([*command, "warmup_epochs=0"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "the folder holds another run" in line
    assert "other masks of the same names and sizes" in line
    about = json.loads((tmp_path / "run/run.json").read_text())
    del about["contents"]  # as earlier versions
    (tmp_path / "run/run.json").write_text(json.dumps(about))
    assert main([*command, "warmup_epochs=0"]) == 0
    assert "already finished" in capsys.readouterr().out


HOMES = {
    "voc": (tiny.voc, VOC, "VOCdevkit"),
    "coco": (tiny.coco, COCO, "coco"),
    "cityscapes": (tiny.cityscapes, CITY, "cityscapes"),
    "segment, voc": (
        lambda root: trees.voc(root.parent, "sbd"),
        [*SEGMENT, "--recipe", "voc12aug-fcn16s-30k"],
        "VOC2012",
    ),
    "segment, cityscapes": (trees.cityscapes, CITY_SEGMENT, "cityscapes"),
    "classify": (
        lambda root: layouts.dtd(root.parent),
        [*CLASSIFY, "--dataset", "dtd"],
        "dtd",
    ),
}


@pytest.mark.parametrize("name", HOMES)
@pytest.mark.parametrize("first", ["all data", "own folder"])
def test_a_set_is_one_run_from_its_own_folder_and_from_one_of_all_data(
    name: str, first: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write, command, folder = HOMES[name]
    data, out = tmp_path / "data", tmp_path / "runs"
    write(data / folder)
    roots = [data, data / folder] if first == "all data" else [data / folder, data]
    ids = []
    for root in roots:
        assert main([*command, "--data", str(root), "--out", str(out)]) == 0
        (path,) = out.rglob("result.json")
        ids.append(read_result(path).run_id)
    assert ids[0] == ids[1]
    assert re.search("finished before|already finished", capsys.readouterr().out)
    assert main([*command, "--data", str(roots[1]), "--out", str(tmp_path / "other")]) == 0
    (path,) = (tmp_path / "other").rglob("result.json")
    assert read_result(path).run_id == ids[0]


NAMES = {"segment, voc": "voc12aug", "segment, cityscapes": "cityscapes"}


def earlier(name: str, root: Path) -> str:
    """Return the fingerprint as it was: of names below --data."""
    if name.startswith("segment"):
        splits = segmentation_plan.datasets.read(NAMES[name], root)
        files = {path for split in splits for item in split.items for path in item}
        return manifest.fingerprint(root, [os.path.relpath(path, root) for path in files])
    if name != "coco":
        files = {path.relative_to(root) for path in root.rglob("*.*") if path.suffix != ".txt"}
        return manifest.fingerprint(root, files)
    names, digests = set(), []
    for split, scored in (("coco_2017_train", False), ("coco_2017_val", True)):
        read = coco.read(root, split, scored=scored)
        digest = hashlib.sha256(json.dumps([read.category_ids, read.class_names]).encode())
        for s in read.samples:
            path = str(Path(s.path).relative_to(root))
            names.add(path)
            about = [path, s.image_id, s.width, s.height, len(s.classes)]
            digest.update(json.dumps(about).encode())
            digest.update(s.boxes.tobytes() + s.classes.tobytes() + s.crowd.tobytes())
            for outline in s.segments:
                lone = isinstance(outline, dict)
                parts = [outline["counts"]] if lone else [part.tobytes() for part in outline]
                digest.update(json.dumps([len(part) for part in parts]).encode() + b"".join(parts))
        if read.truth:
            digest.update(read.truth.content)
        digests.append(digest.hexdigest())
    text = json.dumps([manifest.fingerprint(root, names), *sorted(digests)])
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("name", [name for name in HOMES if name != "classify"])
@pytest.mark.parametrize("first", ["all data", "own folder"])
def test_a_run_of_an_earlier_version_counts_from_either_folder_and_its_seeds_stay_together(
    name: str,
    first: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write, command, folder = HOMES[name]
    data, out = tmp_path / "data", tmp_path / "runs"
    write(data / folder)
    before = earlier(name, data if first == "all data" else data / folder)
    with monkeypatch.context() as version:
        version.setattr(detection_plan, "fingerprints", lambda *_: [before])
        version.setattr(segmentation_plan.datasets, "fingerprints", lambda *_: [before])
        assert main([*command, "--data", str(data), "--out", str(out)]) == 0
    (path,) = out.rglob("result.json")
    forget(path.parent)
    for root in (data, data / folder):
        assert main([*command, "--data", str(root), "--out", str(out)]) == 0
        assert "finished before" in capsys.readouterr().out
    assert main([*command, "--data", str(data), "--out", str(out), "--seeds", "0", "1"]) == 0
    results = [read_result(path) for path in out.rglob("result.json")]
    assert [r.data_fingerprint for r in results] == [before, before]

"""One folder of all data: every command finds its set in it, where docs/data.md says."""

import re
import shutil
from pathlib import Path

import pytest

from harl_bench.classify.datasets import PUBLISHED, read
from harl_bench.cli import main
from harl_bench.core.errors import DataError
from harl_bench.core.nearby import TREE, within
from harl_bench.doctor import data as doctor
from harl_bench.toydata.run import toy_data
from tests.classify.layouts import WRITERS, voc2007
from tests.test_docs import DOCS

# other tests write and compute at the same time
FREE = re.compile(r"[\d.]+ GiB free|^.+: \d+/\d+ .*\n", re.MULTILINE)
PAGE = (DOCS / "data.md").read_text(encoding="utf-8")
FOLDERS = dict(re.findall(r"^  (\S+)/ +classify --dataset (\S+)$", PAGE, re.MULTILINE))


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "toy"
    toy_data(folder, scale=0.06, side_px=48)
    return folder


def test_the_page_has_every_published_set() -> None:
    assert {*FOLDERS.values(), "voc2007-cls"} == set(PUBLISHED)


@pytest.mark.parametrize(("folder", "name"), FOLDERS.items())
def test_each_set_is_read_where_the_page_says(tmp_path: Path, folder: str, name: str) -> None:
    root = tmp_path / "D"
    WRITERS[name](root / folder if name == "imagenet" else root)
    assert (root / folder).is_dir()
    data = read(name, root)
    assert data.root.is_relative_to(root)
    shutil.move(root, tmp_path / "E" / "transfer")
    if name != "imagenet":
        assert read(name, tmp_path / "E").fingerprint == data.fingerprint


def test_voc_for_classification_is_the_detectors() -> None:
    assert re.search(r"^  voc/ .* classify --dataset voc2007-cls$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("place", ["", "voc", "VOCdevkit", "voc/VOCdevkit"])
def test_voc2007_is_classified_from_the_folder_of_the_detectors(tmp_path: Path, place: str) -> None:
    voc2007(tmp_path / place)
    assert read("voc2007-cls", tmp_path).root == tmp_path / place / "VOC2007"


@pytest.mark.parametrize(
    ("command", "place"),
    [
        ("voc random --recipe voc-c4-toy", "voc"),
        ("coco random --recipe coco-fpn-toy", "coco"),
        ("segment random --recipe voc12aug-fcn16s-toy", "segment"),
        ("classify random --protocol linear-toy", "classify"),
        ("classify random --protocol linear-toy --dataset dtd", "transfer"),
    ],
)
def test_one_folder_or_the_sets_own(
    toy: Path,
    command: str,
    place: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    outputs = []
    for data in (toy, toy / place):
        assert main([*command.split(), "--data", str(data), "--gpus", "0", "--dry-run"]) == 0
        outputs.append(FREE.sub("", capsys.readouterr().out))
    assert outputs[0] == outputs[1]
    monkeypatch.setenv("DETECTRON2_DATASETS", str(toy))
    assert main([*command.split(), "--gpus", "0", "--dry-run"]) == 0
    assert FREE.sub("", capsys.readouterr().out) == outputs[0]


def test_the_doctors_commands_are_for_what_it_sees(toy: Path) -> None:
    commands = {f.next for f in doctor.findings(toy) if f.next.startswith("harl-bench")}
    assert {
        f"harl-bench voc CKPT --data {toy / 'voc'}",
        f"harl-bench coco CKPT --data {toy / 'coco'}",
        f"harl-bench classify CKPT --data {toy / 'classify'}",
        f"harl-bench classify CKPT --data {toy / 'transfer'} --dataset dtd",
    } <= commands
    assert any(c.startswith(f"harl-bench segment CKPT --data {toy}/segment") for c in commands)


def test_a_broken_set_has_no_command(toy: Path, tmp_path: Path) -> None:
    shutil.copytree(toy / "voc", tmp_path / "voc")
    next((tmp_path / "voc/VOC2007/JPEGImages").glob("*.jpg")).unlink()
    assert not [f for f in doctor.findings(tmp_path) if f.next.startswith("harl-bench voc")]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("voc", "unpack VOCtrainval_06-Nov-2007.tar into {}/voc"),
        ("coco", "unpack annotations_trainval2017.zip into {}/coco"),
        ("segment", "unpack VOCtrainval_11-May-2012.tar into {}/segment"),
    ],
)
def test_an_empty_folder_is_told_where_the_set_lies(
    tmp_path: Path, command: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "random", "--data", str(tmp_path), "--gpus", "0"]) == DataError.exit_code
    assert words.format(tmp_path) in capsys.readouterr().err


def test_the_folder_itself_goes_before_those_below(tmp_path: Path) -> None:
    for folder in ("", *TREE["segment"]):
        (tmp_path / folder / "there").mkdir(parents=True, exist_ok=True)
    there = lambda folder: (folder / "there").is_dir()  # noqa: E731
    assert within(tmp_path, "segment", there) == tmp_path
    shutil.rmtree(tmp_path / "there")
    assert within(tmp_path, "segment", there) == tmp_path / "segment"
    shutil.rmtree(tmp_path / "segment")
    assert within(tmp_path, "segment", there) == tmp_path / "voc"
    shutil.rmtree(tmp_path / "voc")
    assert within(tmp_path, "segment", there) == tmp_path

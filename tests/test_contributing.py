"""CONTRIBUTING.md is true: its blocks go into a copy of the packages, where its commands work."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.detection import tiny

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"`([\w./-]+)`:\n\n```(?:python|yaml)\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.findall(r"^harl-bench (.*)$", PAGE, re.MULTILINE)
IMPORT = r"(?:,\s+and the import, `([^`]+)`)?"
LINES = re.findall(r"line in `(\w+)` of `([\w./]+)`: `([^`]+)`" + IMPORT, PAGE)
MAIN = """
import sys
from harl_bench.cli import main
sys.exit(max(main(line.split()) for line in sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the packages with every addition of the page, and small data in work/."""
    copy = tmp_path_factory.mktemp("contributing")
    for name in ("harl_bench", "pretrain", "transfer_configs", "reports"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    tables = {path: table for table, path, _, _ in LINES}
    for path, text in BLOCKS:
        if (copy / path).exists():
            insert(copy / path, rf"^{tables[path]}\b", f"{text}\n\n")
        else:
            (copy / path).write_text(text, encoding="utf-8")
    for table, path, line, imported in LINES:
        insert(copy / path, rf"(?<=^{table})\b[^\n]* = {{\n", f"    {line}\n", after=True)
        if imported:
            insert(copy / path, "^from ", f"{imported}\n")
    write_data(copy / "work")
    return copy


@pytest.fixture(scope="module")
def printed(copy: Path) -> str:
    """Run every command of the page, in its order, and return what they print."""
    more = ["pretrain --help", "classify --help", "report runs --csv table.csv"]
    done = run(copy, "-c", MAIN, *COMMANDS, *more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run(copy: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in work/ with the packages of the copy."""
    packages = {"PYTHONPATH": str(copy), "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "400"}
    return subprocess.run(
        [sys.executable, "-P", *arguments],
        cwd=copy / "work",
        env=os.environ | packages,
        capture_output=True,
        text=True,
        check=False,
    )


def insert(path: Path, pattern: str, text: str, *, after: bool = False) -> None:
    """Insert text before, or after, the first match in a file."""
    content = path.read_text(encoding="utf-8")
    match = re.search(pattern, content, re.MULTILINE)
    assert match, f"{path} has no {pattern}"
    at = match.end() if after else match.start()
    path.write_text(content[:at] + text + content[at:], encoding="utf-8")


def write_data(work: Path) -> None:
    """Write 16 photos, a batch of ImageNet, VOC, and CUB-200: 15 and 6 images of 3 species."""
    random = np.random.default_rng(0)
    base = work / "data" / "CUB_200_2011"
    for path in (work / "photos", base / "images"):
        path.mkdir(parents=True)
    for i in range(16):
        pixels = random.integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(work / "photos" / f"{i}.png")
    lists: dict[str, list[str]] = {"images": [], "image_class_labels": [], "train_test_split": []}
    for number in range(21):
        pixels = random.integers(0, 60, (40, 40, 3), np.uint8)
        pixels[..., number % 3] += 150
        Image.fromarray(pixels).save(base / "images" / f"bird_{number + 1}.jpg")
        lists["images"].append(f"{number + 1} bird_{number + 1}.jpg")
        lists["image_class_labels"].append(f"{number + 1} {number % 3 + 1}")
        lists["train_test_split"].append(f"{number + 1} {int(number < 15)}")
    lists["classes"] = ["1 001.Albatross", "2 002.Crow", "3 003.Wren"]
    for name, rows in lists.items():
        (base / f"{name}.txt").write_text("".join(f"{row}\n" for row in rows))
    tiny.voc(work / "data")
    train = work / "imagenet" / "train"
    train.mkdir(parents=True)
    for i in range(2048):
        (train / f"{i}.png").hardlink_to(work / "photos" / f"{i % 16}.png")


def test_every_block_and_line_is_read() -> None:
    assert len(BLOCKS) == len(re.findall(r"^```(python|yaml)$", PAGE, re.MULTILINE)) == 8
    assert [table for table, *_ in LINES] == ["METHODS", "DATASETS", "METRICS"]


@pytest.mark.slow
def test_a_method(copy: Path, printed: str) -> None:
    assert "harl, byol" in printed
    assert "mine, harl, byol" in printed
    run_folder = copy / "work" / "runs" / "mine"
    assert (run_folder / "last.pth").is_file()
    last = json.loads((run_folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["loss"] < last["alignment"]  # the uniformity is negative


@pytest.mark.slow
def test_the_contract_of_methods_runs_on_it(copy: Path) -> None:
    tests = copy / "tests" / "pretrain"
    tests.mkdir(parents=True)
    path = shutil.copy(ROOT / "tests" / "pretrain" / "test_methods.py", tests)
    done = run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", path, "-k", "mine")
    assert "2 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["linear-toy", "linear-64"])
def test_a_data_set_a_protocol_and_a_metric(copy: Path, printed: str, protocol: str) -> None:
    assert "cub200, folder" in printed
    (path,) = (copy / "work" / "runs" / "classify" / "cub200" / protocol).rglob("result.json")
    result, predictions = json.loads(path.read_text()), np.load(path.with_name("predictions.npz"))
    counts = {name: split["n"] for name, split in result["manifest"]["split"].items()}
    assert counts == {"train": 12, "val": 3, "test": 6}
    assert result["departures"] == []
    expected = 100 * np.mean([1 / (place + 1) for place in predictions["place"]])
    assert result["metrics"]["reciprocal_rank"] == pytest.approx(expected)
    assert "reciprocal_rank" in (copy / "work" / "table.csv").read_text()


@pytest.mark.slow
def test_recipes_and_a_suite(copy: Path, printed: str) -> None:
    for text in (
        "batch_size: 2048",
        "MAX_ITER: 12000",
        "classify  birds as cub200  linear-64  mine",
    ):
        assert text in printed


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("image_class_labels.txt", "next: unpack the data set as its authors publish it"),
        ("classes.txt", "cannot read list; in"),
        ("images/bird_3.jpg", "1 of 21 listed images are missing"),
    ],
)
def test_a_missing_file_of_a_data_set_is_one_line(
    copy: Path, tmp_path: Path, lost: str, message: str
) -> None:
    shutil.copytree(copy / "work" / "data", tmp_path / "data")
    (tmp_path / "data" / "CUB_200_2011" / lost).unlink()
    command = f"classify random --dataset cub200 --data {tmp_path / 'data'}"
    done = run(copy, "-c", MAIN, command)
    assert done.returncode == 3
    assert message in done.stderr
    assert done.stderr.count("\n") == 1

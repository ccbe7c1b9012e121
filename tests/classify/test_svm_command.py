"""The SVM protocols as a person runs them."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harl_bench.classify import datasets, pixels
from tests.classify.command import classify, result, selection
from tests.classify.layouts import WRITERS
from tests.classify.test_svm import COSTS

FAST = ["--protocol", "svm", COSTS, "folds=2", "image_size=32"]


def test_the_command_on_a_folder(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert classify(data, tmp_path / "runs", *FAST, checkpoint="random-resnet18") == 0
    found = result(tmp_path / "runs")
    assert found.metrics == {"mAP": 100.0}
    assert found.metric == "area"
    assert found.per_class["red"] == {"AP": 100.0}
    assert selection(tmp_path / "runs")["cost"].keys() == {"blue", "green", "red"}
    assert "squeezed to 32" in found.manifest["transform"]
    stored = np.load(next((tmp_path / "runs").rglob("predictions.npz")))
    assert stored["scores"].shape == (9, 3)
    capsys.readouterr()
    assert classify(data, tmp_path / "runs", *FAST, checkpoint="random-resnet18") == 0
    assert "already finished" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--protocol", "svm", "folds=99"], "fewer than the 99 folds"),
        (["--protocol", "svm-lowshot", "shots=[1,99]"], "fewer than the 99 shots"),
    ],
)
def test_too_few_images_are_noticed_before_any_feature(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], told: str
) -> None:
    more = [*more, "--dry-run"]
    assert classify(data, tmp_path / "runs", *more, checkpoint="random-resnet18") == 3
    assert told in capsys.readouterr().err


def test_low_shot_says_how_its_cost_is_taken(data: Path, tmp_path: Path) -> None:
    more = ["--protocol", "svm-lowshot", "shots=[1,2]", "samples=3", "costs=[1.0]", "layer=4"]
    assert classify(data, tmp_path / "runs", *more, checkpoint="random-resnet18") == 0
    found = result(tmp_path / "runs")
    assert found.metrics.keys() == {"k1/mAP", "k1/sd", "k2/mAP", "k2/sd"}
    assert any("best mean on the test images" in text for text in found.departures)
    assert "layer 4 instead of 5" in found.departures


def test_squeezing_keeps_the_whole_image(tmp_path: Path) -> None:
    """A wide image's two halves are halves of the square; a crop would lose its ends."""
    wide = np.zeros((40, 160, 3), dtype=np.uint8)
    wide[:, 120:] = 255
    for split in ("train", "test"):
        for name in ("a", "b"):
            for i in range(2):
                path = tmp_path / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(wide).save(path)
    images = datasets.folder(tmp_path)
    transform = pixels.Transform(32, 40, "RGB", (0, 0, 0), (1, 1, 1), squeezed=True)
    _, image = pixels.CenterCrops(images, np.array([0]), transform)[0]
    assert image.shape == (3, 32, 32)
    assert image[0, 16, :22].max() < 8
    assert image[0, 16, 26:].min() > 247


@pytest.mark.slow
def test_a_signal_leaves_no_process_behind(tmp_path: Path) -> None:
    """joblib's processes have no `kill` of their own: the command ended with an error instead."""
    script = tmp_path / "sleep.py"
    script.write_text(
        "import os, time\n"
        "from sklearn.utils.parallel import Parallel, delayed\n"
        "from harl_bench.core.stopping import terminable\n"
        "def sleep(path):\n"
        "    open(f'{path}/{os.getpid()}', 'w').close()\n"
        "    time.sleep(300)\n"
        "with terminable():\n"
        f"    Parallel(n_jobs=2)(delayed(sleep)({str(tmp_path)!r}) for _ in range(2))\n"
    )
    process = subprocess.Popen([sys.executable, script], stderr=subprocess.PIPE, text=True)
    for _ in range(600):
        workers = [int(path.name) for path in tmp_path.iterdir() if path.name.isdigit()]
        if len(workers) == 2:
            break
        time.sleep(0.1)
    process.terminate()
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 75
    assert "stopped by SIGTERM" in error
    assert "Traceback" not in error
    for worker in workers:
        state = Path(f"/proc/{worker}/stat")
        assert not state.exists() or state.read_text().split()[2] == "Z"


def test_the_command_on_voc2007(tmp_path: Path) -> None:
    """A copy of its layout: flags of several classes, difficult ones among them."""
    WRITERS["voc2007-cls"](tmp_path / "voc")
    for path in (tmp_path / "voc").rglob("Main/*_*.txt"):
        images = [line.split()[0] for line in path.read_text().splitlines()]
        path.write_text("".join(f"{name} {1 - i % 3:2}\n" for i, name in enumerate(images)))
    more = ["--dataset", "voc2007-cls", "--protocol", "svm", "costs=[0.0625]", "folds=2"]
    assert classify(tmp_path / "voc", tmp_path / "runs", *more, checkpoint="random-resnet18") == 0
    found = result(tmp_path / "runs")
    assert found.metrics.keys() == {"mAP"}
    assert len(found.per_class) == 20
    stored = np.load(next((tmp_path / "runs").rglob("predictions.npz")))
    assert stored["labels"].shape == stored["scores"].shape == (found.n_test, 20)
    assert set(np.unique(stored["labels"])) <= {-1, 0, 1}

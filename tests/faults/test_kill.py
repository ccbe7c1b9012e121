"""SIGKILL, SIGTERM, SIGUSR2, Ctrl-C at random moments, then the same command again.

It ends with what an undisturbed one leaves.
"""

import contextlib
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import resnet50

from tests.detection import tiny
from tests.detection.test_train import TINY
from tests.faults import FULL
from tests.masks import mask_scenes as scenes

pytestmark = pytest.mark.slow
KILLS, STOPS = (30, 3) if FULL else (2, 1)  # of each command
RESNET18 = [
    "backbone=resnet18",
    "image_size=32",
    "batch_size=4",
    "epochs=2",
    "warmup_epochs=1",
    "checkpoint_every_steps=1",
    "projector_hidden=16",
    "projector_out=8",
    "predictor_hidden=16",
]
DETECTION = [
    *TINY,
    "SOLVER.CHECKPOINT_PERIOD=1",
    "--engine",
    "torchvision",
    "--seeds",
    "0",
    "--workers",
    "0",
]
SUITE = """
data: {{voc: {root}/voc, classify: {root}/classes}}
checkpoints: [random]
tasks:
  - {{task: classify, protocol: linear-toy, data: classify, overrides: [image_size=32]}}
  - {{task: voc, recipe: voc-c4-toy, engine: torchvision, data: voc, overrides: [{overrides}]}}
seeds: [0]
report: {{md: table.md}}
"""


class Case(NamedTuple):
    """A command, by the folders of its data and output, and what of the output must be equal."""

    command: Callable[[Path, Path], list[str]]
    outcome: Callable[[Path], Any]


def tensors(path: Path) -> dict[str, bytes]:
    """Every tensor of a checkpoint, to the bit."""
    values: dict[str, bytes] = {}

    def walk(node: Any, name: str) -> None:
        if isinstance(node, torch.Tensor):
            flat = node.detach().contiguous().flatten()
            values[name] = flat.view(torch.uint8).numpy().tobytes()
        elif isinstance(node, dict):
            for key, value in node.items():
                walk(value, f"{name}.{key}")

    payload = torch.load(path, weights_only=True)
    walk(payload.get("method") or payload["model"], "")
    assert values
    return values


def scores(out: Path) -> dict[str, Any]:
    results = {
        p.parent.relative_to(out).as_posix(): json.loads(p.read_text())
        for p in sorted(out.rglob("result.json"))
    }
    assert results
    return {name: (result["metrics"], result["per_class"]) for name, result in results.items()}


def detector(out: Path) -> Any:
    (path,) = out.rglob("model_final.pth")
    return scores(out), tensors(path)


def masks(out: Path) -> Any:
    return {
        p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.rglob("[!.]*.png"))
    }, sorted((out / "manifest.csv").read_text().splitlines())


def suite(root: Path, out: Path) -> list[str]:
    overrides = ", ".join(json.dumps(o) for o in [*TINY, "SOLVER.CHECKPOINT_PERIOD=1"])
    (root / "suite.yaml").write_text(SUITE.format(root=root, overrides=overrides))
    return ["run", str(root / "suite.yaml"), "--out", str(out)]


def masks_make(root: Path, out: Path) -> list[str]:
    maker = ["--method", "drfi-lite", "--workers", "1", "--preview", "0"]
    return ["masks", "make", str(root / "photos/images"), "--out", str(out), *maker]


def pretrain(root: Path, out: Path) -> list[str]:
    data = ["--data", str(root / "photos/images"), "--masks", str(root / "photos/masks")]
    method = ["pretrain", "--method", "harl", "--recipe", "harl-toy", *RESNET18]
    return [*method, *data, "--out", str(out), "--workers", "1", "--device", "cpu"]


def detection(task: str, recipe: str, root: Path, out: Path) -> list[str]:
    paths = ["--data", str(root / task), "--out", str(out)]
    return [task, "random", "--recipe", recipe, *paths, *DETECTION]


def classify(root: Path, out: Path) -> list[str]:
    paths = ["--data", str(root / "classes"), "--out", str(out)]
    protocol = ["classify", "random", "--protocol", "linear-toy", "image_size=32"]
    return [*protocol, *paths, "--workers", "1", "--device", "cpu"]


def convert(root: Path, out: Path) -> list[str]:
    return ["convert", str(root / "moco.pth.tar"), "--out", str(out / "back.pth")]


CASES = {
    "masks": Case(masks_make, masks),
    "pretrain": Case(pretrain, lambda out: tensors(out / "last.pth")),
    "convert": Case(convert, lambda out: tensors(out / "back.pth")),
    "voc": Case(partial(detection, "voc", "voc-c4-toy"), detector),
    "coco": Case(partial(detection, "coco", "coco-fpn-toy"), detector),
    "classify": Case(classify, scores),
    "run": Case(suite, scores),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    scenes.write(root / "photos", 8)
    tiny.voc(root / "voc", train=3, test=2)
    tiny.coco(root / "coco", train=4, test=2)
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 4)):
        for k, name in enumerate(("red", "green")):
            for i in range(count):
                path = root / "classes" / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = rng.integers(0, 120, (40, 36, 3), dtype=np.uint8)
                pixels[..., k] += 100
                Image.fromarray(pixels).save(path)
    backbone = {
        f"module.encoder_q.{name}": value for name, value in resnet50().state_dict().items()
    }
    torch.save({"epoch": 200, "arch": "resnet50", "state_dict": backbone}, root / "moco.pth.tar")
    return root


def start(arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    with open(log, "ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "harl_bench.cli", *arguments],
            stdout=file,
            stderr=file,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )


def whole(out: Path) -> None:
    """Nothing that carries its final name is half written."""
    for path in out.rglob("*"):
        if path.name.startswith(".") or not path.is_file():
            continue
        if path.suffix == ".json" and not path.is_symlink():
            json.loads(path.read_text())
        elif path.suffix == ".png":
            Image.open(path).load()
        elif path.suffix in (".pth", ".pkl"):
            torch.load(path, weights_only=True)


class Calm(NamedTuple):
    """An undisturbed run: its outcome and how long it took, in seconds."""

    outcome: Any
    length: float


@pytest.fixture(scope="module")
def calm(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Calm]:
    @functools.cache
    def run(name: str) -> Calm:
        folder = tmp_path_factory.mktemp(f"calm-{name}")
        began = time.monotonic()
        finish(CASES[name].command(root, folder / "out"), folder / "log.txt")
        calm = Calm(CASES[name].outcome(folder / "out"), time.monotonic() - began)
        shutil.rmtree(folder)
        return calm

    return run


def finish(command: list[str], log: Path) -> None:
    assert start(command, log).wait(timeout=600) == 0, log.read_text()[-3000:]


@pytest.mark.parametrize("name", CASES)
def test_killed_at_any_moment(
    root: Path, tmp_path: Path, calm: Callable[[str], Calm], name: str
) -> None:
    case, broken, log = CASES[name], tmp_path / "broken", tmp_path / "log.txt"
    expected, length = calm(name)
    random = np.random.default_rng([sum(name.encode()), KILLS])
    for number in range(KILLS):
        process = start(case.command(root, broken), log)
        try:
            code = process.wait(timeout=float(random.uniform(0.25, 1.0)) * length)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        else:
            assert code == 0, log.read_text()[-3000:]
            if FULL:  # it had got to the end: once more from nothing
                broken.rename(ended := tmp_path / f"ended{number}")
                assert case.outcome(ended) == expected
                shutil.rmtree(ended)
        whole(broken)
    finish(case.command(root, broken), log)
    assert case.outcome(broken) == expected
    finish(case.command(root, broken), log)  # a finished command is skipped
    assert case.outcome(broken) == expected


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT], ids=lambda number: number.name
)
@pytest.mark.parametrize("name", CASES)
def test_asked_to_stop_at_any_moment(
    root: Path, tmp_path: Path, calm: Callable[[str], Calm], name: str, number: signal.Signals
) -> None:
    """The signal goes to every process: one line, an exit code, and none of them is left."""
    case, broken, log = CASES[name], tmp_path / "broken", tmp_path / "log.txt"
    expected, length = calm(name)
    random = np.random.default_rng([sum(name.encode()), number])
    for _ in range(STOPS):
        process = start(case.command(root, broken), log)
        while not listens(process.pid):
            assert process.poll() is None, log.read_text()[-3000:]
            time.sleep(0.02)
        time.sleep(float(random.uniform(0, 0.9)) * length)
        if process.poll() is None:
            os.killpg(process.pid, number)
            code = process.wait(timeout=60)
            # -2, death by SIGINT, is how Python itself may end; to a shell it is 130 as well
            assert code in ((0, 130, -2) if number == signal.SIGINT else (0, 75)), (
                code,
                log.read_text()[-3000:],
            )
            assert gone(process.pid), "processes are left"
        whole(broken)
        # Python prints one of its own when Ctrl-C meets it before our first line
        text = re.sub(r"Traceback .*\n((  .*)?\n)+KeyboardInterrupt\n", "", log.read_text())
        assert "Traceback" not in text, text[-3000:]
    finish(case.command(root, broken), log)
    assert case.outcome(broken) == expected


def listens(pid: int) -> bool:
    """Return whether a process handles SIGUSR2 already, by Linux's mask of caught signals."""
    caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(caught and int(caught[1], 16) >> (signal.SIGUSR2 - 1) & 1)


def gone(group: int) -> bool:
    """Return whether no process of the group is left, within ten seconds."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_killed_alone_leaves_no_process(tmp_path: Path) -> None:
    """As the kernel does when memory is short: the processes that made masks for it end too."""
    log = tmp_path / "log.txt"
    scenes.write(tmp_path / "photos", 30)
    process = start(CASES["masks"].command(tmp_path, tmp_path / "out"), log)
    while not list(tmp_path.rglob("out/**/[!.]*.png")):
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert gone(process.pid)


def test_a_killed_worker_ends_the_command_in_one_line(tmp_path: Path) -> None:
    """As the kernel does to the largest process; the same command again finishes."""
    log, command = tmp_path / "log.txt", CASES["masks"].command(tmp_path, tmp_path / "out")
    scenes.write(tmp_path / "photos", 30)
    process = start(command, log)
    while not list(tmp_path.rglob("out/**/[!.]*.png")):
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    os.kill(max(processes_of(process.pid)), signal.SIGKILL)
    assert process.wait(timeout=60) == 5
    assert (
        log.read_text()
        .splitlines()[-1]
        .startswith("error[environment]: a process that made masks was killed")
    )
    assert gone(process.pid)
    finish(command, log)
    assert len(masks(tmp_path / "out")[0]) == 30


def processes_of(group: int) -> list[int]:
    numbers = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(ValueError, ProcessLookupError):
            if os.getpgid(int(entry.name)) == group:
                numbers.append(int(entry.name))
    return numbers

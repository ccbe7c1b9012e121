"""Whole runs of two processes on the CPU: compiled, stopped, resumed by another number, failing."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from harl_bench.core.errors import BenchError, DataError, PreemptedError, TrainingError
from harl_bench.nn import checkpoint, distributed, launching, resnet
from pretrain import data, loop
from pretrain.job import Job, prepared, work
from pretrain.methods import byol
from pretrain.methods.method import Method
from tests.pretrain.conftest import write_images
from tests.pretrain.test_compile import short_resnet
from tests.pretrain.test_methods import small

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked")]
# 13 images: the last 5 of an epoch make no batch, and one process has one more to be measured on.
IMAGES = 13
SETTINGS = {
    "image_size": 32,
    "batch_size": 8,
    "accumulate": 2,
    "epochs": 4,
    "base_lr": 0.01,
    "evaluate_every_epochs": 4,
}


@pytest.fixture
def images(tmp_path: Path) -> tuple[Path, Path]:
    return write_images(tmp_path / "data", IMAGES)


def job(images: tuple[Path, Path], out: Path, method: str = "byol", **changes: Any) -> Job:
    config = small(method, **{**SETTINGS, **changes})
    made = prepared(config, images[0], images[1] if config.needs_masks else None, images[0])
    made.folder, made.threads = out, 1
    out.mkdir(exist_ok=True)
    return made


def state(out: Path) -> dict[str, Any]:
    return checkpoint.load_own(out / "last.pth")


def same(a: Path, b: Path) -> bool:
    one, two = (state(out)["method"] for out in (a, b))
    return one.keys() == two.keys() and all(torch.equal(x, two[name]) for name, x in one.items())


def shallow(job: Job) -> dict[str, float]:
    """With a network that is traced in seconds."""
    resnet.build = short_resnet  # type: ignore[assignment]
    return work(job)


def compiled(job: Job) -> dict[str, float]:
    """With the backend that keeps eager's kernels."""
    inductor = Method.compile_step
    Method.compile_step = lambda self, backend="aot_eager": inductor(self, backend)  # type: ignore[method-assign]
    return shallow(job)


def terminated(job: Job) -> dict[str, float]:
    """The second process alone hears a signal, in step 1."""
    rate, steps = loop.set_learning_rate, iter(range(10))

    def signalled(*arguments: Any) -> float:
        if next(steps) == 1 and distributed.rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return rate(*arguments)

    loop.set_learning_rate = signalled
    return work(job)


def diverging(job: Job) -> dict[str, float]:
    """The second process alone has a loss that is not finite, in the first part of step 1."""
    regression, calls = byol.regression, iter(range(100))

    def spoilt(p: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        bad = next(calls) == 4 and distributed.rank() == 1  # two calls a part, two parts a step
        return regression(p, z) * (torch.nan if bad else 1)

    byol.regression = spoilt  # type: ignore[assignment]
    return work(job)


def test_compiled_accumulated_and_distributed_are_the_same_bits(
    images: tuple[Path, Path], tmp_path: Path
) -> None:
    plain, traced = tmp_path / "plain", tmp_path / "traced"
    numbers = launching.launch(shallow, 2, job(images, plain, epochs=2))
    again = launching.launch(compiled, 2, job(images, traced, epochs=2, compile=True))
    assert numbers == again
    assert same(plain, traced)


def test_a_signal_to_one_process_stops_both_and_any_number_goes_on(
    images: tuple[Path, Path], tmp_path: Path
) -> None:
    whole, stopped, alone = (tmp_path / name for name in ("whole", "stopped", "alone"))
    numbers = launching.launch(work, 2, job(images, whole))
    with pytest.raises(PreemptedError, match="stopped by SIGTERM, step 2 of 4 is saved"):
        launching.launch(terminated, 2, job(images, stopped))
    assert state(stopped)["step"] == 2
    shutil.copytree(stopped, alone)
    assert launching.launch(work, 2, job(images, stopped)) == numbers
    assert same(whole, stopped)
    single = launching.launch(work, 1, job(images, alone))
    assert single["loss"] == pytest.approx(numbers["loss"], rel=1e-3)
    assert single["val_knn_top1"] == numbers["val_knn_top1"]
    for name, x in state(whole)["method"].items():
        torch.testing.assert_close(x, state(alone)["method"][name], rtol=1e-2, atol=1e-3, msg=name)


def test_maps_of_statistics_of_ones_own_resume_to_the_same_bits(
    images: tuple[Path, Path], tmp_path: Path
) -> None:
    """Maps look through the key network's running statistics, of which one file keeps one set."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    changes = {"base": "mocov2", "sync_bn": False, "feature_grid": 28, "local_size": 32}
    changes |= {"queue_size": 16, "saliency_warmup": 0.0, "accumulate": 1}
    numbers = launching.launch(work, 2, job(images, whole, "saliency_crop", **changes))
    with pytest.raises(PreemptedError):
        launching.launch(terminated, 2, job(images, stopped, "saliency_crop", **changes))
    assert launching.launch(work, 2, job(images, stopped, "saliency_crop", **changes)) == numbers
    one, two = (state(out)["method"].pop("maps._extra_state") for out in (whole, stopped))
    assert torch.equal(one["slots"], two["slots"])


def test_a_loss_of_one_process_ends_both_and_names_the_step(
    images: tuple[Path, Path], tmp_path: Path
) -> None:
    """It is read a step late, when the other one's weights are spoilt, too."""
    out = tmp_path / "run"
    with pytest.raises(TrainingError, match="not finite; in step 1 of 4; seen: loss nan"):
        launching.launch(diverging, 2, job(images, out, evaluate_every_epochs=9))
    assert not (out / "last.pth").exists()


def test_data_of_one_process_end_both_and_keep_the_steps_before(
    images: tuple[Path, Path], tmp_path: Path
) -> None:
    """The mask of an image that the second process reads first in step 1, 2 or 3."""
    orders = [data.order(IMAGES, seed=0, epoch=epoch)[:8].tolist() for epoch in range(4)]
    step, i = next(
        (step, i)
        for step in (1, 2, 3)
        for i in orders[step][2:4]
        if all(i not in before for before in orders[:step])
    )
    whole = job(images, tmp_path / "run", "harl", feature_grid=14)
    Image.new("L", (7, 7)).save(images[1] / whole.images.paths[i])
    error: type[BenchError] = DataError
    with pytest.raises(error, match="7"):
        launching.launch(work, 2, job(images, tmp_path / "run", "harl", feature_grid=14))
    assert state(tmp_path / "run")["step"] == step

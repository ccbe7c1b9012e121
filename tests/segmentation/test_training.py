"""Training: two processes and any number of workers train the network of one."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from harl_bench.convert.read import random_backbone
from harl_bench.nn import checkpoint, launching
from harl_bench.segmentation import batches, recipe, train
from harl_bench.segmentation.batches import Stream
from harl_bench.segmentation.datasets import voc
from harl_bench.segmentation.job import Job
from tests.segmentation import trees
from tests.segmentation.test_run import MOCO, TINY


def two_processes(job: object) -> dict[str, torch.Tensor]:
    train.train(job)
    return checkpoint.load_own(job.last)["model"]


@pytest.mark.slow
def test_two_processes_train_the_network_of_one(data: Path, tmp_path: Path) -> None:
    """Batch norm and the loss pool over both; only the order of summation differs.

    One step, after which the largest difference was 2e-4, of a variance of 12: from random weights
    two steps more multiply it by ten thousand.
    """
    one_step = ["solver.batch=4", "solver.lr=1.0e-3", "solver.iterations=1"]
    _, settings, _ = recipe.load(MOCO, [*TINY, *one_step])
    split, val = voc.read(data, augmented=True)
    states = []
    for n in (1, 2):
        job = Job(settings, random_backbone(0), split, val, tmp_path / str(n), 0, "cpu")
        states.append(launching.launch(two_processes, n, job))
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, rtol=1e-4, atol=1e-4, msg=key)


def skipped(job: Job) -> list[str]:
    return list(train.train(job)["unreadable"])


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_an_image_that_another_process_skipped_is_counted(tmp_path: Path) -> None:
    """The result named those alone that its first process had met."""
    root = trees.voc(tmp_path / "data")
    _, settings, _ = recipe.load(MOCO, [*TINY, "solver.iterations=1"])
    split, val = voc.read(root, augmented=True)
    ((_, row),) = next(iter(Stream(len(split.items), 2, 0, first=0, last=1, rank=1, world=2)))
    image = split.items[row].image
    Path(image).write_bytes(b"broken")
    job = Job(settings, random_backbone(0), split, val, tmp_path, 0, "cpu", 0, True)
    assert launching.launch(skipped, 2, job) == [image]


def test_workers_change_nothing(data: Path) -> None:
    _, settings, _ = recipe.load("voc12aug-fcn-d8-20k", ["solver.batch=3", "solver.iterations=4"])
    split = voc.read(data, augmented=True)[0]
    streams = [
        [
            sample["image"]
            for samples in batches.training_batches(
                split, settings, seed=3, first=first, workers=workers, rank=rank, world=world
            )
            for sample in samples
        ]
        for first, workers, rank, world in ((0, 0, 0, 1), (0, 2, 0, 1), (2, 0, 0, 1), (0, 0, 2, 3))
    ]
    plain, workers, late, third = streams
    assert all(torch.equal(a, b) for a, b in zip(plain, workers, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(plain[6:], late, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(plain[2::3], third, strict=True))


def test_threads_of_opencv_end_before_workers_are_forked(data: Path) -> None:
    """Else each worker waits without end for threads that are not its own."""
    _, settings, _ = recipe.load(MOCO, [*TINY])
    split = voc.read(data, augmented=True)[0]
    cv2.setNumThreads(2)
    cv2.resize(np.zeros((64, 64, 3), np.uint8), (2048, 2048))
    next(batches.training_batches(split, settings, seed=0, first=0, workers=1))
    assert cv2.getNumThreads() == 1


def test_padding_is_the_mean_after_normalization(data: Path) -> None:
    from harl_bench.convert.formats import InputConvention

    _, settings, _ = recipe.load(MOCO, ["solver.batch=1", "solver.iterations=1"])
    split = voc.read(data, augmented=True)[0]
    (sample,) = next(batches.training_batches(split, settings, seed=0, first=0, workers=0))
    height, width = sample["size"].tolist()
    convention = InputConvention("BGR", (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    x, labels = batches.stacked([sample], settings, convention, "cpu")
    expected = (sample["image"].flip(0).float() - torch.tensor([1.0, 2, 3])[:, None, None]) / (
        torch.tensor([4.0, 5, 6])[:, None, None]
    )
    torch.testing.assert_close(x[0, :, :height, :width], expected[:, :height, :width])
    assert not x[0, :, height:].any()
    assert not x[0, :, :, width:].any()
    assert (labels[0, height:] == 255).all()
    assert Image.open(split.items[0].image).size == trees.size_of(0)

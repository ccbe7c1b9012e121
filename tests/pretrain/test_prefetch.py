"""The next batch comes while a step runs; masks come as cells; a loss is read a step late."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from harl_bench.cli import main
from harl_bench.core.errors import DataError, TrainingError
from harl_bench.core.progress import read_metrics
from harl_bench.nn import checkpoint
from harl_bench.nn.session import Session
from pretrain import data, loop
from pretrain.batch import Batch
from pretrain.losses import downsample_mask
from pretrain.methods import harl, method_class
from pretrain.prefetch import Items, Prefetch
from pretrain.unreadable import Unreadable
from tests.pretrain.test_methods import small
from tests.pretrain.test_pretrain import RESNET18, command

CPU = torch.device("cpu")


def empty(error: Exception | None = None) -> Batch:
    return Batch(torch.zeros(2, 2, 3, 4, 4), torch.zeros(2, 2, 1, 1, 1), torch.ones(2), error=error)


def slow(count: int, pause: float) -> Iterator[tuple[Batch, Items]]:
    for i in range(count):
        time.sleep(pause)
        yield empty(), [(0, i)]


def test_reading_hides_behind_the_device(tmp_path: Path) -> None:
    """A device that takes 0.2 s a step, and data that take as long: 5 steps in 6 turns, not 10."""
    unreadable = Unreadable(tmp_path / "unreadable.txt", 10, False, resumed=False)
    began, done = time.monotonic(), 0.0
    with Session("test", 5, first=0, save=lambda k: None) as session:
        stream = Prefetch(slow(5, 0.2), CPU)  # type: ignore[arg-type]
        for _ in session:
            stream.next(session, unreadable, None)
            done = max(done, time.monotonic()) + 0.2  # the device is busy until then
            stream.fetch(session)
            time.sleep(max(0.0, done - time.monotonic()))
            session.save(due=False)
    assert time.monotonic() - began < 1.7


def test_an_error_of_the_next_batch_waits_for_its_turn(tmp_path: Path) -> None:
    unreadable = Unreadable(tmp_path / "unreadable.txt", 10, False, resumed=False)
    saved: list[int] = []
    batches = iter([(empty(), [(0, 0)]), (empty(DataError("a mask of another size")), [(0, 1)])])
    with Session("test", 2, first=0, save=saved.append) as session:
        stream = Prefetch(batches, CPU)  # type: ignore[arg-type]
        steps = iter(session)
        next(steps)
        stream.next(session, unreadable, saved.append)
        stream.fetch(session)
        session.save(due=False)
        next(steps)
        with pytest.raises(DataError, match="another size"):
            stream.next(session, unreadable, saved.append)
    assert saved == [1], "the step before it is kept"


@pytest.mark.parametrize("rule", ["area", "nearest", "any"])
def test_cells_of_a_mask_are_the_same_wherever_they_are_made(rule: str) -> None:
    """In a worker, image by image or a batch at a time, and once more on the device."""
    g = torch.Generator().manual_seed(0)
    coarse = (torch.rand(70, 1, 9, 9, generator=g) > 0.6).float()
    masks = torch.nn.functional.interpolate(coarse, size=(112, 112), mode="nearest").byte()
    masks[0], masks[1] = 0, 0
    masks[1, :, 5, 5] = 1
    for S in ((4, 4), (7, 7), (14, 14)):
        whole = downsample_mask(masks.float(), S, rule)
        cells = data._shrunk(masks[None], lambda part, S=S: downsample_mask(part, S, rule))[0]  # type: ignore[misc]
        assert cells.dtype == torch.uint8
        assert torch.equal(cells.float(), whole)
        assert torch.equal(torch.cat([downsample_mask(m[None], S, rule) for m in masks]), whole)
        assert torch.equal(downsample_mask(cells.float(), S, rule), whole)


@pytest.mark.parametrize(
    ("about", "side"),
    [
        ({"method": "harl"}, 2),
        ({"method": "harl", "feature_grid": 28, "image_size": 224}, 28),
        ({"method": "harl", "image_size": 100}, 4),
        ({"method": "saliency_mask", "mask_grid": 7}, 7),
        ({"method": "byol"}, 1),
    ],
)
def test_the_workers_send_what_the_method_sees(
    folders: tuple[Path, Path], about: dict[str, object], side: int
) -> None:
    config = small(**{"image_size": 64, **about})  # type: ignore[arg-type]
    masks = folders[1] if config.needs_masks else None
    cls = method_class(config.method)
    views = cls.dataset(data.find(folders[0], masks), config, unfinished=True)
    share = data.Batches(12, batch_size=4, seed=0, first=0, last=1)
    (batch,) = data.loader(views, share, workers=0)
    assert batch.masks.shape == (2, 4, 1, side, side)
    if config.method == "harl":
        network = harl.Harl(config)  # type: ignore[arg-type]
        S = config.image_size
        h = loop.resnet.dense_features(network.backbone, torch.zeros(1, 3, S, S))
        assert h.shape[2:] == batch.masks.shape[3:]


@pytest.mark.parametrize("late", [False, True])
def test_a_late_loss_names_its_step_and_nothing_spoilt_is_saved(
    folders: tuple[Path, Path],
    tmp_path: Path,
    late: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Step 4 of 9 diverges: found in step 5, or before a save or a row."""
    out, calls = tmp_path / "run", []

    def spoilt(D_w: torch.Tensor, L_mask: torch.Tensor, lambda_: float) -> torch.Tensor:
        calls.append(lambda_)
        return D_w * float("nan") if len(calls) == 5 else D_w

    monkeypatch.setattr(harl, "hybrid_loss", spoilt)
    every = "log_every_steps=7" if late else "checkpoint_every_steps=5"
    settings = [x for x in RESNET18 if not x.startswith(every.split("=")[0])]
    assert main(command(folders, out, overrides=[*settings, every])) == 1
    error = capsys.readouterr().err
    assert "the loss is not finite; in step 4 of 9" in error
    assert len(calls) == 5 + late
    rows = [row["step"] for row in read_metrics(out / "metrics.jsonl")]
    assert rows == ([0] if late else [0, 1, 2, 3])
    if late:
        assert checkpoint.load_own(out / "last.pth")["step"] == 4
    else:
        assert not (out / "last.pth").exists()


def test_a_signal_after_a_diverged_step_saves_nothing() -> None:
    saved: list[int] = []
    session = Session("test", 5, first=0, save=saved.append)
    session.watch(torch.tensor(torch.nan), lambda value: TrainingError(f"loss {value}"))
    session.stop.signal = 15
    with pytest.raises(TrainingError, match="loss nan"):
        session.save(due=False)
    assert not saved

"""Two gloo processes on the CPU make the gradients, the queue and the training of one."""

from pathlib import Path
from typing import Any

import pytest
import torch

from harl_bench.core.errors import UsageError
from harl_bench.nn import distributed, launching
from pretrain import parallel
from pretrain.batch import Batch
from pretrain.job import prepared, work
from tests.pretrain.test_methods import batch, seeded, small

WIDE = {
    "projector_hidden": 32,
    "projector_out": 16,
    "predictor_hidden": 8,
    "queue_size": 16,
    "image_size": 32,
}
CASES: dict[str, dict[str, Any]] = {
    "byol": {"method": "byol"},
    "simclr": {"method": "simclr"},
    "simsiam": {"method": "simsiam"},
    "mocov2": {"method": "mocov2"},
    "harl": {"method": "harl", "feature_grid": 28},
    "harl on simclr": {"method": "harl", "base": "simclr", "feature_grid": 28},
    "harl on mocov2": {"method": "harl", "base": "mocov2", "feature_grid": 28},
    "mocov2 in groups": {"method": "mocov2", "sync_bn": False, "bn_groups": 2},
    "harl on mocov2 in groups": {
        "method": "harl",
        "base": "mocov2",
        "feature_grid": 28,
        "sync_bn": False,
        "bn_groups": 2,
    },
    "own statistics": {"method": "simclr", "sync_bn": False},
}


def whole_batch() -> Batch:
    """Eight images; most of the first process's four have no mask: counts of regions differ."""
    plain = batch(8, 32)
    return Batch(
        plain.views, plain.masks, torch.tensor([True, False, False, False, True, True, True, True])
    )


def share(whole: Batch) -> Batch:
    rank, world = distributed.rank(), distributed.world_size()
    size = len(whole.has_mask) // world
    here = slice(rank * size, (rank + 1) * size)
    return Batch(whole.views[:, here], whole.masks[:, here], whole.has_mask[here])


def gradients() -> dict[str, dict[str, torch.Tensor]]:
    """The gradient of one step of every case, and what batch norm and the queue became."""
    torch.set_num_threads(1)
    found = {}
    for name, about in CASES.items():
        config = small(**{**WIDE, **about})
        method = seeded(config)
        step = parallel.distributed_step(method, sync_bn=config.sync_bn)
        output = step(share(whole_batch()), 0, 10)
        output.loss.backward()  # type: ignore[no-untyped-call]
        method.after_step(0, 10)
        loss = parallel.mean_over_processes({"loss": float(output.loss.detach())})["loss"]
        grads = torch.cat(
            [p.grad.flatten() for _, p in method.named_parameters() if p.grad is not None]
        )
        running = torch.cat(
            [b.flatten().float() for n, b in method.named_buffers() if "num_" not in n]
        )
        # Of statistics of one's own, groups keep the mean.
        running = torch.stack(distributed.gather(running)).mean(dim=0)
        found[name] = {"loss": torch.tensor([loss]), "grads": grads, "buffers": running}
        of_each = [distributed.gather(float(method.backbone.bn1.running_mean.norm()))]
        parallel.share_statistics(method.backbone)
        of_each += [distributed.gather(float(method.backbone.bn1.running_mean.norm()))]
        found[name]["statistics"] = torch.tensor(of_each)
    return found


@pytest.fixture(scope="module")
def both(forked: None) -> tuple[Any, Any]:
    return gradients(), launching.launch(gradients, 2)


@pytest.mark.parametrize("name", [name for name in CASES if name != "own statistics"])
def test_two_processes_make_one_gradient(both: tuple[Any, Any], name: str) -> None:
    for what, tolerance in (("loss", 1e-4), ("grads", 1e-2), ("buffers", 1e-5)):
        one, two = (found[name][what] for found in both)
        assert one.norm() > 0
        assert (one - two).norm() / one.norm() < tolerance, what


def test_statistics_of_ones_own_make_another_gradient(both: tuple[Any, Any]) -> None:
    """So the comparison above would notice; its slack is for ReLUs at their kink (4e-3 seen)."""
    one, two = (found["own statistics"]["grads"] for found in both)
    assert (one - two).norm() / one.norm() > 0.02


def test_what_is_measured_together_is_the_network_that_is_saved(both: tuple[Any, Any]) -> None:
    before, after = both[1]["own statistics"]["statistics"]
    assert before[0] != before[1]
    assert after.tolist() == [before[0], before[0]]


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_two_processes_train_as_one_also_in_parts(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    """The whole loop: shares of each batch, gradients of parts, the probe, the checkpoint."""
    from harl_bench.nn import checkpoint

    # One epoch: later, rounding that differs with the processor's instructions has grown to the
    # size of the updates.
    config = small("byol", batch_size=8, accumulate=2, epochs=1, base_lr=0.3, image_size=32)
    states = []
    for processes in (1, 2):
        job = prepared(config, folders[0], None, folders[0])
        job.folder = tmp_path / str(processes)
        job.folder.mkdir()
        numbers = launching.launch(work, processes, job)
        states.append((numbers, checkpoint.load_own(job.folder / "last.pth")))
    (one, a), (two, b) = states
    assert one["loss"] == pytest.approx(two["loss"], rel=1e-2)
    assert one["val_knn_top1"] >= 0
    for part in ("method", "probe"):
        first = a[part] if part == "method" else a[part]["linear"]
        second = b[part] if part == "method" else b[part]["linear"]
        for name, value in first.items():
            torch.testing.assert_close(value, second[name], rtol=0.02, atol=1e-3, msg=name)


def test_every_process_reads_its_share_of_every_part() -> None:
    plain = parallel.Share(10, batch_size=8, seed=0, first=0, last=2, parts=1)
    parts = parallel.Share(10, batch_size=8, seed=0, first=0, last=2, parts=2)
    assert [len(items) for items in parts] == [4] * 4
    assert len(parts) == 4
    assert [i for items in parts for i in items] == [i for items in plain for i in items]


def test_a_batch_that_cannot_be_divided_is_refused() -> None:
    assert parallel.share_of_batch(8, 2) == 4
    with pytest.raises(UsageError, match="batch_size=6"):
        parallel.share_of_batch(8, 3)


def test_official_ramp_takes_more_batches_a_step() -> None:
    assert parallel.plan(3, 2, ramp=False) == [(k, 1) for k in range(6)]
    steps = parallel.plan(4, 10, ramp=True)
    assert [count for first, count in steps if first < 12] == [1] * 12  # epochs 0 to 2
    assert [count for first, count in steps if 12 <= first < 28] == [2] * 8  # epochs 3 to 6
    # An epoch's rest is a step.
    assert [count for first, count in steps if first >= 28] == [3, 1] * 3
    assert sum(count for _, count in steps) == 40

"""Two processes over gloo on the CPU: same weights, complete evaluation, errors shown."""

import os
import signal
import time
import warnings
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from harl_bench.convert.read import read_backbone
from harl_bench.core.errors import (
    DataError,
    InternalError,
    MachineError,
    PreemptedError,
    UsageError,
)
from harl_bench.core.stopping import stoppable
from harl_bench.detection import recipe
from harl_bench.detection.measure import measure
from harl_bench.detection.torchvision_engine import checkpoints, solver, train
from harl_bench.detection.torchvision_engine.data import shuffled
from harl_bench.detection.torchvision_engine.model import build_model
from harl_bench.nn import distributed, launching
from harl_bench.nn.norms import SyncBatchNorm
from tests.detection import tiny
from tests.detection.test_train import job, same

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked")]


def ranks():
    return distributed.gather(
        (
            distributed.rank(),
            distributed.world_size(),
            distributed.any_process(distributed.rank() == 1),
        )
    )


def trained(run):
    """Train, and return what each process ended with."""
    train.train(run)
    torch.set_num_threads(1)
    return distributed.gather(os.getpid())


def skipped(run):
    """Train, and return the unreadable images that the first process knows of."""
    return list(train.train(run)["unreadable"])


def messages(run):
    """Train, and return how many messages of flags each process sent."""
    count, reduce = [0], torch.distributed.all_reduce

    def counting(*arguments, **keys):
        count[0] += keys.get("op") == torch.distributed.ReduceOp.MAX  # sums are of gradients, norms
        return reduce(*arguments, **keys)

    torch.distributed.all_reduce = counting
    train.train(run)
    return distributed.gather(count[0])


def fail():
    if distributed.rank() == 1:
        raise DataError("image is missing", where="a.jpg", next="unpack it")
    distributed.barrier()


def surprise():
    if distributed.rank() == 1:
        raise ValueError("a surprise")
    distributed.barrier()


def one_fails():
    with distributed.failing_together():
        if distributed.rank() == 1:
            raise DataError("image is missing", where="a.jpg")


def both_are_told():
    try:
        one_fails()
    except DataError as error:
        return str(error)


def die():
    os._exit(9)


def wrapped():
    """A model with SyncBN as the processes train it: every layer pools, under its old name."""
    model = build_model(recipe.load("coco-fpn-toy"))
    names = list(model.state_dict())
    inner = train._distributed(model).module
    kinds = {type(module).__name__ for module in inner.modules() if isinstance(module, _BatchNorm)}
    return kinds, list(inner.state_dict()) == names


def test_synchronised_norms_train_on_cpu_processes():
    assert launching.launch(wrapped, 2) == ({"CpuSyncBatchNorm"}, True)


def refined():
    """Return the result of precise BN of a SyncBN layer over three batches of each process."""
    model = nn.Sequential(nn.Conv2d(3, 3, 1), SyncBatchNorm(3))
    nn.init.dirac_(model[0].weight)
    nn.init.zeros_(model[0].bias)
    train._distributed(model)
    updated = solver.precise_bn(model, batches_of(distributed.rank()), 3)
    return distributed.gather((updated, model[1].running_mean, model[1].running_var))


def batches_of(rank):
    generator = torch.Generator().manual_seed(rank)
    return [torch.randn(2, 3, 5, 4, generator=generator) * 3 + rank + k for k in range(3)]


def test_precise_bn_pools_both_processes_on_the_cpu():
    """fvcore's estimate of SyncBN; its Bessel term counts one process's pixels."""
    mean, square = torch.zeros(3), torch.zeros(3)
    for one, other in zip(batches_of(0), batches_of(1), strict=True):
        both = torch.cat([one, other])
        n = one.numel() / 3
        mean += both.mean((0, 2, 3)) / 3
        square += (both.mean((0, 2, 3)) ** 2 + both.var((0, 2, 3)) * (n - 1) / n) / 3
    for updated, running_mean, running_var in launching.launch(refined, 2):
        assert updated == 1
        torch.testing.assert_close(running_mean, mean)
        torch.testing.assert_close(running_var, square - mean**2, rtol=1e-4, atol=1e-4)


def test_processes_know_each_other():
    assert launching.launch(ranks, 2) == [(0, 2, True), (1, 2, True)]


def test_one_process_needs_no_launcher():
    assert launching.launch(ranks, 1) == [(0, 1, False)]


def unwarned():
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        return type(train._distributed(nn.Linear(2, 2))).__name__


def test_torch_warns_of_nothing_that_a_user_can_change():
    """Each process warned of a name that torch 2.14 changed."""
    assert launching.launch(unwarned, 2) == "DistributedDataParallel"


def test_error_of_any_process_comes_through_as_it_was():
    with pytest.raises(DataError, match=r"image is missing; in a.jpg; next: unpack it"):
        launching.launch(fail, 2)


def test_a_mistake_of_ours_names_its_cause_and_debug_shows_where():
    with pytest.raises(InternalError, match=r"ValueError: a surprise; next: .* --debug") as caught:
        launching.launch(surprise, 2)
    assert "in surprise" in caught.value.__notes__[0]


def test_no_process_waits_for_one_that_failed():
    assert launching.launch(both_are_told, 2) == "image is missing; in a.jpg"


def test_process_that_dies_is_an_environment_error():
    with pytest.raises(MachineError, match="a process of the run died"):
        launching.launch(die, 2)


def wait_for_signal(launcher):
    with stoppable() as stop:
        for k in range(600):
            if distributed.any_process(stop.asked):
                stop.signal = stop.signal or next(s for s in distributed.gather(stop.signal) if s)
                stop.raise_if_asked(f"step {k} is saved")
            time.sleep(0.05)
            if k == 20 and distributed.is_main():
                os.kill(launcher, signal.SIGUSR2)


def test_signal_reaches_all_processes_and_they_stop_alike():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(PreemptedError, match=r"stopped by SIGUSR2, step .* is saved"):
        launching.launch(wait_for_signal, 2, os.getpid())
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny.voc(tmp_path_factory.mktemp("voc"), years=("VOC2007",), test=5)


def test_two_processes_train_resume_and_evaluate(tmp_path, root):
    tensors = read_backbone("random", seed=0).tensors
    run = job(tmp_path / "whole", root, tensors, "SOLVER.CHECKPOINT_PERIOD=2")
    scores, about = launching.launch(measure, 2, "torchvision", run, None, 0)
    assert set(scores.metrics) == {"AP", "AP50", "AP75"}
    assert about["peak_memory_mb"] > 0
    whole = checkpoints.read(tmp_path / "whole/checkpoints/model_final.pth")
    assert len(whole["rng"]) == 2

    again = job(tmp_path / "parts", root, tensors, "SOLVER.CHECKPOINT_PERIOD=2")
    (tmp_path / "parts/checkpoints").mkdir(parents=True)
    half = "model_0000001.pth"
    (tmp_path / "parts/checkpoints" / half).write_bytes(
        (tmp_path / "whole/checkpoints" / half).read_bytes()
    )
    assert len(set(launching.launch(trained, 2, again))) == 2
    parts = checkpoints.read(tmp_path / "parts/checkpoints/model_final.pth")
    assert same(whole["model"], parts["model"])

    with pytest.raises(UsageError, match=r"of another run; .* processes was 2, now 1"):
        train.train(again)  # each process normalizes over its own proposals

    single = job(tmp_path / "single", root, tensors, "SOLVER.CHECKPOINT_PERIOD=2")
    train.train(single)
    alone = checkpoints.read(tmp_path / "single/checkpoints/model_final.pth")
    assert not same(whole["model"], alone["model"])


def test_processes_send_one_message_an_iteration(tmp_path):
    """It was three: of the batch, of the loss and of signals."""
    root = tiny.voc(tmp_path / "data", years=("VOC2007",))
    few = ["SOLVER.MAX_ITER=3", "SOLVER.STEPS=()", "TEST.PRECISE_BN.ENABLED=False"]
    run = job(tmp_path / "run", root, read_backbone("random", seed=0).tensors, *few)
    assert launching.launch(messages, 2, run) == [3, 3]


def test_an_image_that_another_process_skipped_is_counted(tmp_path):
    """The result named those alone that its first process had met."""
    root = tiny.voc(tmp_path / "data", years=("VOC2007",))
    few = ["SOLVER.MAX_ITER=2", "SOLVER.STEPS=()", "TEST.PRECISE_BN.ENABLED=False"]
    tensors = read_backbone("random", seed=0).tensors
    run = job(tmp_path / "run", root, tensors, *few, allow_unreadable=True)
    second = run.train.samples[next(islice(shuffled(6, run.seed), 1, None))]
    Path(second.path).write_bytes(b"broken")
    assert launching.launch(skipped, 2, run) == [second.path]


def test_two_processes_train_alike_with_less_memory(tmp_path):
    """A block that is computed again pools its statistics once more, in the same order on both."""
    root, tensors = (
        tiny.voc(tmp_path / "data", years=("VOC2007",)),
        read_backbone("random", seed=0).tensors,
    )
    few = [
        "SOLVER.MAX_ITER=2",
        "SOLVER.STEPS=()",
        "MODEL.RESNETS.NORM=SyncBN",
        "TEST.PRECISE_BN.ENABLED=False",
    ]
    for name, saving in (("plain", False), ("saving", True)):
        launching.launch(trained, 2, job(tmp_path / name, root, tensors, *few, save_memory=saving))
    plain, saving = (
        checkpoints.read(tmp_path / n / "checkpoints/model_final.pth") for n in ("plain", "saving")
    )
    assert same(dict(plain["model"]), dict(saving["model"]))

"""NCCL with one process: gradients through it, its collectives, and batch norm over it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from harl_bench.nn import distributed
from harl_bench.nn.norms import synchronised
from pretrain import losses
from pretrain.data import on_device
from tests.gpu.conftest import Agree
from tests.gpu.test_methods import K, configured, whole_batch
from tests.pretrain.test_methods import seeded

pytestmark = pytest.mark.gpu


@pytest.fixture
def group(device: torch.device, tmp_path: Path) -> Iterator[torch.device]:
    """A group as `distributed.joined` makes it: NCCL for what is on a GPU, gloo for the rest."""
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield device
    dist.destroy_process_group()


@pytest.mark.parametrize("case", ["harl", "simclr", "harl on mocov2"])
def test_gradients_over_the_group_are_those_without(
    case: str, group: torch.device, agree: Agree
) -> None:
    gradients = []
    for wrap in (False, True):
        method = seeded(configured(case)).to(group)
        if wrap:
            synchronised(method)
        step = DistributedDataParallel(method) if wrap else method
        step(on_device(whole_batch(), group), 3, K).loss.backward()
        gradients.append([p.grad.clone() for p in method.parameters() if p.grad is not None])
    agree("gradients", gradients[1], gradients[0], 2e-2)


def test_collectives(group: torch.device) -> None:
    values = torch.arange(6.0, device=group).view(2, 3).requires_grad_()
    parts = losses._Gather.apply(values)
    assert torch.equal(torch.cat(parts), values)
    torch.cat(parts).square().sum().backward()
    assert torch.equal(values.grad, 2 * values.detach())
    total = values.detach().clone()
    dist.all_reduce(total)
    dist.broadcast(total, 0)
    assert torch.equal(total, values.detach())
    every = [None]
    dist.all_gather_object(every, {"rank": distributed.rank()})  # as distributed.gather
    assert every == [{"rank": 0}]
    dist.barrier()

"""Batch norm of groups of a batch, against torch's own on each group."""

import copy

import torch
from torch import nn

from harl_bench.nn import resnet
from harl_bench.nn.norms import SplitBatchNorm


def images(B: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(B, 4, 5, 5, generator=generator).double() * 2
        + torch.arange(B)[:, None, None, None]
    )


def test_groups_are_as_many_batch_norms_of_a_part_each() -> None:
    split = SplitBatchNorm(4, groups=3).double()
    with torch.no_grad():
        split.weight.copy_(torch.tensor([0.5, 1.0, 2.0, -1.0]))
        split.bias.copy_(torch.tensor([0.1, 0.0, -0.2, 0.3]))
    own = [nn.BatchNorm2d(4).double() for _ in range(3)]
    for norm in own:
        norm.load_state_dict(split.state_dict())
    x = images().requires_grad_()
    for _ in range(2):  # the second time from running statistics that have moved
        out = split(x)
        expected = torch.cat([norm(x[2 * g : 2 * g + 2]) for g, norm in enumerate(own)])
        torch.testing.assert_close(out, expected)
        for name in ("running_mean", "running_var"):
            mean = torch.stack([getattr(norm, name) for norm in own]).mean(dim=0)
            torch.testing.assert_close(getattr(split, name), mean)
    assert split.num_batches_tracked == 2

    slope = torch.arange(out.numel()).view_as(out).double() / out.numel()
    ours = torch.autograd.grad((out * slope).sum(), [x, split.weight, split.bias])
    theirs = torch.autograd.grad((expected * slope).sum(), [x, *(norm.weight for norm in own)])
    torch.testing.assert_close(ours[0], theirs[0])
    torch.testing.assert_close(ours[1], sum(theirs[1:]))
    torch.testing.assert_close(ours[2], slope.sum(dim=(0, 2, 3)))


def test_measured_it_is_an_ordinary_batch_norm() -> None:
    split = SplitBatchNorm(4, groups=3).double()
    split(images())
    plain = nn.BatchNorm2d(4).double().eval()
    plain.load_state_dict(split.state_dict())
    before = copy.deepcopy(split.state_dict())
    assert torch.equal(split.eval()(images()), plain(images()))
    assert all(torch.equal(value, before[name]) for name, value in split.state_dict().items())


def test_a_network_in_groups_keeps_its_tensors_and_first_weights() -> None:
    states = []
    for groups in (1, 8):
        torch.manual_seed(0)
        model = resnet.build(bn_groups=groups, zero_init_residual=True)
        assert sum(isinstance(m, SplitBatchNorm) for m in model.modules()) == 53 * (groups > 1)
        states.append(model.state_dict())
        tensors = resnet.backbone_tensors(model)
        resnet.check(tensors)
        assert len(tensors) == 265
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())

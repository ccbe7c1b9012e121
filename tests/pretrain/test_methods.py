"""Methods as modules: what equals what, where gradients go, states, and a few steps that learn."""

import copy
from dataclasses import replace

import pytest
import torch

from harl_bench.core.errors import UsageError
from pretrain.batch import Batch, Scene
from pretrain.config import PretrainConfig
from pretrain.methods import METHODS, build
from pretrain.methods.method import Method
from pretrain.networks import mlp
from pretrain.optim import build_optimizer
from pretrain.recipe import configured

SMALL = {
    "backbone": "resnet18",
    "image_size": 32,
    "projector_hidden": 16,
    "projector_out": 8,
    "predictor_hidden": 16,
    "epochs": 2,
    "warmup_epochs": 0,
    "batch_size": 4,
    "base_lr": 1.0,
    "weight_decay": 1e-6,
    "tau_base": 0.9,
}


def small(method: str, **changes: object) -> PretrainConfig:
    return configured({"method": method, **SMALL, **changes})


def seeded(config: PretrainConfig) -> Method:
    torch.manual_seed(0)
    method = build(config)
    method.train()
    return method


def batch(B: int = 4, side: int = 64, *, mask: float | None = None) -> Batch:
    """Random views; the mask is the left half, or everywhere the given value."""
    g = torch.Generator().manual_seed(1)
    views = torch.randn(2, B, 3, side, side, generator=g)
    masks = (
        torch.zeros(2, B, 1, side, side)
        if mask is None
        else torch.full((2, B, 1, side, side), mask)
    )
    if mask is None:
        masks[..., : side // 2] = 1
    return Batch(views, masks, torch.ones(B, dtype=torch.bool))


def test_lambda_one_is_byol_exactly() -> None:
    """docs/fidelity.md 1.2: the loss and every gradient."""
    byol, harl = seeded(small("byol")), seeded(small("harl", lambda_base=1.0))
    losses = [method(batch(), 0, 10).loss for method in (byol, harl)]
    for loss in losses:
        loss.backward()
    assert losses[0].item() == losses[1].item()
    for (name, p), (_, q) in zip(byol.named_parameters(), harl.named_parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        assert p.grad is None or torch.equal(p.grad, q.grad), name


def test_all_ones_mask_makes_the_foreground_the_whole_and_the_background_invalid() -> None:
    logs = seeded(small("harl", feature_grid=28))(batch(mask=1.0), 0, 10).logs
    assert float(logs["loss_foreground"]) == pytest.approx(float(logs["loss_whole"]), rel=1e-5)
    assert logs["loss_background"] == 0
    assert logs["valid_background"] == 0


def test_images_without_masks_count_in_the_whole_term_only() -> None:
    plain = batch()
    without = Batch(plain.views, plain.masks, torch.zeros(4, dtype=torch.bool))
    output = seeded(small("harl", feature_grid=28))(without, 0, 10)
    assert output.logs["loss_foreground"] == output.logs["loss_background"] == 0
    assert output.loss.item() == pytest.approx(0.7 * float(output.logs["loss_whole"]), rel=1e-5)


def test_swapping_the_regions_swaps_their_losses() -> None:
    def logs(masks: torch.Tensor) -> dict[str, float]:
        method = seeded(small("harl", feature_grid=28))
        method.eval()  # batch statistics of the heads would depend on the order of calls
        views = batch().views
        return {
            k: float(v)
            for k, v in method(
                Batch(views, masks, torch.ones(4, dtype=torch.bool)), 0, 10
            ).logs.items()
        }

    masks = batch().masks
    one, other = logs(masks), logs(1 - masks)
    assert one["loss_foreground"] == pytest.approx(other["loss_background"], rel=1e-5)
    assert one["loss_background"] == pytest.approx(other["loss_foreground"], rel=1e-5)
    assert one["loss_foreground"] != pytest.approx(one["loss_background"], rel=1e-3)


def test_the_loss_is_the_formula_of_its_terms() -> None:
    config = small("harl", feature_grid=28, alpha_base=0.3, lambda_base=0.6)
    for k in (0, 5):
        output = seeded(config)(batch(), k, 10)
        logs = {name: float(value) for name, value in output.logs.items()}
        half = k == 5
        assert logs["alpha"] == pytest.approx(0.65 if half else 0.3)
        assert logs["lambda"] == pytest.approx(0.8 if half else 0.6)
        mask = (
            logs["alpha"] * logs["loss_foreground"] + (1 - logs["alpha"]) * logs["loss_background"]
        )
        expected = logs["lambda"] * logs["loss_whole"] + (1 - logs["lambda"]) * mask
        assert output.loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["harl", "byol"])
def test_the_target_gets_no_gradient_and_follows_the_online_network(name: str) -> None:
    method = seeded(small(name))
    method(batch(), 0, 10).loss.backward()
    networks = getattr(method, "base", method)
    for part, parameter in networks.named_parameters():
        assert (parameter.grad is None) == part.startswith("target_"), part
    before = copy.deepcopy(dict(networks.named_parameters()))
    with torch.no_grad():
        for parameter in method.backbone.parameters():
            parameter.add_(1)
    method.after_step(0, 10)  # tau = 0.9
    for part, parameter in method.backbone.named_parameters():
        expected = 0.9 * before[f"target_backbone.{part}"] + 0.1 * parameter
        torch.testing.assert_close(
            dict(networks.named_parameters())[f"target_backbone.{part}"], expected
        )


@pytest.mark.parametrize("name", ["harl", "byol"])
def test_ten_steps_reduce_the_loss(name: str) -> None:
    method = seeded(small(name))
    optimizer = build_optimizer(method, small(name))
    for group in optimizer.param_groups:
        group["lr"] = 0.2
    losses = []
    for k in range(10):
        output = method(batch(), k, 10)
        optimizer.zero_grad()
        output.loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        method.after_step(k, 10)
        losses.append(output.loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_lars_arithmetic_is_byols() -> None:
    """v = m v + r (g + wd w), r = eta |w| / |g + wd w|; w -= lr v, in plain Python floats."""
    method = seeded(small("byol"))
    config = small("byol", weight_decay=1e-2)
    optimizer = build_optimizer(method, config)
    optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = 0.3
    weight, bias = method.backbone.conv1.weight, method.backbone.bn1.bias
    expected_w, expected_b = weight.detach().double().clone(), bias.detach().double().clone()
    v_w, v_b = torch.zeros_like(expected_w), torch.zeros_like(expected_b)
    for k in range(3):
        g_w = torch.full_like(weight, 0.1 * (k + 1))
        g_b = torch.full_like(bias, 0.2)
        weight.grad, bias.grad = g_w.clone(), g_b.clone()
        optimizer.step()
        d = g_w.double() + 1e-2 * expected_w
        v_w = 0.9 * v_w + 1e-3 * expected_w.norm() / d.norm() * d
        v_b = 0.9 * v_b + g_b.double()
        expected_w, expected_b = expected_w - 0.3 * v_w, expected_b - 0.3 * v_b
    torch.testing.assert_close(weight.double(), expected_w, rtol=0, atol=1e-7)
    torch.testing.assert_close(bias.double(), expected_b, rtol=1e-6, atol=1e-6)


def test_biases_and_batch_norm_are_neither_decayed_nor_adapted() -> None:
    method = seeded(small("harl"))
    decayed, plain = (
        group["params"] for group in build_optimizer(method, small("harl")).param_groups
    )
    assert all(p.ndim > 1 for p in decayed)
    assert all(p.ndim == 1 for p in plain)
    assert sum(p.numel() for p in [*decayed, *plain]) == sum(
        p.numel() for name, p in method.named_parameters() if "target_" not in name
    )


def test_head_sizes_of_the_paper() -> None:
    count = lambda head: sum(p.numel() for p in head.parameters())  # noqa: E731
    assert count(mlp(2048, 4096, 512)) == 10_498_048  # docs/fidelity.md 1.2
    assert count(mlp(512, 4096, 512)) == 4_206_592


def full(B: int = 4) -> Batch:
    """All that a method may ask for: views, masks, labels, and places of two local crops."""
    g = torch.Generator().manual_seed(2)
    corners = torch.rand(4, B, 2, generator=g) * 0.6
    whole = torch.randint(0, 256, (B, 3, 224, 224), generator=g, dtype=torch.uint8)
    local = torch.randn(2, B, 3, 32, 32, generator=g)
    scene = Scene(torch.arange(B), whole, torch.cat([corners, corners + 0.3], dim=-1), local)
    return replace(batch(B), labels=torch.arange(B) % 2, scene=scene)


def made(name: str) -> Method:
    method = seeded(small(name, classes=2, queue_size=16, feature_grid=28))
    if isinstance(maps := getattr(method, "maps", None), torch.nn.Module):
        method.maps = type(maps)(4)
    return method


@pytest.mark.parametrize("name", METHODS)
def test_what_requires_gradients_is_trained_and_nothing_else_moves_before_the_end_of_a_step(
    name: str,
) -> None:
    method = made(name)
    before = {part: p.clone() for part, p in method.named_parameters()}
    output = method(full(), 0, 10)
    output.loss.backward()
    assert torch.isfinite(output.loss)
    for part, parameter in method.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad == ("target_" not in part), (
            part
        )
        assert torch.equal(parameter, before[part]), part
    assert all(
        p.grad.any() for p in method.backbone.parameters() if p.ndim > 1 and p.grad is not None
    )


@pytest.mark.parametrize("name", METHODS)
def test_the_state_of_a_method_is_all_that_its_next_step_needs(name: str) -> None:
    """Another one, born of another seed, goes on as the first would: its loss is the same bits."""
    first = made(name)
    first(full(), 0, 10)
    first.after_step(0, 10)
    state = copy.deepcopy(first.state_dict())
    expected = first(full(), 1, 10).loss
    second = made(name)
    with torch.no_grad():
        for tensor in [*second.parameters(), *second.buffers()]:
            tensor.zero_()
    second.load_state_dict(state)
    assert torch.equal(second(full(), 1, 10).loss, expected)


def test_unknown_method() -> None:
    with pytest.raises(UsageError, match="did you mean 'byol'"):
        build(small("byool"))

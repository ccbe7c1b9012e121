"""SimCLR, MoCo v2, SimSiam, supervised: losses against oracles, states against formulas."""

import copy
import math

import numpy as np
import pytest
import torch
from lightly.loss import NegativeCosineSimilarity, NTXentLoss

from harl_bench.core.errors import UsageError
from pretrain import losses
from pretrain.batch import Batch
from pretrain.methods import build
from pretrain.methods.harl import VARIANTS, Harl
from pretrain.methods.method import REGIONS
from pretrain.optim import build_optimizer, set_learning_rate
from pretrain.schedules import falling, scheduled, stepped
from tests.pretrain.test_methods import batch, seeded, small

WIDE = {"projector_hidden": 32, "projector_out": 16, "predictor_hidden": 8, "queue_size": 16}


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def labelled(B: int = 4) -> Batch:
    plain = batch(B, 32)
    return Batch(plain.views, plain.masks, plain.has_mask, labels=torch.arange(B) % 2)


def test_nt_xent_is_lightlys() -> None:
    z_1, z_2 = rand(6, 8), rand(6, 8, seed=1)
    for temperature in (0.1, 0.5):
        expected = NTXentLoss(temperature=temperature)(z_1, z_2)
        torch.testing.assert_close(
            losses.nt_xent(z_1, z_2, temperature), expected, rtol=1e-5, atol=1e-6
        )


def test_nt_xent_leaves_out_invalid_images_as_anchors_and_as_negatives() -> None:
    z_1, z_2 = rand(6, 8).requires_grad_(), rand(6, 8, seed=1).requires_grad_()
    valid = torch.tensor([True, False, True, True, False, True])
    loss = losses.nt_xent(z_1, z_2, 0.2, valid)
    torch.testing.assert_close(loss, losses.nt_xent(z_1[valid], z_2[valid], 0.2))
    loss.backward()
    assert z_1.grad is not None
    assert not z_1.grad[~valid].any()
    assert z_1.grad[valid].any()


def test_nt_xent_without_valid_images_is_zero_with_zero_gradient() -> None:
    z = rand(4, 8).requires_grad_()
    loss = losses.nt_xent(z, z, 0.1, torch.zeros(4, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert z.grad is not None
    assert not z.grad.any()


def test_info_nce_against_numpy() -> None:
    q, k, queue = (
        rand(5, 8),
        rand(5, 8, seed=1),
        torch.nn.functional.normalize(rand(7, 8, seed=2), dim=1),
    )
    counts = torch.tensor([True] * 5 + [False, True])
    unit = lambda x: x.numpy() / np.linalg.norm(x.numpy(), axis=1, keepdims=True)  # noqa: E731
    positive = (unit(q) * unit(k)).sum(1) / 0.2
    negative = unit(q) @ queue.numpy()[counts.numpy()].T / 0.2
    expected = np.log(np.exp(positive) + np.exp(negative).sum(1)) - positive
    assert losses.info_nce(q, k, queue, counts, 0.2).item() == pytest.approx(
        expected.mean(), rel=1e-5
    )
    valid = torch.tensor([True, False, False, True, True])
    found = losses.info_nce(q, k, queue, counts, 0.2, valid).item()
    assert found == pytest.approx(expected[valid.numpy()].mean(), rel=1e-5)


def test_contrastive_losses_stay_float32_under_autocast() -> None:
    z_1, z_2 = rand(6, 8), rand(6, 8, seed=1)
    queue, counts = (
        torch.nn.functional.normalize(rand(9, 8, seed=2), dim=1),
        torch.ones(9, dtype=torch.bool),
    )
    plain = [
        losses.nt_xent(z_1, z_2, 0.1),
        losses.info_nce(z_1, z_2, queue, counts, 0.1),
        losses.regression(z_1, z_2),
    ]
    with torch.autocast("cpu", torch.bfloat16):
        mixed = [
            losses.nt_xent(z_1, z_2, 0.1),
            losses.info_nce(z_1, z_2, queue, counts, 0.1),
            losses.regression(z_1, z_2),
        ]
    for a, b in zip(plain, mixed, strict=True):
        assert b.dtype == torch.float32
        assert torch.equal(a, b)


def test_simsiam_is_lightlys_negative_cosine_halved() -> None:
    method = seeded(small("simsiam", **WIDE))
    v = [rand(4, 512), rand(4, 512, seed=1)]
    found, _ = method.compare(v, [], None, "whole")  # type: ignore[attr-defined]
    z = [method.projector(x) for x in v]  # type: ignore[attr-defined]
    p = [method.predictor(x) for x in z]  # type: ignore[attr-defined]
    D = NegativeCosineSimilarity()
    torch.testing.assert_close(found, (D(p[0], z[1]) + D(p[1], z[0])) / 2)
    assert -1 <= found.item() <= 1


def test_simsiam_predictor_keeps_its_learning_rate() -> None:
    config = small("simsiam", optimizer="sgd", epochs=2, base_lr=0.05, batch_size=512, **WIDE)
    method = seeded(config)
    optimizer = build_optimizer(method, config)
    # 0.05 * 2, half way down.
    assert set_learning_rate(optimizer, config, 5, 10, 0) == pytest.approx(0.05)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert all(rates[id(p)] == pytest.approx(0.1) for p in method.predictor.parameters())  # type: ignore[attr-defined]
    assert all(rates[id(p)] == pytest.approx(0.05) for p in method.backbone.parameters())


def test_momentum_queue_holds_the_latest_keys_in_a_ring() -> None:
    method = seeded(small("mocov2", **{**WIDE, "queue_size": 6}))
    net = method
    before = net.queue.clone()
    seen = []
    for k in range(2):  # 4 + 4 keys into 6 places
        method(batch(), k, 10)
        seen.append(method.pending[0][1])  # type: ignore[attr-defined]
        assert torch.equal(net.queue, before) or k  # nothing changes before the optimiser's step
        method.after_step(k, 10)
        assert net.pointer.tolist() == [(4 * (k + 1)) % 6]
    torch.testing.assert_close(net.queue[0, 2:4], seen[0][2:4])
    torch.testing.assert_close(net.queue[0, 4:6], seen[1][:2])
    torch.testing.assert_close(net.queue[0, 0:2], seen[1][2:])
    torch.testing.assert_close(net.queue.norm(dim=-1), torch.ones(1, 6))


@pytest.mark.parametrize("name", ["simclr", "mocov2", "simsiam", "supervised"])
def test_gradients_reach_what_is_trained_and_nothing_else(name: str) -> None:
    method = seeded(small(name, classes=2, **WIDE))
    method(labelled(), 0, 10).loss.backward()
    for part, parameter in method.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad == ("target_" not in part), (
            part
        )


@pytest.mark.parametrize(("name", "fall"), [("simclr", 0.3), ("simsiam", 0.2), ("supervised", 0.3)])
def test_ten_steps_on_one_batch_reduce_the_loss(name: str, fall: float) -> None:
    config = small(name, classes=2, optimizer="sgd", tau_schedule="fixed", tau_base=0.99, **WIDE)
    method = seeded(config)
    optimizer = build_optimizer(method, config)
    for group in optimizer.param_groups:
        group["lr"] = 0.05
    values = []
    for k in range(10):
        output = method(labelled(), k, 10)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        method.after_step(k, 10)
        values.append(output.loss.item())
    assert values[-1] < values[0] - fall


@pytest.mark.parametrize("base", ["simclr", "mocov2", "simsiam"])
def test_harl_with_the_whole_image_alone_is_its_base(base: str) -> None:
    plain, harl = seeded(small(base, **WIDE)), seeded(small("harl", base=base, loss="byol", **WIDE))
    if base == "mocov2":
        harl.base.queue[0] = plain.queue[0]  # HARL's has three regions
        harl.base.load_state_dict(
            {
                **harl.base.state_dict(),
                **{
                    name: value
                    for name, value in plain.state_dict().items()
                    if "queue" not in name and name not in ("counts", "pointer")
                },
            }
        )
    found = [method(batch(), 0, 10).loss.item() for method in (plain, harl)]
    assert found[0] == pytest.approx(found[1], rel=1e-6)


@pytest.mark.parametrize("base", Harl.configs)
def test_harls_loss_on_every_base_is_the_formula_of_its_terms(base: str) -> None:
    config = small("harl", base=base, feature_grid=28, alpha_base=0.3, lambda_base=0.6, **WIDE)
    for name, regions in VARIANTS.items():
        method = seeded(config.model_copy(update={"loss": name}))
        output = method(batch(), 0, 10)
        logs = {key: float(value) for key, value in output.logs.items()}
        D = [logs.get(f"loss_{r}") for r in REGIONS]
        assert [r for r, d in zip(REGIONS, D, strict=True) if d is not None] == list(regions)
        w, f, b = (0.0 if d is None else d for d in D)
        expected = {
            "whole": w,
            "fg": f,
            "fg+bg": 0.3 * f + 0.7 * b,
            "whole+fg": 0.6 * w + 0.4 * f,
            "whole+fg+bg": 0.6 * w + 0.4 * (0.3 * f + 0.7 * b),
        }
        assert output.loss.item() == pytest.approx(expected[name], rel=1e-5), name
        output.loss.backward()
        method.after_step(0, 10)


def test_a_key_of_an_empty_region_is_no_negative() -> None:
    method = seeded(small("harl", base="mocov2", feature_grid=28, **WIDE))
    plain = batch()
    without = Batch(plain.views, plain.masks, torch.tensor([True, False, True, True]))
    method(without, 0, 10)
    method.after_step(0, 10)
    counts = method.base.counts
    assert counts[0, :4].tolist() == [True] * 4
    assert counts[1, :4].tolist() == counts[2, :4].tolist() == [True, False, True, True]


def test_supervised_needs_classes_and_scores_its_batch() -> None:
    with pytest.raises(UsageError, match="one sub-folder of images for each class"):
        build(small("supervised"))
    method = seeded(small("supervised", classes=2))
    output = method(labelled(), 0, 10)
    with torch.no_grad():
        frozen = copy.deepcopy(method)
    assert output.loss.item() == pytest.approx(math.log(2), abs=0.7)
    assert float(output.logs["batch_top1"]) in (0, 25, 50, 75, 100)
    assert frozen.classifier.out_features == 2


def test_official_lars_divides_by_the_sum_of_norms() -> None:
    config = small("byol", weight_decay=1e-2, lars_ratio="official")
    method = seeded(config)
    optimizer = build_optimizer(method, config)
    optimizer.param_groups[0]["lr"] = 0.3
    weight = method.backbone.conv1.weight
    w, g = weight.detach().double(), rand(*weight.shape).double()
    weight.grad = g.float()
    optimizer.step()
    r = 1e-3 * w.norm() / (g.norm() + 1e-2 * w.norm() + 1e-8)
    torch.testing.assert_close(weight.double(), w - 0.3 * r * (g + 1e-2 * w), rtol=0, atol=1e-7)


def test_sgd_recipes_decay_everything() -> None:
    config = small("mocov2", optimizer="sgd", decay_everything=True, weight_decay=1e-4, **WIDE)
    groups = build_optimizer(seeded(config), config).param_groups
    assert {group["weight_decay"] for group in groups} == {1e-4}


def test_further_schedules() -> None:
    assert [stepped(0.1, k, 90, 0) for k in (0, 29, 30, 60, 89)] == pytest.approx(
        [0.1, 0.1, 0.01, 0.001, 0.001]
    )
    assert [falling(0.6, k, 10) for k in (0, 5, 10)] == pytest.approx([0.6, 0.3, 0.0])
    epochs = build(
        small("harl", epochs=4, schedule_tick="epoch", alpha_schedule="fixed", lambda_base=0.6)
    )
    assert len({epochs.weights(k, 40) for k in range(10)}) == 1
    assert epochs.weights(20, 40) == pytest.approx((0.7, 0.8))
    assert scheduled(0.6, "cosine", 20, 40) == pytest.approx(0.8)
    assert scheduled(0.6, "fixed", 20, 40) == 0.6

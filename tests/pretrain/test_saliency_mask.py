"""Saliency-constrained masking: who is masked, hard negatives, and what equals its base."""

import numpy as np
import pytest
import torch

from harl_bench.core.errors import UsageError
from harl_bench.nn.blur import filter_inputs, high_pass
from pretrain.batch import Batch
from pretrain.losses import FAR, info_nce, info_nce_each, nt_xent
from pretrain.methods import build
from pretrain.saliency import localizer, masking
from pretrain.saliency.mask import SaliencyMask
from tests.pretrain.test_methods import batch, seeded, small
from tests.pretrain.test_saliency_masking import generator

PLAIN = {"mask_fill": "blur", "mask_ratio": (0.0, 0.0), "hard_negative_weight": 0.0}


@pytest.mark.parametrize("base", SaliencyMask.configs)
def test_without_masks_and_negatives_it_is_its_base(base: str) -> None:
    """r = 0 and alpha = 0: the loss and every gradient, to the order of summation."""
    options = {"queue_size": 16, "temperature": 0.2}
    plain, masked = (
        seeded(small(base, **options)),
        seeded(small("saliency_mask", base=base, **options, **PLAIN)),
    )
    losses = [method(batch(), 0, 10).loss for method in (plain, masked)]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-6)
    for loss in losses:
        loss.backward()
    for (name, p), (_, q) in zip(plain.named_parameters(), masked.named_parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("base", SaliencyMask.configs)
@pytest.mark.parametrize("fill", ["high_pass", "blur", "mean"])
def test_every_base_and_fill_steps_and_a_hard_negative_raises_the_loss(
    base: str, fill: str
) -> None:
    options = {"base": base, "queue_size": 16, "mask_fill": fill, "hard_negative_margin": -1.0}
    with_t, without = (
        seeded(small("saliency_mask", **options, hard_negative_weight=alpha))(batch(), 0, 10)
        for alpha in (2, 0)
    )
    with_t.loss.backward()
    assert torch.isfinite(with_t.loss)
    assert with_t.loss > without.loss
    # Of 3.5 columns: half a cell is foreground.
    assert with_t.logs["foreground"] == pytest.approx(4 / 7)


def test_hard_negatives_never_enter_the_queue() -> None:
    method = seeded(small("saliency_mask", base="mocov2", queue_size=16))
    before = method.base.queue.clone()
    method(batch(), 0, 10)
    keys = method.base.pending[0][1]
    assert len(method.base.pending) == 1
    method.after_step(0, 10)
    assert torch.equal(method.base.queue[0, :4], keys)
    assert torch.equal(method.base.queue[0, 4:], before[0, 4:])


def test_the_keys_are_those_of_unmasked_views() -> None:
    """Key network on the unmasked second view: whatever the query and t lose, the keys stay."""
    keys = []
    for ratio in ((0.0, 0.0), (0.9, 0.9)):
        method = seeded(
            small("saliency_mask", base="mocov2", queue_size=16, mask_fill="mean", mask_ratio=ratio)
        )
        method(batch(), 0, 10)
        keys.append(method.base.pending[0][1])
    assert torch.equal(*keys)


def test_the_localiser_sees_the_unmasked_views() -> None:
    method = seeded(small("saliency_mask", base="byol", mask_ratio=(0.9, 0.9)))
    seen = []
    inner = method.localize
    method.localize = lambda x, m: seen.append(x.clone()) or inner(x, m)
    method(batch(), 0, 10)
    assert all(torch.equal(a, b) for a, b in zip(seen, batch().views, strict=True))


def test_steps_and_seeds_decide_the_masks() -> None:
    def loss(k: int, seed: int, calls: int = 1) -> float:
        method = seeded(small("saliency_mask", base="simclr", seed=seed))
        for _ in range(calls):
            value = method(batch(), k, 10).loss.item()
        return value

    assert loss(3, 0) == loss(3, 0)
    assert len({loss(3, 0), loss(4, 0), loss(3, 1)}) == 3


def test_images_without_a_mask_get_no_hard_negative() -> None:
    """Then t would be the key itself."""
    empty = batch(mask=0.0)
    empty = Batch(empty.views, empty.masks, torch.zeros(4, dtype=torch.bool))
    with_t, without = (
        seeded(small("saliency_mask", base="mocov2", queue_size=16, hard_negative_weight=alpha))(
            empty, 0, 10
        )
        for alpha in (2, 0)
    )
    # The draws of t shift those of nothing.
    assert with_t.loss.item() == pytest.approx(without.loss.item(), rel=1e-3)


@pytest.mark.parametrize("base", ["mocov2", "byol"])
def test_an_object_of_which_nothing_is_hidden_gives_no_hard_negative(base: str) -> None:
    """Of one cell, 0.4 rounds to none."""
    one = batch(mask=0.0)
    one.masks[..., :9, :9] = 1  # a cell of 64 px on the grid of 7
    changes = {"base": base, "mask_fill": "mean", "hard_negative_ratio": (0.4, 0.4)}
    changes |= {"queue_size": 16} if base == "mocov2" else {"hard_negative_margin": -1.0}
    with_t, without = (
        seeded(small("saliency_mask", hard_negative_weight=alpha, **changes))(one, 0, 10)
        for alpha in (2, 0)
    )
    assert with_t.loss.item() == pytest.approx(without.loss.item(), rel=1e-3)


def test_losses_with_a_negative_of_ones_own_against_numpy() -> None:
    g = generator()
    q, k, queue = (
        torch.nn.functional.normalize(torch.randn(n, 6, generator=g), dim=1) for n in (5, 5, 9)
    )
    own, T = torch.randn(5, generator=g), 0.2
    counts = torch.ones(9, dtype=torch.bool)
    logits = np.concatenate([(q * k).sum(1)[:, None], q @ queue.T, own[:, None]], axis=1) / T
    expected = np.log(np.exp(logits).sum(axis=1)) - logits[:, 0]
    np.testing.assert_allclose(
        info_nce_each(q, k, queue, counts, T, own).numpy(), expected, rtol=1e-5
    )
    none = torch.full((5,), FAR)
    assert info_nce_each(q, k, queue, counts, T, none).mean().item() == pytest.approx(
        info_nce(q, k, queue, counts, T).item()
    )
    z = torch.cat([q, k]).numpy()
    s = np.exp(z @ z.T / T) * (1 - np.eye(10))
    rows = s.sum(axis=1) + np.r_[np.exp(own.numpy() / T), np.zeros(5)]
    expected = np.mean([-np.log(s[i, (i + 5) % 10] / rows[i]) for i in range(10)])
    assert nt_xent(q, k, T, own=own).item() == pytest.approx(expected, rel=1e-5)
    assert nt_xent(q, k, T, own=none).item() == pytest.approx(nt_xent(q, k, T).item())


def test_a_frozen_network_localises(tmp_path) -> None:
    """The channel sum of its last map, on the views as its own convention wants them."""
    from torchvision.models import resnet50

    torch.manual_seed(0)
    network = resnet50(weights=None)
    torch.save(network.state_dict(), tmp_path / "r50.pth")
    x = torch.randn(2, 3, 224, 224, generator=generator())
    made = localizer.build(str(tmp_path / "r50.pth"), 7)(x, torch.zeros(2, 1, 224, 224))
    network.eval()
    with torch.no_grad():
        trunk = torch.nn.Sequential(*list(network.children())[:-2])
        expected = masking.foreground_cells(trunk(x).sum(dim=1))
    assert (made == expected).float().mean() > 0.97  # the input convention there and back rounds
    assert 0 < made.float().mean() < 1


@pytest.mark.parametrize(
    "stated", [{"feature_grid": 14}, {"high_pass": True}, {"stride_in_1x1": True}]
)
def test_a_frozen_network_localises_with_what_its_file_states(
    stated, tmp_path, monkeypatch
) -> None:
    """As classify's network does, which is the oracle."""
    from torchvision.models import resnet50

    from harl_bench.classify.network import network
    from harl_bench.convert.read import read_backbone

    torch.manual_seed(0)
    path = str(tmp_path / "r50.pth")
    pixels = {
        "input_format": "RGB",
        "pixel_mean": [123.675, 116.28, 103.53],
        "pixel_std": [58.395, 57.12, 57.375],
    }
    torch.save(
        {"state_dict": resnet50(weights=None).state_dict(), "harl_bench": {**pixels, **stated}},
        path,
    )
    x, maps = torch.randn(1, 3, 64, 64, generator=generator()), []
    model = network(read_backbone(path), torch.device("cpu"))
    model.layer4.register_forward_hook(lambda _, inputs, h: maps.append(h))
    model(x)
    levels = torch.nn.functional.adaptive_avg_pool2d(maps[0].sum(dim=1, keepdim=True), 2)[:, 0]
    monkeypatch.setattr(localizer, "foreground_cells", lambda h: h)
    made = localizer.build(path, 2)(x, torch.zeros(1, 1, 64, 64))
    assert torch.allclose(made, levels, rtol=1e-3)


def test_unknown_base_is_told() -> None:
    with pytest.raises(UsageError, match="base"):
        build(small("saliency_crop", base="simclr"))


def test_the_filter_before_a_network_is_the_one_of_its_training() -> None:
    network, x = torch.nn.Conv2d(3, 2, 3), torch.randn(2, 3, 40, 40, generator=generator())
    expected = network(high_pass(x))
    filter_inputs(network)
    torch.testing.assert_close(network(x), expected)


@pytest.mark.parametrize("fill", ["high_pass", "mean"])
def test_the_checkpoint_says_what_its_images_looked_like(folders, tmp_path, fill: str) -> None:
    """And the frozen network of `classify` sees them the same way."""
    from harl_bench.classify.network import network
    from harl_bench.cli import main
    from harl_bench.convert.read import read_backbone
    from tests.pretrain.test_pretrain import FAST

    images, masks = folders
    fast = [key for key in FAST if not key.startswith("predictor_hidden")]
    keys = [*fast, "backbone=resnet50", "epochs=1", "warmup_epochs=0", f"mask_fill={fill}"]
    where = ["--data", str(images), "--masks", str(masks), "--out", str(tmp_path / "out")]
    hardware = ["--workers", "0", "--device", "cpu"]
    assert main(["pretrain", "--recipe", "saliency_mask-toy", *keys, *where, *hardware]) == 0
    last, converted = tmp_path / "out" / "last.pth", tmp_path / "out.pkl"
    found = read_backbone(last)
    assert found.input.high_pass == (fill == "high_pass")
    frozen = network(found, torch.device("cpu"))
    x = torch.randn(1, 3, 64, 64, generator=generator())
    seen = frozen(x)
    frozen._forward_pre_hooks.clear()
    torch.testing.assert_close(seen, frozen(high_pass(x) if fill == "high_pass" else x))
    assert main(["convert", str(last), "--out", str(converted)]) == 0
    assert read_backbone(converted).input == found.input


def test_the_checkpoint_says_its_feature_grid_and_features_keep_it(folders, tmp_path) -> None:
    """Its last stage learnt at that scale: `classify` measures the network that was trained."""
    from harl_bench.classify.network import network
    from harl_bench.cli import main
    from harl_bench.convert.read import read_backbone
    from harl_bench.nn import resnet
    from tests.pretrain.test_pretrain import FAST, command

    keys = [*FAST, "backbone=resnet50", "epochs=1", "warmup_epochs=0", "feature_grid=14"]
    assert main(command(folders, tmp_path / "out", overrides=keys)) == 0
    last, converted = tmp_path / "out" / "last.pth", tmp_path / "out.pkl"
    assert main(["convert", str(last), "--out", str(converted)]) == 0
    x = torch.randn(1, 3, 64, 64, generator=generator())
    for path in (last, converted):
        found = read_backbone(path)
        assert found.feature_grid == 14
        frozen = network(found, torch.device("cpu"))
        trained = resnet.resnet50(feature_grid=14).eval()
        resnet.load_backbone(trained, found.tensors)
        assert resnet.dense_features(frozen, x).shape[-1] == 4
        torch.testing.assert_close(frozen(x), trained(x), rtol=1e-4, atol=1e-4)


def test_a_localiser_that_is_no_file_is_told_before_anything_is_written(
    folders, tmp_path, capsys
) -> None:
    from harl_bench.cli import main

    where = ["--data", str(folders[0]), "--out", str(tmp_path / "out"), "--device", "cpu"]
    command = ["pretrain", "--recipe", "saliency_mask-toy", "batch_size=4", *where]
    assert main([*command, "localiser=nothing.pth"]) == 2
    error = capsys.readouterr().err
    assert "localiser is neither masks nor a checkpoint" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert main(command) == 2
    assert "saliency_mask needs masks" in capsys.readouterr().err

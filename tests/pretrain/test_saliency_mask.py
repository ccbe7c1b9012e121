"""Saliency-constrained masking: shares of cells, fills, who is masked, and what equals its base."""

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

PLAIN = {"mask_fill": "blur", "mask_ratio": (0.0, 0.0), "hard_negative_weight": 0.0}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_foreground_cells_are_the_formula() -> None:
    maps = torch.randn(5, 7, 7, generator=generator()).exp()
    for made, a in zip(masking.foreground_cells(maps), maps.double().numpy(), strict=True):
        assert np.array_equal(made.numpy(), a >= a.mean() - 0.6 * a.std(ddof=1))


def test_masked_shares_are_the_same_in_foreground_and_background() -> None:
    """1,000 draws: within a cell on average, two in any, exactly floor(49 r) together."""
    g = generator()
    n_f = torch.randint(0, 28, (1000,), generator=g)  # phi up to 0.55
    order = torch.rand(1000, 49, generator=g).argsort(dim=1).argsort(dim=1)
    foreground = (order < n_f[:, None]).view(-1, 7, 7)
    r = 0.05 + 0.2 * torch.rand(1000, generator=g)
    cells = masking.even_cells(foreground, r, g)[:, 0]
    inside = (cells & foreground).sum(dim=(1, 2))
    outside = (cells & ~foreground).sum(dim=(1, 2))
    assert torch.equal(inside + outside, (49 * r).floor().long())
    error = torch.stack([inside - r * n_f, outside - r * (49 - n_f)])
    assert error.abs().max() <= 1.5
    assert (error.mean(dim=1).abs() < 1).all()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_maps_of_one_region_lose_the_same_number_of_cells(share: float) -> None:
    foreground = torch.full((40, 7, 7), share > 0)
    r = torch.linspace(0.05, 0.25, 40)
    cells = masking.even_cells(foreground, r, generator())
    assert torch.equal(cells.sum(dim=(1, 2, 3)), (49 * r + 1e-4).floor().long())
    negative = masking.salient_cells(foreground, torch.full((40,), 0.5), generator())
    assert negative.sum() == (40 * 24 if share else 0)  # round(24.5) to even


def test_above_the_cap_the_foreground_loses_less_than_its_share() -> None:
    foreground = torch.zeros(200, 7, 7, dtype=torch.bool)
    foreground[:, :5] = True  # phi 35 / 49
    cells = masking.even_cells(foreground, torch.full((200,), 0.25), generator())[:, 0]
    assert (cells & foreground).sum(dim=(1, 2)).tolist() == [round(0.25 * 0.55 * 49)] * 200
    assert (cells & ~foreground).sum(dim=(1, 2)).tolist() == [12 - 7] * 200


def test_hard_negatives_lose_foreground_alone_and_every_cell_can_be_lost() -> None:
    foreground = torch.zeros(300, 7, 7, dtype=torch.bool)
    foreground[:, 2:5, 1:5] = True
    cells = masking.salient_cells(foreground, torch.full((300,), 0.6), generator())[:, 0]
    assert not (cells & ~foreground).any()
    assert (cells.sum(dim=(1, 2)) == round(0.6 * 12)).all()
    assert (cells.any(dim=0) == foreground[0]).all()


def test_seeds_reproduce_masks_and_channels_differ() -> None:
    foreground = torch.rand(8, 7, 7, generator=generator()) > 0.5
    r = torch.full((8,), 0.25)
    once, again, other = (masking.even_cells(foreground, r, generator(s), 3) for s in (1, 1, 2))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    assert not torch.equal(once[:, 0], once[:, 1])
    assert torch.equal(once.sum(dim=(2, 3)), once.sum(dim=(2, 3))[:, :1].expand(-1, 3))


@pytest.mark.parametrize("fill", ["blur", "mean"])
def test_fills_change_masked_cells_alone(fill: str) -> None:
    x = torch.randn(4, 3, 70, 70, generator=generator())
    cells = torch.rand(4, 1, 7, 7, generator=generator()) > 0.6
    where = masking.to_pixels(cells, (70, 70))
    made = masking.FILLS[fill](x, where)
    painted = cells.repeat_interleave(10, dim=2).repeat_interleave(10, dim=3).expand(-1, 3, -1, -1)
    assert torch.equal((made != x), painted)
    if fill == "mean":
        expected = x.mean(dim=(2, 3), keepdim=True).expand_as(x)
        torch.testing.assert_close(made[painted], expected[painted])
    else:
        assert made[painted].std() < 0.2 * x.std()


def test_high_pass_takes_slow_changes_and_noise_fills_after_it() -> None:
    from torchvision.transforms.v2 import functional

    x = torch.randn(2, 3, 64, 64, generator=generator()) + 5
    filtered = high_pass(x)
    torch.testing.assert_close(
        filtered, x - functional.gaussian_blur(x, [11, 11], [5.0, 5.0]), atol=1e-5, rtol=0
    )
    assert filtered.mean().abs() < 0.01
    where = masking.to_pixels(torch.rand(2, 3, 8, 8, generator=generator()) > 0.5, (64, 64))
    made = masking.fill_noise(filtered, where, 0.18, generator())
    assert torch.equal(made[~where], filtered[~where])
    assert made[where].std() == pytest.approx(0.18, rel=0.03)


def test_varied_masks_come_as_often_as_the_code_says() -> None:
    """Of 2,000 masks a fifth is focal (all but a square), 30 % of the rest equal in all channels."""
    foreground = (torch.rand(1, 7, 7, generator=generator()) > 0.5).expand(2000, -1, -1)
    masks = masking.query_pixels(
        foreground, torch.full((2000,), 0.2), (28, 28), "high_pass", generator()
    )
    assert masks.shape == (2000, 3, 28, 28)
    one = masks.float().mean(dim=(1, 2, 3))
    focal = (one - (1 - 25**2 / 28**2)).abs() < 1e-6  # side 200 / 224 of 28
    same = (masks == masks[:, :1]).flatten(1).all(dim=1) & ~focal
    assert focal.float().mean() == pytest.approx(0.2, abs=0.03)
    assert same[~focal].float().mean() == pytest.approx(0.3, abs=0.04)
    negative = masking.negative_pixels(
        foreground, torch.full((2000,), 0.5), (28, 28), "high_pass", generator()
    )
    # Side 130 / 224 of 28.
    square = (negative.float().mean(dim=(1, 2, 3)) - 16**2 / 28**2).abs() < 1e-6
    assert square.float().mean() == pytest.approx(0.2, abs=0.04)


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

    from harl_bench.classify.features import network
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
    from harl_bench.classify.features import network
    from harl_bench.cli import main
    from harl_bench.convert.read import read_backbone
    from tests.pretrain.test_pretrain import FAST

    images, masks = folders
    fast = [key for key in FAST if not key.startswith("predictor_hidden")]
    assert (
        main(
            [
                "pretrain",
                "--recipe",
                "saliency_mask-toy",
                *fast,
                "backbone=resnet50",
                "epochs=1",
                "warmup_epochs=0",
                f"mask_fill={fill}",
                "--data",
                str(images),
                "--masks",
                str(masks),
                "--out",
                str(tmp_path / "out"),
                "--workers",
                "0",
                "--device",
                "cpu",
            ]
        )
        == 0
    )
    found = read_backbone(tmp_path / "out" / "last.pth")
    assert found.input.high_pass == (fill == "high_pass")
    frozen, x = (
        network(found, torch.device("cpu")),
        torch.randn(1, 3, 64, 64, generator=generator()),
    )
    seen = frozen(x)
    frozen._forward_pre_hooks.clear()
    torch.testing.assert_close(seen, frozen(high_pass(x) if fill == "high_pass" else x))
    assert (
        main(["convert", str(tmp_path / "out" / "last.pth"), "--out", str(tmp_path / "out.pkl")])
        == 0
    )
    assert read_backbone(tmp_path / "out.pkl").input == found.input


def test_the_checkpoint_says_its_feature_grid_and_features_keep_it(folders, tmp_path) -> None:
    """Its last stage learnt at that scale: `classify` measures the network that was trained."""
    from harl_bench.classify.features import network
    from harl_bench.cli import main
    from harl_bench.convert.read import read_backbone
    from harl_bench.nn import resnet
    from tests.pretrain.test_pretrain import FAST

    images, masks = folders
    assert (
        main(
            [
                "pretrain",
                "--recipe",
                "harl-toy",
                *FAST,
                "backbone=resnet50",
                "epochs=1",
                "warmup_epochs=0",
                "feature_grid=14",
                "--data",
                str(images),
                "--masks",
                str(masks),
                "--out",
                str(tmp_path / "out"),
                "--workers",
                "0",
                "--device",
                "cpu",
            ]
        )
        == 0
    )
    assert (
        main(["convert", str(tmp_path / "out" / "last.pth"), "--out", str(tmp_path / "out.pkl")])
        == 0
    )
    x = torch.randn(1, 3, 64, 64, generator=generator())
    for name in ("out/last.pth", "out.pkl"):
        found = read_backbone(tmp_path / name)
        assert found.feature_grid == 14
        frozen, trained = (
            network(found, torch.device("cpu")),
            resnet.resnet50(feature_grid=14).eval(),
        )
        resnet.load_backbone(trained, found.tensors)
        assert resnet.dense_features(frozen, x).shape[-1] == 4
        torch.testing.assert_close(frozen(x), trained(x), rtol=1e-4, atol=1e-4)


def test_a_localiser_that_is_no_file_is_told_before_anything_is_written(
    folders, tmp_path, capsys
) -> None:
    from harl_bench.cli import main

    command = [
        "pretrain",
        "--recipe",
        "saliency_mask-toy",
        "localiser=nothing.pth",
        "batch_size=4",
        "--data",
        str(folders[0]),
        "--out",
        str(tmp_path / "out"),
        "--device",
        "cpu",
    ]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "localiser is neither masks nor a checkpoint" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert main([*command[:3], *command[4:]]) == 2
    assert "saliency_mask needs masks" in capsys.readouterr().err

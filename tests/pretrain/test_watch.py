"""What watches a run: neighbours, the probe, the monitor of collapse, TensorBoard, mask crops."""

import builtins
from pathlib import Path

import numpy as np
import pytest
import torch
from lightly.utils.benchmarking.knn import knn_predict
from PIL import Image
from torch import nn

from harl_bench.core.progress import log, read_metrics
from harl_bench.nn.blur import high_pass
from pretrain import augment, evaluate, views
from pretrain.data import find
from pretrain.evaluate import NEIGHBOURS, TEMPERATURE, knn
from pretrain.labels import Labels
from pretrain.probe import Probe
from pretrain.record import Record
from tests.pretrain.test_augment import view
from tests.pretrain.test_methods import small


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_neighbours_vote_as_lightlys_do() -> None:
    q, x, y = rand(30, 8), rand(60, 8, seed=1), torch.arange(60) % 4
    unit = nn.functional.normalize
    expected = knn_predict(
        unit(q, dim=1), unit(x, dim=1).T, y, 4, knn_k=NEIGHBOURS, knn_t=TEMPERATURE
    )[:, 0]
    assert torch.equal(knn(q, x, y, 4), expected)


class Tower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer4 = nn.Conv2d(3, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h: torch.Tensor = self.layer4(x)
        return h


def test_features_are_watched_through_the_filter_they_learnt_with(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`saliency_mask` learns from high-passed images: what is measured along must see them, too."""
    held = evaluate.hold(find(folders[0], None), find(folders[0], None))
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(evaluate.resnet, "dense_features", lambda net, x: (seen.append(x), x)[1])
    for filtered in (False, True):
        evaluate.evaluate(
            nn.Identity(),
            None,
            held,
            size=32,
            seed=0,
            workers=0,
            device=torch.device("cpu"),
            high_passed=filtered,
        )
    plain, through = seen[:2], seen[2:]
    assert all(torch.equal(high_pass(x), y) for x, y in zip(plain, through, strict=True))
    assert not torch.equal(plain[0], through[0])


def test_unreadable_held_out_images_are_told(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(log, "warning", lambda text, *rest: told.append(text % rest))
    held = evaluate.hold(find(folders[0], None), find(folders[0], None))
    bad = folders[0] / "n1" / "p003.png"
    bad.write_bytes(bad.read_bytes()[:90])
    monkeypatch.setattr(evaluate.resnet, "dense_features", lambda net, x: x)
    evaluate.evaluate(
        nn.Identity(), None, held, size=32, seed=0, workers=0, device=torch.device("cpu")
    )
    (warning,) = told
    assert f"1 of 12 held-out images cannot be read, the next one counts instead: {bad}" in warning


def test_the_probe_is_logistic_regression_and_leaves_the_backbone_alone() -> None:
    tower = Tower()
    probe = Probe(tower, features=5, classes=3, base_lr=0.5, batch_size=256)
    x, y = rand(6, 3, 4, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    tower(x)
    tower(rand(6, 3, 4, 4, seed=1))  # a second view is not looked at
    top1 = probe.learn(y, 1)
    assert float(top1) == pytest.approx(100 / 3)  # all logits are 0: the first class wins
    v = tower.layer4(x).mean(dim=(2, 3)).detach().numpy()
    expected = (1 / 3 - np.eye(3)[y.numpy()]).T @ v / 6
    assert probe.linear.weight.grad is not None
    np.testing.assert_allclose(probe.linear.weight.grad.numpy(), expected, atol=1e-6)
    assert tower.layer4.weight.grad is None
    probe.step(0, 10)
    np.testing.assert_allclose(probe.linear.weight.detach().numpy(), -0.5 * expected, atol=1e-6)


def test_labels_follow_an_unreadable_image_to_its_replacement() -> None:
    paths = [Path("a/1.jpg"), Path("a/2.jpg"), Path("b/3.jpg")]
    labels = Labels(Path("root"), paths)
    assert labels.of([(0, 0), (0, 1), (0, 2)]).tolist() == [0, 0, 1]
    assert labels.of([(0, 1)], [("a/2.jpg", "truncated")]).tolist() == [1]
    assert labels.of([(0, 2)], [("b/3.jpg", "truncated")]).tolist() == [0]


def test_collapse_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    for name in ("info", "warning"):
        monkeypatch.setattr(log, name, lambda text, *rest: told.append(text % rest))
    record = Record(tmp_path, resume_step=0, tensorboard=False, dim=100)
    for step, spread in enumerate((0.1, 0.001, 0.001, 0.1)):
        record.write(step, loss=1.0, feature_std=spread)
    collapsed, again = (message for message in told if "projections" in message)
    assert "step 1: the projections collapse" in collapsed
    assert "spread again" in again
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 4


def test_tensorboard_files_hold_the_numbers(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    record = Record(tmp_path, resume_step=0, tensorboard=True, dim=8)
    record.write(3, loss=1.5)
    record.close()
    read = events.EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    assert [(event.step, event.value) for event in read.Scalars("loss")] == [(3, 1.5)]


def test_without_tensorboard_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from harl_bench.core.progress import log

    log.propagate = True
    found = builtins.__import__

    def missing(name: str, *rest: object, **named: object) -> object:
        if "tensorboard" in name:
            raise ImportError(name)
        return found(name, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", missing)
    record = Record(tmp_path, resume_step=0, tensorboard=True, dim=8)
    record.write(0, loss=1.0)
    record.close()
    assert [m for m in caplog.messages if "tensorboard is not installed" in m]
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 0, "loss": 1.0}]


def corner_mask(side: int = 64, part: int = 4) -> Image.Image:
    mask = np.zeros((side, side), np.uint8)
    mask[: side // part, : side // part] = 255
    return Image.fromarray(mask, "L")


def test_mask_boxes_show_more_foreground_than_random_ones() -> None:
    def share(crop: str) -> float:
        recipe = views.views_of(small("harl", crop=crop, min_foreground=0.2, crop_tries=5))[0]
        rng, mask = np.random.default_rng(0), corner_mask(part=2)
        cut = [
            np.asarray(mask.crop(augment.chosen_box(mask, recipe, rng))).mean() / 255
            for _ in range(300)
        ]
        return float(np.mean(np.array(cut) > 0.2))

    plain, boxes = share("random"), share("mask_boxes")
    assert 0.05 < plain < 0.7
    # The first of five that shows enough.
    assert boxes == pytest.approx(1 - (1 - plain) ** 5, abs=0.1)


def test_mask_center_boxes_hold_a_pixel_of_the_foreground() -> None:
    recipe = views.views_of(small("harl", crop="mask_center"))[0]
    rng, mask = np.random.default_rng(0), corner_mask()
    for _ in range(50):
        left, top, right, bottom = augment.chosen_box(mask, recipe, rng)
        assert np.asarray(mask.crop((left, top, right, bottom))).any()
        assert 0 <= left < right <= 64
        assert 0 <= top < bottom <= 64


def test_official_views_flip_both_ways_and_dilate_the_mask() -> None:
    T, _ = views.views_of(small("harl", views="harl_official_pt"))
    assert (T.vertical_flip, T.double_resize, T.std[0]) == (0.5, True, 0.228)
    image, mask = Image.new("RGB", (50, 80), (255, 0, 0)), corner_mask(80).crop((0, 0, 50, 80))
    soft, plain = ([], [])
    for found, recipe in ((soft, T), (plain, views.T)):
        rng = np.random.default_rng(3)
        found += [float(view(image, mask, recipe, 32, rng)[1].float().mean()) for _ in range(60)]
    assert np.mean(soft) > np.mean(plain)


def test_the_centre_of_an_image() -> None:
    assert augment.middle(256, 512) == (16, 144, 240, 368)  # 224 of 256


def test_a_probe_draws_no_random_number() -> None:
    """MoCo's shuffles, and so its weights, were others with --val."""
    tower, before = Tower(), torch.get_rng_state()
    probe = Probe(tower, features=5, classes=3, base_lr=0.1, batch_size=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert not probe.linear.weight.any()

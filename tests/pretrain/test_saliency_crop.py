"""Saliency-guided crops: what equals BYOL, the weighted loss by hand, maps of a resumed run."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from harl_bench.cli import main
from harl_bench.core.errors import UsageError
from harl_bench.nn import checkpoint
from harl_bench.nn.resnet import dense_features
from pretrain import data
from pretrain.batch import Batch, Scene
from pretrain.losses import regression
from pretrain.saliency.crop import SaliencyCrop
from pretrain.saliency.maps import MapMemory, box_means
from pretrain.saliency.scenes import SceneViews
from tests.pretrain.conftest import write_images
from tests.pretrain.test_methods import batch, seeded, small

SMALL = {"local_size": 32, "saliency_warmup": 0.0}


def scene(B: int = 4, n: int = 3) -> Batch:
    """Random views with n local crops at random places."""
    g = torch.Generator().manual_seed(2)
    corners = torch.rand(2 + n, B, 2, generator=g) * 0.6
    boxes = torch.cat([corners, corners + 0.3], dim=-1)
    whole = torch.randint(0, 256, (B, 3, 224, 224), generator=g, dtype=torch.uint8)
    local = torch.randn(n, B, 3, 32, 32, generator=g)
    return replace(batch(B), scene=Scene(torch.arange(B), whole, boxes, local))


def crop(**changes: object):
    method = seeded(small("saliency_crop", **{**SMALL, **changes}))
    method.maps = MapMemory(4)
    return method


def test_epochs_that_are_not_those_of_the_maps_are_refused() -> None:
    with pytest.raises(UsageError, match="without accumulation_ramp"):
        small("saliency_crop", accumulation_ramp=True)


@pytest.mark.parametrize("base", SaliencyCrop.configs)
@pytest.mark.parametrize("changes", [{"local_weight": 0.0}, {"local_crops": 0}])
def test_without_local_crops_it_is_its_base(base: str, changes: dict[str, float]) -> None:
    plain = seeded(small(base, queue_size=16))
    method = crop(base=base, queue_size=16, **changes)
    given = scene(n=0) if "local_crops" in changes else scene()
    losses = [plain(batch(), 0, 10).loss, method(given, 0, 10).loss]
    assert losses[0].item() == losses[1].item()
    for loss in losses:
        loss.backward()
    for (name, p), (_, q) in zip(plain.named_parameters(), method.named_parameters(), strict=True):
        assert p.grad is None or torch.equal(p.grad, q.grad), name
    # The global crops follow the maps.
    assert method.maps.current(torch.arange(4)).amax(dim=(1, 2)).min() == 1


def test_the_loss_is_the_weighted_formula() -> None:
    """Uniform weights before the maps, S_i / sum S_j after, from the maps that were written."""
    for warmup in (1.0, 0.0):
        method = crop(saliency_warmup=warmup)
        given = scene()
        output = method(given, 0, 10)
        again = crop(saliency_warmup=warmup)
        with torch.no_grad():
            again.base.features(given.views)
            net = again.base
            v = dense_features(net.backbone, given.scene.local.flatten(0, 1)).mean(dim=(2, 3))
            p = net.predictor(net.projector(v)).view(3, 4, -1)
            z = [
                net.target_projector(dense_features(net.target_backbone, x).mean(dim=(2, 3)))
                for x in given.views
            ]
        D = (regression(p, z[0][None]) + regression(p, z[1][None])) / 2
        w = torch.full((3, 4), 1 / 3)
        if warmup == 0:
            S = box_means(method.maps.current(torch.arange(4)), given.scene.boxes[2:])
            w = S / S.sum(dim=0)
            assert w.std() > 0
        assert output.logs["loss_local"].item() == pytest.approx(
            (w * D).sum(dim=0).mean().item(), rel=1e-4
        )
        total = output.logs["loss_global"] + output.logs["loss_local"]
        assert output.loss.item() == pytest.approx(total.item(), rel=1e-6)


@pytest.mark.parametrize("kind", ["cosine", "projected", "activation"])
def test_maps_come_from_the_target_without_gradient_and_leave_its_statistics(kind: str) -> None:
    method = crop(saliency_map=kind)
    net = method.base
    before = {name: x.clone() for name, x in net.target_backbone.named_buffers()}
    maps = method._maps(scene().scene.whole)
    assert maps.shape == (4, 7, 7)
    assert not maps.requires_grad
    assert all(torch.equal(before[name], x) for name, x in net.target_backbone.named_buffers())
    assert net.target_backbone.training
    alone = method._maps(scene().scene.whole[:1])
    torch.testing.assert_close(alone, maps[:1], atol=1e-4, rtol=0)  # whatever else is in the batch


def test_maps_are_averaged_into_memory_after_the_warmup() -> None:
    method = crop(saliency_warmup=0.5)
    method(scene(), 4, 10)
    assert method.maps.slots.count_nonzero() == 0
    method(scene(), 5, 10)
    assert (method.maps.current(torch.arange(4)).amax(dim=(1, 2)) == 1).all()


@pytest.mark.parametrize("base", SaliencyCrop.configs)
def test_local_crops_train_the_online_network(base: str) -> None:
    method = crop(base=base, queue_size=16)
    output = method(scene(), 0, 10)
    output.loss.backward()
    assert all(
        (p.grad is not None) == ("target_" not in name) for name, p in method.named_parameters()
    )
    assert output.logs["loss_local"] > 0


def dataset(tmp_path: Path, **changes: object) -> SceneViews:
    images, _ = write_images(tmp_path, 6)
    config = small("saliency_crop", **{**SMALL, "local_crops": 3, **changes})
    return SaliencyCrop.dataset(data.find(images, None), config, unfinished=False)


def test_scenes_have_crops_boxes_and_the_whole_image(tmp_path: Path) -> None:
    made = dataset(tmp_path)
    given = data.collate([made[0, i] for i in range(4)])
    assert given.views.shape == (2, 4, 3, 32, 32)
    s = given.scene
    assert s.local.shape == (3, 4, 3, 32, 32)
    assert s.whole.shape == (4, 3, 32, 32)
    assert s.whole.dtype == torch.uint8
    assert s.boxes.shape == (5, 4, 4)
    assert s.index.tolist() == [0, 1, 2, 3]
    areas = (s.boxes[..., 2] - s.boxes[..., 0]) * (s.boxes[..., 3] - s.boxes[..., 1])
    assert (areas[:2] > 0.15).all()
    assert ((areas[2:] > 0.04) & (areas[2:] < 0.33)).all()
    assert len(data.collate([dataset(tmp_path, local_crops=0)[0, 0]]).scene.local) == 0


def test_crops_follow_the_map_of_the_last_epoch_but_one(tmp_path: Path) -> None:
    made = dataset(tmp_path)
    s = torch.zeros(1, 7, 7)
    s[0, 5, 5] = 1
    made.memory.update(torch.tensor([2]), s)

    def centres(epoch: int, index: int) -> np.ndarray:
        boxes = made[epoch, index].scene.boxes[2:].numpy()
        return (boxes[:, :2] + boxes[:, 2:]) / 2

    assert (centres(2, 2) > 0.6).all()
    assert (np.concatenate([centres(2, i) for i in (0, 1, 3, 4)]) < 0.6).any()
    assert (np.concatenate([centres(1, 2), centres(3, 1)]) < 0.6).any()


def test_unfinished_crops_are_finished_on_the_device(tmp_path: Path) -> None:
    now, later = dataset(tmp_path), dataset(tmp_path)
    later.unfinished = True
    a, b = (data.collate([d[0, i] for i in range(3)]) for d in (now, later))
    assert b.views.dtype == b.scene.local.dtype == torch.uint8
    b = data.on_device(b, torch.device("cpu"))
    for x, y in ((a.views, b.views), (a.scene.local, b.scene.local)):
        assert (x - y).abs().mean() < 0.03  # in standard deviations: 8-bit rounding
    assert torch.equal(a.scene.boxes, b.scene.boxes)


FAST = [
    "image_size=32",
    "projector_hidden=16",
    "projector_out=8",
    "predictor_hidden=16",
    "epochs=4",
    "warmup_epochs=1",
    "batch_size=4",
    "log_every_steps=1",
    "checkpoint_every_steps=5",
    "feature_grid=14",
    "backbone=resnet18",
    "local_size=32",
    "saliency_warmup=0.1",
]


def test_a_resumed_run_ends_with_the_same_bits_whatever_the_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Maps included: 3 steps an epoch, killed after step 8; epoch 2 crops by epoch 0's maps."""
    images, _ = write_images(tmp_path, 12)

    def run(name: str, workers: str = "0") -> int:
        return main(
            [
                "pretrain",
                "--recipe",
                "saliency_crop-toy",
                *FAST,
                "--data",
                str(images),
                "--out",
                str(tmp_path / name),
                "--workers",
                workers,
                "--device",
                "cpu",
            ]
        )

    assert run("whole") == 0
    assert run("workers", "1") == 0
    update, calls = MapMemory.update, []

    def dying(self: MapMemory, *arguments: torch.Tensor) -> None:
        calls.append(1)
        if len(calls) == 7:
            raise OSError("the machine vanished")
        update(self, *arguments)

    monkeypatch.setattr(MapMemory, "update", dying)
    assert run("broken") != 0
    monkeypatch.setattr(MapMemory, "update", update)
    assert run("broken") == 0
    states = [
        checkpoint.load_own(tmp_path / name / "last.pth")["method"]
        for name in ("whole", "broken", "workers")
    ]
    for other in states[1:]:
        assert states[0].keys() == other.keys()
        for name, x in states[0].items():
            if name.endswith("_extra_state"):
                assert torch.equal(x["slots"], other[name]["slots"])
                assert x["slots"].count_nonzero() > 0
            else:
                assert torch.equal(x, other[name]), name

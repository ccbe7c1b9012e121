"""MoCo v2 on one process as on several: batch norm in groups, keys shuffled over them."""

import copy
from pathlib import Path

import pytest
import torch

from harl_bench.cli import main
from harl_bench.core.errors import UsageError
from harl_bench.nn import resnet
from pretrain import parallel
from pretrain.job import memory_advice
from pretrain.methods.mocov2 import Mocov2
from pretrain.saliency.crop import SaliencyCrop
from tests.pretrain.test_methods import batch, seeded, small

WIDE = {"projector_hidden": 32, "projector_out": 16, "queue_size": 96}
GROUPS = {"sync_bn": False, "bn_groups": 4, "batch_size": 8}


def network(**changes: object) -> Mocov2:
    method = seeded(small("mocov2", **{**WIDE, **GROUPS, **changes}))
    assert isinstance(method, Mocov2)
    return method


def alone(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return the maps of images that pass an ordinary network in train mode by themselves."""
    plain = resnet.build("resnet18")
    plain.load_state_dict(model.state_dict())
    return resnet.dense_features(plain.train(), x)


def test_each_group_is_a_batch_of_its_own() -> None:
    method, x = network(), batch(8, 32).views
    backbone, target = copy.deepcopy(method.backbone), copy.deepcopy(method.target_backbone)
    torch.manual_seed(3)
    (query,), (key,) = method.features(x)
    torch.manual_seed(3)
    order = torch.randperm(8).view(4, 2)
    with torch.no_grad():
        expected = torch.cat([alone(backbone, part) for part in x[0].split(2)])
        torch.testing.assert_close(query, expected, rtol=1e-3, atol=1e-4)
        for group in order:
            torch.testing.assert_close(key[group], alone(target, x[1][group]), rtol=1e-3, atol=1e-4)
        together = alone(target, x[1])
    assert (key - together).norm() / together.norm() > 0.1, "one group would be noticed"


def test_shuffling_is_undone() -> None:
    method, x = network(), batch(8, 32).views[1]
    method.target_backbone.eval()  # an image's map is then its own
    with torch.no_grad():
        expected = resnet.dense_features(method.target_backbone, x)
    for _ in range(3):
        torch.testing.assert_close(method.key_features(x), expected, rtol=1e-4, atol=1e-5)


def test_one_group_draws_nothing() -> None:
    method = network(bn_groups=1)
    before = torch.get_rng_state()
    method.features(batch(8, 32).views)
    assert torch.equal(torch.get_rng_state(), before)
    assert network().state_dict().keys() == method.state_dict().keys()


def test_local_crops_are_in_the_group_of_their_image() -> None:
    config = small("saliency_crop", base="mocov2", local_size=32, **WIDE, **GROUPS)
    method = seeded(config)
    assert isinstance(method, SaliencyCrop)
    local = torch.stack([batch(8, 32).views[0], batch(8, 32).views[1] * 2])  # 2 crops of 8 images
    backbone, base = copy.deepcopy(method.backbone), method.base
    _, key = base.compare([torch.randn(8, 512)], [torch.randn(8, 512)], None, "whole")
    with torch.no_grad():
        D = method._local_distances(local, key)
        features = [
            alone(backbone, local[:, 2 * g : 2 * g + 2].flatten(0, 1)).mean(dim=(2, 3))
            for g in range(4)
        ]
        v = torch.cat([part.view(2, 2, -1) for part in features], dim=1)
        q = torch.nn.functional.normalize(base.projector(v), dim=-1)
        logits = torch.cat([(q * key).sum(-1, keepdim=True), q @ base.queue[0].T], dim=-1) / 0.1
        expected = logits.logsumexp(dim=-1) - logits[..., 0]
    torch.testing.assert_close(D, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sync_bn": True}, "bn_groups=4 needs sync_bn=false"),
        ({"batch_size": 6}, r"batch_size \(6\) must be a multiple of bn_groups \(4\)"),
        ({"batch_size": 4}, "with 2 images or more for each"),
        ({"queue_size": 7}, r"queue_size \(7\) must be batch_size \(8\) or more"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        small("mocov2", **{**WIDE, **GROUPS, **changes})


@pytest.mark.parametrize(
    ("processes", "parts", "groups"),
    [
        (1, 1, 8),
        (8, 1, 1),
        (4, 1, 2),
        (4, 2, 1),
        (1, 4, 2),
        (16, 1, 0),
        (3, 1, 0),
        (8, 2, 0),
        (1, 8, 0),
    ],
)
def test_groups_are_counted_over_all_processes_and_parts(
    processes: int, parts: int, groups: int
) -> None:
    config = small("mocov2", **WIDE, sync_bn=False, bn_groups=8, batch_size=96, accumulate=parts)
    if groups:
        assert parallel.bn_groups(config, processes) == groups
        return
    with pytest.raises(UsageError, match=f"bn_groups=8, accumulate={parts}, {processes} ") as error:
        parallel.bn_groups(config, processes)
    advised = int(str(error.value).rpartition("bn_groups=")[2])
    assert parallel.bn_groups(config.model_copy(update={"bn_groups": advised}), processes)


def test_what_has_no_groups_has_one_a_process() -> None:
    for config in (small("byol"), small("mocov2", **WIDE, sync_bn=False, accumulate=2)):
        assert parallel.bn_groups(config, 16) == 1


def test_a_full_gpu_is_told_parts_that_keep_the_groups() -> None:
    config = small("mocov2", **WIDE, sync_bn=False, bn_groups=6, batch_size=96)
    assert memory_advice(config, 1) == "accumulate=2 with another --out, or more GPUs"
    parts = config.model_copy(update={"accumulate": 2})
    assert memory_advice(parts, 1) == (
        "more GPUs, or a smaller batch_size=..., with another --out"
    ), "4 parts do not divide 6 groups, 6 parts have one each"
    whole = memory_advice(small("mocov2", **WIDE, sync_bn=False, batch_size=96), 1)
    assert "each batch norm then sees a part of the batch" in whole


def test_groups_that_cannot_be_divided_claim_no_folder(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ["pretrain", "--recipe", "mocov2-toy", "--data", str(folders[0]), "--out", str(out)]
    groups = ["batch_size=12", "sync_bn=false", "bn_groups=2", "accumulate=2"]
    assert main([*words, "--device", "cpu", *groups]) == 2
    assert "bn_groups=2, accumulate=2, 1 processes; next: bn_groups=4" in capsys.readouterr().err
    assert not out.exists()

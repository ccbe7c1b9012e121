"""What a run needs is counted before it starts, and said by --dry-run."""

import math
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch

from harl_bench.cli import main
from pretrain import memory
from pretrain.methods import METHODS, method_class
from pretrain.recipe import load
from tests.pretrain.test_methods import full, made, small
from tests.pretrain.test_pretrain import RESNET18, command

Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(("precision", "mib"), [("bf16", 83.7), ("fp32", 164.0)])
def test_activations_of_resnet50(precision: str, mib: float) -> None:
    """Those of HARL's whole step, heads included, as autograd kept them in a run on the CPU."""
    config = load("harl-100ep", None, [f"precision={precision}"])
    need = memory.needed(config, 2, processes=1, workers=0)
    assert need.image / 2**20 == pytest.approx(mib, rel=0.01)


def test_what_is_kept_is_what_autograd_keeps() -> None:
    """Counted once more on real tensors, by their addresses."""
    config = small("simsiam", feature_grid=14)
    network = memory.resnet.build(**config.network())
    owned = {x.untyped_storage().data_ptr() for x in network.state_dict().values()}
    kept: dict[int, torch.Tensor] = {}

    def keep(x: torch.Tensor) -> torch.Tensor:
        if x.dim() == 4 and x.untyped_storage().data_ptr() not in owned:
            kept[x.untyped_storage().data_ptr()] = x
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        memory.resnet.dense_features(network, torch.randn(3, 3, 32, 32))
    assert memory.kept(config) == sum(x.nbytes for x in kept.values()) / 3


@pytest.mark.parametrize("name", METHODS)
def test_passes_are_those_that_have_gradients(name: str) -> None:
    """An image's share: local crops, of 32 px here, count by their area."""
    areas = []

    def count(module: Any, inputs: Any, output: torch.Tensor) -> None:
        if output.requires_grad:
            areas.append(len(inputs[0]) * inputs[0].shape[-1] ** 2)

    method = made(name)
    method.backbone.conv1.register_forward_hook(count)
    batch = full()
    method(batch, 0, 10)
    about = {"classes": 2, "queue_size": 16, "feature_grid": 28, "local_crops": 2, "local_size": 32}
    config = small(name, **{**about, "image_size": 64})
    assert method_class(name).passes(config) == sum(areas) / (4 * 64**2)


def test_the_dry_run_of_eight_gpus_says_what_each_gets(
    folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On a machine without any; the recipe's batch is made small enough for twelve images."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2**20, 0, 0))
    small_batch = ["batch_size=8", "accumulate=2", "image_size=224", "precision=bf16"]
    settings = [x for x in RESNET18 if x.split("=")[0] not in ("batch_size", "image_size")]
    plan = command(folders, tmp_path / "run", "--dry-run", "--gpus", "2", "--workers", "3")
    plan = [x for x in plan if x not in RESNET18]
    plan = [*plan, *settings, *small_batch]
    del plan[plan.index("--workers") : plan.index("--workers") + 2]  # the first, command's own
    plan = [x for i, x in enumerate(plan) if not (x == "--device" or plan[i - 1] == "--device")]
    assert main(plan) == 0
    output = capsys.readouterr()
    assert "2 processes, 2 images of a batch for each at a time, 2 times a step" in output.out
    assert "3 data workers for each" in output.out
    assert "GiB (2 images of" in output.out
    need = 2 * 3 * 2 * 2 * 2 * 3 * 224**2  # batches, workers, processes, images, views
    assert f"shared memory: {need / 2**30:.1f} GiB of" in output.out
    assert f"--shm-size={math.ceil(need / 2**30)}g" in output.out + output.err
    assert "would train on 2 GPUs" in output.out
    assert not (tmp_path / "run").exists()
    assert main([*plan, "--gpus", "8"]) == 2
    assert "accumulate=2, 8 processes" in capsys.readouterr().err

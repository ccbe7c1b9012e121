"""What a run needs is counted before it starts, and said by --dry-run."""

import math
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch

from harl_bench.cli import main
from harl_bench.nn import runtime
from pretrain import memory, plan
from pretrain.methods import METHODS, method_class
from pretrain.recipe import load
from tests.pretrain.conftest import write_images
from tests.pretrain.test_methods import full, made, small

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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a machine without any; harl-100ep but for its batch, so that a few images will do."""
    images, masks = write_images(tmp_path, 64)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2**20, 0, 0))
    out = tmp_path / "run"
    words = ["pretrain", "--recipe", "harl-100ep", "--data", str(images), "--masks", str(masks)]
    words += ["--out", str(out), "--dry-run", "--gpus", "8", "--workers", "16"]
    assert main([*words, "batch_size=64", "accumulate=2"]) == 0
    output = capsys.readouterr()
    device = "4 images of a batch at a time, 2 times a step, and 16 data workers each"
    assert f"device      8 x cuda, {device}" in output.out
    assert "GiB each: 4 images of 224 px with 83.5 MiB in bf16, and" in output.out
    need = 2 * 16 * 8 * 4 * 2 * 3 * 224**2  # batches, workers, processes, images, views of bytes
    assert f"; {need / 2**30:.1f} of 0.0 GiB of shared memory\n" in output.out
    # 64 images are 1 / 20,018 of ImageNet's, of which the paper's 1000 epochs took 149 h
    assert "time        about 2.7 s a run on 8 A100: 100 epochs x 0.0 s (HARL's paper" in output.out
    assert f"--shm-size={math.ceil(need / 2**30)}g" in output.out + output.err
    assert f"new         {out}\nto do       1 of 1, each 100 epochs of 64 images" in output.out
    assert not out.exists()
    assert main([*words, "batch_size=60"]) == 2
    assert "batch_size=60, accumulate=1, 8 processes" in capsys.readouterr().err


def test_a_gpu_that_is_too_small_is_named_before_it_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(runtime, "gpu_gib", lambda: 40.0)
    config = load("harl-100ep", None, [])
    for processes, short in ((8, True), (16, False)):
        caplog.clear()
        with caplog.at_level("WARNING"):
            plan.share(config, processes, 8, 0, on_gpu=True)
        assert ("accumulate=2 with another --out" in caplog.text) == short

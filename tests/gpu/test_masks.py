"""Masks `deep`: a GPU's saliency, in float16, is close to the CPU's in float32."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harl_bench.cli import main
from harl_bench.convert.formats import IMAGENET
from harl_bench.convert.read import random_backbone
from harl_bench.core.images import read_mask
from harl_bench.masks import deep
from tests.gpu.conftest import Agree
from tests.masks import mask_scenes as scenes

pytestmark = pytest.mark.gpu
SIDE = 32


def test_features_and_saliency(both: Any, agree: Agree) -> None:
    tensors = random_backbone(0).tensors
    squares = [scenes.disc(i, SIDE, SIDE)[0] for i in range(2)]
    head = torch.randn(deep.CHANNELS, generator=torch.Generator().manual_seed(0)) / 10

    def made(device: torch.device) -> tuple[Any, Any]:
        network = deep.build(tensors, device)
        weight, bias = head.to(device), torch.tensor(0.1, device=device)
        maker = deep.DeepMaker(network, weight, bias, SIDE, IMAGENET, device)
        return maker.features(squares), [torch.from_numpy(x) for x in maker.many(squares)]

    reference, value = both(made)
    agree("features", value[0], reference[0], 2e-2)
    agree("saliency", value[1], reference[1], 2e-2)


def test_the_head_is_fitted_alike(both: Any, agree: Agree) -> None:
    """The problem is convex; L-BFGS ends where float32 ends."""
    g = torch.Generator().manual_seed(0)
    features = torch.randn(400, 32, generator=g)
    targets = (features @ torch.randn(32, generator=g) + torch.randn(400, generator=g) > 0).float()
    how = deep.Fit(weight_decay=1e-2)
    reference, value = both(lambda device: deep.train(features.to(device), targets.to(device), how))
    agree("loss", value[2], reference[2], 1e-4)
    agree("weights", value[:2], reference[:2], 1e-2)


def test_the_commands_make_the_same_masks(device: torch.device, tmp_path: Path) -> None:
    """`masks fit` and `masks make` with that device, against the masks of the CPU."""
    images, masks = scenes.write(tmp_path, 4)
    head = tmp_path / "head.safetensors"
    fit = ["masks", "fit", str(images), "--masks", str(masks), "--method", "deep"]
    more = [f"side_px={SIDE}", "--workers", "0", "--device", device.type]
    assert main([*fit, "--out", str(head), *more]) == 0
    made = {}
    for name in (device.type, "cpu"):
        out = tmp_path / f"made-{name}"
        make = ["masks", "make", str(images), "--method", "deep", "--model", str(head)]
        assert main([*make, "--out", str(out), f"device={name}", "--workers", "0"]) == 0
        paths = sorted(out.glob("*/*.png"))
        made[name] = np.stack([np.asarray(read_mask(path, (80, 64))) > 127 for path in paths])
    assert made["cpu"].shape[0] == 4
    assert 0 < made["cpu"].mean() < 1
    assert (made[device.type] != made["cpu"]).mean() < 0.02

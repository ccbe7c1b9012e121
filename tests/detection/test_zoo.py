"""Detectors of Detectron2's model zoo: their pixel statistics against the recipe's."""

import shlex

import pytest
import torch

from harl_bench.core.errors import CheckpointError
from harl_bench.detection import recipe
from harl_bench.detection.torchvision_engine import checkpoints

PIXELS = ["MODEL.PIXEL_MEAN=[103.53,116.28,123.675]", "MODEL.PIXEL_STD=[1,1,1]"]


@pytest.mark.parametrize("given", [[], PIXELS, [*PIXELS, "INPUT.FORMAT=BGR"]])
def test_a_detector_on_msra_weights_asks_for_bgr_and_the_stride_in_the_1x1(given, tmp_path):
    """By mean and deviation alone, the zoo's default models would be scored on RGB."""
    model = {
        "pixel_mean": torch.tensor([103.53, 116.28, 123.675]),
        "pixel_std": torch.ones(3),
        "x": torch.zeros(1),
    }
    torch.save({"model": model}, tmp_path / "zoo.pth")
    with pytest.raises(
        CheckpointError, match=r"MODEL.RESNETS.STRIDE_IN_1X1 True, the recipe has False"
    ) as refused:
        checkpoints.detector(tmp_path / "zoo.pth", recipe.load("voc-c4-24k", given))
    advised = shlex.split(str(refused.value).partition("add the overrides ")[2])
    chosen = recipe.load("voc-c4-24k", [*given, *advised])
    assert [*checkpoints.detector(tmp_path / "zoo.pth", chosen)] == ["x"]
    assert (chosen.INPUT.FORMAT, chosen.MODEL.RESNETS.STRIDE_IN_1X1) == ("BGR", True)

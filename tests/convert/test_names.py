"""The key map is a bijection on the 265 names."""

import pytest

from harl_bench.convert.names import to_detectron2, to_torchvision
from harl_bench.nn.resnet import shapes


def test_bijection() -> None:
    names = list(shapes())
    mapped = [to_detectron2(name) for name in names]
    assert len(set(mapped)) == len(names) == 265
    assert [to_torchvision(name) for name in mapped] == names


@pytest.mark.parametrize(
    ("torchvision", "detectron2"),
    # Detectron2's names as its ResNet-50 has them (detectron2/modeling/backbone/resnet.py at
    # 02b5c4e2)
    [
        ("conv1.weight", "stem.conv1.weight"),
        ("bn1.running_var", "stem.conv1.norm.running_var"),
        ("layer1.0.downsample.0.weight", "res2.0.shortcut.weight"),
        ("layer1.0.downsample.1.bias", "res2.0.shortcut.norm.bias"),
        ("layer4.2.conv3.weight", "res5.2.conv3.weight"),
        ("layer3.5.bn2.running_mean", "res4.5.conv2.norm.running_mean"),
    ],
)
def test_examples(torchvision: str, detectron2: str) -> None:
    assert to_detectron2(torchvision) == detectron2
    assert to_torchvision(detectron2) == torchvision


@pytest.mark.parametrize(
    "name",
    [
        "fc.weight",
        "layer5.0.conv1.weight",
        "xconv1.weight",
        "bn1.num_batches_tracked",
        "stem.fc.weight",
    ],
)
def test_other_names_are_errors(name: str) -> None:
    with pytest.raises(KeyError):
        to_detectron2(name)
    with pytest.raises(KeyError):
        to_torchvision(name)

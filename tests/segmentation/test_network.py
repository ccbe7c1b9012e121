"""The network beside torchvision's FCN, the published size, and each protocol's dilations."""

import pytest
import torch
import torchvision
from torch import nn

from harl_bench.convert.read import random_backbone
from harl_bench.segmentation import network, recipe
from harl_bench.segmentation.memory import saved_bytes


def settings(name: str, *overrides: str) -> recipe.Recipe:
    return recipe.load(name, overrides)[1]


def dilations(model: network.Segmenter, layer: str) -> list[int]:
    return [block.conv2.dilation[0] for block in getattr(model.backbone, layer)]


FULL = {  # recipe and overrides: dilations of layer3 and layer4, strides of their first blocks
    "moco": ("voc12aug-fcn16s-30k", (), [1] * 6, [2, 2, 2], (2, 1)),
    "slotcon": (
        "voc12aug-fcn16s-30k",
        ("network.contract_dilation=true",),
        [1] * 6,
        [1, 2, 2],
        (2, 1),
    ),
    "d8": ("voc12aug-fcn-d8-20k", (), [1, 2, 2, 2, 2, 2], [2, 4, 4], (1, 1)),
}


@pytest.mark.parametrize("case", FULL)
def test_strides_and_dilations(case: str) -> None:
    name, overrides, third, fourth, strides = FULL[case]
    with torch.device("meta"):
        model = network.build(settings(name, *overrides), 21)
    assert (dilations(model, "layer3"), dilations(model, "layer4")) == (third, fourth)
    for layer, stride in zip(("layer3", "layer4"), strides, strict=True):
        first = getattr(model.backbone, layer)[0]
        assert first.conv1.stride == (1, 1)
        assert first.conv2.stride == first.downsample[0].stride == (stride, stride)
    assert dilations(model, "layer2") == [1] * 4


def test_msra_networks_keep_their_stride_in_the_1x1() -> None:
    with torch.device("meta"):
        model = network.Segmenter(settings("voc12aug-fcn16s-30k"), 21, stride_in_1x1=True)
    first = model.backbone.layer3[0]
    assert (first.conv1.stride, first.conv2.stride) == ((2, 2), (1, 1))
    assert dilations(model, "layer4") == [2, 2, 2]


def test_fcn_d8_has_the_published_size_and_shapes() -> None:
    torch.manual_seed(0)
    model = network.build(settings("voc12aug-fcn-d8-20k"), 21)
    assert sum(p.numel() for p in model.parameters()) == 49_480_042
    outputs = model(torch.randn(2, 3, 64, 64))
    assert [tuple(out.shape) for out in outputs] == [(2, 21, 8, 8), (2, 21, 8, 8)]
    assert len(model.eval()(torch.randn(1, 3, 64, 64))) == 1
    keys = set(model.state_dict())
    assert {"decode_head.convs.1.conv.weight", "decode_head.conv_cat.bn.bias"} <= keys
    assert {"auxiliary_head.convs.0.bn.weight", "decode_head.conv_seg.bias"} <= keys
    assert "auxiliary_head.conv_cat.conv.weight" not in keys


def test_stride_16_at_513_px() -> None:
    with torch.device("meta"):
        model = network.build(settings("voc12aug-fcn16s-30k"), 21)
        assert model(torch.randn(1, 3, 513, 513))[0].shape == (1, 21, 33, 33)


def test_torchvisions_fcn_computes_the_same() -> None:
    """Its FCNHead is one 3x3 of inputs / 4 with dropout, its backbone dilates like d8's."""
    torch.manual_seed(0)
    overrides = ["head.convs=1", "head.concat_input=false", "auxiliary.weight=0.5"]
    ours = network.build(settings("voc12aug-fcn-d8-20k", *overrides), 21, random_backbone(3)).eval()
    theirs = torchvision.models.segmentation.fcn_resnet50(
        weights=None, weights_backbone=None, num_classes=21, aux_loss=True
    ).eval()
    theirs.backbone.load_state_dict(ours.backbone.state_dict())
    for head, own in (("classifier", "decode_head"), ("aux_classifier", "auxiliary_head")):
        modules = dict(getattr(theirs, head).named_children())
        source = getattr(ours, own)
        modules["0"].load_state_dict(source.convs[0].conv.state_dict())
        modules["1"].load_state_dict(source.convs[0].bn.state_dict())
        modules["4"].load_state_dict(source.conv_seg.state_dict())
    x = torch.randn(1, 3, 65, 49)
    features = theirs.backbone(x)
    expected = theirs.classifier(features["out"])
    torch.testing.assert_close(ours(x)[0], expected, rtol=0, atol=0)
    ours.train()
    for module in ours.modules():
        if isinstance(module, nn.BatchNorm2d | nn.Dropout2d):
            module.eval()
    auxiliary = theirs.aux_classifier(features["aux"])
    torch.testing.assert_close(ours(x)[1], auxiliary, rtol=0, atol=0)


def test_the_backbone_is_the_checkpoints() -> None:
    backbone = random_backbone(5)
    model = network.build(settings("voc12aug-fcn16s-30k"), 21, backbone)
    state = model.backbone.state_dict()
    assert len(backbone.tensors) == 265
    assert all(torch.equal(state[name], tensor) for name, tensor in backbone.tensors.items())


def test_memory_counts_what_a_backward_pass_keeps() -> None:
    """A convolution keeps its input and weight, ReLU its output: counted by hand."""
    layer = nn.Sequential(nn.Conv2d(3, 5, 3, bias=False), nn.ReLU())
    with torch.device("meta"):
        x = torch.empty(2, 3, 10, 10)
    kept = saved_bytes(layer.to("meta"), x)
    assert kept == 4 * (2 * 3 * 100 + 2 * 5 * 64)
    one, two = (
        saved_bytes(network.Segmenter(settings("voc12aug-fcn-d8-20k"), 21).to("meta"), images)
        for images in (torch.empty(n, 3, 64, 64, device="meta") for n in (1, 2))
    )
    assert one < two <= 2 * one

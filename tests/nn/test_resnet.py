"""The network: 265 tensors, grids by stride, loading that demands everything."""

import pytest
import torch
import torchvision

from harl_bench.core.errors import CheckpointError, UsageError
from harl_bench.nn import resnet


def test_resnet50_has_53_convolutions_and_53_batch_norms() -> None:
    names = resnet.shapes()
    assert len(names) == 265
    assert sum(len(shape) == 4 for shape in names.values()) == 53
    assert sum(name.endswith("running_var") for name in names) == 53


def test_parameters_without_the_classifier_as_in_the_paper() -> None:
    # docs/fidelity.md 1.2
    assert sum(p.numel() for p in resnet.resnet50().parameters()) == 23_508_032


@pytest.mark.parametrize("name", ["resnet50", "resnet18"])
@pytest.mark.parametrize("grid", [7, 14, 28])
def test_feature_grid_by_stride(name: str, grid: int) -> None:
    model = resnet.build(name, feature_grid=grid).eval()
    with torch.no_grad():
        features = resnet.dense_features(model, torch.zeros(1, 3, 64, 64))
    assert features.shape == (1, resnet.FEATURES[name], grid * 64 // 224, grid * 64 // 224)


def test_zero_initialised_blocks_start_as_the_identity() -> None:
    """Goyal et al. 2017, section 5.1; how SimCLR, BYOL and SimSiam start their networks."""
    model = resnet.build(zero_init_residual=True)
    assert all(
        not block.bn3.weight.any()
        for block in [*model.layer1, *model.layer2, *model.layer3, *model.layer4]
    )
    assert all(block.bn3.weight.all() for block in resnet.build().layer1)
    x = torch.rand(2, 256, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.layer1[1](x), x)


def test_dense_features_are_torchvisions_own_before_pooling() -> None:
    model = torchvision.models.resnet50().eval()
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(x)
        features = resnet.dense_features(model, x)
        assert torch.allclose(model.fc(features.mean(dim=(2, 3))), expected, atol=1e-5)


def test_loading_puts_every_tensor_in() -> None:
    source, model = resnet.resnet50(), resnet.resnet50()
    tensors = resnet.backbone_tensors(source)
    resnet.load_backbone(model, tensors)
    loaded = resnet.backbone_tensors(model)
    assert all(torch.equal(loaded[name], tensors[name]) for name in resnet.shapes())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda t: t.pop("layer4.2.bn3.weight"),
            "264 of 265 backbone tensors match; missing layer4.2.bn3.weight",
        ),
        (
            lambda t: t.update({"layer1.0.conv1.weight": torch.zeros(64, 256, 1, 1)}),
            "conv1.weight (64, 256, 1, 1)",
        ),
        (lambda t: t.update({"extra": torch.zeros(1)}), "unexpected extra"),
    ],
)
def test_a_difference_stops_and_names_itself(spoil: object, message: str) -> None:
    tensors = resnet.backbone_tensors(resnet.resnet50())
    spoil(tensors)  # type: ignore[operator]
    with pytest.raises(CheckpointError, match="265") as caught:
        resnet.load_backbone(resnet.resnet50(), tensors)
    assert message in caught.value.line()


def test_unknown_network_and_grid() -> None:
    with pytest.raises(UsageError, match="did you mean 'resnet50'"):
        resnet.build("resnet5O")
    with pytest.raises(UsageError, match="7, 14 or 28"):
        resnet.build(feature_grid=9)

"""Names, wrappers and paddings of other libraries: each file is read, and gives what its own
library computes.
"""

import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional as nnf

from harl_bench.classify.network import network
from harl_bench.convert.read import read_backbone
from harl_bench.core.errors import CheckpointError
from harl_bench.nn import resnet
from tests.convert.layouts import MOMENTUM, prefixed, small, state
from tests.convert.test_formats import assert_is

WRAPPERS = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")
PAIRS = [("backbone", "backbone_k"), ("f_q", "f_k"), ("net", "net_m"), ("model_q", "model_k")]


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers_inside_names(tmp_path: Path, wrapper: str) -> None:
    torch.save(
        {k.replace(".0.", f".0.{wrapper}.", 1): v for k, v in state().items()}, tmp_path / "a.pth"
    )
    assert_is(read_backbone(tmp_path / "a.pth"), 1.0)


def test_paddle_names_and_empty_extra_state(tmp_path: Path) -> None:
    tensors = {
        k.replace("running_mean", "_mean").replace("running_var", "_variance"): v
        for k, v in state().items()
    }
    torch.save(tensors | {"layer1.0.conv1._extra_state": torch.empty(0)}, tmp_path / "a.pth")
    assert_is(read_backbone(tmp_path / "a.pth"), 1.0)


@pytest.mark.parametrize(("query", "key"), PAIRS)
def test_query_is_taken_of_twins(tmp_path: Path, query: str, key: str) -> None:
    torch.save(prefixed(f"{key}.", first=MOMENTUM) | prefixed(f"{query}."), tmp_path / "a.pth")
    assert_is(read_backbone(tmp_path / "a.pth"), 1.0)
    assert_is(read_backbone(tmp_path / "a.pth", net="momentum"), MOMENTUM)


def test_words_are_whole(tmp_path: Path) -> None:
    torch.save(prefixed("semantic_encoder."), tmp_path / "a.pth")
    assert read_backbone(tmp_path / "a.pth").ref.net == "online"


def test_prefix_ends_ambiguity(tmp_path: Path) -> None:
    path = tmp_path / "two.pth"
    torch.save({"left": prefixed(""), "right": prefixed("", first=2.0)}, path)
    with pytest.raises(CheckpointError, match='--prefix "left" or "right"'):
        read_backbone(path)
    assert_is(read_backbone(path, prefix="right"), 2.0)
    with pytest.raises(CheckpointError, match="no ResNet-50 under 'middle'"):
        read_backbone(path, prefix="middle")


def same(x: torch.Tensor, kernel: int, stride: int, value: float = 0.0) -> torch.Tensor:
    """TensorFlow's SAME by its definition, an array filled by hand: the odd pixel stands behind."""
    sizes = [max((math.ceil(n / stride) - 1) * stride + kernel, n) for n in x.shape[2:]]
    padded = torch.full((*x.shape[:2], *sizes), value)
    top, left = ((size - n) // 2 for size, n in zip(sizes, x.shape[2:], strict=True))
    padded[:, :, top : top + x.shape[2], left : left + x.shape[3]] = x
    return padded


def oracle(w: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return nnf.batch_norm(
            x,
            w[f"{name}.running_mean"],
            w[f"{name}.running_var"],
            w[f"{name}.weight"],
            w[f"{name}.bias"],
        )

    x = norm(nnf.conv2d(same(x, 7, 2), w["conv1.weight"], stride=2), "bn1").relu()
    x = nnf.max_pool2d(same(x, 3, 2, -math.inf), 3, 2)
    for layer, blocks in enumerate((3, 4, 6, 3), 1):
        for block in range(blocks):
            at, stride = f"layer{layer}.{block}", 2 if block == 0 and layer > 1 else 1
            h = norm(nnf.conv2d(x, w[f"{at}.conv1.weight"]), f"{at}.bn1").relu()
            h = norm(
                nnf.conv2d(same(h, 3, stride), w[f"{at}.conv2.weight"], stride=stride), f"{at}.bn2"
            ).relu()
            h = norm(nnf.conv2d(h, w[f"{at}.conv3.weight"]), f"{at}.bn3")
            if block == 0:
                x = norm(
                    nnf.conv2d(x, w[f"{at}.downsample.0.weight"], stride=stride),
                    f"{at}.downsample.1",
                )
            x = (h + x).relu()
    return x.mean(dim=(2, 3))


def test_same_padding_is_tensorflows(tmp_path: Path) -> None:
    path = tmp_path / "byol.pth"
    torch.save(read_backbone("random", seed=1).tensors, path)
    x = torch.randn(1, 3, 64, 97, generator=torch.Generator().manual_seed(0))
    read = read_backbone(path, padding="same")
    with torch.no_grad():
        expected = oracle(read.tensors, x)
        torch.testing.assert_close(
            network(read, torch.device("cpu"))(x), expected, rtol=1e-4, atol=1e-4
        )
        other = network(read_backbone(path), torch.device("cpu"))(x)
    assert (other - expected).norm() / expected.norm() > 0.01


def test_untouched_statistics_become_departures(tmp_path: Path) -> None:
    tensors = {k: v for k, v in state().items() if k in resnet.shapes()}
    path = tmp_path / "lost.pth"
    for name, tensor in tensors.items():
        if name.startswith("layer3") and "running" in name:
            tensors[name] = torch.zeros_like(tensor) if "mean" in name else torch.ones_like(tensor)
    torch.save(tensors, path)
    assert read_backbone(path).departures == [
        "19 of 53 batch norms (layer3 19) have mean 0 and variance 1, as before training"
    ]
    tensors |= {
        k: torch.full_like(v, float("var" in k)) for k, v in tensors.items() if "running" in k
    }
    torch.save(tensors, path)
    assert read_backbone(path).departures == [
        "all 53 batch norms have mean 0 and variance 1, as before training"
    ]
    folded = read_backbone(path, convention="caffe")
    assert (folded.departures, folded.stride_in_1x1) == ([], True)


def test_some_zero_variances_are_accepted(tmp_path: Path) -> None:
    torch.save(
        state() | {"layer2.0.bn1.running_var": torch.tensor([0.0] + [1.0] * 127)},
        tmp_path / "half.pth",
    )
    assert read_backbone(tmp_path / "half.pth").departures == []


@pytest.mark.parametrize("channels", [1, 4, 12])
def test_other_channels_are_named(tmp_path: Path, channels: int) -> None:
    torch.save(state() | {"conv1.weight": torch.ones(64, channels, 7, 7)}, tmp_path / "a.pth")
    with pytest.raises(
        CheckpointError, match=rf"conv1 takes {channels} channels.*save conv1\.weight"
    ):
        read_backbone(tmp_path / "a.pth")


def test_zero3_placeholders_are_named(tmp_path: Path) -> None:
    torch.save({k: torch.empty(0) for k in state()}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"ZeRO-3.*zero_to_fp32"):
        read_backbone(tmp_path / "a.pth")


def test_tensors_of_equal_names_are_counted_each(tmp_path: Path) -> None:
    torch.save({"a": small("w"), "b": small("w"), "c": small("w")}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="3 tensors"):
        read_backbone(tmp_path / "a.pth")

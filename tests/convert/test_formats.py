"""Every row of the table of formats: recognised by keys and shapes, the right network, the right
convention.
"""

from pathlib import Path

import pytest
import torch

from harl_bench.convert.formats import FORMATS
from harl_bench.convert.read import Backbone, read_backbone
from harl_bench.core.errors import CheckpointError
from harl_bench.nn import resnet
from tests.convert.layouts import LAYOUTS, prefixed, small, state


def assert_is(read: Backbone, first: float) -> None:
    """Each of the 265 tensors is one value, and the one that belongs to its name."""
    expected = {
        name: float(value.flatten()[0])
        for name, value in state(first).items()
        if name in resnet.shapes()
    }
    assert {
        name: (float(value.min()), float(value.max())) for name, value in read.tensors.items()
    } == {name: (value, value) for name, value in expected.items()}
    assert {name: tuple(value.shape) for name, value in read.tensors.items()} == resnet.shapes()
    assert all(
        value.dtype == torch.float32 and value.is_contiguous() for value in read.tensors.values()
    )


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_row_is_recognised(tmp_path: Path, name: str) -> None:
    layout, path = LAYOUTS[name], tmp_path / "weights.bin"
    torch.save(layout.make(), path)
    read = read_backbone(path)
    assert_is(read, 1.0)
    assert read.ref.format.startswith(layout.format)
    assert read.method in (
        ("", "harl") if layout.format == "harl-bench" else ("",)
    )  # keys are no method
    assert read.ref.net == layout.net
    assert read.input.pixel_std[0] == pytest.approx(layout.red)
    for net, first in layout.also:
        other = read_backbone(path, net=net)  # type: ignore[arg-type]
        assert_is(other, first)
        assert other.ref.net == net
    absent = {"online", "momentum", "teacher", "student"} - {
        layout.net,
        *(net for net, _ in layout.also),
    }
    with pytest.raises(CheckpointError, match=f"no {min(absent)} network"):
        read_backbone(path, net=min(absent))  # type: ignore[arg-type]


def test_every_format_has_a_layout() -> None:
    """A row without a test is a promise that nobody checked."""
    tested = {layout.format for layout in LAYOUTS.values()}
    named = {form.name.partition(" (barlow")[0].partition(" (simsiam")[0] for form in FORMATS}
    untested = {name for name in named if not any(name.startswith(t) for t in tested)}
    assert untested == {
        "encoder prefix",
        "dino student",
    }  # the first by the next test, the second by --net student


def test_encoder_prefix_alone(tmp_path: Path) -> None:
    path = tmp_path / "some.pth"
    torch.save({"state_dict": prefixed("module.encoder.")}, path)
    read = read_backbone(path)
    assert_is(read, 1.0)
    assert read.ref.format.startswith("encoder prefix")


def test_two_networks_without_names_are_a_question(tmp_path: Path) -> None:
    path = tmp_path / "two.pth"
    torch.save({"left": prefixed(""), "right": prefixed("", first=2.0)}, path)
    with pytest.raises(CheckpointError, match=r"2 online networks.*'' in left.*'' in right"):
        read_backbone(path)


def test_prefixes_are_never_merged(tmp_path: Path) -> None:
    """Half of the tensors under one prefix and half under another are no ResNet-50."""
    whole = prefixed("")
    split = {
        ("encoder_q." if n % 2 else "encoder_k.") + name: v
        for n, (name, v) in enumerate(whole.items())
    }
    path = tmp_path / "split.pth"
    torch.save(split, path)
    with pytest.raises(CheckpointError, match="no ResNet-50 backbone"):
        read_backbone(path)


def test_wrappers_that_tell_two_networks_apart_stay(tmp_path: Path) -> None:
    path = tmp_path / "both.pth"
    torch.save(prefixed("module.") | prefixed("", first=2.0), path)
    with pytest.raises(CheckpointError, match="2 online networks"):
        read_backbone(path)


def test_convention_from_the_user_where_the_file_is_silent(tmp_path: Path) -> None:
    """SimCLR v1 was trained on images in [0, 1]; its file looks like torchvision's."""
    path = tmp_path / "simclr.pth"
    torch.save({"state_dict": state()}, path)
    assert read_backbone(path, convention="unit").input.pixel_std == (255.0, 255.0, 255.0)
    torch.save(
        {
            "state_dict": state(),
            "harl_bench": {
                "input_format": "RGB",
                "pixel_mean": [123.675, 116.28, 103.53],
                "pixel_std": [58.395, 57.12, 57.375],
            },
        },
        path,
    )
    with pytest.raises(CheckpointError, match="states another input convention"):
        read_backbone(path, convention="caffe")


def test_extra_tensors_of_the_network_stop(tmp_path: Path) -> None:
    path = tmp_path / "se.pth"
    torch.save(state() | small("layer1.0.se.fc1.weight"), path)
    with pytest.raises(
        CheckpointError, match=r"more than a ResNet-50.*layer1\.0\.se\.fc1.*channel attention"
    ):
        read_backbone(path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "half.pth"
    made = {
        name: v[(0,) * v.dim()].to(dtype).expand(v.shape) if v.is_floating_point() else v
        for name, v in state().items()
    }
    torch.save(made, path)
    read = read_backbone(path)
    if dtype != torch.bfloat16:  # whose 8 bits hold other values
        assert_is(read, 1.0)
    assert all(torch.equal(read.tensors[name], made[name].float()) for name in resnet.shapes())

"""Checkpoints as people have them, on disk, through the command line."""

import argparse
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from harl_bench.cli import main
from harl_bench.convert.names import to_detectron2
from harl_bench.convert.read import candidates, read_backbone
from harl_bench.core.errors import CheckpointError
from harl_bench.nn import resnet

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    """A ResNet-50 with fc, weights by formula: every tensor differs from every other."""
    shapes = torchvision.models.resnet50().state_dict()
    made: State = {}
    for i, (name, value) in enumerate(shapes.items()):
        if not value.is_floating_point():
            made[name] = torch.tensor(7)
            continue
        ramp = torch.arange(value.numel(), dtype=torch.float32).view(value.shape)
        made[name] = torch.cos(ramp * 0.1 + i) * 0.05 + (1.0 if "running_var" in name else 0.0)
    return made


def backbone(state: State) -> State:
    return {name: value for name, value in state.items() if name in resnet.shapes()}


def prefixed(state: State, prefix: str) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


def halved(state: State) -> State:
    return {name: value * 0.5 if value.is_floating_point() else value for name, value in state.items()}


CHILDREN = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}


def children(state: State, prefix: str) -> State:
    parts = (name.partition(".") for name in backbone(state))
    return {f"{prefix}{CHILDREN[head]}.{rest}": state[f"{head}.{rest}"] for head, _, rest in parts}


# Layouts and their sources: docs/convert.md 3.
LAYOUTS: dict[str, Callable[[State], object]] = {
    "torchvision": lambda s: s,
    "moco": lambda s: {
        "epoch": 200, "arch": "resnet50", "optimizer": {"state": {}},
        "state_dict": prefixed(s, "module.encoder_q.") | prefixed(halved(s), "module.encoder_k.")
        | {"module.queue": torch.zeros(128, 16), "module.queue_ptr": torch.zeros(1)},
    },
    "moco v3": lambda s: {"state_dict": prefixed(s, "module.base_encoder.")
                          | prefixed(halved(s), "module.momentum_encoder.")},
    "simsiam": lambda s: {"state_dict": prefixed(s, "module.encoder.")
                          | {"module.predictor.0.weight": torch.zeros(2, 2)}},
    "swav": lambda s: prefixed(s, "module.") | {"module.projection_head.0.weight": torch.zeros(2, 2)},
    "dino": lambda s: {"student": prefixed(halved(s), "module.backbone."), "teacher": prefixed(s, "backbone.")},
    "solo-learn": lambda s: {"epoch": 99, "state_dict": prefixed(s, "backbone.")
                             | prefixed(halved(s), "momentum_backbone.")},
    "lightly tutorial": lambda s: children(s, "backbone."),
    "sthalles": lambda s: {"online_network_state_dict": children(s, "encoder."),
                           "target_network_state_dict": children(halved(s), "encoder.")},
    "vissl": lambda s: {"classy_state_dict": {"base_model": {"model": {"trunk": prefixed(s, "_feature_blocks.")}}}},
    "compiled ddp": lambda s: {"model": prefixed(s, "_orig_mod.module.")},
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_gives_the_same_265_tensors(tmp_path: Path, state: State, layout: str) -> None:
    path = tmp_path / "weights.pth"
    torch.save(LAYOUTS[layout](state), path)
    read = read_backbone(path)
    assert {name: value.shape for name, value in read.tensors.items()} == {
        n: torch.Size(s) for n, s in resnet.shapes().items()
    }
    assert all(torch.equal(value, state[name]) for name, value in read.tensors.items())


def test_nets_and_conventions(tmp_path: Path, state: State) -> None:
    path = tmp_path / "moco.pth.tar"
    torch.save(LAYOUTS["moco"](state), path)
    momentum = read_backbone(path, net="momentum")
    assert torch.equal(momentum.tensors["conv1.weight"], state["conv1.weight"] * 0.5)
    assert (momentum.ref.format, momentum.ref.net, momentum.epoch) == ("moco v1/v2", "momentum", 200)
    with pytest.raises(CheckpointError, match="no teacher network"):
        read_backbone(path, net="teacher")
    torch.save(LAYOUTS["swav"](state), path)
    assert read_backbone(path).input.pixel_std[0] == pytest.approx(0.228 * 255)
    torch.save(LAYOUTS["dino"](state), path)
    assert read_backbone(path).ref.net == "teacher"


@pytest.mark.parametrize("out", ["new.pkl", "new.pth", "new.safetensors"])
def test_command_writes_reads_back_and_proves(
    tmp_path: Path, state: State, out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "moco.pth.tar", tmp_path / "sub" / out
    payload = LAYOUTS["moco"](state)
    assert isinstance(payload, dict)
    torch.save(payload | {"args": argparse.Namespace(lr=0.03)}, source)
    assert main(["convert", str(source), "--out", str(target)]) == 0
    printed = capsys.readouterr().out
    assert "265 of 265 backbone tensors matched" in printed
    assert "largest difference 0.0" in printed
    assert "argparse.Namespace" in printed
    again = read_backbone(target)
    assert all(torch.equal(again.tensors[name], state[name]) for name in resnet.shapes())
    assert (again.ref.format, again.method) == ("moco v1/v2", "moco v1/v2")
    back = tmp_path / "back.pth"
    assert main(["convert", str(target), "--to", "torchvision", "--out", str(back)]) == 0
    model = torchvision.models.resnet50()
    loaded = torch.load(back, weights_only=True)["state_dict"]
    missing, unexpected = model.load_state_dict(loaded, strict=False)
    assert not unexpected
    assert all(name.startswith("fc.") or name.endswith("num_batches_tracked") for name in missing)


def test_pickle_is_what_detectron2_reads(tmp_path: Path, state: State) -> None:
    """Numpy only, and the three keys its DetectionCheckpointer looks for (docs/convert.md 2)."""
    source, target = tmp_path / "tv.pth", tmp_path / "tv.pkl"
    torch.save(state, source)
    assert main(["convert", str(source), "--out", str(target)]) == 0
    written = pickle.loads(target.read_bytes())
    assert written["__author__"] == "harl-bench"
    assert written["matching_heuristics"] is True
    assert len(written["model"]) == 265
    assert all(type(value) is np.ndarray and value.dtype == np.float32 for value in written["model"].values())
    assert set(written["model"]) == {to_detectron2(name) for name in resnet.shapes()}
    assert written["harl_bench"]["input_format"] == "RGB"


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (lambda: torchvision.models.resnet18().state_dict(), "ResNet-18 or -34"),
        (lambda: torchvision.models.wide_resnet50_2().state_dict(), "a wide ResNet"),
        (lambda: torchvision.models.resnext50_32x4d().state_dict(), "ResNeXt"),
        (lambda: {"conv1.0.weight": torch.zeros(32, 3, 3, 3)}, "deep stem"),
        (lambda: {"cls_token": torch.zeros(1, 1, 8)}, "vision transformer"),
        (lambda: {"epoch": 3}, "no tensors"),
    ],
)  # fmt: skip
def test_refusals_say_why(
    tmp_path: Path, made: Callable[[], object], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other.pth"
    torch.save(made(), path)
    assert main(["convert", str(path), "--out", str(tmp_path / "x.pkl")]) == 4
    error = capsys.readouterr().err
    assert why in error
    assert error.count("\n") == 1
    assert not (tmp_path / "x.pkl").exists()


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda s: s.update({"layer2.0.conv1.weight": s["layer2.0.conv1.weight"] * torch.nan}), "not finite"),
        (lambda s: s.update({"bn1.running_var": torch.zeros(64)}), "not positive"),
        (lambda s: s.pop("layer3.1.bn2.running_mean"), "264 of 265"),
        (lambda s: s.update({"layer1.0.conv1.weight": s["layer1.0.conv1.weight"].view(64, 64)}), "264 of 265"),
    ],
)
def test_spoilt_tensors_stop(tmp_path: Path, state: State, spoil: Callable[[State], object], why: str) -> None:
    spoilt = dict(state)
    spoil(spoilt)
    path = tmp_path / "spoilt.pth"
    torch.save(spoilt, path)
    with pytest.raises(CheckpointError, match=why):
        read_backbone(path)


def test_two_networks_without_names_are_a_question(state: State, tmp_path: Path) -> None:
    path = tmp_path / "two.pth"
    torch.save({"left": dict(state), "right": halved(state)}, path)
    with pytest.raises(CheckpointError, match="2 online networks"):
        read_backbone(path)
    assert [found.matched for found in candidates({"left": dict(state), "right": halved(state)})] == [265, 265]


def test_half_precision_is_cast_up(tmp_path: Path, state: State) -> None:
    path = tmp_path / "half.pth"
    torch.save({name: value.half() if value.is_floating_point() else value for name, value in state.items()}, path)
    read = read_backbone(path)
    assert all(value.dtype == torch.float32 for value in read.tensors.values())


def test_random_depends_on_the_seed_alone() -> None:
    first, again, other = (read_backbone("random", seed=s).tensors["conv1.weight"] for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_output_may_not_replace_the_source(tmp_path: Path, state: State, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tv.pth"
    torch.save(state, path)
    assert main(["convert", str(path), "--out", str(path)]) == 2
    assert "replace the checkpoint itself" in capsys.readouterr().err


def test_inspect_lists_everything_and_writes_nothing(
    tmp_path: Path, state: State, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "moco.pth.tar"
    torch.save(LAYOUTS["moco"](state), path)
    assert main(["convert", str(path), "--inspect"]) == 0
    printed = capsys.readouterr().out
    assert "module.encoder_q.conv1.weight  (64, 3, 7, 7)  float32" in printed
    assert printed.count("265 of 265 tensors match") == 2
    assert list(tmp_path.iterdir()) == [path]

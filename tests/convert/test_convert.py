"""Checkpoints as people have them, on disk, through the command line."""

import argparse
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from harl_bench.cli import main
from harl_bench.convert import proof
from harl_bench.convert.names import to_detectron2
from harl_bench.convert.read import read_backbone
from harl_bench.core.errors import CheckpointError
from harl_bench.core.manifest import sha256
from harl_bench.nn import checkpoint, resnet
from harl_bench.nn.lazytensor import Storage
from tests.convert.layouts import LAYOUTS, MOMENTUM, State, state
from tests.convert.test_formats import assert_is


@pytest.fixture
def moco(tmp_path: Path) -> Path:
    """A MoCo file with two networks and a Python object."""
    path = tmp_path / "moco.pth.tar"
    torch.save(LAYOUTS["moco v1"].make() | {"args": argparse.Namespace(lr=0.03)}, path)
    return path


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """torchvision's own."""
    path = tmp_path / "tv.pth"
    torch.save(state(), path)
    return path


@pytest.mark.parametrize("out", ["new.pkl", "new.pth", "new.safetensors"])
def test_command_writes_reads_back_and_proves(
    tmp_path: Path, moco: Path, out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "sub" / out
    assert main(["convert", str(moco), "--out", str(target)]) == 0
    printed = capsys.readouterr().out
    assert "265 of 265 backbone tensors matched" in printed
    assert "argparse.Namespace" in printed
    for line in (
        "names: 265 of 265 map",
        "values: 265 tensors bit for bit",
        "features: res2, res3, res4, res5",
    ):
        assert line in " ".join(printed.split())
    again = read_backbone(target)
    assert_is(again, 1.0)
    assert (again.ref.format, again.method, again.epoch) == ("moco v1/v2", "", 200)
    about = checkpoint.peek(target).payload["harl_bench"]
    assert about["source_sha256"] == sha256(moco)
    assert len(about["proof"]) == 3
    assert (about["net"], about["input_format"], about["stride_in_1x1"]) == ("online", "RGB", False)
    back = tmp_path / "back.pth"
    assert main(["convert", str(target), "--to", "torchvision", "--out", str(back)]) == 0
    model = torchvision.models.resnet50()
    loaded = torch.load(back, weights_only=True)["state_dict"]
    missing, unexpected = model.load_state_dict(loaded, strict=False)
    assert not unexpected
    assert all(name.startswith("fc.") or name.endswith("num_batches_tracked") for name in missing)


@pytest.mark.parametrize("out", ["new.pkl", "new.safetensors"])
def test_the_same_command_again_leaves_the_file_alone(
    tmp_path: Path, moco: Path, out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another network, or a damaged file, is written."""
    target = tmp_path / out
    command = ["convert", str(moco), "--out", str(target)]
    assert main(command) == 0
    first, content = target.stat().st_ino, target.read_bytes()
    capsys.readouterr()
    assert main(command) == 0
    assert "already converted" in capsys.readouterr().out
    assert target.stat().st_ino == first
    damaged = bytearray(content)
    damaged[len(damaged) // 2] ^= 1
    target.write_bytes(damaged)
    assert main(command) == 0
    assert "already converted" not in capsys.readouterr().out
    assert target.read_bytes() == content
    assert main([*command, "--net", "momentum"]) == 0
    assert target.read_bytes() != content


def test_the_other_network(tmp_path: Path, moco: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "momentum.pkl"
    assert main(["convert", str(moco), "--net", "momentum", "--out", str(target)]) == 0
    assert_is(read_backbone(target), MOMENTUM)
    assert main(["convert", str(moco), "--net", "teacher", "--out", str(target)]) == 4
    assert "next: leave --net out, or give --net momentum or online" in capsys.readouterr().err


def test_pickle_is_what_detectron2_reads(tmp_path: Path, plain: Path) -> None:
    """Numpy only, and the three keys its DetectionCheckpointer looks for (docs/convert.md 2)."""
    target = tmp_path / "tv.pkl"
    assert main(["convert", str(plain), "--out", str(target)]) == 0
    written = pickle.loads(target.read_bytes())
    assert written["__author__"] == "harl-bench"
    assert written["matching_heuristics"] is True
    assert len(written["model"]) == 265
    assert all(
        type(value) is np.ndarray and value.dtype == np.float32
        for value in written["model"].values()
    )
    assert set(written["model"]) == {to_detectron2(name) for name in resnet.shapes()}
    assert written["harl_bench"]["input_format"] == "RGB"


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (
            lambda s: s.update({"layer2.0.conv1.weight": s["layer2.0.conv1.weight"] * torch.nan}),
            "not finite",
        ),
        (lambda s: s.update({"bn1.running_var": torch.full((64,), -1e-9)}), "variance is negative"),
        (
            lambda s: s.update({k: v * 0 for k, v in s.items() if "running_var" in k}),
            "every batch-norm variance is 0",
        ),
        (lambda s: s.pop("layer3.1.bn2.running_mean"), "264 of 265.*; missing layer3.1.bn2.run"),
        (
            lambda s: [s.pop(key) for key in list(s) if key.startswith("layer4.2")],
            "250 of 265.*; missing layer4.2.conv1.weight and 14 more;",
        ),
        (
            lambda s: s.update({"layer1.0.conv1.weight": s["layer1.0.conv1.weight"].view(64, 64)}),
            r"264 of 265.*; layer1.0.conv1.weight is \(64, 64\), not \(64, 64, 1, 1\)",
        ),
    ],
)
def test_spoilt_tensors_stop(tmp_path: Path, spoil: Callable[[State], object], why: str) -> None:
    spoilt = state()
    spoil(spoilt)
    path = tmp_path / "spoilt.pth"
    torch.save(spoilt, path)
    with pytest.raises(CheckpointError, match=why):
        read_backbone(path)


def test_random_depends_on_the_seed_alone() -> None:
    first, again, other = (
        read_backbone("random", seed=s).tensors["conv1.weight"] for s in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_each_file_and_net_has_an_output_of_its_own(
    tmp_path: Path, moco: Path, plain: Path
) -> None:
    """byol_0.99.pth and byol_0.996.pth were both converted to byol_0-detectron2.pkl."""
    for name in ("byol_0.99.pth", "byol_0.996.pth"):
        (tmp_path / name).write_bytes(plain.read_bytes())
        assert main(["convert", str(tmp_path / name)]) == 0
    assert main(["convert", str(moco), "--net", "momentum"]) == 0
    assert main(["convert", str(moco), "--to", "torchvision"]) == 0
    made = {"byol_0.99-detectron2.pkl", "byol_0.996-detectron2.pkl"}
    made |= {"moco-momentum-detectron2.pkl", "moco-torchvision.pth"}
    sources = {"byol_0.99.pth", "byol_0.996.pth", moco.name, plain.name}
    assert {path.name for path in tmp_path.iterdir()} == made | sources


def test_output_may_not_replace_the_source(
    tmp_path: Path, plain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = tmp_path / "link.pth"
    link.symlink_to(plain)
    for out in (plain, link):
        assert main(["convert", str(plain), "--out", str(out)]) == 2
        assert "replace the checkpoint itself" in capsys.readouterr().err


def test_inspect_lists_everything_and_writes_nothing(
    tmp_path: Path, moco: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Storage, "load", lambda self: pytest.fail("a tensor was read"))
    assert main(["convert", str(moco), "--inspect"]) == 0
    printed = capsys.readouterr().out
    assert "module.encoder_q.conv1.weight  (64, 3, 7, 7)  float32" in printed
    assert (
        "candidate: moco v1/v2, momentum, prefix 'encoder_k.' in state_dict: 265 of 265 tensors "
        "match" in printed
    )
    assert printed.count("265 of 265 tensors match") == 2
    assert "not rebuilt: argparse.Namespace" in printed
    assert list(tmp_path.iterdir()) == [moco]


def test_dry_run_writes_nothing(
    tmp_path: Path, plain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", str(plain), "--dry-run"]) == 0
    assert "would write" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [plain]


@pytest.mark.parametrize(
    ("out", "to"), [("a.onnx", "detectron2"), ("a.pkl", "torchvision"), ("a", "detectron2")]
)
def test_other_endings_are_refused_before_anything_is_read(
    tmp_path: Path, out: str, to: str
) -> None:
    assert (
        main(["convert", str(tmp_path / "none.pth"), "--out", str(tmp_path / out), "--to", to]) == 2
    )


def test_a_failed_proof_leaves_no_file(
    tmp_path: Path, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written is another tensor: the proof must see it, and nothing may stay."""
    import pickle as module

    dump = module.dump

    def spoilt(payload: dict[str, Any], file: Any, protocol: int) -> None:
        payload["model"]["res3.0.conv2.weight"] = payload["model"]["res3.0.conv2.weight"] + 1e-6
        dump(payload, file, protocol=protocol)

    monkeypatch.setattr("harl_bench.convert.write.pickle.dump", spoilt)
    assert main(["convert", str(plain), "--out", str(tmp_path / "x.pkl")]) == 4
    assert list(tmp_path.iterdir()) == [plain]


def test_swapped_names_fail_the_proof(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A map that is not one to one."""
    monkeypatch.setattr(
        proof, "to_detectron2", lambda name: to_detectron2(name.replace("layer1.1", "layer1.2"))
    )
    with pytest.raises(CheckpointError, match="not one to one"):
        proof.of(read_backbone(plain).tensors)


def test_caffe2_is_passed_on_only_when_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The blobs of Detectron's R-50.pkl (names: detectron2/checkpoint/c2_model_loading.py)."""
    blobs = {
        "conv1_w": np.zeros((64, 3, 7, 7), np.float32),
        "res_conv1_bn_s": np.ones(64, np.float32),
        "res_conv1_bn_b": np.ones(64, np.float32),
    }
    for stage, count in zip((2, 3, 4, 5), (3, 4, 6, 3), strict=True):
        for block in range(count):
            for branch in ("2a", "2b", "2c", *(("1",) if block == 0 else ())):
                name = f"res{stage}_{block}_branch{branch}"
                blobs |= {
                    f"{name}_w": np.zeros((4, 4, 1, 1), np.float32),
                    f"{name}_bn_s": np.ones(4, np.float32),
                    f"{name}_bn_b": np.ones(4, np.float32),
                }
    source, out = tmp_path / "R-50.pkl", tmp_path / "same.pkl"
    source.write_bytes(pickle.dumps({"blobs": blobs}, protocol=2))
    assert main(["convert", str(source), "--out", str(out)]) == 4
    assert "a Caffe2/MSRA file: BGR input" in capsys.readouterr().err
    assert not out.exists()
    assert main(["convert", str(source), "--out", str(out), "--allow-caffe2"]) == 0
    assert out.read_bytes() == source.read_bytes()
    blobs.pop("res5_2_branch2c_w")
    source.write_bytes(pickle.dumps({"blobs": blobs}, protocol=2))
    assert main(["convert", str(source), "--out", str(out), "--allow-caffe2"]) == 4


@pytest.mark.detectron2
def test_detectron2_reads_the_file_and_agrees(tmp_path: Path) -> None:
    """Its own checkpointer places 265 of 265, and its network gives torchvision's features, bit for
    bit.
    """
    pytest.importorskip("detectron2")
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.modeling.backbone.resnet import BasicStem, ResNet

    tensors = read_backbone("random", seed=3).tensors
    source = tmp_path / "random.pth"
    torch.save(tensors, source)
    for name in ("a.pkl", "a.pth"):
        assert main(["convert", str(source), "--out", str(tmp_path / name)]) == 0
        network = ResNet(
            BasicStem(norm="BN"), ResNet.make_default_stages(50, norm="BN", stride_in_1x1=False)
        )
        DetectionCheckpointer(network, save_dir=str(tmp_path)).load(str(tmp_path / name))
        placed = network.state_dict()
        assert all(
            torch.equal(placed[to_detectron2(name)], value) for name, value in tensors.items()
        )
        assert (
            "and Detectron2's" in checkpoint.peek(tmp_path / name).payload["harl_bench"]["proof"][2]
        )

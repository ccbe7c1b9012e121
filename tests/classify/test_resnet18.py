"""ResNet-18: what `pretrain backbone=resnet18` writes, files of others, and random weights by
name.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from harl_bench.classify import datasets, features
from harl_bench.classify.network import network
from harl_bench.classify.pixels import Transform
from harl_bench.classify.run import ARCHS
from harl_bench.cli import main
from harl_bench.convert.read import read_backbone
from harl_bench.core.errors import CheckpointError
from harl_bench.core.results import read_result
from harl_bench.core.runs import open_run, run_id
from harl_bench.nn import resnet
from tests.classify.command import CPU, SIZE, classify, result

STATED = "the network is a ResNet-18"


@pytest.fixture
def pretrained(data: Path, tmp_path: Path) -> Path:
    """The last.pth of one step of SimCLR."""
    out = tmp_path / "simclr"
    command = [
        "pretrain",
        "epochs=1",
        "batch_size=15",
        "feature_grid=14",
        "--recipe",
        "simclr-toy",
        "--data",
        str(data / "train"),
        "--out",
        str(out),
        "--workers",
        "0",
        "--device",
        "cpu",
    ]
    assert main(command) == 0
    return out / "last.pth"


@pytest.mark.parametrize(
    ("protocol", "more"),
    [
        ("linear", ["count=2"]),
        ("knn", ["neighbours=[3]", "headline=3"]),
        ("finetune", ["lr=[0.1]", "decay=[0.0]", "steps=2", "batch_size=4"]),
        ("linear-sgd", ["lr=[0.1]", "epochs=1", "batch_size=4"]),
    ],
)
def test_a_network_of_our_own_is_measured(
    pretrained: Path, data: Path, tmp_path: Path, protocol: str, more: list[str]
) -> None:
    assert (
        classify(data, tmp_path / "runs", *more, "--protocol", protocol, checkpoint=pretrained) == 0
    )
    written = result(tmp_path / "runs")
    assert written.method == "simclr"
    assert written.n_test == 9
    assert STATED in written.departures
    assert "the network keeps its pretraining's strides, feature_grid 14" in written.departures
    if protocol in ("linear", "knn"):
        assert np.load(next((tmp_path / "runs").rglob("features.npy"))).shape == (24, 512)


def test_the_trained_backbone_is_the_one_that_is_read(pretrained: Path) -> None:
    state = torch.load(pretrained, weights_only=False)
    read = read_backbone(pretrained, archs=ARCHS)
    assert read.arch == "resnet18"
    assert read.feature_grid == 14
    assert read.tensors.keys() == resnet.shapes("resnet18").keys()
    assert all(
        torch.equal(read.tensors[name], state["method"][f"backbone.{name}"])
        for name in read.tensors
    )


def test_features_of_a_foreign_file_are_torchvisions(tmp_path: Path, data: Path) -> None:
    model = torchvision.models.resnet18()
    torch.save(
        {"state_dict": {f"module.{name}": value for name, value in model.state_dict().items()}},
        tmp_path / "a.pth",
    )
    read = read_backbone(tmp_path / "a.pth", archs=ARCHS)
    model.fc = torch.nn.Identity()
    x = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(read, CPU)(x), model.eval()(x), rtol=1e-3, atol=1e-4)
    transform = Transform(SIZE, SIZE, "RGB", read.input.pixel_mean, read.input.pixel_std)
    folder = features.extract(
        datasets.folder(data), read, tmp_path, transform=transform, device=CPU
    )
    assert np.load(folder / "features.npy").shape == (24, 512)


@pytest.mark.parametrize(
    ("build", "archs", "text"),
    [
        (
            torchvision.models.resnet18,
            ("resnet50",),
            r"no ResNet-50 backbone.*basic blocks \(ResNet-18 or -34\)",
        ),
        (torchvision.models.resnet34, ARCHS, r"more than a ResNet-18 backbone.*layer1\.2"),
        (
            torchvision.models.resnet101,
            ARCHS,
            "more than a ResNet-50 backbone.*deeper than ResNet-50",
        ),
    ],
)
def test_other_networks_are_refused(
    build, archs: tuple[str, ...], text: str, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    torch.save(build().state_dict(), tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=text):
        read_backbone(tmp_path / "other.pth", archs=archs)


@pytest.mark.parametrize(
    "command", [("voc", "--recipe", "voc-c4-toy"), ("coco", "--recipe", "coco-fpn-toy")]
)
def test_detection_refuses_it_in_one_line(
    command: tuple[str, ...], pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *options = command
    for checkpoint, text in (
        (str(pretrained), "basic blocks (ResNet-18 or -34)"),
        ("random-resnet18", "only classify measures"),
    ):
        with pytest.raises(CheckpointError) as error:
            read_backbone(checkpoint)
        assert text in str(error.value)
    code = main(
        [
            name,
            "random-resnet18",
            *options,
            "--data",
            str(tmp_path),
            "--out",
            str(tmp_path / "runs"),
            "--gpus",
            "0",
        ]
    )
    assert code in (3, 4)
    assert "Traceback" not in capsys.readouterr().err


def test_random_weights_by_name_are_runs_of_their_own(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, names = tmp_path / "runs", ("random", "random-resnet18", "random-resnet18-grid14")
    for name in names:
        assert classify(data, out, "count=2", checkpoint=name) == 0
    found = {
        read.checkpoint.name: read for read in map(read_result, sorted(out.rglob("result.json")))
    }
    assert found.keys() == set(names)
    assert len({read.run_id for read in found.values()}) == 3
    assert all(
        read.method == "random" and read.checkpoint.format == "random" for read in found.values()
    )
    assert [STATED in found[name].departures for name in names] == [False, True, True]
    capsys.readouterr()
    assert classify(data, out, "count=2", checkpoint=names[2]) == 0
    assert "already finished" in capsys.readouterr().out


def test_the_draw_is_torchvisions_whatever_the_strides() -> None:
    one, other = (
        read_backbone(name, seed=3, archs=ARCHS)
        for name in ("random-resnet18", "random-resnet18-grid28")
    )
    torch.manual_seed(3)
    expected = torchvision.models.resnet18().conv1.weight
    assert torch.equal(one.tensors["conv1.weight"], expected)
    assert torch.equal(other.tensors["conv1.weight"], expected)
    assert (one.feature_grid, other.feature_grid) == (7, 28)
    assert network(other, CPU).layer4[0].conv1.stride == (1, 1)


def test_the_ids_of_a_random_resnet50_stay(tmp_path: Path) -> None:
    about = {
        "task": "classify",
        "dataset": "d",
        "protocol": "linear",
        "seed": 1,
        "config": {"a": 1},
        "data_fingerprint": "f",
    }
    opened = open_run(tmp_path, checkpoint=read_backbone("random").ref, **about)  # type: ignore[arg-type]
    assert opened.run_id == run_id(checkpoint_sha256="", **about)  # type: ignore[arg-type]

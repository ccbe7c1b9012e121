"""What a checkpoint states about itself reaches every command, the converted file and the row; what
it does not state, nobody makes up.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from harl_bench.cli import main
from harl_bench.convert import statements
from harl_bench.convert.read import read_backbone
from harl_bench.core.runs import open_run
from harl_bench.doctor import checkpoints
from harl_bench.nn import checkpoint
from tests.convert.layouts import MOMENTUM, prefixed, state

UNFINISHED = "pretraining unfinished: step 33 of 60"


def own(path: Path, *, step: int = 33, steps: int = 60, **about: Any) -> Path:
    """A last.pth as `pretrain` writes it."""
    entry = {"format": "harl-bench", "net": "online", "method": "byol", "feature_grid": 14, **about}
    checkpoint.save(path, backbone=state(), method={}, step=step, steps=steps, harl_bench=entry)
    return path


@pytest.mark.parametrize("out", ["half.pkl", "half.pth", "half.safetensors"])
def test_an_unfinished_pretraining_is_stated_and_travels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], out: str
) -> None:
    source = own(tmp_path / "last.pth", toy=True)
    assert main(["convert", str(source), "--out", str(tmp_path / out)]) == 0
    assert f"warning: last.pth: {UNFINISHED}" in " ".join(capsys.readouterr().out.split())
    for path in (source, tmp_path / out):
        read = read_backbone(path)
        assert read.departures == [UNFINISHED, statements.TOY]
        assert (read.method, read.toy, read.feature_grid) == ("byol", True, 14)
        (finding,) = checkpoints.findings([path])
        assert (finding.level, UNFINISHED in finding.seen) == ("warn", True)


@pytest.mark.parametrize(
    "payload",
    [
        {"format": checkpoint.FORMAT, "step": 60, "steps": 60},  # finished
        {"format": checkpoint.FORMAT, "step": 60},  # states no end
        {"format": checkpoint.FORMAT, "step": "1", "steps": [2]},
        {"step": 33, "steps": 60},  # another's file may mean anything
        [],
    ],
)
def test_nothing_is_made_up(payload: Any) -> None:
    assert statements.departures(payload, {}) == []
    assert statements.departures(payload, {"departures": "text", "toy": 1}) == []


PREDICTOR = {"predictor.0.weight": torch.ones(2, 2)}
LIKE_OTHERS = {
    "solo-learn BYOL": prefixed("encoder.")
    | prefixed("momentum_encoder.", first=MOMENTUM)
    | PREDICTOR,
    "byol-convert": prefixed("encoder_q.") | prefixed("encoder_k.", first=MOMENTUM) | PREDICTOR,
    "SoCo": prefixed("encoder.") | prefixed("encoder_k.", first=MOMENTUM),
}


@pytest.mark.parametrize("name", LIKE_OTHERS)
def test_keys_are_no_method(tmp_path: Path, name: str) -> None:
    torch.save(
        {
            "state_dict": LIKE_OTHERS[name],
            "hyper_parameters": {"method": "byol"} if "solo" in name else {},
        },
        tmp_path / "theirs.ckpt",
    )
    read = read_backbone(tmp_path / "theirs.ckpt")
    assert (read.method, read.ref.name) == ("byol" if "solo" in name else "", "theirs")


@pytest.mark.parametrize(
    "settings", [{}, {"method": 3}, {"method": "x" * 999}, {"method": ""}, [], None]
)
def test_what_is_no_text_states_no_method(settings: Any) -> None:
    assert statements.method({"hyper_parameters": settings, "format": "simsiam"}, {}) == ""


def test_a_converted_file_of_an_earlier_version_has_the_format_for_a_method() -> None:
    assert statements.method({}, {"format": "simsiam", "method": "simsiam"}) == ""
    assert statements.method({}, {"format": "harl-bench", "method": "simsiam"}) == "simsiam"


def test_the_converted_file_holds_no_method_where_none_is_stated(tmp_path: Path) -> None:
    torch.save({"state_dict": LIKE_OTHERS["SoCo"]}, tmp_path / "theirs.ckpt")
    assert (
        main(["convert", str(tmp_path / "theirs.ckpt"), "--out", str(tmp_path / "new.safetensors")])
        == 0
    )
    about = checkpoint.peek(tmp_path / "new.safetensors").payload["harl_bench"]
    assert "method" not in about
    assert read_backbone(tmp_path / "new.safetensors").method == ""


def test_another_network_of_a_file_is_another_run(tmp_path: Path) -> None:
    path = tmp_path / "twins.pth"
    torch.save(prefixed("encoder_q.") | prefixed("encoder_k.", first=MOMENTUM), path)
    usual, named, other = (read_backbone(path, net=net).ref for net in (None, "online", "momentum"))
    assert named == usual
    assert (usual.name, other.name) == ("twins", "twins-momentum")
    identity = {"task": "classify", "dataset": "dtd", "protocol": "linear", "seed": 0, "config": {}}
    runs = [
        open_run(tmp_path, **identity, checkpoint=ref, data_fingerprint="", dry_run=True)
        for ref in (usual, other)
    ]
    assert runs[0].run_id != runs[1].run_id
    assert runs[0].folder != runs[1].folder

"""Reading foreign files: nothing in them is executed, and each kind of non-checkpoint is named."""

import argparse
import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from harl_bench.core.errors import CheckpointError
from harl_bench.nn import checkpoint


class Hostile:
    """Runs a command when unpickled by the plain pickle module."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("container", ["torch", "pickle", "legacy"])
def test_a_pickled_command_is_not_run(tmp_path: Path, container: str) -> None:
    canary, path = tmp_path / "ran", tmp_path / "bad.pth"
    payload = {"state_dict": {"w": torch.ones(2)}, "bad": Hostile(f"touch {canary}")}
    if container == "torch":
        torch.save(payload, path)
    elif container == "legacy":
        torch.save(payload, path, _use_new_zipfile_serialization=False)
    else:
        path.write_bytes(pickle.dumps({"w": np.ones(2), "bad": payload["bad"]}))
    with pytest.raises(CheckpointError, match=r"would run code when opened.*system"):
        checkpoint.read(path)
    assert not canary.exists()


def test_plain_objects_beside_tensors_are_stubbed_and_named(tmp_path: Path) -> None:
    path = tmp_path / "moco.pth.tar"
    torch.save(
        {
            "state_dict": {"w": torch.arange(3.0)},
            "args": argparse.Namespace(lr=0.03),
            "n": np.float64(2),
        },
        path,
    )
    payload, stubs = checkpoint.read(path)
    assert torch.equal(payload["state_dict"]["w"], torch.arange(3.0))
    assert stubs == ["argparse.Namespace"]
    assert payload["n"] == 2


def test_detectron2_pickle_of_numpy_arrays(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(
        pickle.dumps({"model": {"w": np.arange(4, dtype=np.float32)}, "__author__": "x"})
    )
    payload, stubs = checkpoint.read(path)
    assert payload["model"]["w"].tolist() == [0, 1, 2, 3]
    assert stubs == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "checkpoint is empty"),
        (b"<!DOCTYPE html><html>Not found</html>", "a web page"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 102506571\n",
            "stand for 102,506,571",
        ),
        (b"PK\x03\x04 but nothing more", "cut short"),
        (b"\x80\x04}", "cut short"),
        (bytes(range(7, 71)), "no checkpoint of a kind"),
    ],
)
def test_what_is_not_a_checkpoint_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        checkpoint.read(path)
    assert "\n" not in caught.value.line()


def test_a_truncated_download(tmp_path: Path) -> None:
    whole = io.BytesIO()
    torch.save({"w": torch.zeros(1000)}, whole)
    path = tmp_path / "half.pth"
    path.write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    with pytest.raises(CheckpointError, match="cut short"):
        checkpoint.read(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not found"):
        checkpoint.read(tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match="a folder; next: give the file with the weights"):
        checkpoint.read(tmp_path)
    (tmp_path / "last.pth").touch()  # of a run of pretrain
    with pytest.raises(CheckpointError, match=r"a folder; next: give .*/last.pth$"):
        checkpoint.read(tmp_path)


def test_own_file_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "last.pth"
    checkpoint.save(path, backbone={"w": torch.ones(1)}, step=3)
    assert checkpoint.load_own(path)["step"] == 3
    torch.save({"step": 3}, path)
    with pytest.raises(CheckpointError, match="not a harl-bench checkpoint"):
        checkpoint.load_own(path)

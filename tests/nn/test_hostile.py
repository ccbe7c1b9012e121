"""Crafted checkpoints: nothing of them runs, nothing is imported, no attribute is set."""

import builtins
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harl_bench.nn import checkpoint
from harl_bench.nn.rebuilding import REBUILD
from tests.nn.pickles import Call, op, refused


@pytest.mark.parametrize("container", ["torch", "legacy", "pickle"])
@pytest.mark.parametrize(
    "attack",
    [
        lambda canary: Call(os.system, f"touch {canary}"),
        lambda canary: Call(builtins.eval, f"open({str(canary)!r}, 'w')"),
        lambda canary: Call(builtins.exec, f"open({str(canary)!r}, 'w')"),
        lambda canary: Call(subprocess.Popen, ["touch", str(canary)]),
        lambda canary: Call(builtins.open, str(canary), "w"),
        lambda canary: Call(os.open, str(canary), os.O_CREAT),
        lambda canary: Call(getattr, Call(builtins.__import__, "os"), "system"),
        lambda canary: {"nested": [({"deeper": Call(os.system, f"touch {canary}")},)]},
    ],
)
def test_calls_are_refused_and_not_made(
    tmp_path: Path, container: str, attack: Callable[[Path], Any]
) -> None:
    canary, path = tmp_path / "ran", tmp_path / "bad.pth"
    payload = {"state_dict": {"w": torch.ones(2)}, "bad": attack(canary)}
    if container == "pickle":
        path.write_bytes(pickle.dumps({"w": np.ones(2), "bad": payload["bad"]}))
    else:
        torch.save(payload, path, _use_new_zipfile_serialization=container == "torch")
    assert "would run code when opened" in refused(path)
    assert not canary.exists()


@pytest.mark.parametrize("old", ["INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "dotted", "extension"])
def test_old_and_odd_ways_to_call(tmp_path: Path, old: str) -> None:
    canary, path = tmp_path / "ran", tmp_path / "bad.pkl"
    command = op("UNICODE", f"touch {canary}\n".encode())
    path.write_bytes(
        {
            "INST": op("MARK") + command + op("INST", b"os\nsystem\n") + op("STOP"),
            "OBJ": op("MARK") + op("GLOBAL", b"posix\nsystem\n") + command + op("OBJ") + op("STOP"),
            "NEWOBJ": op("GLOBAL", b"posix\nsystem\n")
            + command
            + op("TUPLE1")
            + op("NEWOBJ")
            + op("STOP"),
            "NEWOBJ_EX": op("GLOBAL", b"posix\nsystem\n")
            + command
            + op("TUPLE1")
            + op("EMPTY_DICT")
            + op("NEWOBJ_EX")
            + op("STOP"),
            "dotted": op("PROTO", b"\x04")
            + op("SHORT_BINUNICODE", b"\x09posixpath")
            + op("SHORT_BINUNICODE", b"\x09os.system")
            + op("STACK_GLOBAL")
            + command
            + op("TUPLE1")
            + op("REDUCE")
            + op("STOP"),
            "extension": op("PROTO", b"\x02")
            + op("EXT1", b"\x01")
            + command
            + op("TUPLE1")
            + op("REDUCE")
            + op("STOP"),
        }[old]
    )
    if old not in ("dotted", "extension"):
        assert "would run code" in refused(path)
    else:
        payload, stubs = checkpoint.read(path)
        assert repr(payload) == "<not rebuilt>"
        assert stubs
    assert not canary.exists()


def test_build_sets_no_attribute(tmp_path: Path) -> None:
    """BUILD on an admitted function, class, dtype or tensor must leave it as it is."""
    path = tmp_path / "bad.pkl"
    state = op("EMPTY_DICT") + op("UNICODE", b"planted\n") + op("INT", b"1\n") + op("SETITEM")
    before = {name: dir(function) for name, function in REBUILD.items()}
    for target in (
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        "torch float32",
        "numpy dtype",
        "torch FloatStorage",
        "numpy ndarray",
        "builtins dict",
    ):
        module, name = target.split()
        path.write_bytes(
            op("GLOBAL", f"{module}\n{name}\n".encode()) + state + op("BUILD") + op("STOP")
        )
        checkpoint.read(path)
    assert {name: dir(function) for name, function in REBUILD.items()} == before
    assert not any(
        hasattr(thing, "planted") for thing in (torch.float32, np.dtype, np.ndarray, dict, torch)
    )


def test_nothing_is_imported(tmp_path: Path) -> None:
    """A module whose import would do something is not imported, whatever the opcode."""
    (tmp_path / "trap_module.py").write_text("raise SystemExit('imported')\n")
    path = tmp_path / "bad.pkl"
    path.write_bytes(
        op("GLOBAL", b"trap_module\nThing\n") + op("EMPTY_TUPLE") + op("REDUCE") + op("STOP")
    )
    sys.path.insert(0, str(tmp_path))
    try:
        assert checkpoint.read(path)[1] == ["trap_module.Thing"]
    finally:
        sys.path.remove(str(tmp_path))
    assert "trap_module" not in sys.modules


def test_a_name_with_control_characters_is_shown_escaped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from harl_bench.cli import main

    path = tmp_path / "odd.pth"
    torch.save({"\x1b[2J\nerror[fake]: x": torch.zeros(2)}, path)
    assert main(["convert", str(path), "--inspect"]) == 0
    assert "\x1b" not in (shown := capsys.readouterr().out)
    assert "\\x1b[2J\\nerror[fake]" in shown

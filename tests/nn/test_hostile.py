"""Crafted checkpoints: nothing runs, each is refused in one line, in bounded time and memory."""

import builtins
import os
import pickle
import pickletools
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harl_bench.convert.networks import candidates
from harl_bench.core.errors import CheckpointError
from harl_bench.nn import checkpoint
from harl_bench.nn.unpickler import REBUILD

SECONDS = 10  # of CPU time; none of these takes four


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, Any]:
        return self.function, self.arguments


def refused(path: Path) -> str:
    """The one line, and that it came in time."""
    began = time.process_time()
    with pytest.raises(CheckpointError) as caught:
        checkpoint.read(path)
    assert time.process_time() - began < SECONDS
    assert "\n" not in caught.value.line()
    return caught.value.line()


def op(name: str, argument: bytes = b"") -> bytes:
    return next(o.code for o in pickletools.opcodes if o.name == name).encode("latin1") + argument


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


BOMBS = {
    "list in list, doubled 100 times": op("EMPTY_LIST")
    + op("BINPUT", b"\0")
    + b"".join(
        op("EMPTY_LIST")
        + op("MARK")
        + op("BINGET", bytes([n])) * 2
        + op("APPENDS")
        + op("BINPUT", bytes([n + 1]))
        for n in range(100)
    )
    + op("STOP"),
    "dict of dicts, doubled 100 times": op("EMPTY_DICT")
    + op("BINPUT", b"\0")
    + b"".join(
        op("EMPTY_DICT")
        + op("MARK")
        + op("BININT1", b"\1")
        + op("BINGET", bytes([n]))
        + op("BININT1", b"\2")
        + op("BINGET", bytes([n]))
        + op("SETITEMS")
        + op("BINPUT", bytes([n + 1]))
        for n in range(100)
    )
    + op("STOP"),
    "a dict in itself": op("EMPTY_DICT")
    + op("BINPUT", b"\0")
    + op("BININT1", b"\1")
    + op("BINGET", b"\0")
    + op("SETITEM")
    + op("STOP"),
    "a tuple whose hash takes 2 to the 200": op("EMPTY_DICT")
    + op("NONE")
    + (op("DUP") + op("TUPLE2")) * 200
    + op("NONE")
    + op("SETITEM")
    + op("STOP"),
    "a list of half a million times the same long tuple": op("MARK")
    + op("NONE") * 500_000
    + op("TUPLE")
    + op("BINPUT", b"\1")
    + op("POP")
    + op("MARK")
    + op("BINGET", b"\1") * 500_000
    + op("LIST")
    + op("STOP"),
    "memo at 4 billion": op("NONE") + op("LONG_BINPUT", b"\xff\xff\xff\xff") + op("STOP"),
    "lists copied from lists": op("EMPTY_LIST")
    + op("MARK")
    + op("NONE") * 100_000
    + op("APPENDS")
    + op("BINPUT", b"\0")
    + (op("GLOBAL", b"builtins\nlist\n") + op("BINGET", b"\0") + op("TUPLE1") + op("REDUCE")) * 1000
    + op("STOP"),
    "sets copied from a list": op("EMPTY_LIST")
    + op("MARK")
    + b"".join(op("BININT", struct.pack("<i", n)) for n in range(100_000))
    + op("APPENDS")
    + op("BINPUT", b"\0")
    + (op("GLOBAL", b"builtins\nset\n") + op("BINGET", b"\0") + op("TUPLE1") + op("REDUCE")) * 1000
    + op("STOP"),
    "dicts copied from a list": op("EMPTY_LIST")
    + op("MARK")
    + b"".join(
        op("BININT", struct.pack("<i", n)) + op("NONE") + op("TUPLE2") for n in range(100_000)
    )
    + op("APPENDS")
    + op("BINPUT", b"\0")
    + (
        op("GLOBAL", b"collections\nOrderedDict\n")
        + op("BINGET", b"\0")
        + op("TUPLE1")
        + op("REDUCE")
    )
    * 1000
    + op("STOP"),
    "a shape of a million axes": op("MARK")
    + op("BININT1", b"\1") * 500_000
    + op("TUPLE")
    + op("BINPUT", b"\0")
    + (
        op("GLOBAL", b"torch\nSize\n")
        + op("BINGET", b"\0")
        + op("TUPLE1")
        + op("REDUCE")
        + op("POP")
    )
    * 5
    + op("NONE")
    + op("STOP"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_that_are_inert_once_read_lazily(tmp_path: Path, name: str) -> None:
    """They are small as long as nobody walks them; walking visits each container once."""
    path = tmp_path / "bomb.pkl"
    path.write_bytes(b"\x80\x04" + BOMBS[name])
    began = time.process_time()
    payload, _ = checkpoint.read(path)
    assert candidates(payload) == []
    assert time.process_time() - began < SECONDS


def collisions() -> bytes:
    """Keys whose hashes are all 0 in a dict: whole multiples of 2**61 - 1."""
    keys = ((n * (2**61 - 1)).to_bytes(12, "little") for n in range(1, 50_000))
    pairs = b"".join(op("LONG1", b"\x0c" + k) + op("NONE") for k in keys)
    return op("EMPTY_DICT") + op("MARK") + pairs + op("SETITEMS") + op("STOP")


def test_colliding_keys_cost_no_square(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pkl"
    path.write_bytes(collisions())
    began = time.process_time()
    payload, _ = checkpoint.read(path)
    assert len(payload) == 49_999
    assert time.process_time() - began < SECONDS


def encoded(size: int) -> bytes:
    """Bytes as protocol 2 spells them: Latin-1 text, memoized and encoded anew each time."""
    latin1 = (
        op("BINUNICODE", struct.pack("<I", size) + b"x" * size) + op("BINPUT", b"\0") + op("POP")
    )
    call = (
        op("GLOBAL", b"_codecs\nencode\n")
        + op("BINGET", b"\0")
        + op("UNICODE", b"latin1\n")
        + op("TUPLE2")
        + op("REDUCE")
    )
    return op("MARK") + latin1 + call * 1000 + op("LIST") + op("STOP")


STATE = (  # of a NumPy array of ten million bytes: version, shape, dtype, order, bytes
    op("MARK")
    + op("BININT1", b"\1")
    + op("BININT", struct.pack("<i", 10_000_000))
    + op("TUPLE1")
    + op("GLOBAL", b"numpy\ndtype\n")
    + op("UNICODE", b"u1\n")
    + op("TUPLE1")
    + op("REDUCE")
    + op("NEWFALSE")
    + op("BINUNICODE", struct.pack("<I", 10_000_000) + b"x" * 10_000_000)
    + op("TUPLE")
    + op("BINPUT", b"\0")
)
STORAGE = pickle.loads(pickle.dumps(torch.zeros(250_000).untyped_storage().__reduce__()[1][0]))
REFUSED = {
    "text turned into bytes a thousand times": encoded(10_000_000),
    "a storage of a pickled tensor a thousand times": op("MARK")
    + op("GLOBAL", b"torch.storage\n_load_from_bytes\n")
    + op("BINPUT", b"\0")
    + op("POP")
    + op("BINBYTES", struct.pack("<I", len(STORAGE)) + STORAGE)
    + op("BINPUT", b"\1")
    + op("POP")
    + (op("BINGET", b"\0") + op("BINGET", b"\1") + op("TUPLE1") + op("REDUCE")) * 1000
    + op("LIST")
    + op("STOP"),
    "a thousand arrays of the same text": op("MARK")
    + STATE
    + op("POP")
    + (
        op("GLOBAL", b"numpy.core.multiarray\n_reconstruct\n")
        + op("EMPTY_TUPLE")
        + op("REDUCE")
        + op("BINGET", b"\0")
        + op("BUILD")
    )
    * 1000
    + op("LIST")
    + op("STOP"),
    "an array of a trillion": op("GLOBAL", b"numpy.core.multiarray\n_reconstruct\n")
    + op("EMPTY_TUPLE")
    + op("REDUCE")
    + STATE.replace(
        op("BININT", struct.pack("<i", 10_000_000)),
        op("LONG1", b"\5" + (10**12).to_bytes(5, "little")),
    )
    + op("BUILD")
    + op("STOP"),
    "depth of a million": op("EMPTY_LIST") * 1_000_000 + op("APPEND") * 999_999 + op("STOP"),
    "tuples in tuples, a million deep": op("NONE") + op("TUPLE1") * 1_000_000 + op("STOP"),
    "bytes of 4 GB": op("BINBYTES", b"\xff\xff\xff\xff") + b"x" + op("STOP"),
    "bytes of 2 to the 62": op("BINBYTES8", struct.pack("<Q", 2**62)) + b"x" + op("STOP"),
    "bytearray of 2 to the 40": op("BYTEARRAY8", struct.pack("<Q", 2**40)) + op("STOP"),
    "text of 4 GB": op("BINUNICODE", b"\xff\xff\xff\xff") + b"x" + op("STOP"),
    "a number of 60,000 bytes": op("LONG4", struct.pack("<i", 60_000))
    + b"\1" * 60_000
    + op("STOP"),
    "a decimal of 50,000 digits": op("LONG", b"1" * 50_000 + b"L\n") + op("STOP"),
    "a line without end": op("UNICODE", b"x" * 200_000) + op("STOP"),
    "calls with a million arguments": op("MARK")
    + op("NONE") * 500_000
    + op("TUPLE")
    + op("BINPUT", b"\0")
    + (op("GLOBAL", b"torch\ndevice\n") + op("BINGET", b"\0") + op("REDUCE") + op("POP")) * 10_000
    + op("STOP"),
    "an empty stack": op("POP") * 3 + op("STOP"),
    "a mark that is missing": op("NONE") + op("APPENDS") + op("STOP"),
    "a memo that is missing": op("BINGET", b"\7") + op("STOP"),
    "a name that is a number": op("BININT1", b"\1") * 2 + op("STACK_GLOBAL") + op("STOP"),
    "no such instruction": b"\x80\x04\xff" + op("STOP"),
    "a buffer from nowhere": b"\x80\x05" + op("NEXT_BUFFER") + op("STOP"),
    "no end": b"\x80\x04" + op("NONE"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bombs_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "bomb.pkl"
    path.write_bytes(REFUSED[name] if REFUSED[name][:1] == b"\x80" else b"\x80\x04" + REFUSED[name])
    line = refused(path)
    assert "cut short" in line or "damaged" in line


def test_a_pickle_may_take_so_many_steps_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harl_bench.nn.lazytensor.READS", 10_000)
    path = tmp_path / "bomb.pkl"
    path.write_bytes(b"\x80\x04" + op("EMPTY_SET") * 9_990 + op("STOP"))
    checkpoint.read(path)
    path.write_bytes(b"\x80\x04" + op("EMPTY_SET") * 10_001 + op("STOP"))
    assert "more than 10,000 steps" in refused(path)


def test_a_name_with_control_characters_is_shown_escaped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from harl_bench.cli import main

    path = tmp_path / "odd.pth"
    torch.save({"\x1b[2J\nerror[fake]: x": torch.zeros(2)}, path)
    assert main(["convert", str(path), "--inspect"]) == 0
    assert "\x1b" not in (shown := capsys.readouterr().out)
    assert "\\x1b[2J\\nerror[fake]" in shown


def test_memory_stays_small(tmp_path: Path) -> None:
    """All of the above in a process that may use 1.5 GB beyond what torch itself takes."""
    folder = tmp_path / "bombs"
    folder.mkdir()
    for n, content in enumerate(
        [*BOMBS.values(), *REFUSED.values(), collisions(), op("EMPTY_SET") * 1_900_000]
    ):
        (folder / f"{n}.pkl").write_bytes(
            content if content[:1] == b"\x80" else b"\x80\x04" + content
        )
    script = (
        "import re, sys, pathlib\n"
        "from harl_bench.nn import checkpoint\n"
        "from harl_bench.core.errors import CheckpointError\n"
        "kib = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
        "before = kib()\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
        "    try: checkpoint.read(path)\n"
        "    except CheckpointError: pass\n"
        "print(kib() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 1_500_000  # kB

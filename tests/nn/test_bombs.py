"""Small files that unpack to large ones: refused in one line, in bounded time and memory."""

import pickle
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from harl_bench.convert.networks import candidates
from harl_bench.nn import checkpoint
from tests.nn.pickles import SECONDS, op, refused

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

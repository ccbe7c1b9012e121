"""Seeded damage to files: bytes, lines and values as disks, editors and enemies spoil them."""

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np

Random = np.random.Generator

# Values that readers tend to believe.
ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1,
    1e-300,
    1e300,
    2**31,
    2**63,
    -(2**70),
    float("nan"),
    float("inf"),
    "",
    " ",
    "0",
    "nan",
    "é\0\n",
    "../../../etc/passwd",
    "/",
    "~",
    "%s",
    "x" * 5000,
    [],
    [[]],
    [None],
    {},
    {"a": {}},
    [0] * 1000,
)


def cut(data: bytes, random: Random) -> bytes:
    """A download or a write that stopped."""
    return data[: int(random.integers(len(data) + 1))]


def flipped(data: bytes, random: Random) -> bytes:
    """One to sixteen bytes changed."""
    out = bytearray(data)
    for _ in range(int(random.integers(1, 17))):
        if out:
            out[int(random.integers(len(out)))] = int(random.integers(256))
    return bytes(out)


def zeroed(data: bytes, random: Random) -> bytes:
    """A block that never reached the disk."""
    a, b = sorted(int(i) for i in random.integers(0, len(data) + 1, 2))
    return data[:a] + bytes(b - a) + data[b:]


def repeated(data: bytes, random: Random) -> bytes:
    """A part twice."""
    a, b = sorted(int(i) for i in random.integers(0, len(data) + 1, 2))
    return data[:b] + data[a:]


def without(data: bytes, random: Random) -> bytes:
    """A part missing."""
    a, b = sorted(int(i) for i in random.integers(0, len(data) + 1, 2))
    return data[:a] + data[b:]


def swapped_words(data: bytes, random: Random) -> bytes:
    """Two words, numbers or tags exchanged, or one replaced by an odd value."""
    words = re.split(rb"(\b)", data)
    i, j = (int(k) for k in random.integers(0, len(words), 2))
    if random.random() < 0.5:
        words[i], words[j] = words[j], words[i]
    else:
        words[i] = str(ODD[int(random.integers(len(ODD)))]).encode("utf-8", "surrogateescape")
    return b"".join(words)


def odd_value(data: bytes, random: Random) -> bytes:
    """One value anywhere in a JSON tree replaced by an odd one, renamed, dropped or doubled."""
    tree = json.loads(data)
    places: list[tuple[Any, Any]] = []
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node))
        places += [(node, key) for key in keys]
        waiting += [node[key] for key in keys if isinstance(node[key], dict | list)]
    node, key = places[int(random.integers(len(places)))]
    kind = int(random.integers(4))
    if kind == 0:
        del node[key]
    elif kind == 1 and isinstance(node, dict):
        node[str(key) + "_"] = node.pop(key)
    elif kind == 2 and isinstance(node, list):
        node.append(node[key])
    else:
        node[key] = ODD[int(random.integers(len(ODD)))]
    return json.dumps(tree).encode()


BYTES: tuple[Callable[[bytes, Random], bytes], ...] = (cut, flipped, zeroed, repeated, without)
TEXT = (*BYTES, swapped_words, swapped_words)
JSON = (*TEXT, odd_value, odd_value, odd_value, odd_value)


def mutated(
    data: bytes, random: Random, ways: tuple[Callable[[bytes, Random], bytes], ...]
) -> bytes:
    """One, seldom two, of the ways."""
    out = ways[int(random.integers(len(ways)))](data, random)
    return BYTES[int(random.integers(len(BYTES)))](out, random) if random.random() < 0.15 else out

"""Mutated checkpoints: each ends in success or in one clear line with exit code 4, in bounded time.

Seeded, in one process. What is mutated are whole small files of every kind that is read; a mutation
flips bytes, cuts, removes or repeats parts, writes extreme numbers, or takes parts of a file of
another kind. Success means that the tensors that come out hold no more than the file could.
"""

import io
import json
import pickle
import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from harl_bench.convert.networks import candidates, tensor_dicts
from harl_bench.convert.read import read_backbone
from harl_bench.core.errors import CheckpointError
from harl_bench.nn import checkpoint
from tests.convert.layouts import LAYOUTS
from tests.nn.test_containers import Tar

QUICK, MANY = 300, 4000
SECONDS = 10  # of CPU time
KINDS = ("zip", "legacy", "tar", "pickle", "pickled tensors", "safetensors", "index", "moco")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """One good file of every kind."""
    folder = tmp_path_factory.mktemp("whole")
    made = {
        "conv1.weight": torch.arange(48.0).reshape(4, 3, 2, 2),
        "bn1.weight": torch.ones(4),
        "n": torch.tensor(3),
    }
    payload = {"epoch": 3, "state_dict": made, "args": {"lr": 0.1, "name": "x"}}

    def saved(value: object, **options: bool) -> bytes:
        out = io.BytesIO()
        torch.save(value, out, **options)
        return out.getvalue()

    Tar({name: value for name, value in made.items() if value.is_floating_point()}).write(
        folder / "tar"
    )
    return {
        "zip": saved(payload),
        "legacy": saved(payload, _use_new_zipfile_serialization=False),
        "tar": (folder / "tar").read_bytes(),
        "pickle": pickle.dumps(
            {"model": {k: v.numpy() for k, v in made.items()}, "scalar": np.float32(2)}
        ),
        "pickled tensors": pickle.dumps(made),
        "safetensors": save(made, metadata={"harl_bench": json.dumps({"epoch": 3})}),
        "index": json.dumps({"weight_map": dict.fromkeys(made, "model-1.safetensors")}).encode(),
        "moco": saved(LAYOUTS["moco v1"].make()),
    }


def flip(data: bytearray, rng: random.Random, _: bytes) -> None:
    for _n in range(rng.choice((1, 1, 2, 8, 64))):
        data[rng.randrange(len(data))] = rng.randrange(256)


def cut(data: bytearray, rng: random.Random, _: bytes) -> None:
    del data[rng.randrange(len(data)) :]


def remove(data: bytearray, rng: random.Random, _: bytes) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.choice((1, 4, 100))]


def repeat(data: bytearray, rng: random.Random, _: bytes) -> None:
    at, size = rng.randrange(len(data)), rng.choice((1, 8, 200))
    data[at:at] = data[at : at + size] * rng.choice((1, 2, 50))


EXTREMES = (
    *(b"\xff" * 4, b"\x00" * 4, b"\xff\xff\xff\x7f"),
    *(b"\xff" * 8, b"\x00" * 8, b"\x7f" + b"\xff" * 7),
)


def extreme(data: bytearray, rng: random.Random, _: bytes) -> None:
    """Where lengths, shapes and offsets may lie: the largest and smallest numbers."""
    at = rng.randrange(len(data))
    value = rng.choice(EXTREMES)
    data[at : at + len(value)] = value


def exchange(data: bytearray, rng: random.Random, other: bytes) -> None:
    at, there, size = rng.randrange(len(data)), rng.randrange(len(other)), rng.choice((8, 64, 512))
    data[at : at + size] = other[there : there + size]


def append(data: bytearray, rng: random.Random, other: bytes) -> None:
    data += other[: rng.randrange(len(other))]


MUTATIONS: tuple[Callable[[bytearray, random.Random, bytes], None], ...] = (
    flip,
    flip,
    cut,
    remove,
    repeat,
    extreme,
    extreme,
    exchange,
    append,
)


def outcome(path: Path, *, network: bool) -> str:
    """ "read" or "refused"; anything else fails."""
    began = time.process_time()
    try:
        if network:
            read = read_backbone(path)
            assert all(bool(value.isfinite().all()) for value in read.tensors.values())
        else:
            payload, _ = checkpoint.read(path)
            candidates(payload)
            total = sum(
                t.untyped_storage().nbytes()
                for _, held in tensor_dicts(payload)
                for t in held.values()
            )
            assert total < 1 << 20, "more than the file could hold"
    except CheckpointError as error:
        line = error.line()
        return "refused" if error.exit_code == 4 and line.isprintable() else line
    finally:
        assert time.process_time() - began < SECONDS
    return "read"


def fuzz(
    folder: Path, whole: dict[str, bytes], kind: str, count: int, first: int
) -> dict[str, int]:
    """Read `count` mutants of one kind. The number of each is its seed: one can be made alone."""
    seen = {"read": 0, "refused": 0}
    path = folder / "mutant"
    for seed in range(first, first + count):
        rng = random.Random(f"{kind} {seed}")
        data = bytearray(whole[kind])
        for _ in range(rng.choice((1, 1, 2, 4))):
            rng.choice(MUTATIONS)(data, rng, whole[rng.choice(KINDS)]) if data else None
        path.write_bytes(data)
        try:
            seen[outcome(path, network=kind == "moco")] += 1
        except Exception as error:
            pytest.fail(f"{kind}, seed {seed}: {type(error).__name__}: {error}")
    return seen


@pytest.mark.parametrize("kind", KINDS)
def test_whole_files_are_read(tmp_path: Path, whole: dict[str, bytes], kind: str) -> None:
    """The mutants start from good files."""
    (tmp_path / "model-1.safetensors").write_bytes(whole["safetensors"])
    (tmp_path / "good").write_bytes(whole[kind])
    if kind != "index":  # whose shard holds an entry of ours beside its tensors
        assert outcome(tmp_path / "good", network=kind == "moco") == "read"


@pytest.mark.parametrize("kind", KINDS)
def test_mutants(tmp_path: Path, whole: dict[str, bytes], kind: str) -> None:
    count = QUICK // len(KINDS) if kind != "moco" else 12
    seen = fuzz(tmp_path, whole, kind, count, 0)
    assert seen["refused"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_mutants(tmp_path: Path, whole: dict[str, bytes], kind: str) -> None:
    seen = fuzz(tmp_path, whole, kind, MANY // len(KINDS) if kind != "moco" else 100, 10_000)
    assert seen["refused"] > 0

"""Reading checkpoint files without ever running code from them, and writing our own.

Our file is a dict of plain values and tensors: `{format, backbone, method, optimizer, step, rng,
config, manifest}`. Every file, ours too, is read by containers.py and unpickler.py beside this,
which import, call and instantiate nothing that a file names (docs/reliability.md, Trust). torch's
own `weights_only` reader is not used: it knows fewer formats, and a storage grows to any size that
a tensor claims.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from harl_bench.core.errors import BenchError, CheckpointError, UsageError
from harl_bench.core.manifest import sha256
from harl_bench.core.results import replacing
from harl_bench.nn.containers import (
    read_legacy,
    read_pickle,
    read_safetensors,
    read_tar,
    read_zip,
    shards,
)
from harl_bench.nn.lazytensor import CutShortError, Reader, load_all

FORMAT = "harl-bench/1"
# the magic number that opens torch's files before 1.6, pickled
LEGACY = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
PICKLES = (
    b"\x80",
    b"(",
    b"c",
    b"]",
    b"}",
)  # protocol 2 and later; dict, list or global in protocols 0 and 1
AGAIN = "download or copy it again"
OTHER = (  # how files begin that are no checkpoints of torch's, and what they are
    (b"\x1f\x8b", "a gzip file; next: gunzip it"),
    (b"BZh", "a bzip2 file; next: unpack it"),
    (b"\xfd7zXZ", "an xz file; next: unpack it"),
    (b"\x28\xb5\x2f\xfd", "a zstd file; next: unpack it"),
    (b"7z\xbc\xaf", "a 7z archive; next: unpack it"),
    (b"\x89HDF", "an HDF5 file (Keras); next: load it there and save PyTorch weights"),
    (b"\x93NUMPY", "one NumPy array, not a checkpoint; next: give the file with the weights"),
    (
        b"model_checkpoint_path:",
        "TensorFlow's note of where its checkpoint lies; next: read that with "
        "tf.train.load_checkpoint and torch.save its arrays under torchvision's names",
    ),
    (b"GGUF", "a GGUF file; next: give the PyTorch weights"),
    (b"\x89PNG", "an image; next: give the file with the weights"),
    (b"\xff\xd8\xff", "an image; next: give the file with the weights"),
)

FOREIGN = (  # the same for files without a magic number, by their first bytes
    (
        re.compile(rb"(?:[\x81-\x8f]|\xde..)[\xa1-\xbf\xd9]", re.DOTALL),
        "flax's msgpack, not a checkpoint of torch's",
        "read it with flax.serialization.msgpack_restore and torch.save its arrays under "
        "torchvision's names",
    ),
    (
        re.compile(rb"\x08[\x03-\x14][\x12\x1a\x22\x3a\x42]"),
        "an ONNX graph, whose batch norms are folded as a rule",
        "give the PyTorch weights that it was exported from",
    ),
    (
        re.compile(rb"\x08\x01\x12"),
        "a TensorFlow SavedModel: a graph, not weights by name",
        "read its variables/variables with tf.train.load_checkpoint and torch.save them under "
        "torchvision's names",
    ),
)
# ends every .index of TensorFlow's (tensorflow/core/lib/io/format.h)
TENSORFLOW = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"


@dataclass(frozen=True)
class Contents:
    """What a file holds, its tensors not yet read.

    Args:
        payload: usually nested dicts of `LazyTensor`.
        stubs: the globals that were not rebuilt.
        files: that were read: the file, or the shards that its index names.
    """

    payload: Any
    stubs: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)

    def sha256(self) -> str:
        """Of the file; of several shards, of their digests in order."""
        digests = [sha256(path) for path in self.files]
        return (
            digests[0]
            if len(digests) == 1
            else hashlib.sha256("\n".join(digests).encode()).hexdigest()
        )


def save(path: Path, **entries: Any) -> None:
    """Write our checkpoint atomically.

    Args:
        path: where to.
        entries: backbone (torchvision names), method, optimizer, step, rng, config, manifest.
    """
    with (
        replacing(path) as temporary,
        open(temporary, "wb") as file,
    ):  # a path would hide a full disk
        torch.save({"format": FORMAT, **entries}, file)


def refuse_another_run(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Compare what a state says about its own run with the run that would resume it.

    Args:
        before: settings the state was saved with; empty in states of earlier versions, which are
            resumed.
        now: the same settings of this run.

    Raises:
        UsageError: they differ.
    """
    seen = difference(before, now) if before else ""
    if seen:
        raise UsageError(
            f"{path.name} is of another run",
            where=path,
            seen=seen,
            next="choose another --out, move the file away, or --fresh to throw it away",
        )


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return up to four settings that changed, in words; JSON has made lists of tuples."""
    before, now = (json.loads(json.dumps(values)) for values in (before, now))
    keys = [key for key in now if before.get(key) != now[key]]
    return ", ".join(f"{key} was {before.get(key)}, now {now[key]}" for key in keys[:4])


def load_own(path: Path) -> dict[str, Any]:
    """Read a checkpoint that `save` wrote.

    Raises:
        CheckpointError: unreadable or not ours.
    """
    payload, _ = read(path)
    if not isinstance(payload, dict) or payload.get("format") != FORMAT:
        raise CheckpointError(
            "not a harl-bench checkpoint", where=path, next="start over with --fresh"
        )
    return payload


def read(path: Path) -> tuple[Any, list[str]]:
    """Read any checkpoint file safely, with all its tensors, on the CPU.

    Returns:
        The payload (usually nested dicts of tensors), and the names of the globals that were
        stubbed.

    Raises:
        CheckpointError: as `peek`, or a damaged tensor.
    """
    contents = peek(path)
    with telling(Path(path)):
        return load_all(contents.payload), contents.stubs


def peek(path: Path) -> Contents:
    """Read what a checkpoint file holds, but no tensor's bytes.

    Raises:
        CheckpointError: missing, empty, cut short, damaged, hostile, a pointer or an error page, or
            no known format.
    """
    path = Path(path)
    if not path.is_file():
        remedy = (
            "give the file with the weights; a folder of data belongs to --data"
            if path.is_dir()
            else "check the path"
        )
        raise CheckpointError("checkpoint not found", where=path, seen=_instead(path), next=remedy)
    with open(path, "rb") as file:
        head = file.read(512)
    _refuse_non_checkpoints(path, head)
    stubs: set[str] = set()
    with telling(path):
        if head.startswith(b"PK\x03\x04") or head.startswith(b"PK\x05\x06"):
            return Contents(read_zip(path, stubs), sorted(stubs), [path])
        if LEGACY in head[:32]:
            with Reader(path) as reader:
                return Contents(read_legacy(reader, stubs), sorted(stubs), [path])
        if head[257:262] == b"ustar":
            return Contents(read_tar(path, stubs), sorted(stubs), [path])
        if head[8:9] == b"{":
            return Contents(read_safetensors(path), [], [path])
        if head.lstrip()[:1] in (b"{", b"["):
            return _sharded(path)
        if head[:1] in PICKLES:
            return Contents(read_pickle(path, stubs), sorted(stubs), [path])
        if path.suffix == ".safetensors" and len(head) < 9:
            raise CutShortError
    raise CheckpointError(
        "no checkpoint of a kind that is known",
        where=path,
        seen=f"it begins with {head[:8]!r}",
        next=(
            "give a file of torch.save, pickle or safetensors; if it is one, download or copy "
            "it again"
        ),
    )


class telling:  # noqa: N801 - reads as the statement it is
    """Turn what goes wrong inside into one line about the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if (
            error is None
            or isinstance(error, BenchError | OSError)
            or not isinstance(error, Exception)
        ):
            return
        size = f"{self.path.stat().st_size:,} bytes"
        if isinstance(error, CutShortError):
            least = "" if error.exactly else "at least "
            count = f"; {least}{error.missing:,} are missing" if error.missing else ""
            raise CheckpointError(
                "the checkpoint is cut short", where=self.path, seen=f"{size}{count}", next=AGAIN
            ) from None
        # whatever else a malformed file provokes
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise CheckpointError(
            "the checkpoint is damaged", where=self.path, seen=f"{size}; {reason}", next=AGAIN
        ) from None


def _sharded(path: Path) -> Contents:
    """A checkpoint in several files, from its index."""
    files, stubs = shards(path), set[str]()
    tensors: dict[str, Any] = {}
    for shard in files:
        try:
            part = peek(shard)
        except CheckpointError as error:
            raise CheckpointError(
                f"a shard of {path.name}: {error.what}",
                where=error.where,
                seen=error.seen,
                next=error.next,
            ) from None
        if not isinstance(part.payload, dict) or tensors.keys() & part.payload.keys():
            raise CheckpointError(
                "a shard repeats what another holds", where=shard, next="give another index"
            )
        tensors.update(part.payload)
        stubs.update(part.stubs)
    return Contents(tensors, sorted(stubs), files)


def _instead(path: Path) -> str | None:
    """What stands where the checkpoint should."""
    if path.is_symlink() and not path.exists():
        return f"a link to {os.readlink(path)}, which does not exist"
    if path.is_dir():
        return "a folder"
    return "no plain file" if path.exists() else None


def _refuse_non_checkpoints(path: Path, head: bytes) -> None:
    size = path.stat().st_size
    again = "download it again"
    if size == 0:
        raise CheckpointError("checkpoint is empty", where=path, seen="0 bytes", next=again)
    if head.startswith(b"version https://git-lfs"):
        pointer = dict(
            line.split(" ", 1)
            for line in head.decode("ascii", "replace").splitlines()
            if " " in line
        )
        seen = (
            f"{size} bytes that stand for {int(pointer.get('size', 0)):,}"
            if pointer.get("size", "").isdigit()
            else None
        )
        raise CheckpointError(
            "a Git-LFS pointer, not the checkpoint itself",
            where=path,
            seen=seen,
            next="git lfs pull",
        )
    if re.match(rb"\s*<[!?a-zA-Z]", head):  # a lone "<" may be the length of a safetensors header
        seen = head.lstrip()[:40].decode("utf-8", "replace")
        raise CheckpointError("a web page saved as a checkpoint", where=path, seen=seen, next=again)
    for begins, what in OTHER:
        if head.startswith(begins):
            name, _, remedy = what.partition("; next: ")
            raise CheckpointError(name, where=path, next=remedy)
    for pattern, what, remedy in FOREIGN:
        if pattern.match(head):
            raise CheckpointError(what, where=path, next=remedy)
    with open(path, "rb") as file:
        file.seek(max(size - len(TENSORFLOW), 0))
        index = file.read() == TENSORFLOW
    if index or re.search(r"\.data-\d{5}-of-\d{5}$", path.name):
        raise CheckpointError(
            "a part of a TensorFlow checkpoint, not one of torch's",
            where=path,
            next=(
                "read it with tf.train.load_checkpoint and torch.save its arrays under "
                "torchvision's names"
            ),
        )

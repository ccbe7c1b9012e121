"""Reading checkpoint files without ever running code from them, and writing our own.

Our file is a dict of plain values and tensors: `{format, backbone, method, optimizer, step, rng,
config, manifest}`. Every file, ours too, is read by containers.py and unpickler.py beside this,
which import, call and instantiate nothing that a file names (docs/reliability.md, Trust). torch's
own `weights_only` reader is not used: it knows fewer formats, and a storage grows to any size that
a tensor claims.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from harl_bench.core.errors import BenchError, CheckpointError, UsageError
from harl_bench.core.files import replacing
from harl_bench.core.manifest import sha256
from harl_bench.nn.containers import (
    read_legacy,
    read_pickle,
    read_safetensors,
    read_tar,
    read_zip,
    shards,
)
from harl_bench.nn.foreign import refuse_foreign
from harl_bench.nn.lazytensor import CutShortError, Reader, load_all

FORMAT = "harl-bench/1"
# the magic number that opens torch's files before 1.6, pickled
LEGACY = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
# protocol 2 and later; dict, list or global in protocols 0 and 1
PICKLES = (b"\x80", b"(", b"c", b"]", b"}")
AGAIN = "download or copy it again"


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
        if len(digests) == 1:
            return digests[0]
        return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def save(path: Path, **entries: Any) -> None:
    """Write our checkpoint atomically.

    Args:
        path: where to.
        entries: backbone (torchvision names), method, optimizer, step, rng, config, manifest.
    """
    # Given a path, torch would hide a full disk.
    with replacing(path) as temporary, open(temporary, "wb") as file:
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
        remedy = "check the path"
        if path.is_dir():
            remedy = "give the file with the weights; a folder of data belongs to --data"
            if (last := path / "last.pth").is_file():  # a run of pretrain
                remedy = f"give {last}"
        raise CheckpointError("checkpoint not found", where=path, seen=_instead(path), next=remedy)
    with open(path, "rb") as file:
        head = file.read(512)
    refuse_foreign(path, head)
    stubs: set[str] = set()
    with telling(path):
        if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
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


@contextlib.contextmanager
def telling(path: Path) -> Iterator[None]:
    """Turn what goes wrong inside into one line about the file.

    Raises:
        CheckpointError: it is cut short or damaged.
    """
    try:
        yield
    except (BenchError, OSError):
        raise
    except CutShortError as error:
        least = "" if error.exactly else "at least "
        count = f"; {least}{error.missing:,} are missing" if error.missing else ""
        raise CheckpointError(
            "the checkpoint is cut short", where=path, seen=f"{_size(path)}{count}", next=AGAIN
        ) from None
    except Exception as error:  # whatever else a malformed file provokes
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise CheckpointError(
            "the checkpoint is damaged", where=path, seen=f"{_size(path)}; {reason}", next=AGAIN
        ) from None


def _size(path: Path) -> str:
    return f"{path.stat().st_size:,} bytes"


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

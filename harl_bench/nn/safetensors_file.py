"""safetensors files, and checkpoints in several files with an index; no tensor's bytes are read.

The library's own reader is not used: it tells neither how much of a cut file is missing, nor a
tensor's place in it.
Source: the format's description in the README of huggingface/safetensors.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch

from harl_bench.core.errors import CheckpointError
from harl_bench.nn.lazy import (
    CutShortError,
    DamagedError,
    Storage,
    Window,
    check_total,
    contiguous_stride,
    view,
)

NAME = 255  # bytes of a file's name, as most file systems have it
HEADER = 16 << 20  # bytes of a safetensors header; 100 thousand tensors need as much
SAFETENSORS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
}


def read_safetensors(path: Path) -> Any:
    """Eight bytes of length, a JSON header, then the tensors; `harl_bench` in its metadata is
    ours.
    """
    total = path.stat().st_size
    with Window(path) as window:
        length = int.from_bytes(window.read(8), "little")
        if length > HEADER:
            raise DamagedError(f"a header of {length:,} bytes")
        if length > window.left():
            raise CutShortError(length - window.left(), exactly=False)
        header = json.loads(window.read(length), object_pairs_hook=_no_duplicates)
    metadata = header.pop("__metadata__", None) or {}
    start, tensors = 8 + length, {}
    for name, entry in header.items():
        dtype, shape, (first, last) = (
            SAFETENSORS[entry["dtype"]],
            tuple(entry["shape"]),
            entry["data_offsets"],
        )
        stored = Storage(path, start + first, last - first, dtype=dtype)
        tensors[name] = view(stored, dtype, 0, shape, contiguous_stride(shape))
        if first < 0 or math.prod(shape) * dtype.itemsize != stored.size:
            raise DamagedError(f"{name} has {stored.size:,} bytes, its shape another count")
    end = max(
        (tensor.storage.start + tensor.storage.size for tensor in tensors.values()), default=start
    )
    if end > total:
        raise CutShortError(end - total)
    check_total([tensor.storage for tensor in tensors.values()], total - start)
    about = metadata.get("harl_bench")
    return {"model": tensors, "harl_bench": json.loads(about)} if about else tensors


def shards(path: Path) -> list[Path]:
    """The files that a sharded checkpoint's index (`*.index.json`) names.

    Raises:
        CheckpointError: no index, or a name outside its folder.
    """
    if path.stat().st_size > HEADER:
        raise DamagedError("a JSON file of this size is no index")
    content = json.loads(path.read_bytes())
    where = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(where, dict) or not where:
        raise CheckpointError(
            "a JSON file, not a checkpoint", where=path, next="give the file with the weights"
        )
    names = sorted(set(map(str, where.values())))
    for name in names:
        if Path(name).name != name or name in ("", ".", "..") or len(name.encode()) > NAME:
            seen = name[:60]
            raise CheckpointError(
                "an index that leaves its folder", where=path, seen=seen, next="give another index"
            )
    return [path.with_name(name) for name in names]


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise DamagedError("a name stands twice in its header")
    return found

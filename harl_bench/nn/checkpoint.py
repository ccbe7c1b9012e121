"""Reading checkpoint files without ever running code from them, and writing our own.

Our file is a dict of plain values and tensors: `{format, backbone, method, optimizer, step, rng, config, manifest}`.
Foreign files are read with torch's `weights_only`; those that hold other Python objects are read again with an
unpickler that rebuilds tensors, containers and NumPy scalars and turns every other global into an inert stub.
"""

import collections
import io
import json
import pickle
import warnings
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from harl_bench.core.errors import BenchError, CheckpointError
from harl_bench.core.results import replacing

FORMAT = "harl-bench/1"


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """How protocol 2 spells bytes; other codecs (zlib, say) are not offered."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in encoding {encoding!r}")
    return text.encode("latin1")


ADMITTED = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): collections.defaultdict,
    ("builtins", "dict"): dict,
    ("builtins", "list"): list,
    ("builtins", "set"): set,
    ("builtins", "tuple"): tuple,
    ("builtins", "int"): int,
    ("builtins", "float"): float,
    ("builtins", "bool"): bool,
    ("builtins", "str"): str,
    ("builtins", "complex"): complex,
    ("_codecs", "encode"): _latin1,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
}
NUMPY_CORE = {  # moved from numpy.core to numpy._core in NumPy 2
    "scalar": np._core.multiarray.scalar,  # type: ignore[attr-defined]
    "_reconstruct": np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
}


def save(path: Path, **entries: Any) -> None:
    """Write our checkpoint atomically.

    Args:
        path: where to.
        entries: backbone (torchvision names), method, optimizer, step, rng, config, manifest.
    """
    with replacing(path) as temporary, open(temporary, "wb") as file:  # a path would hide a full disk
        torch.save({"format": FORMAT, **entries}, file)


def load_own(path: Path) -> dict[str, Any]:
    """Read a checkpoint that `save` wrote.

    Raises:
        CheckpointError: unreadable or not ours.
    """
    payload, _ = read(path)
    if not isinstance(payload, dict) or payload.get("format") != FORMAT:
        raise CheckpointError("not a harl-bench checkpoint", where=path, next="start over with --fresh")
    return payload


def read(path: Path) -> tuple[Any, list[str]]:
    """Read any checkpoint file safely, tensors on the CPU.

    Returns:
        The payload (usually nested dicts of tensors), and the names of the globals that were stubbed.

    Raises:
        CheckpointError: missing, empty, truncated, a pointer or an error page, or no known format.
    """
    path = Path(path)
    if not path.is_file():
        seen = "a folder" if path.is_dir() else None
        raise CheckpointError("checkpoint not found", where=path, seen=seen, next="check the path")
    with open(path, "rb") as file:
        head = file.read(512)
    _refuse_non_checkpoints(path, head)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if path.suffix == ".safetensors" or head[8:9] == b"{":
                return _read_safetensors(path), []
            if not zipfile.is_zipfile(path) and head[:1] == b"\x80" and not _is_legacy_torch(head):
                return _read_pickle(path)
            try:
                return torch.load(path, map_location="cpu", weights_only=True), []
            except pickle.UnpicklingError:
                stubs: set[str] = set()
                payload = torch.load(path, map_location="cpu", weights_only=False, pickle_module=_restricted(stubs))
                return payload, sorted(stubs)
    except BenchError:
        raise
    except Exception as error:  # the readers raise whatever a malformed file provokes in them
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        seen = f"{path.stat().st_size:,} bytes, {reason}"
        raise CheckpointError(
            "cannot read checkpoint; it is truncated or damaged",
            where=path,
            seen=seen,
            next="download or copy it again",
        ) from None


def _refuse_non_checkpoints(path: Path, head: bytes) -> None:
    size = path.stat().st_size
    again = "download it again"
    if size == 0:
        raise CheckpointError("checkpoint is empty", where=path, seen="0 bytes", next=again)
    if head.startswith(b"version https://git-lfs"):
        pointer = dict(line.split(" ", 1) for line in head.decode("ascii", "replace").splitlines() if " " in line)
        seen = (
            f"{size} bytes that stand for {int(pointer.get('size', 0)):,}"
            if pointer.get("size", "").isdigit()
            else None
        )
        raise CheckpointError(
            "a Git-LFS pointer, not the checkpoint itself", where=path, seen=seen, next="git lfs pull"
        )
    if head.lstrip()[:1] == b"<":
        seen = head.lstrip()[:40].decode("utf-8", "replace")
        raise CheckpointError("a web page saved as a checkpoint", where=path, seen=seen, next=again)


def _is_legacy_torch(head: bytes) -> bool:
    return b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." in head[:32]  # torch's pre-1.6 magic number, pickled


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        about = (file.metadata() or {}).get("harl_bench")
    return {"model": tensors, "harl_bench": json.loads(about)} if about else tensors


def _read_pickle(path: Path) -> tuple[Any, list[str]]:
    stubs: set[str] = set()
    with open(path, "rb") as file:
        return _restricted(stubs).load(file), sorted(stubs)


def _restricted(stubs: set[str]) -> Any:
    """A stand-in for the pickle module, for torch.load: its Unpickler runs nothing that is not in ADMITTED."""

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if (module, name) in ADMITTED:
                return ADMITTED[module, name]
            if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name in NUMPY_CORE:
                return NUMPY_CORE[name]
            if module in ("torch", "torch.storage") and (name.endswith("Storage") or name in _DTYPES):
                return getattr(torch, name, None) or getattr(torch.storage, name)
            stubs.add(f"{module}.{name}")
            return type(name, (Stub,), {"__module__": "stub"})

    def load(file: Any, **kwargs: Any) -> Any:
        return Unpickler(file, encoding=kwargs.get("encoding", "latin1")).load()

    def loads(data: bytes, **kwargs: Any) -> Any:
        return load(io.BytesIO(data), **kwargs)

    return SimpleNamespace(
        Unpickler=Unpickler,
        load=load,
        loads=loads,
        UnpicklingError=pickle.UnpicklingError,
        __name__="restricted_pickle",
    )


_DTYPES = {name for name in dir(torch) if isinstance(getattr(torch, name), torch.dtype)}


class Stub:
    """Takes the place of a Python object that a file wanted rebuilt; keeps nothing and does nothing."""

    def __new__(cls, *arguments: object, **named: object) -> "Stub":
        return object.__new__(cls)

    def __init__(self, *arguments: object, **named: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...

    def __setitem__(self, key: object, value: object) -> None: ...

    def __call__(self, *arguments: object, **named: object) -> "Stub":
        return self

    def __hash__(self) -> int:
        return id(self)

    def append(self, value: object) -> None:
        """Lists of foreign classes are rebuilt item by item."""

    def extend(self, values: object) -> None:
        """As append."""

"""The files that hold tensors: torch's three formats, plain pickles; whole or cut short.

Each reader gives the payload with every tensor a `LazyTensor`; no tensor's bytes are read. Source:
torch/serialization.py (2.14).
"""

import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from harl_bench.core.errors import CheckpointError
from harl_bench.nn.lazy import CutShortError, DamagedError, Storage, Window, check_total, view
from harl_bench.nn.pickles import Machine
from harl_bench.nn.rebuild import key

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of torch's files before 1.6
DIRECTORY = 32 << 20  # bytes of a zip's directory; 300 thousand tensors need as much
Stubs = set[str]


def read_zip(path: Path, stubs: Stubs) -> Any:
    """torch's format since 1.6: an uncompressed zip of `data.pkl` and one entry a storage."""
    if not zipfile.is_zipfile(path):
        return _cut_zip(path)
    _check_directory(path)
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
    if entries and all(name.endswith(".npy") for name in entries):
        raise CheckpointError(
            "a NumPy archive (.npz), not a checkpoint of torch's",
            where=path,
            seen=", ".join(sorted(entries)[:3]),
            next="torch.save({k: torch.from_numpy(v) for k, v in numpy.load(FILE).items()}, "
            "NEW), its names "
            "torchvision's",
        )
    size = path.stat().st_size
    for name, entry in entries.items():
        if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/"):
            raise CheckpointError(
                "a zip whose entries leave its folder: it was made to harm",
                where=path,
                seen=name,
                next="delete it",
            )
        if entry.compress_type != zipfile.ZIP_STORED and "/code/" not in f"/{name}":
            raise CheckpointError(
                "a compressed zip, which torch never writes",
                where=path,
                seen=f"{name}, {entry.file_size:,} bytes",
                next="unzip it and give what lies in it",
            )
        if (
            entry.compress_type == zipfile.ZIP_STORED
            and entry.header_offset + entry.file_size > size
        ):
            raise DamagedError(f"entry {name} claims {entry.file_size:,} bytes")
    pickles = [name for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise CheckpointError(
            "a zip, but no checkpoint of torch's",
            where=path,
            seen=", ".join(sorted(entries)[:3]) or "no entries",
            next="unzip it and give what lies in it",
        )
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in entries:
        raise CheckpointError(
            "a TorchScript archive: a program, not weights by name",
            where=path,
            seen=f"{root}constants.pkl",
            next="torch.save(torch.jit.load(FILE).state_dict(), NEW)",
        )

    def place(name: str) -> tuple[int, int, int]:
        entry = entries[name]
        return _data_start(path, entry.header_offset), entry.file_size, entry.CRC

    swap = False
    if f"{root}byteorder" in entries:
        start, length, _ = place(f"{root}byteorder")
        with Window(path, start, min(length, 16)) as window:
            swap = window.read() == b"big"
    storages: dict[str, Storage] = {}

    def storage(record: str, dtype: torch.dtype, numel: int) -> Storage:
        if record not in storages:
            start, length, crc = place(f"{root}data/{record}")
            if length < numel * dtype.itemsize:
                raise DamagedError(f"storage {record} has {length:,} bytes for {numel:,} numbers")
            storages[record] = Storage(
                path, start, length, crc, dtype.itemsize if swap else 0, dtype=dtype
            )
        return storages[record]

    start, length, _ = place(pickles[0])
    with Window(path, start, length) as window:
        machine = Machine(window, _persistent(storage))
        machine.stubs = stubs
        payload = machine.run()
    check_total(storages.values(), size)
    return payload


def _cut_zip(path: Path) -> Any:
    """A zip without its directory, which lies at the end: `data.pkl` at its start still tells how
    much there was.
    """
    needed: dict[str, int] = {}

    def storage(record: str, dtype: torch.dtype, numel: int) -> Storage:
        needed[record] = numel * dtype.itemsize
        return Storage(path, 0, needed[record], dtype=dtype)

    with Window(path, _data_start(path, 0)) as window:
        Machine(window, _persistent(storage)).run()
        raise CutShortError(max(sum(needed.values()) - window.left(), 1), exactly=False)


def read_legacy(window: Window, stubs: Stubs, outer: Machine | None = None) -> Any:
    """torch's format before 1.6: pickles (magic number, protocol, system, payload, storage keys),
    then storages.
    """
    storages: dict[str, Storage] = {}
    parts: dict[tuple[str, str], Storage] = {}

    def storage(record: str, dtype: torch.dtype, numel: int, part: Any = None) -> Storage:
        whole = storages.setdefault(
            record, Storage(window.source, 0, numel * dtype.itemsize, dtype=dtype)
        )
        if part is None:
            return whole
        name, offset, count = part
        return parts.setdefault((record, str(key(name))), _part(whole, offset, count))

    machine = Machine(window, _persistent(storage))
    machine.stubs, machine.steps = stubs, outer.steps if outer else 0
    if machine.run() != LEGACY_MAGIC:
        raise DamagedError("no file of torch's")
    machine.run()
    system = machine.run()
    swap = isinstance(system, dict) and system.get("little_endian") is False
    payload = machine.run()
    order = machine.run()
    if not isinstance(order, list) or not all(str(key(record)) in storages for record in order):
        raise DamagedError("its list of storages names others than its tensors")
    missing = sum(8 + storages[str(record)].size for record in order) - window.left()
    if missing > 0:
        raise CutShortError(missing)
    for record in map(str, order):
        found = storages[record]
        numel = int.from_bytes(window.read(8), "little")
        if numel * found.dtype.itemsize != found.size:
            raise DamagedError(
                f"storage {record} has {numel:,} numbers, its tensors need another count"
            )
        found.start, found.swap = window.skip(found.size), found.dtype.itemsize if swap else 0
    if len(set(map(str, order))) != len(storages):
        raise DamagedError("a storage is missing")
    if outer:
        outer.steps = machine.steps
    return payload


def read_pickle(path: Path, stubs: Stubs) -> Any:
    """A plain pickle: Detectron2's .pkl, or `pickle.dump` of arrays or of torch's tensors."""

    as_bytes: dict[
        int, tuple[Any, Storage]
    ] = {}  # protocol 2 spells bytes as text; each is turned once

    def inner(data: Any) -> Any:
        if isinstance(data, bytes):
            data = Storage(data, 0, len(data))
        if data.utf8:
            if id(data) not in as_bytes:
                raw = data.load().numpy().tobytes()
                as_bytes[id(data)] = data, Storage(raw, 0, len(raw))
            data = as_bytes[id(data)][1]
        with Window(data.source, data.start, data.size) as part:
            return read_legacy(part, stubs, machine)

    with Window(path) as window:
        machine = Machine(window, inner=inner)
        machine.stubs = stubs
        return machine.run()


def read_tar(path: Path, stubs: Stubs) -> Any:
    """torch's first format (0.1): a tar of `storages`, `tensors` and `pickle`."""
    try:
        with tarfile.open(path, "r:") as archive:
            members = {entry.name.removeprefix("./"): entry for entry in archive}
    except tarfile.ReadError:
        raise CutShortError from None
    if "storages" in members and "pickle" not in members:  # the last of the three
        raise CutShortError
    if not {"storages", "tensors", "pickle"} <= set(members):
        seen = ", ".join(sorted(members)[:3])
        raise CheckpointError(
            "a tar archive, not a checkpoint", where=path, seen=seen, next="unpack it"
        )
    known: dict[Any, Any] = {}

    def window_of(name: str) -> Window:
        entry = members[name]
        if not entry.isreg() or entry.issparse():
            raise DamagedError(f"{name} is no plain file")
        if (missing := entry.offset_data + entry.size - path.stat().st_size) > 0:
            raise CutShortError(missing, exactly=False)
        return Window(path, entry.offset_data, entry.size)

    with window_of("storages") as window:
        machine = Machine(window)
        machine.stubs = stubs
        for _ in range(machine.run()):
            name, _location, dtype = machine.run()
            size = int.from_bytes(window.read(8), "little") * dtype.itemsize
            known[key(name)] = Storage(path, window.skip(size), size, dtype=dtype)
        for name, root, offset, numel in machine.run():
            known[key(name)] = _part(known[key(root)], offset, numel)
    with window_of("tensors") as window:
        machine = Machine(window)
        machine.stubs = stubs
        for _ in range(machine.run()):
            name, root, _type = machine.run()
            axes, _ = struct.unpack("<ii", window.read(8))
            numbers = struct.unpack(f"<{2 * axes + 1}q", window.read(8 * (2 * axes + 1)))
            whole = known[key(root)]
            known[key(name)] = view(
                whole, whole.dtype, numbers[-1], numbers[:axes], numbers[axes:-1]
            )
    with window_of("pickle") as window:
        machine = Machine(
            window, lambda name: known[int(name)] if isinstance(name, str | int) else name[0]
        )
        machine.stubs = stubs
        return machine.run()


def _part(whole: Storage, offset: int, count: int) -> Storage:
    """Until torch 0.4 a storage could be a part of another; offset and count are numbers of its
    kind.
    """
    first, size = offset * whole.dtype.itemsize, count * whole.dtype.itemsize
    if not 0 <= first <= first + size <= whole.size:
        raise DamagedError("a part of a storage that reaches beyond it")
    return Storage(whole.source, 0, size, dtype=whole.dtype, whole=(whole, first))


def _persistent(storage: Callable[..., Storage]) -> Callable[[Any], Any]:
    """What torch's persistent ids stand for: ("storage", type, key, location, numel[, part])."""

    def found(name: Any) -> Any:
        kind, dtype, record, _location, numel, *part = name
        if (
            kind != "storage"
            or not isinstance(dtype, torch.dtype)
            or not isinstance(numel, int)
            or numel < 0
        ):
            return (
                None  # ("module", class, source file, source): the class of a whole pickled model
            )
        if not isinstance(record, str | int):  # the text of anything else may take forever
            raise DamagedError("a storage whose key is no text")
        return storage(str(record), dtype, numel, *part[:1])

    return found


def _data_start(path: Path, header: int) -> int:
    """Where a zip entry's bytes begin: behind its local header, whose two last fields are
    lengths.
    """
    with Window(path, header) as window:
        local = window.read(30)
    if len(local) < 30:
        raise CutShortError
    if not local.startswith(b"PK\x03\x04"):
        raise DamagedError("a zip entry that is not where the directory says")
    return header + 30 + sum(map(int, struct.unpack("<HH", local[26:])))


def _check_directory(path: Path) -> None:
    """Refuse a directory that would take gigabytes to read; zip64 states its size 40 bytes into its
    own record.
    """
    with Window(path) as window:
        window.file.seek(max(0, window.end - 65_557))
        tail = window.read()
    at = tail.rfind(b"PK\x05\x06")
    (size,) = struct.unpack_from("<I", tail, at + 12)
    wide = tail.rfind(b"PK\x06\x06")
    if size == 0xFFFFFFFF and wide >= 0:
        (size,) = struct.unpack_from("<Q", tail, wide + 40)
    if size > DIRECTORY:
        raise DamagedError(f"a zip directory of {size:,} bytes")

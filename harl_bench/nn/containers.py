"""The files that hold tensors: torch's three formats, plain pickles, safetensors, whole or cut.

Each reader gives the payload with every tensor a `LazyTensor`; no tensor's bytes are read. Sources:
torch/serialization.py (2.14), the format's description in the README of huggingface/safetensors.
"""

import json
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from harl_bench.core.errors import CheckpointError
from harl_bench.nn.lazytensor import CutShortError, DamagedError, LazyTensor, Reader, Storage
from harl_bench.nn.rebuilding import key, rebuild_tensor
from harl_bench.nn.unpickler import Unpickler

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of torch's files before 1.6
PICKLE = 64 << 20  # bytes of a zip's data.pkl; a ResNet-50's has 40 thousand
DIRECTORY = 32 << 20  # bytes of a zip's directory; 300 thousand tensors need as much
HEADER = 16 << 20  # bytes of a safetensors header; 100 thousand tensors need as much
NAME = 255  # bytes of a file's name, as most file systems have it
Stubs = set[str]


def read_zip(path: Path, stubs: Stubs) -> Any:
    """Read torch's format since 1.6: an uncompressed zip of `data.pkl` and one entry a storage."""
    with open(path, "rb") as file:
        end = zipfile._EndRecData(file)  # type: ignore[attr-defined]  # what is_zipfile looks for
    if not end:
        return _cut_zip(path)
    if (size := end[5]) > DIRECTORY:
        raise DamagedError(f"a zip directory of {size:,} bytes")
    storages: dict[str, Storage] = {}
    with zipfile.ZipFile(path) as archive:
        entries = _checked(path, archive.infolist())

        def start(name: str) -> int:
            with archive.open(name):
                return int(archive.fp.tell())  # type: ignore[union-attr]

        def storage(record: str, dtype: torch.dtype, numel: int) -> Storage:
            if record not in storages:
                entry = entries[f"{root}data/{record}"]
                if entry.file_size < numel * dtype.itemsize:
                    claim = f"{entry.file_size:,} bytes for {numel:,} numbers"
                    raise DamagedError(f"storage {record} has {claim}")
                where, swap = start(entry.filename), dtype.itemsize if big_endian else 0
                storages[record] = Storage(path, where, entry.file_size, dtype, entry.CRC, swap)
            return storages[record]

        pickled = next(name for name in entries if f"/{name}".endswith("/data.pkl"))
        root = pickled.removesuffix("data.pkl")
        big_endian = False
        if (order := f"{root}byteorder") in entries:
            with Reader(path, start(order)) as reader:
                big_endian = reader.read(3) == b"big"
        with Reader(path, start(pickled)) as reader:
            return Unpickler(reader, stubs, storage).load()


def _checked(path: Path, listed: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """Return the entries of a zip by name; refuse zips that torch does not write."""
    size, entries = path.stat().st_size, {entry.filename: entry for entry in listed}
    names = ", ".join(sorted(entries)[:3])
    pickles = [name for name in entries if f"/{name}".endswith("/data.pkl")]

    def refuse(what: str, seen: str, remedy: str) -> None:
        raise CheckpointError(what, where=path, seen=seen, next=remedy)

    if entries and all(name.endswith(".npy") for name in entries):
        refuse(
            "a NumPy archive (.npz), not a checkpoint of torch's",
            names,
            "torch.save({k: torch.from_numpy(v) for k, v in numpy.load(FILE).items()}, NEW), "
            "its names torchvision's",
        )
    for name, entry in entries.items():
        claim = f"{entry.file_size:,} bytes"
        if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/"):
            refuse("a zip whose entries leave its folder: it was made to harm", name, "delete it")
        if "/code/" in f"/{name}":  # of TorchScript, compressed and never read
            continue
        if entry.compress_type != zipfile.ZIP_STORED:
            refuse(
                "a compressed zip, which torch never writes",
                f"{name}, {claim}",
                "unzip it and give what lies in it",
            )
        if not 0 <= entry.header_offset < size:
            raise DamagedError(f"entry {name} lies outside of the file")
        limit = PICKLE if name in pickles else size - entry.header_offset
        if entry.compress_size > limit or entry.file_size > limit:
            raise DamagedError(f"entry {name} claims {claim}")
    if len(entries) < len(listed):
        raise DamagedError("a zip with two entries of one name")
    if sum(entry.compress_size for entry in listed) > size:  # they overlap
        raise DamagedError("its tensors claim more bytes than the file has")
    if len(pickles) != 1:
        refuse(
            "a zip, but no checkpoint of torch's",
            names or "no entries",
            "unzip it and give what lies in it",
        )
    if (program := pickles[0].replace("data.pkl", "constants.pkl")) in entries:
        refuse(
            "a TorchScript archive: a program, not weights by name",
            program,
            "torch.save(torch.jit.load(FILE).state_dict(), NEW)",
        )
    return entries


def _cut_zip(path: Path) -> Any:
    """Say how much is missing of a zip whose end is: `data.pkl` at its start tells the sizes."""
    needed: dict[str, int] = {}

    def storage(record: str, dtype: torch.dtype, numel: int) -> Storage:
        needed[record] = numel * dtype.itemsize
        return Storage(path, 0, needed[record], dtype)

    with Reader(path) as reader:
        lengths = reader.read(30)[26:]
        if len(lengths) < 4:
            raise CutShortError
        reader.read(sum(struct.unpack("<HH", lengths)))
        Unpickler(reader, set(), storage).load()
        raise CutShortError(max(sum(needed.values()) - reader.left(), 1), exactly=False)


def read_legacy(reader: Reader, stubs: Stubs) -> Any:
    """Read torch's format before 1.6: five pickles, the last the storages' keys, then these."""
    storages: dict[str, Storage] = {}

    def storage(record: str, dtype: torch.dtype, numel: int, part: Any = None) -> Any:
        size = numel * dtype.itemsize
        whole = storages.setdefault(record, Storage(reader.source, 0, size, dtype))
        return whole if part is None else (whole, part[1])  # its key, offset and size

    unpickler = Unpickler(reader, stubs, storage)
    if unpickler.load() != LEGACY_MAGIC:
        raise DamagedError("no file of torch's")
    _protocol, system, payload, order = (unpickler.load() for _ in range(4))
    if {str(key(record)) for record in order} != storages.keys():
        raise DamagedError("its list of storages is not that of its tensors")
    ordered = [storages[str(record)] for record in order]
    if (missing := sum(8 + stored.size for stored in ordered) - reader.left()) > 0:
        raise CutShortError(missing)
    for stored in ordered:
        numel = int.from_bytes(reader.read(8), "little")
        if numel * stored.dtype.itemsize != stored.size:
            raise DamagedError(f"a storage has {numel:,} numbers, its tensors need another count")
        stored.start = reader.skip(stored.size).start
        stored.swap = stored.dtype.itemsize if system.get("little_endian") is False else 0
    return payload


def read_pickle(path: Path, stubs: Stubs) -> Any:
    """Read a plain pickle: Detectron2's .pkl, or `pickle.dump` of arrays or of torch's tensors."""

    def pickled(data: Any) -> Any:
        """Read a storage that is a whole file of torch's older format."""
        data = Storage(data, 0, len(data)) if isinstance(data, bytes) else data
        unpickler.claim(data.size)
        with Reader(data.source, data.start) as part:
            part.reads = reader.reads
            payload = read_legacy(part, stubs)
            reader.reads = part.reads
        return payload

    with Reader(path) as reader:
        unpickler = Unpickler(reader, stubs, pickled=pickled)
        return unpickler.load()


def read_tar(path: Path, stubs: Stubs) -> Any:
    """Read torch's first format (0.1): a tar of `storages`, `tensors` and `pickle`."""
    try:
        with tarfile.open(path, "r:") as archive:
            members = {entry.name.removeprefix("./"): entry for entry in archive}
    except tarfile.ReadError:
        raise CutShortError from None
    if "storages" in members and "pickle" not in members:  # the last of the three
        raise CutShortError
    if not {"storages", "tensors", "pickle"} <= set(members):
        raise CheckpointError(
            "a tar archive, not a checkpoint",
            where=path,
            seen=", ".join(sorted(members)[:3]),
            next="unpack it",
        )
    objects: dict[Any, Any] = {}  # storages, parts of them and tensors, by number
    with Reader(path) as reader:

        def member(name: str) -> Unpickler:
            entry = members[name]
            if not entry.isreg() or entry.issparse():
                raise DamagedError(f"{name} is no plain file")
            if (missing := entry.offset_data + entry.size - reader.end) > 0:
                raise CutShortError(missing, exactly=False)
            reader.file.seek(entry.offset_data)
            return Unpickler(reader, stubs)

        file = member("storages")
        for _ in range(file.load()):
            name, _location, dtype = file.load()
            size = int.from_bytes(reader.read(8), "little") * dtype.itemsize
            objects[key(name)] = reader.skip(size)
            objects[key(name)].dtype = dtype
        for name, root, offset, _numel in file.load():
            objects[key(name)] = objects[key(root)], offset
        file = member("tensors")
        for _ in range(file.load()):
            name, root, _type = file.load()
            axes, _ = struct.unpack("<ii", reader.read(8))
            numbers = struct.unpack(f"<{2 * axes + 1}q", reader.read(16 * axes + 8))
            shape, stride = numbers[:axes], numbers[axes:-1]
            objects[key(name)] = rebuild_tensor(objects[key(root)], numbers[-1], shape, stride)
        file = member("pickle")
        file.persistent_load = (  # type: ignore[method-assign]
            lambda name: objects[int(name)] if isinstance(name, str | int) else name[0]
        )
        return file.load()


def read_safetensors(path: Path) -> Any:
    """Read safetensors' length, JSON header and tensors; `harl_bench` in its metadata is ours."""
    total = path.stat().st_size
    with open(path, "rb") as binary:
        length = int.from_bytes(binary.read(8), "little")
        if length > HEADER:
            raise DamagedError(f"a header of {length:,} bytes")
        if (missing := 8 + length - total) > 0:
            raise CutShortError(missing, exactly=False)
        header = json.loads(binary.read(length))
    header.pop("__metadata__", None)
    spans = {name: entry["data_offsets"] for name, entry in header.items()}
    if (missing := 8 + length + max((end for _, end in spans.values()), default=0) - total) > 0:
        raise CutShortError(missing)
    tensors = {}
    with safe_open(path, framework="pt") as file:  # which checks names, types, shapes and places
        about = (file.metadata() or {}).get("harl_bench")
        for name, (start, end) in spans.items():
            like = file.get_tensor(name)  # a view of the file: nothing is read
            storage = Storage(path, 8 + length + start, end - start, like.dtype)
            tensors[name] = LazyTensor(storage, like.dtype, tuple(like.shape), like.stride())
    return {"model": tensors, "harl_bench": json.loads(about)} if about else tensors


def shards(path: Path) -> list[Path]:
    """Return the files that a sharded checkpoint's index (`*.index.json`) names.

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
            raise CheckpointError(
                "an index that leaves its folder",
                where=path,
                seen=name[:60],
                next="give another index",
            )
    return [path.with_name(name) for name in names]

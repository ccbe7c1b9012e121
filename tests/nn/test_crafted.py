"""Containers made to mislead: zips, storages and headers that claim what is not so."""

import io
import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from harl_bench.convert.networks import candidates
from harl_bench.nn import checkpoint
from tests.nn.pickles import Call, refused


def zipped(path: Path, entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def tensor_pickle(offset: int, shape: Any, stride: Any, numel: int = 4) -> bytes:
    """data.pkl of {"w": a tensor with these numbers}, as torch writes it."""

    class Storage:
        pass

    class Pickler(pickle._Pickler):  # type: ignore[name-defined]
        def persistent_id(self, thing: Any) -> Any:
            return (
                ("storage", torch.FloatStorage, "0", "cpu", numel)
                if isinstance(thing, Storage)
                else None
            )

    out = io.BytesIO()
    Pickler(out, protocol=2).dump(
        {"w": Call(torch._utils._rebuild_tensor_v2, Storage(), offset, shape, stride, False, {})}
    )
    return out.getvalue()


@pytest.mark.parametrize(
    ("offset", "shape", "stride"),
    [
        (0, (5,), (1,)),
        (2, (3,), (1,)),
        (0, (2, 2), (4, 1)),
        (0, (10**12,), (1,)),
        (0, (2**31, 2**31, 2**31), (0, 0, 0)),
        (0, (2**70,), (0,)),
        (-1, (2,), (1,)),
        (0, (-2,), (1,)),
        (3, (2,), (-1,)),
        (0, (2, 2), (1,)),
        (0, (1,) * 40, (1,) * 40),
        (0, ("2",), (1,)),
        (0, (2.0,), (1,)),
        (0, 2, 1),
    ],
)
def test_absurd_tensors_are_refused(tmp_path: Path, offset: int, shape: Any, stride: Any) -> None:
    entries = {
        "a/data.pkl": tensor_pickle(offset, shape, stride),
        "a/data/0": b"\0" * 16,
        "a/version": b"3\n",
    }
    assert "damaged" in refused(zipped(tmp_path / "bad.pth", entries))


def test_a_tensor_of_a_trillion_repeats_is_never_written_out(tmp_path: Path) -> None:
    """Stride 0 makes a large tensor of one number: allowed, as torch allows it, and free."""
    entries = {"a/data.pkl": tensor_pickle(0, (10**6, 10**6), (0, 0)), "a/data/0": b"\0" * 16}
    payload, _ = checkpoint.read(zipped(tmp_path / "wide.pth", entries))
    assert payload["w"].shape == (10**6, 10**6)
    assert candidates(payload) == []


def test_a_storage_smaller_than_it_claims(tmp_path: Path) -> None:
    entries = {"a/data.pkl": tensor_pickle(0, (4,), (1,), numel=10**11), "a/data/0": b"\0" * 16}
    assert "storage 0 has 16 bytes for 100,000,000,000 numbers" in refused(
        zipped(tmp_path / "bad.pth", entries)
    )


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/../../x", "a\\..\\..\\x"])
def test_a_zip_that_leaves_its_folder(tmp_path: Path, name: str) -> None:
    entries = {"a/data.pkl": tensor_pickle(0, (4,), (1,)), "a/data/0": b"\0" * 16, name: b"x"}
    assert "entries leave its folder" in refused(zipped(tmp_path / "bad.pth", entries))


def test_a_storage_key_that_leaves_its_folder(tmp_path: Path) -> None:
    data = tensor_pickle(0, (4,), (1,)).replace(
        b"\x01\x00\x00\x000", b"\x10\x00\x00\x00../../etc/passwd"
    )
    assert "damaged" in refused(
        zipped(tmp_path / "bad.pth", {"a/data.pkl": data, "a/data/0": b"\0" * 16})
    )


def test_an_entry_of_a_hundred_gigabytes(tmp_path: Path) -> None:
    path = zipped(
        tmp_path / "bad.pth", {"a/data.pkl": tensor_pickle(0, (4,), (1,)), "a/data/0": b"\0" * 16}
    )
    content = bytearray(path.read_bytes())
    # The directory's second entry.
    at = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 4)
    content[at + 20 : at + 28] = struct.pack("<II", 4_000_000_000, 4_000_000_000)
    path.write_bytes(content)
    assert "claims 4,000,000,000 bytes" in refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", tensor_pickle(0, (4,), (1,)))
        archive.writestr("a/data/0", b"\0" * 16)
        # zip64, in the directory only.
        archive.filelist[1].file_size = archive.filelist[1].compress_size = 100 << 30
    assert f"claims {100 << 30:,} bytes" in refused(path)


def test_two_entries_of_one_name(tmp_path: Path) -> None:
    path = zipped(
        tmp_path / "bad.pth", {"a/data.pkl": tensor_pickle(0, (4,), (1,)), "a/data/0": b"\0" * 16}
    )
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("a/data/0", b"\1" * 16)
    assert "two entries of one name" in refused(path)


def test_entries_before_the_file_begins(tmp_path: Path) -> None:
    """A directory whose stated place is too high moves every entry to the left of byte 0."""
    path = zipped(tmp_path / "bad.pth", {"a/data.pkl": pickle.dumps({"w": None})})
    content = bytearray(path.read_bytes())
    end = content.rindex(b"PK\5\6")
    (start,) = struct.unpack_from("<I", content, end + 16)
    struct.pack_into("<I", content, end + 16, start + 1000)
    path.write_bytes(content)
    assert "entry a/data.pkl lies outside of the file" in refused(path)


def test_a_pickle_of_more_than_64_megabytes(tmp_path: Path) -> None:
    entries = {"a/data.pkl": pickle.dumps({"w": None}) + b"\0" * (64 << 20)}
    assert "entry a/data.pkl claims 67," in refused(zipped(tmp_path / "bad.pth", entries))


def test_compressed_zips_are_refused_unread(tmp_path: Path) -> None:
    """One of these holds 200 MB in 200 kB."""
    entries = {
        "a/data.pkl": tensor_pickle(0, (50_000_000,), (1,), 50_000_000),
        "a/data/0": b"\0" * 200_000_000,
    }
    path = zipped(tmp_path / "bomb.pth", entries, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1_000_000
    assert "a compressed zip" in refused(path)


def test_entries_that_share_their_bytes(tmp_path: Path) -> None:
    """Storages that overlap are more bytes, once read, than the file has."""
    with zipfile.ZipFile(path := tmp_path / "bad.pth", "w") as archive:
        payload = {str(n): torch.zeros(1 << 18) for n in range(2)}
        out = io.BytesIO()
        torch.save(payload, out)
        with zipfile.ZipFile(out) as made:
            data = made.read("archive/data.pkl")
        archive.writestr("a/data.pkl", data)
        archive.writestr("a/data/0", b"\0" * (1 << 20))
        first = archive.filelist[1]
        twin = zipfile.ZipInfo("a/data/1")
        twin.header_offset, twin.file_size, twin.compress_size, twin.CRC = (
            first.header_offset,
            first.file_size,
            first.compress_size,
            first.CRC,
        )
        archive.filelist.append(twin)
    assert "claim more bytes than the file has" in refused(path)


@pytest.mark.parametrize(
    "header",
    [
        {"w": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}},
        {"w": {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}},
        {"w": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}},
        {"w": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}},
        {"w": {"dtype": "Q4", "shape": [2], "data_offsets": [0, 8]}},
        {"w": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}},
        {"w": {"dtype": "F32", "shape": "2", "data_offsets": [0, 8]}},
        {"w": 3},
        {str(n): {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for n in range(100)},
    ],
)
def test_crafted_safetensors(tmp_path: Path, header: Any) -> None:
    text = json.dumps(header).encode()
    path = tmp_path / "bad.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 8)
    line = refused(path)
    assert "damaged" in line or "cut short" in line


@pytest.mark.parametrize("text", [b"{" + b'"a":{' * 200_000, b'{"a":1,"a":2}', b"{\xff\xfe}"])
def test_crafted_json(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    assert "damaged" in refused(path)
    path.write_bytes(struct.pack("<Q", 2**40) + text)
    assert "a header of 1,099,511,627,776 bytes" in refused(path)

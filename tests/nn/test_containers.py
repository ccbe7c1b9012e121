"""Files of every age of torch, pickles, safetensors: as torch reads them, lazy, honest when cut."""

import io
import json
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from harl_bench.core.errors import CheckpointError
from harl_bench.nn import checkpoint

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def tensors() -> Tensors:
    base = torch.arange(60.0).reshape(3, 4, 5)
    made: Tensors = {
        "plain": base,
        "view": base[1:, ::2],
        "turned": base.permute(2, 0, 1),
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 3),
        "count": torch.tensor(7),
        "flag": torch.tensor([True, False]),
        "byte": torch.arange(5, dtype=torch.uint8),
        "wide": torch.ones(2).expand(3, 2),
    }
    for dtype in (
        torch.float16,
        torch.bfloat16,
        torch.float64,
        torch.int8,
        torch.int16,
        torch.int32,
        torch.complex64,
    ):
        made[str(dtype)] = torch.arange(6).to(dtype)
    return made


def assert_equal(read: Any, tensors: Tensors) -> None:
    assert list(read) == list(tensors)
    for name, value in tensors.items():
        assert read[name].dtype == value.dtype, name
        assert read[name].shape == value.shape, name
        assert torch.equal(read[name], value), name


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_equal_to_what_torch_reads(
    tmp_path: Path, tensors: Tensors, zipped: bool, protocol: int
) -> None:
    path = tmp_path / "a.pth"
    torch.save(tensors, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    read, stubs = checkpoint.read(path)
    # It refuses protocols 4 and 5 otherwise.
    assert_equal(read, torch.load(path, weights_only=False))
    assert stubs == []


@pytest.mark.parametrize("zipped", [True, False])
def test_containers_of_a_training_run(tmp_path: Path, zipped: bool) -> None:
    """A module's state (OrderedDict, _metadata), an optimiser, a size, a device, sets, a scalar."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(4, 2)).sum().backward()
    optimizer.step()
    path = tmp_path / "run.pth"
    payload = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "parameter": model[0].weight,
        "size": torch.Size([2, 3]),
        "device": torch.device("cpu"),
        "set": {1, 2},
        "frozen": frozenset({"a"}),
        "number": np.float32(0.5),
        "dtype": torch.bfloat16,
        "deep": [({"x": (1, 2.5, None, True, b"bytes")},)],
    }
    torch.save(payload, path, _use_new_zipfile_serialization=zipped)
    read, stubs = checkpoint.read(path)
    assert stubs == []
    assert_equal(read["model"], model.state_dict())
    assert torch.equal(read["parameter"], model[0].weight)
    assert read["optimizer"]["param_groups"] == optimizer.state_dict()["param_groups"]
    momentum = optimizer.state_dict()["state"][0]["momentum_buffer"]
    assert torch.equal(read["optimizer"]["state"][0]["momentum_buffer"], momentum)
    assert (read["size"], read["set"], read["frozen"], read["number"]) == (
        (2, 3),
        {1, 2},
        {"a"},
        0.5,
    )
    assert (read["device"], read["dtype"], read["deep"]) == ("cpu", torch.bfloat16, payload["deep"])


def test_shared_storage_stays_shared(tmp_path: Path) -> None:
    both = torch.zeros(4)
    torch.save({"a": both, "b": both[1:3]}, tmp_path / "a.pth")
    read, _ = checkpoint.read(tmp_path / "a.pth")
    read["a"][1] = 5
    assert read["b"].tolist() == [5, 0]


def test_saved_on_cuda(tmp_path: Path) -> None:
    """CUDA leaves only a location in a persistent id; the oldest files name its storages, too."""
    out = io.BytesIO()
    torch.save(
        {"w": torch.arange(4.0)}, out, _use_new_zipfile_serialization=False, pickle_protocol=2
    )
    content = out.getvalue().replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:1")
    assert b"cuda:1" in content
    (tmp_path / "a.pth").write_bytes(content)
    (tmp_path / "b.pth").write_bytes(
        content.replace(b"ctorch\nFloatStorage", b"ctorch.cuda\nFloatStorage")
    )
    for name in ("a.pth", "b.pth"):
        assert checkpoint.read(tmp_path / name)[0]["w"].tolist() == [0, 1, 2, 3]


def test_a_big_endian_machine(tmp_path: Path) -> None:
    """`byteorder` in the zip, `little_endian` in the older format."""
    import zipfile

    torch.save({"w": torch.arange(4.0)}, tmp_path / "a.pth")
    with (
        zipfile.ZipFile(tmp_path / "a.pth") as old,
        zipfile.ZipFile(tmp_path / "b.pth", "w") as new,
    ):
        for name in old.namelist():
            data = b"big" if name.endswith("byteorder") else old.read(name)
            new.writestr(
                name, np.arange(4, dtype=">f4").tobytes() if name.endswith("data/0") else data
            )
    assert checkpoint.read(tmp_path / "b.pth")[0]["w"].tolist() == [0, 1, 2, 3]


class Tar:
    """torch's first format, as torch 0.1's `save` wrote it (torch/serialization.py legacy_load)."""

    def __init__(self, tensors: Tensors) -> None:
        self.tensors = tensors

    def write(self, path: Path) -> None:
        storages, headers = io.BytesIO(), io.BytesIO()
        pickle.dump(len(self.tensors), storages, protocol=2)
        pickle.dump(len(self.tensors), headers, protocol=2)
        for key, tensor in enumerate(self.tensors.values()):
            flat = tensor.contiguous().flatten()
            pickle.dump((100 + key, "cpu", torch.FloatStorage), storages, protocol=2)
            storages.write(struct.pack("<q", flat.numel()) + flat.numpy().tobytes())
            pickle.dump((key, 100 + key, torch.FloatTensor), headers, protocol=2)
            stride = tensor.contiguous().stride()
            headers.write(
                struct.pack("<ii", tensor.dim(), 0)
                + struct.pack(f"<{2 * tensor.dim()}q", *tensor.shape, *stride)
            )
            headers.write(struct.pack("<q", 0))
        pickle.dump([], storages, protocol=2)

        class Pickler(pickle._Pickler):  # type: ignore[name-defined]
            def persistent_id(self, thing: Any) -> Any:
                return str(thing.key) if isinstance(thing, Numbered) else None

        main = io.BytesIO()
        Pickler(main, protocol=2).dump(
            {name: Numbered(key) for key, name in enumerate(self.tensors)}
        )
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
            for name, content in (("storages", storages), ("tensors", headers), ("pickle", main)):
                entry = tarfile.TarInfo(name)
                entry.size = len(content.getvalue())
                archive.addfile(entry, io.BytesIO(content.getvalue()))


class Numbered:
    def __init__(self, key: int) -> None:
        self.key = key


def test_the_first_format_a_tar(tmp_path: Path) -> None:
    made = {"conv.weight": torch.arange(24.0).reshape(2, 3, 4), "bias": torch.tensor([1.0, -2.0])}
    Tar(made).write(tmp_path / "old.pth")
    assert_equal(checkpoint.read(tmp_path / "old.pth")[0], made)
    # torch agrees that this is its format.
    assert_equal(torch.load(tmp_path / "old.pth", weights_only=False), made)
    content = (tmp_path / "old.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(content[:1200])
    with pytest.raises(CheckpointError, match=r"cut short|damaged"):
        checkpoint.read(tmp_path / "cut.pth")


def test_another_tar_is_named(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.pth.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("readme.txt"))
    with pytest.raises(CheckpointError, match=r"a tar archive, not a checkpoint.*readme\.txt"):
        checkpoint.read(tmp_path / "a.pth.tar")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickled_arrays(tmp_path: Path, protocol: int) -> None:
    arrays = {
        "f4": np.arange(6, dtype=np.float32).reshape(2, 3),
        "f2": np.ones(3, np.float16),
        "i8": np.arange(300),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(4, dtype=">f4"),
        "scalar": np.array(2.5),
        "large": np.arange(100_000, dtype=np.float32),
    }
    path = tmp_path / "a.pkl"
    path.write_bytes(
        pickle.dumps(
            {"model": arrays, "__author__": "x", "words": np.array(["a"])}, protocol=protocol
        )
    )
    read, _ = checkpoint.read(path)
    for name, value in arrays.items():
        assert np.array_equal(read["model"][name].numpy(), value), name
    assert read["__author__"] == "x"


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickled_torch_tensors(tmp_path: Path, protocol: int) -> None:
    """`pickle.dump` of a state dict puts a small file of torch's older format for each storage."""
    made = {
        "a": torch.arange(6.0).reshape(2, 3),
        "big": torch.arange(50_000, dtype=torch.float32),
        "n": torch.tensor(3),
    }
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(made, protocol=protocol))
    read, stubs = checkpoint.read(path)
    assert_equal(read, made)
    assert stubs == []


def test_safetensors_and_shards(tmp_path: Path, tensors: Tensors) -> None:
    made = {name: value.contiguous() for name, value in tensors.items()}
    save_file(made, tmp_path / "whole.safetensors")
    read, _ = checkpoint.read(tmp_path / "whole.safetensors")
    assert_equal({name: read[name] for name in made}, made)
    # The name decides nothing.
    (tmp_path / "whole.bin").write_bytes((tmp_path / "whole.safetensors").read_bytes())
    assert checkpoint.read(tmp_path / "whole.bin")[0].keys() == made.keys()
    halves = {
        "model-1-of-2.safetensors": list(made)[::2],
        "model-2-of-2.safetensors": list(made)[1::2],
    }
    for name, keys in halves.items():
        save_file({key: made[key] for key in keys}, tmp_path / name)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(
        json.dumps({"weight_map": {key: name for name, keys in halves.items() for key in keys}})
    )
    contents = checkpoint.peek(index)
    assert contents.payload.keys() == made.keys()
    assert [file.name for file in contents.files] == sorted(halves)
    digest = contents.sha256()
    save_file(
        {key: made[key] * 0 for key in halves["model-2-of-2.safetensors"]},
        tmp_path / "model-2-of-2.safetensors",
    )
    assert checkpoint.peek(index).sha256() != digest
    (tmp_path / "model-2-of-2.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match=r"a shard of model\.safetensors\.index\.json: checkpoint not found"
    ):
        checkpoint.peek(index)
    for name in ("../model-1-of-2.safetensors", "x" * 300, ".."):
        index.write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(CheckpointError, match="an index that leaves its folder"):
            checkpoint.peek(index)
    index.write_text(json.dumps({"architectures": ["ResNet"]}))
    with pytest.raises(CheckpointError, match="a JSON file, not a checkpoint"):
        checkpoint.peek(index)

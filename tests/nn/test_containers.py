"""Files of every age of torch, plain pickles, safetensors: equal to what torch reads, lazy, and honest when cut."""

import copyreg
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
from harl_bench.nn.lazy import LazyTensor, Storage

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def tensors() -> Tensors:
    base = torch.arange(60.0).reshape(3, 4, 5)
    made: Tensors = {
        "plain": base, "view": base[1:, ::2], "turned": base.permute(2, 0, 1), "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 3), "count": torch.tensor(7), "flag": torch.tensor([True, False]),
        "byte": torch.arange(5, dtype=torch.uint8), "wide": torch.ones(2).expand(3, 2),
    }  # fmt: skip
    for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.int16, torch.int32, torch.complex64):
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
def test_equal_to_what_torch_reads(tmp_path: Path, tensors: Tensors, zipped: bool, protocol: int) -> None:
    path = tmp_path / "a.pth"
    torch.save(tensors, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    read, stubs = checkpoint.read(path)
    assert_equal(read, torch.load(path, weights_only=False))  # it refuses protocols 4 and 5 otherwise
    assert stubs == []


@pytest.mark.parametrize("zipped", [True, False])
def test_containers_of_a_training_run(tmp_path: Path, zipped: bool) -> None:
    """A module's state (OrderedDict with _metadata), parameters, an optimiser, a size, a device, sets, a scalar."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(4, 2)).sum().backward()
    optimizer.step()
    path = tmp_path / "run.pth"
    payload = {
        "model": model.state_dict(), "optimizer": optimizer.state_dict(), "parameter": model[0].weight,
        "size": torch.Size([2, 3]), "device": torch.device("cpu"), "set": {1, 2}, "frozen": frozenset({"a"}),
        "number": np.float32(0.5), "dtype": torch.bfloat16, "deep": [({"x": (1, 2.5, None, True, b"bytes")},)],
    }  # fmt: skip
    torch.save(payload, path, _use_new_zipfile_serialization=zipped)
    read, stubs = checkpoint.read(path)
    assert stubs == []
    assert_equal(read["model"], model.state_dict())
    assert torch.equal(read["parameter"], model[0].weight)
    assert read["optimizer"]["param_groups"] == optimizer.state_dict()["param_groups"]
    momentum = optimizer.state_dict()["state"][0]["momentum_buffer"]
    assert torch.equal(read["optimizer"]["state"][0]["momentum_buffer"], momentum)
    assert (read["size"], read["set"], read["frozen"], read["number"]) == ((2, 3), {1, 2}, {"a"}, 0.5)
    assert (read["device"], read["dtype"], read["deep"]) == ("cpu", torch.bfloat16, payload["deep"])


def test_shared_storage_stays_shared(tmp_path: Path) -> None:
    both = torch.zeros(4)
    torch.save({"a": both, "b": both[1:3]}, tmp_path / "a.pth")
    read, _ = checkpoint.read(tmp_path / "a.pth")
    read["a"][1] = 5
    assert read["b"].tolist() == [5, 0]


def test_saved_on_cuda(tmp_path: Path) -> None:
    """The location in a persistent id is all that CUDA leaves in a file; the oldest also name CUDA's storage types."""
    out = io.BytesIO()
    torch.save({"w": torch.arange(4.0)}, out, _use_new_zipfile_serialization=False, pickle_protocol=2)
    content = out.getvalue().replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:1")
    assert b"cuda:1" in content
    (tmp_path / "a.pth").write_bytes(content)
    (tmp_path / "b.pth").write_bytes(content.replace(b"ctorch\nFloatStorage", b"ctorch.cuda\nFloatStorage"))
    for name in ("a.pth", "b.pth"):
        assert checkpoint.read(tmp_path / name)[0]["w"].tolist() == [0, 1, 2, 3]


def test_a_big_endian_machine(tmp_path: Path) -> None:
    """`byteorder` in the zip, `little_endian` in the older format."""
    import zipfile

    torch.save({"w": torch.arange(4.0)}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as old, zipfile.ZipFile(tmp_path / "b.pth", "w") as new:
        for name in old.namelist():
            data = b"big" if name.endswith("byteorder") else old.read(name)
            new.writestr(name, np.arange(4, dtype=">f4").tobytes() if name.endswith("data/0") else data)
    assert checkpoint.read(tmp_path / "b.pth")[0]["w"].tolist() == [0, 1, 2, 3]


class Tar:
    """torch's first format, written as torch 0.1's `save` did (read by torch/serialization.py legacy_load)."""

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
                struct.pack("<ii", tensor.dim(), 0) + struct.pack(f"<{2 * tensor.dim()}q", *tensor.shape, *stride)
            )
            headers.write(struct.pack("<q", 0))
        pickle.dump([], storages, protocol=2)

        class Pickler(pickle._Pickler):  # type: ignore[name-defined]
            def persistent_id(self, thing: Any) -> Any:
                return str(thing.key) if isinstance(thing, Numbered) else None

        main = io.BytesIO()
        Pickler(main, protocol=2).dump({name: Numbered(key) for key, name in enumerate(self.tensors)})
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
    assert_equal(torch.load(tmp_path / "old.pth", weights_only=False), made)  # torch agrees that this is its format
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
        "f4": np.arange(6, dtype=np.float32).reshape(2, 3), "f2": np.ones(3, np.float16), "i8": np.arange(300),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "big": np.arange(4, dtype=">f4"),
        "scalar": np.array(2.5), "large": np.arange(100_000, dtype=np.float32),
    }  # fmt: skip
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "x", "words": np.array(["a"])}, protocol=protocol))
    read, _ = checkpoint.read(path)
    for name, value in arrays.items():
        assert np.array_equal(read["model"][name].numpy(), value), name
    assert read["__author__"] == "x"


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickled_torch_tensors(tmp_path: Path, protocol: int) -> None:
    """`pickle.dump` of a state dict puts a small file of torch's older format in the place of each storage."""
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
    (tmp_path / "whole.bin").write_bytes((tmp_path / "whole.safetensors").read_bytes())  # the name decides nothing
    assert checkpoint.read(tmp_path / "whole.bin")[0].keys() == made.keys()
    halves = {"model-1-of-2.safetensors": list(made)[::2], "model-2-of-2.safetensors": list(made)[1::2]}
    for name, keys in halves.items():
        save_file({key: made[key] for key in keys}, tmp_path / name)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {key: name for name, keys in halves.items() for key in keys}}))
    contents = checkpoint.peek(index)
    assert contents.payload.keys() == made.keys()
    assert [file.name for file in contents.files] == sorted(halves)
    digest = contents.sha256()
    save_file({key: made[key] * 0 for key in halves["model-2-of-2.safetensors"]}, tmp_path / "model-2-of-2.safetensors")
    assert checkpoint.peek(index).sha256() != digest
    (tmp_path / "model-2-of-2.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"a shard of model\.safetensors\.index\.json: checkpoint not found"):
        checkpoint.peek(index)
    for name in ("../model-1-of-2.safetensors", "x" * 300, ".."):
        index.write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(CheckpointError, match="an index that leaves its folder"):
            checkpoint.peek(index)
    index.write_text(json.dumps({"architectures": ["ResNet"]}))
    with pytest.raises(CheckpointError, match="a JSON file, not a checkpoint"):
        checkpoint.peek(index)


def cut(path: Path, size: int) -> CheckpointError:
    short = path.with_name(f"cut-{path.name}")
    short.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError) as caught:
        checkpoint.peek(short)
    return caught.value


def test_a_truncated_download_says_how_much_is_missing(tmp_path: Path) -> None:
    made = {"a": torch.arange(100_000.0), "b": torch.ones(1000)}
    save_file(made, tmp_path / "a.safetensors")
    size = (tmp_path / "a.safetensors").stat().st_size
    assert f"200,000 bytes; {size - 200_000:,} are missing" in str(cut(tmp_path / "a.safetensors", 200_000))
    torch.save(made, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    size = (tmp_path / "old.pth").stat().st_size
    assert f"200,000 bytes; {size - 200_000:,} are missing" in str(cut(tmp_path / "old.pth", 200_000))
    torch.save(made, tmp_path / "new.pth")
    size = (tmp_path / "new.pth").stat().st_size
    told = str(cut(tmp_path / "new.pth", 200_000))
    least = int(told.partition("at least ")[2].partition(" ")[0].replace(",", ""))
    assert size - 200_000 - 2000 < least <= size - 200_000  # what is not known is the zip's directory
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"w": np.zeros(100_000, np.float32)}))
    assert "at least" in str(cut(tmp_path / "a.pkl", 200_000))


@pytest.mark.parametrize("name", ["new.pth", "old.pth", "a.safetensors", "a.pkl"])
def test_every_cut_is_one_clear_line(tmp_path: Path, name: str) -> None:
    made = {"a": torch.arange(10.0), "b": torch.ones(3)}
    path = tmp_path / name
    if name == "a.safetensors":
        save_file(made, path)
    elif name == "a.pkl":
        path.write_bytes(pickle.dumps({k: v.numpy() for k, v in made.items()}))
    else:
        torch.save(made, path, _use_new_zipfile_serialization=name == "new.pth")
    for size in range(path.stat().st_size):
        line = cut(path, size).line()
        assert "\n" not in line
        assert any(word in line for word in ("cut short", "damaged", "empty", "no checkpoint of a kind"))


def test_a_flipped_bit_is_noticed_by_the_checksum(tmp_path: Path) -> None:
    """torch.load does not look at the zip's checksums."""
    path = tmp_path / "a.pth"
    torch.save({"w": torch.zeros(1000)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(b"\0" * 3000) + 1500] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="checksum"):
        checkpoint.read(path)
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.zeros(1000)}, path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert checkpoint.read(path)[0]["w"].shape == (1000,)  # a file that states none is read


@pytest.mark.parametrize("name", ["new.pth", "old.pth", "a.safetensors", "a.pkl"])
def test_peek_reads_no_tensor(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = {"w": torch.zeros(1 << 20)}
    path = tmp_path / name
    if name == "a.safetensors":
        save_file(made, path)
    elif name == "a.pkl":
        path.write_bytes(pickle.dumps({"w": made["w"].numpy()}))
    else:
        torch.save(made, path, _use_new_zipfile_serialization=name == "new.pth")
    monkeypatch.setattr(Storage, "load", lambda self: pytest.fail("a tensor was read"))
    tensor = checkpoint.peek(path).payload["w"]
    assert isinstance(tensor, LazyTensor)
    assert (tensor.shape, tensor.dtype) == ((1 << 20,), torch.float32)


def test_what_is_not_weights_is_named(tmp_path: Path) -> None:
    import zipfile

    from harl_bench.core.errors import BenchError

    def told(name: str) -> str:
        with pytest.raises(BenchError) as caught:
            checkpoint.peek(tmp_path / name)
        return caught.value.line()

    torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)).save(tmp_path / "script.pt")  # type: ignore[no-untyped-call]
    assert "a TorchScript archive" in told("script.pt")
    np.savez(tmp_path / "arrays.npz", w=np.zeros(3))
    assert "no checkpoint of torch's" in told("arrays.npz")
    np.save(tmp_path / "array.npy", np.zeros(3))
    assert "one NumPy array" in told("array.npy")
    for head, what in (
        (b"\x1f\x8b\x08", "a gzip file"),
        (b"\x89HDF\r\n", "an HDF5 file"),
        (b"\xff\xd8\xff\xe0", "a picture"),
    ):
        (tmp_path / "odd").write_bytes(head + b"\0" * 100)
        assert what in told("odd")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    assert "no checkpoint of torch's" in told("empty.zip")
    (tmp_path / "link.pth").symlink_to("nowhere.pth")
    assert "a link to nowhere.pth, which does not exist" in told("link.pth")
    torch.save({"w": torch.ones(2)}, tmp_path / "real.pth")
    (tmp_path / "good.pth").symlink_to("real.pth")
    assert checkpoint.read(tmp_path / "good.pth")[0]["w"].tolist() == [1, 1]


def test_a_whole_pickled_model_is_inert(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pth")
    payload, stubs = checkpoint.read(tmp_path / "model.pth")
    assert repr(payload) == "<not rebuilt>"
    assert "torch.nn.modules.linear.Linear" in stubs


def test_extension_codes_are_not_looked_up(tmp_path: Path) -> None:
    copyreg.add_extension("collections", "deque", 77)
    try:
        (tmp_path / "a.pkl").write_bytes(b"\x80\x02\x82\x4d.")
        assert checkpoint.read(tmp_path / "a.pkl")[1] == ["copyreg.extension"]
    finally:
        copyreg.remove_extension("collections", "deque", 77)

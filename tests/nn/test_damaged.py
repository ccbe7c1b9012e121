"""Checkpoints that are cut, damaged, or something else: one clear line each."""

import copyreg
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from harl_bench.core.errors import CheckpointError
from harl_bench.nn import checkpoint
from harl_bench.nn.lazytensor import LazyTensor, Storage


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
    assert f"200,000 bytes; {size - 200_000:,} are missing" in str(
        cut(tmp_path / "a.safetensors", 200_000)
    )
    torch.save(made, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    size = (tmp_path / "old.pth").stat().st_size
    assert f"200,000 bytes; {size - 200_000:,} are missing" in str(
        cut(tmp_path / "old.pth", 200_000)
    )
    torch.save(made, tmp_path / "new.pth")
    size = (tmp_path / "new.pth").stat().st_size
    told = str(cut(tmp_path / "new.pth", 200_000))
    least = int(told.partition("at least ")[2].partition(" ")[0].replace(",", ""))
    # What is not known is the zip's directory.
    assert size - 200_000 - 2000 < least <= size - 200_000
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
        assert any(
            word in line for word in ("cut short", "damaged", "empty", "no checkpoint of a kind")
        )


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
    assert "a NumPy archive (.npz)" in told("arrays.npz")
    assert "torch.save(" in told("arrays.npz")
    np.savez_compressed(tmp_path / "packed.npz", w=np.zeros(3))
    assert "a NumPy archive (.npz)" in told("packed.npz")
    np.save(tmp_path / "array.npy", np.zeros(3))
    assert "one NumPy array" in told("array.npy")
    for head, what in (
        (b"\x1f\x8b\x08", "a gzip file"),
        (b"\x89HDF\r\n", "an HDF5 file"),
        (b"\xff\xd8\xff\xe0", "an image"),
        # flax.serialization.to_bytes({"params": {...}, ...})
        (b"\x82\xa6params\x81", "flax's msgpack"),
        # torch.onnx.export: ir_version 8, producer "pytorch"
        (b"\x08\x08\x12\x07pytorch", "an ONNX graph"),
        (b"\x08\x01\x12\xb4\x8a", "a TensorFlow SavedModel"),
        (b'model_checkpoint_path: "model.ckpt-9"', "TensorFlow's note"),
    ):
        (tmp_path / "odd").write_bytes(head + b"\0" * 100)
        assert what in told("odd")
    (tmp_path / "model.ckpt-9.index").write_bytes(b"\0" * 60 + bytes.fromhex("57fb808b247547db"))
    (tmp_path / "model.ckpt-9.data-00000-of-00001").write_bytes(
        np.arange(9.0, dtype=np.float32).tobytes()
    )
    for name in ("model.ckpt-9.index", "model.ckpt-9.data-00000-of-00001"):
        assert "a part of a TensorFlow checkpoint" in told(name)
        assert "download" not in told(name)
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

"""Files that are replaced whole or not at all."""

import errno
import json
import os
from pathlib import Path

import pytest

from harl_bench.core.files import replacing, write_json


def test_an_interrupted_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.json"
    write_json(path, {"a": 1})

    def write_half() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("power")

    with pytest.raises(RuntimeError, match="power"):
        write_half()
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in path.parent.iterdir()] == ["x.json"]


def test_written_files_have_the_rights_of_others(tmp_path: Path) -> None:
    """mkstemp makes files that only their owner reads; a shared runs/ folder needs the umask's."""
    before = os.umask(0o027)
    try:
        write_json(tmp_path / "x.json", {})
        assert (tmp_path / "x.json").stat().st_mode & 0o777 == 0o640
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


@pytest.mark.parametrize("kind", ["bytes", "torch", "safetensors"])
def test_what_the_system_refused_is_told_and_the_old_file_stays(tmp_path: Path, kind: str) -> None:
    """A limit on the size of files refuses writes as a full disk does, with its own number."""
    import resource

    import torch
    from safetensors.torch import save_file

    tensors = {"a": torch.zeros(400_000), "b": torch.zeros(400_000)}
    path = tmp_path / "last.pth"
    path.write_bytes(b"the one before")

    def write() -> None:
        with replacing(path) as temporary:
            if kind == "safetensors":
                save_file(tensors, temporary)
            else:
                with open(temporary, "wb") as file:
                    torch.save(tensors, file) if kind == "torch" else file.write(bytes(2_000_000))

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)) as caught:
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    assert path.read_bytes() == b"the one before"
    assert list(tmp_path.iterdir()) == [path]

"""Files that are never half written: a temporary name in the same folder, then a rename."""

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harl_bench.core.errors import WRITING, BenchError


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically: a reader sees the old file or the new one, never half of one."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    # Bytes of a file name that are no UTF-8 arrive as lone surrogates, which JSON readers refuse:
    # written as \xe9.
    text = re.sub("[\ud800-\udfff]", lambda match: rf"\\x{ord(match[0]) & 0xFF:02x}", text)
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically (temporary name in the same folder, flush to disk, rename)."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which replaces it only if the block ends well.

    Raises:
        OSError: what the operating system refused (a full disk), also where a library hid it in an
            error of its own.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=WRITING, suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except Exception as error:
        refused = None if isinstance(error, BenchError) else _refusal(error)
        if refused is None:
            raise
        raise OSError(refused.errno, refused.strerror, refused.filename or str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _refusal(error: BaseException | None) -> OSError | None:
    """The OSError at the bottom of `error`: torch.save hides the write that failed, say."""
    while error is not None:
        if isinstance(error, OSError) and error.errno:
            return error
        # Libraries written in Rust (safetensors) put the number into their text.
        if stated := re.search(r"\(os error (\d+)\)", str(error)):
            return OSError(int(stated[1]), os.strerror(int(stated[1])))
        error = error.__cause__ or error.__context__
    return None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

"""Files that are opened only if they are plain: a pipe waits for ever, a device never ends."""

import errno
import os
import stat
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from typing import BinaryIO


def open_plain(path: str | os.PathLike[str]) -> BinaryIO:
    """Open for reading.

    Raises:
        OSError: as `open`, and EINVAL where the path is a pipe, socket or device.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    file = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a plain file", os.fspath(path))
    return file


def read_plain(path: str | os.PathLike[str]) -> bytes:
    """All bytes of a plain file.

    Raises:
        OSError: as `open_plain`.
    """
    with open_plain(path) as file:
        return file.read()


def read_text(path: str | os.PathLike[str]) -> str:
    """Return the text of a plain file: UTF-8 with or without a byte order mark, or UTF-16 with one.

    Raises:
        OSError: as `open_plain`.
        UnicodeDecodeError: the file is no such text.
    """
    content = read_plain(path)
    is_utf16 = content.startswith((BOM_UTF16_LE, BOM_UTF16_BE))
    return content.decode("utf-16" if is_utf16 else "utf-8-sig")

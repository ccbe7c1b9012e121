"""Errors that a user can meet: one line says what, where, what was seen and what to do next."""

import errno
import os

# exit code of a run that saved its state on a signal and wants to be started again (EX_TEMPFAIL)
PREEMPTED = 75
WRITING = ".writing-"  # begins the name of a file until it is whole (core/files.py)
LONGEST = 600  # characters shown of what was wrong, where, and of what was seen
INTERRUPTED = 130  # Ctrl-C, as shells report it


class BenchError(Exception):
    """A failure with a remedy. `str(error)` is the one line shown to the user.

    Args:
        what: what is wrong, without a full stop.
        where: file, folder, key or option it concerns.
        seen: what was found there.
        next: the next thing to do, preferably a command.
    """

    kind = "error"
    exit_code = 1

    def __init__(
        self, what: str, *, where: object = None, seen: object = None, next: str | None = None
    ) -> None:
        self.what, self.where, self.seen, self.next = what, where, seen, next
        parts = [_shortened(what)]
        if where is not None:
            parts.append(f"in {_shortened(one_line(where))}")
        if seen is not None:
            parts.append(f"seen: {_shortened(one_line(seen))}")
        if next is not None:
            parts.append(f"next: {one_line(next)}")
        super().__init__("; ".join(parts))

    def line(self) -> str:
        """`error[data]: what; in where; seen: ...; next: ...`, always one line."""
        return f"error[{self.kind}]: {one_line(self)}"


class UsageError(BenchError):
    """A wrong option, recipe key or combination (exit code 2)."""

    kind, exit_code = "usage", 2


class DataError(BenchError):
    """Images, annotations or masks that are missing or wrong (exit code 3)."""

    kind, exit_code = "data", 3


class UnreadableError(DataError):
    """One image or mask that cannot be decoded: a few among many may be left out."""


class CheckpointError(BenchError):
    """A checkpoint that is missing, unsafe, or not the network it should be (exit code 4)."""

    kind, exit_code = "checkpoint", 4


class MachineError(BenchError):
    """A missing package, device, or disk space (exit code 5)."""

    kind, exit_code = "environment", 5


class TrainingError(BenchError):
    """Training itself failed: a loss that is not finite, a collapsed model (exit code 1)."""

    kind, exit_code = "training", 1


class PreemptedError(BenchError):
    """A signal asked the run to stop; its state is saved (exit code 75: schedulers requeue it)."""

    kind, exit_code = "preempted", PREEMPTED


class InternalError(BenchError):
    """A mistake of ours (exit code 1)."""

    kind = "internal"


def explained(error: Exception) -> BenchError:
    """Whatever a command raised, as the one line that is shown."""
    if isinstance(error, BenchError):
        return error
    if isinstance(error, OSError):
        return from_os_error(error)
    words = " ".join(f"{type(error).__name__}: {error}".split())
    if type(error).__name__ == "OutOfMemoryError":  # torch's: this file does without torch
        return MachineError(
            "the memory of the GPU is full",
            seen=words[:200],
            next="take a smaller batch, or a GPU with more memory (harl-bench COMMAND --help)",
        )
    return InternalError(words, next="give the command again with --debug and report what it shows")


def from_os_error(error: OSError) -> BenchError:
    """Turn a failure of the operating system (full disk, no permission) into one clear line."""
    where = error.filename
    if where and os.path.basename(os.fsdecode(where)).startswith(WRITING):
        where = os.path.dirname(os.fsdecode(where)) or "."  # no file that the user knows
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return MachineError(
            "the disk is full", where=where, next="free space, then give the same command again"
        )
    if error.errno == errno.EFBIG:
        return MachineError(
            "a file may not grow this large here", where=where, next="raise the limit (ulimit -f)"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return MachineError(
            "no permission to write or read",
            where=where,
            next="choose another folder, or fix its permissions",
        )
    if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
        return UsageError(
            "a file is where a folder should be, or the reverse",
            where=where,
            next="choose another path",
        )
    if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
        return UsageError(
            "no file can have this path", where=where, seen=error.strerror, next="check the path"
        )
    if isinstance(error, FileNotFoundError):
        return DataError("file not found", where=where, next="check the path")
    return MachineError(
        error.strerror or type(error).__name__, where=where, seen=f"errno {error.errno}"
    )


def one_line(value: object) -> str:
    """Text for a terminal.

    Names of files may hold newlines and control characters: show them escaped.
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(value))


def _shortened(text: str) -> str:
    """Broken files hold words of any length: their beginning tells enough."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}... ({len(text):,} characters)"

"""Errors are one line with a remedy, whatever names they carry; exit codes are a contract."""

import errno

import pytest

from harl_bench.core import errors
from harl_bench.core.errors import BenchError, DataError, MachineError, from_os_error
from harl_bench.core.lookup import lookup, unknown

HOSTILE = "a\nb\r\x1b[31m\u2028\udcff.jpg"


def test_the_four_parts() -> None:
    error = DataError("no images", where="photos", seen="3 other files", next="give a folder")
    assert str(error) == "no images; in photos; seen: 3 other files; next: give a folder"
    assert error.line() == f"error[data]: {error}"
    assert DataError("no images").line() == "error[data]: no images"
    assert DataError("x", where="", seen=0).line() == "error[data]: x; in ; seen: 0"


@pytest.mark.parametrize("part", ["where", "seen", "next"])
def test_hostile_names_stay_on_one_printable_line(part: str) -> None:
    line = DataError(f"bad {HOSTILE}", **{part: HOSTILE}).line()  # type: ignore[arg-type]
    assert line.isprintable()
    assert line.count("a\\nb\\r\\x1b[31m\\u2028\\udcff.jpg") == 2
    line.encode()  # a terminal can show it


def test_exit_codes() -> None:
    kinds: list[type[BenchError]] = [BenchError, *BenchError.__subclasses__()]
    codes = {kind.__name__: (kind.kind, kind.exit_code) for kind in kinds}
    assert codes == {
        "BenchError": ("error", 1),
        "UsageError": ("usage", 2),
        "DataError": ("data", 3),
        "CheckpointError": ("checkpoint", 4),
        "MachineError": ("environment", 5),
        "TrainingError": ("training", 1),
        "PreemptedError": ("preempted", 75),
        "InternalError": ("internal", 1),
    }
    assert (errors.PREEMPTED, errors.INTERRUPTED) == (75, 130)


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.ENOSPC, MachineError, "the disk is full; in runs/x; next: free space"),
        (errno.EDQUOT, MachineError, "the disk is full"),
        (errno.EACCES, MachineError, "no permission"),
        (errno.EROFS, MachineError, "no permission"),
        (errno.ENOENT, DataError, "file not found; in runs/x"),
        (errno.EIO, MachineError, "broken; in runs/x; seen: errno 5"),
    ],
)
def test_operating_system_failures(number: int, kind: type[BenchError], words: str) -> None:
    error = from_os_error(OSError(number, "broken", "runs/x"))
    assert type(error) is kind
    assert words in str(error)


def test_a_file_that_is_not_whole_yet_is_not_named() -> None:
    for name, where in (("runs/.writing-q1.pkl", "runs"), (".writing-q1.pkl", ".")):
        error = from_os_error(OSError(errno.EROFS, "broken", name))
        assert (error.where, error.next) == (
            where,
            "choose another folder, or fix its permissions",
        )


def test_lookup_says_what_was_meant() -> None:
    table = {"harl": 1, "byol": 2}
    assert lookup(table, "byol", "method") == 2
    with pytest.raises(
        errors.UsageError,
        match=r"^unknown method 'byool'; did you mean 'byol'\? known: byol, harl$",
    ):
        lookup(table, "byool", "method")
    assert unknown("zzz", table, "method") == "unknown method 'zzz'; known: byol, harl"
    many = [f"recipe-{i}-of-a-long-name" for i in range(40)]
    assert unknown("recipe-7-of-a-long-nam", many, "recipe") == (
        "unknown recipe 'recipe-7-of-a-long-nam'; did you mean 'recipe-7-of-a-long-name'?"
    )
    assert unknown("zzz", many, "recipe").endswith("-of-a-long-name, ... (40 in all)")
    assert len(unknown("zzz", many, "recipe")) < errors.LONGEST

"""manifest.csv: one row per finished mask, appended as masks are made, sorted when all are done.

It is both the data set's manifest and the list a repeated command resumes from. Parallel shards
append to `manifest-<i>of<n>.csv` each; reading merges all of them.
"""

import csv
import io
import os
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from harl_bench.core.errors import DataError
from harl_bench.core.files import write_bytes
from harl_bench.core.masks import manifests_in


@dataclass(frozen=True)
class Row:
    """One mask.

    `foreground` is its share of the image (of the mask before rejection: 0 when rejected).
    """

    path: str  # of the image, below the root, with "/"
    height: int
    width: int
    picture_bytes: int  # size of the image's file: another image under the same name is noticed
    foreground: float
    valid: int  # 0: rejected, the mask is all zero and only whole-image terms should use the image
    sha256: str  # of the mask file
    maker: str
    parameters: str  # JSON
    engine: str


HEADER = [field.name for field in fields(Row)]


def read(folder: Path) -> dict[str, Row]:
    """Return all rows of all manifests by image path; a last line cut short by a kill is left out.

    Raises:
        DataError: a manifest with other columns.
    """
    rows: dict[str, Row] = {}
    for path in manifests_in(folder):
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").split("\n")[:-1]
        table = csv.reader(lines)
        header = next(table, HEADER)
        if header != HEADER:
            raise DataError(
                "not a mask manifest of this version",
                where=path,
                seen=", ".join(header),
                next="choose another --out, or move the file away",
            )
        for values in table:
            if len(values) == len(HEADER):
                row = _row(values, path)
                rows[row.path] = row
    return rows


def append(path: Path, rows: Iterable[Row]) -> None:
    """Add rows; the header comes with the first of them (or with none, to claim the folder).

    Only the last byte is read: a million masks mean a million calls.
    """
    with open(path, "a+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        if file.read() not in (b"", b"\n"):  # a kill cut the last line short
            file.seek(0)
            size = file.truncate(file.read().rfind(b"\n") + 1)
        file.write(_text(rows, header=size == 0).encode("utf-8", "surrogateescape"))


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write a whole manifest atomically, sorted by path."""
    ordered = sorted(rows, key=lambda row: row.path)
    write_bytes(path, _text(ordered, header=True).encode("utf-8", "surrogateescape"))


def _text(rows: Iterable[Row], *, header: bool) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    if header:
        writer.writerow(HEADER)
    writer.writerows(astuple(row) for row in rows)
    return buffer.getvalue()


def _row(values: list[str], path: Path) -> Row:
    try:
        name, height, width, picture_bytes, foreground, valid, *rest = values
        return Row(
            name, int(height), int(width), int(picture_bytes), float(foreground), int(valid), *rest
        )
    except ValueError:
        raise DataError(
            "a manifest's row is damaged", where=path, seen=values[0], next="use --fresh"
        ) from None

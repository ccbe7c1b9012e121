"""Results of a folder in one zip, without weights and images: how a group shares a leaderboard.

It holds `result.json`, `run.json` and `config.yaml` of every finished run, of those that came from
another pack `result.json` alone, and `SHA256SUMS` of them all. Nothing is unpacked to read it back,
and equal runs give equal bytes.
"""

import hashlib
import io
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from harl_bench.core.errors import DataError
from harl_bench.core.results import IDENTITY, RESULT, Result
from harl_bench.report.collect import Run

SUMS = "SHA256SUMS"
KEPT = (RESULT, IDENTITY, "config.yaml")
MOST = 64_000_000  # bytes of one file: a result of thousands of classes has less than one
DAMAGE = (OSError, EOFError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error)
EPOCH = (1980, 1, 1, 0, 0, 0)  # of every file, the earliest that zip knows


def packed(runs: Sequence[Run], root: Path) -> bytes:
    """Return the zip of runs below `root`; of those in other packs only the result is taken over.

    A result holds the whole configuration, so that nothing measured is lost.
    """
    files: dict[str, bytes] = {}
    for path, result in runs:
        folder = path.parent
        inside = folder.relative_to(root) if folder.is_relative_to(root) else Path(folder.name)
        for name in KEPT:
            content = _content(folder / name)
            if name == RESULT and content is None:
                content = result.model_dump_json().encode()
            if content is not None:
                files[str(PurePosixPath(inside, name))] = content
    sums = "".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted((files | {SUMS: sums.encode()}).items()):
            archive.writestr(zipfile.ZipInfo(name, EPOCH), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def unpacked(path: Path) -> tuple[list[Run], list[DataError]]:
    """Return the runs of a zip, and the faults of those that cannot be read or were changed.

    Raises:
        DataError: it is no such zip.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            lines = _read(archive, SUMS).decode().splitlines()
            sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
            contents = {
                name: _read(archive, name)
                for name in sorted(sums)
                if PurePosixPath(name).name == RESULT
            }
    except DAMAGE as error:
        hint = "harl-bench report RUNS --pack writes one"
        raise DataError("not a pack of results", where=path, seen=error, next=hint) from None
    runs: list[Run] = []
    faults = []
    for name, content in contents.items():
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            faults.append(DataError("a packed result lies outside the pack", where=path, seen=name))
            continue
        if hashlib.sha256(content).hexdigest() != sums[name]:
            faults.append(DataError("a packed result was changed", where=f"{path}/{name}"))
            continue
        try:
            runs.append((path / name, Result.model_validate_json(content)))
        except ValidationError as error:
            seen = error.errors(include_url=False)[0]["msg"]
            faults.append(
                DataError("not a result of this version", where=f"{path}/{name}", seen=seen)
            )
    return runs, faults


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is not compressed as this program does it")
    if info.file_size > MOST:
        raise ValueError(f"{name} has more than {MOST:,} bytes")
    with archive.open(name) as file:
        return file.read(MOST)

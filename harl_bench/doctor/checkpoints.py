"""Checkpoints, read by the very reader the commands use: all 265 tensors of a ResNet-50, or why
not.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from shlex import quote

from harl_bench.core.errors import BenchError
from harl_bench.doctor.finding import Finding

NOTED = "every result of it will say so"
SUFFIXES = frozenset({".pth", ".pt", ".pkl", ".ckpt", ".tar", ".torch", ".safetensors", ".bin"})


def findings(places: Iterable[Path]) -> Iterator[Finding]:
    """One finding for each file; of a folder, each file in it that is named like a checkpoint."""
    for place in places:
        if not place.is_dir():
            yield _one(place)
            continue
        files = sorted(path for path in place.iterdir() if path.suffix.lower() in SUFFIXES)
        if not files:
            hint = f"give files, or a folder of {', '.join(sorted(SUFFIXES))} files"
            yield Finding("checkpoint", "fail", place.name, f"no checkpoint in {place}", hint=hint)
        yield from map(_one, files)


def _one(path: Path) -> Finding:
    from harl_bench.convert.read import read_backbone

    try:
        backbone = read_backbone(path)
    except BenchError as error:
        seen = "; ".join(str(part) for part in (error.what, error.seen) if part is not None)
        if not path.is_file():
            return Finding("checkpoint", "fail", path.name, seen, hint=f"check the path: {path}")
        return Finding(
            "checkpoint",
            "fail",
            path.name,
            seen,
            f"harl-bench convert {quote(str(path))} --inspect",
        )
    ref, total = backbone.ref, len(backbone.tensors)
    seen = (
        f"{total} of {total} tensors, format {ref.format}, {ref.net} network, sha256 "
        f"{ref.sha256[:8]}"
    )
    if backbone.stubs:
        seen += f"; not rebuilt: {', '.join(backbone.stubs)}"
    if backbone.departures:
        return Finding(
            "checkpoint", "warn", path.name, "; ".join([seen, *backbone.departures]), hint=NOTED
        )
    return Finding("checkpoint", "ok", path.name, seen)

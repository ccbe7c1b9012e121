"""Checkpoints, read by the commands' reader: all tensors of a ResNet-50 or -18, or why not."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from shlex import quote

from harl_bench.core.errors import BenchError
from harl_bench.doctor.finding import Finding

NOTED = "every result of it will say so"
SUFFIXES = frozenset({".pth", ".pt", ".pkl", ".ckpt", ".tar", ".torch", ".safetensors", ".bin"})
finding = partial(Finding, "checkpoint")


def findings(paths: Iterable[Path]) -> Iterator[Finding]:
    """Yield one finding for each file, and for each in a folder that is named like a checkpoint."""
    for path in paths:
        if not path.is_dir():
            yield _one(path)
            continue
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
        if not files:
            hint = f"give files, or a folder of {', '.join(sorted(SUFFIXES))} files"
            yield finding("fail", path.name, f"no checkpoint in {path}", hint=hint)
        yield from map(_one, files)


def _one(path: Path) -> Finding:
    from harl_bench.convert.choice import TITLES
    from harl_bench.convert.read import read_backbone
    from harl_bench.nn.resnet import FEATURES

    try:
        backbone = read_backbone(path, archs=tuple(FEATURES))
    except BenchError as error:
        seen = "; ".join(str(part) for part in (error.what, error.seen) if part is not None)
        if not path.is_file():
            return finding("fail", path.name, seen, hint=f"check the path: {path}")
        command = f"harl-bench convert {quote(str(path))} --inspect"
        return finding("fail", path.name, seen, command)
    ref, total = backbone.ref, len(backbone.tensors)
    seen = f"{total} of {total} tensors, format {ref.format}, {ref.net} network"
    seen += f", sha256 {ref.sha256[:8]}"
    if backbone.arch != "resnet50":
        seen += f"; a {TITLES[backbone.arch]}, which only classify measures"
    if backbone.stubs:
        seen += f"; not rebuilt: {', '.join(backbone.stubs)}"
    if backbone.departures:
        return finding("warn", path.name, "; ".join([seen, *backbone.departures]), hint=NOTED)
    return finding("ok", path.name, seen)

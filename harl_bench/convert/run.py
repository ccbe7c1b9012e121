"""The command `harl-bench convert`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from harl_bench.core.errors import UsageError
from harl_bench.core.options import DryRun, Net
from harl_bench.core.progress import console, log


def convert(
    checkpoint: Path,
    /,
    *,
    out: Annotated[
        Path | None, Parameter(help="Where to write; default: beside the checkpoint, ending in .pkl.")
    ] = None,
    to: Annotated[Literal["detectron2", "torchvision"], Parameter(help="Names of the written file.")] = "detectron2",
    net: Net = None,
    inspect: Annotated[bool, Parameter(negative="", help="List keys, shapes and candidates; write nothing.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Turn any ResNet-50 checkpoint into Detectron2's format, and prove that nothing was lost.

    Try:

        harl-bench convert moco_v2_800ep_pretrain.pth.tar --out moco_v2.pkl

        harl-bench convert last.pth --inspect
    """
    if inspect:
        _inspect(checkpoint)
        return
    if out is None:
        stem = checkpoint.name.partition(".")[0]
        out = checkpoint.with_name(f"{stem}-{to}{'.pkl' if to == 'detectron2' else '.pth'}")
    if out.exists() and checkpoint.exists() and out.samefile(checkpoint):
        raise UsageError("the output would replace the checkpoint itself", where=out, next="give another --out")
    from harl_bench.convert.read import read_backbone
    from harl_bench.convert.write import prove, write
    from harl_bench.core.manifest import sha256

    backbone = read_backbone(checkpoint, net=net)
    total, ref = len(backbone.tensors), backbone.ref
    log.info("%s: format %s, %s network", checkpoint.name, ref.format, ref.net)
    others = f" ({', '.join(_summary(backbone.ignored))})" if backbone.ignored else ""
    text = "%d of %d backbone tensors matched, 0 missing, %d other keys ignored%s"
    log.info(text, total, total, len(backbone.ignored), others)
    if backbone.stubs:
        log.warning("Python objects in the file were not rebuilt: %s", ", ".join(backbone.stubs))
    if dry_run:
        log.info("would write %s (--dry-run)", out)
        return
    write(backbone, out, layout=to)
    log.info(prove(backbone, out))
    log.info("wrote %s, sha256 %s, input %s", out, sha256(out)[:16], _convention(backbone.input))


def _inspect(path: Path) -> None:
    from harl_bench.convert.read import candidates, tensor_dicts
    from harl_bench.nn import checkpoint, resnet

    payload, stubs = checkpoint.read(path)
    for container, tensors in tensor_dicts(payload):
        console.print(f"[{'/'.join(container) or 'top level'}] {len(tensors)} tensors", markup=False)
        for key, value in tensors.items():
            console.print(f"  {key}  {tuple(value.shape)}  {str(value.dtype).removeprefix('torch.')}", markup=False)
    for found in candidates(payload):
        where = "/".join(found.container) or "top level"
        text = f"candidate: {found.format.name}, {found.net}, prefix {found.prefix!r} in {where}: "
        console.print(f"{text}{found.matched} of {len(resnet.shapes())} tensors match", markup=False)
    if stubs:
        console.print(f"not rebuilt: {', '.join(stubs)}", markup=False)


def _summary(keys: list[str]) -> list[str]:
    """What the ignored keys belong to (fc, encoder_k, queue ...), each once, at most six."""
    from harl_bench.convert.read import stripped_key

    counters = "num_batches_tracked"
    heads = list(dict.fromkeys(counters if k.endswith(counters) else stripped_key(k).partition(".")[0] for k in keys))
    return [*heads[:6], *(["..."] if len(heads) > 6 else [])]


def _convention(convention: object) -> str:
    from harl_bench.convert.formats import InputConvention

    assert isinstance(convention, InputConvention), "the reader returns the convention of the format table"
    mean, std = (" ".join(f"{v:g}" for v in values) for values in (convention.pixel_mean, convention.pixel_std))
    filtered = ", high-pass filtered (detection feeds them unfiltered)" if convention.high_pass else ""
    return f"{convention.input_format}, mean {mean}, std {std}{filtered}"

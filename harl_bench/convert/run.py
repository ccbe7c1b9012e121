"""The command `harl-bench convert`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from harl_bench.core.errors import UsageError, one_line
from harl_bench.core.options import DryRun, Net
from harl_bench.core.progress import console, log

if TYPE_CHECKING:
    from harl_bench.convert.read import Backbone


def convert(
    checkpoint: Path,
    /,
    *,
    out: Annotated[
        Path | None,
        Parameter(help="Where to write; default: beside the checkpoint, ending in .pkl."),
    ] = None,
    to: Annotated[
        Literal["detectron2", "torchvision"], Parameter(help="Names of the written file.")
    ] = "detectron2",
    net: Net = None,
    input: Annotated[
        Literal["imagenet", "std228", "unit", "caffe"] | None,
        Parameter(
            help="What its images look like, where the file does not tell (docs/convert.md 3)."
        ),
    ] = None,
    padding: Annotated[
        Literal["torch", "same"] | None,
        Parameter(
            help=(
                "How it was trained to pad, where the file does not tell: same is TensorFlow's "
                "SAME (BYOL)."
            )
        ),
    ] = None,
    prefix: Annotated[
        str | None,
        Parameter(
            help="Which network to take, by its prefix or container, where several are alike."
        ),
    ] = None,
    allow_caffe2: Annotated[bool, Parameter(help="Pass a Caffe2/MSRA file on, unchanged.")] = False,
    inspect: Annotated[
        bool, Parameter(negative="", help="List keys, shapes and candidates; write nothing.")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Turn any ResNet-50 checkpoint into Detectron2's format, and prove that nothing was lost.

    Try:

        harl-bench convert moco_v2_800ep_pretrain.pth.tar --out moco_v2.pkl

        harl-bench convert pretrain_res50x1.pth.tar --padding same --out byol.pkl

        harl-bench convert last.pth --inspect
    """
    if inspect:
        _inspect(checkpoint)
        return
    if out is None:
        stem = checkpoint.name.partition(".")[0]
        out = checkpoint.with_name(f"{stem}-{to}{'.pkl' if to == 'detectron2' else '.pth'}")
    if out.exists() and checkpoint.exists() and out.samefile(checkpoint):
        raise UsageError(
            "the output would replace the checkpoint itself", where=out, next="give another --out"
        )
    from harl_bench.convert.read import read_backbone
    from harl_bench.convert.write import check_ending, pass_on, write
    from harl_bench.core.manifest import sha256

    if allow_caffe2 and _is_caffe2(checkpoint):
        if out.suffix != ".pkl":
            raise UsageError("a Caffe2 file stays a .pkl", where=out, next="end --out in .pkl")
        if not dry_run:
            pass_on(checkpoint, out)
        log.warning(
            "%s is a Caffe2/MSRA file, %s: train it with Detectron2's plain yaml (BGR, std 1, "
            "stride in the 1x1, batch "
            "norm frozen)",
            checkpoint.name,
            "not copied (--dry-run)" if dry_run else f"copied to {out}",
        )
        return
    check_ending(out, to)
    backbone = read_backbone(checkpoint, net=net, convention=input, prefix=prefix, padding=padding)
    total, ref = len(backbone.tensors), backbone.ref
    log.info("%s: format %s, %s network", checkpoint.name, ref.format, ref.net)
    others = f" ({', '.join(_summary(backbone.ignored))})" if backbone.ignored else ""
    text = "%d of %d backbone tensors matched, 0 missing, %d other keys ignored%s"
    log.info(text, total, total, len(backbone.ignored), others)
    if backbone.stubs:
        log.warning("Python objects in the file were not rebuilt: %s", _names(backbone.stubs))
    if dry_run:
        log.info("would write %s (--dry-run)", out)
        return
    for line in write(backbone, out, layout=to):
        log.info(line)
    log.info("wrote %s, sha256 %s, input %s", out, sha256(out)[:16], _convention(backbone))


def _is_caffe2(path: Path) -> bool:
    """Whether a file has every blob of Caffe2's ResNet-50, which Detectron2 renames itself."""
    from harl_bench.convert.networks import tensor_dicts
    from harl_bench.convert.refusals import caffe2
    from harl_bench.nn import checkpoint

    return any(caffe2(tensors) for _, tensors in tensor_dicts(checkpoint.peek(path).payload))


def _inspect(path: Path) -> None:
    """Everything that can be told without reading a tensor."""
    from harl_bench.convert.haiku import joined
    from harl_bench.convert.networks import candidates, every_tensor, tensor_dicts
    from harl_bench.convert.refusals import reason
    from harl_bench.nn import checkpoint, resnet

    contents = checkpoint.peek(path)
    with checkpoint.telling(path):
        payload = joined(contents.payload)
        for container, tensors in tensor_dicts(payload):
            _say(f"[{'/'.join(container) or 'top level'}] {len(tensors)} tensors")
            for key, value in tensors.items():
                _say(f"  {key}  {tuple(value.shape)}  {str(value.dtype).removeprefix('torch.')}")
        found = candidates(payload)
        for one in found:
            count = f"{one.matched} of {len(resnet.shapes())} tensors match"
            _say(f"candidate: {one.format.name}, {one.net}, prefix {one.where}: {count}")
        if not any(one.complete for one in found):
            why = reason(every_tensor(payload)) or (
                reason(dict(found[0].tensors)) if found else None
            )
            _say(f"no ResNet-50: {why or 'no network of known names'}")
    if contents.stubs:
        _say(f"not rebuilt: {_names(contents.stubs)}")


def _say(text: str) -> None:
    """One line; names from a file may hold control characters, which a terminal would obey."""
    console.print(one_line(text), markup=False, highlight=False, soft_wrap=True)


def _names(stubs: list[str]) -> str:
    more = f" and {len(stubs) - 12} more" if len(stubs) > 12 else ""
    return one_line(", ".join(stubs[:12]) + more)


def _summary(keys: list[str]) -> list[str]:
    """What the ignored keys belong to (fc, encoder_k, queue ...), each once, at most six."""
    from harl_bench.convert.networks import stripped_key

    counters = "num_batches_tracked"
    heads = list(
        dict.fromkeys(
            counters if k.endswith(counters) else stripped_key(k).partition(".")[0] for k in keys
        )
    )
    heads = [one_line(head) for head in heads]
    return [*heads[:6], *(["..."] if len(heads) > 6 else [])]


def _convention(backbone: "Backbone") -> str:
    convention = backbone.input
    mean, std = (
        " ".join(f"{v:g}" for v in values)
        for values in (convention.pixel_mean, convention.pixel_std)
    )
    filtered = (
        ", high-pass filtered (detection feeds them unfiltered)" if convention.high_pass else ""
    )
    padded = (
        ", padded as TensorFlow's SAME (honoured by classify)" if backbone.padding == "same" else ""
    )
    stride = ", stride in the 1x1" if backbone.stride_in_1x1 else ""
    return f"{convention.input_format}, mean {mean}, std {std}{filtered}{padded}{stride}"

"""The command `harl-bench convert`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from harl_bench.convert.formats import bare_name
from harl_bench.core.errors import UsageError, one_line
from harl_bench.core.options import DryRun, Net
from harl_bench.core.progress import announce, console, log

if TYPE_CHECKING:
    from harl_bench.convert.read import Backbone


def convert(
    checkpoint: Annotated[Path, Parameter(help="A file of any format in docs/convert.md.")],
    /,
    *,
    out: Annotated[
        Path | None,
        Parameter(
            help="Where to write; default: beside the checkpoint, named after it, --net and --to."
        ),
    ] = None,
    to: Annotated[
        Literal["detectron2", "torchvision"], Parameter(help="Names of the written file.")
    ] = "detectron2",
    net: Net = None,
    input: Annotated[
        Literal["imagenet", "std228", "unit", "caffe"] | None,
        Parameter(help="Input convention, where the file does not state it (docs/convert.md 3)."),
    ] = None,
    padding: Annotated[
        Literal["torch", "same"] | None,
        Parameter(
            help="Padding of its training, where the file does not state it: same is TensorFlow's "
            "SAME (BYOL)."
        ),
    ] = None,
    prefix: Annotated[
        str | None,
        Parameter(help="Prefix or container of the network to take, where several are alike."),
    ] = None,
    allow_caffe2: Annotated[bool, Parameter(help="Pass a Caffe2/MSRA file on, unchanged.")] = False,
    inspect: Annotated[
        bool, Parameter(negative="", help="List keys, shapes and candidates; write nothing.")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Turn any ResNet-50 checkpoint into Detectron2's format, and prove that nothing was lost.

    The same command again leaves a file alone that holds the result already.

    Try:

        harl-bench convert moco_v2_800ep_pretrain.pth.tar --out moco_v2.pkl

        harl-bench convert pretrain_res50x1.pth.tar --padding same --out byol.pkl

        harl-bench convert last.pth --inspect
    """
    if inspect:
        announce("convert: reading %s; loading torch", checkpoint)
        _inspect(checkpoint)
        return
    if out is None:
        name = "-".join(filter(None, (bare_name(checkpoint.name), net, to)))
        out = checkpoint.with_name(f"{name}{'.pkl' if to == 'detectron2' else '.pth'}")
    if out.exists() and checkpoint.exists() and out.samefile(checkpoint):
        raise UsageError(
            "the output would replace the checkpoint itself", where=out, next="give another --out"
        )
    announce("convert: reading %s; loading torch", checkpoint)
    from harl_bench.convert.read import read_backbone
    from harl_bench.convert.write import check_ending, is_written, pass_on, write
    from harl_bench.core.manifest import sha256

    if allow_caffe2 and _is_caffe2(checkpoint):
        if out.suffix != ".pkl":
            raise UsageError("a Caffe2 file stays a .pkl", where=out, next="end --out in .pkl")
        if not dry_run:
            pass_on(checkpoint, out)
        log.warning(
            "%s is a Caffe2/MSRA file, %s: train it with Detectron2's plain yaml (BGR, std 1, "
            "stride in the 1x1, batch norm frozen)",
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
    if out.exists() and is_written(backbone, out, to):
        log.info("already converted: %s", out)
        return
    if dry_run:
        log.info("would write %s (--dry-run)", out)
        return
    for line in write(backbone, out, layout=to):
        log.info(line)
    log.info("wrote %s, sha256 %s, input %s", out, sha256(out)[:16], _convention(backbone))


def _is_caffe2(path: Path) -> bool:
    """Return whether a file has every blob of Caffe2's ResNet-50, which Detectron2 renames."""
    from harl_bench.convert.networks import tensor_dicts
    from harl_bench.convert.refusals import caffe2
    from harl_bench.nn import checkpoint

    return any(caffe2(tensors) for _, tensors in tensor_dicts(checkpoint.peek(path).payload))


def _inspect(path: Path) -> None:
    """Print keys, shapes and candidates, without reading a tensor."""
    from harl_bench.convert.haiku import joined
    from harl_bench.convert.networks import candidates, every_tensor, tensor_dicts
    from harl_bench.convert.refusals import reason
    from harl_bench.nn import checkpoint, resnet

    contents = checkpoint.peek(path)
    with checkpoint.telling(path):
        payload = joined(contents.payload)
        for container, tensors in tensor_dicts(payload):
            _print(f"[{'/'.join(container) or 'top level'}] {len(tensors)} tensors")
            for key, value in tensors.items():
                _print(f"  {key}  {tuple(value.shape)}  {str(value.dtype).removeprefix('torch.')}")
        networks = candidates(payload)
        for network in networks:
            count = f"{network.matched} of {len(resnet.shapes())} tensors match"
            name = f"{network.format.name}, {network.net}, prefix {network.where}"
            _print(f"candidate: {name}: {count}")
        if not any(network.complete for network in networks):
            dicts = [every_tensor(payload), *(dict(network.tensors) for network in networks[:1])]
            lack = networks[0].lack if networks else "no network of known names"
            why = next(filter(None, map(reason, dicts)), lack)
            _print(f"no ResNet-50: {why}")
    if contents.stubs:
        _print(f"not rebuilt: {_names(contents.stubs)}")


def _print(text: str) -> None:
    """Print one line, without control characters that names from a file may hold."""
    console.print(one_line(text), markup=False, highlight=False, soft_wrap=True)


def _names(stubs: list[str]) -> str:
    more = f" and {len(stubs) - 12} more" if len(stubs) > 12 else ""
    return one_line(", ".join(stubs[:12]) + more)


def _summary(keys: list[str]) -> list[str]:
    """Return the first parts of the ignored keys (fc, encoder_k, queue ...), at most six."""
    from harl_bench.convert.networks import COUNTER, stripped_key

    first = (COUNTER if k.endswith(COUNTER) else stripped_key(k).partition(".")[0] for k in keys)
    parts = [one_line(part) for part in dict.fromkeys(first)]
    return [*parts[:6], *(["..."] if len(parts) > 6 else [])]


def _convention(backbone: "Backbone") -> str:
    """Describe the input convention, padding and stride of a network."""
    convention = backbone.input
    mean, std = (
        " ".join(f"{v:g}" for v in values)
        for values in (convention.pixel_mean, convention.pixel_std)
    )
    text = f"{convention.input_format}, mean {mean}, std {std}"
    if convention.high_pass:
        text += ", high-pass filtered (detection feeds them unfiltered)"
    if backbone.padding == "same":
        text += ", padded as TensorFlow's SAME (honoured by classify)"
    return f"{text}, stride in the 1x1" if backbone.stride_in_1x1 else text

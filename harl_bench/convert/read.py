"""Read the ResNet-50 of any checkpoint, all 265 tensors, or raise an error that says why not.

`classify` reads a ResNet-18 as well. Its tensors have other shapes, so that no file can be taken
for the other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from harl_bench.convert import statements, values
from harl_bench.convert.formats import CAFFE, CONVENTIONS, PREFERENCE, InputConvention, Net
from harl_bench.convert.haiku import joined
from harl_bench.convert.networks import (
    COUNTER,
    AnyTensor,
    Candidate,
    candidates,
    every_tensor,
    stripped_key,
    tensor_dicts,
)
from harl_bench.convert.refusals import reason
from harl_bench.core import remembered
from harl_bench.core.errors import CheckpointError
from harl_bench.core.lookup import lookup
from harl_bench.core.progress import log
from harl_bench.core.results import CheckpointRef
from harl_bench.nn import checkpoint, resnet
from harl_bench.nn.lazytensor import LazyTensor
from harl_bench.nn.runtime import temporary_seed

RANDOM = "random"
NEXT = "harl-bench convert FILE --inspect lists every key and shape"
JAX = ("jax", "haiku", "flax", "optax", "dill")  # whose objects a pickle may hold
Padding = Literal["torch", "same"]
TITLES = {"resnet50": "ResNet-50", "resnet18": "ResNet-18"}


@dataclass(frozen=True)
class Backbone:
    """A ResNet-50 under torchvision's names, and where it came from.

    Args:
        tensors: the 265 tensors, float32 on the CPU; 100 for a ResNet-18.
        ref: file, hash, format and net.
        input: the convention of its images.
        method: the pretraining method where the file states it ("harl"), else "".
        stride_in_1x1: Detectron2's STRIDE_IN_1X1; False for every torchvision-shaped network.
        feature_grid: of its pretraining at 224 px, and so of its features (nn/resnet.py).
        padding: "same" after training with TensorFlow's SAME (nn/resnet.py pad_same).
        epoch: of pretraining, where the file states it.
        toy: whether its pretraining says nothing about any method (core/toy.py).
        departures: sentences that hold wherever these weights are measured.
        ignored: keys of the file that are not part of this backbone.
        stubs: Python objects in the file that were not rebuilt.
        files: the files it was read from.
        arch: "resnet50", or "resnet18" where the caller asked for it.
    """

    tensors: dict[str, Tensor]
    ref: CheckpointRef
    input: InputConvention
    method: str = ""
    stride_in_1x1: bool = False
    feature_grid: int = 7
    padding: Padding = "torch"
    epoch: int | None = None
    toy: bool = False
    departures: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    stubs: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    arch: str = "resnet50"


def read_backbone(
    source: str | Path,
    *,
    net: Net | None = None,
    convention: str | None = None,
    seed: int = 0,
    prefix: str | None = None,
    padding: Padding | None = None,
    archs: Sequence[str] = ("resnet50",),
) -> Backbone:
    """Read the ResNet-50 of a checkpoint, loading no other tensor of the file.

    Args:
        source: a file, or "random" for torchvision's random initialisation drawn from `seed`.
        archs: names in resnet.FEATURES that the caller can use, the usual one first.
        net: the network to take of several; by default the one that papers convert.
        convention: a name of CONVENTIONS, where the file does not state one.
        prefix: the network's prefix, container or both (`Candidate.key`), where several are alike.
        padding: "same" for TensorFlow's, where the file does not state it.

    Raises:
        CheckpointError: unreadable, not a ResNet-50, ambiguous, or tensors that are not finite.
    """
    if remembered.random_weights(str(source)):
        return random_backbone(seed, str(source), archs)
    path = Path(source)
    contents = checkpoint.peek(path)
    with checkpoint.telling(path):
        payload = joined(contents.payload)
        arch = _arch(payload, archs)
        total = len(resnet.shapes(arch))
        networks = candidates(payload, arch)
        network = _choose(path, payload, networks, net, prefix, contents.stubs, arch)
        _check_names(path, payload, network, arch)
        tensors = {
            name: _loaded(network.tensors[name]).to(torch.float32).contiguous()
            for name in resnet.shapes(arch)
        }
    about = payload.get("harl_bench") if isinstance(payload, dict) else None
    about = about if isinstance(about, dict) else {}
    stated = _input(about)
    if convention is not None:
        requested = lookup(CONVENTIONS, convention, "input convention")
        if stated not in (None, requested):
            what, hint = "the file states another input convention", "leave the option out"
            raise CheckpointError(what, where=path, seen=stated, next=hint)
        stated = requested
    like_caffe = (CAFFE.input_format, CAFFE.pixel_std)
    folded = stated is not None and (stated.input_format, stated.pixel_std) == like_caffe
    # 53 norms and 53 convolutions, 5 tensors together.
    caffe = folded and len(values.untouched(tensors)) * 5 == len(tensors)
    if stated is None and network.spelling == "detectron2":
        log.warning(
            "%s has Detectron2's names and does not state channel order, mean, std or stride "
            "position: torchvision's are assumed (RGB), which is wrong for Detectron2's own MSRA "
            "models",
            path.name,
        )
    departures = statements.departures(payload, about)
    for departure in departures:
        log.warning("%s: %s", path.name, departure)
    departures = list(dict.fromkeys([*departures, *values.check(path, tensors, folded=folded)]))
    complete = {c.net for c in candidates(payload, arch) if c.matched == total}
    usual = next(name for name in PREFERENCE if name in complete)
    # Another network is another row.
    name = _name(path) if network.net == usual else f"{_name(path)}-{network.net}"
    keys = set(dict(tensor_dicts(payload))[network.container])
    own = {key for key in keys if stripped_key(key).startswith(network.prefix)}
    return Backbone(
        tensors=tensors,
        ref=CheckpointRef(
            path=str(path),
            name=name,
            sha256=contents.sha256(),
            format=_text(about, "format") or network.format.name,
            net=_text(about, "net") or network.net,
            asked=network.net != usual,
        ),
        method=statements.method(payload, about),
        input=stated or network.format.input,
        stride_in_1x1=bool(about.get("stride_in_1x1", caffe)),  # as all of Caffe's networks
        feature_grid=_grid(about),
        padding=_padding(path, network, about, padding),
        epoch=_epoch(payload, about),
        toy=about.get("toy") is True,
        departures=departures,
        ignored=sorted(keys - own) + sorted(key for key in own if _leaf(key) in ("fc", COUNTER)),
        stubs=contents.stubs,
        files=contents.files,
        arch=arch,
    )


def random_backbone(
    seed: int, source: str = RANDOM, archs: Sequence[str] = ("resnet50",)
) -> Backbone:
    """Return torchvision's initialisation for a seed, the floor of every table.

    Args:
        source: "random" for a ResNet-50, or a name such as "random-resnet18-grid14".

    Raises:
        CheckpointError: not a network that the caller can use.
    """
    ref, match = remembered.random_weights(source), remembered.RANDOM.fullmatch(source)
    assert ref is not None
    assert match is not None
    arch, grid = "resnet18" if match[1] else "resnet50", int(match[2] or 7)
    if source != RANDOM and "resnet18" not in archs:
        raise CheckpointError(
            "only classify measures other random networks than ResNet-50",
            seen=source,
            next=RANDOM,
        )
    with temporary_seed(seed):
        tensors = resnet.backbone_tensors(resnet.build(arch))
    return Backbone(
        tensors=tensors,
        ref=ref,
        method=RANDOM,
        input=InputConvention(),
        feature_grid=grid,
        arch=arch,
    )


def _arch(payload: Any, archs: Sequence[str]) -> str:
    """Return the first network of `archs` that the file has whole, else the first of all."""
    whole = (
        a for a in archs if any(c.matched == len(resnet.shapes(a)) for c in candidates(payload, a))
    )
    return next(whole, archs[0])


def _choose(
    path: Path,
    payload: Any,
    networks: list[Candidate],
    net: Net | None,
    prefix: str | None,
    stubs: list[str],
    arch: str,
) -> Candidate:
    total = len(resnet.shapes(arch))
    complete = [c for c in networks if c.matched == total]
    if not complete:
        raise _no_resnet(path, payload, networks, stubs)
    if prefix is not None and not (complete := _under(prefix, everyone := complete)):
        raise CheckpointError(
            f"no ResNet-50 under {prefix!r}",
            where=path,
            seen=", ".join(repr(c.key) for c in everyone),
            next=f'--prefix "{everyone[0].key}"' if everyone[0].key else "leave --prefix out",
        )
    nets = {c.net for c in complete}
    if net is not None and net not in nets:
        what, seen = f"no {net} network in this checkpoint", ", ".join(sorted(nets))
        raise CheckpointError(what, where=path, seen=seen, next="--net")
    net = net or next(n for n in PREFERENCE if n in nets)
    matches = _distinct([c for c in complete if c.net == net], arch)
    if len(matches) > 1:
        raise CheckpointError(
            f"{len(matches)} {net} networks in one checkpoint",
            where=path,
            seen=", ".join(c.where for c in matches),
            next="harl-bench convert FILE --prefix " + " or ".join(f'"{c.key}"' for c in matches),
        )
    if len(nets) > 1:
        others = ", ".join(f"{c.net} ({c.where})" for c in complete if c.net != net)
        text = "%s: taking the %s network (%s); also present: %s"
        log.info(text, path.name, net, matches[0].where, others)
    return matches[0]


def _under(prefix: str, networks: list[Candidate]) -> list[Candidate]:
    """Return the networks whose key, else whose prefix, else whose container is this."""
    stripped = stripped_key(prefix if prefix.endswith(".") else f"{prefix}.")
    names = {prefix.rstrip("./~"), stripped.rstrip("./~")}
    ways = (lambda c: c.key, lambda c: c.prefix.rstrip("./~"), lambda c: "/".join(c.container))
    return next((fits for way in ways if (fits := [c for c in networks if way(c) in names])), [])


def _no_resnet(
    path: Path, payload: Any, networks: list[Candidate], stubs: list[str]
) -> CheckpointError:
    """Return the error that says why there is no ResNet-50."""
    tensors = every_tensor(payload)
    if not tensors and any(stub.partition(".")[0] in JAX for stub in stubs):
        return CheckpointError(
            "the file holds no tensors by name, only objects of JAX's libraries",
            where=path,
            seen=", ".join(stubs[:4]),
            next="with JAX, pickle {'online_params': {module: {name: numpy array}}, "
            "'online_state': likewise} instead",
        )
    if not tensors and stubs:
        return CheckpointError(
            "the file holds no tensors by name, only pickled objects",
            where=path,
            seen=", ".join(stubs[:4]),
            next="save model.state_dict() instead of the model",
        )
    seen, why = f"{len(tensors)} tensors", reason(tensors)
    if networks:
        best, total = networks[0], len(resnet.shapes())
        seen = f"{best.matched} of {total} tensors match under {best.where}"
        why = why or reason(dict(best.tensors))
    seen = f"{seen}; {why}" if why else seen
    what = "no ResNet-50 backbone in this checkpoint"
    return CheckpointError(what, where=path, seen=seen, next=NEXT)


def _check_names(path: Path, payload: Any, network: Candidate, arch: str) -> None:
    """Refuse tensors beyond the 265, which belong to another kind of network."""
    if extra := sorted(set(network.tensors) - set(resnet.shapes(arch))):
        why = reason(dict(network.tensors))
        seen = f"{len(extra)} more under {network.where}, such as {extra[0]}"
        seen = f"{seen}; {why}" if why else seen
        what = f"more than a {TITLES[arch]} backbone in this checkpoint"
        raise CheckpointError(what, where=path, seen=seen, next=NEXT)


def _distinct(networks: list[Candidate], arch: str) -> list[Candidate]:
    """Leave out copies of the first, as our own files hold the backbone twice."""
    first, *others = networks
    return [
        first,
        *(
            other
            for other in others
            if any(_differ(other.tensors[n], first.tensors[n]) for n in resnet.shapes(arch))
        ),
    ]


def _differ(a: AnyTensor, b: AnyTensor) -> bool:
    if (
        isinstance(a, LazyTensor)
        and isinstance(b, LazyTensor)
        and a.storage is b.storage
        and a.offset == b.offset
    ):
        return a.stride != b.stride  # shared: `backbone.` and `encoder_q.0.` of one module
    return not torch.equal(_loaded(a), _loaded(b))


def _loaded(tensor: AnyTensor) -> Tensor:
    return tensor.load() if isinstance(tensor, LazyTensor) else tensor


def _text(about: Mapping[str, Any], name: str) -> str | None:
    """Return an entry if it is text. The str() of an object from a file could take forever."""
    return value if isinstance(value := about.get(name), str) else None


def _input(about: Mapping[str, Any]) -> InputConvention | None:
    if "input_format" not in about:
        return None
    try:
        mean, std = tuple(map(float, about["pixel_mean"])), tuple(map(float, about["pixel_std"]))
        order = {"RGB": "RGB", "BGR": "BGR"}[_text(about, "input_format") or ""]
        (_, _, _), (_, _, _) = mean, std
    except (KeyError, TypeError, ValueError) as error:
        seen = f"{type(error).__name__}: {error}"
        raise CheckpointError(
            "its harl_bench entry is damaged", seen=seen, next="convert the source again"
        ) from None
    return InputConvention(order, mean, std, about.get("high_pass") is True)  # type: ignore[arg-type]


def _grid(about: Mapping[str, Any]) -> int:
    value = about.get("feature_grid", 7)
    if isinstance(value, int) and value in resnet.UNIT_STRIDE:
        return value
    raise CheckpointError(
        "its harl_bench entry is damaged",
        seen="feature_grid is none of 7, 14, 28",
        next="convert the source again",
    )


def _padding(
    path: Path, network: Candidate, about: Mapping[str, Any], requested: Padding | None
) -> Padding:
    """Return the padding that the file, its layout (haiku's is SAME) or the user states."""
    stated = about.get("padding", "same" if network.spelling == "haiku" else None)
    if stated not in (None, "torch", "same"):
        raise CheckpointError(
            "its harl_bench entry is damaged",
            where=path,
            seen="padding is neither torch nor same",
            next="convert the source again",
        )
    if stated and requested and stated != requested:
        what, hint = "the file states another padding", "leave the option out"
        raise CheckpointError(what, where=path, seen=stated, next=hint)
    return "same" if "same" in (stated, requested) else "torch"


def _leaf(key: str) -> str:
    parts = key.split(".")
    return "fc" if "fc" in parts[-2:-1] else parts[-1]


def _epoch(payload: Any, about: Mapping[str, Any]) -> int | None:
    for holder in (about, payload if isinstance(payload, Mapping) else {}):
        value = holder.get("epoch")
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31:
            return value
    return None


def _name(path: Path) -> str:
    """Return the file's name, with its folder's for a generic one such as last.pth."""
    name = path.name
    for suffix in (".tar", ".pth", ".pt", ".pkl", ".ckpt", ".safetensors", ".bin", ".json"):
        name = name.removesuffix(suffix)
    name = name.removesuffix(".index").removesuffix(".safetensors").removesuffix(".bin")
    folder = path.resolve().parent.name
    generic = name in ("last", "checkpoint", "model_final", "best")
    return f"{folder}-{name}" if generic and folder else name

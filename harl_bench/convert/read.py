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
from harl_bench.convert.choice import architecture, check_names, choose, loaded
from harl_bench.convert.formats import (
    CAFFE,
    CONVENTIONS,
    PREFERENCE,
    InputConvention,
    Net,
    bare_name,
)
from harl_bench.convert.haiku import joined
from harl_bench.convert.networks import (
    COUNTER,
    Candidate,
    candidates,
    stripped_key,
    tensor_dicts,
)
from harl_bench.core import remembered
from harl_bench.core.errors import CheckpointError
from harl_bench.core.lookup import lookup
from harl_bench.core.progress import log
from harl_bench.core.results import CheckpointRef
from harl_bench.nn import checkpoint, resnet
from harl_bench.nn.runtime import temporary_seed

RANDOM = "random"
Padding = Literal["torch", "same"]


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
        arch = architecture(payload, archs)
        total = len(resnet.shapes(arch))
        networks = candidates(payload, arch)
        network = choose(path, payload, networks, net, prefix, contents.stubs, arch)
        check_names(path, network, arch)
        tensors = {
            name: loaded(network.tensors[name]).to(torch.float32).contiguous()
            for name in resnet.shapes(arch)
        }
    about = payload.get("harl_bench") if isinstance(payload, dict) else None
    about = about if isinstance(about, dict) else {}
    stated = stated_input(about)
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


def _text(about: Mapping[str, Any], name: str) -> str | None:
    """Return an entry if it is text. The str() of an object from a file could take forever."""
    return value if isinstance(value := about.get(name), str) else None


def stated_input(about: Mapping[str, Any]) -> InputConvention | None:
    """Return the input convention that a file's `harl_bench` entry states, None if it does not.

    Raises:
        CheckpointError: the entry is damaged.
    """
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
    name = bare_name(path.name)
    folder = path.resolve().parent.name
    generic = name in ("last", "checkpoint", "model_final", "best")
    return f"{folder}-{name}" if generic and folder else name

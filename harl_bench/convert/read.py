"""Read the ResNet-50 of any checkpoint: 265 of 265 tensors, or an error that says what the file
holds instead.

`classify` reads a ResNet-18 as well. Its 100 tensors have other shapes, so that no file can be
taken for the other.
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
        method: what trained it, where the file states it ("harl"); "" otherwise: names of keys are
            no statement.
        input: what its images must look like.
        stride_in_1x1: Detectron2's STRIDE_IN_1X1; False for every torchvision-shaped network.
        feature_grid: of its pretraining at 224 px; other than 7 by stride (nn/resnet.py), and
            features need the same.
        padding: "same" for a network that was trained with TensorFlow's SAME (nn/resnet.py
            pad_same).
        epoch: of pretraining, when the file tells.
        toy: whether its pretraining says nothing about any method (core/toy.py).
        departures: what holds of these weights wherever they are measured, one sentence each.
        ignored: keys of the file that are not part of this backbone.
        stubs: Python objects in the file that were not rebuilt.
        files: that it was read from.
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
    """Read the ResNet-50 of a checkpoint; of the file's tensors only these 265 are loaded.

    Args:
        source: a file, or "random" for torchvision's random initialisation drawn from `seed`.
        archs: names in resnet.FEATURES that the caller can use, the usual one first.
        net: which network to take where there are several; by default what papers convert.
        convention: a name of CONVENTIONS for what its images look like, where the file does not
            say.
        prefix: of the network's names, or its container, or both (`Candidate.key`), where several
            are alike.
        padding: "same" for TensorFlow's, where the file does not say.

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
        chosen = _choose(
            path, payload, candidates(payload, arch), net, prefix, contents.stubs, arch
        )
        _check_names(path, payload, chosen, arch)
        tensors = {
            name: _loaded(chosen.tensors[name]).to(torch.float32).contiguous()
            for name in resnet.shapes(arch)
        }
    about = payload.get("harl_bench") if isinstance(payload, dict) else None
    about = about if isinstance(about, dict) else {}
    stated = _input(about)
    if convention is not None:
        wanted = lookup(CONVENTIONS, convention, "input convention")
        if stated not in (None, wanted):
            raise CheckpointError(
                "the file states another input convention",
                where=path,
                seen=stated,
                next="leave the option out",
            )
        stated = wanted
    folded = stated is not None and (stated.input_format, stated.pixel_std) == (
        CAFFE.input_format,
        CAFFE.pixel_std,
    )
    caffe = folded and len(values.untouched(tensors)) * 5 == len(
        tensors
    )  # 53 norms and 53 convolutions, 5 tensors
    if stated is None and chosen.spelling == "detectron2":
        log.warning(
            "%s has Detectron2's names and does not say its channel order, mean, std or stride "
            "position: torchvision's "
            "are assumed (RGB), which is wrong for Detectron2's own MSRA models",
            path.name,
        )
    departures = statements.departures(payload, about)
    for departure in departures:
        log.warning("%s: %s", path.name, departure)
    departures = list(dict.fromkeys([*departures, *values.check(path, tensors, folded=folded)]))
    complete = {c.net for c in candidates(payload, arch) if c.matched == total}
    usual = next(name for name in PREFERENCE if name in complete)
    name = (
        _name(path) if chosen.net == usual else f"{_name(path)}-{chosen.net}"
    )  # another network, another row
    inside = dict(tensor_dicts(payload))[chosen.container]
    known = {key for key in inside if stripped_key(key).startswith(chosen.prefix)}
    return Backbone(
        tensors=tensors,
        ref=CheckpointRef(
            path=str(path),
            name=name,
            sha256=contents.sha256(),
            format=_text(about, "format") or chosen.format.name,
            net=_text(about, "net") or chosen.net,
            asked=chosen.net != usual,
        ),
        method=statements.method(payload, about),
        input=stated or chosen.format.input,
        stride_in_1x1=bool(about.get("stride_in_1x1", caffe)),  # as every network of Caffe's
        feature_grid=_grid(about),
        padding=_padding(path, chosen, about, padding),
        epoch=_epoch(payload, about),
        toy=about.get("toy") is True,
        departures=departures,
        ignored=sorted(set(inside) - known)
        + sorted(k for k in known if _leaf(k) in ("fc", COUNTER)),
        stubs=contents.stubs,
        files=contents.files,
        arch=arch,
    )


def random_backbone(
    seed: int, source: str = RANDOM, archs: Sequence[str] = ("resnet50",)
) -> Backbone:
    """torchvision's initialisation, decided by the seed: the floor every table should show.

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
            "only classify measures other random networks than ResNet-50", seen=source, next=RANDOM
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
    """The first network of `archs` that the file has whole, the first of all if it has none."""
    whole = (
        a for a in archs if any(c.matched == len(resnet.shapes(a)) for c in candidates(payload, a))
    )
    return next(whole, archs[0])


def _choose(
    path: Path,
    payload: Any,
    found: list[Candidate],
    net: Net | None,
    prefix: str | None,
    stubs: list[str],
    arch: str,
) -> Candidate:
    total = len(resnet.shapes(arch))
    complete = [c for c in found if c.matched == total]
    if not complete:
        raise _none(path, payload, found, stubs)
    if prefix is not None and not (complete := _called(prefix, everyone := complete)):
        raise CheckpointError(
            f"no ResNet-50 under {prefix!r}",
            where=path,
            seen=", ".join(repr(c.key) for c in everyone),
            next=f'--prefix "{everyone[0].key}"' if everyone[0].key else "leave --prefix out",
        )
    nets = {c.net for c in complete}
    if net is not None and net not in nets:
        raise CheckpointError(
            f"no {net} network in this checkpoint",
            where=path,
            seen=", ".join(sorted(nets)),
            next="--net",
        )
    wanted = net or next(n for n in PREFERENCE if n in nets)
    chosen = _distinct([c for c in complete if c.net == wanted], arch)
    if len(chosen) > 1:
        raise CheckpointError(
            f"{len(chosen)} {wanted} networks in one checkpoint",
            where=path,
            seen=", ".join(c.where for c in chosen),
            next="harl-bench convert FILE --prefix " + " or ".join(f'"{c.key}"' for c in chosen),
        )
    if len(nets) > 1:
        others = ", ".join(f"{c.net} ({c.where})" for c in complete if c.net != wanted)
        log.info(
            "%s: taking the %s network (%s); also there: %s",
            path.name,
            wanted,
            chosen[0].where,
            others,
        )
    return chosen[0]


def _called(prefix: str, found: list[Candidate]) -> list[Candidate]:
    """The networks whose container and prefix, or whose prefix, or whose container is this: the
    first way that fits.
    """
    wanted = {
        prefix.rstrip("./~"),
        stripped_key(prefix if prefix.endswith(".") else f"{prefix}.").rstrip("./~"),
    }
    ways = (lambda c: c.key, lambda c: c.prefix.rstrip("./~"), lambda c: "/".join(c.container))
    return next((fits for way in ways if (fits := [c for c in found if way(c) in wanted])), [])


def _none(path: Path, payload: Any, found: list[Candidate], stubs: list[str]) -> CheckpointError:
    """Why there is no ResNet-50."""
    tensors = every_tensor(payload)
    if not tensors and any(stub.partition(".")[0] in JAX for stub in stubs):
        return CheckpointError(
            "the file holds no tensors by name, only objects of JAX's libraries",
            where=path,
            seen=", ".join(stubs[:4]),
            next=(
                "there, pickle {'online_params': {module: {name: numpy array}}, 'online_state': "
                "likewise} instead"
            ),
        )
    if not tensors and stubs:
        return CheckpointError(
            "the file holds no tensors by name, only pickled objects",
            where=path,
            seen=", ".join(stubs[:4]),
            next="save model.state_dict() instead of the model",
        )
    best = f"{len(tensors)} tensors"
    if found:
        best = f"{found[0].matched} of {len(resnet.shapes())} tensors match under {found[0].where}"
    why = reason(tensors) or (reason(dict(found[0].tensors)) if found else None)
    return CheckpointError(
        "no ResNet-50 backbone in this checkpoint",
        where=path,
        seen=f"{best}; {why}" if why else best,
        next=NEXT,
    )


def _check_names(path: Path, payload: Any, chosen: Candidate, arch: str) -> None:
    """Tensors beyond the 265 are another network's: say which."""
    if extra := sorted(set(chosen.tensors) - set(resnet.shapes(arch))):
        why = reason(dict(chosen.tensors))
        seen = f"{len(extra)} more under {chosen.where}, such as {extra[0]}"
        raise CheckpointError(
            f"more than a {TITLES[arch]} backbone in this checkpoint",
            where=path,
            seen=f"{seen}; {why}" if why else seen,
            next=NEXT,
        )


def _distinct(found: list[Candidate], arch: str) -> list[Candidate]:
    """Without copies of the first: our own file holds the backbone twice, once for the world and
    once to go on from.
    """
    first = found[0].tensors
    return [
        found[0],
        *(
            c
            for c in found[1:]
            if any(_differ(c.tensors[n], first[n]) for n in resnet.shapes(arch))
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
    """An entry, if it is text; the text of anything else that a file may hold could take forever to
    make.
    """
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
    path: Path, chosen: Candidate, about: Mapping[str, Any], asked: Padding | None
) -> Padding:
    """What the file states, or its layout (every network of haiku's pads so), or what the user
    says.
    """
    stated = about.get("padding", "same" if chosen.spelling == "haiku" else None)
    if stated not in (None, "torch", "same"):
        raise CheckpointError(
            "its harl_bench entry is damaged",
            where=path,
            seen="padding is neither torch nor same",
            next="convert the source again",
        )
    if stated and asked and stated != asked:
        raise CheckpointError(
            "the file states another padding", where=path, seen=stated, next="leave the option out"
        )
    return "same" if "same" in (stated, asked) else "torch"


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
    """The file's name; a training run's last.pth is named after its folder."""
    name = path.name
    for suffix in (".tar", ".pth", ".pt", ".pkl", ".ckpt", ".safetensors", ".bin", ".json"):
        name = name.removesuffix(suffix)
    name = name.removesuffix(".index").removesuffix(".safetensors").removesuffix(".bin")
    generic = name in ("last", "checkpoint", "model_final", "best")
    return (
        f"{path.resolve().parent.name}-{name}" if generic and path.resolve().parent.name else name
    )

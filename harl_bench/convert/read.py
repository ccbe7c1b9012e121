"""Find the ResNet-50 in any checkpoint: 265 of 265 tensors, or an error that says what the file holds instead."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harl_bench.convert.formats import CHILDREN, FORMATS, PREFERENCE, WRAPPERS, Format, InputConvention, Net
from harl_bench.convert.names import to_torchvision
from harl_bench.convert.refusals import reason
from harl_bench.core.errors import CheckpointError
from harl_bench.core.manifest import sha256
from harl_bench.core.progress import log
from harl_bench.core.results import CheckpointRef
from harl_bench.nn import checkpoint, resnet
from harl_bench.nn.runtime import temporary_seed

RANDOM = "random"
DEPTH = 6  # how deep containers are searched for; VISSL's lies at 4
NEXT = "harl-bench convert FILE --inspect lists every key and shape"


@dataclass(frozen=True)
class Backbone:
    """A ResNet-50 under torchvision's names, and where it came from.

    Args:
        tensors: the 265 tensors, float32 on the CPU.
        ref: file, hash, format and net.
        method: what trained it, when the file tells ("harl"); otherwise the format.
        input: what its pictures must look like.
        stride_in_1x1: Detectron2's STRIDE_IN_1X1; False for every torchvision-shaped network.
        epoch: of pretraining, when the file tells.
        ignored: keys of the file that are not part of this backbone.
        stubs: Python objects in the file that were not rebuilt.
    """

    tensors: dict[str, Tensor]
    ref: CheckpointRef
    input: InputConvention
    method: str = ""
    stride_in_1x1: bool = False
    epoch: int | None = None
    ignored: list[str] = field(default_factory=list)
    stubs: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Candidate:
    """One network found in a file: its tensors under torchvision's names, and how many match ResNet-50."""

    container: tuple[str, ...]
    prefix: str
    tensors: dict[str, Tensor]
    matched: int
    format: Format
    net: Net


def read_backbone(source: str | Path, *, net: Net | None = None, seed: int = 0) -> Backbone:
    """Read the ResNet-50 of a checkpoint.

    Args:
        source: a file, or "random" for torchvision's random initialisation drawn from `seed`.
        net: which network to take where there are several; by default what papers convert.

    Raises:
        CheckpointError: unreadable, not a ResNet-50, ambiguous, or tensors that are not finite.
    """
    if str(source) == RANDOM:
        return random_backbone(seed)
    path = Path(source)
    payload, stubs = checkpoint.read(path)
    found = candidates(payload)
    chosen = _choose(path, payload, found, net, stubs)
    resnet.check(chosen.tensors)
    _check_values(path, chosen.tensors)
    about = payload.get("harl_bench") if isinstance(payload, dict) else None
    about = about if isinstance(about, dict) else {}
    if not about and any("stem.conv1" in key for key in dict(tensor_dicts(payload))[chosen.container]):
        log.warning(
            "%s has Detectron2's names and does not say its channel order, mean, std or stride position: torchvision's "
            "are assumed (RGB), which is wrong for Detectron2's own MSRA models",
            path.name,
        )
    inside = dict(tensor_dicts(payload))[chosen.container]
    known = {key for key in inside if stripped_key(key).startswith(chosen.prefix)}
    return Backbone(
        tensors=chosen.tensors,
        ref=CheckpointRef(
            path=str(path), name=_name(path), sha256=sha256(path),
            format=str(about.get("format") or chosen.format.name), net=str(about.get("net") or chosen.net),
        ),
        method=str(about.get("method") or about.get("format") or chosen.format.name),
        input=_input(about) or chosen.format.input,
        stride_in_1x1=bool(about.get("stride_in_1x1", False)),
        epoch=_epoch(payload, about),
        ignored=sorted(set(inside) - known) + sorted(k for k in known if _leaf(k) in ("fc", "num_batches_tracked")),
        stubs=stubs,
    )  # fmt: skip


def random_backbone(seed: int) -> Backbone:
    """torchvision's ResNet-50 initialisation, decided by the seed: the floor every table should show."""
    with temporary_seed(seed):
        tensors = resnet.backbone_tensors(resnet.resnet50())
    ref = CheckpointRef(path=RANDOM, name=RANDOM, sha256="", format=RANDOM)
    return Backbone(tensors=tensors, ref=ref, method=RANDOM, input=InputConvention())


def candidates(payload: Any) -> list[Candidate]:
    """Every ResNet-like network in a payload, best match first."""
    found: list[Candidate] = []
    for container, tensors in tensor_dicts(payload):
        stripped = {stripped_key(key): value for key, value in tensors.items()}
        if len(stripped) != len(tensors):  # wrappers told two networks apart: keep them
            stripped = dict(tensors)
        roots = [(prefix, named) for prefix in _prefixes(stripped) if (named := _renamed(stripped, prefix))]
        form = _format(container, stripped, [prefix for prefix, _ in roots])
        for prefix, named in roots:
            matched = sum(n in named and tuple(named[n].shape) == shape for n, shape in resnet.shapes().items())
            named_nets = {form.prefix: form.net, **{p: n for n, p in form.nets}} if form and form.specific else {}
            fallback = form or Format(f"prefix {prefix!r}", prefix)
            net = named_nets.get(prefix) or _guess_net(container, prefix)
            found.append(Candidate(container, prefix, named, matched, fallback, net))
    return sorted(found, key=lambda c: -c.matched)


def _choose(path: Path, payload: Any, found: list[Candidate], net: Net | None, stubs: list[str]) -> Candidate:
    total = len(resnet.shapes())
    complete = [c for c in found if c.matched == total]
    if not complete:
        shapes = {key: tuple(v.shape) for _, tensors in tensor_dicts(payload) for key, v in tensors.items()}
        why = reason(shapes)
        if not shapes and stubs:
            raise CheckpointError(
                "the file holds no tensors by name, only pickled objects",
                where=path,
                seen=", ".join(stubs[:4]),
                next="save model.state_dict() instead of the model",
            )
        best = (
            f"{found[0].matched} of {total} tensors match under {found[0].prefix!r}"
            if found
            else f"{len(shapes)} tensors"
        )
        raise CheckpointError(
            "no ResNet-50 backbone in this checkpoint", where=path, seen=f"{best}; {why}" if why else best, next=NEXT
        )
    nets = {c.net for c in complete}
    if net is not None and net not in nets:
        raise CheckpointError(
            f"no {net} network in this checkpoint", where=path, seen=", ".join(sorted(nets)), next="--net"
        )
    wanted = net or next(n for n in PREFERENCE if n in nets)
    chosen = _distinct([c for c in complete if c.net == wanted])
    if len(chosen) > 1:
        seen = ", ".join(f"{'/'.join(c.container) or 'top level'}: {c.prefix!r}" for c in chosen)
        raise CheckpointError(f"{len(chosen)} {wanted} networks in one checkpoint", where=path, seen=seen, next=NEXT)
    if len(nets) > 1:
        others = ", ".join(f"{c.net} ({c.prefix!r})" for c in complete if c.net != wanted)
        log.info("%s: taking the %s network (%r); also there: %s", path.name, wanted, chosen[0].prefix, others)
    return chosen[0]


def _distinct(found: list[Candidate]) -> list[Candidate]:
    """Without copies of the first: our own file holds the backbone twice, once for the world and once to go on from."""
    first = found[0].tensors
    return [
        found[0],
        *(c for c in found[1:] if any(not torch.equal(c.tensors[name], first[name]) for name in resnet.shapes())),
    ]


def tensor_dicts(payload: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """All mappings in the payload that hold tensors by name, with the path to each."""
    if not isinstance(payload, Mapping) or len(path) > DEPTH:
        return
    tensors = {str(k): t for k, v in payload.items() if isinstance(k, str) and (t := _tensor(v)) is not None}
    if tensors:
        yield path, tensors
    for key, value in payload.items():
        if isinstance(value, Mapping):
            yield from tensor_dicts(value, (*path, str(key)))


def _tensor(value: Any) -> Tensor | None:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
        return torch.from_numpy(value if value.flags.writeable else value.copy())
    return None


def _prefixes(tensors: Mapping[str, Tensor]) -> list[str]:
    """Where a ResNet may begin: the part before its stem's name."""
    stems = ("stem.conv1.weight", "conv1.weight", "0.weight")
    found = []
    for key in tensors:
        for stem in stems:
            prefix = key.removesuffix(stem)
            if prefix != key and (not prefix or prefix.endswith(".")):
                first = {"conv1.weight": "layer1.0.conv1.weight", "0.weight": "4.0.conv1.weight"}.get(
                    stem, "res2.0.conv1.weight"
                )
                if f"{prefix}{first}" in tensors:
                    found.append(prefix)
    return list(dict.fromkeys(found))


def _renamed(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors below a prefix under torchvision's names, float32, without the classifier and step counters."""
    below = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
    if "stem.conv1.weight" in below:  # Detectron2; in a C4 detector res5 lies in the heads
        heads = {key[len("roi_heads.") :]: v for key, v in tensors.items() if key.startswith("roi_heads.res5.")}
        renamed = {}
        for key, value in {**heads, **below}.items():
            try:
                renamed[to_torchvision(key)] = value
            except KeyError:
                continue
        below = renamed
    elif "4.0.conv1.weight" in below:
        below = {
            f"{CHILDREN[head]}.{rest}": value
            for key, value in below.items()
            if (head := key.partition(".")[0]) in CHILDREN and (rest := key.partition(".")[2])
        }
    names = resnet.shapes()
    return {
        key: value.to(torch.float32).contiguous()
        for key, value in below.items()
        if key in names or (key.startswith(("layer", "conv1.", "bn1.")) and _leaf(key) != "num_batches_tracked")
    }


def _format(container: tuple[str, ...], tensors: Mapping[str, Tensor], prefixes: list[str]) -> Format | None:
    for form in FORMATS:
        if form.prefix not in prefixes:
            continue
        if form.container is not None and (not container or container[-1] != form.container):
            continue
        if form.marker is None or form.marker in tensors:
            return form
        if form.marker.endswith(".") and any(key.startswith(form.marker) for key in tensors):
            return form
    return None


def _guess_net(container: tuple[str, ...], prefix: str) -> Net:
    words = ".".join((*container, prefix)).lower()
    if "student" in words:
        return "student"
    if "teacher" in words:
        return "teacher"
    return "momentum" if any(w in words for w in ("momentum", "target", "encoder_k", "key", "ema")) else "online"


def stripped_key(key: str) -> str:
    """Without leading wrapper parts, taken off as whole parts and repeatedly."""
    while key.startswith(WRAPPERS):
        key = key.partition(".")[2]
    return key


def _leaf(key: str) -> str:
    parts = key.split(".")
    return "fc" if "fc" in parts[-2:-1] else parts[-1]


def _check_values(path: Path, tensors: Mapping[str, Tensor]) -> None:
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise CheckpointError("a tensor is not finite", where=path, seen=name, next="take an earlier checkpoint")
        if name.endswith("running_var") and not (value > 0).all():
            raise CheckpointError("a batch-norm variance is not positive", where=path, seen=name, next=NEXT)


def _input(about: Mapping[str, Any]) -> InputConvention | None:
    if "input_format" not in about:
        return None
    try:
        mean, std = tuple(map(float, about["pixel_mean"])), tuple(map(float, about["pixel_std"]))
        order = {"RGB": "RGB", "BGR": "BGR"}[about["input_format"]]
        (_, _, _), (_, _, _) = mean, std
    except (KeyError, TypeError, ValueError) as error:
        seen = f"{type(error).__name__}: {error}"
        raise CheckpointError("its harl_bench entry is damaged", seen=seen, next="convert the source again") from None
    return InputConvention(order, mean, std, about.get("high_pass") is True)  # type: ignore[arg-type]


def _epoch(payload: Any, about: Mapping[str, Any]) -> int | None:
    for holder in (about, payload if isinstance(payload, Mapping) else {}):
        if isinstance(value := holder.get("epoch"), int):
            return value
    return None


def _name(path: Path) -> str:
    """The file's name; a training run's last.pth is named after its folder."""
    name = path.name
    for suffix in (".tar", ".pth", ".pt", ".pkl", ".ckpt", ".safetensors", ".bin"):
        name = name.removesuffix(suffix)
    generic = name in ("last", "checkpoint", "model_final", "best")
    return f"{path.resolve().parent.name}-{name}" if generic and path.resolve().parent.name else name

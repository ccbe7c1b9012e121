"""Which network of a checkpoint is read, and why none is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harl_bench.convert.formats import PREFERENCE, Net
from harl_bench.convert.networks import AnyTensor, Candidate, candidates, every_tensor, stripped_key
from harl_bench.convert.refusals import reason
from harl_bench.core.errors import CheckpointError
from harl_bench.core.progress import log
from harl_bench.nn import resnet
from harl_bench.nn.lazytensor import LazyTensor

NEXT = "harl-bench convert FILE --inspect lists every key and shape"
JAX = ("jax", "haiku", "flax", "optax", "dill")  # whose objects a pickle may hold
TITLES = {"resnet50": "ResNet-50", "resnet18": "ResNet-18"}


def architecture(payload: Any, archs: Sequence[str]) -> str:
    """Return the first network of `archs` that the file has whole, else the first of all."""
    whole = (
        a for a in archs if any(c.matched == len(resnet.shapes(a)) for c in candidates(payload, a))
    )
    return next(whole, archs[0])


def choose(
    path: Path,
    payload: Any,
    networks: list[Candidate],
    net: Net | None,
    prefix: str | None,
    stubs: list[str],
    arch: str,
) -> Candidate:
    """Return the network to read: complete, and the one of `net` and `prefix` or the usual one.

    Raises:
        CheckpointError: none is complete, none is of that net or prefix, or several differ.
    """
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
        hint = f"leave --net out, or give --net {' or '.join(sorted(nets))}"
        raise CheckpointError(what, where=path, seen=seen, next=hint)
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
        why = why or reason(dict(best.tensors)) or best.lack
    seen = f"{seen}; {why}" if why else seen
    what = "no ResNet-50 backbone in this checkpoint"
    return CheckpointError(what, where=path, seen=seen, next=NEXT)


def check_names(path: Path, network: Candidate, arch: str) -> None:
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
    return not torch.equal(loaded(a), loaded(b))


def loaded(tensor: AnyTensor) -> Tensor:
    """Return the tensor itself, read from its file if it was not yet."""
    return tensor.load() if isinstance(tensor, LazyTensor) else tensor

"""Find the ResNets in a checkpoint's payload, with their format and completeness."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from harl_bench.convert.formats import FORMATS, WRAPPERS, Format, Net
from harl_bench.convert.haiku import joined
from harl_bench.convert.names import SPELLINGS
from harl_bench.nn import resnet
from harl_bench.nn.lazytensor import LazyTensor

DEPTH = 6  # how deep containers are searched for; VISSL's lies at 4
AnyTensor = LazyTensor | Tensor
COUNTER = "num_batches_tracked"
# torch's wrappers inside names.
INSIDE = re.compile(r"(?<![^.])(?:_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module)\.")
# paddle.nn.BatchNorm2D's names; its others are torchvision's.
PADDLE = {"_mean": "running_mean", "_variance": "running_var"}


@dataclass(frozen=True)
class Candidate:
    """One network in a file.

    Args:
        container: path to the dict that holds it.
        prefix: of its names, wrapper parts stripped.
        tensors: under torchvision's names, without classifier and step counters.
        matched: how many of the wanted ResNet's tensors have the right name, shape and kind.
        format: the row of the table.
        net: online, momentum, teacher or student.
        spelling: the naming scheme (convert/names.py).
    """

    container: tuple[str, ...]
    prefix: str
    tensors: dict[str, AnyTensor]
    matched: int
    format: Format
    net: Net
    spelling: str

    @property
    def complete(self) -> bool:
        """Return whether it has all of ResNet-50's tensors and, unlike a ResNet-101, no other."""
        return self.matched == len(resnet.shapes()) == len(self.tensors)

    @property
    def lack(self) -> str:
        """Return which of ResNet-50's tensors it lacks, else the first of another shape."""
        expected = resnet.shapes()
        if absent := [name for name in expected if name not in self.tensors]:
            more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
            return f"missing {absent[0]}{more}"
        shapes = {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}
        odd = (name for name, shape in expected.items() if shapes[name] != shape)
        return next((f"{name} is {shapes[name]}, not {expected[name]}" for name in odd), "")

    @property
    def key(self) -> str:
        """Return the name that --prefix takes: container and prefix, `state_dict/encoder_q`."""
        return "/".join(part for part in (*self.container, self.prefix.rstrip("./~")) if part)

    @property
    def where(self) -> str:
        """Return the prefix and its container for messages."""
        return f"{self.prefix!r} in {'/'.join(self.container) or 'top level'}"


def candidates(payload: Any, arch: str = "resnet50") -> list[Candidate]:
    """Return every ResNet-like network in a payload, best match with `arch` first."""
    networks: list[Candidate] = []
    payload = joined(payload)
    for container, tensors in tensor_dicts(payload):
        stripped = {stripped_key(key): value for key, value in tensors.items()}
        if len(stripped) != len(tensors):  # wrappers distinguished two networks: keep them
            stripped = dict(tensors)
        roots = list(_roots(stripped))
        form = _format(container, stripped, roots)
        for prefix, spelling in roots:
            named = _renamed(stripped, prefix, spelling)
            fallback = form or Format(f"prefix {prefix!r}", prefix)
            nets = {p: n for n, p in ((fallback.net, fallback.prefix), *fallback.nets)}
            net = nets.get(prefix) if fallback.specific else None
            net = net or _guess_net(container, prefix)
            matched = _matched(named, arch)
            networks.append(Candidate(container, prefix, named, matched, fallback, net, spelling))
    keys = {c.key for c in networks if c.matched == len(resnet.shapes(arch))}
    networks = [
        replace(c, net="momentum") if c.net == "online" and _is_twin(c.key, keys) else c
        for c in networks
    ]
    return sorted(networks, key=lambda c: -c.matched)


def _is_twin(key: str, keys: set[str]) -> bool:
    """Return whether a key of another network differs only in a part that ends in _k or _m.

    Such are `net_m` beside `net`, `f_k` beside `f_q`, `k` beside `q`.
    """
    for match in re.finditer(r"(?:(_)|(?<![^./]))[km](?![^./])", key):
        before, after = key[: match.start()], key[match.end() :]
        if {f"{before}{after}", f"{before}{match[1] or ''}q{after}"} & (keys - {""}):
            return True
    return False


def every_tensor(payload: Any) -> dict[str, AnyTensor]:
    """Return all tensors of a payload by their full path, as several containers may share names."""
    return {
        ".".join((*path, name)): value
        for path, tensors in tensor_dicts(payload)
        for name, value in tensors.items()
    }


def tensor_dicts(payload: Any) -> Iterator[tuple[tuple[str, ...], dict[str, AnyTensor]]]:
    """Yield every mapping of names to tensors in the payload once, with the path to it."""
    visited: set[int] = set()
    remaining: list[tuple[tuple[str, ...], Any]] = [((), payload)]
    while remaining:
        path, holder = remaining.pop()
        if not isinstance(holder, Mapping) or id(holder) in visited or len(path) > DEPTH:
            continue
        visited.add(id(holder))
        if tensors := {
            k: v
            for k, v in holder.items()
            if isinstance(k, str) and isinstance(v, LazyTensor | Tensor)
        }:
            yield path, tensors
        remaining += [
            ((*path, str(k)), v) for k, v in list(holder.items())[::-1] if isinstance(v, Mapping)
        ]


def stripped_key(key: str) -> str:
    """Return a key without wrapper parts, and Paddle's norms under torch's names."""
    key = INSIDE.sub("", key)
    head, dot, last = key.rpartition(".")
    if last in PADDLE:
        key = f"{head}{dot}{PADDLE[last]}"
    while key.startswith(WRAPPERS):
        key = key.partition(".")[2]
    return key


def _roots(tensors: Mapping[str, AnyTensor]) -> Iterator[tuple[str, str]]:
    """Yield (the part before the stem's name, spelling) of every ResNet."""
    for key in tensors:
        for name, spelling in SPELLINGS.items():
            prefix = key.removesuffix(spelling.stem)
            if (
                prefix != key
                and (not prefix or prefix.endswith((".", "/")))
                and f"{prefix}{spelling.block}" in tensors
            ):
                yield prefix, name


def _renamed(tensors: Mapping[str, AnyTensor], prefix: str, spelling: str) -> dict[str, AnyTensor]:
    """Return the backbone's tensors below a prefix, under torchvision's names."""
    below = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
    if spelling == "detectron2":  # in a C4 detector res5 lies in the heads
        heads = "roi_heads."
        below |= {
            key[len(heads) :]: v for key, v in tensors.items() if key.startswith(f"{heads}res5.")
        }
    named = {}
    for key, value in below.items():
        try:
            named[SPELLINGS[spelling].rename(key)] = value
        except KeyError:
            continue
    names = resnet.shapes()
    return {
        key: value
        for key, value in named.items()
        if key in names
        or (key.startswith(("layer", "conv1.", "bn1.")) and not _is_ignored(key, value))
    }


def _is_ignored(key: str, value: AnyTensor) -> bool:
    """Return whether a tensor is a step counter or torch's empty `_extra_state`."""
    return key.endswith(COUNTER) or (key.endswith("._extra_state") and 0 in value.shape)


def _matched(tensors: Mapping[str, AnyTensor], arch: str) -> int:
    return sum(
        name in tensors
        and tuple(tensors[name].shape) == shape
        and tensors[name].dtype.is_floating_point
        for name, shape in resnet.shapes(arch).items()
    )


def _format(
    container: tuple[str, ...], tensors: Mapping[str, AnyTensor], roots: list[tuple[str, str]]
) -> Format | None:
    for form in FORMATS:
        if (form.prefix, form.spelling) not in roots:
            continue
        if form.container is not None and (not container or container[-1] != form.container):
            continue
        if form.marker is None or form.marker in tensors:
            return form
        if form.marker.endswith(".") and any(key.startswith(form.marker) for key in tensors):
            return form
    return None


def _guess_net(container: tuple[str, ...], prefix: str) -> Net:
    text = ".".join((*container, prefix))
    # "ema" of model_ema and modelEma, but not of semantic.
    words = {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", text)}
    text = text.lower()
    if "student" in text:
        return "student"
    if "teacher" in text:
        return "teacher"
    long = any(word in text for word in ("momentum", "target", "encoder_k"))
    return "momentum" if long or words & {"key", "ema"} else "online"

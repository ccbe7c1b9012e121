"""What the names in a pickle become: tensors, arrays and containers, made by functions of our own.

NumPy's and torch's own are not called: they reserve as much memory as a file asks for.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from harl_bench.nn.lazytensor import LazyTensor, Storage

FIELDS = 16  # of a named tuple
DTYPES = {name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
ARRAYS = {
    np.dtype(name).str[1:]: DTYPES[name]
    for name in (
        "float16",
        "float32",
        "float64",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "bool",
    )
}


class Stub:
    """Takes the place of an object that a file wanted rebuilt; keeps nothing, does nothing."""

    __slots__ = ()

    def __call__(self, *_: Any) -> "Stub":
        return self

    append = extend = add = __call__

    def __repr__(self) -> str:
        return "<not rebuilt>"


STUB = Stub()


class Dtype:
    """numpy.dtype: letter and width, and the byte order that BUILD adds."""

    def __init__(self, code: Any, *_: Any) -> None:
        code = code[:16] if isinstance(code, str) else ""
        stated = code[:1] in tuple("<>|=")
        self.order: Any = code[0] if stated else "<"
        self.code: str = code[1:] if stated else code


class Array(LazyTensor):
    """numpy.ndarray, which BUILD fills."""


def key(value: Any) -> Any:
    """Return a dict key or set member that hashes fast (text, bytes, small numbers), or a stub."""
    quick = isinstance(value, str | bytes | float | None)
    return value if quick or (isinstance(value, int) and abs(value) < 2**60) else Stub()


def _mapping(items: Any = (), *_: Any) -> Any:
    if not isinstance(items, list):
        return items if isinstance(items, dict) else {}  # defaultdict begins with its factory
    pairs = {key(name): value for name, value in items}
    items.clear()  # a list is copied once, however often a file asks for it
    return pairs


def _set(items: list[Any]) -> set[Any]:
    members = set(map(key, items))
    items.clear()
    return members


def _tuple(items: Any = ()) -> Any:
    """Return a tuple; Paddle writes a parameter as (its name, array), and the array is meant."""
    if not isinstance(items, tuple):
        return STUB
    named = len(items) == 2 and isinstance(items[0], str) and isinstance(items[1], LazyTensor)
    return items[1] if named else items


def _named_tuple(_: Any, fields: Any, *__: Any) -> Any:
    """Return a maker of dicts: dill spells a named tuple's class as its fields (dill/_dill.py)."""
    names = [str(key(field)) for field in fields[:FIELDS]]
    return lambda *values: dict(zip(names, values, strict=True))


def _scalar(dtype: Any, data: Any = b"") -> Any:
    if not isinstance(dtype, Dtype) or dtype.code not in ARRAYS:
        return STUB
    raw = data[:16].encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(raw, (">" if dtype.order == ">" else "<") + dtype.code, 1)[0].item()


def rebuild_tensor(storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> Any:
    """Return a tensor of a storage, or of a part: (storage, its first element)."""
    whole, first = storage if isinstance(storage, tuple) else (storage, 0)  # parts: until torch 0.4
    stated = len(rest) > 2 and isinstance(rest[2], torch.dtype)  # _rebuild_tensor_v3
    return LazyTensor(whole, rest[2] if stated else whole.dtype, shape, stride, first + offset)


def _first(value: Any, *_: Any) -> Any:
    return value


def _array(*_: Any) -> Array:
    return Array(Storage(b"", 0, 0), torch.uint8, (0,), (1,))


REBUILD: dict[str, Callable[..., Any]] = {
    **{
        f"{module}.{name}": function
        for module in ("builtins", "__builtin__")
        for name, function in (
            ("dict", _mapping),
            ("list", _first),
            ("tuple", _tuple),
            ("set", _set),
            ("frozenset", lambda items: frozenset(_set(items))),
        )
    },  # type: ignore[misc]
    **dict.fromkeys(
        (
            "collections.OrderedDict",
            "collections.defaultdict",
            "collections.Counter",
            "haiku._src.data_structures.frozendict",  # dm-haiku's hold one dict
            "haiku._src.data_structures.FlatMapping",
        ),
        _mapping,
    ),
    **dict.fromkeys(
        ("dill._dill._create_namedtuple", "dill.dill._create_namedtuple"), _named_tuple
    ),
    **{
        f"torch._utils._rebuild_{name}": rebuild_tensor
        for name in ("tensor", "tensor_v2", "tensor_v3", "qtensor")
    },
    **dict.fromkeys(
        (
            "torch._utils._rebuild_parameter",
            "torch.nn.parameter.Parameter",
            "torch._utils._rebuild_parameter_with_state",
        ),
        _first,
    ),
    "torch.Size": _tuple,
    "torch.device": lambda kind, *index: ":".join(
        str(key(part))[:20] for part in (kind, *index[:1])
    ),
    "numpy.dtype": Dtype,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy.core.multiarray._reconstruct": _array,
    "numpy._core.multiarray._reconstruct": _array,
}
FROM_BUFFER = ("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer")
JAX_ARRAYS = (  # what NumPy would do: function, arguments, state
    "jax._src.array._reconstruct_array",
    "jax._src.device_array.reconstruct_device_array",
    "jax.interpreters.xla.reconstruct_device_array",
    "dill._dill._create_array",
    "dill.dill._create_array",
)

"""What a pickle may ask for: the globals that rebuild tensors, arrays and containers, as functions
of our own.

Nothing here calls what a file names. NumPy's and torch's own rebuilding functions are not used
either: they reserve as much memory as a file asks for.
"""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from harl_bench.nn.lazy import DamagedError, LazyTensor, Storage, view

RUNS_CODE = re.compile(  # no checkpoint needs these; a file that names one is an attack
    r"(os|posix|nt|sys|shutil|importlib|pickle|_pickle)\.[a-z]\w*|(subprocess|commands|popen2|runpy|pty|pdb|timeit|code|socket|webbrowser|ctypes)\..*|"
    r"(io|_io)\.open\w*|(builtins|__builtin__)\.(eval|exec|execfile|compile|__import__|open|input|breakpoint)"
)
STORAGES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
    "Untyped": torch.uint8,
    "QInt8": torch.qint8,
    "QUInt8": torch.quint8,
    "QInt32": torch.qint32,
}
DTYPES = {name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
ARRAY_DTYPES = {
    "f2": torch.float16,
    "f4": torch.float32,
    "f8": torch.float64,
    "i1": torch.int8,
    "i2": torch.int16,
    "i4": torch.int32,
    "i8": torch.int64,
    "u1": torch.uint8,
    "b1": torch.bool,
}


class Stub:
    """Takes the place of a Python object that a file wanted rebuilt; keeps nothing and does
    nothing.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "<not rebuilt>"


class Name:
    """A global that a pickle named; it is never looked up."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class Dtype:
    """numpy.dtype: letter and width, and the byte order that BUILD adds."""

    __slots__ = ("code", "order")

    def __init__(self, code: str) -> None:
        self.order, self.code = (code[0], code[1:]) if code[:1] in "<>|=" else ("<", code)

    def torch(self) -> torch.dtype:
        """The same in torch.

        Raises:
            DamagedError: no number.
        """
        if self.code not in ARRAY_DTYPES:
            raise DamagedError(f"an array of {self.code!r}")
        return ARRAY_DTYPES[self.code]


class Record:
    """A named tuple's class, by the names of its fields alone; called, it gives a dict of them."""

    __slots__ = ("fields",)

    def __init__(self, fields: tuple[str, ...]) -> None:
        self.fields = fields


class Array:
    """numpy.ndarray between its making and BUILD, which brings shape and bytes."""

    __slots__ = ("tensor",)

    def __init__(self) -> None:
        self.tensor: LazyTensor | Stub = Stub()


def arrays_as_tensors(value: Any) -> Any:
    """Put each array's tensor in the array's place; containers are visited once."""
    if isinstance(value, Array):
        return value.tensor
    seen: set[int] = set()
    holders = [value]
    while holders:
        holder = holders.pop()
        if not isinstance(holder, dict | list) or id(holder) in seen:
            continue
        seen.add(id(holder))
        for place, item in holder.items() if isinstance(holder, dict) else enumerate(holder):
            if isinstance(item, Array):
                holder[place] = item.tensor
            elif isinstance(item, dict | list):
                holders.append(item)
    return value


def key(value: Any) -> Any:
    """A dict key or set member whose hash is quick: text, bytes, small numbers; anything else
    becomes a stub.
    """
    quick = isinstance(value, str | bytes | float | None) or (
        isinstance(value, int) and abs(value) < 2**60
    )
    return value if quick else Stub()


def _mapping(machine: Any, items: Any = (), *_: Any) -> dict[Any, Any]:
    if not isinstance(items, dict | list):
        return {}  # defaultdict's first argument is its factory
    machine.spend(len(items))
    return {key(k): v for k, v in (items.items() if isinstance(items, dict) else items)}


def _sequence(make: Callable[[Any], Any]) -> Callable[..., Any]:
    def copy(machine: Any, items: Any = ()) -> Any:
        machine.spend(len(items))
        return make(items)

    return copy


def _tuple(machine: Any, items: Any = ()) -> Any:
    """A tuple; Paddle writes each parameter of a nested checkpoint as (its name, array): the array
    is meant.
    """
    machine.spend(len(items))
    pair = tuple(items)
    return (
        pair[1]
        if len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], Array)
        else pair
    )


def _named_tuple(machine: Any, _name: Any, fields: Any, *_: Any) -> Any:
    """dill spells a named tuple's class as its fields (dill/_dill.py _create_namedtuple)."""
    machine.spend(len(fields))
    return Record(tuple(map(str, map(key, fields))))


def _jax_array(machine: Any, function: Any, arguments: Any, state: Any, *_: Any) -> Any:
    """jax pickles an array as what NumPy would do (jax/_src/array.py _reconstruct_array)."""
    array = machine.call(function, arguments)
    machine.fill(array, state)
    return array


def _encode(machine: Any, text: Any, encoding: str = "latin1") -> Any:
    """How protocol 2 spells bytes; other codecs (zlib, say) are not offered."""
    if encoding != "latin1" or isinstance(text, Storage):
        return text if encoding == "latin1" else Stub()
    machine.spend(len(text) // 256)
    return text.encode("latin1")


def _scalar(machine: Any, dtype: Dtype, data: Any = b"") -> Any:
    if not isinstance(dtype, Dtype) or dtype.code not in ARRAY_DTYPES:
        return Stub()
    raw = data[:16].encode("latin1") if isinstance(data, str) else data
    order = ">" if dtype.order == ">" else "<"
    return np.frombuffer(raw, order + dtype.code, 1)[0].item()


def _tensor(_: Any, storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> Any:
    dtype = (
        rest[2] if len(rest) > 2 and isinstance(rest[2], torch.dtype) else storage.dtype
    )  # _rebuild_tensor_v3
    return view(storage, dtype, offset, shape, stride)


def _subclass(machine: Any, function: Any, _type: Any, arguments: Any, *_: Any) -> Any:
    return machine.call(function, arguments)


def _frombuffer(machine: Any, data: Any, dtype: Any, shape: Any, order: Any = "C") -> Any:
    known = isinstance(dtype, Dtype) and dtype.code in ARRAY_DTYPES
    return machine.array(dtype, shape, data, order == "F") if known else Stub()


def _pickled_storage(machine: Any, data: Any) -> Any:
    """A storage as `pickle.dump` writes it: a whole file of torch's older format inside the
    pickle.
    """
    return machine.inner(data)


def _first(_: Any, value: Any, *rest: Any) -> Any:
    return value


REBUILD: dict[str, Callable[..., Any]] = {
    **{
        f"{module}.{name}": function
        for module in ("builtins", "__builtin__")
        for name, function in {
            "dict": _mapping,
            "list": _sequence(list),
            "tuple": _tuple,
            "set": _sequence(lambda items: {key(item) for item in items}),
            "frozenset": _sequence(lambda items: frozenset(key(item) for item in items)),
        }.items()
    },
    "collections.OrderedDict": _mapping,
    "collections.defaultdict": _mapping,
    "collections.Counter": _mapping,
    "_codecs.encode": _encode,
    # dm-haiku's immutable mappings hold one dict (haiku/_src/data_structures.py __reduce__)
    **{f"haiku._src.data_structures.{name}": _mapping for name in ("frozendict", "FlatMapping")},
    "dill._dill._create_namedtuple": _named_tuple,
    "dill.dill._create_namedtuple": _named_tuple,
    **{f"dill.{module}._create_array": _jax_array for module in ("_dill", "dill")},
    **{
        f"jax.{module}": _jax_array
        for module in (
            "_src.array._reconstruct_array",
            "_src.device_array.reconstruct_device_array",
            "interpreters.xla.reconstruct_device_array",
        )
    },
    "torch.Size": _sequence(tuple),
    "torch.device": lambda _, *arguments: ":".join(str(key(part))[:20] for part in arguments),
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor,
    "torch._utils._rebuild_qtensor": _tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch.nn.parameter.Parameter": _first,
    "torch._tensor._rebuild_from_type_v2": _subclass,
    "torch.storage._load_from_bytes": _pickled_storage,
    "numpy.dtype": lambda _, code, *flags: Dtype(code[:16] if isinstance(code, str) else ""),
    **{
        f"numpy.{core}.multiarray.{name}": function
        for core in ("core", "_core")
        for name, function in {"scalar": _scalar, "_reconstruct": lambda *_: Array()}.items()
    },
    **{f"numpy.{core}.numeric._frombuffer": _frombuffer for core in ("core", "_core")},
}
CLASSES = {"numpy.ndarray"}  # named as arguments of the above, never called

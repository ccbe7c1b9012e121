"""Reading pickles without running anything in them.

A pickle is a program for a small stack machine. This is that machine without its power: nothing is
    imported, no class
is instantiated and no attribute is set. Lists, dicts, tuples, sets, numbers and text are built;
calls that rebuild tensors and arrays (nn/rebuild.py) give a `LazyTensor`; every other global
becomes an inert `Stub` and its name is noted. Steps are counted, so that a hostile file costs
bounded time and memory.
"""

import pickletools
import struct
from collections.abc import Callable
from typing import IO, Any, cast

from harl_bench.core.errors import CheckpointError
from harl_bench.nn.lazy import (
    CutShortError,
    DamagedError,
    LazyTensor,
    Storage,
    Window,
    contiguous_stride,
    view,
)
from harl_bench.nn.rebuild import (
    ARRAY_DTYPES,
    CLASSES,
    DTYPES,
    REBUILD,
    RUNS_CODE,
    STORAGES,
    Array,
    Dtype,
    Name,
    Record,
    Stub,
    arrays_as_tensors,
    key,
)

# 3 networks with optimiser take 0.1 million; an index of ImageNet's 1.28 million images 1.3
STEPS = 2_000_000
LARGE = 65_536  # texts from here on stay in the file
INLINE = 256  # bytes from here on stay in the file
NUMBER = 1024  # bytes of one whole number


OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}


def _unknown(_: Any) -> Any:
    return Stub()


class Machine:
    """Reads the pickles of one file, one after the other.

    Args:
        window: where they begin.
        persistent: what a persistent id stands for (torch's storages).
        inner: what a pickled storage stands for, from the bytes of a file within the file.

    Attributes:
        stubs: names of the globals that were not rebuilt.
    """

    def __init__(
        self,
        window: Window,
        persistent: Callable[[Any], Any] = _unknown,
        inner: Callable[[Any], Any] = _unknown,
    ) -> None:
        self.window, self.persistent, self.inner = window, persistent, inner
        self.stubs: set[str] = set()
        self.steps = 0

    def run(self) -> Any:
        """Read the next pickle; the window then stands behind it.

        Raises:
            CheckpointError: it names a function that runs code.
            CutShortError, DamagedError: it is cut short, contradicts itself, or takes too many
                steps.
        """
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        try:
            while code := self.window.read(1):
                opcode = OPCODES.get(code.decode("latin1"))
                if opcode is None:
                    raise DamagedError(f"byte {code[0]:#04x} is no pickle instruction")
                if opcode.name == "STOP":
                    return arrays_as_tensors(self.stack.pop())
                self.spend(1)
                if opcode.name in SIZED:
                    self.stack.append(self._sized(opcode.name))
                    continue
                argument = opcode.arg.reader(cast(IO[bytes], self.window)) if opcode.arg else None
                STEP[opcode.name](self, argument)
        except (
            IndexError,
            KeyError,
            TypeError,
            ValueError,
            AttributeError,
            OverflowError,
            struct.error,
        ) as error:
            if not self.window.left():
                raise CutShortError from None
            text = " ".join(str(error).split())[:100]
            raise DamagedError(
                f"its pickle contradicts itself ({type(error).__name__}: {text})"
            ) from None
        raise CutShortError

    def spend(self, steps: int) -> None:
        """Count work.

        Raises:
            DamagedError: more than STEPS in all.
        """
        self.steps += steps
        if self.steps > STEPS:
            raise DamagedError(f"its pickle takes more than {STEPS:,} steps")

    def _sized(self, name: str) -> Any:
        """Bytes or text with a length in front; large ones are passed over and stay in the file."""
        width, kind = SIZED[name]
        size = int.from_bytes(self._exactly(width), "little")
        if kind == "number":
            if size > NUMBER:
                raise DamagedError("a whole number of absurd length")
            return int.from_bytes(self._exactly(size), "little", signed=True)
        if size >= (INLINE if kind == "bytes" else LARGE):
            return Storage(self.window.source, self.window.skip(size), size, utf8=kind == "text")
        self.spend(size // 64)
        data = self._exactly(size)
        if kind == "text":
            return data.decode("utf-8", "surrogatepass")
        return data.decode("latin1") if kind == "string" else data

    def _exactly(self, size: int) -> bytes:
        if len(data := self.window.read(size)) < size:
            raise CutShortError(size - len(data), exactly=False)
        return data

    def above_mark(self) -> list[Any]:
        """What was pushed since the last MARK."""
        items, self.stack = self.stack, self.marks.pop()
        return items

    def global_(self, name: str) -> Any:
        """A global by its dotted name.

        Raises:
            CheckpointError: it runs code.
        """
        if RUNS_CODE.fullmatch(name):
            raise CheckpointError(
                "this pickle would run code when opened: it was made to harm",
                where=self.window.source,
                seen=f"it calls {name}",
                next="delete it, and open it with no other tool",
            )
        module, _, last = name.rpartition(".")
        if module == "torch" and last in DTYPES:
            return DTYPES[last]
        if (
            module in ("torch", "torch.storage", "torch.cuda")
            and last.removesuffix("Storage") in STORAGES
        ):
            return STORAGES[last.removesuffix("Storage")]
        if (
            name not in REBUILD
            and name not in CLASSES
            and not (module == "torch" and last.endswith("Tensor"))
        ):
            self.stubs.add(name[:200])
        return Name(name)

    def call(self, function: Any, arguments: Any) -> Any:
        """What a call gives: a value where REBUILD knows it, else a stub."""
        if isinstance(function, Name) and function.name in REBUILD:
            self.spend(len(arguments))
            return REBUILD[function.name](self, *arguments)
        if isinstance(function, Record) and len(arguments) == len(function.fields):
            self.spend(len(arguments))
            return dict(zip(function.fields, arguments, strict=True))
        return Stub()

    def build(self, state: Any) -> None:
        """State for the object on top: arrays and dtypes take theirs, everything else is left as it
        is.
        """
        self.fill(self.stack[-1], state)

    def fill(self, target: Any, state: Any) -> None:
        """State for an array or dtype."""
        if isinstance(target, Dtype):
            target.order = state[1]
        elif isinstance(target, Array):
            _, shape, dtype, fortran, data = state
            if isinstance(dtype, Dtype) and dtype.code in ARRAY_DTYPES:
                target.tensor = self.array(dtype, shape, data, bool(fortran))

    def array(self, dtype: Dtype, shape: Any, data: Any, fortran: bool = False) -> LazyTensor:
        """A NumPy array whose bytes lie in the file."""
        if isinstance(data, str):  # protocols 0 to 2
            data = data.encode("latin1")
            self.spend(len(data) // 256)
        if isinstance(data, bytes):
            data = Storage(data, 0, len(data))
        if dtype.order == ">":
            data.swap = dtype.torch().itemsize
        return view(data, dtype.torch(), 0, shape, contiguous_stride(tuple(shape), fortran=fortran))


SIZED = {
    "BINBYTES": (4, "bytes"),
    "BINBYTES8": (8, "bytes"),
    "BYTEARRAY8": (8, "bytes"),
    "SHORT_BINBYTES": (1, "bytes"),
    "BINSTRING": (4, "string"),
    "SHORT_BINSTRING": (1, "string"),
    "LONG1": (1, "number"),
    "LONG4": (4, "number"),
    "BINUNICODE": (4, "text"),
    "BINUNICODE8": (8, "text"),
    "SHORT_BINUNICODE": (1, "text"),
}


def _append(machine: Machine, items: list[Any]) -> None:
    if isinstance(target := machine.stack[-1], list):
        target.extend(items)


def _set_items(machine: Machine, items: list[Any]) -> None:
    if isinstance(target := machine.stack[-1], dict):
        target.update(_pairs(items))


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return {key(k): v for k, v in zip(items[::2], items[1::2], strict=True)}


def _add_items(machine: Machine, items: list[Any]) -> None:
    if isinstance(target := machine.stack[-1], set):
        target.update(map(key, items))


def _mark(machine: Machine, _: Any) -> None:
    machine.marks.append(machine.stack)
    machine.stack = []


def _pop(machine: Machine, _: Any) -> None:
    machine.stack.pop() if machine.stack else machine.above_mark()


def _tuple_of(count: int) -> Callable[[Machine, Any], None]:
    def step(machine: Machine, _: Any) -> None:
        if len(machine.stack) < count:
            raise IndexError("too little on the stack")
        machine.stack[-count:] = [tuple(machine.stack[-count:])]

    return step


def _reduce(machine: Machine, _: Any) -> None:
    arguments = machine.stack.pop()
    function = machine.stack.pop()
    machine.stack.append(machine.call(function, arguments))


def _new_with_names(machine: Machine, _: Any) -> None:
    machine.stack.pop()
    _reduce(machine, None)


def _obj(machine: Machine, _: Any) -> None:
    function, *arguments = machine.above_mark()
    machine.stack.append(machine.call(function, arguments))


def _inst(machine: Machine, name: str) -> None:
    arguments = machine.above_mark()
    machine.stack.append(machine.call(machine.global_(name.replace(" ", ".")), arguments))


def _stack_global(machine: Machine, _: Any) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise TypeError("the name of a global is no text")
    machine.spend((len(name) + len(module)) // 64)
    machine.stack.append(machine.global_(f"{module}.{name}"))


def _persistent(machine: Machine, _: Any) -> None:
    name = machine.stack.pop()
    machine.spend(len(name) if isinstance(name, tuple | list) else 1)
    machine.stack.append(machine.persistent(name))


def _put(machine: Machine, place: Any) -> None:
    machine.memo[int(place)] = machine.stack[-1]


def _push(value: Callable[[Machine, Any], Any]) -> Callable[[Machine, Any], None]:
    def step(machine: Machine, argument: Any) -> None:
        made = value(machine, argument)  # first: it may change which list the stack is
        machine.stack.append(made)

    return step


def _nothing(machine: Machine, _: Any) -> None: ...


STEP: dict[str, Callable[[Machine, Any], None]] = {
    **dict.fromkeys(
        ("INT", "BININT", "BININT1", "BININT2", "LONG", "FLOAT", "BINFLOAT", "STRING", "UNICODE"),
        _push(lambda _, argument: argument),
    ),
    **dict.fromkeys(
        ("GET", "BINGET", "LONG_BINGET"), _push(lambda machine, place: machine.memo[int(place)])
    ),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _put),
    **dict.fromkeys(("PROTO", "FRAME"), _nothing),
    **dict.fromkeys(
        ("EXT1", "EXT2", "EXT4"), _push(lambda machine, _: machine.global_("copyreg.extension"))
    ),
    "NONE": _push(lambda *_: None),
    "NEWTRUE": _push(lambda *_: True),
    "NEWFALSE": _push(lambda *_: False),
    "EMPTY_DICT": _push(lambda *_: {}),
    "EMPTY_LIST": _push(lambda *_: []),
    "EMPTY_SET": _push(lambda *_: set()),
    "EMPTY_TUPLE": _push(lambda *_: ()),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "MARK": _mark,
    "POP": _pop,
    "POP_MARK": lambda machine, _: _nothing(machine, machine.above_mark()),
    "DUP": _push(lambda machine, _: machine.stack[-1]),
    "MEMOIZE": lambda machine, _: _put(machine, len(machine.memo)),
    "LIST": _push(lambda machine, _: machine.above_mark()),
    "TUPLE": _push(lambda machine, _: tuple(machine.above_mark())),
    "DICT": _push(lambda machine, _: _pairs(machine.above_mark())),
    "FROZENSET": _push(lambda machine, _: frozenset(map(key, machine.above_mark()))),
    "APPEND": lambda machine, _: _append(machine, [machine.stack.pop()]),
    "APPENDS": lambda machine, _: _append(machine, machine.above_mark()),
    "SETITEM": lambda machine, _: _set_items(
        machine, [machine.stack.pop(), machine.stack.pop()][::-1]
    ),
    "SETITEMS": lambda machine, _: _set_items(machine, machine.above_mark()),
    "ADDITEMS": lambda machine, _: _add_items(machine, machine.above_mark()),
    "GLOBAL": _push(lambda machine, name: machine.global_(name.replace(" ", "."))),
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "NEWOBJ": _reduce,
    "NEWOBJ_EX": _new_with_names,
    "OBJ": _obj,
    "INST": _inst,
    "BUILD": lambda machine, _: machine.build(machine.stack.pop()),
    "PERSID": _push(lambda machine, name: machine.persistent(name)),
    "BINPERSID": _persistent,
}

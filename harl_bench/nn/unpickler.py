"""Reading pickles without running anything in them: the standard library's unpickler, closed.

Nothing is imported, no class of a file is instantiated and no attribute is set. Calls that rebuild
tensors, arrays and containers go to functions of our own (rebuilding.py). Every other global
becomes an inert `Stub` and its name is noted. Large runs of bytes stay in the file.
"""

import pickle
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch

from harl_bench.core.errors import BenchError, CheckpointError
from harl_bench.nn.lazytensor import (
    LARGE,
    MOST_AXES,
    CutShortError,
    DamagedError,
    LazyTensor,
    Reader,
    Storage,
)
from harl_bench.nn.rebuilding import (
    ARRAYS,
    DTYPES,
    FROM_BUFFER,
    JAX_ARRAYS,
    REBUILD,
    STUB,
    Array,
    Dtype,
    Stub,
    key,
)

INLINE = 256  # bytes from here on stay in the file
ARGUMENTS = 1000  # of one call
RUNS_CODE = re.compile(  # no checkpoint needs these; a file that names one is an attack
    r"(os|posix|nt|sys|shutil|importlib|pickle|_pickle)\.[a-z]\w*|(io|_io)\.open\w*|"
    r"(subprocess|commands|popen2|runpy|pty|pdb|timeit|code|socket|webbrowser|ctypes)\..*|"
    r"(builtins|__builtin__)\.(eval|exec|execfile|compile|__import__|open|input|breakpoint)"
)
STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
    "QInt8Storage": torch.qint8,
    "QUInt8Storage": torch.quint8,
    "QInt32Storage": torch.qint32,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}


class Unpickler(pickle._Unpickler):
    """Reads the pickles of one file, one after the other.

    Args:
        reader: where they begin.
        stubs: to which the names of globals that are not rebuilt are added.
        storage: gives a storage by its key, type and size, for a persistent id of torch's.
        pickled: gives a storage from its own pickle's bytes.
    """

    stack: list[Any]  # these five are the standard library's
    memo: dict[int, Any]
    append: Callable[[Any], None]
    read: Callable[[int], bytes]
    pop_mark: Callable[[], list[Any]]

    def __init__(
        self,
        reader: Reader,
        stubs: set[str],
        storage: Callable[..., Any] = STUB,
        pickled: Callable[[Any], Any] = STUB,
    ) -> None:
        super().__init__(reader, encoding="latin1")
        self.reader, self.stubs, self.storage, self.claimed = reader, stubs, storage, 0
        self.rebuild = REBUILD | {
            "_codecs.encode": self.encode,
            "torch.storage._load_from_bytes": pickled,
            "torch._tensor._rebuild_from_type_v2": lambda call, _, rest, *__: self.call(call, rest),
            **dict.fromkeys(JAX_ARRAYS, lambda _, __, state, *___: self.array(*state[1:])),
            **dict.fromkeys(
                FROM_BUFFER,
                lambda data, dtype, shape, order="C": self.array(shape, dtype, order == "F", data),
            ),
        }

    def load(self) -> Any:
        """Read the next pickle; the reader then stands behind it.

        Raises:
            CheckpointError: it names a function that runs code.
            CutShortError, DamagedError: it is cut short, contradicts itself, or takes too long.
        """
        self.memo.clear()
        try:
            return super().load()
        except (BenchError, DamagedError):
            raise
        except Exception as error:
            if not self.reader.left():
                raise CutShortError from None
            text = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
            raise DamagedError(f"its pickle contradicts itself ({text})") from None

    def find_class(self, module: str, name: str) -> Any:
        """Return what a global stands for, by its name alone.

        Raises:
            CheckpointError: it runs code.
        """
        full = f"{module[:200]}.{name[:200]}"
        if RUNS_CODE.fullmatch(full):
            path = self.reader.source if isinstance(self.reader.source, Path) else None
            raise CheckpointError(
                "this pickle would run code when opened: it was made to harm",
                where=path,
                seen=f"it calls {full}",
                next="delete it, and open it with no other tool",
            )
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        if module in ("torch", "torch.storage", "torch.cuda") and name in STORAGES:
            return STORAGES[name]
        if full in self.rebuild:
            return self.rebuild[full]
        if full != "numpy.ndarray" and not (module == "torch" and name.endswith("Tensor")):
            self.stubs.add(full[:200])
        return STUB

    def persistent_load(self, name: Any) -> Any:
        """Return a storage: ("storage", type, key, location, numel[, part]); None of other ids."""
        if not isinstance(name, tuple) or len(name) not in (5, 6) or name[0] != "storage":
            return None  # ("module", class, source file, source): the class of a whole model
        _, dtype, record, _location, numel, *part = name
        typed = isinstance(dtype, torch.dtype) and isinstance(record, str | int)
        if not typed or type(numel) is not int or numel < 0:
            raise DamagedError("a storage without type, key or size")
        return self.storage(str(record), dtype, numel, *part)

    def claim(self, size: int) -> None:
        """Count bytes that arrays take; written as text they count twice.

        Raises:
            DamagedError: they are more than the file has.
        """
        self.claimed += size
        if self.claimed > 2 * self.reader.end:
            raise DamagedError("its tensors claim more bytes than the file has")

    def encode(self, text: Any, encoding: str = "latin1") -> Any:
        """Return bytes that protocol 2 spells as text; other codecs (zlib, say) are not offered."""
        if not isinstance(text, str) or encoding != "latin1":
            return text if isinstance(text, Storage) else STUB
        self.claim(len(text))
        return text.encode("latin1")

    def array(self, shape: Any, dtype: Any, fortran: Any, data: Any) -> LazyTensor | Stub:
        """Return a NumPy array whose bytes lie in the file, or a stub of one without numbers."""
        if not isinstance(dtype, Dtype) or dtype.code not in ARRAYS:
            return STUB
        data = self.encode(data) if isinstance(data, str) else data  # protocols 0 to 2
        storage = Storage(data, 0, len(data)) if isinstance(data, bytes) else data
        self.claim(storage.size)
        storage.dtype = ARRAYS[dtype.code]
        storage.swap = storage.dtype.itemsize if dtype.order == ">" else 0
        if len(shape) > MOST_AXES:
            raise DamagedError("an array of absurd size")
        stride = torch.empty(shape[::-1] if fortran else shape, device="meta").stride()
        return LazyTensor(storage, storage.dtype, shape, stride[::-1] if fortran else stride)

    # Below are the standard library's steps that could run code, take any time or read large bytes.

    def load_build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Dtype):
            target.order = state[1]
        elif isinstance(target, Array):
            array = self.array(*state[1:])
            if isinstance(array, Stub):
                self.stack[-1] = array
            else:
                vars(target).update(vars(array))

    def call(self, function: Any, arguments: Any) -> Any:
        if len(arguments) > ARGUMENTS:
            raise DamagedError(f"a call with {len(arguments):,} arguments")
        return function(*arguments)

    def _instantiate(self, function: Any, arguments: Any) -> None:
        self.append(self.call(function, arguments))

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self.call(self.stack[-1], arguments)

    def load_newobj_ex(self) -> None:
        self.stack.pop()  # arguments by name
        self.load_reduce()

    def get_extension(self, _code: int) -> None:
        self.append(self.find_class("copyreg", "extension"))

    def load_long4(self) -> None:
        raise DamagedError("a whole number of absurd length")

    def load_frame(self) -> None:
        self.read(8)  # its length; without frames the reader's place is the place in the file

    def load_binbytes(self, width: int = 4) -> None:
        size = int.from_bytes(self.read(width), "little")
        self.append(self.reader.skip(size) if size >= INLINE else self.read(size))

    def load_binstring(self) -> None:  # Python 2's arrays
        size = int.from_bytes(self.read(4), "little")
        self.append(self.reader.skip(size) if size >= LARGE else self.read(size).decode("latin1"))

    def load_setitems(self) -> None:
        items = self.pop_mark()
        if isinstance(self.stack[-1], dict):
            self.stack[-1].update(zip(map(key, items[::2]), items[1::2], strict=True))

    def load_setitem(self) -> None:
        value, name = self.stack.pop(), self.stack.pop()
        if isinstance(self.stack[-1], dict):
            self.stack[-1][key(name)] = value

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append(dict(zip(map(key, items[::2]), items[1::2], strict=True)))

    def load_additems(self) -> None:
        items = self.pop_mark()
        if isinstance(self.stack[-1], set):
            self.stack[-1].update(map(key, items))

    def load_frozenset(self) -> None:
        items = self.pop_mark()
        self.append(frozenset(map(key, items)))

    dispatch: ClassVar[dict[int, Any]] = pickle._Unpickler.dispatch | {  # type: ignore[assignment]
        pickle.BUILD[0]: load_build,
        pickle.REDUCE[0]: load_reduce,
        pickle.NEWOBJ[0]: load_reduce,
        pickle.NEWOBJ_EX[0]: load_newobj_ex,
        pickle.LONG4[0]: load_long4,
        pickle.FRAME[0]: load_frame,
        pickle.BINBYTES[0]: load_binbytes,
        pickle.BINSTRING[0]: load_binstring,
        **dict.fromkeys(
            (pickle.BINBYTES8[0], pickle.BYTEARRAY8[0]), partial(load_binbytes, width=8)
        ),
        pickle.SETITEMS[0]: load_setitems,
        pickle.SETITEM[0]: load_setitem,
        pickle.DICT[0]: load_dict,
        pickle.ADDITEMS[0]: load_additems,
        pickle.FROZENSET[0]: load_frozenset,
    }

"""Seeds, device and precision: the one place that touches global state."""

import atexit
import contextlib
import multiprocessing
import os
import random
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harl_bench.core.errors import MachineError, UsageError
from harl_bench.core.progress import log
from harl_bench.core.stopping import kill

MOST_READERS = 16  # feed an H200 (benchmarks/pretrain_input.py); more only take memory


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch. Data order and augmentation use generators of their own."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def device(name: str = "auto") -> torch.device:
    """ "auto" is CUDA when there is one.

    Raises:
        MachineError: "cuda" was asked for and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise MachineError(
            "no CUDA device", next="use --device cpu, or check the driver with: harl-bench doctor"
        )
    return torch.device(name)


def gpus(name: str, count: int | None) -> int | None:
    """Return --gpus as --device limits it: 0 on the CPU.

    Args:
        name: of --device, "auto", "cpu" or "cuda".
        count: of --gpus; None takes all that are visible.

    Raises:
        UsageError: the two contradict each other.
        MachineError: "cuda" was asked for and there is none.
    """
    if (name == "cpu" and count) or (name == "cuda" and count == 0):
        seen = f"--device {name} --gpus {count}"
        raise UsageError("these contradict each other", seen=seen, next="leave one of them out")
    if name == "cuda":
        device(name)
    return 0 if name == "cpu" else count


def rng_state() -> dict[str, Any]:
    """Global random states as values that load with weights_only."""
    _, keys, pos, has_gauss, cached = np.random.get_state()
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": list(random.getstate()[1]),
        "numpy": {
            "keys": torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            "pos": pos,
            "gauss": [has_gauss, cached],
        },
    }
    if torch.cuda.is_available():
        # Of this process's GPU: a resumed run may see others.
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Undo `rng_state`."""
    torch.set_rng_state(state["torch"])
    random.setstate((3, tuple(state["python"]), None))
    numpy = state["numpy"]
    keys = numpy["keys"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, numpy["pos"], *numpy["gauss"]))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


@contextlib.contextmanager
def temporary_seed(seed: int) -> Iterator[None]:
    """Seed torch's global generator inside the block and put it back afterwards."""
    # Networks are made on the CPU; without `devices` all GPUs would wake up.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def readers(wanted: int | None, *, on_gpu: bool, processes: int) -> int:
    """How many processes read data for each that computes: as asked, or the cores shared out."""
    if wanted is not None:
        return wanted
    return max(1, min(MOST_READERS, len(os.sched_getaffinity(0)) // processes)) if on_gpu else 2


@atexit.register
def end_workers() -> None:
    """Kill data workers that are left when the process ends.

    multiprocessing would send them SIGTERM, which they leave to the loop, and wait for ever.
    torch's own handler would take their death for a mishap and raise an error.
    """
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for child in multiprocessing.active_children():
        if child.daemon:
            kill(child)


def exact_float32() -> None:
    """Have float32 mean float32 on a GPU too, where torch rounds convolutions to TF32's 10 bits."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


@contextlib.contextmanager
def gpu_memory(advice: str) -> Iterator[None]:
    """Turn torch's error of a full GPU within the block into one line that says what this command
    can do about it.

    Raises:
        MachineError: the GPU's memory is full; `advice` is its remedy.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        seen = " ".join(str(error).split())[:200]
        raise MachineError("the memory of the GPU is full", seen=seen, next=advice) from error


def gpu_gib() -> float:
    """Return the memory of this process's GPU in GiB."""
    return float(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory) / 2**30


def retry_on_cpu(function: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """Return `function(*arguments)`, computed on the CPU where a GPU has no memory left for it.

    As Detectron2's retry_if_cuda_oom (D2:utils/memory.py): tried again with an empty cache first.
    The result of the last try lies on the CPU.
    """
    for _ in range(2):
        with contextlib.suppress(torch.cuda.OutOfMemoryError):
            return function(*arguments)
        torch.cuda.empty_cache()
    log.info(
        "the memory of the GPU is full: %s on the CPU", getattr(function, "__name__", "one step")
    )
    return function(*(value.cpu() if isinstance(value, Tensor) else value for value in arguments))


def sent(values: Tensor, device: torch.device) -> Tensor:
    """Return a CPU tensor on the device; the copy runs while the CPU goes on."""
    pinned = values.pin_memory() if device.type == "cuda" else values
    return pinned.to(device, non_blocking=True)


class Reading:
    """A number on its way from the device, which goes on computing."""

    def __init__(self, value: Tensor) -> None:
        self.value = value.to("cpu", non_blocking=True)
        self.copied: torch.cuda.Event | None = None
        if value.is_cuda:
            self.copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self.copied.record()

    def read(self) -> float:
        """Wait for the number."""
        if self.copied:
            self.copied.synchronize()
        return float(self.value)


def forget_peak_memory() -> None:
    """Begin a new run's count on the GPU; the resident memory's peak is the process's and stays."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory_mb() -> float:
    """Largest memory of this process so far: on the GPU when one was used, resident otherwise."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated() > 0:
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)

"""The device of these tests, and comparisons whose differences benchmarks/gpu_check reports.

With `--device cpu` both sides are the CPU. The reference then computes its convolutions without
oneDNN, so that two implementations are compared there too.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from harl_bench.nn import runtime

# cuBLAS reads it when it starts; without it, deterministic algorithms refuse matrix products.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
CPU = torch.device("cpu")
Agree = Callable[[str, Any, Any, float], None]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip where there is no GPU; here and not in a fixture, so that one line tells of all tests."""
    if item.config.getoption("--device") == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device (--device cpu runs these tests without one)")


@pytest.fixture
def device(request: pytest.FixtureRequest) -> torch.device:
    """The GPU, or the CPU where `--device cpu` asks for it."""
    return torch.device(request.config.getoption("--device"))


@pytest.fixture(autouse=True)
def exact(request: pytest.FixtureRequest) -> Iterator[None]:
    """Float32 without TF32; one thread where the CPU is the device. Settings of before come back."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    threads = torch.get_num_threads()
    before = cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark
    runtime.exact_float32()
    if request.config.getoption("--device") == "cpu":
        torch.set_num_threads(1)
    yield
    cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark = before
    torch.set_num_threads(threads)


@pytest.fixture
def both(device: torch.device) -> Callable[[Callable[[torch.device], Any]], tuple[Any, Any]]:
    """Call a function with the CPU and with the device: (reference, value)."""

    def call(function: Callable[[torch.device], Any]) -> tuple[Any, Any]:
        torch.backends.mkldnn.enabled = device != CPU
        try:
            reference = function(CPU)
        finally:
            torch.backends.mkldnn.enabled = True
        return reference, function(device)

    return call


@pytest.fixture
def agree(record_property: Callable[[str, object], None]) -> Agree:
    """Require |value - reference| <= tolerance |reference|, and record the difference.

    Both are tensors or lists of tensors, taken as one vector.
    """

    def compare(what: str, value: Any, reference: Any, tolerance: float) -> None:
        a, b = flat(value), flat(reference)
        assert a.shape == b.shape, f"{what}: {tuple(a.shape)}, expected {tuple(b.shape)}"
        difference = float((a - b).norm() / b.norm().clamp(min=1e-12))
        record_property(what, json.dumps({"difference": difference, "tolerance": tolerance}))
        assert difference <= tolerance, f"{what}: {difference:.2e}, at most {tolerance:.0e}"

    return compare


def flat(values: Any) -> Tensor:
    """Return tensors, numbers or lists of them as one float64 vector on the CPU."""
    if isinstance(values, list | tuple):
        return torch.cat([flat(value) for value in values]) if values else torch.zeros(0)
    return torch.as_tensor(values).detach().double().cpu().flatten()


@pytest.fixture
def same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch draw on the CPU what it would draw on a GPU, from generators of the same seeds."""
    twins: dict[torch.Generator, torch.Generator] = {}

    def on_cpu(draw: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def drawn(*size: Any, generator: Any = None, device: Any = None, **options: Any) -> Tensor:
            if generator is not None and generator not in twins:
                twins[generator] = torch.Generator().manual_seed(generator.initial_seed())
            return draw(*size, generator=twins.get(generator), **options).to(device or CPU)

        return drawn

    for name in ("rand", "randn", "randperm"):
        monkeypatch.setattr(torch, name, on_cpu(getattr(torch, name)))


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Deterministic algorithms; one without any warns, and the test's bits tell."""
    with contextlib.ExitStack() as after:
        after.callback(torch.use_deterministic_algorithms, False)
        torch.use_deterministic_algorithms(True, warn_only=True)
        yield

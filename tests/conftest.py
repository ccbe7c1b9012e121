"""Tests hear Ctrl-C as a terminal's programs do, even where the runner is a shell's job in the
background. `pytest -m gpu --device cpu` runs the tests of a GPU without one.
"""

import signal
from collections.abc import Iterator

import pytest

signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of tests/gpu."""
    parser.addoption(
        "--device",
        choices=("cuda", "cpu"),
        default="cuda",
        help="where tests marked gpu run; cpu shows that they work, without a GPU",
    )


@pytest.fixture
def one_thread() -> Iterator[None]:
    """The number of threads decides the order of sums; golden numbers were recorded with one."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)

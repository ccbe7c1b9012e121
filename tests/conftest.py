"""Tests hear Ctrl-C as a terminal's programs do, even where the runner is a shell's job in the
background. `pytest -m gpu --device cpu` runs the tests of a GPU without one.
"""

import contextlib
import signal
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path

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


@pytest.fixture(scope="session")
def imported() -> forkserver.ForkServer:
    """A server of processes that has imported all; that of the commands' own pools stays apart."""
    server = forkserver.ForkServer()
    server.set_forkserver_preload(["tests.everything"])
    with contextlib.chdir(Path(__file__).parents[1]):  # where it finds that
        server.ensure_running()
    return server


@pytest.fixture(scope="module")
def forked(imported: forkserver.ForkServer) -> Iterator[None]:
    """Processes of one task are forked, instead of importing all for seconds."""
    from torch import multiprocessing

    from harl_bench.nn import launching

    strategy = multiprocessing.get_sharing_strategy()
    multiprocessing.set_sharing_strategy("file_system")  # 256 descriptors are too few
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launching, "START", "forkserver")
        patch.setattr(forkserver, "connect_to_new_process", imported.connect_to_new_process)
        yield
    multiprocessing.set_sharing_strategy(strategy)

"""Silent errors, built in on purpose: a check or a test catches each (docs/reliability.md)."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torchvision.models import resnet50

from harl_bench.cli import main
from tests import warm
from tests.faults.mistakes import MISTAKES

ROOT = Path(__file__).parents[2]
State = dict[str, torch.Tensor]


@pytest.mark.slow
@pytest.mark.parametrize("name", MISTAKES)
def test_the_guard_of_each_mistake_fails_on_it(name: str) -> None:
    alone = ["pytest", "-q", "-x", "-n0", "-pno:cacheprovider", "-ptests.faults.mistakes"]
    with_it = warm.run(
        [*alone, MISTAKES[name].guard], cwd=ROOT, env={**os.environ, "HARL_BENCH_MISTAKE": name}
    )
    assert with_it.returncode == 1, with_it.stdout[-3000:]
    assert "FAILED" in with_it.stdout
    assert "INTERNALERROR" not in with_it.stdout


def renamed(state: State) -> None:
    state["layer3.2.conv2.wieght"] = state.pop("layer3.2.conv2.weight")


def transposed(state: State) -> None:
    state["layer2.0.conv1.weight"] = state["layer2.0.conv1.weight"].transpose(0, 1).contiguous()


def zeroed(state: State) -> None:
    state["layer3.2.conv2.weight"].zero_()


def infinite(state: State) -> None:
    state["layer4.0.bn1.weight"][3] = float("inf")


def without_statistics(state: State) -> None:
    for name in [name for name in state if "running" in name]:
        del state[name]


def of_another_depth(state: State) -> None:
    for name in [name for name in state if name.startswith("layer3.5.")]:
        del state[name]


@pytest.mark.parametrize(
    "mistake", [renamed, transposed, zeroed, infinite, without_statistics, of_another_depth]
)
def test_a_checkpoint_with_one_fault_is_refused(
    tmp_path: Path, mistake: Callable[[State], None], capsys: pytest.CaptureFixture[str]
) -> None:
    state = resnet50().state_dict()
    mistake(state)
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    assert main(["convert", str(tmp_path / "a.pth"), "--out", str(tmp_path / "b.pkl")]) == 4
    error = capsys.readouterr().err
    assert error.startswith("error[checkpoint]: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "b.pkl").exists()

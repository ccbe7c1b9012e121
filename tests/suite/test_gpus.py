"""Commands of a suite share out the GPUs, and stop together."""

import json
import os
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest

from harl_bench import cli
from harl_bench.suite import config, local, plan
from tests.suite.conftest import Calls

NVIDIA = """\
#!/bin/sh
for i in 0 1 2 3; do echo "GPU $i: NVIDIA (UUID: GPU-$i)"; done
"""


@pytest.fixture
def four_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that lists four GPUs."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nvidia-smi").write_text(NVIDIA)
    (tmp_path / "bin" / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def seen_gpus() -> dict[str, list[str]]:
    """Which GPUs each kind of command saw, as the stand-in wrote them down."""
    found: dict[str, list[str]] = {}
    for line in Path("gpus").read_text().splitlines():
        command, _, gpus = line.partition(" ")
        found.setdefault(command, []).append(gpus)
    return found


def test_gpus_are_shared_out(
    calls: Calls, four_gpus: None, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", "suite.yaml"]) == 0
    seen = seen_gpus()
    assert seen["pretrain"] == ["0,1,2,3"]
    assert {*map(len, seen["classify"])} == {1}  # one each
    assert all(gpus.count(",") == 3 for gpus in seen["voc"])
    assert calls()[0][0] == "pretrain"  # what others need comes first
    told = capfd.readouterr().out
    (log,) = Path("runs/suite-logs").glob("classify-wildflowers-linear-random-seed-1-*.log")
    assert f"log: {log}" in told
    assert "said classify random" in log.read_text()
    assert "commands failed" not in told


def test_a_chosen_number_at_once(
    calls: Calls, four_gpus: None, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", "suite.yaml", "--at-once", "2", "seeds=[0]"]) == 0
    shares = [
        gpus for command, shares in seen_gpus().items() if command != "report" for gpus in shares
    ]
    assert {gpus.count(",") for gpus in shares} == {1}
    Path("gpus").unlink()
    assert cli.main(["run", "suite.yaml", "--gpus", "1", "seeds=[1]"]) == 0
    assert {
        gpus for command, shares in seen_gpus().items() if command != "report" for gpus in shares
    } == {"0"}
    assert cli.main(["run", "suite.yaml", "--at-once", "5"]) == 2
    assert "more commands at once than GPUs" in capfd.readouterr().err
    assert cli.main(["run", "suite.yaml", "--gpus", "8"]) == 5
    assert "fewer GPUs than asked for; in --gpus; seen: 4 of 8" in capfd.readouterr().err


def test_several_at_once_stop_together(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is stopped by the scheduler: the other saves its state, and nothing more starts."""
    monkeypatch.setenv(
        "FAKE_BROKEN", json.dumps({"random": "slow", "runs/pretrain/byol/last.pth": "preempted"})
    )
    assert cli.main(["run", "suite.yaml", "--gpus", "0", "--at-once", "2"]) == 75
    assert sorted(words[0] for words in calls()) == [
        "classify",
        "classify",
        "pretrain",
    ]  # two of them began together
    assert not list(Path("runs").rglob("failed.json"))


def test_commands_that_share_features_take_turns(calls: Calls, four_gpus: None) -> None:
    """Two seeds of one checkpoint: the second would hold a GPU only to wait for features."""
    every = plan.commands(config.load("suite.yaml"), Path("runs"))
    first, second = (replace(c, needs=()) for c in every if c.task == "classify" and c.shares)
    assert [first.seed, second.seed] == [0, 1]
    slots = local.slots(None, None)
    assert local.next_command([first, second], {}, slots) is first
    process = Mock(gpus=("0",))
    assert local.next_command([second], {process: first}, slots) is None
    other = replace(first, shares="another network")
    assert local.next_command([second], {process: other}, slots) is second
    assert local.free([process], slots) == ["1", "2", "3"]

"""`harl-bench pretrain` on a GPU: resumed bit for bit, preempted, and close to the CPU's run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from harl_bench.cli import main
from harl_bench.core.progress import read_metrics
from harl_bench.nn import checkpoint, runtime
from pretrain import loop
from tests.gpu.conftest import Agree
from tests.pretrain.conftest import folders  # noqa: F401
from tests.pretrain.test_pretrain import RESNET18, same, state

pytestmark = pytest.mark.gpu
Folders = tuple[Path, Path]
BASES = {"byol": ["predictor_hidden=16"], "mocov2": ["queue_size=8", "loss=whole+fg"]}


def command(folders: Folders, out: Path, device: torch.device, *more: str) -> list[str]:  # noqa: F811
    images, masks = map(str, folders)
    settings = [value for value in RESNET18 if not value.startswith("predictor_hidden")]
    return [
        *("pretrain", "--method", "harl", "--recipe", "harl-toy", *settings, *more),
        *("--data", images, "--masks", masks, "--out", str(out)),
        *("--workers", "0", "--device", device.type),
        *(("--gpus", "1") if device.type == "cuda" else ()),
    ]


@pytest.mark.parametrize(
    ("base", "precision"), [("byol", "fp32"), ("byol", "bf16"), ("mocov2", "fp32")]
)
def test_a_preempted_run_ends_with_the_same_bits(
    base: str,
    precision: str,
    folders: Folders,  # noqa: F811
    tmp_path: Path,
    device: torch.device,
    deterministic: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SIGTERM within a step, with a probe and two parts a batch."""
    more = [f"base={base}", *BASES[base], f"precision={precision}", "accumulate=2"]
    more += ["epochs=2", "--val", str(folders[0])]
    whole, broken = (
        command(folders, tmp_path / name, device, *more) for name in ("whole", "broken")
    )
    assert main(whole) == 0
    rate = loop.set_learning_rate
    with monkeypatch.context() as patch:

        def signalling(optimizer: object, config: object, k: int, *rest: int) -> float:
            if k == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return rate(optimizer, config, k, *rest)  # type: ignore[arg-type]

        patch.setattr(loop, "set_learning_rate", signalling)
        assert main(broken) == 75
    assert checkpoint.load_own(tmp_path / "broken" / "last.pth")["step"] == 4
    assert main(broken) == 0
    assert same(state(tmp_path / "whole"), state(tmp_path / "broken"))
    rows = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "broken")]
    timeless = [
        [{k: v for k, v in row.items() if k not in ("pictures_per_s", "data_wait")} for row in r]
        for r in rows
    ]
    assert timeless[0] == timeless[1]


def test_a_signal_to_all_processes_saves_and_exits_with_75(
    folders: Folders,  # noqa: F811
    tmp_path: Path,
    device: torch.device,
) -> None:
    """A process of its own with a data worker, as a scheduler ends it."""
    out = tmp_path / "run"
    arguments = command(folders, out, device, "epochs=200", "checkpoint_every_steps=10000")
    arguments[arguments.index("--workers") + 1] = "1"
    process = subprocess.Popen(
        [sys.executable, "-m", "harl_bench.cli", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while (
        len(read_metrics(out / "metrics.jsonl")) < 3
        and process.poll() is None
        and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 75, error
    assert "give the same command again" in error
    saved = checkpoint.load_own(out / "last.pth")
    assert 3 <= saved["step"] < 600
    assert all(tensor.device.type == "cpu" for tensor in saved["method"].values())


def test_the_first_step_is_the_cpus(
    folders: Folders,  # noqa: F811
    tmp_path: Path,
    device: torch.device,
    agree: Agree,
) -> None:
    """But for colors, which the CPU rounds to 8 bits after each operation."""
    losses = []
    for name in (device.type, "cpu"):
        arguments = command(folders, tmp_path / name, torch.device(name), "epochs=2")
        assert main(arguments) == 0
        losses.append(read_metrics(tmp_path / name / "metrics.jsonl")[0]["loss"])
    agree("loss", losses[0], losses[1], 5e-2)


def test_random_states_come_back(device: torch.device) -> None:
    runtime.seed_everything(3)
    saved = runtime.rng_state()
    first = torch.rand(5, device=device)
    assert not torch.equal(torch.rand(5, device=device), first)
    runtime.set_rng_state(saved)
    assert torch.equal(torch.rand(5, device=device), first)


def test_a_full_device_hands_one_step_to_the_cpu(device: torch.device) -> None:
    """A petabyte fits no GPU; what fits nowhere is computed on the CPU."""

    def hungry(x: torch.Tensor) -> torch.Tensor:
        if x.is_cuda:
            torch.empty(2**50, dtype=torch.uint8, device=x.device)
        return x + 1

    assert runtime.retry_on_cpu(hungry, torch.ones(2, device=device)).tolist() == [2, 2]

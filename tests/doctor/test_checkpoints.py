"""Checkpoints: whole ones, broken ones, and what is none."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from harl_bench import cli
from harl_bench.doctor import checkpoints, machine
from harl_bench.doctor.finding import Finding
from harl_bench.nn import resnet


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    state = resnet.resnet50().state_dict()
    torch.save(state, tmp_path / "untrained.pth")
    for name in state:
        if name.endswith(("running_mean", "running_var")):
            state[name] += 0.1  # as training does
    torch.save(state, tmp_path / "whole.pth")
    del state["layer4.2.bn3.weight"]
    torch.save(state, tmp_path / "lacking.pth")
    (tmp_path / "half.pth").write_bytes(b"half a download")
    (tmp_path / "notes.txt").write_text("no checkpoint")
    return tmp_path


def test_a_folder_of_checkpoints(folder: Path) -> None:
    found = {finding.what: finding for finding in checkpoints.findings([folder])}
    assert set(found) == {"whole.pth", "lacking.pth", "half.pth", "untrained.pth"}
    assert found["whole.pth"].level == "ok"
    assert found["whole.pth"].seen.startswith(
        "265 of 265 tensors, format torchvision, online network, sha256 "
    )
    assert found["untrained.pth"].level == "warn"
    assert "mean 0 and variance 1" in found["untrained.pth"].seen
    assert found["lacking.pth"].level == found["half.pth"].level == "fail"
    assert "264 of 265 tensors match" in found["lacking.pth"].seen
    assert found["lacking.pth"].next == f"harl-bench convert {folder / 'lacking.pth'} --inspect"


def test_a_resnet18_is_what_classify_measures(tmp_path: Path) -> None:
    state = resnet.build("resnet18").state_dict()
    for name in state:
        if name.endswith(("running_mean", "running_var")):
            state[name] += 0.1  # as training does
    torch.save(state, tmp_path / "small.pth")
    (found,) = checkpoints.findings([tmp_path / "small.pth"])
    assert found.level == "ok"
    assert found.seen.startswith("100 of 100 tensors")
    assert "a ResNet-18, which only classify measures" in found.seen


def test_the_command(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        machine, "findings", lambda out: iter([Finding("environment", "ok", "torch", "2.14.1")])
    )
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    assert cli.main(["doctor", "--checkpoints", str(folder / "whole.pth")]) == 0
    assert (
        cli.main(["doctor", "--checkpoints", str(folder / "half.pth"), str(folder / "whole.pth")])
        == 4
    )
    assert (
        cli.main(
            ["doctor", "--data", str(folder / "none"), "--checkpoints", str(folder / "gone.pth")]
        )
        == 4
    )
    assert "next: check the path" in capsys.readouterr().out
    (folder / "empty").mkdir()
    assert cli.main(["doctor", "--checkpoints", str(folder / "empty")]) == 4
    assert "no checkpoint in" in capsys.readouterr().out


def test_slurm_without_submitit_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def slurm() -> Iterator[Finding]:
        return (finding for finding in machine.findings(tmp_path) if finding.what == "SLURM")

    monkeypatch.setattr(
        machine.shutil, "which", lambda name: f"/usr/bin/{name}" if name == "sbatch" else None
    )
    monkeypatch.setattr(machine, "_torch", lambda: iter(()))
    version = machine._version
    monkeypatch.setattr(
        machine, "_version", lambda name: None if name == "submitit" else version(name)
    )
    assert [(f.level, f.next) for f in slurm()] == [("warn", "pip install 'harl-bench[slurm]'")]
    monkeypatch.setattr(
        machine, "_version", lambda name: "1.5.4" if name == "submitit" else version(name)
    )
    assert [f.level for f in slurm()] == ["ok"]
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    assert not list(slurm())

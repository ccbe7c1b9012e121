"""The command: lines, --json, --fix and the exit codes."""

import json
from pathlib import Path

import pytest

from harl_bench import cli
from harl_bench.doctor import machine
from harl_bench.doctor.finding import Finding

FINE = Finding("environment", "ok", "torch", "2.14.1")
BROKEN = Finding("environment", "fail", "OpenCV", "without\ncontrib", next="pip install x")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    found = [FINE]
    monkeypatch.setattr(machine, "findings", lambda out: iter(found))
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    return found


def test_fine(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["ok", "torch", "2.14.1"]
    assert lines[-1] == "2 ok"


def test_exit_codes(
    environment: list[Finding], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["doctor", "--data", str(tmp_path / "absent")]) == 3
    environment.append(BROKEN)
    assert cli.main(["doctor", "--data", str(tmp_path / "absent")]) == 5
    assert cli.main(["doctor"]) == 5
    assert (
        "fail  OpenCV                    without\\ncontrib  next: pip install x\n"
        in capsys.readouterr().out
    )


def test_json_is_a_list_of_findings(
    environment: list[Finding], capsys: pytest.CaptureFixture[str]
) -> None:
    environment.append(BROKEN)
    assert cli.main(["doctor", "--json"]) == 5
    found = json.loads(capsys.readouterr().out)
    assert [f["level"] for f in found] == ["ok", "fail", "ok"]
    assert found[1] == {
        "area": "environment",
        "level": "fail",
        "what": "OpenCV",
        "seen": "without\ncontrib",
        "next": "pip install x",
        "hint": "",
    }


def test_fix_prints_commands_and_does_nothing(
    environment: list[Finding], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["doctor", "--fix"]) == 0
    assert capsys.readouterr().out == "# nothing to fix\n"
    environment += [BROKEN, BROKEN]
    assert cli.main(["doctor", "--fix", "--data", str(tmp_path / "absent")]) == 5
    assert capsys.readouterr().out == "pip install x\n# data: check --data\n"
    assert list(tmp_path.iterdir()) == []


def test_the_data_folder_of_detectron2_is_the_default(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(made / "voc"))
    assert cli.main(["doctor"]) == 0
    assert "VOC2007 trainval" in capsys.readouterr().out

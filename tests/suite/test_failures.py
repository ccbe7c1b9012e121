"""A suite whose commands fail, stop, or would be refused."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from harl_bench import cli
from harl_bench.report.states import states
from harl_bench.suite import process
from tests.suite.conftest import FAKE, SUITE, Calls

REAL = (sys.executable, "-m", "harl_bench.cli")


PRETRAINING = """
data: {photos: photos}
pretrain: [{name: byol, recipe: RECIPE, data: photos}]
checkpoints: [byol]
tasks: [{task: classify, protocol: linear, data: photos}]
"""


@pytest.mark.parametrize("arguments", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        # ImageNet read as a plain folder: days of pretraining for images that cannot be classified
        # afterwards
        (
            SUITE.replace("checkpoints: [byol, random]", "checkpoints: [random]", 1),
            "classify  wildflowers  linear  random",
        ),
        # toy images under the paper's recipe
        (
            PRETRAINING.replace("RECIPE", "byol-1000ep"),
            "batch_size is larger than the data set; seen: 4096 > 3 images",
        ),
    ],
    ids=["folder", "batch"],
)
def test_what_a_command_refuses_is_refused_before_anything_starts(
    calls: Calls,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    message: str,
    arguments: list[str],
) -> None:
    """The commands themselves are asked, and the dry run gives the run's answer."""
    monkeypatch.setattr(process, "HARL_BENCH", REAL)
    for i in range(3):
        Image.new("RGB", (32, 32)).save(f"photos/{i}.png")
    Path("wildflowers/test").rename("wildflowers/validation")
    Path("suite.yaml").write_text(re.sub(r"pretrain:\n.*byol-toy.*\n|  - {task: voc.*\n", "", text))
    assert cli.main(["run", "suite.yaml", "--gpus", "0", *arguments]) == (
        2 if "byol" in text[:60] else 3
    )
    error = capfd.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not Path("runs").exists()


def test_a_refusal_is_a_line_with_the_command_and_its_code(
    calls: Calls, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_REFUSED", "voc")
    for arguments in ([], ["--dry-run"]):
        assert cli.main(["run", "suite.yaml", *arguments]) == 3
        told = capsys.readouterr()
        assert told.err == (
            "error[data]: voc  voc  voc-c4-toy SOLVER.MAX_ITER=9  random  seed 0: it is "
            "refused; in here\n"
        )
    # pretraining, classification, VOC: seeds and known checkpoints once
    assert told.out.count("checking ") == 3
    assert calls() == []


def test_a_failure_is_recorded_and_the_rest_goes_on(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAKE_BROKEN", json.dumps({"voc": "error"}))
    assert cli.main(["run", "suite.yaml", "seeds=[0]"]) == 1
    assert [words[0] for words in calls()] == ["pretrain", "classify", "classify", "voc", "report"]
    told = capfd.readouterr()
    assert "error[data]: it is broken; in here\n" in told.err
    assert (
        "failed: voc  voc  voc-c4-toy SOLVER.MAX_ITER=9  random  seed 0: error[data]: it is broken"
        in told.out
    )
    record = Path("runs/voc/voc07+12/voc-c4-toy/random-none/seed0/failed.json")
    about = json.loads(record.read_text())
    assert about["exit_code"] == 3
    assert about["error"] == "error[data]: it is broken; in here"
    assert about["command"][:3] == ["harl-bench", "voc", "random"]
    (failed,) = [state for state in states(Path("runs")) if state.word == "failed"]
    assert failed.folder == record.parent
    monkeypatch.delenv("FAKE_BROKEN")
    capfd.readouterr()
    assert cli.main(["run", "suite.yaml", "seeds=[0]", "--dry-run"]) == 0
    assert "unfinished" in capfd.readouterr().out
    assert cli.main(["run", "suite.yaml", "seeds=[0]"]) == 0
    assert not record.exists()
    assert {state.word for state in states(Path("runs"))} == {"done"}


def test_a_failure_before_there_is_a_run_folder(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_BROKEN", json.dumps({"voc": "early"}))
    assert cli.main(["run", "suite.yaml", "seeds=[0]"]) == 1
    (failed,) = [state for state in states(Path("runs")) if state.word == "failed"]
    assert failed.folder.parent == Path("runs/failed")
    assert failed.folder.name.startswith("voc-voc-voc-c4-toy-SOLVER.MAX_ITER-9-random-seed-0-")
    assert failed.about == "exit code 2, no message"
    monkeypatch.delenv("FAKE_BROKEN")
    assert cli.main(["run", "suite.yaml", "seeds=[0]"]) == 0
    assert not failed.folder.exists()


def test_a_pretraining_that_fails_takes_only_its_own_measurements_along(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAKE_BROKEN", json.dumps({"pretrain": "killed"}))
    assert cli.main(["run", "suite.yaml", "seeds=[0]"]) == 1
    assert [words[:2] for words in calls()[1:-1]] == [["classify", "random"], ["voc", "random"]]
    out = capfd.readouterr().out
    assert "byol  seed 0: killed by SIGKILL" in out
    assert "classify  wildflowers  linear  byol  seed 0: byol failed, which it needs" in out
    assert "2 of 5 commands failed" in out


def test_a_report_that_fails_counts(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_BROKEN", json.dumps({"report": "error"}))
    assert cli.main(["run", "suite.yaml", "seeds=[0]"]) == 1


@pytest.mark.parametrize(("how", "code"), [("preempted", 75), ("interrupted", 130)])
def test_a_stopped_command_stops_the_suite(
    calls: Calls,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    how: str,
    code: int,
) -> None:
    monkeypatch.setenv("FAKE_BROKEN", json.dumps({"random": how}))
    assert cli.main(["run", "suite.yaml"]) == code
    assert [words[0] for words in calls()] == ["pretrain", "classify", "classify"]
    assert "same command again" in capfd.readouterr().err
    assert not list(Path("runs").rglob("failed.json"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_reaches_the_command_and_ends_the_suite(
    calls: Calls, number: int, code: int
) -> None:
    suite = (
        f"import sys; from harl_bench import cli; from harl_bench.suite import process; "
        f"process.HARL_BENCH = (sys.executable, {str(FAKE)!r}); sys.exit(cli.main(['run', "
        "'suite.yaml']))"
    )
    environment = os.environ | {"FAKE_BROKEN": json.dumps({"random": "slow"})}
    running = subprocess.Popen(
        [sys.executable, "-c", suite], env=environment, stderr=subprocess.PIPE, text=True
    )
    for _ in range(1200):  # two minutes where the machine is busy
        if Path("ready").exists():
            break
        time.sleep(0.1)
    running.send_signal(number)
    _, told = running.communicate(timeout=20)
    assert running.returncode == code
    assert "same command again" in told
    assert [words[0] for words in calls()] == ["pretrain", "classify", "classify"]


def test_what_is_missing_is_said_before_anything_starts(
    calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("voc").rmdir()
    assert cli.main(["run", "suite.yaml"]) == 3
    expected = (
        "error[data]: data folder 'voc' is missing; in voc; next: give its place: data.voc=DIR\n"
    )
    assert capsys.readouterr().err == expected
    assert cli.main(["run", "suite.yaml", "data.voc=wildflowers", "checkpoints=[gone.pth]"]) == 2
    Path("suite.yaml").write_text(SUITE.replace("random]", "random, gone.pth]", 1))
    assert cli.main(["run", "suite.yaml", "data.voc=wildflowers"]) == 4
    assert "checkpoint not found; in gone.pth" in capsys.readouterr().err
    assert cli.main(["run", "suite.yaml", "--dry-run"]) == 3  # the run's answer
    told = capsys.readouterr()
    assert "error[data]: data folder 'voc' is missing" in told.err
    assert "warning: checkpoint not found; in gone.pth" in told.out
    assert calls() == []

"""Running a suite: order, resumption, failures that do not stop it, signals that do.

The commands are stand-ins.
"""

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


def test_dry_run_shows_the_matrix_and_starts_nothing(
    calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", "suite.yaml", "--dry-run"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["pretrain", "photos", "byol-toy", "epochs=3", "byol", "new", "-"] in lines
    assert ["classify", "flowers", "linear", "byol", "new", "new"] in lines
    assert ["voc", "voc", "voc-c4-toy", "SOLVER.MAX_ITER=9", "random", "new", "new"] in lines
    assert calls() == []
    assert not Path("runs").exists()


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
            "classify  flowers  linear  random",
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
    Path("flowers/test").rename("flowers/validation")
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


def test_the_whole_path_and_again(calls: Calls, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "suite.yaml", "--gpus", "0"]) == 0
    made = calls()
    assert made[0] == [
        "pretrain",
        "epochs=3",
        "--recipe",
        "byol-toy",
        "--data",
        "photos",
        "--seed",
        "0",
        "--out",
        "runs/pretrain/byol",
        "--device",
        "cpu",
    ]
    assert [(words[0], words[1], words[-3]) for words in made[1:-1]] == [
        ("classify", "runs/pretrain/byol/last.pth", "0"),
        ("classify", "random", "0"),
        ("voc", "random", "0"),
        ("classify", "runs/pretrain/byol/last.pth", "1"),
        ("classify", "random", "1"),
        ("voc", "random", "1"),
    ]
    assert made[3] == [
        "voc",
        "random",
        "SOLVER.MAX_ITER=9",
        "--data",
        "voc",
        "--recipe",
        "voc-c4-toy",
        "--engine",
        "auto",
        "--gpus",
        "0",
        "--seeds",
        "0",
        "--out",
        "runs",
    ]
    assert made[-1] == ["report", "runs", "--md", "runs/table.md"]
    assert "said voc random" in capfd.readouterr().out  # the commands' output comes through
    assert cli.main(["run", "suite.yaml", "--dry-run"]) == 0
    assert "7 commands, 7 finished, 0 to do" in capfd.readouterr().out


def test_other_settings_are_other_runs(calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "suite.yaml", "seeds=[0]"]) == 0
    Path("suite.yaml").write_text(SUITE.replace("MAX_ITER=9", "MAX_ITER=8"))
    capsys.readouterr()
    assert cli.main(["run", "suite.yaml", "--dry-run"]) == 0
    assert "7 commands, 3 finished, 4 to do" in capsys.readouterr().out


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
    assert "classify  flowers  linear  byol  seed 0: byol failed, which it needs" in out
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
    assert cli.main(["run", "suite.yaml", "data.voc=flowers", "checkpoints=[gone.pth]"]) == 2
    Path("suite.yaml").write_text(SUITE.replace("random]", "random, gone.pth]", 1))
    assert cli.main(["run", "suite.yaml", "data.voc=flowers"]) == 4
    assert "checkpoint not found; in gone.pth" in capsys.readouterr().err
    assert cli.main(["run", "suite.yaml", "--dry-run"]) == 3  # the run's answer
    told = capsys.readouterr()
    assert "error[data]: data folder 'voc' is missing" in told.err
    assert "warning: checkpoint not found; in gone.pth" in told.out
    assert calls() == []


def test_names_are_arguments_never_shell_words(calls: Calls) -> None:
    folder = Path("flowers").rename("a b; touch owned $(id)")
    name = "c'k; touch owned.pth"
    Path(name).write_bytes(b"x")
    Path("suite.yaml").write_text(SUITE.replace("random]", f'random, "{name}"]', 1))
    assert cli.main(["run", "suite.yaml", f"data.flowers={folder}", "seeds=[0]"]) == 0
    made = [words for words in calls() if words[:2] == ["classify", name]]
    assert made[0][made[0].index("--data") + 1] == str(folder)
    assert not Path("owned").exists()


def test_commands_in_line_are_queued_while_the_suite_lives(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harl_bench.suite import config, plan, records

    commands = plan.commands(config.load("suite.yaml"), Path("runs"))
    with records.queued(Path("runs"), commands):
        records.leave(Path("runs"), commands[0])
        queued = [state for state in states(Path("runs")) if state.word == "queued"]
        assert [state.folder.name for state in queued] == [command.name for command in commands[1:]]
        killed = {path: path.read_bytes() for path in Path("runs/queued").iterdir()}
    assert states(Path("runs")) == []
    Path("runs/queued").mkdir()
    for path, content in killed.items():
        path.write_bytes(content)
    assert states(Path("runs")) == []  # nobody holds the lock


def test_the_plan_tells_time_and_disk(calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "suite.yaml", "seeds=[0]"]) == 0
    capsys.readouterr()
    assert cli.main(["run", "suite.yaml", "seeds=[0, 1, 2]", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "10 commands, 4 finished, 6 to do" in told
    assert "time: about 6:00 for 6 commands one after the other, measured here" in told
    arguments = ["run", "moco-transfer", "seeds=[0]", "checkpoints=[random]", "--dry-run"]
    assert cli.main(arguments) == 3, "no data"
    told = capsys.readouterr().out
    # 24,000 x 0.551 s + (90,000 + 180,000) x 0.584 s
    assert (
        "time: about 2.0 days for 3 commands one after the other, published speeds (8 V100" in told
    )
    assert "segment voc12aug-fcn16s-30k on voc: 1 commands, 480,000 images each" in told
    assert "disk: about 4.2 GiB, " in told


def test_masks_are_steps_too(calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(64):
        Image.new("RGB", (8, 8)).save(f"photos/{i}.png")
    Path("suite.yaml").write_text("""
data: {photos: photos, truth: flowers}
fit:
  - {name: forest, method: drfi, data: photos, masks: truth, overrides: [levels=single]}
masks:
  - {name: by-forest, method: drfi, model: forest, data: photos, truth: truth, threshold: "0.4"}
  - {name: lite, data: photos}
pretrain:
  - {name: harl, recipe: harl-toy, data: photos, masks: lite}
seeds: [0, 1]
""")
    assert cli.main(["run", "suite.yaml", "--gpus", "0"]) == 0
    made = calls()
    assert made[0] == [
        "masks",
        "fit",
        "photos",
        "levels=single",
        "--method",
        "drfi",
        "--out",
        "runs/mask-making/seed0/forest.npz",
        "--masks",
        "flowers",
        "--seed",
        "0",
    ]
    assert [words[:3] for words in made] == [
        ["masks", "fit", "photos"],
        ["masks", "fit", "photos"],
        ["masks", "make", "photos"],
        ["masks", "evaluate", "runs/mask-making/seed0/by-forest"],
        ["masks", "make", "photos"],
        ["masks", "make", "photos"],
        ["masks", "evaluate", "runs/mask-making/seed1/by-forest"],
        ["pretrain", "--recipe", "harl-toy"],
    ]
    assert made[2][3:] == [
        "--out",
        "runs/mask-making/seed0/by-forest",
        "--method",
        "drfi",
        "--model",
        "runs/mask-making/seed0/forest.npz",
        "--threshold",
        "0.4",
        "--save-maps",
        "runs/mask-making/seed0/by-forest-maps",
    ]
    assert made[-1][made[-1].index("--masks") + 1] == "runs/mask-making/seed0/lite"


def test_every_kind_of_command_has_a_cost(calls: Calls) -> None:
    """Images are counted where no speed is known; by hand: flowers, SimCLR's list, DTD's splits."""
    from harl_bench.suite import config, cost, plan

    for i in range(20):
        Image.new("RGB", (8, 8)).save(f"photos/{i}.png")
    Path("suite.yaml").write_text("""
data: {photos: photos, flowers: flowers, dtd: dtd, imagenet: imagenet, voc: voc}
masks: [{name: lite, data: photos, truth: photos}]
pretrain: [{name: byol, recipe: byol-toy, data: photos, overrides: [epochs=3]}]
checkpoints: [random]
tasks:
  - {task: classify, protocol: linear, data: flowers}
  - {task: classify, protocol: knn, data: dtd, dataset: dtd}
  - {task: classify, protocol: semi-1pct-logreg, data: imagenet, dataset: imagenet}
  - {task: voc, recipe: voc-c4-toy, data: voc, overrides: [SOLVER.MAX_ITER=9, SOLVER.IMS_PER_BATCH=2]}
""")
    commands = plan.commands(config.load("suite.yaml"), Path("runs"))
    images = {(command.task, command.setting): cost.of(command, []).images for command in commands}
    assert images == {
        ("masks make", "drfi-lite"): 20,
        ("masks", "mask-quality"): 20,
        ("pretrain", "byol-toy"): 3 * 20,
        ("classify", "linear"): 8,
        ("classify", "knn"): 3 * 1880,
        ("classify", "semi-1pct-logreg"): 12_811 + 10_000 + 50_000,
        ("voc", "voc-c4-toy"): 18,
    }

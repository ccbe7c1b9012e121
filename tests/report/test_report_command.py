"""The commands `report` and `ls` as a user calls them: outputs, exit codes, messages, no torch."""

import contextlib
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harl_bench.cli import main
from harl_bench.core.errors import PREEMPTED, PreemptedError
from harl_bench.core.progress import log_file
from harl_bench.core.results import scan
from harl_bench.core.stopping import Stop
from harl_bench.report.states import states
from tests.report.report_store import metrics_file, result, small, write


def test_all_formats_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "runs", *small())
    names = {"--html": "r.html", "--md": "r.md", "--tex": "r.tex", "--csv": "r.csv"}
    outputs = [
        word
        for option, name in names.items()
        for word in (option, str(tmp_path / "new" / "folder" / name))
    ]
    assert main(["report", str(tmp_path / "runs"), *outputs, "--against", "published"]) == 0
    written = sorted(p.name for p in (tmp_path / "new" / "folder").iterdir())
    assert written == sorted([*names.values(), "r.bib"])
    shown = capsys.readouterr().out
    assert "Transfer to detection and segmentation (HARL paper, Table 3)" in shown
    assert "HARL  harl_100" in shown


def test_a_faulty_result_is_named_and_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = write(tmp_path, result(seed=0), result(seed=1))
    (folders[1] / "result.json").write_text('{"schema_version": 1}')
    assert main(["report", str(tmp_path)]) == 0
    assert "warning: not a result of this version" in capsys.readouterr().out


@pytest.mark.parametrize("content", [None, "{"])
def test_nothing_to_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    if content:
        (tmp_path / "result.json").write_text(content)
    assert main(["report", str(tmp_path)]) == 3
    line = capsys.readouterr().err
    assert line.startswith("error[data]: no ")
    assert f"next: harl-bench demo, or harl-bench ls {tmp_path}" in line


@pytest.mark.parametrize("command", ["report", "ls"])
def test_a_missing_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert main([command, str(tmp_path / "nowhere")]) == 3
    assert "run folder not found" in capsys.readouterr().err


def test_an_output_that_is_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "runs", result())
    assert main(["report", str(tmp_path / "runs"), "--md", str(tmp_path)]) == 2
    assert "an output is a file, this is a folder" in capsys.readouterr().err


def test_tables_are_chosen_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "runs", *small())
    words = ["report", str(tmp_path / "runs"), "--tex", str(tmp_path / "t.tex"), "--columns", "one"]
    assert main([*words, "--tables", "table3", "table2-*"]) == 0
    labels = re.findall(r"label\{tab:([^}]*)\}", (tmp_path / "t.tex").read_text())
    assert labels == ["table2-linear", "table3"]
    assert r"\begin{table*}" not in (tmp_path / "t.tex").read_text()  # two columns have both
    capsys.readouterr()
    assert main([*words, "--tables", "table33"]) == 2
    assert "unknown table 'table33'; did you mean 'table3'?" in capsys.readouterr().err


def test_an_unknown_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, result())
    assert main(["report", str(tmp_path), "--baseline", "hral"]) == 2
    assert "unknown baseline 'hral'; did you mean 'harl'?" in capsys.readouterr().err


def test_report_never_loads_torch(tmp_path: Path) -> None:
    write(tmp_path / "runs", *small())
    code = (
        "import sys; from harl_bench.cli import main; code = main(sys.argv[1:]); "
        "assert not [m for m in sys.modules if m.split('.')[0] in ('torch', 'torchvision')]; "
        "sys.exit(code)"
    )
    command = [
        sys.executable,
        "-c",
        code,
        "report",
        str(tmp_path / "runs"),
        "--html",
        str(tmp_path / "r.html"),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def test_ls_tells_every_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (done,) = write(tmp_path, result(score=41.0))
    folders = {
        name: done.parent / name
        for name in ("faulty", "failed", "logged", "held", "stopped", "begun")
    }
    for folder in folders.values():
        folder.mkdir()
        (folder / "run.json").write_text(json.dumps({"run_id": "x", "task": "voc"}))
    (folders["faulty"] / "result.json").write_text("{")
    (folders["failed"] / "failed.json").write_text('{"error": "out of memory", "log": "job.log"}')
    (folders["logged"] / "log.txt").write_text(
        "12:00 INFO begin\n12:01 ERROR the loss is not finite\n"
    )
    line = '{"iteration": 1999, "total_loss": 0.5, "eta_seconds": 3725.0}\n{"iteration": 2019, "tot'
    for name in ("held", "stopped"):
        (folders[name] / "metrics.jsonl").write_text(line)
        (folders[name] / ".lock").touch()
    (folders["logged"] / ".lock").touch()
    with open(folders["held"] / ".lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(["ls", str(tmp_path)]) == 0
    shown = {Path(line.split()[1]).name: line for line in capsys.readouterr().out.splitlines()[:-1]}
    assert shown["seed0"].startswith("done")
    assert shown["seed0"].endswith("AP 41.0  AP50 67.0  AP75 47.0")
    assert shown["faulty"].startswith("faulty")
    assert shown["failed"].startswith("failed")
    assert "out of memory  log: job.log" in shown["failed"]
    assert "the loss is not finite" in shown["logged"]
    assert shown["held"].startswith("running")
    assert shown["held"].endswith("step 1,999  loss 0.5  ETA 1:02:05")
    assert shown["stopped"].startswith("unfinished")
    assert shown["stopped"].endswith("step 1,999  loss 0.5  give its command again to resume")
    assert shown["begun"].startswith("unfinished")


def test_ls_shows_pretraining(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("under-way", "over"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(
            json.dumps({"config": {"epochs": 10, "batch_size": 64}})
        )
    metrics_file(tmp_path / "under-way", 21, epoch=2.5, pictures_per_s=32.0)
    (tmp_path / "over" / "done.json").write_text('{"steps": 80, "loss": 3.25}')
    assert main(["ls", str(tmp_path)]) == 0
    over, running, count = capsys.readouterr().out.splitlines()
    assert over.split()[:2] == ["done", "over"]
    assert over.endswith("step 80  loss 3.25")
    # a quarter is done in 20 steps of 64 images: 60 steps are left, at 32 images a second 2 minutes
    assert running.split()[:2] == ["running", "under-way"]
    assert running.endswith("step 20  loss 3  25 %  ETA 2:00")
    assert count == "1 done, 1 running"


@pytest.mark.parametrize("kept", ["log", "record", "record, then a log"])
def test_ls_tells_that_a_preempted_run_resumes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kept: str
) -> None:
    """From the log that the command itself writes on its way out, or from a suite's record."""
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / ".lock").touch()
    if "record" in kept:
        code = PREEMPTED if kept == "record" else 3
        (tmp_path / "failed.json").write_text(
            json.dumps({"exit_code": code, "error": "error[data]: earlier"})
        )
        os.utime(tmp_path / "failed.json", (0, 0))
    if "log" in kept:
        stop = Stop()
        stop.signal = signal.SIGTERM
        with contextlib.suppress(PreemptedError), log_file(tmp_path / "log.txt"):
            stop.raise_if_asked("iteration 3 of 9 is saved")
    assert main(["ls", str(tmp_path)]) == 0
    line, count = capsys.readouterr().out.splitlines()
    assert (line.split()[0], count) == ("stopped", "1 stopped")
    assert line.endswith("stopped with its state saved, resumes with the same command")


@pytest.mark.parametrize(
    ("successor", "shown"),
    [
        # the suite's command was renamed, or given by hand
        (["voc", "a.pth", "--seeds", "0"], {"done"}),
        (["voc", "a.pth", "--seeds", "0", "--label=X", "--debug"], {"done"}),
        (["voc", "a.pth", "--seeds", "1"], {"done", "failed"}),
        (["voc", "a.pth", "--seeds", "0", "SOLVER.BASE_LR=0.1"], {"done", "failed"}),
    ],
)
def test_ls_leaves_a_failure_out_when_the_same_command_is_done(
    tmp_path: Path, successor: list[str], shown: set[str]
) -> None:
    failed = tmp_path / "failed" / "some-cell"
    failed.mkdir(parents=True)
    (failed / "run.json").write_text("{}")
    (failed / "failed.json").write_text(
        json.dumps({"command": ["harl-bench", "voc", "a.pth", "--seeds", "0"]})
    )
    assert {state.word for state in states(tmp_path)} == {"failed"}
    write(tmp_path, result(manifest={"argv": ["cli.py", *successor]}))
    assert {state.word for state in states(tmp_path)} == shown


@pytest.mark.parametrize(
    ("settings", "shown"), [("BASE_LR: 0.02", {"done"}), ("BASE_LR: 0.1", {"done", "failed"})]
)
def test_ls_leaves_out_what_failed_on_data_that_were_mended(
    tmp_path: Path, settings: str, shown: set[str]
) -> None:
    """Other data are another run id: the finished run lies beside the failed one."""
    failed = write(tmp_path, result())[0]
    done = write(tmp_path, result())[0]
    write(tmp_path, result(seed=1))
    (failed / "result.json").unlink()
    (failed / "run.json").write_text("{}")
    (failed / ".lock").touch()
    (failed / "log.txt").write_text("12:01 ERROR error[data]: an image is unreadable\n")
    (failed / "config.yaml").write_text("BASE_LR: 0.02")
    (done / "config.yaml").write_text(settings)
    assert {state.word for state in states(tmp_path)} == shown


def test_ls_leaves_out_a_pretraining_that_failed_early_and_is_done(tmp_path: Path) -> None:
    failed, out = tmp_path / "failed" / "byol", tmp_path / "pretrain" / "byol"
    for folder in (failed, out):
        folder.mkdir(parents=True)
        (folder / "run.json").write_text("{}")
    command = ["harl-bench", "pretrain", "--out", str(out)]
    (failed / "failed.json").write_text(json.dumps({"command": command}))
    assert {state.word for state in states(tmp_path)} == {"failed", "unfinished"}
    (out / "done.json").write_text("{}")
    assert {state.word for state in states(tmp_path)} == {"done"}


def test_ls_of_an_empty_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", str(tmp_path)]) == 0
    assert "no run below" in capsys.readouterr().out


def test_runs_behind_links_count_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run on another disk was left out, and with it one of n, while its suite had it as done."""
    runs, elsewhere = tmp_path / "runs", tmp_path / "scratch"
    write(runs, result(seed=0))
    (moved,) = write(elsewhere, result(seed=1))
    place = runs / moved.relative_to(elsewhere)
    place.symlink_to(moved)
    (runs / "voc" / "latest").symlink_to(place)
    (runs / "voc" / "up").symlink_to(runs)
    assert sorted(run.seed for _, run in scan(runs)[0]) == [0, 1]
    assert [state.word for state in states(runs)] == ["done", "done"]
    assert main(["report", str(runs)]) == 0
    assert re.search(r"harl_100 +2 ", capsys.readouterr().out)  # n

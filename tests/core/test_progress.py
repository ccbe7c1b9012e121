"""Progress in a log, and metrics.jsonl that a kill or a resumption cannot spoil."""

import json
import math
import time
from pathlib import Path

import pytest

from harl_bench.core import progress
from harl_bench.core.progress import (
    MetricsFile,
    Tracker,
    duration,
    log,
    log_file,
    read_metrics,
    set_up_logging,
    track,
)


@pytest.fixture(autouse=True)
def logging() -> None:
    set_up_logging()


class Clock:
    """A clock that the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


def test_plain_lines_early_and_then_every_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock(monkeypatch)
    with Tracker("train", 1000, unit="steps") as tracker:
        for _ in range(1000):
            clock.now += 1
            tracker.advance(loss=1.23456, lr="low")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "train: 10/1000 steps loss 1.235  lr low ETA 16:30"
    assert [line.split()[1] for line in lines[:5]] == [
        "10/1000",
        "20/1000",
        "50/1000",
        "110/1000",
        "170/1000",
    ]
    assert lines[-1] == "train: 1000/1000 in 16:40"
    assert len(lines) == 3 + 15 + 1
    assert not any("\x1b" in line or "\r" in line for line in lines)


def test_a_resumed_stage_counts_only_its_own_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock(monkeypatch)
    with Tracker("train", 1000, start=900) as tracker:
        clock.now += 60
        tracker.advance(50)
    assert "950/1000   ETA 1:00" in capsys.readouterr().out


def test_the_rate_is_left_out_until_there_is_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A first batch on a GPU takes long: its line said "rate 0.0/s"."""
    clock = Clock(monkeypatch)
    with Tracker("features", 1000, start=200, unit="images") as tracker:
        for _ in range(2):
            clock.now += 60
            tracker.advance(60, rate=tracker.rate, waiting="3%")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "features: 260/1000 images waiting 3% ETA 12:20"
    assert lines[1] == "features: 320/1000 images rate 0.5/s  waiting 3% ETA 11:20"


def test_short_work_says_only_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track([1, 2, 3], "count")) == [1, 2, 3]
    assert list(track(iter("ab"), "letters", 2)) == ["a", "b"]
    assert [line.partition(" in ")[0] for line in capsys.readouterr().out.splitlines()] == [
        "count: 3/3",
        "letters: 2/2",
    ]


def test_a_stage_that_fails_does_not_claim_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError), Tracker("train", 2):
        raise RuntimeError
    assert capsys.readouterr().out == ""


def test_metrics_resume_drops_what_is_repeated(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "metrics.jsonl"
    first = MetricsFile(path)
    for step in range(5):
        first.append(step=step, loss=float(step))
    with open(path, "a") as file:
        file.write('{"step": 5, "lo')  # killed while writing
    MetricsFile(path, resume_step=3).append(step=3, loss=30.0)
    assert [(row["step"], row["loss"]) for row in read_metrics(path)] == [
        (0, 0),
        (1, 1),
        (2, 2),
        (3, 30),
    ]
    MetricsFile(path)
    assert read_metrics(path) == []


def test_metrics_by_another_key(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"iteration": 1}\n{"iteration": 2}\n{"about": "no key"}\n[1]\n')
    MetricsFile(path, resume_step=2, key="iteration")
    assert read_metrics(path) == [{"iteration": 1}, {"about": "no key"}]


def test_numbers_that_are_not_finite_are_null(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    MetricsFile(path).append(
        step=0, loss=math.nan, best=math.inf, ok=1.5, ap=[math.nan, 2.0], by={"a": (-math.inf,)}
    )
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == {
        "step": 0,
        "loss": None,
        "best": None,
        "ok": 1.5,
        "ap": [None, 2.0],
        "by": {"a": [None]},
    }
    assert read_metrics(tmp_path / "absent") == []


def test_log_file_gets_every_line_while_it_is_open(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "deep" / "log.txt"
    log.info("before")
    with log_file(path):
        log.warning("[bold]modèle[/bold] %d", 1)
    with pytest.raises(RuntimeError), log_file(path):
        raise RuntimeError
    log.info("after")
    (line,) = path.read_text(encoding="utf-8").splitlines()
    assert line.endswith(" WARNING [bold]modèle[/bold] 1")
    assert capsys.readouterr().out.splitlines() == [
        "before",
        "warning: [bold]modèle[/bold] 1",
        "after",
    ]


def test_quiet_keeps_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(quiet=True)
    log.info("no")
    log.warning("yes")
    assert capsys.readouterr().out == "warning: yes\n"
    assert len(progress.log.handlers) == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (4.56, "4.6 s"),
        (59.94, "59.9 s"),
        (59.99, "1:00"),
        (60, "1:00"),
        (123.4, "2:03"),
        (3723, "1:02:03"),
        (3599.6, "1:00:00"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text

"""What the three training loops share, with a loop that adds numbers."""

import math
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harl_bench.core.errors import PreemptedError, TrainingError
from harl_bench.core.progress import read_metrics
from harl_bench.nn.session import Session


def run(
    folder: Path, steps: int, *, first: int = 0, every: int = 100, signal_at: int | None = None
) -> list[int]:
    """Run a loop over 0, 1, 2, ...; return the steps after which it saved."""
    saved: list[int] = []
    metrics = folder / "metrics.jsonl"
    with Session(
        "test", steps, first=first, save=saved.append, metrics=metrics, unit="iteration"
    ) as session:
        for k in session:
            if k == signal_at:
                signal.raise_signal(signal.SIGUSR2)
            session.log(loss=k / 2)
            session.advance(loss=k / 2)
            session.save(due=(k + 1) % every == 0)
            if k == signal_at and k + 1 < steps:
                (folder / "saved").write_text(str(saved))
    return saved


@pytest.mark.parametrize(
    ("steps", "first", "every", "saved"),
    [(5, 0, 100, [5]), (5, 0, 2, [2, 4, 5]), (4, 2, 2, [4]), (3, 3, 1, [])],
)
def test_it_saves_when_that_is_due_and_after_the_last_step(
    tmp_path: Path, steps: int, first: int, every: int, saved: list[int]
) -> None:
    assert run(tmp_path, steps, first=first, every=every) == saved
    assert [row["iteration"] for row in read_metrics(tmp_path / "metrics.jsonl")] == list(
        range(first, steps)
    )


def test_a_signal_saves_the_step_and_ends_the_loop(tmp_path: Path) -> None:
    with pytest.raises(PreemptedError, match="stopped by SIGUSR2, iteration 2 of 5 is saved"):
        run(tmp_path, 5, signal_at=1)
    assert (tmp_path / "saved").read_text() == "[2]"
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 2
    assert run(tmp_path, 5, signal_at=4) == [5], "after the last step there is nothing to stop"


def test_a_resumed_run_drops_the_lines_that_it_writes_again(tmp_path: Path) -> None:
    run(tmp_path, 4)
    run(tmp_path, 5, first=2)
    assert [row["iteration"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [0, 1, 2, 3, 4]
    run(tmp_path, 1)
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"iteration": 0, "loss": 0.0}]


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_raises_the_loops_own_error(loss: float) -> None:
    with Session("test", 1, first=0, save=lambda k: None) as session:
        session.check(1.5, lambda: TrainingError("never"))
        with pytest.raises(TrainingError, match="lower the learning rate"):
            session.check(loss, lambda: TrainingError("not finite", next="lower the learning rate"))


def test_waiting_is_counted_by_step() -> None:
    def slow() -> Iterator[int]:
        for item in range(4):
            time.sleep(0.05 if item < 2 else 0.0)
            yield item

    items, waited = slow(), []
    with Session("test", 2, first=0, save=lambda k: None) as session:
        for _ in session:
            assert session.next(items) + 1 == session.next(items)
            waited.append(session.waited_s)
            assert session.waited_s <= session.elapsed_s
            session.save(due=False)
    assert waited[0] >= 0.1 > waited[1]

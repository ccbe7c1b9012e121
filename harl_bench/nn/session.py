"""What every training loop does around its step: wait for data, check the loss, log, show progress,
save, stop.

    with Session("train", steps, first=first, save=save, metrics=metrics) as session:
        for k in session:
            batch = session.next(batches)
            ...
            session.check(loss, lambda: TrainingError("the loss is not finite", ...))
            session.log(loss=loss)
            session.advance(loss=loss)
            session.save(due=(k + 1) % 1000 == 0)

Several processes take every call together and send each other one message a step, in `check` or
`watch`: a loss of one that is not finite, or a signal to one, ends all at the same step. Any other
error of one ends all where they are (nn/alarm.py).
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

from torch import Tensor

from harl_bench.core.errors import BenchError
from harl_bench.core.progress import MetricsFile, Tracker
from harl_bench.core.stopping import Stop, stoppable
from harl_bench.nn import distributed
from harl_bench.nn.runtime import Reading

T = TypeVar("T")


class Session:
    """The steps of one training that are left, from `first` to `steps`; iterate over it inside its
    `with` block.

    Args:
        what: the training's name beside its progress.
        save: writes the state after that many steps.
        metrics: metrics.jsonl, written by the first process; on resume, lines of `first` and later
            are dropped.
        unit: what a step is called; also names the steps in `metrics`.

    Raises (while iterating):
        PreemptedError, KeyboardInterrupt: a signal asked to stop; the state is saved.
    """

    def __init__(
        self,
        what: str,
        steps: int,
        *,
        first: int,
        save: Callable[[int], None],
        metrics: Path | None = None,
        unit: str = "step",
    ) -> None:
        self.steps, self.first, self.unit = steps, first, unit
        self.k = first
        self.loss = math.nan  # the last one that was read
        self._watched: tuple[Reading, Callable[[float], BenchError]] | None = None
        self.stop = Stop()
        self._save, self._stopping = save, False
        self._error: BenchError | None = None  # of this process's loss
        self._agreed = first - 1  # the last step of which the processes told each other
        self._tracker = Tracker(what, steps, start=first, unit=f"{unit}s")
        writes = metrics if distributed.is_main() else None
        self._metrics = MetricsFile(writes, resume_step=first or None, key=unit) if writes else None
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._open.enter_context(self._tracker)
        self.stop = self._open.enter_context(stoppable())
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._open.__exit__(*error)

    def __iter__(self) -> Iterator[int]:
        for k in range(self.first, self.steps):
            self.k, self._began, self.waited_s = k, time.perf_counter(), 0.0
            yield k
            if self._stopping and k + 1 < self.steps:
                stop_together(self.stop, f"{self.unit} {k + 1} of {self.steps} is saved")

    @property
    def elapsed_s(self) -> float:
        """Seconds since the step began; `waited_s` of them went by in `next`."""
        return time.perf_counter() - self._began

    def next(self, items: Iterator[T]) -> T:
        """Return the next item, and count the time that it takes."""
        asked_at = time.perf_counter()
        item = next(items)
        self.waited_s += time.perf_counter() - asked_at
        return item

    def check(self, loss: float, error: Callable[[], BenchError]) -> None:
        """Raise `error` in every process where one's loss is not finite; saved states are good."""
        if not math.isfinite(loss):
            self._error = error()
        self._agree()

    def watch(self, loss: Tensor, error: Callable[[float], BenchError]) -> None:
        """Check a loss on the device without waiting for it: it is read in the next step, or by
        `settle`, which also comes before anything is saved.
        """
        self._read()
        self._watched = Reading(loss), error
        self._agree()

    def settle(self) -> None:
        """Wait for the loss that is watched, and check it as `check` does."""
        if self._watched:
            self._read()
            self._agree()

    def _read(self) -> None:
        if self._watched:
            (reading, error), self._watched = self._watched, None
            self.loss = reading.read()
            if not math.isfinite(self.loss):
                self._error = error(self.loss)

    def _agree(self) -> None:
        """Tell each other: raise one's error in all, and stop all after a signal to one."""
        failed, self._stopping = distributed.any_process_each(
            self._error is not None, self.stop.asked
        )
        self._agreed = self.k
        if failed:
            raise distributed.first_error(self._error)

    def log(self, **numbers: Any) -> None:
        """Add a line to metrics.jsonl."""
        if self._metrics:
            self._metrics.append(**{self.unit: self.k}, **numbers)

    def advance(self, **notes: float | str) -> None:
        """Show that the step is done, with some of its numbers."""
        self._tracker.advance(1, **notes)

    def save(self, due: bool) -> None:
        """Save the state after this step if that is due, it is the last, or a signal came."""
        if self._agreed < self.k or distributed.world_size() == 1:  # one hears the latest signal
            self._agree()
        if due or self._stopping or self.k + 1 == self.steps:
            self.settle()
            self._save(self.k + 1)


def stop_together(stop: Stop, state: str) -> None:
    """End the work in every process after a signal to at least one; see `Stop.raise_if_asked`."""
    stop.signal = next(
        number for number in [stop.signal, *distributed.gather(stop.signal)] if number
    )
    stop.raise_if_asked(state)

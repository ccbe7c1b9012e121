"""Batches on their way to the device: the next one is read, copied and colored while the step of
this one runs.
"""

from collections.abc import Callable, Generator
from dataclasses import fields
from functools import partial

import torch
from torch import Tensor

from harl_bench.nn import distributed
from harl_bench.nn.runtime import sent
from harl_bench.nn.session import Session
from pretrain import data, parallel
from pretrain.batch import Batch
from pretrain.labels import Labels
from pretrain.unreadable import Unreadable

Items = list[tuple[int, int]]


class Prefetch:
    """The batches of a run, one step ahead. On a GPU they travel on a stream of their own.

    Args:
        batches: each batch on the CPU, and which images it holds.
        labels: the classes of the images, where there are some.
    """

    def __init__(
        self,
        batches: Generator[tuple[Batch, Items], None, None],
        device: torch.device,
        labels: Labels | None = None,
    ) -> None:
        self.batches, self.device, self.labels = batches, device, labels
        self.stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._ahead: tuple[Batch, Batch | None] | Exception | None = None

    def fetch(self, session: Session) -> None:
        """Send the next batch on its way. What goes wrong is raised when its turn comes."""
        try:
            batch, items = session.next(self.batches)
            self._ahead = batch, None if batch.error else self._sent(batch, items)
        except Exception as error:  # StopIteration after the last batch, or a worker died
            self._ahead = error

    def _sent(self, batch: Batch, items: Items) -> Batch:
        with torch.cuda.stream(self.stream):  # no stream, nothing done
            labels = self.labels.of(items, batch.unreadable) if self.labels else None
            classes = None if labels is None else sent(labels, self.device)
            return data.on_device(batch, self.device, classes)

    def next(
        self, session: Session, unreadable: Unreadable, save: Callable[[int], None] | None
    ) -> Batch:
        """Return the next batch, on the device.

        Args:
            save: saves the state before an error: data can be mended, and the steps so far are
                good. Within a step batch norm has already moved on, so it is None there.

        Raises:
            BenchError: what any process met while it read its share.
        """
        if self._ahead is None:
            self.fetch(session)
        ahead, self._ahead = self._ahead, None
        if isinstance(ahead, Exception):
            raise ahead
        assert ahead is not None, "fetched above"
        batch, on_device = ahead
        with distributed.failing_together(partial(save, session.k) if save else None):
            if batch.error is not None:
                raise batch.error
            unreadable.add(batch.unreadable)
        assert on_device is not None, "there was no error"
        if self.stream:
            self._hand_over(on_device, self.stream)
        return on_device

    def _hand_over(self, batch: Batch, stream: torch.cuda.Stream) -> None:
        """Let the step wait for the copies, and their memory for the step."""
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(stream)
        for part in (batch, batch.scene):
            for value in (getattr(part, field.name) for field in fields(part)) if part else ():
                if isinstance(value, Tensor) and value.is_cuda:
                    value.record_stream(current)


def batches(
    dataset: data.TwoViews, share: parallel.Share, workers: int
) -> Generator[tuple[Batch, Items], None, None]:
    """Every batch and which images it holds, in order."""
    # A loader draws a number, which a resumed run would draw once more.
    with torch.random.fork_rng(devices=[]):
        read = iter(data.loader(dataset, share, workers=workers))
    yield from zip(read, share, strict=True)

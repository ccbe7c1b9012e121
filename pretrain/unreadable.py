"""Images and masks that could not be decoded: listed, counted, and too many stop a run."""

from pathlib import Path

from harl_bench.core.errors import DataError
from harl_bench.core.files import write_bytes
from harl_bench.core.progress import log
from harl_bench.core.unreadable import too_many
from harl_bench.nn import distributed

ENCODING = ("utf-8", "surrogateescape")  # names of files may be any bytes


class Unreadable:
    """Counts and lists the images that could not be decoded.

    Each process counts its own; the first one lists them.

    Raises (from add):
        DataError: more than 1 % of the images, unless allowed.
    """

    def __init__(self, path: Path, n: int, allowed: bool, *, resumed: bool) -> None:
        self.path, self.n, self.allowed = path, n, allowed
        lines: list[str] = []
        if resumed and path.exists():
            lines = path.read_text(*ENCODING).splitlines()
        self.seen = {name: why for name, _, why in (line.partition("\t") for line in lines)}

    def add(self, faults: list[tuple[str, str]]) -> None:
        """Take note of a batch's faults."""
        fresh = {name: why for name, why in faults if name not in self.seen}
        if not fresh:
            return
        self.seen |= fresh
        if distributed.is_main():
            self._write()
        if too_many(len(self.seen), self.n, allowed=self.allowed):
            name, why = next(iter(fresh.items()))
            raise DataError(
                f"{len(self.seen)} of {self.n} images cannot be read, more than 1 %",
                where=name,
                seen=why,
                next=f"fix those listed in {self.path}, or give --allow-unreadable",
            )

    def share(self) -> None:
        """Tell each other, before a checkpoint is written."""
        if distributed.world_size() > 1:
            together = {
                name: why for seen in distributed.gather(self.seen) for name, why in seen.items()
            }
            if together != self.seen:
                self.seen = together
                if distributed.is_main():
                    self._write()

    def report(self) -> None:
        """One line at the end."""
        if self.seen:
            log.warning(
                "%d of %d images could not be read, listed in %s", len(self.seen), self.n, self.path
            )

    def _write(self) -> None:
        lines = [f"{name}\t{why}\n" for name, why in sorted(self.seen.items())]
        write_bytes(self.path, "".join(lines).encode(*ENCODING))

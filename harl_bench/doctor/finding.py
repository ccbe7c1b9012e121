"""One thing that was looked at: how it stands, what was seen, and the next thing to do."""

from dataclasses import dataclass
from typing import Literal

from harl_bench.core.errors import BenchError

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One line of `harl-bench doctor`.

    Args:
        area: decides the exit code of a failure: 5 for the environment, 4 for a checkpoint, 3 for
            data.
        level: ok, warn (it works, but not as it could or as published), fail (a command will stop).
        what: what was looked at.
        seen: what was found.
        next: the exact command to give, if there is one.
        hint: a sentence instead, where no command would do.
    """

    area: Literal["environment", "checkpoint", "data"]
    level: Level
    what: str
    seen: str
    next: str = ""
    hint: str = ""

    def line(self) -> str:
        """`warn  VOC2007 trainval  48 ids, official 5,011  next: tar ...`, always one line."""
        remedy = f"  next: {self.next or self.hint}" if self.next or self.hint else ""
        text = f"{self.level:<4}  {self.what:<24}  {self.seen}{remedy}"
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def from_error(what: str, error: BenchError) -> Finding:
    """A reader's refusal as a failed finding: the command would stop with the same words."""
    seen = "; ".join(
        str(part) for part in (error.what, error.where, error.seen) if part is not None
    )
    return Finding("data", "fail", what, seen, hint=error.next or "")

"""One thing that was looked at: how it stands, what was seen, and the next thing to do."""

from dataclasses import dataclass
from typing import Literal

from harl_bench.core.errors import BenchError


@dataclass(frozen=True)
class Finding:
    """One line of `harl-bench doctor`.

    Args:
        area: decides a failure's exit code: 5 environment, 4 checkpoint, 3 data.
        level: ok, warn (it works, but not as it could or as published), fail (a command will stop).
        what: the thing that was looked at.
        seen: how it is.
        next: the exact command to give, if there is one.
        hint: a sentence instead, where no command would do.
    """

    area: Literal["environment", "checkpoint", "data"]
    level: Literal["ok", "warn", "fail"]
    what: str
    seen: str
    next: str = ""
    hint: str = ""

    def line(self) -> str:
        """Return `warn  VOC2007 trainval  no ids  next: tar ...`, always one line."""
        remedy = f"  next: {self.next or self.hint}" if self.next or self.hint else ""
        text = f"{self.level:<4}  {self.what:<24}  {self.seen}{remedy}"
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def from_error(what: str, error: BenchError, next: str = "") -> Finding:
    """Return a reader's refusal of data: the command would stop with the same words."""
    parts = (error.what, error.where, error.seen)
    seen = "; ".join(str(part) for part in parts if part is not None)
    return Finding("data", "fail", what, seen, next, error.next or "")

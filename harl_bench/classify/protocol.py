"""The protocols: each a YAML file beside this one, read strictly; overrides that change a score are departures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from harl_bench.core.config import Config, merged, parse_overrides, read_yaml, validated
from harl_bench.core.errors import UsageError
from harl_bench.core.lookup import unknown

FOLDER = Path(__file__).with_name("protocols")


class Protocol(Config):
    """Every setting that decides a score of a frozen-feature protocol."""

    kind: Literal["linear"]
    image_size: int = Field(ge=1)  # px, centre crop
    short_side_px: int | None = Field(default=None, ge=1)  # before the crop; None: image_size
    precision: Literal["float32", "bfloat16"] = "float32"
    low: float = Field(default=1e-6, gt=0)
    high: float = Field(default=1e5, gt=0)
    count: int = Field(default=45, ge=1)
    eps: float = Field(default=2e-3, gt=0)
    val_share: float = Field(default=0.2, gt=0, lt=1)

    @model_validator(mode="after")
    def _consistent(self) -> "Protocol":
        if self.short_side_px is not None and self.short_side_px < self.image_size:
            raise ValueError(f"short_side_px {self.short_side_px} is below image_size {self.image_size}")
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        return self


def names() -> list[str]:
    """The packaged protocols."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(name: str, overrides: Sequence[str] = ()) -> tuple[str, Protocol, list[str]]:
    """The protocol's name, its settings, and what the overrides changed, in words.

    Args:
        name: a packaged protocol, or a YAML file.
        overrides: key=value.

    Raises:
        UsageError: unknown protocol, key or value.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise UsageError(unknown(name, names(), "protocol"), next="harl-bench classify --help")
    values = read_yaml(path)
    changes = parse_overrides(overrides)
    published = validated(Protocol, values, source=str(path), lines=values.lines)
    protocol = validated(Protocol, merged(values, changes), source="overrides")
    departures = [
        f"{key} {value} instead of {before}"
        for key, value in protocol.model_dump().items()
        if value != (before := getattr(published, key))
    ]
    return path.stem, protocol, departures

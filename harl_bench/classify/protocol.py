"""The protocols: each a YAML file beside this one, read strictly; overrides that change a score are
departures.

A protocol's `kind` says what computes it: linear (solver on stored features), knn (votes on stored
features), heads (SGD on a frozen backbone), finetune (SGD on all weights).
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from harl_bench.core.config import Config, merged, parse_overrides, read_yaml, validated
from harl_bench.core.errors import UsageError
from harl_bench.core.lookup import lookup, unknown

FOLDER = Path(__file__).with_name("protocols")


class Labelled(Config):
    """Which training images have labels: SimCLR's list is found beside the data or named by
    `list`.
    """

    names: list[str]  # of list files to look for beside the data
    sha256: str  # of the published list's sorted lines


class Protocol(Config):
    """What every protocol states.

    `departures`: what its source leaves open, and what is done here.
    """

    image_size: int = Field(ge=1)  # px, centre crop
    short_side_px: int | None = Field(default=None, ge=1)  # before the crop; None: image_size
    precision: Literal["float32", "bfloat16"] = "float32"
    val_share: float | None = Field(
        default=None, gt=0, lt=1
    )  # None: the data set's own way (Table A2; 0.2 of folders)
    labelled: Labelled | None = None
    list: Path = Path()  # of labelled images
    departures: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> "Protocol":
        if self.short_side_px is not None and self.short_side_px < self.image_size:
            raise ValueError(
                f"short_side_px {self.short_side_px} is below image_size {self.image_size}"
            )
        return self


class Linear(Protocol):
    """`count` strengths, log-spaced from low to high; eps bounds the certificate; the last fit has
    train + val, or with refit=false train alone.
    """

    kind: Literal["linear"]
    low: float = Field(default=1e-6, gt=0)
    high: float = Field(default=1e5, gt=0)
    count: int = Field(default=45, ge=1)
    eps: float = Field(default=2e-3, gt=0)
    refit: bool = True

    @model_validator(mode="after")
    def _ordered(self) -> "Linear":
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        return self

    def cost(self, training: int, held: int, test: int) -> int:
        """Images through the network."""
        return training + held + test

    def memory(self, rows: int, classes: int, width: int = 2048) -> tuple[int, int]:
        """Bytes that the solver holds at once: features and their copy, three arrays of logits in
        float32, and the same where float64 must finish.
        """
        features = 2 * 4 * rows * width
        return features + 3 * 4 * rows * classes, features + 3 * 8 * rows * classes


class Knn(Protocol):
    """Every k of `neighbours` is scored; the headline's answers are stored."""

    kind: Literal["knn"]
    neighbours: tuple[int, ...] = Field(min_length=1)
    headline: int
    temperature: float = Field(gt=0)

    @model_validator(mode="after")
    def _listed(self) -> "Knn":
        if self.headline not in self.neighbours or min(self.neighbours) < 1:
            raise ValueError(
                f"headline {self.headline} is not among neighbours {list(self.neighbours)}, "
                "from 1 on"
            )
        return self

    def cost(self, training: int, held: int, test: int) -> int:
        """Images through the network."""
        return training + held + test

    def memory(self, rows: int, classes: int, width: int = 2048) -> tuple[int, int]:
        """Bytes of the bank and the copy it is joined from, twice: nothing here needs float64."""
        return 2 * 4 * rows * width, 2 * 4 * rows * width


class Trained(Protocol):
    """What both kinds of SGD state. lr is per 256 images of a batch."""

    lr: tuple[float, ...] = Field(min_length=1)
    batch_size: int = Field(ge=1)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    crop_area: tuple[float, float] = (0.08, 1.0)

    @model_validator(mode="after")
    def _positive(self) -> "Trained":
        if not all(0 < rate < math.inf for rate in self.lr) or len(set(self.lr)) < len(self.lr):
            raise ValueError("learning rates are positive and different")
        if not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
            raise ValueError("crop_area is (low, high) with 0 < low <= high <= 1")
        return self


class HeadsProtocol(Trained):
    """Linear heads on a frozen backbone; `milestones` are epochs after which the rate falls to a
    tenth.
    """

    kind: Literal["heads"]
    epochs: float = Field(gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    norm: bool = False
    schedule: Literal["cosine", "steps"] = "cosine"
    milestones: tuple[float, ...] = ()

    def cost(self, training: int, held: int, test: int) -> int:
        """Images through the network."""
        return round(self.epochs * (training + held)) + (held if len(self.lr) > 1 else 0) + test


class FinetuneProtocol(Trained):
    """One training for each combination of lr, decay and, instead of steps, epochs.

    `decay` is what a step takes off the weights: the optimiser's weight decay is decay / lr.
    `halving` gives rounds before the last, (steps, how many go on). `reduced` says what a smaller
    grid than the paper's leaves out.
    """

    kind: Literal["finetune"]
    decay: tuple[float, ...] = Field(min_length=1)
    steps: int | None = Field(default=None, ge=1)
    epochs: tuple[float, ...] = ()
    halving: tuple[tuple[int, int], ...] = ()
    refit: bool
    reduced: str = ""

    @model_validator(mode="after")
    def _either(self) -> "FinetuneProtocol":
        if (self.steps is None) == (not self.epochs):
            raise ValueError("either steps or epochs")
        tried, lengths = (list(values) for values in zip(*self.rounds, strict=True))
        if (
            min(tried) < 1
            or min([1, *(steps for steps, _ in self.halving)]) < 1
            or tried != sorted(tried, reverse=True)
            or lengths != sorted(lengths)
        ):
            raise ValueError(
                "halving: rounds of (steps, how many go on), ever longer with ever fewer, "
                "before `steps`"
            )
        if not all(0 <= decay < math.inf for decay in self.decay) or len(set(self.decay)) < len(
            self.decay
        ):
            raise ValueError("decays are different, from 0 on")
        if not all(0 < epochs < math.inf for epochs in self.epochs) or len(set(self.epochs)) < len(
            self.epochs
        ):
            raise ValueError("epochs are positive and different")
        return self

    @property
    def rounds(self) -> list[tuple[int, int]]:
        """(settings tried, steps of each); steps 0 where epochs say how long."""
        tried = [
            len(self.lr) * len(self.decay) * max(1, len(self.epochs)),
            *(keep for _, keep in self.halving),
        ]
        return list(
            zip(tried, [*(steps for steps, _ in self.halving), self.steps or 0], strict=True)
        )

    def cost(self, training: int, held: int, test: int) -> int:
        """Images through the network."""
        points = len(self.lr) * len(self.decay)
        if self.steps is not None:
            steps = sum(tried * length for tried, length in self.rounds) + self.steps * self.refit
            return steps * self.batch_size + sum(tried for tried, _ in self.rounds) * held + test
        again = round(max(self.epochs) * (training + held)) * self.refit
        return (
            round(points * sum(self.epochs) * training)
            + again
            + points * len(self.epochs) * held
            + test
        )


Settings = Linear | Knn | HeadsProtocol | FinetuneProtocol
KINDS: dict[str, type[Settings]] = {
    "linear": Linear,
    "knn": Knn,
    "heads": HeadsProtocol,
    "finetune": FinetuneProtocol,
}


def names() -> list[str]:
    """The packaged protocols."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(name: str, overrides: Sequence[str] = ()) -> tuple[str, Settings, list[str]]:
    """The protocol's name, its settings, and its departures: its own, and what the overrides
    changed, in words.

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
    if "kind" not in values:
        raise UsageError(
            "a protocol without its kind", where=path, next=f"add kind: {'|'.join(KINDS)}"
        )
    kind = lookup(KINDS, str(values["kind"]), "kind of protocol")
    published = validated(kind, values, source=str(path), lines=values.lines)
    protocol = validated(kind, merged(values, changes), source="overrides")
    departures = [
        f"{key} {_told(value)} instead of {_told(before)}"
        for key, value in protocol.model_dump().items()
        if key != "list"
        and value != (before := getattr(published, key))
        and not isinstance(value, dict)
    ]
    reduced = getattr(protocol, "reduced", "")
    return (
        path.stem,
        protocol,
        [*([f"reduced: {reduced}"] if reduced else []), *protocol.departures, *departures],
    )


def _told(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)

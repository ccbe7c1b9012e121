"""The protocols, each a YAML file in protocols/, where overrides become departures.

A protocol's `kind` says what computes it: linear, fewshot (solver), knn (votes), svm, svm-lowshot
on stored features, heads (SGD on a frozen backbone), finetune (SGD on all weights).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from harl_bench.core.config import Config, merged, parse_overrides, read_yaml, validated
from harl_bench.core.errors import UsageError
from harl_bench.core.lookup import lookup, unknown

FOLDER = Path(__file__).with_name("protocols")
IN_MEMORY = 1 << 30  # bytes of features that are read whole; larger ones stay in their file


class Labelled(Config):
    """The list of training images with labels, beside the data unless `list` names it."""

    names: list[str]  # of list files to look for beside the data
    sha256: str  # of the published list's sorted lines


class Protocol(Config):
    """The keys of every protocol.

    `departures` says what is done here where the source leaves something open.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    image_size: int = Field(ge=1)  # px, centre crop
    short_side_px: int | None = Field(default=None, ge=1)  # before the crop; None: image_size
    precision: Literal["float32", "bfloat16"] = "float32"
    # Fraction held out; None: as the data set does it (Table A2, 0.2 of image folders).
    val_share: float | None = Field(default=None, gt=0, lt=1)
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
    """Logistic regression for `count` values of lambda, log-spaced from low to high.

    eps bounds the certificate. The last fit uses train + val, or train alone with refit=false.
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
        """Return the number of images through the network."""
        return training + held + test

    def memory(self, rows: int, classes: int, width: int = 2048) -> tuple[int, int]:
        """Return the bytes that the solver holds at once, in float32 and where float64 finishes.

        Three arrays of logits, the features' copy in the solver's basis and the features. Large
        features stay in their file, and float64 then gives up the copy.
        """
        features, logits = 4 * rows * width, 3 * 4 * rows * classes
        if features > IN_MEMORY:
            return features + logits, max(features + logits, 2 * logits)
        return 2 * features + logits, 2 * features + 2 * logits


class Knn(Protocol):
    """Nearest neighbours: every k is scored, and the headline's answers are stored."""

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
        if not _distinct(self.neighbours):
            raise ValueError(f"neighbours {list(self.neighbours)} are not different")
        return self

    def cost(self, training: int, held: int, test: int) -> int:
        """Return the number of images through the network."""
        return training + held + test

    def memory(self, rows: int, classes: int, width: int = 2048) -> tuple[int, int]:
        """Return the bytes of the bank, twice; a large one passes in blocks from its file."""
        held = 2 * min(4 * rows * width, IN_MEMORY)
        return held, held


class Fewshot(Linear):
    """`linear` on `shots` images a class, drawn `draws` times; val chooses each draw's lambda."""

    kind: Literal["fewshot"]  # type: ignore[assignment]
    shots: tuple[PositiveInt, ...] = Field(min_length=1)
    draws: int = Field(ge=1)
    refit: Literal[False] = False


class Svm(Protocol):
    """A linear SVM a class on a pooled map, 1 conv1, 2 to 5 layer1 to layer4 (stages.py).

    Cross-validation takes a class's cost; of equal ones the first wins.
    """

    kind: Literal["svm"]
    layer: int = Field(default=5, ge=1, le=5)
    costs: tuple[PositiveFloat, ...] = Field(min_length=1)
    folds: int = Field(default=3, ge=2)
    max_iter: int = Field(default=2000, ge=1)

    def cost(self, training: int, held: int, test: int) -> int:
        """Return the number of images through the network."""
        return training + held + test

    def memory(self, rows: int, classes: int, width: int = 2048) -> tuple[int, int]:
        """Return the bytes of the rows in float64, twice; each process adds as much."""
        return 2 * 8 * rows * width, 2 * 8 * rows * width


class LowshotSvm(Svm):
    """SVMs on `shots` images a class, drawn `samples` times, at each of the costs."""

    kind: Literal["svm-lowshot"]  # type: ignore[assignment]
    shots: tuple[PositiveInt, ...] = Field(min_length=1)
    samples: int = Field(ge=1)


class SGDProtocol(Protocol):
    """The keys of both kinds of SGD. lr is per 256 images of a batch."""

    lr: tuple[float, ...] = Field(min_length=1)
    batch_size: int = Field(ge=1)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    crop_area: tuple[float, float] = (0.08, 1.0)

    @model_validator(mode="after")
    def _positive(self) -> "SGDProtocol":
        if not all(rate > 0 for rate in self.lr) or not _distinct(self.lr):
            raise ValueError("learning rates are positive and different")
        if not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
            raise ValueError("crop_area is (low, high) with 0 < low <= high <= 1")
        return self


class HeadsProtocol(SGDProtocol):
    """Linear heads on a frozen backbone. The rate falls to a tenth after each of `milestones`."""

    kind: Literal["heads"]
    epochs: float = Field(gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    norm: bool = False
    schedule: Literal["cosine", "steps"] = "cosine"
    milestones: tuple[float, ...] = ()

    def cost(self, training: int, held: int, test: int) -> int:
        """Return the number of images through the network."""
        return round(self.epochs * (training + held)) + (held if len(self.lr) > 1 else 0) + test


class FinetuneProtocol(SGDProtocol):
    """One training for each combination of lr, decay and, instead of steps, epochs.

    `decay` is what a step takes off the weights: the optimiser's weight decay is decay / lr.
    `halving` gives the rounds before the last, (steps, how many continue). `reduced` says what a
    smaller grid than the paper's leaves out.
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
                "halving: rounds of (steps, how many continue), ever longer with ever fewer, "
                "before `steps`"
            )
        if not all(decay >= 0 for decay in self.decay) or not _distinct(self.decay):
            raise ValueError("decays are different, from 0 on")
        for values in (self.lr, self.decay):  # as the folders of the grid are named
            if not _distinct([f"{value:.4g}" for value in values]):
                raise ValueError("learning rates and decays differ in their first four digits")
        if not all(epochs > 0 for epochs in self.epochs) or not _distinct(self.epochs):
            raise ValueError("epochs are positive and different")
        return self

    @property
    def rounds(self) -> list[tuple[int, int]]:
        """Return (settings tried, steps of each), with 0 steps where epochs give the length."""
        settings = len(self.lr) * len(self.decay) * max(1, len(self.epochs))
        tried = [settings, *(keep for _, keep in self.halving)]
        lengths = [*(steps for steps, _ in self.halving), self.steps or 0]
        return list(zip(tried, lengths, strict=True))

    def cost(self, training: int, held: int, test: int) -> int:
        """Return the number of images through the network."""
        points = len(self.lr) * len(self.decay)
        if self.steps is not None:
            steps = sum(tried * length for tried, length in self.rounds) + self.steps * self.refit
            return steps * self.batch_size + sum(tried for tried, _ in self.rounds) * held + test
        refit = round(max(self.epochs) * (training + held)) * self.refit
        trained = round(points * sum(self.epochs) * training)
        return trained + refit + points * len(self.epochs) * held + test


Settings = Linear | Fewshot | Knn | Svm | LowshotSvm | HeadsProtocol | FinetuneProtocol
KINDS: dict[str, type[Settings]] = {
    "linear": Linear,
    "fewshot": Fewshot,
    "knn": Knn,
    "svm": Svm,
    "svm-lowshot": LowshotSvm,
    "heads": HeadsProtocol,
    "finetune": FinetuneProtocol,
}
STORED = ("linear", "fewshot", "knn", "svm", "svm-lowshot")  # kinds that read stored features


def names() -> list[str]:
    """Return the names of the packaged protocols."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(name: str, overrides: Sequence[str] = ()) -> tuple[str, Settings, list[str]]:
    """Return a protocol's name, its settings and its departures, with those of the overrides.

    Args:
        name: a packaged protocol, or a YAML file, which departs from the packaged one of its name.
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
    published: Settings = validated(kind, values, source=str(path), lines=values.lines)
    protocol = validated(kind, merged(values, changes), source="overrides")
    if path.parent != FOLDER and path.stem in names():  # a file of the user by a packaged name
        published = load(path.stem)[1]
    before = published.model_dump()
    departures = [
        f"{key} {_text(value)} instead of {_text(before.get(key))}"
        for key, value in protocol.model_dump().items()
        if key not in ("list", "reduced", "departures") and value != before.get(key)
    ]
    departures = [*protocol.departures, *departures]
    if reduced := getattr(protocol, "reduced", ""):
        departures.insert(0, f"reduced: {reduced}")
    return path.stem, protocol, departures


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _distinct(values: Sequence[object]) -> bool:
    return len(set(values)) == len(values)

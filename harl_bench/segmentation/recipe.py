"""Segmentation recipes: YAML of our own keys, read strictly; an override becomes a departure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import Field, model_validator

from harl_bench.core.config import Config, merged, parse_overrides, read_yaml, validated
from harl_bench.core.errors import UsageError
from harl_bench.core.lookup import unknown
from harl_bench.core.resources import data_dir

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Stride = Literal[1, 2]
Dataset = Literal["voc12aug", "voc12", "cityscapes"]
NEUTRAL = {"workers", "save_every"}  # keys that a run may change without becoming another one


class Network(Config):
    """Strides and dilations of the four stages of the ResNet-50.

    The first block of a stage has the whole dilation, or half of it with `contract_dilation`
    (torchvision's `replace_stride_with_dilation` and mmsegmentation do that).
    """

    strides: tuple[Stride, Stride, Stride, Stride]
    dilations: tuple[Count, Count, Count, Count]
    contract_dilation: bool = False


class Head(Config):
    """An FCN head: `convs` 3x3 convolutions with batch norm and ReLU, then a 1x1 for each class.

    With `concat_input` one more 3x3 convolution sees the head's input beside its output.
    """

    channels: Count
    convs: Count
    dilation: Count = 1
    concat_input: bool = False
    dropout: float = Field(default=0.0, ge=0, lt=1)


class Auxiliary(Head):
    """A second head, on layer3, whose loss counts `weight`; training alone uses it."""

    weight: Positive


class Input(Config):
    """Training images: resized, cropped, flipped, distorted, padded.

    Args:
        scale_px: (long, short) that an image is fitted into before its random ratio; null: its own
            size.
        ratio: range of the random ratio, in steps of `ratio_step` (0: continuous).
        cat_max_ratio: a crop with more of one class than that is drawn again, ten times at most.
        photometric: random brightness, contrast, saturation and hue.
        pixel_mean, pixel_std: null: the checkpoint's own.
    """

    scale_px: tuple[Count, Count] | None = None
    ratio: tuple[Positive, Positive]
    ratio_step: NotNegative = 0.0
    crop_px: Count
    cat_max_ratio: float = Field(default=1.0, gt=0, le=1)
    flip: bool = True
    photometric: bool = False
    pixel_mean: tuple[float, float, float] | None = None
    pixel_std: tuple[Positive, Positive, Positive] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> "Input":
        if self.ratio[0] > self.ratio[1]:
            raise ValueError("input.ratio is (low, high) with low <= high")
        return self


class Test(Config):
    """Inference on test images.

    Args:
        mode: the whole image, sliding windows of `crop_px` every `stride_px`, or the central crop.
        scale_px: as for training; null: its own size.
    """

    __test__ = False  # no test of pytest's

    mode: Literal["whole", "slide", "center"]
    scale_px: tuple[Count, Count] | None = None
    crop_px: Count | None = None
    stride_px: Count | None = None

    @model_validator(mode="after")
    def _sized(self) -> "Test":
        needed = {"whole": (False, False), "slide": (True, True), "center": (True, False)}
        if (self.crop_px is not None, self.stride_px is not None) != needed[self.mode]:
            keys = "; slide has crop_px and stride_px, center has crop_px, whole has neither"
            raise ValueError(f"test.mode {self.mode} with other sizes than its own{keys}")
        if self.crop_px and self.stride_px and self.stride_px > self.crop_px:
            raise ValueError("test.stride_px is above test.crop_px: windows would leave gaps")
        if self.mode == "center" and self.scale_px:
            raise ValueError("test.mode center goes with test.scale_px null")
        return self


class Solver(Config):
    """SGD. `batch` is that of all processes together.

    Args:
        schedule: "steps" multiplies the rate by `factor` at each of `steps`; "poly" falls from `lr`
            to `lr_min` with `power`.
    """

    iterations: Count
    batch: Count
    lr: Positive
    momentum: float = Field(ge=0, lt=1)
    weight_decay: NotNegative
    schedule: Literal["steps", "poly"]
    steps: tuple[Count, ...] = ()
    factor: Positive = 0.1
    power: Positive = 0.9
    lr_min: NotNegative = 0.0

    @model_validator(mode="after")
    def _scheduled(self) -> "Solver":
        if list(self.steps) != sorted(set(self.steps)):
            raise ValueError("solver.steps rise")
        if self.schedule == "poly" and self.steps:
            raise ValueError("solver.steps go with schedule: steps")
        if self.lr_min > self.lr:
            raise ValueError("solver.lr_min is above solver.lr")
        return self


class Sweep(Config):
    """Learning rates to choose from on `held_out` training images; the best trains on all."""

    lr: tuple[Positive, ...] = Field(min_length=2)
    held_out: Count

    @model_validator(mode="after")
    def _distinct(self) -> "Sweep":
        if len({f"{lr:.4g}" for lr in self.lr}) != len(self.lr):  # as their folders are named
            raise ValueError("sweep.lr are different in their first four digits")
        return self


class Recipe(Config):
    """The keys of a recipe.

    Args:
        align_corners: how logits are enlarged, in training and in the test.
        loss_mean: over the pixels that have a label, or over all: pixels without one then count 0.
        amp: mixed precision on CUDA.
        workers: processes that read data, for each training process.
        save_every: iterations between two saved states.
    """

    dataset: Dataset
    network: Network
    head: Head
    auxiliary: Auxiliary | None = None
    align_corners: bool
    loss_mean: Literal["labelled", "all"]
    input: Input
    test: Test
    solver: Solver
    sweep: Sweep | None = None
    amp: bool = False
    workers: int = Field(default=4, ge=0)
    save_every: Count = 1000

    @model_validator(mode="after")
    def _falling(self) -> "Recipe":
        if self.sweep and min(self.sweep.lr) < self.solver.lr_min:
            raise ValueError("solver.lr_min is above a rate of sweep.lr")
        return self

    def to_yaml(self) -> str:
        """Return YAML that `load` reads again."""
        return str(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False))

    def identity(self) -> dict[str, Any]:
        """Return the flat keys that decide a run's outcome."""
        return {key: value for key, value in flatten(self).items() if key not in NEUTRAL}

    def of_network(self) -> dict[str, Any]:
        """Return the flat keys that decide what trained weights compute; not all show in shapes."""
        keys = {key: value for key, value in flatten(self).items() if key != "head.dropout"}
        sections = ("network.", "head.", "align_corners")
        return {key: value for key, value in keys.items() if key.startswith(sections)}


def flatten(recipe: Config) -> dict[str, Any]:
    """Return {"solver.lr": 0.003, ...} as JSON values; a section that is absent is None."""
    flat: dict[str, Any] = {}
    for key, value in recipe.model_dump(mode="json").items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{name}": inner for name, inner in value.items()}
        else:
            flat[key] = value
    return flat


def names() -> list[str]:
    """Return the names of the packaged recipes."""
    return sorted(path.stem for path in data_dir("transfer_configs").glob("segment/*.yaml"))


def load(name_or_path: str | Path, overrides: Sequence[str] = ()) -> tuple[str, Recipe, list[str]]:
    """Return a recipe's name, its keys, and its departures: what the overrides change.

    Departures of a file with a packaged recipe's name are from that one: results carry the name.

    Args:
        name_or_path: a packaged recipe, or a YAML file.
        overrides: `section.key=value`.

    Raises:
        UsageError: unknown recipe or key, or a value that cannot be; the message names file and
            line.
    """
    path, folder = Path(name_or_path), data_dir("transfer_configs") / "segment"
    if path.suffix.lower() not in (".yaml", ".yml"):
        known = names()
        name = str(path).removeprefix("segment/")
        if name not in known:
            hint = "give one of these or the path of a .yaml file"
            raise UsageError(unknown(name, known, "segmentation recipe"), next=hint)
        path = folder / f"{name}.yaml"
    values = read_yaml(path)
    original = resolved = validated(Recipe, values, source=str(path), lines=values.lines)
    packaged = folder / f"{path.stem}.yaml"
    if packaged.is_file() and not packaged.samefile(path):
        original = validated(Recipe, read_yaml(packaged), source=str(packaged))
    if changes := parse_overrides(overrides):
        resolved = validated(Recipe, merged(values, changes), source="overrides")
    before, after = flatten(original), flatten(resolved)
    departures = [
        f"{key}: {before.get(key)} -> {after.get(key)}"
        for key in dict.fromkeys([*before, *after])
        if key not in NEUTRAL and before.get(key) != after.get(key)
    ]
    return path.stem, resolved, departures


DATASETS: tuple[str, ...] = get_args(Dataset)

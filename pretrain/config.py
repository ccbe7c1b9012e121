"""What decides a pretraining run. Recipes (recipes/*.yaml) fill it, `key=value` overrides change it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from harl_bench.core.config import Config, merged, parse_overrides, read_yaml, validated
from harl_bench.core.errors import UsageError
from harl_bench.core.lookup import unknown
from pretrain import relevance

RECIPES = Path(__file__).parent / "recipes"


class PretrainConfig(Config):
    """One pretraining run. Defaults are HARL's; where its sources disagree, docs/fidelity.md 1.1 says why."""

    method: str
    seed: int = Field(default=0, ge=0)

    backbone: Literal["resnet50", "resnet18"] = "resnet50"
    feature_grid: Literal[7, 14, 28] = 7
    zero_init_residual: bool = Field(default=False, description="each block's last batch norm starts at 0")
    image_size: int = Field(default=224, ge=32, le=1024)
    projector_hidden: int = Field(default=4096, gt=0)
    projector_out: int = Field(default=512, gt=0)
    predictor_hidden: int = Field(default=4096, gt=0)
    head_bias: bool = Field(default=False, description="bias of the heads' last layer, as in the official HARL code")
    classes: int | None = Field(default=None, gt=0, description="of the supervised baseline; None: found in the data")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)

    epochs: int = Field(gt=0)
    batch_size: int = Field(default=4096, gt=1)
    base_lr: float = Field(gt=0, description="per 256 pictures: lr = base_lr * batch_size / 256")
    warmup_epochs: float = Field(default=10, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(ge=0)
    trust_coefficient: float = Field(default=1e-3, gt=0)
    optimizer: Literal["lars", "sgd"] = "lars"
    lars_ratio: Literal["byol", "official"] = Field(default="byol", description="divisor of the trust ratio")
    decay_everything: bool = Field(default=False, description="weight decay also on biases and batch norm")
    lr_schedule: Literal["cosine", "step"] = "cosine"
    tau_base: float = Field(default=0.996, ge=0, le=1, description="start of the EMA's momentum; rises to 1")
    tau_schedule: Literal["cosine", "fixed"] = "cosine"
    temperature: float = Field(default=0.1, gt=0, description="of contrastive losses")
    queue_size: int = Field(default=65536, gt=0, description="keys that MoCo remembers")

    base: Literal["byol", "simclr", "mocov2", "simsiam"] = Field(default="byol", description="what HARL sits on")
    loss: Literal["byol", "fg", "fg+bg", "byol+fg", "byol+fg+bg"] = Field(
        default="byol+fg+bg", description="the regions HARL compares"
    )
    alpha_base: float = Field(default=0.7, ge=0, le=1, description="weight of the foreground within the mask loss")
    lambda_base: float = Field(default=0.7, ge=0, le=1, description="weight of the whole picture in the hybrid loss")
    alpha_schedule: Literal["cosine", "fixed"] = "cosine"
    lambda_schedule: Literal["cosine", "falling", "fixed"] = "cosine"
    schedule_tick: Literal["step", "epoch"] = "step"
    mask_pooling: Literal["mean", "area_plus_one", "gap"] = "mean"
    mask_rule: Literal["area", "nearest", "any"] = "area"

    views: Literal["byol", "simclr", "mocov2", "supervised", "harl_official_pt"] = "byol"
    crop: Literal["random", "mask_boxes", "mask_center"] = "random"
    min_foreground: float = Field(default=0.2, ge=0, le=1, description="share that crop=mask_boxes looks for")
    crop_tries: int = Field(default=5, gt=0, description="boxes that crop=mask_boxes draws at most")

    local_crops: int = Field(default=4, ge=0, description="saliency_crop: local crops of each picture")
    local_size: int = Field(default=96, ge=32, description="their side in pixels")
    local_weight: float = Field(default=1.0, ge=0, description="beta, weight of their loss")
    saliency_map: Literal["cosine", "projected", "activation"] = "cosine"
    saliency_warmup: float = Field(default=0.1, ge=0, le=1, description="share of the steps before maps are made")
    saliency_momentum: float = Field(default=0.9, ge=0, lt=1, description="of each picture's map over epochs")
    saliency_temperature: float = Field(default=1.0, gt=0, description="of the places of local crops; below 1 sharper")

    mask_fill: Literal["high_pass", "blur", "mean"] = Field(default="high_pass", description="saliency_mask")
    mask_grid: int = Field(default=7, gt=0, description="cells on a side")
    mask_ratio: tuple[float, float] = Field(default=(0.05, 0.25), description="share of cells masked, drawn uniformly")
    hard_negative_ratio: tuple[float, float] = Field(default=(0.4, 0.7), description="the same, of the foreground")
    hard_negative_weight: float | None = Field(
        default=None, ge=0, description="alpha; None: 2 on contrastive bases, 0 on the others"
    )
    hard_negative_margin: float = Field(default=0.0, ge=-1, le=1, description="of the repulsion on byol and simsiam")
    localiser: str = Field(default="masks", description="--masks, or a checkpoint whose activations find the object")

    precision: Literal["fp32", "bf16"] = "fp32"
    sync_bn: bool = Field(default=True, description="batch-norm statistics over all processes")
    accumulate: int = Field(default=1, gt=0, description="parts that a batch is split into, for memory")
    accumulation_ramp: bool = Field(
        default=False, description="official HARL script: x2 and x3 batches a step later on"
    )
    channels_last: bool | None = Field(default=None, description="memory layout; None: on a GPU")
    compile: bool = Field(default=False, description="torch.compile the backbone's stages")
    probe_lr: float = Field(default=0.1, gt=0, description="of the online probe, per 256 pictures")
    evaluate_every_epochs: int = Field(default=1, gt=0, description="probe and kNN on --val")
    expect: dict[str, tuple[float, float]] = Field(
        default={}, description="range of the last step's numbers, [low, high]; a test runs the toy recipes"
    )
    log_every_steps: int = Field(default=20, gt=0)
    checkpoint_every_steps: int = Field(default=1000, gt=0)

    def repulsion(self) -> float:
        """alpha, the weight of saliency_mask's hard negatives: 2 on contrastive bases, 0 on the others."""
        default = 2.0 if self.base in ("mocov2", "simclr") else 0.0  # the authors' alpha
        return default if self.hard_negative_weight is None else self.hard_negative_weight

    def network(self) -> dict[str, Any]:
        """What `resnet.build` takes."""
        return {
            "name": self.backbone, "feature_grid": self.feature_grid, "zero_init_residual": self.zero_init_residual,
        }  # fmt: skip

    @field_validator("mask_ratio", "hard_negative_ratio")
    @classmethod
    def _is_a_range(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= value[0] <= value[1] <= 1:
            raise ValueError("a range [low, high] within 0 and 1")
        return value

    @model_validator(mode="after")
    def _views_are_enough(self) -> "PretrainConfig":
        if self.views == "supervised" and self.method != "supervised":
            raise ValueError(f"views=supervised has one view of each picture; {self.method} compares two")
        return self

    @model_validator(mode="after")
    def _warmup_fits(self) -> "PretrainConfig":
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs ({self.warmup_epochs:g}) must be shorter than epochs ({self.epochs})")
        return self


def load(recipe: str | None, method: str | None, overrides: Sequence[str]) -> PretrainConfig:
    """Resolve a recipe by name or file, then overrides.

    Args:
        recipe: a name in recipes/, a YAML file, or None for `<method>-100ep`.
        method: must agree with the recipe's; None takes the recipe's.

    Raises:
        UsageError: unknown recipe or key, a value of the wrong kind, a key that this method does not look at, or a
            method that is not the recipe's.
    """
    if recipe is None:
        recipe = f"{method or 'harl'}-100ep"
    path = Path(recipe) if recipe.endswith((".yaml", ".yml")) else RECIPES / f"{recipe}.yaml"
    if not path.is_file():
        raise UsageError(unknown(recipe, names(), "recipe"))
    values = read_yaml(path)
    changes = parse_overrides(overrides)
    given = merged(values, changes)
    config = validated(PretrainConfig, given, source=str(path), lines=values.lines)
    if method is not None and method != config.method:
        raise UsageError(f"recipe {recipe} is for {config.method}, not {method}", next=f"--recipe {method}-...")
    relevance.demand(config, changes)
    if not relevance.CHOICES & set(changes):
        fields = PretrainConfig.model_fields  # a run's own config.yaml has every key: at its default it says nothing
        relevance.demand(config, [k for k in given if getattr(config, k) != fields[k].default], source=path.name)
    return config


def names() -> list[str]:
    """The shipped recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))

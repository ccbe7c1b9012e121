"""What decides a pretraining run. Recipes (recipes/*.yaml) fill it, `key=value` overrides change it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from harl_bench.core.config import Config, merged, parse_overrides, read_yaml, validated
from harl_bench.core.errors import UsageError
from harl_bench.core.lookup import unknown

RECIPES = Path(__file__).parent / "recipes"


class PretrainConfig(Config):
    """One pretraining run. Defaults are HARL's; where its sources disagree, docs/fidelity.md 1.1 says why."""

    method: str
    seed: int = Field(default=0, ge=0)

    backbone: Literal["resnet50", "resnet18"] = "resnet50"
    feature_grid: Literal[7, 14, 28] = 7
    image_size: int = Field(default=224, ge=32, le=1024)
    projector_hidden: int = Field(default=4096, gt=0)
    projector_out: int = Field(default=512, gt=0)
    predictor_hidden: int = Field(default=4096, gt=0)

    epochs: int = Field(gt=0)
    batch_size: int = Field(default=4096, gt=1)
    base_lr: float = Field(gt=0, description="per 256 pictures: lr = base_lr * batch_size / 256")
    warmup_epochs: float = Field(default=10, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(ge=0)
    trust_coefficient: float = Field(default=1e-3, gt=0)
    tau_base: float = Field(ge=0, le=1, description="start of the EMA's momentum; rises to 1")

    alpha_base: float = Field(default=0.7, ge=0, le=1, description="weight of the foreground within the mask loss")
    lambda_base: float = Field(default=0.7, ge=0, le=1, description="weight of the whole picture in the hybrid loss")
    alpha_schedule: Literal["cosine", "fixed"] = "cosine"
    lambda_schedule: Literal["cosine", "fixed"] = "cosine"
    mask_pooling: Literal["mean", "area_plus_one", "gap"] = "mean"
    mask_rule: Literal["area", "nearest", "any"] = "area"

    precision: Literal["fp32", "bf16"] = "fp32"
    log_every_steps: int = Field(default=20, gt=0)
    checkpoint_every_steps: int = Field(default=1000, gt=0)

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
        UsageError: unknown recipe or key, a value of the wrong kind, or a method that is not the recipe's.
    """
    if recipe is None:
        recipe = f"{method or 'harl'}-100ep"
    path = Path(recipe) if recipe.endswith((".yaml", ".yml")) else RECIPES / f"{recipe}.yaml"
    if not path.is_file():
        raise UsageError(unknown(recipe, names(), "recipe"))
    values = read_yaml(path)
    changes = parse_overrides(overrides)
    config = validated(PretrainConfig, merged(values, changes), source=str(path), lines=values.lines)
    if method is not None and method != config.method:
        raise UsageError(f"recipe {recipe} is for {config.method}, not {method}", next=f"--recipe {method}-...")
    return config


def names() -> list[str]:
    """The shipped recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))

"""The keys that every pretraining run has. Each method adds its own, in its own file.

Recipes (recipes/*.yaml) fill them, `key=value` overrides change them: pretrain/recipe.py.
"""

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from harl_bench.core.config import Config

VIEW_KEYS = ("crop_area", "color_strength", "blur")
# Keys without effect on some views: supervised ones have no colors, the official script's are kept.
FIXED_VIEWS = {
    "supervised": dict.fromkeys(VIEW_KEYS[1:], "views with colors"),
    "harl_official_pt": dict.fromkeys(VIEW_KEYS, "other views than harl_official_pt"),
}


class PretrainConfig(Config):
    """One pretraining run.

    Defaults are HARL's; where its sources disagree, docs/fidelity.md 1.1 says why.
    """

    needs_labels: ClassVar[bool] = False

    method: str
    seed: int = Field(default=0, ge=0)

    backbone: Literal["resnet50", "resnet18"] = "resnet50"
    feature_grid: Literal[7, 14, 28] = 7
    zero_init_residual: bool = Field(
        default=False, description="each block's last batch norm starts at 0"
    )
    image_size: int = Field(default=224, ge=32, le=1024)
    epochs: int = Field(gt=0)
    batch_size: int = Field(default=4096, gt=1)
    base_lr: float = Field(gt=0, description="per 256 images: lr = base_lr * batch_size / 256")
    warmup_epochs: float = Field(default=10, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(ge=0)
    trust_coefficient: float = Field(default=1e-3, gt=0)
    optimizer: Literal["lars", "sgd"] = "lars"
    lars_ratio: Literal["byol", "official"] = Field(
        default="byol", description="divisor of the trust ratio"
    )
    lars_momentum: Literal["torch", "scaled"] = Field(
        default="torch", description="scaled: SimCLR's, the learning rate is inside the momentum"
    )
    decay_everything: bool = Field(
        default=False, description="weight decay also on biases and batch norm"
    )
    lr_schedule: Literal["cosine", "step"] = "cosine"
    lr_tick: Literal["step", "epoch"] = Field(
        default="step", description="when the rate moves; its warm-up always moves by step"
    )
    views: Literal["byol", "simclr", "mocov2", "supervised", "harl_official_pt"] = "byol"
    crop_area: tuple[float, float] | None = Field(
        default=None, description="smallest and largest fraction of the image; None: the views' own"
    )
    color_strength: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="factor of the views' jitter; 0.5 is SimCLR's on CIFAR-10",
    )
    blur: float | None = Field(
        default=None, ge=0, le=1, description="probability in every view; None: the views' own"
    )
    precision: Literal["fp32", "bf16"] = "fp32"
    sync_bn: bool = Field(default=True, description="batch-norm statistics over all processes")
    accumulate: int = Field(
        default=1, gt=0, description="parts that a batch is split into, for memory"
    )
    accumulation_ramp: bool = Field(
        default=False, description="official HARL script: x2 and x3 batches a step later on"
    )
    channels_last: bool | None = Field(default=None, description="memory layout; None: on a GPU")
    compile: bool = Field(default=False, description="torch.compile the step")
    probe_lr: float = Field(default=0.1, gt=0, description="of the online probe, per 256 images")
    evaluate_every_epochs: int = Field(default=1, gt=0, description="probe and kNN on --val")
    expect: dict[str, tuple[float, float]] = Field(
        default={},
        description="range of the last step's numbers, [low, high]; a test runs the toy recipes",
    )
    log_every_steps: int = Field(default=20, gt=0)
    checkpoint_every_steps: int = Field(default=1000, gt=0)

    def network(self) -> dict[str, Any]:
        """What `resnet.build` takes."""
        return {
            "name": self.backbone,
            "feature_grid": self.feature_grid,
            "zero_init_residual": self.zero_init_residual,
        }

    @property
    def needs_masks(self) -> bool:
        """Whether this run trains with --masks."""
        return False

    @property
    def high_passed(self) -> bool:
        """Whether the network sees high-pass filtered images; what measures it must filter, too."""
        return False

    def identity(self) -> dict[str, object]:
        """Return what tells runs apart beside their keys: digests of files that these name."""
        return {}

    def bn_groups_of(self, processes: int, parts: int) -> int:
        """Return how many groups batch norm sees in what one of `processes` passes at once, of a
        batch in `parts`; 0 if the groups cannot be divided so.
        """
        return 1

    def unused(self) -> dict[str, str]:
        """Return the keys that other choices leave without effect, with what would use them."""
        unused = dict(FIXED_VIEWS.get(self.views, {}))
        if self.optimizer != "lars":
            keys = ("trust_coefficient", "lars_ratio", "lars_momentum")
            unused |= dict.fromkeys(keys, "optimizer=lars")
        return unused

    @model_validator(mode="after")
    def _crops_exist(self) -> Self:
        if self.crop_area and not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
            raise ValueError(
                f"crop_area is (low, high) with 0 < low <= high <= 1, not {self.crop_area}"
            )
        return self

    @model_validator(mode="after")
    def _views_are_enough(self) -> Self:
        if self.views == "supervised" and not self.needs_labels:
            raise ValueError(
                f"views=supervised has one view of each image; {self.method} compares two"
            )
        return self

    @model_validator(mode="after")
    def _epochs_have_steps(self) -> Self:
        if self.lr_tick == "epoch" and self.accumulation_ramp:
            raise ValueError(
                "lr_tick=epoch needs as many steps in every epoch, without accumulation_ramp"
            )
        return self

    @model_validator(mode="after")
    def _warmup_fits(self) -> Self:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs ({self.warmup_epochs:g}) must be shorter than epochs "
                f"({self.epochs})"
            )
        return self


class MaskedConfig(PretrainConfig):
    """Keys of methods that train with masks."""

    crop: Literal["random", "mask_boxes", "mask_center"] = "random"
    min_foreground: float = Field(
        default=0.2, ge=0, le=1, description="fraction that crop=mask_boxes looks for"
    )
    crop_tries: int = Field(default=5, gt=0, description="boxes that crop=mask_boxes draws at most")

    @property
    def needs_masks(self) -> bool:
        """Whether this run trains with --masks."""
        return True

    def unused(self) -> dict[str, str]:
        """Return the keys of crops that are not chosen."""
        unused = super().unused()
        if not self.needs_masks:
            unused["crop"] = "methods with --masks"
        if self.crop != "mask_boxes" or not self.needs_masks:
            unused |= dict.fromkeys(("min_foreground", "crop_tries"), "crop=mask_boxes")
        return unused

"""Which keys a configuration looks at. One that it does not would leave its owner with another run than asked for."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from harl_bench.core.errors import UsageError
from pretrain.methods import needs_masks

if TYPE_CHECKING:
    from pretrain.config import PretrainConfig

CHOICES = {"method", "base", "loss", "optimizer", "crop"}  # once changed, a recipe's own keys may be another's
ON_BASES = ("harl", "saliency_crop", "saliency_mask")
Condition = Callable[["PretrainConfig"], bool]


def base(config: "PretrainConfig") -> str:
    """The siamese method at the bottom."""
    return config.base if config.method in ON_BASES else config.method


def with_bases(*names: str) -> Condition:
    """Read by these, alone or below another method."""
    return lambda config: base(config) in names


def of(*names: str) -> Condition:
    """Read by these methods."""
    return lambda config: config.method in names


def in_harls_loss(part: str) -> Condition:
    """Read by HARL where its loss has this part."""
    return lambda config: config.method == "harl" and part in config.loss


def repels(config: "PretrainConfig") -> bool:
    """Whether `saliency_mask` makes hard negatives."""
    return config.method == "saliency_mask" and config.repulsion() > 0


SIAMESE = with_bases("byol", "simclr", "mocov2", "simsiam")
LOOKED_AT: dict[str, tuple[str, Condition]] = {
    **dict.fromkeys(("projector_hidden", "projector_out"), ("methods with a projector", SIAMESE)),
    "predictor_hidden": ("methods with a predictor: byol, simsiam", with_bases("byol", "simsiam")),
    "head_bias": ("byol's heads", with_bases("byol")),
    **dict.fromkeys(("tau_base", "tau_schedule"), ("a moving target: byol, mocov2", with_bases("byol", "mocov2"))),
    "temperature": ("contrastive losses: simclr, mocov2", with_bases("simclr", "mocov2")),
    "queue_size": ("mocov2's queue", with_bases("mocov2")),
    **dict.fromkeys(("classes", "label_smoothing"), ("supervised", of("supervised"))),
    **dict.fromkeys(("trust_coefficient", "lars_ratio"), ("optimizer=lars", lambda c: c.optimizer == "lars")),
    "base": ("methods on another: harl, saliency_crop, saliency_mask", of(*ON_BASES)),
    "loss": ("harl, whose regions it chooses", of("harl")),
    **dict.fromkeys(("alpha_base", "alpha_schedule"), ("harl with fg+bg in its loss", in_harls_loss("fg+bg"))),
    **dict.fromkeys(("lambda_base", "lambda_schedule"), ("harl with byol+ in its loss", in_harls_loss("byol+"))),
    "schedule_tick": ("harl with two terms in its loss", in_harls_loss("+")),
    **dict.fromkeys(("mask_pooling", "mask_rule"), ("harl with fg in its loss", in_harls_loss("fg"))),
    "views": ("methods without views of their own", lambda c: c.method != "saliency_crop"),
    "crop": ("methods with --masks", needs_masks),
    **dict.fromkeys(("min_foreground", "crop_tries"), ("crop=mask_boxes", lambda c: c.crop == "mask_boxes")),
    **dict.fromkeys(
        ("local_crops", "saliency_map", "saliency_warmup", "saliency_momentum"),
        ("saliency_crop", of("saliency_crop")),
    ),
    **dict.fromkeys(
        ("local_size", "local_weight", "saliency_temperature"),
        ("saliency_crop with local crops", lambda c: c.method == "saliency_crop" and c.local_crops > 0),
    ),
    **dict.fromkeys(
        ("mask_fill", "mask_grid", "mask_ratio", "hard_negative_weight", "localiser"),
        ("saliency_mask", of("saliency_mask")),
    ),
    "hard_negative_ratio": ("saliency_mask with a hard_negative_weight", repels),
    "hard_negative_margin": (
        "saliency_mask on byol and simsiam with a hard_negative_weight",
        lambda c: repels(c) and c.base in ("byol", "simsiam"),
    ),
}  # fmt: skip


def demand(config: "PretrainConfig", given: Iterable[str], *, source: str = "overrides") -> None:
    """Refuse a key that was given and is not looked at.

    Args:
        given: the keys of a recipe and its overrides.
        source: where they are from, for the message.

    Raises:
        UsageError: the first such key, and what looks at it.
    """
    for key in given:
        readers, looks = LOOKED_AT.get(key, ("", lambda config: True))
        if not looks(config):
            raise UsageError(
                f"{key} changes nothing here", where=source, seen=f"method {config.method}, base {base(config)}, "
                f"loss {config.loss}" if config.method == "harl" else f"method {config.method}",
                next=f"leave it out; it is for {readers}",
            )  # fmt: skip

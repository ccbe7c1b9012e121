"""What a value of a recipe may be: type, range, implemented choices, and rules between keys.

Settings are held flat, {"SOLVER.BASE_LR": Setting(0.02, "voc-c4-24k.yaml:31")}: merging is a dict
update, and each complaint knows its line.
"""

import ast
import math
from collections.abc import Mapping
from contextlib import suppress
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from harl_bench.core.config import read_yaml
from harl_bench.core.errors import UsageError


class Setting(NamedTuple):
    """A value and where it was written: `file:line` or `override KEY=value`."""

    value: Any
    where: str


NORMS = ("BN", "SyncBN", "naiveSyncBN", "FrozenBN")
CHOICES: dict[str, tuple[Any, ...]] = {
    "VERSION": (2,),
    "MODEL.META_ARCHITECTURE": ("GeneralizedRCNN",),
    "MODEL.BACKBONE.NAME": ("build_resnet_backbone", "build_resnet_fpn_backbone"),
    "MODEL.BACKBONE.FREEZE_AT": (0, 1, 2, 3, 4, 5),
    "MODEL.RESNETS.NORM": NORMS,
    "MODEL.FPN.NORM": ("", *NORMS),
    "MODEL.ROI_BOX_HEAD.NORM": ("", *NORMS),
    "MODEL.ROI_MASK_HEAD.NORM": ("", *NORMS),
    "MODEL.ROI_HEADS.NAME": ("Res5ROIHeads", "Res5ROIHeadsExtraNorm", "StandardROIHeads"),
    "MODEL.ROI_BOX_HEAD.NAME": ("", "FastRCNNConvFCHead"),
    "MODEL.ROI_MASK_HEAD.NAME": ("MaskRCNNConvUpsampleHead",),
    "INPUT.FORMAT": ("RGB", "BGR"),
    "INPUT.RANDOM_FLIP": ("horizontal", "none"),
    "SOLVER.WARMUP_METHOD": ("linear", "constant"),
}
# Why a key must keep its default, by the start of its name, and what to do about it.
OTHERWISE = (
    "set it to {default!r} there; or convert the checkpoint (harl-bench convert CKPT) and train "
    "with Detectron2 itself"
)
KEYPOINTS = (
    ", because this suite scores boxes and masks, not keypoints",
    "set MODEL.KEYPOINT_ON to False there and train on instances_*.json; for keypoints convert "
    "the checkpoint "
    "(harl-bench convert CKPT) and train with Detectron2 itself",
)
WHY = {
    "MODEL.KEYPOINT_ON": KEYPOINTS,
    "MODEL.ROI_KEYPOINT_HEAD": KEYPOINTS,
    "TEST.KEYPOINT_OKS_SIGMAS": KEYPOINTS,
    "MODEL.RESNETS": (
        ", because this suite measures the plain ResNet-50",
        "set it to {default!r} there and give the checkpoint of a ResNet-50",
    ),
    "TEST.EXPECTED_RESULTS": (
        ", because it is a check of Detectron2's own tests",
        "remove the key",
    ),
}
SIGNED = {"SEED", "MODEL.RPN.BOUNDARY_THRESH", "MODEL.PIXEL_MEAN"}
POSITIVE = (
    ".BATCH_SIZE_PER_IMAGE",
    ".NUM_CLASSES",
    ".MAX_ITER",
    ".IMS_PER_BATCH",
    ".PIXEL_STD",
    ".MIN_SIZE_TRAIN",
    ".MAX_SIZE_TRAIN",
    ".MIN_SIZE_TEST",
    ".MAX_SIZE_TEST",
    ".POOLER_RESOLUTION",
    "_TOPK_TRAIN",
    "_TOPK_TEST",
    ".NUM_ITER",
    ".DETECTIONS_PER_IMAGE",
    ".CHECKPOINT_PERIOD",
    ".OUT_CHANNELS",
    "_DIM",
    ".SIZES",
    ".ASPECT_RATIOS",
    ".BBOX_REG_WEIGHTS",
)
RES2_TO_5 = ("res2", "res3", "res4", "res5")
P2_TO_6 = ("p2", "p3", "p4", "p5", "p6")


@cache
def _tables() -> tuple[dict[str, Any], dict[str, Any]]:
    """(keys both engines honour, keys that must keep their default), flat, with the default
    values.
    """
    content = read_yaml(Path(__file__).with_name("defaults.yaml"))

    def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key, value in tree.items():
            out |= (
                flat(value, f"{prefix}{key}.")
                if isinstance(value, dict)
                else {f"{prefix}{key}": tuples(value)}
            )
        return out

    return flat(content["HONOURED"]), flat(content["FIXED"])


def defaults() -> dict[str, Setting]:
    """Every key of Detectron2 with its default."""
    honoured, fixed = _tables()
    return {
        key: Setting(value, "Detectron2's default") for key, value in (honoured | fixed).items()
    }


def checked(key: str, setting: Setting) -> Setting:
    """The setting with its value in the type of the default.

    Raises:
        UsageError: unknown key, wrong type, out of range, or not implemented by the torchvision
            engine.
    """
    value, where = setting
    honoured, fixed = _tables()
    known = honoured | fixed
    if key not in known:
        if any(name.startswith(f"{key}.") for name in known):
            raise UsageError(
                f"{key} is a group of keys, not a value", where=where, seen=repr(value)
            )
        close = get_close_matches(key, known, n=1, cutoff=0.5)
        raise UsageError(
            f"unknown recipe key {key}",
            where=where,
            next=f"did you mean {close[0]}?" if close else None,
        )
    value = _decoded(tuples(value), known[key])
    if key in fixed:
        if value != fixed[key]:
            only = f"{key}: only {lists(fixed[key])!r} is implemented"
            because, advice = next(
                (text for start, text in WHY.items() if key.startswith(start)), ("", OTHERWISE)
            )
            advice = advice.format(default=lists(fixed[key]))
            raise UsageError(f"{only}{because}", where=where, seen=repr(lists(value)), next=advice)
        return Setting(fixed[key], where)
    value = _in_type(key, value, known[key], where)
    if key in CHOICES and value not in CHOICES[key]:
        choices = ", ".join(map(repr, CHOICES[key]))
        raise UsageError(
            f"{key}: {value!r} is not implemented", where=where, next=f"choose one of {choices}"
        )
    numbers = [x for x in _leaves(value) if isinstance(x, (int, float))]
    if not all(map(math.isfinite, numbers)):
        raise UsageError(f"{key} must be finite", where=where, seen=lists(value))
    if key not in SIGNED and any(x < 0 or (x == 0 and key.endswith(POSITIVE)) for x in numbers):
        rule = "above 0" if key.endswith(POSITIVE) else "0 or more"
        raise UsageError(f"{key} must be {rule}", where=where, seen=lists(value))
    return Setting(value, where)


def _decoded(value: Any, default: Any) -> Any:
    """Strings are decoded as Detectron2 does, by literal_eval: "(1, 2)", "1e-3"; what is no literal
    stays a string.
    """
    if isinstance(value, str) and not isinstance(default, str):
        words = {"true": True, "false": False, "null": None}  # as YAML has them, for overrides
        with suppress(ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            return (
                words[value.lower()] if value.lower() in words else tuples(ast.literal_eval(value))
            )
    return value


def _in_type(key: str, value: Any, default: Any, where: str) -> Any:
    """The value if it has the type of the default; whole numbers may stand for float ones."""
    if default is None or {type(x) for x in _leaves(default)} == {float}:
        value = _floats(value)
    if default is None:
        fits = value is None or isinstance(value, float)
    elif isinstance(default, tuple):
        kinds = {type(x) for x in _leaves(default)} or {str}
        kinds |= {float} if key == "MODEL.ANCHOR_GENERATOR.SIZES" else set()
        fits = isinstance(value, tuple) and {type(x) for x in _leaves(value)} <= kinds
        fits = fits and (value == () or _depth(value) == _depth(default or ("",)))
    else:
        fits = type(value) is type(default)
    if not fits:
        kind = {str: "text", tuple: "a list of names", type(None): "a number or null"}.get(
            type(default)
        )
        like = (
            f"like {lists(default)!r}" if default else kind or f"of type {type(default).__name__}"
        )
        raise UsageError(f"{key} must be {like}", where=where, seen=repr(lists(value)))
    return value


def is_fpn(recipe: Any) -> bool:
    """FPN over res2..res5, or the C4 model with res5 as its head."""
    return bool(recipe.MODEL.BACKBONE.NAME == "build_resnet_fpn_backbone")


def require_consistent(recipe: Any, settings: Mapping[str, Setting]) -> None:
    """Rules between keys.

    Raises:
        UsageError: names the key to mend and where it was set.
    """
    model, fpn = recipe.MODEL, is_fpn(recipe)
    anchors, rpn_in, roi_in = (
        model.ANCHOR_GENERATOR,
        model.RPN.IN_FEATURES,
        model.ROI_HEADS.IN_FEATURES,
    )
    heads = ("StandardROIHeads",) if fpn else ("Res5ROIHeads", "Res5ROIHeadsExtraNorm")
    body = RES2_TO_5 if fpn else ("res4",)
    levels = P2_TO_6 if fpn else ("res4",)
    n = len(rpn_in)
    rules = [
        (
            "ROI_HEADS.NAME",
            model.ROI_HEADS.NAME in heads,
            f"{model.BACKBONE.NAME} goes with {' or '.join(heads)}",
        ),
        ("RESNETS.OUT_FEATURES", body == model.RESNETS.OUT_FEATURES, f"must be {list(body)}"),
        ("FPN.IN_FEATURES", not fpn or body == model.FPN.IN_FEATURES, f"must be {list(body)}"),
        ("RPN.IN_FEATURES", rpn_in == levels, f"must be {list(levels)}"),
        ("ROI_HEADS.IN_FEATURES", roi_in == levels[:4], f"must be {list(levels[:4])}"),
        (
            "ROI_BOX_HEAD.NAME",
            (model.ROI_BOX_HEAD.NAME != "") == fpn,
            "FPN needs FastRCNNConvFCHead, C4 has none",
        ),
        ("ROI_BOX_HEAD.NUM_FC", not fpn or model.ROI_BOX_HEAD.NUM_FC > 0, "at least one layer"),
        ("ANCHOR_GENERATOR.SIZES", len(anchors.SIZES) in (1, n), f"1 or {n} lists"),
        ("ANCHOR_GENERATOR.ASPECT_RATIOS", len(anchors.ASPECT_RATIOS) in (1, n), f"1 or {n} lists"),
        # one RPN head serves all levels, so each needs the same number of anchors
        ("ANCHOR_GENERATOR.SIZES", len(set(map(len, anchors.SIZES))) == 1, "equally long lists"),
        (
            "ANCHOR_GENERATOR.ASPECT_RATIOS",
            len(set(map(len, anchors.ASPECT_RATIOS))) == 1,
            "equally long lists",
        ),
        ("PIXEL_MEAN", len(model.PIXEL_MEAN) == 3, "three channels"),
        ("PIXEL_STD", len(model.PIXEL_STD) == 3, "three channels"),
        ("RPN.IOU_THRESHOLDS", len(model.RPN.IOU_THRESHOLDS) == 2, "[low, high]"),
        ("ROI_HEADS.IOU_THRESHOLDS", len(model.ROI_HEADS.IOU_THRESHOLDS) == 1, "one threshold"),
        ("RPN.BBOX_REG_WEIGHTS", len(model.RPN.BBOX_REG_WEIGHTS) == 4, "four weights"),
        (
            "ROI_BOX_HEAD.BBOX_REG_WEIGHTS",
            len(model.ROI_BOX_HEAD.BBOX_REG_WEIGHTS) == 4,
            "four weights",
        ),
    ]
    steps, sizes = recipe.SOLVER.STEPS, recipe.INPUT.MIN_SIZE_TRAIN
    checks = [(f"MODEL.{key}", holds, rule) for key, holds, rule in rules] + [
        ("INPUT.MIN_SIZE_TRAIN", len(sizes) > 0, "at least one size"),
        ("SOLVER.STEPS", list(steps) == sorted(set(steps)), "must increase"),
    ]
    for key, holds, rule in checks:
        if not holds:
            raise UsageError(
                f"{key}: {rule}", where=settings[key].where, seen=lists(settings[key].value)
            )


def tuples(value: Any) -> Any:
    """Lists, at any depth, as tuples."""
    return tuple(map(tuples, value)) if isinstance(value, (list, tuple)) else value


def lists(value: Any) -> Any:
    """Tuples, at any depth, as lists."""
    return list(map(lists, value)) if isinstance(value, tuple) else value


def _floats(value: Any) -> Any:
    """Integers, at any depth, as floats."""
    if isinstance(value, tuple):
        return tuple(map(_floats, value))
    return float(value) if type(value) is int else value


def _leaves(value: Any) -> list[Any]:
    return (
        [leaf for item in value for leaf in _leaves(item)] if isinstance(value, tuple) else [value]
    )


def _depth(value: Any) -> int:
    return 1 + max((_depth(item) for item in value), default=0) if isinstance(value, tuple) else 0

"""Validation of recipes: type, range, implemented choices, and rules between keys.

Settings are flat, {"SOLVER.BASE_LR": Setting(0.02, "voc-c4-24k.yaml:31")}: merging is a dict
update, and each error names its line.
"""

import ast
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from harl_bench.core.config import flatten, read_yaml
from harl_bench.core.errors import UsageError


class Setting(NamedTuple):
    """A value and its source: `file:line` or `override KEY=value`."""

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
# The reason why a key must keep its default, by the start of its name, and the advice.
OTHERWISE = (
    "set it to {default!r} there; or convert the checkpoint (harl-bench convert CKPT) and train "
    "with Detectron2 itself"
)
KEYPOINTS = (
    ", because this suite scores boxes and masks, not keypoints",
    "set MODEL.KEYPOINT_ON to False there and train on instances_*.json; for keypoints convert "
    "the checkpoint (harl-bench convert CKPT) and train with Detectron2 itself",
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
POSITIVE = re.compile(
    r".*(\.BATCH_SIZE_PER_IMAGE|\.NUM_CLASSES|\.MAX_ITER|\.IMS_PER_BATCH|\.PIXEL_STD|\.SIZES|_DIM"
    r"|\.M(IN|AX)_SIZE_(TRAIN|TEST)|\.POOLER_RESOLUTION|_TOPK_(TRAIN|TEST)|\.NUM_ITER"
    r"|\.DETECTIONS_PER_IMAGE|\.CHECKPOINT_PERIOD|\.OUT_CHANNELS|\.ASPECT_RATIOS"
    r"|\.BBOX_REG_WEIGHTS)"
)
RES2_TO_5 = ("res2", "res3", "res4", "res5")
P2_TO_6 = ("p2", "p3", "p4", "p5", "p6")


@cache
def _tables() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the flat defaults of keys that both engines honour, and of those that are fixed."""
    content = read_yaml(Path(__file__).with_name("defaults.yaml"))
    honoured, fixed = (flatten(content[group]) for group in ("HONOURED", "FIXED"))
    return {k: tuples(v) for k, v in honoured.items()}, {k: tuples(v) for k, v in fixed.items()}


def defaults() -> dict[str, Setting]:
    """Return every key of Detectron2 with its default."""
    honoured, fixed = _tables()
    return {
        key: Setting(value, "Detectron2's default") for key, value in (honoured | fixed).items()
    }


def validate(key: str, setting: Setting) -> Setting:
    """Return the setting with its value in the type of the default.

    Raises:
        UsageError: unknown key, wrong type, out of range, or not in the torchvision engine.
    """
    value, where = setting
    honoured, fixed = _tables()
    known = honoured | fixed
    if key not in known:
        if any(name.startswith(f"{key}.") for name in known):
            what = f"{key} is a group of keys, not a value"
            raise UsageError(what, where=where, seen=repr(value))
        close = get_close_matches(key, known, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else None
        raise UsageError(f"unknown recipe key {key}", where=where, next=hint)
    value = _decode(tuples(value), known[key])
    if key in fixed:
        if value != fixed[key]:
            default = lists(fixed[key])
            reasons = (text for start, text in WHY.items() if key.startswith(start))
            reason, advice = next(reasons, ("", OTHERWISE))
            what, hint = f"{key}: only {default!r} is implemented", advice.format(default=default)
            raise UsageError(f"{what}{reason}", where=where, seen=repr(lists(value)), next=hint)
        return Setting(fixed[key], where)
    value = _convert(key, value, known[key], where)
    if key in CHOICES and value not in CHOICES[key]:
        hint = f"choose one of {', '.join(map(repr, CHOICES[key]))}"
        raise UsageError(f"{key}: {value!r} is not implemented", where=where, next=hint)
    numbers = [x for x in _leaves(value) if isinstance(x, (int, float))]
    if not all(map(math.isfinite, numbers)):
        raise UsageError(f"{key} must be finite", where=where, seen=lists(value))
    positive = POSITIVE.fullmatch(key)
    if key not in SIGNED and any(x < 0 or (x == 0 and positive) for x in numbers):
        rule = "above 0" if positive else "0 or more"
        raise UsageError(f"{key} must be {rule}", where=where, seen=lists(value))
    return Setting(value, where)


def _decode(value: Any, default: Any) -> Any:
    """Decode a string that is a literal, "(1, 2)" or "1e-3", as Detectron2 does."""
    if isinstance(value, str) and not isinstance(default, str):
        words = {"true": True, "false": False, "null": None}  # as in YAML, for overrides
        if value.lower() in words:
            return words[value.lower()]
        with suppress(ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            return tuples(ast.literal_eval(value))
    return value


def _convert(key: str, value: Any, default: Any, where: str) -> Any:
    """Return the value in the type of the default, integers as floats where it has floats."""
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
        names = {str: "text", tuple: "a list of names", type(None): "a number or null"}
        name = names.get(type(default), f"of type {type(default).__name__}")
        like = f"like {lists(default)!r}" if default else name
        raise UsageError(f"{key} must be {like}", where=where, seen=repr(lists(value)))
    return value


def is_fpn(recipe: Any) -> bool:
    """Return True for FPN over res2..res5, False for the C4 model with res5 as its head."""
    return bool(recipe.MODEL.BACKBONE.NAME == "build_resnet_fpn_backbone")


def require_consistent(recipe: Any, settings: Mapping[str, Setting]) -> None:
    """Check the rules between keys.

    Raises:
        UsageError: names the key to correct and its source.
    """
    model, fpn = recipe.MODEL, is_fpn(recipe)
    rpn_in, roi_in = model.RPN.IN_FEATURES, model.ROI_HEADS.IN_FEATURES
    anchors, box_head = model.ANCHOR_GENERATOR, model.ROI_BOX_HEAD
    sizes, ratios = anchors.SIZES, anchors.ASPECT_RATIOS
    heads = ("StandardROIHeads",) if fpn else ("Res5ROIHeads", "Res5ROIHeadsExtraNorm")
    body = RES2_TO_5 if fpn else ("res4",)
    levels = P2_TO_6 if fpn else ("res4",)
    head_rule = f"{model.BACKBONE.NAME} goes with {' or '.join(heads)}"
    box_rule = "FPN needs FastRCNNConvFCHead, C4 has none"
    n, equal = len(rpn_in), "equally long lists"
    rules = [
        ("ROI_HEADS.NAME", model.ROI_HEADS.NAME in heads, head_rule),
        ("RESNETS.OUT_FEATURES", body == model.RESNETS.OUT_FEATURES, f"must be {list(body)}"),
        ("FPN.IN_FEATURES", not fpn or body == model.FPN.IN_FEATURES, f"must be {list(body)}"),
        ("RPN.IN_FEATURES", rpn_in == levels, f"must be {list(levels)}"),
        ("ROI_HEADS.IN_FEATURES", roi_in == levels[:4], f"must be {list(levels[:4])}"),
        ("ROI_BOX_HEAD.NAME", (box_head.NAME != "") == fpn, box_rule),
        ("ROI_BOX_HEAD.NUM_FC", not fpn or box_head.NUM_FC > 0, "at least one layer"),
        ("ANCHOR_GENERATOR.SIZES", len(sizes) in (1, n), f"1 or {n} lists"),
        ("ANCHOR_GENERATOR.ASPECT_RATIOS", len(ratios) in (1, n), f"1 or {n} lists"),
        # one RPN head serves all levels, so each needs the same number of anchors
        ("ANCHOR_GENERATOR.SIZES", len(set(map(len, sizes))) == 1, equal),
        ("ANCHOR_GENERATOR.ASPECT_RATIOS", len(set(map(len, ratios))) == 1, equal),
        ("PIXEL_MEAN", len(model.PIXEL_MEAN) == 3, "three channels"),
        ("PIXEL_STD", len(model.PIXEL_STD) == 3, "three channels"),
        ("RPN.IOU_THRESHOLDS", len(model.RPN.IOU_THRESHOLDS) == 2, "[low, high]"),
        ("ROI_HEADS.IOU_THRESHOLDS", len(model.ROI_HEADS.IOU_THRESHOLDS) == 1, "one threshold"),
        ("RPN.BBOX_REG_WEIGHTS", len(model.RPN.BBOX_REG_WEIGHTS) == 4, "four weights"),
        ("ROI_BOX_HEAD.BBOX_REG_WEIGHTS", len(box_head.BBOX_REG_WEIGHTS) == 4, "four weights"),
    ]
    steps = recipe.SOLVER.STEPS
    checks = [(f"MODEL.{key}", holds, rule) for key, holds, rule in rules] + [
        ("INPUT.MIN_SIZE_TRAIN", len(recipe.INPUT.MIN_SIZE_TRAIN) > 0, "at least one size"),
        ("SOLVER.STEPS", list(steps) == sorted(set(steps)), "must increase"),
    ]
    for key, holds, rule in checks:
        if not holds:
            value, where = settings[key]
            raise UsageError(f"{key}: {rule}", where=where, seen=lists(value))


def tuples(value: Any) -> Any:
    """Return lists, at any depth, as tuples."""
    return tuple(map(tuples, value)) if isinstance(value, (list, tuple)) else value


def lists(value: Any) -> Any:
    """Return tuples, at any depth, as lists."""
    return list(map(lists, value)) if isinstance(value, tuple) else value


def _floats(value: Any) -> Any:
    """Return integers, at any depth, as floats."""
    if isinstance(value, tuple):
        return tuple(map(_floats, value))
    return float(value) if type(value) is int else value


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, tuple):
        return [leaf for item in value for leaf in _leaves(item)]
    return [value]


def _depth(value: Any) -> int:
    return 1 + max((_depth(item) for item in value), default=0) if isinstance(value, tuple) else 0

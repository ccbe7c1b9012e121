"""Training checkpoints under Detectron2's names: model_0004999.pth, model_final.pth, ...

`{"model": Detectron2's own state dict, "optimizer", "iteration", ...}`: each engine loads the
other's model.
"""

import pickle
from pathlib import Path
from shlex import quote
from typing import Any

import torch
from torch import Tensor

from harl_bench.convert.formats import CAFFE
from harl_bench.core.config import flatten
from harl_bench.core.errors import CheckpointError
from harl_bench.core.files import replacing, write_bytes
from harl_bench.core.progress import log
from harl_bench.detection.recipe import Recipe
from harl_bench.nn import checkpoint

FINAL, LAST = "model_final.pth", "last_checkpoint"
KEPT = 2  # besides the final one
PIXELS = ("pixel_mean", "pixel_std")  # of the zoo's files
ANCHORS = ".anchor_generator.cell_anchors."
# Recipe keys that decide what trained weights compute, and that no shape tells.
OF_NETWORK = (
    "INPUT.FORMAT",
    "MODEL.PIXEL_MEAN",
    "MODEL.PIXEL_STD",
    "MODEL.RESNETS.STRIDE_IN_1X1",
    "MODEL.ANCHOR_GENERATOR.SIZES",
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS",
    "MODEL.ANCHOR_GENERATOR.OFFSET",
    "MODEL.RPN.BBOX_REG_WEIGHTS",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS",
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION",
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO",
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION",
    "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO",
)


def save(folder: Path, state: dict[str, Any], *, final: bool = False) -> Path:
    """Write a checkpoint atomically, name it in last_checkpoint, and delete the oldest."""
    path = folder / (FINAL if final else f"model_{state['iteration']:07d}.pth")
    # torch.save would hide a full disk if it were given a path.
    with replacing(path) as temporary, open(temporary, "wb") as file:
        torch.save(state, file)
    write_bytes(folder / LAST, path.name.encode())
    for old in numbered(folder)[KEPT:]:
        old.unlink()
    return path


def numbered(folder: Path) -> list[Path]:
    """Return the files model_<iteration>.pth, newest first."""
    return sorted(folder.glob("model_[0-9]*.pth"), reverse=True)


def last(folder: Path) -> dict[str, Any] | None:
    """Return the newest checkpoint that can be read, None if there is none."""
    for path in [p for p in (folder / FINAL, *numbered(folder)) if p.exists()]:
        try:
            return read(path)
        except CheckpointError as error:
            log.warning("%s; trying the one before", error)
    return None


def of_network(recipe: Recipe) -> dict[str, Any]:
    """Return the values of OF_NETWORK, which both engines' checkpoints state, as plain lists."""
    flat = flatten(recipe.to_dict())
    return {key: flat[key] for key in OF_NETWORK}


def detector(path: Path, recipe: Recipe) -> dict[str, Tensor]:
    """Return the weights of a detector of our own, of Detectron2's or of its model zoo (.pkl).

    What a file of ours states of its network is compared with the recipe. The zoo's files hold the
    mean and deviation of pixels and the anchors' cells, which no state dict of today has. The
    former are compared, too, the latter left out. Those with MSRA's mean and deviation were all
    trained on BGR with the stride in the 1x1, which no shape tells (D2:config/defaults.py).

    Raises:
        CheckpointError: unreadable, not a detector, or trained otherwise than the recipe says.
    """
    payload, _ = checkpoint.read(path)
    model = payload.get("model") if isinstance(payload, dict) else None
    if not isinstance(model, dict):
        raise CheckpointError("not a checkpoint of a detector", where=path)
    ours, stated = of_network(recipe), _stated(payload)
    theirs: dict[str, Any] = {
        f"MODEL.{name.upper()}": [round(value, 3) for value in model[name].flatten().tolist()]
        for name in PIXELS
        if name in model
    }
    if (*theirs.values(),) == ([*CAFFE.pixel_mean], [*CAFFE.pixel_std]):
        theirs |= {"INPUT.FORMAT": CAFFE.input_format, "MODEL.RESNETS.STRIDE_IN_1X1": True}
    theirs |= {key: stated[key] for key in OF_NETWORK if key in stated}
    if different := [key for key, value in theirs.items() if not _same(value, ours[key])]:
        overrides = (f"{key}={theirs[key]}" for key in different)
        raise CheckpointError(
            f"the detector was trained with another {', '.join(different)}",
            where=path,
            seen=", ".join(f"{key} {theirs[key]}, the recipe has {ours[key]}" for key in different),
            next=f"add the overrides {' '.join(map(quote, overrides))}",
        )
    return {name: x for name, x in model.items() if name not in PIXELS and ANCHORS not in name}


def _stated(payload: dict[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint of ours, Detectron2's trainer's included, states of its network."""
    holder: Any = payload
    for key in (*(["trainer"] if "trainer" in payload else []), "harl_bench", "network"):
        holder = holder.get(key) if isinstance(holder, dict) else None
    return holder if isinstance(holder, dict) else {}


def _same(a: Any, b: Any) -> bool:
    """Return whether two values are equal; float32 of the zoo's files has rounded numbers."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b) < 1e-3
    return type(a) is type(b) and a == b


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint as plain values and tensors on the CPU. No code in the file is run.

    Raises:
        CheckpointError: missing, damaged, or not a checkpoint of a detector.
    """
    if not path.is_file():
        raise CheckpointError("no such checkpoint", where=path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        seen = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            "damaged checkpoint", where=path, seen=seen, next="delete it"
        ) from None
    if not isinstance(state, dict) or "model" not in state:
        raise CheckpointError("not a checkpoint of a detector", where=path)
    return state

"""Training checkpoints under Detectron2's names: model_0004999.pth, model_final.pth and last_checkpoint.

`{"model": Detectron2's own state dict, "optimizer", "iteration", ...}`: Detectron2 loads the model from it, and back.
"""

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harl_bench.core.errors import CheckpointError
from harl_bench.core.progress import log
from harl_bench.core.results import replacing, write_bytes
from harl_bench.detection.recipe import Recipe
from harl_bench.nn import checkpoint

FINAL, LAST = "model_final.pth", "last_checkpoint"
KEPT = 2  # besides the final one
ANCHORS = ".anchor_generator.cell_anchors."


def save(folder: Path, state: dict[str, Any], *, final: bool = False) -> Path:
    """Write a checkpoint of `state["iteration"]` atomically, name it in last_checkpoint, and drop the oldest."""
    path = folder / (FINAL if final else f"model_{state['iteration']:07d}.pth")
    with replacing(path) as temporary, open(temporary, "wb") as file:  # a path would hide a full disk
        torch.save(state, file)
    write_bytes(folder / LAST, path.name.encode())
    for old in numbered(folder)[KEPT:]:
        old.unlink()
    return path


def numbered(folder: Path) -> list[Path]:
    """model_<iteration>.pth files, newest first."""
    return sorted(folder.glob("model_[0-9]*.pth"), reverse=True)


def last(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint that can be read; None if there is none."""
    for path in [p for p in (folder / FINAL, *numbered(folder)) if p.exists()]:
        try:
            return read(path)
        except CheckpointError as error:
            log.warning("%s; trying the one before", error)
    return None


def detector(path: Path, recipe: Recipe) -> dict[str, Tensor]:
    """Return the weights of a whole detector: of our own training, of Detectron2's, or of its model zoo (.pkl).

    The zoo's files also hold what their configuration fixes, mean and deviation of pixels and the anchors' cells. They
    are compared with the recipe or left out, as no state dict of today has them.

    Raises:
        CheckpointError: unreadable, not a detector, or one that was trained on other pixels than the recipe gives.
    """
    payload, _ = checkpoint.read(path)
    model = payload.get("model") if isinstance(payload, dict) else None
    if not isinstance(model, dict):
        raise CheckpointError("not a checkpoint of a detector", where=path)
    for name, expected in (("pixel_mean", recipe.MODEL.PIXEL_MEAN), ("pixel_std", recipe.MODEL.PIXEL_STD)):
        stated = model.get(name)
        if stated is not None and not torch.allclose(stated.flatten(), torch.tensor(expected), atol=1e-3):
            values = [round(value, 3) for value in stated.flatten().tolist()]
            raise CheckpointError(
                f"the detector was trained with another MODEL.{name.upper()}", where=path,
                seen=f"{values}, the recipe has {list(expected)}",
                next=f"add the overrides \"MODEL.{name.upper()}={values}\" and INPUT.FORMAT, if it differs, too",
            )  # fmt: skip
    return {name: x for name, x in model.items() if name not in ("pixel_mean", "pixel_std") and ANCHORS not in name}


def read(path: Path) -> dict[str, Any]:
    """A checkpoint as plain values and tensors on the CPU; no code in the file is run.

    Raises:
        CheckpointError: missing, damaged, or not a checkpoint of a detector.
    """
    if not path.is_file():
        raise CheckpointError("no such checkpoint", where=path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        seen = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError("damaged checkpoint", where=path, seen=seen, next="delete it") from None
    if not isinstance(state, dict) or "model" not in state:
        raise CheckpointError("not a checkpoint of a detector", where=path)
    return state

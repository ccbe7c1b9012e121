"""Write a backbone in Detectron2's or torchvision's format, with its origin and a proof."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch

import harl_bench
from harl_bench.convert import proof
from harl_bench.convert.names import to_detectron2
from harl_bench.convert.read import Backbone
from harl_bench.core.errors import BenchError, UsageError
from harl_bench.core.files import replacing
from harl_bench.nn import checkpoint

ENDINGS = {"detectron2": (".pkl", ".pth", ".safetensors"), "torchvision": (".pth", ".safetensors")}


def write(backbone: Backbone, out: Path, *, layout: str = "detectron2") -> list[str]:
    """Write the 265 tensors and a `harl_bench` entry with their origin, if the proof succeeds.

    Args:
        out: .pkl (NumPy arrays, as Detectron2's own model files), .pth or .safetensors.
        layout: "detectron2" or "torchvision" names.

    Returns:
        The proof, three lines: names, values, features (convert/proof.py).

    Raises:
        UsageError: another ending, or a .pkl of torchvision's layout, which nothing reads.
        CheckpointError: the proof failed.
    """
    check_ending(out, layout)
    tensors = {
        to_detectron2(name) if layout == "detectron2" else name: value
        for name, value in backbone.tensors.items()
    }
    lines = proof.of(backbone.tensors)
    meta = about(backbone) | {"layout": layout, "proof": lines}
    with replacing(out) as temporary:
        if out.suffix == ".safetensors":
            from safetensors.torch import save_file

            save_file(tensors, temporary, metadata={"harl_bench": json.dumps(meta)})
        else:
            with open(temporary, "wb") as file:  # given a path, torch hides that the disk is full
                if layout == "torchvision":
                    torch.save({"state_dict": tensors, "harl_bench": meta}, file)
                else:
                    # Without `model` and `__author__` Detectron2 takes a file for Caffe2's
                    # (docs/convert.md 2).
                    header = {
                        "__author__": "harl-bench",
                        "matching_heuristics": True,
                        "harl_bench": meta,
                    }
                    if out.suffix == ".pth":
                        torch.save({"model": tensors, **header}, file)
                    else:
                        arrays = {name: value.numpy() for name, value in tensors.items()}
                        pickle.dump({"model": arrays, **header}, file, protocol=4)
        proof.same(backbone.tensors, temporary, out)
    return lines


def check_ending(out: Path, layout: str) -> None:
    """Raise a UsageError for a kind of file that is not written in this layout."""
    if out.suffix not in ENDINGS[layout]:
        raise UsageError(
            "cannot write this kind of file",
            seen=f"{out.name}, layout {layout}",
            next=f"end --out in {', '.join(ENDINGS[layout])}",
        )


def pass_on(source: Path, out: Path) -> None:
    """Copy a Caffe2/MSRA file unchanged, as Detectron2 renames its tensors itself."""
    with replacing(out) as temporary:
        shutil.copyfile(source, temporary)


def is_written(backbone: Backbone, out: Path, layout: str) -> bool:
    """Return whether `out` holds this backbone already, tensors and origin, in this layout."""
    try:
        entry = dict(checkpoint.peek(out).payload["harl_bench"])
        proof.same(backbone.tensors, out, out)
    except (BenchError, KeyError, TypeError, ValueError):  # not ours, or damaged
        return False
    entry.pop("proof", None)
    return entry == about(backbone) | {"layout": layout}


def about(backbone: Backbone) -> dict[str, Any]:
    """Return the entry with the origin, which detection compares with its recipe."""
    return {
        "tool_version": harl_bench.__version__,
        "source": backbone.ref.name,
        "source_sha256": backbone.ref.sha256,
        "format": backbone.ref.format,
        **({"method": backbone.method} if backbone.method else {}),
        "net": backbone.ref.net,
        "epoch": backbone.epoch,
        "input_format": backbone.input.input_format,
        "pixel_mean": list(backbone.input.pixel_mean),
        "pixel_std": list(backbone.input.pixel_std),
        **({"high_pass": True} if backbone.input.high_pass else {}),
        **({"padding": backbone.padding} if backbone.padding != "torch" else {}),
        "stride_in_1x1": backbone.stride_in_1x1,
        "feature_grid": backbone.feature_grid,
        **({"toy": True} if backbone.toy else {}),
        **({"departures": backbone.departures} if backbone.departures else {}),
    }

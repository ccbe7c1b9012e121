"""The mask steps of a suite: makers that are fitted, masks that are made, and their quality against
ground truth.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from harl_bench.core.masks import manifest_name
from harl_bench.suite.cell import Cell, Gpus

if TYPE_CHECKING:
    from harl_bench.suite.config import Fitting, Masks, Suite

SUFFIXES = {"drfi": ".npz", "deep": ".safetensors"}


def cells(suite: "Suite", out: Path) -> list[Cell]:
    """Fits first, then each set of masks and its evaluation, seed by seed."""
    found = [_fit(fitting, seed, suite, out) for seed in suite.seeds for fitting in suite.fit]
    for seed in suite.seeds:
        for masks in suite.masks:
            if masks.model is None and seed != suite.seeds[0]:
                continue  # nothing is drawn: every seed would give the same masks
            found.append(_make(masks, seed, suite, out))
            if masks.truth:
                found.append(_evaluate(masks, seed, suite, out))
    return found


def folder(out: Path, name: str, seed: int) -> Path:
    """Where the masks of that name lie."""
    return out / "mask-making" / f"seed{seed}" / name


def _model(out: Path, fitting: "Fitting", seed: int) -> Path:
    return out / "mask-making" / f"seed{seed}" / f"{fitting.name}{SUFFIXES[fitting.method]}"


def _fit(fitting: "Fitting", seed: int, suite: "Suite", out: Path) -> Cell:
    images, masks = suite.data[fitting.data], suite.data[fitting.masks] if fitting.masks else None
    file = _model(out, fitting, seed)
    arguments = [
        "masks",
        "fit",
        str(images),
        *fitting.overrides,
        "--method",
        fitting.method,
        "--out",
        str(file),
    ]
    arguments += ["--masks", str(masks)] if masks else []
    arguments += ["--checkpoint", fitting.checkpoint] if fitting.checkpoint else []
    arguments += ["--seed", str(seed)]
    path = (
        Path(fitting.checkpoint) if fitting.checkpoint and fitting.checkpoint != "random" else None
    )
    return Cell(
        "masks fit",
        fitting.method,
        fitting.data,
        fitting.name,
        seed,
        tuple(fitting.overrides),
        tuple(arguments),
        (images, masks) if masks else (images,),
        makes=f"{fitting.name} seed {seed}",
        path=path,
        folder=file.parent,
        marks=(file, file.with_name(f"{file.name}.json")),
        gpus=_gpus(fitting.method),
    )


def _make(masks: "Masks", seed: int, suite: "Suite", out: Path) -> Cell:
    images, target = suite.data[masks.data], folder(out, masks.name, seed)
    fitting = next((step for step in suite.fit if step.name == masks.model), None)
    arguments = [
        "masks",
        "make",
        str(images),
        *masks.overrides,
        "--out",
        str(target),
        "--method",
        masks.method,
    ]
    arguments += ["--model", str(_model(out, fitting, seed))] if fitting else []
    arguments += ["--threshold", masks.threshold] if masks.threshold else []
    arguments += ["--save-maps", str(_maps(target))] if masks.truth else []
    setting = masks.method + (f" threshold {masks.threshold}" if masks.threshold else "")
    return Cell(
        "masks make",
        setting,
        masks.data,
        masks.name,
        seed,
        tuple(masks.overrides),
        tuple(arguments),
        (images,),
        makes=f"{masks.name} seed {seed}",
        needs=(f"{fitting.name} seed {seed}",) if fitting else (),
        folder=target,
        marks=(target / "preview.png", target / manifest_name()),
        gpus=_gpus(masks.method),
    )


def _evaluate(masks: "Masks", seed: int, suite: "Suite", out: Path) -> Cell:
    assert masks.truth, "only asked for where there is a truth"
    made, truth = folder(out, masks.name, seed), suite.data[masks.truth]
    arguments = [
        "masks",
        "evaluate",
        str(made),
        str(truth),
        "--images",
        str(suite.data[masks.data]),
    ]
    arguments += ["--maps", str(_maps(made)), "--out", str(out), "--seed", str(seed)]
    return Cell(
        "masks",
        "mask-quality",
        masks.truth,
        masks.name,
        seed,
        (),
        tuple(arguments),
        (truth,),
        needs=(f"{masks.name} seed {seed}",),
        path=made,
        gpus="none",
    )


def _gpus(method: str) -> Gpus:
    """One for the network of `deep`; the others compute on the CPU."""
    return "one" if method == "deep" else "none"


def _maps(target: Path) -> Path:
    return target.with_name(f"{target.name}-maps")

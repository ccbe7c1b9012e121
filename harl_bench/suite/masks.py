"""The mask steps of a suite: makers are fitted, masks are made and compared with ground truth."""

from pathlib import Path

from harl_bench.core.masks import manifest_name
from harl_bench.masks.fit_run import SUFFIXES
from harl_bench.suite.command import Command, Gpus, options
from harl_bench.suite.config import RANDOM, Fitting, Masks, Suite

GPUS: dict[str, Gpus] = {"drfi-lite": "none", "ellipse": "none", "drfi": "none", "deep": "one"}


def commands(suite: Suite, out: Path) -> list[Command]:
    """Return all fits, then each set of masks and its evaluation, seed by seed."""
    steps = [_fit(fitting, seed, suite, out) for seed in suite.seeds for fitting in suite.fit]
    for seed in suite.seeds:
        for masks in suite.masks:
            if masks.model is None and seed != suite.seeds[0]:
                continue  # nothing is drawn: every seed would give the same masks
            steps.append(_make(masks, seed, suite, out))
            if masks.truth:
                steps.append(_evaluate(masks, masks.truth, seed, suite, out))
    return steps


def folder(out: Path, name: str, seed: int) -> Path:
    """Return the folder of the masks of that name."""
    return out / "mask-making" / f"seed{seed}" / name


def _fit(fitting: Fitting, seed: int, suite: Suite, out: Path) -> Command:
    method, checkpoint = fitting.method, fitting.checkpoint
    images, masks = suite.data[fitting.data], suite.data[fitting.masks] if fitting.masks else None
    model = folder(out, f"{fitting.name}{SUFFIXES[method]}", seed)
    settings = {
        "--method": method,
        "--out": model,
        "--masks": masks,
        "--checkpoint": checkpoint or None,
    }
    return Command(
        "masks fit",
        method,
        fitting.data,
        fitting.name,
        seed,
        tuple(fitting.overrides),
        ("masks", "fit", str(images), *fitting.overrides, *options(settings | {"--seed": seed})),
        (images, masks) if masks else (images,),
        makes=f"{fitting.name} seed {seed}",
        path=Path(checkpoint) if checkpoint and checkpoint != RANDOM else None,
        folder=model.parent,
        outputs=(model, model.with_name(f"{model.name}.json")),
        gpus=GPUS[method],
    )


def _make(masks: Masks, seed: int, suite: Suite, out: Path) -> Command:
    images, target, method = suite.data[masks.data], folder(out, masks.name, seed), masks.method
    settings = {
        "--out": target,
        "--method": method,
        "--model": folder(out, f"{masks.model}{SUFFIXES[method]}", seed) if masks.model else None,
        "--threshold": masks.threshold or None,
        "--save-maps": _maps(target) if masks.truth else None,
    }
    return Command(
        "masks make",
        method + (f" threshold {masks.threshold}" if masks.threshold else ""),
        masks.data,
        masks.name,
        seed,
        tuple(masks.overrides),
        ("masks", "make", str(images), *masks.overrides, *options(settings)),
        (images,),
        makes=f"{masks.name} seed {seed}",
        needs=(f"{masks.model} seed {seed}",) if masks.model else (),
        folder=target,
        outputs=(target / "preview.png", target / manifest_name()),
        gpus=GPUS[method],
    )


def _evaluate(masks: Masks, truth: str, seed: int, suite: Suite, out: Path) -> Command:
    target = folder(out, masks.name, seed)
    settings = {
        "--images": suite.data[masks.data],
        "--maps": _maps(target),
        "--out": out,
        "--seed": seed,
    }
    return Command(
        "masks",
        "mask-quality",
        truth,
        masks.name,
        seed,
        (),
        ("masks", "evaluate", str(target), str(suite.data[truth]), *options(settings)),
        (suite.data[truth],),
        needs=(f"{masks.name} seed {seed}",),
        path=target,
        gpus="none",
    )


def _maps(target: Path) -> Path:
    return target.with_name(f"{target.name}-maps")

"""`harl-bench masks fit`: the command."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from harl_bench.core.errors import UsageError
from harl_bench.core.options import HARDWARE, PROTOCOL, Device, DryRun, offering
from harl_bench.core.progress import announce, console, log

PARAMETERS = {"drfi": "harl_bench.masks.drfi:Fit", "deep": "harl_bench.masks.deep:Fit"}
SUFFIXES = {"drfi": ".npz", "deep": ".safetensors"}


def fit(
    images: Path,
    *overrides: str,
    out: Path,
    method: Annotated[str, Parameter(group=PROTOCOL), offering(lambda: PARAMETERS)] = "deep",
    masks: Annotated[Path | None, Parameter(group=PROTOCOL)] = None,
    pseudo: Annotated[str | None, Parameter(group=PROTOCOL)] = None,
    checkpoint: Annotated[str | None, Parameter(group=PROTOCOL)] = None,
    seed: Annotated[int, Parameter(group=PROTOCOL, validator=Number(gte=0))] = 0,
    limit: Annotated[int | None, Parameter(group=PROTOCOL)] = None,
    device: Device = "auto",
    workers: Annotated[int | None, Parameter(group=HARDWARE, validator=Number(gte=0))] = None,
    dry_run: DryRun = False,
) -> None:
    """Train a mask maker: a head on a ResNet-50 (deep) or DRFI's random forest (drfi).

    The file goes into `harl-bench masks make --method deep|drfi --model FILE`. FILE.json beside it
    says what it was trained on. Without --masks, deep makes pseudo-masks first and keeps them
    beside FILE; drfi learns only from masks.

    Try:

        harl-bench masks fit photos --method deep --checkpoint mocov2.pth --out head.safetensors

        harl-bench masks fit photos --masks photos-truth --method drfi --out forest.npz

    Parameters:
        images: Folder of images, of any depth.
        overrides: Parameters of the fit, key=value, e.g. trees=500 (--dry-run lists them).
        out: File to write: .safetensors (deep) or .npz (drfi).
        method: deep or drfi.
        masks: Folder of masks at the images' relative paths, foreground 255; rejected ones are left
            out.
        pseudo: Maker of pseudo-masks when there are no --masks (deep; default drfi-lite).
        checkpoint: Any ResNet-50 that `harl-bench convert` reads, or random, the floor (deep;
            default random).
        seed: Seed of every random number.
        limit: Use this many images, evenly spread.
        workers: Processes (default: all cores); 0 works in this one.
    """
    from harl_bench.core.files import write_json
    from harl_bench.masks import fit as data

    if method == "deep":
        announce("masks fit: deep on %s; loading torch", images)
    settings = parameters(method, overrides)
    _check(method, out, masks, pseudo, checkpoint, limit)
    names = data.image_names(images, limit)
    source = str(masks) if masks else f"pseudo-masks by {pseudo or 'drfi-lite'}"
    if masks:
        data.pairs_of(images, masks, names)
    text = f"{method} on {len(names):,} images, {source}; {settings.model_dump_json()}"
    console.print(text, markup=False)
    if method == "deep" and checkpoint is None:
        text = "no --checkpoint: the backbone is randomly initialised, which is only the floor"
        log.warning(text)
    folder = out.with_name(f"{out.stem}-pseudo-masks")
    if not masks:
        data.pseudo_work(images, folder, names, pseudo or "drfi-lite")
    if dry_run:
        if method == "deep":
            from harl_bench.convert.read import read_backbone
            from harl_bench.nn import runtime

            runtime.device(device)
            read_backbone(checkpoint or "random", seed=seed)
        return
    count = workers if workers is not None else len(os.sched_getaffinity(0))
    if masks:
        pairs = data.pairs_of(images, masks, names)
    else:
        pairs = data.pseudo_masks(images, folder, names, pseudo or "drfi-lite", count)
    about = _about(method, images, names, len(pairs), masks, pseudo, seed, settings)
    if method == "drfi":
        about |= _fit_drfi(pairs, settings, out, about, seed, count)
    else:
        from harl_bench.masks import deep

        about |= deep.fit(
            pairs, settings, out, about, checkpoint=checkpoint or "random", seed=seed, device=device
        )
    write_json(out.with_name(f"{out.name}.json"), about)
    command = f"harl-bench masks make IMAGES --out MASKS --method {method} --model {out}"
    log.info("wrote %s; next: %s", out, command)


def parameters(method: str, overrides: Iterable[str]) -> Any:
    """Return the parameters of a fit: defaults with "key=value" overrides.

    Raises:
        UsageError: an unknown method or parameter, or a value of the wrong kind.
    """
    import importlib

    from harl_bench.core.config import parse_overrides, validated
    from harl_bench.core.lookup import lookup

    module, _, name = lookup(PARAMETERS, method, "fitted mask maker").partition(":")
    model = getattr(importlib.import_module(module), name)
    return validated(model, parse_overrides(overrides), source=f"masks fit --method {method}")


def _check(
    method: str,
    out: Path,
    masks: Path | None,
    pseudo: str | None,
    checkpoint: str | None,
    limit: int | None,
) -> None:
    if out.suffix != SUFFIXES[method]:
        raise UsageError(f"{method} is stored as {SUFFIXES[method]}", where="--out", seen=out.name)
    if limit is not None and limit < 1:
        raise UsageError("a limit is at least 1", where="--limit", seen=limit)
    if masks and pseudo:
        hint = "leave one of them out"
        raise UsageError("either masks or pseudo-masks", where="--masks and --pseudo", next=hint)
    if method == "drfi" and not masks:
        raise UsageError(
            "drfi learns from masks",
            where="--masks",
            seen=pseudo and f"--pseudo {pseudo}",
            next="give --masks, or use harl-bench masks make --method drfi-lite, which needs none",
        )
    if method == "drfi" and checkpoint is not None:
        raise UsageError(
            "drfi has no network", where="--checkpoint", seen=checkpoint, next="--method deep"
        )


def _about(
    method: str,
    images: Path,
    names: list[Path],
    used: int,
    masks: Path | None,
    pseudo: str | None,
    seed: int,
    parameters: Any,
) -> dict[str, Any]:
    from harl_bench.core import manifest

    return {
        "method": method,
        "parameters": parameters.model_dump(mode="json"),
        "seed": seed,
        "images": images.name,
        "masks": masks.name if masks else None,
        "pseudo": None if masks else pseudo or "drfi-lite",
        "pictures": used,
        "rejected": len(names) - used,
        "data_fingerprint": manifest.fingerprint(images, names),
        "manifest": manifest.collect(),
    }


def _fit_drfi(
    pairs: list[tuple[Path, Path]],
    parameters: Any,
    out: Path,
    about: dict[str, Any],
    seed: int,
    workers: int,
) -> dict[str, Any]:
    from harl_bench.masks import drfi, forest

    fitted, counts = drfi.fit(pairs, parameters, seed=seed, workers=workers)
    fields = set(drfi.Segmentation.model_fields)
    more = {**counts, "segmentation": parameters.model_dump(mode="json", include=fields)}
    forest.save(out, fitted, {**about, **more})
    return more

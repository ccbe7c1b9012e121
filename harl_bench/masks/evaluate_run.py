"""The command `harl-bench masks evaluate`."""

import time
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from harl_bench.core.errors import DataError
from harl_bench.core.masks import manifests_in
from harl_bench.core.options import COMMON
from harl_bench.core.progress import console, log

SHEETS = ("preview.png", "quality.png")  # images of these commands that are no masks
Rows = dict[str, dict[str, float]]
Curves = dict[str, Any]  # of [256] arrays
HEADINGS = {
    "foreground_iou": "fg IoU",
    "mean_iou": "mean IoU",
    "precision": "prec.",
    "recall": "recall",
    "f_beta": "F",
    "mae": "MAE",
    "s_measure": "S",
    "max_f": "max F",
}
SHOWN = 6  # of the best images on the sheet, and of the worst


def evaluate(
    masks: Path,
    truth: Path,
    /,
    *,
    maps: Annotated[
        Path | None, Parameter(group=COMMON, help="Saliency maps, for max-F, S-measure and MAE.")
    ] = None,
    images: Annotated[
        Path | None, Parameter(group=COMMON, help="The images, for a sheet of best and worst.")
    ] = None,
    sheet: Annotated[
        Path | None,
        Parameter(
            group=COMMON,
            help="Default: quality.png in MASKS (in the run's pictures/ with --out), with "
            "--images.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        Parameter(group=COMMON, help="Folder of all runs: keep a result for the report."),
    ] = None,
    seed: Annotated[
        int, Parameter(group=COMMON, validator=Number(gte=0), help="The maker's, with --out.")
    ] = 0,
    json: Annotated[bool, Parameter(group=COMMON, help="Print JSON instead of a table.")] = False,
) -> None:
    """Score foreground masks against ground truth: every truth needs its mask, at the same relative
    path.

    Try:

        harl-bench masks evaluate photos-masks photos-truth

        harl-bench masks evaluate photos-masks photos-truth --json --images photos

    Precision, recall, F and IoU are of the masks; max-F (best of 256 thresholds), S-measure and MAE
    are of the maps that `masks make --save-maps` wrote, and without --maps of the masks themselves.

    Args:
        masks: Folder that `harl-bench masks make` wrote.
        truth: Folder of ground-truth masks, foreground 255.

    Raises:
        DataError: a folder is missing or empty, masks are missing, or sizes differ.
    """
    began = time.monotonic()
    if manifests_in(truth) and not manifests_in(masks):
        log.warning(
            "%s was made by `masks make`, %s was not: MASKS comes first, TRUTH second", truth, masks
        )
    rows, curves = measure(masks, truth, maps)
    summary = summarise(rows, curves)
    if json:
        import json as format_

        console.print_json(format_.dumps(summary | {"pictures": rows}))
    else:
        _print(summary)
    run = None
    if out is not None:
        from harl_bench.masks import record

        run, about = record.open_masks(out, masks, truth, list(rows), seed)
    if images is not None:
        from harl_bench.core.files import replacing

        target = sheet or (run.images if run else masks) / "quality.png"
        image = _sheet(rows, masks, truth, images)
        with replacing(target) as temporary:
            image.save(temporary, format="PNG")
        log.info("wrote %s", target)
    if run:
        record.keep(run, about, summary, began)
        log.info("wrote %s", run.folder)


def measure(masks: Path, truth: Path, maps: Path | None = None) -> tuple[Rows, Curves]:
    """Return the scores and the F curve of each image, by the truth's relative path.

    Raises:
        DataError: masks or maps are missing, unreadable, or of another size than the truth.
    """
    import numpy as np

    from harl_bench.core.images import find_images, read_mask
    from harl_bench.core.masks import MASK
    from harl_bench.core.progress import track
    from harl_bench.masks import quality

    names = [name for name in find_images(truth) if name.as_posix() not in SHEETS]
    stems = {name.with_suffix("").as_posix() for name in names}
    # beside x_mask.png, x.jpg is the image
    names = [name for name in names if name.with_suffix("").as_posix() + MASK not in stems]
    advice = "name them like the truth's, or: harl-bench masks make IMAGES --out MASKS"
    mask_of = partners(names, masks, "masks", advice)
    map_of = {}
    if maps is not None:
        advice = "harl-bench masks make IMAGES --out MASKS --save-maps MAPS"
        map_of = partners(names, maps, "maps", advice)
    rows, curves = {}, {}
    for name in track(names, "masks evaluate"):
        image = read_mask(truth / name)
        foreground = np.asarray(image) > 0
        mask = np.asarray(read_mask(mask_of[name], image.size)) > 0
        saliency = _map(map_of[name], image.size) if map_of else mask.astype(np.float64)
        rows[name.as_posix()] = quality.scores(mask, foreground, saliency)
        curves[name.as_posix()] = quality.f_curve(saliency, foreground)
    return rows, curves


def summarise(rows: Rows, curves: Curves) -> dict[str, Any]:
    """Return the means over all images, and over each class folder where there are several."""
    from harl_bench.masks import quality

    folders: dict[str, list[str]] = {}
    for name in rows:
        folders.setdefault(Path(name).parent.as_posix(), []).append(name)
    means = {
        folder: quality.mean([rows[name] for name in names], [curves[name] for name in names])
        for folder, names in sorted(folders.items())
    }
    overall = quality.mean(rows.values(), curves.values())
    return {"n": len(rows), "overall": overall, "per_class": means if len(means) > 1 else {}}


def partners(names: list[Path], folder: Path, what: str, next: str) -> dict[Path, Path]:
    """Return the file in `folder` of each of the relative `names`, by `core.images.mask_of`.

    Raises:
        DataError: the folder is missing or empty, or some have none.
    """
    from harl_bench.core.images import find_images
    from harl_bench.core.masks import pair_masks

    files = [name.as_posix() for name in find_images(folder) if name.as_posix() not in SHEETS]
    matches = pair_masks([image_name(name) for name in names], files, folder)
    missing = [name for name in names if image_name(name) not in matches]
    if missing:
        text = f"{len(missing)} of {len(names)} {what} are missing"
        example = files[0] if files else "nothing"
        seen = f"none for {missing[0]}; files there are named like {example}"
        raise DataError(text, where=folder, seen=seen, next=next)
    return {name: folder / matches[image_name(name)] for name in names}


def image_name(truth: Path) -> str:
    """Return the image's path without suffix: x for the truth x.png and for x_mask.png."""
    from harl_bench.core.masks import MASK

    return truth.with_suffix("").as_posix().removesuffix(MASK)


def _map(path: Path, size: tuple[int, int]) -> Any:
    """Read a saliency map [H, W] in 0..1 of `size` (width, height)."""
    import numpy as np

    from harl_bench.core.images import read_rgb

    image = read_rgb(path)
    if image.size != size:
        seen = f"map {image.width} x {image.height}, truth {size[0]} x {size[1]}"
        hint = "scale the maps to their images"
        raise DataError("map and truth differ in size", where=path, seen=seen, next=hint)
    return np.asarray(image, np.float64).mean(axis=2) / 255


def _print(summary: dict[str, Any]) -> None:
    from rich.table import Table

    names = list(summary["overall"])
    title = f"Masks against truth, {summary['n']:,} images, percent"
    table = Table(title=title, title_justify="left")
    table.add_column("folder", overflow="fold")
    for name in names:
        table.add_column(HEADINGS[name], justify="right", no_wrap=True)
    for folder, row in {**summary["per_class"], "all": summary["overall"]}.items():
        table.add_row(folder, *(f"{row[name]:.1f}" for name in names))
    console.print(table)


def _sheet(rows: Rows, masks: Path, truth: Path, images: Path) -> Any:
    import numpy as np

    from harl_bench.core.images import find_images, read_mask, read_rgb
    from harl_bench.core.masks import masks_by_stem
    from harl_bench.masks import preview

    by_stem = masks_by_stem(name.as_posix() for name in find_images(images))
    advice = "harl-bench masks make IMAGES --out MASKS"
    mask_of = partners([Path(name) for name in rows], masks, "masks", advice)
    ranked = sorted(rows, key=lambda name: -rows[name]["foreground_iou"])
    cards = []
    for name in dict.fromkeys([*ranked[:SHOWN], *ranked[-SHOWN:]]):
        path = by_stem.get(image_name(Path(name)))
        if path is None:
            hint = "give the folder the masks were made from"
            raise DataError("a mask has no image", where=images, seen=name, next=hint)
        image = read_rgb(images / path)
        mask, foreground = (
            np.asarray(read_mask(file, image.size)) > 0
            for file in (mask_of[Path(name)], truth / name)
        )
        note = f"foreground IoU {rows[name]['foreground_iou']:.0f} %"
        cards.append(preview.Card(np.asarray(image), mask, name, note, truth=foreground))
    return preview.grid(cards, "Masks, best and worst", "orange: made, blue: truth", columns=3)

"""The command `harl-bench masks evaluate`."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from harl_bench.core.errors import DataError
from harl_bench.core.options import COMMON
from harl_bench.core.progress import console, log

SHEETS = ("preview.png", "quality.png")  # what the commands here leave beside masks
SHOWN = 6  # best and worst pictures on the sheet, each


def evaluate(
    masks: Path,
    truth: Path,
    /,
    *,
    images: Annotated[Path | None, Parameter(group=COMMON, help="The pictures, for a sheet of best and worst.")] = None,
    sheet: Annotated[Path | None, Parameter(group=COMMON, help="Default: MASKS/quality.png, with --images.")] = None,
    json: Annotated[bool, Parameter(group=COMMON, help="Print JSON instead of a table.")] = False,
) -> None:
    """Score foreground masks against ground truth: every truth needs its mask, at the same relative path.

    Try:

        harl-bench masks evaluate photos-masks photos-truth

        harl-bench masks evaluate photos-masks photos-truth --json --images photos

    Args:
        masks: Folder that `harl-bench masks make` wrote.
        truth: Folder of ground-truth masks, foreground 255.

    Raises:
        DataError: a folder is missing or empty, masks are missing, or sizes differ.
    """
    rows = measure(masks, truth)
    summary = summarise(rows)
    if json:
        import json as format_

        console.print_json(format_.dumps(summary | {"pictures": rows}))
    else:
        _print(summary)
    if images is not None:
        from harl_bench.core.results import replacing

        target = sheet or masks / "quality.png"
        picture = _sheet(rows, masks, truth, images)
        with replacing(target) as temporary:
            picture.save(temporary, format="PNG")
        log.info("wrote %s", target)


def measure(masks: Path, truth: Path) -> dict[str, dict[str, float]]:
    """Scores per picture, by the truth's relative path."""
    import numpy as np

    from harl_bench.core.pictures import find_pictures, read_mask
    from harl_bench.core.progress import track
    from harl_bench.masks import quality

    names = [name for name in find_pictures(truth) if name.as_posix() not in SHEETS]
    there = {name.with_suffix("") for name in find_pictures(masks)}
    missing = [name for name in names if name.with_suffix("") not in there]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(names)} masks are missing", where=masks, seen=f"none for {missing[0]}",
            next="harl-bench masks make IMAGES --out MASKS, then this command again",
        )  # fmt: skip
    rows = {}
    for name in track(names, "masks evaluate"):
        true = read_mask(truth / name)
        made = read_mask(masks / name.with_suffix(".png"), true.size)
        rows[name.as_posix()] = quality.scores(np.asarray(made) > 0, np.asarray(true) > 0)
    return rows


def summarise(rows: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Means over all pictures, and per class folder where there are several."""
    from harl_bench.masks import quality

    folders = sorted({Path(name).parent.as_posix() for name in rows})
    per_class = {
        folder: quality.mean(row for name, row in rows.items() if Path(name).parent.as_posix() == folder)
        for folder in folders
    }
    return {"n": len(rows), "overall": quality.mean(rows.values()), "per_class": per_class if len(folders) > 1 else {}}


def _print(summary: dict[str, Any]) -> None:
    from rich.table import Table

    names = list(summary["overall"])
    table = Table(title=f"Masks against truth, {summary['n']:,} pictures, percent", title_justify="left")
    table.add_column("folder")
    for name in names:
        table.add_column(name, justify="right")
    for folder, row in {**summary["per_class"], "all": summary["overall"]}.items():
        table.add_row(folder, *(f"{row[name]:.1f}" for name in names))
    console.print(table)


def _sheet(rows: dict[str, dict[str, float]], masks: Path, truth: Path, images: Path) -> Any:
    import numpy as np

    from harl_bench.core.pictures import find_pictures, read_mask, read_rgb
    from harl_bench.masks import preview

    by_stem = {name.with_suffix(""): name for name in find_pictures(images)}
    ranked = sorted(rows, key=lambda name: -rows[name]["foreground_iou"])
    cards = []
    for name in dict.fromkeys([*ranked[:SHOWN], *ranked[-SHOWN:]]):
        path = by_stem.get(Path(name).with_suffix(""))
        if path is None:
            raise DataError(
                "a mask has no picture", where=images, seen=name, next="give the folder the masks were made from"
            )
        picture = np.asarray(read_rgb(images / path))
        made, true = (
            np.asarray(read_mask(file, (picture.shape[1], picture.shape[0]))) > 0
            for file in ((masks / name).with_suffix(".png"), truth / name)
        )
        note = f"foreground IoU {rows[name]['foreground_iou']:.0f} %"
        cards.append(preview.Card(picture, made, name, note, truth=true))
    return preview.grid(cards, "Masks, best and worst", "orange: made, blue: truth", columns=3)

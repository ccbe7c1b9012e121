"""`harl-bench masks make`: the command."""

import os
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from harl_bench.core.errors import UsageError
from harl_bench.core.masks import manifest_name, mask_path
from harl_bench.core.options import HARDWARE, PROTOCOL, DryRun, Fresh, offering
from harl_bench.core.progress import announce, console, log

PREVIEW = 12


def _makers() -> list[str]:
    from harl_bench.masks import makers

    return list(makers.MAKERS)


def make(
    images: Path,
    *overrides: str,
    out: Path,
    method: Annotated[str, Parameter(group=PROTOCOL), offering(_makers)] = "drfi-lite",
    model: Annotated[Path | None, Parameter(group=PROTOCOL)] = None,
    maps: Annotated[Path | None, Parameter(group=PROTOCOL)] = None,
    threshold: Annotated[str | None, Parameter(group=PROTOCOL)] = None,
    save_maps: Path | None = None,
    tar: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    preview: Annotated[int, Parameter(validator=Number(gte=0))] = PREVIEW,
    shard: str | None = None,
    workers: Annotated[int | None, Parameter(group=HARDWARE, validator=Number(gte=0))] = None,
    allow_unreadable: Annotated[bool, Parameter(negative="")] = False,
    dry_run: DryRun = False,
    fresh: Fresh = False,
) -> None:
    """Make a foreground mask for every image of a folder: 8-bit PNG, same relative path, 0 and 255.

    The same command again continues where it stopped and skips what is finished. Beside the
    masks: manifest.csv, preview.png, and unreadable.txt when images had to be skipped.

    Try:

        harl-bench masks make photos --out photos-masks --method drfi-lite

        harl-bench masks make photos --out photos-masks --method drfi --model forest.npz --shard 0/8

    Parameters:
        images: Folder of images, of any depth.
        overrides: Parameters of the method, key=value, e.g. work_px=100000 (--dry-run lists them).
        out: Folder of the masks.
        method: drfi-lite, drfi, deep, external, or ellipse (the same in every image, a control).
        model: File that `masks fit` wrote (drfi, deep).
        maps: Folder of saliency images (external).
        threshold: A number in 0..1, otsu or 2xmean (default: otsu for drfi-lite, 0.5 otherwise).
        save_maps: Folder for the saliency maps the masks come from, as grey images (masks evaluate
            --maps).
        tar: Pack this many masks into each .tar file instead of single files.
        preview: Images on preview.png; 0 for none.
        shard: i/n, this command makes the i-th of n parts (0-based), beside others in the same
            folder.
        workers: Processes (default: all cores); 0 works in this one.
        allow_unreadable: Continue when more than 1 % of the images cannot be read.
    """
    from harl_bench.masks import make, makers, manifests, work

    part = parse_shard(shard)
    if part and fresh:
        raise UsageError(
            "--fresh would throw away what the other shards made",
            where="--shard",
            next="choose another --out, or remove the folder once, before any shard starts",
        )
    if method == "deep":
        announce("masks make: %s by deep; loading torch", images)
    values = {"model": model, "maps": maps}
    present = {key: value for key, value in values.items() if value is not None}
    maker = makers.method_of(method, overrides, **present)
    level = makers.threshold_of(method, threshold)
    job = work.Job(images, out, method, maker, level, packed=tar > 0, maps=save_maps)
    _check_folders(images, out, save_maps)
    paths = work.find_work(images, out, part, max(1, tar))
    if fresh:
        work.refuse_strangers(job, paths)
    if fresh and not dry_run and out.exists():
        work.clear(out, manifests.read(out))
    done = {} if fresh else work.finished(job, paths, tar)
    maker.maker()  # a model that cannot be read fails here, before there is a pool
    console.print(
        f"{len(paths):,} images, {len(done):,} finished; {method} {job.parameters}; {job.engine}"
    )
    if dry_run:
        return
    count = workers if workers is not None else len(os.sched_getaffinity(0))
    outcome = make.make_masks(
        job, paths, done, manifest=out / manifest_name(part), workers=count, tar=tar
    )
    manifests.write(
        out / manifest_name(part),
        (outcome.rows[p.as_posix()] for p in paths if p.as_posix() in outcome.rows),
    )
    suffix = f"-{part[0]}of{part[1]}" if part else ""
    if preview and outcome.rows:
        _write_preview(job, outcome, out / f"preview{suffix}.png", preview)
    _summarise(outcome, out)
    make.check_unreadable(outcome, len(paths), out, f"unreadable{suffix}.txt", allow_unreadable)


def _check_folders(images: Path, out: Path, maps: Path | None) -> None:
    """Refuse maps in the folder of images or masks, whose files have the same names."""
    for other, name in ((images, "IMAGES"), (out, "--out")):
        if maps is not None and maps.resolve() == other.resolve():
            raise UsageError(
                f"maps would replace the files of {name}", where="--save-maps", seen=maps
            )


def parse_shard(text: str | None) -> tuple[int, int] | None:
    """Return `i/n` as (i, n).

    Raises:
        UsageError: another form, or i outside 0..n-1.
    """
    if text is None:
        return None
    index, _, shards = text.partition("/")
    if index.isdecimal() and shards.isdecimal() and int(index) < int(shards):
        return int(index), int(shards)
    raise UsageError("a shard is i/n with i from 0 to n-1", where="--shard", seen=text)


def _write_preview(job: Any, outcome: Any, path: Path, count: int) -> None:
    import cv2
    import numpy as np

    from harl_bench.core.files import replacing
    from harl_bench.core.images import read_mask, read_rgb
    from harl_bench.masks import make, preview

    cards = []
    maker = job.method.maker() if job.packed else None  # masks inside .tar files are made again
    for relative in preview.spread([Path(name) for name in sorted(outcome.rows)], count):
        row = outcome.rows[relative.as_posix()]
        image = read_rgb(job.root / relative)
        if maker:
            _, png = make.mask_one(job, maker, relative)
            mask = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE)
        else:
            mask = read_mask(job.out / mask_path(relative), image.size)
        note = "rejected: no mask, whole image only"
        if row.valid:
            note = f"foreground {row.foreground:.0%}"
        note = f"{note}, {row.width} x {row.height}"
        cards.append(preview.Card(np.asarray(image), np.asarray(mask) > 0, row.path, note))
    sheet = preview.grid(
        cards, f"Masks by {job.name}", f"{len(outcome.rows):,} images, threshold {job.threshold}"
    )
    with replacing(path) as temporary:
        sheet.save(temporary)


def _summarise(outcome: Any, out: Path) -> None:
    rows = outcome.rows.values()
    rejected = sum(not row.valid for row in rows)
    mean = sum(row.foreground for row in rows if row.valid) / max(1, len(rows) - rejected)
    log.info(
        "%d masks in %s (%d new), mean foreground %.0f %%", len(rows), out, outcome.made, 100 * mean
    )
    if rejected:
        log.info(
            "%d rejected: foreground below 1 %% or above 99 %%; all-zero mask, valid=0 in the "
            "manifest",
            rejected,
        )
    for name, cause in sorted(outcome.unreadable.items())[:10]:
        log.warning("skipped %s: %s", name, cause)
    if len(outcome.unreadable) > 10:
        log.warning("... and %d more", len(outcome.unreadable) - 10)

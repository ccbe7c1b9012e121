"""Birdsnap 1.1: `birdsnap/{images.txt, species.txt, test_images.txt, download/images/<species>/}`.

The archive brings the lists; its script fetches the images from their links, of which many are
dead. What is there is measured, and the result says how much is missing.
"""

from functools import partial
from pathlib import Path

from harl_bench.classify.datasets.dataset import DataSet, home, lines, listed
from harl_bench.classify.datasets.published import PUBLISHED
from harl_bench.classify.splits import proportional
from harl_bench.core.errors import DataError


def birdsnap(root: Path) -> DataSet:
    """Read the images that are there, with 4,981 of 47,386 training images held out, by class size.

    Labels are the species' ids, from 0.

    paper: as many images of a species as its test has are held out, 4,981 (BYOL); here: the same
    fraction of each species; because the test has 2,443, and 4,981 is the published count.

    Raises:
        DataError: a list lacks a column or an entry, no test image is there, or a species has no
            image to train on.
    """
    base = home("birdsnap", root, ("birdsnap", "."), "test_images.txt")
    place = PUBLISHED["birdsnap"].place
    species = {row["id"]: row["common"] for row in _table(base / "species.txt", "id", "common")}
    if odd := [id_ for id_ in species if not id_.isdecimal()]:
        what = "a species without a number"
        raise DataError(what, where=base / "species.txt", seen=odd[0], next=place)
    number = {id_: label for label, id_ in enumerate(sorted(species, key=int))}
    tested = {row["path"] for row in _table(base / "test_images.txt", "path")}
    rows = _table(base / "images.txt", "path", "species_id")
    if unknown := tested - {row["path"] for row in rows}:  # under another name it is trained on
        what = "a test image is not in images.txt"
        raise DataError(what, where=base, seen=min(unknown), next=place)
    images = []
    for row in rows:
        path, id_ = row["path"], row["species_id"]
        if id_ not in number:
            raise DataError("an image of no species", where=base / "images.txt", seen=path)
        split = "test" if path in tested else "train"
        images.append((f"download/images/{path}", number[id_], split))
    published = PUBLISHED["birdsnap"]
    hold_out = partial(proportional, held=published.val, of=published.train)
    classes = [species[id_] for id_ in number]
    return listed("birdsnap", base, classes, images, hold_out, incomplete=True)


def _table(path: Path, *columns: str) -> list[dict[str, str]]:
    """Return the rows of a tab-separated file whose first line names the columns."""
    header, *rows = [line.split("\t") for line in lines(path)]
    if not set(columns) <= set(header):
        what = f"no tab-separated columns {', '.join(columns)}"
        seen = ", ".join(header[:8])
        raise DataError(what, where=path, seen=seen, next=PUBLISHED["birdsnap"].place)
    least = 1 + max(map(header.index, columns))
    if short := [row for row in rows if len(row) < least]:
        what, place = f"a line has fewer than {least} fields", PUBLISHED["birdsnap"].place
        raise DataError(what, where=path, seen=" ".join(short[0]), next=place)
    return [dict(zip(header, row, strict=False)) for row in rows]

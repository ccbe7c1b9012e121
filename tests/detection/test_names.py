"""Names of test sets: a published name is only a published set's."""

from dataclasses import replace
from pathlib import Path

import pytest

from harl_bench.detection import names
from harl_bench.detection.datasets import voc
from harl_bench.detection.datasets.sample import Dataset, Samples, Truth


def named(name: str, *classes: str) -> Dataset:
    truth = Truth((), (), (), b"{}") if name.startswith("coco") else None
    return Dataset(name, Path(), classes or voc.CLASS_NAMES, Samples([]), [], truth=truth)


@pytest.mark.parametrize(
    ("test", "recorded", "known"),
    [
        (named("voc_2007_test"), "voc07+12", {"voc07+12"}),
        (named("voc_2007_val"), "voc_2007_val", {"voc_2007_val", "voc07+12"}),
        (named("voc_2007_test", "bolt", "nut"), "voc_2007_test", {"voc_2007_test", "voc07+12"}),
        # what counted as voc07+12 was scored by 11 points
        (named("voc_2012_val"), "voc_2012_val", {"voc_2012_val"}),
        (named("coco_2017_val"), "coco", {"coco"}),
        (named("coco_2017_val", "bolt"), "coco", {"coco"}),
        (named("coco_2017_val_100"), "coco_2017_val_100", {"coco_2017_val_100", "coco"}),
    ],
)
def test_names(test: Dataset, recorded: str, known: set[str]) -> None:
    assert names.result_name(test) == recorded
    assert set(names.result_names(test)) == known


PARTIAL = "voc_2007_test has 1 images, the published 4,952"


@pytest.mark.parametrize(
    ("part", "count", "departures"),
    [
        (named("voc_2007_test"), 1, (PARTIAL,)),
        (named("voc_2007_test"), 4_952, ()),
        (named("voc_2007_test", "bolt", "nut"), 1, ()),
        (named("coco_2017_val_100"), 1, ()),
        (named("cityscapes_fine_instance_seg_val"), 500, ()),
    ],
)
def test_departures(part: Dataset, count: int, departures: tuple[str, ...]) -> None:
    assert names.departures(replace(part, samples=Samples([None] * count))) == departures

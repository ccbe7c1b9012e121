"""Names of test sets: a published name is only a published set's."""

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

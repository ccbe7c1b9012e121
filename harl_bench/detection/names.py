"""Names of test sets in results and in the folders of runs, and the sizes of published splits."""

from harl_bench.core import cityscapes as cityscapes_layout
from harl_bench.detection.datasets import cityscapes, voc
from harl_bench.detection.datasets.sample import Dataset

# Names of the published tables. COCO's minival has the images of val2017.
PUBLISHED = {
    "voc_2007_test": "voc07+12",
    "coco_2017_val": "coco",
    "coco_2014_minival": "coco",
    "cityscapes_fine_instance_seg_val": "cityscapes",
}
# Images of each split: host.robots.ox.ac.uk/pascal/VOC (2007 and 2012 statistics),
# cocodataset.org/#download, and Detectron2's lists of 2014.
IMAGES = {
    "voc_2007_trainval": 5_011,
    "voc_2007_test": 4_952,
    "voc_2012_trainval": 11_540,
    "coco_2014_train": 82_783,
    "coco_2014_minival": 5_000,
    "coco_2014_valminusminival": 35_504,
    "coco_2017_train": 118_287,
    "coco_2017_val": 5_000,
    **{name: cityscapes_layout.PUBLISHED[split] for name, split in cityscapes.SPLITS.items()},
}
EARLIER = {"voc": "voc07+12", "coco": "coco"}


def result_name(test: Dataset) -> str:
    """Return the published name of a published test set, else its own."""
    return test.name if _has_own_classes(test) else PUBLISHED.get(test.name, test.name)


def result_names(test: Dataset) -> list[str]:
    """Return the names under which a finished run counts: the recorded one, and that of 0.1.0.

    VOC's other years have no earlier name: they were scored with VOC2007's metric then.
    """
    task, year, _ = test.name.split("_", 2)
    rescored = task == "voc" and year != "2007"
    earlier = [EARLIER[task]] if task in EARLIER and not rescored else []
    return list(dict.fromkeys([result_name(test), *earlier]))


def departures(part: Dataset) -> tuple[str, ...]:
    """Return how a split's number of images departs from the published one; () if it does not."""
    count, published = len(part.samples), IMAGES.get(part.name)
    if published in (None, count) or _has_own_classes(part):
        return ()
    return (f"{part.name} has {count:,} images, the published {published:,}",)


def _has_own_classes(part: Dataset) -> bool:
    return part.name.startswith("voc_") and part.class_names != voc.CLASS_NAMES

"""What a test set is called in results and in the folders of runs."""

from harl_bench.detection.datasets import voc
from harl_bench.detection.datasets.sample import Dataset

# As the published tables call them. COCO's minival has the images of val2017.
PUBLISHED = {"voc_2007_test": "voc07+12", "coco_2017_val": "coco", "coco_2014_minival": "coco"}
EARLIER = {"voc": "voc07+12", "coco": "coco"}


def recorded(test: Dataset) -> str:
    """Return the published name of a published test set, else its own: other years, splits and
    classes.
    """
    own_classes = test.truth is None and test.class_names != voc.CLASS_NAMES
    return test.name if own_classes else PUBLISHED.get(test.name, test.name)


def known(test: Dataset) -> list[str]:
    """Return the names under which a finished run counts: the recorded one, and what 0.1.0 first
    called every set.

    VOC's other years are left out: they were scored with VOC2007's metric then.
    """
    task, year, _ = test.name.split("_", 2)
    return (
        [recorded(test)]
        if (task, year != "2007") == ("voc", True)
        else [recorded(test), EARLIER[task]]
    )

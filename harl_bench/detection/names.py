"""Names of test sets in results and in the folders of runs."""

from harl_bench.detection.datasets import voc
from harl_bench.detection.datasets.sample import Dataset

# Names of the published tables. COCO's minival has the images of val2017.
PUBLISHED = {
    "voc_2007_test": "voc07+12",
    "coco_2017_val": "coco",
    "coco_2014_minival": "coco",
    "cityscapes_fine_instance_seg_val": "cityscapes",
}
EARLIER = {"voc": "voc07+12", "coco": "coco"}


def result_name(test: Dataset) -> str:
    """Return the published name of a published test set, else its own."""
    own_classes = test.name.startswith("voc_") and test.class_names != voc.CLASS_NAMES
    return test.name if own_classes else PUBLISHED.get(test.name, test.name)


def result_names(test: Dataset) -> list[str]:
    """Return the names under which a finished run counts: the recorded one, and that of 0.1.0.

    VOC's other years have no earlier name: they were scored with VOC2007's metric then.
    """
    task, year, _ = test.name.split("_", 2)
    rescored = task == "voc" and year != "2007"
    earlier = [EARLIER[task]] if task in EARLIER and not rescored else []
    return list(dict.fromkeys([result_name(test), *earlier]))

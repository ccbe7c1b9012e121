"""Published numbers from reports/published/*.csv, with their sources and reasons not to compare."""

import csv
import re
from fnmatch import fnmatchcase
from pathlib import Path

from harl_bench.core.errors import DataError
from harl_bench.core.resources import data_dir
from harl_bench.report.collect import Entry
from harl_bench.report.sources import source_of
from harl_bench.report.statistics import Estimate

COMPARABILITY = "comparability.csv"
RECALLED = "(recalled)"  # a source from memory is never printed
CITATIONS = {f"table{i}": f"HARL paper, Table {i}" for i in range(1, 6)} | {
    "text": "HARL paper, text",
    "official_readme": "official HARL README",
}
DATASETS = {"imagenet1k": "imagenet", "flowers102": "flowers"}
TASKS = {
    "voc07+12": "voc",
    "coco": "coco",
    "voc12aug": "segment",
    "cityscapes": "segment",
    "pixel_imagenet": "masks",
}
# (data set, protocol as printed) -> our recipe of the same name; what is not listed keeps its name.
PROTOCOLS = {
    ("imagenet", "linear"): "imagenet-linear",
    ("imagenet", "linear_100ep"): "imagenet-linear",
    ("voc07+12", "faster_rcnn_r50_c4"): "voc-c4-24k",
    ("coco", "mask_rcnn_r50_fpn"): "coco-fpn-unstated",
}
OF_SEVERAL = re.compile(r"(.+)_(k\d+)")  # "knn_k20": one of a protocol's several answers
METRICS = {
    "voc": {"AP_box": "AP", "AP50_box": "AP50", "AP75_box": "AP75"},
    "coco": {"AP_box": "bbox/AP", "AP50_box": "bbox/AP50", "AP75_box": "bbox/AP75"}
    | {"AP_mask": "segm/AP", "AP50_mask": "segm/AP50", "AP75_mask": "segm/AP75"},
    "segment": {"mIoU": "mIoU"},
    "classify": {name: name for name in ("top1", "top5", "mean_per_class", "mAP11", "mAP")},
    "masks": {"mIoU": "foreground_iou"},
}


def read_published(folder: Path | None = None) -> list[Entry]:
    """Read all published results, one Entry for each source, method, data set and protocol.

    Rows that are no results (split sizes, hours, differences) are left out, and so are recalled
    ones.

    Raises:
        DataError: a file lacks a column or holds a value that is no number.
    """
    folder = folder or data_dir("reports") / "published"
    reasons = _rows(folder / COMPARABILITY)
    groups: dict[tuple[str, ...], dict[str, float]] = {}
    for path in sorted(folder.glob("*.csv")):
        if path.name == COMPARABILITY:
            continue
        for line, row in enumerate(_rows(path), start=2):
            if RECALLED in row.get("source", "") or not row.get("method"):
                continue
            try:
                dataset = DATASETS.get(row["dataset"], row["dataset"])
                task = TASKS.get(dataset, "classify")
                metric = METRICS[task].get(row["metric"])
                if metric is None:
                    continue
                table = row.get("table") or path.stem
                citation = row.get("source") or CITATIONS.get(table, table)
                printed = row.get("schedule") or row["protocol"]
                if several := OF_SEVERAL.fullmatch(printed):
                    printed, metric = several[1], f"{several[2]}/{metric}"
                value = float(row["value"]) * (100.0 if task == "masks" else 1.0)
            except (KeyError, ValueError) as error:
                raise DataError(
                    "not a published number", where=f"{path}:{line}", seen=error
                ) from None
            key = table, citation, row["method"], task, dataset, printed
            groups.setdefault(key, {})[metric] = value
    return [_entry(key, scores, reasons) for key, scores in groups.items()]


def _entry(key: tuple[str, ...], scores: dict[str, float], reasons: list[dict[str, str]]) -> Entry:
    table, citation, method, task, dataset, printed = key
    about = {"table": table, "source": citation, "method": method}
    about |= {"dataset": dataset, "protocol": printed}
    matches = [r for r in reasons if all(fnmatchcase(v, r[k] or "*") for k, v in about.items())]
    source = source_of(citation)
    return Entry(
        source="published",
        method=method,
        task=task,
        dataset=dataset,
        protocol=_protocol(task, dataset, printed),
        scores={metric: Estimate((value,)) for metric, value in scores.items()},
        citation=citation,
        url=source.url if source else "",
        table=table,
        reasons=tuple(row["reason"] for row in matches),
    )


def _protocol(task: str, dataset: str, printed: str) -> str:
    if known := PROTOCOLS.get((dataset, printed)):
        return known
    if task in ("voc", "coco") and printed.startswith(("c4", "fpn")):
        name = printed.replace("fpn2fc", "fpn-2fc").replace("fpn4conv1fc", "fpn-4conv1fc")
        return f"{task}-{name}"
    return printed.replace("_", "-")


def _rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))

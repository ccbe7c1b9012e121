"""The known tables: the HARL paper's 1 to 5, BYOL's twelve sets, saliency masking, and the peers'.

A table is a `Spec`: its columns say which numbers it takes, `published` which quoted rows stand
beside ours. To add one, add an entry to TABLES. A run that no table takes gets one of its own
(assembly.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from harl_bench.report.collect import Entry

ADDED = "added"  # `Entry.table` of rows that the user quotes: they stand in every table
HEADLINES = frozenset({"AP", "bbox/AP", "segm/AP", "mIoU", "foreground_iou", "mAP"})
NEIGHBOURS = (10, 20, 100, 200)
KNN = tuple(f"k{k}/top1" for k in NEIGHBOURS)
# What papers score a classification set by, where it is not top-1 (BYOL's Table 10).
OWN = {
    "aircraft": "mean_per_class",
    "voc2007-cls": "mAP11",
    "pets": "mean_per_class",
    "caltech101": "mean_per_class",
    "flowers": "mean_per_class",
}
MEANS = {"top1": "top-1", "mean_per_class": "mean per class", "mAP11": "11-point mAP"}


@dataclass(frozen=True)
class Column:
    """One metric of one task; an empty dataset or protocol takes any."""

    group: str
    heading: str
    task: str
    metric: str
    dataset: str = ""
    protocol: str = ""

    @property
    def slot(self) -> tuple[str, str, str]:
        """Columns of one slot are filled from one entry."""
        return self.task, self.dataset, self.protocol

    @property
    def headline(self) -> bool:
        """True for the metric that papers quote of this data set, and for kNN with each k."""
        neighbours = KNN if "fewshot" not in self.protocol else ()
        return self.metric in (OWN.get(self.dataset, "top1"), *HEADLINES, *neighbours)

    @property
    def spread(self) -> bool:
        """True for a standard deviation, by which no row is best or differs."""
        return self.metric.rpartition("/")[2] == "sd"

    def takes(self, entry: Entry) -> bool:
        """Return whether the entry belongs into this column's slot."""
        return (
            entry.task == self.task
            and self.dataset in ("", entry.dataset)
            and self.protocol in ("", entry.protocol.replace("_", "-"))
        )


@dataclass(frozen=True)
class Spec:
    """The contents of a table."""

    title: str
    columns: tuple[Column, ...]
    short: str = ""  # for links
    published: tuple[str, ...] = ()  # `Entry.table` of the published rows
    # (task, pattern of the protocols that the title stands for)
    expects: tuple[tuple[str, str], ...] = ()
    methods: tuple[str, ...] = ()  # only ours of these methods; () for all
    with_toy: bool = True
    # shown only where one of these data sets was measured; () for any
    needs: tuple[str, ...] = ()
    mean: bool = False  # a last column, the mean of the others, for rows that have them all
    note: str = ""

    def takes(self, entry: Entry) -> bool:
        """Return whether a run of ours belongs here."""
        if self.methods and {entry.method.lower(), entry.label.lower()}.isdisjoint(self.methods):
            return False
        if entry.toy and not self.with_toy:
            return False
        return any(column.takes(entry) for column in self.columns)

    def quotes(self, entry: Entry) -> bool:
        """Return whether a published row belongs here."""
        return entry.table in (ADDED, *self.published) and any(
            c.takes(entry) and c.metric in entry.scores for c in self.columns
        )


SIX = {
    "food101": "Food101",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "sun397": "SUN397",
    "cars": "Cars",
    "dtd": "DTD",
}
TWELVE = {  # in the order of BYOL's Table 3
    "food101": "Food101",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "birdsnap": "Birdsnap",
    "sun397": "SUN397",
    "cars": "Cars",
    "aircraft": "Aircraft",
    "voc2007-cls": "VOC2007",
    "dtd": "DTD",
    "pets": "Pets",
    "caltech101": "Caltech-101",
    "flowers": "Flowers",
}
BEYOND_SIX = tuple(name for name in TWELVE if name not in SIX)
# The test sets of the published tables. Another one (VOC2012's has another metric) gets a table of
# its own.
TESTED = {"voc": "voc07+12", "coco": "coco"}


def _tops(group: str, protocol: str) -> tuple[Column, ...]:
    return tuple(
        Column(group, heading, "classify", metric, "imagenet", protocol)
        for metric, heading in (("top1", "top-1"), ("top5", "top-5"))
    )


def _sets(names: Mapping[str, str], protocol: str, *, named: bool = False) -> tuple[Column, ...]:
    """Return a column for each data set in its own metric, below the metric's name if `named`."""
    metrics = {name: OWN.get(name, "top1") for name in names}
    return tuple(
        Column(
            MEANS[metrics[name]] if named else "",
            heading,
            "classify",
            metrics[name],
            name,
            protocol,
        )
        for name, heading in names.items()
    )


def _aps(task: str, group: str, kind: str = "", protocol: str = "") -> tuple[Column, ...]:
    return tuple(
        Column(group, ap, task, f"{kind}{ap}", TESTED[task], protocol)
        for ap in ("AP50", "AP", "AP75")
    )


def _peers(protocol: str) -> tuple[Column, ...]:
    if protocol.startswith("voc"):
        return _aps("voc", "", protocol=protocol)
    return _aps("coco", "box", "bbox/", protocol) + _aps("coco", "mask", "segm/", protocol)


DETECTION = (
    *_aps("voc", "VOC07+12"),
    *_aps("coco", "COCO box", "bbox/"),
    *_aps("coco", "COCO mask", "segm/"),
)
EXPECTED = (("voc", "voc-c4-24k"), ("coco", "coco-fpn-*-[12]x*"))
LOW_SHOT = (
    "AP is the area under the interpolated precision-recall curve. Published low-shot numbers are "
    "of the cost that is best on the test images (mmselfsup, aggregate_low_shot_svm_stats.py)."
)
SHOTS = "k images with the class, k ="
AFTER_100 = (
    "The published rows are after 100 epochs of pretraining, ours after what the checkpoint's "
    "name says."
)
SEGMENTED = {
    "voc12aug-fcn16s-30k": ("VOC12 aug", "FCN-16s, 30k"),
    "voc12aug-fcn16s-30k-byol": ("VOC12 aug", "FCN-16s, 30k, BYOL's"),
    "voc12aug-fcn-d8-20k": ("VOC12 aug", "FCN-d8, 20k"),
    "cityscapes-fcn16s-90k": ("Cityscapes", "FCN-16s, 90k"),
    "cityscapes-fcn-d8-40k": ("Cityscapes", "FCN-d8, 40k"),
}
PEERS = {
    "voc-c4-24k": "VOC07+12, Faster R-CNN C4, 24k iterations",
    "coco-c4-1x": "COCO, Mask R-CNN C4, 1x",
    "coco-c4-2x": "COCO, Mask R-CNN C4, 2x",
    "coco-fpn-2fc-1x": "COCO, Mask R-CNN FPN (2 fc), 1x",
    "coco-fpn-2fc-2x": "COCO, Mask R-CNN FPN (2 fc), 2x",
    "coco-fpn-4conv1fc-1x": "COCO, Mask R-CNN FPN (4 conv + 1 fc), 1x",
    "coco-fpn-4conv1fc-2x": "COCO, Mask R-CNN FPN (4 conv + 1 fc), 2x",
}
TABLES: dict[str, Spec] = {
    "table1": Spec(
        "ImageNet, linear and semi-supervised (HARL paper, Table 1)",
        _tops("Linear", "imagenet-linear")
        + _tops("1 % of labels", "semi-1pct")
        + _tops("10 % of labels", "semi-10pct"),
        "Table 1",
        ("table1",),
    ),
    "table2-linear": Spec(
        "Transfer to classification, linear, top-1 (HARL paper, Table 2)",
        _sets(SIX, "linear"),
        "Table 2",
        ("table2",),
    ),
    "table2-finetune": Spec(
        "Transfer to classification, fine-tuned, top-1 (HARL paper, Table 2)",
        _sets(SIX, "finetune"),
        "Table 2, fine-tuned",
        ("table2", "byol_own"),
    ),
    **{
        f"twelve-{protocol}": Spec(
            f"Twelve sets, {how}",
            _sets(TWELVE, protocol, named=True),
            published=("transfer12",),
            needs=BEYOND_SIX,
            mean=True,
        )
        for protocol, how in (("linear", "linear"), ("finetune", "fine-tuned"))
    },
    "voc07-svm": Spec(
        "VOC2007 classification, linear SVM, mAP",
        (
            Column("", "all images", "classify", "mAP", "voc2007-cls", "svm"),
            *(
                Column(SHOTS, str(k), "classify", f"k{k}/mAP", "voc2007-cls", "svm-lowshot")
                for k in (1, 2, 4, 8, 16, 32, 64, 96)
            ),
        ),
        "VOC07 SVM",
        ("voc07_svm",),
        note=LOW_SHOT,
    ),
    "imagenet-probes": Spec(
        "ImageNet, linear and nearest neighbors, top-1",
        (
            Column("", "linear", "classify", "top1", "imagenet", "imagenet-linear"),
            *(
                Column("kNN, k =", str(k), "classify", metric, "imagenet", "knn")
                for k, metric in zip(NEIGHBOURS, KNN, strict=True)
            ),
        ),
        "ImageNet, linear and kNN",
        ("imagenet_probe_peers",),
    ),
    "table3": Spec(
        "Transfer to detection and segmentation (HARL paper, Table 3)",
        DETECTION,
        "Table 3",
        ("table3",),
        EXPECTED,
    ),
    "table4": Spec(
        "HARL's losses, ImageNet linear (HARL paper, Table 4)",
        _tops("", "imagenet-linear"),
        "Table 4",
        ("table4", "official_readme"),
        methods=("harl",),
        with_toy=False,
        note=AFTER_100,
    ),
    "table5": Spec(
        "Source of HARL's masks, detection and segmentation (HARL paper, Table 5)",
        DETECTION,
        "Table 5",
        ("table5",),
        EXPECTED,
        methods=("harl",),
        with_toy=False,
        note=AFTER_100,
    ),
    "saliency": Spec(
        "Saliency masking (Chin et al., WACV 2024)",
        (
            Column("Linear top-1", "ImageNet-100", "classify", "top1", "imagenet100", "linear"),
            Column("Linear top-1", "Caltech-101", "classify", "top1", "caltech101", "linear"),
            Column("Linear top-1", "Flowers", "classify", "top1", "flowers", "linear"),
            Column("VOC07+12", "AP", "voc", "AP", TESTED["voc"]),
            Column("COCO", "box AP", "coco", "bbox/AP", TESTED["coco"]),
            Column("COCO", "mask AP", "coco", "segm/AP", TESTED["coco"]),
        ),
        "Saliency masking",
        ("saliency_masking",),
        methods=("saliency_mask", "saliency_crop"),
        with_toy=False,
    ),
}
TABLES["segmentation"] = Spec(
    "Semantic segmentation, mIoU",
    tuple(
        Column(group, heading, "segment", "mIoU", protocol.partition("-")[0], protocol)
        for protocol, (group, heading) in SEGMENTED.items()
    ),
    "Semantic segmentation",
    ("segmentation_peers",),
    with_toy=False,
    note="A column is one protocol, docs/segment.md: their numbers do not compare.",
)
TABLES |= {
    f"peers-{protocol}": Spec(
        f"Peers: {title}", _peers(protocol), published=("detection_peers",), with_toy=False
    )
    for protocol, title in PEERS.items()
}

"""`harl-bench voc`, `coco` and `cityscapes`: fine-tune a detector and score it."""

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from harl_bench.core.options import (
    COMMON,
    HARDWARE,
    PROTOCOL,
    AllowUnreadable,
    DataRoot,
    Device,
    DryRun,
    Fresh,
    Gpus,
    Label,
    Net,
    Out,
    Recipe,
    Seeds,
    numbers,
    offering,
)
from harl_bench.core.progress import announce

EngineName = Annotated[
    Literal["auto", "torchvision", "detectron2", "both"],
    Parameter(
        group=PROTOCOL,
        help=(
            "auto: Detectron2 where installed, else torchvision. both: train and compare them; "
            "exit 1 if they differ."
        ),
    ),
]
EvalOnly = Annotated[
    bool,
    Parameter(
        group=PROTOCOL,
        negative="",
        help="Score CKPT, a trained detector, or this run's last checkpoint.",
    ),
]
MaxIter = Annotated[
    int | None, Parameter(group=PROTOCOL, help="Stop after so many iterations (a departure).")
]
LearningRates = Annotated[
    list[float] | None,
    Parameter(
        group=PROTOCOL,
        consume_multiple=True,
        converter=numbers,
        help="Learning rates to try, each a run of its own; --scale-lr scales them.",
    ),
]
Batch = Annotated[
    int | None, Parameter(group=PROTOCOL, help="Images per iteration over all GPUs (a departure).")
]
ScaleLr = Annotated[
    bool,
    Parameter(
        group=PROTOCOL,
        negative="",
        help="With --batch: scale rate, schedule and warm-up by the linear rule.",
    ),
]
Amp = Annotated[
    bool,
    Parameter(
        group=HARDWARE, negative="", help="Mixed precision on CUDA (recorded as a departure)."
    ),
]
SaveMemory = Annotated[
    bool,
    Parameter(
        group=HARDWARE,
        negative="",
        help=(
            "Keep less for the backward pass and compute it again: the same numbers in less "
            "memory, more slowly."
        ),
    ),
]
Workers = Annotated[
    int | None,
    Parameter(group=HARDWARE, help="Processes that read data, per GPU (default: recipe)."),
]
Evaluator = Annotated[
    Literal["auto", "hotcoco", "pycocotools"],
    Parameter(
        group=PROTOCOL,
        help="COCO's evaluator. auto: hotcoco (the same numbers, faster) where installed.",
    ),
]
Images = Annotated[
    int,
    Parameter(
        name=("--images", "--pictures"),
        group=COMMON,
        help="Test images to draw with their detections.",
    ),
]


def _recipes(task: str) -> Parameter:
    def names() -> list[str]:
        from harl_bench.detection import recipe

        return [name for name in recipe.names() if name.startswith(f"{task}-")]

    return offering(names)


def voc(
    checkpoint: str,
    /,
    *overrides: str,
    data: DataRoot = None,
    recipe: Annotated[Recipe, _recipes("voc")] = "voc-c4-24k",
    engine: EngineName = "auto",
    seeds: Seeds = [0],  # noqa: B006 - cyclopts copies it
    out: Out = Path("runs"),
    net: Net = None,
    eval_only: EvalOnly = False,
    max_iter: MaxIter = None,
    lr: LearningRates = None,
    batch: Batch = None,
    scale_lr: ScaleLr = False,
    amp: Amp = False,
    save_memory: SaveMemory = False,
    workers: Workers = None,
    device: Device = "auto",
    gpus: Gpus = None,
    allow_unreadable: AllowUnreadable = False,
    images: Images = 8,
    label: Label = None,
    dry_run: DryRun = False,
    fresh: Fresh = False,
) -> list[Path]:
    """Detection on PASCAL VOC 07+12: Faster R-CNN from this backbone, scored with VOC's own metric.

    The same command again skips finished runs and continues unfinished ones.

    Try:

        harl-bench voc moco_v2_800ep.pth.tar --data /data --seeds 0 1 2

        harl-bench voc random --data toy/voc --recipe voc-c4-toy SOLVER.MAX_ITER=40

    Args:
        checkpoint: a checkpoint of any known format, or "random".
        overrides: KEY.SUB=value changes to the recipe.
    """
    return _run(task="voc", **locals())


def coco(
    checkpoint: str,
    /,
    *overrides: str,
    data: DataRoot = None,
    recipe: Annotated[Recipe, _recipes("coco")] = "coco-fpn-2fc-1x",
    engine: EngineName = "auto",
    seeds: Seeds = [0],  # noqa: B006 - cyclopts copies it
    out: Out = Path("runs"),
    net: Net = None,
    eval_only: EvalOnly = False,
    max_iter: MaxIter = None,
    lr: LearningRates = None,
    batch: Batch = None,
    scale_lr: ScaleLr = False,
    amp: Amp = False,
    save_memory: SaveMemory = False,
    workers: Workers = None,
    device: Device = "auto",
    gpus: Gpus = None,
    allow_unreadable: AllowUnreadable = False,
    images: Images = 8,
    evaluator: Evaluator = "auto",
    label: Label = None,
    dry_run: DryRun = False,
    fresh: Fresh = False,
) -> list[Path]:
    """Detection and segmentation on COCO 2017: Mask R-CNN from this backbone, box and mask AP.

    The same command again skips finished runs and continues unfinished ones.

    Try:

        harl-bench coco byol_1000ep.pth --data /data --recipe coco-c4-1x --lr 0.02 0.1

        harl-bench coco random --data toy/coco --recipe coco-fpn-toy --seeds 0 1

    Args:
        checkpoint: a checkpoint of any known format, or "random".
        overrides: KEY.SUB=value changes to the recipe.
    """
    return _run(task="coco", **locals())


def cityscapes(
    checkpoint: str,
    /,
    *overrides: str,
    data: DataRoot = None,
    recipe: Annotated[Recipe, _recipes("cityscapes")] = "cityscapes-fpn-24k",
    engine: EngineName = "auto",
    seeds: Seeds = [0],  # noqa: B006 - cyclopts copies it
    out: Out = Path("runs"),
    net: Net = None,
    eval_only: EvalOnly = False,
    max_iter: MaxIter = None,
    lr: LearningRates = None,
    batch: Batch = None,
    scale_lr: ScaleLr = False,
    amp: Amp = False,
    save_memory: SaveMemory = False,
    workers: Workers = None,
    device: Device = "auto",
    gpus: Gpus = None,
    allow_unreadable: AllowUnreadable = False,
    images: Images = 8,
    label: Label = None,
    dry_run: DryRun = False,
    fresh: Fresh = False,
) -> list[Path]:
    """Instance segmentation on Cityscapes: Mask R-CNN from this backbone, AP and AP50 of masks.

    Scored by the benchmark's own package: pip install 'harl-bench[cityscapes]'. The same command
    again skips finished runs and continues unfinished ones.

    Try:

        harl-bench cityscapes moco_v2_800ep.pth.tar --data /data --seeds 0 1 2

        harl-bench cityscapes random --data toy/segment --recipe cityscapes-fpn-toy

    Args:
        checkpoint: a checkpoint of any known format, or "random".
        overrides: KEY.SUB=value changes to the recipe.
    """
    return _run(task="cityscapes", **locals())


def _run(**options: Any) -> list[Path]:
    """Return the folders of the runs' results."""
    announce("%(task)s: %(checkpoint)s by %(recipe)s; loading torch", options)
    from harl_bench.detection.options import Options
    from harl_bench.detection.runs import run
    from harl_bench.nn.runtime import gpus

    device, count = options.pop("device"), options.pop("gpus")
    return run(Options(gpus=gpus(device, count), **options))

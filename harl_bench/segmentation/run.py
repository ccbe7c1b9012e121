"""`harl-bench segment`: fine-tune an FCN from a checkpoint and score its segmentation."""

from pathlib import Path
from typing import Annotated

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


def _recipes() -> list[str]:
    from harl_bench.segmentation import recipe

    return recipe.names()


def segment(
    checkpoint: str,
    /,
    *overrides: str,
    data: DataRoot = None,
    recipe: Annotated[Recipe, offering(_recipes)] = "voc12aug-fcn16s-30k",
    seeds: Seeds = [0],  # noqa: B006 - cyclopts copies it
    out: Out = Path("runs"),
    net: Net = None,
    eval_only: Annotated[
        bool,
        Parameter(
            group=PROTOCOL,
            negative="",
            help="Score CKPT, a trained segmenter (mmsegmentation's too), or this run's own.",
        ),
    ] = False,
    max_iter: Annotated[
        int | None, Parameter(group=PROTOCOL, help="Stop after so many iterations (a departure).")
    ] = None,
    lr: Annotated[
        list[float] | None,
        Parameter(
            group=PROTOCOL,
            consume_multiple=True,
            converter=numbers,
            help="Learning rates to try, each a run of its own; --scale-lr scales them.",
        ),
    ] = None,
    batch: Annotated[
        int | None,
        Parameter(group=PROTOCOL, help="Images per iteration over all GPUs (a departure)."),
    ] = None,
    scale_lr: Annotated[
        bool,
        Parameter(
            group=PROTOCOL,
            negative="",
            help="With --batch: scale rate and schedule by the linear rule.",
        ),
    ] = False,
    amp: Annotated[
        bool,
        Parameter(
            group=HARDWARE, negative="", help="Mixed precision on CUDA (recorded as a departure)."
        ),
    ] = False,
    workers: Annotated[
        int | None,
        Parameter(group=HARDWARE, help="Processes that read data, per GPU (default: recipe)."),
    ] = None,
    device: Device = "auto",
    gpus: Gpus = None,
    allow_unreadable: AllowUnreadable = False,
    images: Annotated[
        int,
        Parameter(
            name=("--images", "--pictures"),
            group=COMMON,
            help="Test images to draw with their truth, prediction and errors.",
        ),
    ] = 8,
    label: Label = None,
    dry_run: DryRun = False,
    fresh: Fresh = False,
) -> list[Path]:
    """Semantic segmentation on VOC 2012 + SBD or Cityscapes: an FCN from this backbone, mIoU.

    The same command again skips finished runs and continues unfinished ones.

    Try:

        harl-bench segment moco_v2_800ep.pth.tar --data /data --seeds 0 1 2

        harl-bench segment densecl.pth --data /data --recipe voc12aug-fcn-d8-20k

        harl-bench segment random --data toy/segment --recipe voc12aug-fcn16s-toy --max-iter 20

    Args:
        checkpoint: a checkpoint of any known format, or "random".
        overrides: section.key=value changes to the recipe.
    """
    options = {key: value for key, value in locals().items() if key not in ("device", "gpus")}
    announce("segment: %s by %s; loading torch", checkpoint, recipe)
    from harl_bench.nn import runtime
    from harl_bench.segmentation.overrides import Options
    from harl_bench.segmentation.runs import run

    return run(Options(gpus=runtime.gpus(device, gpus), **options))

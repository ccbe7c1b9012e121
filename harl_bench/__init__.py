"""harl-bench: from images to the paper's tables.

The functions of `harl_bench.api` are here, too; torch is imported when one is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harl_bench.api import (
        LinearClassifier,
        convert_checkpoint,
        evaluate_coco,
        evaluate_segmentation,
        evaluate_voc,
        extract_features,
        fit_linear,
        knn,
        load_backbone,
        read_results,
        write_report,
    )

__version__ = "0.1.0"
__all__ = [
    "LinearClassifier",
    "convert_checkpoint",
    "evaluate_coco",
    "evaluate_segmentation",
    "evaluate_voc",
    "extract_features",
    "fit_linear",
    "knn",
    "load_backbone",
    "read_results",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Return a function of `harl_bench.api`."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("harl_bench.api"), name)

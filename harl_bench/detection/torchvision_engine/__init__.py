"""Detectron2's R-CNN on torchvision's operators: same module names, state dict and numbers.

Letters used in this package: N images, R proposals of one or of all images, K classes (background
has index K), L feature levels, A anchors per cell, C channels, H W pixels, h w feature cells. Boxes
are xyxy pixels, float32.
"""

import warnings

with warnings.catch_warnings():
    # fvcore compiles its focal loss on import, which newer torch warns about. Nothing here uses it.
    warnings.filterwarnings("ignore", message=".*torch.jit.script.*", category=FutureWarning)
    import fvcore.nn  # noqa: F401

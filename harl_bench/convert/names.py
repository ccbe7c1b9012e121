"""The key map between torchvision's ResNet and Detectron2's, both ways (docs/convert.md 1).

One regular expression a row, matched against the whole name; a name that no row matches is an error, so the map is a
bijection on the 265 tensors of ResNet-50.
"""

import re

BN = "(weight|bias|running_mean|running_var)"
# torchvision pattern, Detectron2 name, Detectron2 pattern, torchvision name; {+1} and {-1} shift the stage number.
ROWS = (
    (r"conv1\.weight", r"stem.conv1.weight", r"stem\.conv1\.weight", r"conv1.weight"),
    (rf"bn1\.{BN}", r"stem.conv1.norm.\1", rf"stem\.conv1\.norm\.{BN}", r"bn1.\1"),
    (r"layer([1-4])\.(\d+)\.conv([1-3])\.weight", r"res\1.\2.conv\3.weight",
     r"res([2-5])\.(\d+)\.conv([1-3])\.weight", r"layer\1.\2.conv\3.weight"),
    (rf"layer([1-4])\.(\d+)\.bn([1-3])\.{BN}", r"res\1.\2.conv\3.norm.\4",
     rf"res([2-5])\.(\d+)\.conv([1-3])\.norm\.{BN}", r"layer\1.\2.bn\3.\4"),
    (r"layer([1-4])\.0\.downsample\.0\.weight", r"res\1.0.shortcut.weight",
     r"res([2-5])\.0\.shortcut\.weight", r"layer\1.0.downsample.0.weight"),
    (rf"layer([1-4])\.0\.downsample\.1\.{BN}", r"res\1.0.shortcut.norm.\2",
     rf"res([2-5])\.0\.shortcut\.norm\.{BN}", r"layer\1.0.downsample.1.\2"),
)  # fmt: skip


def to_detectron2(name: str) -> str:
    """`layer1.0.bn1.weight` -> `res2.0.conv1.norm.weight`.

    Raises:
        KeyError: the name is no backbone tensor of torchvision's ResNet-50.
    """
    for pattern, replacement, _, _ in ROWS:
        if match := re.fullmatch(pattern, name):
            return _shift_stage(match.expand(replacement), +1)  # layer1 is res2
    raise KeyError(name)


def to_torchvision(name: str) -> str:
    """`res2.0.conv1.norm.weight` -> `layer1.0.bn1.weight`.

    Raises:
        KeyError: the name is no backbone tensor of Detectron2's ResNet-50.
    """
    for _, _, pattern, replacement in ROWS:
        if match := re.fullmatch(pattern, name):
            return _shift_stage(match.expand(replacement), -1)
    raise KeyError(name)


def _shift_stage(name: str, by: int) -> str:
    return re.sub(r"^(res|layer)(\d)", lambda m: f"{m[1]}{int(m[2]) + by}", name)

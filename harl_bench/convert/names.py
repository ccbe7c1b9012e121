"""The key map between torchvision's ResNet and Detectron2's, both ways (docs/convert.md 1).

One regular expression a row, matched against the whole name; a name that no row matches is an
error, so the map is a bijection on the 265 tensors of ResNet-50.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

BN = "(weight|bias|running_mean|running_var)"
# torchvision pattern, Detectron2 name, Detectron2 pattern, torchvision name; {+1} and {-1} shift
# the stage number.
ROWS = (
    (r"conv1\.weight", r"stem.conv1.weight", r"stem\.conv1\.weight", r"conv1.weight"),
    (rf"bn1\.{BN}", r"stem.conv1.norm.\1", rf"stem\.conv1\.norm\.{BN}", r"bn1.\1"),
    (
        r"layer([1-4])\.(\d+)\.conv([1-3])\.weight",
        r"res\1.\2.conv\3.weight",
        r"res([2-5])\.(\d+)\.conv([1-3])\.weight",
        r"layer\1.\2.conv\3.weight",
    ),
    (
        rf"layer([1-4])\.(\d+)\.bn([1-3])\.{BN}",
        r"res\1.\2.conv\3.norm.\4",
        rf"res([2-5])\.(\d+)\.conv([1-3])\.norm\.{BN}",
        r"layer\1.\2.bn\3.\4",
    ),
    (
        r"layer([1-4])\.0\.downsample\.0\.weight",
        r"res\1.0.shortcut.weight",
        r"res([2-5])\.0\.shortcut\.weight",
        r"layer\1.0.downsample.0.weight",
    ),
    (
        rf"layer([1-4])\.0\.downsample\.1\.{BN}",
        r"res\1.0.shortcut.norm.\2",
        rf"res([2-5])\.0\.shortcut\.norm\.{BN}",
        r"layer\1.0.downsample.1.\2",
    ),
)


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


# Names by which Sequential([conv1, bn1, relu, maxpool, layer1..4]) calls its children.
CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
# SimCLR v2's blocks in Separius' port: `net` is conv, [bn, relu], conv, [bn, relu], conv, [bn, -];
# resnet.py there.
SIMCLR_V2: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (r"net\.0\.0\.weight", lambda m: "conv1.weight"),
    (rf"net\.0\.1\.0\.{BN}", lambda m: f"bn1.{m[1]}"),
    (
        r"net\.([1-4])\.blocks\.(\d+)\.net\.([024])\.weight",
        lambda m: f"layer{m[1]}.{m[2]}.conv{int(m[3]) // 2 + 1}.weight",
    ),
    (
        rf"net\.([1-4])\.blocks\.(\d+)\.net\.([135])\.0\.{BN}",
        lambda m: f"layer{m[1]}.{m[2]}.bn{int(m[3]) // 2 + 1}.{m[4]}",
    ),
    (
        r"net\.([1-4])\.blocks\.0\.projection\.shortcut\.weight",
        lambda m: f"layer{m[1]}.0.downsample.0.weight",
    ),
    (
        rf"net\.([1-4])\.blocks\.0\.projection\.bn\.0\.{BN}",
        lambda m: f"layer{m[1]}.0.downsample.1.{m[2]}",
    ),
)


# transformers' ResNet: models/resnet/modeling_resnet.py.
HUGGING_FACE: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (r"embedder\.embedder\.convolution\.weight", lambda m: "conv1.weight"),
    (rf"embedder\.embedder\.normalization\.{BN}", lambda m: f"bn1.{m[1]}"),
    (
        r"encoder\.stages\.(\d)\.layers\.(\d+)\.layer\.(\d)\.convolution\.weight",
        lambda m: f"layer{int(m[1]) + 1}.{m[2]}.conv{int(m[3]) + 1}.weight",
    ),
    (
        rf"encoder\.stages\.(\d)\.layers\.(\d+)\.layer\.(\d)\.normalization\.{BN}",
        lambda m: f"layer{int(m[1]) + 1}.{m[2]}.bn{int(m[3]) + 1}.{m[4]}",
    ),
    (
        r"encoder\.stages\.(\d)\.layers\.(\d+)\.shortcut\.convolution\.weight",
        lambda m: f"layer{int(m[1]) + 1}.{m[2]}.downsample.0.weight",
    ),
    (
        rf"encoder\.stages\.(\d)\.layers\.(\d+)\.shortcut\.normalization\.{BN}",
        lambda m: f"layer{int(m[1]) + 1}.{m[2]}.downsample.1.{m[3]}",
    ),
)
# DeepMind's BYOL: byol/utils/networks.py and haiku's nets/resnet.py; convert/haiku.py has joined
# module and tensor.
HAIKU: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (r"initial_conv\.weight", lambda m: "conv1.weight"),
    (rf"initial_batchnorm\.{BN}", lambda m: f"bn1.{m[1]}"),
    (
        r"block_group_(\d)/~/block_(\d+)/~/conv_(\d)\.weight",
        lambda m: f"layer{int(m[1]) + 1}.{m[2]}.conv{int(m[3]) + 1}.weight",
    ),
    (
        rf"block_group_(\d)/~/block_(\d+)/~/batchnorm_(\d)\.{BN}",
        lambda m: f"layer{int(m[1]) + 1}.{m[2]}.bn{int(m[3]) + 1}.{m[4]}",
    ),
    (
        r"block_group_(\d)/~/block_(\d+)/~/shortcut_conv\.weight",
        lambda m: f"layer{int(m[1]) + 1}.{m[2]}.downsample.0.weight",
    ),
    (
        rf"block_group_(\d)/~/block_(\d+)/~/shortcut_batchnorm\.{BN}",
        lambda m: f"layer{int(m[1]) + 1}.{m[2]}.downsample.1.{m[3]}",
    ),
)


def _of_children(name: str) -> str:
    head, _, rest = name.partition(".")
    return f"{CHILDREN[head]}.{rest}"


def _of(rows: tuple[tuple[str, Callable[[re.Match[str]], str]], ...]) -> Callable[[str], str]:
    def rename(name: str) -> str:
        for pattern, renamed in rows:
            if match := re.fullmatch(pattern, name):
                return renamed(match)
        raise KeyError(name)

    return rename


@dataclass(frozen=True)
class Spelling:
    """One way to name ResNet-50's tensors.

    Args:
        stem: its first convolution.
        block: a second tensor that tells this spelling from others.
        rename: to torchvision's name; KeyError for what belongs to no backbone.
    """

    stem: str
    block: str
    rename: Callable[[str], str]


SPELLINGS = {
    "torchvision": Spelling("conv1.weight", "layer1.0.conv1.weight", str),
    "detectron2": Spelling("stem.conv1.weight", "res2.0.conv1.weight", to_torchvision),
    "children": Spelling("0.weight", "4.0.conv1.weight", _of_children),
    "simclr v2": Spelling("net.0.0.weight", "net.1.blocks.0.net.0.weight", _of(SIMCLR_V2)),
    "hugging face": Spelling(
        "embedder.embedder.convolution.weight",
        "encoder.stages.0.layers.0.layer.0.convolution.weight",
        _of(HUGGING_FACE),
    ),
    "haiku": Spelling("initial_conv.weight", "block_group_0/~/block_0/~/conv_0.weight", _of(HAIKU)),
}

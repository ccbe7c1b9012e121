"""Reasons why a checkpoint is not the ResNet-50 of all tables here (docs/convert.md 3)."""

import re
from collections.abc import Callable, Mapping

from torch import Tensor

from harl_bench.nn.lazytensor import LazyTensor

Shapes = Mapping[str, tuple[int, ...]]  # full key -> shape, of every tensor in the file


def reason(tensors: Mapping[str, LazyTensor | Tensor]) -> str | None:
    """Return the first reason that applies to these tensors (full key -> tensor), or None."""
    for key, tensor in tensors.items():
        if re.search(r"conv\d?\.weight$", key) and not tensor.dtype.is_floating_point:
            return "whole numbers (int8): a quantised network"
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    return next((text for test, text in REASONS if test(shapes)), None) or _channels(shapes)


def _channels(shapes: Shapes) -> str | None:
    """Return that the first convolution is not for RGB images, and how to make it so."""
    for key, shape in shapes.items():
        if re.search(STEM, key) and len(shape) == 4 and shape[1] != 3:
            remedy = "[:, [r, g, b]] (where red, green and blue are)"
            if shape[1] == 1:
                remedy = ".repeat(1, 3, 1, 1) / 3"
            what = f"conv1 takes {shape[1]} channels, not the 3 of RGB images"
            return f"{what}: save conv1.weight{remedy}"
    return None


def caffe2(tensors: Mapping[str, LazyTensor | Tensor]) -> bool:
    """Return whether these are the blobs of Caffe2's ResNet-50, with folded batch norms."""
    blocks = [
        f"res{stage}_{block}_branch{branch}"
        for stage, count in zip((2, 3, 4, 5), (3, 4, 6, 3), strict=True)
        for block in range(count)
        for branch in ("1", "2a", "2b", "2c")
        if branch != "1" or block == 0
    ]
    names = {"conv1_w", *(f"{block}_w" for block in blocks)}
    folded = {
        "res_conv1_bn_s",
        "res_conv1_bn_b",
        *(f"{block}_bn_{end}" for block in blocks for end in "sb"),
    }
    return names | folded <= tensors.keys()


def _has(pattern: str) -> Callable[[Shapes], bool]:
    return lambda shapes: any(re.search(pattern, key) for key in shapes)


def _shape(pattern: str, test: Callable[[tuple[int, ...]], bool]) -> Callable[[Shapes], bool]:
    return lambda shapes: any(
        len(shape) == 4 and test(shape) for key, shape in shapes.items() if re.search(pattern, key)
    )


STEM = r"^(?!.*layer\d)(.*\.)?conv1\.weight$"
REASONS: tuple[tuple[Callable[[Shapes], bool], str], ...] = (
    (lambda shapes: not shapes, "the file holds no tensors"),
    (
        lambda shapes: any(
            shape == (0,) and key.endswith("conv1.weight") for key, shape in shapes.items()
        ),
        "empty placeholders of DeepSpeed's ZeRO-3: its zero_to_fp32.py, beside the shards, "
        "writes the whole weights",
    ),
    (
        _has(r"(^|\.)_flat_param$"),
        "FSDP's flattened parameters: save a full state_dict (FULL_STATE_DICT)",
    ),
    (
        _has(r"_branch2[abc]_w$"),
        "a Caffe2/MSRA file: BGR input, stride in the 1x1, batch norm folded",
    ),
    (_has(r"attnpool\."), "CLIP's ResNet: three-convolution stem and attention pooling"),
    (
        _has(r"(^|\.)(root\.conv|block1\.unit0?1|stages\.0\.blocks\.0\.norm1)"),
        "ResNet v2 (norm before convolution): no batch norm follows its stem",
    ),
    (_has(r"\.mixing_conv\."), "selective-kernel blocks (SK-ResNet)"),
    (_has(r"layer1\.0\.(se|attn|eca)\."), "blocks with channel attention (SE-ResNet and its kin)"),
    (
        _has(r"patch_embed|cls_token|class_token|blocks\.0\.attn|resblocks\.0\.attn"),
        "a vision transformer",
    ),
    (
        _has(r"(^|\.)(conv1\.[0-9]|stem\.[0-9]+|stem\.conv\d\.conv)\.weight$"),
        "a deep stem (ResNet-v1b/c/d, timm's d variants)",
    ),
    (
        lambda s: _has(r"downsample\.[12]\.weight$")(s) and not _has(r"downsample\.0\.weight$")(s),
        "an average-pooled shortcut (ResNet-v1d)",
    ),
    (_has(r"layer1\.0\.conv2\.(fc|convs|attn)"), "selective-kernel blocks (SK-ResNet)"),
    (_shape(STEM, lambda s: s[2:] == (3, 3)), "a CIFAR stem: conv1 is 3x3, not 7x7"),
    (_shape(STEM, lambda s: s[1] == 2), "a two-channel Sobel input (DeepCluster)"),
    (_shape(STEM, lambda s: s[0] != 64), "a wider network: conv1 has not 64 channels"),
    (
        _shape(r"(^|\.)net\.0\.0\.weight$", lambda s: s[0] != 64),
        "a wider network: its stem has not 64 channels",
    ),
    (
        _shape(r"layer1\.0\.conv2\.weight$", lambda s: s[1] != s[0]),
        "grouped convolutions (ResNeXt)",
    ),
    (_shape(r"layer1\.0\.conv2\.weight$", lambda s: s[0] > 64), "a wide ResNet (x2 and more)"),
    (_has(r"layer3\.6\.conv1\.weight$"), "deeper than ResNet-50 (ResNet-101 or -152)"),
    (
        lambda s: (
            _has(r"layer1\.0\.conv2\.weight$")(s) and not _has(r"layer1\.0\.conv3\.weight$")(s)
        ),
        "basic blocks (ResNet-18 or -34)",
    ),
    (
        lambda s: _has(r"layer1\.0\.conv1\.weight$")(s) and not _has(r"running_mean$")(s),
        "batch-norm running statistics are missing",
    ),
)

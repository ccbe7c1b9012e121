"""The checkpoint formats of the field: how each names its ResNet-50 and normalises its images.

A format is recognised by keys and shapes alone, never by the file's name (docs/convert.md 3, which
gives the sources row by row). Wrapper parts (`module.`, `_orig_mod.`, `model.`) are stripped before
prefixes are compared.
"""

from dataclasses import dataclass
from typing import Literal

from harl_bench.core.images import IMAGENET_MEAN, IMAGENET_STD

Net = Literal["online", "momentum", "teacher", "student"]


@dataclass(frozen=True)
class InputConvention:
    """A network's channel order, mean and std on the 0-255 scale, and a high-pass filter after."""

    input_format: Literal["RGB", "BGR"] = "RGB"
    pixel_mean: tuple[float, float, float] = IMAGENET_MEAN
    pixel_std: tuple[float, float, float] = IMAGENET_STD
    high_pass: bool = False  # nn/blur.py


IMAGENET = InputConvention()
# SwAV, DeepCluster v2, VICRegL: std 0.228 for red.
STD_228 = InputConvention(pixel_std=(58.14, 57.12, 57.375))
# SimCLR: inputs in [0, 1].
UNIT = InputConvention(pixel_mean=(0.0, 0.0, 0.0), pixel_std=(255.0, 255.0, 255.0))
# Detectron2's MSRA models.
CAFFE = InputConvention("BGR", (103.53, 116.28, 123.675), (1.0, 1.0, 1.0))
# The user may state one, as SimCLR v1 and bare VICRegL files look like torchvision's.
CONVENTIONS = {"imagenet": IMAGENET, "std228": STD_228, "unit": UNIT, "caffe": CAFFE}


@dataclass(frozen=True)
class Format:
    """One way to hold a ResNet-50.

    Args:
        name: shown to the user and stored.
        prefix: of the backbone's names, wrapper parts stripped.
        nets: other networks in the container, (net, its prefix) each.
        marker: a key that only this format has, or, ending with a dot, the start of some.
        container: last key of the path to the dict of tensors; None: any.
        input: the convention its pretraining used.
        spelling: the naming scheme below the prefix (convert/names.py).
        net: the network under the prefix.
    """

    name: str
    prefix: str
    nets: tuple[tuple[Net, str], ...] = ()
    marker: str | None = None
    container: str | None = None
    input: InputConvention = IMAGENET
    spelling: str = "torchvision"
    net: Net = "online"

    @property
    def specific(self) -> bool:
        """Return whether more than its prefix identifies it, so that its nets are known."""
        return self.marker is not None or self.container is not None


FORMATS = (
    Format("harl-bench", "", container="backbone"),
    Format(
        "moco v1/v2", "encoder_q.", (("momentum", "encoder_k."),), marker="encoder_q.conv1.weight"
    ),
    Format(
        "moco v3",
        "base_encoder.",
        (("momentum", "momentum_encoder."),),
        marker="base_encoder.conv1.weight",
    ),
    Format(
        "openselfsup/densecl/detco (full)",
        "encoder_q.0.",
        (("momentum", "encoder_k.0."),),
        marker="encoder_q.0.conv1.weight",
    ),
    Format("pixpro", "encoder.", (("momentum", "encoder_k."),), marker="encoder_k.conv1.weight"),
    Format("simsiam", "encoder.", marker="predictor."),
    Format("pycontrast/infomin ema", "encoder.", container="model_ema", net="momentum"),
    Format("pycontrast/infomin", "encoder.", container="model"),
    Format("swav/deepcluster v2", "", marker="prototypes.", input=STD_228),
    Format("swav/deepcluster v2", "", marker="projection_head.", input=STD_228),
    Format("vicregl", "backbone.", marker="maps_projector.", input=STD_228),
    Format("dino teacher", "backbone.", container="teacher", net="teacher"),
    Format("dino student", "backbone.", container="student", net="student"),
    Format(
        "lightly dino",
        "backbone.",
        (("student", "student_backbone."),),
        marker="student_backbone.conv1.weight",
        net="teacher",
    ),
    Format(
        "lightly byol",
        "backbone.",
        (("teacher", "teacher_backbone."),),
        marker="teacher_backbone.conv1.weight",
    ),
    Format(
        "lightly moco",
        "query_backbone.",
        (("momentum", "backbone."),),
        marker="query_backbone.conv1.weight",
    ),
    Format(
        "lightly moco",
        "backbone.",
        (("momentum", "key_backbone."),),
        marker="key_backbone.conv1.weight",
    ),
    Format(
        "lightly tutorial",
        "backbone.",
        (("momentum", "backbone_momentum."), ("teacher", "teacher_backbone.")),
        marker="backbone.4.0.conv1.weight",
        spelling="children",
    ),
    Format(
        "lightly (momentum)",
        "backbone.",
        (("momentum", "backbone_momentum."),),
        marker="backbone_momentum.",
    ),
    Format(
        "solo-learn/harl official",
        "backbone.",
        (("momentum", "momentum_backbone."),),
        marker="momentum_backbone.conv1.weight",
    ),
    Format(
        "mmselfsup 0.x",
        "backbone.",
        (("momentum", "target_net.0."),),
        marker="online_net.0.conv1.weight",
    ),
    Format(
        "mmpretrain/mmselfsup 1.x",
        "backbone.",
        (("momentum", "target_net.module.0."),),
        marker="target_net.module.0.conv1.weight",
    ),
    Format(
        "mmpretrain/mmselfsup 1.x",
        "backbone.",
        (("momentum", "encoder_k.module.0."),),
        marker="encoder_k.module.0.conv1.weight",
    ),
    Format("vissl", "_feature_blocks.", marker="_feature_blocks.conv1.weight"),
    Format(
        "byol-pytorch (lucidrains)",
        "online_encoder.net.",
        (("momentum", "target_encoder.net."),),
        marker="online_encoder.net.conv1.weight",
    ),
    Format(
        "pytorch-byol (sthalles)",
        "encoder.",
        container="online_network_state_dict",
        spelling="children",
    ),
    Format(
        "pytorch-byol (sthalles)",
        "encoder.",
        container="target_network_state_dict",
        spelling="children",
        net="momentum",
    ),
    Format(
        "simclr v2 (separius)",
        "",
        marker="net.1.blocks.0.net.0.weight",
        spelling="simclr v2",
        input=UNIT,
    ),
    Format("hugging face", "resnet.", spelling="hugging face"),
    Format("hugging face", "", spelling="hugging face"),
    Format("deepmind byol (haiku)", "res_net50/~/", container="online_params", spelling="haiku"),
    Format(
        "deepmind byol (haiku)",
        "res_net50/~/",
        container="target_params",
        spelling="haiku",
        net="momentum",
    ),
    Format(
        "detectron2 detector",
        "backbone.bottom_up.",
        marker="proposal_generator.",
        spelling="detectron2",
    ),
    Format("detectron2 detector", "backbone.", marker="proposal_generator.", spelling="detectron2"),
    Format("detectron2", "", marker="stem.conv1.weight", spelling="detectron2"),
    Format("detectron2", "backbone.bottom_up.", spelling="detectron2"),
    Format("detectron2", "backbone.", marker="backbone.stem.conv1.weight", spelling="detectron2"),
    Format("backbone prefix (barlow twins, vicreg, solo-learn, mmselfsup, lightly)", "backbone."),
    Format("encoder prefix (simsiam, pycontrast)", "encoder."),
    Format("torchvision", ""),
)

ENDINGS = (".tar", ".pth", ".pt", ".pkl", ".ckpt", ".safetensors", ".bin", ".json")

# Of several networks, the one that papers convert (for DINO the teacher).
PREFERENCE: tuple[Net, ...] = ("online", "teacher", "momentum", "student")
WRAPPERS = ("module.", "_orig_mod.", "model.")


def bare_name(file: str) -> str:
    """Return a checkpoint file's name without its endings, `byol_0.99` of `byol_0.99.pth.tar`."""
    for ending in (*ENDINGS, ".index", ".safetensors", ".bin"):  # of a file, of an index of shards
        file = file.removesuffix(ending)
    return file

"""How the field's code bases lay a ResNet-50 out in a file, one entry a row of docs/convert.md 3,
each with its source.

A state holds tensors that are one number repeated (stride 0), another for every name: a file of all
265 has 60 kB, and one look tells whether each tensor went to its place.
"""

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torchvision

from harl_bench.convert.names import to_detectron2
from harl_bench.nn import resnet

State = dict[str, torch.Tensor]
IMAGENET_RED, SWAV_RED, UNIT_RED = 58.395, 58.14, 255.0  # std of red, on 0-255


@cache
def shapes() -> State:
    """torchvision's 320 entries without values, fc included."""
    with torch.device("meta"):
        return torchvision.models.resnet50().state_dict()


def state(first: float = 1.0) -> State:
    """Those entries: the value of the n-th is `first` + n / 1024, exact in half precision."""
    return {
        name: torch.full((1,), first + n / 1024).expand(tuple(meta.shape))
        if meta.is_floating_point()
        else torch.tensor(n)
        for n, (name, meta) in enumerate(shapes().items())
    }


def prefixed(prefix: str, *, first: float = 1.0, fc: bool = True) -> State:
    return {
        f"{prefix}{name}": value
        for name, value in state(first).items()
        if fc or not name.startswith("fc.")
    }


MOMENTUM = 3.0  # `first` of the network that is not the one usually taken
CHILDREN = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}


def children(prefix: str, first: float = 1.0) -> State:
    """As Sequential(*resnet.children()) names them, without fc."""
    values = state(first)
    parts = {name: name.partition(".") for name in values if not name.startswith("fc.")}
    return {
        f"{prefix}{CHILDREN[head]}.{rest}": values[name] for name, (head, _, rest) in parts.items()
    }


def simclr_v2() -> State:
    """Separius/SimCLRv2-Pytorch resnet.py: Stem, Blocks, BottleneckBlock.net, Projection; width 1,
    no SK.
    """
    values, named = state(), {}
    bn = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

    def take(theirs: str, ours: str) -> None:
        named[theirs] = values[ours]

    take("net.0.0.weight", "conv1.weight")
    for end in bn:
        take(f"net.0.1.0.{end}", f"bn1.{end}")
    for stage, count in enumerate((3, 4, 6, 3), 1):
        for block in range(count):
            here, there = f"net.{stage}.blocks.{block}", f"layer{stage}.{block}"
            for n in (1, 2, 3):
                take(f"{here}.net.{2 * n - 2}.weight", f"{there}.conv{n}.weight")
                for end in bn:
                    take(f"{here}.net.{2 * n - 1}.0.{end}", f"{there}.bn{n}.{end}")
            if block == 0:
                take(f"{here}.projection.shortcut.weight", f"{there}.downsample.0.weight")
                for end in bn:
                    take(f"{here}.projection.bn.0.{end}", f"{there}.downsample.1.{end}")
    return named | {"fc.weight": values["fc.weight"], "fc.bias": values["fc.bias"]}


def detectron2(prefix: str = "", res5: str | None = None) -> State:
    """Detectron2's names (modeling/backbone/resnet.py); in a C4 detector res5 lies elsewhere."""
    named = {
        to_detectron2(name): value for name, value in state().items() if name in resnet.shapes()
    }
    return {
        (res5 if res5 and name.startswith("res5") else prefix) + name: value
        for name, value in named.items()
    }


def hugging_face(prefix: str) -> State:
    """transformers models/resnet/modeling_resnet.py: ResNetEmbeddings, ResNetStage, ResNetShortCut,
    ResNetConvLayer.
    """
    named = {}
    for name, value in state().items():
        parts, end = name.split("."), name.rpartition(".")[2]
        kind = (
            "convolution" if parts[-2].startswith("conv") or parts[-2] == "0" else "normalization"
        )
        if parts[0] in ("conv1", "bn1"):
            named[f"{prefix}embedder.embedder.{kind}.{end}"] = value
        elif parts[0] != "fc":
            part = "shortcut" if "downsample" in name else f"layer.{int(parts[2][-1]) - 1}"
            stage = int(parts[0][-1]) - 1
            named[f"{prefix}encoder.stages.{stage}.layers.{parts[1]}.{part}.{kind}.{end}"] = value
    return named


def haiku(first: float = 1.0) -> tuple[dict[str, State], dict[str, State]]:
    """Parameters and state as deepmind-research byol/utils/networks.py and
    haiku/_src/nets/resnet.py name them.
    """
    parameters: dict[str, State] = {"projector/linear": {"w": torch.zeros(2, 2)}}
    moments: dict[str, State] = {}
    for name, value in state(first).items():
        parts, end = name.split("."), name.rpartition(".")[2]
        if parts[0] == "fc" or end == "num_batches_tracked":
            continue
        conv = value.dim() == 4
        kind = "conv" if conv else "batchnorm"
        if parts[0] in ("conv1", "bn1"):
            module = f"res_net50/~/initial_{kind}"
        else:
            last = f"shortcut_{kind}" if "downsample" in name else f"{kind}_{int(parts[2][-1]) - 1}"
            module = f"res_net50/~/block_group_{int(parts[0][-1]) - 1}/~/block_{parts[1]}/~/{last}"
        if conv:
            parameters.setdefault(module, {})["w"] = value.permute(2, 3, 1, 0)
        elif end in ("weight", "bias"):
            parameters.setdefault(module, {})["scale" if end == "weight" else "offset"] = value[
                None, None, None
            ]
        else:
            moment = "mean_ema" if end == "running_mean" else "var_ema"
            moments[f"{module}/~/{moment}"] = {
                "average": value[None, None, None],
                "counter": torch.tensor(3),
            }
    return parameters, moments


def deepmind() -> dict[str, Any]:
    online, target = haiku(), haiku(MOMENTUM)
    return {
        "step": 300_000,
        "experiment_state": {
            "online_params": online[0],
            "target_params": target[0],
            "online_state": online[1],
            "target_state": target[1],
        },
    }


def small(*names: str) -> State:
    return {name: torch.zeros(2, 2) for name in names}


@dataclass(frozen=True)
class Layout:
    """A file and what must be read from it.

    Args:
        source: repository and file that writes it.
        make: the payload.
        format: the row's name.
        net: the network taken when none is asked for.
        also: networks that `--net` can ask for, and `first` of their state.
        red: std of red of the input convention.
    """

    source: str
    make: Callable[[], Any]
    format: str
    net: str = "online"
    also: tuple[tuple[str, float], ...] = ()
    red: float = IMAGENET_RED


LAYOUTS = {
    "torchvision": Layout("pytorch/vision models/resnet.py", state, "torchvision"),
    "barlow twins, vicreg, dino: the distributed backbone": Layout(
        "facebookresearch/barlowtwins main.py: torch.save(model.module.backbone.state_dict(), "
        "'resnet50.pth')",
        lambda: prefixed("", fc=False),
        "torchvision",
    ),
    "moco v1": Layout(
        "facebookresearch/moco main_moco.py save_checkpoint, moco/builder.py",
        lambda: {
            "epoch": 200,
            "arch": "resnet50",
            "optimizer": {"state": {}, "param_groups": [{"lr": 0.03}]},
            "state_dict": prefixed("module.encoder_q.")
            | prefixed("module.encoder_k.", first=MOMENTUM)
            | {"module.queue": torch.zeros(128, 16), "module.queue_ptr": torch.zeros(1)},
        },
        "moco v1/v2",
        also=(("momentum", MOMENTUM),),
    ),
    "moco v2": Layout(
        "facebookresearch/moco moco/builder.py, mlp=True: fc.0 and fc.2",
        lambda: {
            "state_dict": prefixed("module.encoder_q.", fc=False)
            | small("module.encoder_q.fc.0.weight", "module.encoder_q.fc.2.weight")
        },
        "moco v1/v2",
    ),
    "moco v3": Layout(
        "facebookresearch/moco-v3 moco/builder.py",
        lambda: {
            "state_dict": prefixed("module.base_encoder.")
            | small("module.predictor.0.weight")
            | prefixed("module.momentum_encoder.", first=MOMENTUM)
        },
        "moco v3",
        also=(("momentum", MOMENTUM),),
    ),
    "moco v3, linear": Layout(
        "facebookresearch/moco-v3 main_lincls.py",
        lambda: {"state_dict": prefixed("module."), "best_acc1": 74.6},
        "torchvision",
    ),
    "simsiam": Layout(
        "facebookresearch/simsiam simsiam/builder.py",
        lambda: {
            "state_dict": prefixed("module.encoder.", fc=False)
            | small(
                "module.encoder.fc.0.weight",
                "module.encoder.fc.6.bias",
                "module.predictor.0.weight",
            )
        },
        "simsiam",
    ),
    "pixpro": Layout(
        "zdaxie/PixPro contrast/models/PixPro.py, contrast/util.py save_checkpoint",
        lambda: {
            "opt": Namespace(),
            "epoch": 400,
            "model": prefixed("module.encoder.", fc=False)
            | small("module.projector.linear1.weight")
            | prefixed("module.encoder_k.", first=MOMENTUM, fc=False),
        },
        "pixpro",
        also=(("momentum", MOMENTUM),),
    ),
    "pycontrast": Layout(
        "HobbitLong/PyContrast pycontrast/learning/contrast_trainer.py, networks/build_backbone.py",
        lambda: {
            "opt": Namespace(method="InfoMin"),
            "epoch": 800,
            "model": prefixed("module.encoder.") | small("module.head.0.weight"),
            "model_ema": prefixed("encoder.", first=MOMENTUM),
        },
        "pycontrast/infomin",
        also=(("momentum", MOMENTUM),),
    ),
    "swav": Layout(
        "facebookresearch/swav src/resnet50.py (conv1: pad 1 before padding 2)",
        lambda: (
            prefixed("module.", fc=False)
            | small("module.projection_head.0.weight", "module.prototypes.weight")
        ),
        "swav/deepcluster v2",
        red=SWAV_RED,
    ),
    "deepcluster v2": Layout(
        "facebookresearch/swav main_deepclusterv2.py: several heads of prototypes",
        lambda: {
            "state_dict": prefixed("module.", fc=False)
            | small("module.prototypes.prototypes0.weight")
        },
        "swav/deepcluster v2",
        red=SWAV_RED,
    ),
    "barlow twins, full": Layout(
        "facebookresearch/barlowtwins main.py: epoch, model, optimizer",
        lambda: {
            "epoch": 1000,
            "model": prefixed("module.backbone.", fc=False)
            | small("module.projector.0.weight", "module.bn.running_mean"),
        },
        "backbone prefix",
    ),
    "vicregl, full": Layout(
        "facebookresearch/VICRegL main_vicregl.py",
        lambda: {
            "model": prefixed("module.backbone.", fc=False)
            | small("module.maps_projector.0.weight")
        },
        "vicregl",
        red=SWAV_RED,
    ),
    "dino, full": Layout(
        "facebookresearch/dino main_dino.py save_dict",
        lambda: {
            "student": prefixed("module.backbone.", first=MOMENTUM, fc=False)
            | small("module.head.mlp.0.weight"),
            "teacher": prefixed("backbone.", fc=False),
            "epoch": 800,
            "args": Namespace(arch="resnet50"),
            "dino_loss": {"center": torch.zeros(1, 4)},
        },
        "dino teacher",
        net="teacher",
        also=(("student", MOMENTUM),),
    ),
    "openselfsup, extracted": Layout(
        "open-mmlab/OpenSelfSup tools/extract_backbone_weights.py",
        lambda: {"state_dict": prefixed("", fc=False), "author": "OpenSelfSup"},
        "torchvision",
    ),
    "densecl, full": Layout(
        "WXinlong/DenseCL openselfsup/models/densecl.py: backbone is encoder_q[0]",
        lambda: {
            "meta": {"epoch": 200},
            "state_dict": (shared := prefixed("encoder_q.0.", fc=False))
            | {name.replace("encoder_q.0.", "backbone."): value for name, value in shared.items()}
            | prefixed("encoder_k.0.", first=MOMENTUM, fc=False)
            | {"queue2": torch.zeros(4, 8)},
        },
        "openselfsup/densecl/detco (full)",
        also=(("momentum", MOMENTUM),),
    ),
    "mmselfsup 0.x": Layout(
        "open-mmlab/mmselfsup v0.11 mmselfsup/models/algorithms/byol.py",
        lambda: {
            "state_dict": (shared := prefixed("online_net.0.", fc=False))
            | {name.replace("online_net.0.", "backbone."): value for name, value in shared.items()}
            | prefixed("target_net.0.", first=MOMENTUM, fc=False)
        },
        "mmselfsup 0.x",
        also=(("momentum", MOMENTUM),),
    ),
    "mmselfsup 1.x byol": Layout(
        "open-mmlab/mmselfsup v1.0 mmselfsup/models/selfsup/byol.py: target_net is "
        "CosineEMA(Sequential)",
        lambda: {
            "meta": {"epoch": 200},
            "message_hub": Namespace(),
            "state_dict": prefixed("backbone.", fc=False)
            | prefixed("target_net.module.0.", first=MOMENTUM, fc=False)
            | small("target_net.steps"),
        },
        "mmpretrain/mmselfsup 1.x",
        also=(("momentum", MOMENTUM),),
    ),
    "mmselfsup 1.x moco": Layout(
        "open-mmlab/mmpretrain mmpretrain/models/selfsup/moco.py",
        lambda: {
            "meta": {},
            "state_dict": prefixed("backbone.", fc=False)
            | small("queue")
            | prefixed("encoder_k.module.0.", first=MOMENTUM, fc=False),
        },
        "mmpretrain/mmselfsup 1.x",
        also=(("momentum", MOMENTUM),),
    ),
    "vissl": Layout(
        "facebookresearch/vissl vissl/models/base_ssl_model.py get_classy_state, trunks/resnext.py",
        lambda: {
            "phase_idx": 800,
            "classy_state_dict": {
                "base_model": {
                    "model": {
                        "trunk": prefixed("_feature_blocks.", fc=False),
                        "heads": small("0.clf.0.weight"),
                    }
                }
            },
        },
        "vissl",
    ),
    "vissl, consolidated": Layout(
        "facebookresearch/vissl extra_scripts/convert_vissl_to_torchvision.py: model_state_dict",
        lambda: {"model_state_dict": prefixed("_feature_blocks.", fc=False)},
        "vissl",
    ),
    "solo-learn, harl official": Layout(
        "vturrisi/solo-learn solo/methods/base.py BaseMomentumMethod; the HARL code is built on it",
        lambda: {
            "epoch": 99,
            "pytorch-lightning_version": "1.6",
            "hyper_parameters": Namespace(width=1),
            "state_dict": prefixed("backbone.")
            | prefixed("momentum_backbone.", first=MOMENTUM)
            | small("projector.0.weight", "classifier.weight"),
        },
        "solo-learn/harl official",
        also=(("momentum", MOMENTUM),),
    ),
    "lightly byol": Layout(
        "lightly-ai/lightly benchmarks/imagenet/resnet50/byol.py",
        lambda: {
            "state_dict": prefixed("backbone.", fc=False)
            | prefixed("teacher_backbone.", first=MOMENTUM, fc=False)
        },
        "lightly byol",
        also=(("teacher", MOMENTUM),),
    ),
    "lightly dino": Layout(
        "lightly-ai/lightly benchmarks/imagenet/resnet50/dino.py: backbone is the teacher",
        lambda: {
            "state_dict": prefixed("backbone.", fc=False)
            | prefixed("student_backbone.", first=MOMENTUM, fc=False)
        },
        "lightly dino",
        net="teacher",
        also=(("student", MOMENTUM),),
    ),
    "lightly moco, keys": Layout(
        "lightly-ai/lightly benchmarks/imagenet/resnet50/mocov2.py, earlier: key_backbone "
        "follows backbone",
        lambda: {
            "state_dict": prefixed("backbone.", fc=False)
            | prefixed("key_backbone.", first=MOMENTUM, fc=False)
        },
        "lightly moco",
        also=(("momentum", MOMENTUM),),
    ),
    "lightly moco, queries": Layout(
        "lightly-ai/lightly benchmarks/imagenet/resnet50/mocov2.py: backbone follows "
        "query_backbone",
        lambda: {
            "state_dict": prefixed("query_backbone.", fc=False)
            | prefixed("backbone.", first=MOMENTUM, fc=False)
        },
        "lightly moco",
        also=(("momentum", MOMENTUM),),
    ),
    "lightly, momentum": Layout(
        "lightly-ai/lightly examples/pytorch/byol.py with a whole torchvision network",
        lambda: prefixed("backbone.") | prefixed("backbone_momentum.", first=MOMENTUM),
        "lightly (momentum)",
        also=(("momentum", MOMENTUM),),
    ),
    "lightly tutorial": Layout(
        "lightly-ai/lightly examples/pytorch_lightning/moco.py: "
        "Sequential(*list(resnet.children())[:-1])",
        lambda: {"state_dict": children("backbone.") | children("backbone_momentum.", MOMENTUM)},
        "lightly tutorial",
        also=(("momentum", MOMENTUM),),
    ),
    "byol, sthalles": Layout(
        "sthalles/PyTorch-BYOL trainer.py save_model, models/resnet_base_network.py",
        lambda: {
            "online_network_state_dict": children("encoder.") | small("projetion.net.0.weight"),
            "target_network_state_dict": children("encoder.", MOMENTUM),
            "optimizer_state_dict": {},
        },
        "pytorch-byol (sthalles)",
        also=(("momentum", MOMENTUM),),
    ),
    "byol, lucidrains": Layout(
        "lucidrains/byol-pytorch byol_pytorch/byol_pytorch.py: net is online_encoder.net",
        lambda: (
            (shared := prefixed("online_encoder.net."))
            | prefixed("target_encoder.net.", first=MOMENTUM)
            | {name.removeprefix("online_encoder."): value for name, value in shared.items()}
        ),
        "byol-pytorch (lucidrains)",
        also=(("momentum", MOMENTUM),),
    ),
    "simclr v1, tonylins": Layout(
        "tonylins/simclr-converter convert.py: torch.save({'state_dict': model.state_dict()})",
        lambda: {"state_dict": state()},
        "torchvision",
    ),
    "simclr v2, separius": Layout(
        "Separius/SimCLRv2-Pytorch convert.py: torch.save({'resnet': ..., 'head': ...})",
        lambda: {"resnet": simclr_v2(), "head": small("layers.0.weight")},
        "simclr v2 (separius)",
        red=UNIT_RED,
    ),
    "hugging face": Layout(
        "huggingface/transformers models/resnet/modeling_resnet.py: ResNetForImageClassification",
        lambda: hugging_face("resnet.") | small("classifier.1.weight"),
        "hugging face",
    ),
    "hugging face, base": Layout("the same: ResNetModel", lambda: hugging_face(""), "hugging face"),
    "byol, deepmind": Layout(
        "google-deepmind/deepmind-research byol/byol_experiment.py, utils/checkpointing.py",
        deepmind,
        "deepmind byol (haiku)",
        also=(("momentum", MOMENTUM),),
    ),
    "our own": Layout(
        "pretrain/loop.py save",
        lambda: {
            "format": "harl-bench/1",
            "backbone": prefixed("", fc=False),
            "step": 10,
            "method": prefixed("online.backbone.", fc=False),
        },
        "harl-bench",
    ),
    "detectron2": Layout(
        "facebookresearch/detectron2 tools/convert-torchvision-to-d2.py",
        lambda: {
            "model": detectron2() | small("stem.fc.weight"),
            "__author__": "torchvision",
            "matching_heuristics": True,
        },
        "detectron2",
    ),
    "detectron2 c4 detector": Layout(
        "facebookresearch/detectron2 modeling/roi_heads/roi_heads.py Res5ROIHeads",
        lambda: {
            "model": detectron2("backbone.", "roi_heads.")
            | small("proposal_generator.rpn_head.conv.weight"),
            "iteration": 89999,
        },
        "detectron2 detector",
    ),
    "detectron2 fpn detector": Layout(
        "facebookresearch/detectron2 modeling/backbone/fpn.py",
        lambda: {
            "model": detectron2("backbone.bottom_up.")
            | small("backbone.fpn_lateral2.weight", "proposal_generator.rpn_head.conv.weight")
        },
        "detectron2 detector",
    ),
    "compiled in DDP": Layout(
        "torch/_dynamo/eval_frame.py OptimizedModule: _orig_mod; DistributedDataParallel, "
        "DataParallel: module",
        lambda: {"model": prefixed("_orig_mod.module.")},
        "torchvision",
    ),
    "DDP of a compiled": Layout(
        "the other way round", lambda: prefixed("module._orig_mod.model."), "torchvision"
    ),
}

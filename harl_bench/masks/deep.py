"""deep: a self-supervised ResNet-50's stride-8 features and a 1x1 foreground head (spec 4.2).

The backbone stays frozen. The head is trained on pseudo-masks, or on given ones, by class-balanced
cross-entropy.

paper: features of a self-supervised ResNet-50, a 1x1 convolution, threshold 0.5; its code base (Van
Gansbeke et al. 2021) adds a DeepLab head, trains all of it by SGD on 224 px crops, on pseudo-labels
of a network that was itself trained on labels. Here: the frozen features and the 1x1 head alone;
because then the masks show what the given checkpoint has learned. The head's problem is convex, so
that L-BFGS finds its optimum without a learning rate.

The file holds the backbone's 265 tensors beside the head's, which costs 94 MB: masks are then made
from one file on any machine, also after the checkpoint was moved or converted. The checkpoint's
sha256 is kept, too.

Letters: B images, S side of the feature grid, N sampled cells.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from pydantic import Field, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from harl_bench.convert.formats import InputConvention
from harl_bench.convert.read import read_backbone
from harl_bench.core.config import Config
from harl_bench.core.errors import CheckpointError, DataError, TrainingError, UsageError
from harl_bench.core.files import replacing
from harl_bench.core.images import read_mask, read_rgb
from harl_bench.core.progress import log, track
from harl_bench.nn import resnet, runtime
from harl_bench.nn.blur import high_pass

FORMAT = "harl-bench saliency/1"
CHANNELS = 2048
MAX_CELLS = 200_000  # held in memory for training: 1.6 GB, a hundred times the head's numbers
FIT = "harl-bench masks fit IMAGES --method deep"
NEXT = f"fit it again: {FIT} --out FILE"


class Fit(Config):
    """Parameters of `masks fit --method deep`.

    side_px: images are resized to this square; 224 as in pretraining.
    cells: drawn at random from each image's feature grid; fewer when there are many images.
    weight_decay: 1e-4 as in Van Gansbeke et al., here on standardised features.
    """

    side_px: int = Field(default=224, ge=32, le=1024)
    cells: int = Field(default=64, ge=1)
    weight_decay: float = Field(default=1e-4, ge=0)
    iterations: int = Field(default=200, ge=1)
    batch: int = Field(default=16, ge=1)


class Deep(Config):
    """Parameters of deep: the file of `masks fit`; device and batch may change in a mask folder."""

    model: Path
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", exclude=True)
    batch: int = Field(default=32, ge=1, exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _fitted(cls, values: dict[str, Any]) -> dict[str, Any]:
        if values.get("model") is None:
            raise UsageError(
                "deep needs a fitted head",
                where="--model",
                next=f"{FIT} --checkpoint CKPT --out FILE, then --model FILE",
            )
        return values

    def describe_engine(self) -> str:
        """Check the file; return the version of torch and the kind of device."""
        read_about(self.model)
        return f"torch {torch.__version__} {runtime.device(self.device).type}"

    def maker(self) -> "DeepMaker":
        """Load the network onto the device."""
        return load(self.model, runtime.device(self.device))


@dataclass(frozen=True)
class DeepMaker:
    """Makes saliency [side, side] in 0..1 of an image [H, W, 3], or of several at once."""

    backbone: torchvision.models.ResNet  # at stride 8
    weight: Tensor  # [2048] of the head
    bias: Tensor  # []
    side_px: int
    input: InputConvention  # how the backbone's images look
    device: torch.device

    def __call__(self, rgb: NDArray[np.uint8], relative: Path) -> NDArray[np.float32]:
        """Return the saliency of one image."""
        return self.many([self.prepare(rgb)])[0]

    def prepare(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the image as the network's square, [side, side, 3]."""
        side = self.side_px
        shrinks = rgb.shape[0] * rgb.shape[1] > side * side
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        small = cv2.resize(rgb, (side, side), interpolation=method)
        if self.input.input_format == "BGR":
            small = small[..., ::-1]
        return np.ascontiguousarray(small)

    def features(self, squares: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Return [B, 2048, S, S] float32, S = side / 8 rounded up; float16 arithmetic on a GPU."""
        x = torch.from_numpy(np.stack(squares)).to(self.device).permute(0, 3, 1, 2).float()
        mean, std = (
            torch.tensor(values, device=self.device)[:, None, None]
            for values in (self.input.pixel_mean, self.input.pixel_std)
        )
        x = (x - mean) / std
        x = high_pass(x) if self.input.high_pass else x
        x = x.contiguous(memory_format=torch.channels_last)
        half = torch.autocast(self.device.type, torch.float16, enabled=self.device.type == "cuda")
        advice = f"batch={len(squares) // 2}" if len(squares) > 1 else "compute on the CPU"
        with runtime.gpu_memory(advice), torch.inference_mode(), half:
            return resnet.dense_features(self.backbone, x).float()

    def many(self, squares: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        """Return saliency [side, side] of prepared images, of enlarged logits as Van Gansbeke."""
        kernel = self.weight[None, :, None, None]
        logits = F.conv2d(self.features(squares), kernel, self.bias[None])
        enlarged = F.interpolate(logits, self.side_px, mode="bilinear", align_corners=False)
        return list(torch.sigmoid(enlarged)[:, 0].cpu().numpy())


def build(
    tensors: dict[str, Tensor], device: torch.device, *, stride_in_1x1: bool = False
) -> torchvision.models.ResNet:
    """Return the ResNet-50 at stride 8: layer3 dilated by 2, layer4 by 4, frozen.

    `stride_in_1x1`: of MSRA's networks, the stride is the first 1x1 convolution's.
    """
    dilated = [False, True, True]
    model = torchvision.models.resnet50(weights=None, replace_stride_with_dilation=dilated)
    model.fc = nn.Identity()
    if stride_in_1x1:
        model.layer2[0].conv1.stride, model.layer2[0].conv2.stride = (2, 2), (1, 1)
    resnet.load_backbone(model, tensors)
    model.eval().requires_grad_(False)
    return model.to(device, memory_format=torch.channels_last)


def fit(
    pairs: Sequence[tuple[Path, Path]],
    how: Fit,
    out: Path,
    about: dict[str, Any],
    *,
    checkpoint: str,
    seed: int,
    device: str = "auto",
) -> dict[str, Any]:
    """Train a head on (image, mask) files, write it with its backbone, and return its description.

    Raises:
        CheckpointError: no ResNet-50 in the checkpoint.
        DataError: a file is unreadable, or the masks hold one class only.
        TrainingError: the loss is not finite.
    """
    hardware = runtime.device(device)
    source = read_backbone(checkpoint, seed=seed)
    if source.padding == "same":
        same = "this backbone learnt with TensorFlow's SAME padding"
        log.warning("%s; the mask maker pads as torchvision does", same)
    head = (torch.zeros(CHANNELS), torch.zeros(()))  # unused: the features are what is asked for
    backbone = build(source.tensors, hardware, stride_in_1x1=source.stride_in_1x1)
    maker = DeepMaker(backbone, *head, how.side_px, source.input, hardware)
    features, targets = sample(maker, pairs, how, np.random.default_rng(seed))
    weight, bias, loss = train(features.to(hardware), targets.to(hardware), how)
    ref = source.ref
    described: dict[str, Any] = {"name": ref.name, "sha256": ref.sha256, "format": ref.format}
    if source.departures:
        described["departures"] = source.departures
    more = {
        "checkpoint": described,
        "input": vars(source.input),
        "stride_in_1x1": source.stride_in_1x1,
        "side_px": how.side_px,
        "loss": loss,
        "foreground_cells": float(targets.mean()),
    }
    tensors = {f"backbone.{name}": value for name, value in source.tensors.items()}
    save(out, {**tensors, "head.weight": weight, "head.bias": bias}, {**about, **more})
    return more


def sample(
    maker: DeepMaker, pairs: Sequence[tuple[Path, Path]], how: Fit, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return features [N, 2048] of random cells and their fractions of foreground [N]."""
    rows, targets = [], []
    cells = max(1, min(how.cells, MAX_CELLS // len(pairs)))
    for start in track(range(0, len(pairs), how.batch), "batches of features"):
        group = pairs[start : start + how.batch]
        images = [np.asarray(read_rgb(image)) for image, _ in group]
        batch = maker.features([maker.prepare(image) for image in images]).flatten(2).cpu()
        side = round(batch.shape[2] ** 0.5)
        for features, image, (_, path) in zip(batch, images, group, strict=True):
            mask = np.asarray(read_mask(path, (image.shape[1], image.shape[0])), np.float32) / 255
            fractions = cv2.resize(mask, (side, side), interpolation=cv2.INTER_AREA).ravel()
            selected = rng.permutation(side * side)[:cells]
            rows.append(features[:, selected].T)
            targets.append(torch.from_numpy(fractions[selected]))
    return torch.cat(rows), torch.cat(targets)


def train(features: Tensor, targets: Tensor, how: Fit) -> tuple[Tensor, Tensor, float]:
    """Return weight [2048], bias [] and loss where balanced cross-entropy plus decay is smallest.

    Each class's cells are weighted by the other's fraction, as in Van Gansbeke et al. The search
    standardises the features.

    Raises:
        DataError: the targets hold one class only.
        TrainingError: the loss is not finite.
    """
    positive = float(targets.mean())
    if not 0 < positive < 1:
        seen = f"foreground {positive:.0%}"
        raise DataError("the masks hold one class only", seen=seen, next="give other masks")
    mean, std = features.mean(dim=0), features.std(dim=0) + 1e-6
    x = (features - mean) / std
    weight = torch.zeros(x.shape[1], device=x.device, requires_grad=True)
    bias = torch.zeros((), device=x.device, requires_grad=True)
    balance = targets * (1 - positive) + (1 - targets) * positive
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=how.iterations, history_size=20, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = x @ weight + bias
        total = F.binary_cross_entropy_with_logits(logits, targets, balance, reduction="sum")
        value = total / balance.sum() + how.weight_decay / 2 * (weight @ weight)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[arg-type,no-untyped-call]
    final = loss().item()
    if not np.isfinite(final):
        raise TrainingError(
            "the head's loss is not finite", seen=final, next="a larger weight_decay"
        )
    with torch.no_grad():
        weight = weight / std
        return weight.cpu(), (bias - weight @ mean).cpu(), final


def save(path: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Write a .safetensors file atomically."""
    contiguous = {name: value.contiguous() for name, value in tensors.items()}
    metadata = {"saliency": json.dumps({"format": FORMAT, **about})}
    with replacing(path) as temporary:
        save_file(contiguous, temporary, metadata=metadata)


def read_about(path: Path) -> dict[str, Any]:
    """Read the file's description of itself, without its tensors.

    Raises:
        CheckpointError: missing, damaged, or not a saliency network.
    """
    if not path.is_file():
        raise CheckpointError("saliency network not found", where=path, next="check --model")
    try:
        with safe_open(path, framework="pt") as file:
            about: dict[str, Any] = json.loads((file.metadata() or {})["saliency"])
        if about["format"] != FORMAT:
            raise ValueError(about["format"])
        convention = InputConvention(**about["input"])
        int(about["side_px"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError("not a saliency network", where=path, seen=error, next=NEXT) from None
    if convention.high_pass and "stride_in_1x1" not in about:
        raise CheckpointError(
            "the head was fitted without its backbone's high-pass filter", where=path, next=NEXT
        )
    return about


def load(path: Path, device: torch.device) -> DeepMaker:
    """Read what `fit` wrote onto the device.

    Raises:
        CheckpointError: as `read_about`, or tensors are missing.
    """
    about = read_about(path)
    tensors = load_file(path)
    weight, bias = tensors.pop("head.weight", None), tensors.pop("head.bias", None)
    if weight is None or bias is None or weight.shape != (CHANNELS,):
        raise CheckpointError("the head is missing", where=path, next=NEXT)
    tensors = {name.removeprefix("backbone."): value for name, value in tensors.items()}
    head = (weight.to(device), bias.to(device))
    side_px, convention = int(about["side_px"]), InputConvention(**about["input"])
    backbone = build(tensors, device, stride_in_1x1=bool(about.get("stride_in_1x1")))
    return DeepMaker(backbone, *head, side_px, convention, device)

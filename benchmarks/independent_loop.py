"""Our pretraining beside an independent loop of lightly's modules: equal budget, data and probe.

    python -m benchmarks.independent_loop DIR [--methods simclr byol] [--epochs 1] [--seed 0]

DIR has train/CLASS, of at least 128 images, and test/CLASS. Ours is `harl-bench pretrain` with the
recipe cifar10-<method>. The other loop takes the recipe's numbers, torchvision's network and
transforms, lightly's heads and losses, and torch's SGD, on the CPU in one process. Both, and random
weights, are probed by `harl-bench classify` (linear and 20 nearest neighbors at 64 px, all test
images). The same command again leaves finished parts alone.
"""

import argparse
import copy
import math
import os
from pathlib import Path
from typing import Any

import torch
import torchvision
from lightly.loss import NegativeCosineSimilarity, NTXentLoss
from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead, SimCLRProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from torch.utils.data import DataLoader
from torchvision import transforms as T

from harl_bench.cli import main as harl_bench
from harl_bench.core.results import scan
from pretrain.recipe import load

PROBES = {
    "linear": ["image_size=64"],
    "knn": ["image_size=64", "short_side_px=64", "neighbours=[20]", "headline=20"],
}


def network() -> torchvision.models.ResNet:
    """Return torchvision's ResNet-18 with stride 1 in its last stage, as feature_grid=14."""
    model = torchvision.models.resnet18()
    model.fc = torch.nn.Identity()
    model.layer4[0].conv1.stride = model.layer4[0].downsample[0].stride = (1, 1)
    return model


def independent(name: str, images: Path, epochs: int, seed: int) -> torch.nn.Module:
    """Return a backbone trained by SimCLR or BYOL with the numbers of the recipe cifar10-<name>."""
    c: Any = load(f"cifar10-{name}", None, [f"epochs={epochs}"])
    torch.manual_seed(seed)
    size = c.image_size
    view = T.Compose(
        [
            T.RandomResizedCrop(size, (0.2, 1.0), interpolation=T.InterpolationMode.BICUBIC),
            T.RandomHorizontalFlip(),
            T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8),
            T.RandomGrayscale(0.2),
            T.RandomApply([T.GaussianBlur(3, (0.1, 2.0))], 0.5),
            T.ToTensor(),
            T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    data = torchvision.datasets.ImageFolder(images, lambda image: (view(image), view(image)))
    loader = DataLoader(data, batch_size=c.batch_size, shuffle=True, drop_last=True)
    backbone = network()
    if name == "simclr":
        head = SimCLRProjectionHead(512, c.projector_hidden, c.projector_out)
        criterion = NTXentLoss(c.temperature)
        networks = torch.nn.ModuleList([backbone, head])

        def loss(x: torch.Tensor, y: torch.Tensor, k: int) -> torch.Tensor:
            return criterion(head(backbone(x)), head(backbone(y)))
    else:
        head = BYOLProjectionHead(512, c.projector_hidden, c.projector_out)
        online = torch.nn.Sequential(backbone, head)
        predictor = BYOLPredictionHead(c.projector_out, c.predictor_hidden, c.projector_out)
        target, cosine = copy.deepcopy(online), NegativeCosineSimilarity()
        deactivate_requires_grad(target)
        networks = torch.nn.ModuleList([online, predictor])

        def loss(x: torch.Tensor, y: torch.Tensor, k: int) -> torch.Tensor:
            if k:  # the update after the step before; tau rises to 1 by BYOL's cosine
                rise = (math.cos(math.pi * (k - 1) / steps) + 1) / 2
                update_momentum(online, target, 1 - (1 - c.tau_base) * rise)
            p, q = predictor(online(x)), predictor(online(y))
            with torch.no_grad():
                z, w = target(x), target(y)
            return 2 * (2 + cosine(p, w) + cosine(q, z))  # 2 - 2 cos, both directions: the paper's

    steps, warmup = len(loader) * epochs, len(loader) * c.warmup_epochs
    lr = c.base_lr * c.batch_size / 256
    optimizer = torch.optim.SGD(
        networks.parameters(), lr, momentum=c.momentum, weight_decay=c.weight_decay
    )

    def rate(k: int) -> float:
        if k < warmup:
            return k / warmup
        return 0.5 + 0.5 * math.cos(math.pi * (k - warmup) / (steps - warmup))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    for k, ((x, y), _) in enumerate(pair for _ in range(epochs) for pair in loader):
        optimizer.zero_grad()
        loss(x, y, k).backward()
        optimizer.step()
        schedule.step()
    return backbone


def run(arguments: list[str]) -> None:
    """Run a command of harl-bench; end with its exit code if it fails."""
    if code := harl_bench(arguments):
        raise SystemExit(code)


def main() -> None:
    """Train and probe what is missing, then print one line a checkpoint."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument(
        "--methods", nargs="+", default=["simclr", "byol"], choices=["simclr", "byol"]
    )
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs-loops"))
    options = parser.parse_args()
    out = options.out.resolve()  # results go by the paths of their checkpoints
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    rows: dict[tuple[str, str], str] = {}
    for name in options.methods:
        folder = out / f"{name}-{options.epochs}ep-seed{options.seed}"
        images, ours, theirs = options.data / "train", folder / "ours", folder / "lightly.pth"
        setting = ["--recipe", f"cifar10-{name}", "--seed", str(options.seed), "--workers", "0"]
        files = ["--data", str(images), "--out", str(ours)]
        run(["pretrain", f"epochs={options.epochs}", *setting, *files])
        if not theirs.exists():
            state = independent(name, images, options.epochs, options.seed).state_dict()
            torch.save({"state_dict": state, "harl_bench": {"feature_grid": 14}}, theirs)
        rows |= {(name, "ours"): str(ours / "last.pth"), (name, "lightly's modules"): str(theirs)}
    rows["random", ""] = "random-resnet18-grid14"
    files = ["--data", str(options.data), "--out", str(out)]
    for checkpoint in rows.values():
        for protocol, changes in PROBES.items():
            setting = ["--protocol", protocol, "--seeds", str(options.seed), "--workers", "0"]
            run(["classify", checkpoint, *changes, *setting, *files])
    results = [result for _, result in scan(out)[0] if result.seed == options.seed]
    scores = {(result.checkpoint.path, result.protocol): result for result in results}
    print(f"{'method':8} {'loop':18} {'linear':>20} {'20-NN':>8}")
    for (name, loop), checkpoint in rows.items():
        linear, near = (scores[checkpoint, protocol] for protocol in PROBES)
        low, high = linear.manifest["interval_95"]["top1"]
        print(
            f"{name:8} {loop:18} {linear.metrics['top1']:6.2f} ({low:.1f} to {high:.1f}) "
            f"{near.metrics['k20/top1']:8.2f}"
        )


if __name__ == "__main__":
    main()

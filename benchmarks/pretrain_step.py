"""A pretraining step of HARL and of BYOL, and both against lightly's BYOL step, in one run.

    python -m benchmarks.pretrain_step [--device cuda] [--batch 256] [--precision bf16]

Views are made up and lie on the device: no input is timed. All train the same ResNet with heads of
the same widths and the same LARS. lightly's step is that of its BYOL example (two views through
both networks, its own heads, EMA and loss). They run in turn. Printed are medians and the medians
of ratios in turn. On a GPU also the peak memory and the shares of the card's limits: FLOPs of the
convolutions and matrix products as PyTorch counts them, over the largest throughput that a square
matrix product of the same precision reaches in this run; and bytes of weights, activations' in- and
outputs of every operation, over the bandwidth that a copy reaches.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from harl_bench.nn import resnet
from pretrain import loop
from pretrain.batch import Batch
from pretrain.methods import build
from pretrain.optim import build_optimizer
from pretrain.recipe import configured

K = 1000
Step = Callable[[], object]


def ours(name: str, options: argparse.Namespace, **changes: object) -> Step:
    """One optimiser step of a method of ours, with changes of its configuration."""
    config = configured(
        {
            "method": name,
            "backbone": options.backbone,
            "image_size": options.size,
            "batch_size": options.batch,
            "epochs": 100,
            "base_lr": 0.5,
            "weight_decay": 1e-6,
            "projector_out": 256,
            **changes,
        }
    )
    method = build(config)
    forward = loop.on_its_device(method, config, torch.device(options.device))
    optimizer = build_optimizer(method, config)
    batch = made_up(options)
    count = iter(range(10**9))

    def step() -> None:
        k = next(count) % K
        with torch.autocast(options.device, torch.bfloat16, enabled=options.precision == "bf16"):
            loss = forward(batch, k, K).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        method.after_step(k, K)

    return step


def lightlys(options: argparse.Namespace) -> Step:
    """One optimiser step of lightly's BYOL; the rest of this file runs without lightly."""
    from lightly.loss import NegativeCosineSimilarity
    from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
    from lightly.models.utils import deactivate_requires_grad, update_momentum
    from lightly.utils.lars import LARS

    backbone, width = resnet.build(options.backbone), resnet.FEATURES[options.backbone]
    online = torch.nn.Sequential(backbone, BYOLProjectionHead(width, 4096, 256))
    predictor = BYOLPredictionHead(256, 4096, 256)
    target = copy.deepcopy(online)
    deactivate_requires_grad(target)
    networks = torch.nn.ModuleList([online, predictor, target])
    networks.to(options.device).to(memory_format=options.layout).train()
    optimizer = LARS(
        [*online.parameters(), *predictor.parameters()], lr=0.5, momentum=0.9, weight_decay=1e-6
    )
    criterion, batch = NegativeCosineSimilarity(), made_up(options)

    def step() -> None:
        update_momentum(online, target, 0.99)
        with torch.autocast(options.device, torch.bfloat16, enabled=options.precision == "bf16"):
            p = [predictor(online(x)) for x in batch.views]
            with torch.no_grad():
                z = [target(x) for x in batch.views]
            loss = 0.5 * (criterion(p[0], z[1]) + criterion(p[1], z[0]))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def made_up(options: argparse.Namespace) -> Batch:
    """Views of noise; the foreground is a disc."""
    g = torch.Generator(options.device).manual_seed(0)
    B, S = options.batch, options.size
    views = torch.randn(2, B, 3, S, S, generator=g, device=options.device)
    axis = torch.linspace(-1, 1, S, device=options.device)
    disc = (axis[:, None] ** 2 + axis[None] ** 2 < 0.5).float().expand(2, B, 1, S, S).contiguous()
    return Batch(views, disc, torch.ones(B, dtype=torch.bool, device=options.device))


def seconds(step: Step, device: str) -> float:
    """Wall time of one call on a GPU, its queue drained; CPU time on the CPU."""
    if device == "cpu":
        began = time.process_time()
        step()
        return time.process_time() - began
    torch.cuda.synchronize()
    began = time.perf_counter()
    step()
    torch.cuda.synchronize()
    return time.perf_counter() - began


class Bytes(TorchDispatchMode):
    """Counts what every operation reads and writes, each tensor once; views move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.moved = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        if not func.is_view and "empty" not in func.name():
            for x in tree_leaves((args, kwargs, out)):
                self.moved += x.numel() * x.element_size() if isinstance(x, torch.Tensor) else 0
        return out


def limits(options: argparse.Namespace) -> tuple[float, float]:
    """(FLOP/s of a large matrix product, bytes/s of a large copy), the best of ten."""
    dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
    torch.backends.cuda.matmul.allow_tf32 = True  # as torch's convolutions in float32 do
    n = 8192
    a = torch.randn(n, n, device=options.device, dtype=dtype)
    big = torch.empty(2**28, device=options.device)
    product = min(seconds(lambda: a @ a, options.device) for _ in range(10))
    copied = min(seconds(lambda: big.clone(), options.device) for _ in range(10))
    return 2 * n**3 / product, 2 * big.numel() * big.element_size() / copied


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--precision", choices=("bf16", "fp32"), default=None)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    options.precision = options.precision or ("bf16" if on_gpu else "fp32")
    options.layout = torch.channels_last if on_gpu else torch.contiguous_format
    torch.backends.cudnn.benchmark = True
    steps = {
        "lightly BYOL": lightlys(options),
        "byol": ours("byol", options),
        "harl": ours("harl", options),
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    memory = {}
    for repeat in range(options.repeats + 2):
        for name, step in steps.items():
            if on_gpu:
                torch.cuda.reset_peak_memory_stats()
            spent = seconds(step, options.device)
            if on_gpu:
                memory[name] = torch.cuda.max_memory_allocated() / 2**30
            if repeat >= 2:  # kernels are chosen, buffers are there
                times[name].append(spent)
    print(
        f"{options.backbone}, {options.size} px, batch {options.batch}, {options.precision}, "
        f"{options.device}"
    )
    for name, column in times.items():
        spent = statistics.median(column)
        held = f"   peak {memory[name]:5.1f} GiB, all three resident" if on_gpu else ""
        print(f"{name:14} {spent:8.4f} s   {options.batch / spent:8.1f} images/s{held}")
    for a, b, goal in (
        ("harl", "byol", "<= 1.10"),
        ("byol", "lightly BYOL", "<= 0.77"),
        ("harl", "lightly BYOL", ""),
    ):
        ratio = statistics.median(x / y for x, y in zip(times[a], times[b], strict=True))
        print(f"{a} / {b:14} {ratio:6.3f}   {f'goal {goal}' if goal else ''}")
    if on_gpu:
        fraction(steps["harl"], statistics.median(times["harl"]), options)


def fraction(step: Step, spent: float, options: argparse.Namespace) -> None:
    """HARL's step against the card's measured limits."""
    with FlopCounterMode(display=False) as flops:
        step()
    with Bytes() as traffic:
        step()
    compute, bandwidth = limits(options)
    print(
        f"limits: {compute / 1e12:.0f} TFLOP/s by matrix product, {bandwidth / 1e12:.2f} TB/s "
        "by copy"
    )
    print(
        f"harl:   {flops.get_total_flops() / spent / compute:.1%} of the compute limit, "
        f"{traffic.moved / spent / bandwidth:.1%} of the bandwidth limit (unfused count)"
    )


if __name__ == "__main__":
    main()

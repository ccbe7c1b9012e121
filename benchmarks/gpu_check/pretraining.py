"""Steps of pretraining on views that lie on the device, and the colors of a batch."""

import time

import numpy as np
import torch

from benchmarks import pretrain_step
from benchmarks.gpu_check.measure import MissingError, drained, halving, speed, timed
from benchmarks.gpu_check.setting import Setting
from harl_bench.nn import resnet
from pretrain import colors as color_draws
from pretrain.batch import Batch
from pretrain.data import on_device
from pretrain.views import BYOL_VIEWS

NARROW = {"projector_hidden": 64, "projector_out": 32, "predictor_hidden": 64, "queue_size": 64}


def limit(setting: Setting) -> dict:
    """Time the networks of BYOL and HARL and nothing else: two views, forward and backward.

    Two views pass through the online network with gradients and through the target without.
    """
    options = setting.sizes()
    where = {"device": options.device, "memory_format": options.layout}
    torch.backends.cudnn.benchmark = True

    def both(batch: int) -> float:
        online, target = (resnet.build(options.backbone).to(**where).train() for _ in range(2))
        x = torch.randn(batch, 3, options.size, options.size).to(**where)

        def passes() -> None:
            half = options.precision == "bf16"
            with torch.autocast(options.device, torch.bfloat16, enabled=half):
                features = [resnet.dense_features(online, x) for _ in range(2)]
                with torch.no_grad():
                    for _ in range(2):
                        resnet.dense_features(target, x)
            torch.stack([h.float().mean() for h in features]).sum().backward()
            online.zero_grad(set_to_none=True)

        return timed(setting, passes)

    return speed(*halving(both, options.batch))


def lightly(setting: Setting) -> dict:
    """Time lightly's BYOL step (benchmarks/pretrain_step.py)."""
    options = setting.sizes()

    def seconds(batch: int) -> float:
        options.batch = batch
        return timed(setting, pretrain_step.lightlys(options))

    try:
        return speed(*halving(seconds, options.batch))
    except ModuleNotFoundError as error:
        raise MissingError(f"{error.name} is not installed") from None


def step(setting: Setting, *, method: str, precision: str = "bf16", **changes: object) -> dict:
    """Time a method's optimizer step, eager or with `compile`; the first call apart."""
    options = setting.sizes(precision)
    first = [0.0]

    def seconds(batch: int) -> float:
        options.batch = batch
        call = pretrain_step.ours(
            method, options, **{**(NARROW if setting.tiny else {}), **changes}
        )
        began = time.perf_counter()
        call()
        drained()
        first[0] = time.perf_counter() - began
        return timed(setting, call)

    return speed(*halving(seconds, options.batch)) | {"first_s": round(first[0], 2)}


def colors(setting: Setting) -> dict:
    """Time the copy of a batch and its colors, as the loop does them; the copy's share apart."""
    options, rng = setting.sizes(), np.random.default_rng(0)
    B, S, device = options.batch, options.size, torch.device(setting.device)
    draws = [[color_draws.draw(view, rng) for _ in range(B)] for view in BYOL_VIEWS]
    batch = Batch(
        torch.randint(0, 256, (2, B, 3, S, S), dtype=torch.uint8),
        torch.ones(2, B, 1, S, S, dtype=torch.uint8),
        torch.ones(B, dtype=torch.bool),
        colors=torch.from_numpy(np.array(draws)),
    )
    batch = batch if setting.tiny else batch.pin_memory()
    copied = timed(setting, lambda: batch.views.to(device, non_blocking=True))
    finished = timed(setting, lambda: on_device(batch, device))
    return speed(B, finished) | {"note": f"the copy of the views alone {1e3 * copied:.1f} ms"}

"""What `classify` does once the images are read: features, nearest neighbors, the linear solver."""

import time

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from benchmarks.gpu_check.measure import halving, speed, timed
from benchmarks.gpu_check.setting import Setting
from harl_bench.classify import eigenbasis, knn, network, solver
from harl_bench.convert.read import random_backbone
from harl_bench.nn import runtime

STRENGTHS = [10.0, 1.0, 0.1]


def features(setting: Setting, *, precision: network.Precision = "float32") -> dict:
    """Time the extraction of features; float32 without TF32, as `classify` has it."""
    runtime.exact_float32()
    model = network.network(random_backbone(0), torch.device(setting.device))
    side = 32 if setting.tiny else 224

    def seconds(batch: int) -> float:
        x = torch.randn(batch, 3, side, side).to(setting.device)
        x = x.contiguous(memory_format=torch.channels_last)
        return timed(setting, lambda: network.forward(model, x, precision))

    return speed(*halving(seconds, 2 if setting.tiny else 256))


def neighbors(setting: Setting, *, device: str = "") -> dict:
    """Time votes of the 20 nearest of a bank; `device` "cpu" with fewer queries, as a rival."""
    device = device or setting.device
    rows, queries = (2000, 100) if setting.tiny else (200_000, 256 if device == "cpu" else 8192)
    x, y = problem(rows + queries, 64 if setting.tiny else 2048, 100, device)
    runtime.exact_float32()

    def votes() -> object:
        return knn.votes(x[rows:], x[:rows], y[:rows], 100, neighbours=[20], temperature=0.07)

    return speed(queries, timed(setting, votes, warm=1, repeats=3))


def linear(setting: Setting) -> dict:
    """Time our solver, preparation included, at three strengths; images a second is rows a second
    and strength.
    """
    x, y = problem(*size(setting), setting.device)

    def optima() -> list[solver.Optimum]:
        return solver.solve(eigenbasis.prepare(x), y, STRENGTHS, classes=size(setting)[2])

    seconds = timed(setting, optima, warm=1, repeats=3)
    path = optima()
    worst = max(optimum.certificate for optimum in path)
    iterations = sum(optimum.iterations for optimum in path)
    note = f"{iterations} iterations, certificate {worst:.1e}"
    return speed(len(x) * len(STRENGTHS), seconds) | {"certificate": worst, "note": note}


def scikit_learn(setting: Setting) -> dict:
    """Time scikit-learn's default call on the CPU, at the strongest strength alone: the fastest."""
    x, y = problem(*size(setting), "cpu")
    rows, labels = x.double().numpy(), y.numpy()
    began = time.perf_counter()
    LogisticRegression(C=1 / max(STRENGTHS)).fit(rows, labels)
    seconds = time.perf_counter() - began
    return speed(len(x), seconds) | {"note": "default call, float64, strongest strength, CPU"}


def size(setting: Setting) -> tuple[int, int, int]:
    """Return (rows, width, classes): those of DTD."""
    return (120, 16, 5) if setting.tiny else (3760, 2048, 47)


def problem(rows: int, width: int, classes: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rectified features with a falling spectrum and class centers, and labels."""
    g = torch.Generator(device).manual_seed(0)
    spectrum = torch.arange(1, width + 1, device=device) ** -0.5
    labels = torch.from_numpy(np.arange(rows) % classes).to(device)
    centers = 0.3 * torch.randn(classes, width, generator=g, device=device)
    x = torch.randn(rows, width, generator=g, device=device) + centers[labels]
    return (x * spectrum + 0.1).clamp(min=0), labels

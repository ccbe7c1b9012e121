"""How good the features are, while they form: the probe's and the nearest neighbours' accuracy on
held-out images.

Monitors, not results: `harl-bench classify` measures. Features are the globally pooled ones of the
central crop, the network in evaluation mode; nothing of the training changes, its random numbers
included.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from harl_bench.core.errors import DataError
from harl_bench.core.progress import log
from harl_bench.core.stopping import leave_signals_to_the_parent
from harl_bench.nn import distributed, resnet
from harl_bench.nn.blur import high_pass
from pretrain import data
from pretrain.labels import Labels
from pretrain.parallel import share_statistics
from pretrain.probe import Probe
from pretrain.views import CENTRE

# As DINO's and iBOT's code report kNN; Wu et al. 2018: 200 and 0.07.
NEIGHBOURS, TEMPERATURE = 20, 0.07
BANK = 20_000  # training images at most that neighbours are looked for among
CHUNK = 256


@dataclass(frozen=True)
class Held:
    """Held-out images and the labels of both sides."""

    train: data.Images
    train_labels: Labels
    val: data.Images
    val_labels: Labels


def hold(train: data.Images, val: data.Images) -> Held:
    """Labels of training and held-out images, from their folders.

    Raises:
        DataError: no class folders, or classes that differ.
    """
    labels = Labels(train.root, train.paths)
    return Held(train, labels, val, Labels(val.root, val.paths, labels.names))


def evaluate(
    backbone: nn.Module,
    probe: Probe | None,
    held: Held,
    *,
    size: int,
    seed: int,
    workers: int,
    device: torch.device,
    high_passed: bool = False,
) -> dict[str, float]:
    """Top-1, percent, of the probe and of weighted kNN on the held-out images.

    Args:
        size: side of the images in pixels.
        seed: chooses the bank where there are more training images than BANK.
        high_passed: the network learns from high-pass filtered images.
    """
    training = backbone.training
    backbone.eval()
    share_statistics(backbone)
    try:
        shuffled = np.random.default_rng((seed, BANK)).permutation(len(held.train.paths))
        bank = np.sort(shuffled[:BANK])
        look = partial(
            _features, backbone, size=size, workers=workers, device=device, high_passed=high_passed
        )
        x, y, _ = look(held.train, held.train_labels, bank)  # those unreadable count in the loop
        q, true, unreadable = look(held.val, held.val_labels, np.arange(len(held.val.paths)))
    finally:
        backbone.train(training)
        if probe:
            probe.forget()
    if unreadable and distributed.is_main():
        name, why = next(iter(unreadable.items()))
        log.warning(
            "%d of %d held-out images cannot be read, the next one counts instead: %s: %s",
            len(unreadable),
            len(held.val.paths),
            held.val.root / name,
            why,
        )
    scores = {"val_knn_top1": _top1(knn(q, x, y, len(held.train_labels.names)), true)}
    if probe:
        with torch.no_grad():
            scores["val_probe_top1"] = _top1(probe.linear(q).argmax(dim=1), true)
    return scores


def knn(q: Tensor, x: Tensor, y: Tensor, classes: int) -> Tensor:
    """The class with the largest sum of exp(cos / T) among the nearest neighbours (Wu et al. 2018,
    section 3.4).

    Args:
        q: [N, C] queries.
        x: [M, C] bank.
        y: [M] its labels.

    Returns:
        [N] int64.
    """
    q, x = nn.functional.normalize(q, dim=1), nn.functional.normalize(x, dim=1)
    answers = []
    for part in torch.split(q, CHUNK):
        similarity, nearest = (part @ x.T).topk(min(NEIGHBOURS, len(x)), dim=1)
        votes = torch.zeros(len(part), classes, device=q.device)
        votes.scatter_add_(1, y[nearest], (similarity / TEMPERATURE).exp())
        answers.append(votes.argmax(dim=1))
    return torch.cat(answers)


def _features(
    backbone: nn.Module,
    images: data.Images,
    labels: Labels,
    chosen: NDArray[np.int64],
    *,
    size: int,
    workers: int,
    device: torch.device,
    high_passed: bool,
) -> tuple[Tensor, Tensor, dict[str, str]]:
    """[N, C] features and [N] labels of chosen images, and why some cannot be read, on every
    process; each computes a part.
    """
    rank, world = distributed.rank(), distributed.world_size()
    items = [(0, int(i)) for i in chosen[rank::world]]
    dataset = data.TwoViews(images, views=(CENTRE,), size=size, seed=0)
    batches = [items[i : i + CHUNK] for i in range(0, len(items), CHUNK)]
    loader = DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=data.collate,  # type: ignore[arg-type]
        generator=torch.Generator().manual_seed(0),
        worker_init_fn=leave_signals_to_the_parent,
    )
    x, y = [torch.empty(0, 0)], [torch.empty(0, dtype=torch.int64)]
    unreadable: dict[str, str] = {}
    error: Exception | None = None
    for batch, picked in zip(loader, batches, strict=True):
        error = error or batch.error
        if error is None:
            with torch.no_grad():
                view = batch.views[0].to(device)
                h = resnet.dense_features(backbone, high_pass(view) if high_passed else view)  # type: ignore[arg-type]
            x.append(h.float().mean(dim=(2, 3)).cpu())
            y.append(labels.of(picked, batch.unreadable))
            unreadable.update(batch.unreadable)
    shares = distributed.gather((error, x[1:], y[1:], unreadable))
    for fault, *_ in shares:
        if fault is not None:
            raise fault
    features = [part for _, parts, _, _ in shares for part in parts]
    answers = [part for _, _, parts, _ in shares for part in parts]
    every = {name: why for *_, reasons in shares for name, why in reasons.items()}
    if not features:
        raise DataError("no images to evaluate on", where=images.root)
    return torch.cat(features).to(device), torch.cat(answers).to(device), every


def _top1(answers: Tensor, true: Tensor) -> float:
    return 100 * float((answers == true).float().mean())

"""Protocol `svm` against the published scripts' way, in one run on the same features.

    python -m benchmarks.voc07_svm                       # 2,505 x 4,096, 4 classes, all 19 costs
    python -m benchmarks.voc07_svm --part 1 --classes 20  # VOC07: 5,011 x 8,192

The rival is what train_svm_kfold_parallel.py and test_svm.py of mmselfsup (7f1dbc9) do: a pool of
processes, a task a class and cost that gets all features by pickle, three fits for the
cross-validation and one to all rows, pickled; then every class's best cost is read back. Ours is
`svm.run`. Rows and columns are VOC07's divided by the same number: their ratio decides how much the
rotation saves. Features are made up: rectified, correlated, with a falling spectrum.

Both use as many processes as there are cores. CPU seconds count every process, so that others on
the machine count less.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import pickle
import resource
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import cross_val_score
from sklearn.svm import LinearSVC

from harl_bench.classify import svm
from harl_bench.classify.protocol import Svm, load
from harl_bench.core.average_precision import mean_ap
from harl_bench.core.progress import set_up_logging

Array = np.ndarray[Any, Any]
TRAIN, TEST, WIDTH = 5011, 4952, 8192
APART = 6.5  # the classes in standard deviations, for a mAP like that on real features


def main() -> None:
    """Make features, run both, print times and mAP."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", type=int, default=2, help="VOC07's rows and columns by this")
    parser.add_argument("--classes", type=int, default=4)
    options = parser.parse_args()
    set_up_logging()
    settings = load("svm")[1]
    assert isinstance(settings, Svm)
    store = Made(options.part, options.classes)
    print(f"{store.x.shape[0]} x {store.x.shape[1]}, {options.classes} classes", flush=True)
    results = {}
    for name, work in {"ours": ours, "published": published}.items():
        with tempfile.TemporaryDirectory() as folder:
            began, busy = time.monotonic(), cpu()
            results[name] = work(store, settings, Path(folder))
            wall, used = time.monotonic() - began, cpu() - busy
        results[name] |= {"wall": wall, "cpu": used}
        print(f"{name}: {results[name]}", flush=True)
    mine, theirs = results["ours"], results["published"]
    print(
        f"mAP {mine['mAP']:.4f} and {theirs['mAP']:.4f}, "
        f"CPU {mine['cpu'] / theirs['cpu']:.3f}, wall {mine['wall'] / theirs['wall']:.3f} of theirs"
    )


class Made:
    """Features and flags as `svm.run` reads them; a twentieth of the absent ones difficult."""

    def __init__(self, part: int, classes: int) -> None:
        rng = np.random.default_rng(0)
        train, test, width = TRAIN // part, TEST // part, WIDTH // part
        rows = train + test
        present = (rng.random((rows, classes)) < 0.08).astype(np.int64)
        mixing = np.linalg.qr(rng.normal(size=(width, width)))[0]
        mixing *= np.arange(1, width + 1)[:, None] ** -0.5
        centres = rng.normal(size=(classes, width)) * APART / width**0.5
        latent = rng.normal(size=(rows, width)) + present @ centres
        self.x = np.maximum(latent @ mixing * 4 + 0.1, 0).astype(np.float32)
        present[(present == 0) & (rng.random(present.shape) < 0.05)] = -1
        self.labels = present
        self.splits = {
            "train": np.arange(0, train, 2),
            "val": np.arange(1, train, 2),
            "test": np.arange(train, rows),
        }

    def read(self, split: str, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features [N, D] and flags [N, C]."""
        rows = self.splits[split]
        return torch.from_numpy(self.x[rows]), torch.from_numpy(self.labels[rows])


def ours(store: Made, settings: Svm, folder: Path) -> dict[str, float]:
    """`svm.run` as the command calls it, with the bootstrap interval that the rival lacks."""
    classes = [str(c) for c in range(store.labels.shape[1])]
    jobs = len(os.sched_getaffinity(0))
    outcome = svm.run(store, classes, settings, folder=folder, seed=0, jobs=jobs)  # type: ignore[arg-type]
    assert outcome.scored
    return dict(outcome.scored.metrics)


def published(store: Made, settings: Svm, folder: Path) -> dict[str, float]:
    """The published scripts' way."""
    train = np.sort(np.concatenate([store.splits["train"], store.splits["val"]]))
    features, targets = normalised(store.x[train]), store.labels[train]
    tasks = [
        (c, cost, folder, features, targets)
        for c in range(targets.shape[1])
        for cost in settings.costs
    ]
    with multiprocessing.get_context("fork").Pool(len(os.sched_getaffinity(0))) as pool:
        for _ in pool.imap_unordered(task, tasks):
            pass
        pool.close()
        pool.join()
    test, truth = normalised(store.x[store.splits["test"]]), store.labels[store.splits["test"]]
    answers = np.zeros(truth.shape)
    for c in range(targets.shape[1]):
        ap = [float(np.load(folder / f"AP_cls{c}_cost{cost}.npy")[0]) for cost in settings.costs]
        cost = settings.costs[int(np.argmax(ap))]
        model = pickle.loads((folder / f"cls{c}_cost{cost}.pickle").read_bytes())
        answers[:, c] = model.decision_function(test)
    return {"mAP": mean_ap(answers, truth, "area")}


def normalised(features: Array) -> Array:
    """Their normalize_features, in float64."""
    wide = features.astype(np.float64)
    return wide / (np.linalg.norm(wide, axis=1) + 1e-5)[:, np.newaxis]


def task(arguments: tuple[int, float, Path, Array, Array]) -> int:
    """Their task: cross-validate and fit one class at one cost, leave two files."""
    c, cost, folder, features, targets = arguments
    machine = LinearSVC(
        C=cost,
        class_weight={1: 2, -1: 1},
        intercept_scaling=1.0,
        penalty="l2",
        loss="squared_hinge",
        tol=0.0001,
        dual=True,
        max_iter=2000,
    )
    labels = targets[:, c].astype(dtype=np.int32, copy=True)
    labels[labels == 0] = -1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = cross_val_score(machine, features, labels, cv=3, scoring="average_precision")
        machine.fit(features, labels)
    np.save(folder / f"AP_cls{c}_cost{cost}.npy", np.array([scores.mean()]))
    (folder / f"cls{c}_cost{cost}.pickle").write_bytes(pickle.dumps(machine))
    return 0


def cpu() -> float:
    """Return the processor's seconds of this process and of its children that have ended."""
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(wait=True)
    total = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        total += usage.ru_utime + usage.ru_stime
    return total


if __name__ == "__main__":
    main()

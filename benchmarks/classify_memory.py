"""Memory and time of features, solver and neighbours on rows of ImageNet's width.

    python -m benchmarks.classify_memory --classes 20   # 200,000 x 2,048: minutes of one core
    python -m benchmarks.classify_memory --rows 1281167 --classes 1000 --queries 50000   # ImageNet

Rows are made up, written as an extraction writes them (10.5 GB of disk for ImageNet) and read as
`linear` and `knn` read them: they stay in their file, and the solver holds one turned copy. Printed
for each part are seconds and the peak of the process's own memory. Pages of the file that are in
memory are shown apart: the system takes them back when it needs the room.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch

from harl_bench.classify import features, knn, linear, stored
from harl_bench.classify.datasets import DataSet
from harl_bench.classify.protocol import Knn, Linear, load
from harl_bench.classify.splits import per_class
from harl_bench.core.progress import set_up_logging

WIDTH, BLOCK = 2048, 8192
IMAGENET = (1_281_167, 1000)
CPU = torch.device("cpu")
GIB = 2**30


def main() -> None:
    """Write rows, run both protocols, print seconds, peaks and what ImageNet would take."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--queries", type=int, default=2_000)
    parser.add_argument("--strengths", type=float, nargs="+", default=[10.0])
    parser.add_argument("--folder", help="of the rows; a temporary one")
    options = parser.parse_args()
    set_up_logging()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        rows, classes = options.rows, options.classes
        data = made(rows, options.queries, classes)
        with measured("writing"):
            write(Path(folder), data)
        store = features.Features(Path(folder), data, data.splits)
        with measured("linear"):
            outcome = linear.run(
                store,
                classes,
                regularizations=options.strengths,
                eps=2e-3,
                device=CPU,
                folder=Path(folder),
            )
        print(f"  top-1 {100 * float((outcome.logits.argmax(1) == outcome.labels).mean()):.1f}")
        settings = load("knn")[1]
        assert isinstance(settings, Knn)
        with measured("knn"):
            knn.run(
                store,
                classes,
                neighbours=list(settings.neighbours),
                temperature=settings.temperature,
                headline=settings.headline,
                device=CPU,
            )
        regression = load("linear")[1]
        assert isinstance(regression, Linear)
        for n, c in ((rows, classes), IMAGENET):
            single, double = (size / GIB for size in regression.memory(n, c, WIDTH))
            near = settings.memory(n, c, WIDTH)[0] / GIB
            print(
                f"--dry-run states for {n:,} rows and {c:,} classes: linear {single:.1f} GiB in "
                f"float32, {double:.1f} in float64, knn {near:.1f}"
            )


def made(rows: int, queries: int, classes: int) -> DataSet:
    """Return a data set without images: a hundredth of the rows is val, the queries are test."""
    total = rows + queries
    held = max(1, rows // 100)
    splits = {
        "train": np.arange(rows - held),
        "val": np.arange(rows - held, rows),
        "test": np.arange(rows, total),
    }
    names = [str(c) for c in range(classes)]
    paths = [f"{row:08d}" for row in range(total)]
    labels, hold_out = np.arange(total) % classes, partial(per_class, count=1)
    return DataSet("made", Path(), names, paths, labels, splits, "made", hold_out)


def write(folder: Path, data: DataSet) -> None:
    """Write a feature folder: rectified, correlated, with a falling spectrum."""
    rng = np.random.default_rng(0)
    mixing = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
    mixing = (np.arange(1, WIDTH + 1)[:, None] ** -0.5 * mixing * 4).astype(np.float32)
    centres = rng.normal(size=(len(data.classes), WIDTH)).astype(np.float32) * 0.12
    stored.create(folder, data.paths, WIDTH)
    with (
        closing(stored.Writer(folder / "features.npy")) as values,
        closing(stored.Writer(folder / "done.npy")) as flags,
    ):
        for i in range(0, len(data.paths), BLOCK):
            rows = np.arange(i, min(i + BLOCK, len(data.paths)))
            noise = rng.standard_normal((len(rows), WIDTH), dtype=np.float32)
            latent = centres[data.labels[rows]] + noise
            values.write(rows, np.maximum(latent @ mixing + np.float32(0.1), 0))
            flags.write(rows, np.full(len(rows), features.DONE, dtype=np.uint8))


@contextmanager
def measured(what: str) -> Iterator[None]:
    """Print seconds and peaks of a block, of which a thread takes samples."""
    peaks, ended = {"RssAnon": 0, "RssFile": 0}, threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            for line in Path("/proc/self/status").read_text().splitlines():
                name, _, value = line.partition(":")
                if name in peaks:
                    peaks[name] = max(peaks[name], 1024 * int(value.split()[0]))

    thread = threading.Thread(target=watch)
    thread.start()
    began, busy = time.monotonic(), time.process_time()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    wall, cpu = time.monotonic() - began, time.process_time() - busy
    own, file = peaks["RssAnon"] / GIB, peaks["RssFile"] / GIB
    text = f"{what}: {wall:.0f} s, {cpu:.0f} CPU s, own memory at most {own:.2f} GiB"
    print(f"{text}, files in memory {file:.2f} GiB", flush=True)


if __name__ == "__main__":
    main()

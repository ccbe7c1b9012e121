"""Oxford Flowers: `flowers-102/{jpg/, imagelabels.mat, setid.mat}`, as torchvision's."""

from functools import partial
from pathlib import Path

from harl_bench.classify.datasets.dataset import DataSet, as_integers, home, listed, matlab
from harl_bench.classify.datasets.published import PUBLISHED
from harl_bench.classify.splits import Rows, stratified
from harl_bench.core.errors import DataError

SPLITS = {"train": "trnid", "val": "valid", "test": "tstid"}


def flowers(root: Path) -> DataSet:
    """Read the official splits. Labels count from 1 in the file and from 0 here.

    Raises:
        DataError: a file or a listed image is missing or damaged.
    """
    base = home("flowers", root, ("flowers-102", "."), "imagelabels.mat")
    labels = _column(base / "imagelabels.mat", "labels")
    images = []
    for split, key in SPLITS.items():
        for number in _column(base / "setid.mat", key):
            if not 1 <= number <= len(labels):
                seen = f"{number} of {len(labels):,}"
                raise DataError("an image without a label", where=base, seen=seen)
            images.append((f"jpg/image_{number:05d}.jpg", int(labels[number - 1]) - 1, split))
    classes = [str(number) for number in range(1, int(labels.max()) + 1)]
    # Not drawn from: the validation split is official.
    return listed("flowers", base, classes, images, partial(stratified, fraction=0.5))


def _column(path: Path, key: str) -> Rows:
    content = matlab("flowers", path)
    if key not in content:
        place = PUBLISHED["flowers"].place
        raise DataError(f"no {key}", where=path, seen=", ".join(content), next=place)
    return as_integers(content[key])

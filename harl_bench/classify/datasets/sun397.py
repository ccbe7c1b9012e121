"""SUN397, official split 1: `SUN397/<letter>/<class>[/<sub>]/sun_*.jpg`,
`SUN397/Partitions/{Training,Testing}_01.txt`.

torchvision's SUN397 knows no split: it returns all 108,754 images in file-system order.
"""

from functools import partial
from pathlib import Path

from harl_bench.classify.datasets.dataset import DataSet, home, lines, listed
from harl_bench.classify.datasets.elsewhere import missing
from harl_bench.classify.datasets.published import PUBLISHED
from harl_bench.classify.splits import proportional
from harl_bench.core.errors import DataError

LISTS = {"train": "Training_01.txt", "test": "Testing_01.txt"}


def sun397(root: Path) -> DataSet:
    """50 training and 50 test images a class; labels are places in ClassName.txt, sorted.

    Raises:
        DataError: a list or a listed image is missing, or an image lies in no class of
            ClassName.txt.
    """
    published = PUBLISHED["sun397"]
    base = home("sun397", root, ("SUN397", "."), "a/abbey")
    folders = [base / "Partitions", base, base.parent / "Partitions"]
    partitions = next((folder for folder in folders if (folder / LISTS["train"]).is_file()), None)
    if partitions is None:
        raise missing(
            "no Partitions/Training_01.txt",
            base,
            f"Partitions/{LISTS['train']}",
            next=published.place,
        )
    names = base / "ClassName.txt"
    classes = sorted(lines(names if names.is_file() else partitions / "ClassName.txt"))
    number = {name: label for label, name in enumerate(classes)}
    images = []
    for split, file in LISTS.items():
        for path in lines(partitions / file):
            name = path.rpartition("/")[0]
            if name not in number:
                raise DataError("a listed image is of no class", where=partitions / file, seen=path)
            images.append((path.lstrip("/"), number[name], split))
    plain = [name.lstrip("/").partition("/")[2] for name in classes]  # /a/abbey -> abbey
    return listed(
        "sun397", base, plain, images, partial(proportional, held=published.val, of=published.train)
    )

"""The published data sets: counts, Table A2's validation sizes, archives, and where files belong.

Counts are those of HARL's Table A2 (equal to BYOL's Table 10). DTD's val is official. ImageNet's
10,000 are ours, 10 a class (BYOL's paper says 10,009, its code 10,000). Checksums are those of
torchvision, of an older one for Cars and SUN397, and were not computed from the archives.
"""

from typing import Literal, NamedTuple

Metric = Literal["top1", "mean_per_class"]


class Published(NamedTuple):
    """One data set.

    Args:
        train: official training images, of which `val` are held out (DTD: besides them).
        marker: sub-folders by which a folder is recognised as holding the set.
        archives: md5 by file name.
        place: what to do when something is missing.
        metric: what papers score the set by (BYOL's Table 10: top-1 for these).
    """

    classes: int
    train: int
    val: int
    test: int
    marker: tuple[str, ...]
    archives: dict[str, str]
    place: str
    metric: Metric = "top1"


PUBLISHED = {
    "food101": Published(
        101,
        75_750,
        7_575,
        25_250,
        ("food-101",),
        {"food-101.tar.gz": "85eeb15f3717b99a5da872d97d918f87"},
        "unpack food-101.tar.gz in the data folder (5 GB, data.vision.ee.ethz.ch)",
    ),
    "cifar10": Published(
        10,
        50_000,
        5_000,
        10_000,
        ("cifar-10-batches-py", "cifar-10-batches-bin"),
        {"cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a"},
        "unpack cifar-10-python.tar.gz in the data folder (170 MB, "
        "www.cs.toronto.edu/~kriz/cifar.html)",
    ),
    "cifar100": Published(
        100,
        50_000,
        5_067,
        10_000,
        ("cifar-100-python", "cifar-100-binary"),
        {"cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85"},
        "unpack cifar-100-python.tar.gz in the data folder (169 MB, "
        "www.cs.toronto.edu/~kriz/cifar.html)",
    ),
    "sun397": Published(
        397,
        19_850,
        3_970,
        19_850,
        ("SUN397",),
        {"SUN397.tar.gz": "8ca2778205c41d23104230ba66911c7a"},
        "place SUN397/<letter>/<class>/*.jpg and "
        "SUN397/Partitions/{Training_01,Testing_01,ClassName}.txt by hand: "
        "the official host is gone since 2025 (pytorch/vision#9348)",
    ),
    "cars": Published(
        196,
        8_144,
        1_650,
        8_041,
        ("stanford_cars", "car_ims"),
        {
            "cars_train.tgz": "065e5b463ae28d29e77c1b4b166cfe61",
            "cars_test.tgz": "4ce7ebf6a94d07f1952d94dd34c4d501",
            "car_devkit.tgz": "c3b158d763b6e2245038c8ad08e45376",
            "cars_test_annos_withlabels.mat": "b0a2b23655a3edd16d84508592a98d10",
        },
        "place stanford_cars/{cars_train, cars_test, devkit/cars_meta.mat, "
        "devkit/cars_train_annos.mat, "
        "cars_test_annos_withlabels.mat} by hand, or car_ims/ with cars_annos.mat: the official "
        "host is gone since "
        "2023 (pytorch/vision#7545)",
    ),
    "dtd": Published(
        47,
        1_880,
        1_880,
        1_880,
        ("dtd",),
        {"dtd-r1.0.1.tar.gz": "fff73e5086ae6bdbea199a49dfb8a4c1"},
        "unpack dtd-r1.0.1.tar.gz in the folder dtd of the data folder (600 MB, "
        "www.robots.ox.ac.uk/~vgg/data/dtd)",
    ),
    "imagenet": Published(
        1_000,
        1_281_167,
        10_000,
        50_000,
        (),
        {
            "ILSVRC2012_img_train.tar": "1d675b47d978889d74fa0da5fadfb00e",
            "ILSVRC2012_img_val.tar": "29b22e2961454d5413ddabcf34fc5622",
        },
        "lay the images out as train/<wnid>/ and val/<wnid>/ by hand: the archives need a login "
        "at image-net.org",
    ),
}


def published(name: str) -> Published:
    """Return what is known of a data set, which of one that is not listed above is next to
    nothing.
    """
    place = "unpack the data set as its authors publish it"
    return PUBLISHED.get(name, Published(0, 0, 0, 0, (), {}, place))

"""The published data sets: counts, Table A2's validation sizes, archives, and where files belong.

Counts are those of BYOL's Table 10, whose six that HARL reports equal its Table A2. Caltech-101's
include the background class, which the reader leaves out. ImageNet's 10,000 are ours, 10 a class
(BYOL's paper says 10,009, its code 10,000), and so are those of the last three before it. The
counts of ImageNet-100 are those that its users state. Checksums
are those of torchvision, of an older one for Cars and SUN397, and were not computed from the
archives.
"""

from typing import Literal, NamedTuple

Metric = Literal["top1", "mean_per_class", "mAP11"]


class Published(NamedTuple):
    """One data set.

    Args:
        train: official training images, of which `val` are held out unless `official_val`.
        marker: paths, any of which tells that a folder holds the set.
        archives: md5 by file name.
        place: what to do when something is missing.
        metric: what papers score the set by (BYOL's Table 10).
        official_val: val is the authors' and no part of train.
    """

    classes: int
    train: int
    val: int
    test: int
    marker: tuple[str, ...]
    archives: dict[str, str]
    place: str
    metric: Metric = "top1"
    official_val: bool = False


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
        official_val=True,
    ),
    "birdsnap": Published(
        500,
        47_386,
        4_981,
        2_443,
        ("birdsnap",),
        {},
        "unpack birdsnap.tgz in the data folder (thomasberg.org/datasets/birdsnap/1.1) and run its "
        "get_birdsnap.py in the folder birdsnap, which writes download/images: many links are dead",
    ),
    "aircraft": Published(
        100,
        3_334,
        3_333,
        3_333,
        ("fgvc-aircraft-2013b",),
        {},
        "unpack fgvc-aircraft-2013b.tar.gz in the data folder (2.6 GB, "
        "www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft)",
        "mean_per_class",
        official_val=True,
    ),
    "voc2007-cls": Published(
        20,
        2_501,
        2_510,
        4_952,
        ("VOC2007/ImageSets/Main/aeroplane_test.txt",),
        {
            "VOCtrainval_06-Nov-2007.tar": "c52e279531787c972589f7e41ab4ae64",
            "VOCtest_06-Nov-2007.tar": "b6e924de25625d8de591ea690078ad9f",
        },
        "unpack VOCtrainval_06-Nov-2007.tar and VOCtest_06-Nov-2007.tar in the data folder (0.9 "
        "GB, host.robots.ox.ac.uk/pascal/VOC/voc2007)",
        "mAP11",
        official_val=True,
    ),
    "pets": Published(
        37,
        3_680,
        740,
        3_669,
        ("oxford-iiit-pet",),
        {
            "images.tar.gz": "5c4f3ee8e5d25df40f4fd59a7f44e54c",
            "annotations.tar.gz": "95a8c909bbe2e81eed6a22bccdf3f68f",
        },
        "unpack images.tar.gz and annotations.tar.gz in the folder oxford-iiit-pet of the data "
        "folder (800 MB, www.robots.ox.ac.uk/~vgg/data/pets)",
        "mean_per_class",
    ),
    "caltech101": Published(
        101,
        3_060,
        510,
        6_084,
        ("caltech101", "caltech-101", "101_ObjectCategories"),
        {"caltech-101.zip": "3138e1922a9193bfa496528edbbc45d0"},
        "unpack caltech-101.zip in the data folder and 101_ObjectCategories.tar.gz in its folder "
        "caltech-101 (140 MB, data.caltech.edu/records/mzrjq-6wc02)",
        "mean_per_class",
    ),
    "flowers": Published(
        102,
        1_020,
        1_020,
        6_149,
        ("flowers-102",),
        {
            "102flowers.tgz": "52808999861908f626f3c1f4e79d11fa",
            "imagelabels.mat": "e0620be6f572b9609742df49c70aed4d",
            "setid.mat": "a5357ecc9cb78c4bef273ce3793fc85c",
        },
        "unpack 102flowers.tgz in the folder flowers-102 of the data folder and place "
        "imagelabels.mat and setid.mat there (330 MB, www.robots.ox.ac.uk/~vgg/data/flowers/102)",
        "mean_per_class",
        official_val=True,
    ),
    "stl10": Published(
        10,
        5_000,
        500,
        8_000,
        ("stl10_binary",),
        {"stl10_binary.tar.gz": "91f7769df0f17e558f3565bffb0c7dfb"},
        "unpack stl10_binary.tar.gz in the data folder (2.6 GB, cs.stanford.edu/~acoates/stl10)",
    ),
    "places365": Published(
        365,
        1_803_460,
        3_650,
        36_500,
        tuple(f"{folder}places365_train_standard.txt" for folder in ("", "places365/")),
        {
            "train_256_places365standard.tar": "53ca1c756c3d1e7809517cc47c5561c5",
            "val_256.tar": "e27b17d8d44f4af9a78502beb927f808",
        },
        "unpack filelist_places365-standard.tar, train_256_places365standard.tar and val_256.tar "
        "in the folder places365 of the data folder (30 GB, places2.csail.mit.edu)",
    ),
    "inaturalist2018": Published(
        8_142,
        437_513,
        8_142,
        24_426,
        tuple(f"{folder}train2018.json" for folder in ("", "inaturalist2018/", "inat2018/")),
        {"train_val2018.tar.gz": "b1c6952ce38f31868cc50ea72d066cc3"},
        "unpack train_val2018.tar.gz, train2018.json.tar.gz and val2018.json.tar.gz in the folder "
        "inaturalist2018 of the data folder (120 GB, github.com/visipedia/inat_comp)",
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
    "imagenet100": Published(
        100,
        126_689,
        1_000,
        5_000,
        ("imagenet100/train",),
        {},
        "put the 100 classes (imagenet100.txt of HobbitLong/CMC) into imagenet100/train/<wnid>/ "
        "and imagenet100/val/<wnid>/ of the data folder",
    ),
}


def published(name: str) -> Published:
    """Return what is known of a data set, which of one that is not listed above is next to
    nothing.
    """
    place = "unpack the data set as its authors publish it"
    return PUBLISHED.get(name, Published(0, 0, 0, 0, (), {}, place))

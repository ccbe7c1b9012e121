"""A pytest plugin that builds one known mistake into the code, the one $HARL_BENCH_MISTAKE names.

`test_canaries.py` runs the test that guards against it: that test must fail, or the mistake could
creep in unseen.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple


class Mistake(NamedTuple):
    """How to make it, and the test that notices."""

    make: Callable[[], None]
    guard: str


def batch_norm_in_training_mode() -> None:
    from harl_bench.classify import features

    network = features.network
    features.network = lambda *a, **k: network(*a, **k).train()


def mask_flipped_beside_its_image() -> None:
    from PIL import Image

    from pretrain import data

    crop = data.crop
    data.crop = lambda image, mask, *rest: crop(
        image, mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT), *rest
    )


def seed_without_effect() -> None:
    from harl_bench.detection.torchvision_engine import data

    batches = data.training_batches
    data.training_batches = lambda *a, seed=0, **k: batches(*a, seed=0, **k)


def pretraining_seed_without_effect() -> None:
    from pretrain import data

    rngs = data.TwoViews._rngs

    def always_the_same(self: Any, *rest: Any) -> Any:
        self.seed = 0
        return rngs(self, *rest)

    data.TwoViews._rngs = always_the_same
    order = data.order
    data.order = lambda n, seed, epoch: order(n, seed=0, epoch=epoch)


def finetuning_seed_without_effect() -> None:
    from harl_bench.classify import pixels, training

    assert training.Crops is pixels.Crops, "moved?"
    made = pixels.Crops.__init__
    pixels.Crops.__init__ = lambda self, data, transform, area, seed: made(
        self, data, transform, area, 0
    )


def labels_shuffled() -> None:
    import torch

    from harl_bench.classify import features

    read = features.Features.read

    def shuffled(self: Any, *rest: Any) -> Any:
        x, labels = read(self, *rest)
        return x, labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]

    features.Features.read = shuffled


def a_test_image_learnt_from() -> None:
    from harl_bench.doctor import classification

    classification._in_two_splits = lambda images: []


def labels_in_another_order() -> None:
    from harl_bench.detection.datasets import coco

    categories = coco._categories

    def turned(*a: Any) -> Any:
        ids, names = categories(*a)
        return ids, names[::-1]

    coco._categories = turned


def channels_swapped() -> None:
    from harl_bench.classify import network

    load = network.load_backbone

    def swapped(model: Any, tensors: Any) -> Any:
        return load(model, {**tensors, "conv1.weight": tensors["conv1.weight"].flip(1)})

    network.load_backbone = swapped


def validation_within_training() -> None:
    from harl_bench.classify import splits

    divided = splits._divided

    def leaking(labels: Any, rows: Any, counts: Any, generator: Any) -> Any:
        _, held = divided(labels, rows, counts, generator)
        return rows, held

    splits._divided = leaking


def test_read_before_the_choice() -> None:
    from harl_bench.classify import features

    read = features.Features.read

    def peeking(self: Any, split: str, device: Any) -> Any:
        if split == "val":
            self.read("test", device)
        return read(self, split, device)

    features.Features.read = peeking


def boxes_one_pixel_off() -> None:
    from harl_bench.detection.metrics import voc

    lines = voc.lines
    voc.lines = lambda image_id, boxes, *rest: lines(image_id, boxes + 1, *rest)


CLASSIFY = "tests/classify/test_classify.py::test_"
FEATURES = "tests/classify/test_features.py::test_"
MISTAKES = {
    "batch norm left in training mode": Mistake(
        batch_norm_in_training_mode, f"{FEATURES}features_are_the_pooled_network_in_evaluation_mode"
    ),
    "mask flipped, image not": Mistake(
        mask_flipped_beside_its_image,
        "tests/pretrain/test_data.py::test_masks_stay_with_their_images",
    ),
    "a seed that changes nothing": Mistake(
        seed_without_effect,
        "tests/detection/test_data.py::test_seed_decides_order_and_augmentation",
    ),
    "a pretraining's seed that changes nothing": Mistake(
        pretraining_seed_without_effect,
        "tests/pretrain/test_data.py::test_draws_depend_on_seed_epoch_and_index_alone",
    ),
    "a fine-tuning's seed that changes nothing": Mistake(
        finetuning_seed_without_effect,
        "tests/classify/test_training.py::TestBatches::test_crops_depend_on_seed_epoch_and_row_alone",
    ),
    "labels beside other images": Mistake(
        labels_shuffled, f"{CLASSIFY}a_run_is_measured_recorded_and_not_repeated"
    ),
    "a test image among those learnt from": Mistake(
        a_test_image_learnt_from, "tests/doctor/test_data.py::test_an_image_in_two_splits_is_a_leak"
    ),
    "class names in another order": Mistake(
        labels_in_another_order,
        "tests/detection/test_coco_sets.py::test_coco_sorts_categories_and_images",
    ),
    "BGR taken for RGB": Mistake(
        channels_swapped, f"{FEATURES}features_are_the_pooled_network_in_evaluation_mode"
    ),
    "validation images in training": Mistake(
        validation_within_training, "tests/classify/test_splits.py"
    ),
    "test split read before the choice": Mistake(
        test_read_before_the_choice,
        f"{CLASSIFY}the_test_split_is_read_once_and_after_the_choice_is_written",
    ),
    "boxes one pixel off": Mistake(boxes_one_pixel_off, "tests/detection/test_voc_metric.py"),
}


def pytest_configure() -> None:
    MISTAKES[os.environ["HARL_BENCH_MISTAKE"]].make()

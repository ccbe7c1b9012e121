"""The stream of batches, a function of seed and position alone, and unreadable images."""

import numpy as np
import pytest
from PIL import Image

from harl_bench.core.errors import DataError
from harl_bench.detection import recipe
from harl_bench.detection.datasets import coco, voc
from harl_bench.detection.datasets.sample import Samples
from harl_bench.detection.torchvision_engine import data, transforms
from tests.detection import tiny

SMALL = ["SOLVER.IMS_PER_BATCH=2", "INPUT.MIN_SIZE_TRAIN=(32, 40)", "INPUT.MAX_SIZE_TRAIN=64"]


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    return coco.read(tiny.coco(tmp_path_factory.mktemp("coco"), train=9), "coco_2017_train")


def taken(read, n, **options):
    """The first batches as comparable values."""
    batches = data.training_batches(read, recipe.load("coco-fpn-toy", SMALL), **options)
    found = [next(batches) for _ in range(n)]
    return [
        [(i["image_id"], tuple(i["image"].shape), int(i["image"].sum())) for i in batch]
        for batch in found
    ]


def test_any_position_can_be_entered(read):
    whole = taken(read, 12, seed=3)
    assert taken(read, 4, seed=3, start=8) == whole[8:]


def test_worker_processes_change_nothing(read):
    assert taken(read, 6, seed=3, workers=2) == taken(read, 6, seed=3)


def test_seed_decides_order_and_augmentation(read):
    one, two = taken(read, 9, seed=0), taken(read, 9, seed=1)
    assert one == taken(read, 9, seed=0)
    assert [[i[0] for i in b] for b in one] != [[i[0] for i in b] for b in two]
    sizes = {(i[0], i[1:]) for b in one + two for i in b}
    # one image, several sizes or flips
    assert len({image_id for image_id, _ in sizes}) < len(sizes)


def test_batches_have_one_orientation_unless_told_otherwise():
    wide = [True, False] * 20
    grouped, mixed = (data.batch_indices(wide, 4, seed=0, group=group) for group in (True, False))
    assert all(len({wide[i] for _, i in next(grouped)}) == 1 for _ in range(20))
    assert any(len({wide[i] for _, i in next(mixed)}) == 2 for _ in range(20))


def test_ranks_share_one_stream():
    stream = data.shuffled(10, seed=4)
    order = [next(stream) for _ in range(40)]
    for rank in (0, 1):
        mine = data.batch_indices([True] * 10, 1, seed=4, rank=rank, world=2)
        assert [next(mine)[0][1] for _ in range(20)] == order[rank::2]


def test_each_epoch_shows_every_image():
    stream = data.shuffled(7, seed=0)
    assert all(sorted(next(stream) for _ in range(7)) == list(range(7)) for _ in range(5))


def test_testing_shares_are_contiguous_and_complete(read):
    settings = recipe.load("coco-fpn-toy", ["INPUT.MIN_SIZE_TEST=32"])
    shares = [
        [b[0]["image_id"] for b in data.evaluation_batches(read.samples, settings, rank=r, world=2)]
        for r in (0, 1)
    ]
    assert shares[0] + shares[1] == [s.image_id for s in read.samples]
    assert all(len(b) == 1 for b in data.evaluation_batches(read.samples, settings))


def test_crowds_and_empty_objects_are_left_out_of_a_training_item(read):
    sample = next(s for s in read.samples if s.crowd.any())
    item = transforms.for_training(
        sample,
        np.random.RandomState(0),
        sizes_px=(40,),
        max_px=64,
        flip=False,
        channels="RGB",
        masks=True,
    )
    assert len(item["instances"]) == (~sample.crowd).sum()


def test_exif_rotation_and_channel_order(tmp_path):
    root = tiny.voc(tmp_path, years=("VOC2007",))
    path = root / "VOC2007/JPEGImages/000001.jpg"
    upright = Image.open(path).convert("RGB")
    exif = Image.Exif()
    exif[274] = 6  # stored turned; a reader must turn it by 270 degrees
    upright.transpose(Image.Transpose.ROTATE_90).save(path, format="PNG", exif=exif)
    sample = voc.read(root, "voc_2007_trainval").samples[0]
    rgb, bgr = (
        transforms.for_testing(sample, short_px=min(upright.size), max_px=999, channels=channels)[
            "image"
        ].numpy()
        for channels in ("RGB", "BGR")
    )
    np.testing.assert_array_equal(rgb, np.asarray(upright).transpose(2, 0, 1))
    np.testing.assert_array_equal(bgr, rgb[::-1])


def broken(root, name="000002"):
    path = root / "VOC2007/JPEGImages" / f"{name}.jpg"
    path.write_bytes(path.read_bytes()[:300])
    return path


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_image_is_replaced_and_named(tmp_path, workers):
    root = tiny.voc(tmp_path, years=("VOC2007",))
    path = broken(root)
    batches = data.training_batches(
        voc.read(root, "voc_2007_trainval"),
        recipe.load("voc-c4-toy", SMALL),
        seed=0,
        workers=workers,
    )
    items = [item for _ in range(9) for item in next(batches)]
    assert {p for item in items for p in item["unreadable"]} == {str(path)}
    assert len(items) == 18
    assert "000002" not in {item["image_id"] for item in items}


@pytest.mark.parametrize("workers", [0, 1])
def test_wrong_size_is_an_error_even_in_a_worker(tmp_path, workers):
    root = tiny.voc(tmp_path, years=("VOC2007",))
    tiny.draw_image(root / "VOC2007/JPEGImages/000002.jpg", (20, 20), [], 0)
    batches = data.training_batches(
        voc.read(root, "voc_2007_trainval"),
        recipe.load("voc-c4-toy", SMALL),
        seed=0,
        workers=workers,
    )
    with pytest.raises(DataError, match=r"differ in size.*image 20 x 20, annotation 52 x 52"):
        [next(batches) for _ in range(9)]


def test_samples_are_a_list_that_pickles():
    import pickle

    samples = Samples([])
    assert len(samples) == 0
    assert len(pickle.loads(pickle.dumps(samples))) == 0
    with pytest.raises(IndexError):
        samples[0]

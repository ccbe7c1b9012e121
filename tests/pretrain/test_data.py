"""Images and masks: paired by relative path, drawn by (seed, epoch, index), faults counted."""

import csv
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from harl_bench.core.errors import DataError, UsageError
from pretrain import data
from pretrain.views import BYOL_VIEWS, VIEWS
from tests.pretrain.conftest import write_images


def dataset(images: Path, masks: Path | None, *, seed: int = 0) -> data.TwoViews:
    return data.TwoViews(data.find(images, masks), views=BYOL_VIEWS, size=32, seed=seed)


def test_pairs_by_relative_path_even_below_a_folder_named_train(tmp_path: Path) -> None:
    images, masks = write_images(tmp_path / "train" / "train_masks", 4)
    found = data.find(images, masks)
    assert found.masked.tolist() == [True] * 4
    assert [p.as_posix() for p in found.paths] == [
        "n0/p000.png",
        "n0/p002.png",
        "n1/p001.png",
        "n1/p003.png",
    ]


@pytest.mark.parametrize("unfinished", [False, True])
@pytest.mark.parametrize("crop", ["random", "mask_boxes", "mask_center"])
@pytest.mark.parametrize("name", ["byol", "harl_official_pt"])
def test_masks_stay_with_their_images(
    tmp_path: Path, name: str, crop: str, unfinished: bool
) -> None:
    """From disk to the batch that is trained on: white on black, where the mask says so."""
    for i, (height, width) in enumerate(((90, 61), (64, 64), (51, 120))):
        mask = np.zeros((height, width), np.uint8)
        mask[height // 8 : height // 2, width // 9 : width // 3] = 255
        for folder, array in (("images", np.stack([mask] * 3, axis=-1)), ("masks", mask)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(array).save(tmp_path / folder / f"{i}.png")
    plain = [replace(v, crop=crop, jitter=0, grayscale=0, blur=0, solarize=0) for v in VIEWS[name]]
    found = data.find(tmp_path / "images", tmp_path / "masks")
    views = data.TwoViews(found, views=plain, size=64, seed=0, unfinished=unfinished)
    batch = data.on_device(
        data.collate([views[epoch, i] for epoch in range(4) for i in range(3)]), torch.device("cpu")
    )
    white, foreground = batch.views.mean(dim=2, keepdim=True) > 0, batch.masks > 0.5
    assert foreground.any()
    assert (~foreground).any()
    assert (white == foreground).float().mean() > 0.95  # the edges are resampled


def test_missing_and_rejected_masks_count_for_the_whole_image_only(
    folders: tuple[Path, Path],
) -> None:
    images, masks = folders
    (masks / "n0/p000.png").unlink()
    with open(masks / "manifest.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["path", "valid"], ["n0/p002.png", 0], ["n0/p004.png", 1]])
    found = data.find(images, masks)
    by_name = dict(zip([p.as_posix() for p in found.paths], found.masked, strict=True))
    assert not by_name["n0/p000.png"]
    assert not by_name["n0/p002.png"]
    assert by_name["n0/p004.png"]
    assert found.rejected == 1
    batch = data.collate([dataset(images, masks)[0, i] for i in range(3)])
    assert batch.has_mask.tolist() == [False, False, True]


@pytest.mark.parametrize("suffix", [".jpg", ".PNG", "_mask.png"])
def test_masks_of_other_names_are_used(folders: tuple[Path, Path], suffix: str) -> None:
    images, masks = folders
    for path in sorted(masks.rglob("*.png")):
        mask = Image.open(path)
        path.unlink()
        mask.save(path.with_name(path.stem + suffix), quality=95)
    found = data.find(images, masks)
    assert found.masked.all()
    assert found.masks is not None
    stems = [found.masks.where(int(k)).stem.removesuffix("_mask") for k in found.mask_of]
    assert stems == [path.stem for path in found.paths]


def test_masks_beside_their_images(folders: tuple[Path, Path]) -> None:
    """x_mask.png beside x.png: a mask, and no image."""
    images, masks = folders
    for path in sorted(masks.rglob("*.png")):
        path.rename(images / path.relative_to(masks).with_name(f"{path.stem}_mask.png"))
    found = data.find(images, images)
    assert (len(found.paths), found.masked.all()) == (12, True)
    assert not any("_mask" in str(path) for path in found.paths)
    for other in (None, masks.parent / "other"):  # BYOL learnt from both
        with pytest.raises(UsageError, match="masks beside the images would be trained on, too"):
            data.find(images, other)
    for path in images.rglob("*_mask.png"):  # a photo may have such a name
        Image.effect_noise((9, 9), 90).convert("RGB").save(path)
    assert len(data.find(images, None).paths) == 24


@pytest.mark.parametrize("linked", [False, True])
def test_masks_in_a_folder_among_the_images_are_refused(
    folders: tuple[Path, Path], linked: bool
) -> None:
    """Half of what was trained on were masks."""
    images, masks = folders
    inside = images / "masks"
    if linked:
        inside.symlink_to(masks)
    else:
        masks.rename(inside)
    with pytest.raises(UsageError, match=r"masks among the images.*images/masks"):
        data.find(images, inside)
    hidden = inside.rename(images / ".masks")  # which no list of images looks into
    assert len(data.find(images, hidden).paths) == 12


def test_masks_among_the_images_are_refused_though_none_are_asked_for(
    folders: tuple[Path, Path],
) -> None:
    """BYOL learnt from them, too."""
    images, masks = folders
    root = images.parent
    assert masks.parent == root
    if (images.name, masks.name) != ("images", "masks"):
        images.rename(root / "images")
        masks.rename(root / "masks")
    with pytest.raises(UsageError, match="masks among the images would be trained on"):
        data.find(root, None)
    (root / "images").rename(root / "cats")  # a class of the name, say
    assert len(data.find(root, None).paths) == 24


def test_images_and_masks_that_are_swapped(folders: tuple[Path, Path]) -> None:
    """Photos were read as masks: whatever is bright was foreground."""
    with pytest.raises(UsageError, match=r"images and masks are swapped.*the other way round"):
        data.find(folders[1], folders[0])
    assert data.find(*folders).masked.all()


def test_no_mask_at_all_is_an_error_that_names_the_command(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "other" / "x.png")
    with pytest.raises(DataError, match=r"no image has a mask.*harl-bench masks make"):
        data.find(folders[0], tmp_path / "other")


def test_a_mask_of_another_size_stops(folders: tuple[Path, Path]) -> None:
    images, masks = folders
    Image.new("L", (5, 5), 255).save(masks / "n0/p000.png")
    batch = data.collate([dataset(images, masks)[0, 0]])
    assert isinstance(batch.error, DataError)
    assert "differ in size" in batch.error.line()


def test_draws_depend_on_seed_epoch_and_index_alone(folders: tuple[Path, Path]) -> None:
    images, masks = folders
    first = dataset(images, masks)[3, 5]
    again = dataset(images, masks)
    again[0, 1]  # another draw in between changes nothing
    assert all(torch.equal(a, b) for a, b in zip(first.views, again[3, 5].views, strict=True))
    assert not torch.equal(first.views[0], again[4, 5].views[0])
    assert not torch.equal(first.views[0], dataset(images, masks, seed=1)[3, 5].views[0])
    assert not torch.equal(first.views[0], first.views[1])


def test_workers_change_nothing(folders: tuple[Path, Path]) -> None:
    images, masks = folders
    read = []
    for workers in (0, 2):
        batches = data.Batches(12, batch_size=4, seed=0, first=0, last=4)
        read.append(
            [batch.views for batch in data.loader(dataset(images, masks), batches, workers=workers)]
        )
    assert all(torch.equal(a, b) for a, b in zip(*read, strict=True))


def test_order_is_a_new_permutation_each_epoch_and_resumes_in_the_middle() -> None:
    whole = list(data.Batches(10, batch_size=3, seed=0, first=0, last=9))
    assert list(data.Batches(10, batch_size=3, seed=0, first=4, last=9)) == whole[4:]
    epochs = [[i for batch in whole[e * 3 : e * 3 + 3] for _, i in batch] for e in range(3)]
    assert all(len(set(epoch)) == 9 for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert [epoch for batch in whole for epoch, _ in batch] == [0] * 9 + [1] * 9 + [2] * 9
    other = list(data.Batches(10, batch_size=3, seed=1, first=0, last=9))
    assert other != whole


def test_unreadable_images_are_replaced_and_named(folders: tuple[Path, Path]) -> None:
    images, masks = folders
    (images / "n0/p000.png").write_bytes(b"not an image")
    sample = dataset(images, masks)[0, 0]
    assert [name for name, _ in sample.unreadable] == ["n0/p000.png"]
    assert torch.equal(sample.views[0], dataset(images, masks)[0, 1].views[0])


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "I;16", "RGBA", "1"])
def test_every_kind_of_image_becomes_a_view(tmp_path: Path, mode: str) -> None:
    (tmp_path / "images").mkdir()
    levels = np.random.default_rng(0).integers(0, 255, (40, 30), dtype=np.uint8)
    image = (
        Image.fromarray(levels.astype(np.uint16) * 257)
        if mode == "I;16"
        else Image.fromarray(levels).convert(mode)
    )
    image.save(tmp_path / "images" / ("x.jpg" if mode == "CMYK" else "x.png"))
    sample = dataset(tmp_path / "images", None)[0, 0]
    assert sample.views[0].shape == (3, 32, 32)
    assert sample.views[0].isfinite().all()


def test_an_image_of_one_pixel(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (10, 20, 30)).save(tmp_path / "x.png")
    assert dataset(tmp_path, None)[0, 0].views[1].shape == (3, 32, 32)


def test_batches_larger_than_the_data_are_an_error() -> None:
    with pytest.raises(UsageError, match=r"4096 > 12 images.*batch_size=3"):
        data.steps_per_epoch(12, 4096)


def test_fingerprint_changes_with_the_data(folders: tuple[Path, Path]) -> None:
    images, masks = folders
    before = data.find(images, masks).fingerprint()
    assert before == data.find(images, masks).fingerprint()
    (masks / "n0/p000.png").unlink()
    assert before != data.find(images, masks).fingerprint()


def test_threads_of_opencv_end_before_workers_are_forked(folders: tuple[Path, Path]) -> None:
    """Else each worker waits without end for threads that are not its own."""
    cv2.setNumThreads(2)
    cv2.resize(np.zeros((64, 64, 3), np.uint8), (2048, 2048))
    iter(
        data.loader(
            dataset(*folders), data.Batches(8, batch_size=4, seed=0, first=0, last=1), workers=1
        )
    )
    assert cv2.getNumThreads() == 1  # OpenCV's word for none

"""Listing images: files and .tar shards, remembered while nothing changes, faults in one line."""

import io
import os
import pickle
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from harl_bench.cli import main
from pretrain import data, index
from pretrain.names import Names
from pretrain.views import BYOL_VIEWS
from tests.pretrain.conftest import write_images
from tests.pretrain.test_pretrain import RESNET18


def pack(root: Path, out: Path, size: int = 5) -> Path:
    """The files below root as webdataset shards of `size` members, a label beside each image."""
    out.mkdir(parents=True)
    files = sorted(p.relative_to(root) for p in root.rglob("*") if p.is_file())
    for start in range(0, len(files), size):
        with tarfile.open(out / f"shard-{start:06d}.tar", "w") as tar:
            for name in files[start : start + size]:
                tar.add(root / name, arcname=str(name))
                label = tarfile.TarInfo(str(name.with_suffix(".cls")))
                label.size = 1
                tar.addfile(label, io.BytesIO(b"7"))
    return out


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Remember every list, in a folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(index, "REMEMBER_FROM", 1)
    monkeypatch.setattr(index, "RACY_S", -3600.0)
    return tmp_path / "cache" / "harl-bench" / "index"


def test_a_list_is_remembered_until_something_changes(
    folders: tuple[Path, Path], cache: Path
) -> None:
    images = folders[0]
    first = index.index(images)
    assert len(list(cache.glob("*.npz"))) == 1

    def listed(*arguments: object) -> None:
        raise AssertionError("listed again")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "_listed", listed)
        again = index.index(images)
        assert again.names.strings() == first.names.strings()
        assert again.fingerprint() == first.fingerprint()
        with (images / "n0" / "p000.png").open("ab") as file:
            file.write(b"longer")
        with pytest.raises(AssertionError, match="listed again"):
            index.index(images)
    index.index(images)
    (images / "n1" / "p001.png").unlink()
    assert len(index.index(images).names) == 11
    next(cache.glob("*.npz")).write_bytes(b"damaged")
    assert len(index.index(images).names) == 11


def test_a_remembered_shard_is_listed_again_when_it_changes(
    folders: tuple[Path, Path], tmp_path: Path, cache: Path
) -> None:
    shards = pack(folders[0], tmp_path / "shards")
    assert len(index.index(shards).names) == 12
    assert len(index.index(shards).names) == 12
    with tarfile.open(shards / "shard-000000.tar", "a") as tar:
        tar.add(folders[0] / "n0" / "p000.png", arcname="new/one.png")
    os.utime(shards / "shard-000000.tar", ns=(1, 1))
    assert len(index.index(shards).names) == 13


def test_few_images_leave_nothing_in_the_users_cache(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    index.index(folders[0])
    assert not (tmp_path / "cache").exists()


def test_names_behave_as_a_list_of_paths_and_travel() -> None:
    names = ["a/b.jpg", "a-b.jpg", "ä/\udcff.png", "z.jpg"]
    kept = pickle.loads(pickle.dumps(Names.of(names)))
    assert kept.strings() == names
    assert [str(p) for p in kept] == names
    assert (kept[-1], kept[1:3]) == (Path("z.jpg"), [Path("a-b.jpg"), Path("ä/\udcff.png")])
    with pytest.raises(IndexError):
        kept[4]


def test_order_is_that_of_sorted_paths(tmp_path: Path) -> None:
    for name in ("b/x.jpg", "a-b/y.jpg", "a/z.jpg", "a/b/q.jpg", "c.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert list(index.index(tmp_path).names) == sorted(
        p.relative_to(tmp_path) for p in tmp_path.rglob("*.jpg")
    )


def test_two_images_that_would_share_a_mask_are_refused_in_one_line(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, masks = folders
    Image.new("RGB", (50, 50)).save(images / "n0" / "p000.jpg")
    command = [
        "pretrain",
        "--recipe",
        "harl-toy",
        *RESNET18,
        "--data",
        str(images),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main([*command, "--masks", str(masks)]) == 3
    error = capsys.readouterr().err
    assert "two images would share one mask" in error
    assert "n0/p000.jpg and n0/p000.png" in error
    assert error.count("\n") == 1
    assert len(data.find(images, None).paths) == 13  # without masks both are images


def test_unreadable_masks_count_for_the_whole_image_and_too_many_stop(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, masks = write_images(tmp_path, 12)
    (masks / "n0" / "p002.png").write_bytes(b"no mask")
    sample = data.TwoViews(data.find(images, masks), views=BYOL_VIEWS, size=32, seed=0)[0, 1]
    assert not sample.has_mask
    assert [name for name, _ in sample.unreadable] == ["mask of n0/p002.png"]
    out = tmp_path / "out"
    command = [
        "pretrain",
        "--recipe",
        "harl-toy",
        *RESNET18,
        "--data",
        str(images),
        "--masks",
        str(masks),
        "--out",
        str(out),
        "--workers",
        "0",
        "--device",
        "cpu",
    ]
    assert main(command) == 3
    assert "mask of n0/p002.png" in capsys.readouterr().err
    assert (out / "unreadable.txt").read_text().startswith("mask of n0/p002.png\t")
    assert main([*command, "--allow-unreadable"]) == 0


def test_links_back_to_their_folder_are_not_followed(folders: tuple[Path, Path]) -> None:
    """They were listed forty times over, or ended in a traceback."""
    images = folders[0]
    names = index.index(images).names.strings()
    (images / "n0" / "again").symlink_to("..")
    (images / "n0" / "n1").symlink_to("../n1")  # a folder beside it is
    listed = index.index(images).names.strings()
    beside = [name.replace("n1/", "n0/n1/") for name in names if name.startswith("n1/")]
    assert sorted(listed) == sorted([*names, *beside])

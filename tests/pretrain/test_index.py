"""Listing images: files and .tar shards, remembered while nothing changes, faults in one line."""

import csv
import io
import os
import pickle
import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from harl_bench.cli import main
from harl_bench.core.errors import DataError
from pretrain import data, index
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


def views(images: Path, masks: Path | None) -> list[data.Sample]:
    dataset = data.TwoViews(data.find(images, masks), views=BYOL_VIEWS, size=32, seed=0)
    return [dataset[1, i] for i in range(len(dataset.images.paths))]


def same(a: list[data.Sample], b: list[data.Sample]) -> bool:
    pairs = [
        (x, y)
        for s, t in zip(a, b, strict=True)
        for x, y in zip(s.views + s.masks, t.views + t.masks, strict=True)
    ]
    return all(torch.equal(x, y) for x, y in pairs)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Remember every list, in a folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(index, "REMEMBER_FROM", 1)
    monkeypatch.setattr(index, "RACY_S", -3600.0)
    return tmp_path / "cache" / "harl-bench" / "index"


def test_shards_give_the_views_of_their_files(folders: tuple[Path, Path], tmp_path: Path) -> None:
    images, masks = folders
    shards, packed = pack(images, tmp_path / "shards"), pack(masks, tmp_path / "packed", 7)
    loose = views(images, masks)
    assert same(loose, views(shards, packed))
    assert same(loose, views(shards, masks))
    assert same(loose, views(images, packed))
    assert data.find(shards, packed).fingerprint() == data.find(images, masks).fingerprint()
    assert data.find(shards, packed).paths[0].as_posix() == "n0/p000.png"


def test_one_shard_is_a_data_set(folders: tuple[Path, Path], tmp_path: Path) -> None:
    shards = pack(folders[0], tmp_path / "shards")
    found = data.find(shards / "shard-000005.tar", None)
    assert len(found.paths) == 5
    assert found.image(0).mode == "RGB"


def test_masks_beside_their_images_in_a_shard(folders: tuple[Path, Path], tmp_path: Path) -> None:
    images, masks = folders
    both = tmp_path / "both"
    for path in images.rglob("*.png"):
        name = path.relative_to(images)
        (both / name.parent).mkdir(parents=True, exist_ok=True)
        Image.open(path).save((both / name).with_suffix(".bmp"))
        (both / name).with_suffix(".mask.png").write_bytes((masks / name).read_bytes())
    shards = pack(both, tmp_path / "shards", 6)
    found = data.find(shards, shards)
    assert len(found.paths) == 12
    assert found.masked.all()
    assert same(views(images, masks), views(shards, shards))


def test_masks_of_make_tar_with_their_manifests(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """As two processes of `masks make --tar` write them: manifests of each, one mask rejected."""
    images, out = folders[0], tmp_path / "made"
    for shard in ("0/2", "1/2"):
        assert (
            main(
                [
                    "masks",
                    "make",
                    str(images),
                    "--out",
                    str(out),
                    "--method",
                    "drfi-lite",
                    "--tar",
                    "3",
                    "--shard",
                    shard,
                    "--workers",
                    "0",
                ]
            )
            == 0
        )
    manifests = sorted(out.glob("manifest-*of2.csv"))
    assert len(manifests) == 2
    assert data.find(images, out).masked.sum() == sum(
        row["valid"] != "0" for row in rows(manifests)
    )
    before = data.find(images, out)
    table = list(csv.reader(manifests[1].open()))
    valid = table[0].index("valid")
    taken = next(row for row in table[1:] if row[valid] == "1")
    taken[valid] = "0"
    with manifests[1].open("w", newline="") as file:
        csv.writer(file).writerows(table)
    after = data.find(images, out)
    assert after.rejected == before.rejected + 1
    gone = [
        p.as_posix()
        for p, a, b in zip(before.paths, before.masked, after.masked, strict=True)
        if a and not b
    ]
    assert gone == [taken[0]]


def rows(manifests: list[Path]) -> list[dict[str, str]]:
    return [row for path in manifests for row in csv.DictReader(path.open())]


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
    kept = pickle.loads(pickle.dumps(index.Names.of(names)))
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


@pytest.mark.parametrize("how", ["gz", "cut", "text"])
def test_bad_shards_are_told_in_one_line(
    folders: tuple[Path, Path], tmp_path: Path, how: str
) -> None:
    shards = pack(folders[0], tmp_path / "shards", 12)
    path = next(shards.glob("*.tar"))
    if how == "gz":
        with tarfile.open(path, "w:gz") as tar:
            tar.add(folders[0], arcname="x")
    elif how == "cut":
        os.truncate(path, 6000)
    else:
        path.write_text("not a tar")
    with pytest.raises(DataError, match="cannot read shard") as caught:
        index.index(shards)
    assert path.name in caught.value.line()


def test_a_shard_cut_after_it_was_listed_stops_the_run(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    shards = pack(folders[0], tmp_path / "shards", 12)
    dataset = data.TwoViews(data.find(shards, None), views=BYOL_VIEWS, size=32, seed=0)
    shard = next(shards.glob("*.tar"))
    os.truncate(shard, 2000)
    batch = data.collate([dataset[0, 11]])
    assert isinstance(batch.error, DataError)
    assert "cut short" in batch.error.line()
    assert batch.error.where == shard


def test_one_name_in_two_shards_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    shards = pack(folders[0], tmp_path / "shards", 12)
    (shards / "copy.tar").write_bytes((shards / "shard-000000.tar").read_bytes())
    with pytest.raises(DataError, match=r"two images of one name.*copy\.tar and shard-000000\.tar"):
        index.index(shards)


def test_linked_images_of_a_shard_are_there_or_told(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    """tar writes the second name of a file as a link to the first."""
    file, shards = folders[0] / "n0" / "p000.png", tmp_path / "shards"
    shards.mkdir()
    os.link(file, file.with_name("same.png"))
    with tarfile.open(shards / "a.tar", "w") as tar:
        tar.add(folders[0] / "n0", "n0")
    found = index.index(shards)
    names = [path.name for path in found.names]
    assert len(names) == 7
    assert found.content(names.index("same.png")) == file.read_bytes()
    file.with_name("other.png").symlink_to(file.name)
    with tarfile.open(shards / "b.tar", "w") as tar:
        tar.add(file.with_name("other.png"), "other.png")
    with pytest.raises(DataError, match=r"is a link; in .*b\.tar/other\.png; seen: to p000\.png"):
        index.index(shards)


def test_a_shard_that_vanished_is_one_line(folders: tuple[Path, Path], tmp_path: Path) -> None:
    shards = pack(folders[0], tmp_path / "shards", 12)
    dataset = data.TwoViews(data.find(shards, None), views=BYOL_VIEWS, size=32, seed=0)
    shard = next(shards.glob("*.tar"))
    shard.unlink()
    error = dataset[0, 11].error
    assert isinstance(error, DataError)
    assert error.where == shard
    assert "cannot read shard" in error.line()
    assert "No such file" in error.line()


def test_a_few_open_shards_at_a_time(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "OPEN_SHARDS", 2)
    found = index.index(pack(folders[0], tmp_path / "shards", 1))
    for i in (0, 5, 11, 0, 3):
        assert found.content(i) == (folders[0] / found.names[i]).read_bytes()
    assert len(found._open) == 2


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


def test_a_run_reads_shards(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """Workers too: file handles do not travel."""
    shards, packed = pack(folders[0], tmp_path / "shards"), pack(folders[1], tmp_path / "packed")
    out = tmp_path / "out"
    assert (
        main(
            [
                "pretrain",
                "--recipe",
                "harl-toy",
                *RESNET18,
                "--data",
                str(shards),
                "--masks",
                str(packed),
                "--out",
                str(out),
                "--workers",
                "2",
                "--device",
                "cpu",
            ]
        )
        == 0
    )
    assert (out / "done.json").exists()


def test_links_back_to_their_folder_are_not_followed(folders: tuple[Path, Path]) -> None:
    """They were listed forty times over, or ended in a traceback."""
    images = folders[0]
    names = index.index(images).names.strings()
    (images / "n0" / "again").symlink_to("..")
    (images / "n0" / "n1").symlink_to("../n1")  # a folder beside it is
    listed = index.index(images).names.strings()
    beside = [name.replace("n1/", "n0/n1/") for name in names if name.startswith("n1/")]
    assert sorted(listed) == sorted([*names, *beside])

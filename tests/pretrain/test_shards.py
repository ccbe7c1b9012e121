"""Images and masks in .tar shards: the views of their files, and faults in one line."""

import csv
import os
import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from harl_bench.cli import main
from harl_bench.core.errors import DataError
from pretrain import data, index
from pretrain.views import BYOL_VIEWS
from tests.pretrain.test_index import pack
from tests.pretrain.test_pretrain import RESNET18


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

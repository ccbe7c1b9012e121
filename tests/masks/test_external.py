"""Maps of other programs: any size and suffix, at the same relative path."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harl_bench.cli import main
from harl_bench.core.errors import DataError
from harl_bench.masks import makers, manifests
from tests.masks import mask_scenes as scenes


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Three images and their truths as maps: a JPEG, a small PNG, a 16-bit PNG."""
    images, masks = scenes.write(tmp_path, 3)
    maps = tmp_path / "maps"
    for name in ("a/00", "b/01", "a/02"):
        (maps / name).parent.mkdir(parents=True, exist_ok=True)
    truths = {name: Image.open(masks / f"{name}.png") for name in ("a/00", "b/01", "a/02")}
    truths["a/00"].save(maps / "a/00.jpg", quality=95)
    truths["b/01"].resize((40, 32), Image.Resampling.BOX).save(maps / "b/01.png")
    Image.fromarray(np.asarray(truths["a/02"], np.uint16) * 257).save(maps / "a/02.png")
    return images, maps


def test_maps_become_masks(folders: tuple[Path, Path], tmp_path: Path) -> None:
    images, maps = folders
    out = tmp_path / "out"
    command = [
        "masks",
        "make",
        str(images),
        "--out",
        str(out),
        "--method",
        "external",
        "--maps",
        str(maps),
    ]
    assert main([*command, "--workers", "0", "--preview", "0"]) == 0
    for name, row in manifests.read(out).items():
        made = np.asarray(Image.open(out / Path(name).with_suffix(".png"))) > 0
        truth = np.asarray(Image.open(tmp_path / "masks" / Path(name).with_suffix(".png"))) > 0
        assert (made & truth).sum() / (made | truth).sum() > 0.93, name
        assert row.maker == "external"
        assert str(tmp_path) not in row.parameters


def test_zero_one_maps_are_full_scale(tmp_path: Path) -> None:
    Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / "x.png")
    saliency = makers.method_of("external", maps=tmp_path).maker()(
        np.zeros((8, 8, 3), np.uint8), Path("x.jpg")
    )
    np.testing.assert_array_equal(saliency, np.eye(8))


def test_missing_and_misshapen_maps(folders: tuple[Path, Path], tmp_path: Path) -> None:
    maker = makers.method_of("external", maps=folders[1]).maker()
    with pytest.raises(DataError, match="no map for this image"):
        maker(np.zeros((64, 80, 3), np.uint8), Path("a/99.jpg"))
    with pytest.raises(DataError, match="map 80 x 64, image 64 x 80"):
        maker(np.zeros((80, 64, 3), np.uint8), Path("a/00.jpg"))


def test_a_map_called_x_mask(folders: tuple[Path, Path]) -> None:
    images, maps = folders
    (maps / "a/02.png").rename(maps / "a/02_mask.png")
    image = np.asarray(Image.open(images / "a/02.jpg"))
    saliency = makers.method_of("external", maps=maps).maker()(image, Path("a/02.jpg"))
    assert saliency.shape == (64, 80)


def test_needs_maps(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "masks",
        "make",
        str(folders[0]),
        "--out",
        str(tmp_path / "out"),
        "--method",
        "external",
    ]
    assert main(command) == 2
    assert "--maps" in capsys.readouterr().err
    assert main([*command, "--maps", str(tmp_path / "nowhere")]) == 3


def test_maps_of_another_folder_with_the_same_name(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The masks of the first folder's maps counted for the second one's."""
    images, maps = folders
    other, out = tmp_path / "other" / "maps", tmp_path / "out"
    shutil.copytree(maps, other)
    command = ["masks", "make", str(images), "--out", str(out), "--method", "external"]
    command += ["--workers", "0", "--preview", "0", "--maps"]
    assert main([*command, str(maps)]) == 0
    assert main([*command, str(other)]) == 0, "a copy is the same"
    Image.new("L", (80, 64), 255).save(other / "b/01.png")
    assert main([*command, str(other)]) == 2
    assert "the folder holds masks made otherwise" in capsys.readouterr().err
    assert main([*command, str(other), "--fresh"]) == 0

"""The centered ellipse: its area, its symmetry, and masks that do not depend on the images."""

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harl_bench.cli import main
from harl_bench.core.errors import UsageError
from harl_bench.masks import makers, manifests
from tests.masks import mask_scenes as scenes


@pytest.mark.parametrize("area", [0.1, 0.3, 0.7])
@pytest.mark.parametrize("size", [(120, 90), (64, 200)])
def test_its_area_and_symmetry(area: float, size: tuple[int, int]) -> None:
    saliency = makers.method_of("ellipse", area=area).maker()(
        np.zeros((*size, 3), np.uint8), Path("x")
    )
    assert saliency.mean() == pytest.approx(area, abs=0.01)
    for axis in (0, 1):
        np.testing.assert_array_equal(saliency, np.flip(saliency, axis))
        extent = saliency.any(1 - axis).mean()  # the axes are in the ratio of the sides
        assert extent == pytest.approx(math.sqrt(4 * area / math.pi), abs=0.02)


def test_masks_of_a_folder(tmp_path: Path) -> None:
    images, _ = scenes.write(tmp_path, 2)
    command = ["masks", "make", str(images), "--out", str(tmp_path / "out"), "--method", "ellipse"]
    assert main([*command, "--workers", "0", "--preview", "0", "area=0.5"]) == 0
    rows = manifests.read(tmp_path / "out")
    assert len(rows) == 2
    for name, row in rows.items():
        mask = np.asarray(Image.open(tmp_path / "out" / Path(name).with_suffix(".png")))
        assert row.valid
        assert set(np.unique(mask)) == {0, 255}
        assert (mask > 0).mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("area", [0, 0.8])
def test_an_ellipse_that_does_not_fit_is_refused(area: float) -> None:
    with pytest.raises(UsageError, match="area"):
        makers.method_of("ellipse", area=area)

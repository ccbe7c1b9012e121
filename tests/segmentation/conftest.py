"""Tiny data of VOC2012 with SBD, and of Cityscapes."""

from pathlib import Path

import pytest

from tests.segmentation import trees


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    trees.cityscapes(root / "cityscapes")
    return trees.voc(root, "sbd")

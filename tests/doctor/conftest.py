"""Tiny data sets in the true formats, made once and copied for the tests that break them."""

import shutil
from pathlib import Path

import pytest

from harl_bench.toydata.run import toy_data


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "toy"
    toy_data(folder, scale=0.06, side_px=48)
    return folder


@pytest.fixture
def sets(made: Path, tmp_path: Path) -> Path:
    """voc/, coco/, classify/ and photos/ to change, without the mark of generated data."""
    shutil.copytree(made, tmp_path / "sets")
    for marker in (tmp_path / "sets").rglob("TOY"):
        marker.unlink()
    return tmp_path / "sets"

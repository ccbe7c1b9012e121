"""A folder of six scenes: images, and their masks."""

from pathlib import Path

import pytest

from tests.masks import mask_scenes as scenes


@pytest.fixture
def root(tmp_path: Path) -> Path:
    scenes.write(tmp_path, 6)
    return tmp_path

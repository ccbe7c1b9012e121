"""Tiny data of VOC and COCO, and a finished run of voc."""

import pytest

from harl_bench.cli import main
from tests.detection import tiny
from tests.detection.command import QUICK, voc


@pytest.fixture(scope="module")
def voc_root(tmp_path_factory):
    return tiny.voc(tmp_path_factory.mktemp("voc"))


@pytest.fixture(scope="module")
def coco_root(tmp_path_factory):
    return tiny.coco(tmp_path_factory.mktemp("coco"))


@pytest.fixture(scope="module")
def finished(voc_root, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    assert main([*voc(voc_root, out), *QUICK, "--pictures", "2"]) == 0
    return out

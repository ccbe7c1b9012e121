"""Where the data sets lie, and real ones."""

import os
from pathlib import Path

import pytest

from harl_bench.core.errors import DataError
from harl_bench.core.nearby import data_root
from harl_bench.detection.datasets import coco, voc

REAL = Path(os.environ.get("HARL_BENCH_REAL_DATA", "../shared/data"))


def test_data_root_comes_from_the_option_or_the_variable(tmp_path, monkeypatch):
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    with pytest.raises(DataError, match="DETECTRON2_DATASETS"):
        data_root(None)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    assert data_root(None) == tmp_path
    with pytest.raises(DataError, match="from --data"):
        data_root(tmp_path / "nowhere")


@pytest.mark.skipif(not (REAL / "coco_small").is_dir(), reason="no real data here")
def test_real_data_is_read_without_complaint():
    assert len(voc.read(REAL / "voc_small", "voc_2007_test").samples) == 100
    train = coco.read(REAL / "coco_small", "coco_2017_train", scored=True)
    assert (len(train.samples), len(train.class_names), train.faults) == (80, 80, {})

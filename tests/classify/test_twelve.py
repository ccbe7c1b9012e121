"""The twelve sets in tiny copies of their layouts, from the command to the result."""

from pathlib import Path

import numpy as np
import pytest

from harl_bench.toydata import transfer
from tests.classify.command import classify, result, selection

METRICS = {
    "food101": "top1",
    "cifar10": "top1",
    "cifar100": "top1",
    "birdsnap": "top1",
    "sun397": "top1",
    "cars": "top1",
    "aircraft": "mean_per_class",
    "voc2007-cls": "mAP11",
    "dtd": "top1",
    "pets": "mean_per_class",
    "caltech101": "mean_per_class",
    "flowers": "mean_per_class",
}
PROTOCOLS = {
    "linear": ["count=3"],
    "finetune": ["steps=1", "batch_size=4", "lr=[0.01]", "decay=[0]"],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("transfer")
    counts = {"train": 2, "val": 2, "test": 2}
    transfer.write(root, counts, side_px=40, random=np.random.default_rng(0))
    return root


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", METRICS)
def test_each_set_is_measured_by_its_own_metric(
    data: Path, tmp_path: Path, name: str, protocol: str
) -> None:
    more = ["--dataset", name, "--protocol", protocol, *PROTOCOLS[protocol]]
    assert classify(data, tmp_path, *more, checkpoint="random-resnet18") == 0
    recorded, metric = result(tmp_path), METRICS[name]
    assert recorded.metric == ("" if metric == "top1" else metric)
    assert selection(tmp_path)["metric"] == metric
    assert 0 <= recorded.metrics[metric] <= 100
    low, high = recorded.manifest["interval_95"][metric]
    assert low <= recorded.metrics[metric] <= high
    assert any("instead of the published" in departure for departure in recorded.departures)

"""What makes a result another than the recipe's stands beside it."""

import json

import pytest

from harl_bench.cli import main
from harl_bench.convert.read import read_backbone
from harl_bench.convert.statements import TOY
from harl_bench.detection.datasets import sample
from harl_bench.nn import checkpoint
from tests.detection import tiny
from tests.detection.command import QUICK, coco, result_of, voc


@pytest.mark.usefixtures("untrained")
def test_what_moves_the_score_is_a_departure(tmp_path, capsys):
    root = tiny.coco(tmp_path / "data", train=2, test=2)
    path = root / "annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    train = str((root / "train2017/000000000001.jpg").absolute())
    first = json.loads((root / "annotations/instances_train2017.json").read_text())["images"][0]
    size = {key: first[key] for key in ("width", "height")}
    content["images"] += [content["images"][0] | {"id": 7}, {"id": 8, "file_name": train, **size}]
    content["annotations"][0]["segmentation"] = [[]]
    path.write_text(json.dumps(content))
    assert main(coco(root, tmp_path / "runs")) == 0
    _, result = result_of(tmp_path / "runs")
    assert {f"1 {fault}" for fault in sample.MOVING_SCORES} <= set(result.departures)
    sizes = {
        "coco_2017_train has 2 images, the published 118,287",
        "coco_2017_val has 4 images, the published 5,000",
    }
    assert sizes <= set(result.departures)
    text = capsys.readouterr().out
    assert text.count("coco_2017_val: 1 test ") == 3
    assert all(f"warning: {size}" in text for size in sizes)


@pytest.mark.usefixtures("untrained")
def test_classes_without_a_test_object_are_a_departure(tmp_path):
    root = tiny.coco(tmp_path / "data", train=2, test=4)
    for path in (root / "annotations").iterdir():
        content = json.loads(path.read_text())
        content["categories"].append({"id": 99, "name": "bird"})
        path.write_text(json.dumps(content))
    assert main(coco(root, tmp_path / "runs")) == 0
    _, result = result_of(tmp_path / "runs")
    assert "1 of 3 classes have no test object and are not in the mean" in result.departures


def test_what_the_file_states_and_the_label_reach_the_result(
    voc_root, tmp_path, capsys, monkeypatch
):
    half, out = tmp_path / "half.pth", tmp_path / "runs"
    about = {"format": "harl-bench", "method": "byol", "net": "online", "toy": True}
    checkpoint.save(
        half, backbone=read_backbone("random").tensors, step=33, steps=60, harl_bench=about
    )
    command = [half if word == "random" else word for word in voc(voc_root, out)]
    command = [*map(str, command), *QUICK, "--pictures", "0"]
    assert main([*command, "--label", "first"]) == 0
    assert "warning: half.pth: pretraining unfinished: step 33 of 60" in " ".join(
        capsys.readouterr().out.split()
    )
    _, first = result_of(out)
    assert {"pretraining unfinished: step 33 of 60", TOY} <= set(first.departures)
    assert (first.method, first.label, first.toy) == ("byol", "first", True)
    monkeypatch.setattr(
        "harl_bench.detection.runs.measure", lambda *_: pytest.fail("measured again")
    )
    assert main([*command, "--label", "second"]) == 0
    assert main(command) == 0  # without one it stays
    _, again = result_of(out)
    assert (again.label, again.run_id, again.metrics) == ("second", first.run_id, first.metrics)


@pytest.mark.usefixtures("untrained")
def test_what_the_backbone_learnt_with_and_detection_has_not_is_warned_of_and_a_departure(
    voc_root, tmp_path, capsys
):
    path, out = tmp_path / "odd.pth", tmp_path / "runs"
    images = {"input_format": "RGB", "high_pass": True}
    images |= {"pixel_mean": [123.675, 116.28, 103.53], "pixel_std": [58.395, 57.12, 57.375]}
    about = {"format": "harl-bench", "feature_grid": 14, "padding": "same", **images}
    checkpoint.save(path, backbone=read_backbone("random").tensors, harl_bench=about)
    command = [str(path) if word == "random" else word for word in voc(voc_root, out)]
    assert main([*command, *QUICK, "--images", "0"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    _, result = result_of(out)
    for sentence in (
        "the backbone learnt from high-pass filtered images and sees plain ones",
        "the backbone learnt with feature_grid 14 and has Detectron2's strides",
        "the backbone learnt with TensorFlow's SAME padding and has Detectron2's",
    ):
        assert sentence in result.departures
        assert printed.count(f"warning: {sentence}") == 1

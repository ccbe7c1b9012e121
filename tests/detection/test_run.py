"""The commands voc and coco from end to end on tiny data."""

import json
import os
import re
import signal
import time

import pytest
from PIL import Image

from harl_bench.cli import main
from harl_bench.core import manifest
from harl_bench.core.runs import run_id
from harl_bench.detection import names, plan
from harl_bench.detection.datasets import sample
from harl_bench.detection.datasets import voc as voc_data
from harl_bench.detection.metrics import voc as voc_metric
from harl_bench.nn import distributed
from tests import warm
from tests.detection import tiny
from tests.detection.command import QUICK, TINY, coco, result_of, voc


def test_voc_writes_a_complete_run_folder(finished):
    folder, result = result_of(finished)
    assert folder.relative_to(finished).as_posix() == "voc/voc07+12/voc-c4-toy/random-none/seed0"
    names = {p.name for p in folder.iterdir()}
    assert {
        "result.json",
        "run.json",
        "config.yaml",
        "log.txt",
        "metrics.jsonl",
        "checkpoints",
        "pictures",
    } <= names
    assert set(result.metrics) == {"AP", "AP50", "AP75"}
    assert (result.task, result.engine, result.n_test, result.seed, result.toy) == (
        "voc",
        "torchvision",
        4,
        0,
        True,
    )
    assert any(d.startswith("SOLVER.MAX_ITER: ") and d.endswith(" -> 2") for d in result.departures)
    assert set(result.per_class["cat"]) == {"AP", "AP50", "AP75"}
    assert any(
        d.endswith("classes have no test object and count 0 in the mean") for d in result.departures
    )
    assert result.per_class["bus"] == {"AP": None, "AP50": None, "AP75": None}
    assert result.wall_s > 0
    images = sorted(p.name for p in (folder / "pictures").iterdir())
    assert images == [
        "detection-000007.png",
        "detection-000010.png",
        "precision-recall.png",
        "precision-recall.svg",
    ]
    with Image.open(folder / "pictures/detection-000007.png") as image:
        assert image.size == (2 * 352 + 6, 480)


def test_same_command_again_is_skipped_with_a_line(finished, voc_root, capsys):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}
    assert main([*voc(voc_root, finished), *QUICK, "--pictures", "2"]) == 0
    assert "finished before" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()} == before


def test_a_finished_run_counts_however_many_processes_made_it(
    finished, voc_root, capsys, monkeypatch
):
    """A suite of a machine with 8 GPUs, repeated where there are two, trained everything anew."""
    monkeypatch.setattr(distributed, "devices", lambda gpus: (2, "cpu"))
    assert main([*voc(voc_root, finished), *QUICK, "--pictures", "2"]) == 0
    assert "finished before" in capsys.readouterr().out
    assert len(list(finished.rglob("run.json"))) == 1


def test_a_finished_run_counts_under_the_name_that_its_set_had_before(
    finished, voc_root, capsys, monkeypatch
):
    monkeypatch.setattr(names, "result_name", lambda test: test.name)
    assert main([*voc(voc_root, finished), *QUICK, "--pictures", "2"]) == 0
    assert "finished before" in capsys.readouterr().out


def test_coco_scores_boxes_and_masks(coco_root, tmp_path):
    (coco_root / "TOY").touch()
    assert main(coco(coco_root, tmp_path, images=1)) == 0
    folder, result = result_of(tmp_path)
    kinds = ("AP", "AP50", "AP75", "APs", "APm", "APl")
    assert set(result.metrics) == {f"{task}/{kind}" for task in ("bbox", "segm") for kind in kinds}
    assert set(result.per_class) == {"dog", "cat"}
    assert result.toy is True
    assert "MODEL.ROI_HEADS.NUM_CLASSES: 80 -> 2" in result.departures
    actual = json.loads((folder / "inference/coco_instances_results.json").read_text())
    assert all(
        {"image_id", "category_id", "bbox", "score", "segmentation"} <= set(d) for d in actual
    )
    (coco_root / "TOY").unlink()


@pytest.mark.usefixtures("untrained")
def test_an_edited_json_finds_the_finished_training_and_another_truth_does_not(tmp_path, capsys):
    root = tiny.coco(tmp_path / "data", train=2, test=2)
    assert main(coco(root, tmp_path / "runs")) == 0
    path = root / "annotations/instances_val2017.json"
    content = json.loads(path.read_text()) | {"info": {"year": "2024"}, "licenses": None}
    path.write_text(json.dumps(content, indent=1), encoding="utf-8-sig")
    assert main(coco(root, tmp_path / "runs")) == 0
    assert "finished before" in capsys.readouterr().out
    content["annotations"][0]["area"] += 1
    path.write_text(json.dumps(content))
    assert main(coco(root, tmp_path / "runs", "--dry-run")) == 0
    assert re.search("^new ", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("state", ["finished", "unfinished"])
def test_a_run_of_an_earlier_version_is_known_by_the_size_of_its_json(
    tmp_path, capsys, monkeypatch, state
):
    root = tiny.coco(tmp_path / "data", train=2, test=2)
    with monkeypatch.context() as earlier:
        earlier.setattr(
            plan, "fingerprints", lambda root, parts: sample.fingerprints(root, parts)[2:]
        )
        assert main(coco(root, tmp_path / "runs")) == 0
    folder, result = result_of(tmp_path / "runs")
    files = [path for path in root.rglob("*") if path.is_file()]
    assert result.data_fingerprint == manifest.fingerprint(
        root, [path.relative_to(root) for path in files]
    )
    if state == "unfinished":
        (folder / "result.json").unlink()
    capsys.readouterr()
    assert main(coco(root, tmp_path / "runs", "--dry-run")) == 0
    assert re.search(f"^{state} +{re.escape(str(folder))} ", capsys.readouterr().out, re.MULTILINE)


TRAIN_2012, TEST_2012 = (
    "DATASETS.TRAIN=('voc_2007_trainval',)",
    "DATASETS.TEST=('voc_2012_trainval',)",
)


def test_voc2012_is_scored_by_the_area_and_recorded_under_its_name(tmp_path, capsys):
    """One of its boxes starts at 0, too, which is a warning and a departure."""
    root, out = tiny.voc(tmp_path / "data"), tmp_path / "runs"
    (root / "VOC2012/Annotations/000003.xml").write_text(
        tiny.xml((61, 45), [("cat", (-1, 3, 20, 20), 0)])
    )
    assert main([*voc(root, out), *QUICK, TRAIN_2012, TEST_2012, "--pictures", "0"]) == 0
    folder, result = result_of(out)
    assert (
        folder.relative_to(out).as_posix() == "voc/voc_2012_trainval/voc-c4-toy/random-none/seed0"
    )
    assert (result.dataset, result.metric) == ("voc_2012_trainval", "area")
    assert f"voc_2012_trainval: 1 {voc_data.FROM_0}" in result.departures
    text = capsys.readouterr().out
    assert "(area)" in text
    assert f"voc_2012_trainval: 1 {voc_data.FROM_0}" in text
    read = voc_data.read(root, "voc_2012_trainval")
    lines = {
        k: (folder / f"inference/{n}.txt").read_text().splitlines()
        for k, n in enumerate(read.class_names)
    }
    assert result.metrics == voc_metric.evaluate(lines, read.samples, read.class_names, "area")[0]
    assert main(["report", str(out)]) == 0
    text = capsys.readouterr().out
    assert "VOC detection: voc_2012_trainval, voc-c4-toy" in text
    assert "AP on voc_2012_trainval: area under the precision-recall curve" in text


def test_voc2007_keeps_its_name_its_metric_and_its_run_id(finished):
    _, result = result_of(finished)
    assert (result.dataset, result.metric) == ("voc07+12", "11-point")
    config = {k: v for k, v in result.config.items() if k != "images_per_process"}
    identity = run_id(
        task="voc",
        dataset="voc07+12",
        protocol="voc-c4-toy",
        checkpoint_sha256="",
        seed=0,
        config=config,
        data_fingerprint=result.data_fingerprint,
    )
    assert result.run_id == identity


def test_mixed_precision_on_the_cpu_is_refused_unless_nothing_is_trained(
    voc_root, finished, tmp_path, capsys
):
    """A record would say AMP, and the numbers would be float32's."""
    (config,) = finished.rglob("config.yaml")
    detector = config.parent / "checkpoints/model_final.pth"
    command = [
        "voc",
        str(detector),
        *voc(voc_root, tmp_path / "eval")[2:],
        *QUICK,
        "--gpus",
        "0",
        "--amp",
    ]
    assert main([*command, "--eval-only"]) == 0
    capsys.readouterr()
    for more in ([], ["--dry-run"]):
        assert main([*voc(voc_root, tmp_path / "runs"), "--gpus", "0", "--amp", *more]) == 2
        assert "error[usage]: mixed precision needs a GPU" in capsys.readouterr().err
    assert not list((tmp_path / "runs").rglob("run.json"))


def test_unreadable_test_image_stops_before_training(tmp_path, capsys):
    root = tiny.voc(tmp_path / "data")
    path = root / "VOC2007/JPEGImages/000008.jpg"
    path.write_bytes(path.read_bytes()[:400])
    assert main([*voc(root, tmp_path / "runs"), *QUICK]) == 3
    actual = capsys.readouterr()
    assert "unreadable image" in actual.err
    assert "000008.jpg" in actual.err
    assert "train:" not in actual.out


@pytest.mark.slow
def test_a_signal_to_the_whole_group_saves_with_data_workers_and_the_same_command_goes_on(
    voc_root, tmp_path
):
    """Schedulers signal every process of a job, so the workers get it too."""
    long = [
        "harl_bench.cli",
        *voc(voc_root, tmp_path),
        *TINY,
        "SOLVER.STEPS=()",
        "SOLVER.MAX_ITER=400",
        "SOLVER.CHECKPOINT_PERIOD=1000",
        "--workers",
        "1",
    ]
    log, errors = tmp_path / "log.txt", tmp_path / "errors.txt"
    with open(log, "wb") as out, open(errors, "wb") as err:
        process = warm.Process(long, stdout=out, stderr=err)
    deadline = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < deadline:
        actual = list(tmp_path.rglob("metrics.jsonl"))
        if actual and actual[0].read_text().count("\n"):
            break
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    code, error = process.wait(timeout=120), errors.read_text()
    assert code == 75, error
    assert error.splitlines()[-1].startswith("error[preempted]: stopped by SIGTERM, iteration ")
    (saved,) = tmp_path.rglob("model_0*.pth")
    end, lines = os.pipe()
    process = warm.Process(long, stdout=lines, stderr=lines)
    os.close(lines)
    with open(end) as output:
        for line in output:
            if line.startswith("resuming after iteration"):
                assert int(line.split()[-1]) == int(saved.stem.removeprefix("model_")) + 1
                break
        else:
            pytest.fail("did not resume")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()

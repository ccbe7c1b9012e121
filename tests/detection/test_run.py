"""The commands voc and coco from end to end on tiny data: what they write, skip, refuse and print."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from harl_bench.cli import main
from harl_bench.convert.read import read_backbone
from harl_bench.convert.statements import TOY
from harl_bench.core.results import read_result
from harl_bench.detection import plan
from harl_bench.nn import checkpoint
from tests.detection import tiny
from tests.detection.test_train import TINY

QUICK = [*TINY, "SOLVER.MAX_ITER=2", "SOLVER.STEPS=()", "TEST.PRECISE_BN.NUM_ITER=1"]


def result_of(out):
    (path,) = out.rglob("result.json")
    return path.parent, read_result(path)


@pytest.fixture(scope="module")
def voc_root(tmp_path_factory):
    return tiny.voc(tmp_path_factory.mktemp("voc"))


@pytest.fixture(scope="module")
def coco_root(tmp_path_factory):
    return tiny.coco(tmp_path_factory.mktemp("coco"))


def voc(root, out, *more, recipe="voc-c4-toy", engine="torchvision"):
    return ["voc", "random", "--data", str(root), "--recipe", recipe, "--engine", engine, "--out", str(out), *more]


@pytest.fixture(scope="module")
def finished(voc_root, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    assert main([*voc(voc_root, out), *QUICK, "--pictures", "2"]) == 0
    return out


def test_voc_writes_a_complete_run_folder(finished):
    folder, result = result_of(finished)
    assert folder.relative_to(finished).as_posix() == "voc/voc07+12/voc-c4-toy/random-none/seed0"
    names = {p.name for p in folder.iterdir()}
    assert {"result.json", "run.json", "config.yaml", "log.txt", "metrics.jsonl", "checkpoints", "pictures"} <= names
    assert set(result.metrics) == {"AP", "AP50", "AP75"}
    assert (result.task, result.engine, result.n_test, result.seed, result.toy) == ("voc", "torchvision", 4, 0, True)
    assert any(d.startswith("SOLVER.MAX_ITER: ") and d.endswith(" -> 2") for d in result.departures)
    assert set(result.per_class["cat"]) == {"AP", "AP50", "AP75"}
    assert any(d.endswith("classes have no test object and count 0 in the mean") for d in result.departures)
    assert result.per_class["bus"] == {"AP": None, "AP50": None, "AP75": None}
    assert result.wall_s > 0
    pictures = sorted(p.name for p in (folder / "pictures").iterdir())
    assert pictures == ["detection-000007.png", "detection-000010.png", "precision-recall.png", "precision-recall.svg"]
    with Image.open(folder / "pictures/detection-000007.png") as picture:
        assert picture.size == (2 * 352 + 6, 480)


def test_same_command_again_is_skipped_with_a_line(finished, voc_root, capsys):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}
    assert main([*voc(voc_root, finished), *QUICK, "--pictures", "2"]) == 0
    assert "finished before" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()} == before


def test_a_finished_run_counts_however_many_processes_made_it(finished, voc_root, capsys, monkeypatch):
    """A suite of a machine with 8 GPUs, repeated where there are two, trained everything anew."""
    monkeypatch.setattr(plan, "_machine", lambda gpus: (2, "cpu"))
    assert main([*voc(voc_root, finished), *QUICK, "--pictures", "2"]) == 0
    assert "finished before" in capsys.readouterr().out
    assert len(list(finished.rglob("run.json"))) == 1


def test_eval_only_scores_the_trained_detector_again(finished, voc_root, capsys):
    _, result = result_of(finished)
    assert main([*voc(voc_root, finished), *QUICK, "--eval-only"]) == 0
    assert f"AP {result.metrics['AP']:.2f}" in capsys.readouterr().out


def test_dry_run_writes_nothing_and_tells_the_plan(voc_root, tmp_path, capsys):
    out = tmp_path / "runs"
    assert main([*voc(voc_root, out), *QUICK, "--dry-run", "--seeds", "0", "1", "--lr", "0.01", "0.1"]) == 0
    text = capsys.readouterr().out
    assert not out.exists()
    assert text.count("new         ") == 4
    assert "voc-c4-toy-lr0.1/random-none/seed1" in text
    assert "265 of 265 tensors" in text
    assert "12 pictures" in text
    assert "4 of 4 to do, each 2 iterations x 2 pictures" in text


def test_coco_scores_boxes_and_masks(coco_root, tmp_path):
    (coco_root / "TOY").touch()
    command = ["coco", "random", "--data", str(coco_root), "--recipe", "coco-fpn-toy", "--engine", "torchvision"]
    assert main([*command, "--out", str(tmp_path), "--pictures", "1", *QUICK]) == 0
    folder, result = result_of(tmp_path)
    kinds = ("AP", "AP50", "AP75", "APs", "APm", "APl")
    assert set(result.metrics) == {f"{task}/{kind}" for task in ("bbox", "segm") for kind in kinds}
    assert set(result.per_class) == {"dog", "cat"}
    assert result.toy is True
    assert "MODEL.ROI_HEADS.NUM_CLASSES: 80 -> 2" in result.departures
    found = json.loads((folder / "inference/coco_instances_results.json").read_text())
    assert all({"image_id", "category_id", "bbox", "score", "segmentation"} <= set(d) for d in found)
    (coco_root / "TOY").unlink()


def test_linear_rule(voc_root, tmp_path, capsys):
    command = voc(voc_root, tmp_path, "--batch", "8", "--scale-lr", "--dry-run", recipe="voc-c4-24k")
    assert main(command) == 0
    text = capsys.readouterr().out
    for change in ("BASE_LR: 0.02 -> 0.01", "MAX_ITER: 24000 -> 48000", "WARMUP_ITERS: 100 -> 200"):
        assert f"SOLVER.{change}" in text
    assert "SOLVER.STEPS: [18000, 22000] -> [36000, 44000]" in text


FAULTS = {
    "no data": (["--data", "nowhere"], 3, "data folder not found"),
    "recipe": (["--recipe", "voc-c4-24"], 2, "did you mean 'voc-c4-24k'"),
    "key": (["SOLVER.BASE_RL=1"], 2, "SOLVER.BASE_LR"),
    "task": (["--recipe", "coco-fpn-toy"], 2, "not for this command.*harl-bench coco"),
    "format": (["INPUT.FORMAT=BGR"], 4, "INPUT.FORMAT RGB in the checkpoint, BGR.*override INPUT.FORMAT=RGB"),
    "std": (["MODEL.PIXEL_STD=[1.0,1.0,1.0]"], 4, r"MODEL.PIXEL_STD=\[58.395,57.12,57.375\]"),
    "stride": (["MODEL.RESNETS.STRIDE_IN_1X1=True"], 4, "STRIDE_IN_1X1 False in the checkpoint"),
    "seeds": (["--seeds", "1", "1"], 2, "different whole numbers"),
    "scale": (["--scale-lr"], 2, "--scale-lr goes with --batch"),
    "gpus": (["--gpus", "99"], 2, "--gpus 99"),
    "eval": (["--eval-only"], 4, "no trained detector to evaluate"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_one_clear_line(voc_root, tmp_path, capsys, name):
    import re

    more, code, message = FAULTS[name]
    command = voc(voc_root, tmp_path / "runs")
    if more[0] in command:
        at = command.index(more[0])
        command[at : at + 2] = more
    else:
        command += more
    assert main(command) == code
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert error.count("\n") == 1


@pytest.mark.skipif(importlib.util.find_spec("detectron2") is not None, reason="Detectron2 is installed")
@pytest.mark.parametrize("engine", ["detectron2", "both"])
def test_without_detectron2_the_install_command_is_named(voc_root, tmp_path, capsys, engine):
    assert main([*voc(voc_root, tmp_path, engine=engine), *QUICK]) == 5
    error = capsys.readouterr().err
    assert "pip install --no-build-isolation" in error
    assert "docs/detectron2.md" in error
    assert error.count("\n") == 1


def test_help_is_fast_and_free_of_torch():
    import subprocess
    import sys

    code = "import sys; from harl_bench.cli import main; main(['voc', '--help']); assert 'torch' not in sys.modules"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "harl-bench voc moco_v2_800ep.pth.tar --data /data --seeds 0 1 2" in found.stdout


def test_eval_only_scores_a_given_detector(finished, voc_root, tmp_path):
    folder, result = result_of(finished)
    weights = folder / "checkpoints/model_final.pth"
    command = ["voc", str(weights), *voc(voc_root, tmp_path)[2:], *QUICK, "--eval-only"]
    assert main(command) == 0
    _, again = result_of(tmp_path)
    assert again.metrics == result.metrics
    assert again.checkpoint.format == "detector"
    assert any("nothing was trained" in departure for departure in again.departures)


def test_unreadable_test_picture_stops_before_training(tmp_path, capsys):
    root = tiny.voc(tmp_path / "data")
    path = root / "VOC2007/JPEGImages/000008.jpg"
    path.write_bytes(path.read_bytes()[:400])
    assert main([*voc(root, tmp_path / "runs"), *QUICK]) == 3
    found = capsys.readouterr()
    assert "unreadable picture" in found.err
    assert "000008.jpg" in found.err
    assert "train:" not in found.out


@pytest.mark.slow
def test_a_signal_to_the_whole_group_saves_with_data_workers_and_the_same_command_goes_on(voc_root, tmp_path):
    """Schedulers signal every process of a job, so the workers get it too."""
    arguments = [*voc(voc_root, tmp_path), *TINY, "SOLVER.STEPS=()", "--workers", "1"]
    long = [sys.executable, "-m", "harl_bench.cli", *arguments, "SOLVER.MAX_ITER=400", "SOLVER.CHECKPOINT_PERIOD=1000"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(long, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment)
    deadline = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < deadline:
        found = list(tmp_path.rglob("metrics.jsonl"))
        if found and found[0].read_text().count("\n"):
            break
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 75, error
    assert error.splitlines()[-1].startswith("error[preempted]: stopped by SIGTERM, iteration ")
    (saved,) = tmp_path.rglob("model_0*.pth")
    again = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
    process = subprocess.Popen(long, env=environment, **again)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("resuming after iteration"):
            assert int(line.split()[-1]) == int(saved.stem.removeprefix("model_")) + 1
            break
    else:
        pytest.fail("did not resume")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_what_the_file_states_and_the_label_reach_the_result(voc_root, tmp_path, capsys, monkeypatch):
    half, out = tmp_path / "half.pth", tmp_path / "runs"
    about = {"format": "harl-bench", "method": "byol", "net": "online", "toy": True}
    checkpoint.save(half, backbone=read_backbone("random").tensors, step=33, steps=60, harl_bench=about)
    command = [half if word == "random" else word for word in voc(voc_root, out)]
    command = [*map(str, command), *QUICK, "--pictures", "0"]
    assert main([*command, "--label", "first"]) == 0
    assert "warning: half.pth: pretraining unfinished: step 33 of 60" in " ".join(capsys.readouterr().out.split())
    _, first = result_of(out)
    assert {"pretraining unfinished: step 33 of 60", TOY} <= set(first.departures)
    assert (first.method, first.label, first.toy) == ("byol", "first", True)
    monkeypatch.setattr("harl_bench.detection.runs.measure", lambda *_: pytest.fail("measured again"))
    assert main([*command, "--label", "second"]) == 0
    assert main(command) == 0  # without one it stays
    _, again = result_of(out)
    assert (again.label, again.run_id, again.metrics) == ("second", first.run_id, first.metrics)

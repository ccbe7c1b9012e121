"""The command segment from end to end on tiny data."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from harl_bench.cli import main
from harl_bench.core.results import Result, read_result
from harl_bench.nn import checkpoint, resnet
from harl_bench.segmentation import preview, recipe, runs, train
from harl_bench.segmentation.datasets import voc
from tests.segmentation import trees

HEAD = ["head.channels=8", "head.convs=1", "workers=0"]
TINY = [*HEAD, "input.crop_px=33", "solver.batch=2", "solver.iterations=3"]
MOCO = "voc12aug-fcn16s-30k"


def command(data: Path, out: Path, *more: str, name: str = MOCO, ckpt: str = "random") -> list[str]:
    options = ["--data", str(data), "--out", str(out), "--recipe", name, "--gpus", "0"]
    return ["segment", ckpt, *options, *more]


def result_of(out: Path) -> tuple[Path, Result]:
    (path,) = out.rglob("result.json")
    return path.parent, read_result(path)


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    assert main([*command(data, out, "--pictures", "2"), *TINY, "save_every=1"]) == 0
    return out


def test_a_complete_run_folder(finished: Path) -> None:
    folder, result = result_of(finished)
    assert folder.relative_to(finished).as_posix() == f"segment/voc12aug/{MOCO}/random-none/seed0"
    names = {path.name for path in folder.iterdir()}
    assert {"run.json", "config.yaml", "log.txt", "metrics.jsonl", "checkpoints"} <= names
    assert set(result.metrics) == {"mIoU", "mAcc", "aAcc"}
    assert tuple(result.per_class) == voc.NAMES
    assert (result.task, result.dataset, result.engine) == ("segment", "voc12aug", "torch")
    assert result.n_test == 3
    assert result.config["images_per_process"] == 2
    for departure in ("solver.batch: 16 -> 2", "train_aug has 7 images, the published 10,582"):
        assert departure in result.departures
    matrix = np.array(result.manifest["confusion"])
    labels = [trees.label_of(k) for k in (3, 4, 5)]
    assert matrix.sum() == sum(label.size - 2 * label.shape[1] for label in labels)  # 255 is out
    truth = [sum((label[2:] == k).sum() for label in labels) for k in range(21)]
    assert matrix.sum(axis=1).tolist() == truth
    assert recipe.load(folder / "config.yaml")[1].solver.iterations == 3
    (line,) = (folder / "metrics.jsonl").read_text().splitlines()
    assert {"iteration", "loss", "total_loss", "lr", "time", "data_time"} <= set(json.loads(line))
    images = sorted((folder / "pictures").glob("*.png"))
    assert [path.name for path in images] == [
        f"segmentation-{trees.ids('val', 3)[k]}.png" for k in (0, 2)
    ]


def test_the_same_command_again_only_reads(
    finished: Path, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "measure", None)
    assert main([*command(data, finished), *TINY, "--label", "mine"]) == 0
    assert "finished before" in capsys.readouterr().out
    assert result_of(finished)[1].label == "mine"


def test_a_finished_run_is_scored_again_and_so_is_its_file(
    finished: Path, data: Path, tmp_path: Path
) -> None:
    folder, result = result_of(finished)
    assert main([*command(data, finished, "--eval-only", "--images", "0"), *TINY]) == 0
    assert result_of(finished)[1] == result
    last = str(folder / "checkpoints" / "last.pth")
    options = ["--eval-only", "--images", "0"]
    assert main([*command(data, tmp_path, *options, ckpt=last), *TINY]) == 0
    again = result_of(tmp_path)[1]
    assert again.metrics == result.metrics
    assert any("nothing was trained" in departure for departure in again.departures)
    assert any("train_aug has" in departure for departure in result.departures)
    assert not any("train_aug has" in departure for departure in again.departures)
    for more in (["--seeds", "0", "1"], ["--lr", "0.1"]):  # the same score twice is no n of 2
        assert main([*command(data, tmp_path, *options, *more, ckpt=last), *TINY]) == 2
    # mmsegmentation's files name the same tensors below "state_dict".
    theirs = tmp_path / "iter_3.pth"
    torch.save({"state_dict": checkpoint.load_own(Path(last))["model"], "meta": {}}, theirs)
    out = tmp_path / "theirs"
    assert main([*command(data, out, *options, ckpt=str(theirs)), *TINY]) == 0
    assert result_of(out)[1].metrics == result.metrics


def test_a_file_is_scored_with_the_images_and_strides_of_its_training(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SimCLR's images of 0 to 1 without a mean, in BGR: no tensor tells."""
    about = {"input_format": "BGR", "pixel_mean": [0.0] * 3, "pixel_std": [255.0] * 3}
    torch.manual_seed(0)
    weights = {"state_dict": resnet.backbone_tensors(resnet.build())}
    source = tmp_path / "unit.pth"
    torch.save(weights | {"harl_bench": about | {"stride_in_1x1": True}}, source)
    contracted = [*TINY, "network.contract_dilation=true", "--images", "0"]
    assert main([*command(data, tmp_path / "runs", ckpt=str(source)), *contracted]) == 0
    folder, result = result_of(tmp_path / "runs")
    last = folder / "checkpoints" / "last.pth"
    state = checkpoint.load_own(last)
    assert state["harl_bench"] == about | {"stride_in_1x1": True}
    again = command(data, tmp_path / "again", "--eval-only", ckpt=str(last))
    assert main([*again, *contracted]) == 0
    assert result_of(tmp_path / "again")[1].metrics == result.metrics
    capsys.readouterr()
    assert main([*again, *TINY]) == 4
    error = " ".join(capsys.readouterr().err.split())
    assert "trained with another network.contract_dilation" in error
    assert "add the overrides network.contract_dilation=true" in error
    # A file of an earlier version states nothing.
    del state["harl_bench"], state["network"]
    torch.save(state, tmp_path / "earlier.pth")
    again[1] = str(tmp_path / "earlier.pth")
    assert main([*again, *TINY, "--images", "0"]) == 0


def test_an_interrupted_run_ends_as_one_that_ran_through(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout and distorted colors, whose draws follow from the seed alone."""
    d8 = ["auxiliary.channels=8", "head.dropout=0.5", "input.scale_px=[96, 48]"]
    options = [*TINY, *d8, "test.scale_px=null", "save_every=2"]
    name = "voc12aug-fcn-d8-20k"
    assert main([*command(data, tmp_path / "through", name=name), *options]) == 0
    plain, steps = train.step, []

    def stop_in_the_second(*arguments: object) -> object:
        steps.append(1)
        if len(steps) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(*arguments)

    monkeypatch.setattr(train, "step", stop_in_the_second)
    arguments = [*command(data, tmp_path / "stopped", name=name), *options]
    assert main(arguments) == 75
    assert not list((tmp_path / "stopped").rglob("result.json"))
    assert main(arguments) == 0
    assert len(steps) == 3
    states = []
    for out in ("through", "stopped"):
        folder, result = result_of(tmp_path / out)
        state = checkpoint.load_own(folder / "checkpoints" / "last.pth")
        states.append(state["model"] | {"result": torch.tensor(result.metrics["aAcc"])})
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_the_sweep_selects_on_held_out_images(data: Path, tmp_path: Path) -> None:
    """A rate that diverges is out, not the end of the run."""
    sweep = ["sweep.lr=[0.01, 1.0e30]", "sweep.held_out=2", "test.crop_px=64"]
    arguments = [*command(data, tmp_path, name=f"{MOCO}-byol"), *TINY, *sweep]
    assert main(arguments) == 0
    folder, result = result_of(tmp_path)
    selection = json.loads((folder / "selection.json").read_text())
    assert selection == result.manifest["selection"]
    assert (selection["lr"], selection["held_out"], selection["at_edge"]) == (0.01, 2, True)
    assert [point["mIoU"] is None for point in selection["grid"]] == [False, True]
    assert not list((folder / "sweep").rglob("last.pth"))
    assert len(list((folder / "sweep").rglob("point.json"))) == 2


def test_a_sweep_wants_its_images_before_it_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Held-out images are scored: an unreadable one stopped the run after the first rate."""
    root = trees.voc(tmp_path / "data")
    (root / "VOC2012/JPEGImages" / f"{trees.ids('extra', 1)[0]}.jpg").write_bytes(b"broken")
    more = ["--allow-unreadable", "--dry-run"]
    arguments = [*TINY, "sweep.held_out=2", "test.crop_px=64"]
    assert main([*command(root, tmp_path, *more, name=f"{MOCO}-byol"), *arguments]) == 3
    assert "unreadable image" in capsys.readouterr().err
    assert main([*command(root, tmp_path, *more), *TINY]) == 0


def test_rates_and_seeds_are_runs_of_their_own(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--lr", "0.1", "0.2", "--seeds", "0", "1", "--dry-run"]
    assert main([*command(data, tmp_path, *more), *TINY]) == 0
    text = capsys.readouterr().out
    assert "to do       4 of 4, each " in text
    assert f"{MOCO}-lr0.2/random-none/seed1" in text


def test_unreadable_training_images_are_skipped_and_counted(tmp_path: Path) -> None:
    root = trees.voc(tmp_path / "data")
    (root / "VOC2012/JPEGImages" / f"{trees.ids('extra', 1)[0]}.jpg").write_bytes(b"broken")
    options = [*TINY, "solver.batch=8", "solver.iterations=1"]
    assert main([*command(root, tmp_path / "runs"), *options]) == 3
    allowed = command(root, tmp_path / "runs", "--allow-unreadable", "--images", "0")
    assert main([*allowed, *options]) == 0
    folder, result = result_of(tmp_path / "runs")
    assert "1 unreadable training images skipped" in result.departures
    assert len((folder / "unreadable.txt").read_text().splitlines()) == 1


def test_panels_show_truth_prediction_and_errors(data: Path) -> None:
    split = voc.read(data, augmented=False)[1]
    truth = split.label(0)
    predicted = np.where(truth == trees.CAT, trees.DOG, truth).astype(np.uint8)
    sheet = np.asarray(preview.panels(split, 0, predicted))
    height, width = truth.shape
    scale = preview.LONG_SIDE_PX / max(height, width)
    y, x = np.argwhere(truth == trees.CAT).mean(axis=0) * scale
    panel = (sheet.shape[1] - 3 * preview.GAP_PX) // 4
    step = panel + preview.GAP_PX
    colors = [tuple(sheet[round(y), round(x) + k * step].tolist()) for k in (1, 2)]
    assert colors == [split.colors[trees.CAT], split.colors[trees.DOG]]
    red, green, _ = sheet[round(y), round(x) + 3 * step].tolist()
    assert red > green
    assert sheet.shape[0] == round(height * scale)

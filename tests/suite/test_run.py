"""Running a suite: order, resumption, failures that do not stop it, signals that do.

The commands are stand-ins.
"""

import json
from pathlib import Path

import pytest
from PIL import Image

from harl_bench import cli
from harl_bench.convert.read import _name
from harl_bench.report.states import states
from harl_bench.suite import config, state
from harl_bench.suite.run import _report_arguments
from pretrain import recipe
from tests.report.report_store import result, write
from tests.suite.conftest import SUITE, Calls


def test_dry_run_shows_the_matrix_and_starts_nothing(
    calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", "suite.yaml", "--dry-run"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["pretrain", "photos", "byol-toy", "epochs=3", "byol", "new", "-"] in lines
    assert ["classify", "wildflowers", "linear", "byol", "new", "new"] in lines
    assert ["voc", "voc", "voc-c4-toy", "SOLVER.MAX_ITER=9", "random", "new", "new"] in lines
    assert calls() == []
    assert not Path("runs").exists()


def test_the_whole_path_and_again(calls: Calls, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "suite.yaml", "--gpus", "0"]) == 0
    made = calls()
    assert made[0] == [
        "pretrain",
        "epochs=3",
        "--recipe",
        "byol-toy",
        "--data",
        "photos",
        "--seed",
        "0",
        "--out",
        "runs/pretrain/byol",
        "--device",
        "cpu",
    ]
    assert [(words[0], words[1], words[-3]) for words in made[1:-1]] == [
        ("classify", "runs/pretrain/byol/last.pth", "0"),
        ("classify", "random", "0"),
        ("voc", "random", "0"),
        ("classify", "runs/pretrain/byol/last.pth", "1"),
        ("classify", "random", "1"),
        ("voc", "random", "1"),
    ]
    assert made[3] == [
        "voc",
        "random",
        "SOLVER.MAX_ITER=9",
        "--data",
        "voc",
        "--recipe",
        "voc-c4-toy",
        "--engine",
        "auto",
        "--gpus",
        "0",
        "--seeds",
        "0",
        "--out",
        "runs",
    ]
    assert made[-1] == ["report", "runs", "--md", "runs/table.md"]
    assert "said voc random" in capfd.readouterr().out  # the commands' output comes through
    assert cli.main(["run", "suite.yaml", "--dry-run"]) == 0
    assert "7 commands, 7 finished, 0 to do" in capfd.readouterr().out


def test_other_settings_are_other_runs(calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "suite.yaml", "seeds=[0]"]) == 0
    Path("suite.yaml").write_text(SUITE.replace("MAX_ITER=9", "MAX_ITER=8"))
    capsys.readouterr()
    assert cli.main(["run", "suite.yaml", "--dry-run"]) == 0
    assert "7 commands, 3 finished, 4 to do" in capsys.readouterr().out


def test_a_pretraining_of_other_settings_is_not_finished(
    calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --slurm its old weights were measured under the new name."""
    assert cli.main(["run", "suite.yaml", "seeds=[0]"]) == 0
    for epochs, unfinished in ((3, 0), (2, 1)):
        made = recipe.load("byol-toy", None, [f"epochs={epochs}"]).model_dump()
        Path("runs/pretrain/byol/run.json").write_text(json.dumps({"config": made}))
        capsys.readouterr()
        assert cli.main(["run", "suite.yaml", "seeds=[0]", "--dry-run"]) == 0
        assert f"{4 - unfinished} finished, {unfinished} to do" in capsys.readouterr().out


def test_a_path_is_no_override(tmp_path: Path) -> None:
    """Folders are called lr=0.1 where their names state settings."""
    words = ["voc", "ckpts/harl_100.pth", "SOLVER.MAX_ITER=9", "--data", "a=1/voc", "--out", "b=2"]
    (folder,) = write(tmp_path, result("voc", manifest={"argv": ["harl-bench", *words]}))
    (run,) = state.known(tmp_path)
    assert (run.folder, run.data) == (folder, "a=1/voc")
    assert run.overrides == ("SOLVER.MAX_ITER=9",)


@pytest.mark.parametrize("option", ["--max-iter 100", "--lr 0.1", "--net=teacher", "--amp"])
def test_a_run_by_hand_with_other_settings_is_none_of_the_suite(
    calls: Calls, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", "suite.yaml", "seeds=[0]"]) == 0
    (path,) = Path("runs/voc").rglob("result.json")
    found = json.loads(path.read_text())
    found["manifest"]["argv"] += option.split()
    path.write_text(json.dumps(found))
    capsys.readouterr()
    assert cli.main(["run", "suite.yaml", "seeds=[0]", "--dry-run"]) == 0
    assert "4 commands, 3 finished, 1 to do" in capsys.readouterr().out


def test_a_pretraining_may_be_the_baseline(tmp_path: Path) -> None:
    """Its checkpoint is called after its folder."""
    suite = config.load("harl-ablations")
    assert suite.report.baseline == "loss-byol"
    names = (_name(tmp_path / "pretrain" / name / "last.pth") for name in ("loss-byol", "grid-14"))
    write(tmp_path, *(result("classify", checkpoint=name, dataset="dtd") for name in names))
    words = _report_arguments(suite, tmp_path)
    table, baseline = tmp_path / "table.md", words[words.index("--baseline") + 1]
    assert cli.main(["report", str(tmp_path), "--md", str(table), "--baseline", baseline]) == 0
    assert "against HARL loss-byol-last" in table.read_text()


def test_names_are_arguments_never_shell_words(calls: Calls) -> None:
    folder = Path("wildflowers").rename("a b; touch owned $(id)")
    name = "c'k; touch owned.pth"
    Path(name).write_bytes(b"x")
    Path("suite.yaml").write_text(SUITE.replace("random]", f'random, "{name}"]', 1))
    assert cli.main(["run", "suite.yaml", f"data.wildflowers={folder}", "seeds=[0]"]) == 0
    made = [words for words in calls() if words[:2] == ["classify", name]]
    assert made[0][made[0].index("--data") + 1] == str(folder)
    assert not Path("owned").exists()


def test_commands_in_line_are_queued_while_the_suite_lives(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harl_bench.suite import config, plan, records

    commands = plan.commands(config.load("suite.yaml"), Path("runs"))
    with records.queued(Path("runs"), commands):
        records.leave(Path("runs"), commands[0])
        queued = [state for state in states(Path("runs")) if state.word == "queued"]
        assert [state.folder.name for state in queued] == [command.name for command in commands[1:]]
        killed = {path: path.read_bytes() for path in Path("runs/queued").iterdir()}
    assert states(Path("runs")) == []
    Path("runs/queued").mkdir()
    for path, content in killed.items():
        path.write_bytes(content)
    assert states(Path("runs")) == []  # nobody holds the lock


def test_the_plan_tells_time_and_disk(calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "suite.yaml", "seeds=[0]"]) == 0
    capsys.readouterr()
    assert cli.main(["run", "suite.yaml", "seeds=[0, 1, 2]", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "10 commands, 4 finished, 6 to do" in told
    assert "time: about 6:00 for 6 commands one after the other, measured here" in told
    arguments = ["run", "moco-transfer", "seeds=[0]", "checkpoints=[random]", "--dry-run"]
    assert cli.main(arguments) == 3, "no data"
    told = capsys.readouterr().out
    # 24,000 x 0.551 s + (90,000 + 180,000) x 0.584 s
    assert (
        "time: about 2.0 days for 3 commands one after the other, published speeds (8 V100" in told
    )
    assert "segment voc12aug-fcn16s-30k on voc: 1 command, 480,000 images; " in told
    assert "disk: about 4.2 GiB, " in told


def test_the_plan_counts_the_images_of_a_batch(
    calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half a batch took as long as a whole one, where the command itself said half."""
    Path("half.yaml").write_text("""
data: {voc: nowhere}
checkpoints: [random]
tasks: [{task: voc, recipe: voc-c4-24k, data: voc, overrides: [SOLVER.IMS_PER_BATCH=8]}]
""")
    assert cli.main(["run", "half.yaml", "--dry-run"]) == 3, "no data"
    assert "time: about 1:50:12 for 1 command, published" in capsys.readouterr().out


def test_masks_are_steps_too(calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(64):
        Image.new("RGB", (8, 8)).save(f"photos/{i}.png")
    Path("suite.yaml").write_text("""
data: {photos: photos, truth: wildflowers}
fit:
  - {name: forest, method: drfi, data: photos, masks: truth, overrides: [levels=single]}
masks:
  - {name: by-forest, method: drfi, model: forest, data: photos, truth: truth, threshold: "0.4"}
  - {name: lite, data: photos}
pretrain:
  - {name: harl, recipe: harl-toy, data: photos, masks: lite}
seeds: [0, 1]
""")
    assert cli.main(["run", "suite.yaml", "--gpus", "0"]) == 0
    made = calls()
    assert made[0] == [
        "masks",
        "fit",
        "photos",
        "levels=single",
        "--method",
        "drfi",
        "--out",
        "runs/mask-making/seed0/forest.npz",
        "--masks",
        "wildflowers",
        "--seed",
        "0",
    ]
    assert [words[:3] for words in made] == [
        ["masks", "fit", "photos"],
        ["masks", "fit", "photos"],
        ["masks", "make", "photos"],
        ["masks", "evaluate", "runs/mask-making/seed0/by-forest"],
        ["masks", "make", "photos"],
        ["masks", "make", "photos"],
        ["masks", "evaluate", "runs/mask-making/seed1/by-forest"],
        ["pretrain", "--recipe", "harl-toy"],
    ]
    assert made[2][3:] == [
        "--out",
        "runs/mask-making/seed0/by-forest",
        "--method",
        "drfi",
        "--model",
        "runs/mask-making/seed0/forest.npz",
        "--threshold",
        "0.4",
        "--save-maps",
        "runs/mask-making/seed0/by-forest-maps",
    ]
    assert made[-1][made[-1].index("--masks") + 1] == "runs/mask-making/seed0/lite"


def test_every_kind_of_command_has_a_cost(calls: Calls) -> None:
    """Images are counted where no speed is known; by hand: wildflowers, SimCLR's list, DTD's splits."""
    from harl_bench.suite import config, cost, plan

    for i in range(20):
        Image.new("RGB", (8, 8)).save(f"photos/{i}.png")
    Path("suite.yaml").write_text("""
data: {photos: photos, wildflowers: wildflowers, dtd: dtd, imagenet: imagenet, voc: voc}
masks: [{name: lite, data: photos, truth: photos}]
pretrain: [{name: byol, recipe: byol-toy, data: photos, overrides: [epochs=3]}]
checkpoints: [random]
tasks:
  - {task: classify, protocol: linear, data: wildflowers}
  - {task: classify, protocol: knn, data: dtd, dataset: dtd}
  - {task: classify, protocol: semi-1pct-logreg, data: imagenet, dataset: imagenet}
  - {task: voc, recipe: voc-c4-toy, data: voc, overrides: [SOLVER.MAX_ITER=9, SOLVER.IMS_PER_BATCH=2]}
  - {task: cityscapes, recipe: cityscapes-fpn-toy, data: voc}
  - {task: cityscapes, recipe: cityscapes-fpn-24k, data: voc}
""")
    commands = plan.commands(config.load("suite.yaml"), Path("runs"))
    assert cost.of(commands.pop(), []).seconds == 24_000 * 0.240
    images = {(command.task, command.setting): cost.of(command, []).images for command in commands}
    assert images == {
        ("masks make", "drfi-lite"): 20,
        ("masks", "mask-quality"): 20,
        ("pretrain", "byol-toy"): 3 * 20,
        ("classify", "linear"): 8,
        ("classify", "knn"): 3 * 1880,
        ("classify", "semi-1pct-logreg"): 12_811 + 10_000 + 50_000,
        ("voc", "voc-c4-toy"): 18,
        ("cityscapes", "cityscapes-fpn-toy"): 40 * 4,
    }

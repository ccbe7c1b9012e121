"""A finished suite is told without its commands, until something that they read has changed."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harl_bench import cli
from harl_bench.core.results import CheckpointRef, Result
from harl_bench.core.runs import open_run, write_result
from harl_bench.suite import config, finished, plan, state
from tests.suite.conftest import SUITE, Calls

RECIPE = "_BASE_: base.yaml\n"


def names(made: list[list[str]]) -> list[str]:
    return sorted(words[0] for words in made)


@pytest.fixture
def done(calls: Calls) -> Calls:
    """The suite, finished once with seed 0, a recipe in two files."""
    base = Path(config.__file__).parents[2] / "transfer_configs" / "toy" / "voc-c4-toy.yaml"
    Path("base.yaml").write_text(base.read_text().replace("../", f"{base.parents[1]}/"))
    Path("mine.yaml").write_text(RECIPE)
    Path("suite.yaml").write_text(
        SUITE.replace("recipe: voc-c4-toy", "recipe: mine.yaml").replace("[0, 1]", "[0]")
    )
    Path("photos/1.png").write_bytes(b"1")
    assert cli.main(["run", "suite.yaml", "--gpus", "0"]) == 0
    assert names(calls()) == ["classify", "classify", "pretrain", "report", "voc"]
    return calls


def touched(name: str) -> None:
    os.utime(name, ns=(1, 1))


@pytest.mark.parametrize(
    ("change", "asked"),
    [
        (lambda m: None, []),
        # and what measures its outcome
        (lambda m: touched("photos/1.png"), ["classify", "pretrain"]),
        (lambda m: Path("wildflowers/test/rose/2.jpg").touch(), ["classify", "classify"]),
        (lambda m: Path("voc/new").touch(), ["voc"]),
        (lambda m: Path("mine.yaml").write_text(RECIPE + "SOLVER: {MAX_ITER: 8}\n"), ["voc"]),
        (
            lambda m: Path("harl-bench.yaml").write_text("voc: {fresh: false}\n"),
            ["classify"] * 2 + ["pretrain", "voc"],
        ),
        (
            lambda m: touched(str(next(Path("runs/classify").rglob("random*/*/result.json")))),
            ["classify"],
        ),
        (lambda m: m.setenv("HARL_BENCH_VOC_AMP", "true"), ["classify"] * 2 + ["pretrain", "voc"]),
    ],
    ids=["nothing", "photos", "wildflowers", "voc", "recipe", "defaults", "result", "environment"],
)
def test_only_what_changed_is_asked_again(
    done: Calls,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[pytest.MonkeyPatch], object],
    asked: list[str],
) -> None:
    change(monkeypatch)
    assert cli.main(["run", "suite.yaml", "--gpus", "0"]) == 0
    assert names(done()) == sorted([*asked, "report"])
    assert cli.main(["run", "suite.yaml", "--gpus", "0"]) == 0  # and is remembered as it is now
    assert names(done()) == ["report"]


def test_a_base_of_a_recipe_counts(done: Calls) -> None:
    Path("base.yaml").write_text(Path("base.yaml").read_text().replace("BASE_LR: ", "BASE_LR: 1"))
    assert cli.main(["run", "suite.yaml", "--gpus", "0"]) == 0
    assert names(done()) == ["report", "voc"]


def test_what_failed_is_not_remembered(done: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("voc/new").touch()
    monkeypatch.setenv("FAKE_BROKEN", json.dumps({"voc": "early"}))
    for _ in range(2):
        assert cli.main(["run", "suite.yaml", "--gpus", "0"]) == 1
        assert names(done()) == ["report", "voc"]


def test_a_suite_of_216_finished_commands_is_told_in_seconds(calls: Calls) -> None:
    """12 checkpoints x 6 tasks x 3 seeds: what the suite itself does of it, in CPU seconds."""
    checkpoints = [f"c{i}.pth" for i in range(12)]
    for name in checkpoints:
        Path(name).write_text(name)
    one = "  - {task: classify, protocol: linear, data: wildflowers, overrides: [count=%d]}\n"
    tasks = "".join(one % count for count in range(2, 8))
    Path("suite.yaml").write_text(
        f"data: {{wildflowers: wildflowers}}\ncheckpoints: [{', '.join(checkpoints)}]\ntasks:\n{tasks}"
        "seeds: [0, 1, 2]\nreport: {md: table.md}\n"
    )
    commands = plan.commands(config.load("suite.yaml"), Path("runs"), 0)
    assert len(commands) == 216
    memory = finished.Memory(Path("runs"))
    for command in commands:
        assert command.path
        ref = CheckpointRef(
            path=str(command.path),
            name=command.path.stem,
            sha256=state.checkpoint_sha256(command),
            format="fake",
        )
        about = {
            "task": "classify",
            "dataset": "folder-wildflowers",
            "protocol": "linear",
            "checkpoint": ref,
            "seed": command.seed,
            "config": {"overrides": command.overrides},
        }
        run = open_run(Path("runs"), **about, data_fingerprint="")
        write_result(
            run,
            Result(
                run_id=run.run_id,
                engine="fake",
                method="fake",
                metrics={"top1": 1.0},
                n_test=1,
                started="",
                wall_s=60,
                manifest={"argv": ["harl-bench", *command.arguments]},
                peak_memory_mb=0,
                **about,
            ),
        )
    for command in commands:
        memory.begin(command)
        memory.keep(command)
    began = time.process_time()
    assert cli.main(["run", "suite.yaml", "--gpus", "0"]) == 0
    assert time.process_time() - began < 15
    assert names(calls()) == ["report"]

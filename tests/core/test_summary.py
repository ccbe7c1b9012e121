"""The last lines of a command: scores over the seeds in the order of the tables, the next command."""

import statistics
from pathlib import Path

import pytest

from harl_bench.cli import main
from harl_bench.core.progress import set_up_logging
from harl_bench.core.results import RESULT, CheckpointRef, Result
from harl_bench.core.summary import scores, show_plan, summarize, took

REF = CheckpointRef(path="moco.pth", name="moco", sha256="ab", format="moco")


def result(seed: int, metrics: dict[str, float | None], **about: object) -> Result:
    values = {
        "run_id": "0",
        "task": "voc",
        "dataset": "voc07+12",
        "protocol": "voc-c4-24k",
        "engine": "torchvision",
        "method": "",
        "checkpoint": REF,
        "seed": seed,
        "metrics": metrics,
        "n_test": 4952,
        "config": {},
        "manifest": {},
        "started": "",
        "wall_s": 1.0,
        "peak_memory_mb": 1.0,
    }
    return Result.model_validate(values | about)


def test_mean_and_sd_over_seeds_in_the_order_of_the_tables() -> None:
    values = [55.0, 56.0, 58.5]
    runs = [result(k, {"AP": v, "AP50": v + 20, "AP75": None}) for k, v in enumerate(values)]
    mean, sd = statistics.mean(values), statistics.stdev(values)
    text = f"AP50 {mean + 20:.2f} ± {sd:.2f}  AP {mean:.2f} ± {sd:.2f}  AP75 -"
    assert scores(runs) == text


@pytest.mark.parametrize(
    ("metrics", "about", "text"),
    [
        ({"AP": 1.0, "AP50": 2.0}, {"metric": "area"}, "AP50 2.00  AP 1.00  (area)"),
        (
            {"bbox/AP": 1.0, "bbox/AP50": 2.0, "segm/AP": 3.0, "segm/AP50": 4.0},
            {},
            "bbox/AP50 2.00  bbox/AP 1.00  segm/AP50 4.00  segm/AP 3.00",
        ),
        (
            {"top1": 1.0, "mean_per_class": 2.0},
            {"metric": "mean_per_class"},
            "mean_per_class 2.00  top1 1.00",
        ),
        ({"k20/top1": 1.0, "k10/top1": 2.0}, {}, "k20/top1 1.00  k10/top1 2.00"),
    ],
)
def test_one_seed_has_no_spread(
    metrics: dict[str, float | None], about: dict[str, str], text: str
) -> None:
    assert scores([result(0, metrics, **about)]) == text


def test_a_group_for_each_protocol_its_departures_once_and_the_next_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_up_logging()
    departures = ["SOLVER.MAX_ITER: 24000 -> 2"]
    runs = [
        result(0, {"AP": 1.0}, departures=departures),
        result(1, {"AP": 3.0}, departures=departures),
        result(0, {"AP": 9.0}, protocol="voc-c4-24k-lr0.1", label="mine", toy=True),
    ]
    summarize(runs, Path("my runs"))
    assert capsys.readouterr().out.splitlines() == [
        "moco  voc voc07+12  voc-c4-24k  n = 2 (seeds 0, 1), 4,952 test images",
        "  AP 2.00 ± 1.41",
        "  departs: SOLVER.MAX_ITER: 24000 -> 2",
        "mine  voc voc07+12  voc-c4-24k-lr0.1  n = 1 (seed 0), 4,952 test images"
        "; toy: says nothing about any method",
        "  AP 9.00",
        "next: harl-bench report 'my runs' --html report.html --against published",
    ]
    summarize([], Path("runs"))
    assert capsys.readouterr().out == ""


def test_classify_ends_with_its_scores_and_the_report_it_names_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["toy-data", "toy", "--scale", "0.06", "--side-px", "48"]) == 0
    command = ["classify", "random", "--data", "toy", "--protocol", "linear-toy"]
    command += ["--seeds", "0", "1", "--device", "cpu", "--workers", "0"]
    assert main(command) == 0
    first = capsys.readouterr().out.splitlines()
    assert main(command) == 0
    again = capsys.readouterr().out.splitlines()
    assert (
        first[-1]
        == again[-1]
        == "next: harl-bench report runs --html report.html --against published"
    )
    assert any(
        line.startswith("random  classify folder-classify  linear-toy  n = 2") for line in again
    )
    (line,) = [line for line in again if line.startswith("  top1 ")]
    assert line in first
    assert line.count("±") >= 2
    assert main(first[-1].split()[2:]) == 0


def test_a_plan_has_its_rows_its_runs_and_what_is_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    runs = [("new", "runs/a"), ("finished", "runs/b"), ("unfinished", "runs/c")]
    show_plan({"device": "1 x cpu", "time": "about 2:00"}, runs, each="10 iterations")
    assert capsys.readouterr().out.splitlines() == [
        "device      1 x cpu",
        "time        about 2:00",
        "new         runs/a",
        "finished    runs/b",
        "unfinished  runs/c",
        "to do       2 of 3, each 10 iterations; nothing was started (--dry-run)",
    ]


def test_finished_runs_say_how_long_one_takes(tmp_path: Path) -> None:
    folders = [tmp_path / str(seed) for seed in range(3)]
    for folder, seconds in zip(folders, (100.0, 130.0, 1000.0), strict=True):
        folder.mkdir()
        (folder / RESULT).write_text(result(0, {"AP": 1.0}, wall_s=seconds).model_dump_json())
    assert took(folders) == "about 2:10 a run, as 3 of them took"
    assert took(folders[:1]) == "about 1:40 a run, as 1 of them took"
    (folders[0] / RESULT).write_text(result(0, {"AP": 1.0}, wall_s=0.0).model_dump_json())
    assert took(folders[:1]) is None  # scored, not trained
    assert took([]) is None

"""The sentence that opens a report, from made-up runs."""

import html
from pathlib import Path

import numpy as np
import pytest

from harl_bench.core.results import Result, scan
from harl_bench.report import page, terminal
from harl_bench.report.assembly import tables_of
from harl_bench.report.collect import entries_of
from harl_bench.report.finding import finding
from tests.report.report_store import result, write

SETTING = {"dataset": "folder", "protocol": "linear-toy"}


def sentence(root: Path, baseline: str | None = None) -> str:
    return finding(tables_of(entries_of(scan(root)[0]), (), baseline))


def classified(root: Path, **hits: int) -> None:
    """One run a method with this many of 100 test images right, those of fewer among them."""
    for method, count in hits.items():
        run = result("classify", method, score=float(count), **SETTING)
        (folder,) = write(root, run)
        place = (np.arange(100) >= count).astype(int)
        paths = np.array([f"{i}.jpg" for i in range(100)])
        np.savez(folder / "predictions.npz", paths=paths, place=place)


def detected(*scores: tuple[str, float]) -> list[Result]:
    """Three seeds a method; the differences vary by 0.03 points."""
    return [
        result(method=method, seed=seed, score=score + 0.05 * (seed == 1) * (method == "harl"))
        for method, score in scores
        for seed in range(3)
    ]


@pytest.mark.parametrize(
    ("hits", "expected"),
    [
        (
            {"random": 40, "harl": 60},
            "HARL is 20.0 points above Random init in top-1 on folder (linear-toy): 60.0 "
            # 1.96 sqrt(20 - 20^2 / 100) = 7.84
            "against 40.0 (95 % interval of the difference 12.2 to 27.8; McNemar, p < 0.001, n = 100 test images).",
        ),
        # the upper line is not what was found while another row differs, and Holm doubles its p
        (
            {"random": 40, "harl": 47, "supervised": 90},
            "HARL is 7.0 points above Random init in top-1 on folder (linear-toy): 47.0 "
            "against 40.0 (95 % interval of the difference 2.0 to 12.0; McNemar, p = 0.016, n = 100 test images).",
        ),
        (
            {"random": 40, "harl": 30},
            "HARL is 10.0 points below Random init in top-1 on folder (linear-toy): 30.0 "
            "against 40.0 (95 % interval of the difference -15.9 to -4.1; McNemar, p = 0.002, n = 100 test images).",
        ),
        (
            {"random": 40, "harl": 43},
            "Nothing can be told apart from Random init. The smallest p: HARL is 3.0 points above "
            "Random init in top-1 on folder (linear-toy): 43.0 against 40.0 (95 % interval of the "
            "difference -0.3 to 6.3; McNemar, p = 0.25, n = 100 test images).",
        ),
        ({"harl": 60}, ""),
    ],
)
def test_one_seed_is_judged_by_its_test_images(
    tmp_path: Path, hits: dict[str, int], expected: str
) -> None:
    classified(tmp_path, **hits)
    assert sentence(tmp_path) == expected


def test_two_checkpoints_of_one_method_are_told_apart(tmp_path: Path) -> None:
    write(
        tmp_path,
        *(
            result(method="byol", checkpoint=name, seed=seed, score=score + 0.05 * (seed == 1) * i)
            for i, (name, score) in enumerate((("byol_100", 40.0), ("byol_300", 44.0)))
            for seed in range(3)
        ),
    )
    text = sentence(tmp_path, "byol_100")
    assert text.startswith("BYOL byol_300 is 4.0 points above BYOL byol_100 in AP on voc07+12")


def test_files_of_one_name_are_told_apart_wherever_they_are_named(tmp_path: Path) -> None:
    """Two `last.pth` of other weights, one of them the baseline, one with a departure."""
    for digest, score in (("a" * 64, 40.0), ("b" * 64, 44.0)):
        for seed in range(3):
            run = result(method="", seed=seed, score=score + 0.05 * (seed == 1) * (score > 40))
            weights = run.checkpoint.model_copy(update={"name": "last", "sha256": digest})
            departures = ["half the images"] * (digest[0] == "b")
            write(
                tmp_path, run.model_copy(update={"checkpoint": weights, "departures": departures})
            )
    tables = tables_of(entries_of(scan(tmp_path)[0]), (), "aaaaaaaa")
    assert finding(tables).startswith("last bbbbbbbb is 4.0 points above last aaaaaaaa in AP")
    notes = [text for table in tables for _, text in table.notes]
    assert "departs from its protocol: half the images (last bbbbbbbb)." in notes


def test_three_seeds_are_judged_by_their_spread(tmp_path: Path) -> None:
    write(tmp_path, *detected(("random", 40.0), ("harl", 44.0)))
    text = sentence(tmp_path)
    assert text.startswith("HARL is 4.0 points above Random init in AP on voc07+12 (voc-c4-24k): ")
    # differences 4, 4.05, 4: mean 4.0167, half 4.3027 x 0.02887 / sqrt(3) = 0.0717
    assert text.endswith(
        ": 44.1 against 40.1 (95 % interval of the difference 3.9 to 4.1; paired, p < 0.001, "
        "n = 3 seeds)."
    )


def test_n_is_of_the_seeds_that_have_the_score(tmp_path: Path) -> None:
    runs = detected(("random", 40.0), ("harl", 44.0))
    undefined = result(method="harl", seed=3)
    undefined = undefined.model_copy(update={"metrics": undefined.metrics | {"AP": None}})
    write(tmp_path, *runs, undefined)
    assert sentence(tmp_path).endswith("n = 3 seeds).")


def test_without_a_test_nothing_is_claimed(tmp_path: Path) -> None:
    write(tmp_path, result(method="random"), result(method="harl", score=80.0))
    assert sentence(tmp_path).startswith("Nothing can be told apart: no difference could be tested")


def test_page_and_terminal_open_with_it(tmp_path: Path) -> None:
    classified(tmp_path, random=40, harl=60)
    ours = entries_of(scan(tmp_path)[0])
    tables = tables_of(ours)
    text = page.rendered(tables, ours, root=tmp_path)
    assert text.index(html.escape(finding(tables))) < text.index("<nav>")
    assert terminal.rendered(tables, 120).plain.lstrip().startswith(finding(tables))

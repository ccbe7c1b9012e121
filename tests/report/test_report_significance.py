"""Significance, mean ranks and what is not tested against each other."""

import pytest

from harl_bench.core.errors import UsageError
from harl_bench.report.grid import MISSING
from tests.report.report_store import result, small
from tests.report.test_report_tables import row, tables


def test_one_metric_is_not_tested_against_another() -> None:
    """Another metric on the same data set: the row says so, and no star compares the two."""
    made = [
        result(
            method=m,
            seed=s,
            score=30 + 5 * (m == "harl") + s,
            metric="area" if m == "harl" else "11-point",
        )
        for m in ("random", "harl")
        for s in range(3)
    ]
    for each in tables(*made)["table3"].rows:
        assert not any(cell.stars for cell in each.cells)


def test_significance_against_random() -> None:
    table = tables(*small())["table3"]
    assert row(table, "HARL", ours=True).cells[1].stars == "**"
    assert row(table, "Random init", ours=True).cells[1].stars == ""
    assert any("paired t test over shared seeds" in text for _, text in table.notes)


def test_significance_needs_three_seeds() -> None:
    two = [r for r in small() if r.seed < 2]
    assert all(not c.stars for t in tables(*two).values() for r in t.rows for c in r.cells)


def test_a_chosen_baseline() -> None:
    table = tables(*small(), baseline="byol")["table3"]
    assert row(table, "BYOL", ours=True).cells[1].stars == ""
    assert row(table, "Random init", ours=True).cells[1].stars == "**"


def test_an_unknown_baseline_is_an_error() -> None:
    with pytest.raises(UsageError, match="unknown baseline 'byool'; did you mean 'byol'"):
        tables(*small(), baseline="byool")


def test_mean_rank() -> None:
    table = tables(*small())["summary"]
    assert {r.label: r.cells[-1].value for r in table.rows} == {
        "Random init": "3.0",
        "BYOL": "2.0",
        "HARL": "1.0",
    }
    assert [r.label for r in table.rows if r.cells[-1].best] == ["HARL"]


def test_mean_rank_is_for_complete_rows_only() -> None:
    made = [*small(), result(method="simclr", score=90.0)]
    table = tables(*made)["summary"]
    assert row(table, "SimCLR", ours=True).cells[-1].value == MISSING
    assert row(table, "HARL", ours=True).cells[-1].value == "1.0"


def test_other_labels_are_not_tested_against_each_other() -> None:
    for theirs, stars in (("a", "**"), ("b", ""), ("", "**")):
        runs = [r for r in small() if r.task == "voc"]
        labels = {"random": "a", "harl": theirs}
        runs = [
            r.model_copy(update={"contents": {"labels": c * 8} if c else {}})
            for r in runs
            if (c := labels.get(r.method)) is not None
        ]
        table = tables(*runs)["table3"]
        assert row(table, "HARL", ours=True).cells[1].stars == stars

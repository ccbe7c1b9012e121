"""Rows and numbers of a table: grouping of seeds, published rows, marks and bold."""

from pathlib import Path

import pytest

from harl_bench.core.results import Result
from harl_bench.report import markdown
from harl_bench.report.assembly import NOT_WITH_TOY, tables_of
from harl_bench.report.collect import TOY, Entry, entries_of, plain
from harl_bench.report.grid import MISSING, Row, Table, warnings
from harl_bench.report.published import read_published
from tests.report.report_store import result, small

PUBLISHED = read_published()


def entries(*results: Result) -> list[Entry]:
    return entries_of((Path(f"runs/{i}/result.json"), r) for i, r in enumerate(results))


def tables(
    *results: Result, against: bool = False, baseline: str | None = None
) -> dict[str, Table]:
    return {t.name: t for t in tables_of(entries(*results), PUBLISHED if against else (), baseline)}


def row(table: Table, label: str, *, ours: bool) -> Row:
    return next(r for r in table.rows if r.label == label and r.ours == ours)


def test_seeds_become_one_row() -> None:
    (entry,) = entries(*(result(seed=s, score=40.0) for s in (2, 0, 1)))
    assert entry.scores["AP"].seeds == (0, 1, 2)
    assert entry.scores["AP"].values == pytest.approx((40.0, 40.1, 40.2))


def test_random_draws_are_one_row() -> None:
    draws = [
        result(method="random", seed=s, config={"MODEL.WEIGHTS": f"draw{s}", "SEED": s})
        for s in (0, 1)
    ]
    draws = [
        d.model_copy(
            update={"checkpoint": d.checkpoint.model_copy(update={"sha256": f"{d.seed}" * 64})}
        )
        for d in draws
    ]
    (entry,) = entries(*draws)
    assert entry.scores["AP"].n == 2
    assert entry.name == "Random init"


def test_results_from_before_the_metric_was_named_are_11_point() -> None:
    """Seeds made before and after are one row."""
    (entry,) = entries(result(seed=0), result(seed=1, metric="11-point"))
    assert (entry.metric, entry.scores["AP"].n) == ("11-point", 2)


def test_another_voc_metric_has_a_table_of_its_own_without_published_rows() -> None:
    made = tables(
        result(),
        result(method="byol", dataset="voc_2012_val", metric="area"),
        result("coco", dataset="coco_2014_val", protocol="coco-c4-1x"),
        against=True,
    )
    for name in ("table3", "peers-voc-c4-24k"):
        assert [row.entries[0].metric for row in made[name].rows if row.ours] == ["11-point"]
    own = made["voc-voc_2012_val-voc-c4-24k"]
    assert all(row.ours for row in own.rows)
    assert (
        "",
        "AP on voc_2012_val: area under the precision-recall curve, as Detectron2 scores VOC2012.",
    ) in own.notes
    assert ("", "AP on voc07+12: 11-point interpolation, as Detectron2 scores VOC2007.") in made[
        "table3"
    ].notes
    assert {c.group for c in made["summary"].columns if c.task == "voc"} == {
        "VOC c4-24k",
        "voc_2012_val c4-24k",
    }
    assert "coco-coco_2014_val-coco-c4-1x" in made


@pytest.mark.parametrize(
    "other",
    [
        {"config": {"SOLVER": {"BASE_LR": 0.1}}},
        {"engine": "detectron2"},
        {"protocol": "voc-c4-24k-lr0.1"},
        {"sha256": "f" * 64},
        {"data_fingerprint": "other"},
        {"toy": True},
        {"metric": "area"},
    ],
)
def test_another_setting_is_another_row(other: dict[str, object]) -> None:
    assert len(entries(result(seed=0), result(seed=1, **other))) == 2  # type: ignore[arg-type]


def test_a_copied_run_counts_once_and_is_told() -> None:
    (entry,) = entries(result(seed=0), result(seed=0))
    assert entry.scores["AP"].n == 1
    assert entry.warnings == ("1 copy of these runs left out",)
    (entry,) = entries(result(seed=0), result(seed=1), result(seed=0, score=44.0))
    assert entry.warnings == ("1 copy of these runs left out, with other scores for seed 0",)


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_an_undefined_score_is_told(value: float | None) -> None:
    made = [
        result(seed=0),
        result(seed=1).model_copy(update={"metrics": {"AP": value, "AP50": 66.0}}),
    ]
    (entry,) = entries(*made)
    assert entry.scores["AP"].n == 1
    assert "AP, AP75 are not defined for seed 1" in entry.warnings


def test_a_run_without_any_score_still_has_its_row() -> None:
    nothing = result("classify", dataset="d", protocol="linear").model_copy(
        update={"metrics": {"top1": None}}
    )
    table = tables(nothing)["classify-d-linear"]
    assert [c.value for c in table.rows[0].cells] == [MISSING]


def test_without_against_nothing_is_quoted() -> None:
    assert all(r.ours for t in tables(*small()).values() for r in t.rows)


def test_only_tables_with_runs_are_shown() -> None:
    assert set(tables(result(), against=True)) == {"table3", "table5", "peers-voc-c4-24k"}
    byol = result("classify", "byol", dataset="cifar10", protocol="finetune")
    assert set(tables(byol, against=True)) == {"table2-finetune"}
    semi = result("classify", "byol", dataset="imagenet", protocol="semi-1pct")
    assert set(tables(semi, against=True)) == {"table1"}


def test_our_departures_are_marked_with_their_reason() -> None:
    table = tables(result(departures=["batch 8 instead of 16"]))["table3"]
    assert table.rows[0].marks == "†"
    assert ("†", "departs from its protocol: batch 8 instead of 16 (HARL).") in table.notes


def test_a_table_has_three_kinds_of_marks_at_most() -> None:
    """The star, one for ours and one for quoted rows; a note names the rows that it concerns."""
    made = [r.model_copy(update={"departures": ["batch 8", "lr 0.1"]}) for r in small()]
    for table in tables(*made, against=True).values():
        marks = {m for r in table.rows for m in (r.marks, *(c.marks for c in r.cells))}
        assert marks <= {"", "†", "‡"}
        assert {symbol for symbol, _ in table.notes} <= {"", "*", "†", "‡"}
    notes = [text for symbol, text in tables(*made, against=True)["table3"].notes if symbol == "‡"]
    assert (
        "a Mask R-CNN C4 1x figure under an FPN heading (SimCLR-IN, SimSiam: COCO box, COCO mask)."
        in notes
    )
    repo = "most likely reproduced by the HARL authors; its pretraining length may differ (BYOL (repo))."
    assert repo in notes


def test_a_star_is_explained_only_where_one_is() -> None:
    made = [
        result(method=m, seed=s, score=40 + s * s) for m in ("random", "harl") for s in (0, 1, 2)
    ]
    made += [
        result(
            "coco", m, s, dataset="coco", score=30 + 5 * (m == "harl") + s * (s + (m == "harl")) / 9
        )
        for m in ("random", "harl")
        for s in (0, 1, 2)
    ]
    for table in tables(*made).values():
        starred = any(cell.stars for r in table.rows for cell in r.cells)
        assert starred == any(symbol == "*" for symbol, _ in table.notes)


def test_warnings_of_runs_stand_once_at_the_end() -> None:
    made = [
        r.model_copy(update={"metrics": r.metrics | {"bbox/APl": None, "segm/APl": None}})
        for r in small()
        if r.task == "coco"
    ]
    shown = list(tables(*made).values())
    (line,) = warnings(shown)
    assert line == (
        "Random init, BYOL harl_100, HARL harl_100, coco-fpn-2fc-1x: bbox/APl, segm/APl are not "
        "defined for seed 0, 1, 2."
    ).replace("BYOL harl_100", "BYOL byol_100")
    assert not any("not defined" in text for table in shown for _, text in table.notes)
    assert markdown.rendered(shown).count("not defined") == 1


def test_our_other_protocol_is_marked() -> None:
    table = tables(result("coco", dataset="coco", protocol="coco-c4-1x"))["table3"]
    assert any("protocol coco-c4-1x, the table's is coco-fpn-*" in text for _, text in table.notes)


def test_best_is_decided_as_rounded_and_ties_share_it() -> None:
    made = [
        result(method=m, score=s) for m, s in (("harl", 57.32), ("byol", 57.28), ("simclr", 57.24))
    ]
    table = tables(*made)["table3"]
    assert [r.label for r in table.rows if r.cells[1].best] == ["BYOL", "HARL"]


def test_toy_rows_are_apart() -> None:
    table = tables(*small(toy=True), against=True)["table3"]
    assert ("", TOY) in table.notes
    assert all(NOT_WITH_TOY in r.block for r in table.rows if not r.ours)
    assert not any(cell.best for r in table.rows if not r.ours for cell in r.cells)
    assert row(table, "HARL", ours=True).cells[1].best
    assert not any(
        name.startswith(("peers", "table5")) for name in tables(*small(toy=True), against=True)
    )


def test_two_engines_are_two_rows_that_say_so() -> None:
    table = tables(result(), result(engine="detectron2"))["table3"]
    assert [r.detail for r in table.rows] == ["harl_100 · torchvision", "harl_100 · detectron2"]


def test_other_labels_are_another_row_and_every_row_of_the_column_says_so() -> None:
    old, new = ({"labels": letter * 64, "images": "c" * 64} for letter in "ab")
    runs = [result("voc", "byol", 0, contents=new)]
    runs += [result(seed=0, contents=old), result(seed=1, contents=new), result(seed=2)]
    table = tables(*runs)["table3"]
    details = [(r.label, r.detail) for r in table.rows]
    both = [f"harl_100 · images cccccccc, labels {letter * 8}" for letter in "ab"]
    assert sorted(details) == sorted(
        [("BYOL", "byol_100"), ("HARL", both[0]), ("HARL", both[1]), ("HARL", "harl_100")]
    )
    assert [r.marks for r in table.rows].count("†") == 3  # of the oldest nothing is known
    for labels, name in (("aaaaaaaa", "HARL"), ("bbbbbbbb", "BYOL, HARL")):
        text = f"measured with images cccccccc, labels {labels}, other rows used different ones ({name})."
        assert ("†", text) in table.notes


def test_rows_that_differ_in_nothing_but_a_setting_name_it() -> None:
    """A recipe file that was edited under its name."""
    for config, fingerprint, names in (
        (
            {"recipe": {"SOLVER.MAX_ITER": 9, "SEED": 1}},
            "",
            ["SOLVER.MAX_ITER 5", "SOLVER.MAX_ITER 9"],
        ),
        ({"recipe": {"SOLVER.MAX_ITER": 5}}, "f" * 64, ["data 00000000", "data ffffffff"]),
    ):
        first = result(config={"recipe": {"SOLVER.MAX_ITER": 5}}, data_fingerprint="0" * 64)
        other = result(config=config, data_fingerprint=fingerprint or "0" * 64, run_id="another")
        details = [r.detail for r in tables(first, other)["table3"].rows]
        assert sorted(details) == [f"harl_100 · {name}" for name in names]


def test_seeds_of_earlier_versions_stay_in_the_row_of_the_labels() -> None:
    noted = {"labels": "a" * 64}
    (entry,) = entries(result(seed=0), result(seed=1, contents=noted))
    assert (entry.scores["AP"].n, entry.reasons, entry.contents) == (2, (), "labels aaaaaaaa")


def test_a_column_of_segmentation_is_one_protocol() -> None:
    """BYOL's test on central crops and mmsegmentation's FCN never share MoCo's column."""
    shown = tables(
        *(
            result("segment", "byol", dataset="voc12aug", protocol=protocol, score=60.0)
            for protocol in ("voc12aug-fcn16s-30k", "voc12aug-fcn-d8-20k")
        ),
        against=True,
    )["segmentation"]
    headings = [f"{c.group} {c.heading}" for c in shown.columns]
    assert headings[:3] == [
        "VOC12 aug FCN-16s, 30k",
        "VOC12 aug FCN-16s, 30k, BYOL's",
        "VOC12 aug FCN-d8, 20k",
    ]
    values = {r.label: [c.value for c in r.cells[:3]] for r in shown.rows if not r.ours}
    assert values["MoCo"] == ["72.5", MISSING, MISSING]
    assert values["BYOL"] == [MISSING, "76.3", MISSING]
    assert values["DenseCL (200 ep)"] == [MISSING, MISSING, "69.5"]
    assert [c.value for c in row(shown, "BYOL", ours=True).cells[:3]] == ["60.0", MISSING, "60.0"]


def test_names_are_one_printable_line() -> None:
    assert plain("a\nb\x00\u202e") == "a\\nb\\x00\\u202e"


def test_the_links_to_two_tables_of_one_data_set_differ() -> None:
    runs = [result("classify", dataset="dtd", protocol=name) for name in ("knn", "linear-sgd")]
    assert {"dtd knn", "dtd linear-sgd"} <= {table.short for table in tables(*runs).values()}

"""Rows and numbers of a table: grouping of seeds, published rows, marks, bold, mean rank."""

from pathlib import Path

import pytest

from harl_bench.core.errors import DataError, UsageError
from harl_bench.core.results import Result
from harl_bench.report.assembly import NOT_WITH_TOY, tables_of
from harl_bench.report.collect import TOY, Entry, entries_of, plain
from harl_bench.report.grid import MISSING, Row, Table
from harl_bench.report.published import read_published
from harl_bench.report.tables import TABLES
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
    for row in tables(*made)["table3"].rows:
        assert not any(cell.stars for cell in row.cells)


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


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_an_undefined_score_is_told(value: float | None) -> None:
    made = [
        result(seed=0),
        result(seed=1).model_copy(update={"metrics": {"AP": value, "AP50": 66.0}}),
    ]
    (entry,) = entries(*made)
    assert entry.scores["AP"].n == 1
    assert "AP is not defined for seed 1" in entry.warnings


def test_a_run_without_any_score_still_has_its_row() -> None:
    nothing = result("classify", dataset="d", protocol="linear").model_copy(
        update={"metrics": {"top1": None}}
    )
    table = tables(nothing)["classify-d-linear"]
    assert [c.value for c in table.rows[0].cells] == [MISSING]


def test_ours_beside_published() -> None:
    table = tables(*small(), against=True)["table3"]
    assert [block for block, _ in table.blocks] == [
        "Measured here",
        "Published: HARL paper, Table 3",
    ]
    assert [r.label for r in table.rows if r.ours] == ["Random init", "BYOL", "HARL"]
    assert [c.value for c in row(table, "HARL", ours=False).cells] == (
        ["82.7", "56.3", "62.4", "62.1", "40.9", "44.5", "59.0", "37.3", "40.0"]
    )
    assert row(table, "HARL", ours=True).n == "3"
    assert row(table, "HARL", ours=False).n == ""
    assert [c.value for c in row(table, "MoCo v2", ours=False).cells].count(MISSING) == 4


def test_without_against_nothing_is_quoted() -> None:
    assert all(r.ours for t in tables(*small()).values() for r in t.rows)


def test_only_tables_with_runs_are_shown() -> None:
    assert set(tables(result(), against=True)) == {"table3", "table5", "peers-voc-c4-24k"}
    byol = result("classify", "byol", dataset="cifar10", protocol="finetune")
    assert set(tables(byol, against=True)) == {"table2-finetune"}
    semi = result("classify", "byol", dataset="imagenet", protocol="semi-1pct")
    assert set(tables(semi, against=True)) == {"table1"}


@pytest.mark.parametrize(
    ("table", "label", "column", "reason"),
    [
        ("table3", "Supervised", 4, "C4 1x figure under an FPN heading"),
        ("table3", "SimCLR-IN", 4, "C4 1x figure under an FPN heading"),
        ("table3", "SimSiam", 4, "C4 1x figure under an FPN heading"),
        ("table3", "MoCo", 1, "not MoCo on ImageNet-1M"),
        ("table3", "HARL", 4, "recipe (box head, schedule) not stated"),
        ("table5", "HARL (DRFI masks, 100ep)", 4, "implausible for a full 1x run"),
    ],
)
def test_what_does_not_compare_is_marked(table: str, label: str, column: int, reason: str) -> None:
    found = tables(*small(), against=True)[table]
    line = row(found, label, ours=False)
    marks = line.marks + line.cells[column].marks
    assert any(symbol in marks and reason in text for symbol, text in found.notes if symbol)


def test_byol_finetune_cells_name_its_own_numbers() -> None:
    found = tables(
        result("classify", "byol", dataset="cifar10", protocol="finetune"), against=True
    )["table2-finetune"]
    notes = " ".join(text for _, text in found.notes)
    assert "97.8" in notes
    assert "86.1" in notes
    own = next(r for r in found.rows if "its own transfer table" in r.block)
    assert own.cells[1].value == "97.8"


def test_our_departures_are_marked_with_their_reason() -> None:
    table = tables(result(departures=["batch 8 instead of 16"]))["table3"]
    assert table.rows[0].marks == "†"
    assert ("†", "departs from its protocol: batch 8 instead of 16.") in table.notes


def test_our_other_protocol_is_marked() -> None:
    table = tables(result("coco", dataset="coco", protocol="coco-c4-1x"))["table3"]
    assert any("protocol coco-c4-1x, the table's is coco-fpn-*" in text for _, text in table.notes)


def test_best_is_decided_as_rounded_and_ties_share_it() -> None:
    made = [
        result(method=m, score=s) for m, s in (("harl", 57.32), ("byol", 57.28), ("simclr", 57.24))
    ]
    table = tables(*made)["table3"]
    assert [r.label for r in table.rows if r.cells[1].best] == ["BYOL", "HARL"]


def test_marked_published_numbers_do_not_compete() -> None:
    table = tables(
        result("coco", score=30.0, dataset="coco", protocol="coco-fpn-2fc-1x"), against=True
    )["table3"]
    assert not any(cell.best for r in table.rows if not r.ours for cell in r.cells[3:])


def test_distance_to_the_published_number() -> None:
    made = [
        result("classify", seed=s, score=92.4, dataset="cifar10", protocol="linear")
        for s in (0, 1, 2)
    ]
    notes = [text for _, text in tables(*made, against=True)["table2-linear"].notes]
    # ours 92.4, 92.5, 92.6, so 92.5 +- 4.303 x .1 / sqrt(3) = .25; published 92.6
    expected = (
        "HARL harl_100 minus published HARL (HARL paper, Table 2): CIFAR-10 -0.1. Inside our 95 "
        "% interval: CIFAR-10."
    )
    assert expected in notes
    toy = [r.model_copy(update={"toy": True}) for r in made]
    assert not any(
        " minus " in text for _, text in tables(*toy, against=True)["table2-linear"].notes
    )


def test_toy_rows_are_apart() -> None:
    table = tables(*small(toy=True), against=True)["table3"]
    assert ("", TOY) in table.notes
    assert all(NOT_WITH_TOY in r.block for r in table.rows if not r.ours)
    assert not any(cell.best for r in table.rows if not r.ours for cell in r.cells)
    assert row(table, "HARL", ours=True).cells[1].best
    assert not any(
        name.startswith(("peers", "table5")) for name in tables(*small(toy=True), against=True)
    )


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


def test_two_engines_are_two_rows_that_say_so() -> None:
    table = tables(result(), result(engine="detectron2"))["table3"]
    assert [r.detail for r in table.rows] == ["harl_100 · torchvision", "harl_100 · detectron2"]


def test_every_table_takes_a_run_and_quotes_something() -> None:
    for name, spec in TABLES.items():
        column = spec.columns[0]
        protocol = column.protocol or "voc-c4-24k"
        made = result(
            column.task,
            (spec.methods or ("harl",))[0],
            dataset=column.dataset or "any",
            protocol=protocol,
        )
        assert name in tables(made)
        assert name.endswith("fpn-2fc-2x") or any(spec.quotes(entry) for entry in PUBLISHED), name


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


def test_published_numbers_are_all_there() -> None:
    quoted = [e for e in PUBLISHED if e.table == "detection_peers"]
    papers = [e for e in PUBLISHED if e.table.startswith("table")]
    assert sum(len(e.scores) for e in papers) == 29 + 48 + 61 + 12 + 18
    # ten of them are mmdet's 11-point AP50, another metric
    assert sum(len(e.scores) for e in quoted) == 368 - 10
    assert all(e.citation and e.source == "published" for e in PUBLISHED)


@pytest.mark.parametrize(
    ("source", "method", "protocol", "reason"),
    [
        (
            "SoCo README",
            "SoCo 100ep",
            "coco-fpn-4conv1fc-1x",
            "box head pretrained too, weight decay 2.5e-5",
        ),
        (
            "SoCo README",
            "SoCo 400ep",
            "coco-fpn-4conv1fc-1x",
            "box head pretrained too, weight decay 2.5e-5",
        ),
        (
            "SoCo README",
            "SoCo* 400ep",
            "coco-fpn-4conv1fc-1x",
            "box head pretrained too, weight decay 2.5e-5",
        ),
        ("SoCo README", "SoCo 400ep", "coco-c4-1x", "weight decay 2.5e-5 instead of 1e-4"),
        ("SoCo README", "Supervised", "coco-fpn-2fc-1x", "names no configuration"),
        (
            "InstanceLoc README",
            "InsLoc 400ep",
            "coco-fpn-4conv1fc-1x",
            "FPN and box head pretrained too",
        ),
        (
            "InstanceLoc README",
            "InsLoc 400ep",
            "coco-fpn-4conv1fc-2x",
            "one more SyncBN after the box head",
        ),
        ("InstanceLoc README", "MoCo v2 200ep", "coco-fpn-4conv1fc-2x", ""),
        ("OpenSelfSup MODEL_ZOO", "BYOL 200ep", "coco-c4-2x", "at most 1200 px instead of 1333"),
    ],
)
def test_published_configurations_that_differ_from_ours_are_marked(
    source: str, method: str, protocol: str, reason: str
) -> None:
    """Sources: SoCo 2be1229, InstanceLoc a419bb6 and OpenSelfSup's coco_R_50_C4_2x_moco.yaml."""
    (entry,) = [
        e for e in PUBLISHED if (e.citation, e.method, e.protocol) == (source, method, protocol)
    ]
    assert reason in "; ".join(entry.reasons)
    assert bool(entry.reasons) == bool(reason)


def test_soco_stands_beside_its_own_head_only() -> None:
    made = [
        result("coco", score=42.0, dataset="coco", protocol=f"coco-fpn-{h}-1x")
        for h in ("2fc", "4conv1fc")
    ]
    shown = {
        name: [r.label for r in t.rows if not r.ours]
        for name, t in tables(*made, against=True).items()
    }
    assert "SoCo 400ep" not in shown["peers-coco-fpn-2fc-1x"]
    assert "InsLoc 400ep" not in shown["peers-coco-fpn-2fc-1x"]
    assert {"SoCo 400ep", "InsLoc 400ep"} <= set(shown["peers-coco-fpn-4conv1fc-1x"])


def test_a_short_schedule_is_marked_in_the_papers_table() -> None:
    table = tables(result("coco", dataset="coco", protocol="coco-fpn-2fc-12k"))["table3"]
    assert any("protocol coco-fpn-2fc-12k, the table's is" in text for _, text in table.notes)


def test_recalled_rows_are_never_read(tmp_path: Path) -> None:
    (tmp_path / "comparability.csv").write_text("table,source,method,protocol,dataset,reason\n")
    head = "source,method,dataset,schedule,metric,value\n"
    (tmp_path / "peers.csv").write_text(
        head + "Some paper (recalled),X,coco,c4-1x,AP_box,40\nREADME,Y,coco,c4-1x,AP_box,41\n"
    )
    (entry,) = read_published(tmp_path)
    assert (entry.method, entry.protocol, entry.citation) == ("Y", "coco-c4-1x", "README")


def test_a_faulty_published_file_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "comparability.csv").write_text("table,source,method,protocol,dataset,reason\n")
    (tmp_path / "x.csv").write_text(
        "source,method,dataset,schedule,metric,value\nA,X,coco,c4-1x,AP_box,forty\n"
    )
    with pytest.raises(DataError, match=r"not a published number; in .*x\.csv:2"):
        read_published(tmp_path)


def test_names_are_one_printable_line() -> None:
    assert plain("a\nb\x00\u202e") == "a\\nb\\x00\\u202e"

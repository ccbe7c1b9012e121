"""Published rows: that they are all there, what they are compared with, and how they are marked."""

from pathlib import Path

import pytest

from harl_bench.core.errors import DataError
from harl_bench.report.grid import MISSING
from harl_bench.report.published import read_published
from harl_bench.report.tables import TABLES
from tests.report.report_store import result, small
from tests.report.test_report_tables import PUBLISHED, row, tables


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


def test_every_table_takes_a_run_and_quotes_something() -> None:
    for name, spec in TABLES.items():
        column = next(c for c in spec.columns if not spec.needs or c.dataset in spec.needs)
        protocol = column.protocol or "voc-c4-24k"
        made = result(
            column.task,
            (spec.methods or ("harl",))[0],
            dataset=column.dataset or "any",
            protocol=protocol,
        )
        assert name in tables(made)
        assert name.endswith("fpn-2fc-2x") or any(spec.quotes(entry) for entry in PUBLISHED), name


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

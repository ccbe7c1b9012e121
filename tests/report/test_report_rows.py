"""One row a checkpoint whatever it was measured with; masks and toy runs in tables of their own."""

from pathlib import Path

from harl_bench.core.results import Result
from harl_bench.report import latex, markdown, terminal
from harl_bench.report.collect import TOY
from harl_bench.report.finding import finding
from tests.report.report_store import result, small
from tests.report.test_report_page import rendered, write
from tests.report.test_report_tables import row, tables


def coco(method: str, recipe: str, score: float) -> object:
    return result("coco", method, dataset="coco", protocol=f"coco-{recipe}", score=score)


def test_a_checkpoint_has_one_row_in_any_mix_of_recipes() -> None:
    """Of several recipes the table shows the one of its title, then the one most rows share."""
    shown = tables(
        result("voc", "harl", score=50.0),
        coco("harl", "fpn-2fc-1x", 40.0),
        coco("harl", "fpn-2fc-2x", 42.0),
        coco("harl", "c4-1x", 38.0),
        coco("byol", "fpn-2fc-2x", 41.0),
        coco("simclr", "c4-1x", 37.0),
    )
    table = shown["table3"]
    assert [r.label for r in table.rows] == ["SimCLR", "BYOL", "HARL"]
    recipes = {r.label: [e.protocol for e in r.entries] for r in table.rows}
    assert recipes == {
        "HARL": ["voc-c4-24k", "coco-fpn-2fc-2x"],
        "BYOL": ["coco-fpn-2fc-2x"],
        "SimCLR": ["coco-c4-1x"],
    }
    # every other one stands in the table of its recipe
    assert row(shown["peers-coco-fpn-2fc-1x"], "HARL", ours=True).cells[1].value == "40.0"
    assert row(shown["peers-coco-c4-1x"], "HARL", ours=True).cells[1].value == "38.0"
    assert [r.label for r in shown["summary"].rows] == ["SimCLR", "BYOL", "HARL"]


def test_a_column_of_two_recipes_says_so() -> None:
    """Table 3 takes 1x and 2x, of which a row has the one it has."""
    shown = tables(
        *(result("voc", method, score=50.0) for method in ("byol", "harl")),
        coco("byol", "fpn-2fc-1x", 40.0),
        coco("harl", "fpn-4conv1fc-2x", 42.0),
    )
    for row_ in shown["table3"].rows:
        assert [cell.marks for cell in row_.cells] == [""] * 3 + ["†"] * 6
    other = "other rows of the column have another"
    for recipe, name in (("fpn-2fc-1x", "BYOL"), ("fpn-4conv1fc-2x", "HARL")):
        text = f"protocol coco-{recipe}, {other} ({name}: COCO box, COCO mask)."
        assert ("†", text) in shown["table3"].notes
    assert not any(other in text for _, text in shown["peers-voc-c4-24k"].notes)


def test_a_trial_is_in_no_row_with_what_departs_from_nothing() -> None:
    def linear(dataset: str, score: float, *departures: str, **config: int) -> Result:
        about = {"dataset": dataset, "protocol": "linear", "score": score}
        return result("classify", "byol", **about, config=config, departures=list(departures))

    shown = tables(
        linear("dtd", 50.0, "count 3 instead of 45", count=3),
        linear("food101", 75.0, count=45),
        linear("dtd", 70.0, count=45),
    )
    first, second = shown["table2-linear"].rows
    assert [cell.value for cell in first.cells] == ["75.0", "–", "–", "–", "–", "70.0"]
    assert [cell.value + cell.marks for cell in second.cells if cell.estimate] == ["50.0"]
    assert second.marks == "†"


def test_few_shots_are_no_neighbours() -> None:
    """Both have scores of k = 10. The summary took those of few shots for kNN, without a rank."""
    shown = tables(
        *(
            result("classify", method, dataset="dtd", protocol=protocol, metrics=metrics)
            for method, score in (("byol", 60.0), ("harl", 40.0))
            for protocol, metrics in (
                ("knn", {"k10/top1": score, "k20/top1": score}),
                ("linear-fewshot", {"k10/top1": 100.0 - score}),
            )
        )
    )
    headings = [(column.group, column.heading) for column in shown["summary"].columns]
    assert headings == [("dtd knn", "k10 top-1"), ("dtd knn", "k20 top-1"), ("", "mean rank")]


def test_a_recipe_that_no_table_takes_is_not_lost() -> None:
    shown = tables(coco("harl", "fpn-2fc-1x", 40.0), coco("harl", "mine", 30.0))
    assert shown["coco-coco-coco-mine"].rows[0].cells[0].value == "30.0"


def test_mask_makers_have_a_table_of_their_own() -> None:
    masks = [
        result("masks", name, dataset="ecssd", protocol="masks", checkpoint=name)
        for name in ("drfi", "deep")
    ]
    shown = tables(*masks, *small())
    assert {r.label for r in shown["masks-ecssd-masks"].rows} == {"drfi", "deep"}
    assert all(c.task != "masks" for c in shown["summary"].columns)
    assert {r.label for r in shown["summary"].rows} == {"Random init", "BYOL", "HARL"}


def test_toy_and_real_runs_share_neither_a_table_nor_a_banner(tmp_path: Path) -> None:
    real = [r for r in small() if r.method != "random"]
    toy = [r for r in small(toy=True) if r.method == "random"]
    shown = tables(*real, *toy, against=True)
    assert all(len({r.toy for r in table.rows if r.ours}) == 1 for table in shown.values())
    assert shown["toy-table3"].title.endswith(": toy data")
    assert not any(r.toy for r in shown["table3"].rows)
    assert all(r.ours for r in shown["toy-table3"].rows)
    assert not shown["table3"].toy
    for text in (
        markdown.rendered(list(shown.values())),
        terminal.rendered(list(shown.values()), 120).plain,
        latex.rendered(list(shown.values())),
    ):
        toys = sum(table.toy for table in shown.values())
        assert text.count(TOY) == toys
        assert text.index(TOY) > text.index("HARL")
    write(tmp_path, *real, *toy)
    page = rendered(tmp_path)
    assert "<title>Results" in page
    assert page.index(TOY) > page.index("<h1>")


def test_what_was_found_is_of_real_runs_where_there_are_any() -> None:
    real = [r for r in small() if r.method != "random"]
    shown = tables(*real, *small(toy=True), baseline="byol")
    text = finding(list(shown.values()))
    assert text.startswith("Nothing can be told apart from BYOL. The smallest p: HARL is 1.")
    assert "Random init" not in text  # which differs clearly, on toy data

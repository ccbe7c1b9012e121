"""Names of rows: the file's statement, the user's label, the file's name, a digest if they meet."""

from pathlib import Path

import pytest

from harl_bench.cli import main
from harl_bench.core.label import relabel
from harl_bench.core.results import CheckpointRef, Result, read_result
from harl_bench.report.assembly import tables_of
from harl_bench.report.collect import Entry, entries_of
from harl_bench.report.grid import Row
from tests.report.report_store import result, small, write

A, B = "a" * 64, "b" * 64


def entries(*results: Result) -> list[Entry]:
    return entries_of([(Path(f"runs/{i}/result.json"), r) for i, r in enumerate(results)])


def rows(*results: Result) -> dict[str, list[Row]]:
    """Our rows of each table."""
    return {
        table.name: [row for row in table.rows if row.ours]
        for table in tables_of(entries(*results))
    }


def masks(path: str, seed: int, sha256: str, score: float) -> Result:
    reference = CheckpointRef(path=path, name=Path(path).name, sha256=sha256, format="masks")
    return result(
        "masks",
        "drfi",
        seed,
        score=score,
        dataset="ecssd",
        protocol="mask-quality",
        run_id=sha256[:16],
        config={"maker": "drfi", "model": "drfi.npz"},
    ).model_copy(update={"checkpoint": reference})


@pytest.mark.parametrize(
    ("method", "format", "label", "shown"),
    [
        ("byol", "harl-bench", "", ("BYOL", "simsiam")),
        # not SimSiam: that is the file's name and the layout of its keys
        ("", "simsiam", "", ("simsiam", "")),
        ("simsiam", "simsiam", "", ("simsiam", "")),  # as earlier versions recorded it
        ("moco v1/v2", "moco v1/v2", "", ("simsiam", "")),
        ("", "simsiam", "BYOL, solo-learn", ("BYOL, solo-learn", "simsiam")),
        ("byol", "harl-bench", "BYOL 300 epochs", ("BYOL 300 epochs", "simsiam")),
        ("byol", "harl-bench", "simsiam", ("simsiam", "")),
    ],
)
def test_a_row_is_called(method: str, format: str, label: str, shown: tuple[str, str]) -> None:
    one = result("voc", method, checkpoint="simsiam", sha256=A, label=label)
    one = one.model_copy(
        update={"checkpoint": one.checkpoint.model_copy(update={"format": format})}
    )
    other = one.model_copy(
        update={"task": "coco", "dataset": "coco", "protocol": "coco-c4-1x", "run_id": "2"}
    )
    for table, ours in rows(one, other).items():
        assert [(row.label, row.detail) for row in ours] == [shown], table


def test_the_newest_label_of_its_seeds_counts_and_unlabelled_runs_take_it() -> None:
    ours = [result("voc", "byol", seed) for seed in (0, 1, 2)]
    ours[0] = ours[0].model_copy(update={"label": "old", "labelled": "2026-01-01T00:00:00+00:00"})
    ours[2] = ours[2].model_copy(update={"label": "new", "labelled": "2026-01-02T00:00:00+00:00"})
    coco = result("coco", "byol", dataset="coco", protocol="coco-c4-1x")
    assert {(e.task, e.name, len(e.runs)) for e in entries(*ours, coco)} == {
        ("voc", "new", 3),
        ("coco", "new", 1),
    }
    taken_away = ours[2].model_copy(update={"label": "", "labelled": "2026-01-03T00:00:00+00:00"})
    assert {e.name for e in entries(*ours[:2], taken_away, coco)} == {"BYOL"}


def test_a_label_that_is_a_methods_name_belongs_into_its_tables() -> None:
    ours = [
        result(
            "classify",
            "",
            seed,
            dataset="imagenet",
            protocol="imagenet-linear",
            checkpoint="theirs",
            sha256=A,
        )
        for seed in (0, 1)
    ]
    assert "table4" not in rows(*ours)
    assert "table4" in rows(
        *(r.model_copy(update={"label": "HARL", "labelled": "x"}) for r in ours)
    )


def test_relabelling_changes_the_label_alone(tmp_path: Path) -> None:
    before = result("voc", "byol")
    (folder,) = write(tmp_path, before)
    relabel(folder, None)
    assert read_result(folder / "result.json") == before
    relabel(folder, "mine")
    after = read_result(folder / "result.json")
    assert (after.label, after.run_id) == ("mine", before.run_id)
    assert after.model_copy(update={"label": "", "labelled": ""}) == before
    relabel(folder, "")
    assert read_result(folder / "result.json").label == ""


def test_two_mask_makers_of_one_name_are_two_rows() -> None:
    ours = rows(masks("a/drfi", 0, A, 74.4), masks("b/drfi", 0, B, 1.2))
    ((first, second),) = ours.values()
    assert [(row.n, row.cells[0].value, row.detail) for row in (first, second)] in (
        [("1", "74.4", "drfi · aaaaaaaa"), ("1", "1.2", "drfi · bbbbbbbb")],
        [("1", "74.4", "aaaaaaaa"), ("1", "1.2", "bbbbbbbb")],
    )


def test_fits_of_seeds_that_their_folders_hold_together_stay_together() -> None:
    digests = iter("0123456789")
    both = [
        masks(f"{maker}/seed{seed}/drfi", seed, next(digests) * 64, score + seed)
        for maker, score in (("a", 70.0), ("b", 10.0))
        for seed in (0, 1, 2)
    ]
    assert sorted(
        (e.scores["foreground_iou"].n, e.scores["foreground_iou"].seeds) for e in entries(*both)
    ) == [(3, (0, 1, 2)), (3, (0, 1, 2))]
    (alone,) = entries(*both[:3])
    assert (alone.digest, alone.scores["foreground_iou"].n) == ("", 3)
    overwritten = masks("a/seed0/drfi", 0, "f" * 64, 5.0)  # the same folder, fitted anew
    assert sorted(e.scores["foreground_iou"].n for e in entries(*both[:3], overwritten)) == [
        1,
        1,
        1,
        1,
    ]


def test_two_files_of_one_name_are_told_apart_in_every_table() -> None:
    ours = [
        result(
            task,
            "byol",
            seed,
            checkpoint="last",
            sha256=sha,
            dataset=dataset,
            protocol=protocol,
            run_id=f"{sha}{seed}{task}",
        )
        for sha in (A, B)
        for seed in (0, 1)
        for task, dataset, protocol in (
            ("voc", "voc07+12", "voc-c4-24k"),
            ("coco", "coco", "coco-fpn-2fc-1x"),
            ("classify", "dtd", "linear"),
        )
    ]
    tables = rows(
        *ours,
        result(
            "classify", "byol", checkpoint="last", sha256=A, dataset="cars", protocol="finetune"
        ),
    )
    for name, shown in tables.items():
        expected = (
            ["last · aaaaaaaa"]
            if name == "table2-finetune"
            else ["last · aaaaaaaa", "last · bbbbbbbb"]
        )
        assert [row.detail for row in shown] == expected, name
    assert len(tables) > 3


BASE = {"dataset": "imagenet", "protocol": "imagenet-linear"}


@pytest.mark.parametrize(
    ("arguments", "table", "note"),
    [
        (
            [],
            "Table 4",
            "No significance marks: the baseline, Random init, has no row in this table; "
            "--baseline takes",
        ),
        (
            ["--baseline", "plain"],
            "Table 4",
            "* p &lt; 0.05, ** p &lt; 0.01 against HARL plain: paired t test",
        ),
        (
            ["--baseline", "HARL"],
            "Table 4",
            "No significance marks against HARL plain, HARL two: HARL names several",
        ),
        ([], "Table 1", "* p &lt; 0.05, ** p &lt; 0.01 against Random init: paired t test"),
        (
            ["--baseline", "single"],
            "Table 1",
            "nothing could be tested against BYOL single; a test needs 3 seeds",
        ),
    ],
)
def test_every_table_says_its_baseline_or_why_there_is_none(
    tmp_path: Path, arguments: list[str], table: str, note: str
) -> None:
    ours = [
        result(
            "classify", method, seed, checkpoint=name, score=score + seed * place % 3 / 7, **BASE
        )
        for place, (method, name, score) in enumerate(
            (("random", "", 30.0), ("harl", "plain", 50.0), ("harl", "two", 55.0)), 2
        )
        for seed in (0, 1, 2)
    ]
    write(tmp_path / "runs", *ours, result("classify", "byol", checkpoint="single", **BASE))
    assert main(["report", str(tmp_path / "runs"), "--md", str(tmp_path / "r.md"), *arguments]) == 0
    sections = (tmp_path / "r.md").read_text().replace("\\", "").split("\n## ")
    (section,) = (text for text in sections if f"(HARL paper, {table})" in text.partition("\n")[0])
    assert note in section
    assert section.count("significance marks") + section.count("p &lt; 0.05") == 1


def test_without_random_initialization_it_is_said(tmp_path: Path) -> None:
    write(tmp_path / "runs", *(r for r in small() if r.method != "random"))
    assert main(["report", str(tmp_path / "runs"), "--md", str(tmp_path / "r.md")]) == 0
    text = (tmp_path / "r.md").read_text()
    assert (
        "No significance marks: random initialization was not measured; --baseline takes"
        in text.replace("\\", "")
    )

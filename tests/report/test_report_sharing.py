"""Results that others can read: packs of runs, tidy tables added and read back."""

import hashlib
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from harl_bench.cli import main
from harl_bench.core.errors import DataError
from harl_bench.core.results import scan
from harl_bench.report import tidy
from harl_bench.report.assembly import tables_of
from harl_bench.report.collect import TOY, entries_of
from harl_bench.report.grid import Table
from harl_bench.report.pack import SUMS, packed, unpacked
from harl_bench.report.published import read_published
from harl_bench.report.read import read_added, read_results, read_runs
from harl_bench.report.tables import Column
from tests.report.report_store import draw_image, result, small, write
from tests.report.test_report_tables import row


def filled(root: Path) -> Path:
    """Runs with the files that a run folder has besides its result."""
    for folder in write(root, *small()):
        (folder / "config.yaml").write_text("SEED: 0\n")
        (folder / "run.json").write_text("{}")
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "last.pth").write_bytes(bytes(1000))
        draw_image(folder / "pictures" / "detection-1.png", 0, (16, 12))
    return root


def test_a_pack_holds_results_and_hashes_and_no_weights(tmp_path: Path) -> None:
    root = filled(tmp_path / "runs")
    assert main(["report", str(root), "--pack", str(tmp_path / "mine.zip")]) == 0
    with zipfile.ZipFile(tmp_path / "mine.zip") as archive:
        names = archive.namelist()
        sums = dict(reversed(line.split("  ")) for line in archive.read(SUMS).decode().splitlines())
        assert set(names) == {SUMS, *sums}
        assert all(hashlib.sha256(archive.read(n)).hexdigest() == sums[n] for n in sums)
    assert {name.rpartition("/")[2] for name in sums} == {"result.json", "run.json", "config.yaml"}
    assert len(sums) == 3 * len(small())
    assert (tmp_path / "mine.zip").read_bytes() == packed(scan(root)[0], root)  # equal each time


def test_a_pack_reads_like_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the zip alone, and from a folder where a group puts its zips."""
    root = filled(tmp_path / "runs")
    leaderboard = tmp_path / "leaderboard"
    leaderboard.mkdir()
    mine = leaderboard / "mine.zip"
    mine.write_bytes(packed(scan(root)[0], root))
    shown = []
    for source in (root, mine, leaderboard):
        capsys.readouterr()
        assert main(["report", str(source), "--html", str(tmp_path / "page.html")]) == 0
        lines = capsys.readouterr().out.splitlines()
        shown.append([line for line in lines if "wrote" not in line])
    assert shown[0] == shown[1] == shown[2]
    other = result("voc", "simclr", score=45.0)
    write(tmp_path / "theirs", other)
    theirs = packed(scan(tmp_path / "theirs")[0], tmp_path / "theirs")
    (leaderboard / "theirs.zip").write_bytes(theirs)
    frame = read_results(leaderboard)
    assert set(frame["method"]) == {"Random init", "BYOL", "HARL", "SimCLR"}


def test_a_changed_or_broken_pack_is_told(tmp_path: Path) -> None:
    root = write(tmp_path / "runs", result(), result(seed=1))[0].parents[4]
    whole = tmp_path / "whole.zip"
    whole.write_bytes(packed(scan(root)[0], root))
    changed = tmp_path / "changed.zip"
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, content.replace(b"40.1", b"99.9"))
    runs, faults = unpacked(changed)
    assert [r.seed for _, r in runs] == [0]
    assert [fault.what for fault in faults] == ["a packed result was changed"]
    for content in (b"PK damaged", whole.read_bytes()[:-30]):
        (tmp_path / "broken.zip").write_bytes(content)
        with pytest.raises(DataError, match="not a pack of results"):
            unpacked(tmp_path / "broken.zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "no results")
    with pytest.raises(DataError, match=r"not a pack of results.*next: harl-bench report"):
        unpacked(tmp_path / "other.zip")


@pytest.mark.parametrize("name", ["{}/result.json", "../{}/result.json", "a/../result.json"])
def test_a_pack_reads_no_folder_of_the_disk(tmp_path: Path, name: str) -> None:
    """Its names become paths, beside which images and predictions are looked for."""
    outside = filled(tmp_path / "private")
    name, content = name.format(outside), result().model_dump_json().encode()
    pack = tmp_path / "theirs.zip"
    with zipfile.ZipFile(pack, "w") as archive:
        archive.writestr(name, content)
        archive.writestr(SUMS, f"{hashlib.sha256(content).hexdigest()}  {name}\n")
    runs, faults = unpacked(pack)
    assert runs == []
    assert [fault.what for fault in faults] == ["a packed result lies outside the pack"]


def test_no_damage_to_a_pack_ends_the_report(tmp_path: Path) -> None:
    """Each byte in turn is flipped: the pack is a fault, and the folder's runs are shown."""
    root = write(tmp_path / "runs", result())[0].parents[4]
    whole = packed(scan(root)[0], root)
    damaged = root / "damaged.zip"
    for i in range(len(whole)):
        damaged.write_bytes(whole[:i] + bytes([whole[i] ^ 0xFF]) + whole[i + 1 :])
        assert [r.method for _, r in read_runs(root)[0]] == ["harl"]
    with zipfile.ZipFile(damaged, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr(SUMS, "")
    content = damaged.read_bytes()
    data = content.index(SUMS.encode()) + len(SUMS) + 4  # behind the version and size of LZMA's own
    for contents in (
        whole[:80] + bytes(20) + whole[100:],
        content[:data] + b"\xff" * 5 + content[data + 5 :],
    ):
        damaged.write_bytes(contents)
        assert [fault.what for fault in read_runs(root)[1]] == ["not a pack of results"]


def test_a_pack_in_the_folder_of_its_runs_stays_as_it_is(tmp_path: Path) -> None:
    """No copies are packed or told of; another measurement of the same run stays."""
    root = filled(tmp_path / "runs")
    words = ["report", str(root), "--pack", str(root / "all.zip"), "--html", str(tmp_path / "p")]
    theirs = result("voc", "simclr")
    write(tmp_path / "theirs", theirs)
    (root / "b.zip").write_bytes(packed(scan(tmp_path / "theirs")[0], tmp_path / "theirs"))
    assert main(words) == 0
    first = (root / "all.zip").read_bytes()
    assert main(words) == 0
    assert (root / "all.zip").read_bytes() == first
    assert "left out" not in (tmp_path / "p").read_text()
    write(tmp_path / "again", theirs.model_copy(update={"started": "2027-01-02T03:04:05+00:00"}))
    (root / "c.zip").write_bytes(packed(scan(tmp_path / "again")[0], tmp_path / "again"))
    assert main(words) == 0
    assert "1 copy of these runs left out" in (tmp_path / "p").read_text()


def test_of_a_run_and_its_older_copies_the_newest_counts(tmp_path: Path) -> None:
    """The run was made anew (--fresh) after it was packed, or a colleague has the newer one."""
    for name, year, score in (("a", 2025, 50.0), ("runs", 2026, 70.0), ("z", 2024, 60.0)):
        when = f"{year}-01-02T03:04:05+00:00"
        root = tmp_path / name
        write(root, result("voc", score=score, started=when))
        if name != "runs":
            (tmp_path / "runs").mkdir(exist_ok=True)
            pack = tmp_path / "runs" / f"{name}.zip"
            pack.write_bytes(packed(scan(root)[0], root))
    (entry,) = entries_of(read_runs(tmp_path / "runs")[0])
    assert entry.scores["AP"].mean == 70.0
    assert entry.warnings == ("2 copies of these runs left out, with other scores for seed 0",)


@pytest.mark.parametrize("toy", [False, True])
def test_the_csv_comes_back_as_it_was(tmp_path: Path, toy: bool) -> None:
    names = ("=cmd|' /C calc'!A0", "'quoted", "NA", "")
    ours = entries_of(
        (Path(f"{i}/result.json"), r)
        for i, r in enumerate([*small(toy=toy), *(result(method=n, toy=toy) for n in names)])
    )
    tables = tables_of(ours, read_published())
    (tmp_path / "r.csv").write_text(tidy.rendered(tables, ours), encoding="utf-8")
    back = read_results(tmp_path / "r.csv")
    pd.testing.assert_frame_equal(back, tidy.frame(tables, ours), check_exact=True)


def test_added_numbers_stand_beside_ours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A colleague's report as CSV, toy or not, and five columns typed by hand."""
    theirs = [
        r.model_copy(update={"label": "Theirs", "labelled": "2026", "departures": ["batch 8"]})
        for r in small()
        if r.method == "byol"
    ]
    write(tmp_path / "theirs", *theirs)
    csv = tmp_path / "theirs.csv"
    assert (
        main(["report", str(tmp_path / "theirs"), "--csv", str(csv), "--against", "published"]) == 0
    )
    hand = tmp_path / "hand.csv"
    hand.write_text(
        "method,dataset,protocol,metric,value,citation\n"
        "New,coco,coco-fpn-2fc-1x,AP_box,41.5,Somebody 2027\n"
        "New,cifar10,linear,top1,93.25,Somebody 2027\n"
    )
    write(tmp_path / "runs", *small())
    ours = entries_of(scan(tmp_path / "runs")[0])
    shown = {t.name: t for t in tables_of(ours, [*read_added(csv), *read_added(hand)])}
    table = shown["table3"]
    theirs_row = row(table, "Theirs", ours=False)
    assert theirs_row.block == "Added: theirs.csv"
    assert theirs_row.cells[1].value == "40.8"
    assert theirs_row.cells[1].spread == "± 0.4"
    assert theirs_row.marks == "‡"
    assert any("batch 8 (Theirs)" in text for symbol, text in table.notes if symbol == "‡")
    new = row(table, "New", ours=False)
    assert (new.block, new.cells[4].value) == ("Added: Somebody 2027", "41.5")
    assert row(shown["table2-linear"], "New", ours=False).cells[1].value == "93.2"
    capsys.readouterr()
    words = ["report", str(tmp_path / "runs"), "--add", str(csv), str(hand)]
    assert main([*words, "--html", str(tmp_path / "p.html")]) == 0
    assert "Added: Somebody 2027" in capsys.readouterr().out
    page = (tmp_path / "p.html").read_text()
    assert "Added: theirs.csv" in page
    assert "HARL paper, Table 3" not in page[page.index("<main>") :].replace(
        "(HARL paper, Table 3)", ""
    )  # their published rows are not quoted a second time


def test_added_rows_of_other_engines_and_weights_stay_apart(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(
        "method,dataset,protocol,metric,value,sd,engine,checkpoint_sha256\n"
        "New,coco,coco-fpn-2fc-1x,AP_box,41.5,,torchvision,aaaaaaaaaa\n"
        "New,coco,coco-fpn-2fc-1x,AP_box,42.5,,detectron2,aaaaaaaaaa\n"
        "New,coco,coco-fpn-2fc-1x,AP_box,43.5,0.2,torchvision,bbbbbbbbbb\n"
    )
    ours = entries_of((Path(f"{i}/result.json"), r) for i, r in enumerate(small()))
    shown = {t.name: t for t in tables_of(ours, read_added(tmp_path / "x.csv"))}
    rows = [row for row in shown["table3"].rows if not row.ours]
    assert [(row.detail, row.cells[4].value) for row in rows] == [
        ("aaaaaaaa · torchvision", "41.5"),
        ("aaaaaaaa · detectron2", "42.5"),
        ("bbbbbbbb", "43.5"),
    ]


def test_rows_that_differ_in_a_setting_alone_come_back_as_rows(tmp_path: Path) -> None:
    rates = {rate: result(config={"SOLVER": {"BASE_LR": rate}}) for rate in (0.02, 0.1)}
    ours = entries_of((Path(f"{rate}/r.json"), r) for rate, r in rates.items())
    (tmp_path / "x.csv").write_text(tidy.rendered([], ours), encoding="utf-8")
    settings = ["SOLVER.BASE_LR 0.02", "SOLVER.BASE_LR 0.1"]
    assert sorted(set(read_results(tmp_path / "x.csv")["settings"])) == settings
    other = entries_of([(Path("r.json"), result("voc", "byol"))])
    shown = {t.name: t for t in tables_of(other, read_added(tmp_path / "x.csv"))}
    details = [row.detail for row in shown["table3"].rows if not row.ours]
    assert details == [f"harl_100 · {setting}" for setting in settings]


def test_an_added_row_says_where_its_protocol_differs_and_is_never_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.csv").write_text(
        "method,dataset,protocol,metric,value\n"
        "New,coco,coco-fpn-2fc-3x,bbox/AP,90\n"
        "New,cityscapes,cityscapes-fpn-24k,segm/AP,33\n"
        "New,dtd,liner,top1,70\n"
    )
    ours = result("cityscapes", "byol", dataset="cityscapes", protocol="cityscapes-fpn-24k")
    write(tmp_path / "runs", *small(), ours)
    words = ["report", str(tmp_path / "runs"), "--add", str(tmp_path / "x.csv")]
    assert main([*words, "--md", str(tmp_path / "t.md")]) == 0
    out = capsys.readouterr().out
    assert "no run has their data set and protocol: dtd liner (1)" in out
    text = (tmp_path / "t.md").read_text()
    assert "‡ protocol coco-fpn-2fc-3x, the table's is coco-fpn-" in text
    assert "*90.0*" in text
    assert "**90.0**" not in text  # it does not compete
    assert "*33.0*" in text


def test_a_heading_is_no_formula() -> None:
    table = Table("t", "t", (Column("", "=1+1", "voc", "AP"),), (), (), "t")
    assert tidy.grid(table) == ",,n,'=1+1,'=1+1 sd\n"


def test_added_toy_numbers_are_marked_as_such(tmp_path: Path) -> None:
    toy = entries_of((Path("r.json"), r) for r in [result(toy=True)])
    (tmp_path / "toy.csv").write_text(tidy.rendered([], toy), encoding="utf-8")
    (entry,) = read_added(tmp_path / "toy.csv")
    assert entry.reasons == (TOY.rstrip("."),)


def test_added_fractions_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "runs", *small())
    csv = tmp_path / "x.csv"
    for value, warned in (("0.753", True), ("75.3", False), ("0", False)):
        csv.write_text(f"method,dataset,protocol,metric,value\nX,cifar10,linear,top1,{value}\n")
        assert main(["report", str(tmp_path / "runs"), "--add", str(csv)]) == 0
        told = " ".join(capsys.readouterr().out.split())
        assert ("scores are percent, are these fractions?" in told) == warned


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a table of results"),
        ("method,value\nX,1\n", "seen: no column dataset, protocol, metric"),
        ("method,dataset,protocol,metric,value\nX,coco,p,AP,high\n", r"not a number; in .*:2"),
        ("method,dataset,protocol,metric,value\nX,coco,p,AP,nan\n", r"not a number; in .*:2"),
        ("method,dataset,protocol,metric,value,sd\nX,coco,p,AP,1,inf\n", r"not a number; in .*:2"),
        ("method,dataset,protocol,metric,value\n,coco,p,AP,70\n", r"a row without method; in .*:2"),
        ("method,dataset,protocol,metric,value\nX,coco,p,AP\n", r"a row without value; in .*:2"),
        (
            "method,dataset,protocol,metric,value\nX,coco,p,AP,4150\n",
            r"a score above 100 percent; in .*:2; seen: AP 4150",
        ),
        (
            "method,dataset,protocol,metric,value\nX,coco,p,AP,70\nX,coco,p,AP,80\n",
            r"two values for one number; in .*:3; seen: AP 70 and 80; next: put the mean",
        ),
    ],
)
def test_a_faulty_table_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_added(tmp_path / "x.csv")

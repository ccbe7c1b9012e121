"""Terminal, Markdown, LaTeX and CSV: golden files, hostile names, the toy banner.

The golden files are written anew by `python tests/report/test_report_formats.py`; read the
difference before committing it.
"""

import csv
import io
import shutil
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from harl_bench.core.results import Result
from harl_bench.report import latex, markdown, terminal, tidy
from harl_bench.report.assembly import NOT_WITH_TOY, tables_of
from harl_bench.report.collect import TOY, Entry, entries_of
from harl_bench.report.grid import Table
from harl_bench.report.published import read_published
from tests.report.report_store import result, small

GOLDEN = Path(__file__).parent / "golden"
HOSTILE = (
    "<script>alert(1)</script> & a_b 5% $x$ \\input{/etc/passwd} #1 ~ ^ | `c` *d* [e](http://f) "
    '"g"\nh 中 \u202e'
)
DOCUMENT = (
    r"\documentclass{article}\usepackage{booktabs}\begin{document}\input{table}\end{document}"
)


def built(results: list[Result], *, against: bool = True) -> tuple[list[Table], list[Entry]]:
    ours = entries_of((Path(f"runs/{i}/result.json"), r) for i, r in enumerate(results))
    return tables_of(ours, read_published() if against else ()), ours


def golden_tables() -> list[Table]:
    return [t for t in built(small())[0] if t.name in ("summary", "table3")]


@pytest.mark.parametrize(
    ("name", "renderer"), [("small.md", markdown.rendered), ("small.tex", latex.rendered)]
)
def test_golden(name: str, renderer: object) -> None:
    assert callable(renderer)
    assert renderer(golden_tables()) == (GOLDEN / name).read_text(encoding="utf-8")


def test_hostile_names_in_markdown() -> None:
    text = markdown.rendered(built([result(method=HOSTILE, checkpoint=HOSTILE)])[0])
    assert "<script" not in text
    assert "\\`c\\` \\*d\\* \\[e\\](http://f)" in text
    assert "\\\\nh" in text  # the line break is shown, and breaks no table
    widths = {
        line.count("|") - line.count("\\|") for line in text.splitlines() if line.startswith("|")
    }
    assert widths == {12, 6}  # table 3 has 9 columns, the peers' table 3, and both two more


def test_hostile_names_in_latex() -> None:
    text = latex.rendered(built([result(method=HOSTILE, checkpoint=HOSTILE)])[0])
    assert r"\textbackslash{}input\{/etc/passwd\}" in text
    assert r"a\_b 5\% \$x\$" in text
    assert r"\texttt{U+4E2D}" in text


def test_csv_is_tidy() -> None:
    tables, ours = built(small())
    rows = list(csv.DictReader(io.StringIO(tidy.rendered(tables, ours))))
    mine = [r for r in rows if r["source"] == "ours"]
    assert len(mine) == 3 * (3 + 6 + 3)
    harl = next(r for r in mine if (r["method"], r["metric"]) == ("HARL", "bbox/AP"))
    # 41 - 2, jitter .75 and seeds' .1 in the mean
    assert float(harl["value"]) == pytest.approx(39.85)
    assert float(harl["ci_low"]) < float(harl["value"]) < float(harl["ci_high"])
    assert (harl["n"], harl["seeds"]) == ("3", "0 1 2")
    theirs = next(
        r
        for r in rows
        if r["source"] == "published" and r["method"] == "HARL" and r["metric"] == "bbox/AP"
    )
    assert (theirs["value"], theirs["sd"], theirs["n"], theirs["citation"]) == (
        "40.9",
        "",
        "",
        "HARL paper, Table 3",
    )
    assert "not stated by the paper" in theirs["marks"]


def test_the_tidy_frame_holds_what_the_csv_says() -> None:
    tables, ours = built(small())
    frame = tidy.frame(tables, ours)
    rows = csv.DictReader(io.StringIO(tidy.rendered(tables, ours)))
    assert tuple(frame.columns) == tuple(rows.fieldnames or ())
    for values, row in zip(frame.to_dict("records"), rows, strict=True):
        assert float(row["value"]) == values["value"]
        assert row["n"] == ("3" if values["source"] == "ours" else "")
        assert all(row[name] == text for name, text in values.items() if isinstance(text, str))
    assert frame.groupby("source")["n"].count().to_dict() == {"ours": 36, "published": 0}


def test_csv_gives_no_interval_from_one_seed() -> None:
    tables, ours = built([result()])
    row = next(csv.DictReader(io.StringIO(tidy.rendered(tables, ours))))
    assert (row["sd"], row["n"], row["ci_low"], row["ci_high"]) == ("", "1", "", "")


def test_csv_starts_no_formula() -> None:
    tables, ours = built([result(method="=cmd|' /C calc'!A0")])
    row = next(csv.DictReader(io.StringIO(tidy.rendered(tables, ours))))
    assert row["method"].startswith("'=")


def test_toy_banner_in_every_format() -> None:
    tables, ours = built(small(toy=True))
    text = markdown.rendered(tables)
    assert text.splitlines()[2] == f"> **{TOY}**"
    assert text.count(TOY) == 1 + len(tables)
    assert latex.rendered(tables).count(rf"\textbf{{{TOY}}}}}") == len(tables)
    assert terminal.rendered(tables, 120).plain.lstrip().startswith(TOY)
    rows = list(csv.DictReader(io.StringIO(tidy.rendered(tables, ours))))
    assert {r["comment"] for r in rows if r["source"] == "ours"} == {TOY}
    assert {r["comment"] for r in rows if r["source"] == "published"} == {NOT_WITH_TOY}


def test_no_toy_banner_on_real_numbers() -> None:
    tables, ours = built(small())
    for text in (markdown.rendered(tables), latex.rendered(tables), tidy.rendered(tables, ours)):
        assert "toy" not in text.lower()


@pytest.mark.parametrize("width", [60, 100, 200])
def test_terminal_lines_fit(width: int) -> None:
    tables, _ = built(small())
    console = Console(width=width, file=io.StringIO(), soft_wrap=True)
    console.print(terminal.rendered(tables, width))
    notes = {text for table in tables for _, text in table.notes}
    lines = terminal.rendered(tables, width).plain.splitlines()
    numbers = [line for line in lines if "±" in line and not line.startswith("Percent")]
    assert numbers
    assert max(map(len, numbers)) <= width
    assert notes


def test_latex_compiles(tmp_path: Path) -> None:
    if not (compiler := shutil.which("pdflatex") or shutil.which("tectonic")):
        pytest.skip("neither pdflatex nor tectonic is installed")
    names = (HOSTILE, "-é", "[2cm]", "* p")
    results = [
        *small(),
        *(result(method=name, checkpoint=name, departures=[name]) for name in names),
    ]
    (tmp_path / "table.tex").write_text(latex.rendered(built(results)[0]), encoding="utf-8")
    (tmp_path / "main.tex").write_text(DOCUMENT)
    options = (
        ["-interaction=nonstopmode", "-halt-on-error"] if compiler.endswith("pdflatex") else []
    )
    done = subprocess.run(
        [compiler, *options, "main.tex"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "main.pdf").stat().st_size > 10_000


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    (GOLDEN / "small.md").write_text(markdown.rendered(golden_tables()), encoding="utf-8")
    (GOLDEN / "small.tex").write_text(latex.rendered(golden_tables()), encoding="utf-8")

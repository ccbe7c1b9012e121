"""Terminal, Markdown, LaTeX and CSV: golden files, hostile names, the toy banner.

The golden files are written anew by `python tests/report/test_report_formats.py`; read the
difference before committing it.
"""

import csv
import io
import re
import shutil
import subprocess
from itertools import product
from pathlib import Path
from statistics import median

import pytest
from rich.console import Console

from harl_bench.core.resources import data_dir
from harl_bench.core.results import Result
from harl_bench.report import latex, markdown, terminal, tidy
from harl_bench.report.assembly import NOT_WITH_TOY, tables_of
from harl_bench.report.collect import TOY, Entry, entries_of
from harl_bench.report.fit import Page, layout
from harl_bench.report.grid import Table
from harl_bench.report.published import read_published
from harl_bench.report.sources import sources
from tests.report.report_store import result, small
from tests.report.test_report_classification import neighbours, svm, twelve

GOLDEN = Path(__file__).parent / "golden"
HOSTILE = (
    "<script>alert(1)</script> & a_b 5% $x$ \\input{/etc/passwd} #1 ~ ^ | `c` *d* [e](http://f) "
    '"g"\nh 中 \u202e'
)
DOCUMENT = r"\documentclass%s\usepackage{booktabs}\begin{document}\input{table}\end{document}"
# IEEEtran's fonts are not in every TeX. These stand in for them, and are wider.
FONTS = {"ptm": "cmr", "pcr": "cmtt"}
WEIGHTS = {"m": "m", "b": "bx", "bx": "bx"}


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
    # no dash of two hyphens; OT1 has no Icelandic letters
    assert latex.escape("--lr Þór") == r"-{}-lr \texttt{U+00DE}ór"


def test_every_published_row_has_a_source() -> None:
    published = read_published()
    assert not {e.citation for e in published if not e.url}
    assert all(source.url.startswith("https://") for source in sources())
    assert len({source.key for source in sources()}) == len(sources())
    text = (data_dir("reports") / "published" / "sources.bib").read_text(encoding="utf-8")
    assert text.count("\n@") == len(sources())


def test_latex_cites_what_the_bibliography_holds() -> None:
    tables = built(small())[0]
    keys = set(re.findall(r"\\cite\{([^}]*)\}", latex.rendered(tables)))
    entries = re.findall(r"^@\w+\{([^,]*),", latex.bibliography(tables), re.M)
    assert "tran2022harl" in keys
    assert sorted(keys) == sorted(entries)
    assert latex.bibliography(built(small(), against=False)[0]) == ""


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


NAMES = (
    HOSTILE,
    "-é",
    "[2cm]",
    "* p",
    "a_checkpoint_of_a_long_name_without_any_space_0123456789_0123456789",
)


def wide_tables() -> list[Table]:
    """Every kind of table, with names that break things."""
    results = [
        *small(),
        *(result(method=name, checkpoint=name, departures=[name]) for name in NAMES),
        *twelve("byol", 60.0, seeds=(0, 1, 2)),
        *svm("byol", 85.0),
        neighbours("byol", 60.0),
        result("coco", "byol", dataset="coco", protocol="coco-c4-1x"),
    ]
    return built(results)[0]


@pytest.mark.parametrize("page", ["one", "two"])
def test_latex_tables_are_split_where_the_page_ends(page: Page) -> None:
    """Structure alone: every tabular has its columns, every number stands in one of them."""
    for table in wide_tables():
        text = "\n".join(latex.environment(table, page))
        fitted = layout(table, page)
        assert [i for part in fitted.parts for i in part] == list(range(len(table.columns)))
        total = fitted.label + max(sum(fitted.widths[i] for i in part) for part in fitted.parts)
        assert total < (345 if page == "one" else 469 if fitted.over_both else 229)
        tabulars = re.findall(r"begin\{tabular\}\{p\{\d+pt\}r(r+)\}(.*?)end\{tabular\}", text, re.S)
        assert {len(rs) for rs, _ in tabulars} == {len(part) for part in fitted.parts}
        for rs, body in tabulars:
            lines = [line for line in body.splitlines() if line.startswith(r"\raggedright")]
            assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {len(rs) + 1}
        assert text.count(r"\label{") == 1
        opened, closed = (len(re.findall(rf"(?<!\\)\{brace}", text)) for brace in "{}")
        assert opened == closed


def write_fonts(folder: Path) -> None:
    """Write definitions of `FONTS` that TeX reads before its own."""
    for family, ours in FONTS.items():
        for encoding in ("OT1", "TS1"):
            shapes = [
                rf"\DeclareFontShape{{{encoding}}}{{{family}}}{{{weight}}}{{{shape}}}"
                rf"{{<-> ssub * {ours}/{own}/{shape}}}{{}}"
                for weight, own in WEIGHTS.items()
                for shape in ("n", "it", "sl", "sc")
            ]
            lines = [rf"\DeclareFontFamily{{{encoding}}}{{{family}}}{{}}", *shapes]
            (folder / f"{encoding.lower()}{family}.fd").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("style", "page"),
    [
        ("{article}", "one"),
        ("[twocolumn]{article}", "two"),
        ("[conference]{IEEEtran}", "two"),
    ],
)
def test_latex_compiles_without_overfull_boxes(tmp_path: Path, style: str, page: Page) -> None:
    """In article with one and with two columns, and in IEEE's: nothing sticks out by over 5 pt."""
    if not (compiler := shutil.which("pdflatex")):
        pytest.skip("pdflatex is not installed")
    name = style.partition("{")[2].replace("}", ".cls")
    if not subprocess.run(["kpsewhich", name], capture_output=True).stdout:
        pytest.skip(f"{name} is not installed")
    write_fonts(tmp_path)
    (tmp_path / "table.tex").write_text(latex.rendered(wide_tables(), page), encoding="utf-8")
    (tmp_path / "main.tex").write_text(DOCUMENT % style)
    command = [compiler, "-interaction=nonstopmode", "-halt-on-error", "main.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    boxes = [float(pt) for pt in re.findall(r"Overfull \\hbox \(([\d.]+)pt", done.stdout)]
    assert max(boxes, default=0) <= 5
    assert "too large for page" not in done.stdout
    assert (tmp_path / "main.pdf").stat().st_size > 10_000


def test_latex_tables_are_as_wide_as_their_layout_says(tmp_path: Path) -> None:
    """TeX's own widths: `SURE` leaves 3 % of the page, and 5 pt may stick out."""
    if not (compiler := shutil.which("pdflatex")):
        pytest.skip("pdflatex is not installed")
    parts = [latex.PREAMBLE]
    expected: list[float] = []
    pages: tuple[Page, Page] = ("one", "two")
    for table, page in product([*wide_tables(), *golden_tables()], pages):
        fitted = layout(table, page)
        text = "\n".join(latex.environment(table, page))
        for tabular in re.findall(r"\\begin\{tabular\}.*?\\end\{tabular\}", text, re.S):
            parts.append(rf"\setbox0=\hbox{{{fitted.size} {tabular}}}\typeout{{WIDTH \the\wd0}}")
        for part in fitted.parts:
            width = fitted.label + fitted.n + sum(fitted.widths[i] for i in part)
            expected += [width] * (text.count(r"\begin{tabular}") // len(fitted.parts))
    (tmp_path / "table.tex").write_text("\n".join(parts), encoding="utf-8")
    (tmp_path / "main.tex").write_text(DOCUMENT % "{article}")
    command = [compiler, "-interaction=nonstopmode", "main.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    widths = [float(points) for points in re.findall(r"WIDTH ([\d.]+)pt", done.stdout)]
    assert len(widths) == len(expected) > 30
    ratios = [width / estimate for width, estimate in zip(widths, expected, strict=True)]
    assert max(ratios) < 1.035
    assert median(ratios) > 0.93  # and no room is given away


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    (GOLDEN / "small.md").write_text(markdown.rendered(golden_tables()), encoding="utf-8")
    (GOLDEN / "small.tex").write_text(latex.rendered(golden_tables()), encoding="utf-8")

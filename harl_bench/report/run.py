"""The commands `report` and `ls`. What is heavy is imported where it is used."""

from pathlib import Path
from shlex import quote
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from harl_bench.core.errors import DataError, UsageError
from harl_bench.core.files import write_bytes
from harl_bench.core.options import COMMON
from harl_bench.core.progress import console, log

FORMATS = Group("Formats", sort_key=2)
Runs = Annotated[Path, Parameter(group=COMMON, help="Folder that holds the runs, at any depth.")]
File = Parameter(group=FORMATS)


def report(
    runs: Runs = Path("runs"),
    *,
    html: Annotated[Path | None, File] = None,
    md: Annotated[Path | None, File] = None,
    tex: Annotated[Path | None, File] = None,
    csv: Annotated[Path | None, File] = None,
    against: Annotated[Literal["published"] | None, Parameter(group=COMMON)] = None,
    baseline: Annotated[str | None, Parameter(group=COMMON)] = None,
    tables: Annotated[list[str] | None, Parameter(group=COMMON, consume_multiple=True)] = None,
    add: Annotated[list[Path] | None, Parameter(group=COMMON, consume_multiple=True)] = None,
    columns: Annotated[Literal["one", "two"], Parameter(group=FORMATS)] = "two",
    pack: Annotated[Path | None, File] = None,
) -> None:
    """Tables of all finished runs: on the terminal, as one page, Markdown, LaTeX and tidy CSV.

    Ours are means over seeds with their sd and n; `--against published` puts quoted numbers beside
    them.

    Try:

        harl-bench report runs --html report.html --against published
        harl-bench report runs --tex table.tex --baseline byol

        harl-bench report runs --pack mine.zip

        harl-bench report mine.zip --add theirs.csv

        harl-bench report runs --tables table3 summary --tex table.tex --columns one

    Args:
        html: One file with tables, plots, images and the provenance of every number; needs no
            network.
        md: GitHub Markdown.
        tex: LaTeX for \\input; needs booktabs. The sources that it cites go into a .bib beside it.
        csv: One number a row.
        against: Published numbers with their source, marked where they do not compare.
        baseline: Method or checkpoint that significance is tested against (default: random
            initialization if measured).
        tables: Only these, by their names in LaTeX's labels (summary, table3, ...) or patterns of
            them.
        add: CSV files of others' numbers, one a row, which are quoted beside yours; the CSV of a
            report is one.
        columns: Text columns of the page that LaTeX tables are set for.
        pack: A zip of the results without weights. RUNS may be such a zip, or a folder of them.

    Raises:
        DataError: the folder is missing or holds no readable result, or an added file is no table
            of results.
        UsageError: no row is named as the baseline, no table as a chosen one, or an output is a
            folder.
    """
    from harl_bench.report import assembly, latex, markdown, terminal, tidy
    from harl_bench.report.collect import entries_of
    from harl_bench.report.pack import packed
    from harl_bench.report.published import read_published
    from harl_bench.report.read import read_added, read_runs

    for path in (html, md, tex, csv, pack):
        if path is not None and path.is_dir():
            hint = f"give {path / 'report'}..."
            raise UsageError("an output is a file, this is a folder", where=path, next=hint)
    results, faults = read_runs(runs)
    for fault in faults:
        log.warning("%s", fault)
    if not results:
        raise DataError(
            f"no {'readable result' if faults else 'finished run'} below this folder",
            where=runs,
            seen=f"{len(faults)} faulty result.json" if faults else "no result.json",
            next=f"harl-bench demo, or harl-bench ls {quote(str(runs))} to see what is under way",
        )
    ours = entries_of(results)
    added = [entry for path in add or () for entry in read_added(path)]
    published = read_published() if against else []
    shown = assembly.tables_of(ours, [*added, *published], baseline)
    if unshown := assembly.unshown(added, shown):
        text = "no table has these added rows, as no run has their data set and protocol: %s"
        log.warning(text, unshown)
    if tables is not None:
        shown = assembly.chosen(shown, tables)
    if md:
        _write(md, markdown.rendered(shown))
    if tex:
        _write(tex, latex.rendered(shown, columns))
        if entries := latex.bibliography(shown):
            _write(tex.with_suffix(".bib"), entries)
    if csv:
        _write(csv, tidy.rendered(shown, ours))
    if pack:
        _write(pack, packed(results, runs))
    if html:
        from harl_bench.report import page

        _write(html, page.rendered(shown, ours, root=runs, faults=list(map(str, faults))))
    # last: a closed pipe must not cost the files
    console.print(terminal.rendered(shown, console.width))


def ls(runs: Runs = Path("runs")) -> None:
    """State of every run below a folder.

    Done with its score, running, stopped, unfinished, or failed with the cause.

    Try:

        harl-bench ls
        harl-bench ls runs/voc

    Raises:
        DataError: the folder is missing.
    """
    from collections import Counter

    from harl_bench.report.collect import plain
    from harl_bench.report.states import states

    below = states(runs)
    if not below:
        log.info("no run below %s; next: harl-bench demo", runs)
        return
    names = [plain(state.folder.relative_to(runs)) for state in below]
    width = min(max(map(len, names)), 100)
    lines = [
        f"{state.word:<10}  {name:<{width}}  {state.about}"
        for state, name in zip(below, names, strict=True)
    ]
    counts = Counter(state.word for state in below)
    print("\n".join([*lines, ", ".join(f"{n:,} {word}" for word, n in counts.items())]))


def _write(path: Path, text: str | bytes) -> None:
    content = text.encode("utf-8") if isinstance(text, str) else text
    write_bytes(path, content)
    size = f"{len(content) / 1e6:.1f} MB" if len(content) > 1e6 else f"{len(content):,} bytes"
    log.info("wrote %s (%s)", path, size)

"""The commands `report` and `ls`. What is heavy is imported where it is used."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from harl_bench.core.errors import DataError, UsageError
from harl_bench.core.files import write_bytes
from harl_bench.core.options import COMMON
from harl_bench.core.progress import console, log
from harl_bench.core.results import scan

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
) -> None:
    """Tables of all finished runs: on the terminal, as one page, Markdown, LaTeX and tidy CSV.

    Ours are means over seeds with their sd and n; `--against published` puts quoted numbers beside
    them.

    Try:

        harl-bench report runs --html report.html --against published
        harl-bench report runs --tex table.tex --baseline byol

    Args:
        html: One file with tables, plots, images and the provenance of every number; needs no
            network.
        md: GitHub Markdown.
        tex: LaTeX for \\input; needs booktabs.
        csv: One number a row.
        against: Published numbers with their source, marked where they do not compare.
        baseline: Method or checkpoint that significance is tested against (default: random
            initialisation if measured).

    Raises:
        DataError: the folder is missing or holds no readable result.
        UsageError: nothing is known by the baseline's name, or an output is a folder.
    """
    from harl_bench.report import assembly, latex, markdown, terminal, tidy
    from harl_bench.report.collect import entries_of
    from harl_bench.report.published import read_published

    for path in (html, md, tex, csv):
        if path is not None and path.is_dir():
            hint = f"give {path / 'report'}..."
            raise UsageError("an output is a file, this is a folder", where=path, next=hint)
    results, faults = scan(runs)
    for fault in faults:
        log.warning("%s", fault)
    if not results:
        raise DataError(
            f"no {'readable result' if faults else 'finished run'} below this folder",
            where=runs,
            seen=f"{len(faults)} faulty result.json" if faults else "no result.json",
            next=f"harl-bench demo, or harl-bench ls {runs} to see what is under way",
        )
    ours = entries_of(results)
    tables = assembly.tables_of(ours, read_published() if against else (), baseline)
    if md:
        _write(md, markdown.rendered(tables))
    if tex:
        _write(tex, latex.rendered(tables))
    if csv:
        _write(csv, tidy.rendered(tables, ours))
    if html:
        from harl_bench.report import page

        _write(html, page.rendered(tables, ours, root=runs, faults=list(map(str, faults))))
    # last: a closed pipe must not cost the files
    console.print(terminal.rendered(tables, console.width))


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


def _write(path: Path, text: str) -> None:
    content = text.encode("utf-8")
    write_bytes(path, content)
    size = f"{len(content) / 1e6:.1f} MB" if len(content) > 1e6 else f"{len(content):,} bytes"
    log.info("wrote %s (%s)", path, size)

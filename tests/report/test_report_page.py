"""The HTML page: complete in itself, escaped, within its size, with every number's provenance."""

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from harl_bench.core.results import Result, scan
from harl_bench.report import page
from harl_bench.report.assembly import NOT_WITH_TOY, tables_of
from harl_bench.report.collect import TOY, entries_of
from harl_bench.report.provenance import provenance
from harl_bench.report.published import read_published
from harl_bench.report.sources import sources
from tests.report.report_store import draw_image, metrics_file, result, small, write

VOID = {"meta", "img", "br", "link", "input", "hr", "use", "path", "rect", "line"}
LOADING = {"src", "href", "xlink:href", "srcset", "data", "poster", "action", "formaction"}


class Reader(HTMLParser):
    """Collects tags, ids, links and text, and checks that tags close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.links += [value for name, value in attrs if name in LOADING and value]
        assert not [name for name, _ in attrs if name.startswith("on")], "no inline handlers"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def rendered(root: Path, *, against: bool = True) -> str:
    found, faults = scan(root)
    ours = entries_of(found)
    tables = tables_of(ours, read_published() if against else ())
    return page.rendered(tables, ours, root=root, faults=[str(fault) for fault in faults])


def with_everything(root: Path, results: list[Result]) -> Path:
    """Runs with logs, per-class scores and images; beside them a pretraining and a mask folder."""
    for i, (folder, r) in enumerate(zip(write(root, *results), results, strict=True)):
        classes = {name: {"AP": 30.0 + i * k} for k, name in enumerate(("cat", "dog", "bus"))}
        (folder / "metrics.jsonl").write_text(
            '{"iteration": 19, "total_loss": 2.0}\n{"iteration": 39, "total_loss": 1.0}\n'
        )
        (folder / "result.json").write_text(
            r.model_copy(update={"per_class": classes}).model_dump_json()
        )
        if r.seed == 0:
            draw_image(folder / "pictures" / "detection-1.png", i, (160, 120))
    (root / "pretrain" / "harl").mkdir(parents=True)
    metrics_file(root / "pretrain" / "harl")
    draw_image(root / "pretrain" / "harl" / "pictures" / "views.png", 3, (320, 120))
    draw_image(root / "masks" / "drfi-lite" / "preview.png", 4, (160, 120))
    return root


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> str:
    return rendered(with_everything(tmp_path_factory.mktemp("runs"), small(toy=True)))


def test_it_parses_and_loads_nothing(complete: str) -> None:
    reader = Reader(complete)
    assert reader.open == []
    cited = {source.url for source in sources()}
    loaded = [link for link in reader.links if link not in cited]
    assert all(link.startswith(("#", "data:image/webp;base64,")) for link in loaded)
    # an address stands where a reader may click on it, and nowhere else
    addresses = re.sub(r'<a href="https://[^"]*" rel="noreferrer">', "", complete)
    assert "http" not in addresses.replace("http-equiv", "")
    assert "@import" not in complete
    assert complete.count("url(") == complete.count("url(#")
    assert not {"iframe", "object", "embed", "link", "base", "audio", "video"} & set(reader.tags)


def test_published_numbers_lead_to_their_source(complete: str) -> None:
    """To the paper's DOI, not to a provenance panel."""
    row = complete[complete.index(">SimCLR-IN<") :].partition("</tr>")[0]
    assert row.count('<a href="https://doi.org/10.3390/s22145169"') == 9


def test_ids_are_unique_and_links_lead_somewhere(complete: str) -> None:
    reader = Reader(complete)
    assert len(reader.ids) == len(set(reader.ids))
    assert {link[1:] for link in reader.links if link.startswith("#")} <= set(reader.ids)


def test_it_has_all_parts(complete: str) -> None:
    words = " ".join(Reader(complete).words)
    for part in (
        "All tasks",
        "Transfer to detection and segmentation",
        "Scores",
        "Training",
        "Class by class",
        "What the runs see",
        "Pretraining and masks",
        "pretrain / harl",
        "masks / drfi-lite",
        "Two views of each image",
        "loss 4.000 → 3.000 at step 29",
        "alpha",
        "lambda",
        "tau",
        "Provenance",
        "harl-bench voc ckpts/harl_100.pth",
        "torch 2.14.1",
        "SOLVER.BASE_LR: 0.02",
        "2026-01-02 03:04:05 UTC",
        "29.78 to 31.58",
    ):
        assert part in words, part


def test_toy_banner_opens_the_page(complete: str) -> None:
    body = complete[complete.index("<body>") :]
    assert body.index(TOY) < body.index("<h1>")
    assert "<title>Toy results" in complete
    assert f"Published: HARL paper, Table 3 ({NOT_WITH_TOY})" in complete


def test_real_numbers_have_no_banner(tmp_path: Path) -> None:
    write(tmp_path, *small())
    text = rendered(tmp_path)
    assert TOY not in text
    assert 'class="banner"' not in text


def test_names_are_escaped(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>\"'&\n${x} $x_1$"
    made = result(
        method=hostile, checkpoint=hostile, departures=[hostile], manifest={"argv": [hostile]}
    )
    made = made.model_copy(update={"per_class": {hostile: {"AP": 1.0}}})
    folders = write(tmp_path, made, result(method="byol"))
    draw_image(folders[0] / "pictures" / "<b>&.png")
    (tmp_path / "pretrain" / "<i>x").mkdir(parents=True)
    metrics_file(tmp_path / "pretrain" / "<i>x")
    text = rendered(tmp_path)
    reader = Reader(text)
    assert reader.tags.count("script") == 1
    assert "b" not in reader.tags[reader.tags.index("main") :]
    assert "<i>x" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_faults_are_listed_one_a_line(tmp_path: Path) -> None:
    folders = write(tmp_path, result(seed=0), result(seed=1))
    (folders[1] / "result.json").write_text("{")
    (folders[0] / "pictures").mkdir()
    (folders[0] / "pictures" / "broken.png").write_bytes(b"\x89PNG\r\n")
    words = " ".join(Reader(rendered(tmp_path)).words)
    assert "not a result of this version" in words
    assert "broken.png" in words


def test_unfinished_measurements_are_no_exhibits(tmp_path: Path) -> None:
    (folder,) = write(tmp_path, result())
    unfinished = folder.parent / "seed9"
    unfinished.mkdir()
    (unfinished / "run.json").write_text('{"run_id": "x", "task": "voc"}')
    metrics_file(unfinished)
    assert "Pretraining and masks" not in rendered(tmp_path)


def test_fifty_runs_with_images_stay_below_5_mb(tmp_path: Path) -> None:
    drawn = [tmp_path / f"{k}.png" for k in range(3)]
    for k, path in enumerate(drawn):
        draw_image(path, k, (966, 480))
    made = [result(method=f"method{i}", score=30.0 + i) for i in range(50)]
    for i, folder in enumerate(write(tmp_path, *made)):
        for k in range(3):
            (folder / "pictures").mkdir(exist_ok=True)
            shutil.copy(drawn[(i + k) % 3], folder / "pictures" / f"detection-{k}.png")
    text = rendered(tmp_path)
    assert len(text.encode()) < 5_000_000
    assert text.count("data:image/webp") >= 100


def bars(page_text: str) -> list[str]:
    """The drawings of the scores."""
    part = page_text[page_text.index('id="plots"') :]
    return part[: part.index("</section>")].split("<figure>")[1:]


def test_a_missing_interval_says_why(tmp_path: Path) -> None:
    for seeds, text in ((2, "none below 3 seeds"), (3, "none from equal scores")):
        runs = [(tmp_path / str(k), result(seed=k, score=40 - 0.1 * k)) for k in range(seeds)]
        (entry,) = entries_of(runs)
        assert {interval for *_, interval, _ in provenance(entry, 0, tmp_path).scores} == {text}


def test_a_checkpoint_has_one_color_in_tables_and_plots(complete: str) -> None:
    """In the order of the rows, whatever the plot shows."""
    for name, color in (("Random init", "s0"), ("BYOL", "s1"), ("HARL", "s2")):
        rows = re.findall(rf'style="--row: var\(--(s\d)\)">{name}', complete)
        assert rows
        assert set(rows) == {color}
    for plot in bars(complete):
        assert re.findall(r"fill: var\(--(s\d)\)", plot) == ["s0", "s1", "s2"]
    losses = complete[complete.index("<h2>Training") :]
    assert re.findall(r"stroke: var\(--(s\d)\)", losses)[:3] == ["s0", "s0", "s0"]
    assert "var(--s2)" in losses[: losses.index("</figure>")]


def test_a_plot_of_zeros_or_of_one_bar_is_left_out(tmp_path: Path) -> None:
    made = [
        result(method=m, score=0.0).model_copy(update={"metrics": {"AP": 0.0}})
        for m in ("random", "harl")
    ]
    made += [result("classify", "harl", dataset="dtd", protocol="linear", score=50.0)]
    write(tmp_path, *made)
    assert 'id="plots"' not in rendered(tmp_path)


def test_chance_is_drawn_where_classes_are_guessed(tmp_path: Path) -> None:
    classes = {f"class {i}": {"top1": 50.0} for i in range(40)}
    made = [
        r.model_copy(update={"per_class": classes})
        for m in ("random", "harl")
        for r in (result(method=m), result("classify", m, dataset="dtd", protocol="linear"))
    ]
    write(tmp_path, *made)
    drawn = bars(rendered(tmp_path))
    assert ["chance" in plot for plot in drawn] == [
        "top-1" in plot for plot in drawn
    ]  # a detector guesses no class
    assert sum("chance" in plot for plot in drawn) == 1


def test_no_title_of_a_plot_is_clipped(tmp_path: Path) -> None:
    """A long one has several lines, each within the drawing: 7.5 points a letter fit 288."""
    name = "a_data_set_of_a_long_name"
    made = [
        result("classify", m, dataset=name, protocol="a-long-protocol-of-mine", checkpoint="c" * 60)
        for m in ("random", "harl")
    ]
    write(tmp_path, *made)
    (plot,) = bars(rendered(tmp_path))
    lines = re.findall(r"<text[^>]*(?:bold|700)[^>]*>([^<]*)<", plot)
    assert " ".join(lines).startswith("top-1, a_data_set_of_a_long_name")
    assert max(map(len, lines)) <= 46


def test_images_stand_a_row_an_image_and_a_column_a_method(tmp_path: Path) -> None:
    made = [result(method=m) for m in ("random", "byol", "harl")]
    for i, folder in enumerate(write(tmp_path, *made)):
        for name in ("detection-000041", "detection-000047")[: 1 + (i > 0)]:
            draw_image(folder / "pictures" / f"{name}.png", i, (160, 120))
    text = rendered(tmp_path)
    rows = re.findall(r'<p class="seen">([^<]*)</p>(.*?)</div></div>', text, re.S)
    assert [caption.partition(":")[0] for caption, _ in rows] == [
        "Test image 000041",
        "Test image 000047",
    ]
    assert rows[0][0].endswith("right the detections (green: right, red: wrong)")
    assert rows[1][0] == "Test image 000047"  # what is seen is said once
    columns = ["Random init, seed 0", "BYOL byol_100, seed 0", "HARL harl_100, seed 0"]
    for _, row in rows:
        assert re.findall("<figcaption>([^<]*)<", row) == columns
    assert [row.count("<img") for _, row in rows] == [3, 2]

"""The HTML page: complete in itself, escaped, within its size, with every number's provenance."""

import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from harl_bench.core.results import Result, scan
from harl_bench.report import page
from harl_bench.report.assembly import NOT_WITH_TOY, tables_of
from harl_bench.report.collect import TOY, entries_of
from harl_bench.report.published import read_published
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
    classes = {name: {"AP": 30.0 + i} for i, name in enumerate(("cat", "dog", "bus"))}
    for i, (folder, r) in enumerate(zip(write(root, *results), results, strict=True)):
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
    assert all(link.startswith(("#", "data:image/webp;base64,")) for link in reader.links)
    assert "http" not in complete.replace("http-equiv", "")
    assert "@import" not in complete
    assert complete.count("url(") == complete.count("url(#")
    assert not {"iframe", "object", "embed", "link", "base", "audio", "video"} & set(reader.tags)


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

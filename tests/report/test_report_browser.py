"""The page in headless Chromium: no network, sorting, provenance, and how it fits a phone."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import cast

import pytest

from tests.report.report_store import small, write
from tests.report.test_report_page import rendered, with_everything

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
]
# Runs in the page and leaves what it saw as text in the document, which --dump-dom prints.
PROBE = """
<script>
const seen = {violations: [], resources: performance.getEntriesByType("resource").map((r) => r.name)};
addEventListener("securitypolicyviolation", (e) => seen.violations.push(e.blockedURI));
addEventListener("load", () => {
  const table = document.querySelector("#t1 table"), body = table.tBodies[0];
  const names = () => [...body.querySelectorAll("tr:not(.block) th.name")].map((th) => th.firstChild.textContent);
  const heading = table.querySelector("th.sort");
  seen.before = names();
  heading.click();
  seen.down = names();
  heading.click();
  seen.up = names();
  heading.click();
  seen.after = names();
  const whole = document.querySelector("#t3"), quoted = whole.querySelectorAll("th.sort")[3];
  const values = () => [...whole.querySelectorAll("tbody tr:not(.block)")].map((row) => row.cells[5].dataset.v ?? "missing");
  const shown = () => [...whole.querySelectorAll("tbody tr")].filter((row) => row.offsetHeight).map((row) => row.cells[0].firstChild.textContent);
  seen.blocks = values();
  quoted.click();
  seen.wholeDown = values();
  seen.headless = !shown().some((name) => name.startsWith("Published"));
  quoted.click();
  seen.wholeUp = values();
  quoted.click();
  seen.wholeBack = values();
  const filter = whole.querySelector("input");
  const type = (text) => { filter.value = text; filter.dispatchEvent(new Event("input")); return shown(); };
  seen.filtered = type("simclr");
  seen.source = type("published byol").length;
  seen.all = type("").length;
  seen.copies = [...whole.querySelectorAll(".tools button")].map((button) => button.textContent);
  const cell = whole.querySelector("td[data-v]");
  location.hash = cell.id;
  seen.anchor = cell.id;
  seen.target = document.querySelector("td:target") === cell;
  body.querySelector("tr:not(.block) td a").click();
  const dialog = document.querySelector("dialog");
  seen.open = dialog.open;
  seen.provenance = dialog.innerText;
  dialog.querySelector("button").click();
  seen.closed = !dialog.open;
  seen.images = [...document.images].every((i) => i.naturalWidth > 0 || i.loading === "lazy");
  const look = (selector) => getComputedStyle(document.querySelector(selector));
  seen.colors = [look("body").backgroundColor, look("body").color, look(".reading").color];
  const box = document.querySelector("#t3 .scroll");
  seen.hidden = box.scrollWidth > box.clientWidth;
  seen.shade = look("#t3 .scroll").backgroundImage.split("linear-gradient").length - 1;
  seen.scroll = document.documentElement.scrollWidth;
  seen.width = document.documentElement.clientWidth;
  const out = document.createElement("pre");
  out.id = "probe";
  out.textContent = JSON.stringify(seen);
  parent.postMessage(out.textContent, "*");
  document.body.append(out);
});
</script>
"""


# Chromium opens no window below 500 px: a phone is a frame, which tells its parent what it saw.
PHONE = """<body style="margin: 0"><iframe src="page.html" width="390" height="900" style="border: 0"></iframe>
<script>
addEventListener("message", (e) => {
  const out = document.createElement("pre");
  out.id = "probe";
  out.textContent = e.data;
  document.body.append(out);
});
</script>
"""


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    return rendered(with_everything(tmp_path_factory.mktemp("runs"), small(toy=True)))


def probed(folder: Path, text: str, width: int = 1280, dark: bool = False) -> dict[str, object]:
    """What the probe saw in a browser that can resolve no name."""
    assert CHROMIUM
    path = folder / "page.html"
    path.write_text(text.replace("</main>", f"</main>{PROBE}", 1), encoding="utf-8")
    if width == 390:
        path = folder / "phone.html"
        path.write_text(PHONE, encoding="utf-8")
    command = [
        CHROMIUM,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={folder / 'profile'}",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--window-size={width},900",
        "--virtual-time-budget=4000",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        "--dump-dom",
        path.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.S)
    assert found, done.stderr[-2000:]
    seen = json.loads(unescape(found[1]))
    assert isinstance(seen, dict)
    return seen


def test_it_works_without_a_network(tmp_path: Path, text: str) -> None:
    seen = probed(tmp_path, text)
    assert seen["violations"] == []
    assert seen["resources"] == []
    assert seen["images"]


def test_headings_sort_down_up_and_back(tmp_path: Path, text: str) -> None:
    seen = probed(tmp_path, text)
    assert seen["before"] == ["Random init", "BYOL", "HARL"] == seen["after"]
    assert seen["down"] == ["HARL", "BYOL", "Random init"]
    assert seen["up"] == ["Random init", "BYOL", "HARL"]


def test_a_table_sorts_whole_with_missing_numbers_last(tmp_path: Path, text: str) -> None:
    """COCO box AP50 of Table 3: ours and quoted rows together, two of them without a number."""
    seen = probed(tmp_path, text)
    down, up = (cast("list[str]", seen[name]) for name in ("wholeDown", "wholeUp"))
    for values, reverse in ((down, True), (up, False)):
        numbers = [float(value) for value in values[:-2]]
        assert numbers == sorted(numbers, reverse=reverse)
        assert values[-2:] == ["missing", "missing"]
    assert seen["wholeBack"] == seen["blocks"] != down
    assert seen["headless"]


def test_rows_are_filtered_by_text_and_a_number_can_be_linked_to(tmp_path: Path, text: str) -> None:
    seen = probed(tmp_path, text)
    assert seen["filtered"] == [
        "Published: HARL paper, Table 3 (not comparable with toy data)",
        "SimCLR-IN",
    ]
    assert seen["source"] == 3  # the heading, BYOL, BYOL (repo)
    assert seen["all"] == 13  # two headings, three rows of ours, eight quoted
    assert seen["copies"] == ["LaTeX", "CSV", "Markdown"]
    assert seen["anchor"] == "table3-random-init-voc07-12-ap50"
    assert seen["target"]


def test_a_click_shows_where_a_number_comes_from(tmp_path: Path, text: str) -> None:
    seen = probed(tmp_path, text)
    assert seen["open"]
    assert "harl-bench voc ckpts/random.pth" in str(seen["provenance"])
    assert re.search(r"Departures\s+none", str(seen["provenance"]))
    assert seen["closed"]


@pytest.mark.parametrize("width", [390, 1400])
def test_only_tables_scroll_sideways(tmp_path: Path, text: str, width: int) -> None:
    seen = probed(tmp_path, text, width)
    assert seen["scroll"] == seen["width"]
    assert cast("int", seen["width"]) <= width
    assert seen["hidden"] == (width == 390)
    assert seen["shade"] == 4  # two that show more, two that cover them at the ends


def luminance(color: str) -> float:
    """Relative luminance of `rgb(r, g, b)` (WCAG 2.2)."""
    parts = [int(n) / 255 for n in re.findall(r"\d+", color)[:3]]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("dark", [False, True])
def test_light_and_dark_are_readable(tmp_path: Path, text: str, dark: bool) -> None:
    """Contrast of at least 7 for text and 4.5 for remarks (WCAG 2.2, levels AAA and AA)."""
    colors = probed(tmp_path, text, dark=dark)["colors"]
    assert isinstance(colors, list)
    paper, ink, muted = map(luminance, colors)
    assert (paper < 0.05) == dark

    def contrast(a: float, b: float) -> float:
        return (max(a, b) + 0.05) / (min(a, b) + 0.05)

    assert contrast(paper, ink) >= 7
    assert contrast(paper, muted) >= 4.5


def test_prints_to_pdf(tmp_path: Path) -> None:
    assert CHROMIUM
    write(tmp_path / "runs", *small())
    (tmp_path / "page.html").write_text(rendered(tmp_path / "runs"), encoding="utf-8")
    command = [
        CHROMIUM,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--print-to-pdf={tmp_path / 'page.pdf'}",
        (tmp_path / "page.html").as_uri(),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    if reader := shutil.which("pdftotext"):
        command = [reader, str(tmp_path / "page.pdf"), "-"]
        words = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert "harl-bench voc ckpts/harl_100.pth" in words  # the provenance is open on paper
        assert "SOLVER.BASE_LR: 0.02" in words
        assert "Filter rows" not in words

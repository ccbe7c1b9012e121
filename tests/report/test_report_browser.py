"""The page in headless Chromium: no network, sorting, provenance, and how it fits a phone."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

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
  body.querySelector("tr:not(.block) td a").click();
  const dialog = document.querySelector("dialog");
  seen.open = dialog.open;
  seen.provenance = dialog.innerText;
  dialog.querySelector("button").click();
  seen.closed = !dialog.open;
  seen.images = [...document.images].every((i) => i.naturalWidth > 0 || i.loading === "lazy");
  const look = (selector) => getComputedStyle(document.querySelector(selector));
  seen.colors = [look("body").backgroundColor, look("body").color, look(".reading").color];
  seen.scroll = document.documentElement.scrollWidth;
  seen.width = document.documentElement.clientWidth;
  const out = document.createElement("pre");
  out.id = "probe";
  out.textContent = JSON.stringify(seen);
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


def test_a_click_shows_where_a_number_comes_from(tmp_path: Path, text: str) -> None:
    seen = probed(tmp_path, text)
    assert seen["open"]
    assert "harl-bench voc ckpts/random.pth" in str(seen["provenance"])
    assert re.search(r"Departures\s+none", str(seen["provenance"]))
    assert seen["closed"]


# 500 is the narrowest window that headless Chromium opens
@pytest.mark.parametrize("width", [500, 1280])
def test_only_tables_scroll_sideways(tmp_path: Path, text: str, width: int) -> None:
    seen = probed(tmp_path, text, width)
    assert seen["scroll"] == seen["width"] <= width


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

"""The documentation says what the code says."""

import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest

from harl_bench import cli
from harl_bench.detection import recipe

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), *sorted(ROOT.glob("*.md"))]


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_current() -> None:
    pages = generator().pages()
    stale = [str(name) for name, text in pages.items() if (DOCS / name).read_text(encoding="utf-8") != text]
    assert not stale, f"run: python docs/generate.py ({', '.join(stale)})"
    assert {path.name for path in (DOCS / "commands").glob("*.md")} == {n.name for n in pages if n.parent.name}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert target.startswith("http") or (page.parent / target).exists(), target


OWN_DATA = re.findall(r"^harl-bench .*$", (DOCS / "own-data.md").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("line", OWN_DATA)
def test_commands_for_own_data_are_read(line: str) -> None:
    """Options are known, and every override is a key of the recipe."""
    words = shlex.split(line)[1:]
    _, bound, _ = cli.build(words[0]).parse_args(cli._close_number_lists(words), exit_on_error=False, print_error=False)
    settings = recipe.load(bound.arguments["recipe"], bound.arguments["overrides"])
    assert all(name.startswith(f"{words[0]}_") for name in (*settings.DATASETS.TRAIN, *settings.DATASETS.TEST))
    assert len(OWN_DATA) == 5

"""docs/fidelity.md points at names that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLACE = re.compile(
    r"`((?:pretrain|harl_bench)/[\w./-]+\.(?:py|yaml))` `([A-Za-z_]\w*)`((?:, `[A-Za-z_]\w*`)*)"
)


def test_every_place_of_the_fidelity_page_exists() -> None:
    page = (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8")
    places = [(m[1], [m[2], *re.findall(r"`(\w+)`", m[3])]) for m in PLACE.finditer(page)]
    assert len(places) > 25
    for path, names in places:
        text = (ROOT / path).read_text(encoding="utf-8")
        for name in names:
            assert re.search(
                rf"(?m)^\s*(?:def {name}\(|class {name}\b|{name}\b.*[=:]|{name}, |.*, {name} "
                rf"=|self\.{name} )",
                text,
            ), f"{path} has no {name}"

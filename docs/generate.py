"""Write the pages that say what the code says: one for each command, and the protocols from their
YAML files.

    python docs/generate.py

A test compares the pages in the tree with what this makes.
"""

import re
from pathlib import Path

from harl_bench import cli
from harl_bench.classify.protocol import FOLDER as PROTOCOLS
from harl_bench.core.files import write_bytes
from harl_bench.core.resources import data_dir
from harl_bench.suite.config import SUITES
from pretrain.recipe import RECIPES

DOCS = Path(__file__).parent
HEAD = "<!-- Written by docs/generate.py: change the code, not this page. -->"


def pages() -> dict[Path, str]:
    """Every generated page by its path below docs/."""
    named = [[name] for name in cli.COMMANDS] + [["masks", name] for name in cli.MASKS]
    found = {Path("commands") / f"{'-'.join(words)}.md": _command(words) for words in named}
    found[Path("commands") / "README.md"] = _index()
    found[Path("protocols.md")] = _protocols()
    return found


def _command(words: list[str]) -> str:
    app = cli.build(" ".join(words))
    for word in words:
        app = app[word]
    text = app.generate_docs(recursive=False, usage_name=" ".join(["harl-bench", *words]))
    _, _, rest = text.partition("\n")
    rest = re.sub(r", --(no|empty)-[a-z-]+`", "`", rest)  # accepted, and never needed
    return f"# harl-bench {' '.join(words)}\n\n{HEAD}\n{rest.rstrip()}\n"


def _index() -> str:
    lines = [
        "# Commands",
        "",
        HEAD,
        "",
        "Every command takes `--debug`, which shows the traceback of an error.",
        "",
    ]
    lines += ["| command | what it does |", "| --- | --- |"]
    for name, (_, _, text) in cli.COMMANDS.items():
        lines.append(f"| [`{name}`]({name}.md) | {text} |")
    for name, (_, text) in cli.MASKS.items():
        lines.append(f"| [`masks {name}`](masks-{name}.md) | {text} |")
    return "\n".join(lines) + "\n"


def _protocols() -> str:
    lines = [
        "# Protocols",
        "",
        HEAD,
        "",
        "Each file opens with its source, hardware, cost, expected score and command; here are "
        "all of those openings.",
        "Any of these names goes where a command says `--recipe` or `--protocol`, and so does a "
        "YAML file of yours.",
    ]
    groups = (
        ("Pretraining (`harl-bench pretrain --recipe`)", RECIPES),
        ("Detection (`harl-bench voc|coco --recipe`)", data_dir("transfer_configs")),
        ("Segmentation (`harl-bench segment --recipe`)", data_dir("transfer_configs") / "segment"),
        ("Classification (`harl-bench classify --protocol`)", PROTOCOLS),
        ("Suites (`harl-bench run`)", SUITES),
    )
    for title, folder in groups:
        lines += ["", f"## {title}"]
        for path in sorted(folder.rglob("*.yaml")):
            other = path.parent.name == "segment" and folder.name != "segment"
            if not path.name.startswith("base-") and not other:
                lines += ["", f"### {path.stem}", "", "```text", *_opening(path), "```"]
    return "\n".join(lines) + "\n"


def _opening(path: Path) -> list[str]:
    """The comment at the top of a YAML file."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        found.append(line.removeprefix("#").removeprefix(" ").rstrip())
    return found


if __name__ == "__main__":
    for name, text in pages().items():
        write_bytes(DOCS / name, text.encode())
        print(f"wrote docs/{name}")

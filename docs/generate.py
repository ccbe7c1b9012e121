"""Write the pages that say what the code says: one for each command, and the protocols from their
YAML files.

    python docs/generate.py

A test compares the pages in the tree with what this makes.
"""

import csv
import re
from pathlib import Path

from harl_bench import cli
from harl_bench.classify.datasets import PUBLISHED
from harl_bench.classify.protocol import FOLDER as PROTOCOLS
from harl_bench.core import cityscapes
from harl_bench.core.files import write_bytes
from harl_bench.core.nearby import TREE
from harl_bench.core.resources import data_dir
from harl_bench.detection.datasets import voc
from harl_bench.segmentation.datasets import voc as segmentation_voc
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
    found[Path("data.md")] = _data()
    found[Path("checkpoints.md")] = _checkpoints()
    return found


def _command(words: list[str]) -> str:
    app = cli.build(" ".join(words))
    for word in words:
        app = app[word]
    text = app.generate_docs(recursive=False, usage_name=" ".join(["harl-bench", *words]))
    _, _, rest = text.partition("\n")
    rest = re.sub(r", --(no|empty)-[a-z0-9-]+`", "`", rest)  # accepted, and never needed
    return f"# harl-bench {' '.join(words)}\n\n{HEAD}\n{rest.rstrip()}\n"


def _index() -> str:
    lines = [
        "# Commands",
        "",
        HEAD,
        "",
        cli.EVERYWHERE,
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
        ("Detection (`harl-bench voc|coco|cityscapes --recipe`)", data_dir("transfer_configs")),
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


def _data() -> str:
    """The page of the folder of --data, from the tables that the readers search."""
    halves = " ".join(f"{name}/" for name in cityscapes.ARCHIVES)
    rows = [
        (TREE["voc"], "VOC2007/ VOC2012/", "voc, classify --dataset voc2007-cls"),
        (TREE["coco"], "annotations/ train2017/ val2017/", "coco"),
        (cityscapes.HOMES, halves, "cityscapes, segment"),
        (TREE["segment"], "VOC2012/ SBD/", "segment"),
        (TREE["folder"], "train/CLASS/ test/CLASS/", "classify"),
    ]
    lines = ["D/"]
    for folders, contents, commands in rows:
        folder = next(name for name in folders if name)
        lines.append(f"  {folder + '/':<24}{contents:<36}{commands}")
    for name, folder in classification_folders().items():
        lines.append(f"  {folder + '/':<24}{'':<36}classify --dataset {name}")
    others = {kind: [f"`D/{name}/`" for name in TREE[kind] if name] for kind in TREE}
    return f"""# The data folder

{HEAD}

Every command that measures takes the same folder, `--data D`, by default `$DETECTRON2_DATASETS`.
`harl-bench doctor --data D` checks what lies there and prints the command for each set.

```text
{chr(10).join(lines)}
```

`--data` may also be a set's own folder, which makes the same runs. A folder of the left column is
searched where `D` itself does not hold the set. VOC's years may lie one folder deeper, in
`{voc.HOMES[1]}/`, as the archives unpack them. `segment` takes VOC 2012 from
{" or ".join(others["segment"])}, the first that has
`{segmentation_voc.OWN}/`, and SBD beside it. Cityscapes may lie in {others["cityscapes"][0]}, and
the classification sets in {others["published"][0]}.
"""


def _checkpoints() -> str:
    """The page of published checkpoints, from docs/checkpoints.csv."""
    with open(DOCS / "checkpoints.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    lines = ["| file | trained by | epochs | hash | linear | VOC AP50 / AP / AP75 | source |"]
    lines += ["| --- | --- | --: | --- | --: | --- | --- |"]
    for row in rows:
        scores = [row[name] for name in ("voc_ap50", "voc_ap", "voc_ap75")]
        voc_scores = " / ".join(scores) if all(scores) else ""
        cells = [f"`{row['file']}`", row["method"], row["epochs"], row["hash"]]
        cells += [row["linear_top1"], voc_scores, row["source"]]
        lines.append(f"| {' | '.join(cells)} |".replace("|  |", "| |").replace("|  |", "| |"))
    return f"""# Published checkpoints

{HEAD}

ResNet-50s that their authors published, with what their pages state: the first digits of a hash,
ImageNet's linear top-1, and detection on VOC 07+12 with the protocol of `voc-c4-24k`. All numbers
are quoted. We have not downloaded these files: their formats are read by `harl-bench convert` as
docs/convert.md says, and `harl-bench convert FILE --inspect` shows what one holds. None should
need an option.

{chr(10).join(lines)}
"""


def classification_folders() -> dict[str, str]:
    """The folder in D of each published classification set that has one of its own."""
    folders = {"imagenet": "imagenet"}
    for name, about in PUBLISHED.items():
        for marker in about.marker:
            first, _, rest = marker.partition("/")
            if first != "VOC2007" and (rest or not first.endswith((".txt", ".json"))):
                folders.setdefault(name, first)
    return folders


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

"""Suite files: the shipped ones hold together, and each mistake is one line with its place."""

from pathlib import Path

import pytest

from harl_bench.core.errors import UsageError
from harl_bench.suite import config, plan, state

GOOD = """\
data:
  voc: voc
  wildflowers: wildflowers
pretrain:
  - name: harl
    recipe: harl-toy
    data: wildflowers
checkpoints: [harl, random]
tasks:
  - task: voc
    recipe: voc-c4-24k
    data: voc
  - task: classify
    protocol: linear
    data: wildflowers
"""


def test_every_shipped_suite_loads() -> None:
    counts = {name: len(plan.commands(config.load(name), Path("runs"))) for name in config.names()}
    assert min(counts.values()) > 0
    assert (
        counts.items()
        >= {
            "byol-finetune": 2 * 12,
            "byol-transfer": 2 * 12 * 3,
            "harl-ablations": 19 + 20,
            "harl-masks": 7 + 10 * 2,
            "harl-paper": 9 + 5 * (10 + 2 * 3 + 12 * 3 + 5 + 5),
            "dense-transfer": 5 * 3 * 2,
            "moco-transfer": 3 * 5 * 2,
            "science": 2 + 21 + 22 * 2 * 3,
            "toy": 2 + 3 * 2,
        }.items()
    )


def test_the_paper_suite_names_each_command_once() -> None:
    commands = plan.commands(config.load("harl-paper"), Path("runs"))
    assert (
        len({command.arguments for command in commands})
        == len({command.name for command in commands})
        == len(commands)
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "checkpoints: [harl",
            "chekpoints: [harl",
            "unknown key 'chekpoints'; in {file}:8; next: did you mean 'check",
        ),
        (
            "    protocol:",
            "    protocoll:",
            "unknown key 'tasks.1.protocoll'; in {file}:14; next: did you mean 'proto",
        ),
        ("    recipe: voc-c4-24k", "    recipe: voc-c4-24", "did you mean 'voc-c4-24k'"),
        ("    recipe: voc-c4-24k", "    recipe: voc-c4-24", "in {file}:11"),
        (
            "    recipe: voc-c4-24k",
            "    recipe: coco-c4-1x",
            "recipe coco-c4-1x is not for task voc; in {file}:11",
        ),
        (
            "    recipe: voc-c4-24k",
            "    recipe: voc-c4-24k\n    overrides: [SOLVER.BASE_RL=1]",
            "BASE_LR",
        ),
        ("    recipe: voc-c4-24k\n", "", "task voc takes a recipe and no protocol; in {file}:10"),
        (
            "    protocol: linear",
            "    recipe: voc-c4-24k",
            "task classify takes a protocol and no recipe; in {file}:1",
        ),
        ("    protocol: linear", "    protocol: liner", "did you mean 'linear'"),
        (
            "    protocol: linear",
            "    protocol: linear\n    dataset: foldr",
            "did you mean 'folder'",
        ),
        (
            "    data: voc",
            "    data: vco",
            "did you mean 'voc'? known: voc, wildflowers; in {file}:12",
        ),
        (
            "    data: wildflowers\nche",
            "    data: flower\nche",
            "unknown data folder 'flower'; did you mean 'wildflowers'",
        ),
        ("    recipe: harl-toy", "    recipe: harl-toi", "did you mean 'harl-toy'"),
        (
            "- name: harl",
            "- name: random",
            "pretraining 'random' needs a name of its own; in {file}:5",
        ),
        ("- name: harl", "- name: ../up", "pretrain.0.name"),
        ("[harl, random]", "[harl, harl]", "checkpoint 'harl' is listed twice; in {file}:8"),
        ("  - task: voc", "  - task: vco", "tasks.0.task: input should be"),
        ("  - task: voc", "  - checkpoints: [byol]\n    task: voc", "unknown checkpoint 'byol'"),
        ("checkpoints: [harl, random]", "checkpoints: []", "checkpoints"),
        (
            "checkpoints: [",
            "seeds: [0, 0]\ncheckpoints: [",
            "seeds are whole numbers from 0 up, each once; in {file}:8",
        ),
        ("checkpoints: [", "seeds: [-1]\ncheckpoints: [", "seeds are whole"),
        (
            "    data: voc",
            "    data: voc\n    data: voc",
            "key 'tasks.0.data'; in {file}:13; seen: first on line 12",
        ),
    ],
)
def test_each_mistake_has_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(GOOD)
    config.load(str(path))
    assert old in GOOD
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(UsageError) as caught:
        config.load(str(path))
    assert message.format(file=path) in str(caught.value)


def test_a_baseline_that_nothing_measures() -> None:
    """Every shipped suite has random weights or the pretraining that it names."""
    for name, checkpoints in (("moco-transfer", "[moco.pth]"), ("harl-ablations", "[grid-14]")):
        with pytest.raises(UsageError, match="the baseline is not among the checkpoints") as caught:
            config.load(name, [f"checkpoints={checkpoints}"])
        hint = str(caught.value).rpartition("or give ")[2]
        assert config.load(name, [f"checkpoints={checkpoints}", hint]).report.baseline is None
    config.load("moco-transfer", ["checkpoints=[random-resnet18]"])


def test_unknown_suite() -> None:
    with pytest.raises(UsageError, match="did you mean 'moco-transfer'"):
        config.load("moco-transfr")
    with pytest.raises(UsageError, match="cannot read YAML file"):
        config.load("absent.yaml")


def test_overrides(tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(GOOD)
    suite = config.load(str(tmp_path / "suite.yaml"), ["data.voc=/elsewhere", "seeds=[3, 4]"])
    assert suite.data["voc"] == Path("/elsewhere")
    assert suite.seeds == [3, 4]


def test_a_checkpoint_may_have_a_name(tmp_path: Path) -> None:
    file = tmp_path / "suite.yaml"
    file.write_text(
        GOOD.replace("[harl, random]", "[harl, {path: moco.pth, name: MoCo v2 lr=0.03}, random]")
    )
    plain = tmp_path / "plain.yaml"
    plain.write_text(GOOD.replace("[harl, random]", "[harl, moco.pth, random]"))
    named, commands = (
        plan.commands(config.load(str(path)), Path("runs")) for path in (file, plain)
    )
    label = "--label=MoCo v2 lr=0.03"
    assert {command.checkpoint for command in named if label in command.arguments} == {"moco.pth"}
    assert [tuple(a for a in command.arguments if a != label) for command in named] == [
        command.arguments for command in commands
    ]
    assert [(command.name, command.overrides) for command in named] == [
        (command.name, command.overrides) for command in commands
    ]


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ("{path: a.pth, nam: X}", "unknown key 'nam'; in {file}:8; next: did you mean 'name'?"),
        ("{path: a.pth}", "name: field required; in {file}:8"),
        ("{path: a.pth, name: ''}", "name: string should have at least 1 character; in {file}:8"),
        ("{path: a.pth, name: X}, a.pth", "checkpoint 'a.pth' is listed twice; in {file}:8"),
    ],
)
def test_a_faulty_name_is_told_with_its_line(tmp_path: Path, listed: str, message: str) -> None:
    file = tmp_path / "suite.yaml"
    file.write_text(GOOD.replace("[harl, random]", f"[{listed}]"))
    with pytest.raises(UsageError) as error:
        config.load(str(file))
    assert message.format(file=file) in str(error.value)


SHARED = """\
data: {all: data, other: elsewhere/data, cifar10: data}
checkpoints: [random, a/b.pth, a-b.pth]
tasks:
  - {task: classify, protocol: linear, dataset: dtd, data: all}
  - {task: classify, protocol: linear, dataset: cifar10, data: all}
  - {task: classify, protocol: linear, dataset: cifar10, data: cifar10}
  - {task: classify, protocol: linear, dataset: folder, data: cifar10}
  - {task: classify, protocol: linear, data: all}
  - {task: classify, protocol: linear, data: other}
  - {task: voc, recipe: voc-c4-24k, data: all}
  - {task: voc, recipe: voc-c4-24k, data: all, engine: torchvision}
"""


def test_names_are_as_many_as_commands(tmp_path: Path) -> None:
    """Several sets in one folder, one set from two, two engines, two paths of one slug."""
    (tmp_path / "suite.yaml").write_text(SHARED.replace("cifar10: data}", "cifar10: cifar}"))
    commands = plan.commands(config.load(str(tmp_path / "suite.yaml")), Path("runs"))
    assert len(commands) == 3 * 8
    assert {
        len({command.name for command in commands}),
        len({command.file for command in commands}),
    } == {3 * 8}
    lines = plan.table([(command, "new") for command in commands], [0])
    assert len(lines) == 1 + 3 * 8
    assert any(line.startswith("classify  all as dtd") for line in lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SHARED, "two tasks ask for the same command"),  # cifar10 in `data`, under two names
        (
            SHARED.replace("0: data}", "0: c}")
            + "  - {task: voc, recipe: voc-c4-24k, data: all}\n",
            "same command",
        ),
        (
            "data: {d: d}\ncheckpoints: [random]\ntasks:\n"
            "  - {task: classify, protocol: linear, data: d, overrides: [count=3, eps=0.1]}\n"
            "  - {task: classify, protocol: linear, data: d, overrides: [eps=0.1, count=3]}\n",
            "same command",
        ),
    ],
)
def test_two_tasks_that_are_one_command(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "suite.yaml").write_text(text)
    suite = config.load(str(tmp_path / "suite.yaml"))
    with pytest.raises(UsageError, match=message):
        plan.commands(suite, Path("runs"))


def test_random_weights_of_two_networks_are_two_rows(tmp_path: Path) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(
        GOOD.replace("[harl, random]", "[harl, random, random-resnet18-grid14]").replace(
            "  - task: voc\n    recipe: voc-c4-24k\n    data: voc\n", ""
        )
    )
    commands = plan.commands(config.load(str(path)), tmp_path)
    usual, other = (c for c in commands if c.checkpoint.startswith("random"))
    assert usual.arguments[1] == "random"
    assert other.arguments[1] == "random-resnet18-grid14"
    key = "classify", "folder-wildflowers", "linear", "", 0
    run = state.RunFolder(tmp_path / "run", *key, (), source="random-resnet18-grid14")
    assert state.matching(other, [run]) == [run]
    assert state.matching(usual, [run]) == []
    path.write_text(GOOD.replace("name: harl", "name: random-grid28"))
    with pytest.raises(UsageError, match="needs a name of its own"):
        config.load(str(path))

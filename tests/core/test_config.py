"""Strict configuration: what is refused names file and line, what is accepted keeps its type."""

from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field

from harl_bench.core.config import (
    MAX_YAML_BYTES,
    Config,
    YamlFile,
    merged,
    parse_overrides,
    read_yaml,
    validated,
)
from harl_bench.core.errors import UsageError


class Solver(Config):
    base_lr: float = Field(gt=0)
    steps: list[int] = []


class Part(Config):
    name: str
    solver: Solver | None = None


class Recipe(Config):
    kind: Literal["a", "b"] = "a"
    solver: Solver
    parts: list[Part] = []


def yaml_file(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def read(folder: Path, text: str) -> YamlFile:
    return read_yaml(yaml_file(folder, text))


def test_lines_are_remembered_also_inside_lists(tmp_path: Path) -> None:
    loaded = read(
        tmp_path,
        "solver:\n  base_lr: 1\nparts:\n  - name: x\n    solver: {base_lr: 2}\n  - name: y\n",
    )
    assert loaded == {
        "solver": {"base_lr": 1},
        "parts": [{"name": "x", "solver": {"base_lr": 2}}, {"name": "y"}],
    }
    assert loaded.lines == {
        "solver": 1,
        "solver.base_lr": 2,
        "parts": 3,
        "parts.0": 4,
        "parts.0.name": 4,
        "parts.0.solver": 5,
        "parts.0.solver.base_lr": 5,
        "parts.1": 6,
        "parts.1.name": 6,
    }
    assert read(tmp_path, "# nothing\n") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "duplicate key 'a'; in {file}:3; seen: first on line 1"),
        ("s:\n  a: 1\n  a: 2\n", "duplicate key 's.a'; in {file}:3"),
        ("l:\n  - a: 1\n    a: 2\n", "duplicate key 'l.0.a'; in {file}:3; seen: first on line 2"),
        ("a: &x [1]\nb: *x\n", "YAML aliases are not allowed; in {file}:2"),
        ("a: 1\nb: [1\n", "not valid YAML; in {file}:3"),
        ("a: 1\nb: !!python/object/apply:os.system [id]\n", "not valid YAML; in {file}:2"),
        ("[1, 2]: x\n", "keys must be plain text; in {file}:1"),
        ("- a\n", "a YAML file here is a mapping of keys to values; in {file}"),
        ("just words", "a YAML file here is a mapping"),
        ("a: 1\n---\nb: 2\n", "not valid YAML; in {file}:2"),
        ("a: " + "[" * 1000 + "]" * 1000, "YAML is nested more than 32 deep; in {file}:1"),
        ("a: 2020-13-45\n", "not valid YAML; in {file}"),
    ],
)
def test_refused_yaml(tmp_path: Path, text: str, message: str) -> None:
    path = yaml_file(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        read_yaml(path)
    assert message.format(file=path) in str(caught.value)


def test_refused_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read YAML file"):
        read_yaml(tmp_path / "absent.yaml")
    with pytest.raises(UsageError, match="cannot read YAML file"):
        read_yaml(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")
    with pytest.raises(UsageError, match="cannot read YAML file"):
        read_yaml(tmp_path / "latin.yaml")
    with pytest.raises(UsageError, match="too large to be a recipe"):
        read(tmp_path, "#" * (MAX_YAML_BYTES + 1))


def test_overrides_are_yaml_values() -> None:
    given = [
        "solver.base_lr=1e-3",
        "epochs=2",
        "name=a=b",
        "on=true",
        "steps=[1, 2]",
        "none=null",
        "empty=",
    ]
    assert parse_overrides(given) == {
        "solver.base_lr": 0.001,
        "epochs": 2,
        "name": "a=b",
        "on": True,
        "steps": [1, 2],
        "none": None,
        "empty": None,
    }
    for wrong in ("epochs", "=2", "a=[1"):
        with pytest.raises(UsageError) as caught:
            parse_overrides([wrong])
        assert str(caught.value).endswith(f"seen: {wrong}")


def test_merged_changes_a_copy() -> None:
    base = {"solver": {"base_lr": 1, "steps": [1]}, "kind": "a"}
    changed = merged(base, {"solver.base_lr": 2, "new.deep.key": 3})
    assert changed == {
        "solver": {"base_lr": 2, "steps": [1]},
        "kind": "a",
        "new": {"deep": {"key": 3}},
    }
    assert base == {"solver": {"base_lr": 1, "steps": [1]}, "kind": "a"}
    with pytest.raises(UsageError, match=r"'kind' is a value, not a section; seen: kind\.x=1"):
        merged(base, {"kind.x": 1})


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "+1e-3", ".1e-2", "1.0e-3", "1_0e-4", "'1e-3'"])
def test_numbers_that_yaml_reads_as_text_are_numbers(tmp_path: Path, text: str) -> None:
    """YAML 1.1, which PyYAML follows, wants a dot and a sign in 1.0e-3; everybody writes 1e-3."""
    values = read(tmp_path, f"solver: {{base_lr: {text}}}\nparts: [{{name: 3e}}]\n")
    recipe = validated(Recipe, values, source="x")
    assert recipe.solver.base_lr == 0.001
    assert recipe.parts[0].name == "3e"  # begins like a number and is none


def test_a_name_that_looks_like_a_number_goes_in_quotes(tmp_path: Path) -> None:
    """The first digits of a SHA-256 are all decimal around one e in 1.6 % of the files."""
    for text, seen in (("1234e567", "inf"), ("2024", "2024")):
        with pytest.raises(UsageError, match=f"seen: {seen}; next: put it in quotes"):
            validated(Part, read(tmp_path, f"name: {text}\n"), source="x")
        assert validated(Part, read(tmp_path, f'name: "{text}"\n'), source="x").name == text


def test_a_fault_of_an_override_is_not_the_files(tmp_path: Path) -> None:
    values = read(tmp_path, "kind: a\nsolver:\n  base_lr: 1\n")
    for changes, where in (
        ({"kind": "c"}, "in overrides; seen: 'c'"),
        ({"knd": "a"}, "unknown key 'knd'; in overrides; next: did you mean 'kind'"),
        ({"solver.base_lr": "x"}, "in overrides; seen: 'x'"),
    ):
        told = merged(values, changes)
        with pytest.raises(UsageError, match=where):
            validated(Recipe, told, source="f.yaml", lines=values.lines, changes=changes)
    values = read(tmp_path, "kind: c\nsolver: {base_lr: 1}\n")
    with pytest.raises(UsageError, match=r"in f.yaml:1; seen: 'c'"):
        validated(Recipe, values, source="f.yaml", lines=values.lines, changes={"solver": {}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("solvr: {base_lr: 1}", "unknown key 'solvr'; in {file}:1; next: did you mean 'solver'?"),
        (
            "kind: a\nsolver:\n  base_lr: 1\n  base_rl: 2",
            "unknown key 'solver.base_rl'; in {file}:4; next: did you",
        ),
        (
            "solver: {base_lr: 1}\nzzz: 1",
            "unknown key 'zzz'; in {file}:2; next: known: kind, parts, solver",
        ),
        (
            "solver: {base_lr: 1}\nparts:\n  - name: x\n  - nme: y",
            "parts.1.nme'; in {file}:4; next: did you",
        ),
        (
            "solver: {base_lr: 1}\nparts:\n  - {name: x, solver: {base_rl: 2}}",
            "next: did you mean 'base_lr'?",
        ),
        (
            "kind: c\nsolver: {base_lr: 1}",
            "kind: input should be 'a' or 'b'; in {file}:1; seen: 'c'",
        ),
        (
            "solver:\n  base_lr: -1",
            "solver.base_lr: input should be greater than 0; in {file}:2; seen: -1",
        ),
        ("solver:\n  base_lr: fast\n  steps: [x]", "(and 1 more); in {file}:2; seen: 'fast'"),
        ("kind: a\nsolver: {}", "solver.base_lr: field required; in {file}:2"),
        ("kind: a", "solver: field required; in {file}"),
    ],
)
def test_refused_values_name_their_line(tmp_path: Path, text: str, message: str) -> None:
    path = yaml_file(tmp_path, text)
    values = read_yaml(path)
    with pytest.raises(UsageError) as caught:
        validated(Recipe, values, source=str(path), lines=values.lines)
    assert message.format(file=path) in str(caught.value)


def test_a_config_is_frozen() -> None:
    recipe: Any = validated(Recipe, {"solver": {"base_lr": 1}}, source="x")
    with pytest.raises(ValueError, match="frozen"):
        recipe.kind = "b"

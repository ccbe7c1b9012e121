"""Strict configuration: YAML and overrides into frozen models; unknown keys are refused by line."""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from harl_bench.core.errors import UsageError

MAX_YAML_BYTES = 1_000_000  # the longest recipe here has 6 thousand
MAX_YAML_DEPTH = 32  # a suite needs four


class Config(BaseModel):
    """Base of every configuration and record: frozen, no unknown keys, JSON in and out."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


C = TypeVar("C", bound=BaseModel)


class Loader(yaml.SafeLoader):
    """YAML's plain values without base 60: YAML 1.1 reads `12:00:00` as 43200, people do not.

    A number needs no dot: `1e-3` is one as in YAML 1.2, and "1e-3" in quotes is text.
    """

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        """Return the tag of a node; a number with a colon is text."""
        tag: str = super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]
        number = kind is yaml.ScalarNode and tag.endswith((":int", ":float"))
        return self.DEFAULT_SCALAR_TAG if number and ":" in value else tag


Loader.add_implicit_resolver(  # type: ignore[no-untyped-call]
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def plain(text: str) -> Any:
    """Return the plain value that a YAML text holds."""
    loader = Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()  # type: ignore[no-untyped-call]


class YamlFile(dict[str, Any]):
    """A YAML mapping that remembers the line of each key, by dotted name."""

    path: Path
    lines: dict[str, int]


def read_yaml(path: str | Path) -> YamlFile:
    """Read a YAML mapping of plain values.

    Refused with file and line: syntax errors, duplicate keys, Python tags, aliases, keys that are
    not text.

    Raises:
        UsageError: as above, or the file is missing, too large, or not a mapping.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_YAML_BYTES:
            raise UsageError(
                "YAML file is too large to be a recipe",
                where=path,
                seen=f"{path.stat().st_size:,} bytes",
            )
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            "cannot read YAML file", where=path, seen=error, next="check the path"
        ) from None
    loaded = YamlFile()
    loaded.path, loaded.lines = path, {}
    try:
        depth = 0
        for event in yaml.parse(text, Loader=Loader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            line = event.start_mark.line if event.start_mark else 0
            if depth > MAX_YAML_DEPTH:  # PyYAML's time grows with the square of it
                raise UsageError(
                    f"YAML is nested more than {MAX_YAML_DEPTH} deep", where=_at(path, line)
                )
            if isinstance(event, yaml.AliasEvent):
                raise UsageError("YAML aliases are not allowed", where=_at(path, line))
        root = yaml.compose(text, Loader=Loader)
        if root is None:
            return loaded
        if not isinstance(root, yaml.MappingNode):
            raise UsageError(
                "a YAML file here is a mapping of keys to values", where=path, seen=root.tag
            )
        _check(root, path, "", loaded.lines)
        loaded.update(Loader("").construct_document(root))  # type: ignore[no-untyped-call]
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line if error.problem_mark else 0
        raise UsageError("not valid YAML", where=_at(path, line), seen=error.problem) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UsageError(
            "not valid YAML", where=path, seen=str(error) or type(error).__name__
        ) from None
    return loaded


def _check(node: yaml.MappingNode, path: Path, prefix: str, lines: dict[str, int]) -> None:
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise UsageError("keys must be plain text", where=_at(path, key.start_mark.line))
        name = f"{prefix}{key.value}"
        if name in lines:
            raise UsageError(
                f"duplicate key {name!r}",
                where=_at(path, key.start_mark.line),
                seen=f"first on line {lines[name]}",
            )
        lines[name] = key.start_mark.line + 1
        _check_value(value, path, name, lines)


def _check_value(value: yaml.Node, path: Path, name: str, lines: dict[str, int]) -> None:
    """Sections are checked wherever they are, those in lists as `tasks.0`, `tasks.1`, ..."""
    if isinstance(value, yaml.MappingNode):
        _check(value, path, f"{name}.", lines)
    elif isinstance(value, yaml.SequenceNode):
        for i, item in enumerate(value.value):
            lines[f"{name}.{i}"] = item.start_mark.line + 1
            _check_value(item, path, f"{name}.{i}", lines)


def _at(path: Path, line: int) -> str:
    return f"{path}:{line + 1}"


def parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """`["optimizer.lr=1e-3", "epochs=2"]` as a flat dict of dotted names; values are read as YAML.

    Raises:
        UsageError: an item without "=".
    """
    parsed: dict[str, Any] = {}
    for item in overrides:
        key, sign, text = item.partition("=")
        if not sign or not key:
            raise UsageError("an override has the form key=value", seen=item)
        try:
            parsed[key.strip()] = plain(text)
        except yaml.YAMLError:
            raise UsageError("cannot read the value of an override", seen=item) from None
    return parsed


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return {"SOLVER.BASE_LR": 0.02, ...} of nested dicts."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


def merged(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A nested copy of `base` with dotted `overrides` put in place."""
    result: dict[str, Any] = {
        k: merged(v, {}) if isinstance(v, Mapping) else v for k, v in base.items()
    }
    for dotted, value in overrides.items():
        place = result
        *parents, last = dotted.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise UsageError(f"{parent!r} is a value, not a section", seen=f"{dotted}={value}")
        place[last] = value
    return result


def validated(
    model: type[C],
    values: Mapping[str, Any],
    *,
    source: str,
    lines: Mapping[str, int] | None = None,
    changes: Iterable[str] = (),
) -> C:
    """`model(**values)`, with pydantic's findings turned into one line that names file, line and
    the likely key.

    Args:
        changes: keys of the values that are overrides; a fault of theirs is not the file's.

    Raises:
        UsageError: an unknown key, a missing one, or a value of the wrong kind.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        found = error.errors(include_url=False)
        # A misspelt key is also a missing one: the spelling is what helps.
        first = next((e for e in found if e["type"] == "extra_forbidden"), found[0])
        name = ".".join(str(part) for part in first["loc"])
        line = _line(name, lines or {})
        where = f"{source}:{line}" if line else source
        if any(f"{name}.".startswith(f"{key}.") for key in changes):
            where = "overrides"
        if first["type"] == "extra_forbidden":
            known = _known_keys(model, first["loc"][:-1])
            close = get_close_matches(str(first["loc"][-1]), known, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"
            raise UsageError(f"unknown key {name!r}", where=where, next=hint) from None
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        told = first["msg"].removeprefix("Value error, ") + more
        if not name:  # a rule between keys: its message names them
            raise UsageError(told, where=f"{where} with overrides" if changes else where) from None
        seen = None if first["type"] == "missing" else repr(first["input"])
        is_text = first["type"] in ("string_type", "path_type")
        quotes = "put it in quotes" if is_text and isinstance(first["input"], int | float) else None
        what = f"{name}: {told[0].lower()}{told[1:]}"
        raise UsageError(what, where=where, seen=seen, next=quotes) from None


def _line(name: str, lines: Mapping[str, int]) -> int | None:
    """The line of a key, or of the nearest section around one that is missing."""
    while name and name not in lines:
        name = name.rpartition(".")[0]
    return lines.get(name)


def _known_keys(model: type[BaseModel], parents: tuple[Any, ...]) -> list[str]:
    current: Any = model
    for parent in parents:
        if isinstance(parent, str) and hasattr(current, "model_fields"):
            field = current.model_fields.get(parent)
            current = _section(field.annotation) if field else None
    return list(current.model_fields) if hasattr(current, "model_fields") else []


def _section(annotation: Any) -> Any:
    """The model in `Model`, `list[Model]` or `Model | None`."""
    inner = [
        found for part in get_args(annotation) if hasattr(found := _section(part), "model_fields")
    ]
    return inner[0] if inner else annotation

"""Detection recipes: the part of Detectron2's YAML that both engines honour, read strictly.

A recipe file is plain Detectron2 YAML: `_BASE_` chains, tuples written as strings ("(18000,
    22000)"), no Python tags.
Detectron2 itself lets the last of two duplicate keys win and trains on; here a duplicate, an
unknown key, a wrong type and a value that the torchvision engine does not implement are errors that
name file and line.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from harl_bench.core.config import read_yaml
from harl_bench.core.errors import UsageError
from harl_bench.core.lookup import unknown
from harl_bench.core.resources import data_dir
from harl_bench.detection.recipe_rules import (
    Setting,
    checked,
    defaults,
    is_fpn,
    lists,
    require_consistent,
)

# What a run may change without becoming another protocol.
NEUTRAL = {
    "MODEL.DEVICE",
    "MODEL.WEIGHTS",
    "OUTPUT_DIR",
    "SEED",
    "DATALOADER.NUM_WORKERS",
    "SOLVER.CHECKPOINT_PERIOD",
    "TEST.EVAL_PERIOD",
}


class Recipe(Mapping[str, Any]):
    """An immutable node of the configuration: `recipe.SOLVER.BASE_LR`,
    `recipe["SOLVER"]["BASE_LR"]`.

    Lists of the YAML are tuples here. The root also knows its `name`, the `files` read (base
    first), and the
    `departures`: overrides that make the run another protocol than the file's, as "KEY: old ->
    new".
    """

    __slots__ = ("_tree", "departures", "files", "name")
    _tree: dict[str, Any]
    name: str
    files: tuple[Path, ...]
    departures: tuple[str, ...]

    def __init__(
        self,
        tree: Mapping[str, Any],
        name: str = "",
        files: Sequence[Path] = (),
        departures: Sequence[str] = (),
    ) -> None:
        nodes = {
            key: Recipe(value, key) if isinstance(value, Mapping) else value
            for key, value in tree.items()
        }
        values = {
            "_tree": nodes,
            "name": name,
            "files": tuple(files),
            "departures": tuple(departures),
        }
        for slot, value in values.items():
            object.__setattr__(self, slot, value)

    def __getitem__(self, key: str) -> Any:
        return self._tree[key]

    def __getattr__(self, key: str) -> Any:  # only called for what is no slot
        if key.startswith("_") or key not in self._tree:
            raise AttributeError(
                key if key.startswith("_") else unknown(key, self._tree, "recipe key")
            )
        return self._tree[key]

    def __setattr__(self, key: str, value: object) -> None:
        raise AttributeError(f"a recipe is immutable; give {key}=... as an override to load()")

    def __reduce__(self) -> tuple[Any, ...]:  # worker processes pickle it
        return Recipe, (dict(self._tree), self.name, self.files, self.departures)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tree)

    def __len__(self) -> int:
        return len(self._tree)

    def __repr__(self) -> str:
        return f"Recipe({self.name!r}, {len(self)} keys)"

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and scalars, every key of Detectron2 present."""
        return {
            key: value.to_dict() if isinstance(value, Recipe) else lists(value)
            for key, value in self.items()
        }

    def to_yaml(self) -> str:
        """The resolved recipe as YAML that Detectron2's `merge_from_file` and `load` read back
        unchanged.
        """
        return str(yaml.safe_dump(self.to_dict(), default_flow_style=None, width=120))


def names() -> list[str]:
    """Names of the packaged recipes: `coco-c4-1x`, ..., `voc-c4-24k`.

    Base files are no protocols and are left out.
    """
    return sorted(_packaged())


def load(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a packaged recipe by name, or any YAML file, resolve its bases and apply `KEY.SUB=value`
    overrides.

    Raises:
        UsageError: anything the two engines would not both honour; the message names file and line.
    """
    path = _find(name_or_path)
    files: list[Path] = []
    written = defaults() | {
        key: checked(key, setting) for key, setting in _chain(path, (), files).items()
    }
    settings = written | {key: checked(key, setting) for key, setting in map(_override, overrides)}
    departures = [
        f"{key}: {lists(written[key].value)} -> {lists(setting.value)}"
        for key, setting in settings.items()
        if key not in NEUTRAL and setting.value != written[key].value
    ]
    recipe = Recipe(_nested(settings), path.stem, files, departures)
    require_consistent(recipe, settings)
    return recipe


def warnings(recipe: Recipe) -> list[str]:
    """Sentences about settings that are legal but known to lose points or to diverge."""
    norm, freeze_at = recipe.MODEL.RESNETS.NORM, recipe.MODEL.BACKBONE.FREEZE_AT
    found = []
    if norm != "FrozenBN" and freeze_at > 0:
        # Detectron2 layers/blocks.py: freeze() replaces the norm, whatever NORM says
        # (detectron2#2022).
        found.append(
            f"FREEZE_AT {freeze_at} turns {norm} of the first {freeze_at} stage(s) into FrozenBN; "
            "set MODEL.BACKBONE.FREEZE_AT=0 to train all norms"
        )
    if norm == "FrozenBN" and freeze_at == 0:
        found.append(
            "FrozenBN with FREEZE_AT 0 at the usual learning rate tends to end in NaN (moco#40)"
        )
    if is_fpn(recipe) and norm != "FrozenBN" and recipe.MODEL.FPN.NORM == "":
        found.append(f"backbone norm {norm} without MODEL.FPN.NORM tends to diverge (moco#23)")
    if recipe.MODEL.WEIGHTS:
        found.append(
            f"MODEL.WEIGHTS {recipe.MODEL.WEIGHTS!r} is not read: the checkpoint is the "
            "command's argument"
        )
    return found


def _packaged() -> dict[str, Path]:
    files = sorted(data_dir("transfer_configs").rglob("*.yaml"))
    return {path.stem: path for path in files if not path.stem.startswith("base-")}


def _find(name_or_path: str | Path) -> Path:
    """A path if it ends in .yaml, else a packaged name (`voc-c4-24k` or `voc/voc-c4-24k`)."""
    path, packaged = Path(name_or_path), _packaged()
    if path.suffix.lower() in (".yaml", ".yml"):
        return path
    found = packaged.get(path.name)
    if found is None or str(path) not in (found.stem, f"{found.parent.name}/{found.stem}"):
        raise UsageError(
            unknown(str(path), packaged, "recipe"),
            next="give one of these or the path of a .yaml file",
        )
    return found


def _chain(path: Path, above: tuple[Path, ...], files: list[Path]) -> dict[str, Setting]:
    """Settings of `path` over those of its bases, in Detectron2's order: a later base wins, the
    file itself is last.
    """
    here = path.resolve()
    if here in above:
        raise UsageError(
            "recipe files are each other's _BASE_",
            where=" -> ".join(p.name for p in (*above, here)),
        )
    if (
        len(above) > 20
    ):  # a real chain has three files; a list of bases per file could otherwise grow without bound
        raise UsageError(
            "the chain of _BASE_ files is too long", where=above[0], seen="more than 20 files"
        )
    content = read_yaml(path)
    bases = content.pop("_BASE_", [])
    settings: dict[str, Setting] = {}
    for base in (
        [bases] if isinstance(bases, str) else bases if isinstance(bases, list) else [bases]
    ):
        where = f"{path}:{content.lines['_BASE_']}"
        if not isinstance(base, str) or not base or "://" in base:
            raise UsageError(
                "_BASE_ must be the path of a YAML file, or a list of them",
                where=where,
                seen=repr(base),
            )
        base_path = path.parent / Path(base).expanduser()
        if not base_path.is_file():
            raise UsageError(
                "_BASE_ file not found", where=where, seen=base_path, next="correct the path"
            )
        settings |= _chain(base_path, (*above, here), files)
    files.append(path)
    return settings | _flat(content, path, content.lines)


def _flat(
    tree: Mapping[Any, Any], path: Path, lines: Mapping[str, int], prefix: str = ""
) -> dict[str, Setting]:
    settings: dict[str, Setting] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        where = f"{path}:{lines.get(name, 1)}"
        if not isinstance(key, str) or "." in key:
            raise UsageError("a recipe key is one word", where=where, seen=repr(key))
        if isinstance(value, Mapping) and value:
            settings |= _flat(value, path, lines, f"{name}.")
        else:
            settings[name] = Setting(value, where)
    return settings


def _override(text: str) -> tuple[str, Setting]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(
            "an override has the form KEY.SUB=value",
            seen=text,
            next="for example SOLVER.MAX_ITER=100",
        )
    return key.strip(), Setting(value.strip(), f"override {text}")


def _nested(settings: Mapping[str, Setting]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, setting in settings.items():
        *groups, leaf = key.split(".")
        node = tree
        for group in groups:
            node = node.setdefault(group, {})
        node[leaf] = setting.value
    return tree

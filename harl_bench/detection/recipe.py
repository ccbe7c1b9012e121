"""Detection recipes: the part of Detectron2's YAML that both engines honour, read strictly.

A recipe file is plain Detectron2 YAML: `_BASE_` chains, tuples written as strings ("(18000,
22000)"), no Python tags. Detectron2 itself takes the last of two duplicate keys. Here a duplicate,
an unknown key, a wrong type and a value that the torchvision engine does not implement are errors
that name file and line.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from harl_bench.core.config import flatten, read_yaml
from harl_bench.core.errors import UsageError
from harl_bench.core.lookup import unknown
from harl_bench.core.resources import data_dir
from harl_bench.detection.recipe_rules import (
    Setting,
    defaults,
    is_fpn,
    lists,
    require_consistent,
    validate,
)

# Keys that a run may change without becoming another protocol.
NEUTRAL = {
    "MODEL.DEVICE",
    "MODEL.WEIGHTS",
    "OUTPUT_DIR",
    "SEED",
    "DATALOADER.NUM_WORKERS",
    "SOLVER.CHECKPOINT_PERIOD",
    "TEST.EVAL_PERIOD",
}
# Those that an option or argument of the command replaces.
NOT_READ = {
    "MODEL.WEIGHTS": "the checkpoint is the command's argument",
    "MODEL.DEVICE": "--device says where to compute",
    "OUTPUT_DIR": "--out is the folder of all runs",
    "SEED": "--seeds has the seeds",
}


class Recipe(Mapping[str, Any]):
    """An immutable node of the configuration, as in `recipe.SOLVER.BASE_LR`.

    Lists of the YAML are tuples here. The root also has its `name`, the `files` read (base first),
    and the `departures`: overrides that change the protocol, as "KEY: old -> new".
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
        nodes = {k: Recipe(v, k) if isinstance(v, Mapping) else v for k, v in tree.items()}
        for slot, value in zip(
            ("_tree", "name", "files", "departures"),
            (nodes, name, tuple(files), tuple(departures)),
            strict=True,
        ):
            object.__setattr__(self, slot, value)

    def __getitem__(self, key: str) -> Any:
        return self._tree[key]

    def __getattr__(self, key: str) -> Any:  # only called for what is no slot
        if key.startswith("_"):
            raise AttributeError(key)
        if key not in self._tree:
            raise AttributeError(unknown(key, self._tree, "recipe key"))
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
        """Return plain dicts, lists and scalars, with every key of Detectron2."""
        return {
            key: value.to_dict() if isinstance(value, Recipe) else lists(value)
            for key, value in self.items()
        }

    def to_yaml(self) -> str:
        """Return the resolved recipe as YAML for `load` and Detectron2's `merge_from_file`."""
        return str(yaml.safe_dump(self.to_dict(), default_flow_style=None, width=120))


def names() -> list[str]:
    """Return the names of the packaged recipes, without base files."""
    return sorted(_packaged())


def load(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a packaged recipe by name, or any YAML file, with bases and `KEY.SUB=value` overrides.

    Departures of a file with a packaged recipe's name are from that one: results carry the name.

    Raises:
        UsageError: a setting that one engine would not honour; the message names file and line.
    """
    path = _find(name_or_path)
    files: list[Path] = []
    own = _settings(path, files)
    packaged = _packaged().get(path.stem, path)
    original = own if packaged.samefile(path) else _settings(packaged, [])
    settings = own | {key: validate(key, value) for key, value in map(_override, overrides)}
    departures = [
        f"{key}: {lists(original[key].value)} -> {lists(setting.value)}"
        for key, setting in settings.items()
        if key not in NEUTRAL and setting.value != original[key].value
    ]
    recipe = Recipe(_nested(settings), path.stem, files, departures)
    require_consistent(recipe, settings)
    return recipe


def deciding(recipe: Recipe) -> dict[str, Any]:
    """Return the settings that decide what a run ends with, with their full keys.

    Precise batch norm before an evaluation goes on in the stream of the final one and draws random
    numbers, as in Detectron2: with it the period decides, too.
    """
    values = flatten(recipe.to_dict())
    period = "TEST.EVAL_PERIOD"
    moves = values["TEST.PRECISE_BN.ENABLED"] and values[period] > 0
    return {k: v for k, v in values.items() if k not in NEUTRAL or (k == period and moves)}


def warnings(recipe: Recipe) -> list[str]:
    """Return warnings about legal settings that are known to lose points or to diverge."""
    norm, freeze_at = recipe.MODEL.RESNETS.NORM, recipe.MODEL.BACKBONE.FREEZE_AT
    messages = []
    if norm != "FrozenBN" and freeze_at > 0:
        # D2:layers/blocks.py: freeze() replaces any norm (detectron2#2022).
        messages.append(
            f"FREEZE_AT {freeze_at} turns {norm} of the first {freeze_at} stage(s) into FrozenBN; "
            "set MODEL.BACKBONE.FREEZE_AT=0 to train all norms"
        )
    if norm == "FrozenBN" and freeze_at == 0:
        messages.append(
            "FrozenBN with FREEZE_AT 0 at the usual learning rate tends to end in NaN (moco#40)"
        )
    if is_fpn(recipe) and norm != "FrozenBN" and recipe.MODEL.FPN.NORM == "":
        messages.append(f"backbone norm {norm} without MODEL.FPN.NORM tends to diverge (moco#23)")
    values, original = flatten(recipe.to_dict()), defaults()
    for key, reason in NOT_READ.items():
        if values[key] != original[key].value:
            messages.append(f"{key} {values[key]!r} is not read: {reason}")
    return messages


def _packaged() -> dict[str, Path]:
    """Return the recipes by name; those in segment/ are of other keys (segmentation/recipe.py)."""
    files = sorted(data_dir("transfer_configs").rglob("*.yaml"))
    return {
        path.stem: path
        for path in files
        if not path.stem.startswith("base-") and path.parent.name != "segment"
    }


def _find(name_or_path: str | Path) -> Path:
    """Return a path that ends in .yaml, or that of a name, `voc-c4-24k` or `voc/voc-c4-24k`."""
    path, packaged = Path(name_or_path), _packaged()
    if path.suffix.lower() in (".yaml", ".yml"):
        return path
    match = packaged.get(path.name)
    if match is None or str(path) not in (match.stem, f"{match.parent.name}/{match.stem}"):
        hint = "give one of these or the path of a .yaml file"
        raise UsageError(unknown(str(path), packaged, "recipe"), next=hint)
    return match


def _settings(path: Path, files: list[Path]) -> dict[str, Setting]:
    """Return every key with its value by a file and its bases, which are appended to `files`."""
    chain = _chain(path, (), files)
    return defaults() | {key: validate(key, setting) for key, setting in chain.items()}


def _chain(path: Path, above: tuple[Path, ...], files: list[Path]) -> dict[str, Setting]:
    """Return the settings of a file over those of its bases, of which a later one wins."""
    chain = (*above, path.resolve())
    if path.resolve() in above:
        where = " -> ".join(p.name for p in chain)
        raise UsageError("recipe files are each other's _BASE_", where=where)
    if len(above) > 20:  # a real chain has three files; lists of bases could grow without bound
        what, seen = "the chain of _BASE_ files is too long", "more than 20 files"
        raise UsageError(what, where=above[0], seen=seen)
    content = read_yaml(path)
    bases = content.pop("_BASE_", [])
    settings: dict[str, Setting] = {}
    for base in bases if isinstance(bases, list) else [bases]:
        where = f"{path}:{content.lines['_BASE_']}"
        if not isinstance(base, str) or not base or "://" in base:
            what = "_BASE_ must be the path of a YAML file, or a list of them"
            raise UsageError(what, where=where, seen=repr(base))
        base_path = path.parent / Path(base).expanduser()
        if not base_path.is_file():
            hint = "correct the path"
            raise UsageError("_BASE_ file not found", where=where, seen=base_path, next=hint)
        settings |= _chain(base_path, chain, files)
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
        hint = "for example SOLVER.MAX_ITER=100"
        raise UsageError("an override has the form KEY.SUB=value", seen=text, next=hint)
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

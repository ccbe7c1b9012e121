"""From a recipe and overrides to the configuration of one method.

A key that changes nothing is refused.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harl_bench.core.config import merged, parse_overrides, read_yaml, validated
from harl_bench.core.errors import UsageError
from harl_bench.core.lookup import lookup, unknown
from pretrain.config import PretrainConfig
from pretrain.methods import METHODS, method_class

RECIPES = Path(__file__).parent / "recipes"
IMAGENET = 1_281_167  # training images
EPOCH_S = 149 * 3600 / 1000  # HARL on them, 8 A100 (paper, section 4)
# Once one of these is changed, a recipe's own keys may be another's.
CHOICES = {"method", "base", "loss", "optimizer", "crop"}
# What a run may change on its way: it decides what is written when, not what is learnt.
NEUTRAL = {
    "log_every_steps",
    "checkpoint_every_steps",
    "evaluate_every_epochs",
    "expect",
    "compile",
    "channels_last",
}


def load(recipe: str | None, method: str | None, overrides: Sequence[str]) -> PretrainConfig:
    """Resolve a recipe by name or file, then overrides.

    Args:
        recipe: a name in recipes/, a YAML file, or None for `<method>-100ep`.
        method: must agree with the recipe's; None takes the recipe's.

    Raises:
        UsageError: unknown recipe or key, a value of the wrong kind, a key that changes nothing in
            this run, or a method that is not the recipe's.
    """
    if recipe is None:
        recipe = f"{method or 'harl'}-100ep"
    path = Path(recipe) if recipe.endswith((".yaml", ".yml")) else RECIPES / f"{recipe}.yaml"
    if not path.is_file():
        raise UsageError(unknown(recipe, names(), "recipe"))
    values, changes = read_yaml(path), parse_overrides(overrides)
    given = merged(values, changes)
    if method is not None and method != given.get("method", method):
        raise UsageError(
            f"recipe {recipe} is for {given['method']}, not {method}", next=f"--recipe {method}-..."
        )
    foreign = foreign_keys(given)
    own = {key: value for key, value in given.items() if key not in foreign}
    config = validated(
        config_class(given), own, source=str(path), lines=values.lines, changes=changes
    )
    unused = {**foreign, **config.unused()}
    refuse(unused, changes, config, source="overrides")
    if not CHOICES & set(changes):
        stated = [key for key, value in given.items() if value != default(key)]
        refuse(unused, stated, config, source=path.name)
    return effective(config)


def refuse(
    unused: Mapping[str, str], keys: Iterable[str], config: PretrainConfig, *, source: str
) -> None:
    """Raise a UsageError for the first key that was given and changes nothing."""
    for key in keys:
        if key in unused:
            choices = config.model_dump(include={"method", "base", "loss"})
            raise UsageError(
                f"{key} changes nothing here",
                where=source,
                seen=", ".join(f"{k} {v}" for k, v in choices.items()),
                next=f"leave it out; it is for {unused[key]}",
            )


def configured(values: Mapping[str, Any]) -> PretrainConfig:
    """Return the configuration of plain values, which may have every method's keys (before 0.2)."""
    foreign = foreign_keys(values)
    own = {key: value for key, value in values.items() if key not in foreign}
    return effective(validated(config_class(values), own, source="configuration"))


def settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a configuration decides about the training; one of an earlier version may have
    every method's keys.

    Raises:
        UsageError: these values are no configuration.
    """
    return configured(values).model_dump(exclude=NEUTRAL)


def effective(config: PretrainConfig) -> PretrainConfig:
    """Return a configuration with the defaults of the keys that change nothing in it: what is
    written of a run is what it does.
    """
    fields = type(config).model_fields
    unused = {key: fields[key].default for key in config.unused() if key in fields}
    return config.model_copy(update=unused)


def config_class(values: Mapping[str, Any]) -> type[PretrainConfig]:
    """Return the class of a method's configuration on its base.

    Raises:
        UsageError: unknown method or base.
    """
    if "method" not in values:
        return PretrainConfig  # whose validation says that it is missing
    configs = method_class(str(values["method"])).configs
    base = "" if "" in configs else str(values.get("base", "byol"))
    chosen: type[PretrainConfig] = lookup(configs, base, "base")
    return chosen


def foreign_keys(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the keys that only other methods have, with the names of those methods."""
    own = config_class(values).model_fields
    owners = {
        key: [name for name in METHODS if key in keys(name)] for key in values if key not in own
    }
    return {key: ", ".join(names) for key, names in owners.items() if names}


def keys(method: str) -> Mapping[str, Any]:
    """Return the fields of a method: its own, without those of a base that it may sit on."""
    configs = method_class(method).configs
    return configs[""].model_fields if "" in configs else _shared(configs)


def default(key: str) -> Any:
    """Return a key's default in some method as YAML reads it, a list for a tuple; or None."""
    fields = [keys(name)[key] for name in METHODS if key in keys(name)]
    value = fields[0].default if fields else None
    return list(value) if isinstance(value, tuple) else value


def _shared(configs: Mapping[str, type[PretrainConfig]]) -> Mapping[str, Any]:
    first, *others = (config.model_fields for config in configs.values())
    return {key: field for key, field in first.items() if all(key in fields for fields in others)}


def names() -> list[str]:
    """Return the names of the packaged recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))

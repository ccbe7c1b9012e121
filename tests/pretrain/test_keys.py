"""Keys of a recipe: which count for which method, and how their values are written."""

from pathlib import Path

import pytest
import yaml

from harl_bench.core.errors import UsageError
from pretrain import recipe as recipes


@pytest.mark.parametrize(
    ("recipe", "override"),
    [
        ("byol-toy", "alpha_base=0.3"),
        ("byol-toy", "mask_pooling=gap"),
        ("byol-toy", "crop=mask_boxes"),
        ("byol-toy", "temperature=0.2"),
        ("byol-toy", "queue_size=64"),
        ("byol-toy", "bn_groups=2"),
        ("simclr-toy", "lars_momentum=scaled"),
        ("byol-toy", "mask_fill=mean"),
        ("byol-toy", "base=simclr"),
        ("byol-toy", "loss=fg"),
        ("byol-toy", "local_crops=2"),
        ("simclr-toy", "tau_base=0.9"),
        ("simsiam-toy", "head_bias=true"),
        ("mocov2-toy", "predictor_hidden=16"),
        ("harl-toy", "crop_tries=3"),
        ("harl-simclr-toy", "tau_base=0.9"),
        ("saliency_mask-toy", "alpha_base=0.1"),
        ("saliency_crop-toy", "mask_rule=any"),
        ("saliency_crop-toy", "crop=mask_boxes"),
        ("saliency_crop-toy", "views=simclr"),
        ("supervised-toy", "tau_base=0.9"),
        ("supervised-toy", "trust_coefficient=0.1"),
        ("saliency_mask-toy", "hard_negative_margin=0.1"),
        ("saliency_mask-byol-200ep", "hard_negative_margin=0.3"),
        ("saliency_mask-byol-200ep", "mask_rule=any"),
    ],
)
def test_a_key_that_changes_nothing_is_refused(recipe: str, override: str) -> None:
    key = override.partition("=")[0]
    with pytest.raises(
        UsageError, match=rf"^{key} changes nothing here; in overrides; .* it is for "
    ):
        recipes.load(recipe, None, [override])


@pytest.mark.parametrize("name", recipes.names())
def test_a_runs_own_configuration_is_a_recipe(tmp_path: Path, name: str) -> None:
    made = recipes.load(name, None, [])
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(made.model_dump(mode="json")))
    assert recipes.load(str(tmp_path / "config.yaml"), None, []) == made


def test_a_recipes_key_that_changes_nothing_is_refused(tmp_path: Path) -> None:
    text = (recipes.RECIPES / "byol-toy.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(text + "queue_size: 99\n")
    with pytest.raises(UsageError, match=r"queue_size changes nothing here; in mine\.yaml"):
        recipes.load(str(tmp_path / "mine.yaml"), None, [])


@pytest.mark.parametrize(
    "overrides",
    [
        ["loss=fg", "alpha_base=0.3"],
        ["loss=fg+bg", "lambda_base=0.3"],
        ["loss=byol", "schedule_tick=epoch"],
        ["base=simclr", "queue_size=8"],
        ["optimizer=sgd", "lars_ratio=official"],
    ],
)
def test_what_overrides_make_of_a_recipe_decides_which_keys_count(overrides: list[str]) -> None:
    # Its own tau_base, say, is no fault of who changes the base.
    recipes.load("harl-100ep", None, overrides[:1])
    with pytest.raises(UsageError, match="changes nothing here"):
        recipes.load("harl-100ep", None, overrides)


def test_every_recipe_loads() -> None:
    loaded = {name: recipes.load(name, None, []) for name in recipes.names()}
    for name, recipe in loaded.items():
        assert name.removeprefix("cifar10-").startswith(recipe.method)
    assert all(recipe.expect for name, recipe in loaded.items() if name.endswith("-toy"))
    assert (loaded["harl-1000ep"].base_lr, loaded["harl-1000ep"].weight_decay) == (0.2, 5e-7)
    for name in loaded:
        header = (recipes.RECIPES / f"{name}.yaml").read_text()
        assert all(f"# {word}" in header for word in ("hardware", "cost", "expected", "command")), (
            name
        )


def test_numbers_without_a_dot_are_numbers() -> None:
    assert recipes.load("harl-toy", None, ["weight_decay=1e-3"]).weight_decay == 1e-3
    with pytest.raises(UsageError, match="key=value"):
        recipes.load("harl-toy", None, ["weight_decay"])


@pytest.mark.parametrize(
    ("recipe", "choice", "keys"),
    [
        ("harl-hapiclr-300ep", "method=saliency_crop", {"views": "byol"}),
        ("harl-official-pt", "optimizer=sgd", {"lars_ratio": "byol"}),
        ("harl-official-pt", "loss=whole", {"lambda_schedule": "cosine", "mask_rule": "area"}),
    ],
)
def test_a_configuration_states_no_key_that_changes_nothing(
    recipe: str, choice: str, keys: dict[str, str]
) -> None:
    """last.pth had the deviation of views that were not used."""
    config = recipes.load(recipe, None, [choice])
    assert {key: getattr(config, key) for key in keys} == keys
    assert recipes.configured({**config.model_dump(), "seed": 0}) == config
    stated = {**recipes.load(recipe, None, []).model_dump(), **dict([choice.split("=")])}
    assert recipes.configured(stated) == config, "runs of earlier versions resume"

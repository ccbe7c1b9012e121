"""Every toy recipe meets its own expectations, as a person would run it."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from harl_bench.cli import main
from harl_bench.core.progress import read_metrics
from harl_bench.toydata import folders
from pretrain import recipe as recipes
from pretrain.methods import METHODS
from pretrain.record import judge

TOYS = sorted(name for name in recipes.names() if name.endswith("-toy"))


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("toy")
    folders.write_photos(root / "photos", 96, side_px=64, random=np.random.default_rng(0))
    folders.write_classes(
        root / "classify", {"train": 16}, side_px=64, random=np.random.default_rng(1)
    )
    return root


def test_there_is_a_toy_recipe_for_every_method() -> None:
    assert {recipes.load(name, None, []).method for name in TOYS} == set(METHODS)


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_states_its_precision(name: str) -> None:
    """bf16 where a batch is worth a GPU's tensor cores; toys and 32 px stay in float32."""
    text = yaml.safe_load((recipes.RECIPES / f"{name}.yaml").read_text())
    large = text.get("image_size", 224) == 224 and text["batch_size"] >= 256
    assert text["precision"] == ("bf16" if large else "fp32")


@pytest.mark.slow
@pytest.mark.parametrize("name", TOYS)
def test_a_toy_recipe_does_what_it_expects(toy: Path, tmp_path: Path, name: str) -> None:
    recipe = recipes.load(name, None, [])
    assert recipe.expect, "a toy recipe says what to expect"
    data = (
        toy / "classify" / "train" if recipe.method == "supervised" else toy / "photos" / "images"
    )
    masks = ["--masks", str(toy / "photos" / "masks")] if recipe.needs_masks else []
    out = tmp_path / name
    # Two have a ResNet-50 and take minutes: their schedule, heads and rates run on a smaller one.
    smaller = ["backbone=resnet18", "image_size=32"] if recipe.image_size > 32 else []
    where = ["--data", str(data), *masks, "--out", str(out), "--device", "cpu", "--workers", "0"]
    assert main(["pretrain", "--method", recipe.method, "--recipe", name, *where, *smaller]) == 0
    last = {k: v for k, v in read_metrics(out / "metrics.jsonl")[-1].items() if v is not None}
    assert judge(recipe.expect, last) == []


def test_expectations_that_are_not_met_are_named() -> None:
    assert judge({"loss": (0.0, 1.0)}, {"loss": 0.5}) == []
    assert judge({"loss": (0.0, 1.0)}, {"loss": 2.0}) == ["loss is 2, expected 0 to 1"]
    assert judge({"loss": (0.0, 1.0)}, {}) == ["loss is nan, expected 0 to 1"]


def test_what_one_recipe_leaves_unused_is_not_the_next_ones() -> None:
    recipe = ["harl-official-pt", None]
    assert recipes.load(*recipe, ["loss=whole"]).unused()["mask_rule"]
    used = recipes.load(*recipe, ["crop=mask_boxes", "min_foreground=0.3"])
    assert not {"mask_rule", "min_foreground"} & used.unused().keys()

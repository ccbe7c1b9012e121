"""Crops, strength of colors and blur as keys: torchvision's transforms, refusals, same runs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from harl_bench.cli import main
from harl_bench.core.errors import UsageError
from pretrain import recipe as recipes
from pretrain import views
from pretrain.config import VIEW_KEYS
from tests.pretrain.test_augment import view
from tests.pretrain.test_colors import image, statistics, tensor
from tests.pretrain.test_pretrain import command

CIFAR = ["views=simclr", "color_strength=0.5", "blur=0", "crop_area=[0.2,1.0]"]


def test_without_the_keys_the_views_are_the_methods_own() -> None:
    for name in recipes.names():
        config = recipes.load(name, None, [])
        if (
            not {"crop_area", "color_strength", "blur"} & config.model_fields_set
            and not config.needs_masks
        ):
            assert tuple(views.views_of(config)) == views.VIEWS[config.views]


@pytest.mark.parametrize("name", ["simclr-toy", "harl-simclr-toy"])
def test_cifars_usual_views_are_those_of_torchvision(name: str) -> None:
    """SimCLR's colors at strength 0.5 are ColorJitter(0.4, 0.4, 0.4, 0.1); mean, spread and
    roughness over 300 views.

    The tolerances are five standard errors.
    """
    n, side = 300, 32
    recipe, other = views.views_of(recipes.load(name, None, CIFAR))
    assert recipe == other
    rng, mask = np.random.default_rng(0), Image.new("L", (60, 60), 255)
    images = [Image.fromarray(image(i, 60)) for i in range(20)]
    pipeline = v2.Compose(
        [
            v2.RandomResizedCrop(
                side, (0.2, 1.0), interpolation=v2.InterpolationMode.BICUBIC, antialias=True
            ),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8),
            v2.RandomGrayscale(0.2),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    torch.manual_seed(0)
    ours, theirs = [], []
    for i in range(n):
        original = images[i % len(images)]
        ours.append(statistics(view(original, mask, recipe, side, rng)[0]))
        theirs.append(statistics(pipeline(tensor(np.array(original)))))
    a, b = np.array(ours), np.array(theirs)
    error = 5 * np.sqrt((a.var(axis=0) + b.var(axis=0)) / n)
    assert (np.abs(a.mean(axis=0) - b.mean(axis=0)) < error).all()
    assert (np.abs(a.std(axis=0) / b.std(axis=0) - 1) < 0.25).all()


@pytest.mark.parametrize(
    ("key", "attribute", "expected"),
    [
        ("crop_area=[0.5,0.5]", "crop_area", [(0.5, 0.5), (0.5, 0.5)]),
        ("blur=0.3", "blur", [0.3, 0.3]),
        ("color_strength=0.25", "saturation", [0.05, 0.05]),
        ("color_strength=0", "hue", [0.0, 0.0]),
    ],
)
def test_a_key_reaches_both_views_and_nothing_else(
    key: str, attribute: str, expected: list[object]
) -> None:
    changed = views.views_of(recipes.load("byol-toy", None, [key]))
    assert [getattr(view, attribute) for view in changed] == expected
    assert [view.solarize for view in changed] == [0.0, 0.2]


@pytest.mark.parametrize(
    ("recipe", "changes", "message"),
    [
        (
            "simclr-toy",
            ["crop_area=[0.5,0.2]"],
            "crop_area is .low, high. with 0 < low <= high <= 1",
        ),
        ("simclr-toy", ["crop_area=[0,1]"], "crop_area is .low, high."),
        ("simclr-toy", ["crop_area=0.2"], "crop_area"),
        ("simclr-toy", ["color_strength=1.5"], "less than or equal to 1"),
        ("simclr-toy", ["blur=2"], "less than or equal to 1"),
        ("simclr-toy", ["colour_strength=0.5"], "did you mean 'color_strength'"),
        (
            "supervised-toy",
            ["color_strength=0.5"],
            "color_strength changes nothing here.*views with colors",
        ),
        ("supervised-toy", ["blur=0.5"], "blur changes nothing here"),
        (
            "harl-official-pt",
            ["crop_area=[0.2,1]"],
            "crop_area changes nothing here.*harl_official_pt",
        ),
        *[
            (
                "saliency_crop-toy",
                [f"{key}={value}"],
                f"{key} changes nothing here.*views of their own",
            )
            for key, value in zip(VIEW_KEYS, ("[0.2,1]", "0.5", "0"), strict=True)
        ],
    ],
)
def test_what_is_wrong_or_fixed_is_refused(recipe: str, changes: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        recipes.load(recipe, None, changes)


def test_a_run_from_before_the_keys_is_still_the_same_run(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(command(folders, out)) == 0
    about = json.loads((out / "run.json").read_text())
    assert {key: about["config"].pop(key) for key in VIEW_KEYS} == {
        "crop_area": None,
        "color_strength": 1.0,
        "blur": None,
    }
    (out / "run.json").write_text(json.dumps(about))
    capsys.readouterr()
    assert main(command(folders, out)) == 0
    assert "already finished" in capsys.readouterr().out


def test_other_views_are_another_run_and_the_same_views_go_on(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, keys = tmp_path / "run", ["crop_area=[0.2,1.0]", "color_strength=0.5", "blur=0"]
    assert main([*command(folders, out), *keys]) == 0
    (out / "done.json").unlink()  # not quite finished
    assert main([*command(folders, out), *keys]) == 0
    assert "going on at step" in capsys.readouterr().out
    assert main([*command(folders, out), *keys[:2], "blur=0.5"]) == 2
    assert "blur was 0.0, now 0.5" in capsys.readouterr().err

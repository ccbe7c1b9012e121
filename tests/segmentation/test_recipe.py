"""Segmentation recipes: every packaged one, its keys, and what is refused where."""

from pathlib import Path

import pytest

from harl_bench.core.errors import UsageError
from harl_bench.core.resources import data_dir
from harl_bench.detection import recipe as detection
from harl_bench.segmentation import recipe

NAMES = [
    "cityscapes-fcn-d8-40k",
    "cityscapes-fcn16s-90k",
    "voc12aug-fcn-d8-20k",
    "voc12aug-fcn16s-30k",
    "voc12aug-fcn16s-30k-byol",
    "voc12aug-fcn16s-toy",
]
FOLDER = data_dir("transfer_configs") / "segment"


def copy(tmp_path: Path, old: str = "", new: str = "") -> Path:
    text = (FOLDER / "voc12aug-fcn16s-30k.yaml").read_text()
    assert old in text
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace(old, new, 1) if old else text)
    return path


def test_every_packaged_recipe_is_listed_and_no_detector_takes_it() -> None:
    assert recipe.names() == NAMES
    assert not set(NAMES) & set(detection.names())
    with pytest.raises(UsageError, match="unknown recipe"):
        detection.load(NAMES[0])


@pytest.mark.parametrize("name", NAMES)
def test_a_packaged_recipe_opens_with_what_a_reader_asks_and_is_read_again(
    name: str, tmp_path: Path
) -> None:
    opening = (FOLDER / f"{name}.yaml").read_text().partition("\ndataset:")[0]
    for word in ("Source:", "Hardware:", "Cost:", "Expected:", f"--recipe {name}"):
        assert word in opening
    title, settings, departures = recipe.load(name)
    assert (title, departures) == (name, [])
    (tmp_path / "again.yaml").write_text(settings.to_yaml())
    assert recipe.load(tmp_path / "again.yaml")[1] == settings


# Numbers of MoCo's appendix A.5 and of mmselfsup's configuration, from the specification.
PROTOCOLS = {
    "voc12aug-fcn16s-30k": (513, 16, 0.003, 1e-4, 30000, "steps", (21000, 27000), "whole"),
    "voc12aug-fcn16s-30k-byol": (513, 16, 0.003, 1e-4, 30000, "steps", (21000, 27000), "center"),
    "cityscapes-fcn16s-90k": (769, 16, 0.01, 1e-4, 90000, "steps", (63000, 81000), "whole"),
    "voc12aug-fcn-d8-20k": (512, 16, 0.01, 5e-4, 20000, "poly", (), "whole"),
    "cityscapes-fcn-d8-40k": (769, 8, 0.01, 5e-4, 40000, "poly", (), "slide"),
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_numbers_of_a_protocol(name: str) -> None:
    _, settings, _ = recipe.load(name)
    solver = settings.solver
    assert PROTOCOLS[name] == (
        settings.input.crop_px,
        solver.batch,
        solver.lr,
        solver.weight_decay,
        solver.iterations,
        solver.schedule,
        solver.steps,
        settings.test.mode,
    )
    assert settings.input.ratio == (0.5, 2.0)
    assert (settings.auxiliary is not None) == ("d8" in name)
    assert settings.network.contract_dilation == ("d8" in name)
    assert settings.loss_mean == ("all" if "d8" in name else "labelled")
    assert settings.input.photometric == ("d8" in name)
    assert settings.align_corners == (name != "voc12aug-fcn-d8-20k")
    sweep = settings.sweep
    assert (sweep.held_out if sweep else None) == (2119 if "byol" in name else None)
    if sweep:
        ratios = [b / a for a, b in zip(sweep.lr, sweep.lr[1:], strict=False)]
        assert (sweep.lr[0], sweep.lr[-1], len(sweep.lr)) == (1e-3, 1e-1, 5)
        assert ratios == pytest.approx([10**0.5] * 4, rel=1e-5)


SLOTCON = ["network.contract_dilation=true", "input.scale_px=[2049, 513]", "input.ratio_step=0"]
SLOTCON += ["loss_mean=all", "input.pixel_mean=[0.485, 0.456, 0.406]"]
SLOTCON += ["input.pixel_std=[0.229, 0.224, 0.225]", "test.scale_px=[2049, 513]"]


def test_slotcon_is_a_matter_of_keys() -> None:
    _, settings, departures = recipe.load("voc12aug-fcn16s-30k", SLOTCON)
    assert settings.network.contract_dilation
    assert settings.input.scale_px == (2049, 513)
    assert len(departures) == len(SLOTCON)
    assert "network.contract_dilation: False -> True" in departures


def test_neutral_keys_are_no_departure_and_another_section_is_one() -> None:
    _, settings, departures = recipe.load("voc12aug-fcn16s-30k", ["workers=0", "save_every=7"])
    assert departures == []
    assert settings.identity() == recipe.load("voc12aug-fcn16s-30k")[1].identity()
    _, settings, departures = recipe.load("voc12aug-fcn-d8-20k", ["auxiliary=null"])
    assert settings.auxiliary is None
    assert departures


def test_a_file_with_a_packaged_name_departs_from_that_recipe(tmp_path: Path) -> None:
    path = copy(tmp_path, "lr: 0.003", "lr: 0.03").rename(tmp_path / "voc12aug-fcn16s-30k.yaml")
    assert recipe.load(path)[2] == ["solver.lr: 0.003 -> 0.03"]
    assert recipe.load(path, ["amp=true"])[2] == ["solver.lr: 0.003 -> 0.03", "amp: False -> True"]
    assert recipe.load(path.rename(tmp_path / "mine.yaml"))[2] == []


REFUSED = {
    "typo": ("crop_px: 513", "crop_pxs: 513", "unknown key 'input.crop_pxs'", True),
    "top": ("align_corners: true", "align_corner: true", "did you mean 'align_corners'", True),
    "duplicate": ("  batch: 16", "  batch: 16\n  batch: 8", "duplicate key", True),
    "kind": ("batch: 16", "batch: many", "solver.batch", True),
    "negative": ("lr: 0.003", "lr: -1", "solver.lr", True),
    "stride": ("strides: [1, 2, 2, 1]", "strides: [1, 2, 2, 3]", "network.strides", True),
    "dataset": ("dataset: voc12aug", "dataset: ade20k", "dataset", True),
    "steps": ("[21000, 27000]", "[27000, 21000]", "solver.steps rise", False),
    "both": ("schedule: steps", "schedule: poly", "schedule: steps", False),
    "slide": ("mode: whole", "mode: slide", "crop_px and stride_px", False),
    "ratio": ("[0.5, 2.0]", "[2.0, 0.5]", "low <= high", False),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_names_its_line(case: str, tmp_path: Path) -> None:
    old, new, words, has_line = REFUSED[case]
    path = copy(tmp_path, old, new)
    with pytest.raises(UsageError) as caught:
        recipe.load(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    if has_line:
        line = int(str(caught.value).split(f"{path}:")[1].split(";")[0])
        assert new.splitlines()[-1] in path.read_text().splitlines()[line - 1]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["solver.lrr=1"], "did you mean 'lr'"),
        (["solver.lr"], "key=value"),
        (["sweep.lr=[1]"], "sweep"),
        (["sweep.lr=[0.1, 0.10001]", "sweep.held_out=1"], "different in their first four digits"),
        (
            ["sweep.lr=[0.001, 0.1]", "sweep.held_out=1", "solver.lr_min=0.002"],
            "solver.lr_min is above a rate of sweep.lr",
        ),
        (["test.stride_px=600"], "test.mode whole"),
    ],
)
def test_an_override_is_as_strict(overrides: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        recipe.load("voc12aug-fcn16s-30k", overrides)


def test_unknown_recipes_are_named_with_what_was_meant() -> None:
    with pytest.raises(UsageError, match="did you mean 'voc12aug-fcn-d8-20k'"):
        recipe.load("voc12aug-fcn-d8-20")
    with pytest.raises(UsageError, match="cannot read YAML file"):
        recipe.load("nowhere.yaml")

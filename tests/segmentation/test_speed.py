"""The time of a dry run: what the measured training was, counted anew, and what follows from it."""

import re
from pathlib import Path

import pytest

from harl_bench.segmentation import memory, recipe, speed

RUN = re.compile(
    r"about (.+) a run on one H200: ([0-9,]+) crops, each (.+) x the .* and (.+) x the"
)


def minutes(text: str) -> float:
    parts = [float(part) for part in text.split(":")]
    return sum(part * 60**i for i, part in enumerate(reversed(parts), -1))


def test_the_measured_crop_is_counted_as_it_says() -> None:
    measured = recipe.load(speed.MEASURED)[1]
    adds = speed.multiply_adds(measured, 21)
    assert adds == pytest.approx(speed.CROP_MULTIPLY_ADDS, rel=1e-3)
    assert memory.per_image_gib(measured, 21) == pytest.approx(speed.CROP_GIB, rel=5e-3)
    page = (Path(__file__).parents[2] / "docs" / "gpu.md").read_text(encoding="utf-8")
    assert f"| FCN of stride 8, 512 px, float32 | {speed.CROPS_PER_S} |" in page


@pytest.mark.parametrize(
    ("name", "classes", "crops", "spans"),
    [
        # crops / 105.5 a second
        ("voc12aug-fcn-d8-20k", 21, 320_000, [50.55]),
        ("voc12aug-fcn16s-30k", 21, 480_000, [75.83 * 0.19, 75.83 * 0.48]),
        ("voc12aug-fcn16s-30k-byol", 21, 6 * 480_000, [6 * 75.83 * 0.19, 6 * 75.83 * 0.48]),
        # the measured network on 769 px: 769^2 / 512^2 = 2.26
        ("cityscapes-fcn-d8-40k", 19, 320_000, [50.55 * 2.26]),
    ],
)
def test_times(name: str, classes: int, crops: int, spans: list[float]) -> None:
    match = RUN.match(speed.estimate(recipe.load(name)[1], classes))
    assert match
    assert int(match[2].replace(",", "")) == crops
    found = [minutes(span) for span in match[1].split(" to ")]
    assert found == pytest.approx(spans, rel=0.03)


def test_small_crops_have_no_time() -> None:
    text = speed.estimate(recipe.load("voc12aug-fcn16s-toy")[1], 21)
    assert text == "not known for crops of 81 px; the log gives an ETA"

"""What is wrong with a recipe is one line; known traps are warned of."""

from pathlib import Path

import pytest

from harl_bench.core.errors import UsageError
from harl_bench.detection import recipe

BAD_OVERRIDES = {
    "SOLVER.MAX_ITER": "an override has the form KEY.SUB=value; seen: SOLVER.MAX_ITER",
    "SOLVER.BASE_LRR=1": (
        "unknown recipe key SOLVER.BASE_LRR; in override SOLVER.BASE_LRR=1; next: did you mean "
        "SOLVER"
    ),
    "SOLVER=1": "SOLVER is a group of keys",
    "SOLVER.BASE_LR=fast": "SOLVER.BASE_LR must be like 0.001",
    "SOLVER.BASE_LR=-1": "SOLVER.BASE_LR must be 0 or more",
    "SOLVER.BASE_LR=1e999": "SOLVER.BASE_LR must be finite",
    "SOLVER.MAX_ITER=0": "SOLVER.MAX_ITER must be above 0",
    "SOLVER.MAX_ITER=1.5": "SOLVER.MAX_ITER must be like 40000",
    "SOLVER.MAX_ITER=true": "SOLVER.MAX_ITER must be like 40000",
    "SOLVER.STEPS=(20, 10)": "SOLVER.STEPS: must increase",
    "INPUT.MIN_SIZE_TRAIN=(480.5,)": "INPUT.MIN_SIZE_TRAIN must be like [800]",
    "TEST.EXPECTED_RESULTS=[['bbox', 'AP', 38.5, 0.2]]": "TEST.EXPECTED_RESULTS: only [] is implemented",
    "MODEL.PIXEL_STD=(1, 'a', 1)": "MODEL.PIXEL_STD must be like [1.0, 1.0, 1.0]",
    "SOLVER.STEPS=20": "SOLVER.STEPS must be like",
    "DATASETS.TRAIN=voc_2007_trainval": "DATASETS.TRAIN must be a list of names",
    "MODEL.RESNETS.NORM=GN": "'GN' is not implemented; in override MODEL.RESNETS.NORM=GN; next: choose one of 'BN'",
    "MODEL.KEYPOINT_ON=true": "scores boxes and masks, not keypoints; in override MODEL.KEYPOINT_ON=true",
    "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS=5": "set MODEL.KEYPOINT_ON to False there and train on instances_*.json",
    "MODEL.RESNETS.DEPTH=101": (
        "measures the plain ResNet-50; in override MODEL.RESNETS.DEPTH=101; seen: 101; "
        "next: set it to 50 there and give the checkpoint of a ResNet-50"
    ),
    "MODEL.RESNETS.WIDTH_PER_GROUP=128": "next: set it to 64 there and give the checkpoint of a ResNet-50",
    "SOLVER.BIAS_LR_FACTOR=2.0": (
        "SOLVER.BIAS_LR_FACTOR: only 1.0 is implemented; in override SOLVER.BIAS_LR_FACTOR=2.0; "
        "seen: 2.0; next: set it to 1.0 there; or convert the checkpoint "
        "(harl-bench convert CKPT) and train with"
    ),
    "MODEL.LOAD_PROPOSALS=true": "only False is implemented",
    "INPUT.CROP.ENABLED=true": "only False is implemented",
    "TEST.AUG.ENABLED=true": "only False is implemented",
    "MODEL.RPN.BBOX_REG_LOSS_TYPE=giou": "only 'smooth_l1' is implemented",
    "MODEL.RESNETS.DEFORM_ON_PER_STAGE=[True, True, True, True]": "is implemented",
    "MODEL.ROI_HEADS.NAME=CascadeROIHeads": "'CascadeROIHeads' is not implemented",
    "MODEL.ROI_HEADS.NAME=StandardROIHeads": "build_resnet_backbone goes with Res5ROIHeads or Res5ROIHeadsExtraNorm",
    "MODEL.PIXEL_STD=[1.0]": "MODEL.PIXEL_STD: three channels",
    "MODEL.PIXEL_STD=[1.0, 0, 1.0]": "MODEL.PIXEL_STD must be above 0",
    "INPUT.MIN_SIZE_TRAIN=()": "INPUT.MIN_SIZE_TRAIN: at least one size",
    "VERSION=1": "VERSION: 1 is not implemented",
}


@pytest.mark.parametrize(("override", "message"), BAD_OVERRIDES.items())
def test_a_wrong_override_is_one_clear_line(override: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        recipe.load("voc-c4-24k", [override])
    assert message in str(caught.value)
    assert "\n" not in caught.value.line()


BAD_FILES = {
    "SOLVER:\n  MAX_ITER: 1\n  MAX_ITER: 2\n": r"duplicate key.*MAX_ITER.*x.yaml:3",
    "SOLVER:\n  MAXITER: 1\n": r"unknown recipe key SOLVER.MAXITER; in .*x.yaml:2; next: did you mean SOLVER.MAX_ITER",
    "SOLVER: {}\nNONE: {}\n": r"SOLVER is a group of keys.*x.yaml:1",
    "SOLVER.MAX_ITER: 1\n": r"a recipe key is one word; in .*x.yaml:1",
    "OUTPUT_DIR: !!python/object/apply:os.getcwd []\n": r"not valid YAML; in .*x.yaml:1",
    "SOLVER: &a\n  MAX_ITER: 3\nTEST: *a\n": r"aliases are not allowed; in .*x.yaml:3",
    "- 1\n- 2\n": r"mapping",
    "SOLVER: [\n": r"not valid YAML; in .*x.yaml:2",
    "a: 1\n---\nb: 2\n": r"not valid YAML",
    "_BASE_: nowhere.yaml\n": r"_BASE_ file not found; in .*x.yaml:1; seen: .*nowhere.yaml",
    "_BASE_: https://example.com/a.yaml\n": r"_BASE_ must be the path of a YAML file",
    "_BASE_: 3\n": r"_BASE_ must be the path of a YAML file",
    "_BASE_: x.yaml\n": r"each other's _BASE_; in x.yaml -> x.yaml",
    "SEED: " + "[" * 3000 + "]" * 3000: r"nested more than 32 deep|SEED must be",
    "SEED: 2001-01-01\n": r"SEED must be like -1; in .*x.yaml:1",
}


@pytest.mark.parametrize(("text", "message"), BAD_FILES.items())
def test_a_wrong_file_is_one_clear_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        recipe.load(path)
    assert "\n" not in caught.value.line()


def test_bytes_that_are_no_text_and_missing_files_are_clear_errors(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UsageError, match=r"x\.yaml"):
        recipe.load(path)
    with pytest.raises(UsageError, match=r"gone\.yaml"):
        recipe.load(tmp_path / "gone.yaml")
    with pytest.raises(UsageError, match="unknown recipe 'voc-c4-24'; did you mean 'voc-c4-24k'"):
        recipe.load("voc-c4-24")
    with pytest.raises(UsageError, match="unknown recipe 'base-c4'"):
        recipe.load("base-c4")


def test_two_files_that_are_each_others_base(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("_BASE_: b.yaml\n")
    (tmp_path / "b.yaml").write_text("_BASE_: a.yaml\n")
    with pytest.raises(UsageError, match=r"a\.yaml -> b\.yaml -> a\.yaml"):
        recipe.load(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("name", "overrides", "warning"),
    [
        (
            "voc-c4-24k",
            ["MODEL.BACKBONE.FREEZE_AT=2"],
            "FREEZE_AT 2 turns naiveSyncBN of the first 2 stage",
        ),
        ("coco-fpn-stock-1x", ["MODEL.BACKBONE.FREEZE_AT=0"], "FrozenBN with FREEZE_AT 0"),
        ("coco-fpn-2fc-1x", ["MODEL.FPN.NORM="], "without MODEL.FPN.NORM tends to diverge"),
        ("voc-c4-24k", ["MODEL.WEIGHTS=See Instructions"], "'See Instructions' is not read"),
        ("voc-c4-24k", ["SEED=3"], "SEED 3 is not read: --seeds has the seeds"),
        ("voc-c4-24k", ["MODEL.DEVICE=cpu"], "MODEL.DEVICE 'cpu' is not read: --device"),
        ("voc-c4-24k", ["OUTPUT_DIR=here"], "OUTPUT_DIR 'here' is not read: --out"),
    ],
)
def test_known_traps_are_warned_of(name: str, overrides: list[str], warning: str) -> None:
    assert any(warning in text for text in recipe.warnings(recipe.load(name, overrides)))

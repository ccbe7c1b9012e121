"""Recipes: every packaged file, and the chain of bases."""

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from harl_bench.core.resources import data_dir
from harl_bench.detection import recipe
from harl_bench.report.tables import PEERS

NAMES = recipe.names()


def test_what_the_commands_and_tables_name_is_packaged() -> None:
    assert {"voc-c4-24k", "coco-fpn-2fc-1x", *PEERS} <= set(NAMES)
    assert not list(data_dir("transfer_configs").rglob("*.py")), (
        "data only: hatchling renames this folder"
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_packaged_recipe_loads_without_a_warning_and_states_its_source(name: str) -> None:
    cfg = recipe.load(name)
    assert recipe.warnings(cfg) == []
    assert cfg.departures == ()
    assert cfg.name == name
    header = cfg.files[-1].read_text()
    for word in (
        "# Source:",
        "# Hardware:",
        "# Expected:",
        f"# Command:  harl-bench {name.partition('-')[0]} CKPT",
    ):
        assert word in header, word
    assert header.rstrip().count(f"--recipe {name}") == 1


@pytest.mark.parametrize("name", NAMES)
def test_the_resolved_recipe_reads_back_unchanged(name: str, tmp_path: Path) -> None:
    cfg = recipe.load(name)
    path = tmp_path / "config.yaml"
    path.write_text(cfg.to_yaml())
    assert recipe.load(path) == cfg
    assert pickle.loads(pickle.dumps(cfg)) == cfg


def test_a_file_with_a_packaged_name_departs_from_that_recipe(tmp_path: Path) -> None:
    path = tmp_path / "voc-c4-24k.yaml"
    base = data_dir("transfer_configs") / "voc/voc-c4-24k.yaml"
    path.write_text(f"_BASE_: {base}\nSOLVER:\n  BASE_LR: 0.1\n  CHECKPOINT_PERIOD: 7\n")
    mine = recipe.load(path, ["SOLVER.MAX_ITER=12"])
    expected = ["SOLVER.MAX_ITER: 24000 -> 12", "SOLVER.BASE_LR: 0.02 -> 0.1"]
    assert sorted(mine.departures) == sorted(expected)
    assert recipe.load(base).departures == ()
    path.rename(tmp_path / "mine.yaml")
    assert recipe.load(tmp_path / "mine.yaml").departures == ()


@pytest.mark.detectron2
@pytest.mark.parametrize("name", NAMES)
def test_detectron2_reads_the_same_values_from_the_file_and_from_the_resolved_recipe(
    name: str, tmp_path: Path
) -> None:
    config = pytest.importorskip("detectron2.config")
    cfg = recipe.load(name)
    (tmp_path / "config.yaml").write_text(cfg.to_yaml())
    for path in (cfg.files[-1], tmp_path / "config.yaml"):
        theirs = config.get_cfg()
        theirs.merge_from_file(str(path))
        assert plain(theirs) == cfg.to_dict()


def plain(node: Any) -> Any:
    """yacs nodes as dicts, tuples as lists."""
    if isinstance(node, dict):
        return {key: plain(value) for key, value in node.items()}
    return [plain(item) for item in node] if isinstance(node, (list, tuple)) else node


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "voc-c4-24k",
            {
                "SOLVER.STEPS": (18000, 22000),
                "SOLVER.MAX_ITER": 24000,
                "SOLVER.WARMUP_ITERS": 100,
                "SOLVER.WARMUP_FACTOR": 0.001,
                "MODEL.RESNETS.NORM": "naiveSyncBN",
                "SOLVER.BASE_LR": 0.02,
                "MODEL.ROI_HEADS.NAME": "Res5ROIHeadsExtraNorm",
                "MODEL.ROI_HEADS.NUM_CLASSES": 20,
                "INPUT.MIN_SIZE_TRAIN": tuple(range(480, 801, 32)),
                "TEST.PRECISE_BN.ENABLED": True,
                "DATASETS.TRAIN": ("voc_2007_trainval", "voc_2012_trainval"),
                "MODEL.BACKBONE.FREEZE_AT": 0,
            },
        ),
        (
            "voc-c4-24k-lars",
            {"SOLVER.BASE_LR": 0.1, "SOLVER.WARMUP_ITERS": 1000, "SOLVER.WARMUP_FACTOR": 1 / 3},
        ),
        (
            "coco-c4-2x",
            {"SOLVER.STEPS": (120000, 160000), "SOLVER.MAX_ITER": 180000, "MODEL.MASK_ON": True},
        ),
        (
            "coco-c4-12k",
            {
                "SOLVER.STEPS": (9000, 11000),
                "SOLVER.MAX_ITER": 12000,
                "INPUT.MAX_SIZE_TRAIN": 1200,
                "MODEL.RESNETS.NORM": "SyncBN",
                "MODEL.MASK_ON": True,
                "SOLVER.WARMUP_ITERS": 1000,
            },
        ),
        (
            "coco-fpn-2fc-12k",
            {
                "SOLVER.STEPS": (9000, 11000),
                "SOLVER.MAX_ITER": 12000,
                "INPUT.MAX_SIZE_TRAIN": 1333,
                "MODEL.ROI_BOX_HEAD.NUM_FC": 2,
                "MODEL.ROI_BOX_HEAD.NORM": "",
            },
        ),
        (
            "coco-fpn-2fc-1x",
            {
                "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
                "MODEL.ROI_BOX_HEAD.NUM_FC": 2,
                "MODEL.ROI_BOX_HEAD.NUM_CONV": 0,
                "MODEL.FPN.NORM": "SyncBN",
                "MODEL.ROI_BOX_HEAD.NORM": "",
                "MODEL.RPN.POST_NMS_TOPK_TRAIN": 1000,
            },
        ),
        (
            "coco-fpn-4conv1fc-2x",
            {
                "MODEL.ROI_BOX_HEAD.NUM_CONV": 4,
                "MODEL.ROI_BOX_HEAD.NUM_FC": 1,
                "MODEL.ROI_MASK_HEAD.NORM": "SyncBN",
                "SOLVER.MAX_ITER": 180000,
            },
        ),
        (
            "coco-fpn-stock-1x",
            {
                "MODEL.RESNETS.NORM": "FrozenBN",
                "MODEL.BACKBONE.FREEZE_AT": 2,
                "TEST.PRECISE_BN.ENABLED": False,
            },
        ),
    ],
)
def test_the_protocols_say_what_their_sources_say(name: str, expected: dict[str, Any]) -> None:
    cfg = recipe.load(name)
    seen = {key: value_at(cfg, key) for key in expected}
    assert seen == expected


def value_at(cfg: recipe.Recipe, key: str) -> Any:
    node: Any = cfg
    for part in key.split("."):
        node = node[part]
    return node


def test_a_node_is_immutable_and_names_what_it_lacks() -> None:
    cfg = recipe.load("voc-c4-24k")
    with pytest.raises(AttributeError, match="a recipe is immutable"):
        cfg.SOLVER.BASE_LR = 1.0
    with pytest.raises(AttributeError, match="unknown recipe key 'BASE_L'; did you mean 'BASE_LR'"):
        _ = cfg.SOLVER.BASE_L
    assert "SOLVER" in cfg
    assert cfg["SOLVER"]["BASE_LR"] == 0.02


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("SOLVER.BASE_LR=1e-3", "SOLVER.BASE_LR", 0.001),
        ("SOLVER.BASE_LR=1", "SOLVER.BASE_LR", 1.0),
        ("SOLVER.STEPS=(10, 20)", "SOLVER.STEPS", (10, 20)),
        ("SOLVER.STEPS=[]", "SOLVER.STEPS", ()),
        ("MODEL.MASK_ON=true", "MODEL.MASK_ON", True),
        ("MODEL.MASK_ON=True", "MODEL.MASK_ON", True),
        ("SOLVER.WEIGHT_DECAY_BIAS=0", "SOLVER.WEIGHT_DECAY_BIAS", 0.0),
        ("DATASETS.TEST=('voc_2012_val',)", "DATASETS.TEST", ("voc_2012_val",)),
        ("OUTPUT_DIR=a=b", "OUTPUT_DIR", "a=b"),
        ("OUTPUT_DIR=123", "OUTPUT_DIR", "123"),
        (
            "MODEL.ANCHOR_GENERATOR.SIZES=[[16.5, 32]]",
            "MODEL.ANCHOR_GENERATOR.SIZES",
            ((16.5, 32),),
        ),
        ("SEED=-1", "SEED", -1),
        ("MODEL.PIXEL_STD=[1, 1, 1]", "MODEL.PIXEL_STD", (1.0, 1.0, 1.0)),
    ],
)
def test_overrides_are_read_in_the_type_of_the_key(override: str, key: str, value: Any) -> None:
    seen = value_at(recipe.load("voc-c4-24k", [override]), key)
    assert repr(seen) == repr(value)


def test_departures_list_what_changes_the_protocol() -> None:
    cfg = recipe.load(
        "voc-c4-24k", ["SOLVER.MAX_ITER=100", "SEED=3", "SOLVER.BASE_LR=0.02", "OUTPUT_DIR=here"]
    )
    assert cfg.departures == ("SOLVER.MAX_ITER: 24000 -> 100",)


def test_bases_are_merged_in_order_and_the_file_itself_is_last(tmp_path: Path) -> None:
    voc = os.path.relpath(data_dir("transfer_configs") / "voc/voc-c4-24k.yaml", tmp_path)
    (tmp_path / "a.yaml").write_text("SOLVER: {MAX_ITER: 1, BASE_LR: 1e-3}\n")
    (tmp_path / "b.yaml").write_text("SOLVER: {MAX_ITER: 2, GAMMA: '0.5'}\n")
    (tmp_path / "x.yaml").write_text(f"_BASE_: [{voc}, a.yaml, b.yaml]\nSOLVER:\n  GAMMA: 0.25\n")
    cfg = recipe.load(tmp_path / "x.yaml")
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR, cfg.SOLVER.GAMMA) == (2, 0.001, 0.25)
    assert [path.name for path in cfg.files] == [
        "base-c4.yaml",
        "voc-c4-24k.yaml",
        "a.yaml",
        "b.yaml",
        "x.yaml",
    ]


def test_defaults_name_each_key_once() -> None:
    content = yaml.safe_load(Path(recipe.__file__).with_name("defaults.yaml").read_text())

    def keys(tree: Any, prefix: str = "") -> set[str]:
        if not isinstance(tree, dict):
            return {prefix}
        return set().union(*(keys(value, f"{prefix}.{key}") for key, value in tree.items()))

    assert not keys(content["HONOURED"]) & keys(content["FIXED"])


def test_reading_recipes_does_not_load_torch() -> None:
    code = (
        "import sys, harl_bench.detection.recipe as r; r.load(r.names()[0]); sys.exit('torch' "
        "in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_evaluations_on_the_way_decide_where_precise_bn_draws_for_them() -> None:
    plain, precise = ["TEST.EVAL_PERIOD=2", "TEST.PRECISE_BN.ENABLED=False"], ["TEST.EVAL_PERIOD=2"]
    without = recipe.deciding(recipe.load("voc-c4-24k", plain[1:]))
    assert recipe.deciding(recipe.load("voc-c4-24k", plain)) == without
    before, after = (recipe.deciding(recipe.load("voc-c4-24k", more)) for more in ([], precise))
    assert after == before | {"TEST.EVAL_PERIOD": 2}
    assert "TEST.EVAL_PERIOD" not in before

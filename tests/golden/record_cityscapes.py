"""Record what Detectron2 and cityscapesscripts make of the tiny Cityscapes tree.

    python tests/golden/record_cityscapes.py DETECTRON2/detectron2/data/datasets/cityscapes.py

Needs cityscapesscripts (pip install 'harl-bench[cityscapes]'), shapely, and Detectron2's loader as a file, of
the commit in harl_bench/detection/engines.py. The loader is run as it is; what it imports of
Detectron2 (a logger, a file opener, the name of a box's format) has stand-ins, so that Detectron2
need not be compiled. It writes tests/golden/detection_data/cityscapes.json, which
tests/detection/test_cityscapes.py compares with.
"""

import json
import runpy
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))
from tests.detection import scenes, tiny  # noqa: E402


def loader(path: str):
    """Return load_cityscapes_instances' part for one image, with its imports replaced."""
    from cityscapesscripts.helpers import labels

    class Files:
        open = staticmethod(open)

    class BoxMode:
        XYXY_ABS = "XYXY_ABS"

    # the name under which the commit imports cityscapesscripts, which only its authors have
    package = "deeplearning.projects.cityscapesApi.cityscapesscripts.helpers"
    standins = {
        "detectron2.structures": {"BoxMode": BoxMode},
        "detectron2.utils.comm": {"get_world_size": lambda: 1},
        "detectron2.utils.file_io": {"PathManager": Files},
        "detectron2.utils.logger": {"setup_logger": None},
        f"{package}.labels": vars(labels),
    }
    for name, content in standins.items():
        parts = name.split(".")
        for k in range(1, len(parts) + 1):
            sys.modules.setdefault(".".join(parts[:k]), ModuleType(parts[k - 1]))
        vars(sys.modules[name]).update(content)
    return runpy.run_path(path)["_cityscapes_files_to_dict"]


def objects(parse, root: Path) -> list[dict]:
    """Return what the loader returns for the training images."""
    records = []
    for image in sorted((root / "leftImg8bit/train").rglob("*.png")):
        name = image.name.replace("leftImg8bit", "gtFine_instanceIds")
        files = (str(image), str(root / "gtFine/train" / image.parent.name / name), None, None)
        record = parse(files, from_json=False, to_polygons=False)
        records.append(
            {
                "image_id": record["image_id"],
                "size": [record["width"], record["height"]],
                "boxes": [[int(v) for v in a["bbox"]] for a in record["annotations"]],
                "labels": [int(a["category_id"]) for a in record["annotations"]],
                "crowd": [bool(a["iscrowd"]) for a in record["annotations"]],
                "masks": [a["segmentation"]["counts"].decode() for a in record["annotations"]],
            }
        )
    return records


def boxes_of_outlines(parse, folder: Path) -> list[list[float]]:
    """Return the boxes of the loader's other mode, with which Detectron2 registers the set."""
    objects = [{"label": "car", "polygon": points} for points in scenes.outlines()]
    width, height = scenes.CITY_PX
    path = folder / "polygons.json"
    path.write_text(json.dumps({"imgWidth": width, "imgHeight": height, "objects": objects}))
    files = ("image.png", None, None, str(path))
    record = parse(files, from_json=True, to_polygons=True)
    return [[float(v) for v in a["bbox"]] for a in reversed(record["annotations"])]


def scores(root: Path, seed: int, folder: Path) -> dict:
    """Return cityscapesscripts' score of files written as its instructions say."""
    module = import_module("cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling")

    if not hasattr(np, "in1d"):
        np.in1d = np.isin  # NumPy 2.4 dropped the name
    folder.mkdir()
    truths = sorted(map(str, (root / "gtFine/val").rglob("*_instanceIds.png")))
    predictions = []
    for truth in truths:
        stem = Path(truth).name.removesuffix("_gtFine_instanceIds.png")
        lines = []
        for k, row in enumerate(zip(*scenes.cityscapes(seed, load(truth)), strict=True)):
            label, score, mask = row
            Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"{stem}_{k}.png")
            lines.append(f"{stem}_{k}.png {label} {score}\n")
        predictions.append(str(folder / f"{stem}_pred.txt"))
        Path(predictions[-1]).write_text("".join(lines))
    args = module.args
    args.predictionPath, args.quiet, args.JSONOutput = str(folder), True, False
    args.gtInstancesFile = str(folder / "gtInstances.json")
    module.setInstanceLabels(args)
    instances = module.getGtInstances(truths, args)
    averages = module.computeAverages(
        module.evaluateMatches(module.matchGtWithPreds(predictions, truths, instances, args), args),
        args,
    )
    classes = {name: [v["ap"], v["ap50%"]] for name, v in averages["classes"].items()}
    rows = {"all": [averages["allAp"], averages["allAp50%"]], **classes}
    return {k: [None if np.isnan(x) else 100 * float(x) for x in v] for k, v in rows.items()}


def load(path: str):
    return np.asarray(Image.open(path)).astype(np.int64)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        root = tiny.cityscapes(folder / "data")
        parse = loader(sys.argv[1])
        content = {
            "objects": objects(parse, root),
            "outlines": boxes_of_outlines(parse, folder),
            "scores": [scores(root, seed, folder / str(seed)) for seed in scenes.SEEDS],
        }
    path = HERE / "detection_data/cityscapes.json"
    path.write_text(json.dumps(content, indent=0).replace("\n", "") + "\n")

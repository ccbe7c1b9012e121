"""Record what the real Detectron2 makes of the tiny data sets: batches, mapped images, VOC and COCO
scores.

Needs Detectron2 (docs/detectron2.md) at the commit of harl_bench/detection/engines.py. Run from the
repository's root:

    python tests/golden/record_detection_data.py

It writes tests/golden/detection_data/golden.json, which tests/detection/test_golden_data.py
compares with.
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))
from tests.detection import scenes, tiny  # noqa: E402


def voc_evaluator(root: Path) -> dict[str, list[dict[str, float]]]:
    """AP of Detectron2's evaluator on scenes full of ties."""
    from detectron2.data import MetadataCatalog
    from detectron2.data.datasets.pascal_voc import register_pascal_voc
    from detectron2.evaluation import PascalVOCDetectionEvaluator
    from detectron2.structures import Boxes, Instances

    found = []
    for seed in scenes.SEEDS:
        folder = root / f"scene{seed}"
        samples, detections = scenes.voc(seed)
        scenes.write_voc(folder, samples)
        name = f"scene_{seed}"
        register_pascal_voc(name, str(folder / "VOC2007"), "test", 2007, list(scenes.NAMES))
        evaluator = PascalVOCDetectionEvaluator(name)
        evaluator.reset()
        for image_id, boxes, scores, classes in detections:
            instances = Instances((100, 100))
            instances.pred_boxes, instances.scores = (
                Boxes(torch.from_numpy(boxes)),
                torch.from_numpy(scores),
            )
            instances.pred_classes = torch.from_numpy(classes)
            evaluator.process([{"image_id": image_id}], [{"instances": instances}])
        found.append({key: float(value) for key, value in evaluator.evaluate()["bbox"].items()})
        MetadataCatalog.remove(name)
    return {"scores": found}


def coco_evaluator(root: Path) -> list[dict[str, dict[str, float]]]:
    """Box and mask AP of Detectron2's evaluator on jittered ground truth."""
    from detectron2.data.datasets import register_coco_instances
    from detectron2.evaluation import COCOEvaluator
    from detectron2.structures import Boxes, Instances

    folder = tiny.coco(root / "coco_scored", test=8)
    path = folder / "annotations/instances_val2017.json"
    register_coco_instances("coco_tiny", {}, str(path), str(folder / "val2017"))
    from detectron2.data import DatasetCatalog

    DatasetCatalog.get("coco_tiny")
    found = []
    for seed in scenes.SEEDS:
        evaluator = COCOEvaluator(
            "coco_tiny", tasks=("bbox", "segm"), distributed=False, use_fast_impl=False
        )
        evaluator.reset()
        for image_id, size, boxes, scores, classes, masks in scenes.coco(
            seed, json.loads(path.read_text())
        ):
            instances = Instances(size)
            instances.pred_boxes, instances.scores = (
                Boxes(torch.from_numpy(boxes)),
                torch.from_numpy(scores),
            )
            instances.pred_classes, instances.pred_masks = (
                torch.from_numpy(classes),
                torch.from_numpy(masks),
            )
            evaluator.process([{"image_id": image_id}], [{"instances": instances}])
        results = evaluator.evaluate()
        found.append(
            {
                task: {k: v if v == v else None for k, v in scores.items()}
                for task, scores in results.items()
            }
        )
    return found


def configuration(dataset: str, mask_format: str | None):
    from detectron2.config import get_cfg

    cfg = get_cfg()
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN, cfg.INPUT.FORMAT = (
        scenes.SIZES_PX,
        scenes.MAX_PX,
        "RGB",
    )
    cfg.MODEL.MASK_ON = mask_format is not None
    cfg.INPUT.MASK_FORMAT = mask_format or "polygon"
    cfg.DATASETS.TRAIN = (dataset,)
    cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_WORKERS, cfg.SEED = 2, 0, scenes.ORDER_SEED
    return cfg


def mapped(cfg, dicts) -> list[dict]:
    """DatasetMapper's output for each image, its random numbers seeded as our loader seeds them."""
    from detectron2.data import DatasetMapper

    mapper = DatasetMapper(cfg, is_train=True)
    rows = []
    for position, record in enumerate(dicts):
        np.random.seed([scenes.ORDER_SEED, position])
        out = mapper(record)
        image, instances = out["image"], out["instances"]
        row = {
            "image_id": out["image_id"],
            "shape": list(image.shape),
            "sha256": hashlib.sha256(image.numpy().tobytes()).hexdigest(),
            "boxes": instances.gt_boxes.tensor.tolist(),
            "classes": instances.gt_classes.tolist(),
        }
        if instances.has("gt_masks"):
            masks = instances.gt_masks
            if hasattr(masks, "polygons"):
                row["polygons"] = [[p.tolist() for p in parts] for parts in masks.polygons]
            else:
                row["masks"] = [
                    hashlib.sha256(m.numpy().tobytes()).hexdigest() for m in masks.tensor
                ]
        rows.append(row)
    return rows


def mappers(root: Path) -> dict[str, list]:
    """Mapped images of VOC, COCO with polygons and COCO with run-length codes, and the order of
    batches.
    """
    from detectron2.data import build_detection_train_loader, get_detection_dataset_dicts
    from detectron2.data.datasets import register_coco_instances
    from detectron2.data.datasets.pascal_voc import register_pascal_voc

    voc = tiny.voc(root / "voc", years=("VOC2007",))
    register_pascal_voc("voc_tiny", str(voc / "VOC2007"), "trainval", 2007)
    found = {
        "voc": mapped(configuration("voc_tiny", None), get_detection_dataset_dicts(["voc_tiny"]))
    }
    for kind, mask_format in (("polygons", "polygon"), ("codes", "bitmask"), ("mixed", "bitmask")):
        folder = tiny.coco(root / kind)
        path = folder / "annotations/instances_train2017.json"
        content = scenes.only(kind, json.loads(path.read_text()))
        path.write_text(json.dumps(content))
        register_coco_instances(kind, {}, str(path), str(folder / "train2017"))
        dicts = get_detection_dataset_dicts([kind])
        found[kind] = mapped(configuration(kind, mask_format), dicts)
    loader = iter(build_detection_train_loader(configuration("voc_tiny", None)))
    found["order"] = [[item["image_id"] for item in next(loader)] for _ in range(20)]
    return found


def output_sizes() -> list[list[int]]:
    from detectron2.data.transforms import ResizeShortestEdge

    return [[*case, *ResizeShortestEdge.get_output_shape(*case)] for case in scenes.size_cases()]


def main() -> None:
    import detectron2
    from PIL import __version__ as pillow

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        content = {
            "made_with": SimpleNamespace(
                detectron2="02b5c4e295e990042a714712c21dc79b731e8833",
                version=detectron2.__version__,
                torch=torch.__version__,
                numpy=np.__version__,
                pillow=pillow,
            ).__dict__,
            "output_sizes": output_sizes(),
            "mapper": mappers(root),
            "voc": voc_evaluator(root),
            "coco": coco_evaluator(root),
        }
    out = HERE / "detection_data" / "golden.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(content, separators=(",", ":")).replace("},", "},\n") + "\n")
    print(out, out.stat().st_size)


if __name__ == "__main__":
    main()

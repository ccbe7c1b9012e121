"""Detectors at 800 px: training steps and inference, ours and torchvision's own."""

import numpy as np
import torch
from torchvision.models.detection import maskrcnn_resnet50_fpn

from benchmarks.gpu_check.measure import halving, speed, timed
from benchmarks.gpu_check.setting import Setting
from harl_bench.detection import recipe as recipes
from harl_bench.detection.torchvision_engine.model import build_model
from harl_bench.detection.torchvision_engine.solver import build_optimizer, set_lr
from harl_bench.detection.torchvision_engine.structures import Instances, Mask
from harl_bench.detection.torchvision_engine.train import _step

BATCH, SIDES, OBJECTS = 16, (800, 1088), 7
TINY_BATCH, TINY_SIDES = 1, (64, 96)
TINY = [
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE=8",
    "MODEL.RPN.POST_NMS_TOPK_TRAIN=30",
    "MODEL.RPN.POST_NMS_TOPK_TEST=8",
]


def scene(setting: Setting, seed: int, classes: int) -> tuple[torch.Tensor, Instances]:
    """Return noise [3, H, W] uint8 and seven objects with diamonds as outlines."""
    rng, (h, w) = np.random.default_rng(seed), TINY_SIDES if setting.tiny else SIDES
    centers = rng.uniform(0.25, 0.75, (OBJECTS, 2)) * [w, h]
    halves = rng.uniform(0.05, 0.22, (OBJECTS, 2)) * [w, h]
    boxes = np.concatenate([centers - halves, centers + halves], axis=1).astype(np.float32)
    x, y = centers.T
    x0, y0, x1, y1 = boxes.T.astype(np.float64)
    diamonds = np.stack([x, y0, x1, y, x, y1, x0, y], axis=1)
    image = torch.from_numpy(rng.integers(0, 256, (3, h, w), dtype=np.uint8))
    kinds = torch.from_numpy(rng.integers(0, classes, OBJECTS))
    masks: list[Mask] = [[outline] for outline in diamonds]
    return image, Instances((h, w), torch.from_numpy(boxes), kinds, masks)


def ours(setting: Setting, *, recipe: str, amp: bool = False) -> dict:
    """Time a training step and the inference of one image; `amp` as SOLVER.AMP does it."""
    cfg = recipes.load(recipe, TINY if setting.tiny else [])
    classes = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    torch.backends.cudnn.benchmark = False  # as `voc` and `coco`, whose images have many sizes
    torch.manual_seed(0)
    half = amp and not setting.tiny
    inference = [0.0]

    def seconds(batch: int) -> float:
        model = build_model(cfg).to(setting.device).train()
        optimizer = build_optimizer(cfg, model)
        set_lr(optimizer, cfg, 0)
        scaler = torch.amp.GradScaler(setting.device, enabled=half)
        items = []
        for seed in range(batch):
            image, instances = scene(setting, seed, classes)
            h, w = instances.image_size
            items.append({"image": image, "instances": instances, "height": h, "width": w})
        step = timed(setting, lambda: _step(model, items, optimizer, scaler), repeats=4)
        model.eval()
        with torch.inference_mode(), torch.autocast(setting.device, torch.float16, enabled=half):
            inference[0] = timed(setting, lambda: model(items[:1]))
        return step

    found = speed(*halving(seconds, TINY_BATCH if setting.tiny else BATCH))
    rate = 1 / inference[0]
    return found | {"inference_images_per_s": rate, "note": f"inference {rate:.1f} images/s"}


def torchvision(setting: Setting) -> dict:
    """Time the training step of torchvision's Mask R-CNN R50-FPN."""

    def seconds(batch: int) -> float:
        h, w = TINY_SIDES if setting.tiny else SIDES
        no_files = {"weights": None, "weights_backbone": None}
        sizes = {"num_classes": 81, "min_size": h, "max_size": w}
        if setting.tiny:
            sizes |= {"box_batch_size_per_image": 8, "rpn_post_nms_top_n_train": 30}
        model = maskrcnn_resnet50_fpn(**no_files, **sizes).to(setting.device)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-5, momentum=0.9, weight_decay=1e-4)
        images, targets = [], []
        for seed in range(batch):
            image, instances = scene(setting, seed, 80)
            boxes, kinds = instances.gt_boxes, instances.gt_classes
            assert boxes is not None, "scene() gives boxes"
            assert kinds is not None, "scene() gives classes"
            x0, y0, x1, y1 = boxes.T[..., None, None]
            y, x = torch.arange(h)[:, None], torch.arange(w)
            masks = ((x >= x0) & (x < x1) & (y >= y0) & (y < y1)).to(torch.uint8)
            target = {"boxes": boxes, "labels": 1 + kinds}
            images.append(image)
            targets.append({**target, "masks": masks})

        def step() -> None:
            inputs = [image.to(setting.device).float() / 255 for image in images]
            truth = [{k: v.to(setting.device) for k, v in t.items()} for t in targets]
            loss = sum(model.train()(inputs, truth).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return timed(setting, step, repeats=4)

    return speed(*halving(seconds, TINY_BATCH if setting.tiny else BATCH))

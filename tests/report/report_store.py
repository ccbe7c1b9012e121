"""A store of made-up runs: every number here is invented by a formula and measured nowhere."""

import json
from pathlib import Path
from typing import Any

from harl_bench.core.results import CheckpointRef, Result, slug
from harl_bench.core.runs import run_id

METRICS = {
    "voc": ("AP", "AP50", "AP75"),
    "coco": tuple(f"{kind}/{ap}" for kind in ("bbox", "segm") for ap in ("AP", "AP50", "AP75")),
    "classify": ("top1", "top5", "mean_per_class"),
    "cityscapes": ("segm/AP", "segm/AP50"),
    "segment": ("mIoU", "mAcc", "aAcc"),
    "masks": ("foreground_iou",),
}
ADDED = {"AP50": 26.0, "AP75": 6.0, "top5": 18.0}


def result(
    task: str = "voc",
    method: str = "harl",
    seed: int = 0,
    *,
    score: float = 40.0,
    dataset: str = "voc07+12",
    protocol: str = "voc-c4-24k",
    checkpoint: str = "",
    sha256: str = "",
    **more: Any,
) -> Result:
    """A result: `score` plus a fixed amount for each metric, plus a tenth for each seed."""
    random = method == "random"
    name = checkpoint or ("random" if random else f"{method}_100")
    reference = CheckpointRef(
        path=f"ckpts/{name}.pth",
        name=name,
        sha256=sha256 or ("" if random else f"{sum(name.encode()):08x}" * 8),
        format="random" if random else "harl-bench",
    )
    config = more.pop("config", {"SOLVER": {"BASE_LR": 0.02, "MAX_ITER": 24000}, "SEED": seed})
    metrics = {
        m: round(score + ADDED.get(m.split("/")[-1], 0.0) + 0.1 * seed, 4) for m in METRICS[task]
    }
    values: dict[str, Any] = {
        "run_id": run_id(
            task=task,
            dataset=dataset,
            protocol=protocol,
            checkpoint_sha256=name,
            seed=seed,
            config=config,
            data_fingerprint="",
        ),
        "task": task,
        "dataset": dataset,
        "protocol": protocol,
        "engine": "torchvision",
        "method": method,
        "checkpoint": reference,
        "seed": seed,
        "metrics": metrics,
        "n_test": 100,
        "config": config,
        "manifest": {
            "argv": ["harl-bench", task, reference.path],
            "packages": {"torch": "2.14.1"},
            "git": None,
        },
        "started": "2026-01-02T03:04:05+00:00",
        "wall_s": 61.5,
        "peak_memory_mb": 1234.0,
    } | more
    return Result(**values)


def write(root: Path, *results: Result) -> list[Path]:
    """Put results where a run would put them; the folders."""
    folders = []
    for r in results:
        parent = (
            root
            / r.task
            / slug(r.dataset)
            / slug(r.protocol)
            / f"{slug(r.checkpoint.name)}-{r.checkpoint.sha256[:8] or 'none'}"
        )
        folder = parent / f"seed{r.seed}"
        if folder.exists():
            folder = parent / f"seed{r.seed}-{r.run_id[:8]}"
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(r.model_dump_json())
        folders.append(folder)
    return folders


def small(toy: bool = False) -> list[Result]:
    """Three methods, three seeds, VOC, COCO and linear classification."""
    made = []
    for place, (method, score) in enumerate((("random", 30.0), ("byol", 40.0), ("harl", 41.0))):
        for seed in (0, 1, 2):
            jitter = score + ((seed + 1) * (place + 2) % 5) / 4
            made += [
                result("voc", method, seed, score=jitter, toy=toy),
                result(
                    "coco",
                    method,
                    seed,
                    score=jitter - 2,
                    dataset="coco",
                    protocol="coco-fpn-2fc-1x",
                    toy=toy,
                ),
                result(
                    "classify",
                    method,
                    seed,
                    score=jitter + 20,
                    dataset="cifar10",
                    protocol="linear",
                    toy=toy,
                ),
            ]
    return made


def metrics_file(folder: Path, steps: int = 30, **last: float) -> None:
    """A metrics.jsonl with the keys of a pretraining run."""
    lines = []
    for step in range(steps):
        share = step / max(steps - 1, 1)
        row = {
            "step": step,
            "loss": 4 - share,
            "loss_whole": 4 - 1.2 * share,
            "loss_foreground": 4 - 0.8 * share,
            "loss_background": 4 - 0.5 * share,
            "alpha": 0.5 + 0.5 * share,
            "lambda": 0.7 + 0.3 * share,
            "tau": 0.99 + 0.01 * share,
            "lr": 0.2 * (1 - share),
            "feature_std": 0.02,
        } | last
        lines.append(json.dumps(row))
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def draw_image(path: Path, number: int = 0, size: tuple[int, int] = (640, 480)) -> None:
    """A drawn PNG: a gradient with boxes."""
    import numpy as np
    from PIL import Image, ImageDraw

    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    levels = np.stack(
        [127 + 120 * np.sin((x * (k + 1) + y * number) / 70 + k) for k in range(3)], axis=-1
    )
    image = Image.fromarray(levels.astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for k in range(3):
        left, top = (number * 53 + k * 170) % (width // 2), (number * 31 + k * 90) % (height // 2)
        draw.rectangle(
            (left, top, left + width // 3, top + height // 3), outline=(255, 230, 60), width=4
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)

"""The commands voc and coco on tiny data, and what they leave behind."""

from harl_bench.core.results import read_result

TINY = [
    "SOLVER.IMS_PER_BATCH=2",
    "INPUT.MIN_SIZE_TRAIN=(32, 40)",
    "INPUT.MAX_SIZE_TRAIN=48",
    "INPUT.MIN_SIZE_TEST=32",
    "INPUT.MAX_SIZE_TEST=48",
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE=8",
    "SOLVER.MAX_ITER=4",
    "SOLVER.WARMUP_ITERS=2",
    "SOLVER.STEPS=(3,)",
    "SOLVER.CHECKPOINT_PERIOD=100",
    "TEST.PRECISE_BN.NUM_ITER=2",
    "DATALOADER.NUM_WORKERS=0",
]
QUICK = [*TINY, "SOLVER.MAX_ITER=2", "SOLVER.STEPS=()", "TEST.PRECISE_BN.NUM_ITER=1"]


def result_of(out):
    (path,) = out.rglob("result.json")
    return path.parent, read_result(path)


def voc(root, out, *more, recipe="voc-c4-toy", engine="torchvision"):
    options = ["--data", str(root), "--recipe", recipe, "--engine", engine, "--out", str(out)]
    return ["voc", "random", *options, *more]


def coco(root, out, *more, images=0):
    data = ["--data", str(root), "--out", str(out), "--images", str(images)]
    recipe = ["--recipe", "coco-fpn-toy", "--engine", "torchvision", *QUICK]
    return ["coco", "random", *data, *recipe, *more]

"""--save-memory: losses, gradients and statistics bit for bit, far fewer saved tensors."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from harl_bench.cli import main
from harl_bench.convert.read import read_backbone
from harl_bench.core.results import read_result
from harl_bench.detection import batch, recipe
from harl_bench.detection.torchvision_engine import checkpoints, train
from harl_bench.detection.torchvision_engine.backbone import Bottleneck, Stem, make_stage
from harl_bench.detection.torchvision_engine.model import build_model
from harl_bench.detection.torchvision_engine.recompute import save_memory
from tests.detection import parity, tiny
from tests.detection.command import QUICK, voc
from tests.detection.test_train import job, same

BLOCKS = (Stem, Bottleneck)
GIB = 2**30
SMALL = ["MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE=8", "MODEL.RPN.POST_NMS_TOPK_TRAIN=50"]


class Saved:
    """The bytes of what a forward pass keeps for the backward pass, each piece of memory once.

    `without`: memory that is there anyway, as weights are.
    """

    def __init__(self, *without):
        self.known = {value.untyped_storage()._cdata for value in without}
        self.kept = {}

    def __enter__(self):
        self.hooks = saved_tensors_hooks(self.pack, lambda tensor: tensor)
        self.hooks.__enter__()
        return self

    def __exit__(self, *error):
        self.hooks.__exit__(*error)

    def pack(self, tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in self.known:
            # held, so that no address is used twice
            self.kept[storage._cdata] = (storage.nbytes(), tensor)
        return tensor

    @property
    def gib(self):
        return sum(size for size, _ in self.kept.values()) / GIB


def one_step(name, overrides, *, saving):
    """Losses, gradients, and statistics after a step."""
    cfg = recipe.load(name, [*parity.SMALL, *SMALL, *overrides])
    torch.manual_seed(0)
    model = build_model(cfg)
    parity.set_weights(model)
    if saving:
        assert save_memory(model, BLOCKS) == 17
    torch.manual_seed(1)
    losses = model(parity.batch(cfg.MODEL.ROI_HEADS.NUM_CLASSES))
    sum(losses.values()).backward()
    return [
        dict(losses),
        {n: p.grad for n, p in model.named_parameters() if p.grad is not None},
        model.state_dict(),
    ]


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("voc-c4-24k", []),
        ("coco-fpn-4conv1fc-1x", []),
        ("coco-fpn-stock-1x", []),  # FrozenBN, stem and res2 frozen
    ],
)
def test_numbers_and_statistics_are_the_same_bit_for_bit(name, overrides):
    plain, saving = (one_step(name, overrides, saving=flag) for flag in (False, True))
    for expected, found in zip(plain, saving, strict=True):
        assert same(expected, found)


def test_running_statistics_move_once():
    """The second computation of a block must not move them again, nor count the batch again."""
    block = Bottleneck(64, 256, 1, "BN", False)
    x = torch.randn(2, 64, 8, 8, generator=torch.Generator().manual_seed(0))
    save_memory(block, BLOCKS)
    block(x).sum().backward()
    norm = block.conv1.norm
    expected = 0.1 * torch.nn.functional.conv2d(x, block.conv1.weight).mean((0, 2, 3))
    torch.testing.assert_close(norm.running_mean, expected)
    assert int(norm.num_batches_tracked) == 1


def test_training_ends_with_the_same_weights(tmp_path):
    """Through the real loop: warm-up, momentum, precise batch norm, checkpoint."""
    root = tiny.voc(tmp_path / "data", years=("VOC2007",))
    tensors = read_backbone("random", seed=0).tensors
    for name, saving in (("plain", False), ("saving", True)):
        train.train(
            job(
                tmp_path / name,
                root,
                tensors,
                "SOLVER.MAX_ITER=2",
                "SOLVER.STEPS=()",
                save_memory=saving,
            )
        )
    plain, saving = (
        checkpoints.read(tmp_path / n / "checkpoints/model_final.pth") for n in ("plain", "saving")
    )
    assert same(dict(plain["model"]), dict(saving["model"]))
    assert same(plain["optimizer"], saving["optimizer"])


def test_the_run_is_the_same_run(tmp_path, capsys):
    root = tiny.voc(tmp_path / "data")
    assert main([*voc(root, tmp_path / "runs"), *QUICK, "--pictures", "0", "--save-memory"]) == 0
    assert main([*voc(root, tmp_path / "runs"), *QUICK, "--pictures", "0"]) == 0
    assert "finished before" in capsys.readouterr().out
    (path,) = (tmp_path / "runs").rglob("result.json")
    assert not any("memory" in departure for departure in read_result(path).departures)


def test_two_images_of_c4_fit_into_8_gib():
    """At 800 x 1333 with 512 proposals each, counted on tensors that have a size and no content."""
    cfg = recipe.load("coco-c4-1x")
    with torch.device("meta"):
        model = build_model(cfg)
        images, pooled = (
            torch.empty(2, 3, 800, 1333),
            torch.empty(2 * 512, 1024, 14, 14, requires_grad=True),
        )
    state = [*model.parameters(), *model.buffers()]

    def saved():
        with Saved(*state) as kept:
            maps = model.backbone(images)
            model.proposal_generator.rpn_head(maps["res4"])
            out = model.roi_heads.res5(pooled)
            model.roi_heads.box_predictor(out.mean(dim=[2, 3]))
            model.roi_heads.mask_head(out[: 2 * 128])  # at most a quarter are objects
        return kept.gib

    plain = saved()
    save_memory(model, BLOCKS)
    saving = saved()
    with torch.device("meta"):
        largest = make_stage("res5", "SyncBN", False)[0]
    # recomputed while others are kept
    with Saved(*largest.parameters(), *largest.buffers(), pooled) as again:
        largest(pooled)
    # with gradients and momentum
    weights = 3 * sum(p.numel() for p in model.parameters()) * 4 / GIB
    assert plain == pytest.approx(2 * 4.3, rel=0.05)
    assert weights == pytest.approx(0.4, rel=0.1)
    assert plain + weights > 8
    assert saving < 0.4 * plain
    assert saving + again.gib == pytest.approx(2 * 2.65, rel=0.05)
    # and while the largest block is run backward, the gradients of its output and of its widest
    # inner maps
    assert saving + again.gib + weights + 3 * pooled.nbytes / 2 / GIB < 8


def test_an_image_of_cityscapes():
    """At 1024 x 2048 with 512 proposals, a quarter of them objects, counted in the same way."""
    cfg = recipe.load("cityscapes-fpn-24k")
    with torch.device("meta"):
        model = build_model(cfg)
        images = torch.empty(1, 3, 1024, 2048)
        boxes, masks = (
            torch.empty(n, 256, side, side, requires_grad=True) for n, side in ((512, 7), (128, 14))
        )
        largest = make_stage("res2", "SyncBN", False)[0]
        x = torch.empty(1, 64, 256, 512, requires_grad=True)
    state = [*model.parameters(), *model.buffers()]

    def saved():
        with Saved(*state) as kept:
            for map_ in model.backbone(images).values():
                model.proposal_generator.rpn_head(map_)
            model.roi_heads.box_predictor(model.roi_heads.box_head(boxes))
            model.roi_heads.mask_head(masks)
        return kept.gib

    plain = saved()
    save_memory(model, BLOCKS)
    with Saved(*largest.parameters(), *largest.buffers(), x) as again:
        largest(x)
    counted = batch.IMAGE_GIB["FPN, 2 fc", 1024]
    assert (plain, saved() + again.gib) == pytest.approx(counted, rel=0.02)


def test_saved_tensors_shrink_for_real():
    """The same count on real tensors of a small network, whole training step."""
    cfg = recipe.load("voc-c4-24k", [*parity.SMALL, *SMALL])
    sizes = []
    for saving in (False, True):
        model = build_model(cfg)
        if saving:
            save_memory(model, BLOCKS)
        torch.manual_seed(0)
        with Saved(*model.parameters(), *model.buffers()) as kept:
            losses = model(parity.batch(20))
        assert losses
        sizes.append(kept.gib)
    assert sizes[1] < 0.4 * sizes[0]

"""An FCN at the recipe's crop: training step and inference."""

import torch

from benchmarks.gpu_check.measure import halving, speed, timed
from benchmarks.gpu_check.setting import Setting
from harl_bench.segmentation import network, recipe
from harl_bench.segmentation.train import step

CLASSES = 21
TINY_PX, TINY_BATCH = 33, 2


def ours(setting: Setting, *, name: str, amp: bool = False) -> dict:
    """Time a training step of the recipe `name`, and the inference of one crop."""
    _, settings, _ = recipe.load(name)
    px = TINY_PX if setting.tiny else settings.input.crop_px
    half = amp and not setting.tiny
    inference = [0.0]

    def seconds(batch: int) -> float:
        torch.manual_seed(0)
        model = network.build(settings, CLASSES).to(setting.device).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
        scaler = torch.amp.GradScaler(setting.device, enabled=half)
        x = torch.randn(batch, 3, px, px, device=setting.device)
        labels = torch.randint(CLASSES, (batch, px, px), device=setting.device)
        trained = timed(
            setting, lambda: step(model, x, labels, settings, optimizer, scaler), repeats=4
        )
        model.eval()
        with torch.inference_mode(), torch.autocast(setting.device, torch.float16, enabled=half):
            inference[0] = timed(setting, lambda: model(x[:1]))
        return trained

    numbers = speed(*halving(seconds, TINY_BATCH if setting.tiny else settings.solver.batch))
    rate = 1 / inference[0]
    return numbers | {"inference_images_per_s": rate, "note": f"inference {rate:.1f} images/s"}

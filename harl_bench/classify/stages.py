"""Feature maps of any stage of a ResNet, pooled to about 9,000 values for an SVM.

Stages count as in VISSL and mmselfsup ("feat1" to "feat5"): 1 is conv1 after its ReLU, 2 to 5 are
layer1 to layer4. A ResNet-50 gives 9,216, 9,216, 8,192, 9,216 and 8,192 values for 224 px.
Source: mmselfsup's MultiPooling, "specified" (mmselfsup/models/utils/multi_pooling.py).
"""

import torchvision
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d

CHANNELS = {"resnet50": (64, 256, 512, 1024, 2048), "resnet18": (64, 64, 128, 256, 512)}
SIDES = (112, 56, 28, 14, 7)  # of the maps of 224 px
POOLED = (12, 6, 4, 3, 2)  # sides after pooling
WINDOWS = ((10, 10, 4), (16, 8, 0), (13, 5, 0), (8, 3, 0), (6, 1, 0))  # kernel, stride, padding
PARTS = ("maxpool", "layer1", "layer2", "layer3", "layer4")


def width(arch: str, stage: int) -> int:
    """Return the number of pooled values of an image."""
    return CHANNELS[arch][stage - 1] * POOLED[stage - 1] ** 2


def end_at(model: torchvision.models.ResNet, stage: int) -> None:
    """Let a ResNet whose `fc` is the identity return the pooled map of a stage, in place."""
    for name in PARTS[stage if stage > 1 else 0 :]:
        setattr(model, name, nn.Identity())
    model.avgpool = Pool(stage)


class Pool(nn.Module):
    """Average a map [B, C, S, S] to [B, C, P, P].

    Maps of other sides than those of 224 px are averaged over P x P equal parts.
    """

    def __init__(self, stage: int) -> None:
        super().__init__()
        self.side, self.pooled = SIDES[stage - 1], POOLED[stage - 1]
        self.window = WINDOWS[stage - 1]

    def forward(self, x: Tensor) -> Tensor:
        """Return the averages."""
        if tuple(x.shape[2:]) == (self.side, self.side):
            return avg_pool2d(x, *self.window)
        return adaptive_avg_pool2d(x, self.pooled)

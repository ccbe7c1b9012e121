"""Training with labels: the baseline that every transfer table starts with (torchvision's reference recipe)."""

import torch
from torch import nn

from harl_bench.core.errors import UsageError
from harl_bench.nn import resnet
from pretrain.config import PretrainConfig
from pretrain.methods.method import Batch, StepOutput


class Supervised:
    """Cross-entropy of a linear classifier on the globally pooled features."""

    def __init__(self, config: PretrainConfig) -> None:
        if config.classes is None:
            raise UsageError("supervised training needs classes", next="one sub-folder of pictures for each class")
        self.backbone = resnet.build(**config.network())
        self.classifier = nn.Linear(resnet.FEATURES[config.backbone], config.classes)
        self.networks = nn.ModuleDict({"backbone": self.backbone, "classifier": self.classifier})
        self.smoothing = config.label_smoothing

    def step(self, batch: Batch, k: int, K: int) -> StepOutput:
        """The first view, classified."""
        assert batch.labels is not None, "the loop fills labels where there are classes"
        h = resnet.dense_features(self.backbone, batch.views[0])
        logits = self.classifier(h.float().mean(dim=(2, 3))).float()
        with torch.autocast(logits.device.type, enabled=False):
            loss = nn.functional.cross_entropy(logits, batch.labels, label_smoothing=self.smoothing)
        right = (logits.detach().argmax(dim=1) == batch.labels).float().mean()
        return StepOutput(loss, {"batch_top1": 100 * right})

    def after_step(self, k: int, K: int) -> None:
        """Nothing follows."""

    def trained(self) -> list[nn.Module]:
        """Backbone and classifier."""
        return [self.backbone, self.classifier]

    @property
    def module(self) -> nn.Module:
        """Backbone and classifier."""
        return self.networks

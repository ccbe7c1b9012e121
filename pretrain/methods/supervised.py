"""Training with labels: the baseline of every transfer table (torchvision's reference recipe)."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import nn

from harl_bench.core.errors import UsageError
from harl_bench.nn import resnet
from pretrain.batch import Batch
from pretrain.config import PretrainConfig
from pretrain.methods.method import Method, StepOutput


class Config(PretrainConfig):
    """Keys of training with labels."""

    needs_labels: ClassVar[bool] = True
    classes: int | None = Field(default=None, gt=0, description="None: as many as the data have")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)


class Supervised(Method):
    """Cross-entropy of a linear classifier on the globally pooled features."""

    configs = {"": Config}

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.classes is None:
            raise UsageError(
                "supervised training needs classes", next="one sub-folder of images for each class"
            )
        self.backbone = resnet.build(**config.network())
        self.classifier = nn.Linear(resnet.FEATURES[config.backbone], config.classes)
        self.smoothing = config.label_smoothing

    @classmethod
    def passes(cls, config: PretrainConfig) -> float:
        """Return one: the first view's."""
        return 1

    def forward(self, batch: Batch, k: int, K: int) -> StepOutput:
        """Classify the first view."""
        assert batch.labels is not None, "the loop fills labels where there are classes"
        h = resnet.dense_features(self.backbone, batch.views[0])
        logits = self.classifier(h.float().mean(dim=(2, 3))).float()
        with torch.autocast(logits.device.type, enabled=False):
            loss = nn.functional.cross_entropy(logits, batch.labels, label_smoothing=self.smoothing)
        correct = (logits.detach().argmax(dim=1) == batch.labels).float().mean()
        return StepOutput(loss, {"batch_top1": 100 * correct})

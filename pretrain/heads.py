"""The MLP heads g (projector) and q (predictor)."""

from lightly.models.modules.heads import ProjectionHead
from torch import nn


def mlp(inputs: int, hidden: int, outputs: int, *, bias: bool = False) -> nn.Module:
    """Linear, BN, ReLU, Linear; the last without bias (BYOL's released code), unless asked for (docs/fidelity.md 1.1).

    Maps [B, inputs] to [B, outputs]. 2048-4096-512 has 10,498,048 parameters, 512-4096-512 has 4,206,592.
    """
    head: nn.Module = ProjectionHead(
        [(inputs, hidden, nn.BatchNorm1d(hidden), nn.ReLU(inplace=True), True), (hidden, outputs, None, None, bias)]
    )
    return head

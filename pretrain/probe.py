"""A linear classifier that learns beside the backbone, on detached features, to watch them."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from harl_bench.nn import distributed
from pretrain.schedules import learning_rate

MOMENTUM = 0.9


class Probe:
    """Multinomial regression on the globally pooled features of each batch's first view, by an SGD
    of its own.

    The features are caught where they leave the backbone, so every method has the probe and none
    knows of it. Weights begin at zero: no random number is drawn. [HARL section 5 probes during
    pretraining; BYOL's and SimCLR's code too.]

    Args:
        backbone: the network that is trained; features are those of its first call in training mode
            with gradients.
        features, classes: sizes.
        base_lr: per 256 images, cosine without warm-up.
    """

    def __init__(
        self, backbone: nn.Module, *, features: int, classes: int, base_lr: float, batch_size: int
    ) -> None:
        # Made so, no random number is drawn.
        self.linear = nn.Linear(features, classes, device="meta").to_empty(device="cpu")
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.peak = base_lr * batch_size / 256
        self.optimizer = torch.optim.SGD(self.linear.parameters(), lr=self.peak, momentum=MOMENTUM)
        self._caught: Tensor | None = None
        self._handle: RemovableHandle = backbone.get_submodule("layer4").register_forward_hook(
            self._catch
        )

    def _catch(self, module: nn.Module, inputs: Any, h: Tensor) -> None:
        if self._caught is None and module.training and torch.is_grad_enabled():
            self._caught = h.detach()

    def learn(self, labels: Tensor, parts: int) -> Tensor:
        """Add the gradient of the batch that just went through the backbone; its accuracy before
        learning, percent.

        Args:
            labels: [B] int64.
            parts: batches that make a step.
        """
        assert self._caught is not None, "the backbone has seen the batch"
        h, self._caught = self._caught, None
        logits = self.linear(h.float().mean(dim=(2, 3)))
        loss = nn.functional.cross_entropy(logits, labels)
        (loss / parts).backward()  # type: ignore[no-untyped-call]
        right: Tensor = (logits.detach().argmax(dim=1) == labels).float()
        return 100 * right.mean()

    def step(self, k: int, K: int) -> None:
        """Update with the mean gradient of all processes."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.peak, k, K, 0)
        if distributed.world_size() > 1:
            for parameter in self.linear.parameters():
                assert parameter.grad is not None, "learn() came before"
                torch.distributed.all_reduce(parameter.grad)
                parameter.grad /= distributed.world_size()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def forget(self) -> None:
        """Drop what was caught outside of a training step."""
        self._caught = None

    def close(self) -> None:
        """Let the backbone go."""
        self._handle.remove()

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"linear": self.linear.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """Undo `state`."""
        self.linear.load_state_dict(state["linear"])
        self.optimizer.load_state_dict(state["optimizer"])

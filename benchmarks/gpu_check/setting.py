"""Where and how large the parts run."""

import argparse
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """A run's sizes.

    Args:
        tiny: small enough for a CPU.
        ends_at: when the budget ends, of `time.monotonic`, which all processes share.
    """

    tiny: bool
    ends_at: float

    @property
    def device(self) -> str:
        """Return "cuda", or "cpu" for a tiny run."""
        return "cpu" if self.tiny else "cuda"

    @property
    def left_s(self) -> float:
        """Return the seconds that are left of the budget."""
        return self.ends_at - time.monotonic()

    @property
    def patience_s(self) -> float:
        """Return how long any part may take."""
        return 900.0 if self.tiny else 60.0

    def sizes(self, precision: str = "bf16") -> argparse.Namespace:
        """Return the options of benchmarks/pretrain_step.py."""
        import torch

        return argparse.Namespace(
            device=self.device,
            backbone="resnet18" if self.tiny else "resnet50",
            size=32 if self.tiny else 224,
            batch=4 if self.tiny else 512,
            precision="fp32" if self.tiny else precision,
            layout=torch.contiguous_format if self.tiny else torch.channels_last,
        )

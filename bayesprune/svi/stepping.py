"""How fit takes a step: over how many batches, in which precision, under which norm."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


class Stepping:
    """What lies between a batch and a step.

    Args:
        accumulate: batches whose gradients are averaged.
        clip_norm: largest norm of the gradients of the likelihood, or None.
        autocast: type of the forward passes, or None for that of the weights.
        device: type of the device.
    """

    def __init__(
        self,
        accumulate: int = 1,
        clip_norm: float | None = None,
        autocast: torch.dtype | None = None,
        device: str = "cpu",
    ) -> None:
        self.accumulate, self.clip_norm, self.autocast, self.device = accumulate, clip_norm, autocast, device
        self.scaler = torch.amp.GradScaler(device) if autocast == torch.float16 else None

    def forward(self) -> AbstractContextManager[Any]:
        """The precision of a forward pass: ended before the step, so that no cast of a weight outlives it."""
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.device, self.autocast)

    def describe(self) -> dict[str, Any]:
        """What must be equal for a resumed run."""
        told = None if self.autocast is None else str(self.autocast)
        return {"accumulate": self.accumulate, "clip_norm": self.clip_norm, "autocast": told}

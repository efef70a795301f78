"""The value of a site that follows from others: a point, for every configuration of enumerated gates."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import Delta
from torch import Tensor

_NO_SHAPE = torch.Size()


class Given(Delta):
    """A Delta over enumerated values, which says that it has the shape of one of them.

    Pyro's check of model against guide (``pyro.util.check_model_guide_match``, 1.9.2) cuts shapes at
    ``len(shape) - max_plate_nesting - event_dim``. For a model's site of two event dimensions that is not
    enumerated itself this is negative and cuts its event, and equal events are called unequal; shapes that
    are equal from the start pass.
    """

    def shape(self, sample_shape: Any = _NO_SHAPE) -> torch.Size:
        """The event's own."""
        return torch.Size(self.event_shape)

    def log_prob(self, x: Tensor) -> Tensor:
        """(...), 0 nats where x is the value, else minus infinity; a Delta's own reads ``shape()``."""
        same = (x == self.v).flatten(x.ndim - self.event_dim).all(-1)
        zero_or_never = torch.zeros_like(same, dtype=self.v.dtype).masked_fill(~same, -torch.inf)
        nats: Tensor = self.log_density + zero_or_never
        return nats

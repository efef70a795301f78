"""The noise of weights that have a posterior, as a network runs: what a fused step hands to it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bayesprune.gated import GatedModel


class WeightNoise:
    """Draws weights w ~ N(loc, scale²), or what they do to the outputs of a linear map.

    Args:
        gated: the model; weights without a posterior are points.
        generator: of the noise.
    """

    def __init__(self, gated: GatedModel, generator: torch.Generator) -> None:
        self.gated = gated
        self.generator = generator

    def draw(self, name: str, weight: Tensor) -> Tensor:
        """A weight, drawn once for all rows.

        Args:
            name: of the tensor.
            weight: (...), the posterior's mean.

        Returns:
            (...), the weight itself where it has no posterior.
        """
        log_scale = self._log_scales().get(name)
        return weight if log_scale is None else weight + log_scale.exp() * self._normal(weight)

    def linear(self, names: tuple[str, str | None], x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """A linear map with weights independent from row to row: exact, and of low variance.

        y ~ N(x Wᵀ + b, x² (σ_W²)ᵀ + σ_b²).

        Args:
            names: of the weight and of the bias.
            x: (rows, units read).
            weight: (units made, units read), the posterior's mean.
            bias: (units made,), the posterior's mean, or None.

        Returns:
            (rows, units made).
        """
        mean, log_scales = F.linear(x, weight, bias), self._log_scales()
        weight_scale, bias_scale = (log_scales.get(name) if name else None for name in names)
        if weight_scale is None:
            return mean
        bias_variance = None if bias_scale is None else (2 * bias_scale).exp()
        variance = F.linear(x.square(), (2 * weight_scale).exp(), bias_variance)
        return mean + variance.clamp_min(1e-16).sqrt() * self._normal(mean)

    def _log_scales(self) -> dict[str, nn.Parameter]:
        return self.gated.log_scales_by_tensor()

    def _normal(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self.generator, device=like.device, dtype=like.dtype)

"""Incoming weights of a unit that are there, or are exactly zero, together."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Normal, constraints, kl_divergence, register_kl

from bayesprune.errors import PriorError
from bayesprune.priors.checks import as_real
from bayesprune.priors.gates import Gates

_NO_SHAPE = torch.Size()


class SpikeAndSlabNormal(TorchDistribution):
    r"""A unit's incoming weights: zero together, or Gaussian together.

    .. math:: w \sim (1 - \lambda)\, \delta_0 + \lambda\, \mathcal{N}(\mu, \mathrm{diag}(\sigma^2)),
              \qquad w \in \mathbb{R}^d

    The density is taken with respect to a point mass at zero plus Lebesgue measure. The divergence between
    two of them is closed, KL(Bern λ ‖ Bern λ') + λ KL(N ‖ N'), as in Jantre, Bhattacharya & Maiti, "Layer
    Adaptive Node Selection in Bayesian Neural Networks" (arXiv 2108.11000).

    Args:
        inclusion: (...), probability λ that the unit is there, in [0, 1].
        loc: (..., fan_in), mean μ of the slab.
        scale: (..., fan_in) or anything that broadcasts to it, standard deviation σ of the slab, positive.
        validate_args: check arguments and values; by default as torch does.

    Raises:
        PriorError: a loc without a weight dimension, shapes that do not broadcast, or values out of range.

    Example:
        >>> import torch
        >>> from bayesprune.priors import SpikeAndSlabNormal
        >>> weights = SpikeAndSlabNormal(inclusion=0.25, loc=torch.zeros(5), scale=1.0)
        >>> weights.event_shape, round(weights.log_prob(torch.zeros(5)).exp().item(), 6)
        (torch.Size([5]), 0.75)
    """

    arg_constraints: ClassVar = {
        "inclusion": constraints.unit_interval,
        "loc": constraints.independent(constraints.real, 1),
        "scale": constraints.independent(constraints.positive, 1),
    }
    support = constraints.independent(constraints.real, 1)

    def __init__(
        self,
        inclusion: Tensor | float,
        loc: Tensor,
        scale: Tensor | float,
        validate_args: bool | None = None,
    ) -> None:
        if loc.dim() == 0:
            raise PriorError(
                "SpikeAndSlabNormal needs loc of shape (..., fan_in), and got a scalar: use loc[None]."
            )
        loc = as_real(loc)
        inclusion = torch.as_tensor(inclusion, dtype=loc.dtype, device=loc.device)
        scale = torch.as_tensor(scale, dtype=loc.dtype, device=loc.device)
        try:
            weights = torch.broadcast_shapes(loc.shape, scale.shape)
            batch_shape = torch.broadcast_shapes(inclusion.shape, weights[:-1])
            self.inclusion = inclusion.expand(batch_shape)
            self.loc = loc.expand(batch_shape + weights[-1:])
            self.scale = scale.expand(batch_shape + weights[-1:])
            super().__init__(batch_shape, weights[-1:], validate_args=validate_args)
        except (ValueError, RuntimeError) as error:
            shapes = f"inclusion {tuple(inclusion.shape)}, loc {tuple(loc.shape)}, scale {tuple(scale.shape)}"
            raise PriorError(
                "SpikeAndSlabNormal needs an inclusion in [0, 1] of shape (...), a real loc and a positive "
                f"scale of shape (..., fan_in), and got shapes {shapes}: {error}"
            ) from error

    @property
    def mean(self) -> Tensor:
        """(..., fan_in), λ μ."""
        return self.inclusion.unsqueeze(-1) * self.loc

    @property
    def variance(self) -> Tensor:
        """(..., fan_in), λ σ² + λ (1 - λ) μ²."""
        inclusion = self.inclusion.unsqueeze(-1)
        return inclusion * (self.scale**2 + (1 - inclusion) * self.loc**2)

    def expand(self, batch_shape: Any, _instance: SpikeAndSlabNormal | None = None) -> SpikeAndSlabNormal:
        """The same distribution over a larger batch, still of this class."""
        new = self._get_checked_instance(SpikeAndSlabNormal, _instance)  # type: ignore[no-untyped-call]
        batch_shape = torch.Size(batch_shape)
        new.inclusion = self.inclusion.expand(batch_shape)
        new.loc = self.loc.expand(batch_shape + self.event_shape)
        new.scale = self.scale.expand(batch_shape + self.event_shape)
        super(SpikeAndSlabNormal, new).__init__(batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        result: SpikeAndSlabNormal = new
        return result

    def sample(self, sample_shape: Any = _NO_SHAPE) -> Tensor:
        """Draws, sample_shape + (..., fan_in); a weight vector is wholly zero or wholly Gaussian."""
        shape = self._extended_shape(torch.Size(sample_shape))
        with torch.no_grad():
            there = torch.bernoulli(self.inclusion.expand(shape[:-1])).unsqueeze(-1)
            return there * torch.normal(self.loc.expand(shape), self.scale.expand(shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """(...), nats; a wholly zero vector is the spike, anything else the slab."""
        if self._validate_args:
            self._validate_sample(value)
        there = (value != 0).any(-1)
        slab = Normal(self.loc, self.scale, validate_args=False).log_prob(value).sum(-1)
        gate = self._gate().log_prob(there.to(self.loc.dtype).unsqueeze(-1))
        return gate + torch.where(there, slab, torch.zeros_like(slab))

    def _gate(self) -> Gates:
        return Gates(probs=self.inclusion.unsqueeze(-1), validate_args=False)


def _kl_spike_slab(q: SpikeAndSlabNormal, p: SpikeAndSlabNormal) -> Tensor:
    slab = kl_divergence(
        Normal(q.loc, q.scale, validate_args=False), Normal(p.loc, p.scale, validate_args=False)
    ).sum(-1)
    gate: Tensor = kl_divergence(q._gate(), p._gate())
    return gate + q.inclusion * slab


register_kl(SpikeAndSlabNormal, SpikeAndSlabNormal)(_kl_spike_slab)

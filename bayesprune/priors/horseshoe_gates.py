"""Log-normal gates under half-Cauchy priors that share a scale: the group horseshoe."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from bayesprune.errors import PriorError
from bayesprune.priors.checks import positive
from bayesprune.priors.continuous import ContinuousGuide, ContinuousPrior
from bayesprune.structure.groups import Group

SPACING, REACH = 0.15, 9.0
"""Of a trapezoid rule in standard deviations: its error is below 1e-9 nats for σ up to one."""


class HorseshoeGuide(ContinuousGuide):
    r"""q(log z_u) = N(μ_u, σ_u²), and a point for the scale that the group's units share.

    Its log-odds are the logarithm of the mode of z, :math:`\mu - \sigma^2`, above that of the threshold.

    Args:
        size: units.
        deviation: σ to begin with; μ begins at zero, and the shared scale at one.
        threshold: mode of z below which a unit is removed.

    Attributes:
        loc: (size,), μ.
        raw_log_scale: (size,), log σ before σ is held to at most one: beyond, draws would explode.
        log_shrinkage: (), logarithm of the shared scale.
    """

    def __init__(self, size: int, deviation: float, threshold: float) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(size))
        self.raw_log_scale = nn.Parameter(torch.full((size,), math.log(deviation)))
        self.log_shrinkage = nn.Parameter(torch.zeros(()))
        self.threshold = threshold

    @property
    def log_scale(self) -> Tensor:
        """(size,), log σ."""
        return self.raw_log_scale.clamp_max(0.0)

    def posterior(self) -> dist.LogNormal:
        """The log-normal distribution."""
        return dist.LogNormal(self.loc, self.log_scale.exp(), validate_args=False)

    def sample(self, rows: int, units: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """e^(μ + σ ε)."""
        noise = torch.empty(rows, len(units), dtype=self.loc.dtype, device=self.loc.device)
        noise.normal_(generator=generator)
        return torch.addcmul(self.loc[units], noise, self.log_scale[units].exp()).exp()

    def mean(self) -> Tensor:
        """E[z] = e^(μ + σ²/2)."""
        return (self.loc + 0.5 * (2 * self.log_scale).exp()).exp()

    def log_odds(self) -> Tensor:
        """μ − σ² − log threshold."""
        return self.loc - (2 * self.log_scale).exp() - math.log(self.threshold)


class HorseshoeGates(ContinuousPrior):
    r"""Half-Cauchy gates of a shared half-Cauchy scale: the group horseshoe.

    .. math:: z_u \sim C^+(0, s), \quad s \sim C^+(0, \tau_0), \quad q(\log z_u) = \mathcal{N}(\mu, \sigma^2)

    .. math:: \mathrm{KL}_u = -\mu - \tfrac12 \log 2\pi e\sigma^2 - \log\frac{2}{\pi s}
              + \mathbb{E}_{\varepsilon}\big[\log(1 + e^{2(\mu + \sigma\varepsilon)} / s^2)\big]

    the last term by a trapezoid rule, which converges as fast as exponentially. After Louizos, Ullrich &
    Welling, "Bayesian Compression for Deep Learning" (arXiv 1705.08665), and from its text, no code of it
    being published. There each half-Cauchy is split in two further variables with log-normal guides of their
    own, which loosens the bound; here they are integrated out, and s, at the site ``'shrinkage/<group>'``, is
    a point. Weights are N(0, z_u²) given the gate: ``weights=NormalWeights(posterior="normal")``.

    Args:
        weight: of the divergence, > 0.
        shrinkage: τ₀ > 0, the scale of the shared one.
        threshold: mode of z below which a unit is removed, > 0; set by hand in the paper too.
        deviation: σ to begin with, at most one.

    Raises:
        PriorError: a number out of range.

    Example:
        >>> from bayesprune.priors import HorseshoeGates
        >>> HorseshoeGates(threshold=0.05)
        HorseshoeGates(weight=1, shrinkage=1e-05, threshold=0.05, deviation=0.011109)
    """

    def __init__(
        self,
        weight: float = 1.0,
        shrinkage: float = 1e-5,
        threshold: float = 0.05,
        deviation: float = math.exp(-4.5),
    ) -> None:
        super().__init__(weight)
        for name, value in (("shrinkage", shrinkage), ("threshold", threshold), ("deviation", deviation)):
            if not positive(value):
                raise PriorError(f"HorseshoeGates: {name}={value!r} must be a positive finite number.")
        self.shrinkage, self.threshold, self.deviation = float(shrinkage), float(threshold), float(deviation)

    def __call__(self, group: Group) -> TorchDistribution:
        """C⁺(0, s), with s at the site ``'shrinkage/<group>'``."""
        shared = pyro.sample(f"shrinkage/{group.name}", dist.HalfCauchy(torch.tensor(self.shrinkage)))
        gates: TorchDistribution = dist.HalfCauchy(shared.expand(group.size))
        return gates

    def family(self, group: Group) -> HorseshoeGuide:
        """LogNormal(0, deviation²)."""
        return HorseshoeGuide(group.size, self.deviation, self.threshold)

    def guide(self, group: Group, q: ContinuousGuide, alive: Tensor) -> None:
        """The shared scale, a point."""
        assert isinstance(q, HorseshoeGuide)
        pyro.sample(f"shrinkage/{group.name}", dist.Delta(q.log_shrinkage.exp()))

    def nats(self, group: Group, q: ContinuousGuide, alive: Tensor) -> Tensor:
        """Scalar, the units' divergences, and −log p(s)."""
        assert isinstance(q, HorseshoeGuide)
        ratio = 2 * (q.log_shrinkage - math.log(self.shrinkage))
        of_shared = math.log(math.pi / 2) + math.log(self.shrinkage) + nn.functional.softplus(ratio)
        return torch.where(alive, self._each(q), 0.0).sum() + of_shared

    def prices(self, group: Group, q: ContinuousGuide, alive: Tensor) -> Tensor:
        """(group.size,), the units' divergences, with ``weight``."""
        assert isinstance(q, HorseshoeGuide)
        return self.weight * torch.where(alive, self._each(q), 0.0)

    def _each(self, q: HorseshoeGuide) -> Tensor:
        like, scale = q.loc, q.log_scale.exp()
        noise = torch.arange(-REACH, REACH + SPACING / 2, SPACING, dtype=like.dtype, device=like.device)
        share = torch.softmax(-0.5 * noise.square(), 0)
        above = 2 * (torch.addcmul(like, noise.unsqueeze(1), scale) - q.log_shrinkage)  # (nodes, units)
        tail = share @ nn.functional.softplus(above)
        entropy = like + q.log_scale + 0.5 * math.log(2 * math.pi * math.e)
        return tail - entropy - math.log(2 / math.pi) + q.log_shrinkage

    def __repr__(self) -> str:
        return (
            f"HorseshoeGates(weight={self.weight:g}, shrinkage={self.shrinkage:g}, "
            f"threshold={self.threshold:g}, deviation={self.deviation:g})"
        )

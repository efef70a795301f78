"""Gaussian gates: multiplicative noise whose scale the prior takes over (VIB), or that has none (GNJ)."""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints

from bayesprune.errors import PriorError
from bayesprune.priors.checks import positive
from bayesprune.priors.continuous import ContinuousGuide, ContinuousPrior, estimated_at, taken_over
from bayesprune.structure.groups import Group

FIT = (0.63576, 1.87320, 1.48695)
"""k₁, k₂, k₃ of Molchanov, Ashukha & Vetrov (2017), arXiv 1701.05369."""


class GaussianGuide(ContinuousGuide):
    r"""q(z_u) = N(μ_u, σ_u²).

    Its log-odds are log μ²/σ², the logarithm of the squared signal-to-noise ratio.

    Args:
        size: units.
        deviation: σ to begin with; μ begins at one.
        line: log-odds below which a unit is removed; at 0 that is a signal-to-noise ratio under one.

    Attributes:
        loc: (size,), μ.
        log_variance: (size,), log σ².
    """

    def __init__(self, size: int, deviation: float, line: float = 0.0) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.ones(size))
        self.log_variance = nn.Parameter(torch.full((size,), 2 * math.log(deviation)))
        self.line = line

    def posterior(self) -> dist.Normal:
        """N(μ, σ²)."""
        return dist.Normal(self.loc, (0.5 * self.log_variance).exp(), validate_args=False)

    def sample(self, rows: int, units: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """μ + σ ε."""
        noise = torch.empty(rows, len(units), dtype=self.loc.dtype, device=self.loc.device)
        noise.normal_(generator=generator)
        return torch.addcmul(self.loc[units], noise, (0.5 * self.log_variance[units]).exp())

    def mean(self) -> Tensor:
        """μ."""
        return self.loc

    def log_odds(self) -> Tensor:
        """Log μ²/σ²."""
        return self.loc.square().clamp_min(torch.finfo(self.loc.dtype).tiny).log() - self.log_variance

    def signal(self) -> Tensor:
        """(size,), μ²/σ²."""
        return self.loc.square() * (-self.log_variance).exp()


class GaussianGates(ContinuousPrior):
    r"""Gaussian gates whose prior has the scale that suits them best: the variational information bottleneck.

    .. math:: z_u \sim \mathcal{N}(0, s_u^2), \qquad q(z_u) = \mathcal{N}(\mu_u, \sigma_u^2), \qquad
              \min_{s_u} \mathrm{KL} = \tfrac12 \log\Big(1 + \frac{\mu_u^2}{\sigma_u^2}\Big)
              \ \text{at}\ s_u^2 = \mu_u^2 + \sigma_u^2

    The scale is the site ``'scale/<group>'``, estimated and not drawn. A unit stays while μ²/σ² > 1, a
    signal-to-noise ratio above one. After Dai, Zhu, Guo & Wipf, "Compressing Neural Networks using the
    Variational Information Bottleneck" (arXiv 1802.10399), who give the penalty a factor for each layer: that
    is ``weight``, in nats of the whole data set for each nat of a row's bottleneck; one gives the ELBO.

    A unit at the default start pays 4.5 nats times the weight, and 0.35 at the line.

    Args:
        weight: of the divergence, > 0: the larger, the smaller the network.
        deviation: σ to begin with; e^-4.5 in the authors' code.

    Raises:
        PriorError: a number out of range.

    Example:
        >>> import torch
        >>> from bayesprune.priors import GaussianGates
        >>> from bayesprune.structure.groups import Group
        >>> prior, group = GaussianGates(weight=20.0), Group("fc1", size=2)
        >>> q = prior.family(group)
        >>> [round(v, 3) for v in prior.nats(group, q, torch.ones(2, dtype=torch.bool)).tolist()]
        [4.5, 4.5]
    """

    def __init__(self, weight: float = 1.0, deviation: float = math.exp(-4.5)) -> None:
        super().__init__(weight)
        self.deviation = _deviation(deviation, "GaussianGates")

    def __call__(self, group: Group) -> TorchDistribution:
        """N(0, s²), with s at the site ``'scale/<group>'``."""
        scale = taken_over(f"scale/{group.name}", group.size, constraints.positive)
        return dist.Normal(torch.zeros_like(scale), scale)

    def family(self, group: Group) -> GaussianGuide:
        """N(1, deviation²)."""
        return GaussianGuide(group.size, self.deviation)

    def guide(self, group: Group, q: ContinuousGuide, alive: Tensor) -> None:
        """Put the scale at its best, √(μ² + σ²)."""
        assert isinstance(q, GaussianGuide)
        estimated_at(f"scale/{group.name}", (q.loc.square() + q.log_variance.exp()).sqrt())

    def nats(self, group: Group, q: ContinuousGuide, alive: Tensor) -> Tensor:
        """(group.size,), ½ log(1 + μ²/σ²)."""
        assert isinstance(q, GaussianGuide)
        return torch.where(alive, 0.5 * torch.log1p(q.signal()), 0.0)

    def __repr__(self) -> str:
        return f"GaussianGates(weight={self.weight:g}, deviation={self.deviation:g})"


class NormalJeffreysGates(ContinuousPrior):
    r"""Gaussian gates under a prior without scale, p(z) ∝ 1/|z|: the normal-Jeffreys prior of groups.

    .. math:: \mathrm{KL} \approx \tfrac12 \log(1 + e^{-a}) + k_1 - k_1 \operatorname{sigmoid}(k_2 + k_3 a),
              \qquad a = \log\frac{\sigma_u^2}{\mu_u^2}

    up to the constant of an improper prior, chosen so that it goes to 0 as a → ∞; within 0.009 nats of the
    divergence (tested by quadrature). From Louizos, Ullrich & Welling, "Bayesian Compression for Deep
    Learning" (arXiv 1705.08665), where weights are N(0, z_u²) given the gate: that is
    ``weights=NormalWeights(posterior="normal")`` here, the gate multiplying what reads the unit. A unit stays
    while a < threshold, which they set by hand, layer by layer, between −5 and −2.8.

    Args:
        weight: of the divergence, > 0.
        threshold: on a.
        deviation: σ to begin with; e^-4.5 in the authors' code.

    Raises:
        PriorError: a number out of range.

    Example:
        >>> from bayesprune.priors import NormalJeffreysGates
        >>> NormalJeffreysGates(threshold=-3.0)
        NormalJeffreysGates(weight=1, threshold=-3, deviation=0.011109)
    """

    def __init__(
        self, weight: float = 1.0, threshold: float = 0.0, deviation: float = math.exp(-4.5)
    ) -> None:
        super().__init__(weight)
        if isinstance(threshold, bool) or not isinstance(threshold, int | float):
            raise PriorError(f"NormalJeffreysGates: threshold={threshold!r} must be a number.")
        if not math.isfinite(threshold):
            raise PriorError(f"NormalJeffreysGates: threshold={threshold!r} must be finite.")
        self.threshold = float(threshold)
        self.deviation = _deviation(deviation, "NormalJeffreysGates")

    def __call__(self, group: Group) -> TorchDistribution:
        """The density 1/|z| on the line, improper: it can be scored, and not drawn from."""
        return _Jeffreys(group.size)

    def family(self, group: Group) -> GaussianGuide:
        """N(1, deviation²)."""
        return GaussianGuide(group.size, self.deviation, line=-self.threshold)

    def nats(self, group: Group, q: ContinuousGuide, alive: Tensor) -> Tensor:
        """(group.size,), the divergence by the fitted formula."""
        assert isinstance(q, GaussianGuide)
        k1, k2, k3 = FIT
        ratio = q.log_odds().clamp(-40.0, 40.0)  # −a; at μ = 0 it is −∞, and without a slope
        nats = 0.5 * nn.functional.softplus(ratio) + k1 * torch.sigmoid(k3 * ratio - k2)
        return torch.where(alive, nats, 0.0)

    def __repr__(self) -> str:
        return (
            f"NormalJeffreysGates(weight={self.weight:g}, threshold={self.threshold:g}, "
            f"deviation={self.deviation:g})"
        )


class _Jeffreys(dist.ImproperUniform):
    """log p(z) = −log |z|."""

    def __init__(self, size: int) -> None:
        super().__init__(constraints.real, torch.Size([size]), torch.Size())  # type: ignore[no-untyped-call]

    def expand(self, batch_shape: object, _instance: object = None) -> _Jeffreys:
        """The same density of other shape."""
        return _Jeffreys(int(torch.Size(batch_shape).numel()))  # type: ignore[arg-type]

    def log_prob(self, value: Tensor) -> Tensor:
        """(..., size), −log |z|."""
        return -value.abs().log()


def _deviation(deviation: float, name: str) -> float:
    if not positive(deviation):
        raise PriorError(f"{name}: deviation={deviation!r} must be a positive finite number.")
    return float(deviation)

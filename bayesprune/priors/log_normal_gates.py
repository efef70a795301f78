"""Log-normal gates under a log-uniform prior, both on an interval (SBP), and three rules of their death."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints

from bayesprune.errors import PriorError
from bayesprune.priors.bmrs import HIGH, LOW, MANTISSA, normal_reduction, uniform_reduction
from bayesprune.priors.checks import positive
from bayesprune.priors.continuous import ContinuousGuide, ContinuousPrior
from bayesprune.priors.truncated_normal import (
    divergence_from_uniform,
    log_density,
    log_exponential_moment,
    log_mass,
    quantile,
)
from bayesprune.structure.groups import Group

_NO_SHAPE = torch.Size()
RULES = ("snr", "bmrs_normal", "bmrs_uniform")
FARTHEST = 10.0
"""Standard deviations that μ may lie above the interval: beyond them draws have no digits left."""


class TruncatedLogNormal(TorchDistribution):
    r"""z = e^t with t ~ N(μ, σ²) on [−20, 0]: factors between e⁻²⁰ and one.

    Args:
        loc: (...), μ.
        scale: (...), σ > 0.

    Example:
        >>> import torch
        >>> from bayesprune.priors import TruncatedLogNormal
        >>> z = TruncatedLogNormal(torch.tensor(-1.0), torch.tensor(0.5))
        >>> round(z.mean.item(), 4), bool(z.sample() <= 1)
        (0.3981, True)
    """

    arg_constraints: ClassVar = {"loc": constraints.real, "scale": constraints.positive}
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor, validate_args: bool | None = None) -> None:
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> constraints.Constraint:
        """[e⁻²⁰, 1]."""
        return constraints.interval(math.exp(LOW), math.exp(HIGH))

    def log_moment(self, order: float) -> Tensor:
        """(...), float64, log E[z^order]."""
        return log_exponential_moment(order, self.loc.double(), self.scale.double(), LOW, HIGH)

    @property
    def mean(self) -> Tensor:
        """(...), E[z]."""
        return self.log_moment(1).exp().to(self.loc)

    @property
    def variance(self) -> Tensor:
        """(...), E[z²] − E[z]²."""
        first = self.log_moment(1)
        return ((2 * first).exp() * torch.expm1(self.log_moment(2) - 2 * first)).to(self.loc)

    def expand(self, batch_shape: Any, _instance: Any = None) -> TruncatedLogNormal:
        """The same distribution over a larger batch."""
        shape = torch.Size(batch_shape)
        return TruncatedLogNormal(self.loc.expand(shape), self.scale.expand(shape), validate_args=False)

    def rsample(self, sample_shape: Any = _NO_SHAPE) -> Tensor:
        """Draws by the inverse of the distribution function, differentiable."""
        shape = self._extended_shape(torch.Size(sample_shape))
        uniform = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
        return quantile(uniform, self.loc, self.scale, LOW, HIGH).exp()

    def log_prob(self, value: Tensor) -> Tensor:
        """(...), nats; −∞ outside of the interval."""
        t = value.log()
        standard, low, high = ((e - self.loc) / self.scale for e in (t, LOW, HIGH))
        score: Tensor = log_density(standard) - self.scale.log() - log_mass(low, high) - t
        return score.masked_fill(_outside(t), -torch.inf)


class LogUniform(TorchDistribution):
    """p(z) = 1/(20 z) on [e⁻²⁰, 1], both ends included, as draws that are rounded come there.

    Args:
        size: gates.
    """

    arg_constraints: ClassVar = {}
    support = constraints.positive
    has_rsample = True

    def __init__(self, size: int) -> None:
        super().__init__(torch.Size([size]), validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> LogUniform:
        """The same distribution of so many gates."""
        return LogUniform(int(torch.Size(batch_shape).numel()))

    def rsample(self, sample_shape: Any = _NO_SHAPE) -> Tensor:
        """Draws."""
        return (LOW + (HIGH - LOW) * torch.rand(self._extended_shape(torch.Size(sample_shape)))).exp()

    def log_prob(self, value: Tensor) -> Tensor:
        """(...), nats; −∞ outside of the interval."""
        t = value.log()
        return (-t - math.log(HIGH - LOW)).masked_fill(_outside(t), -torch.inf)


def _outside(t: Tensor) -> Tensor:
    rounding = 8 * torch.finfo(t.dtype).eps * abs(LOW)
    return (t < LOW - rounding) | (t > HIGH + rounding)


class LogNormalGuide(ContinuousGuide):
    r"""q(log z_u) = N(μ_u, σ_u²) on [−20, 0].

    Its log-odds are log E[z]²/Var[z] under the rule ``"snr"``, and −ΔF under those of Bayesian model
    reduction: the log-evidence for the unit.

    Args:
        size: units.
        scale: σ to begin with; μ begins at zero.
        rule: of death.
        bits: of the rule ``"bmrs_uniform"``.
        line: log-odds below which a unit is removed.

    Attributes:
        raw_loc: (size,), μ before it is held to [−20, 10 σ].
        log_scale: (size,), log σ.
    """

    def __init__(
        self, size: int, scale: float, rule: str = "snr", bits: float = 8.0, line: float = 0.0
    ) -> None:
        super().__init__()
        self.raw_loc = nn.Parameter(torch.zeros(size))
        self.log_scale = nn.Parameter(torch.full((size,), math.log(scale)))
        self.rule, self.bits, self.line = rule, bits, line

    @property
    def scale(self) -> Tensor:
        """(size,), σ."""
        return self.log_scale.exp()

    @property
    def loc(self) -> Tensor:
        """(size,), μ."""
        return torch.minimum(self.raw_loc, FARTHEST * self.scale).clamp_min(LOW)

    def posterior(self) -> TruncatedLogNormal:
        """The truncated log-normal."""
        return TruncatedLogNormal(self.loc, self.scale, validate_args=False)

    def sample(self, rows: int, units: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """e^t, t by the inverse of its distribution function."""
        shape, loc, scale = (rows, len(units)), self.loc[units], self.scale[units]
        uniform = torch.rand(shape, generator=generator, dtype=loc.dtype, device=loc.device)
        return quantile(uniform, loc, scale, LOW, HIGH).exp()

    def mean(self) -> Tensor:
        """E[z]."""
        return self.posterior().mean

    def log_odds(self) -> Tensor:
        """By the rule."""
        posterior = self.posterior()
        if self.rule == "bmrs_normal":
            return -normal_reduction(posterior.loc, posterior.scale).to(self.log_scale)
        if self.rule == "bmrs_uniform":
            return -uniform_reduction(posterior.loc, posterior.scale, self.bits).to(self.log_scale)
        spread = torch.expm1(posterior.log_moment(2) - 2 * posterior.log_moment(1))
        return -spread.clamp_min(torch.finfo(spread.dtype).eps).log().to(self.log_scale)


class LogNormalGates(ContinuousPrior):
    r"""Log-normal gates under a log-uniform prior, on [e⁻²⁰, 1]: structured Bayesian pruning.

    .. math:: p(z) \propto 1/z, \qquad q(\log z) = \mathcal{N}(\mu, \sigma^2)
              \quad\text{on}\quad e^{-20} \le z \le 1

    with the divergence in closed form (``truncated_normal.divergence_from_uniform``). After Neklyudov,
    Molchanov, Ashukha & Vetrov, "Structured Bayesian Pruning via Log-Normal Multiplicative Noise" (arXiv
    1705.07283), whose rule is ``"snr"``: a unit stays while E[z]/√Var[z] > 1. The other two are Bayesian
    model reduction, without a threshold (Wright, Igel & Selvan, arXiv 2406.01345): a unit goes where the
    evidence prefers a prior under which it is gone, a point at e⁻²⁰ (``"bmrs_normal"``) or whatever float32
    loses beside one (``"bmrs_uniform"``, below 2^-bits). A unit that has lost all signal has q(z) = p(z), and
    there the first form is ΔF = 0, right at its line: short trainings stop a tenth of a nat before it, and
    ``line`` says how much evidence for a unit is too little.

    Args:
        weight: of the divergence, > 0; 1 in the first paper.
        rule: ``"snr"``, ``"bmrs_normal"`` or ``"bmrs_uniform"``.
        bits: of the last; 8 or 4 in the paper.
        line: log-odds below which a unit is removed: of the reductions −ΔF, nats; under ``"snr"`` the
            logarithm of the squared ratio.
        scale: σ to begin with; e⁻⁵ in the authors' code.

    Raises:
        PriorError: a number out of range, or another rule.

    Example:
        >>> import torch
        >>> from bayesprune.priors import LogNormalGates
        >>> from bayesprune.structure.groups import Group
        >>> prior, group = LogNormalGates(rule="bmrs_normal"), Group("fc1", size=1)
        >>> round(prior.nats(group, prior.family(group), torch.ones(1, dtype=torch.bool)).item(), 3)
        7.27
    """

    def __init__(
        self,
        weight: float = 1.0,
        rule: str = "snr",
        bits: float = 8.0,
        line: float = 0.0,
        scale: float = math.exp(-5.0),
    ) -> None:
        super().__init__(weight)
        if isinstance(line, bool) or not isinstance(line, int | float) or not math.isfinite(line):
            raise PriorError(f"LogNormalGates: line={line!r} must be a finite number.")
        if rule not in RULES:
            raise PriorError(f"LogNormalGates: rule={rule!r} must be one of {', '.join(map(repr, RULES))}.")
        if not (positive(bits) and bits < MANTISSA):
            raise PriorError(f"LogNormalGates: bits={bits!r} must lie between 0 and {MANTISSA}.")
        if not positive(scale):
            raise PriorError(f"LogNormalGates: scale={scale!r} must be a positive finite number.")
        self.rule, self.bits, self.line, self.scale = rule, float(bits), float(line), float(scale)

    def __call__(self, group: Group) -> TorchDistribution:
        """Log-uniform on [e⁻²⁰, 1]."""
        return LogUniform(group.size)

    def family(self, group: Group) -> LogNormalGuide:
        """N(0, scale²) on [−20, 0]."""
        return LogNormalGuide(group.size, self.scale, self.rule, self.bits, self.line)

    def nats(self, group: Group, q: ContinuousGuide, alive: Tensor) -> Tensor:
        """(group.size,), the divergence."""
        assert isinstance(q, LogNormalGuide)
        nats = divergence_from_uniform(q.loc.double(), q.scale.double(), LOW, HIGH)
        return torch.where(alive, nats, 0.0).to(q.log_scale)

    def __repr__(self) -> str:
        bits = f", bits={self.bits:g}" if self.rule == "bmrs_uniform" else ""
        line = f", line={self.line:g}" if self.line else ""
        return f"LogNormalGates(weight={self.weight:g}, rule={self.rule!r}{bits}{line}, scale={self.scale:g})"

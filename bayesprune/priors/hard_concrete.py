"""Hard concrete gates: between zero and one, with both of them possible exactly; priced by P(z ≠ 0) (L0)."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import logsigmoid

from bayesprune.errors import PriorError
from bayesprune.priors.continuous import ContinuousGuide, ContinuousPrior, estimated_at, taken_over
from bayesprune.priors.gates import Gates
from bayesprune.priors.protocol import HyperPrior
from bayesprune.structure.groups import Group

TEMPERATURE, LOW, HIGH = 2 / 3, -0.1, 1.1
_NO_SHAPE = torch.Size()
SHIFT = TEMPERATURE * math.log(-LOW / HIGH)
"""logit P(z ≠ 0) = log α − this."""


class HardConcrete(TorchDistribution):
    r"""z = min(1, max(0, s (ζ − γ) + γ)) with s = σ((log u − log(1 − u) + log α)/β), u ~ U(0, 1).

    β = 2/3, γ = −0.1, ζ = 1.1. Zero and one have probabilities, what lies between a density: ``log_prob`` is
    against the sum of both.

    .. math:: P(z = 0) = \sigma\big(\beta \log\tfrac{-\gamma}{\zeta} - \log\alpha\big), \qquad
              P(z = 1) = \sigma\big(\log\alpha - \beta \log\tfrac{1 - \gamma}{\zeta - 1}\big)

    Args:
        log_alpha: (...), log α.

    Example:
        >>> import torch
        >>> from bayesprune.priors import HardConcrete
        >>> z = HardConcrete(torch.tensor(0.0))
        >>> round(z.nonzero_logits.sigmoid().item(), 3)
        0.832
    """

    arg_constraints: ClassVar = {"log_alpha": constraints.real}
    support = constraints.unit_interval
    has_rsample = True

    def __init__(self, log_alpha: Tensor, validate_args: bool | None = None) -> None:
        self.log_alpha = log_alpha
        super().__init__(log_alpha.shape, validate_args=validate_args)

    @property
    def nonzero_logits(self) -> Tensor:
        """(...), logit P(z ≠ 0)."""
        return self.log_alpha - SHIFT

    def expand(self, batch_shape: Any, _instance: Any = None) -> HardConcrete:
        """The same distribution over a larger batch."""
        return HardConcrete(self.log_alpha.expand(torch.Size(batch_shape)), validate_args=False)

    def rsample(self, sample_shape: Any = _NO_SHAPE) -> Tensor:
        """Draws, differentiable in log α where they lie between zero and one."""
        shape = self._extended_shape(torch.Size(sample_shape))
        return stretched(self.log_alpha, torch.rand(shape, dtype=self.log_alpha.dtype))

    def log_prob(self, value: Tensor) -> Tensor:
        """(...), log P(z = 0), log P(z = 1), or the log-density between them."""
        s = ((value - LOW) / (HIGH - LOW)).clamp(1e-6, 1 - 1e-6)
        odds = s.log() - torch.log1p(-s)
        noise = TEMPERATURE * odds - self.log_alpha  # logistic
        density = logsigmoid(noise) + logsigmoid(-noise) + math.log(TEMPERATURE / (HIGH - LOW))
        between = density - s.log() - torch.log1p(-s)
        shut = logsigmoid(-self.nonzero_logits).expand_as(between)
        whole = logsigmoid(self.log_alpha - TEMPERATURE * math.log((1 - LOW) / (HIGH - 1)))
        return torch.where(value <= 0, shut, torch.where(value >= 1, whole.expand_as(between), between))


class SpikeAndSlabOf(HardConcrete):
    """A gate that is zero with a probability of its own, and else as a hard concrete one that is not zero.

    Args:
        log_alpha: (...), of that one.
        logits: (...), log-odds of not being zero.
    """

    def __init__(self, log_alpha: Tensor, logits: Tensor) -> None:
        self.logits = logits
        super().__init__(log_alpha, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> SpikeAndSlabOf:
        """The same distribution over a larger batch."""
        shape = torch.Size(batch_shape)
        return SpikeAndSlabOf(self.log_alpha.expand(shape), self.logits.expand(shape))

    def rsample(self, sample_shape: Any = _NO_SHAPE) -> Tensor:
        """Draws, by the inverse of the distribution function of each part."""
        shape = self._extended_shape(torch.Size(sample_shape))
        shut = torch.sigmoid(-self.nonzero_logits)
        uniform = shut + (1 - shut) * torch.rand(shape, dtype=self.log_alpha.dtype)
        on = torch.rand(shape, dtype=self.log_alpha.dtype) < self.logits.sigmoid()
        return torch.where(on, stretched(self.log_alpha, uniform), 0.0)

    def log_prob(self, value: Tensor) -> Tensor:
        """(...), as the hard concrete's."""
        on = logsigmoid(self.logits) + super().log_prob(value) - logsigmoid(self.nonzero_logits)
        return torch.where(value <= 0, logsigmoid(-self.logits), on)


def stretched(log_alpha: Tensor, uniform: Tensor) -> Tensor:
    """The gate of a uniform number.

    Args:
        log_alpha: (...).
        uniform: (...), in [0, 1].
    """
    odds = torch.logit(uniform, eps=torch.finfo(uniform.dtype).eps)
    s = torch.sigmoid((odds + log_alpha) / TEMPERATURE)
    return (s * (HIGH - LOW) + LOW).clamp(0.0, 1.0)


class HardConcreteGuide(ContinuousGuide):
    """q(z_u) = HardConcrete(log α_u).

    Its log-odds are those of z ≠ 0. The line is where the gate without noise, min(1, max(0, σ(log α)(ζ − γ) +
    γ)), is zero: P(z ≠ 0) = 0.31.

    Args:
        size: units.
        open_: σ(log α) to begin with.

    Attributes:
        log_alpha: (size,), log α.
    """

    probable: ClassVar[bool] = True
    line: float = math.log(-LOW / HIGH) - SHIFT

    def __init__(self, size: int, open_: float) -> None:
        super().__init__()
        self.log_alpha = nn.Parameter(torch.full((size,), math.log(open_ / (1 - open_))))

    def posterior(self) -> HardConcrete:
        """The hard concrete distribution."""
        return HardConcrete(self.log_alpha, validate_args=False)

    def sample(self, rows: int, units: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Gates between zero and one."""
        like = self.log_alpha
        uniform = torch.rand(rows, len(units), generator=generator, dtype=like.dtype, device=like.device)
        return stretched(like[units], uniform)

    def mean(self) -> Tensor:
        """The gate without noise, which the paper's networks are tested with."""
        return (torch.sigmoid(self.log_alpha) * (HIGH - LOW) + LOW).clamp(0.0, 1.0)

    def log_odds(self) -> Tensor:
        """Logit P(z ≠ 0)."""
        return self.log_alpha - SHIFT


class HardConcreteGates(ContinuousPrior):
    r"""Hard concrete gates, priced by P(z ≠ 0): L0 regularisation as inference.

    .. math:: p(z_u) = \pi_u\, q(z_u \mid z_u \ne 0)\,[z_u \ne 0] + (1 - \pi_u)\,[z_u = 0]

    What a gate is where it is not zero costs nothing (the slab is taken over from q: site
    ``'slab/<group>'``), and whether it is zero follows the hyper-prior as a Bernoulli gate does, so that its
    penalty is

    .. math:: \mathrm{KL} = \mathrm{penalty}(P_q(z \ne 0)),

    for a flattening prior its price in nats times Σ P(z ≠ 0). That is the L0 penalty of Louizos, Welling &
    Kingma, "Learning Sparse Neural Networks through L0 Regularization" (arXiv 1712.01312), whose λ in a mean
    loss over N rows is a price of λ N nats. A unit dies in training below ``Shrink.below``, as Bernoulli
    gates do, and at the decision where the gate without noise is zero, as in the paper.

    Args:
        hyper: :class:`Flattening`, :class:`Beta`, :class:`Fixed`, or whatever ``BernoulliGates`` takes.
        open_: σ(log α) to begin with, in (0, 1); a half, and 0.8 for inputs, in the authors' code.

    Raises:
        PriorError: no hyper-prior, or a number out of range.

    Example:
        >>> import torch
        >>> from bayesprune.priors import Flattening, HardConcreteGates
        >>> from bayesprune.structure.groups import Group
        >>> prior, group = HardConcreteGates(Flattening(price=12.0)), Group("fc1", size=3)
        >>> prior.prices(group, prior.family(group), torch.ones(3, dtype=torch.bool)).tolist()
        [12.0, 12.0, 12.0]
    """

    def __init__(self, hyper: HyperPrior, open_: float = 0.8) -> None:
        super().__init__()
        methods = ("logits", "guide", "penalty", "price")
        missing = [name for name in methods if not callable(getattr(hyper, name, None))]
        if missing:
            raise PriorError(
                f"HardConcreteGates needs a hyper-prior, and {hyper!r} has no {', '.join(missing)}: use "
                "Flattening(price=...), Beta(a, b) or Fixed(p)."
            )
        if isinstance(open_, bool) or not isinstance(open_, int | float) or not 0 < open_ < 1:
            raise PriorError(f"HardConcreteGates: open_={open_!r} must lie between 0 and 1.")
        self.hyper, self.open_ = hyper, float(open_)

    def __call__(self, group: Group) -> TorchDistribution:
        """The mixture, with the hyper-prior's sites and ``'slab/<group>'``."""
        logits = self.hyper.logits(group)
        slab = taken_over(f"slab/{group.name}", group.size)
        return SpikeAndSlabOf(slab, logits)

    def family(self, group: Group) -> HardConcreteGuide:
        """HardConcrete with log α = logit of ``open_``."""
        return HardConcreteGuide(group.size, self.open_)

    def guide(self, group: Group, q: ContinuousGuide, alive: Tensor) -> None:
        """The hyper-prior's exact posterior, and the slab at q's own."""
        assert isinstance(q, HardConcreteGuide)
        self.hyper.guide(group, q.log_odds().sigmoid() * alive)
        estimated_at(f"slab/{group.name}", q.log_alpha)

    def nats(self, group: Group, q: ContinuousGuide, alive: Tensor) -> Tensor:
        """Scalar, the hyper-prior's penalty at P(z ≠ 0)."""
        assert isinstance(q, HardConcreteGuide)
        return self.hyper.penalty(group, q.log_odds().sigmoid() * alive)

    def prices(self, group: Group, q: ContinuousGuide, alive: Tensor) -> Tensor:
        """(group.size,), what the last unit costs when every other one is kept."""
        return torch.full((group.size,), self.hyper.price(group))

    def presence(self, group: Group) -> Tensor:
        """(group.size,), whether each gate is not zero."""
        return Gates(logits=self.hyper.logits(group)).sample()

    def __repr__(self) -> str:
        return f"HardConcreteGates({self.hyper!r}, open_={self.open_:g})"

"""Hyper-priors on the prior inclusion probability of a unit, each with its posterior in closed form.

Hyper-sites are sampled in double precision whatever the network uses: prior inclusion probabilities of e^-200
are ordinary here (a price of 200 nats) and would be zero in float32, which would make a gate that is on
impossible. The log-odds that the gates get fit into float32 again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from bayesprune.errors import PriorError
from bayesprune.priors.flattening import FlatteningDistribution
from bayesprune.priors.gates import Gates
from bayesprune.priors.naming import by_name
from bayesprune.priors.protocol import checked
from bayesprune.structure.groups import Group


@dataclass(frozen=True)
class Flattening:
    r"""One flattening hyper-prior per unit: a fixed price in nats for each unit that is kept.

    Site ``'pi/<group>'`` ~ :class:`~bayesprune.priors.FlatteningDistribution`, (size,). Its best point
    estimate given q(gates) = Bern(θ) has logit π* = logit θ - price, and there the whole prior side is

    .. math:: \mathrm{penalty}(\theta) = \mathrm{price} \cdot \sum_i \theta_i
              + K (\log \mathrm{price} - \log(e^{\mathrm{price}} - 1)).

    A unit is therefore kept exactly when it saves more than its price of the training set's total negative
    log-likelihood (Guenter & Sideris, arXiv 2205.04650; identity derived here and tested).

    The Pyro program itself needs e^-price to be a float64: up to about 700 nats. ``penalty`` has no such
    limit.

    Args:
        price: nats for one unit, > 0; or a table by group name or glob pattern, such as
            ``{"conv*": 60.0, "*": 8.0}``.

    Raises:
        PriorError: a price that is not a positive finite number, or (when used) no price for a group.

    Example:
        >>> import torch
        >>> from bayesprune.priors import Flattening
        >>> from bayesprune.structure.groups import Group
        >>> hyper, group = Flattening(price={"conv*": 60.0, "*": 8.0}), Group("fc1", size=2)
        >>> one, none = torch.tensor([1.0, 0.0]), torch.zeros(2)
        >>> round((hyper.penalty(group, one) - hyper.penalty(group, none)).item(), 4)
        8.0
    """

    price_table: Mapping[str, float] = field(init=False)

    def __init__(self, price: float | Mapping[str, float]) -> None:
        table = dict(price) if isinstance(price, Mapping) else {"*": price}
        wrong = [f"'{name}': {value!r}" for name, value in table.items() if not _positive(value)]
        if wrong or not table:
            raise PriorError(
                f"A price is a positive finite number of nats, and got {', '.join(wrong) or 'no price'}: "
                "raise it, or list the group in exclude= to keep all of its units."
            )
        object.__setattr__(self, "price_table", {name: float(value) for name, value in table.items()})

    def price(self, group: Group) -> float:
        """Nats for each unit of this group, whatever the others do."""
        return by_name(self.price_table, group.name, "price")

    def logits(self, group: Group) -> Tensor:
        """Sample 'pi/<group>'; (..., group.size), its log-odds."""
        price = torch.full((group.size,), self.price(group), dtype=torch.double)
        prior_inclusion = pyro.sample(f"pi/{group.name}", FlatteningDistribution(price).to_event(1))
        return _log_odds(prior_inclusion)

    def guide(self, group: Group, inclusion_prob: Tensor) -> None:
        """Put 'pi/<group>' at π*, a point mass.

        It is detached: at the minimum the gradient through π* is zero on average, so only noise is lost.
        """
        theta = checked(group, inclusion_prob).detach()
        best = torch.sigmoid(theta.log() - torch.log1p(-theta) - self.price(group))
        best = best.clamp_min(torch.finfo(best.dtype).tiny)
        pyro.sample(f"pi/{group.name}", dist.Delta(best, event_dim=1))

    def penalty(self, group: Group, inclusion_prob: Tensor) -> Tensor:
        """The price of the expected number of units, with the exact constant: scalar, nats."""
        theta, price = checked(group, inclusion_prob), self.price(group)
        log_peak = price + math.log(-math.expm1(-price) / price)  # log((γ - 1) / log γ)
        return (theta.sum() * price - group.size * log_peak).to(inclusion_prob.dtype)


@dataclass(frozen=True)
class Beta:
    r"""One shared rate for the units of a group, learned along with them.

    Site ``'rate/<group>'`` ~ Beta(a, b), scalar; gates ~ Bern(rate). Conjugate: given q(gates) = Bern(θ) the
    best q(rate) is Beta(a + Σθ, b + Σ(1 - θ)), and there the prior side, with B the Beta function, H the
    entropy, is

    .. math:: \mathrm{penalty}(\theta) = -H(\theta)
              - \log B(a + \textstyle\sum\theta,\, b + \sum(1 - \theta)) + \log B(a, b).

    Args:
        a: pseudo-count of units kept, > 0.
        b: pseudo-count of units removed, > 0.

    Raises:
        PriorError: a count that is not a positive finite number.

    Example:
        >>> import torch
        >>> from bayesprune.priors import Beta
        >>> from bayesprune.structure.groups import Group
        >>> hyper = Beta(1.0, 1.0)  # every number of kept units is equally probable: 0, 1 or 2 of 2
        >>> hyper.penalty(Group("fc1", size=2), torch.ones(2)).exp().item()
        3.0
    """

    a: float
    b: float

    def __post_init__(self) -> None:
        if not (_positive(self.a) and _positive(self.b)):
            raise PriorError(f"Beta needs two positive finite counts, and got a={self.a!r}, b={self.b!r}.")

    @staticmethod
    def from_expected_kept(kept: float, concentration: float = 10.0) -> BetaFromExpectedKept:
        """The Beta whose mean keeps so many units of a group, whatever its size.

        a = concentration · kept / size, b = concentration · (1 - kept / size): the prior weighs as much as
        ``concentration`` units would. The default of 10 is a choice made here, not a published constant: it
        lets a group of a hundred units overrule the prior, and keeps the rate of a small group near it.

        Args:
            kept: expected number of units kept, in (0, size).
            concentration: weight of the prior in units, > 0.

        Returns:
            A hyper-prior; the size is read from each group that it is used on.

        Raises:
            PriorError: a number that is not positive, or (when used) not less than the group's size.

        Example:
            >>> from bayesprune.priors import Beta
            >>> from bayesprune.structure.groups import Group
            >>> Beta.from_expected_kept(30).counts(Group("fc1", size=300))
            (1.0, 9.0)
        """
        return BetaFromExpectedKept(kept, concentration)

    def counts(self, group: Group) -> tuple[float, float]:
        """The pseudo-counts (a, b) for this group."""
        return self.a, self.b

    def price(self, group: Group) -> float:
        """log b - log(a + size - 1): what the last unit costs when all others are kept; often negative.

        The rate is shared, so a unit is the cheaper the more others are kept.
        """
        a, b = self.counts(group)
        return math.log(b) - math.log(a + group.size - 1)

    def logits(self, group: Group) -> Tensor:
        """Sample 'rate/<group>'; (..., group.size), its log-odds for every unit."""
        a, b = (torch.tensor(count, dtype=torch.double) for count in self.counts(group))
        rate = pyro.sample(f"rate/{group.name}", dist.Beta(a, b))
        return _log_odds(rate).unsqueeze(-1).expand((*rate.shape, group.size))

    def guide(self, group: Group, inclusion_prob: Tensor) -> None:
        """Sample 'rate/<group>' from its conjugate posterior (detached: the minimiser's gradient is zero)."""
        theta = checked(group, inclusion_prob).detach()
        a, b = self.counts(group)
        pyro.sample(f"rate/{group.name}", dist.Beta(a + theta.sum(), b + (1 - theta).sum()))

    def penalty(self, group: Group, inclusion_prob: Tensor) -> Tensor:
        """Minus the entropy of the gates, minus the log Beta-Bernoulli evidence: scalar, nats."""
        theta = checked(group, inclusion_prob)
        a, b = self.counts(group)
        before = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
        kept, removed = a + theta.sum(), b + (1 - theta).sum()
        after = torch.lgamma(kept) + torch.lgamma(removed) - math.lgamma(a + b + group.size)
        return (before - after - Gates(probs=theta).entropy()).to(inclusion_prob.dtype)


@dataclass(frozen=True)
class BetaFromExpectedKept:
    """A :class:`Beta` for each group, by its expected number of kept units: see ``Beta.from_expected_kept``.

    Args:
        kept: expected number of units kept, in (0, size).
        concentration: weight of the prior in units, > 0.
    """

    kept: float
    concentration: float = 10.0

    def __post_init__(self) -> None:
        if not (_positive(self.kept) and _positive(self.concentration)):
            raise PriorError(
                f"from_expected_kept needs positive finite numbers, and got kept={self.kept!r}, "
                f"concentration={self.concentration!r}."
            )

    def counts(self, group: Group) -> tuple[float, float]:
        """The pseudo-counts (a, b) for this group."""
        if self.kept >= group.size:
            raise PriorError(
                f"Group '{group.name}' has {group.size} units, so a prior that expects to keep {self.kept:g} "
                "of them is impossible: expect fewer, or give this group a prior of its own with PerGroup."
            )
        share = self.kept / group.size
        return self.concentration * share, self.concentration * (1 - share)

    def _beta(self, group: Group) -> Beta:
        return Beta(*self.counts(group))

    def price(self, group: Group) -> float:
        """What the last unit costs when all others are kept, in nats."""
        return self._beta(group).price(group)

    def logits(self, group: Group) -> Tensor:
        """Sample 'rate/<group>'; (..., group.size), its log-odds for every unit."""
        return self._beta(group).logits(group)

    def guide(self, group: Group, inclusion_prob: Tensor) -> None:
        """Sample 'rate/<group>' from its conjugate posterior."""
        self._beta(group).guide(group, inclusion_prob)

    def penalty(self, group: Group, inclusion_prob: Tensor) -> Tensor:
        """Minus the entropy of the gates, minus the log Beta-Bernoulli evidence: scalar, nats."""
        return self._beta(group).penalty(group, inclusion_prob)


def _log_odds(probability: Tensor) -> Tensor:
    """Log-odds in the network's precision, of a probability in double precision."""
    return (probability.log() - torch.log1p(-probability)).to(torch.get_default_dtype())


def _positive(value: object) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value) and value > 0  # type: ignore[operator, arg-type]

"""One inclusion probability shared by the units of a group, with its posterior in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from bayesprune.errors import PriorError
from bayesprune.priors.checks import checked, positive
from bayesprune.priors.gates import Gates, log_odds
from bayesprune.structure.groups import Group


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
        if not (positive(self.a) and positive(self.b)):
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
        a, b = (torch.tensor(float(count)) for count in self.counts(group))
        rate = pyro.sample(f"rate/{group.name}", dist.Beta(a, b))
        return log_odds(rate).unsqueeze(-1).expand((*rate.shape, group.size))

    def guide(self, group: Group, inclusion_prob: Tensor) -> None:
        """Sample 'rate/<group>' from its conjugate posterior (detached: the minimiser's gradient is zero)."""
        theta = checked(group, inclusion_prob).detach()
        a, b = self.counts(group)
        kept, removed = a + theta.sum(), b + (1 - theta).sum()
        pyro.sample(f"rate/{group.name}", dist.Beta(kept.to(inclusion_prob), removed.to(inclusion_prob)))

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
        if not (positive(self.kept) and positive(self.concentration)):
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
